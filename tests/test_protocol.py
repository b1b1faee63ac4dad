"""The firmware's side of PROTOCOL.md, frame by frame: what it executes, what it refuses, what it says again."""

import random
import struct
import zlib

import numpy as np
import oracle
import pytest
from hil_boards import build_edited, build_model, build_sanitized, running, without_timer
from hil_models import make_case, run_steps
from strategies import from_oracle

from quantgru.firmware_files import firmware_directory
from quantgru.hil.frames import Frame, FrameReader, encode
from quantgru.hil.generator import Generator
from quantgru.hil.messages import ERROR_REPLY, Refusal, unpack_error, unpack_steps, unpack_summary, unpack_time
from quantgru.hil.requests import Digest, Read, Reset, Seed, Step, Time, Type, pack_request
from quantgru.hil.transport import SerialTransport

SESSION = 0x12345678


@pytest.fixture(scope="module")
def case():
    return make_case(lengths=(4,))


@pytest.fixture
def line(case):
    with running(build_model(case.model)) as transport:
        yield transport


def ask(line: SerialTransport, wire: bytes, n: int = 1) -> list[Frame]:
    """Sends bytes and collects n frames, or as many as come."""
    reader, frames = FrameReader(), []
    line.write(wire)
    while len(frames) < n and (data := line.read(1.0)):
        frames += reader.feed(data)
    assert reader.damaged == 0
    return frames


def request(sequence: int, what: object, session: int = SESSION) -> bytes:
    type_, payload = pack_request(what)
    return encode(Frame(type_, session, sequence, payload))


def hello(line: SerialTransport, session: int = SESSION) -> Frame:
    return ask(line, encode(Frame(Type.HELLO, session, 0)))[0]


def refusal(line: SerialTransport, frame: Frame) -> tuple[Refusal, int, int]:
    """Code, type of the request and expected value of the ERROR reply to a frame."""
    (reply,) = ask(line, encode(frame))
    assert (reply.type, reply.session, reply.sequence) == (ERROR_REPLY, frame.session, frame.sequence)
    error = unpack_error(reply.payload)
    return error.code, error.request_type, error.expected


