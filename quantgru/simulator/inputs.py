"""Inputs of a model in raw form [R15, R21]."""

from __future__ import annotations

import numpy as np

from quantgru.array_types import Int16Array, IntArray
from quantgru.errors import DataError
from quantgru.fixed import INT16_MAX, INT16_MIN, to_raw16
from quantgru.int_model import IntModel
from quantgru.sequences import Sequences, check_tokens


def to_raw(model: IntModel, sequences: Sequences) -> tuple[Int16Array, IntArray]:
    """Raw inputs of real ones, and how many of each feature were out of range. Raises DataError for no token."""
    if model.embedding is not None:
        check_tokens(sequences, model.embedding.n_tokens, model.embedding.name)
    raw, clipped = to_raw16(sequences.values, model.input_fraction_bits)
    return raw, (clipped & sequences.valid[..., None]).sum(axis=(0, 1))


def as_raw(model: IntModel, sequences: Sequences) -> tuple[Int16Array, IntArray]:
    """The same for inputs that are raw already. A value at a limit counts as one that was out of range, as it does
    on the device, and a token out of range is limited, as there. Raises DataError."""
    values = sequences.values
    if (values != np.floor(values)).any() or values.min() < INT16_MIN or values.max() > INT16_MAX:
        raise DataError(f"raw input: {values.min()} ... {values.max()}, expected integers of -32768 ... 32767")
    clipped = (values == INT16_MIN) | (values == INT16_MAX)
    if model.embedding is not None:
        clipped = (values < 0) | (values >= model.embedding.n_tokens)
    return values.astype(np.int16), clipped.sum(axis=(0, 1))
