"""The GRU cell in a trace: found by its arithmetic, whatever its nodes are called and however they are grouped.

h' = u * h + (1 - u) * n, where u is a sigmoid of sums of products of x and h with matrices, and n a function of such
sums in which h comes with a reset gate.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, get_args

import numpy as np
import numpy.typing as npt

from quantgru.errors import ModelError
from quantgru.importers.tensorflow1_trace import Ids, Trace, Vector
from quantgru.model import Gate, Gru
from quantgru.model.layers import Candidate, GateFunction, Reset

FloatArray = npt.NDArray[np.float64]

WEIGHTS_LIMIT: Final = 1 << 24  # of one layer; all constants of a file may have twice as many values
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

    argument       of the candidate function
    inner          what the reset gate multiplies, of reset "after"
    reset_product  r * h, of reset "before"; otherwise empty
    keeps          whether u is the share of h that is kept, rather than that of n
    """

    x: Ids
    h: Ids
    update: Terms
    reset_gate: Terms
    argument: Terms
    inner: Terms | None
    reset_product: Ids
    functions: tuple[GateFunction, Candidate]
    keeps: bool
    node: str


class NoCellError(Exception):
    """These ids are not what a GRU cell gives."""


def terms(trace: Trace, ids: Ids, scale: FloatArray | float = 1.0, shift: float = 0.0) -> Terms:
    """scale * `ids` + shift as a sum. A state, which is a mixture of two vectors, stays whole. Raises NoCellError."""
    found = Terms(np.full(len(ids), shift))
    pending = [(ids, np.broadcast_to(scale, len(ids)))]
    while pending:
        part, factor = pending.pop()
        source = trace.source(part)
        kind = source[0].kind if source else ""
        if len(pending) + len(found.products) + len(found.others) > TERMS:
            raise NoCellError
        if source and kind == "constant":
            found.bias += factor * source[0].values[source[1]]
        elif source and kind == "matmul":
            found.products.append(Product(*source, factor))
        elif source and kind in ("sum", "difference") and not any(True for _ in _mixtures(trace, part)):
            first, second = _operands(source)
            pending += [(first, factor), (second, factor if kind == "sum" else -factor)]
        elif source and kind == "product" and (constant := _constant_operand(trace, source)):
            pending.append((constant[1], factor * constant[0]))
        else:
            found.others.append((factor, part))
    return found


def find_cell(trace: Trace, ids: Ids) -> Cell:
    """The cell that gives `ids`. Raises NoCellError."""
    for update, kept, other in _mixtures(trace, ids):
        for state, candidate, keeps in ((kept, other, True), (other, kept, False)):
            try:
                return _cell(trace, update, state, candidate, keeps)
            except NoCellError:
                continue
    raise NoCellError


def gru_layer(name: str, cell: Cell, initial_state: FloatArray | None) -> Gru:
    """The canonical layer with the weights of a cell. Raises NoCellError where it has more than those of x and h."""
    n_units, n_inputs = len(cell.h), len(cell.x)
    _want_size(3 * n_units * (n_units + n_inputs))
    reset: Reset = "after" if cell.inner else "before"
    input_weights, recurrent_weights = np.zeros((3, n_units, n_inputs)), np.zeros((3, n_units, n_units))
    bias, recurrent_bias = np.zeros((3, n_units)), np.zeros(n_units)
    for gate, sums, h in (
        (Gate.Z, cell.update, cell.h),
        (Gate.R, cell.reset_gate, cell.h),
        (Gate.N, cell.argument, cell.reset_product),
    ):
        input_weights[gate], recurrent_weights[gate, :, : len(h)] = weights(sums, cell.x, h)
        bias[gate] = sums.bias
    if cell.inner:
        (recurrent_weights[Gate.N],), recurrent_bias = weights(cell.inner, cell.h), cell.inner.bias
    if not cell.keeps:  # 1 - sigmoid(a) = sigmoid(-a)
        for blocks in (input_weights, recurrent_weights, bias):
            blocks[Gate.Z] *= -1
    return Gru(
        name,
        reset,
        input_weights,
        recurrent_weights,
        bias,
        recurrent_bias,
        *cell.functions,
        initial_state=initial_state,
    )


def weights(sums: Terms, *parts: Ids) -> list[FloatArray]:
    """The matrix [outputs, len(part)] of each part in a sum. Raises NoCellError where the sum has more than these."""
    together = np.concatenate(parts)
    _want_size(len(together) * len(sums.bias))
    order = np.argsort(together, kind="stable")
    total = np.zeros((len(together), len(sums.bias)))
    for product in sums.products:
        place = order[np.searchsorted(together, product.operand, sorter=order).clip(max=len(order) - 1)]
        if (together[place] != product.operand).any():
            raise NoCellError
        np.add.at(total, place, product.matrix)
    return [part.T for part in np.split(total, np.cumsum([len(part) for part in parts])[:-1])]


def _want_size(n_weights: int) -> None:
    if n_weights > WEIGHTS_LIMIT:
        raise ModelError(f"a layer of {n_weights} weights, allowed are {WEIGHTS_LIMIT}")


