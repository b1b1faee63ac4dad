"""The GRU cell in a trace: found by its arithmetic, whatever its nodes are called and however they are grouped.

h' = u * h + (1 - u) * n, where u is a sigmoid of sums of products of x and h with matrices, and n a function of such
sums in which h comes with a reset gate.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from quantgru.activations import CANDIDATES
from quantgru.importers.tensorflow1_trace import Ids, Trace, Vector
from quantgru.model import Gate, Gru
from quantgru.model.layers import Candidate, Reset

FloatArray = npt.NDArray[np.float64]

TERMS: Final = 16  # of one sum; a cell has no more than five


@dataclass(frozen=True, eq=False)
class Product:
    """scale * columns of (operand @ matrix)"""

    vector: Vector
    columns: Ids
    scale: FloatArray

    @property
    def operand(self) -> Ids:
        return self.vector.operands[0]

    @property
    def matrix(self) -> FloatArray:
        return self.vector.values[:, self.columns] * self.scale


@dataclass(eq=False)
class Terms:
    """A row as a sum: products with matrices, other vectors with their factors, and a constant."""

    bias: FloatArray
    products: list[Product] = field(default_factory=list)
    others: list[tuple[FloatArray, Ids]] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Cell:
    """One step of a GRU cell: where its numbers come from, without the weights.

    keeps     whether the gate is the share of h that is kept, rather than of n
    argument  what the candidate function is applied to
    inner     of reset "after", what the reset gate multiplies
    """

    x: Ids
    h: Ids
    update: Terms
    reset_gate: Terms
    argument: Terms
    inner: Terms | None
    reset_product: Ids
    candidate: Candidate
    keeps: bool
    node: str


class NoCell(Exception):
    """These ids are not what a GRU cell gives."""


def terms(trace: Trace, ids: Ids) -> Terms:
    """`ids` as a sum. A state that is a mixture of two vectors stays whole."""
    found = Terms(np.zeros(len(ids)))
    pending = [(ids, np.ones(len(ids)))]
    while pending:
        part, scale = pending.pop()
        source = trace.source(part)
        kind = source[0].kind if source else ""
        if len(pending) + len(found.products) + len(found.others) > TERMS:
            raise NoCell
        if source and kind == "constant":
            found.bias += scale * source[0].values[source[1]]
        elif source and kind == "matmul":
            found.products.append(Product(*source, scale))
        elif source and kind in ("sum", "difference") and not any(_mixtures(trace, part)):
            first, second = _operands(source)
            pending += [(first, scale), (second, scale if kind == "sum" else -scale)]
        elif source and kind == "product" and (factor := _constant_factor(trace, source)):
            pending.append((factor[1], scale * factor[0]))
        else:
            found.others.append((scale, part))
    return found


def find_cell(trace: Trace, ids: Ids) -> Cell:
    """The cell that gives `ids`. Raises NoCell."""
    for update, kept, other in _mixtures(trace, ids):
        for state, candidate, keeps in ((kept, other, True), (other, kept, False)):
            try:
                return _cell(trace, update, state, candidate, keeps)
            except NoCell:
                continue
    raise NoCell


def gru_layer(name: str, cell: Cell, initial_state: FloatArray | None) -> Gru:
    """The canonical layer with the weights of a cell. Raises NoCell where a product is of something else than x and h."""
    n_units, n_inputs = len(cell.h), len(cell.x)
    reset: Reset = "after" if cell.inner else "before"
    input_weights, recurrent_weights = np.zeros((3, n_units, n_inputs)), np.zeros((3, n_units, n_units))
    bias, recurrent_bias = np.zeros((3, n_units)), np.zeros(n_units)
    sign = 1.0 if cell.keeps else -1.0  # 1 - sigmoid(a) = sigmoid(-a)
    gates = ((Gate.Z, cell.update, cell.h, sign), (Gate.R, cell.reset_gate, cell.h, 1.0))
    for gate, sums, h, factor in (*gates, (Gate.N, cell.argument, cell.reset_product, 1.0)):
        from_x, from_h = weights(sums, cell.x, h)
        input_weights[gate], recurrent_weights[gate] = factor * from_x, factor * from_h
        bias[gate] = factor * sums.bias
    if cell.inner:
        recurrent_weights[Gate.N], recurrent_bias = weights(cell.inner, cell.h, cell.h[:0])[0], cell.inner.bias
    return Gru(
        name,
        reset,
        input_weights,
        recurrent_weights,
        bias,
        recurrent_bias,
        candidate=cell.candidate,
        initial_state=initial_state,
    )


def weights(sums: Terms, *parts: Ids) -> list[FloatArray]:
    """The matrix [outputs, len(part)] with which each part is in a sum. Raises NoCell where there is more than that."""
    together = np.concatenate(parts)
    order = np.argsort(together, kind="stable")
    total = np.zeros((len(together), len(sums.bias)))
    for product in sums.products:
        place = order[np.searchsorted(together, product.operand, sorter=order).clip(max=len(order) - 1)]
        if (together[place] != product.operand).any():
            raise NoCell
        np.add.at(total, place, product.matrix)
    return [part.T for part in np.split(total, np.cumsum([len(part) for part in parts])[:-1])]


def _cell(trace: Trace, update: Ids, state: Ids, candidate: Ids, keeps: bool) -> Cell:
    update_terms = _gate(trace, update)
    x = _without(update_terms, state)
    source = trace.source(candidate)
    if source is None:
        raise NoCell
    function = source[0].kind if source[0].kind in CANDIDATES else "linear"
    argument = terms(trace, candidate if function == "linear" else source[0].operand(0, source[1]))
    inner, product = None, _without(argument, x)
    if argument.others:
        (scale, product), *more = argument.others
        inner = ... 
