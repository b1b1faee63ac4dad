"""Real weights to integer codes, for given row scales: each to nearest, or errors of some made up for by others."""

from __future__ import annotations

import hashlib
from typing import Final, Literal, Protocol

import numpy as np

from quantgru.array_types import FloatArray, IntArray
from quantgru.fixed import round_half_up

RoundingName = Literal["compensated", "nearest"]

ANY_SCALE: Final = 53  # bits of a scale's mantissa: all that float64 has

_DAMPING: Final = 1e-2  # of the mean variance of an operand: as if each had that much noise of its own
_SCALE_FACTORS: Final = np.linspace(1.05, 0.4, 131)  # worth trying: times the smallest that holds a row's weights
_STEPS_PER_COLUMN: Final = 2
_SWEEPS: Final = 10  # of the refinement; it ends earlier where nothing changes any more
_COLUMNS_AT_ONCE: Final = 16  # that hand their errors on to all later ones in a single product
_AT_ONCE: Final = 2**16  # weights that are tried: as many as a processor's cache holds
_MATRIX_VALUES: Final = 2**22  # of all matrices that are in memory for rows at the same time


class RowRounding(Protocol):
    """A way to round rows of a matrix, to codes of `bits`."""

    bits: int

    def best_scale(self, weights: FloatArray) -> FloatArray:
        """The scale of each row [rows] with the least error, for weights [rows, columns]."""

    def codes(self, weights: FloatArray, scale: FloatArray) -> IntArray:
        """-2**(bits - 1) ... 2**(bits - 1) - 1 [rows, columns], for weights [rows, columns] on scales [rows]."""


def least_steps(n_columns: int) -> int:
    """Steps of calibration data that say how n_columns operands go together."""
    return _STEPS_PER_COLUMN * n_columns


class Nearest:
    """Each weight by itself, as if operands had nothing to do with one another. All weights fit their row's scale."""

    def __init__(self, bits: int) -> None:
        self.bits = bits

    def best_scale(self, weights: FloatArray) -> FloatArray:
        return _smallest_scale(weights, self.bits)

    def codes(self, weights: FloatArray, scale: FloatArray) -> IntArray:
        return _nearest(weights / scale[:, None], self.bits)


class Measure:
    """What errors of weights cost their row: a square, e . curvature e for errors e [columns].

    curvature [groups, columns, columns], each for as many rows that follow each other. Every operand gets a little
    noise of its own: no two go together so well that errors should grow without limit to make up for one another.
    """

    def __init__(self, curvature: FloatArray) -> None:
        n = curvature.shape[1]
        variances = np.einsum("gcc->gc", curvature)
        means = variances.mean(axis=1, keepdims=True)
        means[means == 0] = 1.0  # operands that never change: as if they were noise
        self.curvature = curvature + _DAMPING * means[..., None] * np.eye(n)
        # The last columns, with little weight, take the rest.
        self.order = np.argsort(-(variances / means).mean(axis=0), kind="stable")
        ordered = self.curvature[:, self.order][:, :, self.order]
        self.influence = np.swapaxes(np.linalg.cholesky(np.linalg.inv(ordered)), 1, 2)

    def groups(self, n_rows: int) -> IntArray:
        """The group of each of so many rows."""
        return groups_of(n_rows, len(self.curvature))


def groups_of(n_rows: int, n_groups: int) -> IntArray:
    """Numbers [rows] of groups as equal as can be, of rows that follow each other."""
    return np.arange(n_rows) * n_groups // n_rows


def rows_of_groups(n_rows: int, n_groups: int) -> list[IntArray]:
    """Numbers of the rows of each."""
    groups = groups_of(n_rows, n_groups)
    return [np.flatnonzero(groups == group) for group in range(n_groups)]


