"""quantgru quantize"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from quantgru.cli.loading import (
    load_model,
    load_standardisation,
    loading_options,
    refine_option,
    rounding_option,
    row_parameters_option,
    standardisation_option,
    weight_bits_option,
)

if TYPE_CHECKING:
    from quantgru.int_model.row_parameters import RowParametersName
    from quantgru.quantizer.rounding import RoundingName


@click.command(epilog="Example: quantgru quantize gesture.keras --calibration train.npz -o gesture.qgru")
@click.argument("model")
@click.option("--calibration", required=True, metavar="X.npz", help="Input sequences: training data, not test data.")
@click.option("-o", "--output", required=True, metavar="M.qgru", help="Where the integer model goes.")
@standardisation_option
@loading_options
@rounding_option
@weight_bits_option
@refine_option
@row_parameters_option
@click.option("--input-units", metavar="UNITS", help="Units of the inputs, set apart by commas: g,g,g,deg/s")
@click.option("--output-units", metavar="UNITS", help="Units of the outputs, set apart by commas.")
@click.option("--name", help="Name of the model, which starts its C identifiers.  [default: the file's name]")
def quantize(
    model: str,
    calibration: str,
    output: str,
    standardisation: str | None,
    rounding: RoundingName,
    weight_bits: str,
    refine: int,
    row_parameters: RowParametersName,
    input_units: str | None,
    output_units: str | None,
    name: str | None,
    **loading: Any,
) -> None:
    """Choose formats on calibration data and quantize MODEL, a file that `quantgru formats` lists."""
    from pathlib import Path

    from quantgru.c_names import c_name, nearest_c_name
    from quantgru.cli.console import console, refining, require_writable
    from quantgru.quantizer import quantize as to_integers
    from quantgru.quantizer.widths import parse_weight_bits
    from quantgru.report.inspection import print_inspection
    from quantgru.sequences import load_initial_states, load_npz

    widths = parse_weight_bits(weight_bits)
    require_writable(output)
    name = nearest_c_name(Path(output).stem) if name is None else c_name(name)
    float_model = load_model(model, loading)
    sequences, _ = load_npz(calibration, "calibration data")
    initial_states = load_initial_states(calibration, "calibration data")
    with refining(float_model, refine) as advance:
        int_model = to_integers(
            float_model,
            sequences,
            **load_standardisation(standardisation),
            initial_states=initial_states,
            rounding=rounding,
            weight_bits=widths,
            row_parameters=row_parameters,
            refine=refine,
            name=name,
            input_units=_units(input_units),
            output_units=_units(output_units),
            progress=advance,
        )
    int_model.save(output)
    print_inspection(int_model, console())
    click.echo(f"wrote {output}")


def _units(text: str | None) -> list[str]:
    return [] if text is None else [unit.strip() for unit in text.split(",")]
