"""Every convention against its own formula, computed step by step with plain `math`, and against its framework."""

from __future__ import annotations

import inspect
import itertools
import math
import os
import re
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")

import convention_formulas
import numpy as np
import pytest
from convention_formulas import REFERENCES, all_arrays, random_arrays, reference_run

import quantgru as qg
from quantgru.importers.array_layout import Array, Sizes
from quantgru.importers.conventions import CONVENTIONS

TOLERANCE = 1e-12  # float64 against float64
FLOAT32_TOLERANCE = 1e-6  # a framework in float32


def test_every_convention_has_a_reference():
    assert REFERENCES.keys() == CONVENTIONS.keys()


@pytest.mark.parametrize(("inputs", "units"), [(3, 4), (3, 3), (1, 1), (5, 2), (1, 3)])
@pytest.mark.parametrize("name", REFERENCES)
def test_a_convention_is_its_formula(name, inputs, units):
    """With each choice of the groups that may be left out."""
    required, *optional = random_arrays(name, inputs, units)
    x = np.random.default_rng(1).normal(size=(6, inputs))
    for chosen in itertools.product((True, False), repeat=len(optional)):
        given = dict(required)
        everything = dict(required)
        for group, is_given in zip(optional, chosen, strict=True):
            given |= group if is_given else {}
            everything |= group if is_given else {key: np.zeros_like(values) for key, values in group.items()}
        model = qg.from_arrays(name, **given)
        expected = reference_run(name, everything, x, np.zeros(units))
        assert np.abs(model.run(x[None])[0] - expected).max() <= TOLERANCE
        assert not model.last_step and (model.n_inputs, model.n_outputs) == (inputs, units)


@pytest.mark.parametrize("name", REFERENCES)
def test_every_array_matters(name):
    """The comparison above would see any value that is wrong: each changes the result after two steps."""
    arrays = all_arrays(name, 2, 2)
    x = np.array([[0.5, -1.0], [2.0, 0.3], [-0.4, 0.9]])
    expected = reference_run(name, arrays, x, np.zeros(2))
    for key, values in arrays.items():
        for index in np.ndindex(values.shape):
            changed = {**arrays, key: values + 0.25 * (np.indices(values.shape).T == index).all(axis=-1).T}
            assert np.abs(qg.from_arrays(name, **changed).run(x[None])[0] - expected).max() > 1e-5, (key, index)


@pytest.mark.parametrize("name", REFERENCES)
def test_a_given_initial_state(name):
    arrays = all_arrays(name, 3, 4)
    start = np.array([0.5, -1.5, 0.25, 2.0])
    x = np.random.default_rng(1).normal(size=(5, 3))
    for given in (start, start[None, None], start.tolist()):
        model = qg.from_arrays(name, initial_state=given, **arrays)
        assert np.abs(model.run(x[None])[0] - reference_run(name, arrays, x, start)).max() <= TOLERANCE


@pytest.mark.parametrize("name", REFERENCES)
def test_the_arrays_of_the_caller_stay_as_they_are(name):
    arrays = all_arrays(name, 3, 4)
    before = {key: values.copy() for key, values in arrays.items()}
    (layer,) = qg.from_arrays(name, **arrays).layers
    assert all(np.array_equal(arrays[key], before[key]) for key in arrays)
    assert not any(np.shares_memory(layer.input_weights, values) for values in arrays.values())


# ---- functions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slope", [0.2, 1 / 6, 0.75])
@pytest.mark.parametrize("name", REFERENCES)
def test_hard_sigmoid_gates(name, slope, monkeypatch):
    """Also where z replaces: limit(1/2 - s a) is 1 - limit(1/2 + s a)."""
    monkeypatch.setattr(convention_formulas, "sigma", lambda v: [min(max(slope * a + 0.5, 0.0), 1.0) for a in v])
    arrays = {key: 3 * values for key, values in all_arrays(name, 3, 4).items()}
    x = np.random.default_rng(1).normal(size=(6, 3))
    model = qg.from_arrays(name, gate="hard_sigmoid", slope=slope, **arrays)
    assert np.abs(model.run(x[None])[0] - reference_run(name, arrays, x, np.zeros(4))).max() <= TOLERANCE


CANDIDATES = {
    "relu": lambda a: max(a, 0.0),
    "linear": lambda a: a,
    "sigmoid": lambda a: 1 / (1 + math.exp(-a)),
    "hard_tanh": lambda a: min(max(a, -1.0), 1.0),
}


