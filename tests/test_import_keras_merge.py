"""Two directions that a Functional model merges by a layer or an operation of its own, live and as files."""

from __future__ import annotations

import numpy as np
import pytest
from keras_models import assert_equal, assert_refused, difference, float64_layers, functional, keras, layers, run  # noqa: F401

import quantgru as qg
from quantgru.model import Bidirectional

EVERY_STEP = dict(return_sequences=True)
MODES = {"Add": "sum", "Average": "ave", "Concatenate": "concat", "Multiply": "mul"}


def both(x, **options):
    """The two results of one Bidirectional layer."""
    return layers.Bidirectional(layers.GRU(3, **options), merge_mode=None)(x)


def pair(x, **options):
    """Two layers, the steps of the second in their order."""
    backwards = layers.GRU(3, go_backwards=True, **options)(x)
    if options.get("return_sequences"):
        backwards = keras.ops.flip(backwards, axis=1)
    return [layers.GRU(3, **options)(x), backwards]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("every_step", [True, False])
@pytest.mark.parametrize("halves", [both, pair])
def test_merged_by_a_layer(halves, every_step, mode):
    source = functional(lambda x: getattr(layers, mode)()(halves(x, return_sequences=every_step)))
    model = qg.load(source)
    (layer,) = model.layers
    assert isinstance(layer, Bidirectional)
    assert (layer.merge, layer.final) == (MODES[mode], not every_step)
    assert_equal(source, model)


def states_of_both(x, **options):
    return layers.Bidirectional(layers.GRU(3, return_state=True, **options))(x)[1:]


