"""ONNX files that are refused: what was found, where, and what to do; damaged and hostile ones in bounded memory."""

from __future__ import annotations

import itertools
import random
import tracemalloc
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from onnx_graphs import GraphBuilder, TensorProto, computed, helper, numpy_helper, onnx, samples, written

import quantgru as qg
from quantgru.errors import QuantgruWarning
from quantgru.importers import onnx_graph

MODELS = Path(__file__).parent / "models" / "onnx"
UNITS = 3


def refusal(path: Path, **options: str) -> str:
    with pytest.raises(qg.ModelError) as caught:
        qg.load(path, **options)
    text = str(caught.value)
    assert text.startswith(f"ONNX file {path}: ")
    assert "\n" not in text
    assert len(text) < 1200
    return text


@contextmanager
def bounded_memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 1 << 26
    finally:
        tracemalloc.stop()


def forward(g: GraphBuilder, shape=("batch", "steps", 3), **options) -> tuple[str, str]:
    """[batch, steps, units] and [1, batch, units] of a layer on input x."""
    x = g.add("Transpose", g.input("x", shape), perm=[1, 0, 2])
    y, y_h = g.gru(x, 3, UNITS, **options)
    return g.add("Transpose", g.add("Squeeze", y, g.constant([1])), perm=[1, 0, 2]), y_h


# ---- graphs that are no chain of layers -----------------------------------------------------------------------------


def recurrent(kind, gates):
    def make(g):
        x = g.input("x", ["steps", "batch", 3])
        weights = g.weights(1, gates * UNITS, 3), g.weights(1, gates * UNITS, UNITS)
        return g.add(kind, x, *weights, hidden_size=UNITS)

    return make


def after(kind, *constants, **attributes):
    def make(g):
        y, _ = forward(g)
        return g.add(kind, y, *(g.constant(values) for values in constants), **attributes)

    return make


def residual(g):
    y, _ = forward(g)
    return g.add("Add", y, g.add("MatMul", "x", g.weights(3, UNITS)))


def skipped_layer(g):
    y, _ = forward(g)
    again, _ = g.gru(g.add("Transpose", y, perm=[1, 0, 2]), UNITS, UNITS)
    again = g.add("Transpose", g.add("Squeeze", again, g.constant([1])), perm=[1, 0, 2])
    return g.add("Concat", y, again, axis=2)


def two_layers_on_one_input(g):
    x = g.input("x", ["steps", "batch", 3])
    return g.add("Concat", *(g.gru(x, 3, UNITS)[0] for _ in range(2)), axis=3)


def attention(g):
    y, _ = forward(g)
    return g.add("MatMul", y, g.add("Transpose", y, perm=[0, 2, 1]))


def gated_output(g):
    y, _ = forward(g)
    return g.add("Mul", y, g.add("Sigmoid", g.add("MatMul", y, g.weights(UNITS, UNITS))))


def mask_by_data(g):
    y, _ = forward(g)
    return g.add("Where", g.add("Less", "x", g.constant(0.0)), y, g.constant(0.0))


def third_step(g):
    y, _ = forward(g)
    return g.add("Gather", y, g.constant(2), axis=1)


def without_the_last_step(g):
    y, _ = forward(g)
    return g.add("Slice", y, *(g.constant([i]) for i in (0, -1, 1)))


def one_sequence_of_the_batch(g):
    y, _ = forward(g)
    return g.add("Gather", y, g.constant(-1), axis=0)


def batch_taken_for_steps(g):
    y, _ = forward(g)
    return g.gru(y, UNITS, UNITS)[0]


def state_spread_over_steps(g):
    _, y_h = forward(g)
    return g.add("Expand", y_h, g.add("Shape", g.add("Transpose", "x", perm=[1, 0, 2])))


def flattened_steps(g):
    y, _ = forward(g, ("batch", 4, 3))
    return g.add("Gemm", g.add("Flatten", y), g.weights(4 * UNITS, 2))


