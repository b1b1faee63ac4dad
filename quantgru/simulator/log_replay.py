"""Replay of what a device has logged, to the same integers."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from quantgru.errors import DataError
from quantgru.int_model import IntModel, require_int_model
from quantgru.simulator.batch import SimulationResult, run
from quantgru.simulator.logs import MOST_RESIDUAL, InputLog
from quantgru.simulator.states import GruState, start_states


@dataclass(frozen=True, eq=False)
class Replay:
    """What the simulator computes from logs.

    logs    one for each sequence of the result
    result  raw inputs, outputs and states; clipped_inputs are those in the windows, at a limit of 16 bits
    equal   of each log, whether the state after its last step is that of the device; None where the log does not say
    """

    logs: tuple[InputLog, ...]
    result: SimulationResult
    equal: tuple[bool | None, ...]


def replay(
    model: IntModel,
    logs: Sequence[InputLog],
    *,
    trace: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Replay:
    """Computes again what the device has computed, from its raw inputs and the states that they begin with.

    trace     keep u, r, n, h and residual of every step
    progress  called, from any thread, with the number of logs that are finished since the last call

    Raises DataError for no logs, those of another model, and those that begin with a state that the model cannot have.
    """
    require_int_model(model, "replay")
    if not logs:
        raise DataError("replay: no logs, expected at least one")
    for log in logs:
        _check_log(model, log)
    in_order = [log.inputs[::-1] if model.reversed_input else log.inputs for log in logs]
    states = _states(model, logs)
    result = run(model, in_order, raw_input=True, initial_states=states, trace=trace, progress=progress)
    return Replay(tuple(logs), result, tuple(_is_equal(result, i, log) for i, log in enumerate(logs)))


def _is_equal(result: SimulationResult, number: int, log: InputLog) -> bool | None:
    if log.state_check is None:
        return None
    arrays = [state.h[number] for state in result.final_states]
    arrays += [state.residual[number] for state in result.final_states]
    return zlib.crc32(b"".join(array.astype("<u2").tobytes() for array in arrays)) == log.state_check


def _states(model: IntModel, logs: Sequence[InputLog]) -> list[GruState] | None:
    """Of each GRU layer before the first steps; None if all logs follow a reset."""
    if all(log.h is None for log in logs):
        return None
    states = start_states(model, None, len(logs))
    ends = np.cumsum([gru.n_units for gru in model.grus])
    for i, log in enumerate(logs):
        if log.h is None or log.residual is None:
            continue
        for state, end in zip(states, ends, strict=True):
            units = slice(end - state.h.shape[1], end)
            state.h[i], state.residual[i] = log.h[units], log.residual[units]
    return states


def _check_log(model: IntModel, log: InputLog) -> None:
    if log.digest is not None and log.digest != model.digest:
        raise DataError(
            f"log {log.source}: of another model, digest {log.digest.hex()}, this one has {model.digest.hex()}; replay "
            "it with the model that was exported"
        )
    if log.inputs.ndim != 2 or log.inputs.dtype != np.int16 or log.inputs.shape[1] != model.n_inputs:
        raise DataError(
            f"log {log.source}: inputs {log.inputs.dtype} {log.inputs.shape}, expected int16 (steps, {model.n_inputs})"
        )
    if len(log.inputs) == 0:
        raise DataError(f"log {log.source}: holds no step; log at least one before it is sent")
    if (log.h is None) != (log.residual is None):
        raise DataError(f"log {log.source}: h without residual, or the reverse; give both, or none after a reset")
    if log.h is None or log.residual is None:
        return
    if not model.streaming:
        raise DataError(f"log {log.source}: begins with a state, but model {model.name!r} runs whole sequences")
    if log.h.shape != (model.n_units,) or log.residual.shape != (model.n_units,):
        raise DataError(
            f"log {log.source}: h {log.h.shape} and residual {log.residual.shape}, the model has {model.n_units} units"
        )
    if log.residual.max() > MOST_RESIDUAL:
        raise DataError(f"log {log.source}: residual {log.residual.max()}, allowed are 0 ... {MOST_RESIDUAL}")
