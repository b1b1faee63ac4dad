"""Live Keras 3 models against their imports: expected values are Keras's own.

Models are float64, which Keras keeps in parameters and activations; its products are float32 on most back ends.
"""

from __future__ import annotations

import os
import random
import re

os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np
import pytest

import quantgru as qg

pytest.importorskip(
    "torch", reason="PyTorch, the back end of these tests, is not installed: pip install quantgru[torch]"
)
keras = pytest.importorskip("keras", reason="Keras is not installed: pip install 'keras>=3.6'")

from keras import layers  # noqa: E402

TOLERANCE = 1e-6  # of the largest value; measured: 6e-16


@pytest.fixture(autouse=True)
def float64_layers():
    before = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx(before[0])
    keras.config.set_dtype_policy(before[1])


def seeded(model, scale: float = 0.8):
    """With normal weights, biases too."""
    generator = np.random.default_rng(7)
    for variable in model.weights:
        if "seed" not in variable.path:
            variable.assign(generator.normal(0, scale, variable.shape))
    return model


def sequential(*parts, steps=None, features=3):
    return seeded(keras.Sequential([keras.Input((steps, features)), *parts]))


def run(model, x):
    return keras.ops.convert_to_numpy(model(x, training=False))


def assert_equal(source, model: qg.FloatModel, steps: int = 11, after=lambda y: y) -> None:
    """The outputs for random input [4, steps, inputs] are equal."""
    x = np.random.default_rng(3).standard_normal((4, steps, model.n_inputs))
    expected, found = run(source, x), after(model.run(x))
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("reset_after", [True, False])
@pytest.mark.parametrize("n_layers", [1, 2])
def test_gru_layers(n_layers, reset_after, use_bias, last):
    grus = [
        layers.GRU(5, reset_after=reset_after, use_bias=use_bias, return_sequences=not last or k < n_layers - 1)
        for k in range(n_layers)
    ]
    source = sequential(*grus)
    model = qg.load(source)
    assert model.last_step == last
    assert [layer.name for layer in model.layers] == [layer.name for layer in grus]
    assert_equal(source, model)


HEADS = {
    "linear": lambda: [layers.Dense(4)],
    "no bias": lambda: [layers.Dense(4, use_bias=False, activation="relu")],
    "two": lambda: [layers.Dense(4, activation="tanh"), layers.Dropout(0.4), layers.Dense(2, activation="sigmoid")],
    "activation layer": lambda: [
        layers.Dense(4),
        layers.Activation("tanh"),
        layers.Activation("linear"),
        layers.Dense(2),
    ],
    "relu layer": lambda: [layers.Dense(4), layers.ReLU(), layers.Dense(2)],
}


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("head", HEADS)
def test_head(head, last):
    source = sequential(layers.GRU(5, return_sequences=not last), *HEADS[head]())
    model = qg.load(source)
    assert model.last_step == last
    assert_equal(source, model)


def test_layers_that_act_in_training_only():
    source = sequential(
        layers.GaussianNoise(0.1),
        layers.SpatialDropout1D(0.2),
        layers.GRU(4, return_sequences=True, dropout=0.2, recurrent_dropout=0.3),
        layers.Dropout(0.5),
        layers.TimeDistributed(layers.Dense(3, activation="relu"), name="each_step"),
        layers.GaussianDropout(0.1),
        layers.Dense(2),
    )
    model = qg.load(source)
    assert model.layers[1].name == "each_step"
    assert_equal(source, model)


def test_functional_chain_with_fixed_shape():
    x = keras.Input((6, 3), name="samples")
    y = layers.GRU(5, return_sequences=True, unroll=True, name="low")(x)
    y = layers.GRU(4, reset_after=False, name="high")(layers.Dropout(0.1)(y))
    source = seeded(keras.Model(x, layers.Dense(2, name="scores")(y), name="My Net-2"))
    model = qg.load(source)
    assert model.name == "my_net_2"
    assert qg.load(source, name="kws").name == "kws"
    assert [layer.name for layer in model.layers] == ["low", "high", "scores"]
    assert_equal(source, model, steps=6)


def test_model_that_was_built_by_a_call():
    source = keras.Sequential([layers.GRU(4), layers.Dense(2)])
    source(np.zeros((1, 700, 3)))
    model = qg.load(seeded(source))
    x = np.random.default_rng(3).standard_normal((1, 700, 3))
    np.testing.assert_allclose(model.run(x), run(source, x), rtol=0, atol=1e-6)


def test_single_gru_layer_and_the_remainder_by_hand():
    source = sequential(layers.GRU(4, name="cell"), layers.Dense(3, name="out"))
    gru = qg.load(source.get_layer("cell"))
    assert gru.last_step
    kernel, bias = source.get_layer("out").get_weights()
    assert_equal(source, qg.FloatModel((*gru.layers, qg.Dense("out", kernel.T, bias)), last_step=True))


