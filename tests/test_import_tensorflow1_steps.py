"""Graphs of TensorFlow 1 with a fixed number of steps, of which some or some sequences are computed otherwise.

Random inputs do not show that: the gates make these cells forget large ones, and keep small ones for hundreds of steps.
"""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("google.protobuf", reason="protobuf is not installed: pip install quantgru[tensorflow1]")

from support_graphs import GraphMaker, refusal
from support_gru_graphs import INPUTS, UNITS, assert_close, gru_states, model_of, steps_of, unrolled, weights

N_STEPS = 150
OTHERWISE = "is computed as the last one is; give all of them the same operations and constants"


def with_long_memory(inputs=INPUTS):
    """u = sigmoid(5 + 20 * (the inputs' sum)), which is nearly 1 for small inputs."""
    parts = weights(inputs=inputs)
    parts[0][:inputs, UNITS:], parts[1][UNITS:] = 20, 5
    return parts


def small(n_sequences=1):
    return 0.02 * np.random.default_rng(7).uniform(0.5, 1.5, (n_sequences, N_STEPS, INPUTS))


def table(n_changed=50, value=0.0):
    factors = np.ones((1, N_STEPS, 1))
    factors[:, :n_changed] = value
    return factors


def made(graph, factors=None, between=None, parts=None):
    """The last state of one layer, or of two; factors of their inputs."""
    x = graph.placeholder(1, N_STEPS, INPUTS)
    x = x if factors is None else graph.node("Mul", x, graph.constant(factors))
    states = unrolled(graph, steps_of(graph, x, N_STEPS), parts or with_long_memory())
    if between is not None:
        x = graph.node("Mul", graph.node("Pack", *states, axis=1), graph.constant(between))
        unrolled(graph, steps_of(graph, x, N_STEPS), with_long_memory(UNITS))


TABLES = {
    "a mask": {"factors": table()},
    "a scale": {"factors": table(value=0.5)},
    "the first step alone": {"factors": table(1, 0.25)},
    "between two layers": {"between": table()},
    "of one feature": {"factors": np.where(np.arange(INPUTS) > 0, 1.0, table())},
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_by_step(tmp_path, name):
    graph = GraphMaker()
    made(graph, **TABLES[name])
    assert f"not every step {OTHERWISE}" in refusal(graph.save(tmp_path / "made.pb"))


def test_that_a_mask_changes_the_output():
    """By the formula: of small inputs visibly, of random ones less than a comparison may allow."""
    parts, large = with_long_memory(), np.random.default_rng(8).standard_normal((1, N_STEPS, INPUTS))
    (whole, masked), (of_large, masked_large) = (
        [gru_states(x * factor, parts)[:, -1] for factor in (1, table())] for x in (small(), large)
    )
    assert np.abs(whole - masked).max() > 0.1 * np.abs(whole).max()
    assert np.abs(of_large - masked_large).max() < 1e-9


def test_the_same_factor_at_every_step(tmp_path):
    graph, parts, x = GraphMaker(), with_long_memory(), small()
    made(graph, factors=np.full((1, N_STEPS, 1), 0.5), parts=parts)
    assert_close(model_of(graph, tmp_path).run(x), gru_states(0.5 * x, parts)[:, -1])


def test_two_layers(tmp_path):
    graph, parts, x = GraphMaker(), with_long_memory(), small()
    made(graph, between=np.ones((1, N_STEPS, 1)), parts=parts)
    expected = gru_states(gru_states(x, parts), with_long_memory(UNITS))
    assert_close(model_of(graph, tmp_path).run(x), expected[:, -1])


@pytest.mark.parametrize("start", [0.0, 0.5])
def test_a_product_with_the_initial_state_that_is_a_constant(tmp_path, start):
    """Recurrent weights of their own, whose product with the first state is computed without the input."""
    graph, (kernel, bias, candidate, candidate_bias, _), x = GraphMaker(), with_long_memory(), small()
    h = graph.constant(np.full((1, UNITS), start))
    for step in steps_of(graph, graph.placeholder(1, N_STEPS, INPUTS), N_STEPS):
        recurrent = graph.node("MatMul", h, graph.constant(kernel[INPUTS:]))
        gates = graph.node("AddV2", graph.dense(step, kernel[:INPUTS], bias), recurrent)
        r, u = graph.split(graph.node("Sigmoid", gates))
        c = graph.node("Tanh", graph.dense(graph.join(step, graph.node("Mul", r, h)), candidate, candidate_bias))
        h = graph.mixture(u, h, c)
    expected = gru_states(x, (kernel, bias, candidate, candidate_bias, None), h=start)[:, -1]
    assert_close(model_of(graph, tmp_path).run(x), expected)


@pytest.mark.parametrize("is_masked", [True, False])
def test_a_fixed_number_of_sequences(tmp_path, is_masked):
    graph, parts, x = GraphMaker(), with_long_memory(), small(2)
    factors = np.concatenate([table() if is_masked else table(0), table(0)])
    samples = graph.node("Mul", graph.placeholder(2, N_STEPS, INPUTS), graph.constant(factors))
    unrolled(graph, steps_of(graph, samples, N_STEPS), parts, graph.constant(np.zeros((2, UNITS))))
    if is_masked:
        assert f"not every sequence {OTHERWISE}" in refusal(graph.save(tmp_path / "made.pb"))
    else:
        assert_close(model_of(graph, tmp_path).run(x), gru_states(x, parts)[:, -1])


@pytest.mark.parametrize("op", ["AddV2", "ConcatV2"])
def test_states_of_two_layers_together(tmp_path, op):
    graph = GraphMaker()
    lower = unrolled(graph, steps_of(graph, graph.placeholder(1, 5, INPUTS)), weights())
    upper = unrolled(graph, lower, weights(1, UNITS))
    graph.node("AddV2", lower[-1], upper[-1]) if op == "AddV2" else graph.join(lower[-1], upper[-1])
    found = refusal(graph.save(tmp_path / "made.pb"))
    assert "the states of two layers, " in found
    assert "use the upper one alone" in found
