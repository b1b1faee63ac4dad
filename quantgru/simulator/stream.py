"""Simulation of one sequence, step by step, as a device sees it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from quantgru.array_types import Int16Array
from quantgru.errors import DataError, ModelError
from quantgru.fixed import to_real
from quantgru.int_model import IntModel, require_int_model
from quantgru.sequences import as_sequences, with_token_axis
from quantgru.simulator.inputs import to_raw
from quantgru.simulator.program import Program, RawSignal, Record
from quantgru.simulator.states import GruState, InitialStates, start_states


class Stream:
    """A device that runs one model: state, steps, outputs. Equal to a batch run of the same steps.

    stream = qg.Stream(qg.IntModel.load("gesture.qgru"))
    outputs = stream.step(inputs)

    It is given what a device is given: no masked steps, and where `model.reversed_input`, the last step first.
    """

    def __init__(self, model: IntModel) -> None:
        """Raises ModelError for what is not an IntModel, and for a model that needs the whole sequence."""
        require_int_model(model, "stream")
        if not model.streaming:
            raise ModelError(
                f"stream: model {model.name!r} has a bidirectional or reversed layer, which needs the whole sequence; "
                "qg.simulate takes whole sequences"
            )
        self.model = model
        self._program = Program(model)
        self.reset()

    def reset(self) -> None:
        """To the initial states of the model, and no residual [R13, R20]."""
        self._states = start_states(self.model, None, 1)

    @property
    def states(self) -> tuple[GruState, ...]:
        """Of each GRU layer, [1, units]. To be set to the states of a stream or of a run of one sequence, which it then
        goes on with, or to real h of each GRU layer; setting raises DataError."""
        return tuple(start_states(self.model, self._states, 1))

    @states.setter
    def states(self, states: InitialStates) -> None:
        self._states = start_states(self.model, states, 1)

    def step(self, x: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """One step of real inputs [inputs] or a token number; returns the real outputs [outputs]. Raises DataError."""
        one_step: Any = [[x]]
        if self.model.embedding is not None:
            one_step = with_token_axis(one_step)
        raw, _ = to_raw(self.model, as_sequences(one_step, "step", self.model.n_inputs))
        return to_real(self.step_raw(raw[0, 0]), self.model.output_fraction_bits)

    def step_raw(self, x: Int16Array) -> Int16Array:
        """One step of raw inputs, int16 [inputs]; returns the raw outputs, int16 [outputs]. Raises DataError."""
        x = np.asarray(x)
        if x.shape != (self.model.n_inputs,) or x.dtype != np.int16:
            raise DataError(f"step: inputs {x.dtype} {x.shape}, expected int16 ({self.model.n_inputs},)")
        one_step = RawSignal(x.reshape(1, 1, -1), np.ones(1, np.int64))
        body = self._program.run_body(one_step, Record(iter(self._states), every_step=False))
        outputs, _ = self._program.run_head(body)
        return np.asarray(outputs.values[0, 0])
