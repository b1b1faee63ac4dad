"""From the output of a Functional model back to its input: which layer was called on what, once each.

One tensor leads to one before it. The only place where two come together is a layer that merges the directions of GRU
layers: its entry has both of them as its halves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from quantgru.importers.chain import refuse
from quantgru.importers.keras_arguments import plain, shown
from quantgru.importers.keras_calls import ALL, TURNED, Call, Tensor, end_tensors, read_call, tensors_in
from quantgru.importers.keras_entries import RECURRENT, Entry

WITH_CONSTANT: Final = ("Add", "Divide", "GetItem", "Multiply", "Subtract", "TrueDivide")
TURNS: Final = ("Flip", "GetItem")
MERGES: Final = ("Add", "Average", "Concatenate", "Multiply")
_AXIS_IN_CALL: Final = ("Concatenate", "Flip", "LogSoftmax", "Softmax")  # where Keras 2 writes it


def turns_steps(entry: Entry) -> bool:
    """Whether it is an operation that turns the order of steps around: flip(x, axis=1) or x[:, ::-1]."""
    if entry.kind == "GetItem":
        return entry.constant in ([ALL, TURNED], [ALL, TURNED, ALL])
    return entry.kind == "Flip" and entry.config.get("axis") in (1, -2, [1], (1,))


class Walk:
    """The entries of one Functional model by their names, and its configuration."""

    def __init__(self, where: str, entries: Mapping[str, Entry], config: Mapping[str, Any]) -> None:
        self.where = where
        self.entries = entries
        self.nodes = {str(layer.get("name") or layer["config"]["name"]): layer for layer in config["layers"]}
        self.outputs = end_tensors(config["output_layers"])
        self.called_on: dict[str, Tensor] = {}
        self.masks: dict[str, Tensor] = {}  # those that calls name
        self.used: set[str] = set()

    def back_from_the_output(self) -> list[Entry]:
        """The chain from the input on. Raises ModelError where there is none, or where something is beside it."""
        if len(self.outputs) != 1:
            raise refuse(
                self.where,
                f"{len(self.outputs)} outputs",
                "one output is supported: make a model of the one that you need, keras.Model(model.inputs, output)",
            )
        chain: list[Entry] = []
        tensor: Tensor | None = self.outputs[0]
        while tensor is not None:
            entry, tensor = self._entry_of(tensor)
            if len(chain) > len(self.entries):
                raise refuse(entry.where, "part of a loop")
            chain.append(entry)
        self._use_operations_of_masks(chain)
        beside = sorted(set(self.entries) - self.used)
        if beside:
            raise refuse(self.entries[beside[0]].where, "not on the one way from the input to the output")
        return chain[::-1]

    def _entry_of(self, tensor: Tensor) -> tuple[Entry, Tensor | None]:
        """The entry that gives a tensor, with what its call says, and what it was called on; None for an input."""
        entry = replace(self.entries[tensor.layer], result=tensor.position)
        self.used.add(entry.name)
        if entry.kind == "InputLayer":
            return entry, None
        call = self._call(entry)
        if entry.kind in _AXIS_IN_CALL and call.keywords.get("axis") is not None:
            entry = replace(entry, config={**entry.config, "axis": call.keywords.pop("axis")})
        operands = list(tensors_in(call.arguments))
        if entry.kind in MERGES and len(operands) > 1:
            entry, before = self._merge(entry, operands)
        elif entry.kind in RECURRENT and call.arguments and isinstance(call.arguments[0], Tensor):
            entry, before = self._with_states(entry, call), call.arguments[0]
        else:
            entry, before = self._with_constant(entry, call.arguments, operands)
        self.called_on[entry.name] = before
        self._check_keywords(entry, call.keywords)
        return entry, before

    def _call(self, entry: Entry) -> Call:
        calls = self.nodes[entry.name]["inbound_nodes"]
        if len(calls) != 1:
            raise refuse(entry.where, f"called {len(calls)} times", "give each call a layer of its own")
        return read_call(calls[0])

    def _with_constant(self, entry: Entry, arguments: list[Any], operands: list[Tensor]) -> tuple[Entry, Tensor]:
        """An operation with what it was called on beside the one tensor."""
        if len(operands) != 1:
            raise refuse(entry.where, f"called on {len(operands)} tensors, expected one")
        if len(arguments) == 1 and isinstance(arguments[0], list):  # Add()([x, 1])
            arguments = arguments[0]
        constants = [argument for argument in arguments if argument is not None and argument != operands[0]]
        if constants and (entry.kind not in WITH_CONSTANT or len(constants) > 1):
            raise refuse(entry.where, "called on something else than one tensor")
        if constants:
            first = not isinstance(arguments[0], Tensor)
            entry = replace(entry, constant=constants[0], constant_first=first)
        return entry, operands[0]

    def _check_keywords(self, entry: Entry, keywords: dict[str, Any]) -> None:
        if isinstance(keywords.get("mask"), Tensor):
            self.masks[entry.name] = keywords.pop("mask")
        for key, value in keywords.items():
            if key != "name" and value not in (None, False):
                text = plain(value) if isinstance(value, (bool, int, float, str)) else "a tensor"
                raise refuse(entry.where, f"called with {plain(key)}={text}", "call it with the input alone")

    # ---- two directions --------------------------------------------------------------------------------------------

    def _merge(self, entry: Entry, operands: list[Tensor]) -> tuple[Entry, Tensor]:
        """The entry with its halves, and what both were called on."""
        if len(operands) != 2:
            raise refuse(entry.where, f"merges {len(operands)} tensors, supported are the two directions of a GRU")
        (first, before), (second, other) = (self._half(entry, operand) for operand in operands)
        if before != other:
            raise refuse(
                entry.where,
                f"merges {shown(first.name)} on {shown(before.layer)} and {shown(second.name)} on {shown(other.layer)}",
                "call both on the same tensor",
            )
        return replace(entry, halves=(first, second)), before

    def _half(self, merge: Entry, tensor: Tensor) -> tuple[Entry, Tensor]:
        turned = False
        if self.entries[tensor.layer].kind in TURNS:
            operation, before = self._entry_of(tensor)
            turned = turns_steps(operation)
            tensor = before if turned and before is not None else tensor
        found = self.entries[tensor.layer]
        if found.kind not in RECURRENT:  # and is not followed: it could merge others in turn, without an end
            raise refuse(
                merge.where,
                f"merges what {found.where} gives",
                "only two directions can be merged: GRU layers on the same input, one with go_backwards=True",
            )
        entry, before = self._entry_of(tensor)
        assert before is not None
        return replace(entry, turned=turned), before

    # ---- states and masks ------------------------------------------------------------------------------------------

    def _with_states(self, entry: Entry, call: Call) -> Entry:
        """The entry with its initial states, which are constants or inputs of the model."""
        given: list[Any] = []
        for argument in (*call.arguments[1:], call.keywords.pop("initial_state", None)):
            given += argument if isinstance(argument, list) else [] if argument is None else [argument]
        for i, state in enumerate(given):
            if isinstance(state, Tensor):
                if self.entries[state.layer].kind != "InputLayer":
                    raise refuse(
                        entry.where,
                        f"initial_state is what layer {shown(state.layer)} computes",
                        "give it a constant, or make it an input of the model: initial_state=keras.Input((units,))",
                    )
                self.used.add(state.layer)
                given[i] = state.layer
        return replace(entry, states=tuple(given))

    def _use_operations_of_masks(self, chain: list[Entry]) -> None:
        """Marks the operations that compute masks. Keras 3 writes a mask into each call, though layers pass it on.

        Raises ModelError for one that is not of a Masking or Embedding layer in the chain.
        """
        own: list[Any] = []  # what is compared, with which value, whether over all features
        for entry in chain:
            if entry.kind == "Masking":
                own.append((self.called_on[entry.name], entry.config["mask_value"], True))
            elif entry.kind == "Embedding":
                own.append((self.called_on[entry.name], 0, False))
        for name, mask in self.masks.items():
            operation = self.entries[mask.layer]
            self.used.add(operation.name)
            over_features = operation.kind == "Any" and operation.config.get("axis") in (-1, 2)
            if over_features:
                before = self._call(operation).arguments[0]
                operation = self.entries[before.layer]
                self.used.add(operation.name)
            compared = self._call(operation).arguments if operation.kind == "NotEqual" else []
            if (*compared, over_features) not in own:
                raise refuse(
                    self.entries[name].where,
                    "called with a mask that is not that of the inputs",
                    "use keras.layers.Masking or mask_zero=True, and merge_mode to merge both directions",
                )
