"""From what the last step of an output was made of, back to the input: layers, each with the step of the one before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from quantgru.importers.chain import Chain, refuse
from quantgru.importers.tensorflow1_cells import Cell, NoCell, find_cell, gru_layer, terms, weights
from quantgru.importers.tensorflow1_file import short
from quantgru.importers.tensorflow1_trace import Ids, Trace, Vector
from quantgru.model import Bidirectional, Dense, Embedding, Gru

ACTIVATIONS = ("relu", "sigmoid", "tanh")
SOFTMAXES = ("softmax", "log_softmax")


@dataclass(eq=False)
class LayerReader:
    """Follows ids to the input; `found` has what adds each layer to a chain, the last layer first.

    earlier  what the lowest recurrent layer read one step before; None while none was found, or it had only one step
    """

    trace: Trace
    n_steps: int
    found: list[Callable[[Chain], None]] = field(default_factory=list)
    earlier: Ids | None = None

    def read(self, ids: Ids) -> Ids:
        """The input ids that `ids` were made of. Raises ModelError."""
        while True:
            source = self.trace.source(ids)
            if source is None:
                ids = self._join(ids)
                continue
            vector, columns = source
            if vector.kind == "input":
                return ids
            ids = self._layer(ids, vector, columns)
