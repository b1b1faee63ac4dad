"""quantgru export"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from quantgru.cli.loading import packing_option

if TYPE_CHECKING:
    from quantgru.int_model.packing import Packing


@click.command(epilog="Example: quantgru export gesture.qgru -o firmware/gesture")
@click.argument("model", metavar="M.qgru")
@click.option("-o", "--output", required=True, metavar="DIR", help="Folder for the C files; made if it does not exist.")
@click.option(
    "--for",
    "build",
    type=click.Choice(["cmake", "arduino"]),
    default="cmake",
    help="What builds it; arduino is a library with a test sketch, for PlatformIO, too.  [default: cmake]",
)
@click.option("--name", help="What C identifiers start with.  [default: the model's name]")
@click.option(
    "--max-steps",
    type=int,
    metavar="N",
    help="Longest sequence of a model that needs whole ones.  [default: the longest of its calibration data]",
)
@packing_option
def export(model: str, output: str, build: str, name: str | None, max_steps: int | None, packing: Packing) -> None:
    """Write portable C99: the model, the kernel library, an example and a CMakeLists.txt.

    With --for arduino, a folder for Arduino's libraries: its examples are a sketch that runs the model on a sensor, and
    the test firmware that `quantgru hil --port` talks to.

    Codes of less than 8 bits can be packed; numbers and digest stay. For a Cortex-M take --packing always: with 4 bits
    it saves 29 % of the flash of a GRU 16→32 and its library on an M4 (8,196 → 5,840 bytes) for 9 % more instructions,
    and 12 % of 3→16 for 7 %. For an AVR take never, unless flash is short: on an ATmega328P 8,870 → 7,028 bytes cost
    52 % more cycles, and with 3→16 there are 16 bytes to save for 50 %. The default knows no target. Codes above 8 bits
    have two bytes in any case.
    """
    from quantgru.exporter import export as to_files
    from quantgru.exporter import export_arduino
    from quantgru.int_model import IntModel

    if not output:
        raise click.UsageError("-o DIR is empty; . is the folder you are in")
    int_model = IntModel.load(model)
    write = export_arduino if build == "arduino" else to_files
    for path in write(int_model, output, name, max_steps=max_steps, packing=packing):
        click.echo(str(path))
