"""Two directions that a Functional model merges itself: as a bidirectional layer.

They are the two results of one Bidirectional layer, or two GRU layers on the same input of which one goes backwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from quantgru.activations import Merge
from quantgru.importers.chain import refuse
from quantgru.importers.keras_entries import Entry
from quantgru.importers.keras_recurrent import Recurrent, read_recurrent
from quantgru.model import Bidirectional, Gru

MODES: Final[dict[str, Merge]] = {"Add": "sum", "Average": "ave", "Concatenate": "concat", "Multiply": "mul"}
TURN_AROUND: Final = (
    "turn the steps of the one with go_backwards around: keras.ops.flip(y, axis=1), or use keras.layers.Bidirectional"
)


def read_merge(entry: Entry, weights_of: Callable[[Entry], Sequence[Any]], version: int) -> Recurrent:
    """The bidirectional layer of a Concatenate, Add, Average or Multiply entry with two halves."""
    first, second = entry.halves
    if first.name == second.name:
        found = _of_one_layer(entry, weights_of(first), version)
    else:
        found = _of_two_layers(entry, *(read_recurrent(half, weights_of(half), version) for half in entry.halves))
    _want_last_axis(entry, found)
    return found


def _of_one_layer(entry: Entry, weights: Sequence[Any], version: int) -> Recurrent:
    """Both outputs of a Bidirectional layer with merge_mode=None, or both states of one with return_state=True."""
    first, second = entry.halves
    if first.kind != "Bidirectional":
        raise refuse(entry.where, f"merges results {first.result} and {second.result} of {first.where}")
    n_outputs = 1 if first.config["merge_mode"] else 2
    results, states = (first.result, second.result), (n_outputs, n_outputs + 1)
    mode = MODES[entry.kind]
    if mode != "concat":  # the order does not matter
        results = min(results), max(results)
    if (results != states and (n_outputs, results) != (2, (0, 1))) or first.turned or second.turned:
        raise refuse(
            entry.where,
            f"merges results {first.result} and {second.result} of {first.where}",
            "merge the forward output and then the backward one, or their final states in this order",
        )
    found = read_recurrent(replace(first, config={**first.config, "merge_mode": mode}), weights, version)
    if results != states:
        return found
    (both,) = found.layers
    assert isinstance(both, Bidirectional)
    return replace(found, layers=(replace(both, final=True),), sequences=False)


def _of_two_layers(entry: Entry, first: Recurrent, second: Recurrent) -> Recurrent:
    grus = [layer for half in (first, second) for layer in half.layers]
    if len(grus) != 2 or not all(isinstance(gru, Gru) for gru in grus):
        raise refuse(entry.where, "merges layers that are not one GRU each")
    forward, backward = grus
    assert isinstance(forward, Gru)
    assert isinstance(backward, Gru)
    if first.reverse == second.reverse:
        raise refuse(entry.where, "merges two GRU layers of the same direction", "one of both with go_backwards=True")
    if forward.n_units != backward.n_units:
        found = f"{forward.n_units} and {backward.n_units} units"
        raise refuse(entry.where, f"merges GRU layers of {found}", "give both the same units")
    sequences = [half.sequences and part.result == 0 for half, part in zip((first, second), entry.halves, strict=True)]
    turned = [half.turned for half in entry.halves]
    if sequences[0] != sequences[1]:
        raise refuse(entry.where, "merges every step of one layer with the final state of the other")
    if turned != ([first.reverse, second.reverse] if sequences[0] else [False, False]):
        raise refuse(entry.where, "merges steps of the one with other steps of the other", TURN_AROUND)
    both = Bidirectional(entry.name, forward, backward, MODES[entry.kind], final=not sequences[0])
    return Recurrent(
        reverse=first.reverse,
        layers=(both,),
        sequences=sequences[0],
        stateful=first.stateful or second.stateful,
        zero_masked=first.zero_masked or second.zero_masked,
        turned=first.reverse and sequences[0],
    )


def _want_last_axis(entry: Entry, found: Recurrent) -> None:
    axis = entry.config.get("axis", -1)
    if entry.kind == "Concatenate" and axis not in (-1, 2 if found.sequences else 1):
        raise refuse(entry.where, f"axis={axis!r}, only the features can be merged", "set axis=-1")
