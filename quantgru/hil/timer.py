"""What the ticks of a board's timer mean, and what they say about a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from quantgru.hil.messages import BoardDescription, TimerKind, Uint32Array

TimerUnit = Literal["cycles", "instructions", "us"]


@dataclass(frozen=True)
class Timer:
    """What is counted, and how many ticks of the board one of them takes."""

    unit: TimerUnit
    ticks_per_unit: float


@dataclass(frozen=True)
class StepCost:
    """What the recurrent part of a step took on the board."""

    unit: TimerUnit
    minimum: float
    median: float
    maximum: float


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


def step_cost(ticks: Uint32Array, timer: Timer) -> StepCost:
    """Over all steps of a run; at least one."""
    values = np.asarray(ticks, np.float64) / timer.ticks_per_unit
    return StepCost(timer.unit, float(values.min()), float(np.median(values)), float(values.max()))
