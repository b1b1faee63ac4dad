"""Scales and biases of rows in short: one byte, and two. It is where they lie that differs, and no number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from quantgru.int_model.int_model import IntModel
from quantgru.int_model.layers import IntGru, Matrix
from quantgru.int_model.packing import matrices

_CODE_BYTES: Final = 48  # of a step and of the loop over rows: what short ones take beyond exact ones, on a Cortex-M0


@dataclass(frozen=True)
class RowParameters:
    """What scales and biases of rows can be.

    multiplier_bits  upper bits of a multiplier that can differ from zero, the first of which is one
    shift_range      what the shifts of a matrix can differ by
    bias_bits        of all biases of a GRU layer, which have one shift

    A dense layer has few biases: they are always exact.
    """

    multiplier_bits: int
    shift_range: int
    bias_bits: int


EXACT: Final = RowParameters(multiplier_bits=15, shift_range=29, bias_bits=32)
SHORT: Final = RowParameters(multiplier_bits=6, shift_range=7, bias_bits=16)

RowParametersName = Literal["exact", "short"]
ROW_PARAMETERS: Final[dict[RowParametersName, RowParameters]] = {"exact": EXACT, "short": SHORT}

LEAST_MULTIPLIER: Final = 2 ** (EXACT.multiplier_bits - 1)
_MULTIPLIER_STEP: Final = 2 ** (EXACT.multiplier_bits - SHORT.multiplier_bits)


@dataclass(frozen=True, eq=False)
class ShortScales:
    """Of a matrix: m = 2**9 (32 + b % 32), s = first_shift + b // 32 for each byte b [rows]."""

    scales: npt.NDArray[np.uint8]
    first_shift: int


@dataclass(frozen=True, eq=False)
class ShortBiases:
    """Of a GRU layer: values times 2**shift, [3H], and [H] or none."""

    bias: npt.NDArray[np.int16]
    recurrent_bias: npt.NDArray[np.int16]
    shift: int


def short_scales(matrix: Matrix) -> ShortScales | None:
    """None if a scale cannot be short."""
    steps, left = np.divmod(matrix.multipliers.astype(np.int64) - LEAST_MULTIPLIER, _MULTIPLIER_STEP)
    first_shift = int(matrix.shifts.min())
    shifts = matrix.shifts.astype(np.int64) - first_shift
    if left.any() or shifts.max() > SHORT.shift_range:
        return None
    return ShortScales((32 * shifts + steps).astype(np.uint8), first_shift)


def short_biases(gru: IntGru) -> ShortBiases | None:
    """None if a bias cannot be short."""
    biases = np.concatenate([gru.bias, gru.recurrent_bias]).astype(np.int64)
    shift = bias_shift(biases)
    values = biases >> shift
    if (values << shift != biases).any():
        return None
    bias, recurrent_bias = np.split(values.astype(np.int16), [gru.bias.size])
    return ShortBiases(bias, recurrent_bias, shift)


def bias_shift(biases: npt.NDArray[np.int64]) -> int:
    """The least shift to the right that leaves all of them in s16."""
    largest = max(int(biases.max()), -1 - int(biases.min()))
    return max(0, largest.bit_length() + 1 - SHORT.bias_bits)


def is_short(model: IntModel) -> bool:
    """Whether row parameters are short in flash: where all can be, and that saves more than it takes."""
    n_scales = sum(matrix.n_rows for matrix, _ in matrices(model))
    n_biases = sum(gru.bias.size + gru.recurrent_bias.size for gru in model.grus)
    if 2 * (n_scales + n_biases) <= _CODE_BYTES:  # two bytes of three, and of four
        return False
    can_be = all(short_scales(matrix) is not None for matrix, _ in matrices(model))
    return can_be and all(short_biases(gru) is not None for gru in model.grus)


def short_code_bytes(model: IntModel) -> int:
    """What code takes beyond that for exact row parameters, at most, on any target."""
    return _CODE_BYTES if is_short(model) else 0


def scale_bytes(model: IntModel) -> int:
    """Of each row of a matrix in flash."""
    return 1 if is_short(model) else 3


def bias_bytes(model: IntModel, gru: IntGru) -> int:
    """Of all biases of a layer in flash."""
    return (2 if is_short(model) else 4) * (gru.bias.size + gru.recurrent_bias.size)
