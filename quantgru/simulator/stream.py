"""Simulation of one sequence, step by step, as a device sees it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from quantgru.errors import DataError
from quantgru.fixed import to_raw16, to_real
from quantgru.int_model import IntModel
from quantgru.sequences import as_sequences
from quantgru.simulator.program import Int16Array, Program, require_int_model


class Stream:
    """A device that runs one model: state, steps, outputs. Equal to a batch run of the same steps.

    stream = qg.Stream(qg.IntModel.load("gesture.qgru"))
    outputs = stream.step(inputs)
    """

    def __init__(self, model: IntModel) -> None:
        """Raises ModelError for what is not an IntModel."""
        require_int_model(model, "stream")
        self.model = model
        self._program = Program(model)
        self.reset()

    def reset(self) -> None:
        """State and residual to zero [R13]."""
        self._states = [layer.zero_state(1) for layer in self._program.grus]

    def step(self, x: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """One step of real inputs [inputs]; returns the real outputs [outputs]. Raises DataError."""
        one_step: Any = [[x]]
        real = as_sequences(one_step, "step", self.model.n_inputs).values[0, 0]
        raw, _ = to_raw16(real, self.model.input_fraction_bits)
        return to_real(self.step_raw(raw), self.model.output_fraction_bits)

    def step_raw(self, x: Int16Array) -> Int16Array:
        """One step of raw inputs, int16 [inputs]; returns the raw outputs, int16 [outputs]. Raises DataError."""
        x = np.asarray(x)
        if x.shape != (self.model.n_inputs,) or x.dtype != np.int16:
            raise DataError(f"step: inputs {x.dtype} {x.shape}, expected int16 ({self.model.n_inputs},)")
        one_step = np.ones(1, dtype=np.int64)
        value = np.ascontiguousarray(x).reshape(1, 1, -1)
        for layer, state in zip(self._program.grus, self._states, strict=True):
            value = layer.run(value, one_step, state, keep_all=False).h
        outputs, _ = self._program.run_head(value)
        return np.asarray(outputs[0, 0])
