"""Subclassed live models: their call() is followed where it calls nothing but layers and operations of Keras."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from keras_models import assert_equal, assert_refused, difference, float64_layers, keras, layers, run, seeded, torch  # noqa: F401

import quantgru as qg

EVERY_STEP = dict(return_sequences=True)


class Net(keras.Model):
    """Calls what it was made with; `build` makes its weights."""

    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)

    def built_on(self, x):
        with warnings.catch_warnings(action="ignore"):  # of Keras, which cannot follow some of these either
            self(x)
        return seeded(self)


class Plain(Net):
    def call(self, x):
        return self.head(self.gru(x))


class WithTraining(Net):
    """Does something else in training, as many do."""

    def call(self, x, training=False):
        y = self.dropout(self.gru((x - 0.5) / 2), training=training)
        if training:
            y = y * 3
        return self.head(y)[:, -1]


class WithStates(Net):
    def call(self, x, training=None):
        _, state = self.gru(x, training=training)
        return self.head(state)


class TwoDirections(Net):
    def call(self, x):
        return self.merge([self.gru(x), self.back(x)])


class Functional(keras.Model):
    """A class of the user's that is Functional."""

    def __init__(self):
        x = keras.Input((None, 3))
        super().__init__(x, layers.Dense(2)(layers.GRU(4)(x)))


def steps():
    return np.random.default_rng(1).standard_normal((2, 5, 3))


MODELS = {
    "plain": lambda: Plain(gru=layers.GRU(4, **EVERY_STEP), head=layers.Dense(2)).built_on(steps()),
    "training": lambda: WithTraining(
        gru=layers.GRU(4, **EVERY_STEP), dropout=layers.Dropout(0.5), head=layers.Dense(2, activation="tanh")
    ).built_on(steps()),
    "states": lambda: WithStates(gru=layers.GRU(4, return_state=True), head=layers.Dense(2)).built_on(steps()),
    "two directions": lambda: TwoDirections(
        gru=layers.GRU(4), back=layers.GRU(4, go_backwards=True), merge=layers.Concatenate()
    ).built_on(steps()),
    "functional": lambda: seeded(Functional()),
    "sequential inside": lambda: Plain(
        gru=keras.Sequential([layers.Masking(-9.0), layers.GRU(4)]), head=layers.Dense(2)
    ).built_on(steps()),
}


@pytest.mark.parametrize("name", MODELS)
def test_subclassed(name):
    source = MODELS[name]()
    assert_equal(source, qg.load(source))


def test_tokens():
    source = Plain(gru=keras.Sequential([layers.Embedding(7, 3), layers.GRU(4)]), head=layers.Dense(2))
    tokens = np.array([[1, 5, 0, 6], [3, 3, 2, 1]])
    source.built_on(tokens)
    assert difference(run(source, tokens), qg.load(source).run(tokens[..., None])) <= 1e-6


def test_the_model_is_as_it_was():
    source = MODELS["plain"]()
    before, weights = run(source, steps()), [w.copy() for w in source.get_weights()]
    qg.load(source)
    nodes = [len(layer._inbound_nodes) + len(layer._outbound_nodes) for layer in source._flatten_layers()]
    assert not any(nodes)
    assert all(np.array_equal(one, other) for one, other in zip(weights, source.get_weights(), strict=True))
    assert np.array_equal(run(source, steps()), before)


class Counting(Plain):
    """Leaves something behind with each call."""

    def __init__(self, **parts):
        super().__init__(**parts)
        self.calls, self.names = 0, ["none"]
        self.seen = self.add_weight(name="seen", shape=(), initializer="zeros", trainable=False)

    def call(self, x):
        self.calls += 1
        self.names.append("one")
        self.seen.assign_add(1.0)
        self.cache = self.gru(x)
        return self.head(self.cache)


def test_what_call_leaves_behind_is_put_back():
    source = plain(Counting)
    source.seen.assign(5.0)
    before = dict(vars(source)), list(source.names), source.get_weights()
    qg.load(source)
    assert vars(source) == before[0]
    assert source.names == before[1]
    assert all(np.array_equal(one, other) for one, other in zip(before[2], source.get_weights(), strict=True))


