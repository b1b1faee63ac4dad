"""Refinement over whole sequences: by hand, gradients against differences, data that it never saw, and its edges."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_line import assert_refused, done, quantgru
from float_models import random_dense, random_gru, random_x

import quantgru as qg
from quantgru.errors import ConfigError
from quantgru.fixed import PRE_ACTIVATION, to_real
from quantgru.int_model import IntDense, IntModel
from quantgru.int_model.row_parameters import EXACT, SHORT, RowParameters, is_short
from quantgru.model import Bidirectional, Dense, Embedding, FloatModel, Gru, Reverse
from quantgru.model.run import FloatSignal, gru_states, run_body
from quantgru.quantizer.backpropagation import GruRun, by_layer, unit_gradients
from quantgru.quantizer.dequantize import dequantize
from quantgru.quantizer.held_out import HELD_OUT
from quantgru.quantizer.least_squares import best_step
from quantgru.quantizer.refine import refine_layers
from quantgru.quantizer.refine_dense import DenseTask, refined_dense
from quantgru.quantizer.rounding import Nearest
from quantgru.quantizer.weights import quantize_bias, quantize_rows
from quantgru.quantizer.widths import Widths
from quantgru.sequences import Sequences
from quantgru.simulator import run
from quantgru.simulator.program import RawSignal


def no_progress(rounds: int) -> None:
    pass


# ---- one step ------------------------------------------------------------------------------------------------------


def test_a_code_changes_where_half_of_its_curvature_is_less_than_its_slope() -> None:
    """0.8 is nearest to 1, 0.4 to 0, and 2.6 to 2 where codes end there."""
    wanted = np.array([0.8, 0.4, 2.6])
    zeros, ends = np.zeros(3, np.int64), np.full(3, 2)
    assert best_step(np.eye(3), -wanted, zeros, -ends, ends).tolist() == [1, 0, 2]


def test_a_real_parameter_takes_what_codes_leave() -> None:
    """(c + b - 1.7)^2 + (2 c - 2.2)^2 is least at c = 1, b = 0.7, where a code c starts from 0."""
    jacobian, error = np.array([[1.0, 1.0], [2.0, 0.0]]), np.array([-1.7, -2.2])
    end = np.full(1, 3)
    found = best_step(jacobian.T @ jacobian, jacobian.T @ error, np.zeros(1, np.int64), -end, end)
    np.testing.assert_allclose(found, [1, 0.7], rtol=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_a_step_is_not_worse_than_real_parameters_alone_and_often_the_best(seed: int) -> None:
    """Against all codes of -1, 0, 1, each with the real parameters that suit it."""
    rng = np.random.default_rng(seed)
    jacobian, error = rng.normal(size=(30, 6)), rng.normal(size=30)

    def cost(codes: np.ndarray) -> float:
        left = error + jacobian[:, :4] @ codes
        real, *_ = np.linalg.lstsq(jacobian[:, 4:], -left)
        return float(((left + jacobian[:, 4:] @ real) ** 2).sum())

    ones = np.ones(4, np.int64)
    step = best_step(jacobian.T @ jacobian, jacobian.T @ error, 0 * ones, -ones, ones)
    found = float(((error + jacobian @ step) ** 2).sum())
    least = min(cost(np.array(codes)) for codes in itertools.product((-1, 0, 1), repeat=4))
    assert found == pytest.approx(cost(step[:4]))
    assert least * (1 - 1e-9) <= found <= cost(0 * ones) * (1 + 1e-9)


# ---- gradients -----------------------------------------------------------------------------------------------------

FUNCTIONS = [("sigmoid", "tanh"), ("hard_sigmoid", "hard_tanh"), ("sigmoid", "relu"), ("hard_sigmoid", "linear")]


def shaken(layer: Gru, name: str, index: tuple[int, ...], by: float) -> Gru:
    array = getattr(layer, name).copy()
    array[index] += by
    return replace(layer, **{name: array})


@pytest.mark.parametrize("reset", ["after", "before"])
@pytest.mark.parametrize(("gate", "candidate"), FUNCTIONS)
def test_gradients_are_those_of_differences(reset, gate, candidate) -> None:
    """Of the float run with the integers' weights, where a single one differs, and a bias gives back what that does to
    the mean of a sum; sequences of unequal lengths."""
    rng = np.random.default_rng(3)
    gru = replace(random_gru(rng, 2, 3, reset), gate=gate, candidate=candidate, initial_state=np.full(3, 0.25))
    x = [0.5 * rng.normal(size=(length, 2)) for length in (6, 4, 1, 6)]
    int_model = qg.quantize(FloatModel((gru,), last_step=False), x)
    meant = dequantize(int_model).grus[0]
    result = run(int_model, x, trace=True)
    layer, (trace,) = int_model.grus[0], result.trace.layers
    start = np.broadcast_to(layer.h0, (4, 1, 3))
    gru_run = GruRun(layer, result.sequences.valid, np.concatenate([start, trace.h[:, :-1]], axis=1), trace)
    of_states = rng.normal(size=trace.h.shape) * result.sequences.valid[..., None]
    order = np.array([2, 0, 3, 1, 1])
    of_all = unit_gradients(gru_run, order, of_states[order], np.arange(3))
    of_two = unit_gradients(gru_run, order, of_states[order], np.array([2, 0]))
    np.testing.assert_allclose(of_two, of_all[:, [2, 0]], rtol=1e-9, atol=1e-12)
    found = by_layer(of_all.sum(axis=0), layer)
    weight = np.array([1, 2, 1, 1])  # as often as they are in `order`

    def value(changed: Gru) -> float:
        states = gru_states(changed, result.sequences, changed.h0)
        return float((states * of_states * weight[:, None, None]).sum())

    def slope(name: str, index: tuple[int, ...]) -> float:
        return (value(shaken(meant, name, index, 1e-5)) - value(shaken(meant, name, index, -1e-5))) / 2e-5

    def row_slopes(name: str, row: int) -> np.ndarray:
        gate_number, unit = divmod(row, 3)
        columns = range(getattr(meant, name).shape[2])
        return np.array([slope(name, (gate_number, unit, column)) for column in columns])

    close = {"rtol": 5e-3, "atol": 5e-4}
    biases = np.array([slope("bias", divmod(row, 3)) for row in range(9)])
    recurrent = [slope("recurrent_bias", (unit,)) for unit in range(3)] if reset == "after" else []
    valid = result.sequences.valid
    h, r = gru_run.before[valid] * 2.0**-layer.state_fraction_bits, trace.r[valid] * 2.0**-15
    of_candidate = (
        np.outer(recurrent, h.mean(axis=0)) if reset == "after" else np.outer(biases[6:], (r * h).mean(axis=0))
    )
    given_back = {
        "input_weights": np.outer(biases, np.concatenate(x).mean(axis=0)),
        "recurrent_weights": np.concatenate((np.outer(biases[:6], h.mean(axis=0)), of_candidate)),
    }
    for name, matrix, operand_bits, codes, scales in (
        ("input_weights", layer.input, int_model.input_fraction_bits, found.input, found.input_scales),
        ("recurrent_weights", layer.recurrent, layer.state_fraction_bits, found.recurrent, found.recurrent_scales),
    ):
        one = np.ldexp(matrix.row_scales(layer.row_bits)[:, None], np.broadcast_to(operand_bits, matrix.codes.shape))
        expected = (np.array([row_slopes(name, row) for row in range(9)]) - given_back[name]) * one
        np.testing.assert_allclose(codes / one, expected / one, **close)
        np.testing.assert_allclose(scales[:, 0], (expected * matrix.codes).sum(axis=1), **close)
    np.testing.assert_allclose(found.bias[:, 0], biases, **close)
    np.testing.assert_allclose(found.recurrent_bias[:, 0], recurrent, **close)


# ---- layers --------------------------------------------------------------------------------------------------------


def states_error(model: FloatModel, int_model: IntModel, sequences: Sequences, layer: int) -> float:
    """Sum of squares of the states' error."""
    exact = run_body(model, sequences).states[layer]
    states = run(int_model, sequences).states_raw[layer] * 2.0 ** -int_model.grus[layer].state_fraction_bits
    return float(((states - exact)[sequences.valid] ** 2).sum())


