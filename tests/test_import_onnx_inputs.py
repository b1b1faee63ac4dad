"""ONNX: what a model reads: features chosen or in another order, other shapes, tokens, states, element types."""

from __future__ import annotations

import re
import warnings

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
    numpy_helper,
    onnx,
    samples,
    written,
)

import quantgru as qg

BATCH, STEPS = 2, 4


def on_selected(g, kind, *constants, width=2, direction="forward", **attributes):
    """A layer on some features of x."""
    x = g.add(kind, g.input("x", ["batch", "steps", 3]), *map(g.constant, constants), **attributes)
    y, _ = g.gru(g.add("Transpose", x, perm=[1, 0, 2]), width, UNITS, direction=direction)
    return batch_first(g, y)


def chosen_inputs(g):
    return on_selected(g, "Gather", [2, 0], axis=2)


def chosen_inputs_backwards(g):
    return on_selected(g, "Gather", [2, 0], axis=2, direction="reverse")


def inputs_in_another_order(g):
    return on_selected(g, "Slice", [-1], [-9], [2], [-1], width=3)


def slices_of_everything(g):
    return on_selected(g, "Slice", [0, 0, 0], [2**63 - 1, 2**31 - 1, 3], [0, 1, 2], width=3)


def inputs_joined_again(g):
    x = g.input("x", ["batch", "steps", 3])
    parts = [g.add("Slice", x, *(g.constant([i]) for i in (start, end, 2))) for start, end in ((2, 3), (0, 3))]
    y, _ = g.gru(g.add("Transpose", g.add("Concat", *parts, axis=2), perm=[1, 0, 2]), 4, UNITS)
    return batch_first(g, y)


CHOSEN = [
    chosen_inputs,
    chosen_inputs_backwards,
    inputs_in_another_order,
    slices_of_everything,
    inputs_joined_again,
]


@pytest.mark.parametrize("make", CHOSEN, ids=lambda make: make.__name__)
def test_chosen_inputs_become_part_of_the_weights(make, tmp_path):
    g = GraphBuilder(1)
    model, x = g.model(make(g)), samples(2, BATCH, STEPS, 3)
    (expected,) = computed(model, x=x)
    loaded = qg.load(written(tmp_path, model))
    assert np.abs(loaded.run(x) - expected).max() <= TOLERANCE
    assert [type(layer).__name__ for layer in loaded.layers if type(layer).__name__ != "Reverse"] == ["Gru"]


def channels_before_steps(g):
    """x [batch, channels, steps], as convolutions have it."""
    x = g.add("Transpose", g.input("x", ["batch", 3, "steps"]), perm=[2, 0, 1])
    y, _ = g.gru(x, 3, UNITS)
    return batch_first(g, y)


def no_batch(g):
    """x [steps, inputs], as PyTorch takes a single sequence."""
    x = g.add("Unsqueeze", g.input("x", ["steps", 3]), g.constant([1]))
    y, _ = g.gru(x, 3, UNITS)
    return g.add("Squeeze", y, g.constant([1, 2]))


def batch_of_one(g):
    y, _ = forward(g, (1, STEPS, 3))
    return g.add("Squeeze", y, g.constant([0]))


def batch_of_one_reshaped(g):
    x = g.add("Transpose", g.input("x", (1, STEPS, 3)), perm=[1, 0, 2])
    y, _ = g.gru(x, 3, UNITS, direction="bidirectional")
    rows = g.add("Reshape", g.add("Transpose", y, perm=[0, 2, 1, 3]), g.constant([STEPS, 2 * UNITS]))
    return g.add("Gemm", rows, g.weights(2, 2 * UNITS), transB=1)


def one_feature(g):
    """x [batch, steps], one number a step."""
    x = g.add("Unsqueeze", g.input("x", ["batch", "steps"]), g.constant([-1]))
    y, _ = g.gru(g.add("Transpose", x, perm=[1, 0, 2]), 1, UNITS)
    return batch_first(g, y)


def one_step_only(g):
    """A model of a single step, as exported for streaming."""
    y, _ = forward(g, (1, 1, 3))
    return g.add("MatMul", y, g.weights(UNITS, 2))


@pytest.mark.parametrize(
    ("make", "shape", "to_file", "from_file"),
    [
        (channels_before_steps, (BATCH, STEPS, 3), lambda x: x.swapaxes(1, 2), lambda y: y),
        (no_batch, (1, STEPS, 3), lambda x: x[0], lambda y: y[None]),
        (batch_of_one, (1, STEPS, 3), lambda x: x, lambda y: y[None]),
        (batch_of_one_reshaped, (1, STEPS, 3), lambda x: x, lambda y: y[None]),
        (one_feature, (BATCH, STEPS, 1), lambda x: x[..., 0], lambda y: y),
        (one_step_only, (1, 1, 3), lambda x: x, lambda y: y),
    ],
    ids=lambda part: part.__name__ if hasattr(part, "__name__") else "",
)
def test_inputs_of_other_shapes(make, shape, to_file, from_file, tmp_path):
    g = GraphBuilder(1)
    model = g.model(make(g))
    x = samples(2, *shape)
    (expected,) = computed(model, x=to_file(x))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*in the file; this model takes", qg.QuantgruWarning)
        loaded = qg.load(written(tmp_path, model))
    found = loaded.run(x)
    assert found.shape == from_file(expected).shape
    assert np.abs(found - from_file(expected)).max() <= TOLERANCE


