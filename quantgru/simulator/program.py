"""An integer model, laid out for the kernels: each kind of layer turns one signal into the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from quantgru.errors import ModelError
from quantgru.fixed import INT16_MAX, round_shift
from quantgru.int_model import (
    IntBidirectional,
    IntDense,
    IntEmbedding,
    IntGru,
    IntLayer,
    IntModel,
    IntReverse,
    Matrix,
)
from quantgru.int_model.contract import ACTIVATION_NUMBERS, CANDIDATE_NUMBERS, GATE_NUMBERS
from quantgru.int_model.layers import EMBEDDING_BITS
from quantgru.sequences import reverse_steps
from quantgru.simulator import kernels
from quantgru.simulator.states import GruState, Int16Array, UInt16Array


@dataclass(frozen=True, eq=False)
class Signal:
    """Sequences between two layers: int16 [sequences, steps, width], zero after the first lengths[i] steps of each."""

    values: Int16Array
    lengths: npt.NDArray[np.int64]

    @property
    def valid(self) -> npt.NDArray[np.bool_]:
        return np.asarray(np.arange(self.values.shape[1]) < self.lengths[:, None])

    def reversed(self) -> Signal:
        """[R22]"""
        return replace(self, values=reverse_steps(self.values, self.lengths))

    def last_step(self) -> Signal:
        """A signal of one step."""
        n = len(self.lengths)
        return Signal(self.values[np.arange(n), self.lengths - 1][:, None], np.ones(n, np.int64))


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
    """What the layers need for a run and leave behind, in the order of the model.

    states    of each GRU layer, updated in place
    keep_all  whether the traces are to be complete; else all but h hold the last step only
    """

    states: Sequence[GruState]
    keep_all: bool
    traces: list[GruTrace] = field(default_factory=list)
    saturated_states: list[int] = field(default_factory=list)
    saturated_outputs: list[int] = field(default_factory=list)


class LayerProgram(Protocol):
    """One layer, ready to run. Holds no state, so that threads can share it."""

    def run(self, x: Signal, record: Record) -> Signal: ...


class GruProgram:
    def __init__(self, layer: IntGru) -> None:
        self._n_units = layer.n_units
        self._reset_after = layer.reset == "after"
        recurrent_bias = layer.recurrent_bias if self._reset_after else np.zeros(layer.n_units, np.int32)
        self._constants = (
            _kernel_matrix(layer.input),
            _kernel_matrix(layer.recurrent),
            layer.bias.astype(np.int64),
            recurrent_bias.astype(np.int64),
            (GATE_NUMBERS[layer.gate], CANDIDATE_NUMBERS[layer.candidate], layer.candidate_shift),
        )

    def run(self, x: Signal, record: Record) -> Signal:
        """[R9 ... R12]"""
        values = np.ascontiguousarray(x.values)  # for another layout, Numba would compile the kernels anew
        n_sequences, n_steps, _ = values.shape
        full = (n_sequences, n_steps, self._n_units)
        kept = full if record.keep_all else (n_sequences, 1, self._n_units)
        h, n = np.zeros(full, np.int16), np.zeros(kept, np.int16)
        residual, u, r = np.zeros(kept, np.uint16), np.zeros(kept, np.uint16), np.zeros(kept, np.uint16)
        layer = (*self._constants, np.empty(6 * self._n_units, np.int64))
        state = record.states[len(record.traces)]  # of the layer that is next to leave a trace
        saturated = kernels.run_gru(
            layer, self._reset_after, values, x.lengths, state.h, state.residual, (h, residual, u, r, n)
        )
        record.traces.append(GruTrace(values, h, residual, u, r, n))
        record.saturated_states.append(int(saturated))
        return replace(x, values=h)


class BidirectionalProgram:
    def __init__(self, layer: IntBidirectional) -> None:
        self._forward, self._backward = GruProgram(layer.forward), GruProgram(layer.backward)
        self._merge, self._final = _MERGES[layer.merge], layer.final

    def run(self, x: Signal, record: Record) -> Signal:
        """[R23]"""
        forward = self._forward.run(x, record)
        backward = self._backward.run(x.reversed(), record)
        if self._final:
            forward, backward = forward.last_step(), backward.last_step()
        else:
            backward = backward.reversed()
        return replace(forward, values=self._merge(forward.values, backward.values))


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
    def run(self, x: Signal, record: Record) -> Signal:
        return x.reversed()


class DenseProgram:
    def __init__(self, layer: IntDense) -> None:
        self._n_outputs = layer.n_outputs
        self._constants = (
            _kernel_matrix(layer.matrix),
            layer.bias.astype(np.int64),
            ACTIVATION_NUMBERS[layer.activation],
        )

    def run(self, x: Signal, record: Record) -> Signal:
        """[R14]"""
        vectors = np.ascontiguousarray(x.values[x.valid])
        y = np.empty((len(vectors), self._n_outputs), np.int16)
        record.saturated_outputs.append(int(kernels.run_dense(*self._constants, vectors, y)))
        values = np.zeros((*x.values.shape[:2], self._n_outputs), np.int16)
        values[x.valid] = y
        return replace(x, values=values)


class EmbeddingProgram:
    def __init__(self, layer: IntEmbedding) -> None:
        self._vectors = layer.codes.astype(np.int16) << EMBEDDING_BITS

    def run(self, x: Signal, record: Record) -> Signal:
        """[R21]"""
        tokens = np.clip(x.values[..., 0], 0, len(self._vectors) - 1)
        return replace(x, values=np.where(x.valid[..., None], self._vectors[tokens], np.int16(0)))


def _layer_program(layer: IntLayer) -> LayerProgram:
    match layer:
        case IntGru():
            return GruProgram(layer)
        case IntBidirectional():
            return BidirectionalProgram(layer)
        case IntReverse():
            return ReverseProgram()
        case IntDense():
            return DenseProgram(layer)
        case IntEmbedding():
            return EmbeddingProgram(layer)


class Program:
    """A whole model, ready to run. Holds no state."""

    def __init__(self, model: IntModel) -> None:
        self._body = [_layer_program(layer) for layer in model.body]
        self._head = [_layer_program(layer) for layer in model.head]

    def run_body(self, x: Signal, record: Record) -> Signal:
        """What the head reads."""
        return _run(self._body, x, record)

    def run_head(self, x: Signal, record: Record) -> Signal:
        """The outputs."""
        return _run(self._head, x, record)


def _run(layers: Sequence[LayerProgram], x: Signal, record: Record) -> Signal:
    for layer in layers:
        x = layer.run(x, record)
    return x


def _kernel_matrix(matrix: Matrix) -> tuple[Any, ...]:
    return (
        matrix.codes.astype(np.int16),  # the width that vectorises best next to int16 operands
        np.int64(matrix.left_shift),
        matrix.multiplier.astype(np.int64),
        matrix.shift.astype(np.int64),
    )


def require_int_model(model: object, what: str) -> None:
    """Raises ModelError for what is not an IntModel."""
    if not isinstance(model, IntModel):
        raise ModelError(
            f"{what}: a model of type {type(model).__name__}, expected an IntModel; "
            "qg.quantize or qg.IntModel.load gives one"
        )
