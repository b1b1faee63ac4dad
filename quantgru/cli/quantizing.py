"""What commands share that quantize a float model: options, and the work."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from quantgru.cli.loading import load_model, load_standardisation, loading_options, standardisation_option

if TYPE_CHECKING:
    from quantgru.int_model import IntModel
    from quantgru.int_model.row_parameters import RowParametersName
    from quantgru.model import FloatModel
    from quantgru.sequences import Sequences


def row_parameters_option(default: RowParametersName) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Adds the option, with this default."""
    return click.option(
        "--row-parameters",
        type=click.Choice(["exact", "short"]),
        default=default,
        show_default=True,
        help="Scales and biases of rows: with 'short' the device keeps them in one byte and two, not three and four.",
    )


_OPTIONS = (
    standardisation_option,
    loading_options,
    click.option(
        "--rounding",
        type=click.Choice(["compensated", "nearest"]),
        default="compensated",
        show_default=True,
        help="How weights become integers: so that errors make up for one another on X.npz, or each by itself.",
    ),
    click.option(
        "--weight-bits",
        default="8",
        show_default=True,
        metavar="BITS",
        help="Bits of the weights' codes, 2 ... 16; others for layers, matrices, gates: 4,gru.U.n=8,dense=6",
    ),
    click.option(
        "--refine",
        type=int,
        default=0,
        show_default=True,
        metavar="ROUNDS",
        help="Then change codes, scales and biases so that errors over whole sequences make up for one another. 8 "
        "rounds often win 2 dB and more, in seconds to minutes.",
    ),
    row_parameters_option("exact"),
)


class Quantized(NamedTuple):
    """A float model and its integers, and what they were calibrated on.

    standardisation  mean and scale of the inputs, as arguments; none without a file
    initial_states   of the calibration data, or None
    """

    float_model: FloatModel
    int_model: IntModel
    calibration: Sequences
    standardisation: dict[str, Any]
    initial_states: Any


def quantizing_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that `quantized` takes."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def quantized(model: str, calibration: str, options: dict[str, Any], **named: Any) -> Quantized:
    """The model of a file, quantized on the data of another, with a progress bar.

    options  as `quantizing_options` gives them
    named    names and units of the integer model
    """
    from quantgru.cli.console import refining
    from quantgru.quantizer import quantize
    from quantgru.quantizer.widths import parse_weight_bits
    from quantgru.sequences import load_initial_states, load_npz

    how = {name: options.pop(name) for name in ("rounding", "refine", "row_parameters")}
    widths = parse_weight_bits(options.pop("weight_bits"))
    standardisation = load_standardisation(options.pop("standardisation"))
    float_model = load_model(model, options)
    sequences, _ = load_npz(calibration, "calibration data")
    initial_states = load_initial_states(calibration, "calibration data")
    with refining(float_model, how["refine"]) as advance:
        int_model = quantize(
            float_model,
            sequences,
            **standardisation,
            initial_states=initial_states,
            weight_bits=widths,
            progress=advance,
            **how,
            **named,
        )
    return Quantized(float_model, int_model, sequences, standardisation, initial_states)
