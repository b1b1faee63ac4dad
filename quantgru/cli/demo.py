"""quantgru demo"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.table import Table

    from quantgru.demo.pipeline import DemoResult


@click.command(epilog="Example: quantgru demo -o demo")
@click.option("--board", default="host", show_default=True, metavar="NAME", help="Board that runs the test sequences.")
@click.option("--sequences", default=400, show_default=True, type=click.IntRange(min=1), help="How many it runs.")
@click.option("-o", "--output", metavar="DIR", help="Keep the model and its C files here.")
def demo(board: str, sequences: int, output: str | None) -> None:
    """Take a trained digit classifier all the way to a board that runs here."""
    from pathlib import Path

    from quantgru.cli.console import console
    from quantgru.demo.pipeline import run_demo

    result = run_demo(board, sequences, None if output is None else Path(output), tell=click.echo)
    console().print(_table(result))
    equal = result.on_board
    if not equal.equal:
        click.echo(f"DIFFERENT: {equal.first_difference}")
        sys.exit(1)
    click.echo(f"{equal.steps:,} of {equal.total_steps:,} steps equal on {equal.target}")


def _table(result: DemoResult) -> Table:
    from rich.table import Table

    found, cost = result.comparison, result.cost
    table = Table("", "float64", "integers", title=f"Digits, {result.n_sequences} test sequences", title_justify="left")
    rows = {
        "accuracy": (_percent(found.float_accuracy), _percent(found.int_accuracy)),
        "labels as the float model's": ("", _percent(found.label_agreement)),
        "state SQNR": ("", f"{found.state_sqnr_db:.1f} dB"),
        "largest error of an output": ("", f"{found.largest_error:.3f}"),
        "flash for constants": ("", f"{cost.constant_bytes:,} bytes"),
        "RAM: state + scratch": ("", f"{cost.state_bytes} + {cost.scratch_bytes} bytes"),
        "multiply-accumulates a step": ("", f"{cost.step_macs:,}, and {cost.head_macs:,} for an output"),
    }
    for name, (float64, integers) in rows.items():
        table.add_row(name, float64, integers)
    return table


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f} %"
