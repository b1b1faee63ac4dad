"""quantgru simulate"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from quantgru.simulator import SimulationResult


@click.command(epilog="Example: quantgru simulate gesture.qgru --input test.npz -o outputs.npz")
@click.argument("model", metavar="M.qgru")
@click.option("--input", "input_path", required=True, metavar="X.npz", help="Input sequences.")
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="Y.npz",
    help="Where the arrays y, lengths, clipped_inputs and, if steps are masked, kept go.",
)
@click.option(
    "--trace",
    is_flag=True,
    help="Also write layer0.x, .u, .r, .n, .h, .residual, layer1.x ..., raw, of the steps that are not masked.",
)
@click.option("--raw", is_flag=True, help="x holds raw integers, as a device logs them, and y is raw, too.")
def simulate(model: str, input_path: str, output: str, trace: bool, raw: bool) -> None:
    """Compute what the device computes, bit for bit."""
    import io

    import numpy as np

    from quantgru.cli.console import progress, require_writable, write_file
    from quantgru.int_model import IntModel
    from quantgru.sequences import check_labels, load_initial_states, load_npz
    from quantgru.simulator import run

    require_writable(output)
    int_model = IntModel.load(model)
    sequences, labels = load_npz(input_path)
    states = load_initial_states(input_path)
    if labels is not None:
        check_labels(labels, int_model.n_outputs)
    with progress("simulating", sequences.n_sequences, "sequences") as advance:
        result = run(int_model, sequences, initial_states=states, raw_input=raw, trace=trace, progress=advance)
    buffer = io.BytesIO()
    np.savez(buffer, **_arrays(result, raw))
    write_file(output, buffer.getvalue())
    _report(result, labels)
    click.echo(f"wrote {output}")


def _arrays(result: SimulationResult, raw: bool) -> dict[str, Any]:
    sequences = result.sequences
    raw_outputs = result.outputs_raw
    if not result.model.last_step:
        raw_outputs = sequences.arrange(raw_outputs, from_last_step=result.model.reversed_output)
    arrays: dict[str, Any] = {
        "y": raw_outputs if raw else result.outputs,
        "lengths": sequences.lengths if sequences.mask is None else sequences.mask.lengths,
        "clipped_inputs": result.clipped_inputs,
    }
    if sequences.mask is not None:
        arrays["kept"] = sequences.mask.keep
    if result.trace is not None:
        for i, layer in enumerate(result.trace.layers):
            arrays |= {f"layer{i}.{name}": getattr(layer, name) for name in vars(layer)}
    return arrays


def _share(clipped: Any, n_steps: int) -> str:
    """How many values were out of range, and of which inputs."""
    total, values = int(clipped.sum()), len(clipped) * n_steps
    if total == 0:
        return f"0 of {values:,}"
    worst = ", ".join(
        f"input {i} {100 * clipped[i] / n_steps:.1f} %" for i in clipped.argsort()[::-1][:4] if clipped[i]
    )
    return f"{total:,} of {values:,} ({worst}): calibrate on data that reaches as far"


def _report(result: SimulationResult, labels: Any) -> None:
    sequences = result.sequences
    click.echo(f"{sequences.n_sequences:,} sequences, {sequences.n_steps:,} steps")
    click.echo(f"clipped inputs: {_share(result.clipped_inputs, sequences.n_steps)}")
    click.echo(f"saturated outputs: {sum(result.saturated_outputs):,}")
    if any(result.saturated_states):
        click.echo(f"saturated candidates of GRU layers: {', '.join(map(str, result.saturated_states))}")
    if labels is not None and result.model.last_step and result.model.n_outputs >= 2:
        right = result.outputs_raw.argmax(axis=1) == labels
        click.echo(f"labels: {100 * right.mean():.2f} % right")
