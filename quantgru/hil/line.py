"""How the process of a board is reached: a port whose name it prints, or a socket that is made before it starts."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal, Protocol

from quantgru.errors import DeviceError

Kind = Literal["printed", "socket"]

START_TIMEOUT_S: Final = 10.0


class Line(Protocol):
    """fd and inherited are for the process's command; url is what pyserial opens, once it has started."""

    @property
    def fd(self) -> int: ...

    @property
    def inherited(self) -> tuple[int, ...]: ...

    def url(self, process: subprocess.Popen[bytes], name: str) -> str:
        """Raises DeviceError."""


@contextmanager
def make_line(of_kind: Kind) -> Iterator[Line]:
    if of_kind == "printed":
        yield PrintedLine()
        return
    # The socket exists from here on: nobody can take its number before the emulator is up.
    with socket.create_server(("127.0.0.1", 0), backlog=1) as listening:
        yield SocketLine(listening)


class PrintedLine:
    """The process prints the path of its port as its first line."""

    fd = -1
    inherited: tuple[int, ...] = ()

    def url(self, process: subprocess.Popen[bytes], name: str) -> str:
        assert process.stdout is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        printed = b""
        output = select.poll()  # select() takes no file beyond the 1,024th
        output.register(process.stdout, select.POLLIN)
        while not printed.endswith(b"\n"):
            ready = output.poll(1000 * max(0.0, deadline - time.monotonic()))
            chunk = os.read(process.stdout.fileno(), 256) if ready else b""
            if not chunk:
                raise DeviceError(f"{name} did not say which port it has")
            printed += chunk
        return printed.decode(errors="replace").strip()


class SocketLine:
    """The process accepts one connection on a socket that it inherits."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self.fd = listening.fileno()
        self.inherited = (self.fd,)

    def url(self, process: subprocess.Popen[bytes], name: str) -> str:
        port = self._listening.getsockname()[1]
        self._listening.close()  # from now on the process alone holds it: if it dies, so does the connection
        return f"socket://127.0.0.1:{port}"
