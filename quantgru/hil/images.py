"""Programs for boards: the test firmware with a model, built, and started in the emulator of its board."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from quantgru.errors import ConfigError, DeviceError
from quantgru.hil import line
from quantgru.hil.boards import Board
from quantgru.hil.compiler import compile_sources, library_objects, link, port_sources, program_size

_END_TIMEOUT_S: Final = 0.2  # a process whose line broke is about to end


@dataclass(frozen=True)
class Image:
    """A program for a board: the test firmware with a model. Bytes of flash (code and constants) and static RAM."""

    path: Path
    flash_bytes: int
    ram_bytes: int


def build(board: Board, export_directory: Path, build_directory: Path) -> Image:
    """Compiles the test firmware with the model that was exported as "model" into `export_directory`.

    Raises ConfigError where a tool is missing or the compiler refuses.
    """
    library = export_directory / "quantgru"
    return _build(board, library, "compiled", [export_directory / "model.c"], [export_directory], build_directory)


def build_for_models(board: Board, build_directory: Path) -> Image:
    """Compiles the test firmware to which any model can be sent. Raises ConfigError as `build`, and for a board that
    reads constants from flash only."""
    if not board.takes_models:
        raise ConfigError(
            f"board {board.name}: takes no model over its line, for it reads constants from flash; leave out --send"
        )
    return _build(board, board.firmware, "loaded", [], [], build_directory)


def _build(
    board: Board, library: Path, held: str, sources: Sequence[Path], folders: Sequence[Path], build_directory: Path
) -> Image:
    """`held` is the folder of the harness that says where its model is; `library` has include/ and src/."""
    board.require_tools()
    build_directory.mkdir(parents=True, exist_ok=True)
    image = build_directory / f"quantgru-{board.name}.elf"
    harness = board.firmware / "harness"
    of_board = port_sources(board)
    parts = [harness, harness / held]
    all_sources = [*sources, *(source for part in parts for source in sorted(part.glob("*.c"))), *of_board]
    all_folders = [*folders, library / "include", *parts, board.folder, *(source.parent for source in of_board)]
    objects = compile_sources(board, board.program, all_sources, all_folders, build_directory)
    link(board, board.program, [*objects, *library_objects(board, library)], image)
    flash_bytes, ram_bytes = program_size(board, image)
    if board.chip.ram_bytes is not None and ram_bytes + board.stack_bytes > board.chip.ram_bytes:
        raise ConfigError(
            f"board {board.name}: variables take {ram_bytes:,} of {board.chip.ram_bytes:,} bytes of RAM, and the test "
            f"firmware needs {board.stack_bytes:,} for its stack; use a model with fewer inputs or units, "
            "or shorter sequences where it needs whole ones"
        )
    return Image(image, flash_bytes, ram_bytes)


@contextmanager
def launch(board: Board, image: Image) -> Iterator[str]:
    """Runs an image, and gives what pyserial opens to talk to it. Ends the process in any case.

    Raises ConfigError where it cannot be started. To a DeviceError that leaves the `with` block, it adds what the
    process said.
    """
    board.require_tools()
    with (
        tempfile.TemporaryFile() as log,
        tempfile.TemporaryDirectory(prefix="quantgru-") as folder,
        line.make_line(board.line) as made,
    ):
        emulator = Path(folder) / "emulator"
        names = dict(board.names, image=image.path, emulator=emulator, port=board.folder, fd=made.fd)
        if board.emulator is not None:
            sources = [board.folder / source for source in board.emulator.sources]
            link(board, board.emulator, compile_sources(board, board.emulator, sources, [], Path(folder)), emulator)
        process = _start(board, [part.format(**names) for part in board.command], made.inherited, log)
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
