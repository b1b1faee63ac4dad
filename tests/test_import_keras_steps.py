"""Live Keras 3 models with steps left out, and states kept, given or taken: expected values are those of Keras."""

from __future__ import annotations

import numpy as np
import pytest
from keras_models import (  # noqa: F401  # float64_layers acts by being there
    TOLERANCE,
    assert_equal,
    difference,
    float64_layers,
    functional,
    keras,
    layers,
    masked,
    run,
    seeded,
    sequential,
    tokens,
)

import quantgru as qg
from quantgru.errors import QuantgruWarning

KEEP = np.random.default_rng(8).random((6, 9)) < 0.6
KEEP[0], KEEP[1, 4:], KEEP[2, :5], KEEP[:, 5] = True, False, False, True

MASKED = {
    "last": lambda: [layers.GRU(4), layers.Dense(2)],
    "stack": lambda: [layers.GRU(4, return_sequences=True), layers.GRU(3, reset_after=False)],
    "every step": lambda: [layers.GRU(4, return_sequences=True)],
    "normalised": lambda: [layers.Rescaling(2.0, 0.5), layers.BatchNormalization(), layers.GRU(4)],
    "dense before": lambda: [
        layers.Dense(4, activation="tanh"),
        layers.TimeDistributed(layers.Dense(2)),
        layers.GRU(4),
    ],
    "backwards": lambda: [layers.GRU(4, go_backwards=True)],
    "bidirectional final": lambda: [layers.Bidirectional(layers.GRU(4)), layers.Dense(2)],
    "bidirectional, then a layer": lambda: [
        layers.Bidirectional(layers.GRU(4, return_sequences=True), merge_mode="sum"),
        layers.GRU(3, return_sequences=True),
    ],
    "zeros, then a layer": lambda: [
        layers.GRU(4, return_sequences=True, zero_output_for_mask=True),
        layers.Dropout(0.1),
        layers.GRU(3),
    ],
    "cells": lambda: [layers.RNN([layers.GRUCell(4), layers.GRUCell(3)])],
    "relu": lambda: [layers.GRU(4, activation="relu", return_sequences=True, unroll=True)],
}


@pytest.mark.parametrize("kind", MASKED)
def test_masked_steps(kind):
    """At the start, at the end and in the middle: outputs are equal at masked steps, too."""
    source = sequential(layers.Masking(-1.5), *MASKED[kind](), steps=9)
    model = qg.load(source)
    assert model.mask_value == -1.5
    x = masked(np.random.default_rng(3).standard_normal((6, 9, 3)), KEEP, -1.5)
    assert difference(run(source, x), model.run(x)) <= TOLERANCE


@pytest.mark.parametrize("kind", ["last", "stack", "dense before", "bidirectional, then a layer"])
def test_masked_steps_of_a_functional_model(kind):
    """Here Keras 3 writes the computation of the mask beside the layers, and the mask into each call."""

    def call(x):
        for part in [layers.Masking(-1.5), *MASKED[kind]()]:
            x = part(x)
        return x

    source = functional(call)
    assert "NotEqual" in {layer["class_name"] for layer in source.get_config()["layers"]}
    x = masked(np.random.default_rng(3).standard_normal((6, 9, 3)), KEEP, -1.5)
    assert difference(run(source, x), qg.load(source).run(x)) <= TOLERANCE


def test_masked_steps_of_a_model_inside():
    inner = keras.Sequential([keras.Input((None, 3)), layers.Masking(-1.5), layers.GRU(4)], name="inner")
    source = functional(lambda x: layers.Dense(2)(inner(x)))
    x = masked(np.random.default_rng(3).standard_normal((6, 9, 3)), KEEP, -1.5)
    assert difference(run(source, x), qg.load(source).run(x)) <= TOLERANCE


def test_masked_tokens_of_a_functional_model():
    x = keras.Input((None,), dtype="int32")
    source = seeded(keras.Model(x, layers.Bidirectional(layers.GRU(4))(layers.Embedding(7, 3, mask_zero=True)(x))))
    values = np.random.default_rng(5).integers(0, 7, (9, 8))
    values[:, 3] = 2
    assert difference(run(source, values), qg.load(source).run(values[..., None])) <= TOLERANCE


MASKED_OUTPUTS = {
    "bidirectional": lambda: [layers.Bidirectional(layers.GRU(4, return_sequences=True))],
    "zeros": lambda: [layers.GRU(4, return_sequences=True, zero_output_for_mask=True)],
    "dense": lambda: [layers.GRU(4, return_sequences=True), layers.Dense(2)],
    "batch normalisation": lambda: [layers.GRU(4, return_sequences=True), layers.BatchNormalization()],
    "rescaled": lambda: [layers.GRU(4, return_sequences=True), layers.Rescaling(2.0, 1.0), layers.Dropout(0.1)],
    "dense after zeros": lambda: [layers.Bidirectional(layers.GRU(4, return_sequences=True)), layers.Dense(2)],
}