class Compensated:
    """Column by column, with each column's error taken over by the columns that are still to be rounded, as far as
    their operands go together with its own; then code by code, until no change of one lowers the error.

    Source: E. Frantar et al., "GPTQ", 2022, after B. Hassibi and D. Stork, "Optimal Brain Surgeon", 1993. Here rows
    choose their scales by the same measure, and the refinement comes on top.
    """

    def __init__(self, bits: int, measure: Measure, scale_bits: int = ANY_SCALE) -> None:
        self.bits = bits
        self._measure = measure
        self._scale_bits = scale_bits

    def best_scale(self, weights: FloatArray) -> FloatArray:
        smallest = np.outer(_smallest_scale(weights, self.bits), _SCALE_FACTORS)
        scales = _rounded_up(np.maximum(smallest, np.finfo(np.float64).tiny), self._scale_bits)  # a row of zeros
        groups = self._measure.groups(len(weights))
        chunks = _chunks(weights, scales.shape[1])
        errors = np.concatenate([self._pushed_on(weights[few], scales[few], groups[few])[1] for few in chunks])
        return np.asarray(np.take_along_axis(scales, errors.argmin(axis=1)[:, None], axis=1)[:, 0])

    def codes(self, weights: FloatArray, scale: FloatArray) -> IntArray:
        groups = self._measure.groups(len(weights))
        return np.concatenate([self._codes(weights[few], scale[few], groups[few]) for few in _chunks(weights, 2)])

    def _codes(self, weights: FloatArray, scale: FloatArray, groups: IntArray) -> IntArray:
        pushed, _ = self._pushed_on(weights, scale[:, None], groups)
        # Two starts, the second so that no row gets worse than nearest.
        starts = np.stack((pushed[:, 0], _nearest(weights / scale[:, None], self.bits)), axis=1)
        found = self._refined(weights, scale, starts, groups)
        lost = weights[:, None] - found * scale[:, None, None]
        errors = ((lost @ self._measure.curvature[groups]) * lost).sum(axis=2)
        return np.asarray(found[np.arange(len(found)), errors.argmin(axis=1)])

    def _pushed_on(self, weights: FloatArray, scales: FloatArray, groups: IntArray) -> tuple[IntArray, FloatArray]:
        """Codes [rows, scales, columns] and their errors [rows, scales], for scales of each row."""
        influence, order = self._measure.influence[groups], self._measure.order
        left = np.repeat(weights[:, None, order], scales.shape[1], axis=1)
        codes = np.empty(left.shape, np.int64)
        pushed = np.empty(left.shape)  # what each column hands on, times its influence on each of the others
        for begin in range(0, len(order), _COLUMNS_AT_ONCE):
            end = begin + _COLUMNS_AT_ONCE
            for column in range(begin, min(end, len(order))):
                rounded = _nearest(left[..., column] / scales, self.bits)
                codes[..., order[column]] = rounded
                error = (left[..., column] - rounded * scales) / influence[:, column, column, None]
                left[..., column + 1 : end] -= error[..., None] * influence[:, None, column, column + 1 : end]
                pushed[..., column] = error
            left[..., end:] -= pushed[..., begin:end] @ influence[:, begin:end, end:]
        return codes, np.asarray((pushed**2).sum(axis=2))

    def _refined(self, weights: FloatArray, scale: FloatArray, starts: IntArray, groups: IntArray) -> IntArray:
        """Coordinate descent from starts [rows, starts, columns]: each code in turn the best one while others stay."""
        curvature, scales = self._measure.curvature[groups], scale[:, None]
        codes = starts.copy()
        slope = (weights[:, None] - codes * scales[..., None]) @ curvature
        variances = np.einsum("rcc->rc", curvature)
        for _ in range(_SWEEPS):
            settled = True
            for column in range(weights.shape[1]):
                code = codes[..., column]
                better = _nearest(code + slope[..., column] / (variances[:, column, None] * scales), self.bits)
                changed = (better != code).any(axis=1)
                if changed.any():
                    change = ((better - code) * scales)[changed]
                    slope[changed] -= change[..., None] * curvature[changed, None, column]
                    codes[..., column] = better
                    settled = False
            if settled:
                break
        return codes


class Remembered:
    """Another rounding: what it has found once, it knows."""

    def __init__(self, rounding: RowRounding) -> None:
        self.bits = rounding.bits
        self._rounding = rounding
        self._scales: dict[bytes, FloatArray] = {}  # by weights
        self._codes: dict[bytes, IntArray] = {}  # by weights and scales

    def best_scale(self, weights: FloatArray) -> FloatArray:
        key = _digest(weights)
        if key not in self._scales:
            self._scales[key] = self._rounding.best_scale(weights)
        return self._scales[key]

    def codes(self, weights: FloatArray, scale: FloatArray) -> IntArray:
        key = _digest(weights, scale)
        if key not in self._codes:
            self._codes[key] = self._rounding.codes(weights, scale)
        return self._codes[key]


def _chunks(weights: FloatArray, n_tried: int) -> list[IntArray]:
    """Numbers of rows, some after the others: as many as caches hold n_tried codes of, and memory a matrix for each."""
    n_rows, n_columns = weights.shape
    at_once = max(1, min(_AT_ONCE // (n_tried * n_columns), _MATRIX_VALUES // n_columns**2))
    return np.array_split(np.arange(n_rows), -(-n_rows // at_once))


def _digest(*arrays: FloatArray) -> bytes:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.digest()


def _smallest_scale(weights: FloatArray, bits: int) -> FloatArray:
    """Of each row, one that holds all its weights."""
    end = 2 ** (bits - 1)
    return np.asarray(np.maximum(weights.max(axis=1) / (end - 1), weights.min(axis=1) / -end))


def _rounded_up(scales: FloatArray, bits: int) -> FloatArray:
    """With mantissas of `bits`."""
    mantissa, exponent = np.frexp(scales)
    return np.asarray(np.ldexp(np.ceil(np.ldexp(mantissa, bits)), exponent - bits))


def _nearest(values: FloatArray, bits: int) -> IntArray:
    end = 2 ** (bits - 1)
    return np.clip(round_half_up(values), -end, end - 1).astype(np.int64)
