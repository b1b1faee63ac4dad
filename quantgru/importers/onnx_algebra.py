"""Operations on vectors and atoms. Exporters write the same thing in many ways, which all become the same vector."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from quantgru.array_types import FloatArray
from quantgru.errors import ModelError
from quantgru.importers.chain import refuse
from quantgru.importers.onnx_atoms import (
    ONE,
    Atom,
    Constant,
    Function,
    Iteration,
    Linear,
    Picked,
    Product,
    Recurrent,
    Reversed,
    Rows,
    Step,
    Vector,
    content,
    content_of_array,
    of_atom,
)
from quantgru.importers.onnx_sizes import Symbol

FREE_NUMBERS: Final = 1 << 22  # that a reading may make beside those that stand in proportion to its file
TERMS_LIMIT: Final = 16  # of a product, so that products of sums do not explode
FLOAT32_STEP: Final = 2.0**-23  # from 1 to the next number: 6 * (1 / 6) in float32 is meant to be 1

A = TypeVar("A", bound=Atom)


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
                f"computes with {self._numbers} numbers, far more than a file of {self.n_bytes} bytes holds; its sizes "
                "are not those of a model for a microcontroller, or the file is damaged"
            )

    def unique(self, key: Any, atom: A) -> A:
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
        return of_atom(self.unique((Picked, atom, rows.tobytes()), Picked(len(rows), atom, rows)))

    def constant(self, values: npt.NDArray[Any]) -> Constant:
        if values.dtype == object:
            return Constant(len(values), values)
        return self.unique((Constant, values.tobytes()), Constant(len(values), values))

    def function(self, where: str, name: str, of: Vector) -> Atom:
        """Of one step: one step of the function."""
        step = next(iter(of.terms)) if len(of.terms) == 1 else None
        if isinstance(step, Step):
            inner = self.function(where, name, self.mapped(of, lambda _: step.of))
            return self.step(step.where, inner, step.axis, step.index)
        return self.unique((Function, name, content(of)), Function(of.width, where, name, of))

    def linear(self, where: str, of: Vector) -> Linear:
        return self.unique((Linear, content(of)), Linear(of.width, where, of))

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
        return self.unique((Reversed, atom), Reversed(atom.width, where, atom))

    def turned(self, where: str, vector: Vector) -> Vector:
        return self.mapped(vector, lambda atom: self.reversed(where, atom))

    def _picked_again(self, atom: Picked, of: Atom) -> Atom:
        (picked,) = self.picked(of, atom.rows).terms
        return picked

    def step(self, where: str, atom: Atom, axis: Symbol, index: int | Iteration) -> Atom:
        if isinstance(atom, Constant):
            return atom
        if isinstance(atom, Picked):
            return self._picked_again(atom, self.step(where, atom.of, axis, index))
        if axis.size is not None and isinstance(index, int):
            index %= axis.size
        step = Step(atom.width, where, atom, axis, index)
        if step.is_first and isinstance(atom, Reversed) and isinstance(atom.of, Recurrent):
            return self.step(where, atom.of, axis, -1)  # a backward layer ends where the sequence begins
        return self.unique((Step, atom, axis, index), step)

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
            scaled = np.asarray(coefficient * (factor[:, None] if factor.ndim and coefficient.ndim == 2 else factor))
            terms[atom] = ONE if scaled.ndim == 0 and abs(scaled - 1) < FLOAT32_STEP else scaled
        return Vector(vector.width, {atom: c for atom, c in terms.items() if c.any()}, vector.bias * factor)

    def shifted(self, vector: Vector, shift: FloatArray) -> Vector:
        self.spend(vector.width)
        return replace(vector, bias=vector.bias + shift)

    def product(self, weights: FloatArray, vector: Vector) -> Vector:
        """weights [outputs, inputs] times a vector that is elementwise. Of some features of an atom: with the atom."""
        bias = weights @ vector.bias if vector.bias.any() else np.zeros(len(weights))
        result = Vector(len(weights), {}, bias)
        for atom, coefficient in vector.terms.items():
            matrix = weights
            if coefficient.ndim or coefficient != 1:
                self.spend(weights.size)
                matrix = weights * coefficient
            if isinstance(atom, Picked):
                matrix, atom = self._spread(matrix, atom), atom.of
            result = self.plus(result, Vector(len(weights), {atom: matrix}, np.zeros(len(weights))))
        return result

    def _spread(self, weights: FloatArray, picked: Picked) -> FloatArray:
        """Weights of some features as weights of all; features may be picked several times."""
        self.spend(len(weights) * picked.of.width)
        matrix = np.zeros((len(weights), picked.of.width))
        np.add.at(matrix.T, picked.rows, weights.T)
        return matrix

    def times(self, where: str, a: Vector, b: Vector) -> Vector:
        """Feature by feature; both elementwise."""
        if max(len(a.terms), len(b.terms)) > 4 or len(a.terms) * len(b.terms) > TERMS_LIMIT:
            raise refuse(where, "a product of sums that no GRU has")
        result = self.scaled(Vector(b.width, b.terms, np.zeros(b.width)), a.bias)
        result = self.plus(result, self.scaled(a, b.bias))
        for first, c in a.terms.items():
            for second, d in b.terms.items():
                product = self.unique((Product, frozenset((first, second))), Product(a.width, (first, second)))
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
