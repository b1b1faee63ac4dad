"""ONNX: what exporters put around a GRU node: slices, reshapes, merges, heads, inputs of other shapes."""

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


def joined(g, y):
    return g.add("Reshape", y, g.constant([0, 0, -1]))


def last_by_size(g):
    y, _ = forward(g)
    steps = g.add("Gather", g.add("Shape", y), g.constant(1))
    return g.add("Gather", y, g.add("Sub", steps, g.constant(1)), axis=1)


def last_by_slice(g):
    y, _ = forward(g)
    return g.add("Squeeze", g.add("Slice", y, *(g.constant([i]) for i in (-1, 2**63 - 1, 1))), g.constant([1]))


def last_by_computed_slice(g):
    y, _ = forward(g)
    steps = g.add("Slice", g.add("Shape", y), g.constant([1]), g.constant([2]))
    before = g.add("Sub", steps, g.constant([1]))
    return g.add("Squeeze", g.add("Slice", y, before, steps, g.constant([1])), g.constant([1]))


def first_step(g):
    y, _ = forward(g)
    return g.add("Gather", y, g.constant(0), axis=1)


def fixed_last_step(g):
    y, _ = forward(g, (BATCH, STEPS, 3))
    return g.add("Gather", y, g.constant(STEPS - 1), axis=1)


def fixed_flip(g):
    y, _ = forward(g, (BATCH, STEPS, 3))
    return g.add("Slice", y, *(g.constant([i]) for i in (STEPS, -STEPS - 1, 1, -1)))


def flip_by_index(g):
    y, _ = forward(g, (BATCH, STEPS, 3))
    return g.add("Gather", y, g.constant(np.arange(STEPS)[::-1]), axis=1)


def flip_free_steps(g):
    x = g.input("x", ["batch", "steps", 3])
    x = g.add("Slice", x, *(g.constant([i]) for i in (-1, -(2**63) + 1, 1, -1)))
    y, _ = g.gru(g.add("Transpose", x, perm=[1, 0, 2]), 3, UNITS)
    return batch_first(g, y)


def flip_by_sequence(g):
    x = g.add("Transpose", g.input("x", ["batch", "steps", 3]), perm=[1, 0, 2])
    sizes = g.add("Shape", x)
    lengths = g.add("Expand", *(g.add("Slice", sizes, g.constant([i]), g.constant([i + 1])) for i in (0, 1)))
    y, _ = g.gru(g.add("ReverseSequence", x, lengths, batch_axis=1, time_axis=0), 3, UNITS)
    return batch_first(g, y)


def two_nodes_for_two_directions(g):
    """As frameworks write Bidirectional that have no such operator: two layers, the second on a turned sequence."""
    x = g.add("Transpose", g.input("x", ["batch", "steps", 3]), perm=[1, 0, 2])
    turn = [g.constant([i]) for i in (-1, -(2**31), 0, -1)]
    y, _ = g.gru(x, 3, UNITS)
    back, _ = g.gru(g.add("Slice", x, *turn), 3, UNITS)
    y, back = (g.add("Squeeze", part, g.constant([1])) for part in (y, back))
    return g.add("Transpose", g.add("Concat", y, g.add("Slice", back, *turn), axis=2), perm=[1, 0, 2])


def two_nodes_final(g):
    x = g.add("Transpose", g.input("x", ["batch", "steps", 3]), perm=[1, 0, 2])
    states = [g.gru(x, 3, UNITS, direction=kind)[1] for kind in ("forward", "reverse")]
    return g.add("Squeeze", g.add("Concat", *states, axis=2), g.constant([0]))


def backward_first(g):
    y, _ = both(g)
    parts = [g.add("Gather", y, g.constant(i), axis=2) for i in (1, 0)]
    return g.add("Concat", *parts, axis=-1)


def last_step_of_both(g):
    """Not the final states: the backward layer has read a single step there."""
    y, _ = both(g)
    return g.add("Gather", joined(g, y), g.constant(-1), axis=1)


def ends_of_both(g):
    """The final states, taken from the ends of the sequence."""
    y, _ = both(g)
    parts = [g.add("Gather", g.add("Gather", y, g.constant(i), axis=2), g.constant(-1 + i), axis=1) for i in (0, 1)]
    return g.add("Concat", *parts, axis=-1)


def sum_of_final_states(g):
    _, y_h = both(g)
    return g.add("Add", *(g.add("Gather", y_h, g.constant(i), axis=0) for i in (0, 1)))


def mean_at_last_step(g):
    y, _ = both(g)
    total = g.add("Add", *(g.add("Gather", y, g.constant(i), axis=2) for i in (0, 1)))
    return g.add("Mul", g.add("Gather", total, g.constant(-1), axis=1), g.constant(0.5))


