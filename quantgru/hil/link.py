"""Requests on their way and the replies to them (firmware/PROTOCOL.md, chapter 5). No port, no clock of its own.

As many requests are under way as the board has credit for. What is lost is repeated; every wait ends.
"""

from __future__ import annotations

import math
import secrets
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from quantgru.errors import DeviceError
from quantgru.hil import messages
from quantgru.hil.frames import PROTOCOL_VERSION, Frame, FrameReader, encode
from quantgru.hil.messages import ERROR_REPLY, REPLY, MessageError, Refusal
from quantgru.hil.requests import Type
from quantgru.hil.transport import Transport

_HASH_S_PER_BYTE: Final = 4000 / 16e6  # cycles of an AVR, rounded up, at its usual clock
# After a sign that something was lost, the line has been quiet for so long that nothing more is coming.
_GAP_S: Final = 0.02


@dataclass(frozen=True)
class Patience:
    """How long the host waits: for one reply, how often it repeats a request, and for everything together.

    Opening is apart. Opening the port resets some boards into a bootloader, which waits up to 2 s for bytes before it
    starts the program, and some stay in it for as long as bytes come: the first HELLO goes out at once, into the reset,
    and the second one only when the bootloader is over. Then short waits, so that a silent board is found soon.
    """

    hello_first_s: float = 2.5
    hello_s: float = 0.5
    hello_attempts: int = 5
    reply_s: float = 1.5
    attempts: int = 5
    total_s: float = 24 * 3600.0

    @classmethod
    def of(cls, answer_s: float) -> Patience:
        """Waits `answer_s` for the answer to one request, HELLO included; for boards whose step takes seconds."""
        default = cls()
        first_s = min(answer_s, default.hello_first_s)
        more = math.ceil((answer_s - first_s) / default.hello_s)
        return cls(hello_first_s=first_s, hello_attempts=1 + more, reply_s=answer_s / default.attempts)

    def without_bootloader(self) -> Patience:
        """The same for a board that is known to have none, and may lose the first HELLO while it starts."""
        more = max(0, math.ceil((self.hello_first_s - self.hello_s) / self.hello_s))
        first_s = min(self.hello_first_s, self.hello_s)
        return replace(self, hello_first_s=first_s, hello_attempts=self.hello_attempts + more)

    def for_constants(self, n_bytes: int) -> Patience:
        """The same for a board that hashes so many bytes before it answers HELLO."""
        more = math.ceil(n_bytes * _HASH_S_PER_BYTE / self.hello_s)
        return replace(self, hello_attempts=self.hello_attempts + more)

    @property
    def hello_waits_s(self) -> list[float]:
        """After the first HELLO, and after each repeat of it."""
        return [self.hello_first_s] + [self.hello_s] * (self.hello_attempts - 1)

    @property
    def reply_waits_s(self) -> list[float]:
        """The same for all other requests."""
        return [self.reply_s] * self.attempts


@dataclass(frozen=True)
class Credit:
    """What may be on its way: requests, and the bytes of all but the oldest, which the board keeps as it computes."""

    requests: int = 1
    ahead_bytes: int = 0
    reply_bytes: int = 0  # the longest reply
    work_s: float = 0.0  # how long the board works on one request, as far as it is known that this is long


@dataclass(eq=False)
class _Pending:
    """A request that was sent."""

    frame: Frame
    encoded: bytes
    reply: Frame | None = None


