"""The real functions that layers can have, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


def sigmoid(x: FloatArray) -> FloatArray:
    """1 / (1 + exp(-x)), without overflow for large negative x."""
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * x))


def relu(x: FloatArray) -> FloatArray:
    return np.maximum(x, 0.0)


def linear(x: FloatArray) -> FloatArray:
    return x


def tanh(x: FloatArray) -> FloatArray:
    return np.asarray(np.tanh(x))


# The real functions that a dense layer can have, by the name that models and files use.
DENSE_ACTIVATIONS: Final[dict[str, Callable[[FloatArray], FloatArray]]] = {
    "linear": linear,
    "relu": relu,
    "sigmoid": sigmoid,
    "tanh": tanh,
}
