"""quantgru sensitivity"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from quantgru.cli.quantizing import quantized, quantizing_options

if TYPE_CHECKING:
    from rich.table import Table

    from quantgru.error_sources import Effect, Sensitivity


@click.command(epilog="Example: quantgru sensitivity gesture.keras --calibration train.npz --input test.npz")
@click.argument("model")
@click.option("--calibration", required=True, metavar="X.npz", help="Input sequences: what formats are chosen on.")
@click.option("--input", "input_path", required=True, metavar="Y.npz", help="Input sequences: what errors are of.")
@quantizing_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def sensitivity(model: str, calibration: str, input_path: str, as_json: bool, **options: Any) -> None:
    """Show where the error of integers comes from: what each part of MODEL costs that is quantized alone.

    For each line, the float model runs with that one part as integers have it, and all else in float64. SQNR is the
    float model's signal to the difference that this makes: of the states of the last GRU layer, and of the outputs.
    A weight tensor has the name that --weight-bits knows, and comes with what biases take back. Functions are
    pre-activations in their formats and tables; a state is rounded h and n, with the residual. The last lines are of
    all weights of a layer, of all weights, and of the integer model.

    "Other labels" counts outputs whose largest entry is another, which says nothing of a regression; "first at" says
    after which step that shows first. If MODEL answers after the last step only, it is asked after each for that, in
    the sequences whose label is another.

    With --refine, errors of parts make up for one another: each alone costs more than it does in the integer model.
    """
    import json

    from quantgru.cli.console import console, progress
    from quantgru.error_sources import n_sources
    from quantgru.error_sources import sensitivity as measure
    from quantgru.sequences import load_initial_states, load_npz

    x, _ = load_npz(input_path)
    found = quantized(model, calibration, options)
    with progress("measuring", n_sources(found.int_model), "parts") as advance:
        result = measure(
            found.int_model,
            found.float_model,
            x,
            found.calibration,
            **found.standardisation,
            initial_states=load_initial_states(input_path),
            calibration_states=found.initial_states,
            progress=advance,
        )
    if as_json:
        click.echo(json.dumps(result.to_json(), indent=2))
    else:
        console().print(_table(result))
        for warning in found.int_model.notes["warnings"]:
            click.echo(f"warning: {warning}")
        if "refined" in found.int_model.notes:
            click.echo("refined: errors of parts make up for one another, and each alone costs more than in the model")


def _table(result: Sensitivity) -> Table:
    from rich.table import Table

    title = f"{result.n_sequences:,} sequences, {result.n_steps:,} steps, {result.n_labels:,} outputs"
    table = Table(
        "quantized alone", "states", "outputs", "other labels", "first at", "flash", "saturated",
        title=title, title_justify="left",
    )  # fmt: skip
    for effect in result.sources:
        table.add_row(*_cells(effect))
    table.add_section()
    for effect in result.together:
        table.add_row(*_cells(effect))
    return table


def _cells(effect: Effect) -> list[str]:
    from quantgru.report.gates import figure

    first = "" if effect.first is None else f"step {effect.first.step} of sequence {effect.first.sequence}"
    return [
        effect.name,
        figure(effect.state_db, "dB"),
        figure(effect.output_db, "dB"),
        "" if effect.changed_labels is None else f"{effect.changed_labels:,}",
        first,
        "" if effect.flash_bytes is None else figure(effect.flash_bytes, "bytes"),
        "" if effect.saturated is None else f"{effect.saturated:,}",
    ]
