"""GRU layers that a graph computes cell by cell: written out for each step, in a loop, or for one step only.

Keras exports its layers so: on PyTorch all steps after each other, on TensorFlow as a loop.

A cell is known by what it computes, not by how it is written: z h + (1 - z) n and n + z (h - n) are the same sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from quantgru.activations import CANDIDATES, GATES, Reset
from quantgru.array_types import FloatArray
from quantgru.importers.chain import refuse
from quantgru.importers.onnx_algebra import Algebra
from quantgru.importers.onnx_atoms import (
    Atom,
    Carried,
    Cell,
    Constant,
    Embedded,
    Function,
    Given,
    Input,
    Iteration,
    Linear,
    Picked,
    Product,
    Recurrent,
    Step,
    Vector,
    describe,
    same,
)
from quantgru.importers.onnx_sizes import Symbol
from quantgru.model import Gru

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
        elif (product := _product_of(state, h)) is not None and after_gate.ndim == 0 and after_gate == 1:
            reset, recurrent_bias = "after", product.bias
            (after_gate,) = product.terms.values()
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


def _product_of(atom: Atom, h: Atom) -> Vector | None:
    """The sum of a matrix times h and a bias that an atom is; of one step, the step of a sum."""
    if isinstance(atom, Step) and isinstance(h, Step) and (atom.axis, atom.index) == (h.axis, h.index):
        atom, h = atom.of, h.of
    return atom.of if isinstance(atom, Linear) and atom.atom is h else None


@dataclass
class Cells:
    """From cells to the layers whose steps they are.

    steps    of layers that were written out, what each cell is of them
    looped   of loops, the layer that was found for what is carried: right only if it is what is carried on
    alone    layers of which a graph computes a single step
    """

    algebra: Algebra
    bind: Bind
    steps: dict[Cell, Step] = field(default_factory=dict)
    looped: dict[Carried, tuple[OneStep, Recurrent]] = field(default_factory=dict)
    alone: set[Recurrent] = field(default_factory=set)
    _n_layers: int = 0

    def cell(self, where: str, one: OneStep) -> Atom | None:
        """The state after the cell as an atom; None where it is no step of a layer."""
        if isinstance(one.before, Carried):
            return self._in_loop(where, one, one.before)
        match one.input:
            case Step(axis=axis, index=int(index)):
                return self._written_out(where, one, axis, index)
            case Cell(axis=axis, number=number):  # of the layer below, which is not known before its last step
                return self._written_out(where, one, axis, number - 1)
        return self._alone(where, one)

    def _in_loop(self, where: str, one: OneStep, before: Carried) -> Atom | None:
        step = one.input
        if not isinstance(step, Step) or not isinstance(step.index, Iteration):
            return None
        if before in self.looped:
            first, layer = self.looped[before]
            if first.input is not step or not one.form.equals(first.form, self.algebra):
                return None
        else:
            layer = self._recurrent(where, one.form, step.of, before.start)
            self.looped[before] = one, layer
        return self.algebra.step(where, layer, step.axis, step.index)

    def _alone(self, where: str, one: OneStep) -> Atom | None:
        """One step of a graph that computes no more, from a state that it is given."""
        if not self.is_single(one.input) or not is_given(one.before):
            return None
        return self.single(self._recurrent(where, one.form, one.input, one.before))

    def is_single(self, atom: Atom) -> bool:
        """Whether it is computed of inputs of the graph without a look at any axis of steps."""
        match atom:
            case Input():
                return True
            case Recurrent():
                return atom in self.alone
            case Embedded() | Picked():
                return self.is_single(atom.of)
            case Function() | Linear():
                return all(map(self.is_single, atom.of.terms))
        return False

    def single(self, layer: Recurrent) -> Recurrent:
        """The layer, known as one of which a graph computes a single step."""
        self.alone.add(layer)
        return layer

    def _written_out(self, where: str, one: OneStep, axis: Symbol, index: int) -> Atom | None:
        """One of the cells of a layer; the last of them is the last step of it."""
        before, number = one.before, 1
        if isinstance(before, Cell):
            number = before.number + 1
            forwards = index - before.index
            if before.axis != axis or abs(forwards) != 1 or not one.form.equals(before.form, self.algebra):
                return None
            if isinstance(before.before, Cell) and forwards != before.index - before.before.index:
                return None
        cell = Cell(one.form.units, where, one.input, axis, index, before, one.form, number)
        return self._layer(where, cell) if number == axis.size else cell

    def _layer(self, where: str, last: Cell) -> Atom | None:
        """The last step of the layer that these cells are, if they read every step of one sequence in order."""
        cells = [last]
        while isinstance(before := cells[-1].before, Cell):
            cells.append(before)
        cells.reverse()
        steps = [self.steps.get(cell.input, cell.input) for cell in cells]  # type: ignore[call-overload]
        sources = {step.of if isinstance(step, Step) and step.axis == last.axis else None for step in steps}
        source = sources.pop()
        if sources or source is None or 0 not in (cells[0].index, last.index):
            return None
        if cells[0].index != 0:
            source = self.algebra.reversed(where, source)
        layer = self._recurrent(where, last.form, source, cells[0].before)
        self.bind(where, last.axis, "steps")
        for cell in cells[:-1]:
            self.steps[cell] = Step(layer.width, where, layer, last.axis, cell.number - 1)
        return self.algebra.step(where, layer, last.axis, -1)

    def _recurrent(self, where: str, form: CellForm, source: Atom, before: Atom) -> Recurrent:
        start, given = start_of(where, before)
        self._n_layers += 1
        gru = form.gru(self.algebra, f"gru_{self._n_layers}", source, start)
        return Recurrent(gru.n_units, where, gru, source, given)


def is_given(atom: Atom) -> bool:
    """Whether an initial state is an input of the graph."""
    return isinstance(atom.of if isinstance(atom, Step) else atom, Input)


def start_of(where: str, atom: Atom) -> tuple[FloatArray | None, Given | None]:
    """The initial state that a constant is, or the input that gives it."""
    if isinstance(atom, Constant):
        values = np.asarray(atom.values, dtype=np.float64)
        return (values if values.any() else None), None
    if isinstance(atom, Input):
        return None, Given(atom.name)
    if isinstance(atom, Step) and isinstance(atom.of, Input) and isinstance(atom.index, int):
        return None, Given(atom.of.name, atom.index, atom.axis.axis)
    raise refuse(
        where,
        f"an initial state that is computed by {describe(atom)}",
        "start from zeros, constants, or an input of the model of its own",
    )
