"""A model configuration of Keras, as objects give it and as files hold it, put into the order of one chain.

Keras 2 and Keras 3 write the calls of a Functional model differently; nested models are taken apart here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from quantgru.importers.chain import refuse
from quantgru.importers.keras_arguments import plain, shown

MODELS: Final = ("Sequential", "Functional", "Model")
RECURRENT: Final = ("GRU", "CuDNNGRU", "RNN", "Bidirectional")
OPERATIONS: Final = ("Any", "GetItem", "NotEqual")
LAYERS_LIMIT: Final = 250

# What may stand for the module of a class of Keras's own; files of Keras 2 and legacy ones of Keras 3 name none.
_OWN_MODULE: Final = re.compile(r"(tf_)?keras(\.src)?\.(layers|models|engine)(\..*)?|(tf_)?keras")


@dataclass(frozen=True)
class Entry:
    """One layer of a model.

    path    the names of the models that it is in, and its own
    group   its group in a Keras 3 file
    inner   where in this group its weights are, if not directly in it
    result  which of its results goes on: 0, or of a layer with return_state the number of a state, from 1
    states  the inputs of the model that give its initial states
    """

    kind: str
    config: Mapping[str, Any]
    path: tuple[str, ...]
    group: str
    inner: str = ""
    result: int = 0
    states: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.path[-1]

    @property
    def where(self) -> str:
        return f"layer {shown('/'.join(self.path))} ({plain(self.kind)})"


@dataclass(frozen=True)
class ModelConfig:
    """The layers in the order in which they run; `inputs` is a list or a mapping of names of input layers."""

    name: str
    entries: tuple[Entry, ...]
    inputs: Any


class Tensor(NamedTuple):
    """A result of a layer, in the arguments of a call."""

    layer: str
    position: int


class Call(NamedTuple):
    arguments: list[Any]
    keywords: dict[str, Any]


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
            where, f"of class {plain(class_name)}", "build it as keras.Sequential or keras.Model(inputs, outputs)"
        )
    entries = _entries(where, class_name, config, (), "")
    if len(entries) > LAYERS_LIMIT:
        raise refuse(where, f"{len(entries)} layers, allowed are {LAYERS_LIMIT}")
    inputs = [] if class_name == "Sequential" else _names_of(config["input_layers"])
    _refuse_unused_inputs(where, entries, inputs)
    return ModelConfig(name, tuple(entries), inputs)


def refuse_foreign_class(where: str, layer: Mapping[str, Any]) -> None:
    """Raises ModelError for a class of the user's, whatever its name is."""
    module = layer.get("module")
    foreign = layer.get("registered_name") if module is None else not _OWN_MODULE.fullmatch(str(module))
    if foreign:
        raise refuse(where, f"a class of module {shown(module)}, not one of keras.layers")


