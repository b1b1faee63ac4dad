"""The float run: the canonical cell in float64, over a batch of sequences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from quantgru.activations import DENSE_ACTIVATIONS, sigmoid
from quantgru.model.layers import Dense, FloatModel, Gru
from quantgru.sequences import Sequences

FloatArray = npt.NDArray[np.float64]

# Called after each step with its number, the state before it, z, r and n, [sequences, units] each.
GateObserver = Callable[[int, FloatArray, FloatArray, FloatArray, FloatArray], None]


def gru_states(layer: Gru, x: FloatArray, observe: GateObserver | None = None) -> FloatArray:
    """h after every step, [sequences, steps, units], from zero; x [sequences, steps, inputs]."""
    n_sequences, n_steps, _ = x.shape
    units = layer.n_units
    # Gates side by side: one product a step for all three.
    input_weights = layer.input_weights.reshape(3 * units, -1).T
    recurrent_weights = layer.recurrent_weights.reshape(3 * units, units).T
    bias = layer.bias.reshape(-1)
    h = np.zeros((n_sequences, units))
    states = np.empty((n_sequences, n_steps, units))
    for t in range(n_steps):
        from_x = x[:, t] @ input_weights + bias
        from_h = h @ recurrent_weights
        z = sigmoid(from_x[:, :units] + from_h[:, :units])
        r = sigmoid(from_x[:, units : 2 * units] + from_h[:, units : 2 * units])
        if layer.reset == "after":
            inner = r * (from_h[:, 2 * units :] + layer.recurrent_bias)
        else:
            inner = (r * h) @ recurrent_weights[:, 2 * units :]
        n = np.tanh(from_x[:, 2 * units :] + inner)
        new_h = z * h + (1 - z) * n
        if observe is not None:
            observe(t, h, z, r, n)
        h = new_h
        states[:, t] = h
    return states


def dense_output(layer: Dense, x: FloatArray) -> FloatArray:
    """[..., outputs] for x [..., inputs]."""
    return DENSE_ACTIVATIONS[layer.activation](x @ layer.weights.T + layer.bias)


def states(model: FloatModel, sequences: Sequences) -> list[FloatArray]:
    """h of each GRU layer after every step, [sequences, steps, units] each."""
    x = sequences.values
    result = []
    for layer in model.grus:
        x = gru_states(layer, x)
        result.append(x)
    return result


def outputs(model: FloatModel, sequences: Sequences, last_states: FloatArray) -> Any:
    """The head on the states of the last GRU layer, arranged as `FloatModel.run` says."""
    y = last_states
    if model.last_step:
        y = y[np.arange(sequences.n_sequences), sequences.lengths - 1]
    for layer in model.head:
        y = dense_output(layer, y)
    return y if model.last_step else sequences.arrange(np.where(sequences.valid[..., None], y, 0.0))
