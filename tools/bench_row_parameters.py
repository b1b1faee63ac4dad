"""What scales and biases of rows in short save, and packed codes, and what they cost: flash, time of a step, SQNR.

    python tools/bench_row_parameters.py                   on a Cortex-M4 and an ATmega328P
    python tools/bench_row_parameters.py --board microbit  on this one

Flash is what model and library add to an empty image. SQNR is of the outputs of models that are trained on digits by
rows, 8→32, the mean of five.
"""

from __future__ import annotations

import argparse
import tempfile
from itertools import product
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from trained_tasks import TASKS, Task, trained

import quantgru as qg
from quantgru.errors import ConfigError
from quantgru.hil.boards import find_board
from quantgru.hil.footprint import footprint
from quantgru.int_model.avr import avr_excess
from quantgru.int_model.cost import cost
from quantgru.int_model.packing import Packing
from quantgru.int_model.row_parameters import ROW_PARAMETERS, RowParametersName
from quantgru.report.accuracy import sqnr_db

BOARDS = ("mps2-an386", "atmega328p")
SHAPES = ((3, 16, 6), (16, 32, 0), (10, 154, 0))  # inputs, units, classes
CODES: tuple[tuple[int, Packing], ...] = ((8, "never"), (4, "never"), (4, "always"))  # bits, and whether packed
SEEDS = range(5)


def model_of(shape: tuple[int, int, int], bits: int, row_parameters: RowParametersName) -> qg.IntModel:
    """Random weights: their values cost nothing."""
    n_inputs, n_units, n_classes = shape
    rng = np.random.default_rng(1)
    shapes = {"kernel": (n_inputs, 3 * n_units), "recurrent_kernel": (n_units, 3 * n_units), "bias": (2, 3 * n_units)}
    model = qg.from_arrays("keras-reset-after", **{name: rng.normal(0, 0.3, size) for name, size in shapes.items()})
    if n_classes:
        head = qg.Dense("classes", rng.normal(0, 0.3, (n_classes, n_units)), rng.normal(0, 0.3, n_classes), "linear")
        model = qg.FloatModel((*model.layers, head), last_step=False)
    x = rng.normal(size=(20, 40, n_inputs))
    return qg.quantize(model, x, weight_bits=bits, row_parameters=row_parameters, rounding="nearest")


def sizes_on(board_name: str) -> Table:
    board = find_board(board_name)
    table = Table("model", "bits", "packing", "row parameters", "constants", "flash", "a step", title=board_name)
    for shape in SHAPES:
        x = np.random.default_rng(2).normal(size=(1, 20, shape[0]))
        for (bits, packing), name in product(CODES, ROW_PARAMETERS):
            model = model_of(shape, bits, name)
            constants = cost(model, packing).constant_bytes
            if board.is_avr and (avr_excess(model, packing) or constants > 2**15):
                continue
            result = qg.run_on_board(model, x, board=board_name, packing=packing)
            if not result.equal or result.step_cost is None:
                raise ConfigError(f"{board_name}, {bits} bits, {name}: {result.first_difference}")
            with tempfile.TemporaryDirectory() as folder:
                qg.export(model, folder, name="model", packing=packing)
                flash = footprint(board, Path(folder), Path(folder) / "build", streaming=True).model_flash_bytes
            step = f"{result.step_cost.median:,.0f} {result.step_cost.unit}"
            widths = f"{shape[0]}→{shape[1]}" + (f", {shape[2]} classes" if shape[2] else "")
            table.add_row(widths, f"{bits}", packing, name, f"{constants:,}", f"{flash:,}", step)
    return table


def sqnr_table() -> Table:
    task = next(task for task in TASKS if task.name == "rows")
    table = Table("bits", *ROW_PARAMETERS, title="SQNR, dB")
    for bits in (8, 4, 3):
        found = {name: [sqnr_of(task, seed, bits, name) for seed in SEEDS] for name in ROW_PARAMETERS}
        table.add_row(f"{bits}", *(f"{np.mean(values):.2f}" for values in found.values()))
    return table


def sqnr_of(task: Task, seed: int, bits: int, row_parameters: RowParametersName) -> float:
    model, training, test = trained(task, seed)
    int_model = qg.quantize(model, training.x[:400], weight_bits=bits, row_parameters=row_parameters)
    return sqnr_db(model.run(test.x), qg.simulate(int_model, test.x))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--board", action="append", help="a name from `quantgru boards`; several times for several")
    options = parser.parse_args()
    console = Console(width=120)
    for board in options.board or BOARDS:
        console.print(sizes_on(board))
    console.print(sqnr_table())


if __name__ == "__main__":
    main()
