"""The chain that every importer builds: recurrent and dense layers, the last step or all steps.

Frameworks say the same model in many ways; here is what may follow what, and the refusal of everything else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from quantgru.activations import DENSE_ACTIVATIONS
from quantgru.array_types import FloatArray
from quantgru.c_names import nearest_c_name
from quantgru.errors import ModelError
from quantgru.importers.gates import finite
from quantgru.importers.options import Softmax
from quantgru.model import Bidirectional, Dense, Embedding, FloatModel, Gru, Layer, Reverse

IDENTITY_WEIGHTS_LIMIT: Final = 1 << 24  # 128 MiB; a file needs a few bytes to ask for each of these layers

SUPPORTED: Final = (
    "supported is one chain of GRU layers and of dense layers with linear, relu, sigmoid or tanh, an embedding or a "
    "normalisation first"
)
BY_HAND: Final = (
    "put the rest around it by hand: qg.FloatModel((*qg.load(gru).layers, qg.Dense('fc', weights, bias)), "
    "last_step=True)"
)


def refuse(where: str, found: str, next_step: str = "") -> ModelError:
    """The error for something that the canonical layers cannot say: where, what, what is supported, what would help."""
    return ModelError("; ".join(filter(None, (f"{where}: {found}", SUPPORTED, next_step))))


def identifier(name: str) -> str:
    """A model's name as a C identifier, since exported code is named after the model.

    >>> identifier("KeyWord Net-2"), identifier("Switch")
    ('key_word_net_2', 'model_switch')
    """
    return nearest_c_name(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower())


@dataclass
class Chain:
    """Collects layers in the order in which they run.

    softmax     what to do with a softmax at the end: refuse it, or leave it out
    left_out    the softmax that was left out: "softmax", "log_softmax" or None
    mask_value  steps at which all inputs have it are none
    notes       what the user should know about the import
    """

    softmax: Softmax
    layers: list[Layer] = field(default_factory=list)
    last_step: bool = False
    left_out: str | None = None
    mask_value: float | None = None
    notes: list[str] = field(default_factory=list)
    _affine: tuple[FloatArray, FloatArray] | None = None  # scale and shift that wait for the next weights
    _identity_weights: int = 0  # of the dense layers that were added for activations

    def add_recurrent(self, where: str, layers: Sequence[Gru | Bidirectional]) -> None:
        self._refuse_after_softmax(where)
        if self.last_step:
            raise refuse(where, "a GRU layer after the last step was taken")
        for layer in layers:
            if isinstance(layer, Bidirectional):
                forward, backward = (self._folded_gru(where, gru) for gru in (layer.forward, layer.backward))
                self.layers.append(replace(layer, forward=forward, backward=backward))
            else:
                self.layers.append(self._folded_gru(where, layer))
            self._affine = None

    def add_reverse(self, where: str) -> None:
        """The steps from the last to the first. Twice is not at all."""
        if self.last_step:
            raise refuse(where, "the order of steps after the last step was taken")
        if self.layers and isinstance(self.layers[-1], Reverse):
            self.layers.pop()
        else:
            self.layers.append(Reverse())

    def add_embedding(self, where: str, layer: Embedding) -> None:
        if self._affine or any(not isinstance(before, Reverse) for before in self.layers):
            raise refuse(where, "an embedding after another layer", "it reads token numbers: put it first")
        self.layers.insert(0, layer)  # before a reversal, too: it reads each step alone

    def add_dense(self, where: str, layer: Dense) -> None:
        self._refuse_after_softmax(where)
        self.layers.append(self._folded_dense(where, layer))
        self._affine = None

    def add_activation(self, where: str, activation: str) -> None:
        """Merges an activation into the linear dense layer before it; after something else it gets one of its own."""
        self._refuse_after_softmax(where)
        if activation not in DENSE_ACTIVATIONS:
            raise refuse(where, f"activation {activation!r}")
        if activation == "linear":
            return
        before = self.layers[-1] if self.layers else None
        if self._affine or not isinstance(before, Dense) or before.activation != "linear":
            before = self._add_identity(where, activation)
        self.layers[-1] = replace(before, activation=activation)  # type: ignore[arg-type]  # checked above

    def add_affine(self, where: str, scale: npt.ArrayLike, shift: npt.ArrayLike) -> None:
        """scale * x + shift on every step; both one number, or one for each feature. Folded into the weights."""
        self._refuse_after_softmax(where)
        scale, shift = finite(where, "scale", scale), finite(where, "shift", shift)
        before = self.layers[-1] if self.layers else None
        if isinstance(before, Dense) and before.activation == "linear" and not self._affine:
            _want_widths(where, scale, shift, before.n_outputs)
            weights = before.weights * np.broadcast_to(scale, before.bias.shape)[:, None]
            self.layers[-1] = replace(before, weights=weights, bias=before.bias * scale + shift)
        elif self._affine:
            first_scale, first_shift = self._affine
            self._affine = first_scale * scale, first_shift * scale + shift
        else:
            self._affine = scale, shift

    def add_mask(self, where: str, value: float) -> None:
        """Steps whose inputs all are `value` are none."""
        only_tokens = len(self.layers) == 1 and isinstance(self.layers[0], Embedding)
        if (self.layers and not only_tokens) or self._affine:
            raise refuse(where, "masks what another layer computed", "mask the inputs of the model: put it first")
        if self.mask_value is not None:  # a mask in Keras puts 0 at its steps, and the next one masks anew
            raise refuse(
                where,
                f"masks {value}, and a layer before it masks {self.mask_value}; only the last mask would count",
                "leave one of them out, and write its value at all steps to be left out",
            )
        self.mask_value = float(value)

    @property
    def ends_in_states(self) -> bool:
        """Whether the outputs so far are those of a recurrent layer, as it gives them."""
        return bool(self.layers) and isinstance(self.layers[-1], (Gru, Bidirectional)) and not self._affine

    def add_softmax(self, where: str, kind: str, axis: str | None) -> None:
        """Leaves a softmax out, which keeps the largest output the largest. `axis` names another axis than the last."""
        self._refuse_after_softmax(where)
        if axis is not None:
            raise refuse(where, f"{kind} over axis {axis}", "use the last axis")
        if not self.layers or not isinstance(self.layers[-1], Dense):
            raise refuse(where, f"{kind} without a dense layer before it")
        if self.softmax == "refuse":
            leave_out = "load(..., softmax='logits') or --softmax logits leaves it out"
            raise refuse(where, kind, f"{leave_out}: the largest output stays the largest")
        self.left_out = kind

    def take_last_step(self) -> None:
        """Dense layers work on each step alone, so it is the same whether the step is taken before or after them."""
        self.last_step = True

    def take_final_states(self, where: str) -> None:
        """Of a bidirectional layer: both states after all steps, which are not those of the last step."""
        before = self.layers[-1] if self.layers else None
        if isinstance(before, Bidirectional):
            self.layers[-1] = replace(before, final=True)
        elif not isinstance(before, Gru):
            raise refuse(where, "takes the final states of something else than the layer before it")
        self.last_step = True

    def model(self, name: str, source: str) -> FloatModel:
        """The finished model. Raises ModelError where there is no GRU layer, or widths do not match."""
        if self._affine:
            self._add_identity(source, "linear")
        notes = [f"imported from {source}", *self.notes]
        if self.left_out:
            notes.append(f"{self.left_out} at the end left out: outputs are logits")
        return FloatModel(tuple(self.layers), self.last_step, name, tuple(notes), self.mask_value)

    def _folded_gru(self, where: str, layer: Gru) -> Gru:
        """The layer with the waiting scale and shift in its weights."""
        scale, shift = self._waiting(where, layer.n_inputs)
        weights = layer.input_weights
        return replace(layer, input_weights=weights * scale, bias=layer.bias + weights @ shift)

    def _folded_dense(self, where: str, layer: Dense) -> Dense:
        scale, shift = self._waiting(where, layer.n_inputs)
        return replace(layer, weights=layer.weights * scale, bias=layer.bias + layer.weights @ shift)

    def _waiting(self, where: str, width: int) -> tuple[FloatArray, FloatArray]:
        """The scale and the shift that wait, for each of `width` features."""
        if not self._affine:
            return np.ones(width), np.zeros(width)
        _want_widths(where, *self._affine, width)
        return np.broadcast_to(self._affine[0], width), np.broadcast_to(self._affine[1], width)

    def _add_identity(self, where: str, what: str) -> Dense:
        """A dense layer for what has none of its own: an activation or a scaling of states."""
        width = next((layer.n_outputs for layer in reversed(self.layers) if not isinstance(layer, Reverse)), None)
        if width is None:
            raise refuse(where, f"{what} on the inputs of the model", "do its work on the data, before the model")
        self._identity_weights += width * width
        if self._identity_weights > IDENTITY_WEIGHTS_LIMIT:
            raise refuse(
                where, f"{what} on {width} features without a dense layer before it, too large for one of its own"
            )
        self.add_dense(where, Dense(f"{what}_{len(self.layers)}", np.eye(width), np.zeros(width)))
        self.notes.append(f"{what} without a dense layer before it got one of {width} x {width}")
        dense = self.layers[-1]
        assert isinstance(dense, Dense)
        return dense

    def _refuse_after_softmax(self, where: str) -> None:
        if self.left_out:
            raise refuse(where, f"comes after a {self.left_out}, which can only be left out at the very end")


def _want_widths(where: str, scale: FloatArray, shift: FloatArray, width: int) -> None:
    for what, values in (("scale", scale), ("shift", shift)):
        if values.shape not in ((), (1,), (width,)):
            raise refuse(where, f"{what} {values.shape} on {width} features")
