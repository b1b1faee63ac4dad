"""Live Keras 3 models against their imports: expected values are Keras's own."""

from __future__ import annotations

import random

import numpy as np
import pytest
from keras_models import (  # noqa: F401  # float64_layers acts by being there
    CANDIDATES,
    MERGES,
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
from quantgru.importers import keras_recurrent


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


@pytest.mark.parametrize("gate", ["sigmoid", "hard_sigmoid"])
@pytest.mark.parametrize("candidate", CANDIDATES)
@pytest.mark.parametrize("reset_after", [True, False])
def test_functions(reset_after, candidate, gate):
    source = sequential(
        layers.GRU(5, activation=candidate, recurrent_activation=gate, reset_after=reset_after, return_sequences=True)
    )
    model = qg.load(source)
    assert (model.grus[0].candidate, model.grus[0].gate) == (candidate, gate)
    assert_equal(source, model)


def test_hard_sigmoid_of_keras_3_by_hand():
    """relu6(x + 3) / 6 is 1/2 + x/6: with weights of zero and biases of 1, both gates are 2/3."""
    source = sequential(layers.GRU(1, recurrent_activation="hard_sigmoid", reset_after=False), features=1)
    source.set_weights([np.zeros((1, 3)), np.zeros((1, 3)), np.ones(3)])
    assert qg.load(source).run([[[0.0]]])[0, 0] == pytest.approx(np.tanh(1.0) / 3, abs=1e-15)


@pytest.mark.parametrize("activation", [None, "linear"])
def test_no_activation_is_linear(activation):
    assert qg.load(sequential(layers.GRU(3, activation=activation))).grus[0].candidate == "linear"


@pytest.mark.parametrize("sequences", [True, False])
@pytest.mark.parametrize("merge", MERGES)
def test_bidirectional(merge, sequences):
    source = sequential(layers.Bidirectional(layers.GRU(4, return_sequences=sequences), merge_mode=merge, name="both"))
    model = qg.load(source)
    (layer,) = model.layers
    assert (layer.merge, layer.final, model.last_step) == (merge, not sequences, not sequences)
    assert [gru.name for gru in model.grus] == ["both.forward", "both.backward"]
    assert_equal(source, model)


@pytest.mark.parametrize("sequences", [True, False])
def test_bidirectional_with_a_backward_layer_of_its_own(sequences):
    backward = layers.GRU(
        4, reset_after=False, activation="relu", use_bias=False, go_backwards=True, return_sequences=sequences
    )
    forward = layers.GRU(4, recurrent_activation="hard_sigmoid", return_sequences=sequences)
    source = sequential(layers.Bidirectional(forward, backward_layer=backward))
    model = qg.load(source)
    assert [gru.reset for gru in model.grus] == ["after", "before"]
    assert_equal(source, model)


@pytest.mark.parametrize("sequences", [True, False])
def test_bidirectional_that_reads_backwards_first(sequences):
    """Its results of every step are those of a sequence that is turned around."""
    arguments = dict(return_sequences=sequences)
    both = layers.Bidirectional(
        layers.GRU(4, go_backwards=True, **arguments), backward_layer=layers.GRU(4, **arguments)
    )
    assert_equal(source := sequential(both), qg.load(source))


def test_bidirectional_stack():
    source = sequential(
        layers.Bidirectional(layers.GRU(4, return_sequences=True)),
        layers.Dropout(0.2),
        layers.Bidirectional(layers.GRU(3, return_sequences=True), merge_mode="mul"),
        layers.Dense(3, activation="relu"),
        layers.Bidirectional(layers.GRU(2), merge_mode="sum"),
        layers.Dense(2),
    )
    assert_equal(source, qg.load(source))


@pytest.mark.parametrize("sequences", [True, False])
def test_go_backwards(sequences):
    source = sequential(layers.GRU(4, go_backwards=True, return_sequences=sequences))
    assert_equal(source, qg.load(source))


def test_go_backwards_in_the_middle_and_twice():
    source = sequential(
        layers.GRU(4, return_sequences=True),
        layers.GRU(3, go_backwards=True, return_sequences=True),
        layers.Dense(3, activation="tanh"),
        layers.GRU(2, go_backwards=True, return_sequences=True),
    )
    assert_equal(source, qg.load(source))


def test_cells():
    stack = [layers.GRUCell(4, activation="relu"), layers.GRUCell(3, reset_after=False), layers.GRUCell(2)]
    source = sequential(
        layers.RNN(layers.GRUCell(3, recurrent_activation="hard_sigmoid"), return_sequences=True, name="one"),
        layers.RNN(stack, go_backwards=True, name="three"),
    )
    model = qg.load(source)
    assert [gru.name for gru in model.grus] == ["one", "three.0", "three.1", "three.2"]
    assert_equal(source, model)


def test_bidirectional_around_a_cell():
    source = sequential(layers.Bidirectional(layers.RNN(layers.GRUCell(3), return_sequences=True)))
    assert_equal(source, qg.load(source))


def test_dense_layers_before_and_between():
    source = sequential(
        layers.Dense(4, activation="tanh"),
        layers.Dense(3),
        layers.Activation("sigmoid"),
        layers.GRU(5, return_sequences=True),
        layers.TimeDistributed(layers.Dense(3, activation="relu")),
        layers.TimeDistributed(layers.Activation("tanh")),
        layers.GRU(4),
        layers.Activation("tanh"),
        layers.Dense(2),
    )
    assert_equal(source, qg.load(source))


def normalization(**arguments):
    layer = layers.Normalization(**arguments)
    if "mean" not in arguments:
        layer.adapt(np.random.default_rng(1).normal([3, -20, 0.1], [2, 9, 0.05], (50, 8, 3)))
    return layer


AFFINE = {
    "adapted": lambda: [normalization()],
    "adapted for all features": lambda: [normalization(axis=None)],
    "given": lambda: [normalization(mean=[3, -20, 0.1], variance=[4, 81, 0.0025])],
    "given as numbers": lambda: [normalization(mean=3.0, variance=4.0)],
    "inverted": lambda: [normalization(mean=[0.3, -2, 0.1], variance=[4, 8, 0.25], invert=True)],
    "a constant feature": lambda: [normalization(mean=[1, 0, 0], variance=[1, 0, 4.0])],
    "rescaled": lambda: [layers.Rescaling(1 / 127.5, offset=-1)],
    "rescaled features": lambda: [layers.Rescaling([0.1, 2.0, 1.0], offset=[0.0, -1.0, 3.0])],
    "batch": lambda: [layers.BatchNormalization(epsilon=0.02)],
    "batch without shift": lambda: [layers.BatchNormalization(center=False)],
    "batch without scale": lambda: [layers.BatchNormalization(scale=False)],
    "batch of neither": lambda: [layers.BatchNormalization(scale=False, center=False)],
    "several": lambda: [layers.Rescaling(3.0), layers.BatchNormalization(), layers.Dropout(0.5), layers.Rescaling(0.2)],
    "with a dense layer": lambda: [layers.Rescaling(0.3, 1), layers.Dense(3), layers.BatchNormalization()],
    "after an activation": lambda: [layers.Dense(3, activation="relu"), layers.BatchNormalization()],
}


@pytest.mark.parametrize("kind", AFFINE)
def test_normalisations_are_folded_into_the_weights(kind):
    parts = AFFINE[kind]()
    own = [part.get_weights() for part in parts]
    source = sequential(*parts, layers.GRU(4, reset_after=False), layers.Dense(2))
    for part, weights in zip(parts, own, strict=True):
        if isinstance(part, layers.Normalization) and weights:
            part.set_weights(weights)
            part.finalize_state()
    model = qg.load(source)
    assert len(model.layers) == 2 + sum(isinstance(part, layers.Dense) for part in parts)
    assert_equal(source, model)


def test_batch_normalisation_between_and_after():
    source = sequential(
        layers.GRU(4, return_sequences=True),
        layers.BatchNormalization(),
        layers.Bidirectional(layers.GRU(3)),
        layers.BatchNormalization(),
        layers.Dense(4, activation="relu"),
        layers.BatchNormalization(),
    )
    assert_equal(source, qg.load(source))


def test_models_inside_models():
    deepest = keras.Sequential(
        [layers.Dense(3, activation="tanh", name="dense"), layers.BatchNormalization()], name="a"
    )
    inner_input = keras.Input((None, 4))
    inner = keras.Model(inner_input, layers.GRU(5, return_sequences=True, name="gru")(deepest(inner_input)), name="b")
    source = functional(lambda x: layers.Dense(2, name="dense")(layers.GRU(4)(inner(layers.Dense(4)(x)))))
    assert_equal(source, qg.load(source))
    source = sequential(keras.Sequential([keras.Input((None, 3)), layers.GRU(3)], name="inner"), layers.Dense(2))
    assert_equal(source, qg.load(source))


@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.GRU(3, return_sequences=True),
        lambda: layers.Bidirectional(layers.GRU(3)),
        lambda: layers.RNN([layers.GRUCell(3), layers.GRUCell(2)], go_backwards=True),
    ],
)
def test_single_recurrent_layers(make):
    layer = make()
    layer(np.zeros((1, 2, 3)))
    assert_equal(seeded(layer), qg.load(layer))


@pytest.mark.parametrize(
    ("name", "value", "source"),
    [
        ("HARD_SIGMOID_SLOPES", {3: 0.2}, lambda: sequential(layers.GRU(3, recurrent_activation="hard_sigmoid"))),
        ("_reset_after", lambda where, cell: False, lambda: sequential(layers.GRU(3, use_bias=False))),
        ("HARD_SIGMOID_SLOPES", {3: 1 / 6.001}, lambda: tokens(layers.Embedding(5, 3), hard_bidirectional())),
    ],
)
def test_a_wrong_reading_is_found_when_a_model_is_loaded(monkeypatch, name, value, source):
    monkeypatch.setattr(keras_recurrent, name, value)
    with pytest.raises(qg.ModelError, match="its import differs by"):
        qg.load(source())


def hard_bidirectional():
    return layers.Bidirectional(layers.GRU(3, recurrent_activation="hard_sigmoid"))


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
