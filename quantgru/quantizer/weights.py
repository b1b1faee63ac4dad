"""Weights to integer codes with one scale per row, rounded to nearest."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from quantgru.errors import ModelError
from quantgru.fixed import INT32_MAX, round_half_up
from quantgru.int_model import Matrix
from quantgru.int_model.types import MAX_LEFT_SHIFT

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_LARGEST_SHIFT = 30


def quantize_rows(weights: FloatArray, fraction_bits: int, where: str) -> Matrix:
    """Integer rows whose requantized sums have `fraction_bits`; weights [rows, columns] act on raw operands.

    Each row's scale is the smallest that holds its weights in -128 ... 127, then rounded up to a multiplier of 15 bits
    and a shift; the codes are rounded with the scale that the device will use. A row whose accumulator could overflow
    gets a larger scale. Raises ModelError where weights are too large for any.
    """
    scale = np.maximum(weights.max(axis=1) / 127, -weights.min(axis=1) / 128)
    multiplier, exponent = _multipliers(np.ldexp(scale, fraction_bits))
    left_shift = max(0, int((1 - exponent).max()))
    if left_shift > MAX_LEFT_SHIFT:
        row = int(exponent.argmin())
        raise ModelError(
            f"{where}, row {row}: weights up to {np.abs(weights[row]).max():.3g} on raw operands are too large for a "
            "fixed-point pre-activation; scale the inputs, or check the calibration data"
        )
    codes = _codes(weights, multiplier, exponent, fraction_bits)
    bounds = (np.abs(codes).sum(axis=1) << 15) << left_shift
    if (bounds > INT32_MAX).any():
        enlarged = scale * np.maximum(1.0, bounds / INT32_MAX * 1.01)  # 1 %: room for the rounding of the codes
        multiplier, exponent = _multipliers(np.ldexp(enlarged, fraction_bits))
        codes = _codes(weights, multiplier, exponent, fraction_bits)
    shift = exponent + left_shift
    if shift.min() < 1:
        row = int(shift.argmin())
        raise ModelError(f"{where}, row {row}: no scale keeps its accumulator below 2^31; use fewer or smaller weights")
    return Matrix(
        codes.astype(np.int8), multiplier.astype(np.uint16), np.minimum(shift, 30).astype(np.uint8), left_shift
    )


def _multipliers(factors: FloatArray) -> tuple[IntArray, IntArray]:
    """m and e with m / 2**(16 + e) >= factor, m in 2**14 ... 2**15 - 1, as close as 15 bits allow; e <= 30.

    A factor that would need more than 30 bits of shift, or 0, is rounded up to the smallest there is: such a row is
    nearly dead, its codes become 0 or close to it.
    """
    smallest = 2.0 ** (14 - 16 - _LARGEST_SHIFT)
    mantissa, binary_exponent = np.frexp(np.maximum(factors, smallest))  # mantissa in 1/2 ... 1
    multiplier = np.ceil(mantissa * 2**15).astype(np.int64)
    exponent = (15 - 16 - binary_exponent).astype(np.int64)
    overflown = multiplier == 2**15
    return np.where(overflown, 2**14, multiplier), exponent - overflown


def _codes(weights: FloatArray, multiplier: IntArray, exponent: IntArray, fraction_bits: int) -> IntArray:
    scale = np.ldexp(multiplier.astype(np.float64), -(16 + exponent) - fraction_bits)
    return np.clip(round_half_up(weights / scale[:, None]), -128, 127).astype(np.int64)


def quantize_bias(bias: FloatArray, fraction_bits: int, where: str) -> npt.NDArray[np.int32]:
    """Biases as s32 with `fraction_bits`. Raises ModelError for one that does not fit."""
    raw = round_half_up(np.ldexp(bias, fraction_bits))
    if np.abs(raw).max(initial=0) > INT32_MAX:
        row = int(np.abs(raw).argmax())
        raise ModelError(
            f"{where}: bias {bias.flat[row]:.6g} does not fit s32f{fraction_bits}; check the model's weights"
        )
    return raw.astype(np.int32)
