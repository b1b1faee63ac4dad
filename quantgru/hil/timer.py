"""What the ticks of a board's timer mean, and what they say about a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from quantgru.hil.messages import BoardDescription, RunReply, Steps, Summary, TimerKind

TimerUnit = Literal["cycles", "instructions", "us"]


@dataclass(frozen=True)
class Timer:
    """What is counted, and how many ticks of the board one of them takes."""

    unit: TimerUnit
    ticks_per_unit: float


@dataclass(frozen=True)
class StepCost:
    """What the recurrent part of a step took on the board, and besides its `outputs`, which a device may leave out; or,
    of a model that needs whole sequences, its part of a run with all layers. `median` is None where the board sent sums
    only, `outputs` where they were not timed alone."""

    unit: TimerUnit
    minimum: float
    median: float | None
    mean: float
    maximum: float
    of_runs: bool = False
    outputs: float | None = None

    @property
    def most_with_outputs(self) -> float:
        """The longest step, and its outputs."""
        return self.maximum + (self.outputs or 0.0)


class Ticks:
    """Collects what steps took, one by one or summed up by the board, or as parts of runs of whole sequences."""

    def __init__(self) -> None:
        self.n_steps = 0
        self._single: list[npt.NDArray[np.number]] = []
        self._minimum = 2.0**32
        self._maximum = 0.0
        self._total = 0
        self._of_runs = False

    def add(self, answer: Steps | Summary | RunReply) -> None:
        sums: tuple[float, float, int]
        match answer:
            case Steps(ticks):
                self._single.append(ticks)
                sums = int(ticks.min()), int(ticks.max()), int(ticks.sum(dtype=np.uint64))
            case Summary():
                sums = answer.least_ticks, answer.most_ticks, answer.total_ticks
            case RunReply(n_steps, total):
                self._single.append(np.full(n_steps, total / n_steps))
                sums = total / n_steps, total / n_steps, total
                self._of_runs = True
        self.n_steps += answer.n_steps
        self._minimum = min(self._minimum, sums[0])
        self._maximum = max(self._maximum, sums[1])
        self._total += sums[2]

    def cost(self, timer: Timer) -> StepCost:
        """Over all steps that were added; at least one."""
        minimum, mean, maximum = (
            ticks / timer.ticks_per_unit for ticks in (self._minimum, self._total / self.n_steps, self._maximum)
        )
        median = float(np.median(np.concatenate(self._single))) / timer.ticks_per_unit if self._single else None
        return StepCost(timer.unit, minimum, median, mean, maximum, self._of_runs)


def board_timer(board: BoardDescription) -> Timer | None:
    """What the board says about its timer; None if it has none."""
    match board.timer_kind:
        case TimerKind.NONE:
            return None
        case TimerKind.CYCLES:
            return Timer("cycles", 1.0)
        case TimerKind.INSTRUCTIONS:
            return Timer("instructions", 1.0)
        case TimerKind.TIME:
            return Timer("us", board.timer_hz / 1e6)
