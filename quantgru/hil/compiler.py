"""The compilers of boards: sources to objects, objects to programs, and the size of those."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Final

from quantgru.errors import ConfigError
from quantgru.hil.boards import Board, Program

_TIMEOUT_S: Final = 300.0
WARNINGS: Final = ("-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror")

# What GNU ld says of a program that is too large for a memory region of the linker script.
_TOO_LARGE: Final = re.compile(r"(?:will not fit in|is not within) region `(\w+)'")
_OVERFLOW: Final = re.compile(r"region `(\w+)' overflowed by (\d+) bytes")


@dataclass(frozen=True)
class _Library:
    """Objects, and the folder that they lie in as long as it is known."""

    objects: list[Path]
    folder: tempfile.TemporaryDirectory[str]


_LIBRARIES: Final[dict[tuple[Program, tuple[str, ...], bytes, str | None], _Library]] = {}
_LIBRARIES_LOCK: Final = Lock()


def compile_sources(
    board: Board, program: Program, sources: Sequence[Path], folders: Sequence[Path], build_directory: Path, *flags: str
) -> list[Path]:
    """Objects of `sources` in their order, with warnings as errors; `folders` have their headers.

    As many at a time as there are processors. Raises ConfigError where the compiler refuses.
    """
    base = build_directory.parent

    def named(path: Path) -> str:  # without the name of a temporary folder, by which a compiler cache would miss
        return str(path.relative_to(base) if path.is_relative_to(base) else path)

    includes = [f"-I{named(folder)}" for folder in dict.fromkeys(folders)]
    command = [program.compiler, "-std=c99", *WARNINGS, *program.flags, *flags, *includes]

    def compile_one(number: int, source: Path) -> Path:
        target = build_directory / f"{number}-{source.stem}.o"
        run_tool(board, [*command, "-c", named(source), "-o", str(target)], base)
        return target

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(compile_one, range(len(sources)), sources))


def library_objects(board: Board, library: Path, *flags: str) -> list[Path]:
    """Objects of the kernel library in include/ and src/ of a folder.

    The library is the same for all models: a board's is compiled once in the life of this process, and again only if
    its text has changed. Raises ConfigError as `compile_sources`.
    """
    headers = {source.parent for source in port_sources(board)}  # what a target without a C library has of it
    files = [*sorted(library.rglob("*.[ch]")), *sorted(path for folder in headers for path in folder.glob("*.h"))]
    text = hashlib.sha256(b"".join(path.read_bytes() for path in files)).digest()
    key = (board.program, flags, text, os.environ.get("PATH"))
    with _LIBRARIES_LOCK:
        if key not in _LIBRARIES:
            folder = tempfile.TemporaryDirectory(prefix="quantgru-")
            build_directory = Path(folder.name) / "build"
            build_directory.mkdir()
            # Copied, for what is compiled has names relative to that folder.
            copy = Path(shutil.copytree(library, Path(folder.name) / "quantgru"))
            sources = sorted((copy / "src").glob("*.c"))
            folders = [copy / "include", *sorted(headers)]
            objects = compile_sources(board, board.program, sources, folders, build_directory, *flags)
            _LIBRARIES[key] = _Library(objects, folder)
        return _LIBRARIES[key].objects


def link(board: Board, program: Program, objects: Sequence[Path], target: Path, *flags: str) -> None:
    """Raises ConfigError where the linker refuses, and says which memory is too small."""
    link_flags = [flag.format(port=board.folder) for flag in program.link_flags]
    run_tool(board, [program.compiler, *program.flags, *map(str, objects), *link_flags, *flags, "-o", str(target)])


def port_sources(board: Board) -> list[Path]:
    """What the board adds to a program: its own files, and those that it shares. Their folders have headers."""
    return [board.folder / source for source in board.program.sources]


def program_size(board: Board, program: Path) -> tuple[int, int]:
    """Bytes of flash (code and constants) and of static RAM."""
    text, data, bss = map(int, run_tool(board, [board.size_tool, str(program)]).splitlines()[1].split()[:3])
    return text + data, data + bss


def run_tool(board: Board, command: Sequence[str], folder: Path | None = None) -> str:
    """What a tool prints, run in `folder`. Raises ConfigError, with its first line of error, where it fails or takes
    too long."""
    with tempfile.TemporaryDirectory(prefix="quantgru-") as temporary:  # a compiler that is killed leaves its files
        variables = os.environ | {"TMPDIR": temporary}
        try:
            result = subprocess.run(
                command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False, env=variables, cwd=folder
            )
        except subprocess.TimeoutExpired:
            raise ConfigError(f"board {board.name}: {command[0]} took longer than {_TIMEOUT_S:g} s") from None
    if result.returncode:
        raise ConfigError(f"board {board.name}: {_failure(board, command[0], result.stderr)}")
    return result.stdout


def _failure(board: Board, tool: str, said: str) -> str:
    if regions := _too_small_regions(said):
        return (
            f"the program does not fit into memory region {' and '.join(regions)} of the linker script; see `quantgru "
            f"inspect MODEL --board {board.name}`, and use a model with fewer inputs or units, or shorter sequences "
            "where it needs whole ones"
        )
    texts = [text for text in said.splitlines() if not text.startswith("collect2")]  # which repeats others
    lines = [text for text in texts if "error" in text] or texts or ["?"]
    return f"{tool} failed: {lines[0].strip()}"


def _too_small_regions(said: str) -> list[str]:
    """Memory regions that a program overflows, and by how much where the linker said it."""
    excess = {name: f"{name} by {int(n_bytes):,} bytes" for name, n_bytes in _OVERFLOW.findall(said)}
    return list(dict.fromkeys(excess.get(name, name) for name in [*_TOO_LARGE.findall(said), *excess]))