def test_a_wrong_bias_is_put_right() -> None:
    """h = n = the bias, at every step: what is wrong with it is the error of every state, and nothing else is."""
    bias = np.array([[-40.0], [0.0], [0.25]])  # z = 0
    gru = Gru("g", "before", np.zeros((3, 1, 1)), np.zeros((3, 1, 1)), bias, np.zeros(1), "hard_sigmoid", "linear")
    model, x = FloatModel((gru,), last_step=False), random_x(10, 4, 1)
    int_model = qg.quantize(model, x)
    layer = int_model.grus[0]
    assert not layer.input.codes.any() and not layer.recurrent.codes.any()
    right = layer.bias[2]
    wrong = replace(int_model, layers=(replace(layer, bias=layer.bias + np.array([0, 0, right // 2], np.int32)),))
    refined = refine_layers(model, wrong, model.sequences(x), None, Widths(model, 8), EXACT, 8, no_progress)
    (found,) = refined.layers
    assert abs(int(found.bias[2]) - int(right)) < right * 0.02
    assert dict(refined.gains)["g"] > 34  # 20 log10(0.5 / 0.01)


def test_states_come_nearer_on_other_data(digits) -> None:
    """By 0.4 dB and more on the digits with 4 bits; no test image is in the calibration data: what it is for."""
    sequences = digits.model.sequences(digits.x)
    passed = []
    plain, refined = (
        qg.quantize(digits.model, digits.calibration, weight_bits=4, refine=rounds, progress=passed.append)
        for rounds in (0, 2)
    )
    errors = [states_error(digits.model, each, sequences, 0) for each in (plain, refined)]
    assert 10 * np.log10(errors[0] / errors[1]) > 0.4
    assert passed == [1] * 2
    held_out = digits.model.sequences(digits.calibration[::HELD_OUT])
    on_these = [states_error(digits.model, each, held_out, 0) for each in (plain, refined)]
    gain = 10 * np.log10(on_these[0] / on_these[1])
    (name, of_gru), (head, _) = refined.notes["refined"]["gains"]
    assert (refined.notes["refined"]["rounds"], name, head) == (2, "gru", "dense")
    assert of_gru == pytest.approx(gain, abs=0.01)
    for matrix in (refined.grus[0].input, refined.grus[0].recurrent):
        assert -8 <= matrix.codes.min() and matrix.codes.max() <= 7


def test_inputs_far_from_zero_are_refined_as_well() -> None:
    """A temperature in kelvin, for a model of standardised inputs: as many dB as on these, on data held out."""
    rng = np.random.default_rng(0)
    model = FloatModel((random_gru(rng, 3, 6), random_dense(rng, 6, 2)), last_step=True)
    x = np.random.default_rng(5).normal(size=(200, 9, 3))
    refined = [
        qg.quantize(model, 5 * x + 100, mean=[100] * 3, scale=[5] * 3, refine=3),
        qg.quantize(model, x, refine=3),
    ]
    far, near = (dict(each.notes["refined"]["gains"])["gru"] for each in refined)
    assert far > 0.8 * near > 0.8


def test_short_row_parameters_stay_short_and_keep_their_scales(digits) -> None:
    """And errors become less by 0.2 dB and more on other data, as with exact ones."""
    plain, refined = (
        qg.quantize(digits.model, digits.calibration, weight_bits=4, row_parameters="short", refine=rounds)
        for rounds in (0, 2)
    )
    sequences = digits.model.sequences(digits.x)
    errors = [states_error(digits.model, each, sequences, 0) for each in (plain, refined)]
    assert 10 * np.log10(errors[0] / errors[1]) > 0.2
    assert is_short(refined)
    for matrix in ("input", "recurrent"):
        before, after = (getattr(each.grus[0], matrix) for each in (plain, refined))
        assert np.array_equal(before.multipliers, after.multipliers) and np.array_equal(before.shifts, after.shifts)
    assert not np.array_equal(plain.grus[0].recurrent.codes, refined.grus[0].recurrent.codes)


# ---- dense layers --------------------------------------------------------------------------------------------------


def dense_task(x: np.ndarray, exact: Dense, exact_x: np.ndarray, parameters: RowParameters = EXACT) -> DenseTask:
    """Of single steps."""
    raw = np.clip(np.floor(x * 2.0**15 + 0.5), -(2**15), 2**15 - 1).astype(np.int16)
    ones = np.ones(len(x), np.int64)
    return DenseTask(RawSignal(raw[:, None], ones), exact, FloatSignal(exact_x[:, None], ones), 8, parameters)


def integers_of(dense: Dense, parameters: RowParameters = EXACT) -> IntDense:
    """On states of s16f15."""
    row_bits, output_bits = (12, 12) if dense.activation == "linear" else (PRE_ACTIVATION.fraction_bits, 15)
    matrix = quantize_rows(dense.weights * 2.0**-15, row_bits, [Nearest(8)], "dense", parameters)
    return IntDense("dense", dense.activation, matrix, quantize_bias(dense.bias, row_bits, "dense"), output_bits)


@pytest.mark.parametrize("parameters", [EXACT, SHORT])
@pytest.mark.parametrize("activation", ["linear", "tanh"])
def test_a_dense_layer_makes_up_for_states_that_are_too_small(activation: str, parameters: RowParameters) -> None:
    """By a fifth, and by 0.01: weights of 1.25 times, and the bias that gives back 0.01 of each operand."""
    rng = np.random.default_rng(4)
    exact_x = rng.uniform(-0.5, 0.5, (200, 3))
    dense = random_dense(rng, 3, 2, activation)
    x = 0.8 * exact_x - 0.01
    layer = integers_of(dense, parameters)
    found, gain = refined_dense(layer, dense_task(x, dense, exact_x, parameters))
    real = to_weights(found)
    step = np.abs(1.25 * dense.weights).max(axis=1, keepdims=True) / 100  # of 127 codes
    assert (np.abs(real - 1.25 * dense.weights) < step).all()
    bias = to_real(found.bias, found.row_bits)
    np.testing.assert_allclose(bias, dense.bias + 1.25 * 0.01 * dense.weights.sum(axis=1), atol=2e-3)
    assert gain > 20


def to_weights(layer: IntDense) -> np.ndarray:
    """Of states of s16f15."""
    return layer.matrix.codes * layer.matrix.row_scales(np.full(layer.n_outputs, layer.row_bits))[:, None] * 2.0**15


def test_a_dense_layer_that_fits_other_sequences_worse_stays() -> None:
    """The sequences held out want the weights that it has, all others the opposite."""
    rng = np.random.default_rng(4)
    x = rng.uniform(-0.5, 0.5, (200, 3))
    dense = random_dense(rng, 3, 2)
    exact_x = np.where(np.arange(200)[:, None] % HELD_OUT == 0, x, -x)
    layer = integers_of(dense)
    assert refined_dense(layer, dense_task(x, dense, exact_x)) == (layer, 0.0)


def test_operands_that_never_change_tell_nothing_about_weights() -> None:
    """But about the bias."""
    dense = Dense("dense", np.array([[0.5, -0.25]]), np.zeros(1))
    x = np.full((20, 2), 0.25)
    layer = replace(integers_of(dense), bias=np.array([999], np.int32))
    found, _ = refined_dense(layer, dense_task(x, dense, x))
    assert np.array_equal(found.matrix.codes, layer.matrix.codes)
    assert abs(int(found.bias[0])) <= 2 ** max(0, found.row_bits - 10)  # what the codes leave


def test_only_the_last_step_counts_where_only_that_is_put_out(digits) -> None:
    """The head is fitted to it: what it gains is the error of the model's outputs on sequences held out."""
    x = digits.calibration
    refined = qg.quantize(digits.model, x, weight_bits=3, refine=1)
    unfitted = replace(refined, layers=(*refined.body, *qg.quantize(digits.model, x, weight_bits=3).head))
    held_out = x[::HELD_OUT]
    errors = [
        float(((qg.simulate(each, held_out) - digits.model.run(held_out)) ** 2).sum()) for each in (unfitted, refined)
    ]
    gain = 10 * np.log10(errors[0] / errors[1])
    assert dict(refined.notes["refined"]["gains"])["dense"] == pytest.approx(gain, abs=0.01)
    assert gain > 0.2


# ---- whole models --------------------------------------------------------------------------------------------------


def saved(model: IntModel, folder: Path) -> bytes:
    model.save(folder / "m.qgru")
    return (folder / "m.qgru").read_bytes()


def stack() -> FloatModel:
    rng = np.random.default_rng(5)
    low, high = random_gru(rng, 3, 6, "after", "low"), random_gru(rng, 4, 5, "before", "high")
    between, out = random_dense(rng, 6, 4, "tanh", "between"), random_dense(rng, 5, 2, "linear", "out")
    return FloatModel((low, between, Reverse("reverse"), high, out), last_step=True)


def both_directions() -> FloatModel:
    rng = np.random.default_rng(6)
    embedding = Embedding("tokens", rng.normal(size=(7, 3)))
    forward, backward = random_gru(rng, 3, 4, "after", "forward"), random_gru(rng, 3, 4, "before", "backward")
    return FloatModel((embedding, Bidirectional("both", forward, backward, "sum", final=True)), last_step=True)


STRUCTURES = {"stack": (stack, 3), "bidirectional": (both_directions, 0)}


@pytest.mark.parametrize("structure", STRUCTURES)
def test_no_structure_gets_worse_by_its_own_measure(structure: str, tmp_path: Path) -> None:
    """The first layer, and both directions, read what they read before; sequences held out decide. Same bytes twice."""
    make, n_inputs = STRUCTURES[structure]
    model, rng = make(), np.random.default_rng(8)
    lengths = rng.integers(3, 12, 30)
    x = [rng.normal(size=(n, n_inputs)) if n_inputs else rng.integers(0, 7, (n, 1)) for n in lengths]
    widths = {"": 4, model.grus[0].name: 3}
    plain, refined, again = (qg.quantize(model, x, weight_bits=widths, refine=rounds) for rounds in (0, 3, 3))
    assert saved(refined, tmp_path) == saved(again, tmp_path) != saved(plain, tmp_path)
    held_out = model.sequences(x[::HELD_OUT])
    for layer in range(1 if structure == "stack" else 2):
        errors = [states_error(model, each, held_out, layer) for each in (plain, refined)]
        assert errors[1] < errors[0]
    outputs = [((qg.simulate(each, x[::HELD_OUT]) - model.run(x[::HELD_OUT])) ** 2).sum() for each in (plain, refined)]
    assert outputs[1] < outputs[0]
    assert np.abs(refined.grus[0].recurrent.codes + 0.5).max() <= 3.5
    assert [layer.name for layer in refined.layers] == [layer.name for layer in plain.layers]


# ---- edges ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [0.0, 1e-6, 1e3])
def test_layers_that_hardly_depend_on_their_weights_stay_whole(factor: float) -> None:
    """Dead and saturated ones: gradients are next to nothing."""
    gru = random_gru(np.random.default_rng(1), 2, 4)
    arrays = {name: getattr(gru, name) * factor for name in ("input_weights", "recurrent_weights", "bias")}
    model = FloatModel((replace(gru, **arrays, recurrent_bias=gru.recurrent_bias * factor),), last_step=False)
    x = random_x(10, 8, 2)
    plain, refined = (qg.quantize(model, x, refine=rounds) for rounds in (0, 3))
    held_out = model.sequences(x[::HELD_OUT])
    assert states_error(model, refined, held_out, 0) <= states_error(model, plain, held_out, 0)


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        (
            (4, 20, 2),
            "GRU layer 'gru': not refined, which takes 5 sequences of calibration data or more, to hold one in 5 out; "
            "there are 4",
        ),
        (
            (5, 2, 2),
            "GRU layer 'gru': not refined, which takes 12 steps of calibration data in the sequences that are not held "
            "out; there are 8",
        ),
    ],
)
def test_too_little_calibration_data_changes_nothing_and_says_so(shape, says: str) -> None:
    model, x = FloatModel((random_gru(np.random.default_rng(1), 2, 4),), last_step=False), random_x(*shape)
    passed = []
    plain, refined = (qg.quantize(model, x, refine=rounds, progress=passed.append) for rounds in (0, 3))
    assert refined.digest == plain.digest
    assert refined.notes["warnings"] == [*plain.notes["warnings"], says]
    assert passed == [3]


def test_a_model_whose_outputs_get_worse_stays(digits, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its states come nearer, but a head with signs turned around makes that worse."""
    x = digits.calibration

    def turned(layer: IntDense, task: DenseTask) -> tuple[IntDense, float]:
        return replace(layer, matrix=replace(layer.matrix, codes=-layer.matrix.codes)), 0.0

    monkeypatch.setattr("quantgru.quantizer.refine.refined_dense", turned)
    plain, refined = (qg.quantize(digits.model, x, refine=rounds) for rounds in (0, 1))
    assert refined.digest == plain.digest and "refined" not in refined.notes
    assert refined.notes["warnings"][-1].startswith("not refined: that makes errors of the outputs larger by ")


def test_layers_of_one_name_are_both_named() -> None:
    rng = np.random.default_rng(1)
    model = FloatModel((random_gru(rng, 2, 4), random_gru(rng, 4, 3)), last_step=False)
    refined = qg.quantize(model, random_x(100, 8, 2), weight_bits=3, refine=2)
    assert [name for name, _ in refined.notes["refined"]["gains"]] == ["gru", "gru"]


@pytest.mark.parametrize("rounds", [-1, 1.5, True, "8"])
def test_rounds_are_a_number(rounds) -> None:
    model = FloatModel((random_gru(np.random.default_rng(1), 2, 4),), last_step=False)
    with pytest.raises(ConfigError, match=r"^refine=.*, expected a number of rounds, 0 or more$"):
        qg.quantize(model, random_x(5, 5, 2), refine=rounds)


def test_on_the_command_line(tmp_path: Path) -> None:
    model, x = FloatModel((random_gru(np.random.default_rng(1), 2, 4),), last_step=False), random_x(100, 8, 2)
    model.save(tmp_path / "m.qgf")
    np.savez(tmp_path / "x.npz", x=x)
    given = ["quantize", tmp_path / "m.qgf", "--calibration", tmp_path / "x.npz", "-o", tmp_path / "m.qgru"]
    out = done(quantgru(*given, "--weight-bits", "4", "--refine", "2"))
    assert "note: layer 'gru': refined, what it gives has an error lower by " in out
    expected = qg.quantize(model, x, weight_bits=4, refine=2)
    assert IntModel.load(tmp_path / "m.qgru").digest == expected.digest != qg.quantize(model, x, weight_bits=4).digest
    assert_refused(quantgru(*given, "--refine", "-1"), "refine=-1, expected a number of rounds, 0 or more")
