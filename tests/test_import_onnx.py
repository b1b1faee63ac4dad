"""ONNX files: recorded exports, the node tests of ONNX's own suite, and what exporters put around a GRU."""

from __future__ import annotations

import builtins
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import numpy as np
import pytest
from onnx_graphs import GraphBuilder, TensorProto, computed, numpy_helper, onnx, samples, written

import quantgru as qg
from quantgru.errors import QuantgruWarning

MODELS = Path(__file__).parent / "models" / "onnx"
TOLERANCE = 1e-6

# Recorded files that cannot be had, and what the refusal says.
REFUSED = {
    "hand_lengths": "sequence_lens .* the lengths of one batch",
    "hand_lengths_bidirectional": "sequence_lens",
    "hand_lengths_final_state": "sequence_lens",
    "hand_refused_clip": r"clip=0\.5; .*without clipping",
    "hand_refused_softsign": "activations 'sigmoid' and 'softsign'",
    "keras_tensorflow_every_step": r"\(Loop\): has a graph of its own; .*\.keras file",
    "keras_tensorflow_reset_after": r"\(Loop\)",
    "keras_tensorflow_reset_before": r"\(Loop\)",
    "keras_torch_open_steps": "a GRU written out for 1 steps, though the number of steps is free",
    "tensorflow1_dynamic": r"\(Scan\)",
}
FAULTS = [path.name for path in sorted(MODELS.glob("fault_*.onnx"))]
RECORDED = [path.name for path in sorted(MODELS.glob("*.onnx")) if path.name.split(".")[0] not in REFUSED]


def record_of(name: str) -> dict[str, np.ndarray]:
    return dict(np.load(MODELS / f"{name.split('.')[0]}.npz"))


def run(model: qg.FloatModel, record: dict[str, np.ndarray]) -> np.ndarray:
    """The model on a record, lengths and initial states as the record has them."""
    x = record["x"] if record["x"].ndim == 3 else record["x"][..., None]
    states = list(record["h0"]) if "h0" in record else None
    if "lengths" not in record:
        return model.run(x, initial_states=states)
    found = model.run([row[:n] for row, n in zip(x, record["lengths"], strict=True)], initial_states=states)
    return np.stack([np.pad(row, ((0, x.shape[1] - len(row)), (0, 0))) for row in found])


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_outputs(name):
    record = record_of(name)
    with warnings.catch_warnings():
        if name in FAULTS:
            warnings.simplefilter("ignore", QuantgruWarning)
        model = qg.load(MODELS / name)
    found = run(model, record)
    assert found.shape == record["y"].shape
    assert np.abs(found - record["y"]).max() <= TOLERANCE
    if "hn" in record:
        (state,) = model.final_states(record["x"], initial_states=list(record["h0"]) if "h0" in record else None)
        assert np.abs(state - record["hn"][0]).max() <= TOLERANCE
        assert "output 'hn' of the file is what model.final_states(x) gives" in model.notes


@pytest.mark.parametrize("name", REFUSED)
def test_recorded_files_that_are_refused(name):
    with pytest.raises(qg.ModelError, match=REFUSED[name]) as caught:
        qg.load(MODELS / f"{name}.onnx")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"ONNX file {MODELS / name}.onnx: ")


# ---- PyTorch's exports with the reset before the product ------------------------------------------------------------


@pytest.mark.parametrize("name", FAULTS)
def test_the_known_fault_is_said_in_one_sentence_and_can_be_overridden(name):
    """linear_before_reset=0 by PyTorch, which resets after the product. Both outputs were recorded."""
    record = record_of(name)
    with pytest.warns(QuantgruWarning) as caught:
        as_written = qg.load(MODELS / name)
    (warning,) = caught
    text = str(warning.message)
    assert "linear_before_reset=0, but PyTorch" in text and "reset='after'" in text and "--reset after" in text
    assert "\n" not in text and text.removeprefix(f"ONNX file {MODELS / name}: ") in as_written.notes
    with warnings.catch_warnings(action="error"):
        meant = qg.load(MODELS / name, reset="after")
        said = qg.load(MODELS / name, reset="before")
    assert np.abs(as_written.run(record["x"]) - record["y"]).max() <= TOLERANCE
    assert np.abs(said.run(record["x"]) - record["y"]).max() <= TOLERANCE
    assert np.abs(meant.run(record["x"]) - record["y_pytorch"]).max() <= TOLERANCE
    assert np.abs(record["y"] - record["y_pytorch"]).max() > 0.01


def test_only_pytorch_is_warned_of(tmp_path):
    g = GraphBuilder()
    y, _ = g.gru(g.input("x", ["steps", "batch", 3]), 3, 4)
    with warnings.catch_warnings(action="error"):
        assert qg.load(written(tmp_path, g.model(y, producer="tf2onnx"))).grus[0].reset == "before"
    with pytest.warns(QuantgruWarning, match="linear_before_reset=0"):
        qg.load(written(tmp_path, g.model(y, producer="pytorch")))