def test_damaged_frames_are_not_answered_and_not_executed(line, case):
    hello(line)
    step = Step(case.inputs[0][:1])
    good = request(1, step)
    for bit in range(8, 8 * (len(good) - 1)):  # all but the delimiters
        wire = bytearray(good)
        wire[bit // 8] ^= 1 << bit % 8
        line.write(bytes(wire))
    for n in range(1, len(good) - 1):
        line.write(good[:n])
    (reply,) = ask(line, good)
    answered = unpack_steps(reply.payload, step, case.model.n_outputs)
    assert answered.checks[0] == case.expected.checks[0][0]


def test_byte_by_byte_and_with_trailing_bytes(line):
    for byte in encode(Frame(Type.HELLO, SESSION, 0)):
        line.write(bytes([byte]))
    assert ask(line, b"\x05trailing")[0].type == 0x81
    assert ask(line, request(1, Step(make_case(lengths=(1,)).inputs[0])))[0].type == 0x83


def test_a_repeated_request_is_answered_again_and_not_executed(line, case):
    hello(line)
    first, second = (request(i + 1, Step(case.inputs[0][i : i + 1])) for i in range(2))
    replies = ask(line, first * 3, 3)
    assert replies[0] == replies[1] == replies[2]
    answered = unpack_steps(ask(line, second)[0].payload, Step(case.inputs[0][:1]), case.model.n_outputs)
    assert answered.checks[0] == case.expected.checks[0][1]


def test_a_refused_request_leaves_the_stored_reply(line, case):
    hello(line)
    first = request(1, Step(case.inputs[0][:1]))
    (reply,) = ask(line, first)
    assert refusal(line, Frame(Type.RESET, SESSION, 7)) == (Refusal.SEQUENCE, Type.RESET, 2)
    assert ask(line, first) == [reply]


def test_what_the_board_refuses(line, case):
    assert refusal(line, Frame(Type.RESET, SESSION, 0)) == (Refusal.NO_SESSION, Type.RESET, 0)
    assert refusal(line, Frame(Type.HELLO, 0, 0)) == (Refusal.ARGUMENT, Type.HELLO, 1)
    assert refusal(line, Frame(Type.HELLO, SESSION, 5)) == (Refusal.SEQUENCE, Type.HELLO, 0)
    assert refusal(line, Frame(Type.HELLO, SESSION, 0, b"x")) == (Refusal.LENGTH, Type.HELLO, 0)
    hello(line)
    assert refusal(line, Frame(Type.RESET, SESSION, 1, version=1)) == (Refusal.VERSION, Type.RESET, 2)
    assert refusal(line, Frame(Type.RESET, SESSION + 1, 1)) == (Refusal.OTHER_SESSION, Type.RESET, SESSION)
    assert refusal(line, Frame(Type.RESET, SESSION, 2)) == (Refusal.SEQUENCE, Type.RESET, 1)
    assert refusal(line, Frame(Type.RESET, SESSION, 0)) == (Refusal.SEQUENCE, Type.RESET, 1)  # no repeat of HELLO
    for unknown in (0, Type.WRITE, Type.LOAD, Type.INPUTS, Type.RUN, Type.OUTPUTS, 99):
        assert refusal(line, Frame(unknown, SESSION, 1)) == (Refusal.TYPE, unknown, Type.TIME)
    assert refusal(line, Frame(Type.RESET, SESSION, 1, b"x")) == (Refusal.LENGTH, Type.RESET, 0)
    n_units, n_inputs = case.model.n_units, case.model.n_inputs
    for payload, code, expected in [
        (b"\0", Refusal.LENGTH, 4),
        (b"\0\0\0\0", Refusal.ARGUMENT, (2048 - 18) // (8 + 2 * case.model.n_outputs)),
        (b"\1\0\1\0" + bytes(2 * n_inputs), Refusal.ARGUMENT, 0),
        (b"\2\0\0\0" + bytes(2 * n_inputs), Refusal.LENGTH, 4 + 4 * n_inputs),
    ]:
        assert refusal(line, Frame(Type.STEP, SESSION, 1, payload)) == (code, Type.STEP, expected)
    for payload, code, expected in [
        (b"\0\0", Refusal.LENGTH, 4),
        (b"\5\0\0\0", Refusal.ARGUMENT, 4),
        (b"\0\1\0\0", Refusal.ARGUMENT, 0),
        (b"\0\0" + n_units.to_bytes(2, "little"), Refusal.ARGUMENT, n_units - 1),
    ]:
        assert refusal(line, Frame(Type.READ, SESSION, 1, payload)) == (code, Type.READ, expected)
    assert ask(line, encode(Frame(Type.RESET, SESSION, 1)))[0].type == 0x82  # after all that, the session goes on


def test_a_late_hello_does_not_rewind_the_session(line, case):
    """Whether its reply is still kept, as are four, or not any more."""
    first = hello(line)
    ask(line, request(1, Step(case.inputs[0][:1])))
    assert hello(line) == first
    for number in range(2, 5):
        ask(line, request(number, Read("h", 0)))
    assert refusal(line, Frame(Type.HELLO, SESSION, 0)) == (Refusal.SEQUENCE, Type.HELLO, 5)
    answered = ask(line, request(5, Step(case.inputs[0][1:2])))[0]
    steps = unpack_steps(answered.payload, Step(case.inputs[0][:1]), case.model.n_outputs)
    assert steps.checks[0] == case.expected.checks[0][1]


def test_as_many_replies_are_kept_as_there_is_credit(line, case):
    hello(line)
    requests = [request(i + 1, Step(case.inputs[0][i : i + 1])) for i in range(4)] + [request(5, Reset())]
    replies = [ask(line, wire)[0] for wire in requests]
    assert [ask(line, wire)[0] for wire in requests[1:]] == replies[1:]
    assert refusal(line, Frame(*pack_and_number(requests[0]))) == (Refusal.SEQUENCE, Type.STEP, 6)


def pack_and_number(wire: bytes) -> tuple[int, int, int, bytes]:
    (frame,) = FrameReader().feed(wire)
    return frame.type, frame.session, frame.sequence, frame.payload


def test_a_digest_is_that_of_the_check_values(line, case):
    hello(line)
    (reply,) = ask(line, request(1, Digest(case.inputs[0])))
    summary = unpack_summary(reply.payload, 4)
    assert summary.digest == zlib.crc32(struct.pack("<4I", *case.expected.checks[0]))
    assert 0 < summary.least_ticks <= summary.total_ticks / 4 <= summary.most_ticks


def test_the_outputs_are_timed_without_a_change(line, case):
    hello(line)
    ask(line, request(1, Step(case.inputs[0][:1])))
    (reply,) = ask(line, request(2, Time()))
    assert unpack_time(reply.payload) > 0
    (reply,) = ask(line, request(3, Step(case.inputs[0][1:2])))
    steps = unpack_steps(reply.payload, Step(case.inputs[0][1:2]), case.model.n_outputs)
    assert steps.checks[0] == case.expected.checks[0][1]
    assert refusal(line, Frame(Type.TIME, SESSION, 4, b"x")) == (Refusal.LENGTH, Type.TIME, 0)


@pytest.mark.parametrize(("shift", "index"), [(0, 0), (15, 0), (3, 12), (7, 2**32 - 3)])
def test_inputs_that_the_board_generates(line, case, shift, index):
    """As PROTOCOL.md computes them, in Python's integers; index - 1 to index + 11, modulo 2^32."""
    hello(line)
    values = [generated(0xDEADBEEF, (index + i) % 2**32, shift) for i in range(4 * 3)]
    (reply,) = ask(line, request(1, Seed(4, Generator(0xDEADBEEF, shift), index)))
    steps = run_steps(case.oracle_model, [values[i : i + 3] for i in range(0, 12, 3)])
    expected = zlib.crc32(struct.pack("<4I", *(step.check for step in steps)))
    assert unpack_summary(reply.payload, 4).digest == expected


def generated(seed: int, k: int, shift: int) -> int:
    z = (seed + (k + 1) * 0x9E3779B9) % 2**32
    z = ((z ^ (z >> 16)) * 0x85EBCA6B) % 2**32
    z = ((z ^ (z >> 13)) * 0xC2B2AE35) % 2**32
    high = z >> 16
    return (high - 2**16 if high >= 2**15 else high) >> shift


@pytest.mark.parametrize("shift", [0, 4, 15])
def test_the_generator_of_the_host(shift):
    expected = [generated(2**32 - 5, k, shift) for k in range(1000)]
    assert Generator(2**32 - 5, shift).inputs(500, 2).ravel().tolist() == expected


def test_replies_are_never_answered(line):
    line.write(encode(Frame(0x81, SESSION, 0)) + encode(Frame(0xFF, SESSION, 0)))
    assert hello(line).type == 0x81


def test_sequence_numbers_wrap(line):
    hello(line)
    reader = FrameReader()
    n_frames = 0
    for start in range(1, 2**16 + 3, 64):
        numbers = range(start, min(start + 64, 2**16 + 3))
        line.write(b"".join(encode(Frame(Type.RESET, SESSION, number % 2**16)) for number in numbers))
        expected = n_frames + len(numbers)
        while n_frames < expected:
            data = line.read(5.0)
            assert data
            frames = reader.feed(data)
            assert all(frame.type == 0x82 for frame in frames)
            n_frames += len(frames)


def test_hostile_frames_do_no_harm(case):
    """Under sanitizers: frames with a right CRC and anything inside, and bytes that are no frames."""
    rng = random.Random(6)
    with running(build_sanitized(case.model)) as line:
        hello(line)
        for sequence in range(1, 300):
            payload = rng.randbytes(rng.choice((0, 1, 3, 4, 5, 10, 40)))
            if rng.random() < 0.5:  # a plausible head, so that it gets further
                payload = bytes([rng.randrange(6), 0]) + payload[2:]
            frame = Frame(rng.choice((1, 2, 3, 4, 5, 99)), SESSION, rng.choice((1, sequence)), payload)
            line.write(encode(frame) + rng.randbytes(rng.randrange(20)))
            line.read(0.001)
        line.write(b"\0")
        while line.read(0.1):
            pass
        assert hello(line, SESSION + 1).type == 0x81


# ---- PROTOCOL.md ---------------------------------------------------------------------------------------------------

EXAMPLE_WEIGHTS = oracle.Matrix(((100,), (-50,), (25,)), (20000,) * 3, (2,) * 3, 0)
EXAMPLE_MODEL = oracle.Model(
    (12,), 0, (oracle.Gru(oracle.RESET_AFTER, EXAMPLE_WEIGHTS, EXAMPLE_WEIGHTS, (0, 100, -200), (300,)),), ()
)


def example_exchange(line: SerialTransport) -> str:
    """The example of PROTOCOL.md: each frame on the wire, with its name."""
    steps = request(2, Step(np.array([[4096], [-2048]], np.int16)))
    exchange = [
        ("HELLO", encode(Frame(Type.HELLO, SESSION, 0))),
        ("RESET", request(1, Reset())),
        ("STEP, two steps: 1.0 and -0.5 at 12 fraction bits", steps),
        ("the same again", steps),
        ("READ h from 0", request(3, Read("h", 0))),
        ("RESET with number 7", request(7, Reset())),
    ]
    lines = []
    for name, wire in exchange:
        (reply,) = ask(line, wire)
        lines += wrapped(">", name, wire) + wrapped("<", f"{reply.type:#04x}", encode(reply))
    return "\n".join(lines)


def wrapped(direction: str, name: str, wire: bytes) -> list[str]:
    rows = [wire[i : i + 32].hex(" ") for i in range(0, len(wire), 32)]
    return [f"{direction} {name}", *(f"    {row}" for row in rows)]


def test_the_example_in_the_protocol_is_what_the_firmware_says():
    with running(build_edited(from_oracle(EXAMPLE_MODEL), without_timer)) as transport:
        assert example_exchange(transport) in (firmware_directory() / "PROTOCOL.md").read_text(encoding="utf-8")
