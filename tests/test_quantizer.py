"""The quantizer as a whole: same bytes, warnings, refusals, and the error budget."""

import math
import re
from dataclasses import replace

import numpy as np
import oracle
import pytest
import strategies
from float_models import random_dense, random_gru, random_x, scaled, small_model

import quantgru as qg
from quantgru.errors import DataError, ModelError
from quantgru.int_model import IntModel
from quantgru.model import Dense, FloatModel, Gru
from quantgru.model.run import run_body
from quantgru.quantizer import dequantize
from quantgru.report.accuracy import compare, sqnr_db
from quantgru.sequences import as_sequences, load_npz
from quantgru.simulator import run

# ---- the whole model -----------------------------------------------------------------------------------------------


def state_sqnr(reference, x, int_model, int_x=None):
    """dB of the last layer's states, on all steps that are not padding."""
    sequences = as_sequences(x)
    exact = run_body(reference, sequences).states[-1][sequences.valid]
    raw = run(int_model, x if int_x is None else int_x).states_raw[-1][sequences.valid]
    return sqnr_db(exact, raw / 2**15)


def saved_bytes(model, tmp_path):
    model.save(tmp_path / "model.qgru")
    return (tmp_path / "model.qgru").read_bytes()


def test_the_same_input_gives_the_same_bytes(tmp_path, digits):
    first, second = (qg.quantize(digits.model, digits.calibration) for _ in range(2))
    assert first.digest == second.digest
    assert saved_bytes(first, tmp_path) == saved_bytes(second, tmp_path)
    read = IntModel.load(tmp_path / "model.qgru")
    assert saved_bytes(read, tmp_path) == saved_bytes(first, tmp_path)


def test_names_shapes_and_formats():
    rng = np.random.default_rng(6)
    head = (random_dense(rng, 4, 3, "relu", "hidden"), random_dense(rng, 3, 2, "tanh", "out"))
    model = small_model(n_inputs=2, head=head, last_step=True)
    found = qg.quantize(model, random_x(3, 5, 2))
    assert (found.name, found.last_step, found.n_inputs, found.n_outputs) == ("small", True, 2, 2)
    assert [layer.name for layer in found.layers] == ["gru", "hidden", "out"]
    assert found.output_fraction_bits == 15
    assert qg.quantize(model, random_x(3, 5, 2), name="other").name == "other"
    assert qg.quantize(model, random_x(3, 5, 2), name="other").digest == found.digest


@pytest.mark.parametrize("x", [random_x(1, 1, 2), random_x(3, 4, 2), [random_x(3, 2), random_x(12, 2)]])
def test_the_self_test_is_that_of_the_oracle(x):
    """Up to eight steps of the first sequence."""
    model = qg.quantize(small_model(head=(random_dense(np.random.default_rng(7), 4, 2),)), x)
    inputs = model.selftest.inputs.tolist()
    expected = [
        [oracle.convert_input(value, f) for value, f in zip(row, model.input_fraction_bits.tolist(), strict=True)]
        for row in np.asarray(x[0]).tolist()[:8]
    ]
    assert inputs == expected
    assert oracle.run(strategies.to_oracle(model), inputs)[-1].check == model.selftest.check


def test_nothing_clips_on_the_calibration_data():
    sizes = np.array([1, 1000, 0.001])
    x = random_x(20, 10, 3) * sizes
    x[0, 0] = x[0].max(axis=0) * 50  # a rare peak
    model = scaled(small_model(n_inputs=3), input_weights=1 / sizes)
    assert run(qg.quantize(model, x), x).clipped_inputs.tolist() == [0, 0, 0]


