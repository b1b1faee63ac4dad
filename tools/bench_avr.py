"""What a GRU 3→16 with a head of 6 classes costs on an ATmega328P: cycles, flash, RAM. Needs the board's tools.

    python tools/bench_avr.py

Cycles are those of the simulator, and the same in each run. Flash and RAM are what a program has more with the model
than without; the stack is measured in a run, from the marks that it leaves.
"""

from __future__ import annotations

import argparse
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import quantgru as qg
from quantgru.exporter import export
from quantgru.hil.boards import Board, find_board
from quantgru.hil.compiler import port_sources
from quantgru.hil.images import Image, launch
from quantgru.hil.timer import StepCost
from quantgru.hil.transport import SerialTransport
from quantgru.int_model import IntModel
from quantgru.int_model.cost import cost

BOARD = "atmega328p"
CLOCK_HZ = 16_000_000
INPUTS, UNITS, CLASSES, STEPS = 3, 16, 6, 200
TABLE_BYTES = 434  # of sigmoid and tanh
PEER_MS = 9.21  # FastGRNN, 16 units, of a published measurement at 16 MHz
MOST_FLASH, MOST_RAM = 5120, 300


@dataclass(frozen=True)
class Footprint:
    """Bytes on the AVR, and cycles of the head."""

    flash: int
    variables: int  # initialised: in RAM, and what they begin with in flash
    stack: int
    head_cycles: int


def make_model(reset: str) -> IntModel:
    rng = np.random.default_rng(0)
    w, u, b = (rng.uniform(-0.3, 0.3, (3, UNITS, *more)) for more in ((INPUTS,), (UNITS,), ()))
    inner = rng.uniform(-0.3, 0.3, UNITS) if reset == "after" else np.zeros(UNITS)
    gru = qg.Gru("gru", reset, w, u, b, inner)
    head = qg.Dense("classes", rng.normal(size=(CLASSES, UNITS)), np.zeros(CLASSES))
    return qg.quantize(qg.FloatModel((gru, head), last_step=False), rng.normal(size=(2, 20, INPUTS)))


def run(*command: str | Path) -> str:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True).stdout


def build(board: Board, folder: Path, name: str, *options: str) -> tuple[Path, int, int]:
    """bench_avr.c with the model that was exported into `folder`: the program, bytes of flash, of initialised RAM."""
    program = folder / name
    library = folder / "quantgru"
    sources = [Path(__file__).with_name("bench_avr.c"), folder / "model.c", *(library / "src").glob("*.c")]
    folders = [folder, library / "include", board.firmware / "harness", board.folder]
    includes = [f"-I{path}" for path in folders]
    flags, link_flags = board.program.flags, board.program.link_flags
    sources += port_sources(board)
    run(board.program.compiler, "-std=gnu99", *flags, *options, *includes, *sources, *link_flags, "-o", program)
    text, data = map(int, run(board.size_tool, program).splitlines()[1].split()[:2])
    return program, text + data, data


def footprint(board: Board, model: IntModel) -> Footprint:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        export(model, folder, "model")
        _, flash_without, data_without = build(board, folder, "without.elf", "-DWITHOUT_MODEL")
        program, flash, data = build(board, folder, "with.elf")
        with launch(board, Image(program, 0, 0)) as url, SerialTransport(url) as line:
            sent = b""
            for _ in range(20):  # a byte that comes before the program listens is lost
                line.write(b"?")
                while len(sent) < 8 and (received := line.read(0.5)):
                    sent += received
                if sent:
                    break
    *stacks, head_cycles = struct.unpack("<4H", sent[:8])
    return Footprint(flash - flash_without, data - data_without, max(stacks), head_cycles)


def step_cycles(model: IntModel) -> StepCost:
    x = np.random.default_rng(1).normal(size=(1, STEPS, INPUTS))
    result = qg.run_on_board(model, x, board=BOARD)
    assert result.equal and result.step_cost is not None, result.first_difference
    return result.step_cost


def milliseconds(cycles: float) -> str:
    return f"{1000 * cycles / CLOCK_HZ:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    board = find_board(BOARD)
    board.require_tools()
    time = Table("", "min", "median", "max", "head", "median and head, ms", title="Cycles of a step at 16 MHz")
    flash = Table("", "code", "tables", "constants", "all", title=f"Flash, wanted: ≤ {MOST_FLASH:,} bytes")
    ram = Table("", "state", "scratch", "variables", "stack", "all", title=f"RAM, wanted: ≤ {MOST_RAM} bytes")
    for reset in ("after", "before"):
        name, model = f"GRU {INPUTS}→{UNITS}, reset {reset}, {CLASSES} classes", make_model(reset)
        cycles, size, known = step_cycles(model), footprint(board, model), cost(model)
        figures = (cycles.minimum, cycles.median, cycles.maximum, size.head_cycles)
        time.add_row(name, *(f"{c:,.0f}" for c in figures), milliseconds(cycles.median + size.head_cycles))
        code = size.flash - TABLE_BYTES - known.constant_bytes  # and descriptors
        parts = (code, TABLE_BYTES, known.constant_bytes, size.flash)
        flash.add_row(name, *(f"{part:,}" for part in parts))
        working = (known.state_bytes, known.scratch_bytes, size.variables, size.stack)
        ram.add_row(name, *map(str, working), str(sum(working)))
    time.add_row("peer: FastGRNN of 16 units", "", f"{PEER_MS * CLOCK_HZ / 1000:,.0f}", "", "", f"{PEER_MS}")
    console = Console(width=120)
    for table in (time, flash, ram):
        console.print(table)


if __name__ == "__main__":
    main()
