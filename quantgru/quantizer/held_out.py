"""Refinement by calibration data is judged on sequences that it was not fitted to."""

from __future__ import annotations

from typing import Final

import numpy as np

from quantgru.array_types import IntArray
from quantgru.int_model import IntModel
from quantgru.model import FloatModel
from quantgru.quantizer.rounding import least_steps
from quantgru.sequences import Sequences, StatesLike, as_states
from quantgru.simulator import simulate

HELD_OUT: Final = 5  # one of so many sequences


def held_out(n_sequences: int) -> IntArray:
    """The numbers of the sequences that judge."""
    return np.arange(0, n_sequences, HELD_OUT)


def fitted(n_sequences: int) -> IntArray:
    """The numbers of all others."""
    return np.setdiff1d(np.arange(n_sequences), held_out(n_sequences))


def too_little_data(where: str, lengths: IntArray, n_columns: int) -> str | None:
    """A warning that the layer `where` is left alone, if so: too few sequences of `lengths`, for n_columns operands."""
    if len(lengths) < HELD_OUT:
        return (
            f"{where}: not refined, which takes {HELD_OUT} sequences of calibration data or more, to hold one in "
            f"{HELD_OUT} out; there are {len(lengths)}"
        )
    n_steps, wanted = int(lengths[fitted(len(lengths))].sum()), least_steps(n_columns)
    if n_steps < wanted:
        return (
            f"{where}: not refined, which takes {wanted:,} steps of calibration data in the sequences that are not "
            f"held out; there are {n_steps:,}"
        )
    return None


def gain_db(before: float, after: float) -> float:
    """By how much the second sum of squares is lower."""
    least = np.finfo(np.float64).tiny  # of errors that are 0
    return float(10 * np.log10(max(before, least) / max(after, least)))


def outputs_error(
    model: FloatModel, int_model: IntModel, sequences: Sequences, initial_states: StatesLike | None
) -> float:
    """Sum of squares of the outputs' error on the sequences that judge."""
    chosen = held_out(sequences.n_sequences)
    some = Sequences(sequences.values[chosen], sequences.lengths[chosen], ragged=True)
    starts = None
    if initial_states is not None:
        units = [layer.n_units for layer in model.grus]
        starts = [state[chosen] for state in as_states(initial_states, units, sequences.n_sequences)]
    found, exact = simulate(int_model, some, initial_states=starts), model.run(some, initial_states=starts)
    return float(sum(((y - wanted) ** 2).sum() for y, wanted in zip(found, exact, strict=True)))
