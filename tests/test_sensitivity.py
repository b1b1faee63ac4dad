"""Sensitivity: each part against plain Python, together against the simulator, and the command."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pytest
from command_line import assert_refused, done, quantgru
from float_models import random_dense, random_gru, random_x
from test_float_structure import CANDIDATES, GATES, every_kind, gru_of, states_by_formula

import quantgru as qg
from quantgru.error_sources import ALL_WEIGHTS, EVERYTHING, Effect, Sensitivity, n_sources, sensitivity
from quantgru.error_sources.rounding import DeviceState, device_activation, device_functions
from quantgru.error_sources.sources import sources
from quantgru.errors import DataError, ModelError
from quantgru.int_model import IntGru, IntModel
from quantgru.int_model.cost import cost
from quantgru.model import FloatModel, Gru
from quantgru.quantizer import dequantize
from quantgru.quantizer.calibrate import calibrate
from quantgru.quantizer.counterpart import counterparts
from quantgru.quantizer.whole_sequences import compensations
from quantgru.simulator import run

X = random_x(12, 20, 2)


def effects(result: Sensitivity) -> dict[str, Effect]:
    return {effect.name: effect for effect in (*result.sources, *result.together)}


def db(exact: np.ndarray, found: np.ndarray) -> float:
    return 10 * math.log10((exact**2).sum() / ((exact - found) ** 2).sum())


def model_of(gru: Gru, outputs: int = 3) -> FloatModel:
    dense = random_dense(np.random.default_rng(1), gru.n_units, outputs)
    return FloatModel((gru, dense), last_step=False)


# ---- one part at a time --------------------------------------------------------------------------------------------


def real_row(codes: Any, matrix: Any, row: int, row_bits: int, operand_bits: Any) -> list[float]:
    """Weights that a row of codes means, by R4."""
    scale = int(matrix.multipliers[row]) * 2.0 ** (matrix.left_shift - 16 - int(matrix.shifts[row]) - row_bits)
    return [int(code) * scale * 2.0 ** int(f) for code, f in zip(codes, operand_bits, strict=True)]


@pytest.mark.parametrize("reset", ["after", "before"])
@pytest.mark.parametrize(("matrix", "gate"), [(m, g) for m in "WU" for g in range(3)])
def test_a_weight_tensor_alone(reset: Any, matrix: str, gate: int) -> None:
    """Rounded to nearest: its real weights from codes, what they lose on mean operands given back to the bias; states
    by plain Python."""
    gru = gru_of(1, reset=reset)
    model = model_of(gru)
    int_model = qg.quantize(model, X, weight_bits=4, rounding="nearest")
    of_device = int_model.grus[0]
    rows = of_device.input if matrix == "W" else of_device.recurrent
    bits = int_model.input_fraction_bits if matrix == "W" else [15] * 3
    codes = [real_row(rows.codes[gate * 3 + i], rows, gate * 3 + i, 14, bits) for i in range(3)]
    weights = {"W": gru.input_weights.copy(), "U": gru.recurrent_weights.copy()}
    lost = (weights[matrix][gate] - codes) @ mean_operand(gru, matrix, gate)
    weights[matrix][gate] = codes
    bias, recurrent_bias = gru.bias.copy(), gru.recurrent_bias.copy()
    if matrix == "U" and gate == 2 and reset == "after":
        recurrent_bias += lost
    else:
        bias[gate] += lost
    changed = Gru("gru", reset, weights["W"], weights["U"], bias, recurrent_bias)
    exact, found = (np.array([states_by_formula(g, x) for x in X.tolist()]) for g in (gru, changed))
    result = effects(sensitivity(int_model, model, X, X))
    effect = result[f"gru.{matrix}.{'zrn'[gate]}"]
    assert effect.state_db == pytest.approx(db(exact, found), abs=1e-6)
    dense = model.dense[0]
    outputs = [h @ dense.weights.T + dense.bias for h in (exact, found)]
    assert effect.output_db == pytest.approx(db(*outputs), abs=1e-6)
    labels = [y.argmax(axis=2) for y in outputs]
    assert effect.changed_labels == (labels[0] != labels[1]).sum()


def mean_operand(gru: Gru, matrix: str, gate: int) -> np.ndarray:
    """Of what the gate's row multiplies: x, h before the step, or r h."""
    if matrix == "W":
        return X.mean(axis=(0, 1))
    seen = []
    for x in X.tolist():
        for h, step in zip([[0.0] * 3, *states_by_formula(gru, x)[:-1]], x, strict=True):
            r = [1.0] * 3
            if gate == 2 and gru.reset == "before":
                sums = gru.input_weights[1] @ step + gru.recurrent_weights[1] @ h + gru.bias[1]
                r = (1 / (1 + np.exp(-sums))).tolist()
            seen.append([a * b for a, b in zip(r, h, strict=True)])
    return np.mean(seen, axis=0)


