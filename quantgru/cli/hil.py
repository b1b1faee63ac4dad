"""quantgru hil"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from quantgru.errors import DataError, QuantgruError

if TYPE_CHECKING:
    from quantgru.on_board import BoardResult

DIFFERENT = 1


@click.command(epilog="Example: quantgru hil gesture.qgru --input test.npz --board host")
@click.argument("model", metavar="M.qgru")
@click.option("--input", "input_path", required=True, metavar="X.npz", help="Input sequences.")
@click.option("--board", metavar="NAME", help="Build and start this board here; `quantgru boards` lists them.")
@click.option("--port", metavar="URL", help="A board with the test firmware: /dev/ttyACM0, COM5, socket://...")
@click.option("--timeout", type=float, metavar="SECONDS", help="How long one answer may take, for slow boards.")
@click.option("--json", "json_path", metavar="FILE", help="Also write the result, or what went wrong, as JSON.")
def hil(
    model: str, input_path: str, board: str | None, port: str | None, timeout: float | None, json_path: str | None
) -> None:
    """Run sequences on a board (hardware in the loop) and compare every step with the simulator.

    Exit code 0 if every step was equal, 1 if one differed, 2 if the comparison could not be made.
    """
    from quantgru.cli.console import progress, require_writable, write_json
    from quantgru.int_model import IntModel
    from quantgru.on_board import run_on_board
    from quantgru.sequences import load_initial_states, load_npz

    if (board is None) == (port is None):
        raise click.UsageError("give either --board NAME or --port URL")
    if json_path is not None:
        require_writable(json_path)
        # However this run ends, the verdict of an earlier one must not stay behind.
        write_json(json_path, {"equal": False, "error": "the run did not finish"})
    try:
        int_model = IntModel.load(model)
        sequences, _ = load_npz(input_path)
        if load_initial_states(input_path) is not None:
            raise DataError(
                f"input {input_path}: has initial states, and a board starts from those of the model; leave them out, "
                "or quantize a model that has them"
            )
        with progress(f"comparing on {board or port}", sequences.n_steps, "steps") as advance:
            result = run_on_board(int_model, sequences, board=board, port=port, timeout_s=timeout, progress=advance)
    except QuantgruError as error:
        if json_path is not None:
            write_json(json_path, {"equal": False, "error": str(error)})
        raise
    if json_path is not None:
        write_json(json_path, result.to_json())
    _print(result)
    if not result.equal:
        sys.exit(DIFFERENT)


def _print(result: BoardResult) -> None:
    click.echo(f"{result.target}: {result.steps:,} of {result.total_steps:,} steps compared")
    if (cost := result.step_cost) is not None:
        digits = ",.2f" if cost.unit == "us" else ",.0f"
        click.echo(
            f"{cost.unit} a step: {cost.minimum:{digits}} ... {cost.maximum:{digits}}, median {cost.median:{digits}}"
        )
    if result.flash_bytes is not None:
        click.echo(f"test firmware: {result.flash_bytes:,} bytes of flash, {result.ram_bytes:,} of RAM")
    if result.equal:
        click.echo(f"{result.steps:,} of {result.total_steps:,} steps equal")
    else:
        click.echo(f"DIFFERENT: {result.first_difference}")
