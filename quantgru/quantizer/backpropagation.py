"""How the states of a GRU layer depend on its integers, around a run of the simulator.

Parameters come unit by unit, each unit's in this order: codes of its rows of W and of U, its biases, the recurrent bias
where there is one, and the logarithms of the scales of its rows of W and of U; rows and biases in the order z, r, n.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np

from quantgru.array_types import BoolArray, FloatArray, Int16Array, IntArray, UInt16Array
from quantgru.fixed import to_real
from quantgru.int_model import IntGru, Matrix
from quantgru.quantizer.dequantize import dequantize_gru
from quantgru.quantizer.gradients import Steps, over_steps, pre_activation_gradients
from quantgru.simulator import GruTrace

N_SCALES: Final = 6  # of a unit: of its rows of W and of U


@dataclass(frozen=True, eq=False)
class GruRun:
    """A GRU layer and what the simulator gave for some sequences, steps in the order in which the layer read them.

    running  [sequences, steps]: false in padding
    before   h before each step, raw [sequences, steps, units]
    trace    of every step
    """

    layer: IntGru
    running: BoolArray
    before: Int16Array
    trace: GruTrace

    @cached_property
    def means(self) -> Means:
        """Over all steps."""
        h, r = self.before[self.running].astype(np.float64), to_real(self.trace.r[self.running], 15)
        of_h = h.mean(axis=0)
        of_candidate = of_h if self.layer.reset == "after" else (r * h).mean(axis=0)
        return Means(self.trace.x[self.running].mean(axis=0, dtype=np.float64), of_h, of_candidate)


class Means(NamedTuple):
    """Of raw operands: of W [inputs], of U for z and r [units], and of U for n [units]."""

    x: FloatArray
    h: FloatArray
    candidate_h: FloatArray


class Parameters(NamedTuple):
    """Of a whole layer, or what belongs to each of them, such as a gradient: rows [gates * units, columns].

    input, recurrent                codes
    bias                            a single column, as those that follow
    recurrent_bias                  of one gate; of none for reset "before"
    input_scales, recurrent_scales  logarithms
    """

    input: FloatArray
    recurrent: FloatArray
    bias: FloatArray
    recurrent_bias: FloatArray
    input_scales: FloatArray
    recurrent_scales: FloatArray


def by_unit(rows: FloatArray, n_units: int) -> FloatArray:
    """[..., units, gates * columns] of [..., gates * units, columns]."""
    *outer, n_rows, columns = rows.shape
    gates = n_rows // n_units
    return np.moveaxis(rows.reshape(*outer, gates, n_units, columns), -3, -2).reshape(*outer, n_units, gates * columns)


def by_layer(parameters: FloatArray, layer: IntGru) -> Parameters:
    """Parameters [units, parameters] as the layer has them."""
    units = layer.n_units
    gates = (3, 3, 3, layer.recurrent_bias.size // units, 3, 3)
    columns = (layer.n_inputs, units, 1, 1, 1, 1)
    ends = np.cumsum(np.multiply(gates, columns))
    parts = np.split(parameters, ends[:-1], axis=1)
    of_gates = [part.reshape(units, g, c) for part, g, c in zip(parts, gates, columns, strict=True)]
    return Parameters(*(np.moveaxis(part, 1, 0).reshape(-1, part.shape[2]) for part in of_gates))


def unit_gradients(run: GruRun, sequences: IntArray, of_states: FloatArray, units: IntArray) -> FloatArray:
    """Gradients of Σ of_states * h over all steps, of each of `sequences` [n] by itself: [n, units, parameters].

    Where codes or scales change, a bias is taken to give back what that does to the mean of a sum: so that it is the
    deviations of operands that count, however far from zero these are.

    sequences  numbers in `run`, which may repeat
    of_states  [n, steps, units of the layer], zero in padding
    units      whose parameters are asked for
    """
    steps = _steps(run, sequences)
    layer, n = run.layer, len(units)
    gates, candidate = slice(0, 2 * n), slice(2 * n, None)
    rows = (np.arange(3)[:, None] * layer.n_units + units).ravel()
    on_raw = dequantize_gru(layer, np.zeros(layer.n_inputs, np.int64))
    of_sums = pre_activation_gradients(on_raw, steps, np.moveaxis(of_states, 1, 0))[..., rows]
    x = np.moveaxis(run.trace.x[sequences], 1, 0).astype(np.float64)
    raw_h = np.ldexp(steps.h, layer.state_fraction_bits)
    of_products, candidate_h = of_sums, raw_h * steps.r
    if layer.reset == "after":
        of_products, candidate_h = of_sums.copy(), raw_h
        of_products[..., candidate] *= steps.r[..., units]
    means = run.means
    of_u = (
        over_steps(of_products[..., gates], raw_h - means.h),
        over_steps(of_products[..., candidate], candidate_h - means.candidate_h),
    )
    w, w_scales = _row_gradients(layer, layer.input, rows, over_steps(of_sums, x - means.x))
    u, u_scales = _row_gradients(layer, layer.recurrent, rows, np.concatenate(of_u, axis=1))
    bias = of_sums.sum(axis=0)[..., None]
    recurrent_bias = of_products[..., candidate].sum(axis=0)[:, : layer.recurrent_bias.size, None]
    of_units = Parameters(w, u, bias, recurrent_bias, w_scales, u_scales)
    return np.concatenate([by_unit(each, n) for each in of_units], axis=2)


def _steps(run: GruRun, sequences: IntArray) -> Steps:
    layer, trace = run.layer, run.trace

    def real(values: Int16Array | UInt16Array, fraction_bits: int) -> FloatArray:
        return to_real(np.moveaxis(values[sequences], 1, 0), fraction_bits)

    return Steps(
        run.running[sequences].T[..., None],
        real(run.before, layer.state_fraction_bits),
        1 - real(trace.u, 15),
        real(trace.r, 15),
        real(trace.n, layer.state_fraction_bits),
    )


def _row_gradients(
    layer: IntGru, matrix: Matrix, rows: IntArray, of_weights: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """For codes [sequences, rows, columns] and logarithms of scales [sequences, rows, 1], of those for weights; `rows`
    are numbers of rows of the layer."""
    of_codes = of_weights * matrix.row_scales(layer.row_bits)[rows, None]
    return of_codes, np.einsum("src,rc->sr", of_codes, matrix.codes[rows].astype(np.float64))[..., None]
