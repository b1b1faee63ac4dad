"""Frames: whole, in pieces, damaged; Python's against those of the firmware."""

import ctypes
import random
import subprocess
import zlib

import pytest
from cobs import cobs
from hil_boards import board_or_skip
from hypothesis import given
from hypothesis import strategies as st

from quantgru.firmware_files import firmware_directory
from quantgru.hil.frames import OVERHEAD_BYTES, Frame, FrameReader, encode

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