def test_notes_report_the_ranges():
    x = [np.array([[1.0, -3.0], [2.0, -1.0], [2.5, -4.0]]), np.array([[3.0, -2.0]])]
    head = (Dense("out", np.zeros((1, 4)), np.array([-2.5])),)
    model = qg.quantize(small_model(head=head), x, rounding="nearest")
    assert qg.quantize(small_model(head=head), x).notes["warnings"] == [
        f"{layer}: 4 steps of calibration data are too few to tell how {n} values go together, which takes {2 * n}; "
        "its weights are rounded to nearest"
        for layer, n in (("GRU layer 'gru'", 2 + 4), ("dense layer 'out'", 4))
    ]
    notes = model.notes
    assert notes["calibration"] == {"sequences": 2, "steps": 4, "longest": 3}
    assert [entry["min"] for entry in notes["inputs"]] == [1.0, -4.0]
    assert [entry["max"] for entry in notes["inputs"]] == [3.0, -1.0]
    assert [entry["rms"] for entry in notes["inputs"]] == [2.25, 2.73861]  # sqrt(20.25 / 4), sqrt(30 / 4)
    for entry, f in zip(notes["inputs"], model.input_fraction_bits.tolist(), strict=True):
        assert (entry["clips_below"], entry["clips_above"]) == (-32768 / 2**f, 32767 / 2**f)
    assert notes["outputs"] == [{"layer": "out", "peak": 2.5}]
    assert notes["warnings"] == []


# ---- warnings ------------------------------------------------------------------------------------------------------


def test_constant_inputs_are_named():
    x = random_x(20, 12, 3)
    x[:, :, 1] = -0.5
    warnings = qg.quantize(small_model(n_inputs=3), x).notes["warnings"]
    assert warnings == [
        "input 1: always the same in the calibration data; other values may be clipped, and their weights are rounded "
        "as if there were none"
    ]


def test_dead_inputs_are_named():
    x = random_x(4, 8, 12)
    x[:, :, [1, 4]] = 0
    warnings = qg.quantize(small_model(n_inputs=12), x).notes["warnings"]
    assert warnings == ["input 1, 4: always 0 in the calibration data; the format is a guess"]
    x[:, :, 1:] = 0
    warnings = qg.quantize(small_model(n_inputs=12), x).notes["warnings"]
    assert warnings[0].startswith("input 1, 2, 3, 4, 5, 6, 7, 8 and 3 more: always 0")


def test_inputs_below_the_finest_step_are_named():
    x = random_x(3, 5, 3) * [1, 1e-9, 1]
    warnings = qg.quantize(small_model(n_inputs=3), x).notes["warnings"]
    assert len(warnings) == 1
    assert warnings[0].startswith("input 1: never above ")
    assert warnings[0].endswith(" in the calibration data, and the finest input format has steps of 2^-31; scale it up")


@pytest.mark.parametrize(("u_raw", "warned"), [(15.9, True), (16.1, False)])
def test_slow_units_are_named(u_raw, warned):
    """Units 1 and 3 have a constant u of u_raw / 2^15."""
    bias = np.zeros((3, 4))
    bias[0, [1, 3]] = math.log(2**15 / u_raw - 1)  # z = 1 - u
    gru = Gru("slow", "after", np.zeros((3, 4, 2)), np.zeros((3, 4, 4)), bias, np.zeros(4))
    warnings = qg.quantize(FloatModel((gru,), last_step=False), random_x(2, 6, 2)).notes["warnings"]
    assert len(warnings) == warned
    if warned:
        assert warnings[0].startswith("GRU layer 'slow', unit 1, 3: u = 1 - z stays below 16 / 2^15")


def test_the_largest_update_decides_not_the_padding():
    """In the padding x is 0, and u would be 1/2; where steps are real, u is next to nothing."""
    weights = np.zeros((3, 1, 1))
    weights[0] = 20.0
    gru = Gru("g", "after", weights, np.zeros((3, 1, 1)), np.zeros((3, 1)), np.zeros(1))
    model = FloatModel((gru,), last_step=False)
    assert qg.quantize(model, [np.ones((3, 1)), np.ones((9, 1))]).notes["warnings"] != []
    assert qg.quantize(model, [np.ones((3, 1)), np.zeros((9, 1))]).notes["warnings"] == []


