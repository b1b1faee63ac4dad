"""What became of the numbers of a graph's input, as they run through the graph.

Each number that depends on the input, or is joined with one that does, has an id. Numbers that one operation makes
together, as one row along the last axis, are a vector with ids in sequence; a vector says of which ids it was made, and
how. Tensors hold ids, so whatever only moves numbers (transposes, slices, joins, arrays of a loop) leaves no mark here.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from quantgru.errors import ModelError
from quantgru.importers.tensorflow1_errors import SMALLER

Ids = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

ROW_LIMIT: Final = 1 << 18  # rows that a trace looks at

_NOTHING: Final = np.zeros(0)


@dataclass(frozen=True, eq=False)
class Traced:
    """A tensor of ids, in the shape of the tensor."""

    ids: Ids


@dataclass(frozen=True, eq=False)
class InputIds:
    """Numbers of an input: its name, and their places in it, of all its numbers in a row."""

    name: str
    places: Ids


@dataclass(frozen=True, eq=False)
class Vector:
    """`width` numbers with the ids `start` and following, made by `kind` of the rows `operands`.

    kind     "input", "constant", "matmul", "lookup", "sum", "difference", "product", or an activation
    values   of a constant its numbers, of matmul the matrix, of lookup the table
    node     the name of the graph's node that made it
    """

    kind: str
    start: int
    width: int
    operands: tuple[Ids, ...]
    values: FloatArray
    node: str

    def operand(self, i: int, columns: Ids) -> Ids:
        """The ids of which an elementwise operation made these columns."""
        return self.operands[i][columns]


@dataclass
class Trace:
    """All vectors that were made."""

    _vectors: list[Vector] = field(default_factory=list)
    _starts: list[int] = field(default_factory=list)
    _constants: dict[bytes, Ids] = field(default_factory=dict)
    _next: int = 0
    _n_rows: int = 0

    @property
    def has_input(self) -> bool:
        """Whether there is anything to trace: not in a run on numbers."""
        return bool(self._vectors)

    def input(self, shape: tuple[int, ...], node: str) -> Traced:
        return Traced(self._made("input", node, (), np.zeros(prod(shape))).reshape(shape))

    def ids(self, value: Any) -> Ids:
        """The ids of a tensor; of one that does not depend on the input they are made, the same for the same rows."""
        if isinstance(value, Traced):
            return value.ids
        return self._by_rows((np.asarray(value, dtype=np.float64),), self._constant)

    def elementwise(self, kind: str, node: str, *values: Any) -> Traced:
        operands = np.broadcast_arrays(*map(self.ids, values))
        return Traced(self._by_rows(operands, lambda *rows: self._made(kind, node, rows)))

    def matmul(self, node: str, value: Traced, matrix: FloatArray) -> Traced:
        return Traced(self._by_rows((value.ids,), lambda row: self._made("matmul", node, (row,), matrix)))

    def lookup(self, node: str, table: FloatArray, tokens: Traced) -> Traced:
        return Traced(self._by_rows((tokens.ids[..., None],), lambda row: self._made("lookup", node, (row,), table)))

    def source(self, ids: Ids) -> tuple[Vector, Ids] | None:
        """The vector that all of these ids belong to, and their columns there; None if there are several."""
        vector = self.owner(int(ids[0]))
        columns = ids - vector.start
        return (vector, columns) if ((columns >= 0) & (columns < vector.width)).all() else None

    def owner(self, number: int) -> Vector:
        return self._vectors[bisect_right(self._starts, number) - 1]

    def _by_rows(self, operands: Sequence[Any], made_of: Callable[..., Ids]) -> Ids:
        """The ids that are made of each row of operands, which have one shape."""
        shape = operands[0].shape
        rows = [np.ascontiguousarray(operand).reshape(-1, shape[-1] if shape else 1) for operand in operands]
        self._n_rows += len(rows[0])
        if self._n_rows > ROW_LIMIT:
            raise ModelError(f"a run of the graph makes more than {ROW_LIMIT} rows of numbers; {SMALLER}")
        made = np.stack([made_of(*row) for row in zip(*rows, strict=True)])
        return made.reshape(*shape[:-1], made.shape[1]) if shape else made.reshape(())

    def _constant(self, row: FloatArray) -> Ids:
        key = row.tobytes()
        if key not in self._constants:
            self._constants[key] = self._made("constant", "", (), row)
        return self._constants[key]

    def _made(self, kind: str, node: str, operands: tuple[Ids, ...], values: FloatArray = _NOTHING) -> Ids:
        width = values.shape[-1] if values.size else len(operands[0])
        start = self._next
        self._vectors.append(Vector(kind, start, width, operands, values, node))
        self._starts.append(start)
        self._next += width
        return np.arange(start, start + width, dtype=np.int64)
