"""A line to real firmware whose bytes are changed, lost, invented and late, under a clock that does not wait.

The board is busy for a while with each request that it executes, and keeps as much of the line meanwhile as it says.
"""

import random
from collections import deque
from collections.abc import Callable

from hil_faults import ANSWER_S, Clock

from quantgru.errors import DeviceError
from quantgru.hil.frames import Frame, FrameReader
from quantgru.hil.messages import ERROR_REPLY, REPLY
from quantgru.hil.transport import Transport

Fault = Callable[["Stream", int], None]  # what becomes of a byte


class HangError(Exception):
    """Something waits for what will not come."""


class Stream:
    """One direction of a line: bytes in their order, each with the time at which it arrives."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.faults: dict[int, Fault] = {}  # at the numbers of bytes, before any fault
        self.injected = 0
        self.sent: list[bytes] = []  # all frames, as they were meant
        self.to_lose = 0  # of the bytes that follow
        self.late_until = 0.0
        self._position = 0
        self._arriving: deque[tuple[float, bytes]] = deque()
        self._at = 0.0

    def send(self, frame: bytes, at: float) -> None:
        """Sends a frame, with the faults at the positions of its bytes."""
        self.sent.append(frame)
        self._at = at
        for byte in frame:
            fault = self.faults.pop(self._position, None)
            self._position += 1
            if fault is not None:
                self.injected += 1
                fault(self, byte)
            else:
                self.put(bytes([byte]))
        self.to_lose = 0

    def put(self, data: bytes) -> None:
        """Bytes that go on, but for those to be lost."""
        left = data[self.to_lose :]
        self.to_lose -= min(self.to_lose, len(data))
        if left:
            self._arriving.append((max(self._at, self.late_until), left))

    @property
    def position(self) -> int:
        """Of the next byte, before faults."""
        return self._position

    @property
    def next_arrival(self) -> float:
        return self._arriving[0][0] if self._arriving else float("inf")

    def arrived(self) -> bytes:
        """What has come in by now."""
        data = b""
        while self.next_arrival <= self.clock.now:
            data += self._arriving.popleft()[1]
        return data

    def rest(self) -> bytes:
        """All that is still on its way."""
        return b"".join(data for _, data in self._arriving)

    def forget(self) -> None:
        """Who sends has lost it all."""
        self._arriving = deque(piece for piece in self._arriving if piece[0] <= self.clock.now)


class BusyBoard:
    """Firmware that takes bytes as they arrive. Its replies go into `replies`, after the time that they take."""

    def __init__(self, inner: Transport, replies: Stream, work_s: float, ahead_bytes: int) -> None:
        self.inner = inner
        self.busy_until = 0.0
        self.alter: Callable[[Frame, bytes], bytes] = lambda request, reply: reply
        self._replies = replies
        self._work_s = work_s
        self._ahead_bytes = ahead_bytes
        self._ahead = b""  # came in while it was busy
        self.heard: list[Frame] = []
        self._reader = FrameReader()  # reads what the board reads
        self._answered: set[bytes] = set()

    def reset(self, inner: Transport) -> None:
        """After a reset it remembers nothing."""
        self.inner = inner
        self.busy_until, self._ahead, self._reader = 0.0, b"", FrameReader()
        self._answered.clear()

    @property
    def next_event(self) -> float:
        return self.busy_until if self._ahead else float("inf")

    def take(self, data: bytes, now: float) -> None:
        """Bytes that arrive; what it cannot keep is lost."""
        self._ahead += data
        while self._ahead and now >= self.busy_until:
            head, delimiter, self._ahead = self._ahead.partition(b"\0")
            self.inner.write(head + delimiter)
            for request in self._reader.feed(head + delimiter):
                if not request.type & REPLY:
                    self._answer(request, now)
        if now < self.busy_until:
            self._ahead = self._ahead[: self._ahead_bytes]

    def _answer(self, request: Frame, now: float) -> None:
        self.heard.append(request)
        reply = read_frame(self.inner)
        (frame,) = FrameReader().feed(reply)
        if frame.type != ERROR_REPLY and reply not in self._answered:  # executed: not refused, and not said again
            self._answered.add(reply)
            self.busy_until = now + self._work_s
        self._replies.send(self.alter(request, reply), max(now, self.busy_until))


def read_frame(board: Transport) -> bytes:
    """The one frame that a board has to send. Raises HangError if it does not come."""
    reply = b""
    while reply.count(0) < 2:
        data = board.read(ANSWER_S)
        if not data:
            raise HangError(f"the board does not answer, it said {reply!r}")
        reply += data
    assert reply[0] == reply[-1] == 0
    assert reply.count(0) == 2, "a board answers once"
    return reply


class FaultyBytes:
    """A Transport: the host's end of the line."""

    name = "line with faults"
    byte_s = 0.0

    def __init__(self, board: Transport, work_s: float, ahead_bytes: int) -> None:
        self.clock = Clock()
        self.requests = Stream(self.clock)
        self.replies = Stream(self.clock)
        self.board = BusyBoard(board, self.replies, work_s, ahead_bytes)
        self.connected = True

    @property
    def injected(self) -> int:
        return self.requests.injected + self.replies.injected

    def write(self, data: bytes) -> None:
        self._check_connected()
        self.requests.send(data, self.clock.now)
        self._check_connected()

    def read(self, timeout_s: float) -> bytes:
        until = self.clock.now + timeout_s
        while True:
            self.board.take(self.requests.arrived(), self.clock.now)
            self._check_connected()
            if data := self.replies.arrived():
                return data
            at = min(self.requests.next_arrival, self.board.next_event, self.replies.next_arrival)
            self.clock.now = max(self.clock.now, min(at, until))
            if at > until:
                return b""

    def _check_connected(self) -> None:
        if not self.connected:
            raise DeviceError(f"port {self.name}: connection lost")


