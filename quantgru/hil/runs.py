"""Runs of whole sequences [R24], held against the simulator's numbers; for models that do not run step by step.

A run keeps no state and no gate: what differs is known down to the output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from quantgru.array_types import Int16Array
from quantgru.errors import DataError, DeviceError
from quantgru.fixed import Format
from quantgru.hil.compare import Comparison, telling_how_far
from quantgru.hil.difference import first_wrong
from quantgru.hil.messages import RunReply
from quantgru.hil.session import Session
from quantgru.hil.timer import Ticks
from quantgru.hil.ways import Difference
from quantgru.int_model import IntModel


@dataclass(frozen=True, eq=False)
class ExpectedRun:
    """What the simulator computes for a sequence: outputs int16 [steps, outputs], of one step in a model whose output
    has a meaning after the last one only; and their check value [R24]."""

    outputs: Int16Array
    check: int


# Where the last run of the board is wrong; None if it is right.
RunWay = Callable[[Session, IntModel, RunReply, ExpectedRun], Difference | None]


def run_outputs(session: Session, model: IntModel, run: RunReply, expected: ExpectedRun) -> Difference | None:
    """Every output comes back, and the check value that the board made of them."""
    n_steps = expected.outputs.shape[0]
    for step, (board, simulator) in enumerate(zip(session.read_outputs(n_steps), expected.outputs, strict=True)):
        found = first_wrong(board, simulator)
        if found is not None:
            output = Format(16, model.output_fraction_bits)
            return Difference(0, run.n_steps - n_steps + step, model.layers[-1].name, "output", *found, str(output))
    return None if run.check == expected.check else _wrong_check(run, expected)


def _wrong_check(run: RunReply, expected: ExpectedRun) -> Difference:
    return Difference(0, 0, "", "run", 0, run.check, expected.check, "u32", run.n_steps)


def run_checks(session: Session, model: IntModel, run: RunReply, expected: ExpectedRun) -> Difference | None:
    """The check value alone; the outputs only if it is wrong."""
    return None if run.check == expected.check else run_outputs(session, model, run, expected)


def compare_runs(
    session: Session,
    model: IntModel,
    lengths: Sequence[int],
    runs: Iterable[tuple[Int16Array, ExpectedRun]],
    way: RunWay = run_outputs,
    progress: Callable[[int], None] = lambda steps: None,
) -> Comparison:
    """Runs all sequences of raw inputs, int16 [steps, inputs] each, up to the first difference. Their lengths are known
    beforehand; each is taken when it is wanted.

    The session is open. `progress` is called with the number of steps compared since its last call. Raises DataError if
    there is nothing to compare, DeviceError if the board fails, or holds no sequence as long as one of these.
    """
    total = sum(lengths)
    if total == 0:
        raise DataError("no steps to compare: give at least one sequence of one step")
    session.require_steps(max(lengths))
    ticks = Ticks()
    with telling_how_far(ticks, total):
        for sequence, (x, expected) in enumerate(runs):
            if x.shape[0] == 0:
                continue
            run = session.run_sequence(x)
            difference = _difference_of_run(session, model, run, expected, way)
            if difference is not None:
                steps = ticks.n_steps + difference.step + 1
                ticks.add(run)
                return Comparison(steps, total, replace(difference, sequence=sequence), ticks)
            ticks.add(run)
            progress(run.n_steps)
    return Comparison(ticks.n_steps, total, None, ticks)


def _difference_of_run(
    session: Session, model: IntModel, run: RunReply, expected: ExpectedRun, way: RunWay
) -> Difference | None:
    """By its check value, if the board fails before its outputs are read."""
    try:
        return way(session, model, run, expected)
    except DeviceError as error:
        if run.check == expected.check:
            raise
        return replace(_wrong_check(run, expected), not_narrowed=str(error))
