"""quantgru search"""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING, Any, Final

import click

from quantgru.cli.loading import (
    LOADING_NAMES,
    core_option,
    load_model,
    load_standardisation,
    loading_options,
    standardisation_option,
)
from quantgru.cli.quantizing import row_parameters_option
from quantgru.errors import ConfigError, DataError

if TYPE_CHECKING:
    from quantgru.width_search import SearchResult

_SHARED: Final = ("calibration", "standardisation", *LOADING_NAMES)  # options with `quantgru quantize`


@click.command(
    epilog="Example: quantgru search gesture.keras --calibration train.npz --input validation.npz "
    "--objective flash,accuracy --trials 200 --study gesture.journal -o gesture.qgru"
)
@click.argument("model")
@click.option("--calibration", required=True, metavar="X.npz", help="Input sequences: training data, not test data.")
@click.option(
    "--input",
    "input_path",
    required=True,
    metavar="Y.npz",
    help="Sequences to judge models by, with labels for accuracy: neither the calibration nor the test data.",
)
@click.option("-o", "--output", required=True, metavar="M.qgru", help="Where the chosen integer model goes.")
@click.option(
    "--objective",
    type=click.Choice(["flash,sqnr", "flash,accuracy", "flash,agreement"]),
    default="flash,sqnr",
    show_default=True,
    help="Small in flash, and good: SQNR of the outputs, accuracy, or agreement with the float model's labels.",
)
@click.option(
    "--trials",
    type=int,
    default=200,
    show_default=True,
    help="Of this run: one width for all, then 256 likely mixes, then others by NSGA-II.",
)
@click.option("--widths", default="2,3,4,5,6,7,8", show_default=True, metavar="BITS", help="Widths that may be given.")
@click.option(
    "--within",
    type=float,
    help="Choose the smallest model that lacks at most so many points of the float model's accuracy, points of full "
    "agreement, or dB of the best SQNR.  [default: 0.3 points, 0.5 points, 6 dB]",
)
@click.option(
    "--flash",
    type=int,
    metavar="BYTES",
    help="Instead: choose the best of at most so many bytes of constants, and of code for packed weights "
    "and short scales on --core.",
)
@click.option(
    "--study",
    metavar="STORAGE",
    help="Keep trials, and go on with those that are there: the path of a journal, or the URL of a database that "
    "Optuna takes, sqlite:///study.db. Several machines can share it, with a --seed for each.",
)
@core_option
@click.option("--study-name", default="search", show_default=True, help="Which study of the storage.")
@click.option("--workers", type=int, default=1, show_default=True, help="Processes on this machine.")
@click.option("--seed", type=int, default=0, show_default=True, help="One worker and one seed: always the same result.")
@click.option(
    "--plot", "plot_path", metavar="P.png", help="Also draw sizes and what models are worth: .png, .svg, .pdf"
)
@click.option("--json", "json_path", metavar="FILE", help="Also write the result as JSON.")
@row_parameters_option("short")
@standardisation_option
@loading_options
def search(
    model: str, output: str, plot_path: str | None, json_path: str | None, input_path: str, trials: int, **options: Any
) -> None:
    """Search for widths of MODEL's weights, of each gate in each matrix, that make it small and keep it good.

    MODEL is a file that `quantgru formats` lists. Writes the chosen integer model, and shows those that none beats in
    both size and quality. Labels are those of the largest outputs: nothing to go by in a regression. Where they decide,
    the best of many models is best by luck: the smallest is chosen that is as good as --within asks for, and so is what
    models of its SQNR have in the mean; of its size, as all are whose codes are not packed, that with the most bits.
    """
    from quantgru.cli.console import progress, require_writable, write_file, write_json
    from quantgru.report.pareto_plot import pareto_plot, plot_format
    from quantgru.width_search import search as search_widths
    from quantgru.width_search.storage import shown

    written = [path for path in (output, plot_path, json_path) if path is not None]
    if len({os.path.realpath(path) for path in written}) < len(written):
        raise ConfigError(f"-o, --plot and --json: {', '.join(written)}, expected a file for each")
    for path in written:
        require_writable(path)
    drawn = "" if plot_path is None else plot_format(plot_path)
    arguments = _arguments(model, output, input_path, **options)
    with progress("searching", trials, "trials") as advance:
        try:
            result = search_widths(**arguments, trials=trials, progress=advance)
        except KeyboardInterrupt:
            if arguments["study"] is not None:
                kept = f"finished trials are kept in {shown(arguments['study'])}"
                click.echo(f"{kept}: the same command goes on with them", err=True)
            raise
    if plot_path is not None:
        plot = pareto_plot(result.tried, result.front, result.chosen, result.quality, result.unit, drawn)
        write_file(plot_path, plot)
    if json_path is not None:
        write_json(json_path, result.to_json())
    result.model.save(output)
    _print(result)
    click.echo(f"wrote {output}, as does: {shlex.join(_quantize_command(result))}")