@pytest.mark.parametrize("reset", ["after", "before"])
def test_parts_that_make_up_for_errors_of_a_tensor_come_with_it(reset: Any) -> None:
    """What U and biases take over of W's errors belongs to W: so errors of all tensors add up to those of the model."""
    model = model_of(gru_of(1, reset=reset))
    int_model = qg.quantize(model, X, weight_bits=3)
    floats, meant = counterparts(model, int_model)
    seen, body = calibrate(floats, floats.sequences(X))
    tensors = [
        part.model.grus[0]
        for part in sources(int_model, floats, meant, seen, compensations(floats, body, seen, "compensated"))
        if part.flash_bytes is not None and part.name.startswith("gru")
    ]
    assert len(tensors) == 7
    for name in ("input_weights", "recurrent_weights", "bias", "recurrent_bias"):
        exact = getattr(floats.grus[0], name)
        changes = sum(getattr(tensor, name) - exact for tensor in tensors)
        np.testing.assert_allclose(exact + changes, getattr(meant.grus[0], name), atol=1e-12)
    of_w = tensors[0]
    assert not np.allclose(of_w.recurrent_weights[0], floats.grus[0].recurrent_weights[0], atol=1e-6)
    assert (of_w.recurrent_weights[1:] == floats.grus[0].recurrent_weights[1:]).all()
    assert (of_w.input_weights[1:] == floats.grus[0].input_weights[1:]).all()


@pytest.mark.parametrize(
    "note", [None, [], "x", {"gru": 1}, [["gru.W.z", "far"]], [["gru.W.z", 1.0]], 7, [["", 10**400]] * 6]
)
def test_notes_of_another_kind_say_nothing(note: Any) -> None:
    """Notes are free JSON: what does not say how far codes are away from weights is no reason for an error."""
    model = model_of(gru_of(1))
    int_model = qg.quantize(model, X, rounding="nearest")
    odd = replace(int_model, notes={**int_model.notes, "codes_away": note})
    assert sensitivity(odd, model, X, X).to_json() == sensitivity(int_model, model, X, X).to_json()


def test_rounded_inputs_alone() -> None:
    model = model_of(gru_of(1))
    int_model = qg.quantize(model, X)
    rounded = np.floor(np.ldexp(X, int_model.input_fraction_bits) + 0.5) * np.exp2(-int_model.input_fraction_bits)
    effect = effects(sensitivity(int_model, model, X, X))["inputs"]
    assert effect.output_db == pytest.approx(db(model.run(X), model.run(rounded)), abs=1e-9)
    assert effect.saturated == run(int_model, X).clipped_inputs.sum() == 0


def int_gru(gate: Any = "sigmoid", candidate: Any = "tanh") -> IntGru:
    model = FloatModel((gru_of(1, gate=gate, candidate=candidate),), last_step=False)
    return qg.quantize(model, X).grus[0]


