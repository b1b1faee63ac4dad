"""quantgru inspect"""

from __future__ import annotations

import click


@click.command(epilog="Example: quantgru inspect gesture.qgru")
@click.argument("model", metavar="M.qgru")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def inspect(model: str, as_json: bool) -> None:
    """Show formats, the overflow proof, cost and calibration of a model."""
    import json

    from quantgru.cli.console import console
    from quantgru.int_model import IntModel
    from quantgru.report.inspection import inspection, print_inspection

    int_model = IntModel.load(model)
    if as_json:
        click.echo(json.dumps(inspection(int_model), indent=2))
    else:
        print_inspection(int_model, console())