def _cell(trace: Trace, update: Ids, state: Ids, candidate: Ids, keeps: bool) -> Cell:
    gate, update_terms = _gate(trace, update)
    x = operand_without(update_terms, state)
    function, argument = _candidate(trace, candidate)
    inner, reset_product = None, state[:0]
    if argument.others:  # r * (U h + c)
        reset, inner = _reset_after(trace, argument)
    else:  # U (r * h)
        reset_product = operand_without(argument, x)
        reset = next((r for r, h in _factors(trace, reset_product) if np.array_equal(h, state)), state[:0])
    reset_gate, reset_terms = _gate(trace, reset)
    if reset_gate != gate:
        raise NoCellError
    node = trace.owner(int(update[0])).node
    functions = gate, function
    return Cell(x, state, update_terms, reset_terms, argument, inner, reset_product, functions, keeps, node)


def _gate(trace: Trace, ids: Ids) -> tuple[GateFunction, Terms]:
    """The function of a gate, and what it is applied to."""
    source = trace.source(ids) if len(ids) else None
    if source and source[0].kind == "sigmoid":
        return "sigmoid", terms(trace, source[0].operand(0, source[1]))
    return "hard_sigmoid", terms(trace, _clipped(trace, ids, 0.0, 1.0), shift=-0.5)


def _candidate(trace: Trace, ids: Ids) -> tuple[Candidate, Terms]:
    """The candidate function, and what it is applied to."""
    source = trace.source(ids)
    if source is None:
        raise NoCellError
    for name in get_args(Candidate):
        if source[0].kind == name:
            return name, terms(trace, source[0].operand(0, source[1]))
    if source[0].kind in ("minimum", "maximum"):
        return "hard_tanh", terms(trace, _clipped(trace, ids, -1.0, 1.0))
    return "linear", terms(trace, ids)


def _clipped(trace: Trace, ids: Ids, low: float, high: float) -> Ids:
    """What is limited to low ... high. Raises NoCellError where nothing is, or to something else."""
    limits = {"maximum": low, "minimum": high}
    while limits:
        source = trace.source(ids) if len(ids) else None
        if source is None or source[0].kind not in limits:
            raise NoCellError
        found = _constant_operand(trace, source)
        if found is None or (found[0] != limits.pop(source[0].kind)).any():
            raise NoCellError
        ids = found[1]
    return ids


def _reset_after(trace: Trace, argument: Terms) -> tuple[Ids, Terms]:
    """The reset gate, and what it multiplies."""
    (scale, product), *more = argument.others
    for reset, inside in () if more else _factors(trace, product):
        source = trace.source(reset)
        inner = terms(trace, inside, scale)
        if source and source[0].kind in ("sigmoid", "minimum", "maximum") and not inner.others:
            return reset, inner
    raise NoCellError


def operand_without(sums: Terms, ids: Ids) -> Ids:
    """What is multiplied with matrices, in its order, except `ids`."""
    if sums.others or not sums.products:
        raise NoCellError
    operand = np.concatenate([product.operand for product in sums.products])
    found = operand[np.sort(np.unique(operand, return_index=True)[1])]
    found = found[~np.isin(found, ids)]
    if not len(found):
        raise NoCellError
    return found


def _mixtures(trace: Trace, ids: Ids) -> Iterator[tuple[Ids, Ids, Ids]]:
    """(u, a, b) where `ids` = u * a + (1 - u) * b."""
    source = trace.source(ids)
    if source is None or source[0].kind != "sum":
        return
    first, second = _operands(source)
    for p, q in ((first, second), (second, first)):
        for update, a in _factors(trace, p):
            for rest, b in _factors(trace, q):
                if _is_rest(trace, rest, update):
                    yield update, a, b


def _is_rest(trace: Trace, ids: Ids, of: Ids) -> bool:
    """Whether `ids` = 1 - `of`."""
    source = trace.source(ids)
    if source is None or source[0].kind != "difference":
        return False
    one, subtracted = _operands(source)
    constant = trace.source(one)
    return (
        np.array_equal(subtracted, of)
        and constant is not None
        and constant[0].kind == "constant"
        and bool((constant[0].values[constant[1]] == 1).all())
    )


def _factors(trace: Trace, ids: Ids) -> list[tuple[Ids, Ids]]:
    """Both orders of the factors of a product; none if it is no product."""
    source = trace.source(ids)
    if source is None or source[0].kind != "product":
        return []
    a, b = _operands(source)
    return [(a, b), (b, a)]


def _constant_operand(trace: Trace, source: tuple[Vector, Ids]) -> tuple[FloatArray, Ids] | None:
    """The constant of two operands, and the other one."""
    a, b = _operands(source)
    for factor, other in ((a, b), (b, a)):
        found = trace.source(factor)
        if found and found[0].kind == "constant":
            return found[0].values[found[1]], other
    return None


def _operands(source: tuple[Vector, Ids]) -> tuple[Ids, Ids]:
    vector, columns = source
    return vector.operand(0, columns), vector.operand(1, columns)
