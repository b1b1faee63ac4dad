"""Boards on other machines: `quantgru hil` through RFC 2217, as pyserial serves it, and through plain TCP."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import assert_refused, done, finish, hil, quantgru, start
from conftest import N_SEQUENCES
from hil_boards import board_or_skip, build_model
from hil_lines import rfc2217_server, served, tcp_bridge

import quantgru as qg
from quantgru.hil.images import Image, launch

N_STEPS = 8 * N_SEQUENCES


@pytest.fixture(autouse=True)
def no_bootloader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quantgru.hil.transport._QUIET_S", 0.0)


@pytest.fixture(scope="module")
def image(digits_qgru: Path) -> Image:
    return build_model(qg.IntModel.load(digits_qgru))


@pytest.fixture
def port(here: Path, image: Image) -> Iterator[str]:
    with launch(board_or_skip("host"), image) as url:
        yield url


def test_rfc_2217_is_bit_equal_and_sets_the_lines_first(port: str) -> None:
    noted: list[tuple[str, int]] = []
    with rfc2217_server(port, noted=noted) as url:
        out = done(quantgru("hil", "m.qgru", "--input", "x.npz", "--by", "states", "--port", url))
    assert f"{N_STEPS} of {N_STEPS} steps equal" in out
    assert ("bytes", 17) in noted  # HELLO
    assert noted[: noted.index(("bytes", 17))] == [("dtr", 1), ("rts", 1), ("baud rate", 115200)]


def test_rfc_2217_sets_the_baud_rate_that_is_given(port: str) -> None:
    noted: list[tuple[str, int]] = []
    with rfc2217_server(port, noted=noted) as url:
        done(finish(start("hil", "m.qgru", "--input", "x.npz", "--port", url, "--board", "host", "--baud", "460800")))
    assert {value for what, value in noted if what == "baud rate"} == {460800}


def test_all_byte_values_pass_rfc_2217(port: str) -> None:
    """Its escape, 0xff, too: seeded inputs hold every byte."""
    with rfc2217_server(port) as url:
        assert "20,000 of 20,000 steps equal" in done(quantgru("hil", "m.qgru", "--steps", "20000", "--port", url))


def test_remote_boards_beside_an_emulated_one(port: str, image: Image) -> None:
    with (
        launch(board_or_skip("host"), image) as other,
        rfc2217_server(port) as first,
        tcp_bridge(other) as second,
    ):
        ports = ["--port", first, "--port", second, "--board", "host"]
        out = done(finish(start("hil", "m.qgru", "--input", "x.npz", "--json", "r.json", *ports)))
    assert "3 of 3 boards equal" in out
    found = json.loads(Path("r.json").read_text())
    assert found["equal"] is True
    boards = [(board.get("port") or board["board"], board["steps"], board["equal"]) for board in found["boards"]]
    assert boards == [("host", N_STEPS, True), (first, N_STEPS, True), (second, N_STEPS, True)]


@pytest.mark.parametrize("n_bytes", [10, 150, 400])
def test_a_connection_that_breaks_in_the_middle(n_bytes: int, port: str) -> None:
    with rfc2217_server(port, n_bytes) as url:
        assert_refused(hil("--port", url), url, "connection lost", "run again")


def test_one_of_several_breaks(port: str, image: Image) -> None:
    with launch(board_or_skip("host"), image) as other, tcp_bridge(port, 400) as broken, tcp_bridge(other) as whole:
        ports = ["--port", broken, "--port", whole]
        result = finish(start("hil", "m.qgru", "--input", "x.npz", *ports))
    assert (result.code, result.err) == (2, "")
    assert "1 of 2 boards equal" in result.out
    (line,) = [line for line in result.out.splitlines() if line.startswith(broken)]
    assert "connection lost" in line and "had been equal" in line


def test_a_server_that_is_no_rfc_2217_server(here: Path) -> None:
    def deaf(connection: socket.socket) -> None:
        while connection.recv(4096):
            pass

    with served(deaf, "rfc2217") as url:
        assert_refused(hil("--port", url), f"port {url}: cannot be opened (Remote does not seem to support RFC2217")


@pytest.mark.parametrize(
    "flood", [bytes(range(256)) * 16, bytes.fromhex("fffd2cfffb2cfffa2c6500fff0") * 300], ids=["bytes", "telnet"]
)
def test_a_server_that_says_anything(flood: bytes, here: Path) -> None:
    """In a process of its own: what pyserial's thread would say goes to standard error."""

    def hostile(connection: socket.socket) -> None:
        for _ in range(100):
            connection.sendall(flood)
        while connection.recv(4096):
            pass

    with served(hostile, "rfc2217") as url:
        result = finish(start("hil", "m.qgru", "--input", "x.npz", "--timeout", "2", "--port", url))
    assert_refused(result, f"port {url}: ")


def test_a_server_that_hangs_up_at_once(here: Path) -> None:
    with served(socket.socket.close, "rfc2217") as url:
        result = finish(start("hil", "m.qgru", "--input", "x.npz", "--port", url))
    assert_refused(result, f"port {url}: cannot be opened", "check host and port")
