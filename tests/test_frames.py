"""Frames: whole, in pieces, damaged; Python's against those of the firmware."""

import ctypes
import random
import subprocess
import zlib

import numpy as np
import oracle
import pytest
from cobs import cobs
from hil_boards import board_or_skip, build_edited, build_model, build_sanitized, running, without_timer
from hil_models import make_case
from hypothesis import given
from hypothesis import strategies as st
from strategies import from_oracle

from quantgru.firmware_files import firmware_directory
from quantgru.hil.frames import OVERHEAD_BYTES, Frame, FrameReader, encode
from quantgru.hil.messages import (
    ERROR_REPLY,
    Read,
    Refusal,
    Reset,
    Step,
    Type,
    pack_request,
    unpack_error,
    unpack_steps,
)
from quantgru.hil.transport import SerialTransport

FRAME = Frame(3, 0x12345678, 258, bytes([0, 1, 0, 255, 0]))
PAYLOADS = st.one_of(
    st.binary(max_size=40), st.integers(230, 530).map(lambda n: bytes([7]) * n), st.binary(max_size=900)
)
FRAMES = st.builds(Frame, st.integers(0, 255), st.integers(0, 2**32 - 1), st.integers(0, 2**16 - 1), PAYLOADS)


@given(FRAMES)
def test_a_frame_comes_back(frame):
    assert FrameReader().feed(encode(frame)) == [frame]


@given(st.lists(FRAMES, max_size=4), st.binary(max_size=30))
def test_byte_by_byte_is_the_same_as_whole(frames, trailing):
    wire = b"".join(map(encode, frames)) + trailing.replace(b"\0", b"")
    reader = FrameReader()
    assert [frame for byte in wire for frame in reader.feed(bytes([byte]))] == frames
    assert FrameReader().feed(wire) == frames


@pytest.mark.parametrize("n_bytes", range(1, len(encode(FRAME)) - 1))
def test_a_truncated_frame_is_nothing_and_the_next_one_is_whole(n_bytes):
    reader = FrameReader()
    assert reader.feed(encode(FRAME)[:n_bytes]) == []
    assert reader.feed(encode(FRAME)) == [FRAME]