@pytest.mark.parametrize("candidate", CANDIDATES)
@pytest.mark.parametrize("name", REFERENCES)
def test_candidate_functions(name, candidate, monkeypatch):
    monkeypatch.setattr(convention_formulas, "tanh", lambda v: [CANDIDATES[candidate](a) for a in v])
    arrays = all_arrays(name, 3, 4)
    x = np.random.default_rng(1).normal(size=(6, 3))
    expected = reference_run(name, arrays, x, np.zeros(4))
    model = qg.from_arrays(name, candidate=candidate, **arrays)
    assert np.abs(model.run(x[None])[0] - expected).max() <= TOLERANCE * max(1, np.abs(expected).max())


# ---- the frameworks themselves -------------------------------------------------------------------------------------


def random_x(inputs=3):
    return np.random.default_rng(2).normal(size=(2, 7, inputs))


@pytest.mark.parametrize("bias", [True, False])
def test_pytorch(bias):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install quantgru[torch]")
    module = torch.nn.GRU(3, 4, batch_first=True, bias=bias).double()
    torch.manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, 0, 0.7)
    parameters = {key.removesuffix("_l0"): values for key, values in module.state_dict().items()}
    expected = module(torch.from_numpy(random_x()))[0].detach().numpy()
    found = qg.from_arrays("pytorch", **parameters).run(random_x())
    assert np.abs(found - expected).max() <= TOLERANCE
    # PyTorch hands these very parameters to cuDNN, gate by gate: aten/src/ATen/native/cudnn/RNN.cpp
    as_cudnn = {}
    for key, letter in {"weight_ih": "W", "weight_hh": "R", "bias_ih": "b_W", "bias_hh": "b_R"}.items():
        for gate, values in zip("rih", np.split(parameters[key], 3) if key in parameters else (), strict=False):
            as_cudnn[f"{letter}{gate}" if "b_" in letter else f"{letter}_{gate}"] = values
    assert np.array_equal(qg.from_arrays("cudnn", **as_cudnn).run(random_x()), found)


@pytest.mark.parametrize("after", [True, False])
@pytest.mark.parametrize("functions", [("sigmoid", "tanh"), ("hard_sigmoid", "relu"), ("hard_sigmoid", "linear")])
@pytest.mark.parametrize("bias", [True, False])
def test_keras(after, functions, bias):
    pytest.importorskip("torch", reason="PyTorch, the back end, is not installed: pip install quantgru[torch]")
    keras = pytest.importorskip("keras", reason="Keras is not installed: pip install 'keras>=3.6'")
    gate, candidate = functions
    layer = keras.layers.GRU(
        4,
        recurrent_activation=gate,
        activation=candidate,
        reset_after=after,
        use_bias=bias,
        return_sequences=True,
        dtype="float64",
    )
    layer.build((None, None, 3))
    generator = np.random.default_rng(0)
    weights = [generator.normal(0, 0.5, values.shape) for values in layer.get_weights()]
    layer.set_weights(weights)
    arrays = dict(zip(("kernel", "recurrent_kernel", "bias"), weights, strict=False))
    expected = keras.ops.convert_to_numpy(layer(random_x()))
    slope = {"slope": 1 / 6} if gate == "hard_sigmoid" else {}  # Keras 3
    name = "keras-reset-after" if after else "keras-reset-before"
    found = qg.from_arrays(name, gate=gate, candidate=candidate, **slope, **arrays).run(random_x())
    assert np.abs(found - expected).max() <= FLOAT32_TOLERANCE * max(1, np.abs(expected).max())


