"""Sequences through a session, held against the simulator's numbers. What is equal, and where the first difference is.

The simulator itself is not known here: expected values are handed in, batch by batch, as each is wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from quantgru.errors import DataError, DeviceError
from quantgru.hil.difference import compare_step, find_difference, parts_of
from quantgru.hil.messages import Int16Array, Steps
from quantgru.hil.requests import Reset, Stepping
from quantgru.hil.session import Session
from quantgru.hil.timer import Ticks
from quantgru.hil.ways import ByOutputs, Difference, Expected, Part, Way
from quantgru.int_model import IntModel

BY_OUTPUTS: Final = ByOutputs()

# Some of the sequences: raw inputs, int16 [steps, inputs] each, and what is expected of them.
Batch = tuple[Sequence[Int16Array], Expected]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Of total_steps that were to be compared, `steps` were, the last of them with a difference if there is one; ticks
    is what they took."""

    steps: int
    total_steps: int
    first_difference: Difference | None
    ticks: Ticks

    @property
    def equal(self) -> bool:
        """Whether every step that was to be compared was, and was equal. Never without a step."""
        return self.first_difference is None and self.steps == self.total_steps > 0


@contextmanager
def telling_how_far(ticks: Ticks, total_steps: int) -> Iterator[None]:
    """Adds to a DeviceError how many steps had been equal before it."""
    try:
        yield
    except DeviceError as error:
        raise DeviceError(f"{error}; {ticks.n_steps:,} of {total_steps:,} steps had been equal") from None


def compare(
    session: Session,
    model: IntModel,
    inputs: Sequence[Int16Array],
    expected: Expected,
    way: Way = BY_OUTPUTS,
    progress: Callable[[int], None] = lambda steps: None,
) -> Comparison:
    """All sequences of raw inputs, int16 [steps, inputs] each, as one batch."""
    total_steps = sum(x.shape[0] for x in inputs)
    return compare_batches(session, model, [(inputs, expected)], total_steps, way, progress)


def compare_batches(
    session: Session,
    model: IntModel,
    batches: Iterable[Batch],
    total_steps: int,
    way: Way = BY_OUTPUTS,
    progress: Callable[[int], None] = lambda steps: None,
) -> Comparison:
    """Runs all sequences, one batch after the other, up to the first difference.

    The session is open. `progress` is called with the number of steps compared since its last call. Raises DataError if
    there is nothing to compare, DeviceError if the board fails.
    """
    _require_steps(total_steps)
    ticks = Ticks()
    with telling_how_far(ticks, total_steps):
        for inputs, expected in batches:
            _check_shapes(model, inputs, expected)
            found = _first_wrong_part(session, inputs, expected, way, ticks, progress)
            if found is not None:
                part, _ = found
                x = inputs[part.sequence - expected.first]
                difference = find_difference(session, model, way, x, expected, found)
                steps = ticks.n_steps - part.n_steps + difference.step - part.start + 1
                return Comparison(steps, total_steps, difference, ticks)
    return Comparison(ticks.n_steps, total_steps, None, ticks)


def _first_wrong_part(
    session: Session,
    inputs: Sequence[Int16Array],
    expected: Expected,
    way: Way,
    ticks: Ticks,
    progress: Callable[[int], None],
) -> tuple[Part, Difference] | None:
    """What was first found to be wrong, as far as the way can tell. That remains if the board then fails."""
    sent: list[Part] = []
    found: tuple[Part, Difference] | None = None
    try:
        with closing(session.run(way.kind, _requests(session, inputs, expected.first, way, sent))) as answers:
            for number, (_, answer) in enumerate(answers):
                ticks.add(answer)
                progress(answer.n_steps)
                difference = way.difference(answer, expected, sent[number])
                if difference is not None:
                    found = sent[number], difference
                    break
    except DeviceError:
        if found is None:
            raise
    return found


def _requests(
    session: Session, inputs: Sequence[Int16Array], first: int, way: Way, sent: list[Part]
) -> Iterator[Stepping | Reset]:
    """All sequences, numbered from `first` on, each from reset; notes which part each request runs."""
    for sequence, x in enumerate(inputs, first):
        if x.shape[0] == 0:
            continue
        yield Reset()
        for part in parts_of(session, way, Part(sequence, 0, x.shape[0])):
            sent.append(part)
            yield way.request(x, part)


def _require_steps(total_steps: int) -> None:
    if total_steps == 0:
        raise DataError("no steps to compare: give at least one sequence of one step")


def _check_shapes(model: IntModel, inputs: Sequence[Int16Array], expected: Expected) -> None:
    """Raises DataError for shapes that do not fit."""
    if not len(inputs) == len(expected.outputs) == len(expected.checks):
        raise DataError(f"{len(inputs)} sequences, {len(expected.outputs)} of them with expected outputs")
    for i, (x, outputs, checks) in enumerate(zip(inputs, expected.outputs, expected.checks, strict=True)):
        n_steps = x.shape[0]
        allowed = ((n_steps, model.n_inputs), (n_steps, model.n_outputs), (n_steps,))
        if x.dtype != np.int16 or (x.shape, outputs.shape, checks.shape) != allowed:
            shapes = f"{x.shape}, {outputs.shape} and {checks.shape}"
            raise DataError(
                f"sequence {i}: {x.dtype} inputs, outputs and check values of shapes {shapes}, expected int16 "
                f"(steps, {model.n_inputs}), (steps, {model.n_outputs}) and (steps,)"
            )


def compare_states(
    session: Session,
    model: IntModel,
    batches: Iterable[Batch],
    total_steps: int,
    progress: Callable[[int], None] = lambda steps: None,
) -> Comparison:
    """As `compare_batches`, step by step, with every number of every state and gate read back: slow, and nothing is
    hashed."""
    _require_steps(total_steps)
    ticks = Ticks()
    with telling_how_far(ticks, total_steps):
        for part, x, expected in _single_steps(model, batches):
            if part.start == 0:
                session.reset()
            answer = session.step(x)
            difference = _difference_of_step(session, model, answer, expected, part)
            ticks.add(answer)
            progress(1)
            if difference is not None:
                return Comparison(ticks.n_steps, total_steps, difference, ticks)
    return Comparison(ticks.n_steps, total_steps, None, ticks)


def _single_steps(model: IntModel, batches: Iterable[Batch]) -> Iterator[tuple[Part, Int16Array, Expected]]:
    """Each step of all sequences, its inputs [1, inputs], and what is expected of its batch."""
    for inputs, expected in batches:
        _check_shapes(model, inputs, expected)
        for sequence, x in enumerate(inputs, expected.first):
            for step in range(x.shape[0]):
                part = Part(sequence, step, 1)
                yield part, x[part.steps], expected


def _difference_of_step(
    session: Session, model: IntModel, answer: Steps, expected: Expected, part: Part
) -> Difference | None:
    """By all its numbers; by what it answered at once, if the board fails before they are read."""
    try:
        return compare_step(session, model, answer.outputs[0], expected, part)
    except DeviceError as error:
        known = BY_OUTPUTS.difference(answer, expected, part)
        if known is None:
            raise
        return replace(known, not_narrowed=str(error))
