"""What is in an integer model: as JSON values, and as text."""

from __future__ import annotations

from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table

from quantgru.fixed import Format
from quantgru.int_model import (
    IntBidirectional,
    IntDense,
    IntEmbedding,
    IntGru,
    IntLayer,
    IntModel,
    Matrix,
    Reverse,
)
from quantgru.int_model.contract import SPEC_MAJOR
from quantgru.int_model.cores import ANY, BYTE_BITS, Core
from quantgru.int_model.cost import cost
from quantgru.int_model.layers import EMBEDDING_BITS
from quantgru.int_model.packing import Layout, Packing, code_bits, layout, least_code_bits, packing_bytes, section_codes
from quantgru.int_model.proof import prove
from quantgru.int_model.row_parameters import short_code_bytes
from quantgru.int_model.versions import stated_minor
from quantgru.quantizer.widths import GATES


def inspection(model: IntModel, packing: Packing = "auto", core: Core = ANY) -> dict[str, Any]:
    """Everything that `quantgru inspect` shows, as JSON values; the cost is that of an export with this packing, on a
    core, or on any at most. Raises ConfigError."""
    total, of_codes = cost(model, packing), layout(model, least_code_bits(model, packing))
    return {
        "name": model.name,
        "digest": model.digest.hex(),
        "spec": f"{SPEC_MAJOR}.{stated_minor(model)}",
        "inputs": model.n_inputs,
        "outputs": model.n_outputs,
        "output_of": "the last step" if model.last_step else "every step",
        "input_fraction_bits": model.input_fraction_bits.tolist(),
        "input_units": list(model.input_units),
        "output_units": list(model.output_units),
        "output_fraction_bits": model.output_fraction_bits,
        "runs": "step by step" if model.streaming else "over a whole sequence",
        "reversed_input": model.reversed_input,
        "mask_value": model.mask_value,
        "layers": [entry for layer in model.layers for entry in _entries(layer)],
        "cost": {
            "constant_bytes": total.constant_bytes,
            "state_bytes": total.state_bytes,
            "scratch_bytes": total.scratch_bytes,
            "row_bytes": total.row_bytes,
            "step_macs": total.step_macs,
            "head_macs": total.head_macs,
            "packed": _narrow(of_codes),
            "code_bytes": packing_bytes(of_codes, core) + short_code_bytes(model),
            "code_for": _code_for(model, of_codes, core),
            "if_packed": None if _narrow(of_codes) else _if_packed(model, core),
        },
        "notes": dict(model.notes),
    }


def _code_for(model: IntModel, of_codes: Layout, core: Core) -> list[str]:
    """What needs other code than bytes and exact scales do."""
    weights = ["packed weights" if _narrow(of_codes) else "wide weights"] if packing_bytes(of_codes, core) else []
    return [*weights, *(["short scales"] if short_code_bytes(model) else [])]


def _narrow(of_codes: Layout) -> bool:
    """Whether codes of less than 8 bits are packed."""
    return any(size.bits < BYTE_BITS for of_matrix in of_codes for size in of_matrix)


def _if_packed(model: IntModel, core: Core) -> dict[str, int] | None:
    """What `--packing always` makes of the model; None where no code has less than 8 bits."""
    packed = layout(model, least_code_bits(model, "always"))
    if not _narrow(packed):
        return None
    return {
        "constant_bytes": cost(model, "always").constant_bytes,
        "code_bytes": packing_bytes(packed, core) + short_code_bytes(model),
    }


def print_inspection(model: IntModel, console: Console, packing: Packing = "auto", core: Core = ANY) -> None:
    facts = inspection(model, packing, core)
    console.print(
        Group(
            _summary(facts),
            _layer_table(facts),
            "No accumulator and no pre-activation can overflow, whatever the inputs: bounds are below 2^31.",
            *_calibration(facts),
        )
    )


def _entries(layer: IntLayer) -> list[dict[str, Any]]:
    """One for each GRU and dense layer, and for what has no multiplications of its own."""
    match layer:
        case IntGru():
            return [_gru(layer)]
        case IntBidirectional():
            directions = [
                _gru(gru) | {"name": f"{layer.name}, {direction}"}
                for direction, gru in (("forward", layer.forward), ("backward", layer.backward))
            ]
            kind = f"merge by {layer.merge}, {'final states' if layer.final else 'every step'}"
            return [*directions, _plain(layer, kind, Format(16, layer.output_fraction_bits))]
        case IntDense():
            return [
                {
                    **_plain(layer, f"dense, {layer.activation}", Format(16, layer.output_fraction_bits)),
                    **_bounds(layer),
                    "weight_bits": _widths((layer.matrix, layer.n_outputs)),
                }
            ]
        case IntEmbedding():
            entry = _plain(layer, f"embedding of {layer.n_tokens} tokens", Format(16, EMBEDDING_BITS))
            return [entry | {"weight_bits": [8], "tokens": layer.n_tokens}]
        case Reverse():
            return [{"name": layer.name, "kind": "steps from the last to the first"}]


def _gru(layer: IntGru) -> dict[str, Any]:
    kind = [f"GRU, reset {layer.reset}"]
    if layer.gate != "sigmoid":
        kind.append(f"gates {layer.gate}")
    if layer.candidate != "tanh":
        kind.append(f"candidate {layer.candidate}")
    if layer.initial_state is not None:
        kind.append("initial state")
    return {
        **_plain(layer, ", ".join(kind), Format(16, layer.state_fraction_bits)),
        **_bounds(layer),
        "weight_bits": _widths((layer.input, layer.n_units), (layer.recurrent, layer.n_units)),
        "gate_bits": {
            name: dict(zip(GATES, map(code_bits, section_codes(matrix, layer.n_units)), strict=True))
            for name, matrix in (("W", layer.input), ("U", layer.recurrent))
        },
    }


