"""From what the last step of an output was made of, back to the input: layers, each with the last step of the next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from quantgru.errors import ModelError
from quantgru.importers.chain import Chain, refuse
from quantgru.importers.tensorflow1_cells import (
    Cell,
    NoCellError,
    find_cell,
    gru_layer,
    operand_without,
    terms,
    weights,
)
from quantgru.importers.tensorflow1_file import listed, short
from quantgru.importers.tensorflow1_trace import SMALLER, FloatArray, Ids, Trace, Vector
from quantgru.model import Bidirectional, Dense, Embedding, Gru

ACTIVATIONS: Final = ("relu", "sigmoid", "tanh")
LAYER_LIMIT: Final = 64  # activations count, too
STEP_LIMIT: Final = 10_000  # of all layers
SOFTMAXES: Final = ("softmax", "log_softmax")
CELL: Final = "a GRU cell gives u * h + (1 - u) * c"


@dataclass(eq=False)
class LayerReader:
    """Follows ids to the input.

    found    what adds each layer to a chain, the last layer first
    earlier  what the lowest recurrent layer read one step before; None while none was found, or it had one step only
    """

    trace: Trace
    found: list[Callable[[Chain], None]] = field(default_factory=list)
    earlier: Ids | None = None
    _n_steps: int = 0

    def read(self, ids: Ids) -> Ids:
        """The ids of the input that `ids` were made of. Raises ModelError."""
        while True:
            if len(self.found) > LAYER_LIMIT:
                raise ModelError(f"node {short(self.trace.owner(int(ids[0])).node)}: more than {LAYER_LIMIT} layers")
            source = self.trace.source(ids)
            if source is None:
                ids = self._bidirectional(ids)
            elif source[0].kind == "input":
                return ids
            else:
                ids = self._layer(ids, *source)

    def add_to(self, chain: Chain) -> None:
        for add in reversed(self.found):
            add(chain)

    def _layer(self, ids: Ids, vector: Vector, columns: Ids) -> Ids:
        """Notes the layer that made `ids`, and gives what it read."""
        where = f"node {short(vector.node)}"
        if vector.kind in ACTIVATIONS:
            self.found.append(lambda chain: chain.add_activation(where, vector.kind))
            return vector.operand(0, columns)
        if vector.kind in SOFTMAXES:
            self.found.append(lambda chain: chain.add_softmax(where, vector.kind, None))
            return self._whole(where, ids, vector)
        if vector.kind == "lookup":
            embedding = Embedding(scope(vector.node), vector.values[:, columns])
            self.found.append(lambda chain: chain.add_embedding(where, embedding))
            return vector.operands[0]
        try:
            cell = find_cell(self.trace, ids)
            layer = self._gru(cell)
        except NoCellError:
            return self._dense(where, ids)
        self.found.append(lambda chain: chain.add_recurrent(where, [layer]))
        self.earlier = self._earlier(cell)
        return cell.x

    def _whole(self, where: str, ids: Ids, vector: Vector) -> Ids:
        if not np.array_equal(ids, np.arange(vector.start, vector.start + vector.width)):
            raise refuse(where, f"only {len(ids)} of its {vector.width} values are used, or in another order")
        return vector.operands[0]

    def _dense(self, where: str, ids: Ids) -> Ids:
        """A dense layer, or factors and a shift."""
        try:
            sums = terms(self.trace, ids)
            if len(sums.others) == 1 and not sums.products and not np.array_equal(sums.others[0][1], ids):
                scale, before = sums.others[0]
                self.found.append(lambda chain: chain.add_affine(where, scale, sums.bias))
                return before
            before = operand_without(sums, ids[:0])
            (matrix,) = weights(sums, before)
        except NoCellError:
            raise refuse(where, f"neither a GRU cell nor a dense layer: {CELL}") from None
        name = scope(sums.products[0].vector.node)
        self.found.append(lambda chain: chain.add_dense(where, Dense(name, matrix, sums.bias)))
        return before

    def _bidirectional(self, ids: Ids) -> Ids:
        """Two cells side by side: at the same step, or both after all steps."""
        owners = [self.trace.owner(int(number)) for number in ids]
        cuts = [i for i in range(1, len(ids)) if owners[i] is not owners[i - 1]]
        parts = np.split(ids, cuts)
        names = [owners[i].node or "a constant" for i in (0, *cuts)]
        where = f"nodes {listed(names)} together"
        try:
            if len(parts) != 2:
                raise NoCellError
            forward, backward = (find_cell(self.trace, part) for part in parts)
            layer = Bidirectional(scope(forward.node), self._gru(forward), self._gru(backward))
        except NoCellError:
            raise refuse(where, f"neither a GRU cell nor the two directions of one: {CELL}") from None
        if not np.array_equal(forward.x, backward.x):
            self.found.append(lambda chain: chain.take_final_states(where))
        self.found.append(lambda chain: chain.add_recurrent(where, [layer]))
        self.earlier = self._earlier(forward)
        return forward.x

    def _gru(self, cell: Cell) -> Gru:
        return gru_layer(scope(cell.node), cell, self._initial_state(cell))

    def _initial_state(self, cell: Cell) -> FloatArray | None:
        """h before the first step; None if it is zero, or if an optimizer simplified the first step for that."""
        while True:
            self._n_steps += 1
            if self._n_steps > STEP_LIMIT:
                raise ModelError(f"node {short(cell.node)}: more than {STEP_LIMIT} steps; {SMALLER}")
            source = self.trace.source(cell.h)
            if source and source[0].kind == "constant":
                values = source[0].values[source[1]]
                return values if values.any() else None
            try:
                cell = find_cell(self.trace, cell.h)
            except NoCellError:
                return None

    def _earlier(self, cell: Cell) -> Ids | None:
        try:
            return find_cell(self.trace, cell.h).x
        except NoCellError:
            return None


def scope(node: str) -> str:
    """The layer that a node belongs to, by its name.

    >>> scope("rnn/while/gru_cell/Sigmoid"), scope("dense/Tensordot/MatMul"), scope("MatMul_1")
    ('rnn/gru_cell', 'dense', 'MatMul_1')
    """
    parts = node.split("/")
    return "/".join(part for part in parts[:-1] if part not in ("while", "Tensordot")) or node
