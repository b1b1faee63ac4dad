"""Codes, scales and biases of GRU layers that lower the error of their states over whole sequences.

`Compensated` rounds each row for itself, for the operands of the float model. What that leaves meets errors of other
rows and units. Here they are made to cancel: least squares of the states' error on the calibration data, by
Gauss-Newton around runs of the simulator.
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
from quantgru.int_model import IntGru, Matrix
from quantgru.int_model.row_parameters import SHORT, RowParameters
from quantgru.quantizer.backpropagation import N_SCALES, GruRun, by_layer, by_unit, unit_gradients
from quantgru.quantizer.held_out import fitted, gain_db, held_out
from quantgru.quantizer.least_squares import best_step
from quantgru.quantizer.rounding import Nearest
from quantgru.quantizer.weights import quantize_biases, rows_on_scales
from quantgru.simulator.program import GruProgram, RawSignal, Record
from quantgru.simulator.states import GruState

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
class GruTask:
    """What a GRU layer is to be fitted to.

    x           what it reads, raw: what the layers before it give, which are refined already
    start       its state before the first step
    target      h of the float model [sequences, steps, units]
    bits        widths of its rows of W and of U, of each gate
    parameters  of its rows
    """

    x: RawSignal
    start: GruState
    target: FloatArray
    bits: tuple[list[int], list[int]]
    parameters: RowParameters

    @property
    def fitted(self) -> IntArray:
        return fitted(self.x.n_sequences)

    @property
    def n_fixed(self) -> int:
        """Parameters of a unit, the last ones, that stay: scales, where short ones are too far apart to change."""
        return N_SCALES if self.parameters == SHORT else 0

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
        return float((error[held_out(self.x.n_sequences)] ** 2).sum())


def refined_gru(layer: IntGru, task: GruTask, rounds: int, progress: Callable[[int], None]) -> tuple[IntGru, float]:
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
                changed_run = task.run(_stepped(run, system, units, task, damping))
                changed_error = task.error(changed_run)
                if task.cost(changed_error) < task.cost(error):
                    run, error = changed_run, changed_error
                    damping *= _AFTER_SUCCESS
                    break
                damping *= _AFTER_FAILURE
        progress(1)
    return run.layer, gain_db(before, task.cost(error))


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


def _linearised(run: GruRun, task: GruTask, error: FloatArray, units: IntArray, rng: np.random.Generator) -> _System:
    few = _at_once(run, task.fitted, units)
    slopes = sum(unit_gradients(run, sequences, error[sequences], units).sum(axis=0) for sequences in few)
    equations = _equations(run, task, units, rng)
    n = equations.shape[2]
    return _System(np.asarray(slopes)[:, :n], equations, len(task.fitted) / len(equations))


def _stepped(run: GruRun, system: _System, units: IntArray, task: GruTask, damping: float) -> IntGru:
    """The layer after a step towards least squares; itself where a weight or a bias would get too large.

    Units take their steps one after the other, and know what the steps before theirs do to the states.
    """
    layer, (slopes, equations, share) = run.layer, system
    matrices = layer.input, layer.recurrent
    codes = np.concatenate([by_unit(matrix.codes.astype(np.int64), layer.n_units) for matrix in matrices], axis=1)
    ends = np.concatenate(
        [np.repeat(2 ** (np.array(of_gates) - 1), m.n_columns) for of_gates, m in zip(task.bits, matrices, strict=True)]
    )
    noise = _noise(np.einsum("eup,eup->up", equations, equations) * share, len(ends), damping)
    changes = np.zeros((layer.n_units, equations.shape[2] + task.n_fixed))
    done = np.zeros(len(equations), np.float32)  # what the steps so far give in each equation
    for i, unit in enumerate(units):
        of_unit = equations[:, i]
        curvature = (of_unit.T @ of_unit * share).astype(np.float64) + np.diag(noise[i])
        slope = slopes[i] + of_unit.T @ done * share
        step = best_step(curvature, slope, codes[unit], -ends, ends - 1)
        done += of_unit @ step.astype(np.float32)
        changes[unit, : len(step)] = step
    try:
        return _changed(run, changes, task)
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


def _at_once(run: GruRun, sequences: IntArray, units: IntArray) -> Iterator[IntArray]:
    """A few of these sequences after the others, as many as memory holds gates and gradients of."""
    layer = run.layer
    n_gates, n_gradients = 3 * layer.n_units, 3 * len(units) * (layer.n_inputs + layer.n_units)
    n = max(1, min(_GATE_VALUES // (run.running.shape[1] * n_gates), _GRADIENT_VALUES // n_gradients))
    return iter(np.array_split(sequences, -(-len(sequences) // n)))


def _equations(run: GruRun, task: GruTask, units: IntArray, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """s^T J for random signs s at all steps of one sequence, [equations, units, parameters that are not fixed]."""
    n_steps, n_units = task.target.shape[1:]
    n = max(1, min(_EQUATIONS, _EQUATION_STEPS // n_steps))
    found = []
    for sequences in _at_once(run, np.resize(rng.permutation(task.fitted), n), units):
        signs = rng.choice([-1.0, 1.0], (len(sequences), n_steps, n_units)) * run.running[sequences][..., None]
        gradients = unit_gradients(run, sequences, signs, units)
        found.append(gradients[..., : gradients.shape[2] - task.n_fixed].astype(np.float32))
    return np.concatenate(found)


def _changed(run: GruRun, changes: FloatArray, task: GruTask) -> IntGru:
    """changes [units, parameters]. Raises ModelError where weights or biases no longer fit."""
    layer, means = run.layer, run.means
    change, where, row_bits = by_layer(changes, layer), f"GRU layer {layer.name!r}", layer.row_bits

    def rows(matrix: Matrix, codes: FloatArray, log_scales: FloatArray, widths: list[int]) -> Matrix:
        scales = matrix.row_scales(row_bits) * np.exp(np.clip(log_scales[:, 0], -_LARGEST_CHANGE, _LARGEST_CHANGE))
        weights = (matrix.codes + codes) * scales[:, None]
        return rows_on_scales(weights, scales, row_bits, [Nearest(n) for n in widths], where, task.parameters)

    def lost(before: Matrix, after: Matrix) -> FloatArray:
        """Weights [rows, columns] on raw operands, less those that they become."""
        old, new = (each.codes * each.row_scales(row_bits)[:, None] for each in (before, after))
        return old - new

    w = rows(layer.input, change.input, change.input_scales, task.bits[0])
    u = rows(layer.recurrent, change.recurrent, change.recurrent_scales, task.bits[1])
    gates, candidate = np.split(lost(layer.recurrent, u), [2 * layer.n_units])
    of_gates, of_candidate = gates @ means.h, candidate @ means.candidate_h
    bias = to_real(layer.bias, row_bits) + change.bias[:, 0] + lost(layer.input, w) @ means.x
    bias[: 2 * layer.n_units] += of_gates
    recurrent_bias = to_real(layer.recurrent_bias, layer.candidate_bits) + change.recurrent_bias[:, 0]
    if layer.reset == "after":
        recurrent_bias += of_candidate
    else:
        bias[2 * layer.n_units :] += of_candidate
    biases = quantize_biases(bias, recurrent_bias, row_bits, task.parameters, where)
    return replace(layer, input=w, recurrent=u, bias=biases[0], recurrent_bias=biases[1])