def test_the_peak_of_an_output_is_not_that_of_padding():
    """n = tanh(1 - 0.9 x): in the padding, x = 0, outputs would grow."""
    bias = np.array([[0.0], [0.0], [1.0]])
    gru = Gru("g", "after", np.array([[[0.0]], [[0.0]], [[-0.9]]]), np.zeros((3, 1, 1)), bias, np.zeros(1))
    model = FloatModel((gru, Dense("out", np.ones((1, 1)), np.zeros(1))), last_step=False)
    found = qg.quantize(model, [np.ones((1, 1)), np.ones((3, 1))]).notes["outputs"]
    assert found == [{"layer": "out", "peak": pytest.approx(math.tanh(0.1) * 7 / 8)}]


def test_an_output_that_is_always_0_is_named_and_does_not_saturate():
    """The calibration data never reaches what a relu lets through; other data does."""
    gru = Gru("g", "after", np.full((3, 1, 1), 1.0), np.zeros((3, 1, 1)), np.zeros((3, 1)), np.zeros(1))
    head = Dense("out", np.array([[3.0]]), np.array([0.0]), "relu")
    model = FloatModel((gru, head), last_step=False)
    int_model = qg.quantize(model, -np.ones((1, 5, 1)))
    expected = ["dense layer 'out': always 0 on the calibration data; the format of its output is a guess"]
    assert int_model.notes["warnings"][1:] == expected
    x = np.full((1, 50, 1), 0.9)
    np.testing.assert_allclose(qg.simulate(int_model, x), model.run(x), atol=0.02)


def test_gates_at_the_ends_of_their_range_are_a_warning():
    """What happens when mean and scale are forgotten."""
    model, x = small_model(n_inputs=3), random_x(4, 20, 3)
    raw = x * 1000.0 + 5000.0
    warnings = qg.quantize(scaled(model, input_weights=0.1), raw).notes["warnings"]
    (warning,) = [text for text in warnings if "ends of their range" in text]
    assert re.match(r"GRU layer 'gru': (9\d|100) % of its gates .* --standardisation S\.npz$", warning)
    assert not qg.quantize(model, raw, mean=[5000.0] * 3, scale=[1000.0] * 3).notes["warnings"]


# ---- calibration data ----------------------------------------------------------------------------------------------


def test_one_sequence_of_one_step():
    model = qg.quantize(small_model(), np.array([[[0.5, -0.25]]]))
    assert model.notes["calibration"] == {"sequences": 1, "steps": 1, "longest": 1}
    assert model.selftest.inputs.shape == (1, 2)


def test_padding_does_not_influence_anything(tmp_path):
    x = random_x(3, 9, 2)
    lengths = [4, 9, 1]
    as_list = [row[:length] for row, length in zip(x, lengths, strict=True)]
    for i, length in enumerate(lengths):
        x[i, length:] = [np.nan, 1e6]
    np.savez(tmp_path / "x.npz", x=x, lengths=lengths)
    padded, _ = load_npz(tmp_path / "x.npz")
    model = small_model(head=(random_dense(np.random.default_rng(8), 4, 2, "relu"),))
    assert saved_bytes(qg.quantize(model, padded), tmp_path) == saved_bytes(qg.quantize(model, as_list), tmp_path)


def test_constant_features():
    x = np.broadcast_to([100.0, -1.0], (2, 6, 2))
    model = qg.quantize(scaled(small_model(), input_weights=[0.01, 1.0]), x)
    (warning,) = model.notes["warnings"]
    assert warning.startswith("input 0, 1: always the same in the calibration data")
    assert run(model, x).clipped_inputs.tolist() == [0, 0]


