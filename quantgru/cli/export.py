"""quantgru export"""

from __future__ import annotations

import click


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
def export(model: str, output: str, build: str, name: str | None, max_steps: int | None) -> None:
    """Write portable C99: the model, the kernel library, an example and a CMakeLists.txt.

    With --for arduino, a folder for Arduino's libraries: its examples are a sketch that runs the model on a sensor, and
    the test firmware that `quantgru hil --port` talks to.
    """
    from quantgru.exporter import export as to_files
    from quantgru.exporter import export_arduino
    from quantgru.int_model import IntModel

    if not output:
        raise click.UsageError("-o DIR is empty; . is the folder you are in")
    int_model = IntModel.load(model)
    write = export_arduino if build == "arduino" else to_files
    for path in write(int_model, output, name, max_steps=max_steps):
        click.echo(str(path))
