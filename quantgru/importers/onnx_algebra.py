"""What a graph computes, as algebra: vectors of features are sums of matrices times atoms, plus a bias.

An atom is what no matrix can say: an input, a function of a vector, the states of a GRU layer, one step of a sequence.
Exporters write the same product, slice or sum in many ways, which all become the same vector.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from quantgru.errors import ModelError
from quantgru.importers.onnx_sizes import Symbol
from quantgru.model import Gru
from quantgru.model.layers import Merge

FloatArray = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

FREE_NUMBERS: Final = 1 << 22  # that a reading may make beside those that stand in proportion to its file
TERMS_LIMIT: Final = 16  # of a product, so that products of sums do not explode


@dataclass(frozen=True, eq=False)
class Atom:
    """[width] features for each sequence, and for each step where it has steps. The same atom is the same object."""

    width: int


A = TypeVar("A", bound=Atom)


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
    """An input of the graph, or one entry of its first axis, which is an initial state."""

    name: str
    entry: int | None = None

    def __str__(self) -> str:
        return self.name[:60] + ("" if self.entry is None else f"[{self.entry}]")


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
class Step(Atom):
    """One step of a sequence. Counted from 0 where the number of steps is known, else from either end."""

    where: str
    of: Atom
    axis: Symbol
    index: int

    @property
    def is_last(self) -> bool:
        return self.index == (-1 if self.axis.size is None else self.axis.size - 1)

    @property
    def is_first(self) -> bool:
        return self.index == 0 and not self.is_last


@dataclass(frozen=True, eq=False)
class Cell(Atom):
    """The state after one step of a GRU that is written out step by step, from the cell before it or from a start."""

    where: str
    step: Step
    before: Atom
    form: Any  # what it computes, as `onnx_cells` reads it
    number: int


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


@dataclass
class Algebra:
    """Operations on vectors. Knows every atom, so that equal ones are the same, and limits how much is computed."""

    n_bytes: int
    _atoms: dict[Any, Any] = field(default_factory=dict)
    _doubles: dict[Any, tuple[npt.NDArray[Any], FloatArray]] = field(default_factory=dict)
    _numbers: int = 0

    def spend(self, numbers: int) -> None:
        """Counts numbers that are about to be computed. Raises ModelError where a file asks for far too many."""
        self._numbers += numbers
        if self._numbers > FREE_NUMBERS + 64 * self.n_bytes:
            raise ModelError(
                f"computes with {self._numbers} numbers, far more than a file of {self.n_bytes} bytes holds; it is damaged, "
                "or its sizes are not those of a model for a microcontroller"
            )

    def the(self, key: Any, atom: A) -> A:
        """The atom of this key: the one that was made first."""
        found: A = self._atoms.setdefault(key, atom)
        return found

    def double(self, matrix: npt.NDArray[Any]) -> FloatArray:
        """float64 of constant weights. The same array for the same weights, so that equal cells are known as equal."""
        key = content_of_array(matrix)
        if key not in self._doubles:
            self.spend(matrix.size)
            self._doubles[key] = matrix, np.asarray(matrix, dtype=np.float64)
        return self._doubles[key][1]

    # ---- atoms ------------------------------------------------------------------------------------------------------

    def picked(self, atom: Atom, rows: Rows) -> Vector:
        """Some features of an atom. Functions of features change places with it."""
        self.spend(len(rows))
        if np.array_equal(rows, np.arange(atom.width)):
            return of_atom(atom)
        if isinstance(atom, Picked):
            return self.picked(atom.of, atom.rows[rows])
        if isinstance(atom, Function) and not atom.name.endswith("softmax"):
            return of_atom(self.function(atom.where, atom.name, self.rows(atom.of, rows)))
        if isinstance(atom, Constant):
            return of_atom(self.constant(atom.values[rows]))
        return of_atom(self.the((Picked, atom, rows.tobytes()), Picked(len(rows), atom, rows)))

    def constant(self, values: npt.NDArray[Any]) -> Constant:
        if values.dtype == object:
            return Constant(len(values), values)
        return self.the((Constant, values.tobytes()), Constant(len(values), values))

    def function(self, where: str, name: str, of: Vector) -> Atom:
        """Of one step: one step of the function."""
        step = next(iter(of.terms)) if len(of.terms) == 1 else None
        if isinstance(step, Step):
            inner = self.function(where, name, self.mapped(of, lambda _: step.of))
            return self.step(step.where, inner, step.axis, step.index)
        return self.the((Function, name, content(of)), Function(of.width, where, name, of))

    def linear(self, where: str, of: Vector) -> Linear:
        return self.the((Linear, content(of)), Linear(of.width, where, of))

    def reversed(self, where: str, atom: Atom) -> Atom:
        """The sequence from its end. What works on each step alone changes places with it."""
        match atom:
            case Reversed():
                return atom.of
            case Constant():
                return atom
            case Picked():
                return self._picked_again(atom, self.reversed(where, atom.of))
            case Function():
                return self.function(atom.where, atom.name, self.turned(where, atom.of))
            case Linear():
                return self.linear(atom.where, self.turned(where, atom.of))
        return self.the((Reversed, atom), Reversed(atom.width, where, atom))

    def turned(self, where: str, vector: Vector) -> Vector:
        return self.mapped(vector, lambda atom: self.reversed(where, atom))

    def _picked_again(self, atom: Picked, of: Atom) -> Atom:
        (picked,) = self.picked(of, atom.rows).terms
        return picked

    def step(self, where: str, atom: Atom, axis: Symbol, index: int) -> Atom:
        if isinstance(atom, Constant):
            return atom
        if isinstance(atom, Picked):
            return self._picked_again(atom, self.step(where, atom.of, axis, index))
        if axis.size is not None:
            index %= axis.size
        step = Step(atom.width, where, atom, axis, index)
        if step.is_first and isinstance(atom, Reversed) and isinstance(atom.of, Recurrent):
            return self.step(where, atom.of, axis, -1)  # a backward layer ends where the sequence begins
        return self.the((Step, atom, axis, index), step)

    # ---- vectors ----------------------------------------------------------------------------------------------------

    def rows(self, vector: Vector, rows: Rows) -> Vector:
        """Some features of a vector, in an order."""
        self.spend(len(rows))
        if np.array_equal(rows, np.arange(vector.width)):
            return vector
        block = slice(rows[0], rows[-1] + 1) if len(rows) and (np.diff(rows) == 1).all() else rows
        result = Vector(len(rows), {}, vector.bias[block])
        for atom, coefficient in vector.terms.items():
            if coefficient.ndim == 2:
                self.spend(0 if isinstance(block, slice) else len(rows) * atom.width)
                part = Vector(len(rows), {atom: coefficient[block]}, np.zeros(len(rows)))
            else:
                part = self.picked(atom, rows)
                part = self.scaled(part, coefficient if coefficient.ndim == 0 else coefficient[block])
            result = self.plus(result, part)
        return result

    def plus(self, a: Vector, b: Vector) -> Vector:
        self.spend(a.width)
        terms = dict(a.terms)
        for atom, coefficient in b.terms.items():
            total = self._coefficients(terms[atom], coefficient, atom) if atom in terms else coefficient
            terms[atom] = total
            if not total.any():
                del terms[atom]
        return Vector(a.width, terms, a.bias + b.bias)

    def _coefficients(self, a: FloatArray, b: FloatArray, atom: Atom) -> FloatArray:
        if a.ndim == b.ndim == 2 or max(a.ndim, b.ndim) < 2:
            self.spend(max(a.size, b.size))
            return np.asarray(a + b)
        matrix, other = (a, b) if a.ndim == 2 else (b, a)
        self.spend(matrix.size)
        return np.asarray(matrix + np.eye(atom.width) * other)

    def scaled(self, vector: Vector, factor: FloatArray) -> Vector:
        """factor: one number, or one for each feature."""
        if factor.size and (factor == factor.flat[0]).all():
            factor = np.asarray(factor.flat[0])
        if factor.ndim == 0 and factor == 1:
            return vector
        terms = {}
        for atom, coefficient in vector.terms.items():
            self.spend(max(coefficient.size, factor.size))
            terms[atom] = np.asarray(
                coefficient * (factor[:, None] if factor.ndim and coefficient.ndim == 2 else factor)
            )
        return Vector(vector.width, {atom: c for atom, c in terms.items() if c.any()}, vector.bias * factor)

    def shifted(self, vector: Vector, shift: FloatArray) -> Vector:
        self.spend(vector.width)
        return replace(vector, bias=vector.bias + shift)

    def times(self, a: Vector, b: Vector) -> Vector:
        """Feature by feature; both elementwise."""
        if max(len(a.terms), len(b.terms)) > 4 or len(a.terms) * len(b.terms) > TERMS_LIMIT:
            raise ModelError("a product of sums that no GRU has")
        result = self.scaled(Vector(b.width, b.terms, np.zeros(b.width)), a.bias)
        result = self.plus(result, self.scaled(a, b.bias))
        for first, c in a.terms.items():
            for second, d in b.terms.items():
                product = self.the((Product, frozenset((first, second))), Product(a.width, (first, second)))
                result = self.plus(result, self.scaled(of_atom(product), c * d))
        return result

    def mapped(self, vector: Vector, change: Callable[[Atom], Atom]) -> Vector:
        """The vector over other atoms of the same width."""
        result = Vector(vector.width, {}, vector.bias)
        for atom, coefficient in vector.terms.items():
            result = self.plus(result, Vector(vector.width, {change(atom): coefficient}, np.zeros(vector.width)))
        return result

    def matrix(self, coefficient: FloatArray, atom: Atom) -> FloatArray:
        """A coefficient as a matrix."""
        if coefficient.ndim == 2:
            return coefficient
        self.spend(atom.width**2)
        return np.eye(atom.width) * (coefficient[:, None] if coefficient.ndim else coefficient)


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
            return f"the product of {describe(atom.factors[0])} and {describe(atom.factors[1])}"[:300]
        case Both():
            return f"{atom.forward.where} and {atom.backward.where}"
        case Constant():
            return "a constant"
        case Picked():
            return f"{atom.width} features of {describe(atom.of)}"[:300]
    return str(getattr(atom, "where", type(atom).__name__))


def widths(vectors: Iterable[Vector]) -> int:
    return sum(vector.width for vector in vectors)
