"""Parts of the device's arithmetic, as SPEC.md has them, for a run that is in float otherwise."""

from __future__ import annotations

import numpy as np

from quantgru.activations import CANDIDATES, GATES, Candidate, Function, GateFunction
from quantgru.array_types import FloatArray
from quantgru.fixed import GATE, PRE_ACTIVATION, round_half_up, to_raw16, to_real
from quantgru.int_model import IntDense, IntGru
from quantgru.model.run import Cell
from quantgru.simulator.kernels import LIMIT
from quantgru.simulator.tables import function_values


def device_functions(layer: IntGru) -> Cell:
    """Pre-activations in their formats, and gates and candidate by the device's tables [R7, R8, R18, R19]."""
    return Cell(_of_rounded(layer.gate, layer.gate_bits), _of_rounded(layer.candidate, layer.candidate_bits))


class DeviceState:
    """h and n in the state's format, and what the shift drops kept as a residual [R12, R19]."""

    def __init__(self, layer: IntGru) -> None:
        self._layer, self._bits = layer, layer.state_fraction_bits
        self._residual: FloatArray | float = 0.0  # of one run, in LSB of h

    def cell(self) -> Cell:
        """With functions in float64."""
        return Cell(GATES[self._layer.gate], CANDIDATES[self._layer.candidate], self._update)

    def _update(self, h: FloatArray, z: FloatArray, n: FloatArray) -> FloatArray:
        h = rounded16(h, self._bits)  # which it is, but for the start of a run
        full = np.ldexp((1 - z) * (rounded16(n, self._bits) - h), self._bits) + self._residual
        step = np.floor(full)
        self._residual = full - step
        return np.asarray(h + np.ldexp(step, -self._bits))


def device_activation(layer: IntDense) -> Function:
    """Of a dense layer: its sums, its function and its output as on the device [R14]."""
    function = _of_rounded(layer.activation, layer.row_bits)
    return lambda a: rounded16(function(a), layer.output_fraction_bits)


def rounded16(values: FloatArray, fraction_bits: int | np.ndarray) -> FloatArray:
    """As s16 with `fraction_bits`, saturated, as real numbers [R15]."""
    return to_real(to_raw16(values, fraction_bits)[0], fraction_bits)


def _of_rounded(name: GateFunction | Candidate, bits: int) -> Function:
    if name in ("sigmoid", "tanh"):
        return lambda a: _from_table(name, a)
    function = (GATES | CANDIDATES)[name]
    return lambda a: function(np.ldexp(round_half_up(np.ldexp(a, bits)), -bits))


def _from_table(name: str, a: FloatArray) -> FloatArray:
    raw = np.clip(round_half_up(np.ldexp(a, PRE_ACTIVATION.fraction_bits)), -LIMIT, LIMIT)
    values = to_real(function_values(name)[np.abs(raw).astype(np.int64)], GATE.fraction_bits)
    return np.where(raw >= 0, values, (1.0 if name == "sigmoid" else 0.0) - values)
