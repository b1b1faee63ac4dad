"""Real weights to integer codes, for given row scales: each to nearest, or errors of some made up for by others."""

from __future__ import annotations

from typing import Final, Literal, Protocol

import numpy as np

from quantgru.array_types import FloatArray, IntArray
from quantgru.fixed import round_half_up
from quantgru.quantizer.calibrate import Moments

RoundingName = Literal["compensated", "nearest"]

ANY_SCALE: Final = 53  # bits of a scale's mantissa: all that float64 has

_DAMPING: Final = 1e-2  # of the mean variance of an operand: as if each had that much noise of its own
_STEPS_PER_COLUMN: Final = 2
_SWEEPS: Final = 10  # of the refinement; it ends earlier where nothing changes any more
_AT_ONCE: Final = 2**15  # weights of which scales are tried: as many as a processor's cache holds


class RowRounding(Protocol):
    """A way to round rows of a matrix, to codes of `bits`."""

    bits: int

    def best_scale(self, weights: FloatArray) -> FloatArray:
        """The scale of each row [rows] with the least error, for weights [rows, columns]."""

    def codes(self, weights: FloatArray, scale: FloatArray) -> IntArray:
        """-2**(bits - 1) ... 2**(bits - 1) - 1 [rows, columns], for weights [rows, columns] on scales [rows]."""


class Rounding(RowRounding, Protocol):
    """One that compares scales by what they cost."""

    scale_bits: int  # of a scale's mantissa: others are not worth trying
    scale_factors: tuple[float, ...]  # worth trying: times the smallest scale that holds all weights of a row

    def rough_codes(self, weights: FloatArray, scale: FloatArray) -> IntArray:
        """Codes [rows, columns] near those of `codes`, in less time: to compare scales."""

    def error(self, lost: FloatArray) -> FloatArray:
        """What rounding errors [rows, columns] of the weights cost each row [rows]: a mean square."""


def least_steps(n_columns: int) -> int:
    """Steps of calibration data that say how n_columns operands go together."""
    return _STEPS_PER_COLUMN * n_columns


def rounding_for(
    name: RoundingName, bits: int, scale_bits: int, operands: Moments, operand_scale: FloatArray
) -> Rounding:
    """To codes of `bits`, for weights on raw operands, whose real values are `operand_scale` times as large [columns].

    Nearest where there is too little calibration data to compensate by.
    """
    if name == "nearest" or operands.n < least_steps(operand_scale.size):
        return Nearest(bits, scale_bits)
    return Compensated(bits, operands.covariance / np.outer(operand_scale, operand_scale), scale_bits)