@pytest.mark.parametrize("reset_after", [True, False])
@pytest.mark.parametrize("place", range(12))
def test_each_gate_alone(place, reset_after):
    """Only one block of one parameter is not zero, with an input part of n so that the state moves."""
    source = sequential(layers.GRU(4, reset_after=reset_after, return_sequences=True))
    kernel, recurrent, bias = (values.copy() for values in source.get_weights())
    kept = [kernel, recurrent, *np.atleast_2d(bias)]
    kept += [kept[-1]] if not reset_after else []
    parameter, block = divmod(place, 3)
    columns = slice(4 * block, 4 * block + 4)
    values = kept[parameter][..., columns].copy()
    for array in (kernel, recurrent, bias):
        array[:] = 0
    kernel[:, 8:] = 0.4
    kept[parameter][..., columns] = values
    source.set_weights([kernel, recurrent, bias])
    assert_equal(source, qg.load(source))


@pytest.mark.parametrize(
    "end",
    [
        lambda: [layers.Dense(3, activation="softmax")],
        lambda: [layers.Dense(3), layers.Softmax()],
        lambda: [layers.Dense(3), layers.Activation("softmax"), layers.Dropout(0.1)],
        lambda: [layers.Dense(4, activation="relu"), layers.Dense(3, activation="log_softmax")],
    ],
)
def test_softmax_is_refused_or_left_out(end):
    source = sequential(layers.GRU(5), *end())
    with pytest.raises(qg.ModelError, match=r"softmax; .*load\(\.\.\., softmax='logits'\)"):
        qg.load(source)
    model = qg.load(source, softmax="logits")
    assert "left out" in model.notes[-1]

    def after(y):
        shares = np.exp(y) / np.exp(y).sum(axis=-1, keepdims=True)
        return np.log(shares) if model.notes[-1].startswith("log") else shares

    assert_equal(source, model, after=after)


def test_float32_model():
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")
    source = sequential(layers.GRU(20, return_sequences=True), layers.GRU(20), layers.Dense(4, activation="relu"))
    x = np.random.default_rng(3).standard_normal((4, 9, 3))
    np.testing.assert_allclose(qg.load(source).run(x), run(source, x), atol=1e-5)


class Doubled(layers.GRU):
    """A class of the user's."""


def subclassed():
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.gru = layers.GRU(3)

        def call(self, x):
            return self.gru(x)

    model = Net()
    model(np.zeros((1, 2, 3)))
    return model


def functional(call):
    x = keras.Input((None, 3))
    return keras.Model(x, call(x))


def shared():
    gru = layers.GRU(3, return_sequences=True, name="shared")
    return functional(lambda x: gru(gru(x)))


def two_inputs():
    x, h = keras.Input((None, 3)), keras.Input((4,))
    return keras.Model([x, h], layers.GRU(4)(x, initial_state=h))


def patched():
    """Computes something else than its class says."""
    model = sequential(layers.GRU(4, name="odd"), layers.Dense(2))
    original = model.layers[0].call
    model.layers[0].call = lambda *args, **kwargs: original(*args, **kwargs) * 1.1
    return model


def squash(x):
    return keras.ops.tanh(x)


def tanh(x):
    """Keras takes it for its own by its name."""
    return keras.ops.relu(x)