ARGUMENTS = np.concatenate([np.linspace(-13, 13, 4001), [-1e9, -5.0, 0.0, 5.0, 12.0, 1e9]])


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("candidate", CANDIDATES)
def test_functions_are_those_of_the_device(gate: Any, candidate: Any) -> None:
    """Of a rounded argument, by the oracle: exactly."""
    layer = int_gru(gate, candidate)
    cell = device_functions(layer)
    of_gate = {"sigmoid": (oracle.sigmoid, 14), "hard_sigmoid": (oracle.hard_sigmoid, 15)}[gate]
    assert cell.gate(ARGUMENTS).tolist() == [by_oracle(*of_gate, 15, a) for a in ARGUMENTS]
    if candidate in ("sigmoid", "tanh"):
        function = {"sigmoid": oracle.sigmoid, "tanh": oracle.tanh}[candidate]
        assert cell.candidate(ARGUMENTS).tolist() == [by_oracle(function, 14, 15, a) for a in ARGUMENTS]


def by_oracle(function: Any, bits: int, result_bits: int, a: float) -> float:
    raw = min(max(math.floor(a * 2**bits + 0.5), -(2**31)), 2**31 - 1)
    return function(raw) / 2**result_bits


def test_a_state_is_that_of_the_device() -> None:
    """R12 of raw h, u and n over many steps: exactly, as u has 15 bits and the residual too."""
    rng, cell = np.random.default_rng(0), DeviceState(int_gru()).cell()
    h_raw, e = [0, 1000, -32768], [0, 0, 0]
    for _ in range(50):
        u, n = rng.integers(0, 32769, 3).tolist(), rng.integers(-32768, 32768, 3).tolist()
        h = cell.update(np.array(h_raw) / 2**15, 1 - np.array(u) / 2**15, np.array(n) / 2**15)
        h_raw, e = map(
            list, zip(*(oracle.update_state(*each) for each in zip(u, n, h_raw, e, strict=True)), strict=True)
        )
        assert (h * 2**15).tolist() == h_raw


@pytest.mark.parametrize("activation", ["linear", "relu", "sigmoid", "tanh"])
def test_a_dense_output_is_that_of_the_device(activation: Any) -> None:
    """On sums that the format has: what the simulator's layer gives for a bias alone."""
    dense = qg.Dense("dense", np.zeros((1, 3)), [0.0], activation)
    for value in (-3.0, -0.37, 0.0, 0.5, 1.999, 40.0):
        biased = qg.Dense("dense", dense.weights, [value], activation)
        int_model = qg.quantize(FloatModel((gru_of(1), biased), last_step=True), X)
        (found,) = device_activation(int_model.dense[0])(np.array([value]))
        assert found == qg.simulate(int_model, X)[0, 0]


# ---- all of them ---------------------------------------------------------------------------------------------------


def noise(parts: list[Effect]) -> float:
    return sum(10 ** (-effect.state_db / 10) for effect in parts)


@pytest.mark.parametrize("bits", [8, 4])
def test_errors_of_all_parts_add_up(digits: Any, bits: int) -> None:
    """They hardly know of one another: the sum of their powers is that of the integer model."""
    int_model = qg.quantize(digits.model, digits.calibration, weight_bits=bits)
    result = sensitivity(int_model, digits.model, digits.x, digits.calibration)
    found = effects(result)
    assert -10 * math.log10(noise([*result.sources])) == pytest.approx(found[EVERYTHING].state_db, abs=0.5)
    weights = [effect for effect in result.sources if "," not in effect.name and effect.name != "inputs"]
    assert -10 * math.log10(noise(weights)) == pytest.approx(found[ALL_WEIGHTS].state_db, abs=0.5)


@pytest.mark.parametrize("reset", ["after", "before"])
def test_errors_of_the_arithmetic_add_up(reset: Any) -> None:
    """Against a float model with exactly the weights of the integers. Rounded sums of products are in no part."""
    x = random_x(20, 100, 2)
    given = qg.quantize(FloatModel((gru_of(3, 2, 8, reset, scale=1.0),), last_step=False), x)
    result = sensitivity(given, dequantize(given), x, x)
    found = effects(result)
    assert all(effect.state_db == math.inf for effect in result.sources if ".W" in effect.name or ".U" in effect.name)
    assert found[ALL_WEIGHTS].state_db == found["gru, biases"].state_db == math.inf
    parts = [found["inputs"], found["gru, functions"], found["gru, state"]]
    assert -10 * math.log10(noise(parts)) == pytest.approx(found[EVERYTHING].state_db, abs=2)


