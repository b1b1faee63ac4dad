"""Operations on constants: weights that an exporter cuts and joins in the graph, and arithmetic on shapes.

Whole numbers that depend on free sizes are `Size` objects in an array of objects; numpy does the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from quantgru.errors import ModelError
from quantgru.importers.onnx_algebra import Algebra
from quantgru.importers.onnx_graph import FLOATS, Node
from quantgru.importers.onnx_sizes import Size, agree

Array = npt.NDArray[Any]
Arrays = Sequence[Array | None]

ENTRIES_LIMIT: Final = 1 << 16  # of a shape, an index and the like

_ELEMENTWISE: Final[dict[str, Callable[..., Any]]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Neg": np.negative,
    "Sqrt": np.sqrt,
    "Reciprocal": np.reciprocal,
    "Equal": np.equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "And": np.logical_and,
    "Or": np.logical_or,
    "Not": np.logical_not,
    "Where": np.where,
}
# ONNX's numbers of element types; bfloat16, which numpy has not, is none that exporters cast constants to.
_TYPES: Final[dict[int, type[Any]]] = {
    1: np.float32,
    2: np.uint8,
    3: np.int8,
    4: np.uint16,
    5: np.int16,
    6: np.int32,
    7: np.int64,
    9: np.bool_,
    10: np.float16,
    11: np.float64,
    12: np.uint32,
    13: np.uint64,
}
_LOGICAL: Final = frozenset(("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"))


def given(node: Node, arguments: Sequence[Any], i: int) -> Any:
    """Argument i, None where it is absent."""
    return arguments[i] if i < len(arguments) else None


def required(node: Node, arguments: Sequence[Any], i: int) -> Any:
    value = given(node, arguments, i)
    if value is None:
        raise ModelError(f"{node.where}: input {i} is absent, which the operator needs")
    return value


def integers(node: Node, arguments: Sequence[Any], i: int, attribute: str) -> list[Any] | None:
    """Whole numbers that are an attribute in old opsets, and input i in new ones; None where neither is there."""
    if attribute in node.attributes:
        values = node.attributes[attribute]
        return [int(values)] if isinstance(values, int) else [int(value) for value in values]
    value = given(node, arguments, i)
    if value is None:
        return None
    if not isinstance(value, np.ndarray):
        raise ModelError(f"{node.where}: {attribute} is computed from data, supported are constants")
    return [plain(entry) for entry in whole(node, value)]


def whole(node: Node, array: Array) -> list[Any]:
    """The elements of a constant of whole numbers, as int or Size."""
    if array.dtype.kind not in "iuO" or array.size > ENTRIES_LIMIT:
        raise ModelError(f"{node.where}: expected whole numbers, not {array.dtype} {array.shape}")
    entries: list[Any] = array.reshape(-1).tolist()
    if not all(isinstance(entry, (int, Size)) for entry in entries):
        raise ModelError(f"{node.where}: expected whole numbers, not {entries[:4]}")
    return entries


def plain(value: Any) -> Any:
    """A Size as int, where it is a number; else as it is."""
    number = value.number if isinstance(value, Size) else value
    return value if number is None else int(number)


def fold(algebra: Algebra, node: Node, arguments: Arrays) -> list[Any] | None:
    """The results of a node whose inputs are all constants; None where it is not one for constants."""
    function = _elementwise if node.kind in _ELEMENTWISE else _OPERATORS.get(node.kind)
    if function is None:
        return None
    result = function(algebra, node, arguments)
    return result if isinstance(result, list) else [result]


def _elementwise(algebra: Algebra, node: Node, arguments: Arrays) -> Array:
    arrays = [required(node, arguments, i) for i in range(len(arguments))]
    algebra.spend(prod(np.broadcast_shapes(*(array.shape for array in arrays))))
    result = np.asarray(_ELEMENTWISE[node.kind](*map(_double, arrays)))
    return result.astype(np.bool_) if node.kind in _LOGICAL else result


def _double(array: Array) -> Array:
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def _div(algebra: Algebra, node: Node, arguments: Arrays) -> Array:
    a, b = (required(node, arguments, i) for i in (0, 1))
    algebra.spend(prod(np.broadcast_shapes(a.shape, b.shape)))
    a, b = _double(a), _double(b)
    if a.dtype.kind == "f":
        return np.asarray(a / b)
    if b.dtype != object and not b.all():
        raise ModelError(f"{node.where}: a whole number divided by zero")
    if a.dtype == object or b.dtype == object:
        return np.asarray(np.frompyfunc(_quotient, 2, 1)(a, b), dtype=object)
    return np.asarray(np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b)))  # cut, not rounded down


def _quotient(a: Any, b: Any) -> Size:
    """Of a size; of floats too, which sizes stay if they are cast to such. Raises ModelError."""
    dividend, divisor = Size.of(a), Size.of(b)
    quotient = Size.of(dividend // divisor)
    if float in (type(a), type(b)) and not agree(quotient * divisor, dividend):
        raise ModelError(f"the size {a} divided by {b} is no whole number")
    return quotient


def _cast(algebra: Algebra, node: Node, arguments: Arrays) -> Array:
    array = required(node, arguments, 0)
    kind = node.attributes["to"]
    if array.dtype == object and kind in FLOATS:  # a free size stays a whole number, for whose arithmetic is exact
        numbers = [plain(entry) for entry in whole(node, array)]
        if any(isinstance(number, Size) for number in numbers):
            return np.asarray(array)
        array = np.array(numbers, dtype=np.float64).reshape(array.shape)
    if array.dtype == object:
        return np.asarray((array != 0).astype(np.bool_) if kind == 9 else array)
    if kind not in _TYPES:
        raise ModelError(f"{node.where}: to elements of type {kind}")
    algebra.spend(2 * array.size)
    converted = array.astype(_TYPES[kind])
    return np.asarray(converted if kind == 9 else converted.astype(np.float64 if kind in FLOATS else np.int64))


def _gather(algebra: Algebra, node: Node, arguments: Arrays) -> Array:
    data, index = (required(node, arguments, i) for i in (0, 1))
    axis = node.attributes["axis"]
    numbers = _numbers(node, index)
    algebra.spend(numbers.size * (data.size // max(1, data.shape[axis])))
    return np.asarray(np.take(data, numbers, axis=axis))


def _numbers(node: Node, array: Array) -> npt.NDArray[np.int64]:
    """Whole numbers that depend on no free size."""
    if array.dtype.kind in "iu":
        return array.astype(np.int64)
    entries = [plain(entry) for entry in whole(node, array)]
    if not all(isinstance(entry, int) for entry in entries):
        raise ModelError(f"{node.where}: an index that depends on a free size")
    return np.array(entries, dtype=np.int64).reshape(array.shape)


def slices(node: Node, arguments: Sequence[Any], rank: int) -> dict[int, tuple[Any, Any, int]]:
    """Of a Slice, by axis: start, end and step; start and end may be sizes."""
    starts, ends = (integers(node, arguments, i, name) for i, name in ((1, "starts"), (2, "ends")))
    if starts is None or ends is None:
        raise ModelError(f"{node.where}: no starts or ends")
    axes = integers(node, arguments, 3, "axes")
    steps = integers(node, arguments, 4, "steps")
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        raise ModelError(f"{node.where}: {len(starts)} starts, {len(ends)} ends, {len(axes)} axes, steps {steps[:8]}")
    result = {}
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if not isinstance(axis, int) or not -rank <= axis < rank or not isinstance(step, int):
            raise ModelError(f"{node.where}: axis {axis} of a tensor of {rank} axes")
        result[axis % rank] = start, end, step
    return result


def _slice(algebra: Algebra, node: Node, arguments: Arrays) -> Array:
    data = required(node, arguments, 0)
    index: list[Any] = [slice(None)] * data.ndim
    for axis, (start, end, step) in slices(node, arguments, data.ndim).items():
        if isinstance(start, Size) or isinstance(end, Size):
            raise ModelError(f"{node.where}: cuts constants by a free size")
        # Below the start, ONNX stops at it; numpy would count from the end.
        index[axis] = slice(start, None if end < -data.shape[axis] and step < 0 else end, step)
    return np.asarray(data[tuple(index)])


def _split(algebra: Algebra, node: Node, arguments: Arrays) -> list[Array]:
    data = required(node, arguments, 0)
    axis = node.attributes["axis"]
    cuts = np.cumsum(split_sizes(node, arguments, data.shape[axis]))[:-1]
    return np.split(data, cuts, axis=axis)


def split_sizes(node: Node, arguments: Sequence[Any], total: int) -> list[int]:
    """The sizes of the parts of a Split of an axis of this size."""
    sizes = integers(node, arguments, 1, "split")
    count = len(node.outputs)
    if sizes is None:
        size = -(-total // count)  # of opset 18 on, the last part may be smaller
        sizes = [size] * (count - 1) + [total - size * (count - 1)]
    if len(sizes) != count or any(not isinstance(size, int) or size < 1 for size in sizes) or sum(sizes) != total:
        raise ModelError(f"{node.where}: {total} entries into {count} parts of {sizes[:8]}")
    return sizes


def _concat(algebra: Algebra, node: Node, arguments: Arrays) -> Array:
    arrays: list[Array] = [required(node, arguments, i) for i in range(len(arguments))]
    algebra.spend(sum(array.size for array in arrays))
    if any(array.dtype == object for array in arrays):
        arrays = [array.astype(object) for array in arrays]
    joined: Array = np.concatenate(arrays, axis=node.attributes["axis"])
    return joined


def _unsqueeze(algebra: Algebra, node: Node, arguments: Arrays) -> Array:
    axes = integers(node, arguments, 1, "axes")
    return np.expand_dims(required(node, arguments, 0), tuple(axes or ()))


def _squeeze(algebra: Algebra, node: Node, arguments: Arrays) -> Array:
    axes = integers(node, arguments, 1, "axes")
    return np.asarray(np.squeeze(required(node, arguments, 0), None if axes is None else tuple(axes)))


def _reshape(algebra: Algebra, node: Node, arguments: Arrays) -> Array:
    data = required(node, arguments, 0)
    shape = integers(node, arguments, 1, "shape")
    if shape is None or any(isinstance(size, Size) for size in shape):
        raise ModelError(f"{node.where}: reshapes a constant to a free size")
    algebra.spend(data.size)
    if not node.attributes.get("allowzero"):
        shape = [data.shape[i] if size == 0 else size for i, size in enumerate(shape)]
    return np.asarray(data.reshape(shape))


def _flatten(algebra: Algebra, node: Node, arguments: Arrays) -> Array:
    data = required(node, arguments, 0)
    axis = node.attributes["axis"] % (data.ndim + 1) if node.attributes["axis"] < 0 else node.attributes["axis"]
    return np.asarray(data.reshape(prod(data.shape[:axis]), -1))


def _transpose(algebra: Algebra, node: Node, arguments: Arrays) -> Array:
    return np.transpose(required(node, arguments, 0), node.attributes.get("perm"))


def _shape(algebra: Algebra, node: Node, arguments: Arrays) -> Array:
    shape = required(node, arguments, 0).shape
    return np.array(shape[node.attributes.get("start", 0) : node.attributes.get("end")], dtype=np.int64)


def _range(algebra: Algebra, node: Node, arguments: Arrays) -> Array:
    start, limit, delta = (int(_numbers(node, required(node, arguments, i)).reshape(())) for i in range(3))
    numbers = range(start, limit, delta)
    algebra.spend(len(numbers))
    return np.array(numbers, dtype=np.int64)


def _reduce_prod(algebra: Algebra, node: Node, arguments: Arrays) -> Array:
    data = required(node, arguments, 0)
    if data.ndim != 1:
        raise ModelError(f"{node.where}: of a constant of {data.ndim} axes, supported is one")
    result = np.asarray(np.prod(data))
    return result.reshape(1) if node.attributes["keepdims"] else result


def _constant(algebra: Algebra, node: Node, arguments: Arrays) -> Array:
    values = [value for name, value in node.attributes.items() if name.startswith("value")]
    if len(values) != 1 or not isinstance(values[0], (np.ndarray, float, int, tuple)):
        raise ModelError(f"{node.where}: holds {', '.join(node.attributes) or 'nothing'}, expected numbers")
    return np.asarray(values[0])


def _identity(algebra: Algebra, node: Node, arguments: Arrays) -> Array:
    return np.asarray(required(node, arguments, 0))


def _reduce_max(algebra: Algebra, node: Node, arguments: Arrays) -> Array:
    data, axes = required(node, arguments, 0), integers(node, arguments, 1, "axes")
    if data.ndim == 0 or (not axes and node.attributes.get("noop_with_empty_axes")):
        return np.asarray(data)
    keep = bool(node.attributes["keepdims"])
    return np.asarray(np.max(data, axis=tuple(axes) if axes else None, keepdims=keep))


_OPERATORS: Final[dict[str, Callable[[Algebra, Node, Arrays], Any]]] = {
    "Cast": _cast,
    "Concat": _concat,
    "Constant": _constant,
    "Div": _div,
    "Flatten": _flatten,
    "Gather": _gather,
    "Identity": _identity,
    "Range": _range,
    "ReduceMax": _reduce_max,
    "ReduceProd": _reduce_prod,
    "Reshape": _reshape,
    "Shape": _shape,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