def _arguments(
    model: str,
    output: str,
    input_path: str,
    calibration: str,
    standardisation: str | None,
    objective: str,
    widths: str,
    **options: Any,
) -> dict[str, Any]:
    """Of the search, out of files and options."""
    from pathlib import Path

    from quantgru.c_names import nearest_c_name
    from quantgru.sequences import load_initial_states, load_npz

    loading = {name: options.pop(name) for name in LOADING_NAMES}
    x, labels = load_npz(input_path)
    if load_initial_states(input_path) is not None:
        raise DataError(f"input {input_path}: has initial states, but models begin with their own; leave them out")
    return options | {
        "model": load_model(model, loading),
        "calibration": load_npz(calibration, "calibration data")[0],
        "initial_states": load_initial_states(calibration, "calibration data"),
        **load_standardisation(standardisation),
        "x": x,
        "labels": labels,
        "objective": objective.removeprefix("flash,"),
        "widths": _widths(widths),
        "name": nearest_c_name(Path(output).stem),
    }


def _widths(text: str) -> list[int]:
    try:
        return [int(bits) for bits in text.split(",")]
    except ValueError:
        raise ConfigError(f"widths {text!r}, expected numbers of bits set apart by commas: 2,4,8") from None


def _quantize_command(result: SearchResult) -> list[str]:
    """What makes the chosen model, with the options that this command was given."""
    from click.core import ParameterSource

    from quantgru.quantizer.widths import weight_bits_text

    context = click.get_current_context()
    model, given = context.params["model"], []
    for option in context.command.params:
        name = option.name or ""
        if name in _SHARED and context.get_parameter_source(name) == ParameterSource.COMMANDLINE:
            given += [option.opts[0], context.params[name]]
    widths = str(result.chosen.uniform_bits or weight_bits_text(result.chosen.weight_bits))
    given += ["--row-parameters", result.row_parameters, "--weight-bits", widths, "-o", context.params["output"]]
    return ["quantgru", "quantize", *given, *(["--"] if model.startswith("-") else []), model]


def _print(result: SearchResult) -> None:
    from quantgru.cli.console import console
    from quantgru.int_model.cores import ANY
    from quantgru.int_model.cost import kernel_bytes
    from quantgru.report.pareto import pareto_table, quality_text

    console().print(pareto_table(result.front, result.chosen, result.quality, result.unit))
    click.echo(f"{len(result.tried):,} different models were tried; {result.n_failed:,} trials failed")
    for warning in result.model.notes["warnings"]:
        click.echo(f"warning: {warning}")
    chosen, widest = result.chosen, max(result.tried, key=lambda candidate: candidate.uniform_bits or 0)
    share = ""
    if widest.uniform_bits:
        all_wide = f"{widest.uniform_bits} bits for all, row parameters {result.row_parameters}"
        share = f", {100 * chosen.flash_bytes / widest.flash_bytes:.1f} % of {all_wide}"
    quality = quality_text(chosen.quality, result.unit)
    in_code, code = kernel_bytes(result.model, result.core), ""
    if in_code > 0:
        code = f" ({in_code:,} of them code for packed weights and short scales)"
    elif in_code < 0:
        code = f" (constants, less {-in_code:,} that code is smaller than with a byte for each weight)"
    on_core = "" if result.core == ANY else f" on {result.core}"
    click.echo(f"chosen: {chosen.flash_bytes:,} bytes{on_core}{code}{share}; {quality}: {result.because}")
    if result.packing != "auto":
        click.echo(f"to have that size, export it with --packing {result.packing}")
    if result.labels is not None:
        lost, other = result.reference - chosen.quality, result.labels.uncertainty
        least = max(lost - other, result.reference - 100)  # nothing has more right than all
        click.echo(
            f"{result.labels.changed:,} of {result.labels.n:,} labels are not the float model's; {lost:.2f} points are "
            f"lost here, and {least:.2f} to {lost + other:.2f} on as many others, two standard deviations allowed for"
        )
