"""Loops over steps, as around an nn.GRUCell: tracing has unrolled them, here they become layers over all steps again.

What is done to the first step is put into the chain, once. The same must be done to every other step, and the cell must
read there the state that it gave at the step before; anything else is refused. `pytorch_graph` says what a node is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from torch import fx

from quantgru.importers.pytorch_call import Call
from quantgru.importers.pytorch_constants import SIZES
from quantgru.importers.pytorch_signals import LAST_STEP, Axis, CannotSayError, Signal, Size, axis_number

CELL_LOOP: Final = "loop as in `for t in range(x.size(1)): h = cell(x[:, t], h)`, or use nn.GRU for all steps"

BACKWARDS: Final = "loop over the steps forwards, after x = x.flip({}) if they are to be read backwards"


@dataclass(frozen=True, eq=False)
class Step:
    """Step `number` of the input's `axis`: of what `signal` is at every step, which has no axis of steps."""

    signal: Signal
    number: int
    axis: int

    @property
    def is_last(self) -> bool:
        return self.number == SIZES[self.axis] - 1


class Steps:
    """What was done to the first step."""

    def __init__(self) -> None:
        self._done: dict[str, Any] = {}
        self._taken: dict[tuple[Signal, Axis], Signal] = {}  # what steps are taken of, and what each of them is

    def take(self, signal: Signal, index: Any) -> Step | None:
        """The step that an index takes of a signal; None for another index."""
        entries = [*index] if isinstance(index, tuple) else [index]
        while entries and isinstance(entries[-1], slice) and entries[-1] == slice(None):
            entries.pop()
        at = len(entries) - 1
        if at not in (0, 1) or type(entries[at]) is not int or any(entry != slice(None) for entry in entries[:at]):
            return None
        return self.take_number(signal, at, entries[at])

    def take_number(self, signal: Signal, at: int, number: int) -> Step | None:
        """The step `number` of axis `at`; None if these are no steps."""
        axis = signal.axes[at]
        if axis not in ((0,), (1,)) or signal.pick != "all":
            return None
        number += SIZES[axis[0]] if number < 0 else 0
        if number not in range(SIZES[axis[0]]):
            raise CannotSayError("takes a step that not every input has", CELL_LOOP)
        alone = replace(signal, axes=signal.axes[:at] + signal.axes[at + 1 :])
        return Step(self._taken.setdefault((signal, axis), alone), number, axis[0])

    def take_all(self, signal: Signal, at: int) -> tuple[Step | None, ...] | None:
        """Every step of axis `at`; None if these are no steps."""
        axis = signal.axes[at]
        if axis not in ((0,), (1,)) or signal.pick != "all":
            return None
        return tuple(self.take_number(signal, at, i) for i in range(SIZES[axis[0]]))

    def value(self, node: fx.Node, call: Call, values: dict[fx.Node, Any], compute: Callable[[Call], Any]) -> Any:
        """The value of an operation on steps; `compute` is what it is on signals."""
        found = list(steps_in((call.args, call.kwargs)))
        first = found[0]
        if any(step.number != first.number or step.axis != first.axis for step in found):
            raise CannotSayError("takes different steps together", CELL_LOOP)
        key = _key(node, values)
        if first.number == 0:
            self._done[key] = compute(with_signals(call))
        elif key not in self._done:
            if not first.is_last:
                raise CannotSayError("is done to one step of a loop, not to the first one", CELL_LOOP)
            return compute(with_signals(call, pick="last"))
        return _as_steps(self._done[key], first)

    def cell(self, node: fx.Node, call: Call, values: dict[fx.Node, Any], compute: Callable[[Call], Any]) -> Any:
        """The same for a cell, which reads a state beside its step."""
        step, state = call.args[0], call.argument(1, "hx")
        key = _key(node, values, 1)
        alone = replace(call, args=(step,), kwargs={})
        if step.number and key not in self._done:
            next_step = BACKWARDS.format(step.axis) if step.is_last else CELL_LOOP
            raise CannotSayError("a cell that does not read the first step first", next_step)
        if step.number:
            before = isinstance(state, Step) and state.number == step.number - 1
            if not before or state.signal is not self._done[key]:
                raise CannotSayError("reads another state than it gave at the step before", CELL_LOOP)
            return _as_steps(self._done[key], step)
        if isinstance(state, (Step, Signal)):
            raise CannotSayError("starts at a state that depends on the input", CELL_LOOP)
        self._done[key] = compute(replace(with_signals(alone), kwargs={"hx": state}))
        return _as_steps(self._done[key], step)


def is_part_of_step(index: Any) -> bool:
    """Whether an index is a number on one of the leading axes, and takes some of the features, too."""
    if not isinstance(index, tuple) or len(index) != 3 or index[2] == slice(None):
        return False
    return int in (type(index[0]), type(index[1])) and slice(None) in index[:2]


def together(steps: Sequence[Any], dim: Any, *, adds_axis: bool) -> Signal:
    """All steps again, by torch.stack on a new axis, or by torch.cat on one of size 1."""
    if not steps or not all(isinstance(step, Step) for step in steps):
        raise CannotSayError("joins steps to what is none")
    first: Step = steps[0]
    if [step.number for step in steps] != list(range(SIZES[first.axis])):
        raise CannotSayError("joins others than all steps, from the first to the last", LAST_STEP)
    if any(step.signal is not first.signal for step in steps):
        raise CannotSayError("joins steps of which not every one was computed alike", CELL_LOOP)
    axes = first.signal.axes
    at = axis_number(dim, len(axes) + adds_axis)
    if not adds_axis and axes[at] != ():
        raise CannotSayError("joins steps along another axis than one of size 1", "use torch.stack")
    return replace(first.signal, axes=(*axes[:at], (first.axis,), *axes[at + (not adds_axis) :]))


def of_step(value: Any) -> Any:
    """The last step as a signal, where a step is given out."""
    if isinstance(value, Step):
        if not value.is_last:
            raise CannotSayError("does not take the last step", LAST_STEP)
        return replace(value.signal, pick="last")
    return value


def steps_in(values: Any) -> Iterator[Step]:
    """All steps in a value."""
    if isinstance(values, Step):
        yield values
    elif isinstance(values, (tuple, list)):
        for value in values:
            yield from steps_in(value)
    elif isinstance(values, dict):
        yield from steps_in(list(values.values()))


def _key(node: fx.Node, values: dict[fx.Node, Any], n_args: int | None = None) -> str:
    """What is the same for the same operation at every step: for its signals, whichever step they are of."""

    def part(argument: fx.Node) -> Any:
        if isinstance(value := values[argument], Step):
            return f"step of signal {id(value.signal)}"
        if isinstance(value, Size):
            return str(value)
        return argument.target if argument.op == "get_attr" else argument.name

    arguments = fx.node.map_arg((node.args[:n_args], dict(node.kwargs) if n_args is None else {}), part)
    return f"{node.op} {node.target} {arguments}"


def with_signals(call: Call, **changes: Any) -> Call:
    """`call` on signals in place of steps."""

    def signals(value: Any) -> Any:
        match value:
            case Step(signal):
                return replace(signal, **changes) if changes else signal
            case tuple() | list():
                return type(value)(map(signals, value))
            case dict():
                return {name: signals(entry) for name, entry in value.items()}
        return value

    return replace(call, args=signals(call.args), kwargs=signals(dict(call.kwargs)))


def _as_steps(value: Any, step: Step) -> Any:
    if isinstance(value, tuple):
        return tuple(_as_steps(entry, step) for entry in value)
    return replace(step, signal=value) if isinstance(value, Signal) else value
