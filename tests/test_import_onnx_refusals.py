"""ONNX graphs that are refused: what was found, where, and what to do."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_graphs import UNITS, GraphBuilder, TensorProto, forward, refusal, written

import quantgru as qg


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


def other_numbers_for_each_sequence(g):
    x = g.add("Add", g.input("x", [2, 5, 3]), g.weights(2, 1, 3))
    return g.gru(g.add("Transpose", x, perm=[1, 0, 2]), 3, UNITS)[0]


def gru_that_reads_batch_features(g):
    """Steps are features: of an axis that no input has."""
    x = g.add("Unsqueeze", g.input("x", ["batch", 3]), g.constant([0]))
    return g.gru(x, 3, UNITS)[0]


GRAPHS = [
    (recurrent("LSTM", 4), r"\(LSTM\): this operator is not supported here"),
    (recurrent("RNN", 1), r"\(RNN\): this operator is not supported here"),
    (after("Erf"), r"\(Erf\): this operator is not supported here"),
    (after("ReduceMean", [1]), r"\(ReduceMean\): over steps or sequences; .*take the last step"),
    (after("Clip", 0.0, 0.5), r"node '[^']+' \(Clip\) to 0 \.\.\. 0\.5: hard_sigmoid outside of a GRU layer"),
    (after("Clip", -1.0, 1.0), r"\(Clip\) to -1 \.\.\. 1: hard_tanh outside of a GRU layer; .*train with relu or tanh"),
    (after("Clip", -1.0, 2.0), r"\(Clip\) to -1 \.\.\. 2: limits that no activation has; supported is"),
    (after("HardSigmoid"), r"\(HardSigmoid\): hard_sigmoid outside of a GRU layer"),
    (residual, "reads input 'x' and node .* at once: the graph branches, and comes together"),
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
    (
        other_numbers_for_each_sequence,
        "axis 0 of 'x': one node takes it as features, another as steps or batch; .*export it with a free size",
    ),
    (gru_that_reads_batch_features, "a single step that starts from no state, or is taken from a sequence"),
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
