"""Sums, products and mixtures in a trace: what dense layers and the parts of a GRU cell are made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from quantgru.errors import ModelError
from quantgru.importers.tensorflow1_trace import FloatArray, Ids, Trace, Vector

WEIGHTS_LIMIT: Final = 1 << 24  # of one layer; all constants of a file may have twice as many values
TERMS: Final = 16  # of one sum; a cell has no more than five


class MismatchError(Exception):
    """These ids are made otherwise than what is looked for."""


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


def terms(trace: Trace, ids: Ids, scale: FloatArray | float = 1.0, shift: float = 0.0) -> Terms:
    """scale * `ids` + shift as a sum. A state, which is a mixture of two vectors, stays whole. Raises MismatchError."""
    found = Terms(np.full(len(ids), shift))
    pending = [(ids, np.broadcast_to(scale, len(ids)))]
    while pending:
        part, factor = pending.pop()
        source = trace.source(part)
        kind = source[0].kind if source else ""
        if len(pending) + len(found.products) + len(found.others) > TERMS:
            raise MismatchError
        if source and kind == "constant":
            found.bias += factor * source[0].values[source[1]]
        elif source and kind == "matmul":
            found.products.append(Product(*source, factor))
        elif source and kind in ("sum", "difference") and not any(True for _ in mixtures(trace, part)):
            first, second = operands(source)
            pending += [(first, factor), (second, factor if kind == "sum" else -factor)]
        elif source and kind == "product" and (constant := constant_operand(trace, source)):
            pending.append((constant[1], factor * constant[0]))
        else:
            found.others.append((factor, part))
    return found


def weights(sums: Terms, *parts: Ids) -> list[FloatArray]:
    """The matrix [outputs, len(part)] of each part in a sum. Raises MismatchError where the sum has more than these."""
    together = np.concatenate(parts)
    want_size(len(together) * len(sums.bias))
    order = np.argsort(together, kind="stable")
    total = np.zeros((len(together), len(sums.bias)))
    for product in sums.products:
        place = order[np.searchsorted(together, product.operand, sorter=order).clip(max=len(order) - 1)]
        if (together[place] != product.operand).any():
            raise MismatchError
        np.add.at(total, place, product.matrix)
    return [part.T for part in np.split(total, np.cumsum([len(part) for part in parts])[:-1])]


def operand_without(sums: Terms, ids: Ids) -> Ids:
    """What is multiplied with matrices, in its order, except `ids`."""
    if sums.others or not sums.products:
        raise MismatchError
    operand = np.concatenate([product.operand for product in sums.products])
    found = operand[np.sort(np.unique(operand, return_index=True)[1])]
    found = found[~np.isin(found, ids)]
    if not len(found):
        raise MismatchError
    return found


def mixtures(trace: Trace, ids: Ids) -> Iterator[tuple[Ids, Ids, Ids]]:
    """(u, a, b) where `ids` = u * a + (1 - u) * b."""
    source = trace.source(ids)
    if source is None or source[0].kind != "sum":
        return
    first, second = operands(source)
    for p, q in ((first, second), (second, first)):
        for update, a in factors(trace, p):
            for rest, b in factors(trace, q):
                if _is_rest(trace, rest, update):
                    yield update, a, b


def factors(trace: Trace, ids: Ids) -> list[tuple[Ids, Ids]]:
    """Both orders of the factors of a product; none if it is no product."""
    source = trace.source(ids)
    if source is None or source[0].kind != "product":
        return []
    a, b = operands(source)
    return [(a, b), (b, a)]


def constant_operand(trace: Trace, source: tuple[Vector, Ids]) -> tuple[FloatArray, Ids] | None:
    """The constant of two operands, and the other one."""
    a, b = operands(source)
    for factor, other in ((a, b), (b, a)):
        found = trace.source(factor)
        if found and found[0].kind == "constant":
            return found[0].values[found[1]], other
    return None


def operands(source: tuple[Vector, Ids]) -> tuple[Ids, Ids]:
    vector, columns = source
    return vector.operand(0, columns), vector.operand(1, columns)


def _is_rest(trace: Trace, ids: Ids, of: Ids) -> bool:
    """Whether `ids` = 1 - `of`."""
    source = trace.source(ids)
    if source is None or source[0].kind != "difference":
        return False
    one, subtracted = operands(source)
    constant = trace.source(one)
    return (
        np.array_equal(subtracted, of)
        and constant is not None
        and constant[0].kind == "constant"
        and bool((constant[0].values[constant[1]] == 1).all())
    )


def want_size(n_weights: int) -> None:
    if n_weights > WEIGHTS_LIMIT:
        raise ModelError(f"a layer of {n_weights} weights, allowed are {WEIGHTS_LIMIT}")
