"""The layers of a model as values for templates: names of library functions, numbers in memory order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from quantgru.c_names import comment_text
from quantgru.exporter.layout import memory_order, packed
from quantgru.int_model import IntBidirectional, IntDense, IntEmbedding, IntGru, IntLayer, IntModel, Matrix, Reverse
from quantgru.int_model.cores import WORD_BITS
from quantgru.int_model.cost import cost
from quantgru.int_model.packing import (
    Packing,
    Section,
    in_sections,
    layout,
    least_code_bits,
    sections,
)
from quantgru.int_model.row_parameters import is_short, short_biases, short_scales

_GATES: Final = {"sigmoid": "qg_sigmoid", "hard_sigmoid": "qg_hard_sigmoid"}

# The rows of hard_tanh have the format in which it is the same as saturating.
_CANDIDATES: Final = {
    "tanh": "qg_tanh",
    "relu": "qg_relu",
    "linear": "qg_linear",
    "sigmoid": "qg_signed_sigmoid",
    "hard_tanh": "qg_linear",
}
_ACTIVATIONS: Final = {"linear": "qg_linear", "relu": "qg_relu", "sigmoid": "qg_signed_sigmoid", "tanh": "qg_tanh"}

# Sum and mean are the same integers [R23].
_MERGES: Final = {"concat": "NULL", "sum": "qg_merge_mean", "mul": "qg_merge_product", "ave": "qg_merge_mean"}


@dataclass(frozen=True)
class _Form:
    """How the constants of a model lie in flash: short row parameters or exact ones; least_bits of codes that lie in
    sections, None for those that lie in bytes."""

    short: bool
    least_bits: int | None


def layer_values(model: IntModel, packing: Packing) -> dict[str, Any]:
    """All layers, by kind and in order, as the descriptors have them."""
    least_bits = least_code_bits(model, packing)
    form = _Form(is_short(model), least_bits if in_sections(layout(model, least_bits)) else None)
    return {
        "in_sections": form.least_bits is not None,
        "short": "_short" if form.short else "",
        "kinds": [_kind(layer) for layer in model.layers],
        "grus": [_gru(form, i, layer, name) for i, (layer, name) in enumerate(_named_grus(model))],
        "dense": [_dense(form, i, layer) for i, layer in enumerate(model.dense)],
        "embedding": None if model.embedding is None else _embedding(model.embedding),
        "bidirectionals": [_bidirectional(layer) for layer in model.layers if isinstance(layer, IntBidirectional)],
        "n_head": len(model.head),
        "n_last_units": model.grus[-1].n_units,
        "step_function": _step_function(model),
    }


def _step_function(model: IntModel) -> str:
    if not model.streaming:
        return "NULL"
    return "qg_step" if all(isinstance(layer, (IntGru, Reverse)) for layer in model.body) else "qg_step_layers"


def layers_in_words(model: IntModel) -> str:
    """One line for the head of a file."""
    inputs = "1 input" if model.n_inputs == 1 else f"{model.n_inputs} inputs"
    return f"{inputs}, {', '.join(_words(layer) for layer in model.layers)}."


def constants_in_words(model: IntModel, packing: Packing) -> str:
    """What they take in flash, and how codes of weights lie there."""
    least_bits = least_code_bits(model, packing)
    widths = sorted({size.bits for of_matrix in layout(model, least_bits) for size in of_matrix})
    in_bits = " and ".join(filter(None, [", ".join(map(str, widths[:-1])), str(widths[-1])]))
    return f"{cost(model, packing).constant_bytes:,} bytes of constants, codes of weights in {in_bits} bits"


def _words(layer: IntLayer) -> str:
    match layer:
        case IntGru():
            return f"GRU of {layer.n_units}"
        case IntBidirectional():
            kind = f"{layer.merge} of the final states" if layer.final else layer.merge
            return f"bidirectional GRU of {layer.forward.n_units} ({kind})"
        case IntDense():
            return f"dense of {layer.n_outputs}"
        case IntEmbedding():
            return f"embedding of {layer.n_tokens} tokens in {layer.n_outputs}"
        case Reverse():
            return "reversal"


def _kind(layer: IntLayer) -> str:
    match layer:
        case IntGru():
            return "QG_GRU"
        case IntBidirectional():
            return "QG_BIDIRECTIONAL"
        case IntDense():
            return "QG_DENSE"
        case IntEmbedding():
            return "QG_EMBEDDING"
        case Reverse():
            return "QG_REVERSE"


def _named_grus(model: IntModel) -> list[tuple[IntGru, str]]:
    found = []
    for layer in model.layers:
        if isinstance(layer, IntGru):
            found.append((layer, layer.name))
        elif isinstance(layer, IntBidirectional):
            found += [(layer.forward, f"{layer.name} forward"), (layer.backward, f"{layer.name} backward")]
    return found


def _gru(form: _Form, i: int, layer: IntGru, name: str) -> dict[str, Any]:
    return {
        "prefix": f"gru{i}",
        "comment": f"GRU {comment_text(name)}: {layer.n_inputs} inputs, {layer.n_units} units, reset {layer.reset}, "
        f"gates {layer.gate}, candidate {layer.candidate}",
        "reset": layer.reset,
        "gate": _GATES[layer.gate],
        "candidate": _CANDIDATES[layer.candidate],
        "n_units": layer.n_units,
        "input": _matrix(form, layer.input, layer.n_units),
        "recurrent": _matrix(form, layer.recurrent, layer.n_units),
        **_gru_biases(form, layer),
        "initial_state": [] if layer.initial_state is None else layer.initial_state.tolist(),
        "state_shift": layer.state_shift,
        "state_fraction_bits": layer.state_fraction_bits,
        "gate_kind": f"QG_GATE_{layer.gate.upper()}",
        "candidate_kind": f"QG_CANDIDATE_{layer.candidate.upper()}",
    }


def _gru_biases(form: _Form, layer: IntGru) -> dict[str, Any]:
    short = short_biases(layer) if form.short else None
    biases = layer if short is None else short
    return {
        "bias_type": "int32_t" if short is None else "int16_t",
        "bias": biases.bias.tolist(),
        "recurrent_bias": biases.recurrent_bias.tolist(),
        "bias_shift": 0 if short is None else short.shift,
    }


def _dense(form: _Form, i: int, layer: IntDense) -> dict[str, Any]:
    return {
        "prefix": f"dense{i}",
        "comment": f"Dense {comment_text(layer.name)}: {layer.n_inputs} inputs, {layer.n_outputs} outputs, "
        f"{layer.activation}",
        "activation": _ACTIVATIONS[layer.activation],
        "activation_kind": f"QG_ACTIVATION_{layer.activation.upper()}",
        "output_fraction_bits": layer.output_fraction_bits,
        "matrix": _matrix(form, layer.matrix, layer.n_outputs),
        "bias": layer.bias.tolist(),
    }


def _embedding(layer: IntEmbedding) -> dict[str, Any]:
    return {
        "comment": f"Embedding {comment_text(layer.name)}: {layer.n_tokens} tokens, {layer.n_outputs} outputs",
        "codes": layer.codes.ravel().tolist(),
        "n_tokens": layer.n_tokens,
        "n_outputs": layer.n_outputs,
    }


def _bidirectional(layer: IntBidirectional) -> dict[str, Any]:
    merge_kind = f"QG_MERGE_{layer.merge.upper()}"
    return {"merge": _MERGES[layer.merge], "merge_kind": merge_kind, "final": int(layer.final)}


def _section(section: Section) -> dict[str, Any]:
    wide = section.bits == WORD_BITS
    return {
        "codes": packed(section).tolist(),
        "c_type": "int16_t" if wide else "int8_t",
        "macro": "QG_WIDE_SECTION" if wide else "QG_SECTION",
        "sizes": f"{len(section.codes)}" if wide else f"{len(section.codes)}, {section.bits}",
    }


def _matrix(form: _Form, matrix: Matrix, section_rows: int) -> dict[str, Any]:
    short = short_scales(matrix) if form.short else None
    found = [] if form.least_bits is None else sections(matrix, section_rows, form.least_bits)
    return {
        "codes": [] if found else memory_order(matrix.codes, section_rows).tolist(),
        "sections": [_section(section) for section in found],
        "multipliers": matrix.multipliers.tolist() if short is None else [],
        "shifts": (matrix.shifts if short is None else short.scales).tolist(),
        "first_shift": 0 if short is None else short.first_shift,
        "n_rows": matrix.n_rows,
        "n_columns": matrix.n_columns,
        "left_shift": matrix.left_shift,
    }
