"""Float models as files (`.qgf`): what an importer made of a model, ready for the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from quantgru import container
from quantgru.errors import ModelError
from quantgru.model.float_model import FloatModel
from quantgru.model.layers import Bidirectional, Dense, Embedding, Gru, Layer
from quantgru.structure import Reverse

FORMAT: Final = 2
_FORMATS_READ: Final = (1, 2)  # 1 knew sigmoid gates, tanh candidates and dense layers at the end only

# Of each kind of layer, the fields that are arrays and those that are texts.
_ARRAYS: Final[dict[str, tuple[str, ...]]] = {
    "gru": ("input_weights", "recurrent_weights", "bias", "recurrent_bias"),
    "dense": ("weights", "bias"),
    "embedding": ("vectors",),
    "reverse": (),
}
_TEXTS: Final[dict[str, tuple[str, ...]]] = {
    "gru": ("name", "reset", "gate", "candidate"),
    "dense": ("name", "activation"),
    "embedding": ("name",),
    "reverse": ("name",),
}
_HEADER: Final = frozenset(("kind", "format", "name", "last_step", "mask_value", "notes", "layers"))
_GRU_OF_FORMAT_1: Final = {"gate": "sigmoid", "candidate": "tanh", "has_initial_state": False}
_KINDS: Final[dict[str, type[Gru] | type[Dense] | type[Embedding] | type[Reverse]]] = {
    "gru": Gru,
    "dense": Dense,
    "embedding": Embedding,
    "reverse": Reverse,
}


def save(model: FloatModel, path: str | Path) -> None:
    """Writes `model`. Raises ModelError where the path cannot be written."""
    container.save(path, *content(model))


def content(model: FloatModel) -> tuple[dict[str, Any], container.Arrays]:
    """Header and arrays of the file of `model`."""
    arrays: container.Arrays = {}
    header = {
        "kind": "float model",
        "format": FORMAT,
        "name": model.name,
        "last_step": model.last_step,
        "mask_value": model.mask_value,
        "notes": list(model.notes),
        "layers": [_write(layer, f"layers.{i}", arrays) for i, layer in enumerate(model.layers)],
    }
    return header, arrays


def _write(layer: Layer, prefix: str, arrays: container.Arrays) -> dict[str, Any]:
    if isinstance(layer, Bidirectional):
        parts = {part: _write(getattr(layer, part), f"{prefix}.{part}", arrays) for part in ("forward", "backward")}
        return {"kind": "bidirectional", "name": layer.name, "merge": layer.merge, "final": layer.final, **parts}
    kind = next(name for name, of_kind in _KINDS.items() if isinstance(layer, of_kind))
    arrays |= {f"{prefix}.{name}": getattr(layer, name) for name in _ARRAYS[kind]}
    entry = {"kind": kind, **{name: getattr(layer, name) for name in _TEXTS[kind]}}
    if isinstance(layer, Gru):
        entry["has_initial_state"] = layer.initial_state is not None
        if layer.initial_state is not None:
            arrays[f"{prefix}.initial_state"] = layer.initial_state
    return entry


def load(path: str | Path) -> FloatModel:
    """Reads a file that `save` wrote. Raises ModelError."""
    header, arrays = container.load(path, "float model")
    where = f"float model {path}"
    if header.get("kind") != "float model":
        raise ModelError(f"{where}: holds {header.get('kind')!r}, expected a float model")
    if type(header.get("format")) is not int or header["format"] not in _FORMATS_READ:
        raise ModelError(f"{where}: format {header.get('format')!r}, this version reads {FORMAT}; update quantgru")
    try:
        return _model(header if header["format"] == FORMAT else _of_format_1(header), arrays)
    except ModelError as error:
        raise ModelError(f"{where}: {error}") from None
    except KeyError as error:
        raise ModelError(f"{where}: field or array {error} is missing; the file is damaged") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{where}: a field has the wrong type ({error}); the file is damaged") from None


def _of_format_1(header: dict[str, Any]) -> dict[str, Any]:
    """The same header in the present format."""
    layers = [_GRU_OF_FORMAT_1 | entry if entry["kind"] == "gru" else entry for entry in header["layers"]]
    return {"mask_value": None, **header, "layers": layers}


def _model(header: dict[str, Any], arrays: container.Arrays) -> FloatModel:
    container.check_fields(header, _HEADER, "header")
    layers = tuple(_read(entry, f"layers.{i}", arrays) for i, entry in enumerate(header["layers"]))
    notes = tuple(str(note) for note in header["notes"])
    mask_value = header["mask_value"]
    if mask_value is not None:
        mask_value = float(_field(header, "mask_value", (int, float)))
    model = FloatModel(layers, _field(header, "last_step", bool), _field(header, "name", str), notes, mask_value)
    container.check_nothing_left(arrays)
    return model


def _field(entry: dict[str, Any], name: str, kind: type | tuple[type, ...]) -> Any:
    value = entry[name]
    if not isinstance(value, kind):
        raise TypeError(f"{name} is {value!r}")
    return value


def _read(entry: dict[str, Any], prefix: str, arrays: container.Arrays) -> Layer:
    kind = entry["kind"]
    if kind == "bidirectional":
        container.check_fields(entry, ("kind", "name", "merge", "final", "forward", "backward"), prefix)
        forward, backward = (_read_gru(entry[part], f"{prefix}.{part}", arrays) for part in ("forward", "backward"))
        merge = _field(entry, "merge", str)
        return Bidirectional(_field(entry, "name", str), forward, backward, merge, _field(entry, "final", bool))
    if kind == "gru":
        return _read_gru(entry, prefix, arrays)
    if kind not in _KINDS:
        kinds = ", ".join((*_KINDS, "bidirectional"))
        raise ModelError(f"layer {prefix}: kind {kind!r}, this version reads {kinds}; update quantgru")
    container.check_fields(entry, ("kind", *_TEXTS[kind]), prefix)
    return _KINDS[kind](**_values(entry, kind, prefix, arrays))


def _read_gru(entry: dict[str, Any], prefix: str, arrays: container.Arrays) -> Gru:
    if entry["kind"] != "gru":
        raise ModelError(f"layer {prefix}: kind {entry['kind']!r}, expected 'gru'; the file is damaged")
    container.check_fields(entry, ("kind", *_TEXTS["gru"], "has_initial_state"), prefix)
    values = _values(entry, "gru", prefix, arrays)
    if _field(entry, "has_initial_state", bool):
        values["initial_state"] = arrays.pop(f"{prefix}.initial_state")
    return Gru(**values)


def _values(entry: dict[str, Any], kind: str, prefix: str, arrays: container.Arrays) -> dict[str, Any]:
    """The arrays and the texts of a layer, by the names of its fields."""
    found: dict[str, Any] = {name: arrays.pop(f"{prefix}.{name}") for name in _ARRAYS[kind]}
    return found | {name: _field(entry, name, str) for name in _TEXTS[kind]}
