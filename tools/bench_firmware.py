"""What the firmware costs on a Cortex-M4 at -O2: instructions, flash, RAM. Needs the tools of board mps2-an386.

    python tools/bench_firmware.py

Instructions are counted by the emulator, in ticks of 1.6: the same in each run, to within one. Sizes are those of the
linker and the compiler.
"""

from __future__ import annotations

import argparse
import re
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import quantgru as qg
from quantgru.exporter import export
from quantgru.firmware_files import firmware_directory
from quantgru.hil.boards import Board, Image, find_board, launch
from quantgru.hil.transport import SerialTransport
from quantgru.int_model import IntModel
from quantgru.int_model.cost import cost

BOARD = "mps2-an386"
SHAPES = ((10, 154), (16, 32), (40, 64), (3, 16))
VALUES = 4096  # of bench_activations.c
STEPS = 20
POINTED_TO = ("qg_gru_", "qg_linear", "qg_relu", "qg_dense_sigmoid", "qg_tanh")


@dataclass(frozen=True)
class Footprint:
    """Bytes of a model without test firmware, start-up and C library.

    code  kernels, tables, wrappers and descriptors; the model's constants come on top
    ram   beyond the state: scratch, and the stack of a step or an output
    """

    code: int
    ram: int


def random_model(inputs: int, units: int, reset: str, outputs: int = 0) -> IntModel:
    """A GRU, and a dense layer on top if there are `outputs`."""
    rng = np.random.default_rng(0)
    bound = 1 / np.sqrt(units)

    def uniform(*shape: int) -> np.ndarray:
        return rng.uniform(-bound, bound, shape)

    inner = uniform(units) if reset == "after" else np.zeros(units)
    layer = qg.Gru("gru", reset, uniform(3, units, inputs), uniform(3, units, units), uniform(3, units), inner)
    head = (qg.Dense("dense", uniform(outputs, units), uniform(outputs)),) if outputs else ()
    return qg.quantize(qg.FloatModel((layer, *head), last_step=False), rng.normal(size=(2, STEPS, inputs)))


def run(*command: str | Path) -> str:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True).stdout


def footprint(model: IntModel, board: Board) -> Footprint:
    """Links kernels and model alone, keeping what a step and an output need."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        export(model, folder / "export", "model")
        sources = [folder / "export" / "model.c", *(folder / "export" / "quantgru" / "src").glob("*.c")]
        includes = [f"-I{folder / 'export'}", f"-I{folder / 'export' / 'quantgru' / 'include'}"]
        for source in sources:
            target = folder / f"{source.stem}.o"
            run(board.compiler, "-std=c99", *board.flags, "-fcallgraph-info=su", *includes, "-c", source, "-o", target)
        kept = [f"-Wl,-u,model_{function}" for function in ("reset", "step", "output")]
        linked = folder / "linked.o"
        run(board.compiler, "-r", "-nostdlib", "-Wl,--gc-sections", *kept, *folder.glob("*.o"), "-o", linked)
        text, data, bss = map(int, run(board.size_tool, linked).splitlines()[1].split()[:3])
        return Footprint(text + data - cost(model).constant_bytes, cost(model).scratch_bytes + bss + stack(folder))


def stack(folder: Path) -> int:
    """Bytes of the deepest chain of calls, from the compiler's call graphs. Calls through a pointer, which are those of
    a layer's step and of an activation, may go to any function that one can point to."""
    frames: dict[str, int] = {}
    calls: dict[str, set[str]] = {}
    for path in folder.glob("*.ci"):
        text = path.read_text()
        for name, size in re.findall(r'title: "([^"]+)" label: "[^"]*?(\d+) bytes \(static\)', text):
            frames[local_name(name)] = int(size)
        for source, target in re.findall(r'sourcename: "([^"]+)" targetname: "([^"]+)"', text):
            calls.setdefault(local_name(source), set()).add(local_name(target))
    calls["__indirect_call"] = {name for name in frames if name.startswith(POINTED_TO)}

    def depth(name: str) -> int:
        return frames.get(name, 0) + max((depth(callee) for callee in calls.get(name, ())), default=0)

    return max(depth("model_step"), depth("model_output"))


def local_name(title: str) -> str:
    """The function of a call graph node, which is FILE:FUNCTION for static ones."""
    return title.rsplit(":", 1)[-1]


def activation_instructions(board: Board) -> tuple[float, float]:
    """Instructions of a call of sigmoid and of tanh, on average from -16 to 16."""
    firmware = firmware_directory()
    with tempfile.TemporaryDirectory() as name:
        program = Path(name) / "activations.elf"
        sources = [
            Path(__file__).with_name("bench_activations.c"),
            firmware / "src" / "qg_activations.c",
            *(board.folder / source for source in board.sources),
        ]
        includes = [f"-I{folder}" for folder in (firmware / "include", firmware / "harness", board.folder)]
        flags = [flag.format(port=board.folder) for flag in board.link_flags]
        run(board.compiler, "-std=c99", *board.flags, *includes, *sources, *flags, "-o", program)
        with launch(board, Image(program, 0, 0)) as url, SerialTransport(url) as line:
            line.write(b"?")
            answer = b""
            while len(answer) < 12:
                received = line.read(10)
                assert received, "no answer"
                answer += received
    assert board.timer is not None
    nothing, sigmoid, tanh = (ticks / board.timer.ticks_per_unit / VALUES for ticks in struct.unpack("<3I", answer))
    return sigmoid - nothing, tanh - nothing


def model_row(board: Board, what: str, model: IntModel) -> Sequence[str]:
    x = np.random.default_rng(1).normal(size=(1, STEPS, model.n_inputs))
    result = qg.run_on_board(model, x, board=board.name)
    assert result.equal and result.step_cost is not None, result.first_difference
    size, known = footprint(model, board), cost(model)
    instructions = result.step_cost.median
    figures = (known.constant_bytes, size.code, known.state_bytes, size.ram)
    per_mac = f"{instructions / known.step_macs:.2f}"
    return (what, f"{known.step_macs:,}", f"{instructions:,.0f}", per_mac, *(f"{figure:,}" for figure in figures))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    board = find_board(BOARD)
    board.require_tools()
    console = Console(width=120)
    table = Table(
        "GRU", "MACs a step", "instructions", "per MAC", "constants", "code + tables", "state", "RAM beyond state",
        title="Cortex-M4, -O2; wanted for 10→154: ≤ 3.0 per MAC, ≤ 2,560 bytes of code and tables, ≤ 2,048 of RAM",
    )  # fmt: skip
    for inputs, units in SHAPES:
        for reset in ("after", "before"):
            name = f"{inputs}→{units}, reset {reset}"
            table.add_row(*model_row(board, name, random_model(inputs, units, reset)))
    table.add_row(*model_row(board, "10→154 with 12 outputs", random_model(10, 154, "after", outputs=12)))
    console.print(table)
    sigmoid, tanh = activation_instructions(board)
    console.print(f"sigmoid {sigmoid:.1f}, tanh {tanh:.1f} instructions a value, call included (wanted: ≤ 36)")


if __name__ == "__main__":
    main()
