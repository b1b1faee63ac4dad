"""The demo: from the float model to steps on a board that equal the simulator's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from quantgru.demo import digits
from quantgru.exporter import export
from quantgru.fixed import to_real
from quantgru.hil.boards import find_board
from quantgru.int_model import IntModel
from quantgru.int_model.cost import Cost, cost
from quantgru.model.run import outputs, run_body
from quantgru.on_board import BoardResult, run_on_board
from quantgru.quantizer import quantize
from quantgru.report.accuracy import Comparison, compare
from quantgru.sequences import Sequences
from quantgru.simulator import run

NAME = "digits"


@dataclass(frozen=True, eq=False)
class DemoResult:
    """What the demo measured."""

    model: IntModel
    n_sequences: int
    comparison: Comparison
    cost: Cost
    on_board: BoardResult


def run_demo(
    board: str,
    board_sequences: int,
    directory: Path | None = None,
    tell: Callable[[str], None] = lambda what: None,
) -> DemoResult:
    """Quantizes the digits' classifier, simulates all test sequences, and runs the first `board_sequences` on a board.

    directory  where the model and its C files are kept; nowhere if None
    tell       is told what is being done

    Raises ConfigError, DeviceError.
    """
    find_board(board).require_tools()  # said before the work, not after it
    float_model, calibration, test, labels = digits()
    tell(f"quantizing, calibrated on {calibration.n_sequences} sequences")
    model = quantize(float_model, calibration, name=NAME)
    tell(f"simulating {test.n_sequences} test sequences")
    result = run(model, test)
    body = run_body(float_model, test)
    comparison = compare(
        body.states[-1][test.valid],
        to_real(result.states_raw[-1][test.valid], model.grus[-1].state_fraction_bits),
        outputs(float_model, test, body.output),
        result.outputs,
        labels,
    )
    if directory is not None:
        tell(f"exporting to {directory}")
        export(model, directory / NAME)
        model.save(directory / f"{NAME}.qgru")
    on_board = Sequences(test.values[:board_sequences], test.lengths[:board_sequences])
    tell(f"exporting, compiling, and running {on_board.n_sequences} sequences over the serial line of board {board}")
    return DemoResult(model, test.n_sequences, comparison, cost(model), run_on_board(model, on_board, board=board))