DATA_REFUSALS = {
    "nothing but 0": (np.zeros((2, 3, 2)), "no value is larger than 0, which says nothing about the ranges of the"),
    "next to nothing": (np.full((2, 3, 2), 1e-30), "no value is larger than 1e-30, which says nothing about the"),
    "less than any float's square": (np.full((2, 3, 2), 1e-200), "no value is larger than 1e-200, which says"),
    "too large": (np.full((2, 3, 2), [1, -1e30]), "feature 1 reaches 1e+30, a 16-bit input at most 7.04e+13; scale"),
    "too large to square": (np.full((2, 3, 2), [1, 1e200]), "feature 1 reaches 1e+200, a 16-bit input at most"),
    "just too large": (np.full((2, 3, 2), 2.0**46), "feature 0 reaches 7.04e+13, a 16-bit input at most 7.04e+13"),
    "empty": ([], "shape (0,), expected [sequences, steps, features]"),
    "no steps": (np.zeros((2, 0, 2)), "shape (2, 0, 2) holds no steps; give at least one sequence of one step"),
    "NaN": (np.full((1, 1, 2), np.nan), "nan at sequence 0, step 0, feature 0 (2 such values); all values must be"),
    "features": (np.ones((1, 1, 3)), "3 features, the model has 2 inputs"),
    "one sequence": (
        np.ones((5, 2)),
        "shape (5, 2), expected [sequences, steps, features]; one sequence x is given as",
    ),
}


@pytest.mark.parametrize(("x", "message"), DATA_REFUSALS.values(), ids=DATA_REFUSALS)
def test_unusable_calibration_data(x, message):
    """All warnings are errors here."""
    with pytest.raises(DataError) as caught:
        qg.quantize(small_model(), x)
    assert str(caught.value).startswith(f"calibration data: {message}")


@pytest.mark.parametrize("size", [1e-6, 1e-3, 1e5, 1e12])
def test_inputs_of_any_size_cost_the_same(size):
    """Features in odd units, weights to match."""
    model, x = small_model(n_inputs=3, seed=9), random_x(20, 30, 3)
    found = state_sqnr(model, x, qg.quantize(scaled(model, input_weights=1 / size), x * size), x * size)
    assert found > 40


# ---- models that cannot be done ------------------------------------------------------------------------------------


MODEL_REFUSALS = {
    "W": (scaled(small_model(), input_weights=1e200), r"GRU layer 'gru', W, row \d+: the sum reaches .*e\+200 where"),
    "U": (scaled(small_model(), recurrent_weights=1e5), r"GRU layer 'gru', U, row \d+: the sum reaches .* up to 32768"),
    "b": (scaled(small_model(), bias=1e6), r"GRU layer 'gru', bias \d+: .* does not fit s32f14; check the model's"),
    "c": (scaled(small_model(), recurrent_bias=1e306), r"GRU layer 'gru', bias \d+: .* does not fit s32f14; check the"),
    "dense": (
        small_model(head=(Dense("out", np.full((1, 4), 1e300), np.zeros(1)),)),
        r"dense layer 'out': values up to .*e\+\d+, allowed are 3.52e\+13: what 16 bits hold",
    ),
    "dense, by its bias": (
        small_model(head=(Dense("out", np.zeros((1, 4)), np.full(1, 1e14)),)),
        r"dense layer 'out': values up to 1e\+14, allowed are 3.52e\+13: what 16 bits hold",
    ),
    "dense sigmoid": (
        small_model(head=(Dense("out", np.full((1, 4), 1e300), np.zeros(1), "sigmoid"),)),
        r"dense layer 'out', row 0: the sum reaches 4e\+300 where all operands are at the end",
    ),
}


@pytest.mark.parametrize(("model", "message"), MODEL_REFUSALS.values(), ids=MODEL_REFUSALS)
def test_models_that_no_accumulator_can_hold(model, message):
    """All warnings are errors here."""
    with pytest.raises(ModelError, match=f"^{message}"):
        qg.quantize(model, random_x(2, 5, 2))


def test_weights_and_biases_that_fit_alone_but_not_together():
    model = scaled(small_model(), input_weights=0)
    bias = np.zeros((3, 4))
    bias[1, 2] = 131071.9
    model = replace(model, layers=(replace(model.grus[0], bias=bias),))
    with pytest.raises(
        ModelError, match=r"^layer 'gru', pre-activation: row 6 can reach \d+, allowed is 2\^31 - 1; lower"
    ):
        qg.quantize(model, random_x(2, 5, 2))


@pytest.mark.parametrize("model", [None, "model.keras", np.zeros(3)])
def test_what_is_no_float_model(model):
    with pytest.raises(
        ModelError, match=r"^quantize: a model of type \w+, expected a FloatModel; qg\.load\(model\) makes"
    ):
        qg.quantize(model, random_x(2, 5, 2))