class Link:
    """One session's requests, numbered from 0 on. A link that has failed raises the same error again, at once."""

    def __init__(
        self,
        transport: Transport,
        patience: Patience,
        clock: Callable[[], float] = time.monotonic,
        session: int | None = None,
    ) -> None:
        """The session's number is drawn; it is given, 1 ... 2^32 - 1, where a run must be the same each time."""
        self.repeats = 0
        self._transport = transport
        self._patience = patience
        self._clock = clock
        self._deadline = clock() + patience.total_s
        self._reader = FrameReader()
        self._bytes_received = 0
        self._session = secrets.randbelow(2**32 - 1) + 1 if session is None else session
        self._sequence = 0
        self._failure: DeviceError | None = None

    @property
    def damaged_frames(self) -> int:
        return self._reader.damaged

    def fail(self, what: str, next_step: str) -> DeviceError:
        """The error to raise. Nothing more is wanted of the board: what is on its way is not awaited."""
        self._failure = DeviceError(f"{self._transport.name}: {what}; {next_step}")
        return self._failure

    def exchange(self, requests: Iterable[tuple[int, bytes]], credit: Credit) -> Generator[Frame]:
        """The reply to each request, given as type and payload, in their order; an ERROR is a reply, too.

        A request is taken from `requests` when it may be sent. Who leaves early has what is on its way awaited.
        """
        if self._failure is not None:
            raise self._failure
        source = iter(requests)
        pending: deque[_Pending] = deque()
        waiting: _Pending | None = None  # taken, but there is no room for it yet
        try:
            while True:
                while len(pending) < credit.requests:
                    waiting = waiting or self._take(source)
                    if waiting is None or not _has_room(pending, waiting, credit):
                        break
                    pending.append(waiting)
                    waiting = None
                    self._transport.write(pending[-1].encoded)
                if not pending:
                    return
                yield self._await_oldest(pending, credit)
        except GeneratorExit:
            if waiting is not None:
                self._sequence = waiting.frame.sequence  # it was never sent
            while pending and self._failure is None:
                self._await_oldest(pending, credit)
            raise

    def _take(self, source: Iterator[tuple[int, bytes]]) -> _Pending | None:
        request = next(source, None)
        if request is None:
            return None
        type_, payload = request
        frame = Frame(type_, self._session, self._sequence, payload)
        self._sequence = (self._sequence + 1) % 2**16
        return _Pending(frame, encode(frame))

    # ---- waiting ------------------------------------------------------------------------------------------------

    def _await_oldest(self, pending: deque[_Pending], credit: Credit) -> Frame:
        """Takes the oldest request out, with its reply. Repeats what is not answered."""
        opening = pending[0].frame.type == Type.HELLO
        on_the_line = sum(len(request.encoded) + credit.reply_bytes for request in pending)
        more_s = on_the_line * self._transport.byte_s + credit.work_s
        waits_s = self._patience.hello_waits_s if opening else self._patience.reply_waits_s
        total_s = sum(waits_s) + len(waits_s) * more_s
        start = sent_at = self._clock()
        damaged_before = self._reader.damaged
        silences = 0
        lost = any(request.reply is not None for request in pending)  # later ones than the oldest
        self.check_deadline()
        while pending[0].reply is None:
            until = min(sent_at + waits_s[silences] + more_s, self._deadline)
            silent = self._listen(pending, credit, until, lost, starting=opening and silences == 0)
            if pending[0].reply is not None:
                break
            silences += silent
            self.check_deadline()
            if silences == len(waits_s) or self._clock() - start >= total_s:
                damaged = self._reader.damaged > damaged_before
                raise self._unanswered(pending[0].frame, self._clock() - start, damaged)
            self._repeat(pending)
            lost, sent_at = False, self._clock()
        reply = pending.popleft().reply
        assert reply is not None
        return reply

    def _repeat(self, pending: deque[_Pending]) -> None:
        for request in pending:
            if request.reply is None:
                self.repeats += 1
                self._transport.write(request.encoded)

    def _listen(self, pending: deque[_Pending], credit: Credit, until: float, lost: bool, starting: bool) -> bool:
        """Takes replies until the oldest request has its own. Whether the time was up: False once there is a sign that
        something was lost, and then nothing comes; `lost` says that there was one before.

        Damaged frames are such a sign, but not of a board that may be `starting`: that may say a lot that is no frame.
        What has come in is looked at even if the time was up before: this program may have been stopped meanwhile.
        """
        damaged_before = self._reader.damaged
        while True:
            left_s = max(0.0, until - self._clock())
            data = self._transport.read(min(left_s, _GAP_S) if lost else left_s)
            self._bytes_received += len(data)
            for frame in self._reader.feed(data):
                lost |= self._place(frame, pending, credit)
            if pending[0].reply is not None:
                return False
            if left_s == 0:
                return True
            if lost and not data:
                return False
            lost |= not starting and self._reader.damaged > damaged_before

    def _place(self, frame: Frame, pending: deque[_Pending], credit: Credit) -> bool:
        """Gives a reply to its request; ignores stale and foreign ones. Whether it shows that another one was lost."""
        for number, request in enumerate(pending):
            if request.reply is None and _answers(frame, request.frame):
                if _refused_for_another(frame, credit):
                    return True
                request.reply = frame
                return number > 0
        return False

    # ---- what can be wrong --------------------------------------------------------------------------------------

    def check_deadline(self) -> None:
        """Raises DeviceError once the time for everything together is up."""
        if self._clock() >= self._deadline:
            raise self.fail(
                f"not done within {self._patience.total_s:g} s, the limit for everything together",
                "run fewer sequences, or allow more with --deadline",
            )

    def _unanswered(self, request: Frame, waited_s: float, damaged: bool) -> DeviceError:
        """`damaged` frames came instead of an answer."""
        waited = f"{waited_s:.1f} s"
        if request.type != Type.HELLO:
            stopped = f"the board stopped answering in mid-run ({Type(request.type).name}, {waited}"
            if damaged:
                next_step = "check the cable, then run again; --timeout has a request repeated for longer"
                return self.fail(f"{stopped}, damaged frames only)", next_step)
            next_step = "check cable and power, then run again; if a step takes that long, wait longer with --timeout"
            return self.fail(f"{stopped}, no answer any more)", next_step)
        if self._bytes_received:
            return self.fail(
                f"{self._bytes_received} bytes came in, but no answer ({waited})",
                "check the baud rate, and that the quantgru test firmware is on the board",
            )
        return self.fail(
            f"the board is silent ({waited})",
            "check port, cable and power, and that the quantgru test firmware is on the board; if it is slow to start, "
            "wait longer with --timeout",
        )


def _has_room(pending: deque[_Pending], request: _Pending, credit: Credit) -> bool:
    if not pending:
        return True
    behind_the_oldest = sum(len(sent.encoded) for sent in list(pending)[1:])
    return behind_the_oldest + len(request.encoded) <= credit.ahead_bytes


def _answers(frame: Frame, request: Frame) -> bool:
    """Whether a frame is the reply to this very request. ERROR replies look the same in all protocol versions."""
    if (frame.session, frame.sequence) != (request.session, request.sequence):
        return False
    if frame.type == ERROR_REPLY:
        return True
    return frame.version == PROTOCOL_VERSION and frame.type == request.type | REPLY


def _refused_for_another(reply: Frame, credit: Credit) -> bool:
    """Whether the board refused a request because one that was sent before it has not come in."""
    if reply.type != ERROR_REPLY:
        return False
    try:
        error = messages.unpack_error(reply.payload)
    except MessageError:
        return False
    behind = (reply.sequence - error.expected) % 2**16
    return error.code == Refusal.SEQUENCE and 1 <= behind < credit.requests
