"""Bytes to and from a port. The only module that knows pyserial."""

from __future__ import annotations

import errno
import re
import select
import socket
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import serial
from serial.tools import list_ports

from quantgru.errors import DeviceError

BAUD_RATE: Final = 115200
# The slowest at which a frame comes without gaps that look like losses; what the fastest chips for USB can do.
BAUD_RATES: Final = range(9600, 12_000_000 + 1)
WRITE_TIMEOUT_S: Final = 5.0
APPEARANCE_S: Final = 5.0  # how long a port may take to appear, or to be free
_QUIET_S: Final = 2.0  # longer than a bootloader waits for its first byte
_CHUNK_BYTES: Final = 4096
_POLL_S: Final = 0.01  # of ports that have no file to wait for
_APPEARANCE_POLL_S: Final = 0.05
_BITS_PER_BYTE: Final = 10  # start, 8 data, stop

# What may pass by itself while a board appears: nodes without a device, or not yet with their group; a modem manager
# that looks what it is; the run before this one, not yet at its end.
_PASSING: Final = {
    *(errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.EIO, errno.EACCES, errno.EPERM),
    *(errno.EBUSY, errno.EAGAIN),
}
# Of a COM port, pyserial gives no errno, but the repr of what Windows said. It denies access to whoever comes second.
_OF_COM_PORTS: Final = {"FileNotFoundError(": errno.ENOENT, "PermissionError(": errno.EBUSY}
# What pyserial says of a port that reads as a file at its end, or that the system has given up.
_VANISHED: Final = ("returned no data", f"[Errno {errno.EIO}]")
_FAILURES: Final = (serial.SerialException, OSError, ValueError, re.error)
_SERVERS: Final = ("socket", "rfc2217")  # schemes of ports behind a network
_FORMS: Final = "a name such as /dev/ttyACM0 or COM5, hwgrep://VID:PID, socket://HOST:PORT or rfc2217://HOST:PORT"


class Transport(Protocol):
    """What a session needs of a line."""

    name: str  # for messages
    byte_s: float  # how long a byte takes

    def write(self, data: bytes) -> None:
        """Sends all of `data`. Raises DeviceError."""

    def read(self, timeout_s: float) -> bytes:
        """What has come in, at the latest after `timeout_s`; b"" if nothing has. Raises DeviceError."""


class PortVanishedError(DeviceError):
    """A port of this machine that was open, and broke: boards with USB of their own come back after a reset."""


class SerialTransport:
    """A port given as anything that pyserial opens: /dev/ttyACM0, COM5, hwgrep://2341:0043, socket://host:port,
    rfc2217://host:port."""

    def __init__(self, url: str, baud_rate: int = BAUD_RATE) -> None:
        """Opens the port, and waits APPEARANCE_S for one of this machine that is not there. Raises DeviceError."""
        self.name = url
        self.byte_s = _BITS_PER_BYTE / baud_rate  # also behind a network
        self._port = _open_when_there(url, baud_rate) if _is_local(url) else _open_remote(url, baud_rate)
        self._can_select = _has_file(self._port)
        if not self._can_select:
            self._port.timeout = _POLL_S

    def write(self, data: bytes) -> None:
        try:
            self._port.write(data)
        except (serial.SerialException, OSError) as error:
            raise self._lost(error) from None

    def read(self, timeout_s: float) -> bytes:
        deadline = time.monotonic() + timeout_s
        try:
            while not (data := self._incoming()):
                left = deadline - time.monotonic()
                if left <= 0:
                    return b""
                if self._can_select:
                    select.select([self._port.fileno()], [], [], left)
        except (serial.SerialException, OSError) as error:
            raise self._lost(error) from None
        return data

    def _incoming(self) -> bytes:
        """What is there; of a port without a file, after _POLL_S at the latest."""
        return bytes(self._port.read(_CHUNK_BYTES if self._can_select else max(1, self._port.in_waiting)))

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
        if not _is_local(self.name):
            return DeviceError(_connection_lost(self.name, _reason(error)))
        why = _reason(error)
        if any(said in why for said in _VANISHED):
            why = "the port was closed by the other end, or unplugged; or another program has it open, too"
        return PortVanishedError(_connection_lost(self.name, why))


def _connection_lost(name: str, why: str) -> str:
    return f"port {name}: connection lost ({why}); check cable and power, then run again"


# ---- opening -----------------------------------------------------------------------------------------------------


def _is_local(url: str) -> bool:
    return "://" not in url or url.startswith("hwgrep://")