def test_reset_overrides_in_both_directions(tmp_path):
    """With reset "before", the recurrent bias of the candidate stands outside of the product."""
    g = GraphBuilder()
    y, _ = g.gru(g.input("x", ["steps", "batch", 3]), 3, 4, linear_before_reset=1)
    path = written(tmp_path, g.model(y))
    after, before = qg.load(path).grus[0], qg.load(path, reset="before").grus[0]
    assert after.recurrent_bias.any() and not before.recurrent_bias.any()
    assert np.allclose(before.bias[2], after.bias[2] + after.recurrent_bias, rtol=0, atol=1e-15)
    other = GraphBuilder()
    y, _ = other.gru(other.input("x", ["steps", "batch", 3]), 3, 4, linear_before_reset=0)
    model, x = other.model(y), samples(0, 2, 5, 3)
    (expected,) = computed(model, x=x.swapaxes(0, 1))
    assert np.abs(qg.load(path, reset="before").run(x) - expected[:, 0].swapaxes(0, 1)).max() <= TOLERANCE


def test_reset_without_a_node_to_act_on():
    with pytest.raises(qg.ConfigError, match="option reset='after', but no node GRU"):
        qg.load(MODELS / "keras_torch_reset_before.onnx", reset="after")


# ---- ONNX's back-end node tests -------------------------------------------------------------------------------------


def node_cases():
    """Those of GRU alone: some of the others warn when they are imported."""
    from onnx.backend.test.case import node
    from onnx.backend.test.case.node import gru  # registers its cases

    assert gru.GRU
    return [case for case in node._NodeTestCases if case.model.graph.node[0].op_type == "GRU"]


NODE_CASES = node_cases()


def test_every_case_of_the_suite_is_here():
    """By name, so that a newer onnx package with more of them is noticed."""
    assert {case.name for case in NODE_CASES} >= {
        "test_gru_defaults",
        "test_gru_with_initial_bias",
        "test_gru_seq_length",
        "test_gru_batchwise",
        "test_gru_reverse",
        "test_gru_bidirectional",
    }


@pytest.mark.parametrize("case", NODE_CASES, ids=lambda case: case.name)
def test_node_case(case, tmp_path):
    """The suite gives weights as inputs of the graph; in a file they are initializers."""
    ((inputs, outputs),) = case.data_sets
    model = onnx.ModelProto.FromString(case.model.SerializeToString())
    names = [entry.name for entry in model.graph.input]
    model.graph.initializer.extend(
        numpy_helper.from_array(array, name) for array, name in zip(inputs[1:], names[1:], strict=True)
    )
    del model.graph.input[1:]
    loaded = qg.load(written(tmp_path, model))
    by_batch = any(entry.name == "layout" and entry.i == 1 for entry in model.graph.node[0].attribute)
    x = inputs[0] if by_batch else inputs[0].swapaxes(0, 1)
    expected = dict(zip([entry.name for entry in model.graph.output], outputs, strict=True))
    if "Y" in expected:
        y = expected["Y"] if by_batch else expected["Y"].transpose(2, 0, 1, 3)
        assert np.abs(loaded.run(x) - y.reshape(*y.shape[:2], -1)).max() <= TOLERANCE
        states = np.stack(loaded.final_states(x), axis=1 if by_batch else 0)
    else:
        states = loaded.run(x)[:, None] if by_batch else loaded.run(x)[None]
    assert np.abs(states - expected["Y_h"]).max() <= TOLERANCE


# ---- what stands around a GRU ---------------------------------------------------------------------------------------

BATCH, STEPS, UNITS = 2, 4, 3


def forward(g: GraphBuilder, shape=("batch", "steps", 3)) -> tuple[str, str]:
    """[batch, steps, units] and [1, batch, units] of a layer on input x, batch first."""
    x = g.add("Transpose", g.input("x", shape), perm=[1, 0, 2])
    y, y_h = g.gru(x, 3, UNITS, linear_before_reset=1)
    return g.add("Transpose", g.add("Squeeze", y, g.constant([1])), perm=[1, 0, 2]), y_h


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
    return g.add("Transpose", g.add("Squeeze", y, g.constant([1])), perm=[1, 0, 2])


def flip_by_sequence(g):
    x = g.add("Transpose", g.input("x", ["batch", "steps", 3]), perm=[1, 0, 2])
    sizes = g.add("Shape", x)
    lengths = g.add("Expand", *(g.add("Slice", sizes, g.constant([i]), g.constant([i + 1])) for i in (0, 1)))
    y, _ = g.gru(g.add("ReverseSequence", x, lengths, batch_axis=1, time_axis=0), 3, UNITS)
    return g.add("Transpose", g.add("Squeeze", y, g.constant([1])), perm=[1, 0, 2])


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


