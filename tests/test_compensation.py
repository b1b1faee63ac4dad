"""What makes up for rounding errors over whole sequences, against differences of float runs, and at its edges."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from float_models import random_gru

import quantgru as qg
from quantgru.model import Bidirectional, FloatModel, Gru
from quantgru.model.run import Cell, FloatSignal, gates, gru_states, run_body
from quantgru.quantizer import dequantize, whole_sequences
from quantgru.quantizer.calibrate import calibrate
from quantgru.quantizer.compensation import GruCompensation
from quantgru.quantizer.gradients import pre_activation_gradients
from quantgru.quantizer.rounding import Compensated, Measure
from quantgru.quantizer.whole_sequences import Pieces, compensations
from quantgru.report.accuracy import sqnr_db
from quantgru.sequences import as_sequences
from quantgru.simulator import run

N_INPUTS, N_UNITS = 2, 3


def compensation_of(gru: Gru, x, rounding="compensated", initial_states=None) -> GruCompensation:
    model = FloatModel((gru,), last_step=False)
    sequences = model.sequences(x)
    seen, body = calibrate(model, sequences, initial_states)
    (found,) = compensations(model, body, seen, rounding)
    return found


def correlated(rng, n, steps=6):
    """Sequences whose two inputs go along, each step much as the one before; means are not zero."""
    x = np.cumsum(rng.normal(size=(n, steps, N_INPUTS)), axis=1) @ np.array([[0.5, 0.4], [0.0, 0.1]])
    return x + np.array([0.7, -0.3])


def jacobian(gru: Gru, x, name: str, gate: int, unit: int) -> np.ndarray:
    """Of all states, by each entry of a row [states, entries], from differences of runs in double precision."""
    sequences = as_sequences(x)
    array = getattr(gru, name)
    index = (unit,) if name == "recurrent_bias" else (gate, unit)

    def states(entry, by):
        changed = array.copy()
        changed[(*index, *entry)] += by
        return gru_states(replace(gru, **{name: changed}), FloatSignal(sequences.values, sequences.lengths)).ravel()

    entries = list(np.ndindex(array[index].shape))
    return np.stack([(states(entry, 1e-5) - states(entry, -1e-5)) / 2e-5 for entry in entries], axis=1)


@pytest.mark.parametrize("reset", ["after", "before"])
@pytest.mark.parametrize("gate", [0, 1, 2])
def test_errors_are_made_up_for_by_least_squares_of_all_states(reset, gate, monkeypatch):
    """For an error of one weight: the biases, and with them the weights of U, that least squares of the states'
    Jacobian gives. That is exact; what is tested follows 40,000 vectors of random signs, and is some per cent off.
    """
    monkeypatch.setattr(whole_sequences, "_PIECES_PER_COLUMN", 8000)
    rng = np.random.default_rng(1)
    gru, x, unit = random_gru(rng, N_INPUTS, N_UNITS, reset), correlated(rng, 800), 1
    found = compensation_of(gru, x)
    of_w, of_u = (jacobian(gru, x, name, gate, unit) for name in ("input_weights", "recurrent_weights"))
    of_biases = [jacobian(gru, x, "bias", gate, unit)]
    if gate == 2 and reset == "after":
        of_biases.append(jacobian(gru, x, "recurrent_bias", gate, unit))
    biases = np.concatenate(of_biases, axis=1)
    of_weights = np.concatenate((of_w, of_u), axis=1)

    of_biases = biases.T @ biases
    of_biases[1:, 1:] += 0.01 * of_biases[0, 0]  # the recurrent bias has some noise, of what the other one does
    # What errors do to means is given back in full, of U_n behind the reset by the recurrent bias.
    states = gru_states(gru, FloatSignal(x, np.full(len(x), x.shape[1])))
    before = np.concatenate((np.zeros_like(states[:, :1]), states[:, :-1]), axis=1)
    if gate == 2 and reset == "before":
        before = before * gates(gru, x, before, Cell.of(gru))[1]
    means = np.zeros((biases.shape[1], N_INPUTS + N_UNITS))
    means[0, :N_INPUTS], means[-1, N_INPUTS:] = x.mean(axis=(0, 1)), before.mean(axis=(0, 1))
    around = of_weights - biases @ means
    expected = np.linalg.solve(of_biases, biases.T @ around) + means
    lost = np.zeros((3, N_UNITS, N_INPUTS + N_UNITS))
    for column in range(N_INPUTS + N_UNITS):
        lost[gate, unit], lost[gate, unit, column] = 0, 1
        changes = [found.bias_change(lost)[gate, unit], found.recurrent_bias_change(lost)[unit]]
        np.testing.assert_allclose(changes[: len(expected)], expected[:, column], rtol=0.1, atol=0.05)

    left = of_weights - biases @ expected
    of_w, of_u = left[:, :N_INPUTS], left[:, N_INPUTS:]
    moved = np.swapaxes(
        [found.recurrent_change(np.eye(N_INPUTS)[[[i] * N_UNITS] * 3])[gate, unit] for i in range(2)], 0, 1
    )
    # What is left of each error of W, against what is left at best: the minimum is flat, so compare what it costs.
    at_best = of_w - of_u @ np.linalg.lstsq(of_u, of_w)[0]
    made_up = of_w - of_u @ moved
    costs = [(each**2).sum(axis=0) for each in (at_best, made_up, of_w)]
    assert (costs[1] <= costs[0] + 0.05 * (costs[2] - costs[0])).all()

    assert found.input is not None and found.recurrent is not None
    for curvature, exact in (
        (found.recurrent[gate][unit], of_u.T @ of_u),
        (found.input[gate][unit], at_best.T @ at_best),
    ):
        np.testing.assert_allclose(curvature / np.trace(curvature), exact / np.trace(exact), atol=0.05)


def test_to_nearest_biases_give_back_means_and_no_weight_takes_over():
    rng = np.random.default_rng(2)
    gru, x = random_gru(rng, N_INPUTS, N_UNITS, "after"), correlated(rng, 30)
    found = compensation_of(gru, x, "nearest")
    lost = rng.normal(size=(3, N_UNITS, N_INPUTS + N_UNITS))
    states = gru_states(gru, FloatSignal(x, np.full(30, 6)))
    before = np.concatenate((np.zeros((30, 1, N_UNITS)), states[:, :-1]), axis=1)
    of_x, of_h = lost[..., :2] @ x.mean(axis=(0, 1)), lost[..., 2:] @ before.mean(axis=(0, 1))
    of_gates = of_x + of_h
    of_gates[2] = of_x[2]
    np.testing.assert_allclose(found.bias_change(lost), of_gates)
    np.testing.assert_allclose(found.recurrent_bias_change(lost), of_h[2])
    assert not found.recurrent_change(lost[..., :2]).any()
    assert found.input is None and found.recurrent is None


def test_pieces_hold_all_steps_once():
    lengths = np.array([600, 1, 256, 257])
    pieces = Pieces.of(lengths)
    seen = [(sequence, step) for sequence, first, n in zip(*pieces, strict=True) for step in range(first, first + n)]
    assert sorted(seen) == [(i, t) for i, length in enumerate(lengths) for t in range(length)]
    assert pieces.n_steps.max() <= 256


@pytest.mark.parametrize("reset", ["after", "before"])
def test_pieces_are_computed_as_in_the_whole_run(reset):
    rng = np.random.default_rng(3)
    gru = random_gru(rng, N_INPUTS, N_UNITS, reset)
    model = FloatModel((gru,), last_step=False)
    start = rng.normal(size=(3, N_UNITS))
    sequences = model.sequences([rng.normal(size=(n, N_INPUTS)) for n in (600, 20, 300)])
    seen = []
    observe = lambda t, *values: seen.append([v.copy() for v in values])  # noqa: E731
    body = run_body(model, sequences, [start], [observe])
    pieces = Pieces.of(sequences.lengths)
    x, steps = pieces.cut(np.array([3, 1, 0]), gru, body.gru_inputs[0], body.states[0], body.starts[0])
    for i, piece in enumerate([3, 1, 0]):
        sequence, first, n = (of_pieces[piece] for of_pieces in pieces)
        assert steps.running[:, i, 0].sum() == n and steps.running[:n, i].all()
        for t in range(n):
            assert (x[t, i] == sequences.values[sequence, first + t]).all()
            for found, expected in zip((steps.h, steps.z, steps.r, steps.n), seen[first + t], strict=True):
                np.testing.assert_allclose(found[t, i], expected[sequence], rtol=1e-12, atol=1e-14)


def test_a_long_recording_is_cut():
    """One sequence of 3,000 steps: as good as many short ones, and no more work."""
    rng = np.random.default_rng(4)
    gru = random_gru(rng, N_INPUTS, 8, "after")
    model = FloatModel((gru,), last_step=False)
    x = np.cumsum(rng.normal(size=(1, 3000, N_INPUTS)), axis=1) % 3 - 1.5
    states = run_body(model, model.sequences(x)).states[0]

    def decibels(rounding):
        int_model = qg.quantize(model, x, rounding=rounding, weight_bits=4)
        found = run(int_model, x).states_raw[0] * 2.0 ** -int_model.grus[0].state_fraction_bits
        return sqnr_db(states.ravel(), found.ravel())

    assert decibels("compensated") > decibels("nearest") + 3


def far_from_zero(gru: Gru, by: float) -> Gru:
    """The same of inputs that are so much larger."""
    return replace(gru, bias=gru.bias - by * gru.input_weights.sum(axis=2))


def with_bias(gru: Gru, gate: int, value: float) -> Gru:
    """Of the first unit."""
    bias = gru.bias.copy()
    bias[gate, 0] += value
    return replace(gru, bias=bias)


EDGES = {
    "constant inputs": lambda gru, x: (gru, np.ones_like(x)),
    "one input of zeros": lambda gru, x: (gru, x * [1, 0]),
    "one input constant": lambda gru, x: (gru, x * [1, 0] + [0, 5]),
    "inputs far from zero": lambda gru, x: (far_from_zero(gru, 1000), x + 1000),
    "equal inputs": lambda gru, x: (gru, x[..., [0, 0]]),
    "a unit that never moves": lambda gru, x: (with_bias(gru, 0, 900), x),
    **{f"z of a unit by {by}": lambda gru, x, by=by: (with_bias(gru, 0, by), x) for by in (12, 15, 20, 30)},
    **{f"r of a unit by {by}": lambda gru, x, by=by: (with_bias(gru, 1, by), x) for by in (-10, -14, -20)},
    "h of a unit stays near 1": lambda gru, x: (replace(with_bias(gru, 2, 8), initial_state=np.ones(gru.n_units)), x),
    "all gates at their ends": lambda gru, x: (replace(gru, bias=gru.bias + 900), x),
    "weights of zeros": lambda gru, x: (
        replace(gru, input_weights=0 * gru.input_weights, recurrent_weights=0 * gru.recurrent_weights),
        x,
    ),
    "states that grow": lambda gru, x: (replace(gru, candidate="linear", bias=gru.bias - [[9], [0], [0]]), x),
}


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("reset", ["after", "before"])
def test_at_its_edges_it_is_finite_and_no_worse_than_to_nearest(edge, reset):
    rng = np.random.default_rng(6)
    gru, x = EDGES[edge](random_gru(rng, N_INPUTS, N_UNITS, reset), correlated(rng, 40, 8))
    found = compensation_of(gru, x)
    assert found.input is not None and found.recurrent is not None
    for each in (*found.input, *found.recurrent, found.taken_over, found.bias, found.recurrent_bias):
        assert np.isfinite(each).all()
    model = FloatModel((gru,), last_step=False)
    largest = np.abs(run_body(model, model.sequences(x)).states[0]).max()
    compensated, nearest = (states_error(gru, x, rounding) for rounding in ("compensated", "nearest"))
    # Where nothing is to be gained, both are at the floor of the arithmetic.
    assert compensated <= 1.25 * nearest + 2.0**-14 * max(1.0, largest)


def test_units_share_curvatures_where_there_are_many(monkeypatch):
    """Then errors cost what they cost on average of the units that share."""
    rng = np.random.default_rng(8)
    gru, x = random_gru(rng, N_INPUTS, 8, "after"), correlated(rng, 100)
    each = compensation_of(gru, x)
    monkeypatch.setattr(whole_sequences, "_CURVATURE_VALUES", 3 * 10**2 * 3)
    shared = compensation_of(gru, x)
    assert each.recurrent is not None and shared.recurrent is not None
    assert [len(of_gate) for of_gate in (*each.recurrent, *shared.recurrent)] == [8] * 3 + [3] * 3
    lost = np.ones((3, 8, N_INPUTS))
    change = shared.recurrent_change(lost)
    assert (change[:, 0] == change[:, 2]).all() and not (change[:, 2] == change[:, 3]).any()
    exact, bits = run_body(FloatModel((gru,), last_step=False), as_sequences(x)).states[0], 4
    int_model = qg.quantize(FloatModel((gru,), last_step=False), x, weight_bits=bits)
    nearest = qg.quantize(FloatModel((gru,), last_step=False), x, weight_bits=bits, rounding="nearest")
    decibels = [sqnr_db(exact.ravel(), run(m, x).states_raw[0].ravel() * 2.0**-15) for m in (int_model, nearest)]
    assert decibels[0] > decibels[1] + 2


def test_padding_does_not_count():
    """Neither what it holds nor how much of it there is; each direction goes by what it reads."""
    rng = np.random.default_rng(9)
    forward, backward = (replace(random_gru(rng, N_INPUTS, N_UNITS, "after"), name=name) for name in ("f", "b"))
    model = FloatModel((Bidirectional("both", forward, backward, "concat", final=False),), last_step=False)
    x = [correlated(rng, 1, n)[0] for n in (5, 9, 2, 7) * 12]
    sequences = model.sequences(x)
    dirty = replace(sequences, values=np.where(sequences.valid[..., None], sequences.values, 1e6))
    found, sums = [], []
    for each in (sequences, dirty):
        seen, body = calibrate(model, each)
        found.append(compensations(model, body, seen, "compensated"))
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one.bias, other.bias)
        np.testing.assert_allclose(one.taken_over, other.taken_over)
    assert not np.allclose(found[0][0].bias, found[0][1].bias)
    # A piece among longer ones has the gradients that it has by itself.
    _, body = calibrate(model, sequences)
    gru, of_gru = model.grus[0], 0
    pieces = Pieces.of(sequences.lengths)
    for chosen in (np.arange(4), np.array([2])):
        _, steps = pieces.cut(chosen, gru, body.gru_inputs[of_gru], body.states[of_gru], body.starts[of_gru])
        of_sums = pre_activation_gradients(gru, steps, np.where(steps.running, 1.0, 0.0))
        assert not of_sums[2:, chosen == 2].any()
        sums.append(of_sums[:2, chosen == 2])
    np.testing.assert_allclose(*sums)


def test_states_that_explode_are_left_out():
    """Gradients through 255 steps of a chaotic model, at rest until the last one, are not finite: no warning, which
    would be an error here, and weights as good as to nearest."""
    rng = np.random.default_rng(12)
    gru = random_gru(rng, N_INPUTS, 8, "after")
    gru = replace(gru, recurrent_weights=200 * gru.recurrent_weights, bias=0 * gru.bias, recurrent_bias=np.zeros(8))
    x = rng.normal(size=(10, 256, N_INPUTS))
    x[:, :-1] = 0
    found = compensation_of(gru, x)
    assert found.input is not None and found.recurrent is not None
    for each in (*found.input, *found.recurrent, found.taken_over, found.bias, found.recurrent_bias):
        assert np.isfinite(each).all()
    errors = [states_error(gru, x, rounding) for rounding in ("compensated", "nearest")]
    assert errors[0] <= 1.25 * errors[1] + 2.0**-14


def states_error(gru: Gru, x, rounding, other=None, weight_bits=8, n_units=None) -> float:
    """Root mean square, of the first units, on x or on other data."""
    model = FloatModel((gru,), last_step=False)
    data = x if other is None else other
    int_model = qg.quantize(model, x, rounding=rounding, weight_bits=weight_bits)
    raw = run(int_model, data).states_raw[0] * 2.0 ** -int_model.grus[0].state_fraction_bits
    exact = run_body(model, model.sequences(data)).states[0]
    return float(np.sqrt(((raw - exact)[..., :n_units] ** 2).mean()))


def test_a_unit_that_never_moves_costs_others_nothing():
    """Their error is what it is without that unit, where states are small: it is no state of size 1."""
    rng = np.random.default_rng(15)
    n_units, errors = 12, []
    for with_one in (False, True):
        errors.append([])
        for seed in range(4):
            gru = with_bias_of_all(random_gru(np.random.default_rng(seed), N_INPUTS, n_units, "after"))
            x, other = (0.02 * np.cumsum(rng.normal(size=(100, 40, N_INPUTS)), axis=1) for _ in range(2))
            errors[-1].append(states_error(with_a_dead_unit(gru) if with_one else gru, x, "compensated", other, 3, 12))
    without, beside_it = (np.mean(of_all) for of_all in errors)
    assert beside_it < 1.2 * without


def with_bias_of_all(gru: Gru) -> Gru:
    """Slow, and around 0."""
    bias = gru.bias.copy()
    bias[0], bias[2] = bias[0] + 3, 0
    return replace(gru, bias=bias, recurrent_bias=0 * gru.recurrent_bias)


def with_a_dead_unit(gru: Gru) -> Gru:
    """One more, all of zeros."""
    n_units = gru.n_units
    return replace(
        gru,
        input_weights=np.pad(gru.input_weights, ((0, 0), (0, 1), (0, 0))),
        recurrent_weights=np.pad(gru.recurrent_weights, ((0, 0), (0, 1), (0, 1))),
        bias=np.pad(gru.bias, ((0, 0), (0, 1))),
        recurrent_bias=np.pad(gru.recurrent_bias, (0, 1)),
        initial_state=np.zeros(n_units + 1),
    )


def test_few_gradients_are_not_all_that_counts(monkeypatch):
    """A curvature of 4 gradients for 26 columns would leave most errors free: it is drawn to that of the operands, and
    is still better than to nearest, on other data."""
    rng = np.random.default_rng(16)
    monkeypatch.setattr(whole_sequences, "_PIECES_PER_COLUMN", 0)
    monkeypatch.setattr(whole_sequences, "_LEAST_PIECES", 4)
    gru = random_gru(rng, N_INPUTS, 24, "after")
    x, other = correlated(rng, 100, 30), correlated(rng, 100, 30)
    compensated, nearest = (states_error(gru, x, rounding, other, 4) for rounding in ("compensated", "nearest"))
    assert compensated < 0.4 * nearest


def test_where_r_is_shut_no_weight_or_bias_grows_behind_it():
    """It may be open on other data: errors are then no larger than to nearest."""
    rng = np.random.default_rng(13)
    gru = random_gru(rng, 3, 8, "after")
    shut = replace(gru, bias=gru.bias - np.array([[0], [20], [0]]))
    model = FloatModel((shut,), last_step=False)
    x = rng.normal(size=(100, 40, 3))
    decibels = {}
    for rounding in ("nearest", "compensated"):
        weights = dequantize(qg.quantize(model, x, rounding=rounding)).grus[0]
        assert np.abs(weights.recurrent_weights - shut.recurrent_weights).max() < 0.05
        opened = [replace(each, bias=each.bias + np.array([[0], [20], [0]])) for each in (shut, weights)]
        exact, found = (gru_states(each, FloatSignal(x, np.full(100, 40))) for each in opened)
        decibels[rounding] = sqnr_db(exact.ravel(), found.ravel())
    assert decibels["compensated"] > decibels["nearest"] - 1


@pytest.mark.parametrize("n_groups", [1, 200])
def test_memory_holds_matrices_of_some_rows_only(n_groups):
    """Of 600 rows with 200 columns a matrix each would take 192 MB."""
    rng = np.random.default_rng(14)
    factors = rng.normal(size=(n_groups, 200, 200))
    rounding = Compensated(4, Measure(factors @ np.swapaxes(factors, 1, 2)))
    weights = rng.normal(size=(600, 200))
    tracemalloc.start()
    rounding.codes(weights, np.full(600, 0.3))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 120e6


def test_gates_are_those_of_the_run():
    """Of many steps at once, given the states."""
    rng = np.random.default_rng(10)
    gru = random_gru(rng, N_INPUTS, N_UNITS, "before")
    x = rng.normal(size=(4, 5, N_INPUTS))
    seen = []
    gru_states(gru, FloatSignal(x, np.full(4, 5)), observe=lambda t, *values: seen.append(values))
    h, *expected = (np.stack(values, axis=1) for values in zip(*seen, strict=True))
    for of_all, of_steps in zip(gates(gru, x, h, Cell.of(gru)), expected, strict=True):
        np.testing.assert_allclose(of_all, of_steps, rtol=1e-13)
