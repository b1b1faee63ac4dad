"""What Keras does with masked steps: where it loses a mask, and what else it does beyond leaving steps out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from quantgru.errors import warn
from quantgru.importers.chain import Chain, refuse
from quantgru.importers.keras_entries import Entry
from quantgru.importers.keras_recurrent import Recurrent
from quantgru.model import Bidirectional, Gru

ENDS_IN_KERAS_2: Final = ("Identity", "Normalization", "Rescaling")  # supports_masking is False there, True in Keras 3


@dataclass
class Masks:
    """The mask of a chain on its way through the layers.

    version      of Keras, 2 or 3
    made_in      the models inside which it is made
    lost_by      the layer that does not hand it on, if any
    zero_masked  whether the last GRU layer gives 0 at masked steps, and not what it gave before
    """

    chain: Chain
    version: int
    made_in: tuple[str, ...] = ()
    lost_by: str = ""
    zero_masked: bool = False

    def make(self, entry: Entry, value: float) -> None:
        self.chain.add_mask(entry.where, value)
        self.made_in = entry.path[:-1]

    def hand_on(self, entry: Entry) -> None:
        """Ends the mask after a layer that hands it on in Keras 3 only.

        Where no recurrent layer had it yet, the model has none: Masking(0) puts 0 where 0 was, an embedding nothing.
        """
        if self.version == 3 or entry.kind not in ENDS_IN_KERAS_2:
            return
        used = any(isinstance(layer, (Gru, Bidirectional)) for layer in self.chain.layers)
        if self.chain.mask_value == 0 and not used:
            self.chain.mask_value = None
        self.lose(entry)

    def lose(self, entry: Entry) -> None:
        """Later recurrent layers get no mask; the others do not need it."""
        if self.chain.mask_value is not None:
            self.lost_by = self.lost_by or entry.where

    def check(self, entry: Entry, found: Recurrent) -> None:
        """Raises ModelError where a recurrent layer does something at masked steps that an import cannot say."""
        if self.chain.mask_value is None:
            return
        if self.lost_by:
            raise refuse(entry.where, f"gets no mask, since {self.lost_by} does not hand it on", "leave that layer out")
        if self.version == 3 and entry.path[:-1] != self.made_in:
            raise refuse(
                entry.where,
                "gets a mask across the border of a model inside the model, where Keras 3 drops it",
                "put the layers of the inner model into the outer one",
            )
        if found.sequences and len(entry.parts) > 1:
            raise refuse(entry.where, "merges every step of masked sequences", "use keras.layers.Bidirectional")
        if found.reverse and found.sequences:
            raise refuse(
                entry.where,
                "go_backwards with return_sequences=True on masked steps: Keras turns the steps around, not the mask",
                "leave the mask out, and give sequences of unequal lengths as a list",
            )
        if found.zero_masked and not found.sequences:
            raise refuse(entry.where, "zero_output_for_mask=True with return_sequences=False on masked steps")
        self.zero_masked = found.zero_masked

    def warn_of_outputs(self) -> None:
        """No later layer reads masked steps, but as outputs of the model they are seen."""
        if self.chain.mask_value is None or self.chain.last_step:
            return
        if self.zero_masked or not self.chain.ends_in_states:
            message = (
                "outputs at masked steps are not those of Keras, 0 or what later layers make of 0: skip these steps"
            )
            self.chain.notes.append(message)
            warn(message)
