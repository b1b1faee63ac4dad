"""Servers that pass a board's port on over the network, as ser2net does: plain TCP, and RFC 2217."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import serial
from serial.rfc2217 import PortManager


@contextmanager
def served(serve: Callable[[socket.socket], None], scheme: str) -> Iterator[str]:
    """A URL behind which `serve` handles one connection, in a thread."""

    def accept() -> None:
        connection, _ = listening.accept()
        with connection, contextlib.suppress(OSError):
            serve(connection)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"{scheme}://127.0.0.1:{listening.getsockname()[1]}"
        thread.join(1)


@contextmanager
def tcp_bridge(port: str, n_bytes: float = float("inf")) -> Iterator[str]:
    """The bytes of `port` and nothing else. It is closed as soon as `n_bytes` have come from there."""

    def serve(connection: socket.socket) -> None:
        board, left = os.open(port, os.O_RDWR | os.O_NOCTTY), n_bytes
        tty.setraw(board)
        try:
            while left > 0:
                ready, _, _ = select.select([connection, board], [], [])
                if connection in ready:
                    data = connection.recv(4096)
                    if not data:
                        return
                    os.write(board, data)
                if board in ready:
                    data = os.read(board, int(min(left, 4096)))
                    connection.sendall(data)
                    left -= len(data)
        finally:
            os.close(board)

    with served(serve, "socket") as url:
        yield url


class PtyPort(serial.Serial):
    """A port whose control lines are noted, for a pseudo-terminal has none."""

    cts = dsr = ri = cd = False

    def __init__(self, path: str, noted: list[tuple[str, int]]) -> None:
        self._noted = noted
        super().__init__(path, timeout=0)

    def _update_dtr_state(self) -> None:
        self._noted.append(("dtr", int(self._dtr_state)))

    def _update_rts_state(self) -> None:
        self._noted.append(("rts", int(self._rts_state)))


class _Sender:
    """What PortManager writes to."""

    def __init__(self, connection: socket.socket) -> None:
        self.write = connection.sendall


@contextmanager
def rfc2217_server(
    port: str, n_bytes: float = float("inf"), noted: list[tuple[str, int]] | None = None
) -> Iterator[str]:
    """`port` with its settings. `noted` takes what the client does: (dtr, 1), (rts, 1), (baud rate, 115200), and how
    many bytes it sends. It is closed as soon as `n_bytes` have come from the port."""
    events: list[tuple[str, int]] = [] if noted is None else noted

    def serve(connection: socket.socket) -> None:
        left = n_bytes
        with PtyPort(port, events) as board:
            events.clear()
            manager = PortManager(board, _Sender(connection))
            while left > 0:
                ready, _, _ = select.select([connection, board], [], [])
                if connection in ready:
                    data = connection.recv(4096)
                    if not data:
                        return
                    for_board = b"".join(manager.filter(data))
                    if for_board:
                        events.extend([("baud rate", board.baudrate), ("bytes", len(for_board))])
                        board.write(for_board)
                if board in ready:
                    data = board.read(int(min(left, 4096)))
                    connection.sendall(b"".join(manager.escape(data)))
                    left -= len(data)

    with served(serve, "rfc2217") as url:
        yield url
