"""How many bits a code of weights takes in exported C. It is where codes lie that differs, and no number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from quantgru.errors import ConfigError
from quantgru.int_model.int_model import IntModel
from quantgru.int_model.layers import Matrix

BLOCK_ROWS: Final = 8  # QG_BLOCK_ROWS: they lie in memory together, and a column of them has as many bytes as bits
BYTE_BITS: Final = 8
WORD_BITS: Final = 16  # of codes that a byte does not hold, however many bits they have

# "auto": where that saves flash on every target; "never": a code has a byte of its own, or two above 8 bits; "always":
# as few bits as hold all codes of a section.
Packing = Literal["auto", "never", "always"]

_LEAST_BITS: Final = {"never": BYTE_BITS, "always": 2}

# Bytes of code that packed codes take beyond what those of a byte take, on the core where it is most. An AVR has one
# kernel for all widths. On others the first width costs less than that, as its kernel stands for that of bytes; RV32IMC
# pays most for more of them, and for that of bytes beside them, Cortex-M55 for words.
_AVR_KERNEL: Final = 420
_FURTHER_KERNEL: Final = 450
_BYTE_KERNEL: Final = 495
_WORD_KERNEL: Final = 480

_SECTION_DESCRIPTOR: Final = 16  # with pointers of 4 bytes, as the next one
_PACKING_DESCRIPTOR: Final = 8  # of each matrix

Codes = npt.NDArray[np.int8] | npt.NDArray[np.int16]


@dataclass(frozen=True)
class Section:
    """Rows of a matrix whose codes have equally many bits.

    codes  int8 [rows, columns]; int16 for WORD_BITS
    bits   2 ... 8, or WORD_BITS
    """

    codes: Codes
    bits: int

    @property
    def row_code_bytes(self) -> int:
        """Of a code in a row that lies by itself."""
        return self.codes.itemsize

    @property
    def n_bytes(self) -> int:
        """Of the codes in memory: whole blocks; one that is not full, where it takes less than rows by themselves."""
        blocks, left = divmod(len(self.codes), BLOCK_ROWS)
        return int(self.codes.shape[1]) * (blocks * self.bits + min(left * self.row_code_bytes, self.bits))


def code_bits(codes: Codes) -> int:
    """As many as hold all codes, 2 ... 16."""
    largest = max(int(codes.max(initial=0)), -1 - int(codes.min(initial=0)))
    return max(_LEAST_BITS["always"], 1 + largest.bit_length())


def section_of(codes: Codes, least_bits: int) -> Section:
    """Rows [rows, columns] in as few bits as a section can have, least_bits or more."""
    bits = max(least_bits, code_bits(codes))
    return Section(codes.astype(np.int8), bits) if bits <= BYTE_BITS else Section(codes.astype(np.int16), WORD_BITS)


def section_codes(matrix: Matrix, section_rows: int) -> list[Codes]:
    """Of each gate, or all rows of a dense layer."""
    starts = range(0, matrix.n_rows, section_rows)
    return [matrix.codes[start : start + section_rows] for start in starts]


def sections(matrix: Matrix, section_rows: int, least_bits: int) -> list[Section]:
    """Of each gate, or all rows of a dense layer. Those of equal width become one where rows fill their blocks."""
    found = [section_of(codes, least_bits) for codes in section_codes(matrix, section_rows)]
    if section_rows % BLOCK_ROWS or len({section.bits for section in found}) > 1:
        return found
    return [section_of(matrix.codes, least_bits)]


def matrices(model: IntModel) -> Iterator[tuple[Matrix, int]]:
    """All of a model, each with the rows of a section: a gate, or all of a dense layer."""
    for gru in model.grus:
        yield gru.input, gru.n_units
        yield gru.recurrent, gru.n_units
    for dense in model.dense:
        yield dense.matrix, dense.n_outputs


def least_code_bits(model: IntModel, packing: Packing) -> int:
    """Bits that a code takes at least: 8, or 2 where codes are packed. Raises ConfigError for another packing."""
    if packing not in get_args(Packing):
        raise ConfigError(f"packing {packing!r}, allowed are {', '.join(get_args(Packing))}")
    if packing == "auto":
        in_bytes, packed = (_flash_bytes(model, bits) for bits in (BYTE_BITS, _LEAST_BITS["always"]))
        packing = "always" if packed < in_bytes else "never"
    return _LEAST_BITS[packing]


def in_sections(model: IntModel, least_bits: int) -> bool:
    """Whether matrices lie in sections, for which there is another loop over rows: where a code takes no byte."""
    return any(section.bits != BYTE_BITS for of_matrix in _all_sections(model, least_bits) for section in of_matrix)


def packing_bytes(model: IntModel, least_bits: int) -> int:
    """What sections take beyond their codes, at most, on any target: kernels and descriptors."""
    if not in_sections(model, least_bits):
        return 0
    found = _all_sections(model, least_bits)
    widths = {section.bits for of_matrix in found for section in of_matrix}
    n_narrow = sum(bits < BYTE_BITS for bits in widths)
    kernels = _FURTHER_KERNEL * max(0, n_narrow - 1)
    kernels += _BYTE_KERNEL * (BYTE_BITS in widths) + _WORD_KERNEL * (WORD_BITS in widths)
    descriptors = sum(_PACKING_DESCRIPTOR + _SECTION_DESCRIPTOR * len(of_matrix) for of_matrix in found)
    return max(_AVR_KERNEL, kernels) + descriptors


def code_array_bytes(model: IntModel, least_bits: int) -> list[int]:
    """Of each array of codes of matrices in flash."""
    if not in_sections(model, least_bits):
        return [matrix.codes.size for matrix, _ in matrices(model)]
    return [section.n_bytes for of_matrix in _all_sections(model, least_bits) for section in of_matrix]


def _all_sections(model: IntModel, least_bits: int) -> list[list[Section]]:
    return [sections(*each, least_bits) for each in matrices(model)]


def _flash_bytes(model: IntModel, least_bits: int) -> int:
    return sum(code_array_bytes(model, least_bits)) + packing_bytes(model, least_bits)
