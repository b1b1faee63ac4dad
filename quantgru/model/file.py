"""Float models as files (`.qgf`): what an importer made of a model, ready for the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from quantgru import container
from quantgru.errors import ModelError
from quantgru.model.layers import Dense, FloatModel, Gru, Layer

FORMAT: Final = 1

_GRU_ARRAYS: Final = ("input_weights", "recurrent_weights", "bias", "recurrent_bias")
_DENSE_ARRAYS: Final = ("weights", "bias")


def save(model: FloatModel, path: str | Path) -> None:
    """Writes `model`. Raises ModelError where the path cannot be written."""
    arrays: container.Arrays = {}
    layers: list[dict[str, Any]] = []
    for i, layer in enumerate(model.layers):
        if isinstance(layer, Gru):
            names: tuple[str, ...] = _GRU_ARRAYS
            layers.append({"kind": "gru", "name": layer.name, "reset": layer.reset})
        else:
            names = _DENSE_ARRAYS
            layers.append({"kind": "dense", "name": layer.name, "activation": layer.activation})
        arrays |= {f"layers.{i}.{name}": getattr(layer, name) for name in names}
    header = {
        "kind": "float model",
        "format": FORMAT,
        "name": model.name,
        "last_step": model.last_step,
        "notes": list(model.notes),
        "layers": layers,
    }
    container.save(path, header, arrays)


def load(path: str | Path) -> FloatModel:
    """Reads a file that `save` wrote. Raises ModelError."""
    header, arrays = container.load(path, "float model")
    where = f"float model {path}"
    if header.get("kind") != "float model":
        raise ModelError(f"{where}: holds {header.get('kind')!r}, expected a float model")
    if header.get("format") != FORMAT:
        raise ModelError(f"{where}: format {header.get('format')!r}, this version reads {FORMAT}; update quantgru")
    try:
        layers = tuple(_layer(i, entry, arrays) for i, entry in enumerate(header["layers"]))
        notes = tuple(str(note) for note in header["notes"])
        return FloatModel(layers, _field(header, "last_step", bool), _field(header, "name", str), notes)
    except ModelError as error:
        raise ModelError(f"{where}: {error}") from None
    except KeyError as error:
        raise ModelError(f"{where}: field or array {error} is missing; the file is damaged") from None
    except TypeError as error:
        raise ModelError(f"{where}: a field has the wrong type ({error}); the file is damaged") from None


def _field(entry: dict[str, Any], name: str, kind: type) -> Any:
    value = entry[name]
    if not isinstance(value, kind):
        raise TypeError(f"{name} is {value!r}")
    return value


def _layer(i: int, entry: dict[str, Any], arrays: container.Arrays) -> Layer:
    def named(names: tuple[str, ...]) -> dict[str, Any]:
        return {name: arrays[f"layers.{i}.{name}"] for name in names}

    match entry["kind"]:
        case "gru":
            return Gru(name=_field(entry, "name", str), reset=_field(entry, "reset", str), **named(_GRU_ARRAYS))
        case "dense":
            activation = _field(entry, "activation", str)
            return Dense(name=_field(entry, "name", str), activation=activation, **named(_DENSE_ARRAYS))
        case kind:
            raise ModelError(f"layer {i}: kind {kind!r}, this version reads 'gru' and 'dense'; update quantgru")
