"""Initial states in a Keras model: inputs of the model, which become initial states of a run, and constants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from quantgru.array_types import FloatArray
from quantgru.importers.chain import refuse
from quantgru.importers.keras_arguments import constant
from quantgru.importers.keras_entries import Entry
from quantgru.model import Bidirectional, Gru

AS_INPUT = "make it an input of the model: initial_state=keras.Input((units,))"


def states_of(entry: Entry, layers: Sequence[Gru | Bidirectional]) -> list[Any]:
    """For each GRU layer the name of an input [units], a constant [sequences, units], or None for zero."""
    n_grus = sum(2 if isinstance(layer, Bidirectional) else 1 for layer in layers) // len(entry.parts)
    states: list[Any] = []
    for part in entry.parts:
        if part.states and len(part.states) != n_grus:
            raise refuse(part.where, f"{len(part.states)} initial states, expected {n_grus}")
        states += part.states or [None] * n_grus
    return [state if state is None or isinstance(state, str) else _rows(entry.where, state) for state in states]


def _rows(where: str, state: Any) -> FloatArray:
    rows = np.atleast_2d(constant(where, "initial_state", state))
    if rows.ndim != 2 or 0 in rows.shape:
        raise refuse(where, f"initial_state of shape {rows.shape}, expected (1, units)")
    if (rows != rows[0]).any():
        raise refuse(where, "an initial_state that differs between the sequences of a batch", AS_INPUT)
    return rows


def with_states(where: str, layers: Sequence[Gru | Bidirectional], states: Sequence[Any]) -> list[Gru | Bidirectional]:
    """The layers, started with those of their states that are constants."""
    left = iter(states)
    started: list[Gru | Bidirectional] = []
    for layer in layers:
        if isinstance(layer, Bidirectional):
            forward, backward = (_started(where, gru, next(left)) for gru in (layer.forward, layer.backward))
            started.append(replace(layer, forward=forward, backward=backward))
        else:
            started.append(_started(where, layer, next(left)))
    return started


def _started(where: str, layer: Gru, state: Any) -> Gru:
    if state is None or isinstance(state, str):
        return layer
    if state.shape[1] != layer.n_units:
        raise refuse(where, f"initial_state of {state.shape[1]} values for {layer.n_units} units")
    return replace(layer, initial_state=state[0])
