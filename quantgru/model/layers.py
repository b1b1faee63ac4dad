"""Layers of the float model in their one canonical form. Dialects are re-labelled in `importers`, nowhere else.

z = g(W_z x + U_z h + b_z)                      update gate: the share of h that is kept
r = g(W_r x + U_r h + b_r)                      reset gate
n = f(W_n x + b_n + r * (U_n h + c))            candidate, reset "after" the product
n = f(W_n x + b_n + U_n (r * h))                candidate, reset "before" the product
h' = z * h + (1 - z) * n
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from quantgru.activations import (
    CANDIDATES,
    DENSE_ACTIVATIONS,
    GATES,
    Candidate,
    DenseActivation,
    GateFunction,
    Merge,
    Reset,
)
from quantgru.checks import check_flag
from quantgru.errors import ModelError

FloatArray = npt.NDArray[np.float64]


class Gate(IntEnum):
    """Position on axis 0 of every stacked array after the importer."""

    Z = 0
    R = 1
    N = 2


@dataclass(frozen=True, eq=False)
class Gru:
    """One GRU layer of H units on I inputs, float64.

    input_weights      W [3, H, I]
    recurrent_weights  U [3, H, H]
    bias               b [3, H]
    recurrent_bias     c [H], inside the reset product; zero for reset "before"
    gate               g; hard_sigmoid(a) is a + 1/2 limited to 0 ... 1: a slope is part of the weights of z and r
    candidate          f
    initial_state      h before the first step [H]; zero if None
    """

    name: str
    reset: Reset
    input_weights: FloatArray
    recurrent_weights: FloatArray
    bias: FloatArray
    recurrent_bias: FloatArray
    gate: GateFunction = "sigmoid"
    candidate: Candidate = "tanh"
    initial_state: FloatArray | None = None

    def __post_init__(self) -> None:
        where = f"GRU layer {self.name!r}"
        if self.reset not in get_args(Reset):
            raise ModelError(f"{where}: reset {self.reset!r}, allowed are 'after' and 'before'")
        _one_of(where, "gate", self.gate, GATES)
        _one_of(where, "candidate", self.candidate, CANDIDATES)
        shape = _shape(self, "input_weights", where)
        if len(shape) != 3 or shape[0] != 3 or 0 in shape:
            raise ModelError(f"{where}: input weights {shape}, expected (3, units, inputs)")
        units = shape[1]
        _own(self, "input_weights", shape, where)
        _own(self, "recurrent_weights", (3, units, units), where)
        _own(self, "bias", (3, units), where)
        _own(self, "recurrent_bias", (units,), where)
        if self.initial_state is not None:
            _own(self, "initial_state", (units,), where)
        if self.reset == "before" and self.recurrent_bias.any():
            raise ModelError(f"{where}: reset before the product has no recurrent bias; add it to the bias of n")

    @property
    def n_inputs(self) -> int:
        return int(self.input_weights.shape[2])

    @property
    def n_units(self) -> int:
        return int(self.input_weights.shape[1])

    @property
    def n_outputs(self) -> int:
        return self.n_units


@dataclass(frozen=True, eq=False)
class Bidirectional:
    """Two GRU layers on the same sequence, of which `backward` reads from the last step to the first.

    Step t of the result merges the state of `forward` after the steps 0 ... t with that of `backward` after the steps
    T-1 ... t. If `final`, the result is a single vector: both states after all steps.
    """

    name: str
    forward: Gru
    backward: Gru
    merge: Merge = "concat"
    final: bool = False

    def __post_init__(self) -> None:
        where = f"bidirectional layer {self.name!r}"
        _one_of(where, "merge", self.merge, get_args(Merge))
        check_flag(self.final, where, "final")
        forward, backward = self.forward.input_weights.shape, self.backward.input_weights.shape
        if forward != backward:
            raise ModelError(f"{where}: input weights {forward} forward, {backward} backward, expected the same shape")

    @property
    def n_inputs(self) -> int:
        return self.forward.n_inputs

    @property
    def n_outputs(self) -> int:
        return self.forward.n_units * (2 if self.merge == "concat" else 1)


@dataclass(frozen=True)
class Reverse:
    """The sequence from its last step to its first."""

    name: str = "reverse"


@dataclass(frozen=True, eq=False)
class Dense:
    """One dense layer, activation(weights x + bias); weights [outputs, inputs], bias [outputs], float64."""

    name: str
    weights: FloatArray
    bias: FloatArray
    activation: DenseActivation = "linear"

    def __post_init__(self) -> None:
        where = f"dense layer {self.name!r}"
        _one_of(where, "activation", self.activation, DENSE_ACTIVATIONS)
        shape = _shape(self, "weights", where)
        if len(shape) != 2 or 0 in shape:
            raise ModelError(f"{where}: weights {shape}, expected (outputs, inputs)")
        _own(self, "weights", shape, where)
        _own(self, "bias", shape[:1], where)

    @property
    def n_inputs(self) -> int:
        return int(self.weights.shape[1])

    @property
    def n_outputs(self) -> int:
        return int(self.weights.shape[0])


@dataclass(frozen=True, eq=False)
class Embedding:
    """One vector for each token number 0 ... tokens - 1; vectors [tokens, outputs], float64."""

    name: str
    vectors: FloatArray

    def __post_init__(self) -> None:
        where = f"embedding {self.name!r}"
        shape = _shape(self, "vectors", where)
        if len(shape) != 2 or 0 in shape:
            raise ModelError(f"{where}: vectors {shape}, expected (tokens, outputs)")
        _own(self, "vectors", shape, where)

    @property
    def n_tokens(self) -> int:
        return int(self.vectors.shape[0])

    @property
    def n_inputs(self) -> int:
        return 1

    @property
    def n_outputs(self) -> int:
        return int(self.vectors.shape[1])


Layer = Gru | Bidirectional | Reverse | Dense | Embedding


def _one_of(where: str, what: str, found: object, allowed: Any) -> None:
    if found not in allowed:
        raise ModelError(f"{where}: {what} {found!r}, supported are {', '.join(allowed)}")


def _real(layer: object, field_name: str, where: str) -> npt.NDArray[Any]:
    values = getattr(layer, field_name)
    if hasattr(values, "detach"):  # a parameter of PyTorch, which otherwise records what becomes of it
        values = values.detach()
    try:
        array = np.asarray(values)
    except ValueError:
        raise ModelError(f"{where}: {field_name} has rows of unequal lengths") from None
    if array.dtype.kind not in "fiu":
        raise ModelError(f"{where}: {field_name} is of type {array.dtype}, expected real numbers")
    return array


def _shape(layer: object, field_name: str, where: str) -> tuple[int, ...]:
    return _real(layer, field_name, where).shape


def _own(layer: object, field_name: str, shape: Sequence[int], where: str) -> None:
    """Replaces an array field by a checked, read-only float64 copy."""
    array = np.array(_real(layer, field_name, where), dtype=np.float64)
    if array.shape != tuple(shape):
        raise ModelError(f"{where}: {field_name} {array.shape}, expected {tuple(shape)}")
    if not np.isfinite(array).all():
        bad = np.argwhere(~np.isfinite(array))[0].tolist()
        raise ModelError(f"{where}: {field_name} holds {array[tuple(bad)]} at {bad}; all weights must be finite")
    array.flags.writeable = False
    object.__setattr__(layer, field_name, array)
