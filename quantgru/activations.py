"""What layers can be, by the names that models and files use, and the functions among these in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

import numpy as np

from quantgru.array_types import FloatArray

Function = Callable[[FloatArray], FloatArray]

Reset = Literal["after", "before"]
GateFunction = Literal["sigmoid", "hard_sigmoid"]
Candidate = Literal["tanh", "relu", "linear", "sigmoid", "hard_tanh"]
DenseActivation = Literal["linear", "relu", "sigmoid", "tanh"]
Merge = Literal["concat", "sum", "mul", "ave"]


def sigmoid(x: FloatArray) -> FloatArray:
    """1 / (1 + exp(-x)), without overflow for large negative x."""
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * x))


def hard_sigmoid(x: FloatArray) -> FloatArray:
    """x + 1/2, limited to 0 ... 1. Frameworks have slopes: importers fold theirs into the weights."""
    return np.clip(x + 0.5, 0.0, 1.0)


def relu(x: FloatArray) -> FloatArray:
    return np.maximum(x, 0.0)


def linear(x: FloatArray) -> FloatArray:
    return x


def tanh(x: FloatArray) -> FloatArray:
    return np.asarray(np.tanh(x))


def hard_tanh(x: FloatArray) -> FloatArray:
    """x, limited to -1 ... 1."""
    return np.clip(x, -1.0, 1.0)


GATES: Final[dict[str, Function]] = {"sigmoid": sigmoid, "hard_sigmoid": hard_sigmoid}

CANDIDATES: Final[dict[str, Function]] = {
    "tanh": tanh,
    "relu": relu,
    "linear": linear,
    "sigmoid": sigmoid,
    "hard_tanh": hard_tanh,
}
BOUNDED_CANDIDATES: Final = frozenset(("tanh", "sigmoid", "hard_tanh"))  # |n| <= 1

DENSE_ACTIVATIONS: Final[dict[str, Function]] = {
    "linear": linear,
    "relu": relu,
    "sigmoid": sigmoid,
    "tanh": tanh,
}

# What the derivative of each is, by the value that it has there; at a corner, that of one of its sides.
SLOPES: Final[dict[str, Function]] = {
    "sigmoid": lambda y: y * (1 - y),
    "hard_sigmoid": lambda y: ((y > 0) & (y < 1)).astype(np.float64),
    "tanh": lambda y: 1 - y**2,
    "relu": lambda y: (y > 0).astype(np.float64),
    "linear": np.ones_like,
    "hard_tanh": lambda y: (np.abs(y) < 1 - 2**-15).astype(np.float64),  # 1 - 2**-15 is s16f15 that saturates
}
