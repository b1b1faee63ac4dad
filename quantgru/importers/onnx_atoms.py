"""What a graph computes: vectors of features, which are sums of matrices times atoms, plus a bias.

An atom is what no matrix can say: an input, a function of a vector, the states of a GRU layer, one step of a sequence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from quantgru.activations import Merge
from quantgru.array_types import FloatArray
from quantgru.importers.onnx_sizes import Symbol
from quantgru.model import Gru

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Atom:
    """[width] features for each sequence, and for each step where it has steps. The same atom is the same object."""

    width: int


@dataclass(frozen=True, eq=False)
class Input(Atom):
    name: str


@dataclass(frozen=True, eq=False)
class Constant(Atom):
    """The same in every sequence: an initial state, as exporters spread it over the batch."""

    values: npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Embedded(Atom):
    where: str
    table: FloatArray
    of: Atom


@dataclass(frozen=True, eq=False)
class Function(Atom):
    """A function of each feature, named as in `activations`, or "softmax" or "log_softmax" of all."""

    where: str
    name: str
    of: Vector


@dataclass(frozen=True, eq=False)
class Linear(Atom):
    """A vector over one atom, of which something else than a sum is made."""

    where: str
    of: Vector

    @property
    def atom(self) -> Atom:
        (atom,) = self.of.terms
        return atom


@dataclass(frozen=True, eq=False)
class Product(Atom):
    """Feature by feature."""

    factors: tuple[Atom, Atom]


@dataclass(frozen=True, eq=False)
class Picked(Atom):
    """Some features of another atom, in an order."""

    of: Atom
    rows: Rows


@dataclass(frozen=True)
class Given:
    """An input of the graph, or one entry of an axis of it, which is an initial state."""

    name: str
    entry: int | None = None
    axis: int = 0

    def __str__(self) -> str:
        name = self.name if self.name.isprintable() else repr(self.name)
        return name[:60] + ("" if self.entry is None else f"[{':, ' * self.axis}{self.entry}]")


@dataclass(frozen=True, eq=False)
class Recurrent(Atom):
    """The states of a GRU layer after each step; given: the input that its initial state is, if it is one."""

    where: str
    gru: Gru
    of: Atom
    given: Given | None = None


@dataclass(frozen=True, eq=False)
class Both(Atom):
    """Two layers on one sequence, the second from its end, merged; if final, their states after all steps."""

    forward: Recurrent
    backward: Recurrent
    merge: Merge
    final: bool


@dataclass(frozen=True, eq=False)
class Reversed(Atom):
    where: str
    of: Atom


@dataclass(frozen=True, eq=False)
class Iteration:
    """The number of the step that a loop is at: any one."""


Place = tuple[Symbol, int | Iteration]


@dataclass(frozen=True, eq=False)
class Step(Atom):
    """One step of a sequence. Counted from 0 where the number of steps is known, else from either end."""

    where: str
    of: Atom
    axis: Symbol
    index: int | Iteration

    @property
    def place(self) -> Place:
        return self.axis, self.index

    @property
    def is_last(self) -> bool:
        return self.index == (-1 if self.axis.size is None else self.axis.size - 1)

    @property
    def is_first(self) -> bool:
        return self.index == 0 and not self.is_last


@dataclass(frozen=True, eq=False)
class Cell(Atom):
    """The state after one step of a GRU that is written out step by step, from the cell before it or from a start.

    input   the step that it reads, `index` along `axis`; or the cell of the layer below at that step
    form    what it computes, as `onnx_cells` reads it
    number  of the cell, from 1 on
    """

    where: str
    input: Atom
    axis: Symbol
    index: int
    before: Atom
    form: Any
    number: int


@dataclass(frozen=True, eq=False)
class Carried(Atom):
    """What a loop carries from one step to the next, as it is before the step; `start` is what it begins with."""

    where: str
    start: Atom


@dataclass(frozen=True, eq=False)
class Vector:
    """bias [width] + the sum over atoms of coefficient * atom.

    A coefficient is one number, one for each feature, or a matrix [width, width of the atom].
    """

    width: int
    terms: Mapping[Atom, FloatArray]
    bias: FloatArray

    @property
    def only(self) -> Atom | None:
        """The atom that it is, unchanged."""
        if len(self.terms) != 1 or self.bias.any():
            return None
        ((atom, coefficient),) = self.terms.items()
        return atom if coefficient.ndim == 0 and coefficient == 1 else None

    @property
    def is_elementwise(self) -> bool:
        return all(coefficient.ndim < 2 for coefficient in self.terms.values())


ONE: Final = np.ones(())


def of_atom(atom: Atom) -> Vector:
    return Vector(atom.width, {atom: ONE}, np.zeros(atom.width))


def same(a: FloatArray, b: FloatArray) -> bool:
    return content_of_array(a) == content_of_array(b) or np.array_equal(a, b)


def content_of_array(array: npt.NDArray[Any]) -> Any:
    """A key by which equal small arrays, and views of the same matrix, are known as equal."""
    if array.ndim == 2:
        return array.__array_interface__["data"][0], array.shape, array.strides, array.dtype.str
    return array.shape, array.tobytes()


def content(vector: Vector) -> Any:
    """A key by which vectors are known to be equal. Atoms and matrices must live as long as it is used."""
    terms = frozenset((atom, content_of_array(coefficient)) for atom, coefficient in vector.terms.items())
    return vector.width, terms, content_of_array(vector.bias) if vector.bias.any() else None


def describe(atom: Atom) -> str:
    """What a user can find in the graph."""
    match atom:
        case Input():
            return f"input {atom.name[:60]!r}"
        case Product():
            return f"the product of {describe(atom.factors[0])} and {describe(atom.factors[1])}"[:120]
        case Both():
            return f"{atom.forward.where} and {atom.backward.where}"
        case Constant():
            return "a constant"
        case Picked():
            return f"{atom.width} features of {describe(atom.of)}"[:120]
    return str(getattr(atom, "where", type(atom).__name__))


def widths(vectors: Iterable[Vector]) -> int:
    return sum(vector.width for vector in vectors)
