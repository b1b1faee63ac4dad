"""An integer model, laid out for the kernels: each kind of layer turns one signal into the next."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from quantgru.array_types import Int16Array, UInt16Array
from quantgru.fixed import INT16_MAX, round_shift
from quantgru.int_model import (
    IntBidirectional,
    IntDense,
    IntEmbedding,
    IntGru,
    IntLayer,
    IntModel,
    Matrix,
    Reverse,
)
from quantgru.int_model.contract import ACTIVATION_NUMBERS, CANDIDATE_NUMBERS, GATE_NUMBERS
from quantgru.int_model.layers import EMBEDDING_BITS
from quantgru.signals import Signal, merge_directions
from quantgru.simulator import kernels
from quantgru.simulator.states import GruState

RawSignal = Signal[np.int16]


@dataclass(frozen=True, eq=False)
class GruTrace:
    """What one GRU layer read and held, raw, [sequences, steps, inputs or units]; zero in padding.

    Steps are in the order in which the layer read them: of a backward one, from the end of the sequence. u and r are
    u16f15, n and h s16 with the fraction bits of the layer's state, residual u16 with 15 more. The update gate is
    z = 32768 - u.
    """

    x: Int16Array
    h: Int16Array
    residual: UInt16Array
    u: UInt16Array
    r: UInt16Array
    n: Int16Array


@dataclass
class Record:
    """What the layers before the head need for a run, and what they leave, in the order of the model.

    states             of the GRU layers that are still to run; each layer updates its own in place
    every_step         whether traces are to be complete; else all of them but x and h hold the last step only
    saturated_states   candidates of each GRU layer that stand at a limit of its state's format [R25]
    saturated_outputs  saturated values of each dense layer
    """

    states: Iterator[GruState]
    every_step: bool
    traces: list[GruTrace] = field(default_factory=list)
    saturated_states: list[int] = field(default_factory=list)
    saturated_outputs: list[int] = field(default_factory=list)


class LayerProgram(Protocol):
    """One layer, ready to run. Holds no state, so that threads can share it."""

    def run(self, x: RawSignal, record: Record) -> RawSignal:
        """What the layer puts out for what it reads."""


class GruProgram:
    """[R9 ... R13, R18, R19, R25]"""

    def __init__(self, layer: IntGru) -> None:
        self._n_units = layer.n_units
        self._reset_after = layer.reset == "after"
        self._constants = (
            _kernel_matrix(layer.input),
            _kernel_matrix(layer.recurrent),
            layer.bias.astype(np.int64),
            layer.recurrent_bias.astype(np.int64),
            (GATE_NUMBERS[layer.gate], CANDIDATE_NUMBERS[layer.candidate], layer.state_shift),
        )

    def run(self, x: RawSignal, record: Record) -> RawSignal:
        """h after every step [sequences, steps, units]."""
        values = np.ascontiguousarray(x.values)  # for another layout, Numba would compile the kernels anew
        n_sequences, n_steps, _ = values.shape
        full = (n_sequences, n_steps, self._n_units)
        kept = full if record.every_step else (n_sequences, 1, self._n_units)
        h, n = np.zeros(full, np.int16), np.zeros(kept, np.int16)
        residual, u, r = np.zeros(kept, np.uint16), np.zeros(kept, np.uint16), np.zeros(kept, np.uint16)
        layer = (*self._constants, np.empty(6 * self._n_units, np.int64))
        state = next(record.states)
        saturated = kernels.run_gru(
            layer, self._reset_after, values, x.lengths, state.h, state.residual, (h, residual, u, r, n)
        )
        record.traces.append(GruTrace(values, h, residual, u, r, n))
        record.saturated_states.append(int(saturated))
        return replace(x, values=h)


class BidirectionalProgram:
    """[R23]"""

    def __init__(self, layer: IntBidirectional) -> None:
        self._forward, self._backward = GruProgram(layer.forward), GruProgram(layer.backward)
        self._merge, self._final = _MERGES[layer.merge], layer.final

    def run(self, x: RawSignal, record: Record) -> RawSignal:
        """The merged states of every step, or of the last steps alone."""
        forward = self._forward.run(x, record)
        backward = self._backward.run(x.reversed(), record)
        return merge_directions(forward, backward, self._merge, final=self._final)


def _mean(forward: Int16Array, backward: Int16Array) -> Int16Array:
    return np.asarray(round_shift(forward.astype(np.int32) + backward, 1), np.int16)


def _product(forward: Int16Array, backward: Int16Array) -> Int16Array:
    return np.asarray(np.minimum(round_shift(forward.astype(np.int32) * backward, 15), INT16_MAX), np.int16)


_MERGES: dict[str, Callable[[Int16Array, Int16Array], Int16Array]] = {
    "concat": lambda forward, backward: np.concatenate((forward, backward), axis=-1),
    "sum": _mean,
    "mul": _product,
    "ave": _mean,  # the same integers with another meaning
}


class ReverseProgram:
    """[R22]"""

    def run(self, x: RawSignal, record: Record) -> RawSignal:
        return x.reversed()


class DenseProgram:
    """[R14]"""

    def __init__(self, layer: IntDense) -> None:
        self._n_outputs = layer.n_outputs
        self._constants = (
            _kernel_matrix(layer.matrix),
            layer.bias.astype(np.int64),
            ACTIVATION_NUMBERS[layer.activation],
        )

    def run(self, x: RawSignal, record: Record) -> RawSignal:
        y, saturated = self.outputs(x)
        record.saturated_outputs.append(saturated)
        return y

    def outputs(self, x: RawSignal) -> tuple[RawSignal, int]:
        """What the layer puts out [sequences, steps, outputs], and how many of these values saturated."""
        vectors = np.ascontiguousarray(x.vectors())
        y = np.empty((len(vectors), self._n_outputs), np.int16)
        saturated = int(kernels.run_dense(*self._constants, vectors, y))
        values = np.zeros((*x.values.shape[:2], self._n_outputs), np.int16)
        values[x.valid] = y
        return replace(x, values=values), saturated


class EmbeddingProgram:
    """[R21]"""

    def __init__(self, layer: IntEmbedding) -> None:
        self._vectors = layer.codes.astype(np.int16) << EMBEDDING_BITS

    def run(self, x: RawSignal, record: Record) -> RawSignal:
        """The vector of each token [sequences, steps, outputs]; one out of range counts as the nearest."""
        tokens = np.clip(x.values[..., 0], 0, len(self._vectors) - 1)
        return replace(x, values=np.where(x.valid[..., None], self._vectors[tokens], np.int16(0)))


def layer_program(layer: IntLayer) -> LayerProgram:
    """`layer`, ready to run."""
    match layer:
        case IntGru():
            return GruProgram(layer)
        case IntBidirectional():
            return BidirectionalProgram(layer)
        case Reverse():
            return ReverseProgram()
        case IntDense():
            return DenseProgram(layer)
        case IntEmbedding():
            return EmbeddingProgram(layer)


class Program:
    """A whole model, ready to run. Holds no state."""

    def __init__(self, model: IntModel) -> None:
        self._body = [layer_program(layer) for layer in model.body]
        self._head = [DenseProgram(layer) for layer in model.head]

    def run_body(self, x: RawSignal, record: Record) -> RawSignal:
        """What the head reads."""
        for layer in self._body:
            x = layer.run(x, record)
        return x

    def run_head(self, x: RawSignal) -> tuple[RawSignal, list[int]]:
        """The outputs of the model, and how many values of each layer of the head saturated."""
        counts = []
        for layer in self._head:
            x, saturated = layer.outputs(x)
            counts.append(saturated)
        return x, counts


def _kernel_matrix(matrix: Matrix) -> tuple[Any, ...]:
    return (
        matrix.codes.astype(np.int16),  # the width that vectorises best next to int16 operands
        np.int64(matrix.left_shift),
        matrix.multipliers.astype(np.int64),
        matrix.shifts.astype(np.int64),
    )
