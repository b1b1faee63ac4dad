"""Weights to integer codes with one scale per row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from quantgru.array_types import FloatArray, IntArray
from quantgru.errors import ModelError
from quantgru.fixed import INT16_MAX, INT32_MAX, round_half_up, round_shift
from quantgru.int_model import Matrix
from quantgru.int_model.row_parameters import EXACT, SHORT, RowParameters, bias_shift
from quantgru.quantizer.rounding import RowRounding

_LARGEST_SHIFT = 30


def quantize_rows(
    weights: FloatArray,
    fraction_bits: IntArray | int,
    roundings: Sequence[RowRounding],
    where: str,
    parameters: RowParameters = EXACT,
) -> Matrix:
    """Integer rows whose requantized sums have `fraction_bits`, [rows] or one for all; weights act on raw operands.

    `roundings` are those of each of as many equal parts of the rows. A row's scale is the one, among those that its
    rounding tries, with the least error. Raises ModelError where weights are too large for any.
    """
    fraction_bits = np.broadcast_to(fraction_bits, weights.shape[:1])
    with np.errstate(over="ignore"):
        sums = np.ldexp(np.abs(weights).sum(axis=1), 15 + fraction_bits)
    if not sums.max() <= 2**29:  # the end of what [R4] can return: 2**31 * 2**15 / 2**17
        raise _does_not_fit(weights, fraction_bits, roundings, int(sums.argmax()), where)
    parts = zip(np.split(weights, len(roundings)), roundings, strict=True)
    scale = np.concatenate([rounding.best_scale(of_part) for of_part, rounding in parts])
    return rows_on_scales(weights, scale, fraction_bits, roundings, where, parameters)


def rows_on_scales(
    weights: FloatArray,
    scale: FloatArray,
    fraction_bits: IntArray | int,
    roundings: Sequence[RowRounding],
    where: str,
    parameters: RowParameters = EXACT,
) -> Matrix:
    """The same with given scales [rows], rounded up to a multiplier and a shift.

    Codes are rounded with the scale that the device will use. A row whose accumulator could overflow gets a larger one.
    """
    fraction_bits = np.broadcast_to(fraction_bits, weights.shape[:1])
    parts = list(zip(np.split(weights, len(roundings)), roundings, strict=True))
    _, exponent = _multipliers(np.ldexp(scale, fraction_bits), _LARGEST_SHIFT, parameters)
    left_shift = max(0, int((1 - exponent).max()))  # no factor is above 2**14 / the largest code
    while True:
        multiplier, exponent = _multipliers(np.ldexp(scale, fraction_bits), _LARGEST_SHIFT - left_shift, parameters)
        shift = exponent + left_shift
        if shift.min() < 1:  # of a scale that was enlarged, below
            raise _does_not_fit(weights, fraction_bits, roundings, int(shift.argmin()), where)
        device_scale = np.ldexp(multiplier.astype(np.float64), -(16 + exponent) - fraction_bits)
        scales = np.split(device_scale, len(roundings))
        codes = np.concatenate(
            [rounding.codes(of_part, s) for (of_part, rounding), s in zip(parts, scales, strict=True)]
        )
        bounds = (np.abs(codes).sum(axis=1) << 15) << left_shift
        if (bounds <= INT32_MAX).all():
            return Matrix(codes.astype(np.int16), multiplier.astype(np.uint16), shift.astype(np.uint8), left_shift)
        # Rounded codes may still sum up to too much, but 0.1 % beyond the excess makes each round lower them.
        scale = np.where(bounds > INT32_MAX, scale * (bounds / INT32_MAX) * 1.001, scale)


def _does_not_fit(
    weights: FloatArray, fraction_bits: IntArray, roundings: Sequence[RowRounding], row: int, where: str
) -> ModelError:
    with np.errstate(over="ignore"):
        reached = np.ldexp(np.abs(weights[row]).sum(), 15)
    largest = np.ldexp(1.0, 29 - fraction_bits[row])
    unused = ";"
    if reached <= largest:  # few codes of few bits add up to sums far apart
        bits = roundings[row * len(roundings) // len(weights)].bits
        unused = f", of which codes of {bits} bits may leave half unused; use more bits,"
    return ModelError(
        f"{where}, row {row}: the sum reaches {reached:.4g} where all operands are at the end of their range, and a "
        f"32-bit accumulator holds up to {largest:.6g}{unused} lower the weights, or scale the inputs, with mean= and "
        "scale= if the model was trained on standardised ones"
    )


def _multipliers(factors: FloatArray, largest_exponent: int, parameters: RowParameters) -> tuple[IntArray, IntArray]:
    """m and e with m / 2**(16 + e) >= factor, m in 2**14 ... 2**15 - 1, as close as the bits of a multiplier allow.

    A factor that would need an e above largest_exponent, or too far above that of the largest factor, or 0, is rounded
    up to the smallest there is: such a row is nearly dead, its codes become 0 or close to it.
    """
    dropped = EXACT.multiplier_bits - parameters.multiplier_bits
    factors = np.maximum(factors, _smallest_factor(largest_exponent))
    _, exponent = _parts(factors.max(), dropped)
    most = min(largest_exponent, int(exponent) + parameters.shift_range)
    return _parts(np.maximum(factors, _smallest_factor(most)), dropped)


def _smallest_factor(exponent: int) -> float:
    """2**14 / 2**(16 + exponent)"""
    return 2.0 ** (14 - 16 - exponent)


def _parts(factors: FloatArray, dropped: int) -> tuple[IntArray, IntArray]:
    """m and e, with so many lower bits of m zero."""
    mantissa, binary_exponent = np.frexp(factors)  # mantissa in 1/2 ... 1
    multiplier = np.ceil(mantissa * 2.0 ** (15 - dropped)).astype(np.int64) << dropped
    exponent = (15 - 16 - binary_exponent).astype(np.int64)
    overflown = multiplier == 2**15
    return np.where(overflown, 2**14, multiplier), exponent - overflown


def quantize_bias(bias: FloatArray, fraction_bits: IntArray | int, where: str) -> npt.NDArray[np.int32]:
    """Biases as s32 with `fraction_bits`, [rows] or one for all. Raises ModelError for one that does not fit."""
    fraction_bits = np.broadcast_to(fraction_bits, bias.shape)
    end = np.ldexp(1.0, 31 - fraction_bits)  # itself out of range, and finite times 2**fraction_bits
    raw = round_half_up(np.ldexp(np.clip(bias, -end, end), fraction_bits))
    if np.abs(raw).max(initial=0) > INT32_MAX:
        row = int(np.abs(raw).argmax())
        raise ModelError(
            f"{where}, bias {row}: {bias[row]:.6g} does not fit s32f{fraction_bits[row]}; check the model's weights"
        )
    return raw.astype(np.int32)


def quantize_biases(
    bias: FloatArray, recurrent_bias: FloatArray, row_bits: IntArray, parameters: RowParameters, where: str
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Both biases of a GRU layer, [3H] and [H] or none; short ones have one shift. Raises ModelError."""
    of_candidate = row_bits[len(row_bits) - recurrent_bias.size :]
    raw = [quantize_bias(bias, row_bits, where), quantize_bias(recurrent_bias, of_candidate, where)]
    if parameters == SHORT:
        raw = np.split(shortened(np.concatenate(raw)), [bias.size])
    return raw[0], raw[1]


def shortened(biases: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """The nearest that short biases of one layer can be."""
    exact = biases.astype(np.int64)
    shift = bias_shift(exact)
    if shift == 0:
        return biases
    return (np.minimum(round_shift(exact, shift), INT16_MAX) << shift).astype(np.int32)
