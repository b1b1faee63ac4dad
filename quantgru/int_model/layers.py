"""Layers of the integer model and their invariants. No format is chosen here; what breaks SPEC.md is refused."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quantgru.activations import BOUNDED_CANDIDATES, Candidate, DenseActivation, GateFunction, Reset
from quantgru.array_types import IntArray
from quantgru.checks import check_name, in_range, one_of, own, own_integer
from quantgru.errors import ModelError
from quantgru.fixed import INT8_MAX, INT8_MIN, MAX_FRACTION_BITS, PRE_ACTIVATION, STATE
from quantgru.int_model.contract import (
    ACTIVATION_NUMBERS,
    CANDIDATE_NUMBERS,
    GATE_NUMBERS,
    MAX_LEFT_SHIFT,
    MAX_TOKENS,
    RESET_NUMBERS,
)
from quantgru.structure import AnyBidirectional, AnyDense, AnyEmbedding, AnyGru, Reverse

HARD_BITS = 15  # fraction bits of the rows of hard_sigmoid and hard_tanh
EMBEDDING_BITS = 8  # an embedding puts out 256 * code


@dataclass(frozen=True, eq=False)
class Matrix:
    """Rows of integer weights, each with a scale of its own [R4].

    codes        int8 [rows, columns]; int16 where one is outside -128 ... 127. Others given as int16 become int8
    multipliers  uint16 [rows], m: 2**14 ... 2**15 - 1
    shifts       uint8 [rows], s: 1 ... 30
    left_shift   k: 0 ... 15

    Raises ModelError.
    """

    codes: npt.NDArray[np.int8] | npt.NDArray[np.int16]
    multipliers: npt.NDArray[np.uint16]
    shifts: npt.NDArray[np.uint8]
    left_shift: int = 0

    def __post_init__(self) -> None:
        shape = np.shape(self.codes)
        if len(shape) != 2 or 0 in shape or max(shape) > 2**16 - 1:
            raise ModelError(f"matrix: codes {shape}, expected (rows, columns) of 1 ... 65535 each")
        codes = np.asarray(self.codes)
        if codes.dtype == np.int16 and codes.min() >= INT8_MIN and codes.max() <= INT8_MAX:
            codes = codes.astype(np.int8)  # as in the digest, there is one way to say it [R17]
            object.__setattr__(self, "codes", codes)
        own(self, "codes", np.int16 if codes.dtype == np.int16 else np.int8, shape, "matrix")
        own(self, "multipliers", np.uint16, shape[:1], "matrix")
        own(self, "shifts", np.uint8, shape[:1], "matrix")
        in_range("matrix: multipliers", self.multipliers, 2**14, 2**15 - 1)
        in_range("matrix: shifts", self.shifts, 1, 30)
        own_integer(self, "left_shift", 0, MAX_LEFT_SHIFT, "matrix")

    @property
    def n_rows(self) -> int:
        return int(self.codes.shape[0])

    @property
    def n_columns(self) -> int:
        return int(self.codes.shape[1])

    @property
    def bits(self) -> int:
        """Of the type that holds all codes, 8 or 16 [R17]."""
        return 8 * self.codes.itemsize

    def row_scales(self, row_bits: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """What 1 in the accumulator of each row means [rows], where sums have `row_bits` fraction bits [R4]."""
        exponent = self.left_shift - 16 - self.shifts.astype(np.int64) - np.asarray(row_bits)
        return np.asarray(np.ldexp(self.multipliers.astype(np.float64), exponent))


def gate_bits(gate: str) -> int:
    """Fraction bits of the pre-activations of z and r [R10, R18]."""
    return PRE_ACTIVATION.fraction_bits if gate == "sigmoid" else HARD_BITS


def candidate_bits(candidate: str, state_bits: int) -> int:
    """Fraction bits of the pre-activation of n [R19]."""
    if candidate not in BOUNDED_CANDIDATES:
        return state_bits
    return HARD_BITS if candidate == "hard_tanh" else PRE_ACTIVATION.fraction_bits


def gru_row_bits(gate: str, candidate: str, state_bits: int, n_units: int) -> IntArray:
    """Fraction bits of the pre-activation of each row [3H], z, r and n one after the other."""
    return np.repeat([gate_bits(gate), gate_bits(gate), candidate_bits(candidate, state_bits)], n_units)


@dataclass(frozen=True, eq=False)
class IntGru(AnyGru):
    """A GRU layer: W [3H x I] and U [3H x H], gates z, r, n one after the other.

    bias                 int32 [3H], of z and r with `gate_bits` fraction bits, of n with `candidate_bits`
    recurrent_bias       int32 [H] for reset "after", with `candidate_bits`; empty for "before"
    state_fraction_bits  of h, n and what the reset gate leaves of h, all s16
    initial_state        int16 [H], h after a reset, not all zeros; None: zeros

    Raises ModelError for what SPEC.md does not allow.
    """

    reset: Reset
    input: Matrix
    recurrent: Matrix
    bias: npt.NDArray[np.int32]
    recurrent_bias: npt.NDArray[np.int32]
    gate: GateFunction = "sigmoid"
    candidate: Candidate = "tanh"
    state_fraction_bits: int = STATE.fraction_bits
    initial_state: npt.NDArray[np.int16] | None = None

    def __post_init__(self) -> None:
        check_name(self.name, "GRU layer")
        where = f"GRU layer {self.name!r}"
        one_of(where, "reset", self.reset, RESET_NUMBERS)
        one_of(where, "gate", self.gate, GATE_NUMBERS)
        one_of(where, "candidate", self.candidate, CANDIDATE_NUMBERS)
        units, remainder = divmod(self.recurrent.n_rows, 3)
        if remainder or self.recurrent.n_columns != units or self.input.n_rows != 3 * units:
            raise ModelError(
                f"{where}: W {self.input.codes.shape}, U {self.recurrent.codes.shape}, expected (3 H, I) and (3 H, H)"
            )
        own(self, "bias", np.int32, (3 * units,), where)
        own(self, "recurrent_bias", np.int32, (units if self.reset == "after" else 0,), where)
        most = STATE.fraction_bits if self.bounded else MAX_FRACTION_BITS  # a bounded candidate is only shifted right
        own_integer(self, "state_fraction_bits", -most, most, where)
        if self.initial_state is not None:
            own(self, "initial_state", np.int16, (units,), where)
            if not self.initial_state.any():  # as in the digest, there is one way to say it [R17]
                object.__setattr__(self, "initial_state", None)

    @property
    def n_inputs(self) -> int:
        return self.input.n_columns

    @property
    def n_units(self) -> int:
        return self.recurrent.n_columns

    @property
    def h0(self) -> npt.NDArray[np.int16]:
        """h after a reset [H]."""
        return np.zeros(self.n_units, np.int16) if self.initial_state is None else self.initial_state

    @property
    def bounded(self) -> bool:
        """Whether the candidate is within -1 ... 1 whatever its argument is."""
        return self.candidate in BOUNDED_CANDIDATES

    @property
    def gate_bits(self) -> int:
        """Fraction bits of the pre-activations of z and r [R10, R18]."""
        return gate_bits(self.gate)

    @property
    def candidate_bits(self) -> int:
        """Fraction bits of the pre-activation of n [R19]."""
        return candidate_bits(self.candidate, self.state_fraction_bits)

    @property
    def state_shift(self) -> int:
        """From a bounded candidate, which has 15 fraction bits, to the state's format; 0 for an unbounded one."""
        return STATE.fraction_bits - self.state_fraction_bits if self.bounded else 0

    @property
    def row_bits(self) -> IntArray:
        """Fraction bits of the pre-activation of each row [3H]."""
        return gru_row_bits(self.gate, self.candidate, self.state_fraction_bits, self.n_units)


