"""Simulation of whole data sets."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from quantgru.errors import ConfigError, DataError
from quantgru.fixed import INT16_MAX, INT16_MIN, to_raw16, to_real
from quantgru.int_model import IntModel
from quantgru.sequences import Sequences, SequencesLike, as_sequences
from quantgru.simulator.program import GruTrace, Int16Array, Program, require_int_model

_CHUNK = 64  # sequences between two reports of progress


@dataclass(frozen=True, eq=False)
class Trace:
    """Everything that a device holds after each step.

    layers   u, r, n, h and residual of each GRU layer
    outputs  raw outputs of the head after every step [sequences, steps, outputs], also for a last-step head
    """

    layers: tuple[GruTrace, ...]
    outputs: Int16Array


@dataclass(frozen=True, eq=False)
class SimulationResult:
    """What a device computes.

    sequences          the inputs, as they were checked
    inputs_raw         int16 [sequences, steps, inputs]
    outputs_raw        int16 [sequences, steps, outputs], or [sequences, outputs] for a last-step head; zero in padding
    states_raw         int16 [sequences, steps, units] of each GRU layer, s16f15
    clipped_inputs     values of each input feature that were out of range and saturated [inputs]
    saturated_outputs  saturated values of each dense layer
    trace              every gate, if asked for
    """

    model: IntModel
    sequences: Sequences
    inputs_raw: Int16Array
    outputs_raw: Int16Array
    states_raw: tuple[Int16Array, ...]
    clipped_inputs: npt.NDArray[np.int64]
    saturated_outputs: tuple[int, ...]
    trace: Trace | None

    @property
    def outputs(self) -> Any:
        """Real outputs, arranged as the inputs were: an array, or a list of [steps, outputs] for a list."""
        return self._arranged(to_real(self.outputs_raw, self.model.output_fraction_bits))

    def _arranged(self, values: npt.NDArray[Any]) -> Any:
        return values if self.model.last_step else self.sequences.arrange(values)


def simulate(model: IntModel, x: SequencesLike | Sequences) -> Any:
    """Real outputs of the device for x [sequences, steps, inputs] or a list of [steps, inputs].

    [sequences, steps, outputs], a list of [steps, outputs] for a list, or [sequences, outputs] for a last-step head.
    Raises DataError.
    """
    return run(model, x).outputs


def run(
    model: IntModel,
    x: SequencesLike | Sequences,
    *,
    raw_input: bool = False,
    trace: bool = False,
    threads: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> SimulationResult:
    """Simulates x and returns everything about the run.

    raw_input  x holds raw s16 values, as a device logs them, instead of real ones
    trace      keep u, r, n, h and residual of every step
    threads    how many to use; all cores if None. The result does not depend on it
    progress   called, from any thread, with the number of sequences that are finished since the last call

    Raises DataError, ModelError for what is not an IntModel, ConfigError for less than one thread.
    """
    require_int_model(model, "simulate")
    if threads is not None and threads < 1:
        raise ConfigError(f"simulate: threads={threads}, expected at least 1, or None for all cores")
    sequences = as_sequences(x, n_features=model.n_inputs)
    raw, clipped = _as_raw(sequences) if raw_input else _to_raw(model, sequences)
    raw = np.ascontiguousarray(raw)  # for another layout, Numba would compile the kernels anew
    program = Program(model)
    layers = _run_batch(program, raw, sequences.lengths, threads or os.cpu_count(), progress, keep_all=trace)
    states = layers[-1].h
    if model.last_step:
        outputs, saturated = program.run_head(states[np.arange(sequences.n_sequences), sequences.lengths - 1])
    else:
        outputs, saturated = _head_of_every_step(program, states, sequences.valid)
    full_trace = None
    if trace:
        every_output = _head_of_every_step(program, states, sequences.valid)[0] if model.last_step else outputs
        full_trace = Trace(tuple(layers), every_output)
    return SimulationResult(
        model, sequences, raw, outputs, tuple(layer.h for layer in layers), clipped, tuple(saturated), full_trace
    )


def check_values(trace: Trace, sequences: Sequences) -> npt.NDArray[np.uint32]:
    """The check value of each step by itself, [sequences, steps], zero in padding [R16]."""
    checks = np.zeros(sequences.valid.shape, dtype=np.uint32)
    for i, t in np.argwhere(sequences.valid):
        checks[i, t] = step_check(trace, i, t, 0)
    return checks


def step_check(trace: Trace, sequence: int, step: int, crc: int) -> int:
    """The check value of one step, continued from `crc` [R16]."""
    arrays = [layer.h for layer in trace.layers] + [layer.residual for layer in trace.layers] + [trace.outputs]
    for array in arrays:
        crc = zlib.crc32(array[sequence, step].astype(array.dtype.newbyteorder("<")).tobytes(), crc)
    return crc


def _to_raw(model: IntModel, sequences: Sequences) -> tuple[Int16Array, npt.NDArray[np.int64]]:
    raw, clipped = to_raw16(sequences.values, model.input_fraction_bits)
    return raw, (clipped & sequences.valid[..., None]).sum(axis=(0, 1))


def _as_raw(sequences: Sequences) -> tuple[Int16Array, npt.NDArray[np.int64]]:
    values = sequences.values
    if (values != np.floor(values)).any() or values.min() < INT16_MIN or values.max() > INT16_MAX:
        raise DataError(f"raw input: {values.min()} ... {values.max()}, expected integers of -32768 ... 32767")
    return values.astype(np.int16), np.zeros(sequences.n_features, dtype=np.int64)


def _run_batch(
    program: Program,
    x: Int16Array,
    lengths: npt.NDArray[np.int64],
    threads: int | None,
    progress: Callable[[int], None] | None,
    *,
    keep_all: bool,
) -> list[GruTrace]:
    """All GRU layers over all sequences, in chunks that threads share."""

    def work(chunk: slice) -> list[GruTrace]:
        result = _run_layers(program, x[chunk], lengths[chunk], keep_all=keep_all)
        if progress is not None:
            progress(result[0].h.shape[0])
        return result

    with ThreadPoolExecutor(threads) as pool:
        parts = list(pool.map(work, (slice(i, i + _CHUNK) for i in range(0, len(x), _CHUNK))))
    return [_join(of_layer) for of_layer in zip(*parts, strict=True)]


def _run_layers(program: Program, x: Int16Array, lengths: npt.NDArray[np.int64], *, keep_all: bool) -> list[GruTrace]:
    traces = []
    for layer in program.grus:
        trace = layer.run(x, lengths, layer.zero_state(x.shape[0]), keep_all=keep_all)
        traces.append(trace)
        x = trace.h
    return traces


def _join(parts: Sequence[GruTrace]) -> GruTrace:
    if len(parts) == 1:
        return parts[0]
    return GruTrace(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(GruTrace)))


def _head_of_every_step(program: Program, h: Int16Array, valid: npt.NDArray[np.bool_]) -> tuple[Int16Array, list[int]]:
    """The head on h [sequences, steps, units] where `valid`, with zeros elsewhere."""
    values, saturated = program.run_head(h[valid])
    outputs = np.zeros((*valid.shape, values.shape[-1]), dtype=np.int16)
    outputs[valid] = values
    return outputs, saturated
