"""What a board replies (firmware/PROTOCOL.md, chapter 3). No input or output, no clock.

A reply that does not fit its request, or whose unused fields are not zero, raises MessageError.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from quantgru.hil.frames import OVERHEAD_BYTES
from quantgru.hil.requests import (
    ArrayName,
    Digest,
    Outputs,
    Read,
    Reset,
    Run,
    Seed,
    Step,
    pack_request,
)

Int16Array = npt.NDArray[np.int16]
Uint32Array = npt.NDArray[np.uint32]

REPLY: Final = 0x80
ERROR_REPLY: Final = 0xFF

_DESCRIPTION: Final = struct.Struct("<BBBBIHHHHHH32s24sIIIH")
_STEP: Final = struct.Struct("<HH")
_READ: Final = struct.Struct("<BBH")
_RUN: Final = struct.Struct("<HHII")
_DIGEST: Final = struct.Struct("<HHIIIQ")
_WORD: Final = struct.Struct("<I")
_STACK: Final = struct.Struct("<II")
_ERROR: Final = struct.Struct("<BBHI")
_RECORD_BYTES: Final = 8  # ticks and check value of a step; its outputs follow


class MessageError(Exception):
    """A payload that PROTOCOL.md does not allow."""


class TimerKind(IntEnum):
    """What a tick counts."""

    NONE = 0
    CYCLES = 1
    INSTRUCTIONS = 2
    TIME = 3


class Refusal(IntEnum):
    """Codes of an ERROR reply."""

    VERSION = 1
    NO_SESSION = 2
    OTHER_SESSION = 3
    SEQUENCE = 4
    TYPE = 5
    LENGTH = 6
    ARGUMENT = 7
    NO_MODEL = 8


_ARRAY_TYPES: Final[dict[ArrayName, str]] = {"u": "<u2", "r": "<u2", "n": "<i2", "h": "<i2", "residual": "<u2"}


@dataclass(frozen=True)
class StackUse:
    """Bytes of the stack, and how many of them have ever been used; both 0 where the board cannot say."""

    bytes: int
    used: int

    @property
    def overflown(self) -> bool:
        """Whether its last byte was used: nobody knows what lies behind."""
        return self.used >= self.bytes > 0


@dataclass(frozen=True)
class BoardDescription:
    """The reply to HELLO: what the board says about itself.

    credit          requests that may be on their way
    receive_bytes   the longest request, as a frame before COBS
    transmit_bytes  the longest reply
    ahead_bytes     what the board keeps of the line while it computes
    model_room      bytes for a model that comes over the line; 0 where it is compiled in
    most_steps      of a sequence, for a model that needs whole ones; 0 for one that runs step by step
    """

    spec_major: int
    spec_minor: int
    credit: int
    timer_kind: TimerKind
    timer_hz: int
    receive_bytes: int
    transmit_bytes: int
    n_inputs: int
    n_outputs: int
    n_units: int
    ahead_bytes: int
    digest: bytes
    target: str
    model_room: int
    stack: StackUse
    most_steps: int

    @property
    def has_model(self) -> bool:
        return self.n_units > 0

    @property
    def write_bytes(self) -> int:
        """The most bytes of a model that a WRITE can carry."""
        return self.receive_bytes - OVERHEAD_BYTES - _WORD.size

    @property
    def most_values(self) -> int:
        """The most inputs, and the most outputs, of which the buffers hold a step."""
        room = min(self.receive_bytes, self.transmit_bytes) - OVERHEAD_BYTES - _STEP.size - _RECORD_BYTES
        return room // 2

    @property
    def steps_per_digest(self) -> int:
        """The most steps whose inputs fit the board's receive buffer."""
        return (self.receive_bytes - OVERHEAD_BYTES - _STEP.size) // (2 * self.n_inputs)

    @property
    def steps_per_frame(self) -> int:
        """The most steps whose inputs fit the receive buffer, and whose outputs fit the transmit buffer."""
        by_reply = (self.transmit_bytes - OVERHEAD_BYTES - _STEP.size) // (_RECORD_BYTES + 2 * self.n_outputs)
        return min(self.steps_per_digest, by_reply)

    @property
    def steps_per_read(self) -> int:
        """The most steps whose outputs fit the board's transmit buffer, of a run that was made before."""
        return (self.transmit_bytes - OVERHEAD_BYTES - _STEP.size) // (2 * self.n_outputs)

    @property
    def times_the_line(self) -> bool:
        """Whether bytes that come in during a step would be counted with it: they are taken by an interrupt."""
        return self.timer_kind == TimerKind.CYCLES and self.ahead_bytes > 0


