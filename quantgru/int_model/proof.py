"""The proof that no accumulator and no pre-activation can overflow (SPEC.md, chapter 7)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from quantgru.array_types import IntArray
from quantgru.errors import ModelError
from quantgru.fixed import INT32_MAX
from quantgru.int_model.layers import IntDense, IntGru, Matrix


@dataclass(frozen=True)
class Bounds:
    """The largest magnitudes that any input can reach in a layer; each at most 2**31 - 1.

    accumulators    of each matrix, after the left shift (P1)
    pre_activation  sum of all parts of one row (P2)
    """

    accumulators: tuple[int, ...]
    pre_activation: int


def accumulator_bounds(matrix: Matrix) -> IntArray:
    """|accumulator * 2**k| of each row, over all int16 operands and all partial sums in any order."""
    sums = np.abs(matrix.codes, dtype=np.int32).sum(axis=1, dtype=np.int64)
    return np.asarray((sums << 15) << matrix.left_shift)


def requantized_bounds(matrix: Matrix) -> IntArray:
    """|requantize| of each row."""
    # Below 2**31 * 2**15 where P1 holds; P1 is checked first.
    product = accumulator_bounds(matrix) * matrix.multipliers.astype(np.int64)
    return np.asarray((product >> (16 + matrix.shifts.astype(np.int64))) + 1)


def prove(layer: IntGru | IntDense) -> Bounds:
    """Returns the bounds of a layer. Raises ModelError, with layer and row, where one reaches 2**31."""
    matrices = {"W": layer.input, "U": layer.recurrent} if isinstance(layer, IntGru) else {"weights": layer.matrix}
    accumulators = tuple(
        _largest(accumulator_bounds(matrix), f"layer {layer.name!r}, accumulator of {label}")
        for label, matrix in matrices.items()
    )
    return Bounds(accumulators, _largest(_pre_activations(layer), f"layer {layer.name!r}, pre-activation"))


def _pre_activations(layer: IntGru | IntDense) -> IntArray:
    bias = np.abs(layer.bias.astype(np.int64))
    if isinstance(layer, IntDense):
        return requantized_bounds(layer.matrix) + bias
    sums = requantized_bounds(layer.input) + requantized_bounds(layer.recurrent) + bias
    if layer.reset == "after":
        sums[2 * layer.n_units :] += np.abs(layer.recurrent_bias.astype(np.int64))
    return np.asarray(sums)


def _largest(bounds: IntArray, what: str) -> int:
    row = int(bounds.argmax())
    if bounds[row] > INT32_MAX:
        raise ModelError(
            f"{what}: row {row} can reach {bounds[row]}, allowed is 2^31 - 1; "
            "lower the weights of that row, or scale its inputs"
        )
    return int(bounds[row])
