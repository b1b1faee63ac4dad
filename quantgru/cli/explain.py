"""quantgru explain"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from quantgru.cli.loading import load_model, load_standardisation, loading_options, standardisation_option

if TYPE_CHECKING:
    from quantgru.report.derivation import Derivation


@click.command(epilog="Example: quantgru explain gesture.keras --input test.npz --step 0 --unit 3")
@click.argument("model")
@click.option("--input", "input_path", required=True, metavar="X.npz", help="Input sequences, initial states.")
@click.option(
    "--calibration", metavar="X.npz", help="What formats are chosen on, if MODEL is in float.  [default: the input]"
)
@standardisation_option
@click.option("--sequence", default=0, show_default=True, help="Which sequence of the input.")
@click.option("--layer", metavar="NAME", help="One GRU layer, by name or number.  [default: all]")
@click.option("--step", type=int, help="One step, from 0, in the order in which the layer reads them.  [default: all]")
@click.option("--unit", type=int, help="One unit, from 0.  [default: all]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@loading_options
def explain(
    model: str,
    input_path: str,
    calibration: str | None,
    standardisation: str | None,
    sequence: int,
    layer: str | None,
    step: int | None,
    unit: int | None,
    as_json: bool,
    **loading: Any,
) -> None:
    """Derive a GRU's numbers step by step, in float and in integers, so that they can be checked by hand.

    MODEL is a file that `quantgru formats` lists, or a .qgru; of that the float weights are those that its integers
    mean. z is the share of the old state that is kept.
    """
    from pathlib import Path

    from quantgru.cli.console import console
    from quantgru.explanation import explain as derive
    from quantgru.int_model import IntModel
    from quantgru.report.derivation import print_derivations
    from quantgru.sequences import load_initial_states, load_npz

    found = IntModel.load(model) if Path(model).suffix == ".qgru" else load_model(model, loading)
    x, _ = load_npz(input_path)
    calibrated = None if calibration is None else load_npz(calibration, "calibration data")[0]
    states = load_initial_states(input_path)
    derivations = derive(
        found,
        x,
        calibration=calibrated,
        **load_standardisation(standardisation),
        initial_states=states,
        sequence=sequence,
        layer=layer,
        step=step,
        unit=unit,
    )
    if as_json:
        for part in _json(derivations):
            click.echo(part)
    else:
        print_derivations(derivations, console())


def _json(derivations: Sequence[Derivation]) -> Iterator[str]:
    """A JSON list, piece by piece: a long run derives many."""
    import json
    from textwrap import indent

    yield "["
    for i, derivation in enumerate(derivations, start=1):
        comma = "," if i < len(derivations) else ""
        yield indent(json.dumps(derivation.to_json(), indent=2), "  ") + comma
    yield "]"