@dataclass(frozen=True, eq=False)
class IntBidirectional(AnyBidirectional[IntGru]):
    """Two GRU layers on one sequence, `backward` from its end, both from their initial states [R23].

    If `final`, the result is a single vector of both states after all steps.
    """

    forward: IntGru
    backward: IntGru

    def __post_init__(self) -> None:
        super().__post_init__()
        forward, backward = self.forward.state_fraction_bits, self.backward.state_fraction_bits
        if forward != backward:
            raise ModelError(
                f"{self._where}: {forward} state fraction bits forward, {backward} backward, expected the same"
            )
        if abs(self.output_fraction_bits) > MAX_FRACTION_BITS:
            raise ModelError(f"{self._where}: {self.output_fraction_bits} output fraction bits, allowed are -31 ... 31")

    @property
    def output_fraction_bits(self) -> int:
        """Fraction bits of the merged s16 states."""
        bits = self.forward.state_fraction_bits
        return {"concat": bits, "sum": bits - 1, "mul": 2 * bits - 15, "ave": bits}[self.merge]


@dataclass(frozen=True, eq=False)
class IntDense(AnyDense):
    """A dense layer [R14]. output_fraction_bits is the format of output and bias for linear and relu, else 15."""

    activation: DenseActivation
    matrix: Matrix
    bias: npt.NDArray[np.int32]
    output_fraction_bits: int

    def __post_init__(self) -> None:
        check_name(self.name, "dense layer")
        where = f"dense layer {self.name!r}"
        one_of(where, "activation", self.activation, ACTIVATION_NUMBERS)
        own(self, "bias", np.int32, (self.matrix.n_rows,), where)
        own_integer(self, "output_fraction_bits", -MAX_FRACTION_BITS, MAX_FRACTION_BITS, where)
        if self.activation in ("sigmoid", "tanh") and self.output_fraction_bits != STATE.fraction_bits:
            raise ModelError(f"{where}: {self.output_fraction_bits} output fraction bits, {self.activation} has 15")

    @property
    def n_inputs(self) -> int:
        return self.matrix.n_columns

    @property
    def n_outputs(self) -> int:
        return self.matrix.n_rows

    @property
    def row_bits(self) -> int:
        """Fraction bits of the pre-activations and the biases."""
        linear = self.activation in ("linear", "relu")
        return self.output_fraction_bits if linear else PRE_ACTIVATION.fraction_bits


