"""Tensors that depend on the inputs: which axis is steps or batch, and what each feature is.

An axis is either free, of the size of an axis of an input (steps and batch), or holds features. The features of all
such axes together, in row-major order, are a list of vectors. So a transposition or a reshape is known by what it does
to axes, however an exporter writes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from quantgru.errors import ModelError
from quantgru.importers.chain import refuse
from quantgru.importers.onnx_algebra import Algebra
from quantgru.importers.onnx_atoms import Iteration, Rows, Vector, widths
from quantgru.importers.onnx_sizes import Size, Symbol, agree, product

Free = tuple[Symbol, ...]  # axes of inputs that were reshaped into one, mostly a single one
Axis = int | Free  # int: features


@dataclass(frozen=True, eq=False)
class Tensor:
    """integer: whether its elements are whole numbers, such as tokens."""

    axes: tuple[Axis, ...]
    vectors: tuple[Vector, ...]
    integer: bool = False

    def __post_init__(self) -> None:
        assert widths(self.vectors) == self.n_features

    @property
    def n_features(self) -> int:
        return prod(axis for axis in self.axes if isinstance(axis, int))

    @property
    def symbols(self) -> tuple[Symbol, ...]:
        return tuple(symbol for axis in self.axes if not isinstance(axis, int) for symbol in axis)

    @property
    def shape(self) -> tuple[Size, ...]:
        return tuple(size_of(axis) for axis in self.axes)

    def __str__(self) -> str:
        return "[" + ", ".join(str(size) for size in self.shape) + "]"


class FeaturesNeeded(Exception):  # noqa: N818  # not an error: reading starts again with it
    """An axis of an input that was taken for free has features, `width` of them."""

    def __init__(self, symbol: Symbol, width: int) -> None:
        super().__init__(f"{symbol} has {width} features")
        self.symbol = symbol
        self.width = width


def size_of(axis: Axis) -> Size:
    return Size.of(axis) if isinstance(axis, int) else product(axis)


def position(where: str, axis: int, rank: int) -> int:
    """An axis as a number from 0 on. Raises ModelError."""
    if not -rank <= axis < rank:
        raise ModelError(f"{where}: axis {axis} of a tensor of {rank} axes")
    return axis % rank


def numbered(tensor: Tensor) -> Rows:
    """The numbers of the features, shaped as the tensor with 1 for each free axis."""
    shape = [axis if isinstance(axis, int) else 1 for axis in tensor.axes]
    return np.arange(tensor.n_features, dtype=np.int64).reshape(shape)


def pick(algebra: Algebra, vectors: Sequence[Vector], rows: Rows) -> tuple[Vector, ...]:
    """The features of these numbers, counted over all vectors. Whole vectors stay whole."""
    algebra.spend(len(rows))
    ends = np.cumsum([vector.width for vector in vectors])
    owner = np.searchsorted(ends, rows, side="right")
    cuts = np.flatnonzero(np.diff(owner)) + 1
    parts: list[Vector] = []
    for run, number in zip(np.split(rows, cuts), owner[np.append(0, cuts)] if len(rows) else (), strict=False):
        vector = vectors[number]
        local = run - (ends[number] - vector.width)
        parts += [algebra.rows(vector, piece) for piece in _whole_pieces(local, vector.width)]
    return tuple(parts)


def _whole_pieces(rows: Rows, width: int) -> list[Rows]:
    """Rows of one vector that repeat it several times, one piece for each time."""
    if len(rows) <= width or len(rows) % width:
        return [rows]
    return np.split(rows, len(rows) // width)


def transpose(algebra: Algebra, where: str, tensor: Tensor, order: Sequence[int]) -> Tensor:
    if sorted(order) != list(range(len(tensor.axes))):
        raise ModelError(f"{where}: order {list(order)} of axes on {tensor}")
    rows = numbered(tensor).transpose(order).reshape(-1)
    return Tensor(tuple(tensor.axes[i] for i in order), pick(algebra, tensor.vectors, rows), tensor.integer)


def take(algebra: Algebra, tensor: Tensor, axis: int, chosen: Rows, keep: bool) -> Tensor:
    """Some features along an axis of features; the axis goes where `keep` is false and one is chosen."""
    axes = list(tensor.axes)
    axes[axis : axis + 1] = [len(chosen)] if keep else []
    algebra.spend(len(chosen) * prod(size for i, size in enumerate(tensor.axes) if isinstance(size, int) and i != axis))
    rows = numbered(tensor).take(chosen, axis=axis)
    return Tensor(tuple(axes), pick(algebra, tensor.vectors, rows.reshape(-1)), tensor.integer)


def unsqueeze(where: str, tensor: Tensor, axes: Sequence[int]) -> Tensor:
    rank = len(tensor.axes) + len(axes)
    new = {position(where, axis, rank) for axis in axes}
    if len(new) != len(axes):
        raise ModelError(f"{where}: axes {list(axes)} on {tensor}")
    old = iter(tensor.axes)
    return replace(tensor, axes=tuple(1 if i in new else next(old) for i in range(rank)))


def explode(algebra: Algebra, where: str, tensor: Tensor, axis: int, numbers: Sequence[int]) -> Tensor:
    """Steps of these numbers along a free axis, which becomes an axis of features."""
    symbol = single(where, tensor, axis)
    algebra.spend(len(numbers) * tensor.n_features)
    vectors: list[Vector] = []
    for number in numbers:
        vectors += step_of(algebra, where, tensor, symbol, number).vectors
    first = [i for i, other in enumerate(tensor.axes) if isinstance(other, int) or i == axis]
    axes = (*(tensor.axes[i] for i in range(axis)), len(numbers), *tensor.axes[axis + 1 :])
    # The new features stand before all others; their axis stands where the free one did.
    front = Tensor((len(numbers), *(a for i, a in enumerate(axes) if i != axis)), tuple(vectors), tensor.integer)
    if first[0] == axis:
        return replace(front, axes=axes)
    return transpose(algebra, where, front, [*range(1, axis + 1), 0, *range(axis + 1, len(axes))])


def single(where: str, tensor: Tensor, axis: int) -> Symbol:
    found = tensor.axes[axis]
    if isinstance(found, int) or len(found) != 1:
        raise refuse(where, f"works along axis {axis} of {tensor}, where steps and batch are one")
    return found[0]


def step_of(algebra: Algebra, where: str, tensor: Tensor, symbol: Symbol, number: int | Iteration) -> Tensor:
    """One step along a free axis, which goes."""
    vectors = tuple(
        algebra.mapped(vector, lambda atom: algebra.step(where, atom, symbol, number)) for vector in tensor.vectors
    )
    return Tensor(tuple(axis for axis in tensor.axes if axis != (symbol,)), vectors, tensor.integer)


def reverse(algebra: Algebra, where: str, tensor: Tensor) -> Tensor:
    return replace(tensor, vectors=tuple(algebra.turned(where, vector) for vector in tensor.vectors))


# ---- reshape --------------------------------------------------------------------------------------------------------


def reshape(where: str, tensor: Tensor, target: Sequence[Size | int], zero_copies: bool = True) -> tuple[Axis, ...]:
    """The axes after a reshape; axes of one sequence or one step may be left out. Raises ModelError."""
    sizes = [Size.of(size) for size in target]
    if zero_copies:
        if any(size == 0 for size in sizes[len(tensor.axes) :] if size.number is not None):
            raise ModelError(f"{where}: shape {_text(sizes)} copies an axis that {tensor} has not")
        sizes = [tensor.shape[i] if size.number == 0 else size for i, size in enumerate(sizes)]
    unknown = [i for i, size in enumerate(sizes) if size.number == -1]
    if len(unknown) > 1 or any(size.number is not None and size.number < -1 for size in sizes):
        raise ModelError(f"{where}: shape {_text(sizes)}")
    left = [factor for axis in tensor.axes for factor in ([axis] if isinstance(axis, int) else axis)]
    groups: list[list[int | Symbol]] = [[] for _ in sizes]
    middle = unknown[0] if unknown else len(sizes)
    for i in range(middle):
        groups[i] = _consume(left, sizes[i], from_end=False)
    for i in range(len(sizes) - 1, middle, -1):
        groups[i] = _consume(left, sizes[i], from_end=True)
    if unknown:
        groups[middle], left = left, []
    if any(not agree(factor, 1) for factor in left) or not _fits(groups, sizes, unknown):
        raise refuse(where, f"reshapes {tensor} to {_text(sizes)}, which mixes steps, batch and features")
    return tuple(map(_as_axis, groups))


def _text(sizes: Sequence[Size]) -> str:
    return "[" + ", ".join(map(str, sizes[:8])) + "]"


def _consume(left: list[int | Symbol], size: Size, from_end: bool) -> list[int | Symbol]:
    """Takes factors of this product from one end of the list. An axis of features is split where need be."""
    end = -1 if from_end else 0
    taken: list[int | Symbol] = []
    if agree(size, 1):
        return [left.pop(end)] if left and isinstance(left[end], Symbol) and agree(left[end], 1) else []
    while left and not agree(product(taken), size):
        factor = left.pop(end)
        so_far = product(taken).number
        if isinstance(factor, int) and size.number and so_far:
            rest, remainder = divmod(size.number, so_far)
            if 1 < rest < factor and not remainder and factor % rest == 0:
                left.insert(len(left) if from_end else 0, factor // rest)
                factor = rest
        taken.append(factor)
    return taken[::-1] if from_end else taken


def _fits(groups: Sequence[Sequence[int | Symbol]], sizes: Sequence[Size], unknown: Sequence[int]) -> bool:
    for i, (group, size) in enumerate(zip(groups, sizes, strict=True)):
        if i not in unknown and not agree(product(group), size):
            return False
        wide = [factor for factor in group if not agree(factor, 1)]
        if len({isinstance(factor, int) for factor in wide}) > 1:
            return False
    return True


def _as_axis(group: Sequence[int | Symbol]) -> Axis:
    symbols = tuple(factor for factor in group if isinstance(factor, Symbol))
    features = prod(factor for factor in group if isinstance(factor, int))
    if features > 1 or not symbols:
        return features
    wide = tuple(symbol for symbol in symbols if not agree(symbol, 1))
    return wide or symbols[:1]
