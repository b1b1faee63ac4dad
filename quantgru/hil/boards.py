"""The boards of firmware/ports: each folder with a port.toml is a board, which says how it is built and run."""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from quantgru.errors import ConfigError
from quantgru.firmware_files import firmware_directory
from quantgru.hil import line
from quantgru.hil.timer import Timer

_LINES: Final[dict[str, line.Kind]] = {"printed": "printed", "socket": "socket"}


@dataclass(frozen=True)
class Program:
    """How a program is compiled. In link flags {port} is the board's folder, from which sources are named."""

    compiler: str
    compiler_files: tuple[str, ...]  # of its libraries: without them it cannot link
    flags: tuple[str, ...]
    sources: tuple[str, ...]
    link_flags: tuple[str, ...]

    def missing(self) -> list[str]:
        """The compiler and the files that this machine lacks: without a compiler, all of them."""
        if shutil.which(self.compiler) is None:
            return [self.compiler, *self.compiler_files]
        machine = tuple(flag for flag in self.flags if flag.startswith("-m"))
        return [file for file in self.compiler_files if not _finds((self.compiler, *machine), file)]


def _finds(compiler: tuple[str, ...], file: str) -> bool:
    with suppress(FileNotFoundError):
        return bool(_place((shutil.which(compiler[0]) or "", *compiler[1:]), file))
    return False


@cache
def _place(compiler: tuple[str, ...], file: str) -> str:
    """Where a compiler has a file of its libraries. Raises FileNotFoundError: only what is there is remembered."""
    result = subprocess.run([*compiler, f"-print-file-name={file}"], capture_output=True, text=True, check=False)
    place = result.stdout.strip()
    if place == file:  # it has no more to say of one that it does not find
        raise FileNotFoundError(file)
    return place


@dataclass(frozen=True)
class Chip:
    """What the chip of a board has, where it has one: memories in bytes, and its clock."""

    flash_bytes: int | None = None
    ram_bytes: int | None = None
    clock_hz: int | None = None


@dataclass(frozen=True)
class Board:
    """A board as its port.toml describes it.

    In the command {image} is the test firmware, {emulator} the emulator that was compiled for it, {fd} a listening
    socket, {port} the folder, {machine} and {cpu} are the emulator's names.
    """

    name: str
    description: str
    core: str
    folder: Path
    program: Program  # the test firmware
    size_tool: str
    emulator: Program | None  # where it is not a program of this machine
    command: tuple[str, ...]
    names: Mapping[str, str]  # machine and cpu
    probe: tuple[str, ...]  # a command that fails where the emulator lacks a module; empty if there is none
    line: line.Kind
    timer: Timer | None  # what a tick is worth, where the board itself cannot know
    packages: Mapping[str, str]
    chip: Chip = Chip()
    stack_bytes: int = 0  # what the test firmware must be left

    @property
    def firmware(self) -> Path:
        return self.folder.parent.parent

    @property
    def takes_models(self) -> bool:
        """Whether its test firmware can have room for a model that comes over the line."""
        return "PORT_MODEL_BYTES" in (self.folder / "port_config.h").read_text(encoding="utf-8")

    @property
    def is_avr(self) -> bool:
        """Whether it is an AVR, which cannot read as many constants as its flash holds."""
        return self.program.compiler == "avr-gcc"

    def missing(self) -> list[str]:
        """The tools that this machine lacks for the board; none if it can be built and run here."""
        tools = [self.size_tool] if self.command[0].startswith("{") else [self.size_tool, self.command[0]]
        absent = self.program.missing() + (self.emulator.missing() if self.emulator else [])
        absent += [tool for tool in tools if shutil.which(tool) is None]
        return absent + self._missing_module()

    def _missing_module(self) -> list[str]:
        if not self.probe:
            return []
        if shutil.which(self.probe[0]) is None:
            return [self.probe[-1]]
        command = [part.format(port=self.folder) for part in self.probe[:-1]]
        found = subprocess.run(command, capture_output=True, check=False).returncode == 0
        return [] if found else [self.probe[-1]]

    def install_line(self) -> str:
        """The command that installs what is missing; empty if nothing is."""
        needed = list(dict.fromkeys(self.packages[tool] for tool in self.missing()))
        debian = [package for package in needed if not package.startswith("npm ")]
        commands = [package for package in needed if package.startswith("npm ")]
        if debian:
            commands.insert(0, f"apt-get install --no-install-recommends {' '.join(debian)}")
        return " && ".join(commands)

    def require_tools(self) -> None:
        """Raises ConfigError, with the line that installs it, if something is missing."""
        if missing := self.missing():
            raise ConfigError(
                f"board {self.name}: {', '.join(missing)} not found on this machine; install it: {self.install_line()}"
            )


def find_boards(firmware: Path | None = None) -> dict[str, Board]:
    """All boards by name, the host first."""
    ports = ((firmware or firmware_directory()) / "ports").glob("*/port.toml")
    boards = [_read_board(path) for path in ports]
    return {board.name: board for board in sorted(boards, key=lambda board: (board.core != "host", board.name))}


def find_board(name: str) -> Board:
    """Raises ConfigError for an unknown name."""
    descriptions = {path.parent.name: path for path in (firmware_directory() / "ports").glob("*/port.toml")}
    if name not in descriptions:
        known = ", ".join(find_boards())
        raise ConfigError(f"board {name!r}: unknown, there are {known}; `quantgru boards` lists them")
    return _read_board(descriptions[name])


def _read_board(path: Path) -> Board:
    try:
        return _board(path.parent, _read(path))
    except (OSError, KeyError, TypeError, ValueError) as error:  # also of tomllib
        raise ConfigError(f"{path}: not a description of a board ({error!r})") from None


def _read(path: Path) -> dict[str, Any]:
    """A description, on top of the one that it is like."""
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    if "like" not in content:
        return content
    shared = _read(path.parent / content.pop("like"))
    for name, value in content.items():
        shared[name] = shared.get(name, {}) | value if isinstance(value, dict) else value
    return shared


def _board(folder: Path, content: dict[str, Any]) -> Board:
    run = content["run"]
    return Board(
        name=folder.name,
        description=content["description"],
        core=content["core"],
        folder=folder,
        program=_program(content["build"]),
        size_tool=content["build"]["size"],
        emulator=_program(content["emulator"]) if "emulator" in content else None,
        command=tuple(run["command"]),
        names={name: run[name] for name in ("machine", "cpu") if name in run},
        probe=tuple(run.get("probe", ())),
        line=_LINES[run["line"]],
        timer=Timer(**run["timer"]) if "timer" in run else None,
        packages=content["packages"],
        chip=Chip(**content.get("chip", {})),
        stack_bytes=content["build"].get("stack_bytes", 0),
    )


def _program(how: dict[str, Any]) -> Program:
    return Program(
        compiler=how["compiler"],
        compiler_files=tuple(how.get("compiler_files", ())),
        flags=(*how.get("core_flags", ()), *how["flags"]),
        sources=tuple(how["sources"]),
        link_flags=tuple(how["link_flags"]),
    )