def test_the_integer_model_is_what_the_simulator_gives() -> None:
    """Ragged sequences: where labels part first, by looping over all of them."""
    model = model_of(gru_of(1), outputs=6)
    x = [random_x(n, 2, seed=n) for n in (30, 7, 22, 1, 40, 40)]
    int_model = qg.quantize(model, X, weight_bits=2)
    found = effects(sensitivity(int_model, model, x, X))[EVERYTHING]
    exact, integers = model.run(x), qg.simulate(int_model, x)
    assert found.output_db == pytest.approx(db(np.concatenate(exact), np.concatenate(integers)), abs=1e-9)
    parted = [
        (t, i)
        for i, (y, z) in enumerate(zip(exact, integers, strict=True))
        for t in range(len(y))
        if y[t].argmax() != z[t].argmax()
    ]
    assert found.changed_labels == len(parted) > 3
    assert found.first is not None and (found.first.step, found.first.sequence) == min(parted)


def test_where_labels_part_of_a_model_that_answers_after_the_last_step() -> None:
    """The same model asked after each step, in the sequences whose last label is another: by looping over all."""
    layers = model_of(gru_of(1), outputs=6).layers
    model, stepwise = (FloatModel(layers, last_step=last_step) for last_step in (True, False))
    x = [random_x(n, 2, seed=n) for n in range(10, 90)]
    int_model = qg.quantize(model, X, weight_bits=2)
    found = effects(sensitivity(int_model, model, x, X))[EVERYTHING]
    integers = qg.simulate(replace(int_model, last_step=False), x)
    labels = [(y.argmax(axis=1), z.argmax(axis=1)) for y, z in zip(stepwise.run(x), integers, strict=True)]
    changed = [i for i, (y, z) in enumerate(labels) if y[-1] != z[-1]]
    parted = [(t, i) for i in changed for t, (a, b) in enumerate(zip(*labels[i], strict=True)) if a != b]
    assert 0 < found.changed_labels == len(changed) < 80
    assert found.first is not None and (found.first.step, found.first.sequence) == min(parted)
    assert min(parted)[0] < min(len(x[i]) for i in changed) - 1


def test_a_model_of_whole_sequences_has_no_label_before_the_end() -> None:
    both = qg.Bidirectional("both", gru_of(1), gru_of(2), final=True)
    model = FloatModel((both, random_dense(np.random.default_rng(1), 6, 6)), last_step=True)
    result = sensitivity(qg.quantize(model, X, weight_bits=2), model, random_x(200, 9, 2), X)
    assert effects(result)[EVERYTHING].changed_labels > 0
    assert all(effect.first is None for effect in effects(result).values())


@pytest.mark.parametrize(("widths", "bits"), [(8, 8), (4, 4), ({"": 4, "gru.U.n": 6, "gru.W": 8}, 6)])
def test_bytes_are_those_of_the_model(digits: Any, widths: Any, bits: int) -> None:
    """Packed codes: as many bytes as bits for each column of eight rows."""
    int_model = qg.quantize(digits.model, digits.calibration, weight_bits=widths)
    result = sensitivity(int_model, digits.model, digits.x[:5], digits.calibration)
    digest = 32
    assert sum(part.flash_bytes or 0 for part in result.sources) == cost(int_model).constant_bytes - digest
    assert effects(result)[EVERYTHING].flash_bytes == cost(int_model).constant_bytes
    assert effects(result)["gru.U.n"].flash_bytes == 32 * 32 * bits / 8 + 3 * 32


