"""The tables of docs/sources.md, read: what each source can say, cell by cell."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from support_cases import Functions

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "sources.md"
CELLS: Final = ("yes", "no", "–")

Table = dict[str, dict[str, str]]


def rows(name: str) -> list[list[str]]:
    """The cells of a marked table, its header first."""
    text = PAGE.read_text(encoding="utf-8")
    (marked,) = re.findall(rf"<!-- {name}:.*?-->\n(.*?)<!-- end of {name} -->", text, re.DOTALL)
    header, _, *lines = ([cell.strip() for cell in line.strip("|").split("|")] for line in marked.splitlines())
    return [header, *lines]


def table(name: str) -> Table:
    """A marked table by column and row. Every cell is one of CELLS."""
    (_, *columns), *lines = rows(name)
    found: Table = {column: {} for column in columns}
    for row, *cells in lines:
        for column, cell in zip(columns, cells, strict=True):
            assert cell in CELLS, f"{row}, {column}: {cell!r}"
            assert row not in found[column], f"{row} twice"
            found[column][row] = cell
    return found


@dataclass(frozen=True)
class SupportedFunctions:
    """What one column says of functions; resets are (where the reset gate acts, how many biases)."""

    gates: tuple[str, ...]
    candidates: tuple[str, ...]
    resets: tuple[tuple[str, str], ...]

    def all(self) -> Iterator[Functions]:
        """Each gate with each candidate, with each kind of reset and biases."""
        for gate in self.gates:
            for candidate in self.candidates:
                for reset, bias in self.resets:
                    yield Functions(gate, candidate, reset, bias)


def functions_of(cells: dict[str, str]) -> SupportedFunctions:
    """The rows "gates NAME", "candidate NAME" and "reset WHERE, NUMBER bias" that say yes."""
    said = [row for row, cell in cells.items() if cell == "yes"]
    gates = [row.removeprefix("gates ") for row in said if row.startswith("gates ")]
    candidates = [row.removeprefix("candidate ") for row in said if row.startswith("candidate ")]
    resets = [re.fullmatch(r"reset (after|before), (two|one|no) bias(?:es)?", row) for row in said]
    pairs = [(match[1], match[2]) for match in resets if match]
    assert len(gates) + len(candidates) + len(pairs) == len(said), said
    return SupportedFunctions(tuple(gates), tuple(candidates), tuple(pairs))


# What is refused: for each text of the first column, what the error names.
REFUSALS: Final = {what: named.strip("`") for what, named, _ in rows("refusals")[1:]}
STRUCTURES: Final = table("structures")
FUNCTIONS: Final = {source: functions_of(cells) for source, cells in table("functions").items()}