@pytest.mark.parametrize("kind", MASKED_OUTPUTS)
def test_outputs_at_masked_steps_that_are_not_those_of_keras_are_told(kind):
    source = sequential(layers.Masking(), *MASKED_OUTPUTS[kind]())
    with pytest.warns(QuantgruWarning, match="outputs at masked steps are not those of Keras") as caught:
        model = qg.load(source)
    assert [warning.filename for warning in caught] == [__file__]  # no others, and where it was loaded
    x = masked(np.random.default_rng(3).standard_normal((6, 9, 3)), KEEP, 0.0)
    assert difference(run(source, x)[KEEP], model.run(x)[KEEP]) <= TOLERANCE


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Keras
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_files_with_masks(tmp_path, suffix):
    """Files are not compared with Keras, so what is refused and told must follow from the configuration alone."""
    path = tmp_path / f"model{suffix}"
    sequential(layers.Masking(-1.0), layers.Masking(-1.0), layers.GRU(3)).save(path)
    with pytest.raises(qg.ModelError, match=r"masks -1.0, and a layer before it masks -1.0; .*leave one of them out"):
        qg.load(path)
    sequential(layers.Masking(-1.0), layers.GRU(3, return_sequences=True), layers.BatchNormalization()).save(path)
    with pytest.warns(QuantgruWarning, match="outputs at masked steps are not those of Keras") as caught:
        qg.load(path)
    assert [warning.filename for warning in caught] == [__file__]


def test_a_mask_value_of_one_feature_is_no_mask():
    source = sequential(layers.Masking(0.5), layers.GRU(4))
    x = np.random.default_rng(3).standard_normal((2, 6, 3))
    x[:, 2, :2] = x[:, 4, 2] = 0.5
    assert difference(run(source, x), qg.load(source).run(x)) <= TOLERANCE


@pytest.mark.parametrize("inner", [layers.GRU, lambda *a, **k: layers.Bidirectional(layers.GRU(*a, **k))])
def test_stateful(inner):
    """The import starts at zero, and the model that was given keeps its states."""
    source = keras.Sequential([keras.Input((5, 3), batch_size=2), inner(3, stateful=True, return_sequences=True)])
    seeded(source)
    x = np.random.default_rng(3).standard_normal((2, 2, 5, 3))
    first = run(source, x[0])
    model = qg.load(source)
    assert any("stateful; a run starts at 0" in note for note in model.notes)
    assert difference(first, model.run(x[0])) <= TOLERANCE
    assert difference(run(source, x[1]), model.run(x[1], initial_states=model.final_states(x[0]))) <= TOLERANCE


def two_inputs(call, units=(4,)):
    x = keras.Input((None, 3), name="x")
    states = [keras.Input((n,), name=f"h{i}") for i, n in enumerate(units)]
    return x, states, call(x, *states)


GIVEN_STATES = {
    "keyword": lambda x, h: layers.GRU(4)(x, initial_state=h),
    "argument": lambda x, h: layers.GRU(4, return_sequences=True)(x, h),
    "list": lambda x, h: layers.GRU(4)(layers.Dense(2)(x), initial_state=[h]),
    "backwards": lambda x, h: layers.GRU(4, go_backwards=True)(x, initial_state=h),
}


@pytest.mark.parametrize("kind", GIVEN_STATES)
def test_initial_state_that_is_an_input(kind):
    x, (h,), y = two_inputs(GIVEN_STATES[kind])
    source = seeded(keras.Model([x, h], y))
    model = qg.load(source)
    assert any("its initial state is input h0" in note for note in model.notes)
    generator = np.random.default_rng(3)
    values, start = generator.standard_normal((4, 6, 3)), generator.uniform(-2, 2, (4, 4))
    assert difference(run(source, [values, start]), model.run(values, initial_states=[start])) <= TOLERANCE


@pytest.mark.parametrize("structure", ["list", "mapping"])
def test_initial_states_of_some_layers(structure):
    """One state for two layers, a pair for both directions, none for the last; steps are not the first input."""

    def call(x, a, b):
        y = layers.GRU(4, return_sequences=True)(x, initial_state=a)
        y = layers.Bidirectional(layers.GRU(4, return_sequences=True))(y, initial_state=[b, a])
        return layers.Dense(2)(layers.GRU(3)(y))

    x, (a, b), y = two_inputs(call, units=(4, 4))
    source = seeded(keras.Model([b, x, a] if structure == "list" else {"h0": a, "h1": b, "x": x}, y))
    generator = np.random.default_rng(3)
    values, first, second = generator.standard_normal((2, 6, 3)), *generator.uniform(-1, 1, (2, 2, 4))
    given_ = [second, values, first] if structure == "list" else {"h0": first, "h1": second, "x": values}
    found = qg.load(source).run(values, initial_states=[first, second, first, np.zeros(3)])
    assert difference(run(source, given_), found) <= TOLERANCE


