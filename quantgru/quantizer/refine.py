"""Codes, scales and biases of GRU layers that lower the error of their states over whole sequences.

`Compensated` rounds each row for itself, for the operands of the float model. What that leaves goes through gates and
further steps, and there errors of different rows, units and steps meet. Here they are made to cancel: least squares of
the states' error on the calibration data, by Gauss-Newton around runs of the simulator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from quantgru.array_types import FloatArray, IntArray
from quantgru.errors import ModelError
from quantgru.fixed import to_real
from quantgru.int_model import IntBidirectional, IntGru, IntLayer, IntModel, Matrix
from quantgru.model import FloatModel
from quantgru.model.run import run_body
from quantgru.quantizer.backpropagation import GruRun, by_layer, by_unit, unit_gradients
from quantgru.quantizer.least_squares import best_step
from quantgru.quantizer.rounding import Nearest, least_steps
from quantgru.quantizer.weights import quantize_bias, rows_on_scales
from quantgru.quantizer.widths import GATES, Widths
from quantgru.sequences import Sequences, StatesLike
from quantgru.simulator.inputs import to_raw
from quantgru.simulator.program import GruProgram, RawSignal, Record, layer_program
from quantgru.simulator.states import GruState, start_states

HELD_OUT: Final = 5  # one of so many sequences is not fitted to, but tells whether a round was good

_EQUATIONS: Final = 4096  # that a curvature is made of
_EQUATION_STEPS: Final = 2**21  # in all of them: with long sequences there are fewer
_EQUATION_BYTES: Final = 2**29  # with many units, a round takes some of them at a time
_GATE_VALUES: Final = 2**22  # in memory at the same time
_GRADIENT_VALUES: Final = 2**20  # the same; caches should hold them
_LEAST_NOISE: Final = 1e-20  # where no state depends on a parameter
_LARGEST_CHANGE: Final = 0.5  # of the logarithm of a scale: far beyond what a linear model can tell
_FIRST_DAMPING: Final = 1.0
_ATTEMPTS: Final = 4  # of a round
_AFTER_SUCCESS: Final = 0.5  # what damping is multiplied by
_AFTER_FAILURE: Final = 4.0


@dataclass(frozen=True, eq=False)
class _Task:
    """What a GRU layer is to be fitted to.

    x       what it reads, raw: what the layers before it give, which are refined already
    start   its state before the first step
    target  h of the float model [sequences, steps, units]
    bits    widths of its rows of W and of U, of each gate
    """

    x: RawSignal
    start: GruState
    target: FloatArray
    bits: tuple[list[int], list[int]]

    @property
    def held_out(self) -> IntArray:
        return np.arange(0, self.x.n_sequences, HELD_OUT)

    @property
    def fitted(self) -> IntArray:
        return np.setdiff1d(np.arange(self.x.n_sequences), self.held_out)

    def run(self, layer: IntGru) -> GruRun:
        state = GruState(self.start.h.copy(), self.start.residual.copy())
        record = Record(iter([state]), every_step=True)
        GruProgram(layer).run(self.x, record)
        (trace,) = record.traces
        before = np.concatenate([self.start.h[:, None], trace.h[:, :-1]], axis=1)
        return GruRun(layer, self.x.valid, before, trace)

    def error(self, run: GruRun) -> FloatArray:
        """Of the states [sequences, steps, units], zero in padding."""
        error = to_real(run.trace.h, run.layer.state_fraction_bits) - self.target
        return np.where(run.running[..., None], error, 0.0)

    def cost(self, error: FloatArray) -> float:
        """What decides: on sequences that are not fitted to."""
        return float((error[self.held_out] ** 2).sum())


class Refined(NamedTuple):
    """Layers of a model, and what is to be said about the GRU layers among them.

    gains     of those that were refined: dB by which the error of their states is lower, on sequences held out
    warnings  of those that were left alone
    """

    layers: tuple[IntLayer, ...]
    gains: dict[str, float]
    warnings: list[str]


def refine_layers(
    model: FloatModel,
    int_model: IntModel,
    sequences: Sequences,
    initial_states: StatesLike | None,
    widths: Widths,
    rounds: int,
    progress: Callable[[int], None],
) -> Refined:
    """The layers of `int_model`, which was made of `model` on `sequences`, with other codes, scales and biases in GRUs.

    Layer by layer, each on what the ones before it give. No layer's error gets larger on the sequences held out.

    rounds    for each GRU layer
    progress  called with 1 after each round, or with all of them for a layer that is left alone
    """
    targets = iter(run_body(model, sequences, initial_states).states)
    starts = iter(start_states(int_model, initial_states, sequences.n_sequences))
    layers: list[IntLayer] = []
    gains: dict[str, float] = {}
    warnings: list[str] = []

    def refined(gru: IntGru, x: RawSignal, start: GruState) -> IntGru:
        task = _Task(x, start, next(targets), _bits(gru, widths))
        too_little = _too_little_data(gru, task)
        if too_little is not None:
            warnings.append(too_little)
            progress(rounds)
            return gru
        found, gains[gru.name] = _refined(gru, task, rounds, progress)
        return found

    signal = RawSignal(to_raw(int_model, sequences)[0], sequences.lengths)
    for layer in int_model.body:
        states: list[GruState] = []
        match layer:
            case IntGru():
                states = [next(starts)]
                layers.append(refined(layer, signal, states[0]))
            case IntBidirectional():
                states = [next(starts), next(starts)]
                forward = refined(layer.forward, signal, states[0])
                backward = refined(layer.backward, signal.reversed(), states[1])
                layers.append(replace(layer, forward=forward, backward=backward))
            case _:
                layers.append(layer)
        signal = layer_program(layers[-1]).run(signal, Record(iter(states), every_step=False))
    return Refined((*layers, *int_model.head), gains, warnings)


def _bits(gru: IntGru, widths: Widths) -> tuple[list[int], list[int]]:
    w, u = ([widths.of(gru.name, matrix, gate) for gate in GATES] for matrix in "WU")
    return w, u


def _too_little_data(gru: IntGru, task: _Task) -> str | None:
    """A warning, if so."""
    where = f"GRU layer {gru.name!r}"
    if task.x.n_sequences < HELD_OUT:
        return (
            f"{where}: not refined, which takes {HELD_OUT} sequences of calibration data or more, to hold one in "
            f"{HELD_OUT} out; there are {task.x.n_sequences}"
        )
    n_steps, wanted = int(task.x.lengths[task.fitted].sum()), least_steps(gru.n_inputs + gru.n_units)
    if n_steps < wanted:
        return (
            f"{where}: not refined, which takes {wanted:,} steps of calibration data in the sequences that are not "
            f"held out; there are {n_steps:,}"
        )
    return None


def _refined(layer: IntGru, task: _Task, rounds: int, progress: Callable[[int], None]) -> tuple[IntGru, float]:
    """The layer and its gain in dB.

    Levenberg-Marquardt: a step that does not succeed is undone, and a smaller one tried.
    """
    rng = np.random.default_rng(0)
    run = task.run(layer)
    error = task.error(run)
    before = task.cost(error)
    damping = _FIRST_DAMPING
    for _ in range(rounds):
        for units in _parts(layer):
            system = _linearised(run, task, error, units, rng)
            for _ in range(_ATTEMPTS):
                changed_run = task.run(_stepped(run.layer, system, units, task.bits, damping))
                changed_error = task.error(changed_run)
                if task.cost(changed_error) < task.cost(error):
                    run, error = changed_run, changed_error
                    damping *= _AFTER_SUCCESS
                    break
                damping *= _AFTER_FAILURE
        progress(1)
    least = np.finfo(np.float64).tiny  # of errors that are 0
    return run.layer, float(10 * np.log10(max(before, least) / max(task.cost(error), least)))


def _parts(layer: IntGru) -> list[IntArray]:
    """The units, as many in each part as memory holds the equations of."""
    n_parameters = 3 * (layer.n_inputs + layer.n_units) + 10
    at_once = max(1, _EQUATION_BYTES // (4 * _EQUATIONS * n_parameters))
    return np.array_split(np.arange(layer.n_units), -(-layer.n_units // at_once))


class _System(NamedTuple):
    """What the squares of the states' error are around a run, on the sequences that are fitted to, by units.

    Of the states' Jacobian J, slopes J^T error [units, parameters] are exact. Curvatures J^T J are estimated: for a
    vector s of random signs, (s^T J)^T (s^T J) is J^T J on average, and s^T J is a single gradient, one of `equations`
    [equations, units, parameters].

    share  sequences for each equation
    """

    slopes: FloatArray
    equations: npt.NDArray[np.float32]
    share: float


def _linearised(run: GruRun, task: _Task, error: FloatArray, units: IntArray, rng: np.random.Generator) -> _System:
    few = _at_once(run, task.fitted)
    slopes = sum(unit_gradients(run, sequences, error[sequences])[:, units].sum(axis=0) for sequences in few)
    equations = _equations(run, task, units, rng)
    return _System(np.asarray(slopes), equations, len(task.fitted) / len(equations))


def _stepped(
    layer: IntGru, system: _System, units: IntArray, bits: tuple[list[int], list[int]], damping: float
) -> IntGru:
    """The layer after a step towards least squares; itself where a weight or a bias would get too large.

    Units take their steps one after the other, and know what the steps before theirs do to the states.
    """
    slopes, equations, share = system
    matrices = layer.input, layer.recurrent
    codes = np.concatenate([by_unit(matrix.codes.astype(np.int64), layer.n_units) for matrix in matrices], axis=1)
    ends = np.concatenate(
        [np.repeat(2 ** (np.array(of_gates) - 1), m.n_columns) for of_gates, m in zip(bits, matrices, strict=True)]
    )
    noise = _noise(np.einsum("eup,eup->up", equations, equations) * share, len(ends), damping)
    changes = np.zeros((layer.n_units, equations.shape[2]))
    done = np.zeros(len(equations), np.float32)  # what the steps so far give in each equation
    for i, unit in enumerate(units):
        of_unit = equations[:, i]
        curvature = (of_unit.T @ of_unit * share).astype(np.float64) + np.diag(noise[i])
        slope = slopes[i] + of_unit.T @ done * share
        changes[unit] = best_step(curvature, slope, codes[unit], -ends, ends - 1)
        done += of_unit @ changes[unit].astype(np.float32)
    try:
        return _changed(layer, changes, bits)
    except ModelError:
        return layer


def _noise(variances: FloatArray, n_codes: int, damping: float) -> FloatArray:
    """What makes steps small, for diagonals of the curvatures [units, parameters].

    Of the average of its kind, too: where next to nothing depends on a parameter, no change of it is large enough for a
    linear model to be trusted.
    """
    noise = variances + _LEAST_NOISE
    for kind in (slice(n_codes), slice(n_codes, None)):
        noise[:, kind] += variances[:, kind].mean()
    return damping * noise


def _at_once(run: GruRun, sequences: IntArray) -> Iterator[IntArray]:
    """A few of these sequences after the others, as many as memory holds gates and gradients of."""
    layer = run.layer
    n_rows, n_columns = 3 * layer.n_units, layer.n_inputs + layer.n_units
    n = max(1, min(_GATE_VALUES // (run.running.shape[1] * n_rows), _GRADIENT_VALUES // (n_rows * n_columns)))
    return iter(np.array_split(sequences, -(-len(sequences) // n)))


def _equations(run: GruRun, task: _Task, units: IntArray, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """s^T J for random signs s at all steps of one sequence, [equations, units, parameters]."""
    n_steps, n_units = task.target.shape[1:]
    n = max(1, min(_EQUATIONS, _EQUATION_STEPS // n_steps))
    found = []
    for sequences in _at_once(run, np.resize(rng.permutation(task.fitted), n)):
        signs = rng.choice([-1.0, 1.0], (len(sequences), n_steps, n_units)) * run.running[sequences][..., None]
        found.append(unit_gradients(run, sequences, signs)[:, units].astype(np.float32))
    return np.concatenate(found)


def _changed(layer: IntGru, changes: FloatArray, bits: tuple[list[int], list[int]]) -> IntGru:
    """changes [units, parameters]. Raises ModelError where weights or biases no longer fit."""
    change, where, row_bits = by_layer(changes, layer), f"GRU layer {layer.name!r}", layer.row_bits

    def rows(matrix: Matrix, codes: FloatArray, log_scales: FloatArray, widths: list[int]) -> Matrix:
        scales = matrix.row_scales(row_bits) * np.exp(np.clip(log_scales[:, 0], -_LARGEST_CHANGE, _LARGEST_CHANGE))
        weights = (matrix.codes + codes) * scales[:, None]
        return rows_on_scales(weights, scales, row_bits, [Nearest(n) for n in widths], where)

    recurrent_bias = to_real(layer.recurrent_bias, layer.candidate_bits) + change.recurrent_bias[:, 0]
    return replace(
        layer,
        input=rows(layer.input, change.input, change.input_scales, bits[0]),
        recurrent=rows(layer.recurrent, change.recurrent, change.recurrent_scales, bits[1]),
        bias=quantize_bias(to_real(layer.bias, row_bits) + change.bias[:, 0], row_bits, where),
        recurrent_bias=quantize_bias(recurrent_bias, layer.candidate_bits, where),
    )
