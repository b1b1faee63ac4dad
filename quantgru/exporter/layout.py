"""How numbers lie in the device's memory, and how they are written in C."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from quantgru.array_types import IntArray
from quantgru.int_model.cores import BYTE_BITS, WORD_BITS
from quantgru.int_model.packing import BLOCK_ROWS, Codes, Section

_LINE_LENGTH = 120
_INDENT = "    "


def memory_order(codes: Codes, section_rows: int) -> Codes:
    """Codes [rows, columns] of a byte each, or of two, as the kernels read them: the sections (gates, or all rows of a
    dense layer) one after the other."""
    bits = BYTE_BITS * codes.itemsize
    starts = range(0, codes.shape[0], section_rows)
    return np.concatenate([packed(Section(codes[start : start + section_rows], bits)) for start in starts])


def packed(section: Section) -> Codes:
    """The bytes of a section, or its words for WORD_BITS: blocks of BLOCK_ROWS rows column by column, the first row in
    the lowest bits of a column; then the rows that are left, as one more block with zeros or one row after the other.
    """
    n_rows = len(section.codes)
    blocked = n_rows - n_rows % BLOCK_ROWS
    if n_rows - blocked > section.bits:
        blocked = n_rows
    blocks = [_block(section, first) for first in range(0, blocked, BLOCK_ROWS)]
    return np.concatenate([*blocks, section.codes[blocked:].ravel()])


def _block(section: Section, first_row: int) -> Codes:
    rows = section.codes[first_row : first_row + BLOCK_ROWS]
    return rows.T.ravel() if section.bits == WORD_BITS else _packed_block(rows.astype(np.int64), section.bits)


def _packed_block(codes: IntArray, bits: int) -> npt.NDArray[np.int8]:
    digits = (codes % 2**bits).astype(np.uint64)
    places = np.arange(len(codes), dtype=np.uint64) * np.uint64(bits)
    columns = (digits << places[:, None]).sum(axis=0, dtype=np.uint64)
    in_bytes = columns.astype("<u8").view(np.int8).reshape(-1, BLOCK_ROWS)
    return np.asarray(in_bytes[:, :bits].ravel())


def c_array(c_type: str, name: str, values: Iterable[int]) -> str:
    """A definition of a constant array, lines of at most 120 characters."""
    literals = [_literal(int(value)) for value in values]
    lines = [f"static const {c_type} {name}[{len(literals)}] QG_CONSTANT = {{"]
    line = _INDENT
    for literal in literals:
        if len(line) + len(literal) + 2 > _LINE_LENGTH:
            lines.append(line.rstrip())
            line = _INDENT
        line += f"{literal}, "
    return "\n".join([*lines, line.rstrip(), "};", ""])


def _literal(value: int) -> str:
    # -2147483648 is the negative of a number that is no int32_t.
    return "(-2147483647 - 1)" if value == -(2**31) else str(value)