@pytest.mark.parametrize("linear_before_reset", [0, 1])
@pytest.mark.parametrize("bias", [True, False])
def test_onnx(linear_before_reset, bias):
    onnx = pytest.importorskip("onnx", reason="ONNX is not installed: pip install quantgru[onnx]")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install onnxruntime")
    helper, numpy_helper, FLOAT = onnx.helper, onnx.numpy_helper, onnx.TensorProto.FLOAT
    (required, optional) = random_arrays("onnx-linear-before-reset-0", 3, 4)
    arrays = required | (optional if bias else {})
    arrays = {key: values[None].astype(np.float32) for key, values in arrays.items()}  # one direction
    start = np.array([0.5, -0.5, 0.25, 1.0], dtype=np.float32)
    node = helper.make_node(
        "GRU",
        ["x", "W", "R", "B" if bias else "", "", "start"],
        ["y"],
        hidden_size=4,
        linear_before_reset=linear_before_reset,
    )
    constants = {**arrays, "start": np.broadcast_to(start, (1, 2, 4))}
    graph = helper.make_graph(
        [node],
        "gru",
        [helper.make_tensor_value_info("x", FLOAT, [7, 2, 3])],
        [helper.make_tensor_value_info("y", FLOAT, [7, 1, 2, 4])],
        [numpy_helper.from_array(np.ascontiguousarray(values), key) for key, values in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x = random_x().astype(np.float32)
    expected = session.run(None, {"x": x.swapaxes(0, 1)})[0][:, 0].swapaxes(0, 1)
    name = f"onnx-linear-before-reset-{linear_before_reset}"
    found = qg.from_arrays(name, initial_state=start, **arrays).run(x)
    assert np.abs(found - expected).max() <= FLOAT32_TOLERANCE


def fields(message: bytes):
    """Number and value of each field of a protobuf message: bytes, or an integer."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        number, kind = divmod(varint(), 8)
        if kind == 0:
            yield number, varint()
            continue
        size = varint() if kind == 2 else {1: 8, 5: 4}[kind]
        yield number, message[at : at + size]
        at += size


def constants_of_graph(content: bytes):
    """float32 arrays of the Const nodes of a GraphDef, by name (graph.proto, node_def.proto, tensor.proto)."""
    found = {}
    for _, node in (field for field in fields(content) if field[0] == 1):
        name = next(value.decode() for number, value in fields(node) if number == 1)
        for entry in (dict(fields(value)) for number, value in fields(node) if number == 5):
            attribute = dict(fields(entry[2]))
            tensor = list(fields(attribute[8])) if entry[1] == b"value" else []
            values = b"".join(value for number, value in tensor if number in (4, 5) and isinstance(value, bytes))
            sizes = [dict(fields(dim)).get(1, 0) for number, text in tensor if number == 2 for _, dim in fields(text)]
            if (1, 1) in tensor and 4 * math.prod(sizes) == len(values):
                found[name] = np.frombuffer(values, "<f4").reshape(sizes)
    return found


@pytest.mark.parametrize(("name", "candidate"), [("dynamic", "tanh"), ("static", "tanh"), ("static_relu", "relu")])
def test_tensorflow1(name, candidate):
    """Graphs that TensorFlow wrote, with the outputs that it computed: one GRUCell, its last state through a head."""
    folder = Path(__file__).parent / "models" / "tensorflow1"
    constants = constants_of_graph((folder / f"{name}.pb").read_bytes())
    cell = "rnn/gru_cell/"
    arrays = {key.removeprefix(cell): values for key, values in constants.items() if cell in key and values.ndim}
    record = np.load(folder / f"{name}.npz")
    states = qg.from_arrays("tensorflow1", candidate=candidate, **arrays).run(record["x"])
    found = states[:, -1] @ constants["head/weights"] + constants["head/biases"]
    assert np.abs(found - record["y"]).max() <= FLOAT32_TOLERANCE


def test_the_polarities_differ_by_the_sign_of_z():
    """chung2014 with the z arrays of cho2014 negated is the same cell; without, it is another."""
    arrays = all_arrays("cho2014", 3, 4)
    negated = {key: -values if key.endswith("_z") else values for key, values in arrays.items()}
    kept = qg.from_arrays("cho2014", **arrays).run(random_x())
    assert np.array_equal(qg.from_arrays("chung2014", **negated).run(random_x()), kept)
    assert np.abs(qg.from_arrays("chung2014", **arrays).run(random_x()) - kept).max() > 0.1


# ---- the data itself -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REFERENCES)
def test_every_block_of_the_cell_is_there_once(name):
    convention = CONVENTIONS[name]
    sizes = Sizes(units=4, inputs=3)
    found = [(g, b.factor) for array in convention.all_arrays for b in array.blocks(sizes) for g in b.gates]
    assert len(found) == len(set(found))
    assert {(gate, factor) for gate in "zrn" for factor in "xh"} <= set(found)
    for array in convention.all_arrays:  # the blocks of an array cover it
        covered = np.zeros(array.shape(sizes), dtype=int)
        for block in array.blocks(sizes):
            covered[block.where] += 1
        assert (covered == 1).all()


def test_reserved_names_are_no_arrays():
    """They would be taken for arguments of from_arrays, or for settings of an .npz file."""
    reserved = {*inspect.signature(qg.from_arrays).parameters} - {"arrays"}
    assert {"convention", "name", "gate", "slope", "candidate", "initial_state"} == reserved
    for convention in CONVENTIONS.values():
        keys = [array.key for array in convention.all_arrays]
        assert len(set(keys)) == len(keys) and not reserved & set(keys)
        assert all(re.fullmatch(r"[A-Za-z]\w*", key) for key in keys)


def test_shapes_of_an_array():
    assert Array("gates/kernel", "x h", "r z").shape_text == "[I + H, 2H]"
    assert Array("bias", "b c", "z r n").shape_text == "[2, 3H]"
    assert Array("gates/kernel", "x h", "r z").shape(Sizes(units=4, inputs=3)) == (7, 8)
