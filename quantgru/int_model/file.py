"""Integer models as files (`.qgru`): a strict reading, in which every field is known and every invariant holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import numpy as np

from quantgru import container
from quantgru.errors import ModelError
from quantgru.fixed import STATE
from quantgru.int_model.proof import Bounds, prove
from quantgru.int_model.types import (
    SPEC_MAJOR,
    SPEC_MINOR,
    IntDense,
    IntGru,
    IntLayer,
    IntModel,
    Matrix,
    SelfTest,
)

FORMAT: Final = 1

_HEADER = {
    "kind",
    "format",
    "spec",
    "name",
    "digest",
    "last_step",
    "selftest_check",
    "layers",
    "notes",
    "input_units",
    "output_units",
}
_GRU = {"kind", "name", "reset", "gate", "candidate", "state", "input", "recurrent", "bounds"}
_DENSE = {"kind", "name", "activation", "output_fraction_bits", "matrix", "bounds"}
_MATRIX = {"bits", "left_shift", "rows", "columns"}


def save(model: IntModel, path: str | Path) -> None:
    """Writes `model`. Raises ModelError where the path cannot be written."""
    arrays: container.Arrays = {
        "input_fraction_bits": model.input_fraction_bits,
        "selftest": model.selftest.inputs,
    }
    layers = [_write_layer(layer, f"layers.{i}", arrays) for i, layer in enumerate(model.layers)]
    header = {
        "kind": "integer model",
        "format": FORMAT,
        "spec": [SPEC_MAJOR, SPEC_MINOR],
        "name": model.name,
        "digest": model.digest.hex(),
        "last_step": model.last_step,
        "selftest_check": model.selftest.check,
        "layers": layers,
        "notes": dict(model.notes),
        "input_units": list(model.input_units),
        "output_units": list(model.output_units),
    }
    container.save(path, header, arrays)


def load(path: str | Path) -> IntModel:
    """Reads a file that `save` wrote. Raises ModelError."""
    header, arrays = container.load(path, "model")
    where = f"model {path}"
    if header.get("kind") != "integer model":
        found = header.get("kind", "something else")
        raise ModelError(f"{where}: holds {found!r}, expected an integer model (.qgru); `quantgru quantize` makes one")
    _check_versions(header, where)
    try:
        _known(header, _HEADER, "header")
        layers = tuple(_read_layer(entry, f"layers.{i}", arrays) for i, entry in enumerate(header["layers"]))
        selftest = SelfTest(arrays.pop("selftest"), header["selftest_check"])
        input_fraction_bits = arrays.pop("input_fraction_bits")
        if arrays:
            raise ModelError(f"unknown arrays {sorted(arrays)}")
        model = IntModel(
            layers,
            input_fraction_bits,
            header["last_step"],
            selftest,
            header["name"],
            header["notes"],
            header["input_units"],
            header["output_units"],
        )
    except ModelError as error:
        raise ModelError(f"{where}: {error}") from None
    except KeyError as error:
        raise ModelError(f"{where}: field or array {error} is missing; the file is damaged") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{where}: a field has the wrong type ({error}); the file is damaged") from None
    if model.digest.hex() != header["digest"]:
        raise ModelError(
            f"{where}: its numbers have the digest {model.digest.hex()[:16]!r}, the file says "
            f"{str(header['digest'])[:16]!r}; the file is damaged"
        )
    return model


def _check_versions(header: dict[str, Any], where: str) -> None:
    if not _equal(header.get("format"), FORMAT):
        raise ModelError(f"{where}: file format {header.get('format')!r}, this version reads {FORMAT}; update quantgru")
    spec = header.get("spec")
    if not (isinstance(spec, list) and len(spec) == 2 and all(type(number) is int and number >= 0 for number in spec)):
        raise ModelError(f"{where}: spec version {spec!r}, expected [major, minor]; the file is damaged")
    if spec[0] != SPEC_MAJOR or spec[1] > SPEC_MINOR:
        raise ModelError(
            f"{where}: made for numeric contract {spec[0]}.{spec[1]}, this version computes "
            f"{SPEC_MAJOR}.{SPEC_MINOR}; quantize the model again, or update quantgru"
        )


def _equal(found: Any, expected: Any) -> bool:
    """Equality of JSON values, in which 1, 1.0 and true differ."""
    return json.dumps(found, sort_keys=True) == json.dumps(expected, sort_keys=True)


def _known(entry: dict[str, Any], fields: set[str], what: str) -> None:
    unknown = set(entry) - fields
    if unknown:
        raise ModelError(f"{what}: unknown field {min(unknown)!r}; update quantgru")
    missing = fields - set(entry)
    if missing:
        raise KeyError(min(missing))


def _write_layer(layer: IntLayer, prefix: str, arrays: container.Arrays) -> dict[str, Any]:
    bounds = prove(layer)
    common = {
        "name": layer.name,
        "bounds": _bounds_entry(bounds),
    }
    arrays[f"{prefix}.bias"] = layer.bias
    if isinstance(layer, IntGru):
        arrays[f"{prefix}.recurrent_bias"] = layer.recurrent_bias
        return common | {
            "kind": "gru",
            "reset": layer.reset,
            "gate": "sigmoid",
            "candidate": "tanh",
            "state": str(STATE),
            "input": _write_matrix(layer.input, f"{prefix}.input", arrays),
            "recurrent": _write_matrix(layer.recurrent, f"{prefix}.recurrent", arrays),
        }
    return common | {
        "kind": "dense",
        "activation": layer.activation,
        "output_fraction_bits": layer.output_fraction_bits,
        "matrix": _write_matrix(layer.matrix, f"{prefix}.matrix", arrays),
    }


def _read_layer(entry: dict[str, Any], prefix: str, arrays: container.Arrays) -> IntLayer:
    layer: IntLayer
    match entry["kind"]:
        case "gru":
            _known(entry, _GRU, f"layer {entry['name']!r}")
            _only(entry, "gate", "sigmoid")
            _only(entry, "candidate", "tanh")
            _only(entry, "state", str(STATE))
            layer = IntGru(
                entry["name"],
                entry["reset"],
                _read_matrix(entry["input"], f"{prefix}.input", arrays),
                _read_matrix(entry["recurrent"], f"{prefix}.recurrent", arrays),
                arrays.pop(f"{prefix}.bias"),
                arrays.pop(f"{prefix}.recurrent_bias"),
            )
        case "dense":
            _known(entry, _DENSE, f"layer {entry['name']!r}")
            layer = IntDense(
                entry["name"],
                entry["activation"],
                _read_matrix(entry["matrix"], f"{prefix}.matrix", arrays),
                arrays.pop(f"{prefix}.bias"),
                entry["output_fraction_bits"],
            )
        case kind:
            raise ModelError(f"unknown layer kind {kind!r}; update quantgru")
    bounds = prove(layer)
    if not _equal(entry["bounds"], _bounds_entry(bounds)):
        raise ModelError(f"layer {layer.name!r}: its bounds are {bounds}, the file says {entry['bounds']!r}")
    return layer


def _bounds_entry(bounds: Bounds) -> dict[str, Any]:
    return {"accumulators": list(bounds.accumulators), "pre_activation": bounds.pre_activation}


def _only(entry: dict[str, Any], name: str, allowed: str) -> None:
    if entry[name] != allowed:
        raise ModelError(f"layer {entry['name']!r}: {name} {entry[name]!r}, this version reads {allowed!r}")


def _write_matrix(matrix: Matrix, prefix: str, arrays: container.Arrays) -> dict[str, Any]:
    arrays[f"{prefix}.codes"] = matrix.codes
    arrays[f"{prefix}.multiplier"] = matrix.multiplier
    arrays[f"{prefix}.shift"] = matrix.shift
    return {
        "bits": matrix.bits,
        "left_shift": matrix.left_shift,
        "rows": matrix.n_rows,
        "columns": matrix.n_columns,
    }


def _read_matrix(entry: dict[str, Any], prefix: str, arrays: container.Arrays) -> Matrix:
    _known(entry, _MATRIX, prefix)
    codes = arrays.pop(f"{prefix}.codes")
    if not _equal([entry["rows"], entry["columns"]], list(np.shape(codes))):
        raise ModelError(f"{prefix}: codes {np.shape(codes)}, the header says {entry['rows']!r} x {entry['columns']!r}")
    return Matrix(
        codes,
        arrays.pop(f"{prefix}.multiplier"),
        arrays.pop(f"{prefix}.shift"),
        entry["left_shift"],
        entry["bits"],
    )
