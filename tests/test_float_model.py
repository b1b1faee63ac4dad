"""The float model: the canonical cell against its formula in plain Python floats, refusals, and `.qgf` files."""

import math

import numpy as np
import pytest

from quantgru.errors import DataError, ModelError
from quantgru.model import Bidirectional, Dense, Embedding, FloatModel, Gru, Reverse
from quantgru.model.run import run_body
from quantgru.sequences import as_sequences, load_npz

Z, R, N = range(3)  # the canonical order of gates
RESETS = ("after", "before")
TOLERANCE = 1e-13  # float64 against float64: only the order of additions differs


# ---- the cell, again: lists and math, from the formula -------------------------------------------------------------


def sigmoid(a):
    return 1 / (1 + math.exp(-a))


def dot(weights, values):
    return math.fsum(w * v for w, v in zip(weights, values, strict=True))


def cell_step(gru, x, h):
    """h' of one layer, from lists."""
    w, u, b, c = (array.tolist() for array in (gru.input_weights, gru.recurrent_weights, gru.bias, gru.recurrent_bias))
    units = range(len(h))
    z = [sigmoid(dot(w[Z][i], x) + dot(u[Z][i], h) + b[Z][i]) for i in units]
    r = [sigmoid(dot(w[R][i], x) + dot(u[R][i], h) + b[R][i]) for i in units]
    if gru.reset == "after":
        inner = [r[i] * (dot(u[N][i], h) + c[i]) for i in units]
    else:
        inner = [dot(u[N][i], [r[j] * h[j] for j in units]) for i in units]
    n = [math.tanh(dot(w[N][i], x) + b[N][i] + inner[i]) for i in units]
    return [z[i] * h[i] + (1 - z[i]) * n[i] for i in units]


ACTIVATIONS = {"linear": lambda a: a, "relu": lambda a: max(a, 0.0), "sigmoid": sigmoid, "tanh": math.tanh}


def run_by_formula(model, sequence):
    """Outputs of every step of one sequence, from lists."""
    h = [[0.0] * gru.n_units for gru in model.grus]
    outputs = []
    for x in sequence:
        for i, gru in enumerate(model.grus):
            h[i] = x = cell_step(gru, x, h[i])
        for dense in model.head:
            rows = zip(dense.weights.tolist(), dense.bias.tolist(), strict=True)
            x = [ACTIVATIONS[dense.activation](dot(row, x) + b) for row, b in rows]
        outputs.append(x)
    return outputs


# ---- models --------------------------------------------------------------------------------------------------------


def random_gru(rng, n_inputs, n_units, reset="after", name="gru"):
    return Gru(
        name,
        reset,
        rng.normal(size=(3, n_units, n_inputs)),
        rng.normal(size=(3, n_units, n_units)),
        rng.normal(size=(3, n_units)),
        rng.normal(size=n_units) if reset == "after" else np.zeros(n_units),
    )


def zero_gru(**arrays):
    """Two units on one input, all zero but for `arrays`."""
    zeros = {
        "input_weights": np.zeros((3, 2, 1)),
        "recurrent_weights": np.zeros((3, 2, 2)),
        "bias": np.zeros((3, 2)),
        "recurrent_bias": np.zeros(2),
    }
    return Gru(**({"name": "gru", "reset": "after"} | zeros | arrays))


def dense(weights, bias, activation="linear"):
    return Dense("dense", np.array(weights, float), np.array(bias, float), activation)


def two_layer_model(last_step, seed=0):
    """3 inputs, 4 and 2 units, both resets, 5 and 2 dense outputs."""
    rng = np.random.default_rng(seed)
    return FloatModel(
        (
            random_gru(rng, 3, 4, "before", "first"),
            random_gru(rng, 4, 2, "after", "second"),
            Dense("hidden", rng.normal(size=(5, 2)), rng.normal(size=5), "tanh"),
            Dense("out", rng.normal(size=(2, 5)), rng.normal(size=2)),
        ),
        last_step,
        "stacked",
        ("a note", "another"),
    )


# ---- the cell ------------------------------------------------------------------------------------------------------


def test_a_unit_with_constant_gates_by_hand():
    """z = 1/2 and n = tanh(0.5): h is n/2, 3n/4, 7n/8."""
    model = FloatModel((zero_gru(bias=[[0, 0], [0, 0], [0.5, 0]]),), last_step=False)
    n = math.tanh(0.5)
    assert model.run(np.zeros((1, 3, 1)))[0, :, 0].tolist() == pytest.approx([n / 2, 3 * n / 4, 7 * n / 8], abs=1e-15)


