"""The states that a PyTorch module is given and returns: whose they are, in which order, and how notes say so."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from quantgru.errors import ModelError
from quantgru.importers.pytorch_signals import State
from quantgru.importers.verify import difference

Array = npt.NDArray[Any]

ONE_STEP: Final = "forward() is one step: the import runs it at every step of a sequence"
NOT_RETURNED: Final = (
    "output of {}: one step, which does not return every state that it is given, a step later and in the same order; "
    "return the output and then the states"
)


def given_states(starts: Sequence[State | None], names: Sequence[str]) -> list[State]:
    """The states that forward() is given, in the order of its arguments and of the parts of each."""
    given = [start for start in starts if start is not None]
    return sorted(given, key=lambda state: (names.index(state.name), state.index or 0))


def as_arguments(states: Sequence[State], values: Sequence[Array]) -> dict[str, Array]:
    """The arguments of forward() with these states: of all layers [layers, sequences, units], or of the one layer.

    Raises ModelError where those of one argument are not of one size.
    """
    arguments: dict[str, Any] = {}
    for state, value in zip(states, values, strict=True):
        value = value[None] if state.unsqueezed else value
        if state.index is None:
            arguments[state.name] = value
        else:
            arguments.setdefault(state.name, []).append(value)
    for name, value in arguments.items():
        if isinstance(value, list) and len({part.shape for part in value}) > 1:
            raise ModelError(f"argument {name!r}: states of different sizes in it; give each an argument of its own")
    return {name: np.stack(value) if isinstance(value, list) else value for name, value in arguments.items()}


def rows(value: Any) -> list[Array]:
    """The states [sequences, units] in what forward() returns, one by one."""
    if isinstance(value, (tuple, list)) or np.ndim(value) > 2:
        return [row for part in value for row in rows(part)]
    return [value]


def matches(returned: Sequence[Array], final_states: Sequence[Array], tolerance: float) -> list[set[int]]:
    """Of each returned state, the final states that it equals: more than one where they are saturated alike."""

    def equal(found: Array, state: Array) -> bool:
        return found.shape == state.shape and difference(state, found) <= tolerance

    return [{i for i, state in enumerate(final_states) if equal(found, state)} for found in returned]


def order_of(found: Sequence[Sequence[set[int]]], n_states: int) -> list[int] | None:
    """Which of the final states each returned one is in every comparison; None where one of them is none, or for none.

    >>> order_of([[{1}, {0}], [{0, 1}, {0}]], 2)
    [1, 0]
    """
    same = [set.intersection(*row) for row in zip(*found, strict=True)] if len({*map(len, found)}) == 1 else []
    if not all(same) or not same:
        return None
    in_order = len(same) == n_states and all(i in row for i, row in enumerate(same))
    return list(range(n_states)) if in_order else [min(row) for row in same]


def start_notes(starts: Sequence[State | None], names: Sequence[str]) -> list[str]:
    """Which initial_states of FloatModel.run the arguments are."""
    given = given_states(starts, names)
    if given == list(starts) and len({state.name for state in given}) == 1:
        return [f"argument {given[0].name!r} is initial_states of FloatModel.run"]
    parts = [state.name for state in given]
    labels = [f"{s.name}[{s.index}]" if parts.count(s.name) > 1 else s.name for s in given]
    places = [starts.index(state) for state in given]
    return [
        f"argument {label!r} is initial_states[{place}] of FloatModel.run"
        for label, place in zip(labels, places, strict=True)
    ]


def end_note(order: Sequence[int] | None, n_states: int) -> str:
    """What the states are that forward() returns beside its output."""
    if order is None:
        return "the states that it returns are left out: FloatModel.final_states gives those of every layer"
    if list(order) == list(range(n_states)):
        return "the states that it returns are those of FloatModel.final_states"
    return f"the states that it returns are, in this order, those of FloatModel.final_states{list(order)}"


def default_note(names: Collection[str]) -> list[str]:
    """What was not taken over."""
    return [f"argument {name!r} is left at its default, None" for name in sorted(names)]
