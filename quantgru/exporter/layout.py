"""How numbers lie in the device's memory, and how they are written in C."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

BLOCK_ROWS: Final = 8  # QG_BLOCK_ROWS

_LINE_LENGTH = 120
_INDENT = "    "


def memory_order(codes: npt.NDArray[np.int8], section_rows: int) -> npt.NDArray[np.int8]:
    """Codes [rows, columns] as the kernels read them: in each section of rows (a gate, or all rows of a dense layer)
    blocks of BLOCK_ROWS rows column by column, then the rows that are left, one after the other."""
    parts = []
    for start in range(0, codes.shape[0], section_rows):
        section = codes[start : start + section_rows]
        blocked = section_rows - section_rows % BLOCK_ROWS
        parts += [section[first : first + BLOCK_ROWS].T.ravel() for first in range(0, blocked, BLOCK_ROWS)]
        parts.append(section[blocked:].ravel())
    return np.concatenate(parts)


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
