"""Sequences through a session, held against the simulator's numbers. What is equal, and where the first difference is.

The simulator itself is not known here: expected values are handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from quantgru.errors import DataError, DeviceError
from quantgru.fixed import GATE, RESIDUAL, Format
from quantgru.hil.messages import ARRAY_NAMES, Int16Array, Steps, Uint32Array
from quantgru.hil.session import Session
from quantgru.int_model import IntGru, IntModel

Gate = Literal["u", "r", "n", "h", "residual", "output", "check value"]


@dataclass(frozen=True, eq=False)
class StepTrace:
    """All that one step computes: u, r, n, h and residual of all layers one after the other, and the outputs."""

    u: npt.NDArray[np.uint16]
    r: npt.NDArray[np.uint16]
    n: Int16Array
    h: Int16Array
    residual: npt.NDArray[np.uint16]
    outputs: Int16Array


@dataclass(frozen=True, eq=False)
class Expected:
    """What the simulator computes: of each sequence outputs int16 [steps, outputs] and check values uint32 [steps], not
    running on but each of its step alone [R16]; and all of one step, on request."""

    outputs: Sequence[Int16Array]
    checks: Sequence[Uint32Array]
    trace: Callable[[int, int], StepTrace]  # (sequence, step)


@dataclass(frozen=True)
class Difference:
    """The first number that differs. Gate "check value": the step was wrong, and right when it was run again."""

    sequence: int
    step: int
    layer: str
    gate: Gate
    unit: int
    board: int
    simulator: int
    format: str  # of the values, e.g. "u16f15"

    def __str__(self) -> str:
        where = f"sequence {self.sequence}, step {self.step}"
        if self.gate == "check value":
            return (
                f"{where}: check value {self.board:#010x}, simulator {self.simulator:#010x}; "
                "run again, the step was right: the board does not compute the same each time"
            )
        return (
            f"{where}, layer {self.layer}, {self.gate} of unit {self.unit}: "
            f"board {self.board}, simulator {self.simulator} ({self.format})"
        )


@dataclass(frozen=True, eq=False)
class Comparison:
    """steps were compared, the last of them with a difference if there is one; ticks uint32 [steps], of the board."""

    steps: int
    first_difference: Difference | None
    ticks: Uint32Array

    @property
    def equal(self) -> bool:
        """Whether every step was equal. Never without a step."""
        return self.first_difference is None and self.steps > 0


def compare(
    session: Session,
    model: IntModel,
    inputs: Sequence[Int16Array],
    expected: Expected,
    progress: Callable[[int], None] = lambda steps: None,
) -> Comparison:
    """Runs all sequences of raw inputs, int16 [steps, inputs] each, up to the first difference.

    The session is open. `progress` is called with the number of steps compared since its last call. Raises DataError if
    there is nothing to compare, DeviceError if the board fails.
    """
    _check_shapes(model, inputs, expected)
    ticks: list[Uint32Array] = []
    steps = 0
    for sequence, start, answered in _answers(session, inputs):
        wrong = _first_wrong_step(answered, expected, sequence, start)
        n = answered.ticks.size if wrong is None else wrong + 1
        ticks.append(answered.ticks[:n])
        steps += n
        progress(n)
        if wrong is not None:
            difference = _narrow_down(session, model, inputs[sequence], expected, (sequence, start + wrong))
            if difference is None:
                board, simulator = int(answered.checks[wrong]), int(expected.checks[sequence][start + wrong])
                difference = Difference(sequence, start + wrong, "", "check value", 0, board, simulator, "u32")
            return Comparison(steps, difference, np.concatenate(ticks))
    return Comparison(steps, None, np.concatenate(ticks))


def _check_shapes(model: IntModel, inputs: Sequence[Int16Array], expected: Expected) -> None:
    if not len(inputs) == len(expected.outputs) == len(expected.checks):
        raise DataError(f"{len(inputs)} sequences, {len(expected.outputs)} of them with expected outputs")
    if sum(x.shape[0] for x in inputs) == 0:
        raise DataError("no steps to compare: give at least one sequence of one step")
    for i, (x, outputs, checks) in enumerate(zip(inputs, expected.outputs, expected.checks, strict=True)):
        n_steps = x.shape[0]
        allowed = ((n_steps, model.n_inputs), (n_steps, model.n_outputs), (n_steps,))
        if x.dtype != np.int16 or (x.shape, outputs.shape, checks.shape) != allowed:
            shapes = f"{x.shape}, {outputs.shape} and {checks.shape}"
            raise DataError(
                f"sequence {i}: {x.dtype} inputs, outputs and check values of shapes {shapes}, expected int16 "
                f"(steps, {model.n_inputs}), (steps, {model.n_outputs}) and (steps,)"
            )


def _answers(session: Session, inputs: Sequence[Int16Array]) -> Iterator[tuple[int, int, Steps]]:
    """Sequence, first step and answer of each frame of all sequences. An error says how far it got."""
    steps, total = 0, sum(x.shape[0] for x in inputs)
    try:
        for sequence, sequence_inputs in enumerate(inputs):
            for start, answered in _run(session, sequence_inputs):
                yield sequence, start, answered
                steps += answered.ticks.size
    except DeviceError as error:
        raise DeviceError(f"{error}; {steps:,} of {total:,} steps had been equal") from None


def _run(session: Session, inputs: Int16Array) -> Iterator[tuple[int, Steps]]:
    """The answers of one sequence from reset, with the number of their first step."""
    if inputs.shape[0]:
        session.reset()
    start = 0
    while start < inputs.shape[0]:
        steps = session.step(inputs[start : start + session.frame_steps])
        yield start, steps
        start += steps.ticks.size


def _first_wrong_step(answered: Steps, expected: Expected, sequence: int, start: int) -> int | None:
    here = slice(start, start + answered.ticks.size)
    wrong = answered.checks != expected.checks[sequence][here]
    wrong |= (answered.outputs != expected.outputs[sequence][here]).any(axis=1)
    return int(wrong.argmax()) if wrong.any() else None


def _narrow_down(
    session: Session, model: IntModel, inputs: Int16Array, expected: Expected, at: tuple[int, int]
) -> Difference | None:
    """Runs the sequence again up to a wrong step, and looks for its first wrong number; None if it is right now."""
    sequence, step = at
    try:
        for _, answered in _run(session, inputs[: step + 1]):
            outputs = answered.outputs[-1]
        arrays = session.read()
    except DeviceError as error:
        raise DeviceError(f"sequence {sequence}, step {step} differs from the simulator; run again: {error}") from None
    trace = expected.trace(sequence, step)
    start = 0
    for layer in model.grus:
        units = slice(start, start + layer.n_units)
        for name in ARRAY_NAMES:  # as a step computes them: the first that differs is where it went wrong
            found = _first_difference(arrays[name][units], getattr(trace, name)[units])
            if found is not None:
                return Difference(sequence, step, layer.name, name, *found, str(_format(name, layer)))
        start += layer.n_units
    found = _first_difference(outputs, trace.outputs)
    if found is None:
        return None
    output = Format(16, model.output_fraction_bits)
    return Difference(sequence, step, model.layers[-1].name, "output", *found, str(output))


def _format(name: str, layer: IntGru) -> Format:
    """Of an array of a GRU layer, by its name on the wire."""
    state = layer.state_fraction_bits
    formats = {"u": GATE, "r": GATE, "n": Format(16, state), "h": Format(16, state)}
    # The residual goes on where h ends: R12 shifts by 15.
    return formats.get(name, Format(RESIDUAL.bits, state + 15, signed=False))


def _first_difference(
    board: npt.NDArray[np.integer], simulator: npt.NDArray[np.integer]
) -> tuple[int, int, int] | None:
    """Unit, the board's value, the simulator's."""
    differs = board.astype(np.int64) != simulator.astype(np.int64)
    if not differs.any():
        return None
    unit = int(differs.argmax())
    return unit, int(board[unit]), int(simulator[unit])
