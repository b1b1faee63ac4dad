"""Frames on the wire, bytes to frames and back (firmware/PROTOCOL.md, chapter 2). No input or output, no clock."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Final

from cobs import cobs

PROTOCOL_VERSION: Final = 2
MAX_PAYLOAD_BYTES: Final = 2**16 - 1

_HEADER: Final = struct.Struct("<BBIHH")  # version, type, session, sequence, payload length
_CRC: Final = struct.Struct("<I")
OVERHEAD_BYTES: Final = _HEADER.size + _CRC.size
# What a frame can grow to on the wire: one COBS code for each 254 bytes begun.
_MAX_ENCODED_BYTES: Final = (MAX_PAYLOAD_BYTES + OVERHEAD_BYTES) * 255 // 254 + 1


@dataclass(frozen=True)
class Frame:
    """A frame whose CRC is right. The type, and what the payload holds, are the business of `messages`."""

    type: int
    session: int
    sequence: int
    payload: bytes = b""
    version: int = PROTOCOL_VERSION


def encode(frame: Frame) -> bytes:
    """The bytes on the wire: a delimiter, which ends whatever noise came before, COBS, a delimiter."""
    header = _HEADER.pack(frame.version, frame.type, frame.session, frame.sequence, len(frame.payload))
    body = header + frame.payload
    return b"\0" + bytes(cobs.encode(body + _CRC.pack(zlib.crc32(body)))) + b"\0"


def decode(encoded: bytes) -> Frame | None:
    """The frame between two delimiters, or None if it is damaged."""
    try:
        decoded = bytes(cobs.decode(encoded))
    except cobs.DecodeError:
        return None
    if len(decoded) < OVERHEAD_BYTES:
        return None
    body, crc = decoded[: -_CRC.size], decoded[-_CRC.size :]
    version, type_, session, sequence, length = _HEADER.unpack_from(body)
    payload = body[_HEADER.size :]
    if _CRC.pack(zlib.crc32(body)) != crc or length != len(payload):
        return None
    return Frame(type_, session, sequence, payload, version)


class FrameReader:
    """Collects bytes, hands out whole frames, and counts the damaged ones. Never holds more than the longest frame."""

    def __init__(self) -> None:
        self.damaged = 0
        self._pending = b""
        self._overlong = False

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes."""
        *pieces, pending = (self._pending + data).split(b"\0")
        frames = []
        for piece in pieces:
            frame = None if self._overlong or len(piece) > _MAX_ENCODED_BYTES else decode(piece)
            if frame is not None:
                frames.append(frame)
            elif piece or self._overlong:
                self.damaged += 1
            self._overlong = False
        self._overlong = self._overlong or len(pending) > _MAX_ENCODED_BYTES
        self._pending = b"" if self._overlong else pending
        return frames
