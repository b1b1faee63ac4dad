"""The layers of a `.qgru` file: entries of its header, and the arrays beside it."""

from __future__ import annotations

import json
from typing import Any, Final

import numpy as np

from quantgru import container
from quantgru.errors import ModelError
from quantgru.fixed import Format
from quantgru.int_model.layers import IntBidirectional, IntDense, IntEmbedding, IntGru, IntLayer, Matrix
from quantgru.int_model.proof import Bounds, prove
from quantgru.structure import Reverse

_FIELDS: Final = {
    "gru": {"kind", "name", "reset", "gate", "candidate", "state", "input", "recurrent", "bounds"},
    "dense": {"kind", "name", "activation", "output_fraction_bits", "matrix", "bounds"},
    "bidirectional": {"kind", "name", "merge", "final", "forward", "backward"},
    "reverse": {"kind", "name"},
    "embedding": {"kind", "name"},
}
_MATRIX: Final = {"bits", "left_shift", "rows", "columns"}


def write_layer(layer: IntLayer, prefix: str, arrays: container.Arrays) -> dict[str, Any]:
    """The header's entry of a layer; its arrays go to `arrays`."""
    match layer:
        case IntGru():
            return _write_gru(layer, prefix, arrays)
        case IntDense():
            arrays[f"{prefix}.bias"] = layer.bias
            return {
                "kind": "dense",
                "name": layer.name,
                "activation": layer.activation,
                "output_fraction_bits": layer.output_fraction_bits,
                "matrix": _write_matrix(layer.matrix, f"{prefix}.matrix", arrays),
                "bounds": _bounds_entry(prove(layer)),
            }
        case IntBidirectional():
            return {
                "kind": "bidirectional",
                "name": layer.name,
                "merge": layer.merge,
                "final": layer.final,
                "forward": _write_gru(layer.forward, f"{prefix}.forward", arrays),
                "backward": _write_gru(layer.backward, f"{prefix}.backward", arrays),
            }
        case Reverse():
            return {"kind": "reverse", "name": layer.name}
        case IntEmbedding():
            arrays[f"{prefix}.codes"] = layer.codes
            return {"kind": "embedding", "name": layer.name}


def _write_gru(layer: IntGru, prefix: str, arrays: container.Arrays) -> dict[str, Any]:
    arrays[f"{prefix}.bias"] = layer.bias
    arrays[f"{prefix}.recurrent_bias"] = layer.recurrent_bias
    if layer.initial_state is not None:
        arrays[f"{prefix}.initial_state"] = layer.initial_state
    return {
        "kind": "gru",
        "name": layer.name,
        "reset": layer.reset,
        "gate": layer.gate,
        "candidate": layer.candidate,
        "state": str(Format(16, layer.state_fraction_bits)),
        "input": _write_matrix(layer.input, f"{prefix}.input", arrays),
        "recurrent": _write_matrix(layer.recurrent, f"{prefix}.recurrent", arrays),
        "bounds": _bounds_entry(prove(layer)),
    }


def read_layer(entry: dict[str, Any], prefix: str, arrays: container.Arrays) -> IntLayer:
    """The layer of a header's entry; takes its arrays out of `arrays`. Raises ModelError, KeyError, TypeError."""
    kind = entry["kind"]
    if kind not in _FIELDS:
        raise ModelError(f"unknown layer kind {kind!r}; update quantgru")
    container.check_fields(entry, _FIELDS[kind], f"layer {entry['name']!r}")
    layer: IntLayer
    match kind:
        case "gru":
            layer = _read_gru(entry, prefix, arrays)
        case "dense":
            layer = _read_dense(entry, prefix, arrays)
        case "bidirectional":
            layer = _read_bidirectional(entry, prefix, arrays)
        case "reverse":
            layer = Reverse(entry["name"])
        case _:
            layer = IntEmbedding(entry["name"], arrays.pop(f"{prefix}.codes"))
    return layer


def _check_bounds(layer: IntGru | IntDense, entry: dict[str, Any]) -> None:
    bounds = prove(layer)
    if not _equal(entry["bounds"], _bounds_entry(bounds)):
        raise ModelError(f"layer {layer.name!r}: its bounds are {bounds}, the file says {entry['bounds']!r}")


