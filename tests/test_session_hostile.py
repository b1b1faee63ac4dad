"""Boards that answer wrongly, or without end: one line of error within the time that a wait may take, never a pass.

The firmware is real; what it says is changed on its way.
"""

import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator

import pytest
from cobs import cobs
from fault_line import read_frame
from hil_boards import build_model, running
from hil_faults import Clock
from hil_models import Case, make_case

from quantgru.errors import DeviceError
from quantgru.hil.compare import Comparison, compare
from quantgru.hil.frames import Frame, FrameReader, encode
from quantgru.hil.link import Patience
from quantgru.hil.messages import ERROR_REPLY, REPLY
from quantgru.hil.requests import Type
from quantgru.hil.session import Session
from quantgru.hil.transport import SerialTransport, Transport
from quantgru.hil.ways import ByDigests, ByOutputs, Way

MOST_S = 2 * Patience().attempts * Patience().reply_s  # of the clock
MOST_BYTES = 4_000_000  # of memory
CHUNK_BYTES = 4096  # that an endless board has ready at each look
LOOK_S = 0.05  # from one look to the next

Change = Callable[[Frame, Frame], bytes]  # request and reply to what comes instead


@pytest.fixture(scope="module")
def case() -> Case:
    return make_case(lengths=(9, 1, 6))


@pytest.fixture(scope="module")
def board(case: Case) -> Iterator[SerialTransport]:
    with running(build_model(case.model)) as transport:
        yield transport