REFUSALS = {
    "unbuilt": (lambda: keras.Sequential([layers.GRU(3)]), "has no weights yet; start it with keras.Input"),
    "bidirectional": (
        lambda: sequential(layers.Bidirectional(layers.GRU(3), name="both")),
        r"layer 'both' \(Bidirectional\): this layer is not supported; supported are GRU layers.*one direction",
    ),
    "masking": (
        lambda: sequential(layers.Masking(), layers.GRU(3)),
        r"\(Masking\).*sequences of unequal lengths as a list",
    ),
    "lstm": (
        lambda: sequential(layers.LSTM(3, name="memory")),
        r"layer 'memory' \(LSTM\): this layer is not supported",
    ),
    "rnn": (lambda: sequential(layers.RNN(layers.GRUCell(3))), r"\(RNN\).*use keras.layers.GRU"),
    "conv": (lambda: sequential(layers.Conv1D(4, 3), layers.GRU(3)), r"\(Conv1D\): this layer is not supported"),
    "batch norm": (lambda: sequential(layers.GRU(3), layers.BatchNormalization()), r"\(BatchNormalization\)"),
    "flatten": (
        lambda: sequential(layers.GRU(3, return_sequences=True), layers.GlobalMaxPooling1D()),
        "GlobalMaxPooling1D",
    ),
    "backwards": (lambda: sequential(layers.GRU(3, go_backwards=True)), "go_backwards=True, only False is supported"),
    "stateful": (
        lambda: keras.Sequential([keras.Input((5, 3), batch_size=2), layers.GRU(3, stateful=True)]),
        "stateful=True, only False is supported",
    ),
    "return_state": (
        lambda: functional(lambda x: layers.GRU(3, return_state=True)(x)[0]),
        "return_state=True, only False is supported",
    ),
    "gru activation": (
        lambda: sequential(layers.GRU(3, activation="relu")),
        "activation='relu', only 'tanh' is supported",
    ),
    "gru gates": (
        lambda: sequential(layers.GRU(3, recurrent_activation="hard_sigmoid")),
        "recurrent_activation='hard_sigmoid', only 'sigmoid' is supported",
    ),
    "own function": (
        lambda: sequential(layers.GRU(3, activation=squash)),
        r"activation='squash \(a function of your own\)', only 'tanh' is supported",
    ),
    "disguised function": (lambda: sequential(layers.GRU(3, activation=tanh)), r"\(GRU\): its import differs by"),
    "lambda": (
        lambda: sequential(layers.GRU(3), layers.Dense(2, activation=lambda x: x)),
        r"activation 'lambda \(a function of your own\)'",
    ),
    "dense activation": (
        lambda: sequential(layers.GRU(3), layers.Dense(2, activation="gelu")),
        "activation 'gelu'; supported",
    ),
    "activation on the state": (
        lambda: sequential(layers.GRU(3), layers.Activation("relu", name="act")),
        r"layer 'act' \(Activation\): activation 'relu' without a dense layer",
    ),
    "leaky": (
        lambda: sequential(layers.GRU(3), layers.Dense(2), layers.ReLU(negative_slope=0.1)),
        "negative_slope=0.1",
    ),
    "time distributed": (
        lambda: sequential(layers.GRU(3, return_sequences=True), layers.TimeDistributed(layers.Flatten())),
        "around a Flatten",
    ),
    "dense first": (lambda: sequential(layers.Dense(3), layers.GRU(3)), "a dense layer before the first GRU layer"),
    "softmax over steps": (
        lambda: sequential(layers.GRU(3, return_sequences=True), layers.Dense(2), layers.Softmax(axis=1)),
        "softmax over axis 1",
    ),
    "no gru": (lambda: functional(layers.Dropout(0.1)), "no GRU layer"),
    "nested": (
        lambda: sequential(keras.Sequential([layers.GRU(3)], name="inner")),
        r"layer 'inner' \(Sequential\): a class of module 'keras', not one of keras.layers",
    ),
    "own layer": (lambda: sequential(Doubled(3)), r"\(Doubled\): a class of module"),
    "operation": (lambda: functional(lambda x: layers.GRU(3)(x) * 2), r"\(Multiply\): a class of module"),
    "branch": (
        lambda: functional(lambda x: layers.Add()([layers.GRU(3)(x), layers.GRU(3)(x)])),
        r"\(Add\): called on something else than one tensor",
    ),
    "shared": (shared, r"layer 'shared' \(GRU\): called 2 times; .*a layer of its own"),
    "two inputs": (two_inputs, "2 inputs; .*one input and one output"),
    "initial state": (
        lambda: functional(lambda x: layers.GRU(3)(x, initial_state=keras.ops.zeros((2, 3)))),
        "called with initial_state=a tensor",
    ),
    "training": (
        lambda: functional(lambda x: layers.GRU(3)(layers.Dropout(0.5)(x, training=True))),
        "called with training=True",
    ),
    "subclassed": (subclassed, r"Keras model '\w+': of class Net; .*build it as keras.Sequential"),
    "half": (
        lambda: sequential(layers.GRU(3, dtype="mixed_float16", name="half")),
        r"layer 'half' \(GRU\): computes in float16, supported are float32 and float64",
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
    make, message = REFUSALS[case]
    with pytest.raises(qg.ModelError) as caught:
        qg.load(make())
    text = str(caught.value)
    assert re.search(message, text), text
    assert "\n" not in text
    assert len(text) < 600


def test_weights_that_are_not_finite():
    source = sequential(layers.GRU(4, name="cell"))
    kernel, recurrent, bias = source.get_weights()
    recurrent[1, 2] = np.nan
    source.set_weights([kernel, recurrent, bias])
    with pytest.raises(
        qg.ModelError, match=r"layer 'cell' \(GRU\): parameter 'recurrent_kernel' holds nan at \[1, 2\] \(1 such"
    ):
        qg.load(source)


@pytest.mark.parametrize("kind", ["good", "refused"])
def test_model_and_random_states_are_unchanged(kind):
    import torch

    source = sequential(layers.GRU(4, return_sequences=True, dropout=0.2), layers.Dropout(0.2), layers.Dense(2))
    source.layers[0].trainable = False
    if kind == "refused":
        source.layers[-1].call = lambda x, training=None: keras.ops.zeros_like(x)[..., :2]
    weights = [values.copy() for values in source.get_weights()]
    variables = [variable.numpy().copy() for variable in source.non_trainable_variables]
    trainable = [layer.trainable for layer in source.layers]
    keras.utils.set_random_seed(5)
    global_before = keras.src.random.seed_generator.global_seed_generator().state.numpy().copy()
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    try:
        qg.load(source)
    except qg.ModelError as error:
        assert "differs" in str(error)  # noqa: PT017
    assert all(np.array_equal(a, b) for a, b in zip(weights, source.get_weights(), strict=True))
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(variables, source.non_trainable_variables, strict=True))
    assert [layer.trainable for layer in source.layers] == trainable
    assert torch.equal(states[0], torch.get_rng_state())
    assert np.array_equal(states[1], np.random.get_state()[1])
    assert states[2] == random.getstate()
    assert np.array_equal(global_before, keras.src.random.seed_generator.global_seed_generator().state.numpy())
