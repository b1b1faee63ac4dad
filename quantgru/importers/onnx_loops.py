"""The operators Loop and Scan: a graph of their own, which they run once for each step of a sequence.

TensorFlow writes GRU layers so. The graph is read once, for a step that may be any: what it takes of a sequence is a
`Step` at an `Iteration`, what it gets from the step before is `Carried`. The loop is a layer if it runs once for each
step of the sequence, takes the steps in order, and carries on what `onnx_cells` found to be the state of the layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from quantgru.errors import ModelError
from quantgru.importers.chain import refuse
from quantgru.importers.onnx_atoms import Carried, Iteration, Step, of_atom
from quantgru.importers.onnx_constants import given, whole
from quantgru.importers.onnx_graph import Body, Node
from quantgru.importers.onnx_reader import Operator, Reader, Running, Value
from quantgru.importers.onnx_shapes import Arguments, tensor_at
from quantgru.importers.onnx_sizes import FreeSizeError, Size, Symbol, agree
from quantgru.importers.onnx_tensors import Tensor, single, step_of

OLDEST_SCAN: Final = 9  # the opset; before, Scan has an axis of sequences

_ADVICE: Final = "load what the file was made from: the .keras or .h5 file, or the frozen graph"


def loop(reader: Reader, node: Node, arguments: Arguments) -> list[Value]:
    """What is carried after the last step, then what the graph gives at each step, as sequences."""
    body = _body(node, n_inputs=len(arguments), n_outputs=len(node.outputs) + 1)
    count = _count(node, given(node, arguments, 0))
    slots = _slots(reader, node, body, (body.inputs[2:], body.outputs[1:]), arguments[2:])
    _want_no_early_end(reader, node, body, slots, count, given(node, arguments, 1))
    running = _running(node, count)
    before = {body.inputs[0]: _number(running.number), body.inputs[1]: np.ones((), np.bool_)}
    return _run(reader, node, body.outputs[1:], slots, running, before)


def scan(reader: Reader, node: Node, arguments: Arguments) -> list[Value]:
    """The same, where the node itself takes the steps of sequences."""
    body = _body(node, n_inputs=len(arguments), n_outputs=len(node.outputs))
    if node.opset < OLDEST_SCAN:
        raise refuse(node.where, f"of opset {node.opset}", "export it with a newer opset")
    if any(any(value) for name, value in node.attributes.items() if name.startswith(("scan_input_", "scan_output_"))):
        raise refuse(node.where, "goes along other axes than the first, or backwards", _ADVICE)
    n = len(arguments) - node.attributes["num_scan_inputs"]
    sequences = [tensor_at(node, arguments, i) for i in range(n, len(arguments))]
    if not sequences or not all(tensor.axes for tensor in sequences):
        raise ModelError(f"{node.where}: no sequence to go through")
    axes = [single(node.where, tensor, 0) for tensor in sequences]
    running = _running(node, Size.of(axes[0]))
    slots = _slots(reader, node, body, (body.inputs[:n], body.outputs[:n]), arguments[:n])
    before = {
        name: _step(reader, running, tensor, axis)
        for name, tensor, axis in zip(body.inputs[n:], sequences, axes, strict=True)
    }
    return _run(reader, node, body.outputs, slots, running, before)


def _body(node: Node, n_inputs: int, n_outputs: int) -> Body:
    body = node.attributes.get("body")
    if not isinstance(body, Body) or len(body.inputs) != n_inputs or len(body.outputs) != n_outputs:
        raise ModelError(f"{node.where}: its graph has not {n_inputs} inputs and {n_outputs} outputs")
    return body


def _run(
    reader: Reader,
    node: Node,
    outputs: Sequence[str],
    slots: Sequence[Slot],
    running: Running,
    before: Mapping[str, Value],
) -> list[Value]:
    """Reads the graph at one step; `before` is what it has there beside what is carried."""
    scope = {**before, **{slot.name: slot.at(running.number) for slot in slots}}
    values = reader.run_body(node.attributes["body"], outputs, scope, running)
    n = len(slots)
    after = [slot.after(reader, running, value) for slot, value in zip(slots, values[:n], strict=True)]
    return [*after, *(_sequence(reader, running, value) for value in values[n:])]


def _running(node: Node, count: Size) -> Running:
    """At any step: its number is the count less what is left with it, 1 or more."""
    return Running(node.where, count, count - Size.of(Symbol(f"the steps left of {node.where}", 0, None)), Iteration())


def _count(node: Node, value: Value | None) -> Size:
    if not isinstance(value, np.ndarray) or value.size != 1:
        raise refuse(node.where, "a loop whose number of steps is no size of an input", _ADVICE)
    (count,) = whole(node, value)
    return Size.of(count)


def _number(size: Size | int) -> npt.NDArray[Any]:
    array = np.empty((), dtype=object)
    array[()] = size
    return array


def _want_no_early_end(
    reader: Reader, node: Node, body: Body, slots: Sequence[Slot], count: Size, first: Value | None
) -> None:
    """Raises ModelError where the condition may end the loop before all steps are done."""
    if first is None:
        return  # then ONNX has no condition
    number = count - 1 - Size.of(Symbol(f"the steps after this one of {node.where}", 0, None))
    scope: dict[str, Value] = {slot.name: slot.at(number) for slot in slots}
    scope |= {body.inputs[0]: _number(number), body.inputs[1]: np.ones((), np.bool_)}
    try:
        conditions = [first, *reader.run_body(body, body.outputs[:1], scope)]
    except FreeSizeError:
        conditions = [np.zeros((), np.bool_)]
    if not all(isinstance(value, np.ndarray) and value.dtype == np.bool_ and value.all() for value in conditions):
        raise refuse(node.where, "a loop that may end before the last step", _ADVICE)


def _sequence(reader: Reader, running: Running, value: Value) -> Tensor:
    """All steps of what the graph gives at one of them."""
    found = reader.finder.sequences(value.vectors) if isinstance(value, Tensor) else None
    if not isinstance(value, Tensor) or found is None or found[0][1] is not running.iteration:
        raise refuse(running.where, "a loop that computes something else than the steps of layers", _ADVICE)
    return Tensor(((found[0][0],), *value.axes), tuple(found[1]), value.integer)


# ---- what is carried from step to step ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Same:
    """A value that stays."""

    name: str
    start: Value

    def at(self, number: Size) -> Value:
        return self.start

    def after(self, reader: Reader, running: Running, value: Value) -> Value:
        return self.start


@dataclass(frozen=True)
class _Counter:
    """A whole number that grows by one with each step."""

    name: str
    start: int
    ndim: int

    def at(self, number: Size) -> Value:
        return _number(number + self.start).reshape((1,) * self.ndim)

    def after(self, reader: Reader, running: Running, value: Value) -> Value:
        entries = value.reshape(-1).tolist() if isinstance(value, np.ndarray) and value.size == 1 else [None]
        if not isinstance(entries[0], (int, Size)) or not agree(entries[0], running.number + self.start + 1):
            raise refuse(running.where, "carries a number that does not count the steps", _ADVICE)
        return self.at(running.count)


@dataclass(frozen=True)
class _State:
    """The state of a layer."""

    name: str
    carried: Carried
    start: Tensor

    def at(self, number: Size) -> Value:
        return Tensor(self.start.axes, (of_atom(self.carried),))

    def after(self, reader: Reader, running: Running, value: Value) -> Value:
        layer = reader.finder.cells.looped.get(self.carried, (None, None))[1]
        if not isinstance(value, Tensor) or layer is None or not _fits(reader, self.start, value):
            raise refuse(running.where, "a loop that is no GRU layer", _ADVICE)
        state = value.vectors[0].only if len(value.vectors) == 1 else None
        if not isinstance(state, Step) or state.of is not layer or state.index is not running.iteration:
            raise refuse(running.where, "a loop that carries something else than the state of its layer", _ADVICE)
        return Tensor(value.axes, (of_atom(reader.algebra.step(running.where, layer, state.axis, -1)),))


Slot = _Same | _Counter | _State


def _slots(
    reader: Reader, node: Node, body: Body, names: tuple[Sequence[str], Sequence[str]], starts: Arguments
) -> list[Slot]:
    """names: before and after a step; after it, more may follow."""
    same_as = {each.outputs[0]: each.inputs[0] for each in body.nodes if each.kind == "Identity"}
    slots: list[Slot] = []
    for before, after, start in zip(*names, starts, strict=False):
        if start is None:
            raise ModelError(f"{node.where}: carries {before[:60]!r}, which has no value at first")
        for _ in same_as:  # as often as there are any: a damaged body may have a circle of them
            if after not in same_as:
                break
            after = same_as[after]
        if after == before:
            slots.append(_Same(before, start))
        elif isinstance(start, np.ndarray) and start.size == 1 and start.dtype.kind in "iu":
            slots.append(_Counter(before, int(start.reshape(())), start.ndim))
        else:
            tensor = start if isinstance(start, Tensor) else reader.constant_rows(start)
            if tensor is None or tensor.integer:
                raise refuse(node.where, f"carries {before[:60]!r}, which is no state of a layer", _ADVICE)
            atom = reader.settle(node.where, tensor.vectors)
            slots.append(_State(before, Carried(atom.width, node.where, atom), tensor))
    return slots


def _fits(reader: Reader, start: Tensor, after: Tensor) -> bool:
    """Whether a state keeps its axes; at first it may be one for all sequences."""
    return len(start.axes) == len(after.axes) and all(
        a in (1, b) or reader.is_same_axis(a, b) for a, b in zip(start.axes, after.axes, strict=True)
    )


def _step(reader: Reader, running: Running, tensor: Tensor, axis: Symbol) -> Tensor:
    if not agree(axis, running.count):
        raise refuse(running.where, f"goes through {axis} in {running.count} steps", _ADVICE)
    reader.bind(running.where, axis, "steps")
    return step_of(reader.algebra, running.where, tensor, axis, running.iteration)


OPERATORS: Final[dict[str, Operator]] = {"Loop": loop, "Scan": scan}