def weights_from_an_input(g):
    x, w = g.input("x", ["steps", "batch", 3]), g.input("w", [1, 3 * UNITS, 3])
    return g.add("GRU", x, w, g.weights(1, 3 * UNITS, UNITS), hidden_size=UNITS)


def weights_from_data(g):
    x = g.input("x", ["steps", "batch", 3])
    return g.add("GRU", x, x, g.weights(1, 3 * UNITS, UNITS), hidden_size=UNITS)


def bias_from_data(g):
    _, y_h = forward(g)
    rows = g.add("Gather", y_h, g.constant(0), axis=0)
    return g.add("Gemm", rows, g.weights(UNITS, UNITS), rows)


def computed_start(g):
    """The initial state by a dense layer on the first step."""
    x = g.input("x", ["steps", "batch", 3])
    start = g.add("MatMul", g.add("Gather", x, g.constant([0])), g.weights(3, UNITS))
    return g.gru(x, 3, UNITS, start=start)[0]


def starts_that_differ(g):
    x = g.input("x", ["steps", 2, 3])
    return g.gru(x, 3, UNITS, start=g.weights(1, 2, UNITS))[0]


def encoder_and_decoder(g):
    y, y_h = forward(g)
    return g.gru(g.add("Transpose", y, perm=[1, 0, 2]), UNITS, UNITS, start=y_h)[0]


def start_is_the_input(g):
    x = g.input("x", [1, "batch", UNITS])
    return g.gru(x, UNITS, UNITS, start=x)[0]


def lengths_of_one_layer(g):
    x = g.input("x", ["steps", "batch", 3])
    y, _ = g.gru(x, 3, UNITS, lengths=g.input("lengths", ["batch"], TensorProto.INT32))
    return g.gru(g.add("Squeeze", y, g.constant([1])), UNITS, UNITS)[0]


def padding_with_lengths(g):
    x = g.input("x", ["steps", "batch", 3])
    y, _ = g.gru(x, 3, UNITS, lengths=g.input("lengths", ["batch"], TensorProto.INT32))
    return g.add("Gather", y, g.constant(-1))


def lengths_of_one_batch(g):
    x = g.input("x", ["steps", "batch", 3])
    return g.gru(x, 3, UNITS, lengths=g.constant([4, 2], np.int32))[0]


def rounded_data(g):
    x = g.input("x", ["steps", "batch", 3])
    whole = g.add("Cast", g.add("Cast", x, to=TensorProto.INT64), to=TensorProto.FLOAT)
    return g.gru(whole, 3, UNITS)[0]


def softmax_between(g):
    y, _ = forward(g)
    y = g.add("Softmax", g.add("MatMul", y, g.weights(UNITS, UNITS)), axis=-1)
    return g.gru(g.add("Transpose", y, perm=[1, 0, 2]), UNITS, UNITS)[0]


def softmax_over_steps(g):
    y, _ = forward(g)
    return g.add("Softmax", y, axis=1)


def no_recurrent_layer(g):
    return g.add("Tanh", g.add("MatMul", g.input("x", ["batch", "steps", 3]), g.weights(3, 2)))


def normalised_batch(g):
    y, _ = forward(g)
    parts = [g.weights(2) for _ in range(4)]
    return g.add("BatchNormalization", y, *parts)


def wrong_width(g):
    y, _ = forward(g)
    return g.add("MatMul", y, g.weights(UNITS + 1, 2))


def tokens_after_a_layer(g):
    y, _ = forward(g)
    return g.add("Gather", g.weights(5, 2), g.add("Cast", y, to=TensorProto.INT64))


def free_reshape(g):
    y, _ = forward(g)
    return g.add("Reshape", y, g.constant([-1, 2, UNITS]))


def gru_that_reads_batch_features(g):
    """Steps are features: of an axis that no input has."""
    x = g.add("Unsqueeze", g.input("x", ["batch", 3]), g.constant([0]))
    return g.gru(x, 3, UNITS)[0]