def _read_direction(entry: dict[str, Any], prefix: str, arrays: container.Arrays) -> IntGru:
    """A GRU layer: nothing else, so that entries within entries end here."""
    if entry["kind"] != "gru":
        raise ModelError(f"{prefix}: a layer of kind {entry['kind']!r}, expected 'gru'; the file is damaged")
    container.check_fields(entry, _FIELDS["gru"], prefix)
    return _read_gru(entry, prefix, arrays)


def _read_gru(entry: dict[str, Any], prefix: str, arrays: container.Arrays) -> IntGru:
    initial_state = arrays.pop(f"{prefix}.initial_state", None)
    layer = IntGru(
        entry["name"],
        entry["reset"],
        _read_matrix(entry["input"], f"{prefix}.input", arrays),
        _read_matrix(entry["recurrent"], f"{prefix}.recurrent", arrays),
        arrays.pop(f"{prefix}.bias"),
        arrays.pop(f"{prefix}.recurrent_bias"),
        entry["gate"],
        entry["candidate"],
        _fraction_bits(entry),
        initial_state,
    )
    if initial_state is not None and layer.initial_state is None:
        raise ModelError(f"{prefix}: an initial state of zeros, which files leave out; the file is damaged")
    _check_bounds(layer, entry)
    return layer


def _fraction_bits(entry: dict[str, Any]) -> int:
    """Of a state's format, such as "s16f15"."""
    state = entry["state"]
    for bits in range(-31, 32):
        if state == str(Format(16, bits)):
            return bits
    raise ModelError(f"layer {entry['name']!r}: state {state!r}, this version reads 's16f-31' ... 's16f31'")


def _read_dense(entry: dict[str, Any], prefix: str, arrays: container.Arrays) -> IntDense:
    layer = IntDense(
        entry["name"],
        entry["activation"],
        _read_matrix(entry["matrix"], f"{prefix}.matrix", arrays),
        arrays.pop(f"{prefix}.bias"),
        entry["output_fraction_bits"],
    )
    _check_bounds(layer, entry)
    return layer


def _read_bidirectional(entry: dict[str, Any], prefix: str, arrays: container.Arrays) -> IntBidirectional:
    forward, backward = (_read_direction(entry[part], f"{prefix}.{part}", arrays) for part in ("forward", "backward"))
    return IntBidirectional(entry["name"], forward, backward, entry["merge"], entry["final"])


def _write_matrix(matrix: Matrix, prefix: str, arrays: container.Arrays) -> dict[str, Any]:
    arrays[f"{prefix}.codes"] = matrix.codes
    arrays[f"{prefix}.multiplier"] = matrix.multipliers
    arrays[f"{prefix}.shift"] = matrix.shifts
    return {
        "bits": matrix.bits,
        "left_shift": matrix.left_shift,
        "rows": matrix.n_rows,
        "columns": matrix.n_columns,
    }


def _read_matrix(entry: dict[str, Any], prefix: str, arrays: container.Arrays) -> Matrix:
    container.check_fields(entry, _MATRIX, prefix)
    codes = arrays.pop(f"{prefix}.codes")
    if not _equal([entry["rows"], entry["columns"]], list(np.shape(codes))):
        raise ModelError(f"{prefix}: codes {np.shape(codes)}, the header says {entry['rows']!r} x {entry['columns']!r}")
    multipliers, shifts = arrays.pop(f"{prefix}.multiplier"), arrays.pop(f"{prefix}.shift")
    matrix = Matrix(codes, multipliers, shifts, entry["left_shift"])
    if not _equal(entry["bits"], matrix.bits) or codes.dtype != matrix.codes.dtype:
        raise ModelError(
            f"{prefix}: {codes.dtype} codes of {entry['bits']!r} bits in the file, its codes need {matrix.bits} bits; "
            "the file is damaged"
        )
    return matrix


def _equal(found: Any, expected: Any) -> bool:
    """Equality of JSON values, in which 1, 1.0 and true differ."""
    return json.dumps(found, sort_keys=True) == json.dumps(expected, sort_keys=True)


def _bounds_entry(bounds: Bounds) -> dict[str, Any]:
    return {"accumulators": list(bounds.accumulators), "pre_activation": bounds.pre_activation}
