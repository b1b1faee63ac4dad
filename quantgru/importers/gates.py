"""Gate blocks and weights of the frameworks, brought into the order and the precision of the canonical cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from quantgru.activations import Reset
from quantgru.array_types import FloatArray
from quantgru.errors import ModelError
from quantgru.model import Gate, Gru

PYTORCH_ORDER: Final = (Gate.R, Gate.Z, Gate.N)
KERAS_ORDER: Final = (Gate.Z, Gate.R, Gate.N)


def split_gates(stacked: FloatArray, order: Sequence[Gate]) -> FloatArray:
    """[3, H, ...] indexed by Gate, a copy of [3*H, ...] that is stacked in a framework's `order`.

    >>> split_gates(np.array([10.0, 11.0, 20.0, 21.0, 30.0, 31.0]), PYTORCH_ORDER).tolist()
    [[20.0, 21.0], [10.0, 11.0], [30.0, 31.0]]
    """
    blocks = np.split(stacked, 3)
    return np.stack([blocks[order.index(gate)] for gate in Gate])


def finite(where: str, parameter: str, values: Any) -> FloatArray:
    """A float64 copy of a parameter. Raises ModelError with the names of layer and parameter where it is not finite."""
    with np.errstate(invalid="ignore"):  # a signaling NaN, which the next line finds
        array = np.array(values, dtype=np.float64)
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        index = bad[0].tolist()
        raise ModelError(
            f"{where}: parameter {parameter!r} holds {array[tuple(index)]} at {index} ({len(bad)} such values); "
            "all weights must be finite; train again, or load an earlier checkpoint"
        )
    return array


def stacked_gru(
    name: str,
    reset: Reset,
    order: Sequence[Gate],
    weights: tuple[FloatArray, FloatArray],
    biases: tuple[FloatArray, FloatArray],
) -> Gru:
    """The canonical layer for weights ([3*H, I], [3*H, H]) and the biases of the two products ([3*H], [3*H]).

    Both biases of z and r only ever appear as their sum. So do those of n with reset "before"; with reset "after" they
    stay apart: the reset gate scales the second one.
    """
    from_input, from_state = (split_gates(bias, order) for bias in biases)
    bias, recurrent_bias = from_input + from_state, np.zeros_like(from_state[Gate.N])
    if reset == "after":
        bias[Gate.N], recurrent_bias = from_input[Gate.N], from_state[Gate.N]
    return Gru(name, reset, split_gates(weights[0], order), split_gates(weights[1], order), bias, recurrent_bias)


def with_hard_sigmoid(layer: Gru, slope: float, offset: float = 0.5) -> Gru:
    """`layer` with gates slope * a + offset, limited to 0 ... 1. In the canonical ones, slope is 1 and offset 1/2."""
    factors = np.array([slope, slope, 1.0])  # z, r, n
    bias = layer.bias * factors[:, None]
    bias[[Gate.Z, Gate.R]] += offset - 0.5
    return replace(
        layer,
        gate="hard_sigmoid",
        input_weights=layer.input_weights * factors[:, None, None],
        recurrent_weights=layer.recurrent_weights * factors[:, None, None],
        bias=bias,
    )


def with_scaled_candidate(layer: Gru, scale: float, shift: float) -> Gru:
    """`layer` with scale * a + shift as the argument of its candidate function."""
    factors = np.array([1.0, 1.0, scale])  # z, r, n
    bias = layer.bias * factors[:, None]
    bias[Gate.N] += shift
    return replace(
        layer,
        input_weights=layer.input_weights * factors[:, None, None],
        recurrent_weights=layer.recurrent_weights * factors[:, None, None],
        bias=bias,
        recurrent_bias=layer.recurrent_bias * scale,
    )
