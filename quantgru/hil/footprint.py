"""What a model takes on a board, without test firmware: compiled, linked into the least program, and not run."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from quantgru.hil.boards import Board
from quantgru.hil.compiler import compile_sources, library_objects, link, port_sources, program_size, run_tool
from quantgru.hil.stack import deepest_stack, read_functions

_STACK_USAGE: Final = "-fstack-usage"  # files beside the objects
_ENTRIES: Final = {"step": ("model_reset", "model_step", "model_output"), "sequence": ("main",)}  # the last is inline


@dataclass(frozen=True)
class Footprint:
    """Bytes of the least program with a model, and of the model in it.

    flash_bytes        code and constants, with the board's start-up
    ram_bytes          variables, without the stack
    model_flash_bytes  what the model and the library add to a program without them
    model_ram_bytes    the same of variables: state, scratch, vectors of inputs and outputs; on an AVR descriptors, too
    stack_bytes        the deepest chain of calls of a reset, a step or an output, at most
    """

    flash_bytes: int
    ram_bytes: int
    model_flash_bytes: int
    model_ram_bytes: int
    stack_bytes: int


def footprint(board: Board, export_directory: Path, build_directory: Path, *, streaming: bool) -> Footprint:
    """Measures the model that was exported as "model" into `export_directory`.

    streaming  whether the model runs step by step

    A program that is larger than the board is measured as well. Raises ConfigError where a tool is missing or the
    compiler refuses.
    """
    if board.program.missing() or shutil.which(board.size_tool) is None:  # no emulator is needed
        board.require_tools()
    build_directory.mkdir(parents=True, exist_ok=True)
    kind = "step" if streaming else "sequence"
    least = board.firmware / "least"
    library = export_directory / "quantgru"
    of_board = port_sources(board)
    port = [board.firmware / "harness", board.folder, *(source.parent for source in of_board)]
    model, program, nothing, *start_up = compile_sources(
        board,
        board.program,
        [export_directory / "model.c", least / f"{kind}.c", least / "empty.c", *of_board],
        [export_directory, library / "include", *port],
        build_directory,
        _STACK_USAGE,
    )
    objects = [model, program, *library_objects(board, library, _STACK_USAGE)]
    flash, ram = _linked_size(board, [*objects, *start_up], build_directory / "model.elf")
    empty_flash, empty_ram = _linked_size(board, [nothing, *start_up], build_directory / "empty.elf")
    stack = _stack(board, objects, _ENTRIES[kind])
    return Footprint(flash, ram, flash - empty_flash, ram - empty_ram, stack)


def _linked_size(board: Board, objects: Sequence[Path], target: Path) -> tuple[int, int]:
    link(board, board.program, objects, target, "-Wl,--noinhibit-exec")  # also where the memory is too small
    return program_size(board, target)


def _stack(board: Board, objects: Sequence[Path], entries: Sequence[str]) -> int:
    objdump = f"{board.size_tool.removesuffix('size')}objdump"  # from the same package
    stack_usage = [path.with_suffix(".su").read_text(encoding="utf-8") for path in objects]
    names = list(map(str, objects))
    relocations = run_tool(board, [objdump, "-r", *names])
    disassembly = run_tool(board, [objdump, "-d", "--no-show-raw-insn", *names])
    return deepest_stack(read_functions(stack_usage, relocations, disassembly), entries)