@dataclass(frozen=True, eq=False)
class IntEmbedding(AnyEmbedding):
    """A vector 256 * codes[token] for each token; codes int8 [tokens, outputs] [R21]."""

    codes: npt.NDArray[np.int8]

    def __post_init__(self) -> None:
        check_name(self.name, "embedding")
        where = f"embedding {self.name!r}"
        shape = np.shape(self.codes)
        if len(shape) != 2 or 0 in shape or shape[0] > MAX_TOKENS or shape[1] > 2**16 - 1:
            raise ModelError(f"{where}: codes {shape}, expected (1 ... {MAX_TOKENS} tokens, 1 ... 65535 outputs)")
        own(self, "codes", np.int8, shape, where)

    @property
    def n_tokens(self) -> int:
        return int(self.codes.shape[0])

    @property
    def n_outputs(self) -> int:
        return int(self.codes.shape[1])


IntLayer = IntGru | IntBidirectional | Reverse | IntDense | IntEmbedding


def output_bits(layer: IntLayer, operand_bits: IntArray) -> IntArray:
    """Fraction bits of each value that a layer puts out, [outputs], for those of what it reads."""
    match layer:
        case IntGru():
            return np.full(layer.n_outputs, layer.state_fraction_bits)
        case IntBidirectional() | IntDense():
            return np.full(layer.n_outputs, layer.output_fraction_bits)
        case Reverse():
            return operand_bits
        case IntEmbedding():
            return np.full(layer.n_outputs, EMBEDDING_BITS)
