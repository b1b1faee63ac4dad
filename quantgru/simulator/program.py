"""An integer model, laid out for the kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from quantgru.errors import ModelError
from quantgru.int_model import IntDense, IntGru, IntModel, Matrix
from quantgru.int_model.contract import ACTIVATION_NUMBERS
from quantgru.simulator import kernels

Int16Array = npt.NDArray[np.int16]


@dataclass(frozen=True)
class GruTrace:
    """What one GRU layer held after each step, raw, [sequences, steps, units] each; zero in padding.

    u and r u16f15, n and h s16f15, residual u16f30. The update gate is z = 32768 - u.
    """

    h: Int16Array
    residual: npt.NDArray[np.uint16]
    u: npt.NDArray[np.uint16]
    r: npt.NDArray[np.uint16]
    n: Int16Array


class GruProgram:
    """One GRU layer, ready to run."""

    def __init__(self, layer: IntGru) -> None:
        self.n_units = layer.n_units
        self._reset_after = layer.reset == "after"
        recurrent_bias = layer.recurrent_bias if self._reset_after else np.zeros(layer.n_units, np.int32)
        self._constants = (
            _kernel_matrix(layer.input),
            _kernel_matrix(layer.recurrent),
            layer.bias.astype(np.int64),
            recurrent_bias.astype(np.int64),
        )

    def zero_state(self, n_sequences: int) -> tuple[Int16Array, npt.NDArray[np.uint16]]:
        """h and residual [sequences, units] at the reset [R13]."""
        shape = (n_sequences, self.n_units)
        return np.zeros(shape, np.int16), np.zeros(shape, np.uint16)

    def run(
        self,
        x: Int16Array,
        lengths: npt.NDArray[np.int64],
        state: tuple[Int16Array, npt.NDArray[np.uint16]],
        *,
        keep_all: bool,
    ) -> GruTrace:
        """Runs x [sequences, steps, inputs] from `state`, which is updated. Without `keep_all`, only h is kept for
        every step and the other traces hold the last one."""
        n_sequences, n_steps, _ = x.shape
        full = (n_sequences, n_steps, self.n_units)
        kept = full if keep_all else (n_sequences, 1, self.n_units)
        trace = GruTrace(
            np.zeros(full, np.int16),
            np.zeros(kept, np.uint16),
            np.zeros(kept, np.uint16),
            np.zeros(kept, np.uint16),
            np.zeros(kept, np.int16),
        )
        work = np.empty(6 * self.n_units, np.int64)  # of this call, so that threads can share the layer
        traces = (trace.h, trace.residual, trace.u, trace.r, trace.n)
        kernels.run_gru((*self._constants, work), self._reset_after, x, lengths, *state, traces)
        return trace


class DenseProgram:
    """One dense layer, ready to run."""

    def __init__(self, layer: IntDense) -> None:
        self.n_outputs = layer.n_outputs
        self._constants = (
            _kernel_matrix(layer.matrix),
            layer.bias.astype(np.int64),
            ACTIVATION_NUMBERS[layer.activation],
        )

    def run(self, x: Int16Array) -> tuple[Int16Array, int]:
        """Raw outputs [vectors, outputs] for x [vectors, inputs], and how many of them saturated."""
        y = np.empty((x.shape[0], self.n_outputs), np.int16)
        saturated = kernels.run_dense(*self._constants, x, y)
        return y, int(saturated)


class Program:
    """A whole model, ready to run. Holds no state."""

    def __init__(self, model: IntModel) -> None:
        self.grus = [GruProgram(layer) for layer in model.grus]
        self.head = [DenseProgram(layer) for layer in model.head]

    def run_head(self, h: Int16Array) -> tuple[Int16Array, list[int]]:
        """Raw outputs [..., outputs] for h [..., units] of the last layer; saturated values of each dense layer."""
        y = np.ascontiguousarray(h.reshape(-1, h.shape[-1]))
        saturated = []
        for layer in self.head:
            y, count = layer.run(y)
            saturated.append(count)
        return y.reshape(*h.shape[:-1], y.shape[-1]), saturated


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
