"""quantgru boards"""

from __future__ import annotations

import click


@click.command(epilog="Example: quantgru boards")
def boards() -> None:
    """List the boards that can be built and run here, and what is missing for the others."""
    from rich.table import Table

    from quantgru.cli.console import console
    from quantgru.firmware_files import firmware_directory
    from quantgru.hil.boards import find_boards

    found = find_boards()
    table = Table("board", "what it is", "here")
    for name, board in found.items():
        table.add_row(name, board.description, "no" if board.missing() else "yes")
    console().print(table)
    for name, board in found.items():
        if missing := board.missing():
            click.echo(f"{name}: {', '.join(missing)} not found; install it: {board.install_line()}")
    click.echo(f"sources of the test firmware: {firmware_directory()}")
    click.echo("Any other board that runs the test firmware: quantgru hil M.qgru --input X.npz --port PORT")
