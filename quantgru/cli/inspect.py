"""quantgru inspect"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from quantgru.cli.loading import (
    core_option,
    load_model,
    load_standardisation,
    loading_options,
    packing_option,
    standardisation_option,
)

if TYPE_CHECKING:
    from rich.table import Table

    from quantgru.board_fit import BoardFit
    from quantgru.error_bounds import ErrorBound, FoundErrors
    from quantgru.int_model import IntModel
    from quantgru.int_model.packing import Packing

DOES_NOT_FIT = 1

_POSITIVE = click.IntRange(min=1)


@click.command(
    epilog="Example: quantgru inspect gesture.qgru. Whether it fits: quantgru inspect gesture.qgru --board atmega328p "
    "--rate 50. How far a step can be from floats: quantgru inspect gesture.qgru --bound gesture.keras"
)
@click.argument("model", metavar="M.qgru")
@click.option("--board", metavar="NAME", help="Compile for this board, and say whether flash, RAM and stack suffice.")
@click.option("--rate", type=float, metavar="HZ", help="Also which share of the processor so many steps a second take.")
@click.option("--flash", type=_POSITIVE, metavar="BYTES", help="Flash of another chip with the board's core.")
@click.option("--ram", type=_POSITIVE, metavar="BYTES", help="Its RAM.")
@click.option("--clock", type=_POSITIVE, metavar="HZ", help="Its clock.")
@packing_option
@core_option
@click.option(
    "--bound",
    "float_path",
    metavar="MODEL",
    help="The float model that it was made from: also prove how far a step can be from it, and search for such steps.",
)
@standardisation_option
@loading_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def inspect(
    model: str, board: str | None, float_path: str | None, standardisation: str | None, as_json: bool, **options: Any
) -> None:
    """Show formats, the overflow proof, cost and calibration of a model, and whether it fits a board.

    Exit code 1 if it does not fit. The options from --standardisation on say how MODEL of --bound is read.
    """
    import json

    from quantgru.cli.console import console
    from quantgru.cli.error_bound import bound_json, print_bound
    from quantgru.int_model import IntModel
    from quantgru.report.inspection import inspection, print_inspection

    of_chip = {name: options.pop(name) for name in ("rate", "flash", "ram", "clock")}
    packing, core = options.pop("packing"), options.pop("core")
    if board is None and any(value is not None for value in of_chip.values()):
        raise click.UsageError("--rate, --flash, --ram and --clock need --board NAME")
    int_model = IntModel.load(model)
    bound = None if float_path is None else _bound(int_model, float_path, standardisation, options)
    fit = None if board is None else _fit(int_model, board, packing, **of_chip)
    if as_json:
        of_board = {} if fit is None else {"board": fit.to_json()}
        of_bound = {} if bound is None else {"bound": bound_json(*bound)}
        click.echo(json.dumps(inspection(int_model, packing, core) | of_bound | of_board, indent=2))
    else:
        print_inspection(int_model, console(), packing, core)
        if bound is not None:
            print_bound(*bound, console())
        if fit is not None:
            console().print(_table(fit))
            click.echo(_verdict(fit))
    if fit is not None and not fit.fits:
        sys.exit(DOES_NOT_FIT)


def _bound(
    int_model: IntModel, path: str, standardisation: str | None, loading: dict[str, Any]
) -> tuple[ErrorBound, FoundErrors]:
    from quantgru.cli.error_bound import bound_and_search

    return bound_and_search(int_model, load_model(path, loading), load_standardisation(standardisation))


def _fit(
    model: IntModel,
    board: str,
    packing: Packing,
    rate: float | None,
    flash: int | None,
    ram: int | None,
    clock: int | None,
) -> BoardFit:
    from quantgru.board_fit import inspect_board
    from quantgru.cli.console import progress

    with progress(f"measuring on {board}", 1 if rate is None else 2, "parts") as advance:
        return inspect_board(
            model,
            board,
            rate_hz=rate,
            flash_bytes=flash,
            ram_bytes=ram,
            clock_hz=clock,
            packing=packing,
            progress=advance,
        )


def _table(fit: BoardFit) -> Table:
    from rich.table import Table

    from quantgru.report.gates import figure

    table = Table("", "needs", "has", "", title=f"{fit.board}: {fit.description}", title_justify="left")
    if (sizes := fit.footprint) is not None:
        parts = {
            "model and library": sizes.model_flash_bytes,
            "their variables": sizes.model_ram_bytes,
            "stack, at most": sizes.stack_bytes,
        }
        for name, value in parts.items():
            table.add_row(name, figure(value, "bytes"), "", "")
        if fit.chip.flash_bytes is None:
            table.add_row("flash, with start-up", figure(sizes.flash_bytes, "bytes"), "", "")
        if fit.chip.ram_bytes is None:
            table.add_row("RAM and stack", figure(sizes.ram_bytes + sizes.stack_bytes, "bytes"), "", "")
    for gate in fit.gates:
        by_instructions = gate.unit == "share" and fit.load is not None and fit.load.at_least
        fits = "can fit" if by_instructions else "fits"  # a lower bound proves no more
        verdict = fits if gate.holds else "DOES NOT FIT"
        table.add_row(gate.name, figure(gate.value, gate.unit), figure(gate.limit, gate.unit), verdict)
    return table


def _verdict(fit: BoardFit) -> str:
    lines = []
    if (load := fit.load) is not None:
        digits = ",.2f" if load.step.unit == "us" else ",.0f"
        outputs = "" if load.step.outputs is None else f" and {load.step.outputs:{digits}} for its outputs"
        step = f"{load.step.maximum:{digits}} {load.step.unit} a step at most{outputs}"
        lines.append(f"{step}, {load.rate_hz:g} steps a second")
        if load.at_least:
            lines.append(
                "the emulator counts instructions: at least one cycle each, more with wait states and branches"
            )
    if not fit.gates:
        lines.append(f"{fit.board} is no chip with limits of its own: say --flash, --ram and --clock")
    else:
        failing = ", ".join(gate.name for gate in fit.gates if not gate.holds)
        unproved = ", as far as instructions tell" if load is not None and load.at_least else ""
        lines.append(f"DOES NOT FIT: {failing}" if failing else f"fits {fit.board}{unproved}")
    return "\n".join(lines)
