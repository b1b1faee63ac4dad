"""What the firmware costs on a Cortex-M4 at -O2: instructions, flash, RAM. Needs the tools of board mps2-an386. Then a
step of 3→16 on all boards that can run here; of AVRs, bench_avr.py says more.

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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import quantgru as qg
from quantgru.exporter import export
from quantgru.firmware_files import firmware_directory
from quantgru.hil.boards import Board, find_board, find_boards
from quantgru.hil.compiler import port_sources
from quantgru.hil.images import Image, launch
from quantgru.hil.transport import SerialTransport
from quantgru.int_model import IntModel
from quantgru.int_model.cost import cost
from quantgru.model.layers import Bidirectional, Embedding

BOARD = "mps2-an386"
SHAPES = ((10, 154), (16, 32), (40, 64), (3, 16))
VALUES = 4096  # of bench_activations.c
STEPS = 20

# Calls through a pointer: the functions of a whole model call a layer's step, those of a layer functions of one value.
LAYER_STEPS = ("qg_gru_reset_",)
VALUE_FUNCTIONS = ("qg_sigmoid", "qg_hard_sigmoid", "qg_tanh", "qg_linear", "qg_relu", "qg_signed_sigmoid", "qg_merge_")
CALL_LAYER_STEPS = ("qg_step", "qg_run", "run_", "write_states", "step_gru")

# What a program calls of a model that needs whole sequences; the header has it inline.
SEQUENCE_PROGRAM = """
#include "model.h"
int8_t model_entry(model_work *work, const int16_t *inputs, uint16_t n_steps, int16_t *outputs)
{
    return model_run(work, inputs, n_steps, NULL, outputs);
}
"""


@dataclass(frozen=True)
class Footprint:
    """Bytes of a model without test firmware, start-up and C library.

    code  kernels, tables, wrappers and descriptors; the model's constants come on top
    ram   beyond the state: scratch, and the stack of a step or an output; whole sequences need room for each step, too
    """

    code: int
    ram: int


def random_gru(inputs: int, units: int, reset: str = "after", **functions: Any) -> qg.Gru:
    rng = np.random.default_rng(0)
    bound = 1 / np.sqrt(units)
    w, u, b = (rng.uniform(-bound, bound, (3, units, *more)) for more in ((inputs,), (units,), ()))
    inner = rng.uniform(-bound, bound, units) if reset == "after" else np.zeros(units)
    return qg.Gru("gru", reset, w, u, b, inner, **functions)


def random_dense(inputs: int, outputs: int) -> qg.Dense:
    rng = np.random.default_rng(0)
    return qg.Dense("dense", rng.uniform(-0.1, 0.1, (outputs, inputs)), rng.uniform(-0.1, 0.1, outputs))


def quantized(*layers: Any, last_step: bool = False) -> IntModel:
    model, rng = qg.FloatModel(layers, last_step=last_step), np.random.default_rng(0)
    if isinstance(layers[0], Embedding):
        return qg.quantize(model, rng.integers(0, 20, (2, STEPS, 1)))
    return qg.quantize(model, rng.normal(size=(2, STEPS, model.n_inputs)))


def other_models() -> Iterator[tuple[str, IntModel]]:
    """What each kind of layer adds to 10→154, reset after; whole sequences with less units."""
    gru, head = random_gru(10, 154), random_dense(154, 12)
    yield "10→154", quantized(gru)
    yield "with 12 outputs", quantized(gru, head)
    yield "with two dense layers on top", quantized(gru, head, random_dense(12, 4))
    yield "with an initial state", quantized(replace(gru, initial_state=np.full(154, 0.5)))
    yield "with a dense layer before", quantized(random_dense(4, 10), gru)
    yield "with an embedding", quantized(Embedding("tokens", np.random.default_rng(0).normal(size=(20, 10))), gru)
    yield "hard_sigmoid and tanh", quantized(replace(gru, gate="hard_sigmoid"))
    yield "hard_sigmoid and relu", quantized(replace(gru, gate="hard_sigmoid", candidate="relu"))
    both = Bidirectional("both", random_gru(10, 32), random_gru(10, 32), "concat", final=False)
    yield "10→32 in both directions", quantized(both)
    yield (
        "10→32 in both directions, one vector, dense",
        quantized(replace(both, final=True), random_dense(64, 12), last_step=True),
    )


def run(*command: str | Path) -> str:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True).stdout


def footprint(model: IntModel, board: Board) -> Footprint:
    """Links kernels and model alone, keeping what a step and an output need, or a run of a whole sequence."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        export(model, folder / "export", "model")
        sources = [folder / "export" / "model.c", *(folder / "export" / "quantgru" / "src").glob("*.c")]
        entries = ["model_reset", "model_step", "model_output"]
        if not model.streaming:
            sources.append(folder / "program.c")
            sources[-1].write_text(SEQUENCE_PROGRAM)
            entries = ["model_entry"]
        includes = [f"-I{folder / 'export'}", f"-I{folder / 'export' / 'quantgru' / 'include'}"]
        for source in sources:
            target = folder / f"{source.stem}.o"
            run(
                board.program.compiler,
                "-std=c99",
                *board.program.flags,
                "-fcallgraph-info=su",
                *includes,
                "-c",
                source,
                "-o",
                target,
            )
        kept = [f"-Wl,-u,{entry}" for entry in entries]
        linked = folder / "linked.o"
        run(board.program.compiler, "-r", "-nostdlib", "-Wl,--gc-sections", *kept, *folder.glob("*.o"), "-o", linked)
        text, data, bss = map(int, run(board.size_tool, linked).splitlines()[1].split()[:3])
        known = cost(model)
        return Footprint(text + data - known.constant_bytes, known.scratch_bytes + bss + stack(folder, entries))


