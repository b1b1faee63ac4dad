"""States of GRU layers: what a run begins with, and what it leaves behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quantgru.array_types import FloatArray, Int16Array, UInt16Array
from quantgru.errors import DataError
from quantgru.fixed import to_raw16
from quantgru.int_model import IntGru, IntModel
from quantgru.sequences import StatesLike, as_states


@dataclass(frozen=True, eq=False)
class GruState:
    """All that one GRU layer keeps between two steps, raw: h int16 and residual uint16, [sequences, units] each."""

    h: Int16Array
    residual: UInt16Array


InitialStates = Sequence[GruState] | StatesLike


def start_states(model: IntModel, given: InitialStates | None, n_sequences: int) -> list[GruState]:
    """A state for each GRU layer, in arrays of its own: as given, or that of the reset [R13, R20].

    given  real h of each GRU layer, [units] or [sequences, units]; or all states as another run left them

    Raises DataError, also for residuals where a run begins with h alone [R24].
    """
    if given is None:
        return [_copy(layer.h0, 0, n_sequences) for layer in model.grus]
    if isinstance(given, (list, tuple)) and any(isinstance(state, GruState) for state in given):
        _check_raw(model.grus, given, n_sequences)
        if not model.streaming and any(state.residual.any() for state in given):
            raise DataError(
                "initial states: those of another run, but this model runs whole sequences, and does not go on between "
                "two of them; give h alone, real numbers for each GRU layer"
            )
        return [_copy(state.h, state.residual, n_sequences) for state in given]
    real = as_states(given, [layer.n_units for layer in model.grus], n_sequences)  # type: ignore[arg-type]
    return [_copy(_raw(i, layer, h), 0, n_sequences) for i, (layer, h) in enumerate(zip(model.grus, real, strict=True))]


def _copy(h: Int16Array, residual: npt.ArrayLike, n_sequences: int) -> GruState:
    shape = (n_sequences, h.shape[-1])
    return GruState(
        np.array(np.broadcast_to(h, shape), np.int16), np.array(np.broadcast_to(residual, shape), np.uint16)
    )


def _raw(number: int, layer: IntGru, h: FloatArray) -> Int16Array:
    """Rounded as inputs are [R15]. The largest real number is one more than the format holds, as 1.0 in s16f15."""
    limit = 2.0 ** (15 - layer.state_fraction_bits)
    wrong = np.argwhere(np.abs(h) > limit)
    if len(wrong):
        sequence, unit = wrong[0].tolist()
        raise DataError(
            f"initial states, layer {number}: {h[sequence, unit]} at sequence {sequence}, unit {unit}, the states of "
            f"{layer.name!r} lie in {-limit:g} ... {limit:g}; give the float model an initial state as large, and "
            "quantize it again"
        )
    return to_raw16(h, layer.state_fraction_bits)[0]


def _check_raw(grus: Sequence[IntGru], states: Sequence[object], n_sequences: int) -> None:
    if len(states) != len(grus) or not all(isinstance(state, GruState) for state in states):
        kinds = ", ".join(sorted({type(state).__name__ for state in states}))
        raise DataError(f"initial states: {len(states)} of {kinds}, expected {len(grus)} of GruState")
    for i, (layer, state) in enumerate(zip(grus, states, strict=True)):
        assert isinstance(state, GruState)
        shape = (n_sequences, layer.n_units)
        for name, array, dtype in (("h", state.h, "int16"), ("residual", state.residual, "uint16")):
            found = np.asarray(array)
            if found.dtype != dtype or found.shape != shape:
                raise DataError(
                    f"initial states, layer {i}: {name} {found.dtype} {found.shape}, expected {dtype} {shape}"
                )
        if np.max(state.residual) > 2**15 - 1:
            raise DataError(f"initial states, layer {i}: residual {np.max(state.residual)}, allowed are 0 ... 32767")
