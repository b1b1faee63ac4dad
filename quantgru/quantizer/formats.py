"""Formats of inputs and outputs: where the binary point goes."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from quantgru.array_types import FloatArray, IntArray
from quantgru.fixed import INT16_MAX, INT16_MIN, MAX_FRACTION_BITS, round_half_up

LARGEST_VALUE: Final = INT16_MAX * 2.0**MAX_FRACTION_BITS  # that any s16 format reaches


def largest_fraction_bits(low: npt.ArrayLike, high: npt.ArrayLike) -> IntArray:
    """As many fraction bits as an s16 can have without clipping low ... high, elementwise; within +-LARGEST_VALUE."""
    candidates = np.arange(-MAX_FRACTION_BITS, MAX_FRACTION_BITS + 1)
    factors = np.exp2(candidates)
    low, high = np.asarray(low)[..., None], np.asarray(high)[..., None]
    fits = (round_half_up(high * factors) <= INT16_MAX) & (round_half_up(low * factors) >= INT16_MIN)
    return np.asarray(candidates[fits.sum(axis=-1) - 1])


def input_fraction_bits(low: FloatArray, high: FloatArray, deviation: FloatArray, weights: FloatArray) -> IntArray:
    """Fraction bits of each input feature [inputs]; none clips on low ... high. deviation is the standard deviation.

    Two errors reach a pre-activation: rounding the inputs, which fraction bits reduce, and rounding the weights, which
    grows where raw values of one feature vary more than those of the others, since a row has a single scale. (What it
    does to a mean, the biases take back.) So raw deviations are made equal at a common level as far as the features'
    peaks allow, and the level is the one with the least error through `weights` [rows, inputs], 8-bit codes assumed.
    """
    ceiling = largest_fraction_bits(low, high)
    alive = deviation > 0
    if not alive.any():
        return ceiling
    weights = weights / max(np.abs(weights).max(), np.finfo(np.float64).tiny)  # the error of large ones stays finite
    best: tuple[float, IntArray] | None = None
    for level in np.exp2(np.arange(0, 15.5, 0.5)):
        wanted = np.round(np.log2(level / np.where(alive, deviation, deviation[alive].max())))
        bits = np.clip(np.minimum(wanted, ceiling), -MAX_FRACTION_BITS, MAX_FRACTION_BITS).astype(np.int64)
        error = _pre_activation_error(bits, deviation, weights)
        if best is None or error < best[0]:
            best = error, bits
    assert best is not None
    return best[1]


def _pre_activation_error(bits: IntArray, deviation: FloatArray, weights: FloatArray) -> float:
    """Mean square error of a pre-activation that rounding inputs and weights causes."""
    raw_weights = np.ldexp(weights, -bits)
    steps = np.abs(raw_weights).max(axis=1) / 127
    from_inputs = (raw_weights**2).sum(axis=1)
    from_weights = steps**2 * (np.ldexp(deviation, bits) ** 2).sum()
    return float((from_inputs + from_weights).mean() / 12)


def output_fraction_bits(peak: float) -> int:
    """Fraction bits of a dense layer's s16 output: room for twice the largest value seen."""
    return int(largest_fraction_bits(-2 * peak, 2 * peak))