RETURNED_STATES = {
    "output": lambda x: layers.GRU(4, return_state=True)(x)[0],
    "every step": lambda x: layers.GRU(4, return_state=True, return_sequences=True)(x)[0],
    "state": lambda x: layers.Dense(2)(layers.GRU(4, return_state=True, return_sequences=True)(x)[1]),
    "state alone": lambda x: layers.GRU(4, return_state=True)(x)[1],
    "state backwards": lambda x: layers.GRU(4, return_state=True, return_sequences=True, go_backwards=True)(x)[1],
    "of the last cell": lambda x: layers.RNN(
        [layers.GRUCell(4), layers.GRUCell(3)], return_state=True, return_sequences=True
    )(x)[2],
    "bidirectional": lambda x: layers.Bidirectional(layers.GRU(4, return_state=True, return_sequences=True))(x)[0],
}


@pytest.mark.parametrize("kind", RETURNED_STATES)
def test_return_state(kind):
    source = functional(RETURNED_STATES[kind])
    assert_equal(source, qg.load(source))


@pytest.mark.parametrize("index", [np.s_[:, -1], np.s_[:, -1, :]])
def test_the_last_step_by_an_index(index):
    source = functional(lambda x: layers.Dense(2)(layers.GRU(4, return_sequences=True)(x)[index]))
    model = qg.load(source)
    assert model.last_step
    assert_equal(source, model)


def test_the_last_step_of_both_directions_is_not_their_final_states():
    source = functional(lambda x: layers.Bidirectional(layers.GRU(4, return_sequences=True))(x)[:, -1])
    model = qg.load(source)
    assert not model.layers[0].final
    assert_equal(source, model)


@pytest.mark.parametrize("mask_zero", [True, False])
def test_embedding(mask_zero):
    source = tokens(
        layers.Embedding(7, 3, mask_zero=mask_zero, name="words"), layers.GRU(4, return_sequences=True), layers.GRU(3)
    )
    model = qg.load(source)
    assert model.mask_value == (0.0 if mask_zero else None)
    x = np.random.default_rng(5).integers(0, 7, (9, 8))
    x[:, 3] = 2
    assert difference(run(source, x), model.run(x[..., None])) <= TOLERANCE


def test_the_state_of_a_stateful_model_does_not_change_the_comparison():
    source = keras.Sequential([keras.Input((5, 3), batch_size=2), layers.GRU(3, stateful=True)])
    seeded(source)
    run(source, np.ones((2, 5, 3)))
    before = source.layers[0].states[0].numpy().copy()
    qg.load(source)
    assert np.array_equal(source.layers[0].states[0].numpy(), before)
    assert before.any()


def test_a_mask_that_a_layer_does_not_keep_is_found():
    class Forgetful(layers.GRU):
        def call(self, sequences, initial_state=None, mask=None, training=False):
            return super().call(sequences, initial_state, training=training)

    Forgetful.__name__, Forgetful.__module__ = "GRU", "keras.src.layers.rnn.gru"
    with pytest.raises(qg.ModelError, match=r"Keras model 'sequential.*its import differs by"):
        qg.load(sequential(layers.Masking(), Forgetful(3)))


def test_masked_steps_of_as_many_sequences_as_the_model_has():
    x = keras.Input((None, 3), batch_size=3)
    source = seeded(keras.Model(x, layers.GRU(4, stateful=True)(layers.Masking(0.5)(x))))
    assert qg.load(source).mask_value == 0.5


def test_rounding_alone_decides_what_a_model_gives_after_many_steps():
    keras.config.set_dtype_policy("float32")
    parts = [layers.Bidirectional(layers.GRU(32, activation="relu", return_sequences=True)), layers.GRU(32)]
    source = sequential(*parts)
    assert qg.load(source).n_outputs == 32


def test_outputs_leave_the_range_of_floats_after_many_steps():
    """Two states that double with each step, and their difference."""
    keras.config.set_dtype_policy("float32")
    source = sequential(layers.GRU(2, activation="relu", return_sequences=True), layers.Dense(1))
    gates, recurrent, bias = np.zeros((3, 6)), np.zeros((2, 6)), np.zeros((2, 6))
    bias[0, :2], bias[0, 2:] = -20.0, 20.0  # no update gate, reset gates and candidates at 1 and above
    recurrent[:, 4:] = [[2.0, 0.0], [0.0, 2.0]]
    source.set_weights([gates, recurrent, bias, np.array([[1.0], [-0.5]]), np.zeros(1)])
    assert np.isnan(run(source, np.zeros((1, 130, 3)))).any()
    assert qg.load(source).n_outputs == 1
