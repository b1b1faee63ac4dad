"""`quantgru hil` on boards and ports that are missing, silent, noisy, or that break in the middle."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import threading
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import assert_refused, finish, hil, quantgru, start
from conftest import N_SEQUENCES
from hil_boards import board_or_skip, build_model
from hil_lines import tcp_bridge

import quantgru as qg
from quantgru.hil.images import Image, launch


def test_neither_board_nor_port(here: Path) -> None:
    result = hil()
    assert result.code == 2 and "give --board NAME or --port URL" in result.err
    assert json.loads((here / "r.json").read_text())["equal"] is False


def test_two_reports_in_one_file(here: Path) -> None:
    result = hil("--board", "host", "--junit", "./r.json")
    assert_refused(result, "--json and --junit: both write r.json; give each a file of its own")


def test_a_board_that_is_not_there(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_refused(hil("--board", "esp99"), "board 'esp99': unknown, there are host, ", "`quantgru boards`")
    assert_refused(quantgru("demo", "--board", "esp99"), "board 'esp99': unknown")
    monkeypatch.setenv("PATH", str(here))
    says = "gcc, size not found on this machine; install it: apt-get install --no-install-recommends gcc"
    assert_refused(hil("--board", "host"), says)
    assert_refused(quantgru("demo"), says)


@pytest.mark.parametrize("port", ["", "socket://127.0.0.1:1", "rfc2217://127.0.0.1:1", "x.npz"])
def test_what_is_no_port(port: str, here: Path) -> None:
    assert_refused(hil("--port", port), f"port {port}", "cannot be opened")


@pytest.mark.parametrize("port", ["socket://", "socket://lab7", "socket://:3000", "socket://lab7:x", "socket://[::1"])
def test_a_server_that_is_not_named(port: str, here: Path) -> None:
    for url in (port, port.replace("socket", "rfc2217")):
        scheme = url.partition(":")[0]
        says = f"port {url}: cannot be opened, it names no host and port; give {scheme}://HOST:PORT"
        assert_refused(hil("--port", url), says)


@pytest.mark.parametrize("port", ["foo://x", "http://lab7:3000", "://x"])
def test_a_scheme_that_is_unknown(port: str, here: Path) -> None:
    says = f"port {port}: cannot be opened, {port.partition(':')[0]}:// is unknown; give a name such as /dev/ttyACM0"
    schemes = "hwgrep://VID:PID, socket://HOST:PORT or rfc2217://HOST:PORT"
    assert_refused(hil("--port", port), says, schemes)


@contextlib.contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """A port behind which somebody answers each request with the same bytes."""
    board, port = pty.openpty()
    tty.setraw(port)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while os.read(board, 4096):
                os.write(board, answer)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield os.ttyname(port)
    finally:
        os.close(port)  # which ends serve() with an error
        os.close(board)


def test_ports_where_nobody_answers(here: Path) -> None:
    with answering(b"") as silent, answering(b"\x00READY\r\n\xff") as noisy:
        ports = {silent: "the board is silent", noisy: "bytes came in, but no answer"}
        processes = {port: start("hil", "m.qgru", "--input", "x.npz", "--port", port) for port in ports}
        for port, says in ports.items():
            assert_refused(finish(processes[port]), port, says, "check")


@pytest.fixture(scope="module")
def image(digits_qgru: Path) -> Image:
    return build_model(qg.IntModel.load(digits_qgru))


@pytest.mark.parametrize("n_bytes", [10, 150, 400])
def test_a_line_that_breaks_in_the_middle(n_bytes: int, here: Path, image: Image) -> None:
    with launch(board_or_skip("host"), image) as port, tcp_bridge(port, n_bytes) as url:
        assert_refused(hil("--port", url), url, "connection lost", "run again")


@contextlib.contextmanager
def unplugged(port: str, n_bytes: int) -> Iterator[str]:
    """A local port with what is behind `port`. It vanishes as soon as `n_bytes` have come from there."""
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    name = os.ttyname(theirs)

    def serve() -> None:
        left = n_bytes
        board = os.open(port, os.O_RDWR | os.O_NOCTTY)
        tty.setraw(board)
        while left > 0:
            ready, _, _ = select.select([ours, board], [], [])
            if ours in ready:
                os.write(board, os.read(ours, 4096))
            if board in ready:
                data = os.read(board, left)
                os.write(ours, data)
                left -= len(data)
        for end in (board, theirs, ours):
            os.close(end)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield name
    thread.join(10)


def test_a_local_port_that_vanishes_in_the_middle(here: Path, image: Image) -> None:
    with launch(board_or_skip("host"), image) as port, unplugged(port, 400) as name:
        result = hil("--port", name)
    says = "connection lost (the port was closed by the other end, or unplugged; or another program has it open, too); "
    assert_refused(result, f"port {name}: {says}check cable and power, then run again; ")
    assert re.search(rf"; [1-9]\d* of {8 * N_SEQUENCES} steps had been equal", result.err)
