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

# Bytes of code that packed codes take beyond what those of a byte take. An AVR has one kernel for all widths; of the
# others a Cortex-M0 has the least to gain where no code is a byte, and as much to pay as a Cortex-M4 where some are.
_AVR_KERNEL: Final = 420
_LOOP: Final = 80
_KERNEL: Final = 250  # of each width below 8
_BYTE_KERNEL: Final = 140

_SECTION_DESCRIPTOR: Final = 12  # with pointers of 4 bytes, as the next one
_PACKING_DESCRIPTOR: Final = 8  # of each matrix


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


def is_packed(model: IntModel) -> bool:
    """Whether codes lie in sections: where that makes the model smaller by more than it takes."""
    return _saved(model) > packing_bytes(model)


def packing_bytes(model: IntModel) -> int:
    """What sections take beyond their codes, at most, on any target: kernels and descriptors."""
    found = [sections(*each) for each in matrices(model)]
    widths = {section.bits for of_matrix in found for section in of_matrix}
    kernels = _LOOP + _KERNEL * len(widths - {BYTE_BITS}) - (0 if BYTE_BITS in widths else _BYTE_KERNEL)
    descriptors = sum(_PACKING_DESCRIPTOR + _SECTION_DESCRIPTOR * len(of_matrix) for of_matrix in found)
    return max(_AVR_KERNEL, kernels) + descriptors


def code_array_bytes(model: IntModel) -> list[int]:
    """Of each array of codes of matrices in flash."""
    if not is_packed(model):
        return [matrix.codes.size for matrix, _ in matrices(model)]
    return [section.n_bytes for each in matrices(model) for section in sections(*each)]


def _saved(model: IntModel) -> int:
    in_bytes = sum(matrix.codes.size for matrix, _ in matrices(model))
    return in_bytes - sum(section.n_bytes for each in matrices(model) for section in sections(*each))