@pytest.mark.parametrize("bit", range(8 * len(encode(FRAME))))
def test_a_flipped_bit_is_never_another_frame(bit):
    wire = bytearray(encode(FRAME))
    wire[bit // 8] ^= 1 << bit % 8
    reader = FrameReader()
    frames = reader.feed(bytes(wire) + encode(FRAME))
    assert set(frames) == {FRAME}
    assert len(frames) + reader.damaged >= 1


def test_garbage_is_counted_and_does_not_hide_the_next_frame():
    reader = FrameReader()
    garbage = random.Random(1).randbytes(500)
    assert reader.feed(garbage + encode(FRAME)) == [FRAME]
    assert reader.damaged > 0


def test_a_frame_without_end_does_not_fill_the_memory():
    reader = FrameReader()
    for _ in range(300):
        assert reader.feed(b"\x01" * 1000) == []
    assert len(reader._pending) < 2**17
    assert reader.feed(b"\0" + encode(FRAME)) == [FRAME]
    assert reader.damaged == 1


def test_a_length_that_is_not_the_payloads_is_damage():
    body = bytes([1, 3, 0, 0, 0, 0, 0, 0, 9, 0])
    wire = cobs.encode(body + zlib.crc32(body).to_bytes(4, "little")) + b"\0"
    reader = FrameReader()
    assert reader.feed(wire) == []
    assert reader.damaged == 1


# ---- frames.c through ctypes ---------------------------------------------------------------------------------------

BUFFER_BYTES = 1024

STUB = f"""
#include "frames.h"
#include "port.h"
#include <string.h>
static uint8_t sent[4096]; static uint16_t n_sent;
static uint8_t buffer[{BUFFER_BYTES}]; static frame_decoder decoder;
void port_write(const uint8_t *bytes, uint16_t n)
{{ memcpy(sent + n_sent, bytes, n); n_sent = (uint16_t)(n_sent + n); }}
void start(void) {{ frame_decoder_init(&decoder, buffer, sizeof buffer); }}
uint16_t take(uint8_t byte, uint8_t *frame)
{{ const uint16_t n = frame_decoder_take(&decoder, byte); memcpy(frame, buffer, n); return n; }}
uint16_t seal_and_send(uint8_t *frame, uint16_t payload_bytes, uint8_t *wire)
{{ n_sent = 0; frame_send(frame, frame_seal(frame, payload_bytes)); memcpy(wire, sent, n_sent); return n_sent; }}
"""


@pytest.fixture(scope="module")
def c_frames(tmp_path_factory):
    board_or_skip("host")
    directory, firmware = tmp_path_factory.mktemp("frames"), firmware_directory()
    (directory / "stub.c").write_text(STUB)
    folders = [firmware / "include", firmware / "harness", firmware / "ports" / "host"]
    sources = [directory / "stub.c", firmware / "harness" / "frames.c", firmware / "src" / "qg_check.c"]
    sources.append(firmware / "src" / "qg_model.c")  # what the self-test beside the CRC calls
    sources += [firmware / "src" / f"qg_{part}.c" for part in ("gru", "dense", "affine", "dot", "activations")]
    command = ["gcc", "-std=c99", "-O1", "-fsanitize=undefined", "-shared", "-fPIC", *map(str, sources)]
    subprocess.run([*command, *(f"-I{f}" for f in folders), "-o", str(directory / "frames.so")], check=True)
    library = ctypes.CDLL(str(directory / "frames.so"))
    for function in (library.take, library.seal_and_send):
        function.restype = ctypes.c_uint16
    return library


def c_decode(library: ctypes.CDLL, wire: bytes) -> list[bytes]:
    """The whole frames that the firmware's decoder finds."""
    library.start()
    buffer = ctypes.create_string_buffer(BUFFER_BYTES)
    lengths = (library.take(ctypes.c_uint8(byte), buffer) for byte in wire)
    return [buffer.raw[:n] for n in lengths if n]


def c_encode(library: ctypes.CDLL, frame: Frame) -> bytes:
    raw = ctypes.create_string_buffer(BUFFER_BYTES)
    head = (
        bytes([frame.version, frame.type]) + frame.session.to_bytes(4, "little") + frame.sequence.to_bytes(2, "little")
    )
    raw[: OVERHEAD_BYTES - 4 + len(frame.payload)] = head + b"\0\0" + frame.payload
    wire = ctypes.create_string_buffer(4096)
    n = library.seal_and_send(raw, len(frame.payload), wire)
    return wire.raw[:n]


@given(frames=st.lists(FRAMES, max_size=3), garbage=st.binary(max_size=60))
def test_the_firmware_reads_what_python_writes(c_frames, frames, garbage):
    found = c_decode(c_frames, garbage + b"\0" + b"".join(map(encode, frames)))
    assert [frame[OVERHEAD_BYTES - 4 : -4] for frame in found] == [frame.payload for frame in frames]


@given(frame=FRAMES)
def test_python_reads_what_the_firmware_writes(c_frames, frame):
    assert FrameReader().feed(c_encode(c_frames, frame)) == [frame]


@pytest.mark.parametrize("payload_bytes", [BUFFER_BYTES - OVERHEAD_BYTES, BUFFER_BYTES - OVERHEAD_BYTES + 1, 5000])
def test_the_firmware_drops_a_frame_that_is_longer_than_its_buffer(c_frames, payload_bytes):
    fits = payload_bytes + OVERHEAD_BYTES <= BUFFER_BYTES
    wire = encode(Frame(3, 1, 1, bytes([1]) * payload_bytes)) + encode(FRAME)
    assert len(c_decode(c_frames, wire)) == 1 + fits


@given(wire=st.binary(max_size=2000))
def test_the_firmware_takes_any_bytes(c_frames, wire):
    c_decode(c_frames, wire)
    assert len(c_decode(c_frames, wire + b"\0" + encode(FRAME))) >= 1


# ---- through the real firmware -------------------------------------------------------------------------------------

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
    assert refusal(line, Frame(Type.RESET, SESSION, 1, version=2)) == (Refusal.VERSION, Type.RESET, 1)
    assert refusal(line, Frame(Type.RESET, SESSION + 1, 1)) == (Refusal.OTHER_SESSION, Type.RESET, SESSION)
    assert refusal(line, Frame(Type.RESET, SESSION, 2)) == (Refusal.SEQUENCE, Type.RESET, 1)
    assert refusal(line, Frame(Type.RESET, SESSION, 0)) == (Refusal.SEQUENCE, Type.RESET, 1)  # no repeat of HELLO
    assert refusal(line, Frame(5, SESSION, 1)) == (Refusal.TYPE, 5, Type.READ)
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
    hello(line)
    ask(line, request(1, Step(case.inputs[0][:1])))
    assert refusal(line, Frame(Type.HELLO, SESSION, 0)) == (Refusal.SEQUENCE, Type.HELLO, 2)
    answered = ask(line, request(2, Step(case.inputs[0][1:2])))[0]
    steps = unpack_steps(answered.payload, Step(case.inputs[0][:1]), case.model.n_outputs)
    assert steps.checks[0] == case.expected.checks[0][1]


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
