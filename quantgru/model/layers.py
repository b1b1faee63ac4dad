"""Layers of the float model in their one canonical form. Dialects are re-labelled in `importers`, nowhere else.

z = g(W_z x + U_z h + b_z)                      update gate: the share of h that is kept
r = g(W_r x + U_r h + b_r)                      reset gate
n = f(W_n x + b_n + r * (U_n h + c))            candidate, reset "after" the product
n = f(W_n x + b_n + U_n (r * h))                candidate, reset "before" the product
h' = z * h + (1 - z) * n
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import get_args

import numpy as np

from quantgru.activations import (
    CANDIDATES,
    DENSE_ACTIVATIONS,
    GATES,
    Candidate,
    DenseActivation,
    GateFunction,
    Reset,
)
from quantgru.array_types import FloatArray
from quantgru.checks import check_name, one_of, own_real, real_array
from quantgru.errors import ModelError
from quantgru.structure import AnyBidirectional, AnyDense, AnyEmbedding, AnyGru, Reverse


class Gate(IntEnum):
    """Position on axis 0 of every stacked array after the importer."""

    Z = 0
    R = 1
    N = 2


@dataclass(frozen=True, eq=False)
class Gru(AnyGru):
    """One GRU layer of H units on I inputs, float64.

    input_weights      W [3, H, I]
    recurrent_weights  U [3, H, H]
    bias               b [3, H]
    recurrent_bias     c [H], inside the reset product; zero for reset "before"
    gate               g; hard_sigmoid(a) is a + 1/2 limited to 0 ... 1: a slope is part of the weights of z and r
    candidate          f
    initial_state      h before the first step [H]; zeros if None

    Raises ModelError for arrays of other shapes, or with values that are not finite.
    """

    reset: Reset
    input_weights: FloatArray
    recurrent_weights: FloatArray
    bias: FloatArray
    recurrent_bias: FloatArray
    gate: GateFunction = "sigmoid"
    candidate: Candidate = "tanh"
    initial_state: FloatArray | None = None

    def __post_init__(self) -> None:
        check_name(self.name, "GRU layer")
        where = f"GRU layer {self.name!r}"
        one_of(where, "reset", self.reset, get_args(Reset))
        one_of(where, "gate", self.gate, GATES)
        one_of(where, "candidate", self.candidate, CANDIDATES)
        shape = real_array(self, "input_weights", where).shape
        if len(shape) != 3 or shape[0] != 3 or 0 in shape:
            raise ModelError(f"{where}: input weights {shape}, expected (3, units, inputs)")
        units = shape[1]
        own_real(self, "input_weights", shape, where)
        own_real(self, "recurrent_weights", (3, units, units), where)
        own_real(self, "bias", (3, units), where)
        own_real(self, "recurrent_bias", (units,), where)
        if self.initial_state is not None:
            own_real(self, "initial_state", (units,), where)
        if self.reset == "before" and self.recurrent_bias.any():
            raise ModelError(f"{where}: reset before the product has no recurrent bias; add it to the bias of n")

    @property
    def n_inputs(self) -> int:
        return int(self.input_weights.shape[2])

    @property
    def n_units(self) -> int:
        return int(self.input_weights.shape[1])

    @property
    def h0(self) -> FloatArray:
        """h before the first step [H]."""
        return np.zeros(self.n_units) if self.initial_state is None else self.initial_state


@dataclass(frozen=True, eq=False)
class Bidirectional(AnyBidirectional[Gru]):
    """Two GRU layers on the same sequence, of which `backward` reads from the last step to the first.

    Step t of the result merges the state of `forward` after the steps 0 ... t with that of `backward` after the steps
    T-1 ... t. If `final`, the result is a single vector: both states after all steps.
    """

    forward: Gru
    backward: Gru


@dataclass(frozen=True, eq=False)
class Dense(AnyDense):
    """One dense layer, activation(weights x + bias); weights [outputs, inputs], bias [outputs], float64."""

    weights: FloatArray
    bias: FloatArray
    activation: DenseActivation = "linear"

    def __post_init__(self) -> None:
        check_name(self.name, "dense layer")
        where = f"dense layer {self.name!r}"
        one_of(where, "activation", self.activation, DENSE_ACTIVATIONS)
        shape = real_array(self, "weights", where).shape
        if len(shape) != 2 or 0 in shape:
            raise ModelError(f"{where}: weights {shape}, expected (outputs, inputs)")
        own_real(self, "weights", shape, where)
        own_real(self, "bias", shape[:1], where)

    @property
    def n_inputs(self) -> int:
        return int(self.weights.shape[1])

    @property
    def n_outputs(self) -> int:
        return int(self.weights.shape[0])


@dataclass(frozen=True, eq=False)
class Embedding(AnyEmbedding):
    """One vector for each token number 0 ... tokens - 1; vectors [tokens, outputs], float64."""

    vectors: FloatArray

    def __post_init__(self) -> None:
        check_name(self.name, "embedding")
        where = f"embedding {self.name!r}"
        shape = real_array(self, "vectors", where).shape
        if len(shape) != 2 or 0 in shape:
            raise ModelError(f"{where}: vectors {shape}, expected (tokens, outputs)")
        own_real(self, "vectors", shape, where)

    @property
    def n_tokens(self) -> int:
        return int(self.vectors.shape[0])

    @property
    def n_outputs(self) -> int:
        return int(self.vectors.shape[1])


Layer = Gru | Bidirectional | Reverse | Dense | Embedding