def test_z_is_the_share_of_h_that_is_kept():
    open_gate, closed_gate = -50.0, 50.0
    model = FloatModel((zero_gru(bias=[[open_gate, closed_gate], [0, 0], [0.5, 0.5]]),), last_step=True)
    assert model.run(np.zeros((1, 1, 1)))[0].tolist() == pytest.approx([math.tanh(0.5), 0.0], abs=1e-15)


@pytest.mark.parametrize(("reset", "expected"), [("after", math.tanh(0.25)), ("before", 0.0)])
def test_only_reset_after_has_a_bias_inside_the_product(reset, expected):
    """h = 0 at the first step, r = 1/2, c = 0.5."""
    c = np.full(2, 0.5 if reset == "after" else 0.0)
    gru = zero_gru(reset=reset, bias=[[-50.0] * 2, [0.0] * 2, [0.0] * 2], recurrent_bias=c)
    assert FloatModel((gru,), last_step=True).run(np.ones((1, 1, 1)))[0, 0] == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("gate", [Z, R, N])
@pytest.mark.parametrize("array", ["input_weights", "recurrent_weights", "bias"])
def test_each_gate_alone(reset, gate, array):
    """Beside a candidate that everything else acts on, a single array of a single gate is not zero."""
    base = {
        "recurrent_weights": np.zeros((3, 2, 2)),
        "input_weights": np.zeros((3, 2, 1)),
        "bias": np.array([[0.0, 0.0], [0.0, 0.0], [0.7, -0.4]]),
    }
    base["recurrent_weights"][N] = [[0.9, -0.3], [0.2, 1.1]]
    changed = {name: values.copy() for name, values in base.items()}
    changed[array][gate] += np.random.default_rng(1).normal(size=changed[array][gate].shape)
    x = np.array([[[0.5], [-1.5], [2.0], [0.1]]])
    models = [FloatModel((zero_gru(reset=reset, **arrays),), last_step=False) for arrays in (base, changed)]
    found = [model.run(x)[0] for model in models]
    for model, h in zip(models, found, strict=True):
        np.testing.assert_allclose(h, run_by_formula(model, x[0].tolist()), rtol=0, atol=TOLERANCE)
    assert np.abs(found[0] - found[1]).max() > 1e-3


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("seed", range(3))
def test_random_layers(reset, seed):
    rng = np.random.default_rng(seed)
    model = FloatModel((random_gru(rng, 3, 5, reset),), last_step=False)
    x = rng.normal(size=(2, 20, 3))
    for found, sequence in zip(model.run(x), x.tolist(), strict=True):
        np.testing.assert_allclose(found, run_by_formula(model, sequence), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_dense_activations(activation):
    gru = random_gru(np.random.default_rng(2), 1, 2)
    model = FloatModel((gru, dense([[3, -2], [-1, 4], [0, 0]], [0.1, -0.2, -5], activation)), last_step=False)
    x = np.array([[[1.0], [-2.0], [0.5]]])
    np.testing.assert_allclose(model.run(x)[0], run_by_formula(model, x[0].tolist()), rtol=0, atol=TOLERANCE)


def test_stacked_layers_with_a_head():
    model = two_layer_model(last_step=False)
    x = np.random.default_rng(3).normal(size=(4, 9, 3))
    for found, sequence in zip(model.run(x), x.tolist(), strict=True):
        np.testing.assert_allclose(found, run_by_formula(model, sequence), rtol=0, atol=TOLERANCE)


def test_states_are_those_of_each_layer():
    model = two_layer_model(last_step=True)
    x = np.random.default_rng(4).normal(size=(2, 5, 3))
    found = run_body(model, as_sequences(x)).states
    assert [h.shape for h in found] == [(2, 5, 4), (2, 5, 2)]
    for n_layers, h in enumerate(found, start=1):
        part = FloatModel(model.layers[:n_layers], last_step=False)
        np.testing.assert_allclose(h[1], run_by_formula(part, x[1].tolist()), rtol=0, atol=TOLERANCE)


def test_extreme_weights_do_not_overflow():
    """All warnings are errors here."""
    gru = zero_gru(input_weights=np.full((3, 2, 1), 1e300), recurrent_weights=np.full((3, 2, 2), -1e300))
    assert np.isfinite(FloatModel((gru,), last_step=False).run(np.array([[[1.0], [-1.0], [0.0]]]))).all()


# ---- shapes, lengths -----------------------------------------------------------------------------------------------


def test_shapes_are_those_of_the_api():
    x = np.zeros((3, 7, 3))
    assert two_layer_model(last_step=False).run(x).shape == (3, 7, 2)
    assert two_layer_model(last_step=True).run(x).shape == (3, 2)
    as_list = two_layer_model(last_step=False).run([x[0], x[1, :2]])
    assert [y.shape for y in as_list] == [(7, 2), (2, 2)]
    assert two_layer_model(last_step=True).run([x[0], x[1, :2]]).shape == (2, 2)


def test_outputs_are_float64():
    assert two_layer_model(last_step=True).run(np.ones((1, 2, 3), np.float32)).dtype == np.float64
    assert two_layer_model(last_step=True).run(np.ones((1, 2, 3), np.int8)).dtype == np.float64


def test_a_sequence_does_not_depend_on_its_neighbours():
    rng = np.random.default_rng(5)
    x = [rng.normal(size=(steps, 3)) for steps in (4, 1, 9)]
    every_step = two_layer_model(last_step=False)
    for found, sequence in zip(every_step.run(x), x, strict=True):
        np.testing.assert_allclose(found, run_by_formula(every_step, sequence.tolist()), rtol=0, atol=TOLERANCE)


def test_last_step_is_that_of_each_sequence():
    rng = np.random.default_rng(6)
    x = [rng.normal(size=(steps, 3)) for steps in (4, 1, 9)]
    model = two_layer_model(last_step=True)
    expected = [run_by_formula(model, sequence.tolist())[-1] for sequence in x]
    np.testing.assert_allclose(model.run(x), expected, rtol=0, atol=TOLERANCE)


def test_padding_gives_zeros(tmp_path):
    x = np.random.default_rng(7).normal(size=(2, 4, 3))
    np.savez(tmp_path / "x.npz", x=x, lengths=[4, 2])
    y = two_layer_model(last_step=False).run(load_npz(tmp_path / "x.npz")[0])
    assert y.shape == (2, 4, 2)
    assert (y[1, 2:] == 0).all()
    alone = two_layer_model(last_step=False).run([x[1, :2]])[0]
    np.testing.assert_allclose(y[1, :2], alone, rtol=0, atol=1e-14)  # products of another shape add up in another order


@pytest.mark.parametrize("x", [np.zeros((1, 2, 4)), [np.zeros((2, 2))]])
def test_wrong_number_of_features(x):
    with pytest.raises(DataError, match=r"^input: \d features, the model has 3 inputs; shape"):
        two_layer_model(last_step=True).run(x)


# ---- arrays are copied, checked, and cannot be changed -------------------------------------------------------------


def test_arrays_are_read_only_copies():
    given = {
        "input_weights": np.ones((3, 2, 1)),
        "recurrent_weights": np.ones((3, 2, 2)),
        "bias": np.ones((3, 2)),
        "recurrent_bias": np.ones(2),
    }
    gru = zero_gru(**given)
    weights, bias = np.ones((1, 2)), np.ones(1)
    head = Dense("dense", weights, bias)
    for layer, arrays in ((gru, given), (head, {"weights": weights, "bias": bias})):
        for name, array in arrays.items():
            array[:] = 7
            own = getattr(layer, name)
            assert (own == 1).all(), name
            with pytest.raises(ValueError, match="read-only"):
                own[...] = 2


def test_other_types_of_numbers_become_float64():
    assert dense([[1, 2]], [3]).weights.dtype == np.float64
    gru = zero_gru(input_weights=np.ones((3, 2, 1), np.float32), bias=[[1, 2], [3, 4], [5, 6]])
    assert (gru.input_weights.dtype, gru.bias.dtype) == (np.float64, np.float64)


def test_sizes_and_parts():
    model = two_layer_model(last_step=True)
    assert (model.n_inputs, model.n_outputs) == (3, 2)
    assert [gru.name for gru in model.grus] == ["first", "second"]
    assert [layer.name for layer in model.head] == ["hidden", "out"]
    assert [(layer.n_inputs, layer.n_outputs) for layer in model.head] == [(2, 5), (5, 2)]
    assert FloatModel(model.grus, last_step=True).n_outputs == 2


# ---- refusals ------------------------------------------------------------------------------------------------------


def with_value(shape, position, value):
    array = np.zeros(shape)
    array[position] = value
    return array


GRU_REFUSALS = {
    "reset": ({"reset": "none"}, "reset 'none', supported are after, before"),
    "gate": ({"gate": "tanh"}, "gate 'tanh', supported are sigmoid, hard_sigmoid"),
    "candidate": ({"candidate": "elu"}, "candidate 'elu', supported are tanh, relu, linear, sigmoid, hard_tanh"),
    "initial state": ({"initial_state": [0.5]}, "initial_state (1,), expected (2,)"),
    "NaN in the initial state": ({"initial_state": [0, np.nan]}, "initial_state holds nan at [1]; all weights must be"),
    "W of two axes": ({"input_weights": np.zeros((6, 1))}, "input weights (6, 1), expected (3, units, inputs)"),
    "W of two gates": ({"input_weights": np.zeros((2, 2, 1))}, "input weights (2, 2, 1), expected (3, units, inputs)"),
    "no units": ({"input_weights": np.zeros((3, 0, 1))}, "input weights (3, 0, 1), expected (3, units, inputs)"),
    "no inputs": ({"input_weights": np.zeros((3, 2, 0))}, "input weights (3, 2, 0), expected (3, units, inputs)"),
    "U": ({"recurrent_weights": np.zeros((3, 2, 3))}, "recurrent_weights (3, 2, 3), expected (3, 2, 2)"),
    "b": ({"bias": np.zeros(6)}, "bias (6,), expected (3, 2)"),
    "c": ({"recurrent_bias": np.zeros((3, 2))}, "recurrent_bias (3, 2), expected (2,)"),
    "c in reset before": (
        {"reset": "before", "recurrent_bias": [0, 1]},
        "reset before the product has no recurrent bias; add it to the bias of n",
    ),
    "NaN in W": (
        {"input_weights": with_value((3, 2, 1), (1, 0, 0), np.nan)},
        "input_weights holds nan at [1, 0, 0]; all weights must be finite",
    ),
    "infinity in U": (
        {"recurrent_weights": with_value((3, 2, 2), (2, 1, 0), -np.inf)},
        "recurrent_weights holds -inf at [2, 1, 0]; all weights must be finite",
    ),
    "NaN in c": ({"recurrent_bias": [0, np.nan]}, "recurrent_bias holds nan at [1]; all weights must be finite"),
    "complex": ({"bias": np.zeros((3, 2), complex)}, "bias is of type complex128, expected real numbers"),
    "text": ({"bias": [["a"] * 2] * 3}, "bias is of type <U1, expected real numbers"),
    "objects": ({"bias": [[None] * 2] * 3}, "bias is of type object, expected real numbers"),
    "unequal rows": ({"input_weights": [[1], [2, 3]]}, "input_weights has rows of unequal lengths"),
}


@pytest.mark.parametrize(("arguments", "message"), GRU_REFUSALS.values(), ids=GRU_REFUSALS)
def test_gru_refusals(arguments, message):
    with pytest.raises(ModelError) as caught:
        zero_gru(name="gru_1", **arguments)
    assert str(caught.value).startswith(f"GRU layer 'gru_1': {message}")


DENSE_REFUSALS = {
    "activation": ((np.zeros((1, 2)), np.zeros(1), "softmax"), "activation 'softmax', supported are linear, relu,"),
    "weights": ((np.zeros(2), np.zeros(1)), "weights (2,), expected (outputs, inputs)"),
    "no outputs": ((np.zeros((0, 2)), np.zeros(0)), "weights (0, 2), expected (outputs, inputs)"),
    "bias": ((np.zeros((2, 3)), np.zeros(3)), "bias (3,), expected (2,)"),
    "NaN": ((with_value((2, 3), (1, 2), np.nan), np.zeros(2)), "weights holds nan at [1, 2]; all weights must be"),
    "infinity": ((np.zeros((2, 3)), [0, np.inf]), "bias holds inf at [1]; all weights must be finite"),
}


@pytest.mark.parametrize(("arguments", "message"), DENSE_REFUSALS.values(), ids=DENSE_REFUSALS)
def test_dense_refusals(arguments, message):
    with pytest.raises(ModelError) as caught:
        Dense("out", *arguments)
    assert str(caught.value).startswith(f"dense layer 'out': {message}")


MODEL_REFUSALS = {
    "no layer": ((), "model 'm': no GRU layer; at least one is needed"),
    "no GRU": ((dense([[1]], [0]), Reverse()), "model 'm': no GRU layer; at least one is needed"),
    "embedding second": (
        (zero_gru(), Embedding("words", np.zeros((3, 2)))),
        "embedding 'words': after another layer, but it reads token numbers: put it first",
    ),
    "GRU after final states": (
        (Bidirectional("both", zero_gru(), zero_gru(), final=True), zero_gru(input_weights=np.zeros((3, 2, 4)))),
        "bidirectional layer 'both': gives its final states only, a single vector, but layer 'gru' after it needs",
    ),
    "GRU widths": ((zero_gru(), zero_gru(name="g2")), "layer 'g2': 1 inputs, but the layer before it gives 2 values"),
    "dense width": ((zero_gru(), dense([[1]], [0])), "layer 'dense': 1 inputs, but the layer before it gives 2 values"),
}


@pytest.mark.parametrize(("layers", "message"), MODEL_REFUSALS.values(), ids=MODEL_REFUSALS)
def test_model_refusals(layers, message):
    with pytest.raises(ModelError) as caught:
        FloatModel(layers, last_step=True, name="m")
    assert str(caught.value).startswith(message)