def _open_when_there(url: str, baud_rate: int) -> Any:
    """A board with USB of its own vanishes when it is reset: its port is awaited."""
    if not url:
        raise DeviceError("port '': cannot be opened, it has no name; give one, such as /dev/ttyACM0 or COM5")
    deadline = time.monotonic() + APPEARANCE_S
    while True:
        try:
            return _open(url, baud_rate)
        except _FAILURES as error:
            if not _may_pass(error) or time.monotonic() >= deadline:
                raise DeviceError(f"port {url}: {_what_is_wrong(url, error)}") from None
        time.sleep(_APPEARANCE_POLL_S)


def _open_remote(url: str, baud_rate: int) -> Any:
    scheme = url.partition("://")[0].lower()
    if scheme in _SERVERS and not _names_host_and_port(url):
        raise DeviceError(f"port {url}: cannot be opened, it names no host and port; give {scheme}://HOST:PORT")
    try:
        port = _open(url, baud_rate)
    except (*_FAILURES, AttributeError) as error:  # AttributeError: an RFC 2217 server that hangs up while it opens
        if _unknown_scheme(error):
            raise DeviceError(f"port {url}: cannot be opened, {scheme}:// is unknown; give {_FORMS}") from None
        raise DeviceError(
            f"port {url}: cannot be opened ({_reason(error)}); check host and port, that the server runs, and that no "
            "other program is connected to it"
        ) from None
    connection = getattr(port, "_socket", None)
    if connection is not None:  # a frame goes at once, even if the one before it is not confirmed yet
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if url.startswith("rfc2217://"):
        # Its DTR has reset the board some 0.3 s ago: what is sent now, a bootloader takes for itself, and stays.
        time.sleep(_QUIET_S)
    return port


def _names_host_and_port(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname and parts.port)
    except ValueError:  # a port that is no number, or too large
        return False


def _open(url: str, baud_rate: int) -> Any:
    port = serial.serial_for_url(url, baud_rate, do_not_open=True)
    # Before opening, so that the lines do not toggle: both asserted is "run" on boards whose reset hangs on them, and
    # "the host listens" on boards with USB of their own.
    port.dtr = True
    port.rts = True
    if _is_local(url):
        port.exclusive = True
    if url.startswith("rfc2217://"):
        port.timeout = _POLL_S  # its write timeout is that of the connection, 5 s
        port._telnet_read_loop = _quiet(port._telnet_read_loop)
    else:
        port.timeout = 0
        port.write_timeout = WRITE_TIMEOUT_S
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # pyserial 3.5 starts its threads in the old way
        port.open()
    return port


def _quiet(read_loop: Callable[[], None]) -> Callable[[], None]:
    """pyserial's thread, which a server that does not keep to RFC 2217 ends: what is missing then, is noticed."""

    def loop() -> None:
        with suppress(Exception):
            read_loop()

    return loop


def _has_file(port: Any) -> bool:
    try:
        select.select([port.fileno()], [], [], 0)
    except (AttributeError, OSError, ValueError):
        return False
    return True


# ---- what is wrong -----------------------------------------------------------------------------------------------


def _errno(error: Exception) -> int | None:
    number: int | None = getattr(error, "errno", None)
    if number is not None:
        return number
    return next((number for name, number in _OF_COM_PORTS.items() if name in str(error)), None)


def _may_pass(error: Exception) -> bool:
    return _errno(error) in _PASSING or _no_such_hardware(error)


def _no_such_hardware(error: Exception) -> bool:
    return "no ports found matching" in str(error)  # as pyserial says it for hwgrep://


def _unknown_scheme(error: Exception) -> bool:
    return str(error).startswith("invalid URL, protocol")  # as pyserial says it


def _what_is_wrong(url: str, error: Exception) -> str:
    match _errno(error):
        case errno.ENOENT | errno.ENODEV | errno.ENXIO:
            return _absent()
        case errno.EACCES | errno.EPERM:
            return f"no permission; join the group that has it: sudo usermod -aG {_group(url)} $USER, then log in again"
        case errno.EBUSY | errno.EAGAIN:
            return "taken by another program, which one is not known; end it (a serial monitor?), then run again"
    if _no_such_hardware(error):
        return _absent()
    if isinstance(error, re.error):
        return f"is no regular expression ({error}); give hwgrep://VID:PID, or a part of what `hwgrep` may find"
    return f"cannot be opened ({_reason(error)}); check its name, and that no other program has the port"


def _absent() -> str:
    found = [port.device + (f" ({port.description})" if port.vid else "") for port in sorted(list_ports.comports())]
    there = f"there are {', '.join(found)}" if found else "this machine has no serial port"
    return f"not there, and did not appear within {APPEARANCE_S:g} s: {there}; check that the board is connected"


def _group(path: str) -> str:
    """Whose members may use a port; on Debian and its kin dialout, on Arch uucp."""
    try:
        return Path(path).group()
    except (OSError, KeyError):
        return "dialout"


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
