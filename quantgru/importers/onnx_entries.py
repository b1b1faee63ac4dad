"""Operators that take entries along an axis, or join tensors along one: features, steps, rows of an embedding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any, Final

import numpy as np

from quantgru.errors import ModelError
from quantgru.importers.chain import refuse
from quantgru.importers.onnx_atoms import Embedded, Vector, content, of_atom
from quantgru.importers.onnx_constants import plain, required, slices, split_sizes, whole
from quantgru.importers.onnx_graph import Node
from quantgru.importers.onnx_reader import Operator, Reader, Running, Value, is_whole, same_constant
from quantgru.importers.onnx_shapes import Arguments, tensor_at, whole_numbers
from quantgru.importers.onnx_sizes import Size, Symbol, agree
from quantgru.importers.onnx_tensors import (
    Axis,
    Tensor,
    explode,
    numbered,
    pick,
    position,
    reverse,
    single,
    step_of,
    take,
)

FAR: Final = (1 << 31) - 1  # in slices, exporters write "to the end" as 2**31 - 1, 2**63 - 1 and the like


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
    every = range(symbol.size)  # which may be far more than there is memory for
    for order in (every, every[::-1]):
        if len(numbers) == len(order) and (numbers == order or (isinstance(numbers, list) and numbers == list(order))):
            return tensor if order is every else _turned(reader, where, tensor, symbol)
    if not numbers:
        raise refuse(where, f"takes nothing of {symbol}")
    return _exploded(reader, where, tensor, axis, numbers)


def _exploded(reader: Reader, where: str, tensor: Tensor, axis: int, numbers: Sequence[int]) -> Tensor:
    reader.cuts.append((where, single(where, tensor, axis)))
    return explode(reader.algebra, where, tensor, axis, numbers)


def _turned(reader: Reader, where: str, tensor: Tensor, symbol: Symbol) -> Tensor:
    reader.cuts.append((where, symbol))
    reader.bind(where, symbol, "steps")
    return reverse(reader.algebra, where, _as_one(reader, where, tensor))


def _as_one(reader: Reader, where: str, tensor: Tensor) -> Tensor:
    """The same as one atom, where it is one: a bidirectional layer, even turned, is known by its layers."""
    atom = reader.finder.find(where, tensor.vectors) if len(tensor.vectors) > 1 else None
    return tensor if atom is None else Tensor(tensor.axes, (of_atom(atom),), tensor.integer)


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
    if index.ndim > 1:
        raise refuse(node.where, f"takes entries by an index of {index.ndim} axes")
    numbers = [plain(entry) for entry in whole(node, index)]
    size = tensor.axes[axis]
    if isinstance(size, int):
        if any(not isinstance(number, int) or not -size <= number < size for number in numbers):
            raise ModelError(f"{node.where}: entry {numbers[:4]} along axis {axis} of {tensor}")
        chosen = np.array(numbers, dtype=np.int64) % size
        return [take(reader.algebra, tensor, axis, chosen, keep=index.ndim == 1)]
    symbol = single(node.where, tensor, axis)
    if index.ndim == 0 and reader.running is not None and isinstance(numbers[0], Size):
        return [_step_of_loop(reader, node.where, reader.running, tensor, symbol, numbers[0])]
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


def gather_nd(reader: Reader, node: Node, arguments: Arguments) -> list[Value]:
    """Entries of the first axis by a constant index, as PyTorch writes x[..., [2, 0, 1]] of an axis that it turned."""
    index = required(node, arguments, 1)
    if not isinstance(index, np.ndarray) or index.ndim != 2 or index.shape[1] != 1 or node.attributes.get("batch_dims"):
        raise refuse(node.where, "takes entries along several axes, or by a computed index")
    as_gather = replace(node, attributes={"axis": 0})
    return gather(reader, as_gather, [required(node, arguments, 0), index[:, 0]])


def _step_of_loop(reader: Reader, where: str, running: Running, tensor: Tensor, symbol: Symbol, number: Size) -> Tensor:
    """The step that a loop is at, from either end of a sequence that is as long as the loop."""
    from_end = agree(number, running.count - 1 - running.number)
    if not agree(symbol, running.count) or not (from_end or agree(number, running.number)):
        raise refuse(where, f"takes entry {number} of {symbol}, in a loop of {running.count} steps")
    reader.bind(where, symbol, "steps")
    turned = reverse(reader.algebra, where, tensor) if from_end else tensor
    return step_of(reader.algebra, where, turned, symbol, running.iteration)


def _embedded(reader: Reader, node: Node, table: Value, index: Tensor) -> Tensor:
    if not isinstance(table, np.ndarray) or table.ndim != 2 or node.attributes["axis"] != 0:
        raise refuse(node.where, "takes entries by a computed index", "only an embedding does, of a constant table")
    source = whole_numbers(node.where, index, "an embedding of what was computed, or of several tokens at once")
    if index.n_features != 1 or not index.integer:
        raise refuse(node.where, "an embedding of several tokens at once", "give it one token for each step")
    reader.tokens.add(source.name)
    atom = index.vectors[0].only
    assert atom is not None
    vectors = reader.algebra.double(table)
    embedded = Embedded(vectors.shape[1], node.where, vectors, atom)
    embedded = reader.algebra.unique((Embedded, atom, node.inputs[0]), embedded)
    return Tensor((*index.axes, embedded.width), (of_atom(embedded),))


def split(reader: Reader, node: Node, arguments: Arguments) -> list[Value]:
    tensor = tensor_at(node, arguments, 0)
    axis = position(node.where, node.attributes["axis"], len(tensor.axes))
    size = tensor.axes[axis]
    free = not isinstance(size, int)
    total = single(node.where, tensor, axis).size if free else size
    if not isinstance(total, int):
        raise refuse(node.where, f"cuts axis {axis} of {tensor}, which is free")
    ends = list(accumulate(split_sizes(node, arguments, total)))
    parts: list[Value] = []
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        if free:
            parts.append(_numbers_of(reader, node.where, tensor, axis, range(start, end)))
        else:
            parts.append(take(reader.algebra, tensor, axis, np.arange(start, end), keep=True))
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
    """A sequence of which the tensors are the steps, all of them in order or in reverse."""
    if any(tensor.axes[axis] != 1 or len(tensor.vectors) != 1 for tensor in tensors):
        return None
    vectors, n = [tensor.vectors[0] for tensor in tensors], len(tensors)
    found = reader.finder.sequences(vectors[:1])
    if found is None or found[0][0].size != n:
        return None
    symbol = found[0][0]
    sequence = _with_steps(reader, vectors, symbol)
    if sequence is None:
        backwards = _with_steps(reader, vectors[::-1], symbol)
        if backwards is None:
            return None
        sequence = reader.algebra.turned(where, backwards)
    reader.bind(where, symbol, "steps")
    axes: list[Axis] = list(tensors[0].axes)
    axes[axis] = (symbol,)
    return Tensor(tuple(axes), (sequence,), tensors[0].integer)


def _with_steps(reader: Reader, vectors: Sequence[Vector], axis: Symbol) -> Vector | None:
    """The sequence whose steps these are, in order, if they are those of one."""
    wholes = [reader.finder.sequences_at([vector], (axis, i)) for i, vector in enumerate(vectors)]
    sequences = [whole[0] for whole in wholes if whole is not None]
    one = len(sequences) == len(vectors) and len({content(sequence) for sequence in sequences}) == 1
    return sequences[0] if one else None


OPERATORS: Final[dict[str, Operator]] = {
    "Concat": concat,
    "Gather": gather,
    "GatherND": gather_nd,
    "ReverseSequence": reverse_sequence,
    "Slice": op_slice,
    "Split": split,
}
