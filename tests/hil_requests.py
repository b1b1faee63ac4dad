"""Requests to a board one by one, without a session's care."""

from quantgru.hil.frames import Frame, FrameReader, encode
from quantgru.hil.messages import ERROR_REPLY, Refusal, unpack_error
from quantgru.hil.requests import Type
from quantgru.hil.transport import SerialTransport

SESSION = 0x12345678


class Requests:
    """Frame by frame, numbered from HELLO on."""

    def __init__(self, line: SerialTransport) -> None:
        self._line, self._number = line, 0
        self.ask(Type.HELLO, b"")

    def ask(self, type_: int, payload: bytes) -> Frame:
        self._line.write(encode(Frame(type_, SESSION, self._number, payload)))
        reader, frames = FrameReader(), []
        while not frames:
            frames = reader.feed(self._line.read(2.0))
        if frames[0].type != ERROR_REPLY:
            self._number += 1
        return frames[0]

    def refusal(self, type_: int, payload: bytes) -> tuple[Refusal, int]:
        reply = self.ask(type_, payload)
        assert reply.type == ERROR_REPLY
        error = unpack_error(reply.payload)
        return error.code, error.expected
