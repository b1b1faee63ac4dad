"""From what the last step of an output was made of, back to the input: layers, each with the last step of the next.

The arithmetic of a cell is in tensorflow1_cells.py, that of sums in tensorflow1_sums.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from quantgru.activations import DENSE_ACTIVATIONS, Merge
from quantgru.errors import ModelError
from quantgru.importers.chain import Chain
from quantgru.importers.tensorflow1_cells import Cell, find_cell, gru_layer, merged
from quantgru.importers.tensorflow1_errors import SMALLER, listed, refused, short
from quantgru.importers.tensorflow1_steps import Pair
from quantgru.importers.tensorflow1_sums import MismatchError, operand_without, terms, weights
from quantgru.importers.tensorflow1_trace import Ids, InputIds, Trace, Vector
from quantgru.model import Bidirectional, Dense, Embedding, Gru

LAYER_LIMIT: Final = 64  # activations count, too
STEP_LIMIT: Final = 10_000  # of all layers
SOFTMAXES: Final = ("softmax", "log_softmax")
CELL: Final = "a GRU cell gives u * h + (1 - u) * c"


@dataclass(eq=False)
class LayerReader:
    """Follows ids to an input.

    found    what adds each layer to a chain, the last layer first
    states   of each GRU layer, in the order of the chain, the initial state if an input gives it
    earlier  what the lowest recurrent layer read one step before; None while none was found, or it had one step only
    first    what it read at the first step that is a whole cell, and whether an optimizer simplified one before that
    counts   of the steps of each recurrent layer, of bidirectional ones forward
    pairs    of each layer and direction with several steps: a state, and that of the step before
    starts   of each layer and direction: the first state, and the one that it begins with; backward the reverse
    """

    trace: Trace
    found: list[Callable[[Chain], None]] = field(default_factory=list)
    states: list[InputIds | None] = field(default_factory=list)
    earlier: Ids | None = None
    first: tuple[Ids, bool] | None = None
    counts: set[int] = field(default_factory=set)
    pairs: list[Pair] = field(default_factory=list)
    starts: list[Pair] = field(default_factory=list)
    _n_steps: int = 0

    def read(self, ids: Ids) -> InputIds:
        """What `ids` were made of, in the input. Raises ModelError."""
        while True:
            if len(self.found) > LAYER_LIMIT:
                raise ModelError(f"node {short(self.trace.owner(int(ids[0])).node)}: more than {LAYER_LIMIT} layers")
            source = self.trace.source(ids)
            if source is None:
                ids = self._joined(ids)
            elif source[0].kind == "input":
                return InputIds(source[0].node, source[1])
            else:
                ids = self._layer(ids, *source)

    def add_to(self, chain: Chain) -> None:
        for add in reversed(self.found):
            add(chain)

    def _layer(self, ids: Ids, vector: Vector, columns: Ids) -> Ids:
        """Notes the layer that made `ids`, and gives what it read."""
        where = f"node {short(vector.node)}"
        if vector.kind in DENSE_ACTIVATIONS:
            self.found.append(lambda chain: chain.add_activation(where, vector.kind))
            return vector.operand(0, columns)
        if vector.kind in SOFTMAXES:
            self.found.append(lambda chain: chain.add_softmax(where, vector.kind, None))
            return _whole_operand(where, ids, vector)
        if vector.kind == "lookup":
            embedding = Embedding(scope(vector.node), vector.values[:, columns])
            self.found.append(lambda chain: chain.add_embedding(where, embedding))
            return vector.operands[0]
        if vector.kind == "constant":
            raise refused("the last step of the output", "is made of constants alone")
        for read in (self._one_direction, self._merged, self._dense):
            try:
                return read(where, ids)
            except MismatchError:
                continue
        raise refused(where, f"neither a GRU cell nor a dense layer: {CELL}")

    def _dense(self, where: str, ids: Ids) -> Ids:
        """A dense layer, or factors and a shift. Raises MismatchError."""
        sums = terms(self.trace, ids)
        if len(sums.others) == 1 and not sums.products and not np.array_equal(sums.others[0][1], ids):
            scale, before = sums.others[0]
            self.found.append(lambda chain: chain.add_affine(where, scale, sums.bias))
            return before
        before = operand_without(sums, ids[:0])
        (matrix,) = weights(sums, before)
        name = scope(sums.products[0].vector.node)
        self.found.append(lambda chain: chain.add_dense(where, Dense(name, matrix, sums.bias)))
        return before

    def _one_direction(self, where: str, ids: Ids) -> Ids:
        """A GRU layer. Raises MismatchError."""
        cell = find_cell(self.trace, ids)
        (layer,) = self._grus(cell)
        self.found.append(lambda chain: chain.add_recurrent(where, [layer]))
        self.earlier = self._earlier(cell)
        return cell.x

    def _merged(self, where: str, ids: Ids) -> Ids:
        """Both directions as a sum, a mean or a product. Raises MismatchError."""
        merge, *parts = merged(self.trace, ids)
        forward, backward = (find_cell(self.trace, part) for part in parts)
        if self._earlier(forward) is None:  # it comes to the last step first, and the operands are in any order
            forward, backward = backward, forward
        return self._both_directions(where, forward, backward, merge)

    def _joined(self, ids: Ids) -> Ids:
        """Both directions side by side."""
        owners = [self.trace.owner(int(number)) for number in ids]
        cuts = [i for i in range(1, len(ids)) if owners[i] is not owners[i - 1]]
        names = [owners[i].node or "a constant" for i in (0, *cuts)]
        where = f"nodes {listed(names)} together"
        try:
            if len(cuts) != 1:
                raise MismatchError
            forward, backward = (find_cell(self.trace, part) for part in np.split(ids, cuts))
            return self._both_directions(where, forward, backward, "concat")
        except MismatchError:
            raise refused(where, f"neither a GRU cell nor the two directions of one: {CELL}") from None

    def _both_directions(self, where: str, forward: Cell, backward: Cell, merge: Merge) -> Ids:
        """Two cells at the same step, or both after all steps. Raises MismatchError."""
        sizes = [(len(cell.x), len(cell.h)) for cell in (forward, backward)]
        is_stack = np.array_equal(forward.x, backward.ids) or np.array_equal(backward.x, forward.ids)
        if is_stack or sizes[0] != sizes[1]:
            found = f"the states of two layers, {short(scope(forward.node))} and {short(scope(backward.node))}"
            raise refused(where, f"{found}; two directions of one are supported", "use the upper one alone")
        first, second = self._grus(forward, backward)
        layer = Bidirectional(scope(forward.node), first, second, merge)
        if not np.array_equal(forward.x, backward.x):
            self.found.append(lambda chain: chain.take_final_states(where))
        self.found.append(lambda chain: chain.add_recurrent(where, [layer]))
        self.earlier = self._earlier(forward)
        return forward.x

    def _grus(self, *cells: Cell) -> list[Gru]:
        """The layers of cells; notes their initial states, and the first step. Raises MismatchError."""
        grus, states, firsts, counts = [], [], [], []
        for cell in cells:
            first, n_steps = self._first(cell)
            source = self.trace.source(first.h)
            kind = source[0].kind if source else ""
            is_second = kind not in ("constant", "input")
            firsts.append((first.x, is_second))
            counts.append(n_steps + is_second)
            is_backward = len(counts) > 1
            self.starts.append((first.h, first.ids) if is_backward else (first.ids, first.h))
            if first is not cell:
                self.pairs.append((cell.h, cell.ids) if is_backward else (cell.ids, cell.h))
            constant = source[0].values[source[1]] if source and kind == "constant" else np.zeros(0)
            grus.append(gru_layer(scope(cell.node), cell, constant if constant.any() else None))
            states.append(InputIds(source[0].node, source[1]) if source and kind == "input" else None)
        self.states[:0] = states
        self.first = firsts[0]
        self.counts.add(counts[0])
        return grus

    def _first(self, cell: Cell) -> tuple[Cell, int]:
        """The first step, and how many there are; the second if an optimizer simplified the first, where h is zero."""
        n_steps = 0
        while True:
            n_steps += 1
            self._n_steps += 1
            if self._n_steps > STEP_LIMIT:
                raise ModelError(f"node {short(cell.node)}: more than {STEP_LIMIT} steps; {SMALLER}")
            try:
                cell = find_cell(self.trace, cell.h)
            except MismatchError:
                return cell, n_steps

    def _earlier(self, cell: Cell) -> Ids | None:
        try:
            return find_cell(self.trace, cell.h).x
        except MismatchError:
            return None


def _whole_operand(where: str, ids: Ids, vector: Vector) -> Ids:
    if not np.array_equal(ids, np.arange(vector.start, vector.start + vector.width)):
        raise refused(where, f"only {len(ids)} of its {vector.width} values are used, or in another order")
    return vector.operands[0]


def scope(node: str) -> str:
    """The layer that a node belongs to, by its name.

    >>> scope("rnn/while/gru_cell/Sigmoid"), scope("dense/Tensordot/MatMul"), scope("MatMul_1")
    ('rnn/gru_cell', 'dense', 'MatMul_1')
    """
    parts = node.split("/")
    return "/".join(part for part in parts[:-1] if part not in ("while", "Tensordot")) or node
