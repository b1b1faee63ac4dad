"""Follows a graph from its inputs to its outputs. What is computed on the way is in `onnx_algebra`."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from quantgru.errors import ModelError
from quantgru.importers.chain import refuse
from quantgru.importers.onnx_algebra import Algebra
from quantgru.importers.onnx_atoms import Atom, Constant, Input, Iteration, Recurrent, Vector, of_atom
from quantgru.importers.onnx_constants import fold
from quantgru.importers.onnx_finder import Finder
from quantgru.importers.onnx_graph import Body, Graph, GraphInput, Node, needed_for
from quantgru.importers.onnx_sizes import Size, Symbol, agree
from quantgru.importers.onnx_tensors import Axis, FeaturesNeeded, Tensor
from quantgru.importers.options import ImportOptions

Value = Tensor | npt.NDArray[Any]
Operator = Callable[["Reader", Node, Sequence[Value | None]], list[Value]]

Features = Mapping[str, Symbol | None]  # of an input, the axis that holds features, if any


TAKE_THE_LAST: Final = "take the last step, or every step, and do it after the model"
_ADVICE: Final = {  # for operators that people use around a GRU
    "LSTM": "train a GRU in its place",
    "RNN": "train a GRU in its place",
    "Conv": "do it on the data, before the model",
    "LayerNormalization": "train with BatchNormalization in its place",
    **dict.fromkeys(("ReduceMax", "AveragePool", "MaxPool"), TAKE_THE_LAST),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool"), TAKE_THE_LAST),
}


@dataclass(frozen=True)
class Running:
    """A loop of `count` steps at any of them, its `number`, which `iteration` stands for in atoms."""

    where: str
    count: Size
    number: Size
    iteration: Iteration


class Reader:
    """Evaluates nodes in order.

    features    of each input, the axis that holds its features; the others are free
    tokens      inputs that can only be token numbers, 0 or more
    lengths     of each GRU layer, the input that gives the lengths of its sequences, if one does
    cuts        nodes that take or turn entries along an axis
    warnings    what the user should know at once
    has_nodes   whether the operator GRU occurs
    running     the loop whose graph is being read, if one is
    """

    def __init__(self, graph: Graph, options: ImportOptions, features: Features) -> None:
        self.graph = graph
        self.options = options
        self.features = features
        self.algebra = Algebra(graph.n_bytes)
        self.finder = Finder(self.algebra, self.bind)
        self.tokens: set[str] = set()
        self.lengths: dict[Recurrent, str | None] = {}
        self.cuts: list[tuple[str, Symbol]] = []
        self.warnings: list[str] = []
        self.has_nodes = False
        self.running: Running | None = None
        self._operators: Mapping[str, Operator] = {}
        self._values: dict[str, Value] = {}
        self._roles: dict[Symbol, str] = {}
        self._same: dict[Symbol, Symbol] = {}

    def read(self, operators: Mapping[str, Operator]) -> dict[str, Value]:
        """The outputs by name. Raises ModelError at the first node that is not understood, FeaturesNeeded."""
        self._operators = operators
        self._values |= self.graph.constants
        self._values |= {entry.name: self._input(entry) for entry in self.graph.inputs}
        results = self._run(self.graph.nodes, self._values, self.graph.outputs)
        return dict(zip(self.graph.outputs, results, strict=True))

    def run_body(
        self, body: Body, outputs: Sequence[str], own: Mapping[str, Value], running: Running | None = None
    ) -> list[Value]:
        """Outputs of the graph of a node, which sees the values around it; `own` are those of its inputs."""
        nodes = needed_for(body.nodes, outputs, lambda each: (each.inputs, each.outputs))
        around, self.running = self.running, running
        results = self._run(nodes, ChainMap({**body.constants, **own}, self._values), outputs)
        self.running = around
        return results

    def _run(self, nodes: Sequence[Node], values: MutableMapping[str, Value], outputs: Sequence[str]) -> list[Value]:
        """The outputs; adds what nodes compute to the values."""
        for node in nodes:
            missing = [name for name in node.inputs if name and name not in values]
            if missing:
                raise ModelError(
                    f"{node.where}: its input {missing[0][:60]!r} is computed nowhere before it; the file is damaged"
                )
            if node.kind in ("Gemm", "MatMul"):
                self._find_state(node, values)
            results = self._evaluate(node, [values[name] if name else None for name in node.inputs])
            values.update((name, value) for name, value in zip(node.outputs, results, strict=False) if name)
        missing = [name for name in outputs if name not in values]
        if missing:
            raise ModelError(f"output {missing[0][:60]!r}: nothing computes it; the file is damaged")
        return [values[name] for name in outputs]

    def _evaluate(self, node: Node, arguments: list[Value | None]) -> Sequence[Value]:
        if all(argument is None or isinstance(argument, np.ndarray) for argument in arguments):
            results = fold(self.algebra, node, arguments)  # type: ignore[arg-type]  # checked above
            if results is not None:
                return results
        if node.kind not in self._operators:
            raise refuse(node.where, "this operator is not supported here", _ADVICE.get(node.kind, ""))
        return self._operators[node.kind](self, node, arguments)

    def _input(self, entry: GraphInput) -> Tensor:
        axis = self.features.get(entry.name)
        symbols = [Symbol(entry.name, i, dim) for i, dim in enumerate(entry.dims)]
        width = 1
        axes: list[int | tuple[Symbol, ...]] = [(symbol,) for symbol in symbols]
        if axis is not None:
            width = axis.size or 1
            axes[axis.axis] = width
        self.algebra.spend(width)
        return Tensor(tuple(axes), (of_atom(Input(width, entry.name)),), entry.integer)

    def _find_state(self, node: Node, values: MutableMapping[str, Value]) -> None:
        """A constant that is multiplied with weights is the initial state of a written out GRU: rows of a batch."""
        value, weights = (values.get(name) for name in node.inputs[:2])
        if isinstance(value, np.ndarray) and isinstance(weights, np.ndarray):
            values[node.inputs[0]] = self.constant_rows(value) or value

    def constant_rows(self, value: npt.NDArray[Any]) -> Tensor | None:
        """[batch, width] of rows that are all the same, as one row for any batch; None where it is something else."""
        if value.ndim != 2 or not value.size or value.dtype.kind != "f":
            return None
        self.algebra.spend(value.size)
        if (value != value[:1]).any():
            return None
        atom = self.algebra.constant(np.asarray(value[0], dtype=np.float64))
        return Tensor((1, atom.width), (of_atom(atom),))

    # ---- axes -------------------------------------------------------------------------------------------------------

    def same_axis(self, a: Symbol) -> Symbol:
        """The symbol by which an axis is known, of inputs that turned out to share it."""
        while a in self._same:
            a = self._same[a]
        return a

    def join(self, where: str, a: Symbol, b: Symbol) -> None:
        """Two free axes have the same meaning, since they were added or joined. Raises ModelError."""
        a, b = self.same_axis(a), self.same_axis(b)
        if a == b:
            return
        sizes = {size for size in (a.size, b.size) if size is not None}
        roles = {role for role in (self._roles.get(a), self._roles.get(b)) if role}
        if a.input == b.input or len(sizes) > 1 or len(roles) > 1:
            raise refuse(where, f"takes {a} for {b}")
        self._same[b] = a
        if roles:
            self._roles[a] = roles.pop()

    def bind(self, where: str, axis: Symbol, role: str) -> None:
        """Says what a free axis is. Raises ModelError where it is something else elsewhere."""
        axis = self.same_axis(axis)
        before = self._roles.setdefault(axis, role)
        if before != role:
            raise refuse(
                where,
                f"takes {axis} for the {role}, which is the {before} elsewhere",
                "transpose between layers that want steps first and those that want the batch first",
            )

    def is_same_axis(self, a: Axis, b: Axis) -> bool:
        if isinstance(a, int) or isinstance(b, int):
            return a == b
        return list(map(self.same_axis, a)) == list(map(self.same_axis, b))

    def role(self, axis: Symbol) -> str | None:
        return self._roles.get(self.same_axis(axis))

    @property
    def has_steps(self) -> bool:
        """Whether an axis is that of steps."""
        return "steps" in self._roles.values()

    # ---- what tensors hold ------------------------------------------------------------------------------------------

    def settle(self, where: str, vectors: Sequence[Vector]) -> Atom:
        return self.finder.settle(where, vectors)

    def want_features(self, axis: Axis, width: int) -> None:
        """Makes sure that an axis holds features. Raises FeaturesNeeded where it is free so far."""
        if not isinstance(axis, int) and len(axis) == 1:
            raise FeaturesNeeded(axis[0], width)


def same_constant(where: str, tensor: Tensor) -> npt.NDArray[Any] | None:
    """The features of a tensor that is the same for every sequence and step, None where it is computed from data."""
    values = []
    for vector in tensor.vectors:
        total: npt.NDArray[Any] = vector.bias
        for atom, coefficient in vector.terms.items():
            if not isinstance(atom, Constant):
                return None
            if atom.values.dtype == object and coefficient.ndim == 0 and coefficient == 1:
                total = atom.values
            else:
                total = total + (coefficient @ atom.values if coefficient.ndim == 2 else coefficient * atom.values)
        values.append(total)
    return np.concatenate(values) if values else np.zeros(0)


def is_whole(lengths: npt.NDArray[Any], steps: Symbol) -> bool:
    """Whether all of these lengths are the number of steps."""
    entries = lengths.reshape(-1) if lengths.dtype == object else np.unique(lengths)
    return entries.size > 0 and all(_is_size(entry, steps) for entry in entries.tolist())


def _is_size(entry: Any, steps: Symbol) -> bool:
    if isinstance(entry, float) and entry.is_integer():
        entry = int(entry)
    return isinstance(entry, (int, Size)) and agree(entry, steps)