# ---- faults ---------------------------------------------------------------------------------------------------------

MOST_BYTES = 8  # that one fault loses, doubles or inserts


def flip_bit(rng: random.Random) -> Fault:
    bit = 1 << rng.randrange(8)
    return lambda stream, byte: stream.put(bytes([byte ^ bit]))


def drop_bytes(rng: random.Random) -> Fault:
    n = rng.choice((1, 1, 1, rng.randint(2, MOST_BYTES)))

    def fault(stream: Stream, byte: int) -> None:
        stream.to_lose = n
        stream.put(bytes([byte]))

    return fault


def double_bytes(rng: random.Random) -> Fault:
    """A byte, or the frame from its beginning up to here."""
    again = rng.random() < 0.25

    def fault(stream: Stream, byte: int) -> None:
        up_to_here = stream.sent[-1][: stream.position - frame_end(stream)] or stream.sent[-1]
        stream.put(bytes([byte]) + (up_to_here if again else bytes([byte])))

    return fault


def frame_end(stream: Stream) -> int:
    return sum(map(len, stream.sent))


def insert_bytes(rng: random.Random) -> Fault:
    noise = rng.choice((b"\0", rng.randbytes(1), rng.randbytes(rng.randint(2, MOST_BYTES))))
    return lambda stream, byte: stream.put(noise + bytes([byte]))


def cut_frame(rng: random.Random) -> Fault:
    """The rest of a frame is lost, with its delimiter or without."""
    n = rng.randrange(2)

    def fault(stream: Stream, byte: int) -> None:
        stream.to_lose = frame_end(stream) - stream.position + n
        stream.put(bytes([byte]))

    return fault


def stall(least_s: float, most_s: float) -> Callable[[random.Random], Fault]:
    """This byte and all that follow come late; none overtakes another."""

    def make(rng: random.Random) -> Fault:
        late_s = rng.uniform(least_s, most_s)

        def fault(stream: Stream, byte: int) -> None:
            stream.late_until = max(stream.late_until, stream.clock.now + late_s)
            stream.put(bytes([byte]))

        return fault

    return make


def replay(*recorded: list[bytes]) -> Callable[[random.Random], Fault]:
    """Frames of earlier sessions, or of this one, come again."""

    def make(rng: random.Random) -> Fault:
        old, n, place = rng.choice(recorded), rng.randint(1, 3), rng.random()
        of_this = rng.random() < 0.5

        def fault(stream: Stream, byte: int) -> None:
            source = stream.sent[:-1] if of_this and len(stream.sent) > 1 else old
            first = int(place * len(source))
            stream.put(b"".join(source[first : first + n]) + bytes([byte]))

        return fault

    return make
