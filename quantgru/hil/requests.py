"""Requests to a board, as PROTOCOL.md has them on the wire (chapter 3). No input or output, no clock."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Literal, get_args

from quantgru.array_types import Int16Array
from quantgru.hil.generator import Generator

_STEPS: Final = struct.Struct("<HH")  # a number of steps, and the first of them or zero
_READ: Final = struct.Struct("<BBH")
_SEED: Final = struct.Struct("<HBBII")
_WORD: Final = struct.Struct("<I")


class Type(IntEnum):
    """Types of requests; a reply has the same type with bit 7 set."""

    HELLO = 1
    RESET = 2
    STEP = 3
    READ = 4
    DIGEST = 5
    SEED = 6
    STACK = 7
    WRITE = 8
    LOAD = 9
    INPUTS = 10
    RUN = 11
    OUTPUTS = 12
    TIME = 13


ArrayName = Literal["u", "r", "n", "h", "residual"]
ARRAY_NAMES: Final[tuple[ArrayName, ...]] = get_args(ArrayName)
_ARRAY_NUMBERS: Final[dict[ArrayName, int]] = {"u": 0, "r": 1, "n": 2, "h": 3, "residual": 4}


@dataclass(frozen=True)
class Hello:
    """Opens a session; the model is reset."""


@dataclass(frozen=True)
class Reset:
    """Resets the model."""


@dataclass(frozen=True, eq=False)
class Step:
    """Runs steps; `inputs` are raw, int16 [steps, inputs]."""

    inputs: Int16Array

    @property
    def n_steps(self) -> int:
        return len(self.inputs)


@dataclass(frozen=True)
class Read:
    """Reads an array of the last step, all layers one after the other, from value `offset` on."""

    array: ArrayName
    offset: int


@dataclass(frozen=True, eq=False)
class Digest:
    """Runs steps whose results come back as a digest; `inputs` are raw, int16 [steps, inputs]."""

    inputs: Int16Array

    @property
    def n_steps(self) -> int:
        return len(self.inputs)


@dataclass(frozen=True)
class Seed:
    """Runs steps on inputs that the board generates (see `generator`); the results come back as a digest."""

    n_steps: int
    generator: Generator
    index: int  # of the first value


@dataclass(frozen=True)
class Stack:
    """Asks how deep the stack has been."""


@dataclass(frozen=True)
class Time:
    """Computes the outputs of the last step again, and asks what that took."""


@dataclass(frozen=True)
class Write:
    """Writes a part of a model's blob into the board's RAM. The model that was there is gone."""

    offset: int
    content: bytes


@dataclass(frozen=True)
class Load:
    """Makes a model of the bytes that were written."""

    n_bytes: int


@dataclass(frozen=True, eq=False)
class Inputs:
    """Writes inputs of a sequence, int16 [steps, inputs], from step `first` on."""

    first: int
    inputs: Int16Array


@dataclass(frozen=True)
class Run:
    """Runs the first n_steps of the inputs that were written, as one sequence from the reset."""

    n_steps: int


@dataclass(frozen=True)
class Outputs:
    """Reads outputs of the last run: those of n_steps, from step `first` on."""

    first: int
    n_steps: int


Stepping = Step | Digest | Seed
Request = Hello | Reset | Read | Stack | Time | Write | Load | Inputs | Run | Outputs | Stepping


def pack_request(request: Request) -> tuple[Type, bytes]:
    """Type and payload."""
    match request:
        case Hello():
            return Type.HELLO, b""
        case Reset():
            return Type.RESET, b""
        case Step(inputs):
            return Type.STEP, _STEPS.pack(inputs.shape[0], 0) + inputs.astype("<i2").tobytes()
        case Read(array, offset):
            return Type.READ, _READ.pack(_ARRAY_NUMBERS[array], 0, offset)
        case Digest(inputs):
            return Type.DIGEST, _STEPS.pack(inputs.shape[0], 0) + inputs.astype("<i2").tobytes()
        case Seed(n_steps, generator, index):
            return Type.SEED, _SEED.pack(n_steps, generator.shift, 0, generator.seed, index)
        case Stack():
            return Type.STACK, b""
        case Time():
            return Type.TIME, b""
        case Write(offset, content):
            return Type.WRITE, _WORD.pack(offset) + content
        case Load(n_bytes):
            return Type.LOAD, _WORD.pack(n_bytes)
        case Inputs(first, inputs):
            return Type.INPUTS, _STEPS.pack(inputs.shape[0], first) + inputs.astype("<i2").tobytes()
        case Run(n_steps):
            return Type.RUN, _STEPS.pack(n_steps, 0)
        case Outputs(first, n_steps):
            return Type.OUTPUTS, _STEPS.pack(n_steps, first)