def test_a_whole_layer() -> None:
    """What the float model gives with the weights that this layer's integers mean; bytes are those of its parts."""
    layers = (gru_of(1), gru_of(2, 3, 4), random_dense(np.random.default_rng(1), 4, 2))
    model = FloatModel(tuple(replace(layer, name=f"l{i}") for i, layer in enumerate(layers)), last_step=False)
    int_model = qg.quantize(model, X, weight_bits=3)
    meant = dequantize(int_model)
    result = sensitivity(int_model, model, X, X)
    found = effects(result)
    for i in range(3):
        changed = FloatModel((*model.layers[:i], meant.layers[i], *model.layers[i + 1 :]), last_step=False)
        effect = found[f"l{i}, all weights"]
        assert effect.output_db == pytest.approx(db(model.run(X), changed.run(X)), abs=1e-9)
        assert effect.flash_bytes == sum(
            part.flash_bytes or 0 for part in result.sources if part.name.startswith(f"l{i}")
        )


def test_names_are_those_of_weight_bits_and_as_many_as_said() -> None:
    model = model_of(gru_of(1))
    int_model = qg.quantize(model, X)
    result = sensitivity(int_model, model, X, X)
    tensors = [effect.name for effect in result.sources if "," not in effect.name and effect.name != "inputs"]
    assert len(tensors) == 7
    qg.quantize(model, X, weight_bits=dict.fromkeys(tensors, 4))
    assert len(result.sources) + len(result.together) - 2 == n_sources(int_model) == 15


def test_what_saturates_is_counted() -> None:
    """A state that grows by a quarter a step, and its difference from 0.45, calibrated on few steps."""
    recurrent = np.zeros((3, 1, 1))
    recurrent[2] = 1.5
    gru = Gru("gru", "before", np.ones((3, 1, 1)), recurrent, np.zeros((3, 1)), [0.0], candidate="linear")
    model = FloatModel((gru, qg.Dense("dense", [[1.0]], [-0.45])), last_step=False)
    calibration, x = np.full((2, 3, 1), 0.5), np.full((2, 30, 1), 1.5)
    int_model = qg.quantize(model, calibration)
    counted: list[int] = []
    result = effects(sensitivity(int_model, model, x, calibration, progress=counted.append))
    simulated = run(int_model, x)
    assert result["inputs"].saturated == simulated.clipped_inputs.sum() == 60
    assert result["gru, state"].saturated == simulated.saturated_states[0] > 0
    assert result["dense, output"].saturated == simulated.saturated_outputs[0] > 0
    assert result[EVERYTHING].changed_labels is None and result[EVERYTHING].first is None
    assert counted == [1] * n_sources(int_model)


def test_every_kind_of_layer() -> None:
    model = every_kind()
    tokens = np.random.default_rng(0).integers(0, 5, (30, 9))
    int_model = qg.quantize(model, tokens)
    result = sensitivity(int_model, model, tokens, tokens)
    assert [effect.name for effect in result.sources][:2] == ["words", "gru.W.z"]
    assert len(result.sources) == 1 + 3 * 9 + 2 * 3
    assert n_sources(int_model) == len(result.sources) + 3 + 2
    found = effects(result)
    assert -10 * math.log10(noise([*result.sources])) == pytest.approx(found[EVERYTHING].state_db, abs=4)


def test_given_states() -> None:
    """Of x, and of the calibration data."""
    model, states = model_of(gru_of(1)), [np.array([0.5, -0.9, 0.1])]
    int_model = qg.quantize(model, X, initial_states=states)
    found = effects(sensitivity(int_model, model, X, X, initial_states=states, calibration_states=states))
    exact, integers = (model.run(X, initial_states=states), qg.simulate(int_model, X, initial_states=states))
    assert found[EVERYTHING].output_db == pytest.approx(db(exact, integers), abs=1e-9)
    assert found["gru, biases"].state_db > 60


