"""Simulation of whole data sets."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from quantgru.array_types import Int16Array
from quantgru.errors import ConfigError
from quantgru.fixed import to_real
from quantgru.int_model import IntModel, require_int_model
from quantgru.sequences import Sequences, SequencesLike, as_sequences, with_token_axis, without_masked
from quantgru.simulator.inputs import as_raw, to_raw
from quantgru.simulator.program import GruTrace, Program, RawSignal, Record
from quantgru.simulator.states import GruState, InitialStates, start_states

_CHUNK = 64  # sequences between two reports of progress


@dataclass(frozen=True, eq=False)
class Trace:
    """Everything that a device holds after each step.

    layers   what each GRU layer read, its u, r, n, h and residual
    outputs  raw outputs of every step [sequences, steps, outputs], also of a model whose output is that of the last
             step; a single step where a bidirectional layer gives its final states only
    """

    layers: tuple[GruTrace, ...]
    outputs: Int16Array


@dataclass(frozen=True, eq=False)
class SimulationResult:
    """What a device computes.

    sequences          the inputs, as they were checked, without masked steps
    inputs_raw         int16 [sequences, steps, inputs]
    outputs_raw        int16 [sequences, steps, outputs], or [sequences, outputs] for a last-step head; zero in padding
    states_raw         h of each GRU layer, int16 [sequences, steps, units], with the fraction bits of its state; steps
                       in the order in which the layer read them: of a backward one, from the end
    clipped_inputs     values of each input feature that were out of range and saturated [inputs]; of raw inputs, those
                       at a limit of 16 bits
    saturated_outputs  saturated values of each dense layer
    saturated_states   candidates of each GRU layer that stand at a limit of its state's format [R25]
    final_states       of each GRU layer after its last step: as `initial_states` of another run, they go on from there
    trace              every gate, if asked for
    """

    model: IntModel
    sequences: Sequences
    inputs_raw: Int16Array
    outputs_raw: Int16Array
    states_raw: tuple[Int16Array, ...]
    clipped_inputs: npt.NDArray[np.int64]
    saturated_outputs: tuple[int, ...]
    saturated_states: tuple[int, ...]
    final_states: tuple[GruState, ...]
    trace: Trace | None

    @property
    def outputs(self) -> Any:
        """Real outputs, arranged as the inputs were: an array, or a list of [steps, outputs] for a list.

        An output of every step repeats at a masked step the one before it, and is 0 before the first.
        """
        real = to_real(self.outputs_raw, self.model.output_fraction_bits)
        return real if self.model.last_step else self.sequences.arrange(real, from_last_step=self.model.reversed_output)


def simulate(
    model: IntModel,
    x: SequencesLike | Sequences,
    mask: Any = None,
    initial_states: InitialStates | None = None,
) -> Any:
    """Real outputs of the device for x [sequences, steps, inputs] or a list of [steps, inputs].

    mask            bool [sequences, steps] or a list of [steps]: false where a step is none
    initial_states  for each GRU layer h before the first step, [units] or [sequences, units]

    [sequences, steps, outputs], a list of [steps, outputs] for a list, or [sequences, outputs] for a last-step head.
    Raises DataError.
    """
    return run(model, x, mask=mask, initial_states=initial_states).outputs


def run(
    model: IntModel,
    x: SequencesLike | Sequences,
    *,
    mask: Any = None,
    initial_states: InitialStates | None = None,
    raw_input: bool = False,
    trace: bool = False,
    threads: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> SimulationResult:
    """Simulates x and returns everything about the run.

    mask            bool [sequences, steps] or a list of [steps]: false where a step is none. It is left out, and so is
                    one at which all real inputs have the model's `mask_value`
    initial_states  for each GRU layer real h before the first step, [units] or [sequences, units]; or the
                    `final_states` of a run of as many sequences, which then goes on without a difference
    raw_input       x holds raw s16 values, as a device logs them, instead of real ones; none of them is masked by value
    trace           keep u, r, n, h and residual of every step
    threads         how many to use; all cores if None. The result does not depend on it
    progress        called, from any thread, with the number of sequences that are finished since the last call

    Raises DataError, ModelError for what is not an IntModel, ConfigError for less than one thread.
    """
    require_int_model(model, "simulate")
    if threads is not None and threads < 1:
        raise ConfigError(f"simulate: threads={threads}, expected at least 1, or None for all cores")
    sequences = as_sequences(x if model.embedding is None else with_token_axis(x), n_features=model.n_inputs)
    sequences = without_masked(sequences, mask, None if raw_input else model.mask_value)
    raw, clipped = (as_raw if raw_input else to_raw)(model, sequences)
    states = start_states(model, initial_states, sequences.n_sequences)
    chunks = _chunks(RawSignal(raw, sequences.lengths), states, every_step=trace)
    parts = _run_chunks(Program(model), chunks, model.last_step, threads, progress)
    records = [part.record for part in parts]
    of_layers = list(zip(*(record.traces for record in records), strict=True))  # of each GRU layer, chunk by chunk
    return SimulationResult(
        model,
        sequences,
        raw,
        np.concatenate([part.outputs for part in parts]),
        tuple(np.concatenate([part.h for part in layer]) for layer in of_layers),
        clipped,
        _total(record.saturated_outputs for record in records),
        _total(record.saturated_states for record in records),
        tuple(states),
        Trace(tuple(map(_joined, of_layers)), np.concatenate([part.every_output for part in parts])) if trace else None,
    )


def check_values(trace: Trace, sequences: Sequences) -> npt.NDArray[np.uint32]:
    """The check value of each step of a streaming model by itself, [sequences, steps], zero in padding [R16]."""
    checks = np.zeros(sequences.valid.shape, dtype=np.uint32)
    arrays = [layer.h for layer in trace.layers] + [layer.residual for layer in trace.layers] + [trace.outputs]
    for i, length in enumerate(sequences.lengths):
        steps = np.concatenate([array[i, :length].astype("<i2", casting="unsafe") for array in arrays], axis=1)
        checks[i, :length] = [zlib.crc32(step) for step in steps]
    return checks


def step_check(trace: Trace, sequence: int, step: int, crc: int) -> int:
    """The check value of one step of a streaming model, continued from `crc` [R16]."""
    arrays = [layer.h for layer in trace.layers] + [layer.residual for layer in trace.layers] + [trace.outputs]
    for array in arrays:
        crc = _crc(array[sequence, step], crc)
    return crc


def run_check(result: SimulationResult, sequence: int) -> int:
    """The check value of the run of one whole sequence [R24]."""
    outputs = result.outputs_raw[sequence]
    return _crc(outputs if result.model.last_step else outputs[: result.sequences.lengths[sequence]], 0)


def _crc(values: npt.NDArray[Any], crc: int) -> int:
    return zlib.crc32(values.astype(values.dtype.newbyteorder("<")).tobytes(), crc)


@dataclass(frozen=True, eq=False)
class _Part:
    """Of some of the sequences: the outputs, those of every step if they are traced, and what the layers left."""

    outputs: Int16Array
    every_output: Int16Array
    record: Record


def _chunks(x: RawSignal, states: Sequence[GruState], *, every_step: bool) -> Iterator[tuple[RawSignal, Record]]:
    """The sequences in groups, with their part of the states, which a run updates in place."""
    for start in range(0, x.n_sequences, _CHUNK):
        chunk = slice(start, start + _CHUNK)
        of_chunk = [GruState(state.h[chunk], state.residual[chunk]) for state in states]
        yield RawSignal(x.values[chunk], x.lengths[chunk]), Record(iter(of_chunk), every_step)


def _run_chunks(
    program: Program,
    chunks: Iterable[tuple[RawSignal, Record]],
    last_step: bool,
    threads: int | None,
    progress: Callable[[int], None] | None,
) -> list[_Part]:
    """All layers over all chunks, which threads share."""

    def work(chunk: tuple[RawSignal, Record]) -> _Part:
        part = _run_chunk(program, *chunk, last_step)
        if progress is not None:
            progress(len(part.outputs))
        return part

    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        return list(pool.map(work, chunks))


def _run_chunk(program: Program, x: RawSignal, record: Record, last_step: bool) -> _Part:
    body = program.run_body(x, record)
    outputs, saturated = program.run_head(body.last_step() if last_step else body)
    record.saturated_outputs += saturated
    if not last_step:
        return _Part(outputs.values, outputs.values, record)
    every_step, _ = program.run_head(body) if record.every_step else (outputs, [])
    return _Part(outputs.values[:, 0], every_step.values, record)


def _joined(chunks: Sequence[GruTrace]) -> GruTrace:
    """One trace of all sequences."""
    return GruTrace(*(np.concatenate([getattr(chunk, field.name) for chunk in chunks]) for field in fields(GruTrace)))


def _total(counts: Iterable[Sequence[int]]) -> tuple[int, ...]:
    """Sums over the chunks of what each layer counted."""
    return tuple(sum(of_layer) for of_layer in zip(*counts, strict=True))
