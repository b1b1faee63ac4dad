"""The operations of TensorFlow 1 that frozen GRU models use, on numpy arrays; tensorflow1_ops.py applies them.

Source of inputs and attributes: tensorflow/core/ops/{array,math,nn}_ops.cc. Shapes that do not fit raise what numpy
raises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from quantgru.activations import relu, sigmoid, tanh
from quantgru.importers.tensorflow1_errors import refused
from quantgru.importers.tensorflow1_file import BOOLEAN, FLOATS, INTEGERS, Node
from quantgru.importers.verify import log_softmax, softmax

Array = npt.NDArray[Any]


MASKS: Final = ("begin", "end", "ellipsis", "new_axis", "shrink_axis")  # of StridedSlice


def _integer(values: Array) -> int:
    return int(values.item())


def _squeeze(node: Node, x: Array) -> Array:
    return np.squeeze(x, axis=tuple(node.integers("squeeze_dims")) or None)


def _unpack(node: Node, x: Array) -> list[Array]:
    parts = list(np.moveaxis(x, node.attribute("axis", "i", 0), 0))
    if len(parts) != node.attribute("num", "i", len(parts)):
        raise ValueError(f"{len(parts)} parts")
    return parts


def _split(node: Node, axis: Array, x: Array) -> list[Array]:
    return np.split(x, node.attribute("num_split", "i", 1), _integer(axis))


def _split_by_sizes(node: Node, x: Array, sizes: Array, axis: Array) -> list[Array]:
    n_given, n_here = int(sizes[sizes >= 0].sum()), x.shape[_integer(axis)]
    ends = np.cumsum(np.where(sizes < 0, n_here - n_given, sizes))  # one size may be -1: what is left
    if (sizes < 0).sum() > 1 or ends[-1] != n_here or n_given > n_here:
        raise ValueError(f"sizes {sizes.tolist()} of {n_here}")
    return np.split(x, ends[:-1].tolist(), _integer(axis))


def _slice(node: Node, x: Array, begin: Array, size: Array) -> Array:
    ends = np.where(size < 0, x.shape, begin + size)
    if (begin < 0).any() or (begin > ends).any() or (ends > x.shape).any():
        raise ValueError(f"slice {begin.tolist()} of size {size.tolist()} in shape {x.shape}")
    return x[tuple(slice(a, b) for a, b in zip(begin.tolist(), ends.tolist(), strict=True))]


def _strided_slice(node: Node, x: Array, begin: Array, end: Array, strides: Array) -> Array:
    """As an index of Python: bit i of a mask says that entry i has no begin, no end, is an ellipsis, a new axis or an
    index."""
    masks = [node.attribute(f"{name}_mask", "i", 0) for name in MASKS]
    entries: list[Any] = []
    for i, (first, last, step) in enumerate(zip(begin.tolist(), end.tolist(), strides.tolist(), strict=True)):
        no_begin, no_end, ellipsis, new_axis, shrink = (bool(mask >> i & 1) for mask in masks)
        if ellipsis or new_axis:
            entries.append(Ellipsis if ellipsis else None)
        else:
            entries.append(first if shrink else slice(None if no_begin else first, None if no_end else last, step))
    return np.asarray(x[tuple(entries)])


def slice_bounds(node: Node, x: Any, begin: Array, end: Array, strides: Array) -> Iterator[tuple[int, int]]:
    """Where a StridedSlice begins and ends along which axis, where it says so: (axis, place)."""
    masks = [node.attribute(f"{name}_mask", "i", 0) for name in MASKS]
    n_new = (masks[3] & ~masks[2]).bit_count()
    axis = 0
    for i, (first, last) in enumerate(zip(begin.tolist(), end.tolist(), strict=True)):
        no_begin, no_end, ellipsis, new_axis, shrink = (bool(mask >> i & 1) for mask in masks)
        if ellipsis:
            axis += x.ndim - (len(begin) - n_new - 1)
        elif not new_axis:
            yield from [(axis, first)] * (not no_begin or shrink) + [(axis, last)] * (not no_end and not shrink)
            axis += 1


def _gather(node: Node, x: Array, indices: Array, axis: Array | None = None) -> Array:
    along = 0 if axis is None else _integer(axis)
    _want_places(indices)
    match node.attribute("batch_dims", "i", 0):
        case 0:
            return np.take(x, indices, axis=along)
        case 1 if along > 0:
            return np.stack([np.take(part, places, along - 1) for part, places in zip(x, indices, strict=True)])
        case n:
            raise refused(node, f"batch_dims {n} along axis {along}", "supported are 0, and 1 along a later axis")


def _want_places(indices: Array) -> None:
    """Negative ones are no places to TensorFlow."""
    if (indices < 0).any():
        raise ValueError(f"reads at {indices.min()}")


def _gather_entries(node: Node, x: Array, indices: Array) -> Array:
    _want_places(indices)
    return np.asarray(x[tuple(np.moveaxis(indices, -1, 0))])


def _reverse(node: Node, x: Array, axes: Array) -> Array:
    return np.flip(x, axis=tuple(axes.tolist()))


def _reverse_sequence(node: Node, x: Array, lengths: Array) -> Array:
    """Of each sequence its first steps, as many as it has, in reverse."""
    axes = node.attribute("batch_dim", "i", 0), node.attribute("seq_dim", "i", 0)
    reversed_ = np.moveaxis(x, axes, (0, 1)).copy()
    for rows, length in zip(reversed_, lengths.tolist(), strict=True):
        if not 0 <= length <= len(rows):
            raise ValueError(f"a length of {length} in {len(rows)} steps")
        rows[:length] = rows[:length][::-1].copy()
    return np.moveaxis(reversed_, (0, 1), axes)


def _cast(node: Node, x: Array) -> Array:
    target = node.attribute("DstT", "type", 0)
    kinds = {**dict.fromkeys(FLOATS, np.float64), **dict.fromkeys(INTEGERS, np.int64), BOOLEAN: np.bool_}
    return x.astype(kinds[target])


def _reduced(function: Callable[..., Any]) -> Callable[..., Any]:
    def reduce(node: Node, x: Array, axes: Array) -> Any:
        return function(x, axis=tuple(np.atleast_1d(axes).tolist()), keepdims=node.attribute("keep_dims", "b", False))

    return reduce


def _plain(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda node, *values: function(*values)


def _matmul(node: Node, a: Array, b: Array) -> Array:
    a, b = (m.T if node.attribute(f"transpose_{name}", "b", False) else m for name, m in (("a", a), ("b", b)))
    if a.ndim != 2 or b.ndim != 2:
        raise ValueError(f"matrices {a.shape} and {b.shape}")
    return a @ b


def _bias_add(node: Node, x: Array, bias: Array) -> Array:
    want_features_last(node)
    return x + bias


def want_features_last(node: Node) -> None:
    if node.attribute("data_format", "s", b"NHWC") not in (b"NHWC", b""):
        raise refused(node, "features are not the last axis", "use data_format='NHWC'")


IDENTITIES: Final = (
    "Identity",
    "Snapshot",
    "StopGradient",
    "PreventGradient",
    "CheckNumerics",
    "PlaceholderWithDefault",
)

# Operations that only move numbers: which of the inputs are moved, the others say where to; and the function of all.
MOVES: Final[dict[str, tuple[slice, Callable[..., Array | list[Array]]]]] = {
    "Transpose": (slice(0, 1), lambda node, x, axes: np.transpose(x, axes.tolist())),
    "Reshape": (slice(0, 1), lambda node, x, shape: np.reshape(x, shape.tolist())),
    "ExpandDims": (slice(0, 1), lambda node, x, axis: np.expand_dims(x, _integer(axis))),
    "Squeeze": (slice(0, 1), _squeeze),
    "Pack": (slice(None), lambda node, *x: np.stack(x, axis=node.attribute("axis", "i", 0))),
    "Unpack": (slice(0, 1), _unpack),
    "Concat": (slice(1, None), lambda node, axis, *x: np.concatenate(x, axis=_integer(axis))),
    "ConcatV2": (slice(0, -1), lambda node, *x: np.concatenate(x[:-1], axis=_integer(x[-1]))),
    "Split": (slice(1, 2), _split),
    "SplitV": (slice(0, 1), _split_by_sizes),
    "Slice": (slice(0, 1), _slice),
    "StridedSlice": (slice(0, 1), _strided_slice),
    "Gather": (slice(0, 1), _gather),
    "GatherV2": (slice(0, 1), _gather),
    "GatherNd": (slice(0, 1), _gather_entries),
    "ReverseV2": (slice(0, 1), _reverse),
    "ReverseSequence": (slice(0, 1), _reverse_sequence),
    "Tile": (slice(0, 1), lambda node, x, repeats: np.tile(x, repeats.tolist())),
    "BroadcastTo": (slice(0, 1), lambda node, x, shape: np.broadcast_to(x, shape.tolist())),
    "Fill": (slice(1, 2), lambda node, shape, x: np.full(shape.tolist(), x)),
}

# Operations that ask for a shape only.
SHAPES: Final[dict[str, Callable[[tuple[int, ...]], Any]]] = {
    "Shape": list,
    "Size": lambda shape: np.prod(shape, dtype=np.int64),
    "Rank": len,
}

# Operations of two operands of any shapes that go together.
BINARY: Final[dict[str, Callable[..., Any]]] = {
    "Add": _plain(np.add),
    "AddV2": _plain(np.add),
    "Sub": _plain(np.subtract),
    "Mul": _plain(np.multiply),
    "RealDiv": _plain(np.divide),
    "BiasAdd": _bias_add,
    "Maximum": _plain(np.maximum),
    "Minimum": _plain(np.minimum),
    "FloorDiv": _plain(np.floor_divide),
    "FloorMod": _plain(np.mod),
    "Less": _plain(np.less),
    "LessEqual": _plain(np.less_equal),
    "Greater": _plain(np.greater),
    "GreaterEqual": _plain(np.greater_equal),
    "Equal": _plain(np.equal),
    "LogicalAnd": _plain(np.logical_and),
    "LogicalOr": _plain(np.logical_or),
}

FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {
    **BINARY,
    "AddN": _plain(lambda *values: np.sum(np.stack(values), axis=0)),
    "MatMul": _matmul,
    "Floor": _plain(np.floor),
    "Neg": _plain(np.negative),
    "Sqrt": _plain(np.sqrt),
    "Rsqrt": _plain(lambda x: 1 / np.sqrt(x)),
    "Square": _plain(np.square),
    "Sigmoid": _plain(sigmoid),
    "Tanh": _plain(tanh),
    "Relu": _plain(relu),
    "Softmax": _plain(softmax),
    "LogSoftmax": _plain(log_softmax),
    "Cast": _cast,
    "Range": _plain(np.arange),
    "Prod": _reduced(np.prod),
    "Max": _reduced(np.max),
    "Min": _reduced(np.min),
    "Sum": _reduced(np.sum),
    "LogicalNot": _plain(np.logical_not),
    "ZerosLike": _plain(np.zeros_like),
    "OnesLike": _plain(np.ones_like),
}