def best_scale(weights: FloatArray, rounding: Rounding) -> FloatArray:
    """The scale of each row [rows] with the least error."""
    end = 2 ** (rounding.bits - 1)
    smallest = np.maximum(weights.max(axis=1) / (end - 1), weights.min(axis=1) / -end)
    factors = np.array(rounding.scale_factors)
    if factors.size == 1:
        return np.asarray(smallest * factors[0])
    scales = np.maximum(np.outer(factors, smallest), np.finfo(np.float64).tiny)  # a row of zeros
    scales = _rounded_up(scales, rounding.scale_bits)
    n_chunks = min(factors.size, -(-factors.size * weights.size // _AT_ONCE))
    errors = np.concatenate([_errors(weights, some, rounding) for some in np.array_split(scales, n_chunks)])
    return np.asarray(np.take_along_axis(scales, errors.argmin(axis=0)[None], axis=0)[0])


def _rounded_up(scales: FloatArray, bits: int) -> FloatArray:
    """With mantissas of `bits`."""
    mantissa, exponent = np.frexp(scales)
    return np.asarray(np.ldexp(np.ceil(np.ldexp(mantissa, bits)), exponent - bits))


def _errors(weights: FloatArray, scales: FloatArray, rounding: Rounding) -> FloatArray:
    """Of each of several scales for each row [scales, rows]: what it costs the row."""
    repeated, scale = np.tile(weights, (len(scales), 1)), scales.ravel()
    lost = repeated - rounding.rough_codes(repeated, scale) * scale[:, None]
    return rounding.error(lost).reshape(scales.shape)


class Nearest:
    """Each weight by itself, as if operands had nothing to do with one another. All weights fit their row's scale."""

    scale_factors: tuple[float, ...] = (1.0,)

    def __init__(self, bits: int, scale_bits: int = ANY_SCALE) -> None:
        self.bits = bits
        self.scale_bits = scale_bits

    def codes(self, weights: FloatArray, scale: FloatArray) -> IntArray:
        return _nearest(weights / scale[:, None], self.bits)

    rough_codes = codes

    def best_scale(self, weights: FloatArray) -> FloatArray:
        return best_scale(weights, self)

    def error(self, lost: FloatArray) -> FloatArray:
        return np.asarray((lost**2).sum(axis=1))


class Compensated:
    """Column by column, with each column's error taken over by the columns that are still to be rounded, as far as
    their operands go together with its own; then code by code, until no change of one lowers the error.

    The measure is the mean square error of the row's sum on calibration data, its mean left out: the bias takes that
    back. So `covariance` [columns, columns] is that of the operands around their means.

    Source: E. Frantar et al., "GPTQ", 2022, after B. Hassibi and D. Stork, "Optimal Brain Surgeon", 1993. Here rows
    choose their scales by the same measure, and the refinement comes on top.
    """

    scale_factors: tuple[float, ...] = tuple(float(factor) for factor in np.linspace(1.05, 0.4, 131))

    def __init__(self, bits: int, covariance: FloatArray, scale_bits: int = ANY_SCALE) -> None:
        self.bits = bits
        self.scale_bits = scale_bits
        variances = np.diag(covariance)
        mean = variances.mean() or 1.0  # operands that never change: as if they were noise
        self._covariance = covariance + _DAMPING * mean * np.eye(len(variances))
        self._order = np.argsort(-variances, kind="stable")  # the last ones, with little weight, take the rest
        ordered = self._covariance[np.ix_(self._order, self._order)]
        self._influence = np.linalg.cholesky(np.linalg.inv(ordered)).T

    def best_scale(self, weights: FloatArray) -> FloatArray:
        return best_scale(weights, self)

    def codes(self, weights: FloatArray, scale: FloatArray) -> IntArray:
        # Two starts, the second so that no row gets worse than nearest.
        starts = np.concatenate([self.rough_codes(weights, scale), _nearest(weights / scale[:, None], self.bits)])
        weights, scale = np.tile(weights, (2, 1)), np.tile(scale, 2)
        found = self._refined(weights, scale, starts)
        errors = np.split(self.error(weights - found * scale[:, None]), 2)
        return np.where((errors[0] <= errors[1])[:, None], *np.split(found, 2))

    def error(self, lost: FloatArray) -> FloatArray:
        return np.asarray(((lost @ self._covariance) * lost).sum(axis=1))

    def rough_codes(self, weights: FloatArray, scale: FloatArray) -> IntArray:
        left = weights.T[self._order]  # by column, as they are rounded
        codes = np.empty(left.shape, np.int64)
        for column, influence in enumerate(self._influence):
            rounded = _nearest(left[column] / scale, self.bits)
            codes[self._order[column]] = rounded
            error = (left[column] - rounded * scale) / influence[column]
            left[column + 1 :] -= np.outer(influence[column + 1 :], error)
        return codes.T

    def _refined(self, weights: FloatArray, scale: FloatArray, codes: IntArray) -> IntArray:
        """Coordinate descent: each code in turn the best one while the others stay."""
        by_column = codes.T.copy()
        slope = self._covariance @ (weights - codes * scale[:, None]).T
        variances = np.diag(self._covariance)
        for _ in range(_SWEEPS):
            settled = True
            for column, code in enumerate(by_column):
                better = _nearest(code + slope[column] / (variances[column] * scale), self.bits)
                if (better != code).any():
                    slope -= np.outer(self._covariance[column], (better - code) * scale)
                    by_column[column] = better
                    settled = False
            if settled:
                break
        return by_column.T


class Remembered:
    """Another rounding, always for the same weights: what it has found once, it knows."""

    def __init__(self, rounding: Rounding) -> None:
        self.bits = rounding.bits
        self._rounding = rounding
        self._scale: FloatArray | None = None
        self._codes: dict[bytes, IntArray] = {}  # by their scales

    def best_scale(self, weights: FloatArray) -> FloatArray:
        if self._scale is None:
            self._scale = self._rounding.best_scale(weights)
        return self._scale

    def codes(self, weights: FloatArray, scale: FloatArray) -> IntArray:
        key = scale.tobytes()
        if key not in self._codes:
            self._codes[key] = self._rounding.codes(weights, scale)
        return self._codes[key]


def _nearest(values: FloatArray, bits: int) -> IntArray:
    end = 2 ** (bits - 1)
    return np.clip(round_half_up(values), -end, end - 1).astype(np.int64)
