"""Live Keras 3 models that are refused: what, where, what is supported, what to do."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from keras_models import assert_refused, float64_layers, functional, keras, layers, sequential, tokens  # noqa: F401

import quantgru as qg


@keras.saving.register_keras_serializable()
class Doubled(layers.GRU):
    """A class of the user's."""


def shared():
    gru = layers.GRU(3, return_sequences=True, name="shared")
    return functional(lambda x: gru(gru(x)))


def two_inputs():
    x, more = keras.Input((None, 3)), keras.Input((None, 3))
    return keras.Model([x, more], layers.GRU(4)(layers.Concatenate()([x, more])))


def unused_input():
    x, more = keras.Input((None, 3)), keras.Input((4,))
    return keras.Model([x, more], layers.GRU(4)(x))


def two_outputs():
    x = keras.Input((None, 3))
    return keras.Model(x, list(layers.GRU(4, return_state=True)(x)))


def computed_state():
    x, h = keras.Input((None, 3)), keras.Input((2,))
    return keras.Model([x, h], layers.GRU(4)(x, initial_state=layers.Dense(4)(h)))


def state_of_another_size():
    x, h = keras.Input((None, 3)), keras.Input((4,))
    return keras.Model([x, h], layers.RNN([layers.GRUCell(4), layers.GRUCell(4)])(x, initial_state=[h, h]))


def states_inside():
    h, y = keras.Input((4,)), keras.Input((None, 3))
    inner = keras.Model([y, h], layers.GRU(4)(y, initial_state=h), name="inner")
    x, start = keras.Input((None, 3)), keras.Input((4,))
    return keras.Model([x, start], inner([x, start]))


def masked_into_a_model():
    inner = keras.Sequential([keras.Input((None, 3)), layers.GRU(4)])
    with warnings.catch_warnings(action="ignore"):  # Keras tells it, too
        return functional(lambda x: inner(layers.Masking()(x)))


def patched(dtype=None):
    """Computes something else than its class says."""
    model = sequential(layers.GRU(4, name="odd", dtype=dtype), layers.Dense(2))
    original = model.layers[0].call
    model.layers[0].call = lambda *args, **kwargs: original(*args, **kwargs) * 1.1
    return model


def squash(x):
    return keras.ops.tanh(x)


def tanh(x):
    """Keras takes it for its own by its name."""
    return keras.ops.relu(x)


def bidirectional(**arguments):
    return lambda: functional(lambda x: layers.Bidirectional(layers.GRU(3), **arguments)(x))


EVERY_STEP = dict(return_sequences=True)