GRAPHS = [
    (recurrent("LSTM", 4), r"\(LSTM\): this operator is not supported here"),
    (recurrent("RNN", 1), r"\(RNN\): this operator is not supported here"),
    (after("Erf"), r"\(Erf\): this operator is not supported here"),
    (after("ReduceMean", [1]), r"\(ReduceMean\): this operator is not supported here"),
    (after("Clip", 0.0, 0.5), r"limits to 0 \.\.\. 0\.5"),
    (residual, "the graph branches, and comes together again"),
    (skipped_layer, "the graph branches"),
    (two_layers_on_one_input, "the graph branches"),
    (attention, "weights must be constants"),
    (gated_output, "depends on the product of"),
    (mask_by_data, "a comparison of data"),
    (third_step, "takes step 2"),
    (without_the_last_step, "takes a part of axis 1 of 'x'"),
    (one_sequence_of_the_batch, "takes entry -1 along axis 0 of 'x', which is not the axis of steps"),
    (batch_taken_for_steps, "takes axis 0 of 'x' for the steps, which is the batch elsewhere"),
    (state_spread_over_steps, "spread over all steps|spreads"),
    (flattened_steps, "mixes steps, batch and features"),
    (weights_from_an_input, "input 1 is no constant; .*weights must be constants of the file"),
    (weights_from_data, "input 1 is no constant"),
    (bias_from_data, "biases must be constants"),
    (computed_start, "an initial state that is computed by"),
    (starts_that_differ, "initial_h differs from sequence to sequence; .*initial_states"),
    (encoder_and_decoder, "an initial state that is computed by node"),
    (start_is_the_input, "an initial state that is also something else"),
    (lengths_of_one_layer, "lengths for some GRU layers, and none or others for the rest"),
    (padding_with_lengths, r"padding included, of sequences whose lengths are input 'lengths'; .*Y_h"),
    (lengths_of_one_batch, r"sequence_lens \['4', '2'\], the lengths of one batch; .*lengths as an input"),
    (rounded_data, "made whole numbers, and is no token number"),
    (softmax_between, "softmax"),
    (softmax_over_steps, "softmax over axis 1"),
    (no_recurrent_layer, "no GRU layer"),
    (normalised_batch, "axis 1 of 'x'|a constant of shape"),
    (wrong_width, "weights of 4 inputs, but it reads"),
    (tokens_after_a_layer, "makes whole numbers of what was computed"),
    (free_reshape, "mixes steps, batch and features"),
    (gru_that_reads_batch_features, "its steps or its batch are no axis of an input"),
]


@pytest.mark.parametrize(("make", "message"), GRAPHS, ids=[make.__name__ for make, _ in GRAPHS])
def test_graph(make, message, tmp_path):
    g = GraphBuilder()
    path = written(tmp_path, g.model(make(g)))
    with pytest.raises(qg.ModelError, match=message):
        qg.load(path, softmax="logits")
    refusal(path)


