"""What packed codes of 2 ... 7 bits and codes of 16 cost, against codes in bytes: constants, flash of the test
firmware, time of a step.

    python tools/bench_packing.py                           10→154 on the Cortex-M4, which is what is wanted
    python tools/bench_packing.py --units 32 --board all    16→32 on all boards that can run here

All are packed, also where `--packing auto` would not. In bytes, codes of less than 8 bits take what those of 8 take:
tools/bench_row_parameters.py has small models either way.
Instructions or cycles are those of emulators: the same in each run. Weights are random; their values cost nothing.
"""

from __future__ import annotations

import argparse

import numpy as np
from rich.console import Console
from rich.table import Table

import quantgru as qg
from quantgru.hil.boards import find_boards
from quantgru.int_model.cost import cost

BOARD = "mps2-an386"
WANTED = "wanted for 4 bits at 10→154 on the Cortex-M4: constants ≤ 0.56, step ≤ 1.15"


def model_of(n_inputs: int, n_units: int, bits: int) -> qg.IntModel:
    """A GRU layer with codes that use all of their bits."""
    rng = np.random.default_rng(1)
    shapes = {"kernel": (n_inputs, 3 * n_units), "recurrent_kernel": (n_units, 3 * n_units), "bias": (2, 3 * n_units)}
    arrays = {name: rng.normal(0, 0.3, shape) for name, shape in shapes.items()}
    model = qg.from_arrays("keras-reset-after", **arrays)
    return qg.quantize(model, rng.normal(size=(20, 40, n_inputs)), weight_bits=bits, rounding="nearest")


def table_of(board: str, n_inputs: int, n_units: int) -> Table:
    table = Table("bits", "constants", "to 8 bits", "flash", "a step", "per MAC", "to 8 bits")
    x = np.random.default_rng(2).normal(size=(1, 20, n_inputs))
    eight: tuple[float, float] | None = None
    for bits in (8, 16, *range(7, 1, -1)):
        model = model_of(n_inputs, n_units, bits)
        result = qg.run_on_board(model, x, board=board, packing="always")
        if not result.equal or result.step_cost is None:
            raise SystemExit(f"{board}, {bits} bits: {result.first_difference}")
        constants, step = cost(model, "always").constant_bytes, result.step_cost.median
        eight = eight or (constants, step)
        table.add_row(
            f"{bits}",
            f"{constants:,}",
            f"{constants / eight[0]:.3f}",
            f"{result.flash_bytes:,}",
            f"{step:,.0f}",
            f"{step / cost(model).step_macs:.2f}",
            f"{step / eight[1]:.3f}",
        )
        table.title = f"{n_inputs}→{n_units}, {board}, {result.step_cost.unit}"
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=154, help="of the layer; 154 has 10 inputs, others 16")
    parser.add_argument("--board", default=BOARD, help="a name from `quantgru boards`, or all")
    options = parser.parse_args()
    boards = [name for name, board in find_boards().items() if not board.missing() and name != "host"]
    for name in boards if options.board == "all" else [options.board]:
        Console().print(table_of(name, 10 if options.units == 154 else 16, options.units))
    print(WANTED)


if __name__ == "__main__":
    main()
