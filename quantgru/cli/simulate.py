"""quantgru simulate"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from quantgru.int_model import IntModel
    from quantgru.simulator import InputLog, SimulationResult

DIFFERENT = 1


@click.command(
    epilog="Example: quantgru simulate gesture.qgru --input test.npz -o outputs.npz. What a device has logged: "
    "quantgru simulate gesture.qgru --raw log.bin -o outputs.npz"
)
@click.argument("model", metavar="M.qgru")
@click.option("--input", "input_path", metavar="X.npz", help="Input sequences, real numbers.")
@click.option(
    "--raw",
    "log_paths",
    multiple=True,
    metavar="LOG",
    help="Raw inputs as a device logged them, instead: what NAME_log_send sent, in binary or hexadecimal digits; text "
    "with the integers of a step on each line; or .npz. Can be given several times.",
)
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="Y.npz",
    help="Where the arrays y, lengths, clipped_inputs and, if steps are masked, kept go; of logs, y is raw, and "
    "first_step [logs] says where each begins.",
)
@click.option(
    "--trace",
    is_flag=True,
    help="Also write layer0.x, .u, .r, .n, .h, .residual, layer1.x ..., raw, of the steps that are not masked.",
)
def simulate(model: str, input_path: str | None, log_paths: tuple[str, ...], output: str, trace: bool) -> None:
    """Compute what the device computes, bit for bit.

    Exit code 1 if a log does not end in the state that the device had.
    """
    from quantgru.cli.console import require_writable
    from quantgru.int_model import IntModel

    if (input_path is None) != bool(log_paths):
        raise click.UsageError("give either --input X.npz or --raw LOG")
    require_writable(output)
    int_model = IntModel.load(model)
    if input_path is None:
        _replay(int_model, log_paths, output, trace)
    else:
        _simulate(int_model, input_path, output, trace)


def _simulate(model: IntModel, input_path: str, output: str, trace: bool) -> None:
    from quantgru.cli.console import progress
    from quantgru.sequences import check_labels, load_initial_states, load_npz
    from quantgru.simulator import run

    sequences, labels = load_npz(input_path)
    states = load_initial_states(input_path)
    if labels is not None:
        check_labels(labels, model.n_outputs)
    with progress("simulating", sequences.n_sequences, "sequences") as advance:
        result = run(model, sequences, initial_states=states, trace=trace, progress=advance)
    _write(output, {"y": result.outputs, **_arrays(result)})
    _report(result, labels)
    click.echo(f"wrote {output}")


def _replay(model: IntModel, paths: tuple[str, ...], output: str, trace: bool) -> None:
    from quantgru.cli.console import progress
    from quantgru.simulator import read_logs, replay

    logs = read_logs(*paths)
    with progress("replaying", len(logs), "logs") as advance:
        replayed = replay(model, logs, trace=trace, progress=advance)
    result, first_steps = replayed.result, [log.first_step for log in logs]
    _write(output, {"y": result.outputs_raw, "first_step": first_steps, **_arrays(result)})
    _report(result, None)
    for log, equal in zip(replayed.logs, replayed.equal, strict=True):
        click.echo(_log_line(log, equal))
    click.echo(f"wrote {output}")
    if False in replayed.equal:
        sys.exit(DIFFERENT)


def _log_line(log: InputLog, equal: bool | None) -> str:
    start = "a reset" if log.h is None else "the logged state"
    counted = "" if log.clipped is None else f"; the device counted {log.clipped:,} clipped inputs in all its steps"
    verdict = {True: "equals the device's", False: "DIFFERENT from the device's", None: "is not in the log"}[equal]
    steps = f"{len(log.inputs):,} steps from step {log.first_step:,} on"
    return f"{log.source}: {steps}, beginning with {start}; the state after them {verdict}{counted}"


def _write(output: str, arrays: dict[str, Any]) -> None:
    import io

    import numpy as np

    from quantgru.cli.console import write_file

    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_file(output, buffer.getvalue())


def _arrays(result: SimulationResult) -> dict[str, Any]:
    """All but the outputs."""
    sequences = result.sequences
    arrays: dict[str, Any] = {
        "lengths": sequences.lengths if sequences.mask is None else sequences.mask.lengths,
        "clipped_inputs": result.clipped_inputs,
    }
    if sequences.mask is not None:
        arrays["kept"] = sequences.mask.keep
    if result.trace is not None:
        for i, layer in enumerate(result.trace.layers):
            arrays |= {f"layer{i}.{name}": getattr(layer, name) for name in vars(layer)}
    return arrays


def _report(result: SimulationResult, labels: Any) -> None:
    from quantgru.cli.console import print_clipped

    sequences = result.sequences
    click.echo(f"{sequences.n_sequences:,} sequences, {sequences.n_steps:,} steps")
    print_clipped(result.clipped_inputs, sequences.n_steps)
    click.echo(f"saturated outputs: {sum(result.saturated_outputs):,}")
    if any(result.saturated_states):
        click.echo(f"saturated candidates of GRU layers: {', '.join(map(str, result.saturated_states))}")
    if labels is not None and result.model.last_step and result.model.n_outputs >= 2:
        right = result.outputs_raw.argmax(axis=1) == labels
        click.echo(f"labels: {100 * right.mean():.2f} % right")
