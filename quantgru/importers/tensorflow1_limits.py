"""Limits of a graph that its comparison with the import could not show: x[:, :200], tf.minimum(tf.shape(x)[1], 150).

A comparison shows what a graph does with the few sizes that it is run with. Larger ones are no way out: a limit may be
any number, and what one step of a thousand changes is forgotten at the end. So what a graph computes with sizes, step
numbers and lengths is watched in those runs: an operand is such a number if it changes from run to run, or from step to
step, and a constant otherwise. What may be done with them:

    sums, products         of any. All but x - 1, x and x + 1 are places: they may only say where something is read.
                           Polynomials that do so rightly in several runs always do
    comparisons, minimum   of anything but places, with one another and with -1, 0 and 1: runs of 1, 2, 3 and more
                           sequences and steps are on both sides of these
    a factor of 0 or 1     the only one for what depends on the input: a mask

Everything else is refused: other constants in comparisons and as ends of slices, quotients, tables by step number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from quantgru.importers.tensorflow1_arrays import FUNCTIONS, MOVES, SHAPES, slice_bounds
from quantgru.importers.tensorflow1_errors import refused
from quantgru.importers.tensorflow1_file import BOOLEAN, INTEGERS, Node
from quantgru.importers.tensorflow1_graph import Graph
from quantgru.importers.tensorflow1_run import See
from quantgru.importers.tensorflow1_trace import Traced

Array = npt.NDArray[Any]

SUMS: Final = ("Add", "AddV2", "AddN", "Sub", "Neg")
JOINS: Final = ("Pack", "Concat", "ConcatV2")  # of [T, 200] the least may be taken
PRODUCTS: Final = ("Mul", "Prod", "Sum")
SELECTS: Final = ("Select", "SelectV2")
COUNTS: Final = ("Prod", "Sum")
REDUCTIONS: Final = ("Max", "Min", "Prod", "Sum")
CHOICES: Final = (
    *("Minimum", "Maximum", "Less", "LessEqual", "Greater", "GreaterEqual", "Equal", "Max", "Min", "Range"),
    *SELECTS,
)
NEITHER: Final = ("Cast", "LogicalAnd", "LogicalOr", "LogicalNot", "ZerosLike", "OnesLike")
VARIABLE: Final = "Merge"  # of a loop, seen before each step and after the last one
ARRAY: Final = "TensorArrayScatterV3"  # whose elements are read by their numbers
SPREADS: Final = ("Fill", "Tile", "BroadcastTo", "Reshape")  # which do not pick from what they move

WITHOUT_LIMIT: Final = "leave it out, or let the placeholder fix the number of sequences or steps"


class Seen:
    """All values that were seen of one operand."""

    def __init__(self, value: Array) -> None:
        self._last = self._first = value
        self.varies = False
        self.is_mask = _is_mask(value)

    def add(self, value: Array) -> None:
        """Notes that the operand had this value, too. Constants are the same object in all runs."""
        if value is self._last:
            return
        self._last = value
        self.is_mask = self.is_mask and _is_mask(value)
        if value.shape == self._first.shape:
            self.varies = self.varies or not np.array_equal(value, self._first)
        else:
            self.varies = self.varies or _ends(value) != _ends(self._first)

    @property
    def limit(self) -> float | None:
        """The constant, if it is another one than -1, 0 and 1."""
        others = self._first[~np.isin(self._first, (-1, 0, 1))]
        return None if self.varies or not others.size else float(others.flat[0])

    @property
    def shape(self) -> tuple[int, ...]:
        return self._first.shape

    @property
    def is_float(self) -> bool:
        return self._first.dtype.kind == "f"

    @property
    def is_table(self) -> bool:
        """Whether it is constant, and has more than one value."""
        low, high = _ends(self._first)
        return not self.varies and low != high


@dataclass(eq=False)
class Limits:
    """What is done with sizes and step numbers. Shows while the graph is run on numbers, after it was traced."""

    graph: Graph

    def __post_init__(self) -> None:
        self._depends: dict[str, list[bool]] = {}  # for each node that the input reaches: which operands it reaches
        self._seen: dict[str, list[Seen | None]] = {}
        self._slices: dict[str, list[tuple[Seen, Seen]]] = {}  # sizes of axes, and where slices of these end
        self._rounds: Counter[str] = Counter()  # of loops, by their variables: the most in one run

    def trace(self, node: Node, values: Sequence[Any]) -> None:
        """Notes what depends on the input: to be called with the operands of every node of the traced run."""
        traced = [isinstance(value, Traced) for value in values]
        if any(traced):
            before = self._depends.get(node.name, [False] * len(traced))
            self._depends[node.name] = [a or b for a, b in zip(traced, before, strict=True)]

    def watch(self, *, any_step: bool) -> See:
        """What is to be called with the operands of every node of one run; of loops, of the first step only, where
        the number of steps is fixed: step numbers are constants then."""
        n_seen: Counter[str] = Counter()

        def see(node: Node, values: Sequence[Any]) -> None:
            n_seen[node.name] += 1
            if any_step and node.op == VARIABLE:
                self._rounds[node.name] = max(self._rounds[node.name], n_seen[node.name] - 1)
            if (any_step and node.op != VARIABLE) or (n_seen[node.name] == 1 and node.op != ARRAY):
                self._see(node, values)

        return see

    def check(self) -> None:
        """Raises ModelError where larger sizes than those of the runs could give something else."""
        places = self._places()
        for name, operands in self._seen.items():
            node, varies = self.graph.nodes[name], any(seen.varies for seen in operands if seen)
            found = self._slice_limit(node, places)
            if not found and name in self._depends:
                found = self._meets_input(node, operands)
            elif not found and (varies or node.op == ARRAY):
                found = self._arithmetic(node, operands, places)
            if found:
                raise refused(node, found, WITHOUT_LIMIT)

    def check_loops(self) -> None:
        """Raises ModelError where a loop made one step at most: what changes with the next one seems constant."""
        for name, n_rounds in self._rounds.items():
            if n_rounds < 2:
                raise refused(self.graph.nodes[name], "a loop of one step, of any number", "let it run over all steps")

    def _see(self, node: Node, values: Sequence[Any]) -> None:
        if node.op not in FUNCTIONS and node.op not in MOVES and node.op not in (*SELECTS, ARRAY, VARIABLE):
            return
        depends = self._depends.get(node.name, [False] * len(values))
        numbers = [None if hidden else value for value, hidden in zip(values, depends, strict=True)]
        operands = self._seen.setdefault(node.name, [None] * len(numbers))
        for i, value in enumerate(numbers):
            if isinstance(value, np.ndarray):
                operands[i] = seen = _noted(operands[i], value)
                seen.varies |= node.op in COUNTS and value.shape != seen.shape  # a sum of ones is their number
        if node.op == "StridedSlice":
            bounds = [(values[0].shape[axis], end) for axis, end in slice_bounds(node, *values)]
            before = self._slices.get(node.name, [(None, None)] * len(bounds))
            self._slices[node.name] = [
                (_noted(size, np.asarray(n)), _noted(end, np.asarray(place)))
                for (size, end), (n, place) in zip(before, bounds, strict=True)
            ]

    def _places(self) -> set[str]:
        """All nodes that compute places, and those that read them."""
        nodes = self.graph.nodes
        found = {name for name, operands in self._seen.items() if _makes_place(nodes[name].op, operands)}
        found = {name for name in found if name not in self._depends}
        pending = list(found)
        while pending:
            after = {name for name in self._readers(pending.pop()) if name not in self._depends} - found
            found |= after
            pending += after
        return found

    def _readers(self, name: str) -> Iterable[str]:
        nodes = self.graph.nodes
        return [reader for reader in self.graph.read_by.get(name, ()) if nodes[reader].op not in SHAPES]

    def _slice_limit(self, node: Node, places: set[str]) -> str | None:
        for size, end in self._slices.get(node.name, ()):
            if size.varies and end.limit:
                return f"a slice begins or ends at {end.limit:g} of any number"
            if size.varies and end.varies and any(name in places for name, _ in node.inputs[1:]):
                return "a slice begins or ends at a computed place of any number"
        return None

    def _meets_input(self, node: Node, operands: Sequence[Seen | None]) -> str | None:
        """Of a node that computes with what depends on the input."""
        varying = [seen for seen in _numbers(node.op, operands, depends=True) if seen.varies]
        if varying and not (node.op == "Mul" and all(seen.is_mask for seen in varying)):
            return "computes with sizes or step numbers"
        return None

    def _arithmetic(self, node: Node, operands: Sequence[Seen | None], places: set[str]) -> str | None:
        """Of a node that computes sizes or step numbers."""
        numbers = _numbers(node.op, operands)
        if node.op in CHOICES or (node.op == "Cast" and _rounds(node, numbers[0])):
            limits = [seen.limit for seen in numbers if seen.limit]
            if limits:
                return f"compares a size or step number with {limits[0]:g}"
            if node.op != "Range" and any(name in places for name, _ in node.inputs):
                return "compares what is computed of sizes or step numbers"
        elif node.op in MOVES or node.op == ARRAY:
            if node.op not in (*SPREADS, *JOINS) and any(seen.is_table for seen in numbers):
                return "reads a table by a size or step number"
        elif node.op not in (*SUMS, *PRODUCTS, *NEITHER, VARIABLE):
            return "computes with sizes or step numbers"
        return None


def _numbers(op: str, operands: Sequence[Seen | None], *, depends: bool = False) -> list[Seen]:
    """The operands that an operation computes with or moves; the others say where, and how."""
    which = slice(None)
    if op in MOVES:
        which = MOVES[op][0]
    elif op == ARRAY:
        which = slice(2, 3)
    elif op in REDUCTIONS:
        which = slice(0, 1)
    elif op in SELECTS and depends:
        which = slice(1, None)
    return [seen for seen in operands[which] if seen]


def _makes_place(op: str, operands: Sequence[Seen | None]) -> bool:
    """Whether its result is another one than x - 1, x or x + 1."""
    numbers = _numbers(op, operands)
    n_varying, has_limit = sum(seen.varies for seen in numbers), any(seen.limit for seen in numbers)
    if op in SUMS:
        return n_varying > 1 or (n_varying > 0 and has_limit)
    return n_varying > 0 if op in PRODUCTS else has_limit and op in (*JOINS, VARIABLE)


def _rounds(cast: Node, seen: Seen) -> bool:
    """Whether it compares with 0, or makes integers of fractions."""
    target = cast.attribute("DstT", "type", 0)
    return target == BOOLEAN or (target in INTEGERS and seen.is_float)


def _noted(seen: Seen | None, value: Array) -> Seen:
    if seen is None:
        return Seen(value)
    seen.add(value)
    return seen


def _ends(value: Array) -> tuple[float, float]:
    return (float(value.min()), float(value.max())) if value.size else (0.0, 0.0)


def _is_mask(value: Array) -> bool:
    return bool(((value == 0) | (value == 1)).all())
