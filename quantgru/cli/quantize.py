"""quantgru quantize"""

from __future__ import annotations

from typing import Any

import click

from quantgru.cli.quantizing import quantized, quantizing_options


@click.command(epilog="Example: quantgru quantize gesture.keras --calibration train.npz -o gesture.qgru")
@click.argument("model")
@click.option("--calibration", required=True, metavar="X.npz", help="Input sequences: training data, not test data.")
@click.option("-o", "--output", required=True, metavar="M.qgru", help="Where the integer model goes.")
@quantizing_options
@click.option("--input-units", metavar="UNITS", help="Units of the inputs, set apart by commas: g,g,g,deg/s")
@click.option("--output-units", metavar="UNITS", help="Units of the outputs, set apart by commas.")
@click.option("--name", help="Name of the model, which starts its C identifiers.  [default: the file's name]")
def quantize(
    model: str,
    calibration: str,
    output: str,
    input_units: str | None,
    output_units: str | None,
    name: str | None,
    **options: Any,
) -> None:
    """Choose formats on calibration data and quantize MODEL, a file that `quantgru formats` lists."""
    from pathlib import Path

    from quantgru.c_names import c_name, nearest_c_name
    from quantgru.cli.console import console, require_writable
    from quantgru.report.inspection import print_inspection

    require_writable(output)
    name = nearest_c_name(Path(output).stem) if name is None else c_name(name)
    units = {"input_units": _units(input_units), "output_units": _units(output_units)}
    int_model = quantized(model, calibration, options, name=name, **units).int_model
    int_model.save(output)
    print_inspection(int_model, console())
    click.echo(f"wrote {output}")


def _units(text: str | None) -> list[str]:
    return [] if text is None else [unit.strip() for unit in text.split(",")]