OTHERS = {
    "operator": lambda x: (lambda y: y[0] + y[1])(both(x, **EVERY_STEP)),
    "operator on final states": lambda x: (lambda y: y[0] * y[1])(pair(x)),
    "half the sum": lambda x: (lambda y: (y[0] + y[1]) / 2)(pair(x, **EVERY_STEP)),
    "operation": lambda x: keras.ops.concatenate(pair(x), axis=-1),
    "axis by its number": lambda x: layers.Concatenate(axis=1)(pair(x)),
    "axis of steps": lambda x: layers.Concatenate(axis=2)(pair(x, **EVERY_STEP)),
    "the backward one first": lambda x: layers.Concatenate()(pair(x)[::-1]),
    "the backward one first, every step": lambda x: layers.Dense(2)(layers.Concatenate()(pair(x, **EVERY_STEP)[::-1])),
    "the sum the other way round": lambda x: layers.Add()(both(x, **EVERY_STEP)[::-1]),
    "states": lambda x: layers.Concatenate()(states_of_both(x)),
    "states beside steps": lambda x: layers.Concatenate()(states_of_both(x, **EVERY_STEP)),
    "states of both results": lambda x: layers.Add()(both(x, return_state=True)[2:]),
    "a state and a last step": lambda x: layers.Add()(
        [layers.GRU(3, return_state=True, **EVERY_STEP)(x)[1], layers.GRU(3, go_backwards=True)(x)]
    ),
    "cells": lambda x: layers.Concatenate()(
        [layers.RNN(layers.GRUCell(3))(x), layers.RNN(layers.GRUCell(3), go_backwards=True)(x)]
    ),
    "one upon the other": lambda x: layers.Concatenate()(pair(layers.Average()(both(x, **EVERY_STEP)))),
    "started": lambda x: layers.Concatenate()(
        [layers.GRU(2)(x, initial_state=np.array([[0.5, -1.0]])), layers.GRU(2, go_backwards=True)(x)]
    ),
    "both started": lambda x: layers.Add()(
        layers.Bidirectional(layers.GRU(2), merge_mode=None)(x, initial_state=[np.ones((1, 2)), -np.ones((1, 2))])
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_ways_to_merge(name):
    source = functional(OTHERS[name])
    assert_equal(source, qg.load(source))


@pytest.mark.filterwarnings("ignore")  # of Keras: .h5 is its legacy format
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("name", ["operator", "operation", "states", "cells", "one upon the other", "both started"])
def test_files(tmp_path, name, suffix):
    source = functional(OTHERS[name])
    source.save(tmp_path / f"model{suffix}")
    assert_equal(source, qg.load(tmp_path / f"model{suffix}"))


def test_initial_states_that_are_inputs():
    x, first, second = keras.Input((None, 3)), keras.Input((2,)), keras.Input((2,))
    halves = [
        layers.GRU(2)(x, initial_state=first),
        layers.GRU(2, go_backwards=True)(x, initial_state=second),
    ]
    source = keras.Model([x, first, second], layers.Concatenate()(halves))
    generator = np.random.default_rng(0)
    inputs = [generator.standard_normal(shape) for shape in ((4, 6, 3), (4, 2), (4, 2))]
    found = qg.load(source).run(inputs[0], initial_states=inputs[1:])
    assert difference(run(source, inputs), found) <= 1e-6


@pytest.mark.parametrize("halves", [both, pair])
def test_final_states_of_masked_steps(halves):
    source = functional(lambda x: layers.Concatenate()(halves(layers.Masking(-1.0)(x))))
    x = np.random.default_rng(0).standard_normal((2, 5, 3))
    x[0, 3:] = x[1, 1] = -1.0
    assert difference(run(source, x), qg.load(source).run(x)) <= 1e-6


def merged(*parts):
    return lambda: functional(lambda x: layers.Concatenate()([part(x) for part in parts]))


REFUSALS = {
    "same direction": (merged(layers.GRU(3), layers.GRU(3)), "two GRU layers of the same direction; .*go_backwards"),
    "different units": (merged(layers.GRU(3), layers.GRU(2, go_backwards=True)), "of 3 and 2 units; .*the same units"),
    "residual": (
        merged(layers.GRU(3, **EVERY_STEP), layers.Identity()),
        r"merges what layer 'identity\w*'",
    ),
    "input": (merged(layers.GRU(3, **EVERY_STEP), lambda x: x), r"merges what layer 'input\w*' \(InputLayer\) gives"),
    "dense between": (
        merged(layers.GRU(3), lambda x: layers.GRU(3, go_backwards=True)(layers.Dense(3)(x))),
        r"merges 'gru\w*' on 'input\w*' and 'gru\w*' on 'dense\w*'; .*call both on the same tensor",
    ),
    "not turned around": (
        merged(layers.GRU(3, **EVERY_STEP), layers.GRU(3, go_backwards=True, **EVERY_STEP)),
        r"merges steps of the one with other steps of the other; .*keras.ops.flip\(y, axis=1\)",
    ),
    "features turned around": (
        merged(layers.GRU(3), lambda x: keras.ops.flip(layers.GRU(3, go_backwards=True)(x), axis=1)),
        "merges steps of the one with other steps of the other",
    ),
    "steps and state": (
        lambda: functional(lambda x: layers.Add()([pair(x, **EVERY_STEP)[0], pair(x)[1]])),
        "merges every step of one layer with the final state of the other",
    ),
    "steps one after the other": (
        lambda: functional(lambda x: layers.Concatenate(axis=1)(both(x, **EVERY_STEP))),
        "axis=1, only the features can be merged; .*axis=-1",
    ),
    "second result first": (
        lambda: functional(lambda x: layers.Concatenate()(both(x)[::-1])),
        r"merges results 1 and 0 of layer 'bidirectional\w*'",
    ),
    "several cells": (
        merged(layers.RNN([layers.GRUCell(3), layers.GRUCell(3)]), layers.GRU(3, go_backwards=True)),
        "merges layers that are not one GRU each",
    ),
    "three": (merged(layers.GRU(3), layers.GRU(3), layers.GRU(3)), "merges 3 tensors, supported are the two"),
    "maximum": (lambda: functional(lambda x: layers.Maximum()(pair(x))), r"\(Maximum\): called on 2 tensors"),
    "masked steps": (
        lambda: functional(lambda x: layers.Add()(pair(layers.Masking()(x), **EVERY_STEP))),
        "merges every step of masked sequences; .*use keras.layers.Bidirectional",
    ),
    "masked, and another layer": (
        lambda: functional(lambda x: layers.GRU(2)(layers.Concatenate()(both(layers.Masking()(x), **EVERY_STEP)))),
        "called with a mask that is not that of the inputs; .*merge_mode",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals(name):
    assert_refused(*REFUSALS[name])
