"""The calls in the configuration of a Functional model, which Keras 2 and Keras 3 write differently.

Operations on tensors, like (x - 1) / 2 or x[:, -1], get the names that Keras 3 gives to them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

# The operations of Keras 2, by the function that it names.
_OF_KERAS_2: Final = {
    "__operators__.add": "Add",
    "__operators__.getitem": "GetItem",
    "concat": "Concatenate",
    "math.add": "Add",
    "math.divide": "Divide",
    "math.multiply": "Multiply",
    "math.negative": "Negative",
    "math.sigmoid": "Sigmoid",
    "math.subtract": "Subtract",
    "math.tanh": "Tanh",
    "math.truediv": "TrueDivide",
    "nn.log_softmax": "LogSoftmax",
    "nn.relu": "Relu",
    "nn.softmax": "Softmax",
    "reverse": "Flip",
}
_SECOND_OPERANDS: Final = ("x2", "y", "key", "slice_spec")  # what they are called, if they are named

ALL: Final = slice(None)
TURNED: Final = slice(None, None, -1)


class Tensor(NamedTuple):
    """A result of a layer, in the arguments of a call."""

    layer: str
    position: int


class Call(NamedTuple):
    arguments: list[Any]
    keywords: dict[str, Any]


def kind_of(layer: Mapping[str, Any]) -> str:
    """The name of its class, or of its operation."""
    kind = str(layer["class_name"])
    if kind in ("TFOpLambda", "SlicingOpLambda"):
        return _OF_KERAS_2.get(layer["config"]["function"], kind)
    return kind


def read_call(call: Any) -> Call:
    """A call as Keras 3 writes it, {"args": ..., "kwargs": ...}, or Keras 2, [[layer, node, result, kwargs], ...]."""
    if isinstance(call, Mapping):
        arguments = [_value(value) for value in call["args"]]
        keywords = {key: _value(value) for key, value in call["kwargs"].items()}
    else:
        calls = [call] if call and isinstance(call[0], str) else call
        arguments = [_value(tensor[:3]) for tensor in calls]
        keywords = {
            key: _value(value) for tensor in calls for key, value in (tensor[3] if len(tensor) > 3 else {}).items()
        }
    return Call(arguments + [keywords.pop(key) for key in _SECOND_OPERANDS if key in keywords], keywords)


def _value(value: Any) -> Any:
    """An argument, its tensors as `Tensor`, its slices as slices."""
    if isinstance(value, Mapping):
        if value.get("class_name") == "__keras_tensor__":
            layer, _, position = value["config"]["keras_history"]
            return Tensor(str(layer), int(position))
        parts = value["config"] if value.get("class_name") == "__slice__" else value
        return (
            slice(parts["start"], parts["stop"], parts["step"]) if parts.keys() == {"start", "stop", "step"} else value
        )
    if isinstance(value, (list, tuple)):
        if len(value) == 3 and value[0] == "_CONSTANT_VALUE":
            return value[2]
        is_tensor = len(value) == 3 and isinstance(value[0], str) and all(isinstance(n, int) for n in value[1:])
        return Tensor(value[0], value[2]) if is_tensor else [_value(item) for item in value]
    return value


def tensors_in(value: Any) -> Iterator[Tensor]:
    """All tensors in an argument, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, Mapping)):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from tensors_in(item)


def end_tensors(ends: Any) -> list[Tensor]:
    """The tensors of ["name", 0, 0], [["name", 0, 0]] or {"key": ["name", 0, 0]}, inputs or outputs of a model."""
    return list(tensors_in(_value(list(ends.values()) if isinstance(ends, Mapping) else ends)))


def names_of(ends: Any) -> Any:
    """["name", 0, 0] as "name", wherever in lists and mappings it is."""
    if isinstance(ends, Mapping):
        return {key: names_of(value) for key, value in ends.items()}
    value = _value(ends)
    return value.layer if isinstance(value, Tensor) else [names_of(item) for item in ends]
