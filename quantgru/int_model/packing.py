"""Which codes of weights take less than a byte in exported C. It is where they lie that differs, and no number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from quantgru.int_model.int_model import IntModel
from quantgru.int_model.layers import Matrix

BLOCK_ROWS: Final = 8  # QG_BLOCK_ROWS: they lie in memory together, and a column of them has as many bytes as bits
BYTE_BITS: Final = 8

_LEAST_BITS: Final = 2
_LEAST_SAVED: Final = 512  # bytes of a model. What computes with codes of one width takes as many, of each more 260


@dataclass(frozen=True)
class Section:
    """Rows of a matrix whose codes have equally many bits.

    codes  [rows, columns]
    bits   2 ... 8
    """

    codes: npt.NDArray[np.int8]
    bits: int

    @property
    def n_bytes(self) -> int:
        """Of the codes in memory: whole blocks; a block that is not full, where it takes less than rows of bytes."""
        blocks, left = divmod(len(self.codes), BLOCK_ROWS)
        return int(self.codes.shape[1]) * (blocks * self.bits + min(left, self.bits))


def code_bits(codes: npt.NDArray[np.int8]) -> int:
    """As many as hold all codes, 2 ... 8."""
    largest = max(int(codes.max(initial=0)), -1 - int(codes.min(initial=0)))
    return max(_LEAST_BITS, 1 + largest.bit_length())


def sections(matrix: Matrix, section_rows: int) -> list[Section]:
    """Of each gate, or all rows of a dense layer. Those of equal width become one where rows fill their blocks."""
    codes = np.split(matrix.codes, matrix.n_rows // section_rows)
    bits = [code_bits(section) for section in codes]
    if section_rows % BLOCK_ROWS or len(set(bits)) > 1:
        return [Section(*both) for both in zip(codes, bits, strict=True)]
    return [Section(matrix.codes, bits[0])]


def matrices(model: IntModel) -> Iterator[tuple[Matrix, int]]:
    """All of a model, each with the rows of a section: a gate, or all of a dense layer."""
    for gru in model.grus:
        yield gru.input, gru.n_units
        yield gru.recurrent, gru.n_units
    for dense in model.dense:
        yield dense.matrix, dense.n_outputs


def packed_sections(model: IntModel, matrix: Matrix, section_rows: int) -> list[Section]:
    """Those of a matrix of the model whose codes are packed; [] where all are bytes."""
    return sections(matrix, section_rows) if _saved(matrix, section_rows) and _is_packed(model) else []


def code_array_bytes(model: IntModel) -> list[int]:
    """Of each array of codes of matrices in flash."""
    found = []
    for matrix, section_rows in matrices(model):
        packed = packed_sections(model, matrix, section_rows)
        found += [section.n_bytes for section in packed] or [matrix.codes.size]
    return found


def _is_packed(model: IntModel) -> bool:
    """Whether packing makes the model smaller by more than its kernels take."""
    return sum(_saved(*each) for each in matrices(model)) >= _LEAST_SAVED


def _saved(matrix: Matrix, section_rows: int) -> int:
    return matrix.codes.size - sum(section.n_bytes for section in sections(matrix, section_rows))
