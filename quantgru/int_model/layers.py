"""Layers of the integer model and their invariants. No format is chosen here; what breaks SPEC.md is refused."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quantgru.activations import BOUNDED_CANDIDATES, Candidate, DenseActivation, GateFunction, Merge, Reset
from quantgru.checks import check_flag, check_name, in_range, one_of, own, own_integer
from quantgru.errors import ModelError
from quantgru.fixed import MAX_FRACTION_BITS, PRE_ACTIVATION, STATE
from quantgru.int_model.contract import (
    ACTIVATION_NUMBERS,
    CANDIDATE_NUMBERS,
    GATE_NUMBERS,
    MAX_LEFT_SHIFT,
    MAX_TOKENS,
    MERGE_NUMBERS,
    RESET_NUMBERS,
)

IntArray = npt.NDArray[np.int64]

HARD_BITS = 15  # fraction bits of the rows of hard_sigmoid and hard_tanh
EMBEDDING_BITS = 8  # an embedding puts out 256 * code


@dataclass(frozen=True, eq=False)
class Matrix:
    """Rows of integer weights, each with a scale of its own [R4].

    codes       int8 [rows, columns]
    multiplier  uint16 [rows], m: 2**14 ... 2**15 - 1
    shift       uint8 [rows], s: 1 ... 30
    left_shift  k: 0 ... 15
    """

    codes: npt.NDArray[np.int8]
    multiplier: npt.NDArray[np.uint16]
    shift: npt.NDArray[np.uint8]
    left_shift: int = 0
    bits: int = 8

    def __post_init__(self) -> None:
        shape = np.shape(self.codes)
        if len(shape) != 2 or 0 in shape or max(shape) > 2**16 - 1:
            raise ModelError(f"matrix: codes {shape}, expected (rows, columns) of 1 ... 65535 each")
        own(self, "codes", np.int8, shape, "matrix")
        own(self, "multiplier", np.uint16, shape[:1], "matrix")
        own(self, "shift", np.uint8, shape[:1], "matrix")
        own_integer(self, "bits", 1, 16, "matrix")
        if self.bits != 8:
            raise ModelError(f"matrix: {self.bits} bits, this version reads 8; update quantgru")
        in_range("matrix: multiplier", self.multiplier, 2**14, 2**15 - 1)
        in_range("matrix: shift", self.shift, 1, 30)
        own_integer(self, "left_shift", 0, MAX_LEFT_SHIFT, "matrix")

    @property
    def n_rows(self) -> int:
        return int(self.codes.shape[0])

    @property
    def n_columns(self) -> int:
        return int(self.codes.shape[1])

    def row_scales(self, row_bits: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """What 1 in the accumulator of each row means [rows], where sums have `row_bits` fraction bits [R4]."""
        exponent = self.left_shift - 16 - self.shift.astype(np.int64) - np.asarray(row_bits)
        return np.asarray(np.ldexp(self.multiplier.astype(np.float64), exponent))


def gate_bits(gate: str) -> int:
    """Fraction bits of the pre-activations of z and r [R10, R18]."""
    return PRE_ACTIVATION.fraction_bits if gate == "sigmoid" else HARD_BITS


def candidate_bits(candidate: str, state_bits: int) -> int:
    """Fraction bits of the pre-activation of n [R19]."""
    if candidate not in BOUNDED_CANDIDATES:
        return state_bits
    return HARD_BITS if candidate == "hard_tanh" else PRE_ACTIVATION.fraction_bits


@dataclass(frozen=True, eq=False)
class IntGru:
    """A GRU layer: W [3H x I] and U [3H x H], gates z, r, n one after the other.

    bias                 int32 [3H], of z and r with `gate_bits` fraction bits, of n with `candidate_bits`
    recurrent_bias       int32 [H] for reset "after", with `candidate_bits`; empty for "before"
    state_fraction_bits  of h, n and what the reset gate leaves of h, all s16
    initial_state        int16 [H], h after a reset; None means zeros
    """

    name: str
    reset: Reset
    input: Matrix
    recurrent: Matrix
    bias: npt.NDArray[np.int32]
    recurrent_bias: npt.NDArray[np.int32]
    gate: GateFunction = "sigmoid"
    candidate: Candidate = "tanh"
    state_fraction_bits: int = STATE.fraction_bits
    initial_state: npt.NDArray[np.int16] = None  # type: ignore[assignment]  # replaced by an array

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
        if self.initial_state is None:
            object.__setattr__(self, "initial_state", np.zeros(units, np.int16))
        own(self, "initial_state", np.int16, (units,), where)

    @property
    def n_inputs(self) -> int:
        return self.input.n_columns

    @property
    def n_units(self) -> int:
        return self.recurrent.n_columns

    @property
    def n_outputs(self) -> int:
        return self.n_units

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
    def candidate_shift(self) -> int:
        """From a bounded candidate, which has 15 fraction bits, to the state's format; 0 for an unbounded one."""
        return STATE.fraction_bits - self.state_fraction_bits if self.bounded else 0

    @property
    def row_bits(self) -> IntArray:
        """Fraction bits of the pre-activation of each row [3H]."""
        return np.repeat([self.gate_bits, self.gate_bits, self.candidate_bits], self.n_units)


