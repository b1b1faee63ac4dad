"""A Keras 3 model configuration, as objects give it and as files hold it, put into the order of one chain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from quantgru.importers.chain import refuse

# The groups that .keras files keep weights in, by class; other classes of a supported chain have no weights.
WEIGHT_GROUPS: Final = {"GRU": "gru", "Dense": "dense", "TimeDistributed": "time_distributed"}


@dataclass(frozen=True)
class Entry:
    """One layer of a model: its Keras class, its name, its configuration, and its group of weights in a file."""

    kind: str
    name: str
    config: Mapping[str, Any]
    group: str

    @property
    def where(self) -> str:
        return f"layer {self.name!r} ({self.kind})"


def chain_entries(class_name: str, config: Mapping[str, Any]) -> list[Entry]:
    """The layers of a Sequential or Functional configuration in the order in which they run.

    Raises ModelError where they are not one chain; KeyError, TypeError, ... where Keras did not make it.
    """
    where = f"Keras model {config.get('name', class_name)!r}"
    if class_name not in ("Sequential", "Functional", "Model") or "layers" not in config:
        raise refuse(where, f"of class {class_name}", "build it as keras.Sequential or keras.Model(inputs, outputs)")
    counts: Counter[str] = Counter()
    entries = [_entry(layer, counts) for layer in config["layers"]]
    if class_name == "Sequential":
        return entries
    nodes = {layer["name"]: layer["inbound_nodes"] for layer in config["layers"]}
    ends = [_one_tensor(where, config[key], key) for key in ("input_layers", "output_layers")]
    return _follow({entry.name: entry for entry in entries}, nodes, start=ends[0], end=ends[1])


def _entry(layer: Mapping[str, Any], counts: Counter[str]) -> Entry:
    kind, config = layer["class_name"], layer["config"]
    name = str(config["name"])
    module = layer.get("module") or ""
    if not (module == "keras.layers" or module.startswith("keras.src.layers.")):
        raise refuse(f"layer {name!r} ({kind})", f"a class of module {module!r}, not one of keras.layers")
    group = WEIGHT_GROUPS.get(kind, "")
    if group:
        counts[kind] += 1
        group = group if counts[kind] == 1 else f"{group}_{counts[kind] - 1}"
    return Entry(kind, name, config, group)


def _one_tensor(where: str, ends: Any, key: str) -> str:
    """The layer of ["name", 0, 0] or [["name", 0, 0]]."""
    while isinstance(ends, Mapping) and len(ends) == 1:
        ends = next(iter(ends.values()))
    if len(ends) == 1 and isinstance(ends[0], (list, tuple)):
        ends = ends[0]
    if len(ends) != 3 or not isinstance(ends[0], str):
        raise refuse(where, f"{len(ends)} {key.replace('_layers', 's')}", "one input and one output are supported")
    return ends[0]


def _follow(entries: Mapping[str, Entry], nodes: Mapping[str, Any], start: str, end: str) -> list[Entry]:
    """From the output back to the input, each layer called once on one tensor."""
    chain = [entries[end]]
    while chain[-1].name != start:
        entry = chain[-1]
        if len(chain) > len(entries):
            raise refuse(entry.where, "part of a loop")
        calls = nodes[entry.name]
        if len(calls) != 1:
            raise refuse(entry.where, f"called {len(calls)} times", "give each call a layer of its own")
        chain.append(entries[_called_on(entry, calls[0])])
    beside = sorted(set(entries) - {entry.name for entry in chain})
    if beside:
        raise refuse(entries[beside[0]].where, "not on the one way from the input to the output")
    return chain[::-1]


def _called_on(entry: Entry, call: Mapping[str, Any]) -> str:
    """The layer whose only result `entry` was called on."""
    tensors = [argument for argument in call["args"] if argument is not None]
    if len(tensors) != 1 or not isinstance(tensors[0], Mapping) or tensors[0].get("class_name") != "__keras_tensor__":
        raise refuse(entry.where, "called on something else than one tensor")
    for key, value in call["kwargs"].items():
        if value not in (None, False):
            raise refuse(entry.where, f"called with {key}={_short(value)}", "call it with the input alone")
    name, _, position = tensors[0]["config"]["keras_history"]
    if position != 0:
        raise refuse(entry.where, f"called on result {position} of layer {name!r}")
    return str(name)


def _short(value: Any) -> str:
    return str(value) if isinstance(value, (bool, int, float, str)) else "a tensor"