def channels_before_steps(g):
    """x [batch, channels, steps], as convolutions have it."""
    x = g.add("Transpose", g.input("x", ["batch", 3, "steps"]), perm=[2, 0, 1])
    y, _ = g.gru(x, 3, UNITS)
    return g.add("Transpose", g.add("Squeeze", y, g.constant([1])), perm=[1, 0, 2])


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
    return g.add("Transpose", g.add("Squeeze", y, g.constant([1])), perm=[1, 0, 2])


def one_step_only(g):
    """A model of a single step, as exported for streaming."""
    y, _ = forward(g, (1, 1, 3))
    return g.add("MatMul", y, g.weights(UNITS, 2))


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


def affine_between(g):
    """Normalisations between layers and after the last one."""
    y, _ = forward(g)
    y = g.add("Add", g.add("Mul", y, g.weights(UNITS)), g.weights(1, 1, UNITS))
    y, _ = g.gru(g.add("Transpose", y, perm=[1, 0, 2]), UNITS, 2)
    y = g.add("Transpose", g.add("Squeeze", y, g.constant([1])), perm=[1, 0, 2])
    return g.add("Sub", g.constant(1.0), g.add("Neg", g.add("Div", y, g.constant([2.0, -4.0]))))


def nothing_between(g):
    """Operators that change nothing outside of training."""
    y, _ = forward(g)
    y = g.add("Dropout", g.add("Identity", g.add("Cast", y, to=TensorProto.FLOAT)), g.constant(0.5))
    return g.add("Where", g.constant(True, np.bool_), y, g.constant(0.0))


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
    every_second_feature,
    repeated_features,
    gates_of_features,
    scaled_head,
    activation_of_states,
    limited_head,
    affine_between,
    nothing_between,
    low_rank,
    stack_of_states,
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
    loaded = qg.load(written(tmp_path, model))
    found = loaded.run(x)
    assert found.shape == from_file(expected).shape
    assert np.abs(found - from_file(expected)).max() <= TOLERANCE


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
    assert layers_of(low_rank)[0] == ["Gru", "Dense", "Dense"]
    names, model = layers_of(mean_at_last_step)
    assert names == ["Bidirectional"] and model.layers[0].merge == "ave" and not model.layers[0].final
    assert layers_of(ends_of_both)[1].layers[0].final


def test_given_states_and_streaming(tmp_path):
    """State in, state out: sequences in pieces give what they give in one piece, here and there."""
    g = GraphBuilder(3)
    x, h0 = g.input("x", ["batch", "steps", 3]), g.input("h0", [2, "batch", UNITS])
    first, second = (g.add("Slice", h0, *(g.constant([n]) for n in (i, i + 1, 0))) for i in (0, 1))
    y, state = g.gru(g.add("Transpose", x, perm=[1, 0, 2]), 3, UNITS, start=first)
    y, other = g.gru(g.add("Squeeze", y, g.constant([1])), UNITS, UNITS, start=second)
    y = g.add("Transpose", g.add("Squeeze", y, g.constant([1])), perm=[1, 0, 2])
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


def test_unused_parts_of_a_graph_do_not_matter(tmp_path):
    g = GraphBuilder()
    y, _ = forward(g)
    g.add("Erf", y)
    g.constants["nowhere"] = np.full(3, np.nan, np.float32)
    assert qg.load(written(tmp_path, g.model(y))).n_outputs == UNITS


# ---- names, options, packages ---------------------------------------------------------------------------------------


def test_names_and_notes():
    model = qg.load(MODELS / "dense_around.torchscript.onnx")
    assert model.name == "dense_around_torchscript"
    assert model.notes[0] == "imported from ONNX file dense_around.torchscript.onnx"
    assert qg.load(MODELS / "stack.dynamo.onnx", name="kws").name == "kws"
    with pytest.raises(qg.ConfigError, match=r"option chain='gru' has no meaning here; .* takes: softmax, reset"):
        qg.load(MODELS / "stack.dynamo.onnx", chain="gru")


def test_no_framework_is_imported():
    code = f"""
    import sys
    import quantgru as qg
    qg.load({str(MODELS / "stack.dynamo.onnx")!r})
    found = {{"keras", "torch", "tensorflow", "onnxruntime", "onnxscript"}} & set(sys.modules)
    assert not found, found
    """
    subprocess.run([sys.executable, "-W", "error", "-c", textwrap.dedent(code)], check=True, timeout=60)


def test_missing_onnx(monkeypatch):
    original = builtins.__import__

    def without_onnx(name, *arguments, **options):
        if name.split(".")[0] == "onnx":
            raise ImportError(name)
        return original(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without_onnx)
    with pytest.raises(qg.ConfigError, match=r"needs onnx, which is not installed: pip install quantgru\[onnx\]"):
        qg.load(MODELS / "stack.dynamo.onnx")
