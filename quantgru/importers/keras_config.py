"""A model configuration of Keras, as objects give it and as files hold it, put into the order of one chain.

Nested models are taken apart here. What a Functional model calls on what is followed in `keras_walk`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from quantgru.importers.chain import refuse
from quantgru.importers.keras_arguments import plain, shown
from quantgru.importers.keras_calls import kind_of, names_of
from quantgru.importers.keras_entries import MODELS, Entry, group_names, refuse_foreign_class
from quantgru.importers.keras_walk import Walk

LAYERS_LIMIT: Final = 250


@dataclass(frozen=True)
class ModelConfig:
    """The layers in the order in which they run; `inputs` is a list or a mapping of names of input layers."""

    name: str
    entries: tuple[Entry, ...]
    inputs: Any


def read_config(class_name: str, config: Any) -> ModelConfig:
    """The layers of a Sequential or Functional configuration.

    Raises ModelError where they are not one chain; KeyError, TypeError, ... where Keras did not make it.
    """
    if isinstance(config, Sequence):  # Sequential of Keras 2.2.2 and before
        config = {"name": class_name.lower(), "layers": config}
    name = str(config.get("name", class_name))
    where = f"Keras model {shown(name)}"
    if class_name not in MODELS or "layers" not in config:
        raise refuse(
            where,
            f"of class {plain(class_name)}, whose call() is not in a file",
            "give the live model to qg.load, or its weights (.weights.h5) with a chain",
        )
    entries = _entries(where, class_name, config, (), "")
    _refuse_too_many(where, len(entries))
    inputs = [] if class_name == "Sequential" else names_of(config["input_layers"])
    _refuse_unused_inputs(where, entries, inputs)
    return ModelConfig(name, tuple(entries), inputs)


def _entries(where: str, class_name: str, config: Mapping[str, Any], path: tuple[str, ...], group: str) -> list[Entry]:
    """The layers of a model in the order in which they run; nested models give their own in their place."""
    layers = config["layers"]
    _refuse_too_many(where, len(layers))
    groups = group_names([str(layer["class_name"]) for layer in layers])
    entries = [_entry(layer, path, f"{group}layers/{name}") for layer, name in zip(layers, groups, strict=True)]
    if class_name != "Sequential":
        entries = Walk(where, {entry.name: entry for entry in entries}, config).back_from_the_output()
    flat: list[Entry] = []
    for entry in entries:
        flat += [entry] if entry.kind not in MODELS else _inside(entry)
    return flat


def _refuse_too_many(where: str, n_layers: int) -> None:
    """Of a model and of all models in it together, since the work to follow them grows with the square."""
    if n_layers > LAYERS_LIMIT:
        raise refuse(where, f"{n_layers} layers, allowed are {LAYERS_LIMIT}")


def _entry(layer: Mapping[str, Any], path: tuple[str, ...], group: str) -> Entry:
    name = layer.get("name") or layer["config"].get("name") or group.rpartition("/")[2]
    entry = Entry(kind_of(layer), layer["config"], (*path, str(name)), group)
    refuse_foreign_class(entry.where, layer)
    return entry


def _inside(entry: Entry) -> list[Entry]:
    config = entry.config
    if isinstance(config, Sequence):
        config = {"layers": config}
    if entry.result:
        raise refuse(entry.where, f"its result {entry.result} goes on", "give it a single output")
    found = _entries(entry.where, entry.kind, config, entry.path, f"{entry.group}/")
    if any(inner.state_inputs for inner in found):
        raise refuse(entry.where, "a model inside a model with several inputs", "put its layers into the outer model")
    return [inner for inner in found if inner.kind != "InputLayer"]


def input_names(inputs: Any) -> list[str]:
    """The names in `ModelConfig.inputs`, in order."""
    if isinstance(inputs, str):
        return [inputs]
    return [name for item in (inputs.values() if isinstance(inputs, Mapping) else inputs) for name in input_names(item)]


def _refuse_unused_inputs(where: str, entries: Sequence[Entry], inputs: Any) -> None:
    names = input_names(inputs)
    if not names:
        return
    used = {state for entry in entries for state in entry.state_inputs} | {entries[0].name}
    if set(names) != used:
        raise refuse(
            where,
            f"{len(names)} inputs",
            "one input of steps is supported, and inputs that are initial states of GRU layers",
        )
