"""What a model costs: bytes and multiply-accumulates, from its shapes alone."""

from __future__ import annotations

from dataclasses import dataclass

from quantgru.int_model.int_model import IntModel
from quantgru.int_model.layers import Matrix


@dataclass(frozen=True)
class Cost:
    """Of one model on any target; code and descriptors come on top.

    constant_bytes  arrays in flash: weights, multipliers, shifts, biases, formats, digest
    state_bytes     RAM that must survive between steps
    scratch_bytes   RAM that models can share
    step_macs       multiply-accumulates of a step
    head_macs       multiply-accumulates of the head
    """

    constant_bytes: int
    state_bytes: int
    scratch_bytes: int
    step_macs: int
    head_macs: int


@dataclass(frozen=True)
class ScratchShape:
    """Parts of the scratch that depend on the kinds of layers; zero where a model does not need them."""

    product_units: int
    dense_buffers: int
    dense_width: int


def scratch_shape(model: IntModel) -> ScratchShape:
    inner = [layer.n_outputs for layer in model.head[:-1]]
    return ScratchShape(
        max((layer.n_units for layer in model.grus if layer.reset == "before"), default=0),
        min(len(inner), 2),
        max(inner, default=0),
    )


def cost(model: IntModel) -> Cost:
    scratch = scratch_shape(model)
    constants = model.n_inputs + len(model.digest)
    for gru in model.grus:
        constants += _matrix_bytes(gru.input) + _matrix_bytes(gru.recurrent)
        constants += gru.bias.nbytes + gru.recurrent_bias.nbytes
    for dense in model.head:
        constants += _matrix_bytes(dense.matrix) + dense.bias.nbytes
    return Cost(
        constants,
        4 * model.n_units,
        6 * model.n_units + 2 * (scratch.product_units + scratch.dense_buffers * scratch.dense_width),
        sum(gru.input.codes.size + gru.recurrent.codes.size for gru in model.grus),
        sum(dense.matrix.codes.size for dense in model.head),
    )


def _matrix_bytes(matrix: Matrix) -> int:
    return int(matrix.codes.nbytes + matrix.multiplier.nbytes + matrix.shift.nbytes)
