"""The inputs of a graph, its placeholders: which one takes sequences, initial states or lengths, and how it takes them.

Before a graph is traced, placeholders say no more than types and shapes. What they hold is seen in the trace, by what
the lowest layer reads, and by what GRU layers begin with.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from quantgru.errors import ModelError
from quantgru.importers.tensorflow1_errors import refused, short
from quantgru.importers.tensorflow1_file import INTEGERS, Node
from quantgru.importers.tensorflow1_trace import InputIds

Array = npt.NDArray[Any]

FREE_SIZE: Final = 5  # in a trace, of axes that may be of any
PLACEHOLDERS_LIMIT: Final = 16
VALUES_LIMIT: Final = 1 << 22  # numbers of all inputs, in a trace
SHAPES: Final = (
    "supported are sequences [sequences, steps, features], [steps, sequences, features] or [sequences, steps * "
    "features], and initial states [sequences, units] or [layers, sequences, units]"
)


@dataclass(frozen=True)
class Placeholders:
    """Those that an output needs.

    sizes    of each that holds sequences or initial states, by name: the shape that it has in a trace
    nodes    the same, as nodes
    lengths  the one that holds the lengths of sequences; None if there is none
    """

    sizes: Mapping[str, tuple[int, ...]]
    nodes: Mapping[str, Node]
    lengths: Node | None

    def traced_lengths(self) -> Array:
        """All steps of the sequences, which have more axes than states, or hold tokens."""
        assert self.lengths is not None
        (declared,) = self.lengths.shape("shape") or (-1,)
        n_sequences = FREE_SIZE if declared < 0 else declared
        name = max(self.sizes, key=lambda name: (len(self.sizes[name]), _is_integer(self.nodes[name])))
        first, second, *_ = self.sizes[name]
        return np.full(n_sequences, second if first == n_sequences else first)


def find_placeholders(nodes: Iterable[Node], where: str) -> Placeholders:
    """The placeholders among `nodes`. Raises ModelError where one can hold neither sequences, states nor lengths."""
    found = [node for node in nodes if node.op == "Placeholder"]
    if len(found) > PLACEHOLDERS_LIMIT:
        raise ModelError(f"{where}: {len(found)} inputs, allowed are {PLACEHOLDERS_LIMIT}")
    lengths = [node for node in found if _is_integer(node) and len(node.shape("shape") or ()) == 1]
    if len(lengths) > 1:
        raise refused(lengths[1], "a second input of lengths", "let all layers take the same")
    nodes_of = {node.name: node for node in found if node not in lengths}
    if not nodes_of:
        raise refused(where, "no input of sequences", "let its input be a tf.placeholder, and freeze it again")
    sizes = {name: _traced_sizes(node) for name, node in nodes_of.items()}
    n_values = sum(map(prod, sizes.values())) + sum(max(node.shape("shape") or (0,)) for node in lengths)
    if n_values > VALUES_LIMIT:
        raise ModelError(f"{where}: inputs of {n_values} numbers, allowed are {VALUES_LIMIT}")
    return Placeholders(sizes, nodes_of, lengths[0] if lengths else None)


def _constant_instead(node: Node) -> str:
    return f"put a constant in its place: tf.import_graph_def(graph, {{{short(node.name)}: constant}}, name='')"


def _is_integer(node: Node) -> bool:
    return node.attribute("dtype", "type", 0) in INTEGERS


def _traced_sizes(node: Node) -> tuple[int, ...]:
    """As declared, or small. Raises ModelError."""
    declared = node.shape("shape")
    if declared is not None and len(declared) == 0:
        found = "a single value, neither sequences, initial states nor lengths"
        raise refused(node, found, _constant_instead(node))
    if declared is None or len(declared) not in (2, 3) or not all(size > 0 or size == -1 for size in declared):
        raise refused(node, f"declares {'no shape' if declared is None else f'shape {declared}'}", SHAPES)
    if len(declared) == 3 and declared[2] < 0:
        raise refused(node, f"declares shape {declared}, without the number of features", SHAPES)
    return tuple(FREE_SIZE if size < 0 else size for size in declared)


@dataclass(frozen=True)
class SequencesInput:
    """The placeholder that holds sequences.

    counts     of sequences and of steps, in the run that it was found with
    any_count  whether the graph takes other counts, of sequences and of steps
    steps      the axis of the steps, 0 or 1
    rank       2 if the axis of the features is one with that before it
    backwards  whether the graph reads the last step first
    """

    name: str
    counts: tuple[int, int]
    any_count: tuple[bool, bool]
    steps: int
    rank: int
    backwards: bool

    def arrange(self, x: Array) -> Array:
        """x [sequences, steps, features] as the graph takes it."""
        arranged = x if self.steps == 1 else np.swapaxes(x, 0, 1)
        return arranged.reshape(len(arranged), -1) if self.rank == 2 else arranged


def find_sequences(placeholders: Placeholders, last: InputIds, earlier: InputIds) -> SequencesInput:
    """By the place of what the last step of a GRU layer reads, and of what the step before it reads."""
    node, sizes, features = placeholders.nodes[last.name], placeholders.sizes[last.name], len(last.places)
    declared = node.shape("shape") or ()
    axes = (sizes[0], prod(sizes[1:]) // features, features)
    if earlier.name != last.name or prod(axes) != prod(sizes) or (len(sizes) == 3 and sizes != axes):
        raise refused(node, f"{features} features are read of shape {declared}", SHAPES)
    places = [np.stack(np.unravel_index(ids.places, axes)) for ids in (last, earlier)]
    moved = places[0][:2] != places[1][:2]
    steps = int(moved[1, 0])
    in_order = all(np.array_equal(place[2], np.arange(features)) for place in places)
    if not in_order or any((place[:2] != place[:2, :1]).any() for place in places) or moved.sum() != features:
        raise refused(node, f"features of shape {declared} are read in another order, or not all", SHAPES)
    backwards = bool(places[0][steps, 0] < places[1][steps, 0])
    if places[0][steps, 0] != (0 if backwards else axes[steps] - 1):
        found = f"the output is made at step {places[0][steps, 0]} of {axes[steps]}"
        raise refused(node, found, "take the last one, or all")
    free = (declared[0] < 0, declared[1] < 0 and (len(declared) == 3 or features == 1))
    return SequencesInput(
        name=node.name,
        counts=(axes[1 - steps], axes[steps]),
        any_count=(free[1 - steps], free[steps]),
        steps=steps,
        rank=len(declared),
        backwards=backwards,
    )


def want_all_steps(placeholders: Placeholders, sequences: SequencesInput, first: InputIds, *, n_before: int) -> None:
    """Raises ModelError where a GRU layer does not start at the first step: a comparison of many may not show it.

    `first` is what it reads at the first step that the trace knows, `n_before` the number of those before that.
    """
    if first.name != sequences.name:
        found = f"is read at the first step alone, {short(sequences.name)} at others"
        raise refused(placeholders.nodes[first.name], found, SHAPES)
    n_sequences, n_steps = sequences.counts
    axes = (n_sequences, n_steps, -1) if sequences.steps == 1 else (n_steps, n_sequences, -1)
    places = np.arange(prod(placeholders.sizes[sequences.name])).reshape(axes)
    step = int(np.argwhere(places == first.places[0])[0, sequences.steps])
    n_left_out = (n_steps - 1 - step if sequences.backwards else step) - n_before
    if n_left_out > 0:
        found = f"the first {n_left_out} of {n_steps} steps are left out"
        raise refused(placeholders.nodes[sequences.name], found, "let it have the others alone")
    if n_left_out < 0:
        found = "a GRU layer that reads it starts at a computed state"
        raise refused(placeholders.nodes[sequences.name], found, "let the state be a constant, or an input")


@dataclass(frozen=True)
class StateInput:
    """The initial state of one GRU layer in a placeholder: its units, of the layer [*layer].

    width  of all units there, of the others too
    """

    name: str
    layer: tuple[int, ...]
    units: slice
    width: int

    def __str__(self) -> str:
        layer = "".join(f"[{i}]" for i in self.layer)
        is_all = (self.units.start, self.units.stop) == (0, self.width)
        return short(self.name) + layer + ("" if is_all else f"[:, {self.units.start}:{self.units.stop}]")

    def of(self, values: Mapping[str, Array]) -> Array:
        """[sequences, units] of a GRU layer, in what the placeholders hold."""
        return np.asarray(values[self.name][self.layer][:, self.units])


def find_states(
    placeholders: Placeholders, sequences: SequencesInput, given: Sequence[InputIds | None]
) -> tuple[StateInput | None, ...]:
    """By the place of what each GRU layer begins with, for the last of the sequences. Raises ModelError."""
    states = tuple(None if ids is None else _state(placeholders, sequences, ids) for ids in given)
    used = {sequences.name, *(state.name for state in states if state)}
    for name, node in placeholders.nodes.items():
        if name not in used:
            found = f"an input beside {short(sequences.name)}, and no initial state"
            raise refused(node, found, _constant_instead(node))
    return states


def _state(placeholders: Placeholders, sequences: SequencesInput, ids: InputIds) -> StateInput:
    node, sizes = placeholders.nodes[ids.name], placeholders.sizes[ids.name]
    if ids.name == sequences.name:
        raise refused(node, "sequences that are also initial states", "give these an input of their own")
    *layer, sequence, units = np.unravel_index(ids.places, sizes)
    first = int(units[0])
    in_order = np.array_equal(units, np.arange(first, first + len(units)))  # as the caller gives them
    if not in_order or any((axis != axis[0]).any() for axis in (*layer, sequence)) or sequence[0] != sizes[-2] - 1:
        raise refused(node, f"initial states of shape {node.shape('shape')}, in another order", SHAPES)
    return StateInput(node.name, tuple(int(axis[0]) for axis in layer), slice(first, first + len(units)), sizes[-1])
