"""Operators that compute with features: products with weights, sums, functions of each feature."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from quantgru.array_types import FloatArray
from quantgru.errors import ModelError
from quantgru.importers.chain import refuse
from quantgru.importers.onnx_atoms import Vector, of_atom
from quantgru.importers.onnx_constants import given, integers, required
from quantgru.importers.onnx_graph import Node
from quantgru.importers.onnx_reader import TAKE_THE_LAST, Operator, Reader, Value
from quantgru.importers.onnx_shapes import Arguments, spread, tensor_at
from quantgru.importers.onnx_tensors import Axis, Tensor, pick, position, size_of, take, transpose, unsqueeze

Array = npt.NDArray[Any]

ENDLESS: Final = 1e30  # a limit that no value reaches; exporters write the largest float32, people write this


# ---- sums and products, feature by feature --------------------------------------------------------------------------


def add(reader: Reader, node: Node, arguments: Arguments) -> list[Value]:
    return [_sum(reader, node, arguments, 1.0)]


def sub(reader: Reader, node: Node, arguments: Arguments) -> list[Value]:
    return [_sum(reader, node, arguments, -1.0)]


def neg(reader: Reader, node: Node, arguments: Arguments) -> list[Value]:
    return [_scaled(reader, tensor_at(node, arguments, 0), np.asarray(-1.0))]


def _sum(reader: Reader, node: Node, arguments: Arguments, sign: float) -> Tensor:
    a, b = _aligned(reader, node, arguments)
    algebra, factor = reader.algebra, np.asarray(sign)
    if isinstance(b, np.ndarray):
        return _each(a, [algebra.shifted(v, s * sign) for v, s in _with(a, b)])
    if isinstance(a, np.ndarray):
        return _each(b, [algebra.shifted(algebra.scaled(v, factor), s) for v, s in _with(b, a)])
    pairs = _same_cuts(reader, a, b)
    return _each(a, [reader.finder.plus(node.where, u, algebra.scaled(v, factor)) for u, v in pairs])


def mul(reader: Reader, node: Node, arguments: Arguments) -> list[Value]:
    a, b = _aligned(reader, node, arguments)
    if isinstance(b, np.ndarray):
        return [_scaled(reader, a, b)]
    if isinstance(a, np.ndarray):
        return [_scaled(reader, b, a)]
    products = [reader.finder.times(node.where, u, v) for u, v in _same_cuts(reader, a, b)]
    return [_each(a, products)]


def div(reader: Reader, node: Node, arguments: Arguments) -> list[Value]:
    a, b = _aligned(reader, node, arguments)
    if not isinstance(b, np.ndarray) or a.integer:
        raise refuse(node.where, "divides by something that is computed from data, or whole numbers")
    return [_scaled(reader, a, 1.0 / b)]


def reduction(is_mean: bool) -> Operator:
    """The sum or the mean along an axis of features: of the directions of a layer, for example."""

    def operator(reader: Reader, node: Node, arguments: Arguments) -> list[Value]:
        tensor, axes = tensor_at(node, arguments, 0), integers(node, arguments, 1, "axes")
        if axes is None or len(axes) != 1:
            raise refuse(node.where, "over several axes", TAKE_THE_LAST)
        axis = position(node.where, axes[0], len(tensor.axes))
        n = tensor.axes[axis]
        if not isinstance(n, int):
            raise refuse(node.where, "over steps or sequences", TAKE_THE_LAST)
        reader.algebra.spend(n * tensor.n_features)
        keep = bool(node.attributes["keepdims"])
        total, *parts = (take(reader.algebra, tensor, axis, np.array([i]), keep=keep) for i in range(n))
        for part in parts:
            total = _sum(reader, node, [total, part], 1.0)
        return [_scaled(reader, total, np.asarray(1 / n if is_mean else 1.0))]

    return operator


def _scaled(reader: Reader, tensor: Tensor, factor: Array) -> Tensor:
    return _each(tensor, [reader.algebra.scaled(vector, part) for vector, part in _with(tensor, factor)])


def _each(tensor: Tensor, vectors: Sequence[Vector]) -> Tensor:
    return Tensor(tensor.axes, tuple(vectors), tensor.integer)


def _with(tensor: Tensor, values: Array) -> list[tuple[Vector, FloatArray]]:
    """Each vector with the numbers that belong to its features; a single number stays one."""
    if values.ndim == 0:
        return [(vector, values) for vector in tensor.vectors]
    ends = np.cumsum([vector.width for vector in tensor.vectors])[:-1]
    return list(zip(tensor.vectors, np.split(values, ends), strict=True))


def _same_cuts(reader: Reader, a: Tensor, b: Tensor) -> list[tuple[Vector, Vector]]:
    """The vectors of both, cut where either ends."""
    cuts = sorted({*_ends(a), *_ends(b)})
    pieces = []
    for start, end in zip([0, *cuts], cuts, strict=False):
        rows = np.arange(start, end)
        parts = [pick(reader.algebra, tensor.vectors, rows) for tensor in (a, b)]
        pieces.append((parts[0][0], parts[1][0]))
    return pieces


def _ends(tensor: Tensor) -> list[int]:
    return [int(end) for end in np.cumsum([vector.width for vector in tensor.vectors])]


def _aligned(reader: Reader, node: Node, arguments: Arguments) -> tuple[Any, Any]:
    """Both inputs over the same axes; a constant as one number, or as one for each feature."""
    values = [required(node, arguments, i) for i in (0, 1)]
    rank = max(len(value.axes) if isinstance(value, Tensor) else value.ndim for value in values)
    axes: list[Axis] = [1] * rank
    for i, value in enumerate(values):
        if isinstance(value, Tensor):
            values[i] = unsqueeze(node.where, value, range(rank - len(value.axes)))
        else:
            values[i] = value.reshape((1,) * (rank - value.ndim) + value.shape)
        own = values[i].axes if isinstance(value, Tensor) else values[i].shape
        axes = [_common(reader, node.where, a, b) for a, b in zip(axes, own, strict=True)]
    a, b = (
        _to_axes(reader, node.where, value, axes) if isinstance(value, Tensor) else _numbers(reader, node, value, axes)
        for value in values
    )
    return a, b


def _common(reader: Reader, where: str, a: Axis, b: Axis) -> Axis:
    """The axis of a result. Raises ModelError, FeaturesNeeded where a free axis turns out to have features."""
    if a == b or b == 1:
        return a
    if a == 1:
        return b
    free, other = (a, b) if isinstance(a, tuple) else (b, a)
    if isinstance(free, tuple) and len(free) == 1:
        if isinstance(other, int) and reader.role(free[0]) is None:
            reader.want_features(free, other)
        if isinstance(other, tuple) and len(other) == 1:
            reader.join(where, free[0], other[0])
            return free
    raise refuse(where, f"computes with axes of sizes {size_of(a)} and {size_of(b)} together")


def _to_axes(reader: Reader, where: str, tensor: Tensor, axes: Sequence[Axis]) -> Tensor:
    changed = [new if old == 1 else old for old, new in zip(tensor.axes, axes, strict=True)]
    if changed == list(tensor.axes):
        return tensor
    spread_out = spread(reader, where, tensor, [size_of(axis) for axis in changed])
    assert isinstance(spread_out, Tensor)
    return spread_out


def _numbers(reader: Reader, node: Node, array: Array, axes: Sequence[Axis]) -> FloatArray:
    if array.dtype == object:
        raise refuse(node.where, "computes with data and a size together")
    if array.size == 1:
        return np.asarray(array.reshape(()), dtype=np.float64)
    shape = [axis if isinstance(axis, int) else 1 for axis in axes]
    reader.algebra.spend(prod(shape))
    return np.broadcast_to(np.asarray(array, dtype=np.float64), shape).reshape(-1)


# ---- products with weights ------------------------------------------------------------------------------------------


def matmul(reader: Reader, node: Node, arguments: Arguments) -> list[Value]:
    return [_product(reader, node, tensor_at(node, arguments, 0), _matrix(node, arguments).T)]


def gemm(reader: Reader, node: Node, arguments: Arguments) -> list[Value]:
    tensor, matrix, shift = tensor_at(node, arguments, 0), _matrix(node, arguments), given(node, arguments, 2)
    if len(tensor.axes) != 2:
        raise ModelError(f"{node.where}: its first input is {tensor}, expected two axes")
    if node.attributes["transA"]:
        tensor = transpose(reader.algebra, node.where, tensor, (1, 0))
    product = _product(reader, node, tensor, matrix if node.attributes["transB"] else matrix.T)
    result = _scaled(reader, product, np.asarray(float(node.attributes["alpha"])))
    if shift is None:
        return [result]
    if not isinstance(shift, np.ndarray):
        raise refuse(node.where, "adds something else than a constant", "biases must be constants")
    return add(reader, node, [result, shift.astype(np.float64) * node.attributes["beta"]])


def _matrix(node: Node, arguments: Arguments) -> Array:
    weights = given(node, arguments, 1)
    if not isinstance(weights, np.ndarray) or weights.ndim != 2 or weights.dtype.kind != "f":
        raise refuse(node.where, "a product with something else than a constant matrix", "weights must be constants")
    return weights


def _product(reader: Reader, node: Node, tensor: Tensor, matrix: Array) -> Tensor:
    """matrix [outputs, inputs] times the last axis."""
    outputs, inputs = matrix.shape
    if not tensor.axes:
        raise ModelError(f"{node.where}: a product with a number")
    reader.want_features(tensor.axes[-1], inputs)
    if tensor.axes[-1] != inputs:
        raise ModelError(f"{node.where}: weights of {inputs} inputs, but it reads {tensor}")
    weights = reader.algebra.double(matrix)
    vectors = []
    for first in range(0, tensor.n_features, inputs):
        part = pick(reader.algebra, tensor.vectors, np.arange(first, first + inputs))
        vectors.append(reader.finder.matmul(node.where, weights, part))
    return Tensor((*tensor.axes[:-1], outputs), tuple(vectors))


def batch_normalization(reader: Reader, node: Node, arguments: Arguments) -> list[Value]:
    tensor = tensor_at(node, arguments, 0)
    constants = [given(node, arguments, i) for i in range(1, 5)]
    if node.attributes.get("training_mode") or node.attributes.get("spatial", 1) != 1:
        raise refuse(node.where, "in training mode, or not by feature", "export the model in evaluation mode")
    if not all(isinstance(array, np.ndarray) and array.ndim == 1 for array in constants) or len(tensor.axes) < 2:
        raise refuse(node.where, "something else than constants of one axis", "export the model in evaluation mode")
    scale, shift, mean, variance = (np.asarray(array, dtype=np.float64) for array in constants)
    reader.want_features(tensor.axes[1], len(scale))
    factor = scale / np.sqrt(variance + node.attributes["epsilon"])
    shape = [-1] + [1] * (len(tensor.axes) - 2)
    scaled = mul(reader, node, [tensor, factor.reshape(shape)])
    return add(reader, node, [scaled[0], (shift - mean * factor).reshape(shape)])


# ---- functions ------------------------------------------------------------------------------------------------------


def function(name: str) -> Operator:
    """The operator that is a function of each feature."""

    def operator(reader: Reader, node: Node, arguments: Arguments) -> list[Value]:
        return [_function(reader, node.where, name, tensor_at(node, arguments, 0))]

    return operator


def _function(reader: Reader, where: str, name: str, tensor: Tensor) -> Tensor:
    vector = tensor.vectors[0]
    if len(tensor.vectors) > 1:
        vector = of_atom(reader.settle(where, tensor.vectors))
    return _each(tensor, [of_atom(reader.algebra.function(where, name, vector))])


def hard_sigmoid(reader: Reader, node: Node, arguments: Arguments) -> list[Value]:
    """Its slope and offset become part of what it reads."""
    alpha, beta = float(node.attributes["alpha"]), float(node.attributes["beta"])
    slope = _affine(reader, tensor_at(node, arguments, 0), alpha, beta - 0.5)
    return [_function(reader, node.where, "hard_sigmoid", slope)]


def _affine(reader: Reader, tensor: Tensor, scale: float, shift: float) -> Tensor:
    scaled = _scaled(reader, tensor, np.asarray(scale))
    return _each(scaled, [reader.algebra.shifted(vector, np.asarray(shift)) for vector in scaled.vectors])


def clip(reader: Reader, node: Node, arguments: Arguments) -> list[Value]:
    tensor = tensor_at(node, arguments, 0)
    low, high = (_limit(node, arguments, i, name) for i, name in ((1, "min"), (2, "max")))
    where = f"{node.where} to {low:g} ... {high:g}"
    if low <= -ENDLESS and high >= ENDLESS:
        return [tensor]
    if (low, high) == (-1, 1):
        return [_function(reader, where, "hard_tanh", tensor)]
    if low == 0 and high >= ENDLESS:
        return [_function(reader, where, "relu", tensor)]
    if low != 0 or not high > 0:
        raise refuse(where, "limits that no activation has")
    gate = _function(reader, where, "hard_sigmoid", _affine(reader, tensor, 1 / high, -0.5))
    return [_scaled(reader, gate, np.asarray(high))]  # in a GRU, a gate: Keras writes clip(x + 3, 0, 6) / 6


def maximum(reader: Reader, node: Node, arguments: Arguments) -> list[Value]:
    """With zero, as PyTorch writes clamp(min=0)."""
    constants = [value for value in arguments if isinstance(value, np.ndarray)]
    tensors = [value for value in arguments if isinstance(value, Tensor)]
    if len(tensors) != 1 or any(constant.size != 1 or constant.any() for constant in constants):
        raise refuse(node.where, "a maximum of something else than data and zero")
    return [_function(reader, node.where, "relu", tensors[0])]


def _limit(node: Node, arguments: Arguments, i: int, name: str) -> float:
    value = given(node, arguments, i)
    if value is None:
        return float(node.attributes.get(name, -np.inf if name == "min" else np.inf))
    if not isinstance(value, np.ndarray) or value.size != 1 or value.dtype == object:
        raise refuse(node.where, "limits that are computed from data")
    return float(value.reshape(()))


def softmax(name: str) -> Operator:
    def operator(reader: Reader, node: Node, arguments: Arguments) -> list[Value]:
        tensor, axis = tensor_at(node, arguments, 0), node.attributes["axis"]
        last = len(tensor.axes) - 1
        if position(node.where, axis, len(tensor.axes)) != last or tensor.axes[last] != tensor.n_features:
            raise refuse(node.where, f"{name} over axis {axis} of {tensor}", "use the last axis")
        return [_function(reader, node.where, name, tensor)]

    return operator


OPERATORS: Final[dict[str, Operator]] = {
    "Add": add,
    "BatchNormalization": batch_normalization,
    "Clip": clip,
    "Div": div,
    "Gemm": gemm,
    "HardSigmoid": hard_sigmoid,
    "LogSoftmax": softmax("log_softmax"),
    "MatMul": matmul,
    "Max": maximum,
    "Mul": mul,
    "Neg": neg,
    "ReduceMean": reduction(is_mean=True),
    "ReduceSum": reduction(is_mean=False),
    "Relu": function("relu"),
    "Sigmoid": function("sigmoid"),
    "Softmax": softmax("softmax"),
    "Sub": sub,
    "Tanh": function("tanh"),
}
