"""How the input of a graph holds sequences: which axis has the steps, and in which order they are read."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from quantgru.importers.chain import refuse
from quantgru.importers.tensorflow1_file import Node
from quantgru.importers.tensorflow1_trace import Ids

FREE_SIZES: Final = (3, 4)  # of the first two axes, where they may be any: two, to tell one axis from the other
INPUT_LIMIT: Final = 1 << 22  # numbers
SUPPORTED: Final = (
    "supported are [sequences, steps, features], [steps, sequences, features], [sequences, steps * features]"
)


@dataclass(frozen=True)
class InputLayout:
    """counts     of sequences and of steps, in the run that it was found with
    any_count  whether the graph takes other counts, of sequences and of steps
    steps      the axis of the steps, 0 or 1
    features   in one step
    rank       2 if the axis of the features is one with that before it
    backwards  whether the graph reads the last step first
    """

    counts: tuple[int, int]
    any_count: tuple[bool, bool]
    steps: int
    features: int
    rank: int
    backwards: bool

    def arrange(self, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """x [sequences, steps, features] as the graph takes it."""
        arranged = x if self.steps == 1 else np.swapaxes(x, 0, 1)
        return arranged.reshape(len(arranged), -1) if self.rank == 2 else arranged


def traced_sizes(source: Node) -> tuple[int, ...]:
    """Sizes for one run of the graph: as declared, or small. Raises ModelError."""
    declared = source.shape("shape")
    if declared is None or len(declared) not in (2, 3) or not all(size > 0 or size == -1 for size in declared):
        raise refuse(str(source), f"declares shape {declared}", SUPPORTED)
    if len(declared) == 3 and declared[2] < 0:
        raise refuse(str(source), f"declares shape {declared}, without the number of features", SUPPORTED)
    sizes = tuple(free if size < 0 else size for size, free in zip(declared, (*FREE_SIZES, 0), strict=False))
    if prod(sizes) > INPUT_LIMIT:
        raise refuse(str(source), f"declares shape {declared}, allowed are {INPUT_LIMIT} numbers", SUPPORTED)
    return sizes


def find_layout(source: Node, sizes: tuple[int, ...], last: Ids, earlier: Ids) -> InputLayout:
    """By the place in the input of what the last step of a GRU layer reads, and of what the step before it reads."""
    declared, features = source.shape("shape") or (), len(last)
    axes = (sizes[0], prod(sizes[1:]) // features, features)
    if prod(axes) != prod(sizes) or (len(sizes) == 3 and sizes != axes):
        raise refuse(str(source), f"{features} features are read of shape {declared}", SUPPORTED)
    places = [np.stack(np.unravel_index(ids, axes)) for ids in (last, earlier)]
    moved = places[0][:2] != places[1][:2]
    steps = int(moved[1, 0])
    in_order = all(np.array_equal(place[2], np.arange(features)) for place in places)
    if not in_order or any((place[:2] != place[:2, :1]).any() for place in places) or moved.sum() != features:
        raise refuse(str(source), f"features of shape {declared} are read in another order, or not all", SUPPORTED)
    backwards = bool(places[0][steps, 0] < places[1][steps, 0])
    if places[0][steps, 0] != (0 if backwards else axes[steps] - 1):
        raise refuse(str(source), f"the output is made at step {places[0][steps, 0]} of {axes[steps]}", "take the last")
    free = (declared[0] < 0, declared[1] < 0 and (len(declared) == 3 or features == 1))
    return InputLayout(
        counts=(axes[1 - steps], axes[steps]),
        any_count=(free[1 - steps], free[steps]),
        steps=steps,
        features=features,
        rank=len(declared),
        backwards=backwards,
    )