@dataclass(frozen=True, eq=False)
class IntBidirectional:
    """Two GRU layers on one sequence, `backward` from its end, both from their initial states [R23].

    If `final`, the result is a single vector of both states after all steps.
    """

    name: str
    forward: IntGru
    backward: IntGru
    merge: Merge
    final: bool

    def __post_init__(self) -> None:
        check_name(self.name, "bidirectional layer")
        where = f"bidirectional layer {self.name!r}"
        one_of(where, "merge", self.merge, MERGE_NUMBERS)
        check_flag(self.final, where, "final")
        forward, backward = (
            (gru.n_inputs, gru.n_units, gru.state_fraction_bits) for gru in (self.forward, self.backward)
        )
        if forward != backward:
            raise ModelError(
                f"{where}: inputs, units and state fraction bits {forward} forward, {backward} backward, "
                "expected the same"
            )
        if abs(self.output_fraction_bits) > MAX_FRACTION_BITS:
            raise ModelError(f"{where}: {self.output_fraction_bits} output fraction bits, allowed are -31 ... 31")

    @property
    def n_inputs(self) -> int:
        return self.forward.n_inputs

    @property
    def n_outputs(self) -> int:
        return self.forward.n_units * (2 if self.merge == "concat" else 1)

    @property
    def output_fraction_bits(self) -> int:
        bits = self.forward.state_fraction_bits
        return {"concat": bits, "sum": bits - 1, "mul": 2 * bits - 15, "ave": bits}[self.merge]


@dataclass(frozen=True)
class IntReverse:
    """The sequence from its last step to its first [R22]."""

    name: str = "reverse"

    def __post_init__(self) -> None:
        check_name(self.name, "reverse")


@dataclass(frozen=True, eq=False)
class IntDense:
    """A dense layer [R14]. output_fraction_bits is the format of output and bias for linear and relu, else 15."""

    name: str
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
class IntEmbedding:
    """A vector 256 * codes[token] for each token; codes int8 [tokens, outputs] [R21]."""

    name: str
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
    def n_inputs(self) -> int:
        return 1

    @property
    def n_outputs(self) -> int:
        return int(self.codes.shape[1])


IntLayer = IntGru | IntBidirectional | IntReverse | IntDense | IntEmbedding


def output_bits(layer: IntLayer, operand_bits: IntArray) -> IntArray:
    """Fraction bits of each value that a layer puts out, [outputs], for those of what it reads."""
    match layer:
        case IntGru():
            return np.full(layer.n_outputs, layer.state_fraction_bits)
        case IntBidirectional() | IntDense():
            return np.full(layer.n_outputs, layer.output_fraction_bits)
        case IntReverse():
            return operand_bits
        case IntEmbedding():
            return np.full(layer.n_outputs, EMBEDDING_BITS)