def product_at_last_step(g):
    y, _ = both(g)
    parts = [g.add("Gather", g.add("Gather", y, g.constant(i), axis=2), g.constant(-1), axis=1) for i in (0, 1)]
    return g.add("Mul", *parts)


def one_direction_of_both(g):
    y, _ = both(g)
    return g.add("Gather", y, g.constant(1), axis=2)


def features_by_numbers(g):
    """As PyTorch writes x[..., [2, 0, 0, 1]]."""
    y, _ = forward(g)
    y = g.add("GatherND", g.add("Transpose", y, perm=[2, 0, 1]), g.constant([[2], [0], [-3], [1]]))
    return g.add("Transpose", y, perm=[1, 2, 0])


def every_second_feature(g):
    y, _ = forward(g)
    return g.add("Slice", y, *(g.constant([i]) for i in (2, -10, 2, -2)))


def repeated_features(g):
    y, _ = forward(g)
    return g.add("Tanh", g.add("Gather", y, g.constant([2, 1, 1, 0, 2]), axis=2))


def gates_of_features(g):
    """Features cut, changed in order, and joined again."""
    y, _ = forward(g)
    parts = g.add("Split", y, g.constant([1, 2]), n_outputs=2, axis=2)
    return g.add("MatMul", g.add("Concat", *parts[::-1], axis=2), g.weights(3, 2))


def scaled_head(g):
    y, _ = forward(g)
    rows = g.add("Gather", y, g.constant(-1), axis=1)
    return g.add("Gemm", rows, g.weights(UNITS, 2), g.weights(1, 2), alpha=0.5, beta=2.0)


def activation_of_states(g):
    y, _ = forward(g)
    return g.add("Tanh", y)


def limited_head(g):
    y, _ = forward(g)
    return g.add("Clip", g.add("MatMul", y, g.weights(UNITS, 2)), g.constant(0.0))


def without_limits(g):
    y, _ = forward(g)
    largest = float(np.finfo(np.float32).max)
    return g.add("Clip", g.add("Clip", y), g.constant(-largest), g.constant(largest))


def nearly_without_limits(g):
    x = g.add("Clip", g.input("x", ["batch", "steps", 3]), g.constant(-1e30), g.constant(1e30))
    y, _ = g.gru(g.add("Transpose", x, perm=[1, 0, 2]), 3, UNITS)
    return g.add("Clip", batch_first(g, y), g.constant(0.0), g.constant(1e30))


def affine_between(g):
    """Normalisations between layers and after the last one."""
    y, _ = forward(g)
    y = g.add("Add", g.add("Mul", y, g.weights(UNITS)), g.weights(1, 1, UNITS))
    y, _ = g.gru(g.add("Transpose", y, perm=[1, 0, 2]), UNITS, 2)
    y = batch_first(g, y)
    return g.add("Sub", g.constant(1.0), g.add("Neg", g.add("Div", y, g.constant([2.0, -4.0]))))


def nothing_between(g):
    """Operators that change nothing outside of training."""
    y, _ = forward(g)
    y = g.add("Dropout", g.add("Identity", g.add("Cast", y, to=TensorProto.FLOAT)), g.constant(0.5))
    return g.add("Where", g.constant(True, np.bool_), y, g.constant(0.0))


def chosen_for_the_head(g):
    y, _ = forward(g)
    return g.add("MatMul", g.add("Gather", y, g.constant([2, 0]), axis=2), g.weights(2, 2))


def low_rank(g):
    y, _ = forward(g)
    return g.add("MatMul", g.add("MatMul", y, g.weights(UNITS, 1)), g.weights(1, 5))


def stack_of_states(g):
    """h_n of a stack [layers, batch, units], and its last entry."""
    x = g.add("Transpose", g.input("x", ["batch", "steps", 3]), perm=[1, 0, 2])
    y, first = g.gru(x, 3, UNITS)
    _, second = g.gru(g.add("Squeeze", y, g.constant([1])), UNITS, UNITS)
    return g.add("Gather", g.add("Concat", first, second, axis=0), g.constant(-1), axis=0)


AROUND = [
    last_by_size,
    last_by_slice,
    last_by_computed_slice,
    first_step,
    fixed_last_step,
    fixed_flip,
    flip_by_index,
    flip_free_steps,
    flip_by_sequence,
    two_nodes_for_two_directions,
    two_nodes_final,
    backward_first,
    last_step_of_both,
    ends_of_both,
    sum_of_final_states,
    mean_at_last_step,
    product_at_last_step,
    one_direction_of_both,
    features_by_numbers,
    every_second_feature,
    repeated_features,
    gates_of_features,
    scaled_head,
    activation_of_states,
    limited_head,
    without_limits,
    nearly_without_limits,
    affine_between,
    nothing_between,
    low_rank,
    stack_of_states,
    chosen_for_the_head,
]


