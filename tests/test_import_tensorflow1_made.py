"""Graphs of TensorFlow 1 made here, node by node: what a GRU may look like. Expected values are by its formula."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("google.protobuf", reason="protobuf is not installed: pip install quantgru[tensorflow1]")

from support_graphs import GraphMaker, keep_up_to
from support_gru_graphs import (
    INPUTS,
    STEPS,
    UNITS,
    assert_close,
    gru_states,
    model_of,
    sequence,
    sigmoid,
    steps_of,
    unrolled,
    weights,
)

import quantgru as qg
from quantgru.errors import ModelError


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


@pytest.mark.parametrize("keep", [1.0, 0.75])
def test_dropout_as_it_was_written_up_to_1_12(tmp_path, keep):
    """x / keep * floor(keep + a random number below 1)"""
    graph, x = GraphMaker(), sequence()
    h = unrolled(graph, steps_of(graph, graph.placeholder(1, STEPS, INPUTS)), weights())[-1]
    probability = graph.constant(keep)
    random = graph.node("Add", probability, graph.node("RandomUniform", graph.node("Shape", h)))
    graph.node("Mul", graph.node("RealDiv", h, probability), graph.node("Floor", random))
    if keep < 1:
        with pytest.raises(ModelError, match="random numbers change the output, as of dropout that is on"):
            model_of(graph, tmp_path)
    else:
        assert_close(model_of(graph, tmp_path).run(x), gru_states(x, weights())[:, -1])


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


def average(graph, forward, backward):
    return graph.node("RealDiv", graph.node("AddN", forward, backward), graph.constant(2.0))


MERGES = {
    "sum": (lambda graph, f, b: graph.node("AddV2", b, f), lambda f, b: f + b),
    "mul": (lambda graph, f, b: graph.node("Mul", f, b), lambda f, b: f * b),
    "ave": (average, lambda f, b: (f + b) / 2),
}


@pytest.mark.parametrize("final", [False, True])
@pytest.mark.parametrize("merge", MERGES)
def test_merged_directions(tmp_path, merge, final):
    graph, parts, backward_parts, x = GraphMaker(), weights(), weights(1), sequence()
    add, formula = MERGES[merge]
    steps = steps_of(graph, graph.placeholder(1, STEPS, INPUTS))
    forward, backward = unrolled(graph, steps, parts), unrolled(graph, steps[::-1], backward_parts)
    expected = gru_states(x, parts), gru_states(x[:, ::-1], backward_parts)
    if final:
        add(graph, forward[-1], backward[-1])
        expected = formula(expected[0][:, -1], expected[1][:, -1])
    else:
        graph.node("Pack", *[add(graph, f, b) for f, b in zip(forward, backward[::-1], strict=True)], axis=1)
        expected = formula(expected[0], expected[1][:, ::-1])
    model = model_of(graph, tmp_path)
    (layer,) = [layer for layer in model.layers if isinstance(layer, qg.Bidirectional)]
    assert (layer.merge, layer.final) == (merge, final)
    assert_close(model.run(x), expected)


def test_directions_merged_otherwise(tmp_path):
    graph = GraphMaker()
    steps = steps_of(graph, graph.placeholder(1, STEPS, INPUTS))
    graph.node("Sub", unrolled(graph, steps, weights())[-1], unrolled(graph, steps[::-1], weights(1))[-1])
    with pytest.raises(ModelError, match="neither a GRU cell nor a dense layer"):
        model_of(graph, tmp_path)


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
