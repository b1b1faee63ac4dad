"""A line that drops, doubles, damages and delays frames, under a clock that does not wait."""

import random
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from quantgru.hil.frames import Frame, FrameReader, encode
from quantgru.hil.requests import Type
from quantgru.hil.transport import Transport

Fault = Callable[[bytes], bytes]  # what becomes of a frame on the wire

ANSWER_S = 5.0  # in which the firmware answers on any machine


class Clock:
    """Seconds that pass only when somebody waits for nothing."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def drop(frame: bytes) -> bytes:
    return b""


def double(frame: bytes) -> bytes:
    return frame + frame


def flip_bit(frame: bytes) -> bytes:
    """One bit in the middle, never giving a delimiter."""
    at = len(frame) // 2
    bit = 1 if frame[at] != 1 else 2
    return frame[:at] + bytes([frame[at] ^ bit]) + frame[at + 1 :]


def drop_byte(frame: bytes) -> bytes:
    return frame[: len(frame) // 2] + frame[len(frame) // 2 + 1 :]


def insert_byte(frame: bytes) -> bytes:
    return frame[: len(frame) // 2] + b"\x55" + frame[len(frame) // 2 :]


def insert_delimiter(frame: bytes) -> bytes:
    return frame[: len(frame) // 2] + b"\0" + frame[len(frame) // 2 :]


def truncate(frame: bytes) -> bytes:
    """The second half is lost, the delimiter too."""
    return frame[: len(frame) // 2]


def lose_delimiter(frame: bytes) -> bytes:
    return frame[:-1]


def noise_before(frame: bytes) -> bytes:
    return random.Random(len(frame)).randbytes(40) + frame


FAULTS = (drop, double, flip_bit, drop_byte, insert_byte, insert_delimiter, truncate, lose_delimiter, noise_before)


@dataclass
class FaultyLine:
    """Hands frames on to `inner` and back, changed by the faults at their numbers (0 is the first frame).

    stalls are numbers of replies that come only after the next request; before_request is called with
    the number of each request before it is sent.
    """

    inner: Transport
    clock: Clock
    requests: Mapping[int, Fault] = field(default_factory=dict)
    replies: Mapping[int, Fault] = field(default_factory=dict)
    stalls: frozenset[int] = frozenset()
    before_request: Callable[[int], None] = lambda number: None
    name: str = "line with faults"
    byte_s: float = 0.0

    def __post_init__(self) -> None:
        self.n_requests = 0
        self.n_replies = 0
        self._pending = b""
        self._held = b""
        self._late = b""
        self._board = FrameReader()  # reads what the board reads
        self._due = 0  # replies that the board has yet to give: one to each frame

    def reset_board(self, after_reset: Transport) -> None:
        """What the board had yet to answer is lost."""
        self.inner = after_reset
        self._due = 0

    def write(self, data: bytes) -> None:
        self.before_request(self.n_requests)
        fault = self.requests.get(self.n_requests)
        self.n_requests += 1
        self._late, self._held = self._late + self._held, b""
        sent = fault(data) if fault else data
        self._due += len(self._board.feed(sent))
        self.inner.write(sent)

    def read(self, timeout_s: float) -> bytes:
        late, self._late = self._late, b""
        if late:
            return late
        data = self.inner.read(ANSWER_S) if self._due else b""
        if not data:
            self.clock.now += timeout_s
        *bodies, self._pending = (self._pending + data).split(b"\0")
        return b"".join(self._through(b"\0" + body + b"\0") for body in bodies if body)

    def _through(self, frame: bytes) -> bytes:
        number = self.n_replies
        self.n_replies += 1
        self._due -= 1
        if number in self.stalls:
            self._held += frame
            return b""
        fault = self.replies.get(number)
        return fault(frame) if fault else frame


@dataclass
class SlowBoard:
    """Hands frames on, and answers back only when the steps that came before them would be done."""

    inner: Transport
    clock: Clock
    step_s: float
    name: str = "slow board"
    byte_s: float = 0.0

    def __post_init__(self) -> None:
        self._sent = FrameReader()
        self._answers = FrameReader()
        self._started = 0  # numbers of the requests that are done or under way, plus one
        self._busy_until = 0.0
        self._ready: list[tuple[float, bytes]] = []
        self.most_steps = 0

    def write(self, data: bytes) -> None:
        self.inner.write(data)
        for frame in self._sent.feed(data):
            repeated = frame.sequence < self._started
            if not repeated:
                self._started = frame.sequence + 1
                self._busy_until = max(self._busy_until, self.clock.now) + self._work_s(frame)
            answers: list[Frame] = []
            while not answers:
                answers = self._answers.feed(self.inner.read(ANSWER_S))
            self._ready += [(self._busy_until, encode(answer)) for answer in answers]

    def _work_s(self, frame: Frame) -> float:
        if frame.type not in (Type.STEP, Type.RUN):
            return 0.0
        (n_steps,) = struct.unpack_from("<H", frame.payload)
        self.most_steps = max(self.most_steps, n_steps)
        return n_steps * self.step_s

    def read(self, timeout_s: float) -> bytes:
        if not self._ready or self._ready[0][0] > self.clock.now + timeout_s:
            self.clock.now += timeout_s
            return b""
        ready, answer = self._ready.pop(0)
        self.clock.now = max(self.clock.now, ready)
        return answer