def test_two_outputs(tmp_path):
    g = GraphBuilder()
    y, _ = forward(g)
    heads = [g.add("MatMul", y, g.weights(UNITS, n)) for n in (1, 2)]
    assert "several results; " in refusal(written(tmp_path, g.model(*heads)))


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        (dict(clip=3.0), "clip=3"),
        (dict(activations=["Sigmoid", "Elu"]), "activations 'sigmoid' and 'elu'"),
        (dict(activations=["Tanh", "Tanh"]), "activations 'tanh' and 'tanh'"),
        (dict(activations=["Sigmoid"]), "1 activations, expected 2"),
        (dict(activations=["Sigmoid", "Affine"]), "affine without activation_alpha and activation_beta"),
        (dict(activations=["Sigmoid", "Tanh"], activation_alpha=[1.0]), "more values of activation_alpha"),
        (dict(direction="sideways"), "direction 'sideways', one of forward, reverse, bidirectional"),
        (dict(direction="bidirectional"), r"W \(1, 9, 3\), expected \(2, 9, 3\)"),
        (dict(hidden_size=4), r"hidden_size=4, but R is \(1, 9, 3\)"),
        (dict(output_sequence=1), "attribute 'output_sequence' is none of opset 20"),
        (dict(layout="batch"), "attribute 'layout' is none of opset 20"),
    ],
)
def test_attributes_of_the_node(attributes, message, tmp_path):
    g = GraphBuilder()
    x = g.input("x", ["steps", "batch", 3])
    weights = g.weights(1, 3 * UNITS, 3), g.weights(1, 3 * UNITS, UNITS)
    y = g.add("GRU", x, *weights, **{"hidden_size": UNITS, **attributes})
    with pytest.raises(qg.ModelError, match=message):
        qg.load(written(tmp_path, g.model(y)))


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((1, 8, 3), (1, 9, 3), (1, 18)), r"W \(1, 8, 3\), expected \(1, 9, 3\)"),
        (((1, 9, 4), (1, 9, 3), (1, 18)), "weights of 4 inputs, but it reads"),
        (((1, 9, 3), (1, 9, 3), (1, 9)), r"B \(1, 9\), expected \(1, 18\)"),
        (((9, 3), (1, 9, 3), (1, 18)), "input 1 has 2 axes, expected 3"),
        (((1, 0, 3), (1, 0, 0), (1, 0)), "expected"),
    ],
)
def test_shapes_of_weights(shapes, message, tmp_path):
    g = GraphBuilder()
    y = g.add("GRU", g.input("x", ["steps", "batch", 3]), *(g.weights(*shape) for shape in shapes))
    with pytest.raises(qg.ModelError, match=message):
        qg.load(written(tmp_path, g.model(y)))


def test_weights_that_are_not_finite_or_not_real(tmp_path):
    for values, message in ((np.full((1, 9, 3), np.nan, np.float32), "finite"), (np.ones((1, 9, 3), int), "constants")):
        g = GraphBuilder()
        y = g.add("GRU", g.input("x", ["steps", "batch", 3]), g.constant(values), g.weights(1, 9, 3))
        assert message in refusal(written(tmp_path, g.model(y)))


# ---- files that are damaged, or made to harm ------------------------------------------------------------------------


def changed(change) -> onnx.ModelProto:
    """A recorded model with a change."""
    model = onnx.load(MODELS / "last_step.torchscript.onnx")
    change(model)
    return model


def first_weights(model) -> onnx.TensorProto:
    return next(entry for entry in model.graph.initializer if len(entry.dims) == 3)


def set_dims(*dims):
    def change(model):
        first_weights(model).dims[:] = dims

    return change


def outside(location):
    def change(model):
        tensor = first_weights(model)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.append(onnx.StringStringEntryProto(key="location", value=location))

    return change


def set_opset(version):
    def change(model):
        model.opset_import[0].version = version

    return change


def sparse(model):
    tensor = first_weights(model)
    entry = onnx.SparseTensorProto(values=tensor, dims=tensor.dims)
    model.graph.sparse_initializer.append(entry)
    model.graph.initializer.remove(tensor)


def string_weights(model):
    first_weights(model).data_type = TensorProto.STRING


def doubled_name(model):
    model.graph.initializer.append(first_weights(model))


def missing_weights(model):
    model.graph.initializer.remove(first_weights(model))


def shuffled(model):
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(nodes[::-1])


def other_domain(model):
    model.graph.node[-1].domain = "com.microsoft"


def no_operator(model):
    model.graph.node[-1].op_type = "GEMM"


def names_of_several_lines(model):
    model.graph.node[-1].op_type = "Ge\nmm"
    model.graph.node[-1].name = "\n" * 5000


def too_many_inputs(model):
    model.graph.node[-1].input.extend(["x", "x", "x"])


def condition(model):
    node = model.graph.node[-1]
    branch = helper.make_graph([], "branch", [], [])
    node.CopyFrom(helper.make_node("If", ["x"], list(node.output), then_branch=branch, else_branch=branch))


def string_input(model):
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING


def sequence_input(model):
    model.graph.input[0].type.Clear()
    model.graph.input[0].type.sequence_type.elem_type.tensor_type.elem_type = TensorProto.FLOAT


