"""What the simulator computes for the steps and the runs that a board is asked for, part by part as they are wanted.

A run so needs little memory, however long it is, and can be ended between any two parts of the simulation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np

from quantgru.array_types import Int16Array
from quantgru.hil.compare import Batch
from quantgru.hil.requests import ARRAY_NAMES
from quantgru.hil.runs import ExpectedRun
from quantgru.hil.ways import Expected, StepTrace
from quantgru.int_model import IntModel
from quantgru.sequences import Sequences
from quantgru.signals import reverse_steps
from quantgru.simulator import GruState, Trace, check_values, run, run_check

_STEPS: Final = 2**14  # that are traced at a time, padding included: 0.1 s, and some MB, of a GRU with 32 units

# The states before each _STEPS steps of a sequence; None is the reset.
_Starts = Sequence[Sequence[GruState] | None]


def expected_steps(
    model: IntModel,
    sequences: Sequences,
    going_on: Callable[[], None] = lambda: None,
    *,
    raw_input: bool = False,
    first: int = 0,
) -> Iterator[Batch]:
    """Raw inputs of each sequence, in the order in which the board gets them, and what the simulator computes.

    going_on   called before each part of the simulation: what it raises ends it
    raw_input  whether `sequences` hold raw values instead of real ones
    first      number of the first sequence among all that are compared
    """
    for start, group in _groups(sequences):
        yield _batch(model, group, going_on, raw_input, first + start)


def expected_runs(
    model: IntModel, sequences: Sequences, going_on: Callable[[], None] = lambda: None
) -> Iterator[tuple[Int16Array, ExpectedRun]]:
    """Raw inputs of each sequence, and what the simulator computes for its run [R24]."""
    for _, group in _groups(sequences):
        going_on()
        result = run(model, group)
        for i, length in enumerate(group.lengths):
            outputs = result.outputs_raw[i]
            outputs = outputs[None] if model.last_step else outputs[:length]
            yield result.inputs_raw[i, :length], ExpectedRun(outputs, run_check(result, i))


def _groups(sequences: Sequences) -> Iterator[tuple[int, Sequences]]:
    """As many sequences at a time as are _STEPS steps when padded, a longer one alone; and the number of the first."""
    start = 0
    while start < sequences.n_sequences:
        lengths = sequences.lengths[start : start + _STEPS]
        padded_steps = np.maximum.accumulate(lengths) * np.arange(1, len(lengths) + 1)
        lengths = lengths[: max(1, int((padded_steps <= _STEPS).sum()))]
        end = start + len(lengths)
        yield start, Sequences(sequences.values[start:end, : lengths.max()], lengths)
        start = end


def _batch(model: IntModel, sequences: Sequences, going_on: Callable[[], None], raw_input: bool, first: int) -> Batch:
    """Of one of the groups."""
    starts: list[Sequence[GruState] | None] = [None]
    parts: list[tuple[Any, Any, Any]] = []
    for part in _in_board_order(sequences, model.reversed_input):
        going_on()
        result = run(model, part, initial_states=starts[-1], raw_input=raw_input, trace=True)
        assert result.trace is not None
        raw = reverse_steps(result.inputs_raw, part.lengths) if model.reversed_input else result.inputs_raw
        parts.append((raw, result.trace.outputs, check_values(result.trace, part)))
        starts.append(result.final_states)
    inputs, outputs, checks = (
        [steps[:length] for steps, length in zip(np.concatenate(arrays, axis=1), sequences.lengths, strict=True)]
        for arrays in zip(*parts, strict=True)
    )
    return inputs, Expected(outputs, checks, _traces(model, inputs, starts, first), first)


def _in_board_order(sequences: Sequences, reversed_input: bool) -> Iterator[Sequences]:
    """A group, _STEPS steps at a time, so that only one that is alone is cut; from its end on if it is read so."""
    longest = sequences.values.shape[1]
    for start in range(0, longest, _STEPS):
        end = min(start + _STEPS, longest)
        steps = slice(longest - end, longest - start) if reversed_input else slice(start, end)
        yield Sequences(sequences.values[:, steps], np.minimum(sequences.lengths - start, _STEPS))


def _traces(
    model: IntModel, inputs: Sequence[Int16Array], starts: _Starts, first: int
) -> Callable[[int, int], StepTrace]:
    @lru_cache(maxsize=1)
    def trace_of(sequence: int, part: int) -> Trace:
        steps = inputs[sequence - first][part * _STEPS : (part + 1) * _STEPS]
        raw = steps[None, :: -1 if model.reversed_input else 1]
        trace = run(model, raw, initial_states=starts[part], raw_input=True, trace=True).trace
        assert trace is not None
        return trace

    return lambda sequence, step: _step_trace(trace_of(sequence, step // _STEPS), step % _STEPS)


def _step_trace(trace: Trace, step: int) -> StepTrace:
    def of_all_layers(name: str) -> Any:
        return np.concatenate([getattr(layer, name)[0, step] for layer in trace.layers])

    arrays = {name: of_all_layers(name) for name in ARRAY_NAMES}
    return StepTrace(**arrays, outputs=trace.outputs[0, step])
