"""The float run: the canonical cell in float64, over a batch of sequences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from quantgru.activations import DENSE_ACTIVATIONS, sigmoid
from quantgru.model.layers import Dense, FloatModel, Gate, Gru
from quantgru.sequences import Sequences

FloatArray = npt.NDArray[np.float64]

# Called after each step with its number and z, r and n [sequences, units].
GateObserver = Callable[[int, FloatArray, FloatArray, FloatArray], None]


def gru_states(layer: Gru, x: FloatArray, observe: GateObserver | None = None) -> FloatArray:
    """h after every step, [sequences, steps, units], from zero; x [sequences, steps, inputs]."""
    n_sequences, n_steps, _ = x.shape
    h = np.zeros((n_sequences, layer.n_units))
    states = np.empty((n_sequences, n_steps, layer.n_units))
    recurrent = layer.recurrent_weights
    from_input = [x @ layer.input_weights[gate].T + layer.bias[gate] for gate in Gate]
    for t in range(n_steps):
        z = sigmoid(from_input[Gate.Z][:, t] + h @ recurrent[Gate.Z].T)
        r = sigmoid(from_input[Gate.R][:, t] + h @ recurrent[Gate.R].T)
        if layer.reset == "after":
            inner = r * (h @ recurrent[Gate.N].T + layer.recurrent_bias)
        else:
            inner = (r * h) @ recurrent[Gate.N].T
        n = np.tanh(from_input[Gate.N][:, t] + inner)
        h = z * h + (1 - z) * n
        states[:, t] = h
        if observe is not None:
            observe(t, z, r, n)
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