def shapeless_input(model):
    model.graph.input[0].type.tensor_type.ClearField("shape")


def absurd_input(model):
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 1 << 40


def empty_input(model):
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 0


def no_outputs(model):
    del model.graph.output[:]


def output_from_nowhere(model):
    model.graph.output[0].name = "nothing"


def reference_attribute(model):
    model.graph.node[-1].attribute[0].ref_attr_name = "alpha"


CHANGES = [
    (set_dims(1, 15, 4), "shape [1, 15, 4] with 180 bytes"),
    (set_dims(1 << 40, 1 << 40, 3), "with 180 bytes"),
    (set_dims(-1, -15, 3), "shape [-1, -15, 3]"),
    (outside("../../../etc/passwd"), "in '../../../etc/passwd', which is no file beside the model"),
    (outside("/dev/zero"), "in '/dev/zero', which is no file beside the model"),
    (outside(".."), "in '..', which is no file beside the model"),
    (outside("weights.data"), "and there is no such file beside the model"),
    (outside("w" * 5000), "and there is no such file beside the model"),
    (set_opset(6), "opset 6, supported are opsets 7 ..."),
    (set_opset(1 << 40), "opset 1099511627776, supported"),
    (set_opset(0), "no version of ONNX's operators"),
    (sparse, "sparse; "),
    (string_weights, "elements of type 8"),
    (doubled_name, "two tensors of the name"),
    (missing_weights, "is computed nowhere before it"),
    (shuffled, "is computed nowhere before it"),
    (other_domain, "an operator of domain 'com.microsoft'"),
    (no_operator, "(GEMM): no operator of opset 20"),
    (names_of_several_lines, "('Ge\\nmm'): no operator of opset 20"),
    (too_many_inputs, "6 inputs and 1 outputs"),
    (condition, "(If): has a graph of its own"),
    (string_input, "of type 8"),
    (sequence_input, "of type other than a tensor"),
    (shapeless_input, "no shape"),
    (absurd_input, "far more than a file of"),
    (empty_input, "shape [None, 0, 3]"),
    (no_outputs, "a graph without outputs"),
    (output_from_nowhere, "output 'nothing': nothing computes it"),
    (reference_attribute, "is none of opset 20"),
]


@pytest.mark.parametrize(("change", "message"), CHANGES, ids=[change.__name__ for change, _ in CHANGES])
def test_changed_file(change, message, tmp_path):
    path = written(tmp_path, changed(change))
    with bounded_memory():
        assert message in refusal(path)


def test_names_that_are_no_text(tmp_path):
    """Such a name comes as bytes."""
    content = (MODELS / "every_step.torchscript.onnx").read_bytes()
    path = tmp_path / "model.onnx"
    for name in (b"/gru/GRU\x1a", b"Transpose", b"sequences", b"/gru/Squeeze_output_0", b"pytorch", b"direction"):
        if name in content:
            path.write_bytes(content.replace(name, name[:-1] + b"\xff"))
            try:
                qg.load(path)
            except qg.ModelError as error:
                assert "\n" not in str(error)  # noqa: PT017
    path.write_bytes(content.replace(b"Transpose", b"Transpos\xff"))
    assert "a name that is no text" in refusal(path)


@pytest.mark.parametrize("content", [b"", b"text\n" * 99, bytes(500), b"PK\x03\x04" + bytes(500), b"\x80\x05."])
def test_foreign_content(content, tmp_path):
    path = tmp_path / "foreign.onnx"
    path.write_bytes(content)
    refusal(path)


def test_truncated_at_any_length(tmp_path):
    content = (MODELS / "every_step.torchscript.onnx").read_bytes()
    path = tmp_path / "cut.onnx"
    for length in range(0, len(content), 23):
        path.write_bytes(content[:length])
        refusal(path)


