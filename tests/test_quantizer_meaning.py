"""What quantized and folded numbers mean in real ones: standardisation, biases, dequantized weights."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import oracle
import pytest
import strategies
from float_models import half_up, random_dense, random_gru, random_x, small_model
from hypothesis import given

import quantgru as qg
from quantgru.errors import DataError
from quantgru.model import FloatModel
from quantgru.model.run import run_body
from quantgru.quantizer import dequantize, fold_standardisation
from quantgru.sequences import as_sequences

# ---- standardisation -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reset", ["after", "before"])
@pytest.mark.parametrize(
    ("mean", "scale"),
    [
        ([1.0, -20.0, 300.0], [0.1, 5.0, 70.0]),
        ([1.0, -20.0, 300.0], None),
        (None, [0.1, 5.0, -70.0]),
        (3.0, 2.0),
        ([3.0], [2.0]),
        (None, None),
    ],
)
def test_folding_is_standardising_first(reset, mean, scale):
    rng = np.random.default_rng(3)
    model = FloatModel((random_gru(rng, 3, 5, reset), random_dense(rng, 5, 2)), last_step=False)
    x = rng.normal(size=(2, 10, 3)) * [0.1, 5, 70] + [1, -20, 300]
    standardised = (x - (0 if mean is None else np.array(mean))) / (1 if scale is None else np.array(scale))
    found = fold_standardisation(model, mean, scale).run(x)
    np.testing.assert_allclose(found, model.run(standardised), rtol=0, atol=1e-12)


def test_folding_leaves_the_model_alone():
    model = small_model()
    before = model.grus[0].input_weights.copy()
    folded = fold_standardisation(model, [1, 2], [3, 4])
    np.testing.assert_array_equal(model.grus[0].input_weights, before)
    assert (folded.name, folded.last_step, folded.notes) == (model.name, model.last_step, model.notes)
    assert fold_standardisation(model, None, None) is model


STANDARDISATION_REFUSALS = {
    "too few": ({"mean": [1, 2, 3]}, "mean: shape (3,), expected (2,): one value for each input of the model"),
    "two axes": ({"scale": [[1, 2]]}, "scale: shape (1, 2), expected (2,): one value for each input of the model"),
    "zero": ({"scale": [1, 0]}, "scale: 0 at feature 1; a constant feature has scale 1"),
    "zero for all": ({"scale": 0.0}, "scale: 0 at feature 0; a constant feature has scale 1"),
    "NaN": ({"mean": [np.nan, 1]}, "mean: nan, all values must be finite"),
    "infinity": ({"scale": [1, np.inf]}, "scale: inf, all values must be finite"),
    "text": ({"mean": "mean.npz"}, "mean: expected 2 real numbers, one for each input of the model"),
    "unequal rows": ({"mean": [[1], [2, 3]]}, "mean: expected 2 real numbers, one for each input of the model"),
    "complex": ({"scale": [1j, 1]}, "scale: expected 2 real numbers, one for each input of the model"),
    "next to nothing": ({"scale": [1, 1e-310]}, "scale: 1e-310 is too small for the weights of the model"),
}


@pytest.mark.parametrize(("arguments", "message"), STANDARDISATION_REFUSALS.values(), ids=STANDARDISATION_REFUSALS)
def test_standardisation_refusals(arguments, message):
    with pytest.raises(DataError) as caught:
        qg.quantize(small_model(), random_x(2, 3, 2), **arguments)
    assert str(caught.value) == message


@pytest.mark.parametrize("reset", ["after", "before"])
def test_biases_take_back_what_rounded_weights_do_to_means(reset):
    """To nearest: the mean of each pre-activation over the calibration data is that of the float model, within the
    biases' LSB. (Compensated, steps count by what they do to the states: tests/test_compensation.py.)"""
    model = small_model(n_inputs=3)
    if reset == "before":
        first = model.grus[0]
        model = replace(model, layers=(replace(first, reset=reset, recurrent_bias=np.zeros(first.n_units)),))
    x = random_x(20, 30, 3) + np.array([1.0, -20.0, 300.0])
    gru, meaning = model.grus[0], dequantize(qg.quantize(model, x, rounding="nearest")).grus[0]
    h = run_body(model, as_sequences(x)).states[0]
    before = np.concatenate([np.zeros_like(h[:, :1]), h[:, :-1]], axis=1).reshape(-1, gru.n_units)
    rows = x.reshape(-1, 3)
    for gate in (0, 1):  # W x + b, and with it the part of U, which has the same bias
        exact = rows @ gru.input_weights[gate].T + before @ gru.recurrent_weights[gate].T + gru.bias[gate]
        rounded = rows @ meaning.input_weights[gate].T + before @ meaning.recurrent_weights[gate].T + meaning.bias[gate]
        assert np.abs((exact - rounded).mean(axis=0)).max() <= 0.5 / 2**14 + 1e-12
    if reset == "after":
        exact = before @ gru.recurrent_weights[2].T + gru.recurrent_bias
        rounded = before @ meaning.recurrent_weights[2].T + meaning.recurrent_bias
    else:
        r = 1 / (1 + np.exp(-(rows @ gru.input_weights[1].T + before @ gru.recurrent_weights[1].T + gru.bias[1])))
        exact = rows @ gru.input_weights[2].T + (r * before) @ gru.recurrent_weights[2].T + gru.bias[2]
        rounded = rows @ meaning.input_weights[2].T + (r * before) @ meaning.recurrent_weights[2].T + meaning.bias[2]
    assert np.abs((exact - rounded).mean(axis=0)).max() <= 0.5 / 2**14 + 1e-12


