"""quantgru check"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from quantgru.errors import DataError, QuantgruError

if TYPE_CHECKING:
    from rich.table import Table

    from quantgru.int_model import IntModel
    from quantgru.model_check import CheckResult

A_GATE_FAILS = 1

_PERCENT = click.FloatRange(0, 100)


@click.command(epilog="Example: quantgru check released.qgru gesture.qgru --input test.npz --min-db 40")
@click.argument("old", metavar="OLD.qgru")
@click.argument("new", metavar="NEW.qgru")
@click.option("--input", "input_path", required=True, metavar="X.npz", help="Input sequences, with labels if known.")
@click.option(
    "--min-db",
    type=float,
    default=30.0,
    show_default=True,
    metavar="DB",
    help="Old outputs to the difference of the new ones. A model that was trained anew has others: -inf.",
)
@click.option(
    "--min-agreement",
    type=_PERCENT,
    metavar="PERCENT",
    help="Outputs with the same largest entry; 0 for a regression.  [default: 99, of two or more outputs]",
)
@click.option(
    "--max-accuracy-loss",
    type=_PERCENT,
    metavar="PERCENT",
    help="Labels that the old model gets right, less those of the new one.  [default: 0.5, with labels]",
)
@click.option("--max-flash-growth", type=int, default=0, show_default=True, metavar="BYTES", help="Constants.")
@click.option("--max-ram-growth", type=int, default=0, show_default=True, metavar="BYTES", help="State and scratch.")
@click.option("--json", "json_path", metavar="FILE", help="Also write the result, or what went wrong, as JSON.")
def check(old: str, new: str, input_path: str, json_path: str | None, **limits: Any) -> None:
    """Hold a new model against an old one on the same data: outputs, labels and size.

    Exit code 0 if all gates hold, 1 if one does not, 2 if the models cannot be compared.
    """
    from quantgru.cli.console import console, require_writable, write_json
    from quantgru.int_model import IntModel
    from quantgru.report.gates import gate_table

    if json_path is not None:
        require_writable(json_path)
        # However this run ends, the verdict of an earlier one must not stay behind.
        write_json(json_path, {"passed": False, "error": "the check did not finish"})
    try:
        result = _check(IntModel.load(old), IntModel.load(new), input_path, limits)
    except QuantgruError as error:
        if json_path is not None:
            write_json(json_path, {"passed": False, "error": str(error)})
        raise
    if json_path is not None:
        write_json(json_path, result.to_json())
    console().print(_models(result))
    console().print(gate_table(result.gates))
    failing = [gate.name for gate in result.gates if not gate.holds]
    click.echo(f"FAILED: {', '.join(failing)}" if failing else f"all {len(result.gates)} gates hold")
    if failing:
        sys.exit(A_GATE_FAILS)


def _check(old: IntModel, new: IntModel, input_path: str, limits: dict[str, Any]) -> CheckResult:
    from quantgru.cli.console import progress
    from quantgru.model_check import check
    from quantgru.sequences import load_initial_states, load_npz

    sequences, labels = load_npz(input_path)
    if load_initial_states(input_path) is not None:
        raise DataError(f"input {input_path}: has initial states, but both models begin with their own; leave them out")
    if not old.last_step or old.n_outputs < 2:
        labels = None  # they say nothing of such outputs
    for name in ("min_agreement", "max_accuracy_loss"):
        limits[name] = None if limits[name] is None else round(limits[name] / 100, 12)  # 99.7 is 0.997, to the last bit
    with progress("simulating both", 2 * sequences.n_sequences, "sequences") as advance:
        return check(old, new, sequences, labels, progress=advance, **limits)


def _models(result: CheckResult) -> Table:
    from rich.table import Table

    from quantgru.report.gates import figure

    title = f"{result.n_sequences:,} sequences, {result.n_steps:,} steps"
    table = Table("", "old", "new", title=title, title_justify="left")
    models = (result.old, result.new)
    table.add_row("model", *(model.name for model in models))
    table.add_row("digest", *(model.digest[:16] for model in models))
    table.add_row("flash for constants", *(figure(model.flash_bytes, "bytes") for model in models))
    table.add_row("RAM: state and scratch", *(figure(model.ram_bytes, "bytes") for model in models))
    table.add_row("multiply-accumulates a step", *(f"{model.step_macs:,}" for model in models))
    table.add_row("clipped inputs", *(f"{model.clipped:,}" for model in models))
    if result.old.accuracy is not None and result.new.accuracy is not None:
        table.add_row(
            "accuracy", *(figure(accuracy, "share") for accuracy in (result.old.accuracy, result.new.accuracy))
        )
    return table