def group_names(kinds: Sequence[str]) -> list[str]:
    """The groups that Keras 3 files have for layers of these classes.

    >>> group_names(["GRU", "ReLU", "GRU", "TimeDistributed"])
    ['gru', 're_lu', 'gru_1', 'time_distributed']
    """
    counts: Counter[str] = Counter()
    names = []
    for kind in kinds:
        name = re.sub(r"([a-z])([A-Z])", r"\1_\2", re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", kind)).lower()
        names.append(f"{name}_{counts[name]}" if counts[name] else name)
        counts[name] += 1
    return names


def _entries(where: str, class_name: str, config: Mapping[str, Any], path: tuple[str, ...], group: str) -> list[Entry]:
    """The layers of a model in the order in which they run; nested models give their own in their place."""
    layers = config["layers"]
    groups = group_names([str(layer["class_name"]) for layer in layers])
    entries = [_entry(layer, path, f"{group}layers/{name}") for layer, name in zip(layers, groups, strict=True)]
    if class_name != "Sequential":
        entries = _Walk(where, {entry.name: entry for entry in entries}, config).back_from_the_output()
    flat: list[Entry] = []
    for entry in entries:
        flat += [entry] if entry.kind not in MODELS else _inside(entry)
    return flat


def _entry(layer: Mapping[str, Any], path: tuple[str, ...], group: str) -> Entry:
    name = str(layer.get("name") or layer["config"]["name"])
    entry = Entry(str(layer["class_name"]), layer["config"], (*path, name), group)
    if not _is_operation(layer):
        refuse_foreign_class(entry.where, layer)
    return entry


def _is_operation(layer: Mapping[str, Any]) -> bool:
    """Whether it is no layer: x[:, -1], or what Keras 3 writes for a mask. It has no weights."""
    return layer["class_name"] in OPERATIONS and layer.get("module") in (None, "keras.src.ops.numpy")


def _inside(entry: Entry) -> list[Entry]:
    config = entry.config
    if isinstance(config, Sequence):
        config = {"layers": config}
    if entry.result:
        raise refuse(entry.where, f"its result {entry.result} goes on", "give it a single output")
    found = _entries(entry.where, entry.kind, config, entry.path, f"{entry.group}/")
    if any(inner.states for inner in found):
        raise refuse(entry.where, "a model inside a model with several inputs", "put its layers into the outer model")
    return [inner for inner in found if inner.kind != "InputLayer"]


class _Walk:
    """From the output of a Functional model back to its input, each layer called once on one tensor."""

    def __init__(self, where: str, entries: Mapping[str, Entry], config: Mapping[str, Any]) -> None:
        self.where = where
        self.entries = entries
        self.nodes = {str(layer.get("name") or layer["config"]["name"]): layer for layer in config["layers"]}
        self.output = _one_tensor(where, config["output_layers"])
        self.called_on: dict[str, Tensor] = {}
        self.masks: dict[str, Tensor] = {}  # those that calls name

    def back_from_the_output(self) -> list[Entry]:
        chain: list[Entry] = []
        tensor = self.output
        while True:
            entry = replace(self.entries[tensor.layer], result=tensor.position)
            if len(chain) > len(self.entries):
                raise refuse(entry.where, "part of a loop")
            if entry.kind == "InputLayer":
                chain.append(entry)
                break
            entry, tensor = self._follow(entry)
            chain.append(entry)
        used = {entry.name for entry in chain} | {state for entry in chain for state in entry.states}
        beside = sorted(set(self.entries) - used - self._operations_of_masks(chain))
        if beside:
            raise refuse(self.entries[beside[0]].where, "not on the one way from the input to the output")
        return chain[::-1]

    def _follow(self, entry: Entry) -> tuple[Entry, Tensor]:
        """The entry with what its call says, and what it was called on."""
        before, further, keywords = self._call(entry)
        if entry.kind == "GetItem":
            entry = replace(entry, config={**entry.config, "index": further[0]})
        elif entry.kind in RECURRENT:
            entry = replace(entry, states=self._states(entry, [*further, keywords.pop("initial_state", None)]))
        elif any(argument is not None for argument in further):
            raise refuse(entry.where, "called on something else than one tensor")
        self.called_on[entry.name] = before
        if isinstance(keywords.get("mask"), Tensor):
            self.masks[entry.name] = keywords.pop("mask")
        for key, value in keywords.items():
            if value not in (None, False):
                raise refuse(entry.where, f"called with {plain(key)}={_short(value)}", "call it with the input alone")
        return entry, before

    def _call(self, entry: Entry) -> tuple[Tensor, list[Any], dict[str, Any]]:
        """What the only call was on, its further arguments and its keywords."""
        calls = self.nodes[entry.name]["inbound_nodes"]
        if len(calls) != 1:
            raise refuse(entry.where, f"called {len(calls)} times", "give each call a layer of its own")
        arguments, keywords = _read_call(calls[0])
        before, *further = arguments or [None]
        if not isinstance(before, Tensor):
            raise refuse(entry.where, "called on something else than one tensor")
        return before, further, keywords

    def _operations_of_masks(self, chain: list[Entry]) -> set[str]:
        """The operations that compute masks. Keras 3 writes a mask into each call, though layers pass it on anyway.

        Raises ModelError for one that is not of a Masking or Embedding layer in the chain.
        """
        own: list[Any] = []  # what is compared, with which value, whether over all features
        for entry in chain:
            if entry.kind == "Masking":
                own.append((self.called_on[entry.name], entry.config["mask_value"], True))
            elif entry.kind == "Embedding":
                own.append((self.called_on[entry.name], 0, False))
        used: set[str] = set()
        for name, mask in self.masks.items():
            operation = self.entries[mask.layer]
            used.add(operation.name)
            over_features = operation.kind == "Any" and operation.config.get("axis") in (-1, 2)
            if over_features:
                operation = self.entries[self._call(operation)[0].layer]
                used.add(operation.name)
            before, further, _ = self._call(operation) if operation.kind == "NotEqual" else (None, [None], None)
            if (before, further[0], over_features) not in own:
                raise refuse(
                    self.entries[name].where, "called with mask=a tensor", "use keras.layers.Masking or mask_zero=True"
                )
        return used

    def _states(self, entry: Entry, given: list[Any]) -> tuple[str, ...]:
        """The inputs that give initial states."""
        names = []
        for state in _flat(given):
            if not isinstance(state, Tensor) or self.entries[state.layer].kind != "InputLayer":
                raise refuse(
                    entry.where,
                    f"called with initial_state={_short(state)}",
                    "make each initial state an input of the model: initial_state=keras.Input((units,))",
                )
            names.append(state.layer)
        return tuple(names)


def _read_call(call: Any) -> Call:
    """A call as Keras 3 writes it, {"args": ..., "kwargs": ...}, or Keras 2, [[layer, node, result, kwargs], ...]."""
    if isinstance(call, Mapping):
        keywords = {key: _value(value) for key, value in call["kwargs"].items()}
        return Call([_value(value) for value in call["args"]], keywords)
    if call and isinstance(call[0], str):
        call = [call]
    keywords = {key: _value(value) for tensor in call for key, value in (tensor[3] if len(tensor) > 3 else {}).items()}
    return Call([_value(tensor[:3]) for tensor in call], keywords)


def _value(value: Any) -> Any:
    """An argument, its tensors as `Tensor`."""
    if isinstance(value, Mapping) and value.get("class_name") == "__keras_tensor__":
        layer, _, position = value["config"]["keras_history"]
        return Tensor(str(layer), int(position))
    if isinstance(value, (list, tuple)):
        is_tensor = len(value) == 3 and isinstance(value[0], str) and all(isinstance(n, int) for n in value[1:])
        return Tensor(value[0], value[2]) if is_tensor else [_value(item) for item in value]
    return value


def _flat(values: list[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        found += _flat(value) if isinstance(value, list) else [] if value is None else [value]
    return found


def _one_tensor(where: str, ends: Any) -> Tensor:
    """The one tensor of ["name", 0, 0], [["name", 0, 0]] or {"key": ["name", 0, 0]}."""
    found = _flat([_value(list(ends.values()) if isinstance(ends, Mapping) else ends)])
    if len(found) != 1 or not isinstance(found[0], Tensor):
        raise refuse(
            where,
            f"{len(found)} outputs",
            "one output is supported: make a model of the one that you need, keras.Model(model.inputs, output)",
        )
    return found[0]


def _names_of(ends: Any) -> Any:
    """["name", 0, 0] as "name", wherever in lists and mappings it is."""
    if isinstance(ends, Mapping):
        return {key: _names_of(value) for key, value in ends.items()}
    value = _value(ends)
    return value.layer if isinstance(value, Tensor) else [_names_of(item) for item in ends]


def input_names(inputs: Any) -> list[str]:
    """The names in `ModelConfig.inputs`, in order."""
    if isinstance(inputs, str):
        return [inputs]
    return [name for item in (inputs.values() if isinstance(inputs, Mapping) else inputs) for name in input_names(item)]


def _refuse_unused_inputs(where: str, entries: Sequence[Entry], inputs: Any) -> None:
    names = input_names(inputs)
    if not names:
        return
    used = {state for entry in entries for state in entry.states} | {entries[0].name}
    if set(names) != used:
        raise refuse(
            where,
            f"{len(names)} inputs",
            "one input of steps is supported, and inputs that are initial states of GRU layers",
        )


def _short(value: Any) -> str:
    return plain(value) if isinstance(value, (bool, int, float, str)) else "a tensor"
