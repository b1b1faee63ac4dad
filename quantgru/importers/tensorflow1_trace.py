"""What became of the numbers of a graph's input, as they run through the graph.

Each number that depends on the input, or is joined with one that does, has an id. Numbers that one operation makes
together, as one row along the last axis, are a vector with ids in sequence; a vector says of which ids it was made, and
how. Tensors hold ids, so whatever only moves numbers (transposes, slices, joins, arrays of a loop) leaves no mark here.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

_NOTHING = np.zeros(0)


@dataclass(frozen=True, eq=False)
class Traced:
    """A tensor of ids, in the shape of the tensor."""

    ids: Ids


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
    """All vectors. The same operation on the same ids is done once."""

    _vectors: list[Vector] = field(default_factory=list)
    _starts: list[int] = field(default_factory=list)
    _known: dict[Any, Vector] = field(default_factory=dict)
    _next: int = 0

    def input(self, shape: tuple[int, ...], node: str) -> Traced:
        size = int(np.prod(shape))
        vector = self._vector("input", (), size, _NOTHING, node)
        return Traced(self._ids(vector).reshape(shape))

    def ids(self, value: Any) -> Ids:
        """The ids of a tensor; of one that does not depend on the input they are made, the same for the same rows."""
        if isinstance(value, Traced):
            return value.ids
        array = np.asarray(value, dtype=np.float64)
        return self._rows((array,), lambda row: self._vector("constant", (), len(row), row, "", row.tobytes()))

    def elementwise(self, kind: str, node: str, *values: Any) -> Traced:
        operands = np.broadcast_arrays(*map(self.ids, values))
        return Traced(self._rows(operands, lambda *rows: self._vector(kind, rows, len(rows[0]), _NOTHING, node)))

    def matmul(self, node: str, value: Traced, matrix: FloatArray) -> Traced:
        width = matrix.shape[1]
        return Traced(self._rows((value.ids,), lambda row: self._vector("matmul", (row,), width, matrix, node)))

    def lookup(self, node: str, table: FloatArray, tokens: Traced) -> Traced:
        ids = tokens.ids[..., None]
        return Traced(self._rows((ids,), lambda row: self._vector("lookup", (row,), table.shape[1], table, node)))

    def source(self, ids: Ids) -> tuple[Vector, Ids] | None:
        """The vector that all of these ids belong to, and their columns there; None if there are several."""
        vector = self.owner(int(ids[0]))
        columns = ids - vector.start
        return (vector, columns) if ((columns >= 0) & (columns < vector.width)).all() else None

    def owner(self, number: int) -> Vector:
        return self._vectors[bisect_right(self._starts, number) - 1]

    def _rows(self, operands: tuple[Any, ...], vector_of: Callable[..., Vector]) -> Ids:
        """The ids of the vectors made of each row."""
        shape = operands[0].shape
        rows = [np.ascontiguousarray(operand).reshape(-1, shape[-1] if shape else 1) for operand in operands]
        made = [self._ids(vector_of(*row)) for row in zip(*rows, strict=True)]
        if not made:
            raise ValueError(f"no rows in shape {shape}")
        return np.stack(made).reshape(*shape[:-1], len(made[0])) if shape else made[0].reshape(())

    def _vector(
        self, kind: str, operands: tuple[Ids, ...], width: int, values: FloatArray, node: str, key: Any = None
    ) -> Vector:
        known = (kind, *(row.tobytes() for row in operands), id(values) if key is None else key)
        if known not in self._known:  # values stay in the vector, so that no other array gets their id()
            self._known[known] = Vector(kind, self._next, width, operands, values, node)
            self._vectors.append(self._known[known])
            self._starts.append(self._next)
            self._next += width
        return self._known[known]

    def _ids(self, vector: Vector) -> Ids:
        return np.arange(vector.start, vector.start + vector.width, dtype=np.int64)
