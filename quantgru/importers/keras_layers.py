"""The layers of a Keras chain, converted one by one. The same for live models and for files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from quantgru.activations import DENSE_ACTIVATIONS
from quantgru.array_types import FloatArray
from quantgru.importers.chain import Chain, refuse
from quantgru.importers.keras_affine import OPERATIONS, read_affine
from quantgru.importers.keras_arguments import (
    Shape,
    arrays,
    flag,
    function_name,
    number,
    plain,
    positive,
    want,
)
from quantgru.importers.keras_calls import ALL
from quantgru.importers.keras_entries import RECURRENT, Entry, refuse_foreign_class, with_halves
from quantgru.importers.keras_masks import Masks
from quantgru.importers.keras_merge import read_merge
from quantgru.importers.keras_precision import half_precisions, refuse_quantized
from quantgru.importers.keras_recurrent import Recurrent, read_recurrent
from quantgru.importers.keras_sources import KerasSource, recurrent_sources
from quantgru.importers.keras_states import states_of, with_states
from quantgru.importers.keras_walk import turns_steps
from quantgru.model import Dense, Embedding, Gru, Reverse

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
AFFINE: Final = ("Normalization", "BatchNormalization", "Rescaling")
IN_TIME_DISTRIBUTED: Final = frozenset(("Activation", "Dense", "ReLU", "Softmax", *AFFINE, *IDENTITIES))
ACTIVATIONS: Final = {"Relu": "relu", "Sigmoid": "sigmoid", "Tanh": "tanh"}  # as operations
SOFTMAXES: Final = ("softmax", "log_softmax")
RELU_ARGUMENTS: Final = {"max_value": None, "negative_slope": 0.0, "threshold": 0.0}
FUNCTIONS: Final = "train with linear, relu, sigmoid or tanh"
POOLING: Final = "take the last step: return_sequences=False"
NEXT_STEPS: Final = {
    "Conv1D": "run it on the data, before the model, or train without it",
    "ELU": FUNCTIONS,
    "GlobalAveragePooling1D": POOLING,
    "GlobalMaxPooling1D": POOLING,
    "GRUCell": "use keras.layers.GRU",
    "Lambda": "say what it does with layers of keras.layers",
    "LayerNormalization": "train with BatchNormalization, which is a fixed scale and shift in inference",
    "LeakyReLU": FUNCTIONS,
    "LSTM": "train with keras.layers.GRU",
    "PReLU": FUNCTIONS,
    "SimpleRNN": "train with keras.layers.GRU",
    "StringLookup": "look the words up before the model, and give it token numbers",
    "TextVectorization": "split and look the words up before the model, and give it token numbers",
}


@dataclass
class KerasReader:
    """Adds the layers of entries to `chain`; `sources` says which layers came of which entry.

    version      of Keras, 2 or 3
    given        for each GRU layer of the model the input that gives its initial state, or None
    input_shape  (sequences, steps, features) as declared, None where it is not said; of tokens without features
    n_sequences  with which alone the model can be called, since a constant has so many rows; None for any
    n_steps      likewise, since a Reshape names them
    precisions   in which Keras computes layers of the model, of those with 16 bits
    """

    chain: Chain
    weights_of: WeightsOf
    version: int = 3
    sources: list[KerasSource] = field(default_factory=list)
    given: list[str | None] = field(default_factory=list)
    input_shape: Shape = (None, None, None)
    n_sequences: int | None = None
    n_steps: int | None = None
    precisions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.masks = Masks(self.chain, self.version)

    def read(self, entries: Sequence[Entry]) -> None:
        """Raises ModelError at the first layer that is not supported."""
        self.input_shape = _input_shape(entries)
        for entry in entries:
            if entry.result and entry.kind not in RECURRENT:
                raise refuse(entry.where, f"its result {entry.result} goes on, it has one")
            for part in with_halves((entry,)):
                refuse_quantized(part.where, part.config)
            self._read_entry(entry)
            self.masks.hand_on(entry)
        self.precisions = half_precisions(entries)
        if self.precisions:
            names = " and ".join(self.precisions)
            self.chain.notes.append(f"Keras computes in {names}, the import in full precision: outputs differ by that")
        self.masks.warn_of_outputs()

    def _read_entry(self, entry: Entry) -> None:
        config = entry.config
        match entry.kind:
            case kind if kind in RECURRENT:
                self._recurrent(entry, read_recurrent(entry, self.weights_of(entry), self.version))
            case _ if entry.halves:
                self._recurrent(entry, read_merge(entry, self.weights_of, self.version))
            case "Dense":
                self._dense(entry)
            case "Conv1D" if _pointwise(config):
                self._convolution(entry)
            case "TimeDistributed":
                self._time_distributed(entry)
            case "Embedding":
                self._embedding(entry)
            case "Masking":
                self._masking(entry)
            case kind if kind in AFFINE:
                self._affine(entry)
            case "Flatten" | "Permute" | "Reshape":
                self._keep_shape(entry)
            case "Activation":
                self._activation(entry, config["activation"])
            case "ReLU":
                want(entry.where, config, RELU_ARGUMENTS)
                self.chain.add_activation(entry.where, "relu")
            case "Softmax" | "LogSoftmax":
                self._softmax(entry)
            case kind if kind not in IDENTITIES and kind != "InputLayer":
                self._operation(entry)

    def _operation(self, entry: Entry) -> None:
        """What is left beside layers."""
        match entry.kind:
            case kind if kind in OPERATIONS and (kind == "Negative" or entry.constant is not None):
                self._affine(entry)
                self.masks.lose(entry)
            case "Flip" | "GetItem" if turns_steps(entry):
                self.chain.add_reverse(entry.where)
                self.masks.lose(entry)
            case "GetItem":
                self._index(entry)
            case kind if kind in ACTIVATIONS:
                self._activation(entry, ACTIVATIONS[kind])
                self.masks.lose(entry)
            case kind:
                raise refuse(entry.where, "this layer is not supported", NEXT_STEPS.get(kind, ""))

    def _recurrent(self, entry: Entry, found: Recurrent) -> None:
        final = _takes_final_states(entry, found)
        self.masks.check(entry, found)
        if found.reverse:
            self.chain.add_reverse(entry.where)
        states = states_of(entry, found.layers)
        self.chain.add_recurrent(entry.where, with_states(entry.where, found.layers, states))
        if found.turned:
            self.chain.add_reverse(entry.where)
        if final:
            self.chain.take_final_states(entry.where)
        elif not found.sequences:
            self.chain.take_last_step()
        self.sources += recurrent_sources(entry, found, last_step=final or not found.sequences)
        self._note_states(entry, states, found.stateful)

    def _note_states(self, entry: Entry, states: Sequence[Any], stateful: bool) -> None:
        self.given += [state if isinstance(state, str) else None for state in states]
        counts = [len(state) for state in states if not isinstance(state, str | None) and len(state) > 1]
        self.n_sequences = max(counts, default=self.n_sequences)
        if entry.state_inputs:
            inputs = " and ".join(dict.fromkeys(entry.state_inputs))
            self.chain.notes.append(f"{entry.where}: its initial state is input {inputs}: run(x, initial_states=...)")
        if stateful and any(state is None for state in states):
            self.chain.notes.append(
                f"{entry.where}: stateful; a run starts at 0, or goes on with initial_states=model.final_states(x)"
            )

    def _dense(self, entry: Entry) -> None:
        units = positive(entry.where, entry.config, "units")
        kernel, bias = self._kernel_and_bias(entry, (None, units))
        self._add_dense(entry, Dense(entry.name, kernel.T, bias))

    def _convolution(self, entry: Entry) -> None:
        """One over a single step is a dense layer."""
        if self.chain.last_step:
            raise refuse(entry.where, "after the last step was taken")
        filters = positive(entry.where, entry.config, "filters")
        kernel, bias = self._kernel_and_bias(entry, (1, None, filters))
        self._add_dense(entry, Dense(entry.name, kernel[0].T, bias))
        self.masks.lose(entry)

    def _kernel_and_bias(self, entry: Entry, shape: Shape) -> tuple[FloatArray, FloatArray]:
        shapes: dict[str, Shape] = {"kernel": shape}
        if flag(entry.where, entry.config, "use_bias"):
            shapes["bias"] = shape[-1:]
        found = self._arrays(entry, shapes)
        return found["kernel"], found.get("bias", np.zeros(found["kernel"].shape[-1]))

    def _add_dense(self, entry: Entry, layer: Dense) -> None:
        where, config = entry.where, entry.config
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
                entry.where,
                f"around a {plain(inner['class_name'])}",
                "only Dense, activations and normalisations may be inside",
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
            self.masks.make(entry, 0.0)

    def _masking(self, entry: Entry) -> None:
        where, value = entry.where, number(entry.where, entry.config, "mask_value")
        if self.chain.layers:
            raise refuse(where, "masks what another layer computed", "mask the inputs of the model: put it first")
        self.masks.make(entry, value)

    def _affine(self, entry: Entry) -> None:
        operation = entry.kind in OPERATIONS
        flat = self.chain.last_step
        weights = () if operation else self.weights_of(entry)
        scale, shift = read_affine(entry, weights, rank=2 if flat or entry.inner else 3)
        width = self._width() or max(scale.size, shift.size)
        if {scale.size, shift.size} - {1, width}:
            raise refuse(entry.where, f"{max(scale.size, shift.size)} numbers for {width} features")
        self.chain.add_affine(entry.where, scale, shift)
        layer = Dense(entry.name, np.diag(np.broadcast_to(scale, width)), np.broadcast_to(shift, width))
        self.sources.append(KerasSource(entry, (layer,), flat=flat, alone=not operation))

    def _width(self) -> int | None:
        """The number of features here, None if nothing says it."""
        widths = [layer.n_outputs for layer in self.chain.layers if not isinstance(layer, Reverse)]
        return widths[-1] if widths else self.input_shape[-1]

    def _index(self, entry: Entry) -> None:
        if self.chain.last_step or entry.constant not in ([ALL, -1], [ALL, -1, ALL]):
            raise refuse(entry.where, "an index other than [:, -1], the last step")
        if self.chain.mask_value is not None:
            raise refuse(entry.where, "the last step of masked ones", "use return_sequences=False")
        self.chain.take_last_step()

    def _keep_shape(self, entry: Entry) -> None:
        """Flatten, Permute and Reshape where they change nothing."""
        rank = 2 if self.chain.last_step else 3
        match entry.kind:
            case "Flatten":
                same = rank == 2
            case "Permute":
                same = list(entry.config["dims"]) == list(range(1, rank))
            case _ if "newshape" in entry.config:
                shape = entry.config["newshape"]
                same = isinstance(shape, (list, tuple)) and len(shape) == rank and self._is_shape(shape)
            case _:
                target = list(entry.config["target_shape"])
                same = len(target) == rank - 1 and target[-1] == self._width()
                if rank == 3 and target[0] != -1:
                    self.n_steps = target[0]
        if not same:
            raise refuse(entry.where, "changes the shape", "keep (steps, features); the last step is all that is flat")
        self.masks.lose(entry)

    def _is_shape(self, target: Sequence[Any]) -> bool:
        """Whether an operation, which names the sequences, too, changes nothing. Sizes that it names are fixed then."""
        declared = *self.input_shape[: len(target) - 1], self._width()
        if target[0] not in (-1, None):
            self.n_sequences = declared[0]
        if len(target) == 3 and target[1] not in (-1, None):
            self.n_steps = declared[1]
        return all(found in (-1, None, size) for found, size in zip(target, declared, strict=True))

    def _softmax(self, entry: Entry) -> None:
        if self.chain.mask_value is not None and not self.chain.last_step:
            raise refuse(entry.where, "over features of masked steps: it takes the mask for one of features")
        axis = entry.config.get("axis", -1)
        name = "softmax" if entry.kind == "Softmax" else "log_softmax"
        self.chain.add_softmax(entry.where, name, None if axis == -1 else str(axis))

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


def _pointwise(config: Mapping[str, Any]) -> bool:
    """Whether a convolution reads one step, and gives one for each."""
    one = (1, [1], (1,))
    return (
        config["kernel_size"] in one
        and config.get("strides", 1) in one
        and config.get("groups", 1) == 1
        and config.get("data_format") in (None, "channels_last")
    )


def _input_shape(entries: Sequence[Entry]) -> Shape:
    """That of the input, (batch, steps, features), or (batch, steps) of tokens; None where it is not a number."""
    if not entries or entries[0].kind != "InputLayer":
        return (None, None, None)
    first: Mapping[str, Any] = entries[0].config
    shape = tuple(first.get("batch_shape") or first.get("batch_input_shape") or ())
    reader = next((entry.kind for entry in entries[1:] if entry.kind not in IDENTITIES), "")
    expected, what = (2, "(steps,)") if reader == "Embedding" else (3, "(steps, features)")
    if len(shape) != expected:
        raise refuse(entries[0].where, f"shape {shape}", f"give it the shape {what}, steps may be None")
    return tuple(size if isinstance(size, int) and size > 0 else None for size in shape)