def test_limits_of_size(tmp_path, monkeypatch):
    path = written(tmp_path, changed(lambda model: None))
    monkeypatch.setattr(onnx_graph, "NODE_LIMIT", 5)
    assert "17 nodes, allowed are 5" in refusal(path)
    monkeypatch.setattr(onnx_graph, "FILE_LIMIT", 1000)
    assert f"{path.stat().st_size} bytes, allowed are 1000" in refusal(path)


def function_model(*functions: tuple[str, list[str]]) -> onnx.ModelProto:
    """The first function is called; each one calls others, one after the other."""
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("local", 1)]
    g = GraphBuilder()
    y, _ = forward(g)
    model = g.model(g.add(functions[0][0], y, domain="local"))
    model.opset_import.append(opsets[1])
    for name, calls in functions:
        names = ["x", *(f"value_{i}" for i in range(len(calls)))]
        body = [
            helper.make_node(call, [names[i]], [names[i + 1]], domain="" if call == "Tanh" else "local")
            for i, call in enumerate(calls)
        ]
        model.functions.append(helper.make_function("local", name, ["x"], [names[-1]], body, opsets))
    return model


def test_functions_that_call_themselves(tmp_path):
    assert "call themselves" in refusal(written(tmp_path, function_model(("F", ["F"]))))
    assert "call themselves" in refusal(written(tmp_path, function_model(("F", ["G"]), ("G", ["F"]))))


def test_functions_that_double_many_times(tmp_path):
    """Sixty functions, each of which calls the next one twice."""
    names = [f"F{i}" for i in range(60)]
    functions = [(a, [b, b]) for a, b in itertools.pairwise(names)]
    assert "allowed are 100000" in refusal(written(tmp_path, function_model(*functions, (names[-1], ["Tanh"]))))


def many(kind, count, g, y):
    for _ in range(count):
        y = g.add(kind, y, y)
    return y


@pytest.mark.parametrize("kind", ["Mul", "Add"])
def test_sums_and_products_that_explode(kind, tmp_path):
    g = GraphBuilder()
    y, _ = forward(g)
    other = g.add("Add", y, g.add("Tanh", g.add("MatMul", y, g.weights(UNITS, UNITS))))
    refusal(written(tmp_path, g.model(many(kind, 400, g, other))))


def test_sizes_that_explode(tmp_path):
    g = GraphBuilder()
    y, _ = forward(g)
    size = many("Mul", 300, g, g.add("Add", g.add("Shape", y), g.constant(1)))
    assert "no exporter writes" in refusal(written(tmp_path, g.model(g.add("Reshape", y, size))))


@pytest.mark.parametrize(
    "shape", [[1 << 40, 3], [1 << 20, 1 << 20, 3], [1 << 62, 1 << 62], [-5, 3], [0, 3]], ids=lambda shape: str(shape)
)
def test_constants_of_absurd_sizes(shape, tmp_path):
    """No array is made before its size is known to be small; -1 and the like are no sizes."""
    g = GraphBuilder()
    y, _ = forward(g)
    zeros = g.add("ConstantOfShape", g.constant(shape))
    path = written(tmp_path, g.model(g.add("Add", y, g.add("Sqrt", zeros))))
    with bounded_memory():
        refusal(path)


@pytest.mark.parametrize("kind", ["Slice", "Split", "Gather"])
def test_steps_of_an_absurd_number(kind, tmp_path):
    """An axis of 2**40 steps: what is cut from it is known without a list of them."""
    g = GraphBuilder()
    y, _ = forward(g, ("batch", 1 << 40, 3))
    if kind == "Slice":
        y = g.add("Slice", y, *(g.constant([i]) for i in (1, 1 << 39, 1)))
    elif kind == "Split":
        y = g.add("Split", y, g.constant([1 << 39, 1 << 39]), n_outputs=2, axis=1)[0]
    else:
        y = g.add("Gather", y, g.constant([0, 1, 2]), axis=1)
    path = written(tmp_path, g.model(y))
    with bounded_memory():
        refusal(path)


