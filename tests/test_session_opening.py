"""What a session finds behind a port instead of its board: it says so soon, and takes it for no board."""

import os
import random
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hil_boards import PATIENCE, build_model, running
from hil_faults import Clock, FaultyLine, flip_bit
from hil_models import Case, make_case

from quantgru.errors import DeviceError
from quantgru.hil.frames import Frame, FrameReader, encode
from quantgru.hil.link import Patience
from quantgru.hil.session import Session
from quantgru.hil.transport import SerialTransport


@pytest.fixture(scope="module")
def case() -> Case:
    return make_case(lengths=(5, 1, 3))


@pytest.fixture
def line(case: Case) -> Iterator[SerialTransport]:
    with running(build_model(case.model)) as transport:
        yield transport


class ScriptedLine:
    """Answers each request with what `answer` makes of it."""

    name = "scripted"
    byte_s = 0.0

    def __init__(self, answer, clock: Clock) -> None:
        self._answer, self._clock, self._out = answer, clock, b""
        self._reader = FrameReader()

    def write(self, data: bytes) -> None:
        for frame in self._reader.feed(data):
            self._out += self._answer(frame)

    def read(self, timeout_s: float) -> bytes:
        out, self._out = self._out, b""
        self._clock.now += 0.001 if out else timeout_s
        return out


def refuse_to_open(case: Case, answer, message: str) -> None:
    clock = Clock()
    with pytest.raises(DeviceError, match=message) as caught:
        Session(ScriptedLine(answer, clock), clock=clock).open(case.model)
    assert "\n" not in str(caught.value)
    assert clock.now <= 4.7


def test_a_silent_port_is_found_within_a_few_seconds(case):
    refuse_to_open(case, lambda frame: b"", r"the board is silent \(4.5 s\); check port.* --timeout")


def test_a_line_that_damages_many_replies_opens(case, line):
    """The first wait may be for a board that starts; from then on, a damaged reply is asked for again at once."""
    clock = Clock()
    damages = FaultyLine(line, clock, replies=dict.fromkeys(range(12), flip_bit))
    Session(damages, clock=clock).open(case.model)
    assert clock.now < Patience().hello_first_s + 11 * 0.03


def test_an_echo_is_no_board(case):
    refuse_to_open(case, encode, "bytes came in, but no answer.*check the baud rate")


def test_garbage_is_no_board(case):
    rng = random.Random(4)
    refuse_to_open(case, lambda frame: rng.randbytes(300), "bytes came in, but no answer")


def test_answers_to_others_are_no_answer(case):
    answer = lambda frame: encode(Frame(0x81, frame.session ^ 1, frame.sequence, bytes(90)))  # noqa: E731
    refuse_to_open(case, answer, "bytes came in, but no answer")


@pytest.mark.parametrize("payload", [b"", bytes(90), bytes([255]) * 90, bytes(91)], ids=["empty", "0", "255", "long"])
def test_a_description_that_makes_no_sense(case, payload):
    answer = lambda frame: encode(Frame(0x81, frame.session, frame.sequence, payload))  # noqa: E731
    refuse_to_open(case, answer, "the reply to HELLO is not what PROTOCOL.md says")


@pytest.mark.parametrize("n_bytes", [0, 20, 27])
def test_buffers_that_hold_no_step_of_any_model(case, n_bytes):
    """Of a board without a model, which has room for one."""
    sizes = struct.pack("<BBBBI6H", 1, 1, 1, 0, 0, n_bytes, n_bytes, 0, 0, 0, 0)
    payload = sizes + bytes(32) + b"board".ljust(24, b"\0") + struct.pack("<IIIH", 4096, 0, 0, 0)
    answer = lambda frame: encode(Frame(0x81, frame.session, frame.sequence, payload))  # noqa: E731
    refuse_to_open(case, answer, f"HELLO is not what PROTOCOL.md says.* buffers of {n_bytes} and {n_bytes}")


def test_another_protocol_version(case):
    payload = bytes([1, 1, 0, 0, 9, 0, 0, 0])
    answer = lambda frame: encode(Frame(0xFF, frame.session, frame.sequence, payload, version=9))  # noqa: E731
    refuse_to_open(case, answer, "the board speaks protocol 9, this program 2")


def test_another_model_shows_both_digests(case, line):
    other = make_case(seed=4).model
    with pytest.raises(DeviceError) as caught:
        Session(line, PATIENCE).open(other)
    for part in (case.model.digest.hex(), other.digest.hex(), "SPEC 1.1", "another model"):
        assert part in str(caught.value)


@contextmanager
def pty_that_says(chunk: bytes) -> Iterator[str]:
    """A port that repeats `chunk` for ever, or is silent."""
    master, slave = os.openpty()
    os.set_blocking(master, False)
    over = threading.Event()

    def talk() -> None:
        while not over.wait(0.01):
            try:
                os.write(master, chunk)
            except BlockingIOError:
                continue

    thread = threading.Thread(target=talk)
    thread.start()
    try:
        yield os.ttyname(slave)
    finally:
        over.set()
        thread.join()
        os.close(master)
        os.close(slave)


@pytest.mark.parametrize(
    ("chunk", "message"),
    [(b"", "silent"), (b"\x13garbage\0", "no answer"), (b"no end", "no answer")],
    ids=["silent", "garbage", "endless"],
)
def test_ports_with_something_else(case, chunk, message):
    start = time.monotonic()
    patience = Patience(hello_first_s=0.3, hello_s=0.1, hello_attempts=5)
    with pty_that_says(chunk) as path, SerialTransport(path) as transport, pytest.raises(DeviceError, match=message):
        Session(transport, patience).open(case.model)
    assert time.monotonic() - start < 3


# ---- ports ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["/dev/null", "socket://127.0.0.1:9", "nonsense://x", "socket://", ""])
def test_a_port_that_cannot_be_opened(url):
    with pytest.raises(DeviceError, match="cannot be opened") as caught:
        SerialTransport(url)
    assert "\n" not in str(caught.value)


def test_a_port_that_is_taken(line, monkeypatch):
    monkeypatch.setattr("quantgru.hil.transport.APPEARANCE_S", 0.1)
    with pytest.raises(DeviceError, match="taken by another program"):
        SerialTransport(line.name)
