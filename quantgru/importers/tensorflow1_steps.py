"""Whether every step of a trace is made as the one before it is, of the step of the input before.

The layers are read off the last step. A comparison on numbers cannot show that all others do the same: what a table
changes in the first of many steps is forgotten at the end. In the trace, two steps have the same operations with the
same constants, down to the input, and to what a GRU layer begins with.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import numpy as np

from quantgru.errors import ModelError
from quantgru.importers.tensorflow1_errors import SMALLER, refused, short
from quantgru.importers.tensorflow1_sums import MismatchError, terms
from quantgru.importers.tensorflow1_trace import FloatArray, Ids, Trace, Vector

BUDGET: Final = 1 << 27  # numbers that are compared
PAIR_COST: Final = 512  # numbers that could be compared in the time that a pair of vectors takes by itself
OF_ROWS: Final = ("matmul", "lookup", "softmax", "log_softmax")  # made of all columns of an operand

TOLERANCE: Final = 1e-12  # of constants that the graph computes of an initial state

LIKE_THE_LAST: Final = "give all of them the same operations and constants, as without tables and masks"

Pair = tuple[Ids, Ids]


class Steps:
    """Compares pairs of rows: what is made at a step, and what is made at the step before.

    strides  by the names of inputs: from the places of what is read at a step to those of the step before
    starts   the pairs where GRU layers begin: the first state and the initial one, backward the reverse
    what     is compared, for the message: sequences are compared in the same way
    """

    def __init__(
        self, trace: Trace, strides: Mapping[str, int], starts: Iterable[Pair] = (), what: str = "step"
    ) -> None:
        self._trace = trace
        self._what = what
        self._strides = strides
        self._starts: dict[tuple[int, int], Pair] = {
            (trace.owner(int(late[0])).start, trace.owner(int(early[0])).start): (late, early) for late, early in starts
        }
        self._before: dict[int, float] = {}  # the initial state, by the ids of the first one
        for pair in self._starts.values():
            self._note_initial(*pair)
            self._note_initial(*pair[::-1])
        self._known: set[tuple[int, int, bytes]] = set()
        self._known_rows: set[tuple[bytes, bytes]] = set()
        self._left = BUDGET

    def want_same(self, pairs: Iterable[Pair]) -> None:
        """Raises ModelError where the rows of a pair, or what they were made of, are made otherwise."""
        pending = [(*pair, "") for pair in pairs]
        while pending:
            late_row, early_row, reader = pending.pop()
            rows = (late_row.tobytes(), early_row.tobytes())
            if rows in self._known_rows:
                continue
            self._known_rows.add(rows)
            for late, early, columns, others in self._segments(late_row, early_row):
                key = (late.start, early.start, columns.tobytes())
                if key in self._known or self._is_start(late, early, columns, others):
                    continue
                self._known.add(key)
                has_constant = "constant" in (late.kind, early.kind)
                are_same = self._are_same_constants if has_constant else self._are_same
                if not are_same(late, early, columns, others):
                    where = f"node {short(reader or late.node or early.node)}"
                    raise refused(where, f"not every {self._what} is computed as the last one is", LIKE_THE_LAST)
                if not has_constant:
                    every = slice(None) if late.kind in OF_ROWS else columns
                    operands = zip(late.operands, early.operands, strict=True)
                    pending += [(a[every], b[every], late.node) for a, b in operands]

    def _segments(self, late: Ids, early: Ids) -> Iterator[tuple[Vector, Vector, Ids, Ids]]:
        """The pairs of vectors that two rows are parts of, and the columns there."""
        while len(late):
            a, b = self._trace.owner(int(late[0])), self._trace.owner(int(early[0]))
            self._spend(len(late) + PAIR_COST)
            columns, others = late - a.start, early - b.start
            inside = (columns >= 0) & (columns < a.width) & (others >= 0) & (others < b.width)
            yield a, b, columns[inside], others[inside]
            late, early = late[~inside], early[~inside]

    def _is_start(self, late: Vector, early: Vector, columns: Ids, others: Ids) -> bool:
        pair = self._starts.get((late.start, early.start))
        if pair is None:
            return False
        return bool((others + early.start - columns - late.start == pair[1][0] - pair[0][0]).all())

    def _are_same(self, late: Vector, early: Vector, columns: Ids, others: Ids) -> bool:
        """Of operations with the same operands, which are still to be compared."""
        if late.kind == "input":
            return late is early and bool((columns - others == self._strides.get(late.node, 0)).all())
        if late.kind != early.kind or not np.array_equal(columns, others):
            return False
        if [len(row) for row in late.operands] != [len(row) for row in early.operands]:
            return False
        self._spend(late.values.size // 64)
        return _is_same_array(late.values, early.values)

    def _are_same_constants(self, late: Vector, early: Vector, columns: Ids, others: Ids) -> bool:
        """One may be computed of an initial state, which is a constant, the other of the first state."""
        if late.kind == early.kind:
            return np.array_equal(late.values[columns], early.values[others])
        if late.kind == "constant":
            late, early, columns, others = early, late, others, columns
        try:
            sums = terms(self._trace, late.start + columns)
        except MismatchError:
            return False
        found = sums.bias
        for product in sums.products:
            if any(int(number) not in self._before for number in product.operand):
                return False
            found = found + [self._before[int(number)] for number in product.operand] @ product.matrix
        expected = early.values[others]
        scale = max(1.0, float(np.abs(expected).max()))
        return not sums.others and bool((np.abs(found - expected) <= TOLERANCE * scale).all())

    def _note_initial(self, state: Ids, initial: Ids) -> None:
        source = self._trace.source(initial)
        if source and source[0].kind == "constant":
            self._before.update(zip(state.tolist(), source[0].values[source[1]].tolist(), strict=True))

    def _spend(self, cost: int) -> None:
        self._left -= cost
        if self._left < 0:
            raise ModelError(f"to compare all steps makes more than {BUDGET} numbers; {SMALLER}")


def _is_same_array(a: FloatArray, b: FloatArray) -> bool:
    """Without a look at the values where both are the same memory."""
    views = [(x.__array_interface__["data"], x.strides, x.shape) for x in (a, b) if a is not b]
    return a is b or views[0] == views[1] or np.array_equal(a, b)