def stack(folder: Path, entries: Sequence[str]) -> int:
    """Bytes of the deepest chain of calls, from the compiler's call graphs."""
    frames: dict[str, int] = {}
    calls: dict[str, set[str]] = {}
    for path in folder.glob("*.ci"):
        text = path.read_text()
        for name, size in re.findall(r'title: "([^"]+)" label: "[^"]*?(\d+) bytes \(static\)', text):
            frames[local_name(name)] = int(size)
        for source, target in re.findall(r'sourcename: "([^"]+)" targetname: "([^"]+)"', text):
            calls.setdefault(local_name(source), set()).add(local_name(target))
    for caller, called in calls.items():
        if "__indirect_call" in called:
            pointed_to = (*VALUE_FUNCTIONS, *(LAYER_STEPS if caller.startswith(CALL_LAYER_STEPS) else ()))
            called |= {name for name in frames if name.startswith(pointed_to)}

    def depth(name: str) -> int:
        return frames.get(name, 0) + max((depth(callee) for callee in calls.get(name, ())), default=0)

    return max(map(depth, entries))


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
            *port_sources(board),
        ]
        folders = [
            firmware / "include",
            firmware / "harness",
            board.folder,
            *(part.parent for part in port_sources(board)),
        ]
        includes = [f"-I{folder}" for folder in folders]
        flags = [flag.format(port=board.folder) for flag in board.program.link_flags]
        run(board.program.compiler, "-std=c99", *board.program.flags, *includes, *sources, *flags, "-o", program)
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


def step_on_each_board() -> Table:
    table = Table("board", "core", "a step", "unit", title="3→16, reset after")
    model = quantized(random_gru(3, 16))
    x = np.random.default_rng(1).normal(size=(1, STEPS, 3))
    for name, board in find_boards().items():
        if board.core != "host" and not board.missing():
            result = qg.run_on_board(model, x, board=name)
            assert result.equal and result.step_cost is not None, result.first_difference
            table.add_row(name, board.core, f"{result.step_cost.median:,.0f}", result.step_cost.unit)
    return table


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
            table.add_row(*model_row(board, name, quantized(random_gru(inputs, units, reset))))
    outputs = quantized(random_gru(10, 154), random_dense(154, 12))
    table.add_row(*model_row(board, "10→154 with 12 outputs", outputs))
    console.print(table)
    table = Table("model", "code + tables", "RAM beyond state", "RAM for each step", title="What other layers add")
    for name, model in other_models():
        size = footprint(model, board)
        table.add_row(name, f"{size.code:,}", f"{size.ram:,}", f"{cost(model).row_bytes:,}")
    console.print(table)
    sigmoid, tanh = activation_instructions(board)
    console.print(f"sigmoid {sigmoid:.1f}, tanh {tanh:.1f} instructions a value, call included (wanted: ≤ 36)")
    console.print(step_on_each_board())


if __name__ == "__main__":
    main()
