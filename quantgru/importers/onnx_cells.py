"""A GRU that a graph writes out step by step: Keras exports its layers so, on PyTorch.

A cell is known by what it computes, not by how it is written: z h + (1 - z) n and n + z (h - n) are the same sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from quantgru.activations import CANDIDATES, GATES
from quantgru.importers.chain import refuse
from quantgru.importers.onnx_algebra import Algebra
from quantgru.importers.onnx_atoms import (
    Atom,
    Cell,
    Constant,
    FloatArray,
    Function,
    Given,
    Input,
    Linear,
    Product,
    Recurrent,
    Step,
    Vector,
    describe,
    same,
)
from quantgru.importers.onnx_sizes import Symbol
from quantgru.model import Gru
from quantgru.model.layers import Reset

Bind = Callable[[str, Symbol, str], None]  # says, at a node, that a free axis has a role


@dataclass(frozen=True, eq=False)
class CellForm:
    """One step of a GRU. Blocks in the order z, r, n; a block of weights may be a number, as it is in the graph.

    replaces: whether it is h' = (1 - z) h + z n
    """

    units: int
    replaces: bool
    reset: Reset
    gate: str
    candidate: str
    from_input: tuple[FloatArray, ...]
    from_state: tuple[FloatArray, ...]
    bias: tuple[FloatArray, ...]
    recurrent_bias: FloatArray

    def equals(self, other: CellForm, algebra: Algebra) -> bool:
        """Whether it is the same cell with the same weights."""
        fields = ("units", "replaces", "reset", "gate", "candidate")
        if any(getattr(self, name) != getattr(other, name) for name in fields):
            return False
        pairs = list(zip(self._arrays(), other._arrays(), strict=True))
        for a, b in pairs:
            algebra.spend(0 if a.ndim == 2 and a.__array_interface__ == b.__array_interface__ else a.size)
        return all(same(a, b) for a, b in pairs)

    def _arrays(self) -> Iterator[FloatArray]:
        yield from (*self.from_input, *self.from_state, *self.bias, self.recurrent_bias)

    def gru(self, algebra: Algebra, name: str, source: Atom, start: FloatArray | None) -> Gru:
        state = Atom(self.units)
        weights = np.stack([algebra.matrix(block, source) for block in self.from_input])
        recurrent_weights = np.stack([algebra.matrix(block, state) for block in self.from_state])
        algebra.spend(weights.size + recurrent_weights.size)
        bias = np.stack(self.bias)
        if self.replaces:  # sigmoid(-a) = 1 - sigmoid(a), and so for the hard one
            weights[0], recurrent_weights[0], bias[0] = -weights[0], -recurrent_weights[0], -bias[0]
        return Gru(
            name,
            self.reset,
            weights,
            recurrent_weights,
            bias,
            self.recurrent_bias,
            self.gate,  # type: ignore[arg-type]  # one of GATES
            self.candidate,  # type: ignore[arg-type]  # one of CANDIDATES
            start,
        )


@dataclass(frozen=True, eq=False)
class OneStep:
    """A cell in a graph: what it computes, from what input and from what state."""

    form: CellForm
    input: Atom
    before: Atom


def read_step(vector: Vector) -> OneStep | None:
    """The cell that the sum n - z n + z h, or h - z h + z n, is; None if it is none."""
    if vector.bias.any() or len(vector.terms) != 3 or any(c.ndim for c in vector.terms.values()):
        return None
    by_factor = sorted(vector.terms, key=lambda atom: (isinstance(atom, Product), vector.terms[atom]))
    alone, minus, plus = by_factor
    if [float(vector.terms[atom]) for atom in by_factor] != [1, -1, 1]:
        return None
    if not (isinstance(minus, Product) and isinstance(plus, Product)) or isinstance(alone, Product):
        return None
    for z, kept in _both_ways(minus):
        for gate, other in _both_ways(plus):
            if kept is alone and gate is z:
                return _read(z, alone, other, replaces=False) or _read(z, other, alone, replaces=True)
    return None


def _both_ways(product: Product) -> tuple[tuple[Atom, Atom], ...]:
    first, second = product.factors
    return (first, second), (second, first)


def _read(z: Atom, n: Atom, h: Atom, replaces: bool) -> OneStep | None:
    if not (isinstance(z, Function) and z.name in GATES and isinstance(n, Function) and n.name in CANDIDATES):
        return None
    inner = [atom for atom in n.of.terms if isinstance(atom, Product)]
    others = [atom for atom in n.of.terms if atom not in inner]
    if len(inner) != 1 or len(others) != 1:
        return None
    x, after_gate = others[0], n.of.terms[inner[0]]
    for r, state in _both_ways(inner[0]):
        if not isinstance(r, Function) or r.name != z.name or {*z.of.terms} != {x, h} or {*r.of.terms} != {x, h}:
            continue
        recurrent_bias = np.zeros(z.width)
        if state is h:
            reset: Reset = "before"
        elif isinstance(state, Linear) and state.atom is h and after_gate.ndim == 0 and after_gate == 1:
            reset, after_gate, recurrent_bias = "after", state.of.terms[h], state.of.bias
        else:
            continue
        form = CellForm(
            z.width,
            replaces,
            reset,
            z.name,
            n.name,
            (z.of.terms[x], r.of.terms[x], n.of.terms[x]),
            (z.of.terms[h], r.of.terms[h], after_gate),
            (z.of.bias, r.of.bias, n.of.bias),
            recurrent_bias,
        )
        return OneStep(form, x, h)
    return None


@dataclass
class Unrolled:
    """The layers that were found written out, with their cells in order."""

    algebra: Algebra
    bind: Bind
    layers: dict[Recurrent, tuple[Atom, ...]] = field(default_factory=dict)

    def cell(self, where: str, one: OneStep) -> Atom | None:
        """The cell as an atom; the last one is the last step of the whole layer. None where it does not fit."""
        step, before = one.input, one.before
        if not isinstance(step, Step):
            return None
        number = 1
        if isinstance(before, Cell):
            if before.step.of is not step.of or before.step.axis != step.axis:
                return None
            number = before.number + 1
            if abs(step.index - before.step.index) != 1 or not one.form.equals(before.form, self.algebra):
                return None
            if number > 2 and step.index - before.step.index != before.step.index - self._before(before).step.index:
                return None
        cell = Cell(one.form.units, where, step, before, one.form, number)
        return self._layer(where, cell) if number == step.axis.size else cell

    def _before(self, cell: Cell) -> Cell:
        assert isinstance(cell.before, Cell)
        return cell.before

    def _layer(self, where: str, last: Cell) -> Atom | None:
        """The last step of the layer that these cells are, if they read every step in order."""
        cells = [last]
        while isinstance(cells[-1].before, Cell):
            cells.append(cells[-1].before)
        cells.reverse()
        source, axis = last.step.of, last.step.axis
        if cells[0].step.index != 0:
            if last.step.index != 0:
                return None
            source = self.algebra.reversed(where, source)
        start, given = start_of(where, cells[0].before)
        gru = last.form.gru(self.algebra, f"gru_{len(self.layers) + 1}", source, start)
        layer = Recurrent(gru.n_units, where, gru, source, given)
        self.bind(where, axis, "steps")
        state = self.algebra.step(where, layer, axis, -1)
        self.layers[layer] = (*cells[:-1], state)
        return state


def start_of(where: str, atom: Atom) -> tuple[FloatArray | None, Given | None]:
    """The initial state that a constant is, or the input that gives it."""
    if isinstance(atom, Constant):
        values = np.asarray(atom.values, dtype=np.float64)
        return (values if values.any() else None), None
    if isinstance(atom, Input):
        return None, Given(atom.name)
    if isinstance(atom, Step) and isinstance(atom.of, Input):
        return None, Given(atom.of.name, atom.index)
    raise refuse(
        where,
        f"an initial state that is computed by {describe(atom)}",
        "start from zeros, constants, or an input of the model of its own",
    )
