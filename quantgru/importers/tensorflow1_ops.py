"""Operations of a graph on values, which are arrays, tensors of ids, or what a TensorArray holds.

What only moves numbers does the same to both. What computes does it on arrays, and leaves a mark in the trace where an
operand depends on the graph's input. Everything else is refused by name.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any, Final

import numpy as np

from quantgru.errors import ModelError
from quantgru.importers.tensorflow1_arrays import (
    BINARY,
    FUNCTIONS,
    IDENTITIES,
    MOVES,
    SHAPES,
    want_features_last,
)
from quantgru.importers.tensorflow1_errors import NOTHING_LEFT, refused, short
from quantgru.importers.tensorflow1_file import FLOATS, INTEGERS, Node
from quantgru.importers.tensorflow1_trace import Trace, Traced

LARGEST_RANDOM: Final = 1 - 2.0**-24  # in a trace; in the proof all random numbers are 0: what depends on them shows
TRACED_COST: Final = 4  # ids are kept in tensors and as operands of vectors

ACTIVATIONS: Final = {
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "Relu": "relu",
    "Softmax": "softmax",
    "LogSoftmax": "log_softmax",
}
LIKE: Final = ("ZerosLike", "OnesLike")  # which look at a shape, not at what has it


@dataclass(frozen=True)
class Elements:
    """What was written to a TensorArray so far, None where nothing was: the value of its flow."""

    values: tuple[Any, ...]

    def read(self, index: int) -> Any:
        """An element; zeros where nothing was written, as after the last step of the longest sequence."""
        if self.values[index] is not None:
            return self.values[index]
        written = next((value for value in self.values if value is not None), None)
        if written is None:
            raise ValueError("reads an array in which nothing was written")
        return np.broadcast_to(0.0, _shape(written))


class Operations:
    """Applies the operation of a node to values; `trace` collects what becomes of ids.

    All random numbers of 0 ... 1 are `random`: dropout that is switched off gives the same with any.
    """

    def __init__(self, trace: Trace, random: float) -> None:
        self._trace = trace
        self._random = random

    def cost(self, node: Node, values: list[Any]) -> int:
        """No less than the count of numbers that `apply` makes, before it makes them. Raises what numpy raises."""
        made = _numbers_made(node, values, [_shape(value) for value in values])
        return TRACED_COST * made if any(isinstance(value, Traced) for value in values) else made

    def apply(self, node: Node, values: list[Any]) -> tuple[Any, ...]:
        """All outputs. Raises ModelError for what is not supported, and what numpy raises where shapes do not fit."""
        if node.op in IDENTITIES:
            return (values[0],)
        if node.op in ("Gather", "GatherV2") and isinstance(values[1], Traced):
            return (self._look_up(node, *values),)
        if node.op in MOVES:
            return self._move(node, values)
        if node.op == "GRUBlockCell":
            return self._block_cell(node, *values)
        if node.op.startswith("TensorArray"):
            return self._elements(node, values)
        if node.op in SHAPES:
            return (np.asarray(SHAPES[node.op](_shape(values[0])), dtype=np.int64),)
        if node.op == "RandomUniform":
            return (np.full(values[0].tolist(), self._random),)
        if node.op in ("Select", "SelectV2"):
            return (self._selected(node, *values),)
        if node.op in LIKE and isinstance(values[0], Traced):
            values = [np.zeros(values[0].ids.shape, np.int64 if node.attribute("T", "type", 0) in INTEGERS else float)]
        if any(isinstance(value, Traced) for value in values):
            return (self._traced(node, values),)
        if node.op in FUNCTIONS:
            return (np.asarray(FUNCTIONS[node.op](node, *values)),)
        raise _unknown(node)

    def first_state(self, value: Any) -> Any:
        """What a variable of a loop has at first: a state gets ids, so that its first step is like the others."""
        is_state = isinstance(value, np.ndarray) and value.dtype == np.float64 and value.ndim > 1 and value.size
        return Traced(self._trace.ids(value)) if is_state and self._trace.has_input else value

    def _move(self, node: Node, values: list[Any]) -> tuple[Any, ...]:
        data, function = MOVES[node.op]
        traced = any(isinstance(value, Traced) for value in values[data])
        if traced:
            values[data] = [self._trace.ids(value) for value in values[data]]
        _want_arrays(node, values)
        moved = function(node, *values)
        parts = [np.asarray(part) for part in (moved if isinstance(moved, list) else [moved])]
        if traced and node.op in ("Slice", "StridedSlice") and not parts[0].size:
            raise refused(node, *NOTHING_LEFT)
        return tuple(Traced(part) if traced else part for part in parts)

    def _traced(self, node: Node, values: list[Any]) -> Traced:
        made = self._trace.elementwise
        match node.op, values:
            case ("BiasAdd", [a, b]):
                want_features_last(node)
                return made("sum", node.name, a, b)
            case ("Add" | "AddV2" | "AddN", [a, b]):
                return made("sum", node.name, a, b)
            case ("Sub", [a, b]):
                return made("difference", node.name, a, b)
            case ("Mul" | "RealDiv", [a, np.ndarray() as b]):
                return self._scaled(node, a, b)
            case ("Mul", [np.ndarray() as b, Traced()]) if (b == 1).all():
                return self._scaled(node, values[1], b)
            case ("Mul", [a, b]):
                return made("product", node.name, a, b)
            case ("Neg", [a]):
                return made("product", node.name, a, -np.ones(()))
            case ("Cast", [a]) if node.attribute("DstT", "type", 0) in FLOATS:
                return Traced(self._trace.ids(a))
            case ("MatMul", [Traced() as a, np.ndarray() as b]) if not node.attribute("transpose_a", "b", False):
                return self._multiplied(node, a, b)
            case ("Maximum" | "Minimum", [a, b]):
                return made(node.op.lower(), node.name, a, b)
            case (op, [a]) if op in ACTIVATIONS:
                return made(ACTIVATIONS[op], node.name, a)
        raise _unknown(node)

    def _scaled(self, node: Node, a: Traced, b: Any) -> Traced:
        """Factors of 1, as of masks and of dropout that is off, leave no mark."""
        if (b == 1).all():
            return Traced(np.broadcast_to(a.ids, np.broadcast_shapes(a.ids.shape, b.shape)))
        return self._trace.elementwise("product", node.name, a, 1 / b if node.op == "RealDiv" else b)

    def _multiplied(self, node: Node, a: Traced, b: Any) -> Traced:
        matrix = b.T if node.attribute("transpose_b", "b", False) else b
        if a.ids.ndim != 2 or matrix.ndim != 2 or a.ids.shape[1] != len(matrix) or not matrix.size:
            raise ValueError(f"matrices {a.ids.shape} and {matrix.shape}")
        return self._trace.matmul(node.name, a, matrix)

    def _look_up(self, node: Node, table: Any, tokens: Traced, axis: Any = 0) -> Traced:
        if not isinstance(table, np.ndarray) or table.ndim != 2 or axis != 0 or node.attribute("batch_dims", "i", 0):
            raise _unknown(node)
        if not table.size:
            raise ValueError(f"a table of shape {table.shape}")
        return self._trace.lookup(node.name, table, tokens)

    def _block_cell(self, node: Node, *values: Any) -> tuple[Any, ...]:
        """The operation of contrib's GRUBlockCell as those that it stands for: tensorflow/core/ops/rnn_ops.cc."""
        x, h, gates_kernel, candidate_kernel, gates_bias, candidate_bias = values
        axis = np.asarray(1)

        def apply(op: str, *operands: Any) -> Any:
            moved = self.apply(replace(node, op=op, attributes={}), list(operands))
            return moved[0] if len(moved) == 1 else moved

        def product(state: Any, kernel: Any, bias: Any) -> Any:
            return apply("BiasAdd", apply("MatMul", apply("ConcatV2", x, state, axis), kernel), bias)

        r, u = apply(
            "SplitV",
            apply("Sigmoid", product(h, gates_kernel, gates_bias)),
            np.asarray([-1, len(gates_bias) // 2]),
            axis,
        )
        c = apply("Tanh", product(apply("Mul", r, h), candidate_kernel, candidate_bias))
        kept = apply("Mul", u, h)
        return r, u, c, apply("AddV2", kept, apply("Mul", apply("Sub", np.ones(()), u), c))

    def _elements(self, node: Node, values: list[Any]) -> tuple[Any, ...]:
        """A TensorArray has a handle, of no use here, and a flow, which is passed from each use to the next."""
        match node.op, values:
            case "TensorArrayV3", [np.ndarray() as size]:
                return None, Elements((None,) * int(size.item()))
            case "TensorArraySizeV3", [_, Elements(found)]:
                return (np.asarray(len(found)),)
            case "TensorArrayReadV3", [_, np.ndarray() as index, Elements() as found]:
                return (found.read(int(index.item())),)
            case "TensorArrayGatherV3", [_, np.ndarray() as indices, Elements() as found]:
                return (self._stacked([found.read(index) for index in indices.tolist()]),)
            case "TensorArrayWriteV3", [_, np.ndarray() as index, value, Elements(found)]:
                return (_written(found, [int(index.item())], [value]),)
            case "TensorArrayScatterV3", [_, np.ndarray() as indices, Traced(ids), Elements(found)]:
                return (_written(found, indices.tolist(), [Traced(part) for part in ids]),)
            case "TensorArrayScatterV3", [_, np.ndarray() as indices, np.ndarray() as value, Elements(found)]:
                return (_written(found, indices.tolist(), list(value)),)
        raise _unknown(node)

    def _selected(self, node: Node, condition: Any, first: Any, second: Any) -> Any:
        """As dynamic_rnn does it with the lengths of sequences, which all have all steps in a trace."""
        if not isinstance(condition, np.ndarray):
            raise refused(node, "chooses by the values of the input", "make it without masks and conditions")
        if isinstance(first, Elements) or isinstance(second, Elements):
            raise _unknown(node)
        if node.op == "Select" and condition.ndim == 1:  # by rows
            condition = condition.reshape(-1, *[1] * (len(_shape(first)) - 1))
        traced = isinstance(first, Traced) or isinstance(second, Traced)
        if traced:
            first, second = self._trace.ids(first), self._trace.ids(second)
        chosen = np.where(condition, first, second)
        return Traced(chosen) if traced else chosen

    def _stacked(self, parts: list[Any]) -> Any:
        if any(isinstance(part, Traced) for part in parts):
            return Traced(np.stack([self._trace.ids(part) for part in parts]))
        return np.stack(parts)


def _numbers_made(node: Node, values: list[Any], shapes: list[tuple[int, ...]]) -> int:
    sizes = [_size(shape) for shape in shapes]
    match node.op, values:
        case (
            ("Fill", [np.ndarray() as shape, _])
            | ("BroadcastTo", [_, np.ndarray() as shape])
            | ("RandomUniform", [np.ndarray() as shape])
        ):
            return _size(shape.tolist())
        case ("Tile", [_, np.ndarray() as repeats]):
            return sizes[0] * _size(repeats.tolist())
        case ("Range", [np.ndarray() as start, np.ndarray() as limit, np.ndarray() as step]):
            return int(abs((limit.item() - start.item()) / step.item())) + 1
        case ("TensorArrayV3", [np.ndarray() as size]):
            return int(size.item())
        case ("MatMul", [_, _]):  # a multiplication is faster than a number is made
            rows = shapes[0][int(node.attribute("transpose_a", "b", False))]
            columns = shapes[1][int(not node.attribute("transpose_b", "b", False))]
            return rows * columns + sizes[0] * columns // 1024
        case (("Gather" | "GatherV2"), [_, _, *axis]):
            along = int(axis[0].item()) if axis else 0
            return sizes[1] * sizes[0] // max(shapes[0][along], 1)
        case ("GatherNd", [_, _]):
            return sizes[1] * _size(shapes[0][shapes[1][-1] :])
        case ("TensorArrayGatherV3", [_, _, Elements(found)]):
            return sizes[1] * max(_size(_shape(value)) for value in found)
        case ("Split", _):
            return sum(sizes) + int(node.attribute("num_split", "i", 1))
        case ("SelectV2", [_, _, _]):
            return _size(np.broadcast_shapes(*shapes))
        case (op, [_, _]) if op in BINARY:
            return _size(np.broadcast_shapes(*shapes))
    return sum(sizes)


def _written(found: tuple[Any, ...], indices: list[int], parts: list[Any]) -> Elements:
    values = list(found)
    for index, part in zip(indices, parts, strict=True):
        values[index] = part
    return Elements(tuple(values))


def _shape(value: Any) -> tuple[int, ...]:
    match value:
        case Elements(values):
            return (len(values),)
        case Traced(ids):
            return ids.shape
    return value.shape if isinstance(value, np.ndarray) else ()


def _size(shape: Any) -> int:
    """How many numbers; empty axes count as one, since there may be many rows of nothing."""
    return prod(max(axis, 1) for axis in shape)


def _want_arrays(node: Node, values: list[Any]) -> None:
    if any(not isinstance(value, np.ndarray) for value in values):
        raise refused(node, "where it reads or writes depends on the values of the input", "use fixed places")


def _unknown(node: Node) -> ModelError:
    found = "this operation is not supported here"
    if node.op.startswith("CudnnRNN"):
        return refused(node, found, "restore its checkpoint into a CudnnCompatibleGRUCell, and freeze that graph")
    if node.op in ("ArgMax", "TopKV2") and node.inputs:
        before = short(node.inputs[0][0])
        return refused(node, found, f"leave it out: tf.graph_util.extract_sub_graph(graph, [{before}])")
    return refused(node, found)
