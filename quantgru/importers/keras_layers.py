"""The layers of a Keras chain, converted one by one. The same for live models and for files.

Weights come as arrays or as data sets of a file: both have shape and dtype, which are compared before anything is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from quantgru.importers.chain import Chain, refuse
from quantgru.importers.gates import KERAS_ORDER, finite, stacked_gru
from quantgru.importers.keras_config import Entry
from quantgru.model import Dense, Layer

FloatArray = npt.NDArray[np.float64]
Shape = tuple[int | None, ...]
WeightsOf = Callable[[Entry], Sequence[Any]]

IDENTITIES: Final = frozenset(
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
NEXT_STEPS: Final = {
    "Bidirectional": "train a GRU in one direction: a device sees no future steps",
    "Masking": "leave it out, and give sequences of unequal lengths as a list",
    "GRUCell": "use keras.layers.GRU",
    "RNN": "use keras.layers.GRU",
}
# Arguments of GRU that change what it computes, with the one value that is supported.
GRU_ARGUMENTS: Final = {
    "activation": "tanh",
    "recurrent_activation": "sigmoid",
    "go_backwards": False,
    "stateful": False,
    "return_state": False,
}
RELU_ARGUMENTS: Final = {"max_value": None, "negative_slope": 0.0, "threshold": 0.0}


@dataclass(frozen=True)
class KerasSource:
    """An entry with weights, the layer made of it, and the softmax of its own that was left out, if any."""

    entry: Entry
    layer: Layer
    left_out: str | None = None


@dataclass
class KerasReader:
    """Adds the layers of entries to `chain`; `sources` says which layer came of which entry."""

    chain: Chain
    weights_of: WeightsOf
    sources: list[KerasSource] = field(default_factory=list)

    def read(self, entries: Sequence[Entry]) -> None:
        """Raises ModelError at the first layer that is not supported."""
        for entry in entries:
            self._read_entry(entry)

    def _read_entry(self, entry: Entry) -> None:
        config = entry.config
        match entry.kind:
            case "InputLayer":
                _check_input(entry)
            case "GRU":
                self._gru(entry)
            case "Dense":
                self._dense(entry, config)
            case "TimeDistributed":
                self._time_distributed(entry)
            case "Activation":
                self._activation(entry, config["activation"])
            case "ReLU":
                _want(entry, RELU_ARGUMENTS)
                self.chain.add_activation(entry.where, "relu")
            case "Softmax":
                self.chain.add_softmax(entry.where, "softmax", None if config["axis"] == -1 else str(config["axis"]))
            case kind if kind in IDENTITIES:
                pass  # they act in training only
            case kind:
                raise refuse(entry.where, "this layer is not supported", *_next_step(kind))

    def _gru(self, entry: Entry) -> None:
        _want(entry, GRU_ARGUMENTS)
        units, after, bias = _units(entry, entry.config), _flag(entry, "reset_after"), _flag(entry, "use_bias")
        shapes: dict[str, Shape] = {"kernel": (None, 3 * units), "recurrent_kernel": (units, 3 * units)}
        if bias:
            shapes["bias"] = (2, 3 * units) if after else (3 * units,)
        arrays = _arrays(entry, self.weights_of(entry), shapes)
        biases = np.zeros((2, 3 * units))
        if bias:
            biases[: 2 if after else 1] = arrays["bias"]
        weights = (arrays["kernel"].T, arrays["recurrent_kernel"].T)
        layer = stacked_gru(entry.name, "after" if after else "before", KERAS_ORDER, weights, (biases[0], biases[1]))
        self.chain.add_recurrent(entry.where, [layer])
        self.sources.append(KerasSource(entry, layer))
        if not _flag(entry, "return_sequences"):
            self.chain.take_last_step()

    def _time_distributed(self, entry: Entry) -> None:
        inner = entry.config["layer"]
        if inner["class_name"] != "Dense":
            raise refuse(entry.where, f"around a {inner['class_name']}", "only Dense may be inside")
        if self.chain.last_step:
            raise refuse(entry.where, "after a GRU with return_sequences=False", "use the Dense layer alone")
        self._dense(entry, inner["config"])

    def _dense(self, entry: Entry, config: Mapping[str, Any]) -> None:
        units = _units(entry, config)
        shapes: dict[str, Shape] = {"kernel": (None, units)}
        if config["use_bias"]:
            shapes["bias"] = (units,)
        arrays = _arrays(entry, self.weights_of(entry), shapes)
        layer = Dense(entry.name, arrays["kernel"].T, arrays.get("bias", np.zeros(units)))
        self.chain.add_dense(entry.where, layer)
        self._activation(entry, config["activation"])
        self.sources.append(KerasSource(entry, self.chain.layers[-1], self.chain.left_out))

    def _activation(self, entry: Entry, activation: Any) -> None:
        name = _function_name(activation)
        if name in ("softmax", "log_softmax"):
            self.chain.add_softmax(entry.where, name, None)
        else:
            self.chain.add_activation(entry.where, name)


def _next_step(kind: str) -> tuple[str, ...]:
    return (NEXT_STEPS[kind],) if kind in NEXT_STEPS else ()


def _check_input(entry: Entry) -> None:
    shape = entry.config.get("batch_shape") or ()
    if len(shape) != 3:
        raise refuse(entry.where, f"shape {tuple(shape)}", "give it the shape (steps, features), steps may be None")


def _want(entry: Entry, allowed: Mapping[str, Any]) -> None:
    """Raises ModelError for an argument with another value than the allowed one; an absent one has Keras's default."""
    for key, value in allowed.items():
        found = _function_name(entry.config[key]) if "activation" in key else entry.config.get(key, value)
        if found != value:
            raise refuse(entry.where, f"{key}={found!r}, only {value!r} is supported", f"train it with {key}={value!r}")


def _flag(entry: Entry, key: str) -> bool:
    if not isinstance(entry.config[key], bool):
        raise refuse(entry.where, f"{key}={entry.config[key]!r}, expected true or false")
    return bool(entry.config[key])


def _units(entry: Entry, config: Mapping[str, Any]) -> int:
    if not isinstance(config["units"], int) or config["units"] < 1:
        raise refuse(entry.where, f"units={config['units']!r}, expected a positive number")
    return int(config["units"])


def _function_name(function: Any) -> str:
    """The name of an activation, which is a string, a serialized function, or None for linear."""
    if isinstance(function, Mapping):  # Keras's own functions are strings
        return f"{function.get('config', 'lambda')} (a function of your own)"
    return "linear" if function is None else str(function)


def _arrays(entry: Entry, found: Sequence[Any], shapes: Mapping[str, Shape]) -> dict[str, FloatArray]:
    """The weights by name, in float64. Nothing is read before its shape is what the configuration says."""
    if len(found) != len(shapes):
        raise refuse(entry.where, f"{len(found)} arrays of weights, expected {len(shapes)}: {', '.join(shapes)}")
    for weight, (name, shape) in zip(found, shapes.items(), strict=True):
        fits = len(weight.shape) == len(shape)
        if not fits or 0 in weight.shape or any(n not in (None, m) for n, m in zip(shape, weight.shape, strict=True)):
            expected = str(shape).replace("None", "any")
            raise refuse(entry.where, f"{name} {tuple(weight.shape)}, its configuration says {expected}")
        if weight.dtype.kind != "f":
            raise refuse(entry.where, f"{name} of type {weight.dtype}", "give the model in float32 or float64")
    return {name: finite(entry.where, name, weight[()]) for weight, name in zip(found, shapes, strict=True)}
