"""Rows whose codes have fewer bits than were asked for, because short row parameters hold scales within few octaves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from quantgru.array_types import FloatArray
from quantgru.int_model import IntModel, Matrix
from quantgru.int_model.packing import code_bits
from quantgru.int_model.row_parameters import LEAST_MULTIPLIER, SHORT
from quantgru.model import FloatModel
from quantgru.quantizer.widths import GATES, LEAST_BITS, Widths

_LEAST_SHARE: Final = 0.25  # of a gate's rows: fewer are single units, which can be as small as that and of little use
_DEAD: Final = 2.0**-15  # of the largest weight of a gate: zeros beside it, to any model of 16 bits


def lost_bits_warnings(model: FloatModel, int_model: IntModel, widths: Widths) -> list[str]:
    """One for each gate and each dense layer that has lost bits of its codes to the range of short scales."""
    return [
        f"{where}: codes of {len(bits)} of {len(weights)} rows {_what_is_left(bits, asked)}: "
        f"short scales of a matrix lie within {SHORT.shift_range + 1} octaves, and other rows have larger ones; use "
        "exact row parameters (--row-parameters exact)"
        for where, weights, matrix, first, asked in _sections(model, int_model, widths)
        if len(bits := _bits_of_losers(weights, matrix, first, asked)) >= _LEAST_SHARE * len(weights)
    ]


def _sections(
    model: FloatModel, int_model: IntModel, widths: Widths
) -> Iterator[tuple[str, FloatArray, Matrix, int, int]]:
    """Where it is, weights [rows, columns], the matrix with the first of these rows in it, and the bits asked for."""
    for gru, integers in zip(model.grus, int_model.grus, strict=True):
        for name, weights, matrix in (
            ("W", gru.input_weights, integers.input),
            ("U", gru.recurrent_weights, integers.recurrent),
        ):
            for number, gate in enumerate(GATES):
                where = f"GRU layer {gru.name!r}, {name}, gate {gate}"
                yield where, weights[number], matrix, number * gru.n_units, widths.of(gru.name, name, gate)
    for dense, of_dense in zip(model.dense, int_model.dense, strict=True):
        yield f"dense layer {dense.name!r}", dense.weights, of_dense.matrix, 0, widths.of(dense.name)


def _bits_of_losers(weights: FloatArray, matrix: Matrix, first: int, asked: int) -> list[int]:
    """Bits of the codes of each row that has the least scale there is, too few bits or zeros alone, and weights."""
    rows = slice(first, first + len(weights))
    shifts, codes = matrix.shifts.astype(np.int64), matrix.codes[rows]
    least = (matrix.multipliers[rows] == LEAST_MULTIPLIER) & (shifts[rows] - shifts.min() == SHORT.shift_range)
    peaks = np.abs(weights).max(axis=1)
    bits = np.array([code_bits(row) for row in codes])
    lost = least & ((bits < asked) | ~codes.any(axis=1)) & (peaks > _DEAD * peaks.max())
    return [int(found) for found in bits[lost]]


def _what_is_left(bits: list[int], asked: int) -> str:
    if asked == LEAST_BITS:  # nothing has fewer
        return "are 0"
    found = f"{min(bits)}" if min(bits) == max(bits) else f"{min(bits)} ... {max(bits)}"
    return f"have {found} of the {asked} bits asked for"
