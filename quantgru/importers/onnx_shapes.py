"""Operators that move, cut and join axes, and those that make tensors of sizes."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, Final

import numpy as np

from quantgru.errors import ModelError
from quantgru.importers.chain import refuse
from quantgru.importers.onnx_algebra import Embedded, Input, Reversed, Step, of_atom
from quantgru.importers.onnx_constants import given, integers, plain, required, slices, split_sizes
from quantgru.importers.onnx_graph import FLOATS, Node
from quantgru.importers.onnx_reader import Operator, Reader, Value, is_whole, same_constant
from quantgru.importers.onnx_sizes import Size, Symbol, agree
from quantgru.importers.onnx_tensors import (
    Axis,
    Tensor,
    explode,
    numbered,
    pick,
    position,
    reshape,
    reverse,
    single,
    step_of,
    take,
    transpose,
    unsqueeze,
)

Arguments = Sequence[Value | None]

FAR: Final = (1 << 31) - 1  # in slices, exporters write "to the end" as 2**31 - 1, 2**63 - 1 and the like


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
        raise refuse(node.where, "a condition that is computed from data", "export without masks")
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
    tensor, limit = tensor_at(node, arguments, 0), required(node, arguments, 1)
    if not (tensor.integer and isinstance(limit, np.ndarray) and not limit.any()):
        raise refuse(node.where, "a comparison of data", "export without masks and conditions")
    reader.tokens.add(whole_numbers(node.where, tensor, "a comparison of what was computed").name)
    return [np.zeros((), dtype=np.bool_)]


def where(reader: Reader, node: Node, arguments: Arguments) -> list[Value]:
    condition, yes, no = (required(node, arguments, i) for i in range(3))
    if not isinstance(condition, np.ndarray) or not (condition.all() or not condition.any()):
        raise refuse(node.where, "chooses by data", "export without masks and conditions")
    chosen, other = (yes, no) if condition.all() else (no, yes)
    rank = len(chosen.axes) if isinstance(chosen, Tensor) else -1
    ranks = (condition.ndim, len(other.axes) if isinstance(other, Tensor) else other.ndim)
    if max(ranks) > rank:
        raise refuse(node.where, "spreads what it chooses over more axes")
    return [chosen]


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
    if not isinstance(value, np.ndarray) or value.ndim != 1 or value.dtype.kind not in "iuO":
        raise refuse(node.where, "a shape that is computed from data")
    entries = value.tolist()
    if not all(isinstance(entry, (int, Size)) for entry in entries):
        raise ModelError(f"{node.where}: a shape of {entries[:4]}")
    return entries


def flatten(reader: Reader, node: Node, arguments: Arguments) -> list[Value]:
    tensor, axis = tensor_at(node, arguments, 0), node.attributes["axis"]
    rank = len(tensor.axes)
    cut = rank if axis == rank else position(node.where, axis, rank)
    halves = [_product(tensor.shape[:cut]), _product(tensor.shape[cut:])]
    return [Tensor(reshape(node.where, tensor, halves), tensor.vectors, tensor.integer)]


def _product(sizes: Sequence[Size]) -> Size:
    result = Size.of(1)
    for size in sizes:
        result = result * size
    return result


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


def op_slice(reader: Reader, node: Node, arguments: Arguments) -> list[Value]:
    tensor = tensor_at(node, arguments, 0)
    for axis, (start, end, step) in slices(node, arguments, len(tensor.axes)).items():
        size = tensor.axes[axis]
        if not isinstance(size, int):
            tensor = _slice_free(reader, node.where, tensor, axis, (start, end, step))
            continue
        if not isinstance(start, int) or not isinstance(end, int):
            raise refuse(node.where, "cuts features by a free size")
        numbers = range(size)[slice(start, None if step < 0 and end < -size else end, step)]
        if not len(numbers):
            raise refuse(node.where, f"takes nothing of {tensor}")
        tensor = take(reader.algebra, tensor, axis, np.asarray(numbers, dtype=np.int64), keep=True)
    return [tensor]


def _slice_free(reader: Reader, where: str, tensor: Tensor, axis: int, cut: tuple[Any, Any, int]) -> Tensor:
    """All steps, all steps from the end, or single ones."""
    symbol = single(where, tensor, axis)
    start, end = (_from_either_end(where, bound, symbol) for bound in cut[:2])
    step = cut[2]
    if symbol.size is not None:
        numbers = range(symbol.size)[slice(start, None if step < 0 and end < -symbol.size else end, step)]
        return _numbers_of(reader, where, tensor, axis, numbers)
    if (start, step) == (0, 1) and end >= FAR:
        return tensor
    if step == -1 and (start == -1 or start >= FAR - 1) and end <= -FAR:
        return _turned(reader, where, tensor, symbol)
    if step == 1 and ((start, end) == (0, 1) or (start == -1 and end >= FAR)):
        return _exploded(reader, where, tensor, axis, [start])
    raise refuse(where, f"takes a part of {symbol}, {start}:{end}:{step}")


def _from_either_end(where: str, bound: Any, symbol: Symbol) -> int:
    """A bound that is computed from the size of the axis, counted from its end; `FAR` is the end itself."""
    if isinstance(bound, int):
        return bound
    difference = (bound - Size.of(symbol)).number
    if difference is None or difference > 0:
        raise refuse(where, f"cuts {symbol} at {bound}")
    return FAR if difference == 0 else difference


def _numbers_of(reader: Reader, where: str, tensor: Tensor, axis: int, numbers: Sequence[int]) -> Tensor:
    """Some steps of an axis of known size: all, all from the end, or a few that become features."""
    symbol = single(where, tensor, axis)
    assert symbol.size is not None
    every = list(range(symbol.size))
    if list(numbers) == every:
        return tensor
    if list(numbers) == every[::-1]:
        return _turned(reader, where, tensor, symbol)
    if not numbers:
        raise refuse(where, f"takes nothing of {symbol}")
    return _exploded(reader, where, tensor, axis, numbers)


def _exploded(reader: Reader, where: str, tensor: Tensor, axis: int, numbers: Sequence[int]) -> Tensor:
    reader.cuts.append((where, single(where, tensor, axis)))
    return explode(reader.algebra, where, tensor, axis, numbers)


def _turned(reader: Reader, where: str, tensor: Tensor, symbol: Symbol) -> Tensor:
    reader.cuts.append((where, symbol))
    reader.bind(where, symbol, "steps")
    return reverse(reader.algebra, where, tensor)


def reverse_sequence(reader: Reader, node: Node, arguments: Arguments) -> list[Value]:
    """Of sequences that are all as long as they can be; with lengths, as far as a GRU with the same lengths goes."""
    tensor = tensor_at(node, arguments, 0)
    rank = len(tensor.axes)
    symbol = single(node.where, tensor, position(node.where, node.attributes["time_axis"], rank))
    lengths = required(node, arguments, 1)
    values = lengths if isinstance(lengths, np.ndarray) else same_constant(node.where, lengths)
    if values is None or not is_whole(values, symbol):
        raise refuse(node.where, "reverses each sequence within a length of its own", "export without lengths")
    return [_turned(reader, node.where, tensor, symbol)]


def gather(reader: Reader, node: Node, arguments: Arguments) -> list[Value]:
    data, index = required(node, arguments, 0), required(node, arguments, 1)
    if isinstance(index, Tensor):
        return [_embedded(reader, node, data, index)]
    tensor = tensor_at(node, arguments, 0)
    axis = position(node.where, node.attributes["axis"], len(tensor.axes))
    if index.ndim > 1 or index.dtype.kind not in "iuO":
        raise refuse(node.where, f"takes entries by an index of {index.ndim} axes")
    numbers = [plain(entry) for entry in index.reshape(-1).tolist()]
    size = tensor.axes[axis]
    if isinstance(size, int):
        if any(not isinstance(number, int) or not -size <= number < size for number in numbers):
            raise ModelError(f"{node.where}: entry {numbers[:4]} along axis {axis} of {tensor}")
        chosen = np.array(numbers, dtype=np.int64) % size
        return [take(reader.algebra, tensor, axis, chosen, keep=index.ndim == 1)]
    symbol = single(node.where, tensor, axis)
    counted = [_from_either_end(node.where, number, symbol) for number in numbers]
    if symbol.size is not None and any(not -symbol.size <= number < symbol.size for number in counted):
        raise ModelError(f"{node.where}: entry {numbers[:4]} along axis {axis} of {tensor}")
    if index.ndim == 0:
        reader.cuts.append((node.where, symbol))
        return [step_of(reader.algebra, node.where, tensor, symbol, counted[0])]
    if symbol.size is None:
        return [_exploded(reader, node.where, tensor, axis, counted)]
    size = symbol.size
    return [_numbers_of(reader, node.where, tensor, axis, [number % size for number in counted])]


def _embedded(reader: Reader, node: Node, table: Value, index: Tensor) -> Tensor:
    if not isinstance(table, np.ndarray) or table.ndim != 2 or node.attributes["axis"] != 0:
        raise refuse(node.where, "takes entries by a computed index", "only an embedding does, of a constant table")
    source = whole_numbers(node.where, index, "an embedding of what was computed, or of several tokens at once")
    if index.n_features != 1 or not index.integer:
        raise refuse(node.where, "an embedding of several tokens at once", "give it one token for each step")
    reader.tokens.add(source.name)
    atom = index.vectors[0].only
    assert atom is not None
    reader.algebra.spend(table.size)
    vectors = np.asarray(table, dtype=np.float64)
    embedded = reader.algebra.known(
        (Embedded, atom, node.inputs[0]), lambda: Embedded(vectors.shape[1], node.where, vectors, atom)
    )
    return Tensor((*index.axes, vectors.shape[1]), (of_atom(embedded),))


def split(reader: Reader, node: Node, arguments: Arguments) -> list[Value]:
    tensor = tensor_at(node, arguments, 0)
    axis = position(node.where, node.attributes["axis"], len(tensor.axes))
    size = tensor.axes[axis]
    free = not isinstance(size, int)
    total = single(node.where, tensor, axis).size if free else size
    if not isinstance(total, int):
        raise refuse(node.where, f"cuts axis {axis} of {tensor}, which is free")
    ends = np.cumsum(split_sizes(node, arguments, total))
    parts: list[Value] = []
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        numbers = np.arange(start, end)
        if free:
            parts.append(_numbers_of(reader, node.where, tensor, axis, numbers.tolist()))
        else:
            parts.append(take(reader.algebra, tensor, axis, numbers, keep=True))
    return parts


def concat(reader: Reader, node: Node, arguments: Arguments) -> list[Value]:
    tensors = [tensor_at(node, arguments, i) for i in range(len(arguments))]
    first = tensors[0]
    axis = position(node.where, node.attributes["axis"], len(first.axes))
    for other in tensors[1:]:
        _want_same(reader, node.where, first, other, axis)
    if not all(isinstance(tensor.axes[axis], int) for tensor in tensors):
        if len(tensors) == 1:
            return [first]
        raise refuse(node.where, f"joins along axis {axis} of {first}, which is free")
    steps = _written_out(reader, node.where, tensors, axis)
    if steps is not None:
        return [steps]
    numbers, n = [], 0
    for tensor in tensors:
        numbers.append(numbered(tensor) + n)
        n += tensor.n_features
    rows = np.concatenate(numbers, axis=axis)
    axes = (*first.axes[:axis], rows.shape[axis], *first.axes[axis + 1 :])
    together = [vector for tensor in tensors for vector in tensor.vectors]
    return [Tensor(axes, pick(reader.algebra, together, rows.reshape(-1)), first.integer)]


def _want_same(reader: Reader, where: str, first: Tensor, other: Tensor, but: int) -> None:
    """Raises ModelError where axes differ, except one."""
    fits = len(first.axes) == len(other.axes) and first.integer == other.integer
    for i, (a, b) in enumerate(zip(first.axes, other.axes, strict=False)):
        if i == but or a == b:
            continue
        if not fits or isinstance(a, int) or isinstance(b, int) or len(a) != 1 or len(b) != 1:
            raise refuse(where, f"joins {first} and {other}")
        reader.join(where, a[0], b[0])
    if not fits:
        raise refuse(where, f"joins {first} and {other}")


def _written_out(reader: Reader, where: str, tensors: Sequence[Tensor], axis: int) -> Tensor | None:
    """The states of a layer that was written out, step after step, if the tensors are those."""
    if any(tensor.axes[axis] != 1 or len(tensor.vectors) != 1 for tensor in tensors):
        return None
    atoms = [reader.atoms.find(where, tensor.vectors) for tensor in tensors]
    for backwards in (False, True):
        last = atoms[0] if backwards else atoms[-1]
        if not isinstance(last, Step) or not last.is_last:
            continue
        cells = reader.atoms.unrolled.layers.get(last.of)  # type: ignore[call-overload]  # None for other atoms
        if cells is None or tuple(atoms) != (cells[::-1] if backwards else cells):
            continue
        states = reader.algebra.reversed(where, last.of) if backwards else last.of
        reader.bind(where, last.axis, "steps")
        axes: list[Axis] = list(tensors[0].axes)
        axes[axis] = (last.axis,)
        return Tensor(tuple(axes), (of_atom(states),))
    return None


def expand(reader: Reader, node: Node, arguments: Arguments) -> list[Value]:
    return [spread(reader, node.where, required(node, arguments, 0), sizes_at(node, arguments, 1))]


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
            if free and not agree(after, 1) and not agree(after, _product([Size.of(s) for s in before])):
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
    if isinstance(value, Tensor):
        reader.algebra.spend(prod(shape))
        old = numbered(value).reshape([1] * (len(axes) - len(value.axes)) + list(numbered(value).shape))
        rows = np.broadcast_to(old, shape).reshape(-1)
        return Tensor(tuple(axes), pick(reader.algebra, value.vectors, rows), value.integer)
    if all(isinstance(axis, int) for axis in axes):
        return np.broadcast_to(value, shape)
    reader.algebra.spend(prod(shape))
    flat = np.broadcast_to(value, shape).reshape(-1)
    integer = flat.dtype.kind not in "f"
    atom = reader.algebra.constant(flat if flat.dtype == object else flat.astype(np.float64))
    return Tensor(tuple(axes), (of_atom(atom),), integer)


OPERATORS: Final[dict[str, Operator]] = {
    "Cast": cast,
    "Concat": concat,
    "ConstantOfShape": constant_of_shape,
    "Dropout": dropout,
    "Expand": expand,
    "Flatten": flatten,
    "Gather": gather,
    "Identity": identity,
    "Less": less,
    "Reshape": op_reshape,
    "ReverseSequence": reverse_sequence,
    "Shape": shape,
    "Slice": op_slice,
    "Split": split,
    "Squeeze": squeeze,
    "Transpose": op_transpose,
    "Unsqueeze": op_unsqueeze,
    "Where": where,
}
