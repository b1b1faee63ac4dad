"""The float model: layers in the order in which they run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from quantgru.checks import check_finite, check_flag
from quantgru.errors import ModelError
from quantgru.model.layers import Bidirectional, Dense, Embedding, Gru, Layer, Reverse
from quantgru.sequences import Sequences, SequencesLike, StatesLike, as_sequences, with_token_axis, without_masked

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class FloatModel:
    """Layers in the order in which they run, at least one of them recurrent.

    last_step   whether the output is that of the last step, rather than one for every step
    notes       free text of the importer, for reports
    mask_value  steps at which all inputs have this value are none: they are left out of the sequence
    """

    layers: tuple[Layer, ...]
    last_step: bool
    name: str = "model"
    notes: tuple[str, ...] = field(default=())
    mask_value: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        if not self.grus:
            raise ModelError(
                f"model {self.name!r}: no GRU layer; at least one is needed, with dense layers as you like"
            )
        where = f"model {self.name!r}"
        check_flag(self.last_step, where, "last_step")
        if self.mask_value is not None:
            check_finite(self.mask_value, where, "mask value")
        width = self.n_inputs
        for i, layer in enumerate(self.layers):
            self._check_place(i, layer)
            if isinstance(layer, Reverse):
                continue
            if layer.n_inputs != width:
                raise ModelError(
                    f"layer {layer.name!r}: {layer.n_inputs} inputs, but the layer before it gives {width} values"
                )
            width = layer.n_outputs

    def _check_place(self, i: int, layer: Layer) -> None:
        if isinstance(layer, Embedding) and i > 0:
            raise ModelError(f"embedding {layer.name!r}: after another layer, but it reads token numbers: put it first")
        if isinstance(layer, Bidirectional) and layer.final:
            after = [later for later in self.layers[i + 1 :] if not isinstance(later, Dense)]
            if after or not self.last_step:
                found = f"layer {after[0].name!r}" if after else "outputs at every step"
                raise ModelError(
                    f"bidirectional layer {layer.name!r}: gives its final states only, a single vector, but {found} "
                    "after it needs every step"
                )

    def __repr__(self) -> str:
        widths = [layer.n_outputs for layer in self.layers if not isinstance(layer, Reverse)]
        return f"<FloatModel {self.name!r}: {' → '.join(map(str, [self.n_inputs, *widths]))}>"

    @property
    def grus(self) -> tuple[Gru, ...]:
        """All GRU layers, of a bidirectional layer first the forward one."""
        found: list[Gru] = []
        for layer in self.layers:
            if isinstance(layer, Gru):
                found.append(layer)
            elif isinstance(layer, Bidirectional):
                found += [layer.forward, layer.backward]
        return tuple(found)

    @property
    def head(self) -> tuple[Dense, ...]:
        """The dense layers at the end, which work on each step alone."""
        found: list[Dense] = []
        for layer in reversed(self.layers):
            if not isinstance(layer, Dense):
                break
            found.append(layer)
        return tuple(reversed(found))

    @property
    def body(self) -> tuple[Layer, ...]:
        """All layers before the head."""
        return self.layers[: len(self.layers) - len(self.head)]

    @property
    def from_the_end(self) -> bool:
        """Whether outputs of every step begin with that of the last step of the input."""
        return sum(isinstance(layer, Reverse) for layer in self.layers) % 2 == 1

    @property
    def n_inputs(self) -> int:
        return next(layer.n_inputs for layer in self.layers if not isinstance(layer, Reverse))

    @property
    def n_outputs(self) -> int:
        return next(layer.n_outputs for layer in reversed(self.layers) if not isinstance(layer, Reverse))

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
        if isinstance(self.layers[0], Embedding):
            x = with_token_axis(x)
        checked = as_sequences(x, what, self.n_inputs)
        return without_masked(checked, mask, self.mask_value, what)

    def save(self, path: str | Path) -> None:
        """Writes the float model for the command line (`quantgru quantize model.qgf`). Raises ModelError."""
        from quantgru.model.file import save

        save(self, path)
