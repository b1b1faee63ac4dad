"""The layers of a Keras chain, converted one by one. The same for live models and for files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from quantgru.activations import DENSE_ACTIVATIONS
from quantgru.importers.chain import Chain, refuse, warn
from quantgru.importers.keras_affine import read_affine
from quantgru.importers.keras_arguments import (
    FloatArray,
    Shape,
    arrays,
    flag,
    function_name,
    number,
    plain,
    positive,
    want,
)
from quantgru.importers.keras_config import RECURRENT, Entry, refuse_foreign_class
from quantgru.importers.keras_precision import half_precisions, refuse_quantized
from quantgru.importers.keras_recurrent import Recurrent, read_recurrent
from quantgru.model import Bidirectional, Dense, Embedding, Gru, Layer, Reverse

WeightsOf = Callable[[Entry], Sequence[Any]]

IDENTITIES: Final = frozenset(  # they act in training only
    (
        "ActivityRegularization",
        "AlphaDropout",
        "Dropout",
        "GaussianDropout",
        "GaussianNoise",
        "Identity",
        "SpatialDropout1D",
    )
)
IN_TIME_DISTRIBUTED: Final = frozenset(("Activation", "Dense", "ReLU", "Softmax", *IDENTITIES))
AFFINE: Final = ("Normalization", "BatchNormalization", "Rescaling")
SOFTMAXES: Final = ("softmax", "log_softmax")
RELU_ARGUMENTS: Final = {"max_value": None, "negative_slope": 0.0, "threshold": 0.0}
NEXT_STEPS: Final = {
    "GRUCell": "use keras.layers.GRU",
    "Lambda": "say what it does with layers of keras.layers",
    "LayerNormalization": "train with BatchNormalization, which is a fixed scale and shift in inference",
    "LSTM": "train with keras.layers.GRU",
    "SimpleRNN": "train with keras.layers.GRU",
}
# The index [:, -1], as Functional models write it.
_ALL: Final = {"class_name": "__slice__", "config": {"start": None, "stop": None, "step": None}}


@dataclass(frozen=True)
class KerasSource:
    """An entry with weights, and the layers made of it alone.

    last_step  whether it gives a single step out of several
    flat       whether it reads a single step
    left_out   the softmax of its own that was left out
    """

    entry: Entry
    layers: tuple[Layer, ...]
    last_step: bool = False
    flat: bool = False
    left_out: str | None = None


@dataclass
class KerasReader:
    """Adds the layers of entries to `chain`; `sources` says which layers came of which entry.

    version      of Keras, 2 or 3
    given        for each GRU layer of the model the input that gives its initial state, or None
    zero_masked  whether the last GRU layer gives 0 at masked steps, and not what it gave before
    masked_in    the models inside which the mask is made
    n_inputs     of the model, 1 if its configuration does not say it
    precisions   in which Keras computes layers of the model, of those with 16 bits
    """

    chain: Chain
    weights_of: WeightsOf
    version: int = 3
    sources: list[KerasSource] = field(default_factory=list)
    given: list[str | None] = field(default_factory=list)
    zero_masked: bool = False
    masked_in: tuple[str, ...] = ()
    n_inputs: int = 1
    precisions: tuple[str, ...] = ()

    def read(self, entries: Sequence[Entry]) -> None:
        """Raises ModelError at the first layer that is not supported."""
        self.n_inputs = _input_width(entries)
        for entry in entries:
            if entry.result and entry.kind not in RECURRENT:
                raise refuse(entry.where, f"its result {entry.result} goes on, it has one")
            refuse_quantized(entry.where, entry.config)
            self._read_entry(entry)
        self.precisions = half_precisions(entries)
        if self.precisions:
            names = " and ".join(self.precisions)
            self.chain.notes.append(f"Keras computes in {names}, the import in full precision: outputs differ by that")
        self._warn_of_masked_outputs()

    def _read_entry(self, entry: Entry) -> None:
        config = entry.config
        match entry.kind:
            case kind if kind in RECURRENT:
                self._recurrent(entry)
            case "Dense":
                self._dense(entry)
            case "TimeDistributed":
                self._time_distributed(entry)
            case "Embedding":
                self._embedding(entry)
            case "Masking":
                self._masking(entry)
            case kind if kind in AFFINE:
                self._affine(entry)
            case "GetItem":
                self._index(entry)
            case "Activation":
                self._activation(entry, config["activation"])
            case "ReLU":
                want(entry.where, config, RELU_ARGUMENTS)
                self.chain.add_activation(entry.where, "relu")
            case "Softmax":
                if self.chain.mask_value is not None and not self.chain.last_step:
                    raise refuse(entry.where, "over features of masked steps: it takes the mask for one of features")
                self.chain.add_softmax(entry.where, "softmax", None if config["axis"] == -1 else str(config["axis"]))
            case kind if kind in IDENTITIES or kind == "InputLayer":
                pass
            case kind:
                raise refuse(entry.where, "this layer is not supported", *_next_step(kind))

    def _recurrent(self, entry: Entry) -> None:
        found = read_recurrent(entry, self.weights_of(entry), self.version)
        final = _takes_final_states(entry, found)
        self._check_mask(entry, found)
        if found.reverse:
            self.chain.add_reverse(entry.where)
        self.chain.add_recurrent(entry.where, found.layers)
        if final:
            self.chain.take_final_states(entry.where)
        elif not found.sequences:
            self.chain.take_last_step()
        layers = (Reverse(), *found.layers) if found.reverse else found.layers
        self.sources.append(KerasSource(entry, layers, last_step=final or not found.sequences))
        self._note_states(entry, found)

    def _check_mask(self, entry: Entry, found: Recurrent) -> None:
        """What Keras does at masked steps beyond leaving them out."""
        if self.chain.mask_value is None:
            return
        if self.version == 3 and entry.path[:-1] != self.masked_in:
            raise refuse(
                entry.where,
                "gets a mask across the border of a model inside the model, where Keras 3 drops it",
                "put the layers of the inner model into the outer one",
            )
        if found.reverse and found.sequences:
            raise refuse(
                entry.where,
                "go_backwards with return_sequences=True on masked steps: Keras turns the steps around, not the mask",
                "leave the mask out, and give sequences of unequal lengths as a list",
            )
        if found.zero_masked and not found.sequences:
            raise refuse(entry.where, "zero_output_for_mask=True with return_sequences=False on masked steps")
        self.zero_masked = found.zero_masked

    def _warn_of_masked_outputs(self) -> None:
        """No later layer reads masked steps, but as outputs of the model they are seen."""
        if self.chain.mask_value is None or self.chain.last_step:
            return
        if self.zero_masked or not self.chain.ends_in_states:
            message = (
                "outputs at masked steps are not those of Keras, 0 or what later layers make of 0: skip these steps"
            )
            self.chain.notes.append(message)
            warn(message)

    def _note_states(self, entry: Entry, found: Recurrent) -> None:
        n_grus = sum(2 if isinstance(layer, Bidirectional) else 1 for layer in found.layers)
        if entry.states and len(entry.states) != n_grus:
            raise refuse(entry.where, f"{len(entry.states)} initial states, expected {n_grus}")
        self.given += entry.states or [None] * n_grus
        if entry.states:
            inputs = " and ".join(entry.states)
            self.chain.notes.append(f"{entry.where}: its initial state is input {inputs}: run(x, initial_states=...)")
        if found.stateful:
            self.chain.notes.append(
                f"{entry.where}: stateful; a run starts at 0, or goes on with initial_states=model.final_states(x)"
            )

    def _dense(self, entry: Entry) -> None:
        where, config = entry.where, entry.config
        units = positive(where, config, "units")
        shapes: dict[str, Shape] = {"kernel": (None, units)}
        if flag(where, config, "use_bias"):
            shapes["bias"] = (units,)
        found = self._arrays(entry, shapes)
        layer = Dense(entry.name, found["kernel"].T, found.get("bias", np.zeros(units)))
        flat = self.chain.last_step
        self.chain.add_dense(where, layer)
        self._activation(entry, config["activation"])
        name: Any = function_name(config["activation"])
        if name in DENSE_ACTIVATIONS:
            layer = replace(layer, activation=name)
        self.sources.append(KerasSource(entry, (layer,), flat=flat, left_out=self.chain.left_out))

    def _arrays(self, entry: Entry, shapes: Mapping[str, Shape]) -> dict[str, FloatArray]:
        """The weights of a layer that may have those of LoRA beside its own; `.keras` files hold the sum of both."""
        found = self.weights_of(entry)
        if entry.config.get("lora_rank") and len(found) > len(shapes):
            raise refuse(
                entry.where,
                "LoRA weights beside its own (enable_lora)",
                "save the model as .keras, where Keras adds them to its own, and give that file",
            )
        return arrays(entry.where, found, shapes)

    def _time_distributed(self, entry: Entry) -> None:
        inner = entry.config["layer"]
        if inner["class_name"] not in IN_TIME_DISTRIBUTED:
            raise refuse(
                entry.where, f"around a {plain(inner['class_name'])}", "only Dense and activations may be inside"
            )
        if self.chain.last_step:
            raise refuse(entry.where, "after a GRU with return_sequences=False", "use the layer inside alone")
        refuse_foreign_class(entry.where, inner)
        self._read_entry(replace(entry, kind=inner["class_name"], config=inner["config"], inner="layer/"))

    def _embedding(self, entry: Entry) -> None:
        where = entry.where
        shape = positive(where, entry.config, "input_dim"), positive(where, entry.config, "output_dim")
        found = self._arrays(entry, {"embeddings": shape})
        if self.chain.mask_value is not None:
            raise refuse(where, "an embedding of masked inputs", "use its own mask_zero=True")
        layer = Embedding(entry.name, found["embeddings"])
        self.chain.add_embedding(where, layer)
        self.sources.append(KerasSource(entry, (layer,)))
        if flag(where, entry.config, "mask_zero"):
            if layer.n_tokens == 1:
                raise refuse(where, "mask_zero=True with token 0 only, so that every step is masked")
            self._add_mask(entry, 0.0)

    def _masking(self, entry: Entry) -> None:
        where, value = entry.where, number(entry.where, entry.config, "mask_value")
        if self.chain.layers:
            raise refuse(where, "masks what another layer computed", "mask the inputs of the model: put it first")
        self._add_mask(entry, value)

    def _add_mask(self, entry: Entry, value: float) -> None:
        self.chain.add_mask(entry.where, value)
        self.masked_in = entry.path[:-1]

    def _affine(self, entry: Entry) -> None:
        rank = 2 if self.chain.last_step else 3
        scale, shift = read_affine(entry, self.weights_of(entry), rank)
        self.chain.add_affine(entry.where, scale, shift)
        width = max(scale.size, shift.size, self._width())
        layer = Dense(entry.name, np.diag(np.broadcast_to(scale, width)), np.broadcast_to(shift, width))
        self.sources.append(KerasSource(entry, (layer,), flat=rank == 2))

    def _width(self) -> int:
        """The number of features here, 1 if nothing says it."""
        widths = [layer.n_outputs for layer in self.chain.layers if not isinstance(layer, Reverse)]
        return widths[-1] if widths else self.n_inputs

    def _index(self, entry: Entry) -> None:
        if self.chain.last_step or entry.config["index"] not in ([_ALL, -1], [_ALL, -1, _ALL]):
            raise refuse(entry.where, "an index other than [:, -1], the last step")
        if self.chain.mask_value is not None:
            raise refuse(entry.where, "the last step of masked ones", "use return_sequences=False")
        self.chain.take_last_step()

    def _activation(self, entry: Entry, activation: Any) -> None:
        name = function_name(activation)
        if name in SOFTMAXES:
            self.chain.add_softmax(entry.where, name, None)
        else:
            self.chain.add_activation(entry.where, name)


def _takes_final_states(entry: Entry, found: Recurrent) -> bool:
    """Whether the state that a layer with return_state gives goes on, rather than its output."""
    if entry.result == 0:
        return False
    last = found.layers[-1]
    if not isinstance(last, Gru) or entry.result != len(found.layers):
        raise refuse(entry.where, f"its result {entry.result} goes on", "use its output, or the state of its last GRU")
    return True


def _next_step(kind: str) -> tuple[str, ...]:
    return (NEXT_STEPS[kind],) if kind in NEXT_STEPS else ()


def _input_width(entries: Sequence[Entry]) -> int:
    """Features of the input, whose shape is (batch, steps, features), or (batch, steps) for tokens; 1 if unknown."""
    if not entries or entries[0].kind != "InputLayer":
        return 1
    first: Mapping[str, Any] = entries[0].config
    shape = tuple(first.get("batch_shape") or first.get("batch_input_shape") or ())
    reader = next((entry.kind for entry in entries[1:] if entry.kind not in IDENTITIES), "")
    expected, what = (2, "(steps,)") if reader == "Embedding" else (3, "(steps, features)")
    if len(shape) != expected:
        raise refuse(entries[0].where, f"shape {shape}", f"give it the shape {what}, steps may be None")
    return shape[2] if expected == 3 and isinstance(shape[2], int) and shape[2] > 0 else 1