def test_standardised_inputs() -> None:
    """The float model reads (x - mean) / scale, the integers x."""
    model, standard = model_of(gru_of(1)), dict(mean=[5.0, -1.0], scale=[2.0, 0.5])
    x = X * standard["scale"] + standard["mean"]
    int_model = qg.quantize(model, x, **standard)
    found = effects(qg.sensitivity(int_model, model, x, x, **standard))
    assert found[EVERYTHING].output_db == pytest.approx(db(model.run(X), qg.simulate(int_model, x)), abs=1e-6)
    assert found["gru, biases"].state_db > 60


# ---- what is refused, and the command ------------------------------------------------------------------------------


def test_wrong_arguments() -> None:
    model = model_of(gru_of(1))
    int_model: IntModel = qg.quantize(model, X)
    with pytest.raises(ModelError, match="is not what integer model"):
        sensitivity(int_model, FloatModel((gru_of(1),), last_step=False), X, X)
    with pytest.raises(ModelError, match="sensitivity: a model of type FloatModel, expected an IntModel"):
        sensitivity(model, model, X, X)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="calibration data: 3 features"):
        sensitivity(int_model, model, X, random_x(3, 4, 3))
    with pytest.raises(DataError, match="input: 3 features"):
        sensitivity(int_model, model, random_x(3, 4, 3), X)


def test_no_error_and_no_signal_are_null_in_json() -> None:
    facts = Effect("part", math.inf, -math.inf, None, None, None, None).to_json()
    assert (facts["state_db"], facts["output_db"]) == (None, None)
    json.dumps(facts, allow_nan=False)


def test_the_command(here: Path) -> None:
    command = ("sensitivity", "m.qgf", "--calibration", "x.npz", "--input", "x.npz", "--weight-bits", "3,gru.W=8")
    out = " ".join(done(quantgru(*command)).split())
    assert "6 sequences, 48 steps, 6 outputs" in out and "gru.U.n" in out and "the integer model" in out
    facts = json.loads(done(quantgru(*command, "--json")))
    assert facts["n_steps"] == 48 and len(facts["sources"]) == 13
    (dense,) = [source for source in facts["sources"] if source["name"] == "dense"]
    assert dense["state_db"] is None and 0 < dense["output_db"] < 60 and dense["flash_bytes"] == 32 * (3 + 2) + 10 * 3
    assert facts["together"][-1]["state_db"] < 40


def test_the_command_measures_refined_integers(here: Path, digits) -> None:
    """The last line is the error of the model that `quantgru quantize` makes with the same options."""
    model, x = digits.model, digits.calibration
    np.savez("calibration.npz", x=x)
    command = ("sensitivity", "m.qgf", "--calibration", "calibration.npz", "--input", "calibration.npz")
    found = json.loads(done(quantgru(*command, "--weight-bits", "3", "--refine", "1", "--json")))["together"][-1]
    refined = qg.quantize(model, x, weight_bits=3, refine=1)
    assert found["output_db"] == pytest.approx(db(model.run(x), qg.simulate(refined, x)), abs=0.01)
    assert refined.digest != qg.quantize(model, x, weight_bits=3).digest


def test_the_command_says_what_rounding_lacked(here: Path) -> None:
    np.savez("few.npz", x=np.load("x.npz")["x"][:1, :3])
    out = " ".join(done(quantgru("sensitivity", "m.qgf", "--calibration", "few.npz", "--input", "x.npz")).split())
    assert "warning: GRU layer 'gru': 3 steps of calibration data are too few to tell how " in out


def test_the_command_refuses(here: Path) -> None:
    assert_refused(quantgru("sensitivity", "m.qgf", "--calibration", "x.npz", "--input", "no.npz"), "no.npz")
    random = FloatModel((random_gru(np.random.default_rng(0), 3, 4),), last_step=False)
    random.save("other.qgf")
    assert_refused(quantgru("sensitivity", "other.qgf", "--calibration", "x.npz", "--input", "x.npz"), "8 features")
    command = ("sensitivity", "m.qgf", "--calibration", "x.npz", "--input", "x.npz", "--weight-bits")
    assert_refused(quantgru(*command, "gru.V=4"), "nothing of this name")
    assert_refused(quantgru(*command, "many"), "'many' is no width")
