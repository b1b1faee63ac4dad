"""ONNX: what graphs compute of sizes: conditions, repetitions, divisions; and sums along axes of features."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_graphs import (
    TOLERANCE,
    UNITS,
    GraphBuilder,
    TensorProto,
    batch_first,
    computed,
    forward,
    onnx,
    refusal,
    samples,
    written,
)

import quantgru as qg

BATCH, STEPS = 2, 4


def both(g: GraphBuilder) -> tuple[str, str]:
    """[batch, steps, 2, units] and [2, batch, units] of a bidirectional layer."""
    x = g.add("Transpose", g.input("x", ["batch", "steps", 3]), perm=[1, 0, 2])
    y, y_h = g.gru(x, 3, UNITS, direction="bidirectional")
    return g.add("Transpose", y, perm=[2, 0, 1, 3]), y_h


def branch(g: GraphBuilder, kind: str, *inputs: str):
    """The graph of one node."""
    name = g.name("branch")
    node = onnx.helper.make_node(kind, list(inputs), [name])
    return onnx.helper.make_graph([node], "branch", [], [onnx.ValueInfoProto(name=name)])


def squeezed(g: GraphBuilder, y: str) -> str:
    """Axis 1 taken away if it is of size 1, as PyTorch writes squeeze(1)."""
    size = g.add("Gather", g.add("Shape", y), g.constant([1]), axis=0)
    then_branch, else_branch = branch(g, "Squeeze", y, g.constant([1])), branch(g, "Identity", y)
    return g.add("If", g.add("Equal", size, g.constant([1])), then_branch=then_branch, else_branch=else_branch)


def first_by_division(g):
    """-1 / 2 is 0 in ONNX, and not -1."""
    y, _ = forward(g, (BATCH, STEPS, 3))
    steps = g.add("Gather", g.add("Shape", y), g.constant(1))
    return g.add("Gather", y, g.add("Div", g.add("Sub", steps, g.constant(STEPS + 1)), g.constant(2)), axis=1)


def last_by_division(g):
    y, _ = forward(g)
    steps = g.add("Div", g.add("Mul", g.add("Cast", g.add("Shape", y), to=1), g.constant(4.0)), g.constant(4.0))
    last = g.add("Sub", g.add("Cast", steps, to=7), g.constant(1))
    return g.add("Gather", y, g.add("Gather", last, g.constant(1)), axis=1)


def last_by_squeeze(g):
    y, _ = forward(g)
    return squeezed(g, g.add("Slice", y, *(g.constant([i]) for i in (-1, 2**63 - 1, 1))))


def the_other_branch(g):
    y, _ = forward(g)
    graphs = dict(then_branch=branch(g, "Relu", y), else_branch=branch(g, "Tanh", y))
    return g.add("If", g.constant(False, np.bool_), **graphs)


def start_repeated(g):
    """A learned initial state, for every sequence."""
    x = g.add("Transpose", g.input("x", ["batch", "steps", 3]), perm=[1, 0, 2])
    batch = g.add("Gather", g.add("Shape", x), g.constant([1]), axis=0)
    times = g.add("Concat", g.constant([1]), batch, g.constant([1]), axis=0)
    y, _ = g.gru(x, 3, UNITS, start=g.add("Tile", g.weights(1, 1, UNITS), times))
    return batch_first(g, y)


def start_repeated_for_a_known_batch(g):
    x = g.add("Transpose", g.input("x", [BATCH, "steps", 3]), perm=[1, 0, 2])
    y, _ = g.gru(x, 3, UNITS, start=g.add("Tile", g.weights(1, 1, UNITS), g.constant([1, BATCH, 1])))
    return batch_first(g, y)


def sum_of_an_axis(g):
    y, _ = both(g)
    return g.add("ReduceSum", y, g.constant([2]), keepdims=0)


def mean_of_an_axis(g):
    _, y_h = both(g)
    return g.add("Squeeze", g.add("ReduceMean", y_h, g.constant([0])), g.constant([0]))


def sum_of_features(g):
    y, _ = forward(g)
    return g.add("ReduceSum", y, g.constant([-1]))


LOADED = {
    first_by_division: ["Gru", "Reverse"],
    last_by_division: ["Gru"],
    last_by_squeeze: ["Gru"],
    the_other_branch: ["Gru", "Dense"],
    start_repeated: ["Gru"],
    start_repeated_for_a_known_batch: ["Gru"],
    sum_of_an_axis: ["Bidirectional"],
    mean_of_an_axis: ["Bidirectional"],
    sum_of_features: ["Gru", "Dense"],
}


@pytest.mark.parametrize("make", LOADED, ids=lambda make: make.__name__)
def test_of_sizes(make, tmp_path):
    """x is [batch, steps, 3], and the output has the batch first; layers are as few as they can be."""
    g = GraphBuilder(1)
    model = g.model(make(g))
    x = samples(2, BATCH, STEPS, 3)
    (expected,) = computed(model, x=x)
    loaded = qg.load(written(tmp_path, model))
    found = loaded.run(x)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= TOLERANCE
    assert [type(layer).__name__ for layer in loaded.layers] == LOADED[make]


def test_a_condition_that_depends_on_a_free_size(tmp_path):
    """Of one step, the output has an axis less."""
    g = GraphBuilder()
    y, _ = forward(g)
    message = "whether the size axis 1 of 'x' is equal to 1 depends on a size that the file leaves free"
    assert message in refusal(written(tmp_path, g.model(squeezed(g, y))))


def test_a_condition_of_data(tmp_path):
    g = GraphBuilder()
    y, _ = forward(g)
    graphs = dict(then_branch=branch(g, "Relu", y), else_branch=branch(g, "Identity", y))
    y = g.add("If", g.add("ReduceMax", y, keepdims=0), **graphs)
    assert "ReduceMax" in refusal(written(tmp_path, g.model(y)))
    g = GraphBuilder()
    y, _ = forward(g)
    graphs = dict(then_branch=branch(g, "Relu", y), else_branch=branch(g, "Identity", y))
    y = g.add("If", g.input("on", [1], TensorProto.BOOL), **graphs)
    assert "a condition that is computed from data" in refusal(written(tmp_path, g.model(y)))


@pytest.mark.parametrize("batch", [BATCH, "batch"])
def test_half_a_size(batch, tmp_path):
    """Twice the half of five is five in floating point; sizes that stay whole numbers are not halved there."""
    g = GraphBuilder()
    y, _ = forward(g, (batch, 5, 3))
    halves = g.add("Div", g.add("Cast", g.add("Shape", y), to=1), g.constant([1.0, 2.0, 1.0]))
    sizes = g.add("Cast", g.add("Mul", halves, g.constant([1.0, 2.0, 1.0])), to=7)
    index = g.add("Sub", g.add("Gather", sizes, g.constant(1)), g.constant(5))
    model = g.model(g.add("Gather", y, index, axis=1))
    (expected,) = computed(model, x=samples(0, BATCH, 5, 3))
    path = written(tmp_path, model)
    if batch == "batch":
        assert "the size axis 1 of 'x' divided by 2.0 is no whole number" in refusal(path)
    else:
        assert np.abs(qg.load(path).run(samples(0, BATCH, 5, 3)) - expected).max() <= TOLERANCE


@pytest.mark.parametrize("axis", [0, 1])
def test_sums_and_repetitions_of_steps_or_sequences(axis, tmp_path):
    g = GraphBuilder()
    y, _ = forward(g)
    text = refusal(written(tmp_path, g.model(g.add("ReduceMean", y, g.constant([axis])))))
    assert "over steps or sequences" in text and "take the last step" in text
    g = GraphBuilder()
    y, _ = forward(g)
    model = g.model(g.add("Tile", y, g.constant([1 + (axis == 0), 1 + (axis == 1), 1])))
    assert "repeats more than one entry" in refusal(written(tmp_path, model))
