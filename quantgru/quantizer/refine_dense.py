"""Rows and biases of a dense layer that suit what the integer layers before it give, errors included.

A part of the states' error goes together with the states: their least squares take it back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from quantgru.array_types import FloatArray
from quantgru.errors import ModelError
from quantgru.fixed import to_real
from quantgru.int_model import IntDense
from quantgru.int_model.row_parameters import RowParameters
from quantgru.model import Dense
from quantgru.model.run import FloatSignal, dense_output
from quantgru.quantizer.calibrate import Moments
from quantgru.quantizer.held_out import fitted, gain_db, held_out
from quantgru.quantizer.rounding import Compensated, Measure
from quantgru.quantizer.weights import quantize_bias, quantize_rows
from quantgru.simulator.program import DenseProgram, RawSignal

_DAMPING: Final = 1e-2  # of the mean variance of an operand: where operands hardly vary, weights stay


@dataclass(frozen=True, eq=False)
class DenseTask:
    """What a dense layer is to be fitted to.

    x           what it reads, raw
    exact       the layer of the float model
    exact_x     what that reads
    bits        width of the codes
    parameters  of the rows
    """

    x: RawSignal
    exact: Dense
    exact_x: FloatSignal
    bits: int
    parameters: RowParameters

    def error(self, layer: IntDense) -> float:
        """Sum of squares of the outputs' error, on sequences that are not fitted to."""
        chosen = held_out(self.x.n_sequences)
        outputs, _ = DenseProgram(layer).outputs(self.x.some(chosen))
        exact = dense_output(self.exact, self.exact_x.some(chosen).vectors())
        return float(((to_real(outputs.vectors(), layer.output_fraction_bits) - exact) ** 2).sum())

    def least_squares(self, layer: IntDense) -> IntDense:
        """The layer with the rows and biases that suit the sequences that are fitted to. Raises ModelError."""
        chosen, where = fitted(self.x.n_sequences), f"dense layer {layer.name!r}"
        x = self.x.some(chosen).vectors().astype(np.float64)
        wanted = self.exact_x.some(chosen).vectors() @ self.exact.weights.T + self.exact.bias
        row_bits = np.full(layer.n_outputs, layer.row_bits)
        moments = Moments.of(x)
        weights = _weights(layer.matrix.codes * layer.matrix.row_scales(row_bits)[:, None], x, wanted, moments)
        rounding = Compensated(self.bits, Measure(moments.covariance[None]), self.parameters.multiplier_bits)
        matrix = quantize_rows(weights, row_bits, [rounding], where, self.parameters)
        real = matrix.codes * matrix.row_scales(row_bits)[:, None]
        bias = quantize_bias(wanted.mean(axis=0) - real @ moments.mean, row_bits, where)
        return replace(layer, matrix=matrix, bias=bias)


def refined_dense(layer: IntDense, task: DenseTask) -> tuple[IntDense, float]:
    """The layer, as it was where nothing is better, and its gain in dB."""
    before = task.error(layer)
    try:
        found = task.least_squares(layer)
    except ModelError:  # for larger weights there is no accumulator
        return layer, 0.0
    after = task.error(found)
    return (found, gain_db(before, after)) if after < before else (layer, 0.0)


def _weights(start: FloatArray, x: FloatArray, wanted: FloatArray, moments: Moments) -> FloatArray:
    """Real ones [rows, columns], for operands x [n, columns], with which sums vary as `wanted` [n, rows] does."""
    left = wanted - x @ start.T
    coupling = (left - left.mean(axis=0)).T @ (x - moments.mean) / len(x)
    variance = np.diag(moments.covariance).mean() or 1.0  # of operands that never change
    damped = moments.covariance + _DAMPING * variance * np.eye(x.shape[1])
    return start + np.linalg.solve(damped, coupling.T).T
