"""From vectors to the layer that they are: one atom for what a graph writes as slices, sums and products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from quantgru.importers.chain import refuse
from quantgru.importers.onnx_algebra import (
    Algebra,
    Atom,
    Both,
    Linear,
    Picked,
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
from quantgru.importers.onnx_cells import Bind, Unrolled, read_step
from quantgru.model.layers import Merge


class Atoms:
    """Finds the atom that vectors are. `unrolled`: the layers that were written out step by step."""

    def __init__(self, algebra: Algebra, bind: Bind) -> None:
        self.algebra = algebra
        self.unrolled = Unrolled(algebra, bind)
        self._found: dict[Any, tuple[tuple[Vector, ...], Atom | None]] = {}

    def settle(self, where: str, vectors: Sequence[Vector]) -> Atom:
        """The one atom of these features. Raises ModelError where they come from several layers."""
        atom = self.find(where, vectors)
        if atom is None:
            names = sorted({describe(atom) for vector in vectors for atom in vector.terms})
            raise refuse(
                where, f"reads {' and '.join(names[:4])} at once: the graph branches, and comes together again"
            )
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
            one_step = read_step(vector)
            if one_step is not None:
                return self.unrolled.cell(where, one_step)
            merged = self._merged(where, vector)
            if merged is not None:
                return merged
        bases = list(dict.fromkeys(_base(atom) for vector in vectors for atom in vector.terms))
        if not bases:
            return None
        base = bases[0] if len(bases) == 1 else self._pair(bases, "concat")
        if base is not None:
            return self._over(where, vectors, base, bases)
        return self._outside(where, vectors, bases)

    def _outside(self, where: str, vectors: Sequence[Vector], bases: Sequence[Atom]) -> Atom | None:
        """Of vectors that are all reversed, or all at the same step: the atom inside, reversed, or at that step."""
        if all(isinstance(base, Reversed) for base in bases):
            inner = self.find(where, [self.algebra.mapped(vector, self._inside) for vector in vectors])
            return None if inner is None else self.algebra.reversed(where, inner)
        steps = [base for base in bases if isinstance(base, Step)]
        if len(steps) == len(bases) and len(set(map(_place, steps))) == 1:
            inner = self.find(where, [self.algebra.mapped(vector, self._inside) for vector in vectors])
            return None if inner is None else self.algebra.step(where, inner, steps[0].axis, steps[0].index)
        return None

    def _pair(self, atoms: Sequence[Atom], merge: Merge) -> Both | None:
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
            if _opposite(first.of, backward.of) and first.width == backward.width:
                width = first.width * (2 if merge == "concat" else 1)
                both: Both = self.algebra.known(
                    (Both, first, backward, merge, final),
                    lambda f=first, b=backward, final=final: Both(width, f, b, merge, final),
                )
                return both
        return None

    def _merged(self, where: str, vector: Vector) -> Atom | None:
        """A bidirectional layer whose results are added or multiplied, feature by feature."""
        if vector.bias.any() or any(coefficient.ndim for coefficient in vector.terms.values()):
            return None
        factors = [float(coefficient) for coefficient in vector.terms.values()]
        atoms = list(vector.terms)
        merge: Merge
        if len(atoms) == 1 and isinstance(atoms[0], Product) and factors == [1]:
            atoms, merge = list(atoms[0].factors), "mul"
        elif factors in ([1, 1], [0.5, 0.5]):
            merge = "sum" if factors[0] == 1 else "ave"
        else:
            return None
        if any(isinstance(atom, Picked) for atom in atoms):
            return None
        pair = self._pair(atoms, merge)
        if pair is not None or len(atoms) != 2:
            return pair
        first, second = atoms
        if not (isinstance(first, Step) and isinstance(second, Step)):
            return None
        pair = self._pair((first.of, second.of), merge) if _place(first) == _place(second) else None
        return None if pair is None else self.algebra.step(where, pair, first.axis, first.index)

    def _over(self, where: str, vectors: Sequence[Vector], base: Atom, bases: Sequence[Atom]) -> Atom | None:
        """The linear layer on `base`, or base itself. `bases`: base alone, or the two layers that it joins."""
        shift: dict[Atom, int] = {bases[0]: 0}
        if isinstance(base, Both):
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
                block[:, columns] += self.algebra.matrix(coefficient, atom)
            top += vector.width
        return Vector(height, {base: matrix}, np.concatenate([vector.bias for vector in vectors]))

    def _linear(self, where: str, vector: Vector) -> Atom:
        if vector.only is not None:
            return vector.only
        found: Linear = self.algebra.known((Linear, content(vector)), lambda: Linear(vector.width, where, vector))
        return found

    def factor(self, where: str, vector: Vector) -> Vector:
        """The same features as a vector that can be multiplied with another, feature by feature."""
        if len(vector.terms) == 1 and vector.is_elementwise:
            return vector
        atom = self.find(where, [vector]) if vector.terms else None
        if atom is not None:
            return of_atom(atom)
        return vector if vector.is_elementwise else of_atom(self.algebra.function(where, "linear", vector))

    def _inside(self, atom: Atom) -> Atom:
        """What is reversed, or is at a step. Of some features of such a thing: the same features of what is inside."""
        if isinstance(atom, Picked):
            (picked,) = self.algebra.picked(self._inside(atom.of), atom.rows).terms
            return picked
        assert isinstance(atom, (Reversed, Step))
        return atom.of


def _base(atom: Atom) -> Atom:
    return atom.of if isinstance(atom, Picked) else atom


def _rows(atom: Atom) -> Any:
    return atom.rows if isinstance(atom, Picked) else np.arange(atom.width)


def _place(step: Step) -> Any:
    return step.axis, step.index


def _opposite(a: Atom, b: Atom) -> bool:
    """Whether one is the other from its end."""
    return (isinstance(a, Reversed) and a.of is b) or (isinstance(b, Reversed) and b.of is a)


def _layer(atom: Atom) -> Atom:
    """The GRU layer whose states, in any order, the atom is."""
    return atom.of if isinstance(atom, (Reversed, Step)) else atom