def features_first(g):
    """x [features, steps, batch]."""
    y, _ = g.gru(g.add("Transpose", g.input("x", [3, "steps", "batch"]), perm=[1, 2, 0]), 3, UNITS)
    return batch_first(g, y)


@pytest.mark.parametrize(
    ("make", "order"),
    [(channels_before_steps, "[batch, features, steps]"), (features_first, "[features, steps, batch]")],
)
def test_features_before_steps_are_warned_of(make, order, tmp_path):
    """With as many steps as features, run() takes either order."""
    g = GraphBuilder(1)
    note = f"input 'x' is {order} in the file; this model takes [batch, steps, features]"
    with pytest.warns(qg.QuantgruWarning, match=re.escape(note)):
        loaded = qg.load(written(tmp_path, g.model(make(g))))
    assert loaded.notes.count(note) == 1


def steps_first(g):
    return g.gru(g.input("x", ["steps", "batch", 3]), 3, UNITS)[0]


def tokens_steps_first(g):
    tokens = g.input("x", ["steps", "batch"], TensorProto.INT64)
    return g.gru(g.add("Gather", g.weights(7, 3), tokens), 3, UNITS)[0]


@pytest.mark.parametrize(
    ("make", "notes"),
    [
        (steps_first, ["input 'x' is [steps, batch, features] in the file; this model takes [batch, steps, features]"]),
        (tokens_steps_first, ["input 'x' is [steps, batch] in the file; this model takes [batch, steps]"]),
        (batch_of_one, []),
        (no_batch, []),
        (one_feature, []),
        (one_step_only, []),
    ],
)
def test_steps_before_the_batch_are_noted(make, notes, tmp_path):
    g = GraphBuilder(1)
    assert [note for note in qg.load(written(tmp_path, g.model(make(g)))).notes if "in the file" in note] == notes


def test_given_states_and_streaming(tmp_path):
    """State in, state out: sequences in pieces give what they give in one piece, here and there."""
    g = GraphBuilder(3)
    x, h0 = g.input("x", ["batch", "steps", 3]), g.input("h0", [2, "batch", UNITS])
    first, second = (g.add("Slice", h0, *(g.constant([n]) for n in (i, i + 1, 0))) for i in (0, 1))
    y, state = g.gru(g.add("Transpose", x, perm=[1, 0, 2]), 3, UNITS, start=first)
    y, other = g.gru(g.add("Squeeze", y, g.constant([1])), UNITS, UNITS, start=second)
    y = batch_first(g, y)
    model = g.model(y, g.add("Concat", state, other, axis=0))
    loaded, data, states = qg.load(written(tmp_path, model)), samples(4, BATCH, 6, 3), samples(5, 2, BATCH, UNITS)
    for piece in (data[:, :2], data[:, 2:3], data[:, 3:]):
        expected, after = computed(model, x=piece, h0=states)
        assert np.abs(loaded.run(piece, initial_states=list(states)) - expected).max() <= TOLERANCE
        states = np.stack(loaded.final_states(piece, initial_states=list(states)))
        assert np.abs(states - after).max() <= TOLERANCE
    assert "initial states, run(x, initial_states=...), are inputs of the file: h0[0], h0[1]" in loaded.notes


def test_tokens(tmp_path):
    """An embedding, with the guard that PyTorch's and Keras's exporters write for numbers from the end."""
    g = GraphBuilder(3)
    x = g.add("Cast", g.input("x", ["batch", "steps"], TensorProto.INT32), to=TensorProto.INT64)
    negative = g.add("Less", x, g.constant(0))
    x = g.add("Where", negative, g.add("Add", x, g.constant(7)), x)
    rows = g.add("Transpose", g.add("Gather", g.weights(7, 3), x), perm=[1, 0, 2])
    _, y_h = g.gru(rows, 3, UNITS)
    model = g.model(g.add("Squeeze", y_h, g.constant([0])))
    tokens = np.random.default_rng(0).integers(0, 7, (BATCH, STEPS)).astype(np.int32)
    (expected,) = computed(model, x=tokens)
    loaded = qg.load(written(tmp_path, model))
    assert np.abs(loaded.run(tokens[..., None]) - expected).max() <= TOLERANCE
    assert loaded.n_inputs == 1 and loaded.layers[0].n_tokens == 7


@pytest.mark.parametrize("kind", [np.float16, np.float64])
def test_weights_of_other_floating_types(kind, tmp_path):
    g = GraphBuilder()
    y, _ = forward(g)
    model = g.model(y)
    for entry in model.graph.initializer:
        array = numpy_helper.to_array(entry)
        if array.dtype == np.float32:
            entry.CopyFrom(numpy_helper.from_array(array.astype(kind).astype(np.float32), entry.name))
    (expected,) = computed(model, x=samples(0, BATCH, STEPS, 3))
    for entry in model.graph.initializer:
        array = numpy_helper.to_array(entry)
        if array.dtype == np.float32:
            entry.CopyFrom(numpy_helper.from_array(array.astype(kind), entry.name))
    model.graph.input[0].type.tensor_type.elem_type = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    found = qg.load(written(tmp_path, model)).run(samples(0, BATCH, STEPS, 3))
    assert np.abs(found - expected).max() <= TOLERANCE