def _widths(*matrices: tuple[Matrix, int]) -> list[int]:
    """Bits that hold all codes, of each section of matrices with so many rows a section."""
    return sorted({code_bits(codes) for matrix, rows in matrices for codes in section_codes(matrix, rows)})


def _plain(layer: IntGru | IntBidirectional | IntDense | IntEmbedding, kind: str, output: Format) -> dict[str, Any]:
    return {
        "name": layer.name,
        "kind": kind,
        "inputs": layer.n_inputs,
        "outputs": layer.n_outputs,
        "output_format": str(output),
    }


def _bounds(layer: IntGru | IntDense) -> dict[str, Any]:
    bounds = prove(layer)
    return {"accumulator_bound": max(bounds.accumulators), "pre_activation_bound": bounds.pre_activation}


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
        "runs": _runs(facts),
        "flash": f"{_flash(total)}, and the kernel library once",
        "RAM": _ram(total),
        "work": f"{total['step_macs']:,} multiply-accumulates a step, {total['head_macs']:,} for an output",
    }
    for name, value in rows.items():
        table.add_row(name, str(value))
    return table


def _flash(total: dict[str, Any]) -> str:
    found = f"{total['constant_bytes']:,} bytes of constants{', codes packed' if total['packed'] else ''}"
    if total["code_bytes"]:
        found += f", {_code(total['code_bytes'])} for {' and '.join(total['code_for'])}"
    if (packed := total["if_packed"]) is None:
        return found
    return (
        f"{found} (packed, with export --packing always: {packed['constant_bytes']:,}, and "
        f"{_code(packed['code_bytes'])})"
    )


def _code(n_bytes: int) -> str:
    return f"up to {n_bytes:,} bytes of code" if n_bytes >= 0 else f"{-n_bytes:,} bytes less of code"


def _ram(total: dict[str, int]) -> str:
    state, scratch, row = (total[name] for name in ("state_bytes", "scratch_bytes", "row_bytes"))
    if row:  # the whole sequence is in memory
        return f"{scratch:,} bytes of scratch that models can share, and {row:,} for each step of the longest sequence"
    return f"{state:,} bytes of state, {scratch:,} of scratch that models can share"


def _runs(facts: dict[str, Any]) -> str:
    order = ", from the last step to the first" if facts["reversed_input"] else ""
    masked = "" if facts["mask_value"] is None else f"; steps whose inputs all are {facts['mask_value']:g} are left out"
    return f"{facts['runs']}{order}{masked}"


def _bits(bits: list[int]) -> str:
    return str(bits[0]) if len(set(bits)) == 1 else f"{min(bits)} ... {max(bits)}"


def _layer_table(facts: dict[str, Any]) -> RenderableType:
    table = Table("layer", "kind", "in", "out", "weights", "output", "accumulator bound", "pre-activation bound")
    for layer in facts["layers"]:
        bounds = (layer.get(name) for name in ("accumulator_bound", "pre_activation_bound"))
        table.add_row(
            layer["name"],
            layer["kind"],
            *(str(layer.get(name, "")) for name in ("inputs", "outputs")),
            _weights(layer),
            layer.get("output_format", ""),
            *("" if bound is None else f"{bound:,}" for bound in bounds),
        )
    return table


def _weights(layer: dict[str, Any]) -> str:
    bits = layer.get("weight_bits", [])
    if len(bits) < 2:
        return f"{bits[0]} bit" if bits else ""
    of_gates = (f"{matrix} {' '.join(map(str, gates.values()))}" for matrix, gates in layer["gate_bits"].items())
    return f"{', '.join(of_gates)} bit"


def _calibration(facts: dict[str, Any]) -> list[RenderableType]:
    """What the quantizer noted. No digest covers notes: in a file they may be anything."""
    try:
        return [*_inputs(facts), *_sentences(facts["notes"])]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return ["warning: the notes on the calibration are damaged; the numbers of the model are not"]


def _inputs(facts: dict[str, Any]) -> list[RenderableType]:
    inputs = facts["notes"].get("inputs", [])
    if not inputs:
        return []
    seen = facts["notes"]["calibration"]
    data = f"{seen['sequences']:,} sequences of {seen['steps']:,} steps together"
    if "tokens" in facts["layers"][0]:
        known, (entry,) = facts["layers"][0]["tokens"], inputs
        return [f"Tokens 0 ... {known - 1}, seen {entry['min']:.0f} ... {entry['max']:.0f}; calibrated on {data}"]
    return [_input_table(facts, f"Inputs, calibrated on {data}")]


def _input_table(facts: dict[str, Any], title: str) -> RenderableType:
    inputs = facts["notes"]["inputs"]
    table = Table(
        "input", "unit", "fraction bits", "seen from", "to", "rms", "clips below", "above",
        title=title, title_justify="left",
    )  # fmt: skip
    units = facts["input_units"] or [""] * len(inputs)
    for i, entry in enumerate(inputs):
        values = (entry[key] for key in ("min", "max", "rms", "clips_below", "clips_above"))
        table.add_row(str(i), units[i], str(facts["input_fraction_bits"][i]), *(f"{value:.4g}" for value in values))
    return table


def _sentences(notes: dict[str, Any]) -> list[RenderableType]:
    of_import = [f"note: {text}" for text in notes.get("import", [])]
    refined = [
        f"note: layer {name!r}: refined, what it gives has an error lower by {db:g} dB on calibration data held out"
        if db
        else f"note: layer {name!r}: left as it was, refinement found nothing better for calibration data held out"
        for name, db in notes.get("refined", {"gains": []})["gains"]
    ]
    return [*of_import, *refined, *(f"warning: {text}" for text in notes.get("warnings", []))]