class Shaped(Plain):
    """Reshapes to what it has."""

    def call(self, x):
        y = self.gru(x)
        return self.head(keras.ops.reshape(y, (-1, keras.ops.shape(x)[1], 4)))


def test_a_reshape_to_the_same_shape():
    source = Shaped(gru=layers.GRU(4, **EVERY_STEP), head=layers.Dense(2)).built_on(steps())
    assert_equal(source, qg.load(source))


class ByLength(Plain):
    def call(self, x):
        return self.head(self.gru(x)) if x.shape[1] > 3 else self.gru(x)


class ByManySteps(Plain):
    """Its number of steps cannot be compared while it is traced for any."""

    def call(self, x):
        try:
            many = x.shape[1] > 10
        except TypeError:
            many = False
        return self.head(self.gru(x)) * (2 if many else 1)


class BySequences(Plain):
    def call(self, x):
        return self.head(self.gru(x)) * (2 if x.shape[0] == 1 else 1)


class Window(Plain):
    """Far from the end, so small a difference that no comparison of numbers shows it."""

    def call(self, x):
        return self.head(self.gru(x if (x.shape[1] or 0) <= 100 else x[:, -100:]))


class FunctionalWithCall(Functional):
    def call(self, x):
        y = super().call(x)
        return y if x.shape[1] != 1 else 2 * y


class ByValue(Plain):
    def call(self, x):
        return self.head(self.gru(x)) if keras.ops.sum(x) > 0 else self.gru(x)


class OnTorch(Plain):
    def call(self, x):
        return torch.tanh(self.head(self.gru(x)))


class OtherThanTraced(Plain):
    """Knows that it is traced."""

    def call(self, x):
        y = self.head(self.gru(x))
        return y if x.shape[1] is None else 2 * y


class TwoOutputs(Plain):
    def call(self, x):
        return self.gru(x), self.head(self.gru(x))


class TwoInputs(Plain):
    def call(self, x, h):
        return self.head(self.gru(x, initial_state=h))


def plain(cls):
    model = cls(gru=layers.GRU(4), head=layers.Dense(2))
    return model.built_on(steps())


def two_inputs():
    model = TwoInputs(gru=layers.GRU(4), head=layers.Dense(2))
    model(steps(), np.zeros((2, 4)))
    return model


def model_inside():
    outer = Plain(gru=plain(Plain), head=layers.Dense(3))
    return outer.built_on(steps())


REFUSALS = {
    "length": (lambda: plain(ByLength), r"'by_length' \(ByLength\): its call\(\) does more than .*\(TypeError"),
    "many steps": (lambda: plain(ByManySteps), "on 1 sequences of 20 steps: its import differs by 5.0e-01"),
    "sequences": (lambda: plain(BySequences), "on 1 sequences of 1 steps: its import differs by 5.0e-01"),
    "window": (lambda: plain(Window), r"\(GetItem\): an index other than \[:, -1\]"),
    "functional": (lambda: seeded(FunctionalWithCall()), "on 1 sequences of 1 steps: its import differs by 5.0e-01"),
    "value": (lambda: plain(ByValue), r"its call\(\) does more than calling layers and keras.ops \("),
    "torch": (lambda: plain(OnTorch), r"its call\(\) does more than calling layers .*build it as keras.Sequential"),
    "traced": (lambda: plain(OtherThanTraced), "its import differs by 5.0e-01"),
    "outputs": (lambda: plain(TwoOutputs), "2 outputs|called 2 times"),
    "inputs": (two_inputs, r"does more than .*missing 1 required positional argument: 'h'"),
    "inside": (model_inside, r"a class of 'Plain', not one of Keras|a class of '.*subclassed'"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals(name):
    assert_refused(*REFUSALS[name])


def test_a_file_does_not_hold_the_call(tmp_path):
    source = MODELS["plain"]()
    source.save(tmp_path / "model.keras")
    with pytest.raises(qg.ModelError, match=r"of class Plain, whose call\(\) is not in .*live model to qg"):
        qg.load(tmp_path / "model.keras")
    source.save_weights(tmp_path / "model.weights.h5")
    assert_equal(source, qg.load(tmp_path / "model.weights.h5", chain="gru head"))
