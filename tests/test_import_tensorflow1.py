"""Frozen graphs of TensorFlow 1: expected values are TensorFlow's own, or those of a formula written down here."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("google.protobuf", reason="protobuf is not installed: pip install quantgru[tensorflow1]")

from support_graphs import MODELS, GraphMaker, attribute_of, changed, keep_up_to, node_of

import quantgru as qg
from quantgru.errors import ModelError
from quantgru.importers.tensorflow1_messages import GraphDef

TOLERANCE = 1e-6  # of the largest output; measured: 4e-16
UNITS, INPUTS, STEPS = 4, 3, 5

FILES = {
    "dynamic.pb": "3 → 4 → 2",
    "dynamic.folded.pb": "3 → 4 → 2",
    "dynamic_every_step.pb": "3 → 4 → 2",
    "dynamic_stack.pb": "3 → 4 → 3 → 2",
    "dynamic_state.pb": "3 → 4 → 2",
    "static.pb": "3 → 4 → 2",
    "static.before_1_15.pb": "3 → 4 → 2",
    "static_relu.pb": "3 → 4 → 2",
}


def assert_close(found, expected) -> None:
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()


# ---- files of TensorFlow's -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_file_of_tensorflow(name):
    record = np.load(MODELS / f"{name.split('.')[0]}.npz")
    model = qg.load(MODELS / name)
    assert repr(model).split(": ")[1] == FILES[name] + ">"
    assert model.last_step == ("every_step" not in name)
    assert {gru.reset for gru in model.grus} == {"before"}
    assert {gru.candidate for gru in model.grus} == {"relu" if "relu" in name or "state" in name else "tanh"}
    assert_close(model.run(record["x"]), record["y"])


def test_all_files_are_in_the_table():
    assert {path.name for path in MODELS.glob("*.pb")} == FILES.keys() | {"refused_lstm.pb"}


def test_names_and_notes():
    model = qg.load(MODELS / "dynamic_stack.pb")
    assert model.name == "dynamic_stack"
    assert [layer.name for layer in model.layers] == [
        "rnn/rnn/multi_rnn_cell/cell_0/gru_cell",
        "rnn/rnn/multi_rnn_cell/cell_1/gru_cell",
        "xw_plus_b",
    ]
    assert model.notes == ("imported from TensorFlow graph dynamic_stack.pb",)


def test_kernels_are_where_the_convention_says():
    """The same as the constants by their names, by the importer of plain arrays."""
    graph = GraphDef.FromString((MODELS / "dynamic.pb").read_bytes())
    arrays = {}
    for part in ("gates/kernel", "gates/bias", "candidate/kernel", "candidate/bias"):
        tensor = attribute_of(graph, f"rnn/gru_cell/{part}", "value").tensor
        shape = [dim.size for dim in tensor.tensor_shape.dim]
        arrays[part] = np.frombuffer(tensor.tensor_content, "<f4").reshape(shape)
    (expected,) = qg.from_arrays("tensorflow1", **arrays).grus
    found = qg.load(MODELS / "dynamic.pb").grus[0]
    for field in ("input_weights", "recurrent_weights", "bias", "recurrent_bias"):
        assert (getattr(found, field) == getattr(expected, field)).all()


@pytest.mark.parametrize("name", ["rnn/transpose_1", "rnn/TensorArrayStack/TensorArrayGatherV3"])
def test_states_of_every_step_in_either_order(tmp_path, name):
    """Cut behind the loop, the states are the output, [sequences, steps, units] or [steps, sequences, units]."""
    record, (head,) = np.load(MODELS / "dynamic.npz"), qg.load(MODELS / "dynamic.pb").head
    model = qg.load(changed("dynamic.pb", tmp_path, lambda graph: keep_up_to(graph, name)))
    assert not model.last_step
    assert_close(model.run(record["x"])[:, -1] @ head.weights.T + head.bias, record["y"])


def test_default_of_an_input_is_noted(tmp_path):
    """Dropout is often turned off by an input that is 1 by default."""

    def keep_all(graph):
        node_of(graph, "head/biases/read").op = "PlaceholderWithDefault"

    model = qg.load(changed("dynamic.pb", tmp_path, keep_all))
    assert "node 'head/biases/read' ('PlaceholderWithDefault') has its default value" in model.notes


# ---- graphs made here ----------------------------------------------------------------------------------------------


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def hard_sigmoid_of_keras_2(a):
    return np.clip(float(np.float32(0.2)) * a + 0.5, 0, 1)


FUNCTIONS = {
    "Tanh": np.tanh,
    "Relu": lambda a: np.maximum(a, 0),
    "Sigmoid": sigmoid,
    "Identity": lambda a: a,
    "hard_tanh": lambda a: np.clip(a, -1, 1),
    "hard_sigmoid": hard_sigmoid_of_keras_2,
}


def weights(seed=0, inputs=INPUTS):
    """gates/kernel, gates/bias, candidate/kernel, candidate/bias and one more bias, as float32 values."""
    rng = np.random.default_rng(seed)
    shapes = (inputs + UNITS, 2 * UNITS), (2 * UNITS,), (inputs + UNITS, UNITS), (UNITS,), (UNITS,)
    return [rng.normal(0, 0.5, shape).astype(np.float32).astype(float) for shape in shapes]


def gru_states(x, parts, candidate="Tanh", gate="Sigmoid", h=0.0, keeps=True):
    """GRUCell of rnn_cell_impl.py over x [sequences, steps, inputs]: h of every step."""
    kernel, bias, candidate_kernel, candidate_bias, _ = parts
    h, states = np.broadcast_to(h, (len(x), UNITS)), []
    for t in range(x.shape[1]):
        r, u = np.split(FUNCTIONS[gate](np.hstack([x[:, t], h]) @ kernel + bias), 2, axis=1)
        c = FUNCTIONS[candidate](np.hstack([x[:, t], r * h]) @ candidate_kernel + candidate_bias)
        h = u * h + (1 - u) * c if keeps else (1 - u) * h + u * c
        states.append(h)
    return np.stack(states, axis=1)


def apply(graph, function, x):
    if not function.startswith("hard"):
        return graph.node(function, x)
    if function == "hard_sigmoid":
        scaled = graph.node("AddV2", graph.node("Mul", x, graph.constant(0.2)), graph.constant(0.5))
        low, high, x = 0.0, 1.0, scaled
    else:
        low, high = -1.0, 1.0
    return graph.node("Maximum", graph.node("Minimum", x, graph.constant(high)), graph.constant(low))


def cell(graph, x, h, parts, candidate="Tanh", gate="Sigmoid", keeps=True):
    """The nodes of GRUCell; returns the name of the new state."""
    r, u = graph.split(apply(graph, gate, graph.dense(graph.join(x, h), *parts[:2])))
    c = apply(graph, candidate, graph.dense(graph.join(x, graph.node("Mul", r, h)), *parts[2:4]))
    return graph.mixture(u, h, c) if keeps else graph.mixture(u, c, h)


def unrolled(graph, steps, parts, h=None, **options):
    """States of every step, with one sequence."""
    h, states = h or graph.constant(np.zeros((1, UNITS))), []
    for x in steps:
        h = cell(graph, x, h, parts, **options)
        states.append(h)
    return states


def steps_of(graph, x, n=STEPS):
    name = graph.node("Unpack", x, axis=1, num=n)
    return [name, *(f"{name}:{t}" for t in range(1, n))]


def sequence(n_inputs=INPUTS):
    return np.random.default_rng(5).standard_normal((1, STEPS, n_inputs))


def model_of(graph, tmp_path, **options):
    return qg.load(graph.save(tmp_path / "made.pb"), **options)


@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.parametrize("gate", ["Sigmoid", "hard_sigmoid"])
@pytest.mark.parametrize("candidate", ["Tanh", "Relu", "Sigmoid", "Identity", "hard_tanh"])
def test_functions_and_update_polarity(tmp_path, candidate, gate, keeps):
    graph, parts, x = GraphMaker(), weights(), sequence()
    options = {"candidate": candidate, "gate": gate, "keeps": keeps}
    steps = steps_of(graph, graph.placeholder(1, STEPS, INPUTS))
    graph.node("Pack", *unrolled(graph, steps, parts, **options), axis=1)
    model = model_of(graph, tmp_path)
    assert model.grus[0].candidate == {"Identity": "linear"}.get(candidate, candidate.lower())
    assert model.grus[0].gate == gate.lower()
    assert_close(model.run(x), gru_states(x, parts, **options))


def test_reset_after_the_product(tmp_path):
    """As CudnnCompatibleGRUCell: the reset gate multiplies a product with a bias of its own."""
    graph, parts, x = GraphMaker(), weights(), sequence()
    kernel, bias, candidate_kernel, candidate_bias, inner_bias = parts
    h = graph.constant(np.zeros((1, UNITS)))
    for step in steps_of(graph, graph.placeholder(1, STEPS, INPUTS)):
        r, u = graph.split(graph.node("Sigmoid", graph.dense(graph.join(step, h), kernel, bias)))
        inner = graph.node("Mul", r, graph.dense(h, candidate_kernel[INPUTS:], inner_bias))
        c = graph.node("Tanh", graph.node("Add", graph.dense(step, candidate_kernel[:INPUTS], candidate_bias), inner))
        h = graph.mixture(u, h, c)
    model = model_of(graph, tmp_path)
    state = np.zeros(UNITS)
    for values in x[0]:
        r, u = np.split(sigmoid(np.hstack([values, state]) @ kernel + bias), 2)
        inner = r * (state @ candidate_kernel[INPUTS:] + inner_bias)
        state = u * state + (1 - u) * np.tanh(values @ candidate_kernel[:INPUTS] + candidate_bias + inner)
    assert model.grus[0].reset == "after"
    assert_close(model.run(x), state[None])


def test_operation_of_the_block_cell(tmp_path):
    graph, parts, x = GraphMaker(), weights(), sequence()
    kernels = [graph.constant(parts[i]) for i in (0, 2, 1, 3)]
    h = graph.constant(np.zeros((1, UNITS)))
    for step in steps_of(graph, graph.placeholder(1, STEPS, INPUTS)):
        h = graph.node("GRUBlockCell", step, h, *kernels) + ":3"
    graph.node("Identity", h)
    assert_close(model_of(graph, tmp_path).run(x), gru_states(x, parts)[:, -1])


def test_initial_state(tmp_path):
    graph, parts, x = GraphMaker(), weights(), sequence()
    start = np.array([0.5, -1.5, 0.25, 1])
    h = graph.node("Tile", graph.constant(start[None]), graph.constant([1, 1]))
    unrolled(graph, steps_of(graph, graph.placeholder(1, STEPS, INPUTS)), parts, h)
    model = model_of(graph, tmp_path)
    assert (model.grus[0].initial_state == start).all()
    assert_close(model.run(x), gru_states(x, parts, h=start)[:, -1])


def test_last_step_first(tmp_path):
    graph, parts, x = GraphMaker(), weights(), sequence()
    samples = graph.node("ReverseV2", graph.placeholder(1, STEPS, INPUTS), graph.constant([1]))
    unrolled(graph, steps_of(graph, samples), parts)
    model = model_of(graph, tmp_path)
    assert isinstance(model.layers[0], qg.Reverse)
    assert_close(model.run(x), gru_states(x[:, ::-1], parts)[:, -1])


@pytest.mark.parametrize("output", ["every step", "last step", "final states"])
def test_bidirectional(tmp_path, output):
    graph, parts, backward_parts, x = GraphMaker(), weights(), weights(1), sequence()
    steps = steps_of(graph, graph.placeholder(1, STEPS, INPUTS))
    forward, backward = unrolled(graph, steps, parts), unrolled(graph, steps[::-1], backward_parts)[::-1]
    expected = [gru_states(x, parts), gru_states(x[:, ::-1], backward_parts)[:, ::-1]]
    joined = np.concatenate(expected, axis=2)
    match output:
        case "every step":
            graph.node("Pack", *map(graph.join, forward, backward), axis=1)
        case "last step":
            joined = joined[:, -1]
            graph.join(forward[-1], backward[-1])
            keep_up_to(graph.graph, graph.graph.node[-1].name)
        case _:
            joined = np.hstack([expected[0][:, -1], expected[1][:, 0]])
            graph.join(forward[-1], backward[0])
    model = model_of(graph, tmp_path)
    assert model.layers[0].final == (output == "final states")
    assert_close(model.run(x), joined)


def test_embedding(tmp_path):
    graph, parts = GraphMaker(), weights(inputs=2)
    table = np.random.default_rng(1).normal(size=(7, 2)).astype(np.float32).astype(float)
    tokens = graph.placeholder(1, STEPS, dtype="int32", name="tokens")
    vectors = graph.node("GatherV2", graph.constant(table), tokens, graph.constant(0))
    graph.node("Pack", *unrolled(graph, steps_of(graph, vectors), parts), axis=1)
    model = model_of(graph, tmp_path)
    x = np.array([[3, 0, 6, 1, 1]])
    assert isinstance(model.layers[0], qg.Embedding)
    assert_close(model.run(x[..., None]), gru_states(table[x], parts))


def test_normalised_input_dense_layers_around_and_softmax(tmp_path):
    graph, parts, x = GraphMaker(), weights(inputs=2), sequence()
    rng = np.random.default_rng(2)
    before, after = (rng.normal(size=shape).astype(np.float32).astype(float) for shape in ((INPUTS, 2), (UNITS, 2)))
    mean, scale, bias = np.array([1.0, -2, 0.5]), np.array([2.0, 0.5, 4]), np.array([0.25, -1.0])
    samples = graph.node("Sub", graph.placeholder(1, STEPS, INPUTS), graph.constant(mean))
    samples = graph.node("RealDiv", samples, graph.constant(scale))
    flat = graph.node("Reshape", samples, graph.constant([-1, INPUTS]))
    flat = graph.node("Relu", graph.dense(flat, before, bias))
    parts_of_steps = graph.node("Split", graph.constant(0), flat, num_split=STEPS)  # one sequence: a row for each step
    steps = [parts_of_steps, *(f"{parts_of_steps}:{t}" for t in range(1, STEPS))]
    graph.node("Softmax", graph.dense(unrolled(graph, steps, parts)[-1], after, bias))
    with pytest.raises(ModelError, match="softmax"):
        model_of(graph, tmp_path)
    model = model_of(graph, tmp_path, softmax="logits")
    dense = np.maximum((x - mean) / scale @ before + bias, 0)
    assert_close(model.run(x), gru_states(dense, parts)[:, -1] @ after + bias)
    assert "outputs are logits" in model.notes[-1]


@pytest.mark.parametrize("shape", [(1, STEPS * INPUTS), (1, STEPS, INPUTS), (STEPS, 1, INPUTS), (STEPS, INPUTS)])
def test_arrangements_of_the_input(tmp_path, shape):
    graph, parts, x = GraphMaker(), weights(), sequence()
    samples = graph.node("Reshape", graph.placeholder(*shape), graph.constant([1, STEPS, INPUTS]))
    unrolled(graph, steps_of(graph, samples), parts)
    assert_close(model_of(graph, tmp_path).run(x), gru_states(x, parts)[:, -1])
