"""From vectors to the layer that they are: one atom for what a graph writes as slices, sums and products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from quantgru.activations import Merge
from quantgru.array_types import FloatArray
from quantgru.importers.chain import refuse
from quantgru.importers.onnx_algebra import Algebra
from quantgru.importers.onnx_atoms import (
    ONE,
    Atom,
    Both,
    Cell,
    Picked,
    Place,
    Product,
    Recurrent,
    Reversed,
    Step,
    Vector,
    content,
    describe,
    of_atom,
    widths,
)
from quantgru.importers.onnx_cells import Bind, Cells, read_step


class Finder:
    """Finds the atom that vectors are. `cells`: the layers that are computed step by step."""

    def __init__(self, algebra: Algebra, bind: Bind) -> None:
        self.algebra = algebra
        self.cells = Cells(algebra, bind)
        self._found: dict[Any, tuple[tuple[Vector, ...], Atom | None]] = {}

    def settle(self, where: str, vectors: Sequence[Vector]) -> Atom:
        """The one atom of these features. Raises ModelError where they come from several layers."""
        atom = self.find(where, vectors)
        if atom is None:
            names = sorted({describe(atom)[:55] for vector in vectors for atom in vector.terms})
            read = " and ".join(names[:2]) if len(names) > 1 else f"several results of {names[0]}"
            raise refuse(where, f"reads {read} at once: the graph branches, and comes together")
        return atom

    def find(self, where: str, vectors: Sequence[Vector]) -> Atom | None:
        """The same, or None."""
        key = tuple(content(vector) for vector in vectors)
        if key not in self._found:  # with the vectors, since keys know matrices by where they are in memory
            self._found[key] = tuple(vectors), self._find(where, vectors)
        return self._found[key][1]

    def _find(self, where: str, vectors: Sequence[Vector]) -> Atom | None:
        if len(vectors) == 1:
            vector = vectors[0]
            if vector.only is not None and not isinstance(vector.only, Picked):
                return vector.only
            if not vector.terms:
                return self.algebra.constant(vector.bias)
            merged = self._merged(where, vector)
            if merged is not None:
                return merged
        bases = list(dict.fromkeys(_base(atom) for vector in vectors for atom in vector.terms))
        if not bases:
            return None
        base = bases[0] if len(bases) == 1 else self._pair(where, bases, "concat")
        if base is None or self._step(base) is not None:
            return self._outside(where, vectors)
        return self._over(where, vectors, base, bases)

    def _outside(self, where: str, vectors: Sequence[Vector]) -> Atom | None:
        """Of vectors that are all at the same step: the atom of the whole sequence, at that step."""
        found = self.sequences(vectors)
        if found is None:
            return None
        inner = self.find(where, found[1])
        return None if inner is None else self.algebra.step(where, inner, *found[0])

    def _pair(self, where: str, atoms: Sequence[Atom], merge: Merge) -> Both | None:
        """The bidirectional layer whose two results the atoms are, in any order."""
        if len(atoms) != 2:
            return None
        for first, second in (atoms, atoms[::-1]):
            final = False
            if isinstance(first, Step) and isinstance(second, Step) and first.is_last and second.is_last:
                first, backward, final = first.of, second.of, True
            elif isinstance(second, Reversed):
                backward = second.of
            else:
                continue
            if not (isinstance(first, Recurrent) and isinstance(backward, Recurrent)):
                continue
            if first.of is self.algebra.reversed(where, backward.of) and first.width == backward.width:
                width = first.width * (2 if merge == "concat" else 1)
                both = Both(width, first, backward, merge, final)
                return self.algebra.unique((Both, first, backward, merge, final), both)
        return None

    def _merged(self, where: str, vector: Vector) -> Atom | None:
        """What is computed of the sum or the mean of a bidirectional layer's two results, feature by feature."""
        if len(vector.terms) != 2 or not vector.is_elementwise:
            return None
        first, second = vector.terms.values()
        if first.shape != second.shape or (first != second).any():
            return None
        merge: Merge = "ave" if first.ndim == 0 and first == 0.5 else "sum"
        both = self._together(where, list(vector.terms), merge)
        if both is None:
            return None
        return self._linear(where, Vector(vector.width, {both: ONE if merge == "ave" else first}, vector.bias))

    def _together(self, where: str, atoms: Sequence[Atom], merge: Merge) -> Atom | None:
        """A bidirectional layer of two results, at every step or at the same one."""
        pair: Atom | None = self._pair(where, atoms, merge)
        first, second = atoms
        if pair is None and isinstance(first, Step) and isinstance(second, Step) and first.place == second.place:
            pair = self._pair(where, (first.of, second.of), merge)
            return None if pair is None else self.algebra.step(where, pair, first.axis, first.index)
        return pair

    def _over(self, where: str, vectors: Sequence[Vector], base: Atom, bases: Sequence[Atom]) -> Atom | None:
        """The linear layer on `base`, or base itself. `bases`: base alone, or the two layers that it joins."""
        shift: dict[Atom, int] = {bases[0]: 0}
        if isinstance(base, Both) and len(bases) == 2:
            shift = {atom: 0 if _layer(atom) is base.forward else base.forward.width for atom in bases}
        if all(len(vector.terms) == 1 and vector.is_elementwise for vector in vectors):
            rows, factors = [], []
            for vector in vectors:
                ((atom, coefficient),) = vector.terms.items()
                rows.append(_rows(atom) + shift[_base(atom)])
                factors.append(np.broadcast_to(coefficient, vector.width))
            if np.array_equal(np.concatenate(rows), np.arange(base.width)):
                bias = np.concatenate([vector.bias for vector in vectors])
                factor = np.concatenate(factors)
                terms = {base: factor if (factor != factor[0]).any() else np.asarray(factor[0])}
                return self._linear(where, Vector(base.width, terms, bias))
        return self._linear(where, self._with_matrix(vectors, base, shift))

    def _with_matrix(self, vectors: Sequence[Vector], base: Atom, shift: dict[Atom, int]) -> Vector:
        if len(vectors) == 1 and list(vectors[0].terms) == [base]:
            return vectors[0]
        height = widths(vectors)
        self.algebra.spend(height * base.width)
        matrix, top = np.zeros((height, base.width)), 0
        for vector in vectors:
            block = matrix[top : top + vector.width]
            for atom, coefficient in vector.terms.items():
                columns = _rows(atom) + shift[_base(atom)]
                np.add.at(block.T, columns, self.algebra.matrix(coefficient, atom).T)  # columns may be repeated
            top += vector.width
        return Vector(height, {base: matrix}, np.concatenate([vector.bias for vector in vectors]))

    def _linear(self, where: str, vector: Vector) -> Atom:
        if vector.only is not None:
            return vector.only
        return self.algebra.linear(where, vector)

    def plus(self, where: str, a: Vector, b: Vector) -> Vector:
        """The sum; that which is one step of a GRU becomes its state."""
        total = self.algebra.plus(a, b)
        one_step = read_step(total)
        cell = None if one_step is None else self.cells.cell(where, one_step)
        return total if cell is None else of_atom(cell)

    def matmul(self, where: str, weights: FloatArray, vectors: Sequence[Vector]) -> Vector:
        """weights [outputs, inputs] times all of the vectors."""
        if not all(vector.terms and vector.is_elementwise for vector in vectors):
            return self.algebra.product(weights, of_atom(self.settle(where, vectors)))
        bases = {_base(atom) for vector in vectors for atom in vector.terms}
        atom = self.find(where, vectors) if len(bases) > 1 else None
        if atom is not None:
            return self.algebra.product(weights, of_atom(atom))
        total, ends = Vector(len(weights), {}, np.zeros(len(weights))), np.cumsum([v.width for v in vectors])
        for vector, block in zip(vectors, np.split(weights, ends[:-1], axis=1), strict=True):
            total = self.algebra.plus(total, self.algebra.product(block, vector))
        return total

    def times(self, where: str, a: Vector, b: Vector) -> Vector:
        """Feature by feature."""
        product = self.algebra.times(where, self._factor(where, a), self._factor(where, b))
        return self.algebra.mapped(product, lambda atom: self._product(where, atom))

    def _product(self, where: str, atom: Atom) -> Atom:
        both = self._together(where, atom.factors, "mul") if isinstance(atom, Product) else None
        return atom if both is None else both

    def _factor(self, where: str, vector: Vector) -> Vector:
        """The same features as a vector that can be multiplied with another."""
        if len(vector.terms) == 1 and vector.is_elementwise:
            return vector
        atom = self.find(where, [vector]) if vector.terms else None
        if atom is not None:
            return of_atom(atom)
        return vector if vector.is_elementwise else of_atom(self.algebra.function(where, "linear", vector))

    def sequences(self, vectors: Sequence[Vector]) -> tuple[Place, list[Vector]] | None:
        """Of vectors that are all at one step: where that is, and the whole sequences; None where they are not."""
        steps = [self._step(atom) for vector in vectors for atom in vector.terms]
        for place in dict.fromkeys(step.place for step in steps if step is not None):
            wholes = self.sequences_at(vectors, place)
            if wholes is not None:
                return place, wholes
        return None

    def sequences_at(self, vectors: Sequence[Vector], place: Place) -> list[Vector] | None:
        """The sequences of which the vectors are this step."""
        wholes: dict[Atom, Atom] = {}
        for atom in {atom for vector in vectors for atom in vector.terms}:
            whole = self._whole(atom, place)
            if whole is None:
                return None
            wholes[atom] = whole
        return [self.algebra.mapped(vector, wholes.__getitem__) for vector in vectors]

    def _whole(self, atom: Atom, place: Place) -> Atom | None:
        step = self._step(atom)
        if step is None:
            return None
        if step.place == place:
            whole = step.of
        elif place == (step.axis, 0) and step.is_last and isinstance(step.of, Recurrent):
            whole = self.algebra.reversed(step.where, step.of)  # its last state is the first, seen from the end
        else:
            return None
        if not isinstance(atom, Picked):
            return whole
        (picked,) = self.algebra.picked(whole, atom.rows).terms
        return picked

    def _step(self, atom: Atom) -> Step | None:
        if isinstance(atom, Picked):
            return self._step(atom.of)
        if isinstance(atom, Cell):
            return self.cells.steps.get(atom)
        return atom if isinstance(atom, Step) else None


def _base(atom: Atom) -> Atom:
    return atom.of if isinstance(atom, Picked) else atom


def _rows(atom: Atom) -> Any:
    return atom.rows if isinstance(atom, Picked) else np.arange(atom.width)


def _layer(atom: Atom) -> Atom:
    """The GRU layer whose states, in any order, the atom is."""
    return atom.of if isinstance(atom, (Reversed, Step)) else atom
