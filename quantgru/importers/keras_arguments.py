"""Arguments and weights of one Keras layer: their types, and whether the one fits the other.

Weights come as arrays or as data sets of a file: both have shape and dtype, which are compared before anything is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from quantgru.array_types import FloatArray
from quantgru.importers.chain import refuse
from quantgru.importers.gates import finite

Shape = tuple[int | None, ...]

SHOWN: Final = 48  # characters of something foreign in a message

OWN_FUNCTION: Final = "a function of your own"


def shown(value: Any) -> str:
    """A value out of a configuration in a message of one line."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def plain(text: object) -> str:
    """The same without quotes, for words like the name of a class."""
    text = str(text)
    return text if text.isprintable() and len(text) <= SHOWN else shown(text)


def want(where: str, config: Mapping[str, Any], allowed: Mapping[str, Any]) -> None:
    """Raises ModelError for an argument with another value than the allowed one; an absent one has Keras's default."""
    for key, value in allowed.items():
        found = config.get(key, value)
        if found != value:
            raise refuse(where, f"{key}={shown(found)}, only {value!r} is supported", f"train it with {key}={value!r}")


def flag(where: str, config: Mapping[str, Any], key: str, absent: bool | None = None) -> bool:
    """An argument that is true or false; `absent` is what it is if it is not there, None for an error."""
    found = config[key] if absent is None else config.get(key, absent)
    if not isinstance(found, bool):
        raise refuse(where, f"{key}={shown(found)}, expected true or false")
    return found


def positive(where: str, config: Mapping[str, Any], key: str) -> int:
    if not isinstance(config[key], int) or config[key] < 1:
        raise refuse(where, f"{key}={shown(config[key])}, expected a positive number")
    return int(config[key])


def number(where: str, config: Mapping[str, Any], key: str) -> float:
    value = config[key]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not np.isfinite(value):
        raise refuse(where, f"{key}={shown(value)}, expected a number")
    return float(value)


def constant(where: str, name: str, value: Any) -> FloatArray:
    """A number or nested lists of them, as they are or as {"class_name": "__numpy__", "config": {"value": ...}}."""
    if isinstance(value, Mapping):
        value = value["config"]["value"]
    try:
        found = np.asarray(value)
    except ValueError:  # lists of different lengths
        found = np.asarray(None)
    if found.dtype.kind not in "fiu":
        raise refuse(where, f"{name}={shown(value)}, expected numbers")
    return finite(where, name, found)


def numbers(where: str, name: str, value: Any) -> FloatArray:
    """A constant that is one number, or one for each feature."""
    found = constant(where, name, value)
    if found.ndim > 1 and found.size == found.shape[-1]:
        found = found.reshape(-1)
    if found.ndim > 1:
        raise refuse(where, f"{name} of shape {found.shape}, expected a number, or one for each feature")
    return found


def function_name(function: Any) -> str:
    """The name of an activation, which is a string, a serialized function, or None for linear."""
    if isinstance(function, Mapping):  # Keras's own functions are strings
        return f"{function.get('config', 'lambda')} ({OWN_FUNCTION})"
    return "linear" if function is None else str(function)


def function(where: str, config: Mapping[str, Any], key: str, allowed: Sequence[str]) -> Any:
    """The name of an activation that is one of those allowed."""
    found = function_name(config[key])
    if found not in allowed:
        raise refuse(where, f"{key}={shown(found)}, supported are {', '.join(allowed)}", "train it with one of these")
    return found


def arrays(where: str, found: Sequence[Any], shapes: Mapping[str, Shape]) -> dict[str, FloatArray]:
    """The weights by name, in float64. Nothing is read before its shape is what the configuration says."""
    if len(found) != len(shapes):
        raise refuse(where, f"{len(found)} arrays of weights, expected {len(shapes)}: {', '.join(shapes)}")
    for weight, (name, shape) in zip(found, shapes.items(), strict=True):
        fits = len(weight.shape) == len(shape)
        if not fits or 0 in weight.shape or any(n not in (None, m) for n, m in zip(shape, weight.shape, strict=True)):
            expected = str(shape).replace("None", "any")
            raise refuse(where, f"{name} {tuple(weight.shape)}, its configuration says {expected}")
        if weight.dtype.kind != "f":
            raise refuse(where, f"{name} of type {weight.dtype}", "give the model in float32 or float64")
    return {name: finite(where, name, weight[()]) for weight, name in zip(found, shapes, strict=True)}
