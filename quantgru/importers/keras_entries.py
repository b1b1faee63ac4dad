"""One layer of a Keras model, as `keras_config` gives it and `keras_layers` converts it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from quantgru.importers.chain import refuse
from quantgru.importers.keras_arguments import plain, shown

MODELS: Final = ("Sequential", "Functional", "Model")
RECURRENT: Final = ("GRU", "CuDNNGRU", "RNN", "Bidirectional")

# What may stand for the module of a class of Keras's own; files of Keras 2 and legacy ones of Keras 3 name none.
_OWN_MODULE: Final = re.compile(r"(tf_)?keras(\.src)?\.(activations|engine|layers|models|ops)(\..*)?|(tf_)?keras")


@dataclass(frozen=True)
class Entry:
    """One layer of a model, or an operation like x[:, -1].

    path            the names of the models that it is in, and its own
    group           its group in a Keras 3 file
    inner           where in this group its weights are, if not directly in it
    result          which of its results goes on: 0, or of a layer with return_state the number of a state, from 1
    states          its initial states: names of inputs of the model, or constants as the configuration has them
    constant        the other operand of an operation, or its index; None if it has one operand
    constant_first  whether this comes before the tensor: 1 - x
    halves          of a layer that merges two tensors, the recurrent layers that give them
    turned          of a half: whether its steps are turned around before they are merged
    """

    kind: str
    config: Mapping[str, Any]
    path: tuple[str, ...]
    group: str
    inner: str = ""
    result: int = 0
    states: tuple[Any, ...] = ()
    constant: Any = None
    constant_first: bool = False
    halves: tuple[Entry, ...] = ()
    turned: bool = False

    @property
    def name(self) -> str:
        return self.path[-1]

    @property
    def where(self) -> str:
        return f"layer {shown('/'.join(self.path))} ({plain(self.kind)})"

    @property
    def parts(self) -> tuple[Entry, ...]:
        """The different layers that it merges, or itself."""
        return tuple({half.name: half for half in self.halves or (self,)}.values())

    @property
    def state_inputs(self) -> list[str]:
        """The inputs of the model that give initial states, of all its halves."""
        own = [state for state in self.states if isinstance(state, str)]
        return own + [name for half in self.halves for name in half.state_inputs]


def with_halves(entries: Sequence[Entry]) -> Iterator[Entry]:
    """The entries, and before each one its halves."""
    for entry in entries:
        yield from (*entry.halves, entry)


def refuse_foreign_class(where: str, layer: Mapping[str, Any]) -> None:
    """Raises ModelError for a class of the user's, whatever its name is."""
    module = layer.get("module")
    foreign = layer.get("registered_name") if module is None else not _OWN_MODULE.fullmatch(str(module))
    if foreign:
        raise refuse(
            where,
            f"a class of {shown(layer['registered_name'] if module is None else module)}, not one of Keras",
            "put the layers that it consists of in its place",
        )


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
