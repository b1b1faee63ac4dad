"""The float model: layers in the order in which they run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from quantgru.array_types import FloatArray
from quantgru.checks import check_finite, check_flag
from quantgru.model.layers import Dense, Embedding, Gru, Layer
from quantgru.sequences import Sequences, SequencesLike, StatesLike, as_sequences, with_token_axis, without_masked
from quantgru.structure import Structure


@dataclass(frozen=True, eq=False, repr=False)
class FloatModel(Structure[Layer, Gru, Dense, Embedding]):
    """Layers in the order in which they run, at least one of them recurrent.

    last_step   whether the output is that of the last step, rather than one for every step
    notes       free text of the importer, for reports
    mask_value  steps at which all inputs have this value are none: they are left out of the sequence

    Raises ModelError for layers that do not fit together.
    """

    last_step: bool
    name: str = "model"
    notes: tuple[str, ...] = field(default=())
    mask_value: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        where = f"model {self.name!r}"
        check_flag(self.last_step, where, "last_step")
        if self.mask_value is not None:
            check_finite(self.mask_value, where, "mask value")
        self.check_order(where, self.last_step)

    def __repr__(self) -> str:
        return f"<FloatModel {self.name!r}: {self.widths}>"

    def run(self, x: SequencesLike | Sequences, mask: Any = None, initial_states: StatesLike | None = None) -> Any:
        """Outputs in float64 for x [sequences, steps, inputs] or a list of [steps, inputs].

        mask            bool [sequences, steps] or a list of [steps]: false where a step is none. The state stays
                        there, and an output of every step repeats the one before it, 0 before the first
        initial_states  for each GRU layer h before the first step, [units] or [sequences, units]

        Returns [sequences, steps, outputs], a list of [steps, outputs] for a list, [sequences, outputs] for a last-step
        head. Zero in padding. Raises DataError.
        """
        from quantgru.model.run import outputs, run_body

        sequences = self.sequences(x, mask)
        return outputs(self, sequences, run_body(self, sequences, initial_states).output)

    def final_states(
        self, x: SequencesLike | Sequences, mask: Any = None, initial_states: StatesLike | None = None
    ) -> tuple[FloatArray, ...]:
        """h of each GRU layer after its last step, [sequences, units]: given to the next run, it goes on from there."""
        from quantgru.model.run import run_body

        sequences = self.sequences(x, mask)
        ends = np.arange(sequences.n_sequences), sequences.lengths - 1
        return tuple(h[ends] for h in run_body(self, sequences, initial_states).states)

    def sequences(self, x: SequencesLike | Sequences, mask: Any = None, what: str = "input") -> Sequences:
        """x as checked sequences of this model's inputs, without masked steps. Raises DataError."""
        if self.embedding is not None:
            x = with_token_axis(x)
        checked = as_sequences(x, what, self.n_inputs)
        return without_masked(checked, mask, self.mask_value, what)

    def save(self, path: str | Path) -> None:
        """Writes the float model for the command line (`quantgru quantize model.qgf`). Raises ModelError."""
        from quantgru.model.file import save

        save(self, path)
