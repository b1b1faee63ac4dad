"""GRU cells as graphs of TensorFlow 1, node by node, and what they compute, by its formula."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from support_graphs import GraphMaker

import quantgru as qg

TOLERANCE = 1e-6  # of the largest output; measured: 5e-16, and 2e-8 where TensorFlow computed in float32
UNITS, INPUTS, STEPS = 4, 3, 5


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()


def model_of(graph: GraphMaker, folder: Path, **options: Any) -> qg.FloatModel:
    return qg.load(graph.save(folder / "made.pb"), **options)


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
