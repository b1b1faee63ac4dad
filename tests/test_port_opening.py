"""Ports of this machine that are missing, taken, forbidden or away for a moment: they are awaited, then it says why."""

from __future__ import annotations

import os
import pty
import termios
import threading
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import serial
from command_line import assert_refused, done, finish, hil, quantgru, start
from hil_boards import board_or_skip, build_model
from serial.tools.list_ports_common import ListPortInfo
from test_cli_processes import without_override

import quantgru as qg
from quantgru.errors import ConfigError, DeviceError
from quantgru.hil.images import Image, launch
from quantgru.hil.link import Patience
from quantgru.hil.session import Session
from quantgru.hil.transport import SerialTransport

COMMAND = ("hil", "m.qgru", "--input", "x.npz", "--port")


@pytest.fixture(scope="module")
def image(digits_qgru: Path) -> Image:
    return build_model(qg.IntModel.load(digits_qgru))


@pytest.fixture
def port(here: Path, image: Image) -> Iterator[str]:
    """Of a board that runs m.qgru."""
    with launch(board_or_skip("host"), image) as url:
        yield url


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quantgru.hil.transport.APPEARANCE_S", 0.2)


# ---- away ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("port", ["/dev/ttyNONE", "hwgrep://no such board"])
def test_a_port_that_is_not_there(port: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uno = ListPortInfo("/dev/ttyACM7")
    uno.vid, uno.pid, uno.description = 0x2341, 0x0043, "Uno R3"
    says = f"port {port}: not there, and did not appear within 0.2 s: "
    monkeypatch.setattr("serial.tools.list_ports.comports", lambda *_: [])
    assert_refused(hil("--port", port), says + "this machine has no serial port")
    monkeypatch.setattr("serial.tools.list_ports.comports", lambda *_: [uno])
    assert_refused(hil("--port", port), says + "there are /dev/ttyACM7 (Uno R3)", "check that the board is connected")


def test_a_pattern_that_is_none(here: Path) -> None:
    says = (
        "port hwgrep://(: is no regular expression (missing ), unterminated subpattern at position 0); give hwgrep://"
    )
    assert_refused(hil("--port", "hwgrep://("), says)


# As serialwin32.py of pyserial 3.5 makes them: "could not open port {!r}: {!r}", with the error that Windows gave.
COM_PORT = "could not open port 'COM5': "


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("of_windows", "says"),
    [
        (
            "FileNotFoundError(2, 'The system cannot find the file specified.', None, 2)",
            "not there, and did not appear within 0.2 s: ",
        ),
        ("FileNotFoundError(2, 'Das System kann die angegebene Datei nicht finden.', None, 2)", "not there, and did"),
        ("PermissionError(13, 'Access is denied.', None, 5)", "taken by another program, which one is not known; end"),
        ("OSError(22, 'The parameter is incorrect.', None, 87)", "cannot be opened (could not open port 'COM5': OSErr"),
    ],
)
def test_what_windows_says_of_a_com_port(
    of_windows: str, says: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(port: serial.Serial) -> None:
        raise serial.SerialException(COM_PORT + of_windows)

    monkeypatch.setattr("serial.Serial.open", fail)
    assert_refused(hil("--port", "COM5"), f"port COM5: {says}")


def test_a_com_port_that_becomes_free(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    def open_at_last(port: serial.Serial) -> None:
        opened.append(port.port)
        if len(opened) < 4:
            raise serial.SerialException(f"{COM_PORT}PermissionError(13, 'Access is denied.', None, 5)")

    monkeypatch.setattr("serial.Serial.open", open_at_last)
    SerialTransport("COM5").close()
    assert opened == 4 * ["COM5"]


def test_a_port_that_appears_a_second_later(port: str) -> None:
    process = start(*COMMAND, "late")
    time.sleep(1)
    Path("late").symlink_to(port)
    assert "steps equal" in done(finish(process))


@contextmanager
def vanishing(link: Path, comes_back_as: str | None, after_s: float) -> Iterator[None]:
    """A port which breaks as soon as somebody writes to it, and comes back as another one, as USB does."""
    board, port = pty.openpty()
    tty.setraw(port)
    link.symlink_to(os.ttyname(port))

    def serve() -> None:
        os.read(board, 1)
        link.unlink()
        os.close(port)
        os.close(board)
        if comes_back_as is not None:
            time.sleep(after_s)
            link.symlink_to(comes_back_as)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield
    thread.join(10)


def test_a_board_that_re_enumerates_when_it_is_opened(port: str) -> None:
    with vanishing(Path("usb"), port, after_s=1.0):
        assert "steps equal" in done(quantgru(*COMMAND, "usb"))


@pytest.mark.usefixtures("impatient")
def test_a_board_that_vanishes_for_good(here: Path) -> None:
    with vanishing(Path("usb"), None, after_s=0):
        assert_refused(hil("--port", "usb"), "port usb: not there, and did not appear")


# ---- there, and not for us -----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("impatient")
def test_a_port_that_is_taken(port: str) -> None:
    with SerialTransport(port):
        assert_refused(hil("--port", port), f"port {port}: taken by another program, which one is not known; end it")


def test_a_port_that_becomes_free(port: str) -> None:
    """The run before this one may still be closing it."""
    with SerialTransport(port):
        process = start(*COMMAND, port)
        time.sleep(1.5)
    assert "steps equal" in done(finish(process))


def test_a_port_without_permission(here: Path) -> None:
    board, port = pty.openpty()
    name = os.ttyname(port)
    os.chmod(name, 0)
    group = Path(name).group()
    result = finish(start(*COMMAND, name, preexec_fn=without_override))
    os.close(board)
    os.close(port)
    assert_refused(result, f"port {name}: no permission; ", f"sudo usermod -aG {group} $USER, then log in again")


# ---- baud rates ----------------------------------------------------------------------------------------------------


def test_a_port_is_opened_with_the_baud_rate_that_is_given(port: str, here: Path) -> None:
    """The terminal keeps its settings, for the board has it open."""
    for options, speed in (([], termios.B115200), (["--baud", "57600"], termios.B57600)):
        assert "steps equal" in done(quantgru(*COMMAND, port, *options))
        descriptor = os.open(port, os.O_RDWR | os.O_NOCTTY)
        settings = termios.tcgetattr(descriptor)
        os.close(descriptor)
        assert settings[4:6] == [speed, speed]


def test_a_byte_takes_as_long_as_its_bits(port: str) -> None:
    """A start bit, 8 of data, a stop bit; the waits for replies go by it."""
    with SerialTransport(port, 9600) as line:
        assert line.byte_s == 10 / 9600


@pytest.mark.parametrize("baud", ["0", "-5", "9599", "12000001"])
def test_baud_rates_that_no_board_has(baud: str, here: Path) -> None:
    says = f"a baud rate of {baud}, expected 9,600 ... 12,000,000, as the board has it"
    assert_refused(hil("--port", "COM5", "--baud", baud), says)
    model = qg.IntModel.load("m.qgru")
    with pytest.raises(ConfigError, match=says):
        qg.run_seeded_on_board(model, 5, port="COM5", baud=int(baud))


def test_a_board_that_is_started_here_has_no_baud_rate(here: Path) -> None:
    with pytest.raises(ConfigError, match="board 'host' is started here and has no baud rate; leave it out"):
        qg.run_on_board(qg.IntModel.load("m.qgru"), np.zeros((1, 2, 8)), board="host", baud=9600)


# ---- resets --------------------------------------------------------------------------------------------------------


class Bootloader:
    """A line to a board that the opening has reset. For 0.065 s it hears nothing. Then a bootloader takes all bytes; it
    starts the program once it has waited 1 s for its first byte, or `patience_s` for another one."""

    name = "bootloader"
    byte_s = 0.0

    def __init__(self, board: SerialTransport, patience_s: float) -> None:
        self._board, self._patience_s = board, patience_s
        self._bootloader_at = time.monotonic() + 0.065
        self._program_at = self._bootloader_at + 1.0

    def write(self, data: bytes) -> None:
        now = time.monotonic()
        if now >= self._program_at:
            self._board.write(data)
        elif now >= self._bootloader_at:
            self._program_at = now + self._patience_s

    def read(self, timeout_s: float) -> bytes:
        return self._board.read(timeout_s)


def test_a_bootloader_that_stays_for_as_long_as_bytes_come(port: str) -> None:
    """As that of the Arduino Mega 2560, with 4 s or more for each further byte."""
    model = qg.IntModel.load("m.qgru")
    with SerialTransport(port) as board:
        assert Session(Bootloader(board, patience_s=4.0)).open(model).target == "host"


def test_the_bootloader_of_the_test_is_one(port: str) -> None:
    with SerialTransport(port) as board, pytest.raises(DeviceError, match="silent"):
        Session(Bootloader(board, 1.0), Patience(hello_first_s=0.3, hello_s=0.3, hello_attempts=6)).open(
            qg.IntModel.load("m.qgru")
        )