def test_deeply_nested_functions_of_functions(tmp_path):
    """Deeper than Python recurses: read, or refused."""
    g = GraphBuilder()
    y, _ = forward(g)
    for _ in range(3000):
        y = g.add("Tanh", y)
    y = g.add("Slice", y, *(g.constant([i]) for i in (-1, -(2**31), 1, -1)))
    refusal(written(tmp_path, g.model(y)))


# ---- changes that leave a valid graph: the same numbers as onnxruntime, or a refusal ---------------------------------


def mutate(model: onnx.ModelProto, rng: random.Random) -> None:
    """Another attribute, whole number, connection or operator."""
    graph = model.graph
    node = rng.choice(graph.node)
    match rng.randrange(5):
        case 0 | 1:
            attributes = [a for a in node.attribute if a.type in (2, 7)]
            if attributes and (attribute := rng.choice(attributes)).type == 2:
                attribute.i = rng.choice((0, 1, 2, -1, attribute.i + 1))
            elif attributes:
                attribute.ints[:] = rng.sample(list(attribute.ints), len(attribute.ints))
        case 2 | 3:
            tensors = [a.t for n in graph.node for a in n.attribute if a.type == 4] + list(graph.initializer)
            tensor = rng.choice([t for t in tensors if t.data_type in (6, 7)] or [first_weights(model)])
            array = numpy_helper.to_array(tensor).copy()
            if array.dtype.kind == "i" and array.size:
                array.reshape(-1)[rng.randrange(array.size)] = rng.choice((0, 1, 2, 3, -1, -2, 7))
                tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
        case _ if rng.random() < 0.5 and node.input:
            names = [x.name for x in graph.initializer] + [o for n in graph.node for o in n.output]
            node.input[rng.randrange(len(node.input))] = rng.choice(names)
        case _:
            node.op_type = rng.choice(("Add", "Sub", "Mul", "Relu", "Tanh", "Transpose", "Identity", "Concat", "Neg"))
    del graph.value_info[:]
    for output in graph.output:
        output.type.tensor_type.ClearField("shape")


def any_order_agrees(found: np.ndarray, outputs: list[np.ndarray]) -> bool:
    """Whether an output of the file is this one, with its axes in any order."""
    for y in outputs:
        for order in itertools.permutations(range(y.ndim)):
            turned = y.transpose(order)
            if turned.size == found.size and np.allclose(turned.reshape(-1), found.reshape(-1), rtol=1e-5, atol=1e-5):
                return True
    return False


def test_changed_graphs_give_the_same_numbers_or_are_refused(tmp_path):
    rng = random.Random(0)
    names = "bidirectional.dynamo bidirectional_final.dynamo keras_torch_reset_after last_step.torchscript stack.dynamo"
    contents = [(MODELS / f"{name}.onnx").read_bytes() for name in (*names.split(), "tokens.dynamo")]
    n_loaded = n_compared = 0
    for i in range(500):
        model = onnx.ModelProto.FromString(rng.choice(contents))
        mutate(model, rng)
        try:
            with warnings.catch_warnings(action="ignore", category=QuantgruWarning):
                loaded = qg.load(written(tmp_path, model), softmax="logits")
        except qg.ModelError:
            continue
        n_loaded += 1
        entry = model.graph.input[0]
        shape = [dim.dim_value or 4 for dim in entry.type.tensor_type.shape.dim]
        tokens = entry.type.tensor_type.elem_type == TensorProto.INT64
        x = np.random.default_rng(i).integers(0, 7, shape) if tokens else samples(i, *shape)
        try:
            outputs = computed(model, **{entry.name: x})
        except Exception:  # a graph that onnxruntime cannot run, in one of many ways
            continue
        n_compared += 1
        turns = list(itertools.permutations(range(x.ndim)))
        ours = [x.transpose(turn) if x.ndim == 3 else x.transpose(turn)[..., None] for turn in turns]
        ours = [ways for ways in ours if ways.shape[2] == loaded.n_inputs]
        assert any(any_order_agrees(loaded.run(ways), outputs) for ways in ours), written(tmp_path, model, f"wrong_{i}")
    assert n_compared > 50 and n_loaded < 400
