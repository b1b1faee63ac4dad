"""What is in an integer model: as JSON values, and as text."""

from __future__ import annotations

from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table

from quantgru.fixed import STATE, Format
from quantgru.int_model import IntGru, IntLayer, IntModel
from quantgru.int_model.cost import cost
from quantgru.int_model.proof import prove
from quantgru.int_model.contract import SPEC_MAJOR, SPEC_MINOR


def inspection(model: IntModel) -> dict[str, Any]:
    """Everything that `quantgru inspect` shows, as JSON values."""
    total = cost(model)
    return {
        "name": model.name,
        "digest": model.digest.hex(),
        "spec": f"{SPEC_MAJOR}.{SPEC_MINOR}",
        "inputs": model.n_inputs,
        "outputs": model.n_outputs,
        "output_of": "the last step" if model.last_step else "every step",
        "input_fraction_bits": model.input_fraction_bits.tolist(),
        "input_units": list(model.input_units),
        "output_units": list(model.output_units),
        "output_fraction_bits": model.output_fraction_bits,
        "layers": [_layer(layer) for layer in model.layers],
        "cost": {
            "constant_bytes": total.constant_bytes,
            "state_bytes": total.state_bytes,
            "scratch_bytes": total.scratch_bytes,
            "step_macs": total.step_macs,
            "head_macs": total.head_macs,
        },
        "notes": dict(model.notes),
    }


def print_inspection(model: IntModel, console: Console) -> None:
    facts = inspection(model)
    console.print(
        Group(
            _summary(facts),
            _layer_table(facts),
            "No accumulator and no pre-activation can overflow, whatever the inputs: bounds are below 2^31.",
            *_calibration(facts),
        )
    )


def _layer(layer: IntLayer) -> dict[str, Any]:
    bounds = prove(layer)
    common = {
        "name": layer.name,
        "inputs": layer.n_inputs,
        "accumulator_bound": max(bounds.accumulators),
        "pre_activation_bound": bounds.pre_activation,
    }
    if isinstance(layer, IntGru):
        bits = sorted({layer.input.bits, layer.recurrent.bits})
        return common | {
            "kind": f"GRU, reset {layer.reset}",
            "outputs": layer.n_units,
            "weight_bits": bits,
            "output_format": str(STATE),
        }
    return common | {
        "kind": f"dense, {layer.activation}",
        "outputs": layer.n_outputs,
        "weight_bits": [layer.matrix.bits],
        "output_format": str(Format(16, layer.output_fraction_bits)),
    }


def _summary(facts: dict[str, Any]) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    total = facts["cost"]
    output = Format(16, facts["output_fraction_bits"])
    in_units = f", in {', '.join(facts['output_units'])}" if facts["output_units"] else ""
    rows = {
        "model": facts["name"],
        "digest": facts["digest"],
        "contract": f"SPEC {facts['spec']}",
        "inputs": f"{facts['inputs']}, s16 with {_bits(facts['input_fraction_bits'])} fraction bits",
        "outputs": f"{facts['outputs']}, {output}, of {facts['output_of']}{in_units}",
        "flash": f"{total['constant_bytes']:,} bytes of constants, and the kernel library once",
        "RAM": f"{total['state_bytes']:,} bytes of state, {total['scratch_bytes']:,} of scratch that models can share",
        "work": f"{total['step_macs']:,} multiply-accumulates a step, {total['head_macs']:,} for an output",
    }
    for name, value in rows.items():
        table.add_row(name, str(value))
    return table


def _bits(bits: list[int]) -> str:
    return str(bits[0]) if len(set(bits)) == 1 else f"{min(bits)} ... {max(bits)}"


def _layer_table(facts: dict[str, Any]) -> RenderableType:
    table = Table("layer", "kind", "in", "out", "weights", "output", "accumulator bound", "pre-activation bound")
    for layer in facts["layers"]:
        table.add_row(
            layer["name"],
            layer["kind"],
            str(layer["inputs"]),
            str(layer["outputs"]),
            f"{_bits(layer['weight_bits'])} bit",
            layer["output_format"],
            f"{layer['accumulator_bound']:,}",
            f"{layer['pre_activation_bound']:,}",
        )
    return table


def _calibration(facts: dict[str, Any]) -> list[RenderableType]:
    """What the quantizer noted. No digest covers notes: in a file they may be anything."""
    try:
        return [*_input_table(facts), *_warnings(facts["notes"])]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return ["warning: the notes on the calibration are damaged; the numbers of the model are not"]


def _input_table(facts: dict[str, Any]) -> list[RenderableType]:
    inputs = facts["notes"].get("inputs", [])
    if not inputs:
        return []
    seen = facts["notes"]["calibration"]
    table = Table(
        "input", "unit", "fraction bits", "seen from", "to", "rms", "clips below", "above",
        title=f"Inputs, calibrated on {seen['sequences']:,} sequences of {seen['steps']:,} steps together",
        title_justify="left",
    )  # fmt: skip
    units = facts["input_units"] or [""] * len(inputs)
    for i, entry in enumerate(inputs):
        values = (entry[key] for key in ("min", "max", "rms", "clips_below", "clips_above"))
        table.add_row(str(i), units[i], str(facts["input_fraction_bits"][i]), *(f"{value:.4g}" for value in values))
    return [table]


def _warnings(notes: dict[str, Any]) -> list[RenderableType]:
    return [f"warning: {text}" for text in notes.get("warnings", [])]
