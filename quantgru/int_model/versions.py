"""Which version of the numeric contract a model needs (SPEC.md, "What version 1.1 added" and on)."""

from __future__ import annotations

from typing import Final

from quantgru.fixed import STATE
from quantgru.int_model.int_model import IntModel
from quantgru.int_model.layers import IntGru
from quantgru.int_model.packing import matrices

_LEAST_STATED: Final = 1  # what reads the present files, blobs and exports has at least this


def first_minor(model: IntModel) -> int:
    """The first minor version that has all that the model uses."""
    if any(matrix.bits > 8 for matrix, _ in matrices(model)):
        return 2
    grus = [layer for layer in model.body if isinstance(layer, IntGru)]
    functions = {(gru.gate, gru.candidate, gru.state_fraction_bits) for gru in grus}
    first = {("sigmoid", "tanh", STATE.fraction_bits)}
    starts_at_zero = all(gru.initial_state is None for gru in grus)
    return 0 if len(grus) == len(model.body) and functions == first and starts_at_zero else 1


def stated_minor(model: IntModel) -> int:
    """What files, blobs and exports of the model say that they need."""
    return max(_LEAST_STATED, first_minor(model))
