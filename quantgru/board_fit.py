"""Whether a model fits a board: flash, RAM, stack, and its share of the processor."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from quantgru.errors import ConfigError, DeviceError, ModelError
from quantgru.exporter import export
from quantgru.fixed import to_real
from quantgru.hil.boards import Board, Chip, find_board
from quantgru.hil.footprint import Footprint, footprint
from quantgru.hil.timer import StepCost
from quantgru.int_model import IntModel, avr, require_int_model
from quantgru.int_model.cost import cost
from quantgru.int_model.packing import Packing
from quantgru.on_board import run_on_board
from quantgru.report.gates import Gate


@dataclass(frozen=True)
class Load:
    """What steps at a rate take of a processor.

    step       a step, measured on the emulated board
    share      of the processor, by the longest step with its outputs, 1 for all of it; None for a board without a clock
    at_least   whether `share` takes an instruction for a cycle, and no real chip is as fast as that
    """

    rate_hz: float
    step: StepCost
    share: float | None
    at_least: bool


@dataclass(frozen=True)
class BoardFit:
    """What a model takes on a board, and what the board has.

    chip        as the board's description says, or as its user; None where nothing is known, and nothing is judged
    footprint   bytes; None where the constants alone are too many for the board: nothing was compiled
    load        None if no rate was given, or the program does not fit
    gates       what can be judged: each need with what the board has
    """

    board: str
    description: str
    chip: Chip
    footprint: Footprint | None
    load: Load | None
    gates: tuple[Gate, ...]

    @property
    def fits(self) -> bool:
        """Whether nothing exceeds what the board has, as far as that is known."""
        return all(gate.holds for gate in self.gates)

    def to_json(self) -> dict[str, Any]:
        """The result as JSON values."""
        load = self.load
        return {
            "board": self.board,
            "fits": self.fits,
            "chip": vars(self.chip),
            "footprint": None if self.footprint is None else vars(self.footprint),
            "load": None if load is None else vars(load) | {"step": vars(load.step)},
            "gates": [gate.to_json() for gate in self.gates],
        }


def inspect_board(
    model: IntModel,
    board: str,
    *,
    rate_hz: float | None = None,
    flash_bytes: int | None = None,
    ram_bytes: int | None = None,
    clock_hz: int | None = None,
    packing: Packing = "auto",
    progress: Callable[[int], None] = lambda parts: None,
) -> BoardFit:
    """Compiles the model for a board, links it into the least program, and holds its sizes against the board's.

    board     a name from `quantgru boards`; its compiler must be here, and with a rate its emulator
    rate_hz   steps a second: runs a few steps on the board, and says which share of the processor they take
    flash_bytes, ram_bytes, clock_hz   those of another chip with the same core
    packing   how codes of weights lie, as in `export`
    progress  called with 1 after the program was linked, and with 1 after the steps have run

    Raises ModelError for what is not an IntModel, and with a rate for a model that needs whole sequences; ConfigError
    for an unknown board or packing, a missing tool, a compiler that refuses or numbers that are none; DeviceError for a
    board that does not run.
    """
    require_int_model(model, "inspect")
    for name, value in (
        ("rate_hz", rate_hz),
        ("flash_bytes", flash_bytes),
        ("ram_bytes", ram_bytes),
        ("clock_hz", clock_hz),
    ):
        if value is not None and not 0 < value < math.inf:
            raise ConfigError(f"inspect: {name} {value!r}, expected a positive number")
    if rate_hz is not None and not model.streaming:
        raise ModelError(
            f"inspect: model {model.name!r} has layers that need the whole sequence, and no rate of steps; "
            f"quantgru hil --board {board} says what a run takes"
        )
    description = find_board(board)
    given = {"flash_bytes": flash_bytes, "ram_bytes": ram_bytes, "clock_hz": clock_hz}
    chip = replace(description.chip, **{name: value for name, value in given.items() if value is not None})
    if rate_hz is not None:
        description.require_tools()  # the emulator's, too: said before the work
    if excess := tuple(gate for gate in _constant_gates(model, description, chip, packing) if not gate.holds):
        return BoardFit(board, description.description, chip, None, None, excess)
    sizes = _footprint(model, description, packing)
    progress(1)
    fit = BoardFit(board, description.description, chip, sizes, None, tuple(_memory_gates(sizes, chip)))
    if rate_hz is None or not fit.fits:
        return fit
    load = _load(model, board, rate_hz, chip, packing)
    progress(1)
    return replace(fit, load=load, gates=(*fit.gates, *_load_gates(load)))


def _constant_gates(model: IntModel, board: Board, chip: Chip, packing: Packing) -> list[Gate]:
    """What is known without a compiler."""
    constants = cost(model, packing).constant_bytes
    gates = []
    if chip.flash_bytes is not None:
        gates.append(Gate("flash, by constants alone", "bytes", "max", constants, chip.flash_bytes))
    if board.is_avr:
        gates.append(Gate("constants that an AVR reads", "bytes", "max", constants, avr.MOST_CONSTANT_BYTES))
        largest = avr.largest_array_bytes(model, packing)
        gates.append(Gate("an array that an AVR reads", "bytes", "max", largest, avr.MOST_ARRAY_BYTES))
    return gates


def _footprint(model: IntModel, board: Board, packing: Packing) -> Footprint:
    with tempfile.TemporaryDirectory(prefix="quantgru-") as folder:
        export(model, Path(folder) / "export", "model", packing=packing)
        return footprint(board, Path(folder) / "export", Path(folder) / "build", streaming=model.streaming)


def _memory_gates(sizes: Footprint, chip: Chip) -> list[Gate]:
    needs = {
        "flash": (sizes.flash_bytes, chip.flash_bytes),
        "RAM and stack": (sizes.ram_bytes + sizes.stack_bytes, chip.ram_bytes),
    }
    return [Gate(name, "bytes", "max", need, has) for name, (need, has) in needs.items() if has is not None]


def _load(model: IntModel, board: str, rate_hz: float, chip: Chip, packing: Packing) -> Load:
    """Measured on the steps of the model's self-test."""
    x = to_real(model.selftest.inputs, model.input_fraction_bits)[None]
    in_order = x[:, :: -1 if model.reversed_input else 1]
    result = run_on_board(model, in_order, board=board, packing=packing)
    if not result.equal or result.step_cost is None:
        raise DeviceError(f"board {board}: its steps cannot be measured; `quantgru hil` says what is wrong with it")
    step = result.step_cost
    at_least = step.unit == "instructions"
    if step.unit == "us":
        return Load(rate_hz, step, step.most_with_outputs * 1e-6 * rate_hz, at_least)
    share = None if chip.clock_hz is None else step.most_with_outputs * rate_hz / chip.clock_hz
    return Load(rate_hz, step, share, at_least)


def _load_gates(load: Load) -> list[Gate]:
    if load.share is None:
        return []
    return [Gate("processor", "share", "max", load.share, 1.0)]