@dataclass(frozen=True, eq=False)
class Steps:
    """The reply to STEP: ticks and check value uint32 [steps], outputs int16 [steps, outputs]."""

    ticks: Uint32Array
    checks: Uint32Array
    outputs: Int16Array

    @property
    def n_steps(self) -> int:
        return self.ticks.size


@dataclass(frozen=True)
class ErrorReply:
    """A refused request: nothing was executed."""

    code: Refusal
    request_type: int
    expected: int


def unpack_description(payload: bytes) -> BoardDescription:
    _check_length(payload, _DESCRIPTION.size)
    values = _DESCRIPTION.unpack(payload)
    major, minor, credit, kind, hz, receive, transmit, inputs, outputs, units, ahead, digest, name = values[:13]
    target = name.rstrip(b"\0")
    if not (target.isascii() and target.decode().isprintable()):  # nor zeros within, nor what a terminal would obey
        raise MessageError(f"a target named {target!r}")
    if kind not in set(TimerKind) or (hz == 0) != (kind == TimerKind.NONE):
        raise MessageError(f"timer kind {kind} at {hz} Hz")
    room, stack, most_steps = values[13], StackUse(*values[14:16]), values[16]
    description = BoardDescription(
        *(major, minor, credit, TimerKind(kind), hz, receive, transmit, inputs, outputs, units, ahead),
        *(digest, target.decode(), room, stack, most_steps),
    )
    if credit == 0 or not _sizes_make_sense(description):
        raise MessageError(
            f"credit {credit}, {inputs} inputs, {outputs} outputs, {units} units, "
            f"buffers of {receive} and {transmit} bytes"
        )
    return description


def _sizes_make_sense(board: BoardDescription) -> bool:
    sizes = (board.n_inputs, board.n_outputs, board.n_units)
    if not any(sizes):
        return board.model_room > 0 and board.most_steps == 0 and board.most_values >= 1
    return 0 not in sizes and board.steps_per_frame >= 1 and 0 in (board.model_room, board.most_steps)


def unpack_nothing(payload: bytes) -> None:
    _check_length(payload, 0)


def unpack_steps(payload: bytes, request: Step, n_outputs: int) -> Steps:
    n_steps = request.inputs.shape[0]
    record = np.dtype([("ticks", "<u4"), ("check", "<u4"), ("outputs", "<i2", (n_outputs,))])
    _check_length(payload, _STEP.size + n_steps * record.itemsize)
    if _STEP.unpack_from(payload) != (n_steps, 0):
        raise MessageError(f"{_STEP.unpack_from(payload)[0]} steps instead of {n_steps}")
    records = np.frombuffer(payload, record, offset=_STEP.size)
    return Steps(
        records["ticks"].astype(np.uint32), records["check"].astype(np.uint32), records["outputs"].astype(np.int16)
    )


@dataclass(frozen=True)
class Summary:
    """The reply to DIGEST and SEED: CRC-32 of the check values of all steps, and what a step took."""

    n_steps: int
    digest: int
    least_ticks: int
    most_ticks: int
    total_ticks: int


