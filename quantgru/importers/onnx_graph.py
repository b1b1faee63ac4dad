"""An ONNX file as plain data: nodes in order with their attributes, constants as arrays, inputs and outputs.

The graphs that a loop runs for each step, and of which a condition runs one, are attributes of their nodes, each a
`Body`. Other graphs in nodes are refused, and graphs inside of those.

A file may be damaged or made to harm: the data of each tensor must be as long as its shape says before an array is made
of it, nodes must have the form that ONNX's schema says, and only the nodes that outputs need are looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from quantgru.errors import ModelError
from quantgru.importers.chain import refuse
from quantgru.importers.onnx_model import DAMAGED, every_node, onnx_package, read_model

Array = npt.NDArray[Any]
Names = tuple[Iterable[str], Iterable[str]]  # what a node reads, and what it writes
N = TypeVar("N")

# ONNX's numbers of element types: bytes an element, and the field that holds elements which are not raw.
_ELEMENTS: Final[dict[int, tuple[int, str]]] = {
    1: (4, "float_data"),
    2: (1, "int32_data"),  # uint8
    3: (1, "int32_data"),  # int8
    4: (2, "int32_data"),  # uint16
    5: (2, "int32_data"),  # int16
    6: (4, "int32_data"),
    7: (8, "int64_data"),
    9: (1, "int32_data"),  # bool
    10: (2, "int32_data"),  # float16
    11: (8, "double_data"),
    12: (4, "uint64_data"),  # uint32
    13: (8, "uint64_data"),
    16: (2, "int32_data"),  # bfloat16
}
FLOATS: Final = frozenset((1, 10, 11, 16))
_TENSOR, _GRAPHS, _SPARSE = 4, (5, 10), (11, 12)  # numbers of attribute types
_BODIES: Final = {"Loop": ("body",), "Scan": ("body",), "If": ("then_branch", "else_branch")}  # names of attributes


@dataclass(frozen=True)
class Node:
    """One operation. `attributes` has a default of ONNX's for each that the file leaves out, if there is one."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    opset: int

    @property
    def where(self) -> str:
        kind = self.kind if self.kind.isidentifier() else _short(self.kind)
        return f"node {_short(self.name or next(filter(None, self.outputs), ''))} ({kind})"


