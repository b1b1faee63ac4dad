"""Which layers of an import came of which layer of Keras: what is compared, one by one, with a live model."""

from __future__ import annotations

from dataclasses import dataclass

from quantgru.importers.keras_entries import Entry
from quantgru.importers.keras_recurrent import Recurrent
from quantgru.model import Bidirectional, Layer, Reverse


@dataclass(frozen=True)
class KerasSource:
    """An entry, and the layers made of it alone.

    last_step  whether it gives a single step out of several
    flat       whether it reads a single step
    left_out   the softmax of its own that was left out
    alone      whether Keras has a layer for it that can be run alone
    """

    entry: Entry
    layers: tuple[Layer, ...]
    last_step: bool = False
    flat: bool = False
    left_out: str | None = None
    alone: bool = True


def recurrent_sources(entry: Entry, found: Recurrent, last_step: bool) -> list[KerasSource]:
    """Of a recurrent layer, or of each half of a merge."""
    before = (Reverse(),) if found.reverse else ()
    if not entry.halves:
        return [KerasSource(entry, (*before, *found.layers), last_step)]
    (both,) = found.layers
    assert isinstance(both, Bidirectional)
    one_layer = len(entry.parts) == 1  # a Bidirectional layer, which turns the steps of its second result around
    first, second = sorted(entry.halves, key=lambda half: half.result) if one_layer else entry.halves
    opposite = () if found.reverse else (Reverse(),)
    turned = (Reverse(),) if one_layer and not last_step else ()
    return [
        KerasSource(first, (*before, both.forward), last_step),
        KerasSource(second, (*opposite, both.backward, *turned), last_step),
    ]