def unpack_summary(payload: bytes, n_steps: int) -> Summary:
    _check_length(payload, _DIGEST.size)
    n, unused, *values = _DIGEST.unpack(payload)
    summary = Summary(n, *values)
    if (n, unused) != (n_steps, 0):
        raise MessageError(f"{n} steps instead of {n_steps}")
    if not n * summary.least_ticks <= summary.total_ticks <= n * summary.most_ticks:
        raise MessageError(f"{summary.least_ticks} ... {summary.most_ticks} ticks, {summary.total_ticks} in all")
    return summary


@dataclass(frozen=True)
class RunReply:
    """The reply to RUN: what it took, and the check value of the run [R24]."""

    n_steps: int
    ticks: int
    check: int


def unpack_run(payload: bytes, request: Run) -> RunReply:
    _check_length(payload, _RUN.size)
    n_steps, unused, ticks, check = _RUN.unpack(payload)
    if (n_steps, unused) != (request.n_steps, 0):
        raise MessageError(f"{n_steps} steps instead of {request.n_steps}")
    return RunReply(n_steps, ticks, check)


def unpack_outputs(payload: bytes, request: Outputs, n_outputs: int) -> Int16Array:
    """int16 [steps, outputs]"""
    _check_length(payload, _STEP.size + 2 * request.n_steps * n_outputs)
    if payload[: _STEP.size] != pack_request(request)[1]:
        raise MessageError("outputs of other steps")
    values = np.frombuffer(payload, "<i2", offset=_STEP.size)
    return values.astype(np.int16).reshape(request.n_steps, n_outputs)


def unpack_answer(
    request: Reset | Step | Digest | Seed, board: BoardDescription, payload: bytes
) -> Steps | Summary | None:
    """The reply to a request of a run; None to RESET."""
    match request:
        case Reset():
            unpack_nothing(payload)
            return None
        case Step():
            return unpack_steps(payload, request, board.n_outputs)
        case Digest() | Seed():
            return unpack_summary(payload, request.n_steps)


def unpack_load(payload: bytes) -> tuple[int, BoardDescription]:
    """Why the blob was refused, 0 if it was not, and what the board says about itself then."""
    (refused,) = _WORD.unpack_from(payload.ljust(_WORD.size))
    description = unpack_description(payload[_WORD.size :])
    if description.has_model == bool(refused):
        raise MessageError(f"refusal {refused}, {description.n_units} units")
    return refused, description


def unpack_stack(payload: bytes) -> StackUse:
    _check_length(payload, _STACK.size)
    return StackUse(*_STACK.unpack(payload))


def unpack_time(payload: bytes) -> int:
    """Ticks."""
    _check_length(payload, _WORD.size)
    (ticks,) = _WORD.unpack(payload)
    return int(ticks)


def unpack_values(payload: bytes, request: Read, n_units: int) -> npt.NDArray[np.integer]:
    """The values from request.offset on: all that are left, or as many as the board's buffer holds."""
    n = (len(payload) - _READ.size) // 2
    if n < 1 or n > n_units - request.offset:
        raise MessageError(f"{n} values instead of 1 ... {n_units - request.offset}")
    _check_length(payload, _READ.size + 2 * n)
    if payload[: _READ.size] != pack_request(request)[1]:
        raise MessageError("values of another array")
    values = np.frombuffer(payload, _ARRAY_TYPES[request.array], offset=_READ.size)
    return values.astype(values.dtype.newbyteorder("="))


def unpack_error(payload: bytes) -> ErrorReply:
    _check_length(payload, _ERROR.size)
    code, request_type, unused, expected = _ERROR.unpack(payload)
    if unused or code not in set(Refusal):
        raise MessageError(f"ERROR reply with code {code}")
    return ErrorReply(Refusal(code), request_type, expected)


def _check_length(payload: bytes, expected: int) -> None:
    if len(payload) != expected:
        raise MessageError(f"{len(payload)} bytes instead of {expected}")