# ---- the error budget ----------------------------------------------------------------------------------------------


def test_a_standardised_model_runs_on_raw_units():
    """The same states as those of the model that is quantized on standardised data, to within the budget."""
    model = small_model(n_inputs=3)
    x = random_x(20, 30, 3)
    mean, scale = np.array([1.0, -20.0, 3000.0]), np.array([0.1, 5.0, 70.0])  # up to 40 deviations from zero
    int_model = qg.quantize(model, x * scale + mean, mean=mean, scale=scale)
    assert state_sqnr(model, x, int_model, x * scale + mean) > 40


def test_budget_of_the_digits(digits):
    """The demo's figures: accuracy within 0.2 points, labels 99.5 % the float model's, 40 dB."""
    int_model = qg.quantize(digits.model, digits.calibration)
    result = run(int_model, digits.x)
    found = compare(
        run_body(digits.model, as_sequences(digits.x)).states[-1].reshape(-1, 32),
        result.states_raw[-1].reshape(-1, 32) / 2**15,
        digits.model.run(digits.x),
        result.outputs,
        digits.labels,
    )
    assert found.float_accuracy - found.int_accuracy <= 0.002
    assert found.float_accuracy > 0.95
    assert found.label_agreement >= 0.995
    assert found.state_sqnr_db >= 40


@pytest.mark.parametrize("resets", [("after",), ("before",), ("after", "before"), ("before", "after")])
def test_budget_of_any_layers(resets):
    rng = np.random.default_rng(10)
    grus = [random_gru(rng, 6 if i == 0 else 24, 24, reset, f"gru_{i}") for i, reset in enumerate(resets)]
    model = FloatModel(tuple(grus), last_step=False)
    x = rng.normal(size=(20, 50, 6))
    assert state_sqnr(model, x, qg.quantize(model, x)) >= 40


@pytest.mark.parametrize("activation", ["linear", "relu", "sigmoid", "tanh"])
def test_budget_of_dense_layers(activation):
    rng = np.random.default_rng(11)
    head = (random_dense(rng, 24, 16, activation), random_dense(rng, 16, 4))
    model = FloatModel((random_gru(rng, 6, 24), *head), last_step=False)
    x = rng.normal(size=(20, 50, 6))
    assert sqnr_db(model.run(x), qg.simulate(qg.quantize(model, x), x)) >= 38


@pytest.mark.parametrize("seed", range(2))
def test_budget_of_features_that_spread_by_100(seed):
    """At most 3 dB are lost against the same model on features of one size."""
    rng = np.random.default_rng(seed)
    model, x = FloatModel((random_gru(rng, 8, 32),), last_step=False), rng.normal(size=(50, 50, 8))
    factors = rng.permutation(np.geomspace(0.1, 10, 8))
    plain = state_sqnr(model, x, qg.quantize(model, x))
    spread = qg.quantize(scaled(model, input_weights=1 / factors), x * factors)
    assert plain - state_sqnr(model, x, spread, x * factors) <= 3


def test_budget_of_a_slow_model():
    """Time constants of 100 to 1,000 steps over 5,000 steps: 44 dB for the arithmetic alone."""
    rng = np.random.default_rng(0)
    units, inputs = 64, 4
    bias = np.zeros((3, units))
    bias[0] = np.log(np.geomspace(100, 1000, units) - 1)  # z = 1 - 1 / time constant
    weights = rng.normal(size=(3, units, inputs)) * np.array([0.1, 0.5, 1.0])[:, None, None] / np.sqrt(inputs)
    recurrent = rng.normal(size=(3, units, units)) * np.array([0.1, 0.5, 0.5])[:, None, None] / np.sqrt(units)
    model = FloatModel((Gru("slow", "after", weights, recurrent, bias, np.zeros(units)),), last_step=False)
    x = rng.normal(size=(2, 5000, inputs))
    int_model = qg.quantize(model, x)
    assert state_sqnr(dequantize(int_model), x, int_model) >= 44
