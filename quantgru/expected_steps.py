"""What the simulator computes for the steps and the runs that a board is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from quantgru.array_types import Int16Array
from quantgru.hil.requests import ARRAY_NAMES
from quantgru.hil.runs import ExpectedRun
from quantgru.hil.ways import Expected, StepTrace
from quantgru.int_model import IntModel
from quantgru.sequences import Sequences
from quantgru.signals import reverse_steps
from quantgru.simulator import Trace, check_values, run, run_check

_CHUNK = 64  # sequences that are traced at a time


def expected_steps(
    model: IntModel,
    sequences: Sequences,
    *,
    raw_input: bool = False,
    progress: Callable[[int], None] = lambda steps: None,
) -> tuple[list[Int16Array], Expected]:
    """Raw inputs of each sequence, in the order in which the board gets them, and what the simulator computes.

    raw_input  whether `sequences` hold raw values instead of real ones
    progress   called with the number of steps simulated since its last call
    """
    inputs: list[Int16Array] = []
    outputs: list[Int16Array] = []
    checks: list[Any] = []
    for start in range(0, sequences.n_sequences, _CHUNK):
        part = Sequences(sequences.values[start : start + _CHUNK], sequences.lengths[start : start + _CHUNK])
        result = run(model, part, raw_input=raw_input, trace=True)
        assert result.trace is not None
        check = check_values(result.trace, part)
        raw = reverse_steps(result.inputs_raw, part.lengths) if model.reversed_input else result.inputs_raw
        for i, length in enumerate(part.lengths):
            inputs.append(raw[i, :length])
            outputs.append(result.trace.outputs[i, :length])
            checks.append(check[i, :length])
        progress(part.n_steps)
    return inputs, Expected(outputs, checks, _traces(model, inputs))


def expected_runs(model: IntModel, sequences: Sequences) -> tuple[list[Int16Array], list[ExpectedRun]]:
    """Raw inputs of each sequence, and what the simulator computes for its run [R24]."""
    result = run(model, sequences)
    inputs = [raw[:length] for raw, length in zip(result.inputs_raw, sequences.lengths, strict=True)]
    expected = []
    for i, length in enumerate(sequences.lengths):
        outputs = result.outputs_raw[i]
        expected.append(ExpectedRun(outputs[None] if model.last_step else outputs[:length], run_check(result, i)))
    return inputs, expected


def _traces(model: IntModel, inputs: Sequence[Int16Array]) -> Callable[[int, int], StepTrace]:
    @lru_cache(maxsize=1)
    def trace_of(sequence: int) -> Trace:
        raw = inputs[sequence][None, :: -1 if model.reversed_input else 1]
        trace = run(model, raw, raw_input=True, trace=True).trace
        assert trace is not None
        return trace

    return lambda sequence, step: _step_trace(trace_of(sequence), step)


def _step_trace(trace: Trace, step: int) -> StepTrace:
    def of_all_layers(name: str) -> Any:
        return np.concatenate([getattr(layer, name)[0, step] for layer in trace.layers])

    arrays = {name: of_all_layers(name) for name in ARRAY_NAMES}
    return StepTrace(**arrays, outputs=trace.outputs[0, step])
