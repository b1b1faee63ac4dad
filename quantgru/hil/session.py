"""The host's side of PROTOCOL.md: one request at a time, repeated until it is answered. No port, no clock of its own.

Every wait ends: a request after a bounded number of attempts, the session at its total deadline. Whatever the board or
the line does wrong is a DeviceError; a session that raised one is of no more use.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from quantgru.errors import DeviceError
from quantgru.hil import messages
from quantgru.hil.frames import PROTOCOL_VERSION, Frame, FrameReader, encode
from quantgru.hil.messages import (
    ARRAY_NAMES,
    ERROR_REPLY,
    REPLY,
    ArrayName,
    BoardDescription,
    ErrorReply,
    Hello,
    Int16Array,
    MessageError,
    Read,
    Refusal,
    Request,
    Reset,
    Step,
    Steps,
)
from quantgru.hil.transport import Transport
from quantgru.int_model import IntModel
from quantgru.int_model.contract import SPEC_MAJOR, SPEC_MINOR

_Reply = TypeVar("_Reply")

_FLASH: Final = "export the model, build the test firmware of this version with it, and flash it"

# A frame that was answered sooner may be followed by one twice as long; after a slower one it is half as long.
_QUICK_S: Final = 0.2
_SLOW_S: Final = 0.8
# After a damaged frame, the line has been quiet for so long that nothing more is coming.
_GAP_S: Final = 0.02


@dataclass(frozen=True)
class Patience:
    """How long the host waits: for one reply, how often it repeats a request, and for everything together.

    Opening is apart: short waits, so that a silent board is found soon, and enough of them to outlast the reset that
    opening the port causes on some boards.
    """

    hello_s: float = 0.5
    hello_attempts: int = 8
    reply_s: float = 1.5
    attempts: int = 5
    total_s: float = 24 * 3600.0

    @classmethod
    def of(cls, answer_s: float) -> Patience:
        """Waits `answer_s` for the answer to one request, HELLO included; for boards whose step takes seconds."""
        default = cls()
        return cls(hello_attempts=max(1, math.ceil(answer_s / default.hello_s)), reply_s=answer_s / default.attempts)


class Session:
    """One session with a board. `open` first."""

    def __init__(
        self, transport: Transport, patience: Patience | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.repeats = 0
        self.damaged_frames = 0
        self._transport = transport
        self._patience = patience or Patience()
        self._clock = clock
        self._deadline = clock() + self._patience.total_s
        self._reader = FrameReader()
        self._bytes_received = 0
        self._id = secrets.randbelow(2**32 - 1) + 1
        self._sequence = 0
        self._board: BoardDescription | None = None
        self._frame_steps = 1

    @property
    def frame_steps(self) -> int:
        """Steps to send in the next frame: one at first, more as long as the board answers quickly.

        How fast a board is only shows when it runs. A full frame may be minutes of work to a small one, and then looks
        like a board that has stopped answering.
        """
        return min(self._frame_steps, self.board.steps_per_frame)

    @property
    def board(self) -> BoardDescription:
        """What the board said when the session was opened."""
        if self._board is None:
            raise self._error("the session is not open", "open it first")
        return self._board

    def open(self, model: IntModel) -> BoardDescription:
        """Opens the session; the board's state is reset. Raises DeviceError if another model is on the board."""
        description = self._ask(Hello(), messages.unpack_hello)
        self._check_model(description, model)
        self._board = description
        return description

    def reset(self) -> None:
        """Resets the model's state."""
        self._ask(Reset(), messages.unpack_reset)

    def step(self, inputs: Int16Array) -> Steps:
        """Runs 1 ... board.steps_per_frame steps on raw inputs, int16 [steps, inputs]."""
        board = self.board
        request = Step(inputs)
        if not 1 <= inputs.shape[0] <= board.steps_per_frame or inputs.shape[1:] != (board.n_inputs,):
            raise ValueError(f"inputs {inputs.shape}, allowed (1 ... {board.steps_per_frame}, {board.n_inputs})")
        start = self._clock()
        steps = self._ask(request, partial(messages.unpack_steps, request=request, n_outputs=board.n_outputs))
        self._adapt(inputs.shape[0], self._clock() - start)
        return steps

    def _adapt(self, n_steps: int, took_s: float) -> None:
        if took_s < _QUICK_S and n_steps == self._frame_steps < self.board.steps_per_frame:
            self._frame_steps = 2 * n_steps
        elif took_s > _SLOW_S:
            self._frame_steps = max(1, n_steps // 2)

    def read(self) -> dict[ArrayName, npt.NDArray[np.integer]]:
        """State and gates of the last step: u, r, n, h, residual of all layers, one after the other."""
        return {array: self._read_array(array) for array in ARRAY_NAMES}

    def _read_array(self, array: ArrayName) -> npt.NDArray[np.integer]:
        n_units = self.board.n_units
        parts: list[npt.NDArray[np.integer]] = []
        n_read = 0
        while n_read < n_units:
            request = Read(array, n_read)
            parts.append(self._ask(request, partial(messages.unpack_values, request=request, n_units=n_units)))
            n_read += parts[-1].size
        return np.concatenate(parts)

    # ---- one exchange -------------------------------------------------------------------------------------------

    def _ask(self, request: Request, unpack: Callable[[bytes], _Reply]) -> _Reply:
        """Sends a request until it is answered, and unpacks the answer."""
        type_, payload = messages.pack_request(request)
        reply = self._exchange(Frame(type_, self._id, self._sequence, payload))
        try:
            if reply.type == ERROR_REPLY:
                raise self._refused(type_, messages.unpack_error(reply.payload))
            unpacked = unpack(reply.payload)
        except MessageError as error:
            raise self._error(f"the reply to {type_.name} is not what PROTOCOL.md says ({error})", _FLASH) from None
        self._sequence = (self._sequence + 1) % 2**16
        return unpacked

    def _exchange(self, request: Frame) -> Frame:
        opening = request.type == messages.Type.HELLO
        attempts = self._patience.hello_attempts if opening else self._patience.attempts
        wait_s = self._patience.hello_s if opening else self._patience.reply_s
        encoded = encode(request)
        if self._board is not None:
            wait_s += (len(encoded) + self._board.transmit_bytes) * self._transport.byte_s
        start = self._clock()
        for attempt in range(attempts):
            if self._clock() >= self._deadline:
                raise self._error(
                    f"not done within {self._patience.total_s:g} s, the limit for everything together",
                    "run fewer sequences",
                )
            self.repeats += attempt > 0
            self._transport.write(encoded)
            reply = self._await_reply(request, min(self._clock() + wait_s, self._deadline))
            if reply is not None:
                return reply
        raise self._unanswered(request, attempts, self._clock() - start)

    def _await_reply(self, request: Frame, deadline: float) -> Frame | None:
        """The reply to `request`; None at the deadline, or once a damaged frame came and the line has gone quiet.

        Not for HELLO: a board that is starting may say a lot that is no frame.
        """
        damaged_before = self._reader.damaged
        while (left_s := deadline - self._clock()) > 0:
            damaged = request.type != messages.Type.HELLO and self._reader.damaged > damaged_before
            data = self._transport.read(min(left_s, _GAP_S) if damaged else left_s)
            if damaged and not data:
                return None
            self._bytes_received += len(data)
            frames = self._reader.feed(data)
            for frame in frames:
                if _answers(frame, request):
                    return frame
            self.damaged_frames = self._reader.damaged
        return None

    # ---- what can be wrong --------------------------------------------------------------------------------------

    def _unanswered(self, request: Frame, attempts: int, waited_s: float) -> DeviceError:
        tried = f"{attempts} attempts in {waited_s:.1f} s"
        if request.type != messages.Type.HELLO:
            what = "damaged frames only" if self.damaged_frames else "no answer any more"
            return self._error(
                f"the board stopped answering in mid-run ({messages.Type(request.type).name}, {tried}, {what})",
                "check cable and power, then run again",
            )
        if self._bytes_received:
            return self._error(
                f"{self._bytes_received} bytes came in, but no answer ({tried})",
                "check the baud rate, and that the quantgru test firmware is on the board",
            )
        return self._error(
            f"the board is silent ({tried})",
            "check port, cable and power, and that the quantgru test firmware is on the board",
        )

    def _refused(self, type_: messages.Type, error: ErrorReply) -> DeviceError:
        match error.code:
            case Refusal.NO_SESSION:
                what, next_step = "the board was reset in mid-run, its session is gone", "check power and watchdog"
            case Refusal.OTHER_SESSION:
                what, next_step = "another program has opened a session with the board", "end it, then run again"
            case Refusal.VERSION:
                what = f"the board speaks protocol {error.expected}, this program {PROTOCOL_VERSION}"
                next_step = _FLASH
            case _:
                what = f"the board refused {type_.name}: {error.code.name.lower()}, it expected {error.expected}"
                next_step = _FLASH
        return self._error(what, next_step)

    def _check_model(self, board: BoardDescription, model: IntModel) -> None:
        if board.spec_major != SPEC_MAJOR or board.digest != model.digest:
            found = f"digest {board.digest.hex()} (SPEC {board.spec_major}.{board.spec_minor})"
            expected = f"{model.digest.hex()} (SPEC {SPEC_MAJOR}.{SPEC_MINOR})"
            raise self._error(f"another model is on the board: {found}, expected {expected}", _FLASH)
        sizes = (board.n_inputs, board.n_outputs, board.n_units)
        allowed = (model.n_inputs, model.n_outputs, model.n_units)
        if sizes != allowed:
            raise self._error(f"(inputs, outputs, units) of the board are {sizes}, expected {allowed}", _FLASH)

    def _error(self, what: str, next_step: str) -> DeviceError:
        return DeviceError(f"{self._transport.name}: {what}; {next_step}")


def _answers(frame: Frame, request: Frame) -> bool:
    """Whether a frame is the reply to this very request; stale and foreign ones are not. ERROR replies look the same in
    all protocol versions."""
    if (frame.session, frame.sequence) != (request.session, request.sequence):
        return False
    if frame.type == ERROR_REPLY:
        return True
    return frame.version == PROTOCOL_VERSION and frame.type == request.type | REPLY