@pytest.mark.parametrize("make", AROUND, ids=lambda make: make.__name__)
def test_around_a_gru(make, tmp_path):
    """x is [batch, steps, 3], and the output has the batch first."""
    g = GraphBuilder(1)
    model = g.model(make(g))
    x = samples(2, BATCH, STEPS, 3)
    (expected,) = computed(model, x=x)
    found = qg.load(written(tmp_path, model)).run(x)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= TOLERANCE


def test_layers_are_as_small_as_they_can_be(tmp_path):
    """What is written as slices and sums of a bidirectional layer is a merge, and not a dense layer."""

    def layers_of(make):
        g = GraphBuilder(1)
        model = qg.load(written(tmp_path, g.model(make(g))))
        return [type(layer).__name__ for layer in model.layers], model

    assert layers_of(sum_of_final_states)[0] == ["Bidirectional"]
    assert layers_of(product_at_last_step)[0] == ["Bidirectional"]
    assert layers_of(two_nodes_for_two_directions)[0] == ["Bidirectional"]
    assert layers_of(flip_free_steps)[0] == ["Reverse", "Gru"]
    assert layers_of(stack_of_states)[0] == ["Gru", "Gru"]
    assert layers_of(chosen_for_the_head)[0] == ["Gru", "Dense"]
    assert layers_of(low_rank)[0] == ["Gru", "Dense", "Dense"]
    names, model = layers_of(mean_at_last_step)
    assert names == ["Bidirectional"] and model.layers[0].merge == "ave" and not model.layers[0].final
    assert layers_of(ends_of_both)[1].layers[0].final


@pytest.mark.parametrize(
    ("kind", "opset", "axis"), [("Softmax", 20, {}), ("Softmax", 11, {}), ("LogSoftmax", 20, {"axis": 1})]
)
def test_softmax_at_the_end(kind, opset, axis, tmp_path):
    """Before opset 13, the axis is 1 where none is given: of two axes, the same."""
    g = GraphBuilder()
    _, y_h = g.gru(g.input("x", ["steps", "batch", 3]), 3, UNITS)
    logits = g.add("Gemm", g.add("Gather", y_h, g.constant(0), axis=0), g.weights(UNITS, 4), g.weights(4))
    model, x = g.model(g.add(kind, logits, **axis), opset=opset), samples(0, BATCH, STEPS, 3)
    path = written(tmp_path, model)
    with pytest.raises(qg.ModelError, match="softmax='logits'"):
        qg.load(path)
    found = qg.load(path, softmax="logits").run(x)
    found = found - np.log(np.exp(found).sum(axis=1, keepdims=True))
    (expected,) = computed(model, x=x.swapaxes(0, 1))
    assert np.abs(found - (np.log(expected) if kind == "Softmax" else expected)).max() <= 2 * TOLERANCE


def test_functions_of_the_file_are_written_out(tmp_path):
    """A model whose layers are functions, as PyTorch's exporter writes them before it optimises."""
    helper = onnx.helper
    body = [
        helper.make_node("MatMul", ["x", "w"], ["product"]),
        helper.make_node("Add", ["product", "b"], ["sum"]),
        helper.make_node("Tanh", ["sum"], ["y"]),
    ]
    opset = helper.make_opsetid("", 20)
    dense = helper.make_function("local", "Dense", ["x", "w", "b"], ["y"], body, [opset])
    twice = [
        helper.make_node("Dense", ["x", "w", "b"], ["once"], domain="local"),
        helper.make_node("Dense", ["once", "w", "b"], ["y"], domain="local"),
    ]
    local = helper.make_opsetid("local", 1)
    twice = helper.make_function("local", "Twice", ["x", "w", "b"], ["y"], twice, [opset, local])
    g = GraphBuilder()
    y, _ = forward(g)
    y = g.add("Twice", y, g.weights(UNITS, UNITS), g.weights(UNITS), domain="local")
    model = g.model(y)
    model.opset_import.append(local)
    model.functions.extend([dense, twice])
    (expected,) = computed(model, x=samples(0, BATCH, STEPS, 3))
    loaded = qg.load(written(tmp_path, model))
    assert [type(layer).__name__ for layer in loaded.layers] == ["Gru", "Dense", "Dense"]
    assert np.abs(loaded.run(samples(0, BATCH, STEPS, 3)) - expected).max() <= TOLERANCE


def test_unused_parts_of_a_graph_do_not_matter(tmp_path):
    g = GraphBuilder()
    y, _ = forward(g)
    g.add("Erf", y)
    g.constants["nowhere"] = np.full(3, np.nan, np.float32)
    assert qg.load(written(tmp_path, g.model(y))).n_outputs == UNITS
