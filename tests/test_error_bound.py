"""Error bounds: never below what is measured, by a formula in one unit, and not far above what a search finds."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import assert_refused, done, quantgru
from float_models import random_dense, random_gru, random_x, scaled
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import any_plans, int_models
from test_float_structure import CANDIDATES, GATES, every_kind, gru_of

import quantgru as qg
from quantgru.error_bounds import ErrorBound, calibrated_range, error_bound, find_errors
from quantgru.error_bounds.enclosure import Enclosure, parts_between, table_errors
from quantgru.error_bounds.interval import Interval, mixture, product
from quantgru.errors import DataError, ModelError
from quantgru.fixed import to_real
from quantgru.int_model import IntModel
from quantgru.model import Bidirectional, Dense, Embedding, FloatModel, Gru, Reverse
from quantgru.model.run import dense_output, run_body
from quantgru.quantizer import dequantize
from quantgru.sequences import Sequences
from quantgru.simulator import GruState, run

N = 48  # points of each example


# ---- what is measured ----------------------------------------------------------------------------------------------


def points(rng: np.random.Generator, low: Any, high: Any, *shape: int) -> np.ndarray:
    """Anywhere, and at the ends: some of each."""
    kind = rng.random(shape)
    ends = np.where(kind < 0.3, low, high)
    return np.where(kind < 0.6, ends, low + (np.asarray(high) - low) * rng.random(shape))


def measured(
    bound: ErrorBound, model: FloatModel, x: np.ndarray, states: list[GruState] | None
) -> tuple[list[np.ndarray], np.ndarray]:
    """|integer - float| of h of each GRU layer [sequences, steps, units], and of the last output [sequences, outputs].

    States are equal before the first step if they are given.
    """
    int_model = replace(bound.model, mask_value=None)
    bits = [gru.state_fraction_bits for gru in int_model.grus]
    reals = None if states is None else [to_real(state.h, f) for state, f in zip(states, bits, strict=True)]
    sequences = Sequences(x, np.full(len(x), x.shape[1]))
    result = run(int_model, sequences, initial_states=states, trace=True)
    body = run_body(model, sequences, reals)
    errors = [abs(to_real(h, f) - y) for h, y, f in zip(result.states_raw, body.states, bits, strict=True)]
    y = body.output.values[:, -1]
    for layer in model.head:
        y = dense_output(layer, y)
    assert result.trace is not None
    return errors, abs(to_real(result.trace.outputs[:, -1], int_model.output_fraction_bits) - y)


def random_states(rng: np.random.Generator, model: IntModel) -> list[GruState]:
    return [
        GruState(
            points(rng, -32768, 32767, N, gru.n_units).astype(np.int16),
            points(rng, 0, 32767 * model.streaming, N, gru.n_units).astype(np.uint16),
        )
        for gru in model.grus
    ]


def random_inputs(rng: np.random.Generator, bound: ErrorBound, n_steps: int = 1) -> np.ndarray:
    x = points(rng, bound.low, bound.high, N, n_steps, bound.low.size)
    return np.round(x) if bound.model.embedding is not None else x


def assert_sound(int_model: IntModel, model: FloatModel, seed: int, input_range: Any = None) -> ErrorBound:
    """The float run itself rounds: that much is allowed for."""
    rng = np.random.default_rng(seed)
    bound = error_bound(int_model, model, input_range=input_range, most_steps=8)
    errors, of_outputs = measured(bound, model, random_inputs(rng, bound), random_states(rng, int_model))
    for error, proved in zip(errors, bound.one_step, strict=True):
        assert (error[:, 0] <= proved * (1 + 1e-9)).all()
    assert (of_outputs <= bound.outputs * (1 + 1e-9)).all()
    if bound.steps:
        errors, _ = measured(bound, model, random_inputs(rng, bound, bound.steps), None)
        assert max(error.max() for error in errors) <= bound.after_steps <= bound.largest_error
    return bound


# ---- soundness -----------------------------------------------------------------------------------------------------


def disturbed(rng: np.random.Generator, value: Any, size: float) -> Any:
    """Every weight of a layer or a model off by up to `size` of itself; nothing else."""
    match value:
        case np.ndarray():
            return value * (1 + size * rng.uniform(-1, 1, value.shape))
        case tuple():
            return tuple(disturbed(rng, item, size) for item in value)
        case Gru() | Dense() | Embedding():
            names = [name for name, array in vars(value).items() if isinstance(array, np.ndarray)]
            return replace(value, **{name: disturbed(rng, getattr(value, name), size) for name in names})
        case Bidirectional():
            directions = {name: disturbed(rng, getattr(value, name), size) for name in ("forward", "backward")}
            return replace(value, **directions)
        case FloatModel():
            return replace(value, layers=disturbed(rng, value.layers, size))
        case Reverse():
            return value


@pytest.mark.filterwarnings("ignore:float model")  # 0.3 is more than rounding does
@settings(max_examples=60)
@given(int_models(any_plans()), st.sampled_from([0.0, 1e-3, 0.3]), st.integers(0, 2**32))
def test_any_integers_and_floats_near_them(int_model: IntModel, size: float, seed: int) -> None:
    """Of every kind of layer, with numbers at the ends of what SPEC.md allows."""
    model = disturbed(np.random.default_rng(seed), dequantize(int_model), size)
    assert_sound(int_model, model, seed)


@pytest.mark.parametrize("reset", ["after", "before"])
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("candidate", CANDIDATES)
def test_quantized_models_of_every_function(reset: Any, gate: Any, candidate: Any) -> None:
    for seed, bits in ((1, 8), (2, 3)):
        grus = (gru_of(seed, 2, 5, reset, gate=gate, candidate=candidate), gru_of(seed + 5, 5, 4, reset, gate=gate))
        model = FloatModel((*grus, random_dense(np.random.default_rng(seed), 4, 2)), last_step=False)
        int_model = qg.quantize(model, random_x(20, 30, 2), weight_bits=bits)
        for input_range in (None, calibrated_range(int_model)):
            assert_sound(int_model, model, seed, input_range)


def test_a_quantized_model_of_every_kind_of_layer() -> None:
    model = every_kind()
    tokens = np.random.default_rng(0).integers(0, 5, (30, 9))
    bound = assert_sound(qg.quantize(model, tokens), model, 0)
    assert (bound.low, bound.high) == (0, 4)


def test_outputs_of_the_calibrated_range_stay_within_it() -> None:
    """A range that is narrower gives a bound that is no larger, and one that is wider than the formats is theirs."""
    model = small()
    int_model = quantized(model)
    narrow, wide = (error_bound(int_model, model, input_range=([-r] * 3, [r] * 3)) for r in (0.5, 1e9))
    everything = error_bound(int_model, model)
    assert (narrow.one_step[0] < everything.one_step[0]).all()
    assert (wide.one_step[0] == everything.one_step[0]).all()


def small(seed: int = 0) -> FloatModel:
    rng = np.random.default_rng(seed)
    return FloatModel((random_gru(rng, 3, 6), random_dense(rng, 6, 2)), last_step=False)


def quantized(model: FloatModel, **options: Any) -> IntModel:
    return qg.quantize(model, random_x(20, 30, 3), **options)


def exactly(values: np.ndarray) -> list[Fraction]:
    return [Fraction(float(value)) for value in values]


@given(st.integers(0, 2**32), st.sampled_from([1, 3, 40]), st.sampled_from([0, 30]))
def test_intervals_hold_what_exact_arithmetic_gives(seed: int, n: int, spread: int) -> None:
    """Of single numbers, so that nothing but rounding makes them wide; sums cancel, and magnitudes spread."""
    rng = np.random.default_rng(seed)
    a, b, share = (rng.normal(size=n) * np.exp2(rng.integers(-spread, spread + 1, n)) for _ in range(3))
    share = abs(share) / (1 + abs(share))
    intervals = [Interval.of(values) for values in (a, b, share)]
    x, y, of_share = intervals
    f, g, s = map(exactly, (a, b, share))
    matrix = np.concatenate([rng.normal(size=(2, n)), [-b / a * rng.permutation(n)]])
    cases = [
        (x + y, [p + q for p, q in zip(f, g, strict=True)]),
        (x - y, [p - q for p, q in zip(f, g, strict=True)]),
        (x * y, [p * q for p, q in zip(f, g, strict=True)]),
        (mixture(of_share, x, y), [t * p + (1 - t) * q for t, p, q in zip(s, f, g, strict=True)]),
        (product(matrix, x), [sum(m * p for m, p in zip(exactly(row), f, strict=True)) for row in matrix]),
        (x.beyond(-0.5, 0.25), [p - min(max(p, Fraction(-1, 2)), Fraction(1, 4)) for p in f]),
    ]
    for found, expected in cases:
        for low, exact, high in zip(exactly(found.low), expected, exactly(found.high), strict=True):
            assert low <= exact <= high
            assert high - low <= Fraction(1, 2**40) * max(1, max(map(abs, f)) * n, max(map(abs, g)) * n) ** 2


@given(st.integers(0, 2**32))
def test_each_value_is_in_the_hull_of_its_part(seed: int) -> None:
    """Of one unit, which is one of three members: with all that its error and its real value can be."""
    rng, ends = np.random.default_rng(seed), parts_between(0.5, 1.0)
    low, width, real, error = rng.normal(size=(4, 3, 1))
    reals, errors = (Interval(middle - 1, middle + 1) for middle in (real, error))
    members = Enclosure(Interval(low, low + abs(width)), reals, errors)
    parts = members.split(2, ends).hull_within_parts(members.reached(2, ends))
    held = [
        Enclosure(*(Interval(of.low[p], of.high[p]) for of in vars(parts).values()))
        for p in range(len(parts.values.low))
    ]
    for part in held:  # within two neighbouring ends
        assert np.searchsorted(ends, part.values.low, "right") >= np.searchsorted(ends, part.values.high, "left")
    for member in range(3):
        value = Interval.of(low[member] + abs(width[member]) * rng.random())
        of_error, of_real = (Interval(of.low[member], of.high[member]) for of in (errors, reals))
        point = Enclosure(value, (value + of_error).intersection(of_real), of_error)
        assert any(part.contains(point) for part in held)


def test_errors_that_explode_end_the_steps() -> None:
    """A state that grows without limit in float, and saturates in integers: infinite errors are errors, too."""
    recurrent = np.zeros((3, 2, 2))
    recurrent[2] = 1e3
    gru = Gru("gru", "after", np.ones((3, 2, 1)), recurrent, np.zeros((3, 2)), np.zeros(2), candidate="linear")
    model = FloatModel((gru,), last_step=False)
    int_model = qg.quantize(model, np.full((2, 3, 1), 0.5))
    small, huge = (error_bound(int_model, model, largest_error=largest) for largest in (0.1, 1e300))
    assert 0 <= small.steps < 20 < huge.steps < 1024
    assert huge.after_steps <= 1e300


# ---- how large it is -----------------------------------------------------------------------------------------------


def test_the_table_has_the_errors_that_the_contract_says() -> None:
    """SPEC.md: 0.80 and 1.08 LSB of 2^-15."""
    found = {name: round(error * 2**15, 2) for name, error in table_errors().items()}
    assert found == {"sigmoid": 0.80, "tanh": 1.08}


def test_one_unit_by_hand() -> None:
    """Only n has a weight: z and r are 1/2. Each error in turn, with the rule that makes it."""
    weights = np.zeros((3, 1, 1))
    weights[2] = 1.0
    gru = Gru("gru", "after", weights, np.zeros((3, 1, 1)), np.zeros((3, 1)), [0.0], candidate="linear")
    model = FloatModel((gru,), last_step=False)
    int_model = qg.quantize(model, [[[-1.0]], [[1.0]]], rounding="nearest")
    meant = dequantize(int_model).grus[0]
    assert not meant.bias.any() and int_model.grus[0].state_fraction_bits == 13  # states of -4 ... 4
    lsb, lsb_of_input = 2.0**-13, 2.0 ** -int(int_model.input_fraction_bits[0])
    of_weight = abs(1.0 - meant.input_weights[2, 0, 0])  # times 1
    of_sums = lsb / 2 + 0.5 * lsb / 2 + lsb / 2  # R9 of W; R9 of U, times r; R5
    of_n = of_weight + lsb_of_input / 2 + of_sums
    of_z = 0.25 * 2 * 2.0**-15 + 0.8013 * 2.0**-15  # R9 twice, times the slope of sigmoid; R7
    expected = 0.5 * of_n + of_z * (4 + 1) + lsb  # |h - n|; R12
    bound = error_bound(int_model, model, input_range=([-1.0], [1.0]))
    assert bound.one_step[0][0] == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize(("bits", "factor"), [(8, 6.0), (4, 4.0)])
def test_it_is_not_far_above_what_a_search_finds(bits: int, factor: float) -> None:
    """The median of the units, and two steps. What is found is not the largest there is: the bound is nearer still."""
    model = small()
    bound = error_bound(quantized(model, weight_bits=bits), model, input_range=([-3.0] * 3, [3.0] * 3))
    found = find_errors(bound)
    ratios = bound.one_step[0] / found.one_step[0]
    assert ratios.min() >= 1
    assert np.median(ratios) < factor
    if bound.steps:
        assert found.steps is not None and found.steps <= bound.after_steps < 10 * found.steps


def test_a_search_finds_more_the_longer_it_goes_on() -> None:
    model = small()
    bound = error_bound(quantized(model), model)
    short, long = (find_errors(bound, rounds=rounds).one_step[0] for rounds in (5, 100))
    assert (short <= long).all() and short.max() < long.max()


def contractive(*widths: int) -> FloatModel:
    """Weights so small that no error is carried on."""
    rng = np.random.default_rng(1)
    grus = [random_gru(rng, *pair, name=f"gru{i}") for i, pair in enumerate(pairwise(widths))]
    small = (replace(gru, recurrent_weights=0.02 * gru.recurrent_weights) for gru in grus)
    return FloatModel(tuple(small), last_step=False)


@pytest.mark.parametrize("widths", [(3, 4), (3, 4, 5)])
def test_errors_that_die_away_stay_small_for_ever(widths: tuple[int, ...]) -> None:
    """The set that no state leaves is found within some steps, and 500 steps do not leave it."""
    model, counted = contractive(*widths), []
    int_model, within = quantized(model), ([-0.5] * 3, [0.5] * 3)
    bound = error_bound(int_model, model, input_range=within, progress=counted.append)
    assert (bound.any_length, bound.steps) == (True, bound.most_steps)
    assert counted == [1] * len(counted) and len(counted) <= 16
    errors, _ = measured(bound, model, random_inputs(np.random.default_rng(0), bound, 500), None)
    assert max(error.max() for error in errors) <= bound.after_steps
    few = error_bound(int_model, model, input_range=within, most_steps=7)
    assert few.after_steps <= bound.after_steps <= 0.1


def test_errors_that_add_up_do_not_stay_small_for_ever() -> None:
    """z is nearly 1: a state that a candidate of 1 LSB less drags away from the float one, for thousands of steps."""
    gru = random_gru(np.random.default_rng(1), 3, 4)
    slow = replace(gru, bias=gru.bias + np.array([[9.0], [0.0], [0.0]]), recurrent_weights=0.02 * gru.recurrent_weights)
    model = FloatModel((slow,), last_step=False)
    bound = error_bound(quantized(model), model, input_range=([-1.0] * 3, [1.0] * 3), most_steps=40)
    assert (bound.any_length, bound.steps) == (False, 40)


def test_whole_sequences_have_a_length() -> None:
    (gru,) = contractive(3, 4).layers
    assert isinstance(gru, Gru)
    model = FloatModel((Bidirectional("both", gru, replace(gru, name="backward")),), last_step=False)
    bound = error_bound(quantized(model), model, input_range=([-1.0] * 3, [1.0] * 3), most_steps=20)
    assert (bound.any_length, bound.steps) == (False, 20)


def test_parts_of_r_and_of_what_it_multiplies_are_seen_together(digits: Any) -> None:
    """DESIGN.md: 0.35 on the digits; a third more where r can be on its steepest slope whatever it multiplies."""
    int_model = qg.quantize(digits.model, digits.calibration)
    bound = error_bound(int_model, digits.model, input_range=calibrated_range(int_model), most_steps=1)
    assert bound.one_step[0].max() < 0.36 and np.median(bound.one_step[0]) < 0.2


def test_the_longest_sequence_is_the_longest() -> None:
    """One step more, and the limit is exceeded: asked for a limit just above what `steps` steps reach."""
    model = scaled(FloatModel((random_gru(np.random.default_rng(1), 3, 4),), False), recurrent_weights=0.3)
    int_model = quantized(model)
    reached = [error_bound(int_model, model, largest_error=2.0, most_steps=n).after_steps for n in range(1, 8)]
    assert reached == sorted(reached)
    for n_steps, error in enumerate(reached, start=1):
        bound = error_bound(int_model, model, largest_error=error, most_steps=7)
        assert (bound.steps, bound.after_steps) == (n_steps, error)
    assert error_bound(int_model, model, largest_error=reached[0] * 0.99).steps == 0


# ---- what is refused -----------------------------------------------------------------------------------------------


def test_models_that_are_no_pair() -> None:
    int_model = quantized(small())
    other = FloatModel((gru_of(0, 3, 6, gate="hard_sigmoid"), *small().layers[1:]), last_step=False)
    says = (
        r"layer 0 is a GRU 3 → 6, reset after, hard_sigmoid, tanh, and a GRU 3 → 6, reset after, sigmoid, tanh in int"
    )
    with pytest.raises(ModelError, match=says):
        error_bound(int_model, other)
    with pytest.raises(ModelError, match=r"\(3 → 6\) is not what integer model .* \(3 → 6 → 2\) was made from; give"):
        error_bound(int_model, FloatModel(small().layers[:1], last_step=False))
    with pytest.raises(ModelError, match="type IntModel, expected the FloatModel"):
        error_bound(int_model, int_model)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="error bound: a model of type FloatModel, expected an IntModel"):
        error_bound(small(), small())  # type: ignore[arg-type]


@pytest.mark.parametrize("given_range", [([0.0], [1.0]), ([1.0] * 3, [0.0] * 3), ([np.nan] * 3, [1.0] * 3)])
def test_ranges_that_are_none(given_range: Any) -> None:
    model = small()
    with pytest.raises(DataError, match=r"^input range: \(.,\) and \(.,\), expected \(3,\) lowest"):
        error_bound(quantized(model), model, input_range=given_range)


@pytest.mark.parametrize(
    "notes", [{}, {"inputs": [{"min": 0}] * 3}, {"inputs": 5}, {"inputs": [{"min": 2, "max": 1}] * 3}]
)
def test_notes_without_a_range(notes: dict[str, Any]) -> None:
    assert calibrated_range(replace(quantized(small()), notes=notes)) is None


# ---- the command ---------------------------------------------------------------------------------------------------


def test_inspect_shows_proved_and_found(here: Path) -> None:
    out = " ".join(done(quantgru("inspect", "m.qgru", "--bound", "m.qgf")).split())
    assert "proved: largest" in out and "found, not proved: largest" in out
    assert "from the reset the error is proved to stay within 0.1 for 1 step: within" in out
    facts = json.loads(done(quantgru("inspect", "m.qgru", "--bound", "m.qgf", "--json")))["bound"]
    (layer,) = facts["one_step"]["layers"]
    assert len(layer["proved"]) == len(layer["found"]) == 32
    assert all(0 < found < proved for found, proved in zip(layer["found"], layer["proved"], strict=True))
    assert facts["steps"]["found"] < facts["steps"]["proved"] < facts["steps"]["largest_error"] == 0.1
    assert len(facts["inputs"]["low"]) == 8 and len(facts["one_step"]["outputs"]) == 10


@pytest.mark.filterwarnings("default")
def test_standardised_inputs(here: Path) -> None:
    """Folded into the float model, as when it was quantized: without, the two models are far apart."""
    rng = np.random.default_rng(0)
    small().save("s.qgf")
    np.savez("s.npz", mean=[1.0, -2.0, 0.0], scale=[1.0, 2.0, 0.5])
    np.savez("c.npz", x=rng.normal([1.0, -2.0, 0.0], [1.0, 2.0, 0.5], (20, 30, 3)))
    folded = ("--standardisation", "s.npz")
    done(quantgru("quantize", "s.qgf", "--calibration", "c.npz", "-o", "s.qgru", *folded))
    report = json.loads(done(quantgru("inspect", "s.qgru", "--bound", "s.qgf", "--json", *folded)))
    assert max(report["bound"]["one_step"]["layers"][0]["proved"]) < 0.2
    other = quantgru("inspect", "s.qgru", "--bound", "s.qgf", "--json")
    assert re.search(r"^warning: .* gru\.W\.. is .* codes away .*, with its standardisation$", other.err)
    assert max(json.loads(other.out)["bound"]["one_step"]["layers"][0]["proved"]) > 0.2


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_float_model_with_other_weights_is_warned_of(bits: int) -> None:
    """Of the same shapes: of another seed, and with one gate that was trained on. Its own are no reason."""
    model = small()
    int_model = quantized(model, weight_bits=bits)
    error_bound(int_model, model, most_steps=1)
    with pytest.warns(qg.QuantgruWarning, match="^float model 'model' does not look like the one that integer model"):
        error_bound(int_model, small(seed=1), most_steps=1)
    gru = model.grus[0]
    weights = gru.recurrent_weights.copy()
    weights[1] = -weights[1] if bits == 2 else weights[1] * (1 + 3 * 2.0 ** (2 - bits))
    changed = FloatModel((replace(gru, recurrent_weights=weights), model.layers[1]), last_step=False)
    with pytest.warns(qg.QuantgruWarning, match=r"gru\.U\.r is .* codes away from it \(root mean square\), which"):
        error_bound(int_model, changed, most_steps=1)


@pytest.mark.parametrize("bits", [4, 8, 12, {"": 2, "dense": 8}], ids=str)
def test_refined_weights_are_no_others(bits: int | dict[str, int]) -> None:
    """No warning, which would be an error here."""
    model = small()
    refined = qg.quantize(model, random_x(20, 30, 3), weight_bits=bits, refine=8)
    assert refined.digest != qg.quantize(model, random_x(20, 30, 3), weight_bits=bits).digest
    error_bound(refined, model, most_steps=1)


def test_any_number_of_steps(here: Path) -> None:
    model = contractive(3, 4)
    model.save("small.qgf")
    qg.quantize(model, random_x(20, 30, 3) / 4).save("small.qgru")
    out = " ".join(done(quantgru("inspect", "small.qgru", "--bound", "small.qgf")).split())
    assert "the error is proved to stay within 0.1 for any number of steps: within 0.0" in out
    assert "found, not proved in 32: 0.0" in out


def test_a_float_model_of_another_model(here: Path) -> None:
    small().save("other.qgf")
    assert_refused(quantgru("inspect", "m.qgru", "--bound", "other.qgf"), "(3 → 6 → 2) is not what integer model")
    assert_refused(quantgru("inspect", "m.qgru", "--bound", "nothing.qgf"), "nothing.qgf")