@dataclass(frozen=True)
class Body:
    """A graph that a node runs. It also sees the values of the graph around it, by their names."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, Array]
    nodes: tuple[Node, ...]

    @property
    def names(self) -> Iterator[str]:
        """Of all values that are its own."""
        yield from (*self.inputs, *self.constants, *_results(self.nodes))


@dataclass(frozen=True)
class GraphInput:
    """An input; dims of None are free."""

    name: str
    dims: tuple[int | None, ...]
    integer: bool


@dataclass(frozen=True)
class Graph:
    producer: str
    opset: int
    inputs: tuple[GraphInput, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, Array]
    nodes: tuple[Node, ...]
    n_bytes: int


def read_graph(path: Path) -> Graph:
    """The graph of a file. Raises ModelError, ConfigError where onnx is not installed."""
    onnx = onnx_package()
    model, opset, n_bytes = read_model(path, onnx)
    return _Reader(model, opset, onnx).graph(n_bytes)


class _Reader:
    """Turns a ModelProto into a `Graph`."""

    def __init__(self, model: Any, opset: int, onnx: Any) -> None:
        self.model = model
        self.opset = opset
        self.onnx = onnx
        self._schemas: dict[str, Any] = {}

    def graph(self, n_bytes: int) -> Graph:
        graph = self.model.graph
        outputs = tuple(_name(entry.name) for entry in graph.output)
        if not outputs:
            raise ModelError(f"a graph without outputs; {DAMAGED}")
        needed = needed_for(graph.node, outputs, _names_of)
        used = {name for node in needed for name in _names_of(node)[0]} | set(outputs)
        constants = self._constants(graph, used)
        inputs = tuple(
            self._input(entry) for entry in graph.input if entry.name in used and entry.name not in constants
        )
        nodes = tuple(self._node(node) for node in needed)
        names = [*constants, *(entry.name for entry in inputs), *_results(nodes)]
        own = self._refuse_second_names(names)
        for node in nodes:
            for body in node.attributes.values():
                if isinstance(body, Body):
                    self._refuse_second_names(body.names, own)
        return Graph(self.model.producer_name, self.opset, inputs, outputs, constants, nodes, n_bytes)

    def _constants(self, graph: Any, used: set[str]) -> dict[str, Array]:
        """Of a graph, those of these names. Raises ModelError where one is sparse, or two have one name."""
        sparse = {entry.values.name for entry in graph.sparse_initializer} & used
        if sparse:
            raise refuse(f"tensor {_short(min(sparse))}", "sparse", "export dense weights")
        initializers = [entry for entry in graph.initializer if entry.name in used]
        self._refuse_second_names(entry.name for entry in initializers)
        return {_name(entry.name): self.tensor(entry) for entry in initializers}

    def _body(self, graph: Any) -> Body:
        inputs, outputs = (tuple(_name(entry.name) for entry in entries) for entries in (graph.input, graph.output))
        needed = needed_for(graph.node, outputs, _names_of)
        used = {name for node in needed for name in node.input} | set(outputs)
        nodes = tuple(self._node(node, inside=True) for node in needed)
        return Body(inputs, outputs, self._constants(graph, used), nodes)

    def _refuse_second_names(self, names: Iterable[str], around: Set[str] = frozenset()) -> Set[str]:
        """The names as a set. Raises ModelError where two are the same, or one is among those around."""
        seen: set[str] = set()
        for name in names:
            if name in seen or name in around:
                raise ModelError(f"two tensors of the name {_short(name)}; {DAMAGED}")
            seen.add(name)
        return seen

    def _input(self, entry: Any) -> GraphInput:
        where = f"input {_short(entry.name)}"
        kind = entry.type.tensor_type
        if kind.elem_type not in _ELEMENTS:
            raise refuse(where, f"of type {kind.elem_type or 'other than a tensor'}", "give it a tensor of numbers")
        if not kind.HasField("shape"):
            raise refuse(where, "no shape", "export it with shapes; those of steps and batch may be free")
        dims = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim)
        if any(dim is not None and dim < 1 for dim in dims):
            raise refuse(where, f"shape {list(dims)}", "give it sizes of 1 or more, or names for free ones")
        return GraphInput(_name(entry.name), dims, kind.elem_type not in FLOATS)

    def _node(self, node: Any, inside: bool = False) -> Node:
        """inside: of the graph of another node, which cannot hold another one."""
        inputs, outputs = tuple(map(_name, node.input)), tuple(map(_name, node.output))
        described = Node(_name(node.op_type), _name(node.name), inputs, outputs, {}, self.opset)
        if node.domain not in ("", "ai.onnx"):
            raise refuse(
                described.where, f"an operator of domain {_short(node.domain)}", "export it with ONNX's own operators"
            )
        schema = self._schema(described)
        attributes = {
            name: self._value(attribute.default_value)
            for name, attribute in schema.attributes.items()
            if attribute.default_value.type
        }
        for attribute in node.attribute:
            if attribute.type in _GRAPHS and (inside or attribute.name not in _BODIES.get(node.op_type, ())):
                raise refuse(
                    described.where,
                    "a loop or condition inside of another" if inside else "has a graph of its own",
                    "export it without masks and conditions, or load the Keras model itself, a .keras file",
                )
            expected = schema.attributes.get(attribute.name)
            if expected is None or int(expected.type.value) != attribute.type or attribute.ref_attr_name:
                raise ModelError(
                    f"{described.where}: attribute {_short(attribute.name)} is none of opset {self.opset}; {DAMAGED}"
                )
            is_body = attribute.type in _GRAPHS
            attributes[attribute.name] = self._body(attribute.g) if is_body else self._value(attribute)
        return replace(described, attributes=attributes)

    def _schema(self, node: Node) -> Any:
        """What ONNX says of the operator. Raises ModelError where there is none, or the node has not its form."""
        if node.kind not in self._schemas:
            try:
                self._schemas[node.kind] = self.onnx.defs.get_schema(node.kind, self.opset, "")
            except self.onnx.defs.SchemaError:
                raise refuse(node.where, f"no operator of opset {self.opset}") from None
        schema = self._schemas[node.kind]
        fits = schema.min_input <= len(node.inputs) <= schema.max_input
        if schema.deprecated or not fits or not schema.min_output <= len(node.outputs) <= schema.max_output:
            raise ModelError(
                f"{node.where}: {len(node.inputs)} inputs and {len(node.outputs)} outputs, another form than in opset "
                f"{self.opset}; {DAMAGED}"
            )
        return schema

    def _value(self, attribute: Any) -> Any:
        """float, int, str, an array, or a tuple of such."""
        if attribute.type in _SPARSE:
            raise refuse(f"attribute {_short(attribute.name)}", "a sparse tensor", "export dense weights")
        if attribute.type == _TENSOR:
            return self.tensor(attribute.t)
        value = self.onnx.helper.get_attribute_value(attribute)
        if isinstance(value, bytes):
            return value.decode(errors="replace")
        if isinstance(value, (int, float)):
            return value
        return tuple(entry.decode(errors="replace") if isinstance(entry, bytes) else entry for entry in value)

    def tensor(self, tensor: Any) -> Array:
        """A read-only array. Raises ModelError where the data are not as many as the shape says, or are elsewhere."""
        where = f"tensor {_short(tensor.name)}"
        if tensor.data_location or tensor.external_data:
            raise refuse(
                where,
                "its data are in another file, which is not opened",
                "export with external_data=False, or join them: onnx.save(onnx.load(path), new_path)",
            )
        if tensor.data_type not in _ELEMENTS:
            raise refuse(where, f"elements of type {tensor.data_type}", "export floating point weights")
        n_bytes, field = _ELEMENTS[tensor.data_type]
        count = prod(tensor.dims)
        raw = tensor.HasField("raw_data")
        found = len(tensor.raw_data) if raw else len(getattr(tensor, field))
        if tensor.HasField("segment") or min(tensor.dims, default=0) < 0 or found != count * (n_bytes if raw else 1):
            shape = str(list(tensor.dims[:8]))
            raise ModelError(f"{where}: shape {shape} with {found} {'bytes' if raw else 'elements'}; {DAMAGED}")
        array = np.asarray(self.onnx.numpy_helper.to_array(tensor))
        return array.astype(np.float32) if tensor.data_type == 16 else array


def _names_of(node: Any) -> Names:
    """What a node of a file reads, with what the graphs inside of it read; and what it writes."""
    return {name for each in every_node([node]) for name in each.input}, node.output


def needed_for(nodes: Sequence[N], outputs: Iterable[str], names_of: Callable[[N], Names]) -> list[N]:
    """The nodes that these outputs depend on, in order."""
    wanted, needed = set(outputs), []
    for node in reversed(nodes):
        reads, writes = names_of(node)
        if wanted.intersection(filter(None, writes)):
            wanted.update(reads)
            needed.append(node)
    return needed[::-1]


def _results(nodes: Iterable[Node]) -> list[str]:
    return [name for node in nodes for name in node.outputs if name]


def _name(name: str | bytes) -> str:
    """A name of the file. The library gives bytes where it is no text."""
    if isinstance(name, bytes):
        raise ModelError(f"a name that is no text, {_short(name)}; {DAMAGED}")
    return name


def _short(name: str | bytes) -> str:
    return repr(name) if len(name) <= 60 else f"{name[:57]!r}..."
