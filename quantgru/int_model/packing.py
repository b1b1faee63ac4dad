"""How many bits a code of weights takes in exported C. It is where codes lie that differs, and no number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from quantgru.errors import ConfigError
from quantgru.int_model.cores import ANY, BYTE_BITS, WORD_BITS, Core, check_core, cores_of, kernel_code_bytes
from quantgru.int_model.int_model import IntModel
from quantgru.int_model.layers import Matrix

BLOCK_ROWS: Final = 8  # QG_BLOCK_ROWS: they lie in memory together, and a column of them has as many bytes as bits

# "auto": where that saves flash on every target; "never": a code has a byte of its own, or two above 8 bits; "always":
# as few bits as hold all codes of a section.
Packing = Literal["auto", "never", "always"]

_LEAST_BITS: Final = {"never": BYTE_BITS, "always": 2}

_SECTION_DESCRIPTOR: Final = 16  # with pointers of 4 bytes, as the next one
_PACKING_DESCRIPTOR: Final = 8  # of each matrix

Codes = npt.NDArray[np.int8] | npt.NDArray[np.int16]


@dataclass(frozen=True)
class SectionSize:
    """Rows of a matrix whose codes have equally many bits: 2 ... 8, or WORD_BITS."""

    n_rows: int
    n_columns: int
    bits: int

    @property
    def row_code_bytes(self) -> int:
        """Of a code in a row that lies by itself."""
        return 1 if self.bits <= BYTE_BITS else 2

    @property
    def n_bytes(self) -> int:
        """Of the codes in memory: whole blocks; one that is not full, where it takes less than rows by themselves."""
        blocks, left = divmod(self.n_rows, BLOCK_ROWS)
        return self.n_columns * (blocks * self.bits + min(left * self.row_code_bytes, self.bits))


@dataclass(frozen=True)
class Section:
    """Such rows, with their codes int8 [rows, columns]; int16 for WORD_BITS."""

    codes: Codes
    bits: int

    @property
    def size(self) -> SectionSize:
        """Its shape and width."""
        n_rows, n_columns = self.codes.shape
        return SectionSize(n_rows, n_columns, self.bits)


Layout = Sequence[Sequence[SectionSize]]  # of each matrix of a model


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
    if _become_one(section_rows, [section.bits for section in found]):
        return [section_of(matrix.codes, least_bits)]
    return found


def section_sizes(n_columns: int, section_rows: int, widths: Sequence[int]) -> Sequence[SectionSize]:
    """Of the sections of a matrix whose gates have these widths, in the layout of `sections`."""
    if _become_one(section_rows, widths):
        return (SectionSize(section_rows * len(widths), n_columns, widths[0]),)
    return tuple(SectionSize(section_rows, n_columns, bits) for bits in widths)


def _become_one(section_rows: int, widths: Sequence[int]) -> bool:
    return section_rows % BLOCK_ROWS == 0 and len(set(widths)) == 1


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
    return _LEAST_BITS[packing_for(model) if packing == "auto" else packing]


def packing_for(model: IntModel, core: Core = ANY) -> Packing:
    """What takes less flash on a core: "always" or "never"; for ANY "always" where that takes less on each.

    Raises ConfigError for a core that is not known.
    """
    check_core(core)
    never, always = (layout(model, _LEAST_BITS[packing]) for packing in ("never", "always"))
    smaller = all(code_flash_bytes(always, each) < code_flash_bytes(never, each) for each in cores_of(core))
    return "always" if smaller else "never"


def layout(model: IntModel, least_bits: int) -> Layout:
    """How codes of a model lie in memory, in as few bits as a section can have, least_bits or more."""
    return [[section.size for section in sections(*each, least_bits)] for each in matrices(model)]


def in_sections(of_codes: Layout) -> bool:
    """Whether matrices lie in sections, for which there is another loop over rows: where a code takes no byte."""
    return any(size.bits != BYTE_BITS for of_matrix in of_codes for size in of_matrix)


def code_array_bytes(of_codes: Layout) -> list[int]:
    """Of each array of codes of matrices in flash: of a section, or of a matrix in bytes."""
    in_memory = [[size.n_bytes for size in of_matrix] for of_matrix in of_codes]
    return [n for of_matrix in in_memory for n in of_matrix] if in_sections(of_codes) else list(map(sum, in_memory))


def packing_bytes(of_codes: Layout, core: Core = ANY) -> int:
    """What sections take beyond their codes, at most: kernels and descriptors."""
    if not in_sections(of_codes):
        return 0
    widths = {size.bits for of_matrix in of_codes for size in of_matrix}
    descriptors = sum(_PACKING_DESCRIPTOR + _SECTION_DESCRIPTOR * len(of_matrix) for of_matrix in of_codes)
    return kernel_code_bytes(widths, core) + descriptors


def code_flash_bytes(of_codes: Layout, core: Core = ANY) -> int:
    """Codes, and what they take beyond that at most."""
    return sum(code_array_bytes(of_codes)) + packing_bytes(of_codes, core)
