"""How far the integers may be from the float model with the same weights: a bound that follows from the formats.

`dequantize(model)` has exactly the weights and biases of the integers. What is left is rounding: half an LSB wherever
SPEC.md rounds to nearest, one LSB where a state drops a residual, and what R7 and R8 say of their tables. Each of these
goes on through the layers with the weights and slopes that it meets. Saturation is none of them: where something
saturated, there is no bound.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from quantgru.activations import CANDIDATES, DENSE_ACTIVATIONS, GATES
from quantgru.int_model import IntBidirectional, IntDense, IntGru, IntModel
from quantgru.model import Bidirectional, Dense, Embedding, FloatModel, Gru, Reverse
from quantgru.quantizer import dequantize

LSB: Final = 2.0**-15
SLOPE: Final = {"sigmoid": 0.25, "tanh": 1.0, "hard_sigmoid": 1.0, "hard_tanh": 1.0, "relu": 1.0, "linear": 1.0}
# Of the function itself, at its exact argument: R7, R8; 32767 stands for 1 in R14 and R19.
OWN_ERROR: Final = {
    "sigmoid": 0.80 * LSB + LSB,
    "tanh": 1.08 * LSB,
    "hard_sigmoid": 0.0,
    "hard_tanh": LSB,
    "relu": 0.0,
    "linear": 0.0,
}
RANGE: Final = {"sigmoid": 1.0, "tanh": 2.0, "hard_sigmoid": 1.0, "hard_tanh": 2.0, "relu": np.inf, "linear": np.inf}
GATE_ERROR: Final = {"sigmoid": 0.80 * LSB, "hard_sigmoid": 0.0}  # 32768 is 1 in R10
FLOAT_ERROR: Final = 1e-12  # of float64, with which both are computed


@dataclass(frozen=True)
class Bounded:
    """Real values, and how far the integers may be from them, of the same shape."""

    values: np.ndarray
    errors: np.ndarray

    def __getitem__(self, index: object) -> Bounded:
        return Bounded(self.values[index], self.errors[index])

    def rows(self, weights: np.ndarray, bias: np.ndarray | float, rounding: float) -> Bounded:
        """weights @ self + bias, each row rounded once."""
        return Bounded(self.values @ weights.T + bias, self.errors @ np.abs(weights).T + rounding)

    def function(self, name: str, real: Callable[[np.ndarray], np.ndarray], own: float) -> Bounded:
        return Bounded(real(self.values), np.minimum(SLOPE[name] * self.errors + own, RANGE[name]))

    def __add__(self, other: Bounded) -> Bounded:
        return Bounded(self.values + other.values, self.errors + other.errors)

    def __mul__(self, other: Bounded) -> Bounded:
        errors = np.abs(self.values) * other.errors + np.abs(other.values) * self.errors + self.errors * other.errors
        return Bounded(self.values * other.values, errors)

    def rounded(self, error: float) -> Bounded:
        return Bounded(self.values, self.errors + error)


def bounded_outputs(model: IntModel, x: np.ndarray, starts: Sequence[np.ndarray] | None) -> Bounded:
    """The outputs of every step of one sequence x [steps, inputs]; starts are states that a caller gives."""
    floats = dequantize(model)
    rounding = 0.5 * np.exp2(-model.input_fraction_bits.astype(float))
    signal = Bounded(x, np.zeros_like(x) if model.embedding else np.broadcast_to(rounding, x.shape))
    given = iter(_states(model, floats, starts))
    for layer, integers in zip(floats.layers, model.layers, strict=True):
        match layer, integers:
            case Gru(), IntGru():
                signal = _gru(layer, integers, signal, next(given))
            case Bidirectional(), IntBidirectional():
                signal = _bidirectional(layer, integers, signal, (next(given), next(given)))
            case Dense(), IntDense():
                signal = _dense(layer, integers, signal)
            case Reverse(), _:
                signal = signal[::-1]
            case Embedding(), _:
                vectors = layer.vectors[x[:, 0].astype(int)]
                signal = Bounded(vectors, np.zeros_like(vectors))
    return signal.rounded(FLOAT_ERROR)


def _states(model: IntModel, floats: FloatModel, given: Sequence[np.ndarray] | None) -> list[Bounded]:
    """Those of the model are exact; those of a caller are rounded, and 1.0 is 1 - LSB in s16f15."""
    if given is None:
        exact = [np.zeros(gru.n_units) if gru.initial_state is None else gru.initial_state for gru in floats.grus]
        return [Bounded(h, np.zeros_like(h)) for h in exact]
    lsb = [2.0**-gru.state_fraction_bits for gru in model.grus]
    return [Bounded(h, np.full_like(h, unit)) for h, unit in zip(given, lsb, strict=True)]


def _gru(layer: Gru, integers: IntGru, x: Bounded, h: Bounded) -> Bounded:
    """h after every step."""
    states = []
    for t in range(len(x.values)):
        h = _step(layer, integers, x[t], h)
        states.append(h)
    return Bounded(np.array([h.values for h in states]), np.array([h.errors for h in states]))


def _step(layer: Gru, integers: IntGru, x: Bounded, h: Bounded) -> Bounded:
    gate_lsb, candidate_lsb, state_lsb = (
        2.0**-bits for bits in (integers.gate_bits, integers.candidate_bits, integers.state_fraction_bits)
    )
    w, u, b = layer.input_weights, layer.recurrent_weights, layer.bias
    z, r = (
        (x.rows(w[gate], b[gate], gate_lsb / 2) + h.rows(u[gate], 0.0, gate_lsb / 2)).function(
            layer.gate, GATES[layer.gate], GATE_ERROR[layer.gate]
        )
        for gate in (0, 1)
    )
    if layer.reset == "after":  # R11a: the product is rounded, too
        inner = (h.rows(u[2], layer.recurrent_bias, candidate_lsb / 2) * r).rounded(candidate_lsb / 2)
    else:  # R11b
        inner = (h * r).rounded(state_lsb / 2).rows(u[2], 0.0, candidate_lsb / 2)
    a = x.rows(w[2], b[2], candidate_lsb / 2) + inner
    n = a.function(layer.candidate, CANDIDATES[layer.candidate], OWN_ERROR[layer.candidate])
    if integers.state_shift:  # R19: to_state
        n = n.rounded(state_lsb / 2)
    return _updated(z, n, h).rounded(state_lsb)  # R12: what is dropped is the next residual, less than one LSB


def _updated(z: Bounded, n: Bounded, h: Bounded) -> Bounded:
    """z h + (1 - z) n, whose slope along z is h - n."""
    errors = (
        np.abs(z.values) * h.errors
        + np.abs(1 - z.values) * n.errors
        + np.abs(h.values - n.values) * z.errors
        + z.errors * (h.errors + n.errors)
    )
    return Bounded(z.values * h.values + (1 - z.values) * n.values, errors)


def _bidirectional(layer: Bidirectional, integers: IntBidirectional, x: Bounded, starts: Sequence[Bounded]) -> Bounded:
    forward = _gru(layer.forward, integers.forward, x, starts[0])
    backward = _gru(layer.backward, integers.backward, x[::-1], starts[1])
    forward, backward = (forward[-1:], backward[-1:]) if layer.final else (forward, backward[::-1])
    lsb = 2.0**-integers.output_fraction_bits
    match layer.merge:
        case "concat":
            parts = ((one.values, one.errors) for one in (forward, backward))
            return Bounded(*(np.concatenate(both, axis=1) for both in zip(*parts, strict=True)))
        case "mul":  # R23: -1 times -1 saturates
            return (forward * backward).rounded(lsb)
        case "sum":
            return (forward + backward).rounded(lsb / 2)
    both = forward + backward
    return Bounded(both.values / 2, both.errors / 2 + lsb / 2)


def _dense(layer: Dense, integers: IntDense, x: Bounded) -> Bounded:
    a = x.rows(layer.weights, layer.bias, 2.0**-integers.row_bits / 2)
    return a.function(layer.activation, DENSE_ACTIVATIONS[layer.activation], OWN_ERROR[layer.activation])