REFUSALS = {
    "unbuilt": (lambda: keras.Sequential([layers.GRU(3)]), "has no weights yet; start it with keras.Input"),
    "two results": (
        lambda: functional(lambda x: layers.Bidirectional(layers.GRU(3), merge_mode=None)(x)[0]),
        r"\(Bidirectional\): merge_mode=None, supported are concat, sum, mul, ave; .*merge both of its results",
    ),
    "bidirectional lstm": (
        lambda: sequential(layers.Bidirectional(layers.LSTM(3), name="both")),
        r"layer 'both' \(Bidirectional\): around a LSTM; supported .*only GRU may be inside",
    ),
    "bidirectional of the user's": (
        lambda: sequential(layers.Bidirectional(Doubled(3))),
        r"\(Bidirectional\): a class of '\w*test_import_keras_refusals', not one of Keras",
    ),
    "different units": (
        bidirectional(backward_layer=layers.GRU(4, go_backwards=True)),
        r"3 units forward, 4 backward; .*the same units",
    ),
    "bidirectional cells": (
        lambda: sequential(layers.Bidirectional(layers.RNN([layers.GRUCell(3), layers.GRUCell(3)]))),
        r"\(Bidirectional\): around several cells",
    ),
    "state of one direction": (
        lambda: functional(lambda x: layers.Bidirectional(layers.GRU(3, return_state=True))(x)[1]),
        r"its result 1 goes on; .*use its output, or the state of its last GRU",
    ),
    "state of the first cell": (
        lambda: functional(lambda x: layers.RNN([layers.GRUCell(3), layers.GRUCell(2)], return_state=True)(x)[1]),
        r"its result 1 goes on",
    ),
    "lstm": (
        lambda: sequential(layers.LSTM(3, name="memory")),
        r"layer 'memory' \(LSTM\): this layer is not supported; .*train with keras.layers.GRU",
    ),
    "lstm cell": (lambda: sequential(layers.RNN(layers.LSTMCell(3))), r"\(RNN\): with a cell of class LSTMCell"),
    "lstm cells": (
        lambda: sequential(layers.RNN([layers.GRUCell(3), layers.SimpleRNNCell(3)])),
        r"\(RNN\): with a cell of class SimpleRNNCell",
    ),
    "conv": (lambda: sequential(layers.Conv1D(4, 3), layers.GRU(3)), r"\(Conv1D\): this layer is not supported"),
    "layer norm": (
        lambda: sequential(layers.GRU(3), layers.LayerNormalization()),
        r"\(LayerNormalization\): this layer is not supported; .*train with BatchNormalization",
    ),
    "batch norm over steps": (
        lambda: sequential(layers.BatchNormalization(axis=1), layers.GRU(3), steps=5),
        r"axis=1, of a tensor of 3 axes; .*normalise the features, axis=-1",
    ),
    "renorm": (lambda: sequential(layers.BatchNormalization(renorm=True), layers.GRU(3)), "renorm=True, only False"),
    "normalization over steps": (
        lambda: sequential(layers.Normalization(axis=(1, 2)), layers.GRU(3), steps=5),
        r"axis=.1, 2., of a tensor of 3 axes",
    ),
    "pooling": (lambda: sequential(layers.GRU(3, **EVERY_STEP), layers.GlobalMaxPooling1D()), "GlobalMaxPooling1D"),
    "masked backwards": (
        lambda: sequential(layers.Masking(), layers.GRU(3, go_backwards=True, **EVERY_STEP)),
        "go_backwards with return_sequences=True on masked steps: Keras turns the steps around, not the mask",
    ),
    "masked zero": (
        lambda: sequential(layers.Masking(), layers.GRU(3, zero_output_for_mask=True)),
        "zero_output_for_mask=True with return_sequences=False on masked steps",
    ),
    "masked last": (
        lambda: functional(lambda x: layers.GRU(3, **EVERY_STEP)(layers.Masking()(x))[:, -1]),
        r"\(GetItem\): the last step of masked ones; .*use return_sequences=False",
    ),
    "masked into a model": (masked_into_a_model, "gets a mask across the border of a model inside the model"),
    "masking late": (lambda: sequential(layers.Dense(3), layers.Masking(), layers.GRU(3)), "masks what another layer"),
    "masking scaled": (lambda: sequential(layers.Rescaling(2), layers.Masking(), layers.GRU(3)), "masks what another"),
    "masking vectors": (
        lambda: tokens(layers.Embedding(5, 3), layers.Masking(), layers.GRU(3)),
        "masks what another layer computed",
    ),
    "mask values": (lambda: sequential(layers.Masking([0, 0, 1]), layers.GRU(3)), r"mask_value=\[0, 0, 1\], expected"),
    "one token": (lambda: tokens(layers.Embedding(1, 3, mask_zero=True), layers.GRU(3)), "every step is masked"),
    "embedding of features": (
        lambda: functional(lambda x: layers.GRU(3)(layers.Reshape((-1, 4))(layers.Embedding(5, 4)(x)))),
        r"layer 'reshape\w*' \(Reshape\): this layer is not supported|shape \(None, None, 3\); .*\(steps,\)",
    ),
    "gru activation": (
        lambda: sequential(layers.GRU(3, activation="selu")),
        r"activation='selu', supported are tanh, relu, linear, sigmoid, hard_tanh; ",
    ),
    "gru gates": (
        lambda: sequential(layers.GRU(3, recurrent_activation="tanh")),
        "recurrent_activation='tanh', supported are sigmoid, hard_sigmoid; ",
    ),
    "own function": (
        lambda: sequential(layers.GRU(3, activation=squash)),
        r"activation='squash \(a function of your own\)', supported are",
    ),
    "disguised function": (lambda: sequential(layers.GRU(3, activation=tanh)), r"\(GRU\): its import differs by"),
    "lambda": (
        lambda: sequential(layers.GRU(3), layers.Dense(2, activation=lambda x: x)),
        r"activation 'lambda \(a function of your own\)'",
    ),
    "lambda layer": (lambda: sequential(layers.Lambda(lambda x: x), layers.GRU(3)), r"\(Lambda\): .*keras\.layers"),
    "dense activation": (
        lambda: sequential(layers.GRU(3), layers.Dense(2, activation="gelu")),
        "activation 'gelu'; supported",
    ),
    "activation on the inputs": (
        lambda: sequential(layers.Activation("relu", name="act"), layers.GRU(3)),
        r"layer 'act' \(Activation\): relu on the inputs of the model",
    ),
    "leaky": (
        lambda: sequential(layers.GRU(3), layers.Dense(2), layers.ReLU(negative_slope=0.1)),
        "negative_slope=0.1",
    ),
    "time distributed": (
        lambda: sequential(layers.GRU(3, **EVERY_STEP), layers.TimeDistributed(layers.Flatten())),
        "around a Flatten; .*only Dense, activations and normalisations",
    ),
    "softmax over steps": (
        lambda: sequential(layers.GRU(3, **EVERY_STEP), layers.Dense(2), layers.Softmax(axis=1)),
        "softmax over axis 1",
    ),
    "another index": (
        lambda: functional(lambda x: layers.GRU(3, **EVERY_STEP)(x)[:, 0]),
        r"\(GetItem\): an index other than \[:, -1\]",
    ),
    "index of features": (
        lambda: functional(lambda x: layers.GRU(3)(x)[:, -1]),
        r"\(GetItem\): an index other than \[:, -1\]",
    ),
    "no gru": (lambda: functional(layers.Dropout(0.1)), "no GRU layer"),
    "nested lstm": (
        lambda: sequential(keras.Sequential([layers.LSTM(3, name="memory")], name="inner")),
        r"layer 'inner/memory' \(LSTM\): this layer is not supported",
    ),
    "states inside": (states_inside, r"layer 'inner' \(Functional\)"),
    "own layer": (lambda: sequential(Doubled(3)), r"\(Doubled\): a class of \'\w*test_import_keras_refusals\'"),
    "branch": (
        lambda: functional(lambda x: layers.Add()([layers.GRU(3)(x), layers.Dense(3)(layers.GRU(3)(x))])),
        r"\(Add\): merges what layer 'dense\w*' \(Dense\) gives; .*only two directions can be merged",
    ),
    "shared": (shared, r"layer 'shared' \(GRU\): called 2 times; .*a layer of its own"),
    "two inputs": (two_inputs, r"\(Concatenate\): merges what layer \'input\w*\' \(InputLayer\)"),
    "unused input": (unused_input, "not on the one way from the input to the output"),
    "two outputs": (two_outputs, "2 outputs; .*make a model of the one that you need"),
    "computed state": (computed_state, "initial_state is what layer 'dense"),
    "training": (
        lambda: functional(lambda x: layers.GRU(3)(layers.Dropout(0.5)(x, training=True))),
        "called with training=True",
    ),
    "mask by hand": (
        lambda: functional(lambda x: layers.GRU(3)(x, mask=keras.ops.any(keras.ops.not_equal(x, 0), axis=-1))),
        r"\(GRU\): called with a mask that is not that of the inputs; .*use keras.layers.Masking or mask_zero=True",
    ),
    "operation on the mask": (
        lambda: functional(lambda x: keras.ops.any(layers.GRU(3)(x), axis=-1)),
        r"\(Any\): this layer is not supported",
    ),
    "masked twice": (
        lambda: sequential(layers.Masking(-1.0), layers.Masking(-1.0, name="again"), layers.GRU(3)),
        r"layer 'again' \(Masking\): masks -1.0, and a layer before it masks -1.0; .*leave one of them out",
    ),
    "masked twice with zeros": (
        lambda: sequential(layers.Masking(), layers.Dropout(0.1), layers.Masking(), layers.GRU(3)),
        r"\(Masking\): masks 0.0, and a layer before it masks 0.0",
    ),
    "half, of another meaning": (
        lambda: patched("mixed_float16"),
        r"layer 'odd' \(GRU\): its import differs by 9.*allowed 1e-02.*or float16 is too coarse.*policy 'float32'",
    ),
    "wrong meaning": (patched, r"layer 'odd' \(GRU\): its import differs by 9.1e-02 of the largest output"),
    "wrong input": (
        lambda: keras.Sequential([keras.Input((3,)), layers.Dense(2)]),
        r"\(InputLayer\): shape \(None, 3\)",
    ),
    "single layer": (lambda: layers.Dense(3), "has no weights yet"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals_say_what_where_and_what_is_supported(case):
    assert_refused(*REFUSALS[case])


def test_weights_that_are_not_finite():
    source = sequential(layers.GRU(4, name="cell"))
    kernel, recurrent, bias = source.get_weights()
    recurrent[1, 2] = np.nan
    source.set_weights([kernel, recurrent, bias])
    with pytest.raises(
        qg.ModelError, match=r"layer 'cell' \(GRU\): parameter 'recurrent_kernel' holds nan at \[1, 2\] \(1 such"
    ):
        qg.load(source)


def test_a_variance_that_is_not_positive():
    source = sequential(layers.BatchNormalization(name="norm"), layers.GRU(4))
    gamma, beta, mean, variance = source.layers[0].get_weights()
    source.layers[0].set_weights([gamma, beta, mean, variance - 7.0])
    with pytest.raises(qg.ModelError, match=r"layer 'norm' \(BatchNormalization\): parameter 'scale' holds nan"):
        qg.load(source)


def test_options_that_a_live_model_does_not_take():
    with pytest.raises(qg.ConfigError, match="chain='gru' has no meaning here; this source takes: softmax"):
        qg.load(sequential(layers.GRU(3)), chain="gru")
