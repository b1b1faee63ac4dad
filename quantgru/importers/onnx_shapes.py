"""Operators that move and reshape axes, ask for sizes, and make tensors of sizes; and those that change nothing."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, Final

import numpy as np

from quantgru.errors import ModelError
from quantgru.importers.chain import refuse
from quantgru.importers.onnx_atoms import Input, Reversed, Step, of_atom
from quantgru.importers.onnx_constants import given, integers, plain, required, whole
from quantgru.importers.onnx_graph import FLOATS, Body, Node
from quantgru.importers.onnx_reader import Operator, Reader, Value
from quantgru.importers.onnx_sizes import Size, agree, product
from quantgru.importers.onnx_tensors import (
    Axis,
    Tensor,
    numbered,
    pick,
    position,
    reshape,
    transpose,
    unsqueeze,
)

Arguments = Sequence[Value | None]

_NO_MASKS: Final = "export without masks and conditions; run(x, mask=...) leaves steps out"


def tensor_at(node: Node, arguments: Arguments, i: int) -> Tensor:
    value = required(node, arguments, i)
    if not isinstance(value, Tensor):
        raise refuse(node.where, f"input {i} is a constant, and another is computed from data")
    return value


def identity(reader: Reader, node: Node, arguments: Arguments) -> list[Value]:
    return [tensor_at(node, arguments, 0)]


def dropout(reader: Reader, node: Node, arguments: Arguments) -> list[Value]:
    training = given(node, arguments, 2)
    if training is not None and not (isinstance(training, np.ndarray) and not training.any()):
        raise refuse(node.where, "in training mode", "export the model in evaluation mode")
    return [tensor_at(node, arguments, 0)]


def cast(reader: Reader, node: Node, arguments: Arguments) -> list[Value]:
    tensor = tensor_at(node, arguments, 0)
    if node.attributes["to"] in FLOATS:
        return [Tensor(tensor.axes, tensor.vectors)]
    if node.attributes["to"] == 9:
        raise refuse(node.where, "a condition that is computed from data", _NO_MASKS)
    if not tensor.integer:
        reader.tokens.add(whole_numbers(node.where, tensor, "makes whole numbers of what was computed").name)
    return [Tensor(tensor.axes, tensor.vectors, integer=True)]


def whole_numbers(where: str, tensor: Tensor, otherwise: str) -> Input:
    """The input that a tensor of tokens or lengths is. Raises ModelError."""
    atom = tensor.vectors[0].only if len(tensor.vectors) == 1 else None
    while isinstance(atom, (Step, Reversed)):
        atom = atom.of
    if not isinstance(atom, Input):
        raise refuse(where, otherwise, "token numbers and lengths must be inputs of the model")
    return atom


def less(reader: Reader, node: Node, arguments: Arguments) -> list[Value]:
    """Whether tokens are negative, which PyTorch would count from the end: they are not."""
    tensor, limit = required(node, arguments, 0), required(node, arguments, 1)
    if not (isinstance(tensor, Tensor) and tensor.integer and isinstance(limit, np.ndarray) and not limit.any()):
        return comparison(reader, node, arguments)
    reader.tokens.add(whole_numbers(node.where, tensor, "a comparison of what was computed").name)
    return [np.zeros((), dtype=np.bool_)]


def comparison(reader: Reader, node: Node, arguments: Arguments) -> list[Value]:
    raise refuse(node.where, "a comparison of data", _NO_MASKS)


def where(reader: Reader, node: Node, arguments: Arguments) -> list[Value]:
    condition, yes, no = (required(node, arguments, i) for i in range(3))
    if not isinstance(condition, np.ndarray) or not (condition.all() or not condition.any()):
        raise refuse(node.where, "chooses by data", _NO_MASKS)
    chosen, other = (yes, no) if condition.all() else (no, yes)
    axes = chosen.axes if isinstance(chosen, Tensor) else chosen.shape
    for part in (condition.shape, other.axes if isinstance(other, Tensor) else other.shape):
        own = axes[len(axes) - len(part) :]
        if len(part) > len(axes) or any(a not in (1, b) for a, b in zip(part, own, strict=True)):
            raise refuse(node.where, "spreads what it chooses over other axes")
    return [chosen]


def condition(reader: Reader, node: Node, arguments: Arguments) -> list[Value]:
    """What the branch gives that is taken at all sizes: PyTorch writes squeeze(axis) so."""
    chosen = required(node, arguments, 0)
    if not isinstance(chosen, np.ndarray) or chosen.size != 1 or chosen.dtype != np.bool_:
        raise refuse(node.where, "a condition that is computed from data", _NO_MASKS)
    body = node.attributes.get("then_branch" if chosen.all() else "else_branch")
    if not isinstance(body, Body) or body.inputs or len(body.outputs) != len(node.outputs):
        raise ModelError(f"{node.where}: its graphs have not {len(node.outputs)} outputs, or have inputs")
    return reader.run_body(body, body.outputs, {})


def shape(reader: Reader, node: Node, arguments: Arguments) -> list[Value]:
    sizes = tensor_at(node, arguments, 0).shape[node.attributes.get("start", 0) : node.attributes.get("end")]
    array = np.empty(len(sizes), dtype=object)
    array[:] = [plain(size) if all(not monomial for monomial in size.terms) else size for size in sizes]
    return [array]


def op_transpose(reader: Reader, node: Node, arguments: Arguments) -> list[Value]:
    tensor = tensor_at(node, arguments, 0)
    order = node.attributes.get("perm", tuple(range(len(tensor.axes)))[::-1])
    return [transpose(reader.algebra, node.where, tensor, order)]


def op_reshape(reader: Reader, node: Node, arguments: Arguments) -> list[Value]:
    tensor = tensor_at(node, arguments, 0)
    target = sizes_at(node, arguments, 1)
    axes = reshape(node.where, tensor, target, zero_copies=not node.attributes.get("allowzero"))
    return [Tensor(axes, tensor.vectors, tensor.integer)]


def sizes_at(node: Node, arguments: Arguments, i: int) -> list[Size | int]:
    """A shape that the graph computes. Free sizes stay symbols, even of a known number."""
    value = required(node, arguments, i)
    if not isinstance(value, np.ndarray) or value.ndim != 1:
        raise refuse(node.where, "a shape that is computed from data")
    return whole(node, value)


def flatten(reader: Reader, node: Node, arguments: Arguments) -> list[Value]:
    tensor, axis = tensor_at(node, arguments, 0), node.attributes["axis"]
    rank = len(tensor.axes)
    cut = rank if axis == rank else position(node.where, axis, rank)
    halves = [product(tensor.shape[:cut]), product(tensor.shape[cut:])]
    return [Tensor(reshape(node.where, tensor, halves), tensor.vectors, tensor.integer)]


def squeeze(reader: Reader, node: Node, arguments: Arguments) -> list[Value]:
    tensor, chosen = tensor_at(node, arguments, 0), integers(node, arguments, 1, "axes")
    rank = len(tensor.axes)
    if chosen is None:
        gone = {i for i, size in enumerate(tensor.shape) if agree(size, 1)}
    else:
        gone = {position(node.where, axis, rank) for axis in chosen}
    if any(not agree(tensor.shape[i], 1) for i in gone):
        raise refuse(node.where, f"takes axes {sorted(gone)} of {tensor} away, which are not all of size 1")
    kept = tuple(axis for i, axis in enumerate(tensor.axes) if i not in gone)
    return [Tensor(kept, tensor.vectors, tensor.integer)]


def op_unsqueeze(reader: Reader, node: Node, arguments: Arguments) -> list[Value]:
    axes = integers(node, arguments, 1, "axes")
    return [unsqueeze(node.where, tensor_at(node, arguments, 0), axes or [])]


def expand(reader: Reader, node: Node, arguments: Arguments) -> list[Value]:
    return [spread(reader, node.where, required(node, arguments, 0), sizes_at(node, arguments, 1))]


def tile(reader: Reader, node: Node, arguments: Arguments) -> list[Value]:
    """Only of axes of size 1: an initial state for every sequence."""
    value, times = required(node, arguments, 0), sizes_at(node, arguments, 1)
    sizes = value.shape
    if len(sizes) != len(times) or not all(agree(size, 1) or agree(n, 1) for size, n in zip(sizes, times, strict=True)):
        raise refuse(node.where, "repeats more than one entry")
    return [spread(reader, node.where, value, [n * size for size, n in zip(sizes, times, strict=True)])]


def constant_of_shape(reader: Reader, node: Node, arguments: Arguments) -> list[Value]:
    value = node.attributes.get("value", np.zeros(1, dtype=np.float32))
    if value.size != 1:
        raise ModelError(f"{node.where}: a value of {value.size} elements, expected one")
    return [spread(reader, node.where, value.reshape(()), sizes_at(node, arguments, 0))]


def spread(reader: Reader, where: str, value: Value, target: Sequence[Size | int]) -> Value:
    """A value repeated to a shape; along free axes, the same for all."""
    source = value.axes if isinstance(value, Tensor) else value.shape
    rank = max(len(source), len(target))
    old: list[Any] = [1] * (rank - len(source)) + list(source)
    new = [Size.of(1)] * (rank - len(target)) + [Size.of(size) for size in target]
    axes: list[Axis] = []
    for before, after in zip(old, new, strict=True):
        free = isinstance(before, tuple)
        if after.symbols and before == 1:
            axes.append(after.symbols)
        elif free or agree(after, 1) or (not after.symbols and after.number == before):
            if free and not agree(after, 1) and not agree(after, product(before)):
                raise refuse(where, f"spreads {value} to another shape")
            axes.append(before)
        elif after.number is not None and after.number > 0 and before in (1, after.number):
            axes.append(after.number)
        else:
            raise refuse(where, f"spreads an axis of size {before} to {after}")
    return _spread(reader, where, value, axes)


def _spread(reader: Reader, where: str, value: Value, axes: Sequence[Axis]) -> Value:
    """To these axes; free ones stay free."""
    shape = [axis if isinstance(axis, int) else 1 for axis in axes]
    reader.algebra.spend(prod(shape))
    if isinstance(value, Tensor):
        old = numbered(value).reshape([1] * (len(axes) - len(value.axes)) + list(numbered(value).shape))
        rows = np.broadcast_to(old, shape).reshape(-1)
        return Tensor(tuple(axes), pick(reader.algebra, value.vectors, rows), value.integer)
    if all(isinstance(axis, int) for axis in axes):
        return np.broadcast_to(value, shape)
    flat = np.broadcast_to(value, shape).reshape(-1)
    integer = flat.dtype.kind not in "f"
    atom = reader.algebra.constant(flat if flat.dtype == object else flat.astype(np.float64))
    return Tensor(tuple(axes), (of_atom(atom),), integer)


OPERATORS: Final[dict[str, Operator]] = {
    "Cast": cast,
    "ConstantOfShape": constant_of_shape,
    "Dropout": dropout,
    "Equal": comparison,
    "Expand": expand,
    "Flatten": flatten,
    "Greater": comparison,
    "GreaterOrEqual": comparison,
    "Identity": identity,
    "If": condition,
    "Less": less,
    "LessOrEqual": comparison,
    "Reshape": op_reshape,
    "Shape": shape,
    "Squeeze": squeeze,
    "Tile": tile,
    "Transpose": op_transpose,
    "Unsqueeze": op_unsqueeze,
    "Where": where,
}
