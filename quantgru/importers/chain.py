"""The chain that every importer builds: GRU layers, dense layers with activations, the last step or all steps.

Frameworks say the same model in many ways; here is what may follow what, and the refusal of everything else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from quantgru.activations import DENSE_ACTIVATIONS
from quantgru.c_names import nearest_c_name
from quantgru.errors import ModelError
from quantgru.model import Dense, FloatModel, Gru, Layer

Softmax = Literal["refuse", "logits"]

SUPPORTED: Final = (
    "supported are GRU layers, then the last step or all steps, then dense layers with linear, relu, sigmoid or tanh"
)
BY_HAND: Final = (
    "what is GRU and dense layers can be said by hand: "
    "qg.FloatModel((*qg.load(gru).layers, qg.Dense('fc', weights, bias, 'linear')), last_step=True); "
    "(x - mean) / scale on the input belongs to qg.quantize(..., mean=mean, scale=scale)"
)


def refuse(where: str, found: str, next_step: str = BY_HAND) -> ModelError:
    """The error for something that the canonical layers cannot say: where, what, what is supported, what to do."""
    return ModelError(f"{where}: {found}; {SUPPORTED}; {next_step}")


def identifier(name: str) -> str:
    """A model's name as a C identifier, since exported code is named after the model.

    >>> identifier("KeyWord Net-2"), identifier("Switch")
    ('key_word_net_2', 'model_switch')
    """
    return nearest_c_name(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower())


@dataclass
class Chain:
    """Collects layers in the order in which they run.

    softmax          what to do with a softmax at the end: refuse it, or leave it out
    left_out         the softmax that was left out: "softmax", "log_softmax" or None
    """

    softmax: Softmax
    layers: list[Layer] = field(default_factory=list)
    last_step: bool = False
    left_out: str | None = None

    def add_gru(self, where: str, layers: Sequence[Gru]) -> None:
        self._refuse_after_softmax(where)
        if self.last_step:
            raise refuse(where, "a GRU layer after the last step was taken")
        if self.layers and isinstance(self.layers[-1], Dense):
            raise refuse(where, "a GRU layer after a dense layer")
        self.layers += layers

    def add_dense(self, where: str, layer: Dense) -> None:
        self._refuse_after_softmax(where)
        if not self.layers:
            raise refuse(where, "a dense layer before the first GRU layer", "do its work on the data, before the model")
        self.layers.append(layer)

    def add_activation(self, where: str, activation: str) -> None:
        """Merges an activation into the linear dense layer before it."""
        self._refuse_after_softmax(where)
        if activation not in DENSE_ACTIVATIONS:
            raise refuse(where, f"activation {activation!r}")
        if activation == "linear":
            return
        before = self.layers[-1] if self.layers else None
        if not isinstance(before, Dense):
            raise refuse(where, f"activation {activation!r} without a dense layer before it")
        if before.activation != "linear":
            raise refuse(where, f"activation {activation!r} on top of {before.activation!r} of layer {before.name!r}")
        self.layers[-1] = replace(before, activation=activation)  # type: ignore[arg-type]  # checked above

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

    def model(self, name: str, source: str) -> FloatModel:
        """The finished model. Raises ModelError where there is no GRU layer, or widths do not match."""
        notes = [f"imported from {source}"]
        if self.left_out:
            notes.append(f"{self.left_out} at the end left out: outputs are logits")
        return FloatModel(tuple(self.layers), self.last_step, name, tuple(notes))

    def _refuse_after_softmax(self, where: str) -> None:
        if self.left_out:
            raise refuse(where, f"comes after a {self.left_out}, which can only be left out at the very end")
