"""Bytes to and from a port. The only module that knows pyserial."""

from __future__ import annotations

import select
import socket
import time
from types import TracebackType
from typing import Any, Final, Protocol

import serial

from quantgru.errors import DeviceError

BAUD_RATE: Final = 115200
WRITE_TIMEOUT_S: Final = 5.0
_CHUNK_BYTES: Final = 4096
_POLL_S: Final = 0.001  # where a port has no file to wait for
_BITS_PER_BYTE: Final = 10  # start, 8 data, stop


class Transport(Protocol):
    """What a session needs of a line."""

    name: str  # for messages
    byte_s: float  # how long a byte takes, 0 where that is not known

    def write(self, data: bytes) -> None:
        """Sends all of `data`. Raises DeviceError."""

    def read(self, timeout_s: float) -> bytes:
        """What has come in, at the latest after `timeout_s`; b"" if nothing has. Raises DeviceError."""


class SerialTransport:
    """A port given as anything that pyserial opens: /dev/ttyACM0, COM5, socket://host:port, rfc2217://host:port."""

    def __init__(self, url: str, baud_rate: int = BAUD_RATE) -> None:
        """Opens the port. Raises DeviceError if that fails."""
        self.name = url
        self.byte_s = 0.0 if "://" in url else _BITS_PER_BYTE / baud_rate
        try:
            self._port = _open(url, baud_rate)
        except (serial.SerialException, OSError, ValueError, TypeError) as error:  # TypeError: a socket without a port
            raise DeviceError(
                f"port {url}: cannot be opened ({_reason(error)}); check that the board is connected and that no other "
                "program has the port"
            ) from None
        self._can_select = _has_file(self._port)
        connection = getattr(self._port, "_socket", None)
        if connection is not None:  # a frame goes at once, even if the one before it is not confirmed yet
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def write(self, data: bytes) -> None:
        try:
            self._port.write(data)
        except (serial.SerialException, OSError) as error:
            raise self._lost(error) from None

    def read(self, timeout_s: float) -> bytes:
        deadline = time.monotonic() + timeout_s
        try:
            data = bytes(self._port.read(_CHUNK_BYTES))
            while not data:
                left = deadline - time.monotonic()
                if left <= 0:
                    return b""
                if self._can_select:
                    select.select([self._port.fileno()], [], [], left)
                else:
                    time.sleep(min(left, _POLL_S))
                data = bytes(self._port.read(_CHUNK_BYTES))
        except (serial.SerialException, OSError) as error:
            raise self._lost(error) from None
        return data

    def close(self) -> None:
        connection = getattr(self._port, "_socket", None)
        self._port.close()
        if connection is not None:  # pyserial 3.5 leaves it open if the other end is gone
            connection.close()

    def __enter__(self) -> SerialTransport:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _lost(self, error: Exception) -> DeviceError:
        return DeviceError(
            f"port {self.name}: connection lost ({_reason(error)}); check cable and power, then run again"
        )


def _open(url: str, baud_rate: int) -> Any:
    port = serial.serial_for_url(url, baud_rate, timeout=0, write_timeout=WRITE_TIMEOUT_S, do_not_open=True)
    # Before opening, so that the lines do not toggle: both asserted is "run" on boards whose reset hangs on them, and
    # "the host listens" on boards with USB of their own.
    port.dtr = True
    port.rts = True
    if "://" not in url:
        port.exclusive = True
    port.open()
    return port


def _has_file(port: Any) -> bool:
    try:
        select.select([port.fileno()], [], [], 0)
    except (AttributeError, OSError, ValueError):
        return False
    return True


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