class HostileLine:
    """Changes the replies to requests of some types; an endless one repeats what it has said when it has no more."""

    name = "hostile"
    byte_s = 0.0

    def __init__(self, board: Transport, types: tuple[Type, ...], change: Change, endless: bool = False) -> None:
        self.clock = Clock()
        self._board, self._types, self._change, self._endless = board, types, change, endless
        self._reader = FrameReader()
        self._out = self._again = b""

    def write(self, data: bytes) -> None:
        for request in self._reader.feed(data):
            self._board.write(encode(request))
            wire = read_frame(self._board)
            if request.type in self._types:
                (reply,) = FrameReader().feed(wire)
                wire = self._change(request, reply)
                self._again = wire * max(1, CHUNK_BYTES // max(1, len(wire))) if self._endless else b""
            self._out += wire

    def read(self, timeout_s: float) -> bytes:
        out, self._out = self._out or self._again, b""
        self.clock.now += LOOK_S if out else timeout_s
        return out


STEPPING = (Type.STEP, Type.DIGEST)
AFTER_HELLO = tuple(set(Type) - {Type.HELLO})


def run(case: Case, line: HostileLine, way: Way = ByOutputs()) -> Comparison:  # noqa: B008
    session = Session(line, clock=line.clock)
    session.open(case.model)
    return compare(session, case.model, case.inputs, case.expected, way)


def refuse(case: Case, line: HostileLine, message: str, way: Way = ByOutputs()) -> None:  # noqa: B008
    with pytest.raises(DeviceError, match=message) as caught:
        run(case, line, way)
    assert "\n" not in str(caught.value)
    assert line.clock.now <= MOST_S


def with_payload(payload: bytes) -> Change:
    return lambda request, reply: encode(Frame(reply.type, reply.session, reply.sequence, payload))


def error_reply(code: int, expected: Callable[[Frame], int]) -> Change:
    def change(request: Frame, reply: Frame) -> bytes:
        payload = struct.pack("<BBHI", code, request.type, 0, expected(request) % 2**16)
        return encode(Frame(ERROR_REPLY, request.session, request.sequence, payload))

    return change


def wrong_length(request: Frame, reply: Frame) -> bytes:
    """The field in the header says more than there is; the CRC is right."""
    header = struct.pack("<BBIHH", 2, reply.type, reply.session, reply.sequence, 65535)
    body = header + reply.payload
    return b"\0" + cobs.encode(body + struct.pack("<I", zlib.crc32(body))) + b"\0"


# ---- without end ----------------------------------------------------------------------------------------------------


ENDLESS: dict[str, tuple[Change, str]] = {
    "no delimiter": (lambda request, reply: b"\x55" * CHUNK_BYTES, "no answer any more"),
    "delimiters": (lambda request, reply: b"\0" * CHUNK_BYTES, "no answer any more"),
    "damaged frames": (lambda request, reply: b"\x55" * 100 + b"\0", "damaged frames only"),
    "other sessions": (lambda request, reply: encode(Frame(reply.type, 7, reply.sequence)), "no answer any more"),
    "requests never sent": (
        lambda request, reply: encode(Frame(reply.type, reply.session, reply.sequence + 100, reply.payload)),
        "no answer any more",
    ),
    "the first reply": (
        lambda request, reply: encode(Frame(Type.HELLO | REPLY, reply.session, 0, bytes(90))),
        "no answer any more",
    ),
    "another type": (
        lambda request, reply: encode(Frame(Type.STACK | REPLY, reply.session, reply.sequence, bytes(8))),
        "no answer any more",
    ),
    "another version": (
        lambda request, reply: encode(Frame(reply.type, reply.session, reply.sequence, reply.payload, version=3)),
        "no answer any more",
    ),
    "echoes": (lambda request, reply: encode(request), "no answer any more"),
    "an earlier one is missing": (error_reply(4, lambda request: request.sequence - 1), "no answer any more"),
}


@pytest.mark.parametrize("what", ENDLESS)
@pytest.mark.parametrize("endless", [True, False], ids=["endless", "once"])
def test_what_is_no_answer_is_not_taken_for_one(case: Case, board: SerialTransport, what: str, endless: bool) -> None:
    change, message = ENDLESS[what]
    line = HostileLine(board, AFTER_HELLO, change, endless)
    tracemalloc.start()
    refuse(case, line, message)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < MOST_BYTES


# ---- replies that do not fit ----------------------------------------------------------------------------------------


NO_REPLY = "not what PROTOCOL.md says"
MISFITS: dict[str, tuple[tuple[Type, ...], Change, str]] = {
    "RESET with a payload": ((Type.RESET,), with_payload(b"\0"), NO_REPLY),
    "an empty reply": (STEPPING, with_payload(b""), NO_REPLY),
    "as long as can be": (STEPPING, with_payload(bytes(65535)), NO_REPLY),
    "a byte too much": (STEPPING, lambda q, r: with_payload(r.payload + b"\0")(q, r), NO_REPLY),
    "a byte too few": (STEPPING, lambda q, r: with_payload(r.payload[:-1])(q, r), NO_REPLY),
    "another count": (STEPPING, lambda q, r: with_payload(b"\x09" + r.payload[1:])(q, r), NO_REPLY),
    "a zero that is none": (STEPPING, lambda q, r: with_payload(r.payload[:2] + b"\1" + r.payload[3:])(q, r), NO_REPLY),
    "the length is another": (STEPPING, wrong_length, "damaged frames only"),
    "ERROR without a payload": (STEPPING, lambda q, r: encode(Frame(ERROR_REPLY, q.session, q.sequence)), NO_REPLY),
    "ERROR of no code": (STEPPING, error_reply(99, lambda request: 0), NO_REPLY),
    "an earlier one, long answered": (STEPPING, error_reply(4, lambda request: request.sequence - 9), "refused"),
    "a later one": (STEPPING, error_reply(4, lambda request: request.sequence + 1), "refused"),
    "reset": (STEPPING, error_reply(2, lambda request: 0), "the board was reset in mid-run"),
    "taken": (STEPPING, error_reply(3, lambda request: 7), "another program has opened a session"),
    "no model": (STEPPING, error_reply(8, lambda request: 0), "no_model"),
}


@pytest.mark.parametrize("what", MISFITS)
@pytest.mark.parametrize("way", [ByOutputs(), ByDigests()], ids=["outputs", "digests"])
def test_replies_that_do_not_fit_end_the_run(case: Case, board: SerialTransport, what: str, way: Way) -> None:
    types, change, message = MISFITS[what]
    refuse(case, HostileLine(board, types, change), message, way)


@pytest.mark.parametrize("payload", [b"", b"\0\0\0\0", b"\0\0\0\0\1", b"\1\0\0\0" + bytes(28), bytes(4 + 2 * 15)])
def test_arrays_that_do_not_fit(case: Case, board: SerialTransport, payload: bytes) -> None:
    """Of u there are 14."""
    line = HostileLine(board, (Type.READ,), with_payload(payload))
    session = Session(line, clock=line.clock)
    session.open(case.model)
    with pytest.raises(DeviceError, match=f"the reply to READ is {NO_REPLY}"):
        session.read_array("u")


def test_ticks_that_do_not_fit(case: Case, board: SerialTransport) -> None:
    """The quickest step took longer than all together."""
    ticks = lambda q, r: with_payload(r.payload[:8] + struct.pack("<IIQ", 5, 9, 4))(q, r)  # noqa: E731
    refuse(case, HostileLine(board, (Type.DIGEST,), ticks), NO_REPLY, ByDigests())


@pytest.mark.parametrize("name", [b"two\nlines", b"\x1b[2J", b"a\0b"], ids=["lines", "escape", "zero"])
def test_a_name_that_would_reach_the_terminal(case: Case, board: SerialTransport, name: bytes) -> None:
    """Ten bytes from 52 on are the name of the target."""
    rename = lambda q, r: with_payload(r.payload[:52] + name.ljust(24, b"\0") + r.payload[76:])(q, r)  # noqa: E731
    refuse(case, HostileLine(board, (Type.HELLO,), rename), f"the reply to HELLO is {NO_REPLY}")


# ---- replies that are wrong -----------------------------------------------------------------------------------------


def test_a_wrong_digest_of_the_model(case: Case, board: SerialTransport) -> None:
    change = lambda q, r: with_payload(r.payload[:20] + bytes(32) + r.payload[52:])(q, r)  # noqa: E731
    refuse(case, HostileLine(board, (Type.HELLO,), change), "another model is on the board: digest 0{64}")


def test_digests_that_are_always_wrong(case: Case, board: SerialTransport) -> None:
    """STEP says that all is right: then the board is not the same each time, which is no pass."""
    change = lambda q, r: with_payload(r.payload[:4] + bytes(4) + r.payload[8:])(q, r)  # noqa: E731
    found = run(case, HostileLine(board, (Type.DIGEST,), change), ByDigests())
    assert not found.equal
    assert (found.first_difference.sequence, found.first_difference.step) == (0, 0)
    assert "does not compute the same each time" in str(found.first_difference)


def test_the_stored_reply_to_every_request(case: Case, board: SerialTransport) -> None:
    """The right numbers of the first step, for ever, under the right header."""
    first: list[bytes] = []

    def change(request: Frame, reply: Frame) -> bytes:
        first.append(reply.payload)
        return with_payload(first[0])(request, reply)

    short = make_case(rows=[[[100, 200, 300]], [[-30000, 5, 20000]], [[1, 2, 3]]])
    found = run(short, HostileLine(board, (Type.STEP,), change))
    assert not found.equal
    assert (found.first_difference.sequence, found.first_difference.step) == (1, 0)
