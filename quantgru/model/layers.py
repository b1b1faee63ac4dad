"""Layers of the float model in their one canonical form. Dialects are re-labelled in `importers`, nowhere else.

z = sigmoid(W_z x + U_z h + b_z)                      update gate: the share of h that is kept
r = sigmoid(W_r x + U_r h + b_r)                      reset gate
n = tanh(W_n x + b_n + r * (U_n h + c))               reset "after" the product
n = tanh(W_n x + b_n + U_n (r * h))                   reset "before" the product
h' = z * h + (1 - z) * n
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from quantgru.activations import DENSE_ACTIVATIONS
from quantgru.errors import ModelError
from quantgru.sequences import Sequences, SequencesLike, as_sequences

FloatArray = npt.NDArray[np.float64]
Reset = Literal["after", "before"]
DenseActivation = Literal["linear", "relu", "sigmoid", "tanh"]


class Gate(IntEnum):
    """Position on axis 0 of every stacked array after the importer."""

    Z = 0
    R = 1
    N = 2


@dataclass(frozen=True, eq=False)
class Gru:
    """One GRU layer of H units on I inputs, float64.

    input_weights      W [3, H, I]
    recurrent_weights  U [3, H, H]
    bias               b [3, H]
    recurrent_bias     c [H], inside the reset product; zero for reset "before"
    """

    name: str
    reset: Reset
    input_weights: FloatArray
    recurrent_weights: FloatArray
    bias: FloatArray
    recurrent_bias: FloatArray
    gate: Literal["sigmoid"] = "sigmoid"
    candidate: Literal["tanh"] = "tanh"

    def __post_init__(self) -> None:
        where = f"GRU layer {self.name!r}"
        if self.reset not in get_args(Reset):
            raise ModelError(f"{where}: reset {self.reset!r}, allowed are 'after' and 'before'")
        if self.gate != "sigmoid" or self.candidate != "tanh":
            raise ModelError(
                f"{where}: gates {self.gate!r} and candidate {self.candidate!r}, supported are 'sigmoid' and 'tanh'"
            )
        shape = _shape(self, "input_weights", where)
        if len(shape) != 3 or shape[0] != 3 or 0 in shape:
            raise ModelError(f"{where}: input weights {shape}, expected (3, units, inputs)")
        units = shape[1]
        _own(self, "input_weights", shape, where)
        _own(self, "recurrent_weights", (3, units, units), where)
        _own(self, "bias", (3, units), where)
        _own(self, "recurrent_bias", (units,), where)
        if self.reset == "before" and self.recurrent_bias.any():
            raise ModelError(f"{where}: reset before the product has no recurrent bias; add it to the bias of n")

    @property
    def n_inputs(self) -> int:
        return int(self.input_weights.shape[2])

    @property
    def n_units(self) -> int:
        return int(self.input_weights.shape[1])


@dataclass(frozen=True, eq=False)
class Dense:
    """One dense layer, activation(weights x + bias); weights [outputs, inputs], bias [outputs], float64."""

    name: str
    weights: FloatArray
    bias: FloatArray
    activation: DenseActivation = "linear"

    def __post_init__(self) -> None:
        where = f"dense layer {self.name!r}"
        if self.activation not in DENSE_ACTIVATIONS:
            raise ModelError(f"{where}: activation {self.activation!r}, supported are {', '.join(DENSE_ACTIVATIONS)}")
        shape = _shape(self, "weights", where)
        if len(shape) != 2 or 0 in shape:
            raise ModelError(f"{where}: weights {shape}, expected (outputs, inputs)")
        _own(self, "weights", shape, where)
        _own(self, "bias", shape[:1], where)

    @property
    def n_inputs(self) -> int:
        return int(self.weights.shape[1])

    @property
    def n_outputs(self) -> int:
        return int(self.weights.shape[0])


Layer = Gru | Dense


@dataclass(frozen=True, eq=False, repr=False)
class FloatModel:
    """GRU layers, then dense layers (the head, which may be absent).

    last_step  whether the output is that of the last step, rather than one for every step
    notes      free text of the importer, for reports
    """

    layers: tuple[Layer, ...]
    last_step: bool
    name: str = "model"
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        if not self.grus:
            raise ModelError(f"model {self.name!r}: no GRU layer; supported are GRU layers, then dense layers")
        if any(isinstance(layer, Gru) for layer in self.layers[len(self.grus) :]):
            raise ModelError(
                f"model {self.name!r}: a dense layer before a GRU layer; supported are dense layers at the end"
            )
        width = self.n_inputs
        for layer in self.layers:
            if layer.n_inputs != width:
                raise ModelError(
                    f"layer {layer.name!r}: {layer.n_inputs} inputs, but the layer before it gives {width} values"
                )
            width = layer.n_units if isinstance(layer, Gru) else layer.n_outputs

    def __repr__(self) -> str:
        widths = [layer.n_units if isinstance(layer, Gru) else layer.n_outputs for layer in self.layers]
        return f"<FloatModel {self.name!r}: {' → '.join(map(str, [self.n_inputs, *widths]))}>"

    @property
    def grus(self) -> tuple[Gru, ...]:
        return tuple(layer for layer in self.layers if isinstance(layer, Gru))

    @property
    def head(self) -> tuple[Dense, ...]:
        return tuple(layer for layer in self.layers if isinstance(layer, Dense))

    @property
    def n_inputs(self) -> int:
        return self.layers[0].n_inputs

    @property
    def n_outputs(self) -> int:
        last = self.layers[-1]
        return last.n_units if isinstance(last, Gru) else last.n_outputs

    def run(self, x: SequencesLike | Sequences) -> Any:
        """Outputs in float64 for x [sequences, steps, inputs] or a list of [steps, inputs].

        [sequences, steps, outputs], a list of [steps, outputs] for a list, [sequences, outputs] for a last-step head.
        Zero in padding. Raises DataError.
        """
        from quantgru.model.run import outputs, states

        sequences = as_sequences(x, n_features=self.n_inputs)
        return outputs(self, sequences, states(self, sequences)[-1])

    def save(self, path: str | Path) -> None:
        """Writes the float model for the command line (`quantgru quantize model.qgf`). Raises ModelError."""
        from quantgru.model.file import save

        save(self, path)


def _real(layer: object, field_name: str, where: str) -> npt.NDArray[Any]:
    try:
        array = np.asarray(getattr(layer, field_name))
    except ValueError:
        raise ModelError(f"{where}: {field_name} has rows of unequal lengths") from None
    if array.dtype.kind not in "fiu":
        raise ModelError(f"{where}: {field_name} is of type {array.dtype}, expected real numbers")
    return array


def _shape(layer: object, field_name: str, where: str) -> tuple[int, ...]:
    return _real(layer, field_name, where).shape


def _own(layer: object, field_name: str, shape: Sequence[int], where: str) -> None:
    """Replaces an array field by a checked, read-only float64 copy."""
    array = np.array(_real(layer, field_name, where), dtype=np.float64)
    if array.shape != tuple(shape):
        raise ModelError(f"{where}: {field_name} {array.shape}, expected {tuple(shape)}")
    if not np.isfinite(array).all():
        bad = np.argwhere(~np.isfinite(array))[0].tolist()
        raise ModelError(f"{where}: {field_name} holds {array[tuple(bad)]} at {bad}; all weights must be finite")
    array.flags.writeable = False
    object.__setattr__(layer, field_name, array)