# ---- the real meaning of an integer model --------------------------------------------------------------------------


def exact_rows(weights, x_raw, operand_bits):
    """Sums of real weights and real operands, as Fractions."""
    real = [Fraction(x) * Fraction(2) ** -f for x, f in zip(x_raw, operand_bits, strict=True)]
    return [sum(Fraction(w) * v for w, v in zip(row, real, strict=True)) for row in weights]


def check_matrix(matrix, weights, operand_bits, result_bits, x_raw):
    """The oracle's integer row is the exact real row of the dequantized weights, rounded."""
    codes = matrix.codes.tolist()
    for row, value in enumerate(exact_rows(weights.tolist(), x_raw, operand_bits)):
        acc = sum(code * x for code, x in zip(codes[row], x_raw, strict=True))
        m, s = int(matrix.multipliers[row]), int(matrix.shifts[row])
        assert half_up(value * 2**result_bits) == oracle.requantize(acc, matrix.left_shift, m, s)


@given(strategies.int_models_with_inputs(max_steps=1))
def test_dequantized_weights_are_exact(case):
    """For inputs, states and outputs of a layer before: W, U and dense rows, and all biases."""
    model, inputs = case
    real = dequantize(model)
    assert (real.last_step, real.name) == (model.last_step, model.name)
    x_raw, operand_bits = inputs[0], model.input_fraction_bits.tolist()
    for gru, meaning in zip(model.grus, real.grus, strict=True):
        h = strategies.random_inputs("random", 1, gru.n_units, seed=gru.n_units)[0]
        units = gru.n_units
        check_matrix(gru.input, meaning.input_weights.reshape(3 * units, -1), operand_bits, 14, x_raw)
        check_matrix(gru.recurrent, meaning.recurrent_weights.reshape(3 * units, -1), [15] * units, 14, h)
        assert (meaning.bias.reshape(-1) * 2**14).tolist() == gru.bias.tolist()
        assert (meaning.recurrent_bias * 2**14).tolist() == (gru.recurrent_bias.tolist() or [0] * units)
        assert (meaning.reset, meaning.name) == (gru.reset, gru.name)
        x_raw, operand_bits = h, [15] * units
    for dense, meaning in zip(model.head, real.head, strict=True):
        bits = 14 if dense.activation in ("sigmoid", "tanh") else dense.output_fraction_bits
        check_matrix(dense.matrix, meaning.weights, operand_bits, bits, x_raw)
        assert (meaning.bias * 2.0**bits).tolist() == dense.bias.tolist()
        assert (meaning.activation, meaning.name) == (dense.activation, dense.name)
        x_raw = strategies.random_inputs("random", 1, dense.n_outputs, seed=1)[0]
        operand_bits = [dense.output_fraction_bits] * dense.n_outputs


def test_dequantized_weights_are_near_the_given_ones():
    """To nearest, half a step of each row's scale, for the formats of every kind of layer."""
    rng = np.random.default_rng(5)
    model = FloatModel(
        (
            random_gru(rng, 3, 6),
            random_gru(rng, 6, 4, "before"),
            random_dense(rng, 4, 5, "relu"),
            random_dense(rng, 5, 2),
        ),
        last_step=True,
    )
    real = dequantize(qg.quantize(model, random_x(5, 20, 3), rounding="nearest"))
    for mine, found in zip(model.layers, real.layers, strict=True):
        for name in ("input_weights", "recurrent_weights", "weights"):
            if hasattr(mine, name):
                given_rows, rows = getattr(mine, name), getattr(found, name)
                assert np.abs(rows - given_rows).max() <= np.abs(given_rows).max() / 126
