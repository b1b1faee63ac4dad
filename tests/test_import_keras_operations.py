"""Operations on tensors, constants as initial states, and layers that change nothing or are dense in disguise."""

from __future__ import annotations

import numpy as np
import pytest
from keras_models import (  # noqa: F401  # float64_layers acts by being there
    assert_equal,
    assert_refused,
    float64_layers,
    functional,
    keras,
    layers,
    seeded,
    sequential,
)

import quantgru as qg
from quantgru.importers.verify import softmax

ops = keras.ops
EVERY_STEP = dict(return_sequences=True)
SCALE = np.array([2.0, 0.5, -3.0])


def gru(x):
    return layers.GRU(4, **EVERY_STEP)(x)


def dense(x):
    return layers.Dense(2)(gru(x))


OPERATIONS = {
    "scaled inputs": lambda x: gru((x - 1.5) / 2),
    "scaled by functions": lambda x: gru(ops.divide(ops.subtract(x, 1.5), 2.0)),
    "each feature": lambda x: gru(x * SCALE + ops.convert_to_tensor([1.0, -2.0, 0.25])),
    "with all axes": lambda x: gru(x * SCALE[None, None]),
    "constant first": lambda x: gru(1.5 - 2 * x),
    "negative": lambda x: gru(-x),
    "by a layer": lambda x: gru(layers.Add()([x, SCALE[None, None]])),
    "between": lambda x: gru(gru(x) / 3 - 0.5),
    "after": lambda x: dense(x) * 2 + 1,
    "after the last step": lambda x: layers.GRU(3)(x) * SCALE,
    "steps turned around": lambda x: gru(ops.flip(x, axis=1)),
    "steps turned around twice": lambda x: ops.flip(layers.GRU(3, go_backwards=True, **EVERY_STEP)(x), axis=-2),
    "relu": lambda x: ops.relu(dense(x)),
    "relu of activations": lambda x: keras.activations.relu(dense(x)),
    "sigmoid": lambda x: ops.sigmoid(dense(x)),
    "tanh": lambda x: ops.tanh(dense(x)),
    "tanh of inputs between": lambda x: gru(ops.tanh(gru(x))),
    "reshape": lambda x: gru(layers.Reshape((-1, 3))(x)),
    "permute": lambda x: gru(layers.Permute((1, 2))(x)),
    "flatten": lambda x: layers.Dense(2)(layers.Flatten()(layers.GRU(4)(x))),
    "reshape of a step": lambda x: layers.Dense(2)(layers.Reshape((4,))(layers.GRU(4)(x))),
    "reshape of a step by an operation": lambda x: layers.Dense(2)(ops.reshape(layers.GRU(4)(x), (-1, 4))),
    "convolution": lambda x: gru(layers.Conv1D(4, 1, activation="relu")(x)),
    "convolution without bias": lambda x: layers.Conv1D(4, 1, use_bias=False, padding="same", dilation_rate=2)(gru(x)),
    "normalisation of each step": lambda x: gru(layers.TimeDistributed(layers.BatchNormalization())(x)),
    "rescaling of each step": lambda x: gru(layers.TimeDistributed(layers.Rescaling(SCALE, 1.0))(x)),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations(name):
    source = functional(OPERATIONS[name])
    assert_equal(source, qg.load(source))


@pytest.mark.filterwarnings("ignore")  # of Keras: .h5 is its legacy format
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_files(tmp_path, name, suffix):
    source = functional(OPERATIONS[name])
    source.save(tmp_path / f"model{suffix}")
    assert_equal(source, qg.load(tmp_path / f"model{suffix}"))


def test_steps_turned_around_by_an_index(tmp_path):
    """Keras on PyTorch cannot run it: only the file is read, and computes what flip(x, axis=1) does."""
    source = functional(lambda x: gru(ops.flip(x, axis=1)))
    by_index = functional(lambda x: gru(x[:, ::-1]))
    by_index.set_weights(source.get_weights())
    by_index.save(tmp_path / "model.keras")
    assert_equal(source, qg.load(tmp_path / "model.keras"))


def by_reshape(shape, size=None):
    x = keras.Input((5, 3), batch_size=size)
    return seeded(keras.Model(x, layers.GRU(3)(ops.reshape(x, shape))))


@pytest.mark.parametrize(
    "make",
    [
        lambda: sequential(layers.Reshape((5, 3)), layers.GRU(3), steps=5),
        lambda: by_reshape((-1, 5, 3)),
        lambda: by_reshape((4, -1, 3), size=4),
    ],
)
def test_fixed_sizes(make):
    source = make()
    assert_equal(source, qg.load(source), steps=5)


@pytest.mark.filterwarnings("ignore")  # of Keras: .h5 is its legacy format
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_reshape_in_a_file_is_named(tmp_path, suffix):
    source = functional(lambda x: gru(ops.reshape(x, (-1, 6, 3))))
    source.save(tmp_path / f"model{suffix}")
    with pytest.raises(qg.ModelError, match=r"\(Reshape\): changes the shape; .*keep \(steps, features\)"):
        qg.load(tmp_path / f"model{suffix}")


@pytest.mark.parametrize("end", [ops.softmax, ops.log_softmax])
def test_softmax(end):
    source = functional(lambda x: end(dense(x)))
    with pytest.raises(qg.ModelError, match=r"softmax; .*softmax='logits'"):
        qg.load(source)
    after = softmax if end is ops.softmax else lambda y: np.log(softmax(y))
    assert_equal(source, qg.load(source, softmax="logits"), after=after)


def initial_state(state):
    return lambda: functional(lambda x: layers.GRU(3, **EVERY_STEP)(x, initial_state=state))


def batch_of(size, state):
    x = keras.Input((None, 3), batch_size=size)
    return keras.Model(x, layers.GRU(3)(x, initial_state=state))


START = np.array([[0.5, -1.0, 0.25]])
CONSTANTS = {
    "array": initial_state(START),
    "tensor": initial_state(ops.convert_to_tensor(START)),
    "list": initial_state([START]),
    "both directions": lambda: functional(
        lambda x: layers.Bidirectional(layers.GRU(3))(x, initial_state=[START, 2 * START])
    ),
    "cells": lambda: functional(
        lambda x: layers.RNN([layers.GRUCell(3), layers.GRUCell(2)])(x, initial_state=[START, np.ones((1, 2))])
    ),
    "second layer": lambda: functional(lambda x: layers.GRU(3)(gru(x), initial_state=START)),
}


@pytest.mark.parametrize("name", CONSTANTS)
def test_initial_states_that_are_constants(name):
    source = CONSTANTS[name]()
    model = qg.load(source)
    assert any(layer.initial_state is not None for layer in model.grus)
    assert_equal(source, model)


def test_a_row_for_each_sequence():
    source = batch_of(4, np.tile(START, (4, 1)))
    assert_equal(source, qg.load(source))


REFUSALS = {
    "rows differ": (lambda: batch_of(2, np.eye(3)[:2]), "differs between the sequences of a batch; .*keras.Input"),
    "computed state": (
        lambda: functional(lambda x: layers.GRU(3)(x, initial_state=ops.zeros_like(x[:, 0]))),
        r"\(GRU\): initial_state is what layer 'zeros_like\w*' computes; .*give it a constant, or make it an input",
    ),
    "divided": (lambda: functional(lambda x: gru(2 / x)), "something else than a fixed scale and shift"),
    "by itself": (lambda: functional(lambda x: gru(x * x)), r"merges what layer 'input\w*' \(InputLayer\) gives"),
    "each step its own": (lambda: functional(lambda x: gru(x * np.ones((1, 4, 1)))), r"operand of shape \(1, 4, 1\)"),
    "new axis": (
        lambda: functional(lambda x: layers.GRU(3)(x) * np.ones((1, 1, 3))),
        r"\(1, 1, 3\) on a tensor of 2",
    ),
    "wider": (lambda: functional(lambda x: gru(x * SCALE), features=1), "3 numbers for 1 features"),
    "features turned around": (lambda: functional(lambda x: gru(ops.flip(x, axis=2))), r"\(Flip\): this layer is not"),
    "a step turned around": (
        lambda: functional(lambda x: ops.flip(layers.GRU(3)(x), axis=1)),
        "the order of steps after the last step",
    ),
    "power": (lambda: functional(lambda x: gru(x**2)), r"\(Power|Square\): (called on|this layer)"),
    "flatten": (lambda: sequential(layers.GRU(3, **EVERY_STEP), layers.Flatten(), steps=4), "changes the shape"),
    "reshape": (lambda: sequential(layers.Reshape((-1, 1)), layers.GRU(3), steps=4), "changes the shape"),
    "reshape by an operation": (lambda: functional(lambda x: gru(ops.reshape(x, (-1, 6, 3)))), "changes the shape"),
    "reshape to a row": (lambda: functional(lambda x: ops.reshape(layers.GRU(3)(x), -1)), "changes the shape"),
    "permute": (lambda: sequential(layers.Permute((2, 1)), layers.GRU(3), steps=4), "changes the shape"),
    "convolution over steps": (lambda: functional(lambda x: gru(layers.Conv1D(4, 2)(x))), r"\(Conv1D\): this layer is"),
    "strides": (lambda: functional(lambda x: gru(layers.Conv1D(4, 1, strides=2)(x))), r"\(Conv1D\): this layer is not"),
    "groups": (lambda: functional(lambda x: gru(layers.Conv1D(3, 1, groups=3)(x))), r"\(Conv1D\): this layer is not"),
    "mask lost": (
        lambda: functional(lambda x: gru(layers.Masking()(x) * 2)),
        r"\(GRU\): gets no mask, since layer 'multiply\w*' \(Multiply\) does not hand it on",
    ),
    "mask lost by a convolution": (
        lambda: sequential(layers.Masking(), layers.Conv1D(4, 1), layers.GRU(3)),
        r"\(GRU\): gets no mask, since layer 'conv1d\w*'",
    ),
    "softmax over sequences": (lambda: functional(lambda x: ops.softmax(dense(x), axis=0)), "softmax over axis 0"),
    "leaky": (lambda: sequential(layers.GRU(3), layers.LeakyReLU()), r"\(LeakyReLU\): .*train with linear, relu"),
    "average": (
        lambda: sequential(layers.GRU(3, **EVERY_STEP), layers.GlobalAveragePooling1D()),
        r"\(GlobalAveragePooling1D\): .*take the last step",
    ),
}


@pytest.mark.filterwarnings("ignore")  # of Keras: a mask is lost
@pytest.mark.parametrize("name", REFUSALS)
def test_refusals(name):
    assert_refused(*REFUSALS[name])
