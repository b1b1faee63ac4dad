"""The boards of firmware/ports: what can be built and run here, building, and starting. A folder is a board; its
port.toml says how."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from quantgru.errors import ConfigError, DeviceError
from quantgru.firmware_files import firmware_directory
from quantgru.hil import line
from quantgru.hil.timer import Timer

_LINES: Final[dict[str, line.Kind]] = {"printed": "printed", "socket": "socket"}
BUILD_TIMEOUT_S: Final = 300.0
_END_TIMEOUT_S: Final = 0.2  # a process whose line broke is about to end
WARNINGS: Final = ("-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror")


@dataclass(frozen=True)
class Board:
    """A board as its port.toml describes it. In link flags and command {port} is its folder; in the command {image} is
    the program and {fd} a listening socket."""

    name: str
    description: str
    core: str
    folder: Path
    compiler: str
    compiler_files: tuple[str, ...]  # of its C library: without them it cannot link
    size_tool: str
    flags: tuple[str, ...]
    sources: tuple[str, ...]
    link_flags: tuple[str, ...]
    command: tuple[str, ...]
    line: line.Kind
    timer: Timer | None  # what a tick is worth, where the board itself cannot know
    packages: Mapping[str, str]

    @property
    def firmware(self) -> Path:
        return self.folder.parent.parent

    def missing(self) -> list[str]:
        """The tools that this machine lacks for the board; none if it can be built and run here."""
        emulator = () if self.command[0] == "{image}" else (self.command[0],)
        tools = (self.compiler, self.size_tool, *emulator)
        absent = [tool for tool in tools if shutil.which(tool) is None]
        if self.compiler not in absent:
            absent += [file for file in self.compiler_files if not _compiler_has(self.compiler, file)]
        return absent

    def install_line(self) -> str:
        """The command that installs what is missing; empty if nothing is."""
        packages = [package for tool in self.missing() for package in self.packages[tool].split()]
        return f"apt-get install --no-install-recommends {' '.join(dict.fromkeys(packages))}" if packages else ""

    def require_tools(self) -> None:
        """Raises ConfigError, with the line that installs it, if something is missing."""
        if missing := self.missing():
            raise ConfigError(
                f"board {self.name}: {', '.join(missing)} not found on this machine; install it: {self.install_line()}"
            )


@dataclass(frozen=True)
class Image:
    """A program for a board: the test firmware with a model. Bytes of flash (code and constants) and static RAM."""

    path: Path
    flash_bytes: int
    ram_bytes: int


def find_boards(firmware: Path | None = None) -> dict[str, Board]:
    """All boards by name, the host first."""
    ports = ((firmware or firmware_directory()) / "ports").glob("*/port.toml")
    boards = [_read_board(path) for path in ports]
    return {board.name: board for board in sorted(boards, key=lambda board: (board.core != "host", board.name))}


def find_board(name: str) -> Board:
    """Raises ConfigError for an unknown name."""
    descriptions = {path.parent.name: path for path in (firmware_directory() / "ports").glob("*/port.toml")}
    if name not in descriptions:
        known = ", ".join(sorted(descriptions))
        raise ConfigError(f"board {name!r}: unknown, there are {known}; `quantgru boards` lists them")
    return _read_board(descriptions[name])


def build(board: Board, export_directory: Path, build_directory: Path) -> Image:
    """Compiles the test firmware with the model that was exported as "model" into `export_directory`.

    Raises ConfigError where a tool is missing or the compiler refuses.
    """
    board.require_tools()
    build_directory.mkdir(parents=True, exist_ok=True)
    image = build_directory / f"quantgru-{board.name}.elf"
    harness = board.firmware / "harness"
    folders = [export_directory, export_directory / "quantgru" / "include", harness, board.folder]
    sources = [
        export_directory / "model.c",
        *sorted((export_directory / "quantgru" / "src").glob("*.c")),
        *sorted(harness.glob("*.c")),
        *(board.folder / source for source in board.sources),
    ]
    _run_tool(
        board,
        [
            *(board.compiler, "-std=c99", *WARNINGS, *board.flags),
            *(f"-I{folder}" for folder in folders),
            *(str(source) for source in sources),
            *(flag.format(port=board.folder) for flag in board.link_flags),
            *("-o", str(image)),
        ],
    )
    text, data, bss = map(int, _run_tool(board, [board.size_tool, str(image)]).splitlines()[1].split()[:3])
    return Image(image, text + data, data + bss)


@contextmanager
def launch(board: Board, image: Image) -> Iterator[str]:
    """Runs an image, and gives what pyserial opens to talk to it. Ends the process in any case.

    Raises ConfigError where it cannot be started. To a DeviceError that leaves the `with` block, it adds what the
    process said.
    """
    board.require_tools()
    with tempfile.TemporaryFile() as log, line.make_line(board.line) as made:
        command = [part.format(image=image.path, port=board.folder, fd=made.fd) for part in board.command]
        process = _start(board, command, made.inherited, log)
        try:
            yield made.url(process, board.name)
        except DeviceError as error:
            raise DeviceError(f"board {board.name}: {error}{_last_words(process, log)}") from None
        finally:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()


def _start(board: Board, command: Sequence[str], inherited: Sequence[int], log: IO[bytes]) -> subprocess.Popen[bytes]:
    # An emulator does not end when its line does: the kernel ends it with us, where it can.
    guard = ["setpriv", "--pdeathsig", "KILL"] if sys.platform == "linux" and shutil.which("setpriv") else []
    try:
        return subprocess.Popen(
            [*guard, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, pass_fds=inherited
        )
    except OSError as error:
        raise ConfigError(f"board {board.name}: {command[0]} cannot be started ({error.strerror})") from None


def _last_words(process: subprocess.Popen[bytes], log: IO[bytes]) -> str:
    """How the process ended, if it did, with the last line that it printed to standard error."""
    try:
        status = process.wait(_END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return ""
    log.seek(0)
    lines = log.read().decode(errors="replace").strip().splitlines()
    return f"; its process ended with status {status}" + (f"; it said: {lines[-1]}" if lines else "")


def _run_tool(board: Board, command: Sequence[str]) -> str:
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise ConfigError(f"board {board.name}: {command[0]} took longer than {BUILD_TIMEOUT_S:g} s") from None
    if result.returncode:
        lines = [text for text in result.stderr.splitlines() if "error" in text] or result.stderr.splitlines() or ["?"]
        raise ConfigError(f"board {board.name}: {command[0]} failed: {lines[0].strip()}")
    return result.stdout


def _compiler_has(compiler: str, file: str) -> bool:
    result = subprocess.run([compiler, f"-print-file-name={file}"], capture_output=True, text=True, check=False)
    return result.stdout.strip() != file


def _read_board(path: Path) -> Board:
    try:
        content: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        how, run = content["build"], content["run"]
        return Board(
            name=path.parent.name,
            description=content["description"],
            core=content["core"],
            folder=path.parent,
            compiler=how["compiler"],
            compiler_files=tuple(how.get("compiler_files", ())),
            size_tool=how["size"],
            flags=tuple(how["flags"]),
            sources=tuple(how["sources"]),
            link_flags=tuple(how["link_flags"]),
            command=tuple(run["command"]),
            line=_LINES[run["line"]],
            timer=Timer(**run["timer"]) if "timer" in run else None,
            packages=content["packages"],
        )
    except (tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: not a description of a board ({error!r})") from None
