"""GraphDef files of TensorFlow 1 as nodes and arrays: read with protobuf, without TensorFlow and its generated code.

A file may be damaged or made to harm. Messages inside messages stay bytes until somebody asks, sizes are compared with
the bytes that are there before an array is made. What the nodes mean is not known here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from quantgru.errors import ConfigError, ModelError
from quantgru.importers.tensorflow1_errors import short
from quantgru.importers.verify import first_line

FILE_LIMIT: Final = 64 << 20  # bytes: 16 million weights. Parsed, empty nodes take sixteen times their bytes
NODE_LIMIT: Final = 50_000
INPUT_LIMIT: Final = 500_000  # of all nodes
NAME: Final = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.\\/>-]{0,999}")  # of nodes and operations: node_def_util.cc
ATTRIBUTE_LIMIT: Final = 4096  # bytes, of others than the value of a constant
CONSTANT_LIMIT: Final = 1 << 24  # values

_DAMAGED: Final = "the file is damaged, or no frozen graph (GraphDef) of TensorFlow 1 in binary form"

# DataType of tensorflow/core/framework/types.proto: what it is in memory, and the field that holds single values.
_DATA_TYPES: Final[dict[int, tuple[str, str]]] = {
    1: ("<f4", "float_val"),
    2: ("<f8", "double_val"),
    3: ("<i4", "int_val"),
    9: ("<i8", "int64_val"),
    10: ("?", "bool_val"),
    19: ("<f2", "half_val"),
}
_DATA_TYPE_NAMES: Final = {7: "string", 8: "complex64", 14: "bfloat16", 18: "complex128", 20: "resource"}
HALF: Final = 19
FLOATS: Final = (1, 2, HALF)
INTEGERS: Final = (3, 9)
BOOLEAN: Final = 10


@dataclass(frozen=True)
class Node:
    """One node; inputs are (node, output), without control inputs, which order side effects only."""

    name: str
    op: str
    inputs: tuple[tuple[str, int], ...]
    attributes: Mapping[str, bytes]

    def __str__(self) -> str:
        return f"node {short(self.name)} ({short(self.op)})"

    def attribute(self, name: str, field: str, default: Any) -> Any:
        """A field of an attribute, or what it means to TensorFlow that the attribute is absent: `default`."""
        value = self.attributes.get(name)
        return default if value is None else getattr(parse("AttrValue", value, str(self)), field)

    def integers(self, name: str) -> list[int]:
        return list(parse("ListValue", self.attribute(name, "list", b""), str(self)).i)

    def shape(self, name: str) -> tuple[int, ...] | None:
        """A declared shape, -1 for what may be any; None where not even the number of axes is declared."""
        declared = self.attribute(name, "shape", None)
        return None if declared is None else _shape(declared, str(self))

    def array(self) -> npt.NDArray[Any]:
        """The value of a constant in float64, int64 or bool. Raises ModelError."""
        where = f"constant {short(self.name)}"
        return _array(where, parse("TensorProto", self.attribute("value", "tensor", b""), where))


def read_nodes(path: Path, where: str) -> dict[str, Node]:
    """The nodes of a file by name, each input one of them. Raises ModelError, ConfigError if protobuf is missing."""
    size = path.stat().st_size
    if size > FILE_LIMIT:
        raise ModelError(f"{where}: {size} bytes, allowed are {FILE_LIMIT}")
    data = path.read_bytes()
    if not data.startswith(b"\n"):  # the first field of a binary GraphDef is a node
        raise ModelError(f"{where}: {_other_file(data)}")
    graph = parse("GraphDef", data, where)
    if not 0 < len(graph.node) <= NODE_LIMIT:
        raise ModelError(f"{where}: {len(graph.node)} nodes, allowed are 1 ... {NODE_LIMIT}; {_DAMAGED}")
    nodes: dict[str, Node] = {}
    n_inputs = 0
    for message in graph.node:
        node = _node(parse("NodeDef", message, where), where)
        if node.name in nodes:
            raise ModelError(f"{where}: two nodes {short(node.name)}; {_DAMAGED}")
        nodes[node.name] = node
        n_inputs += len(node.inputs)
        if n_inputs > INPUT_LIMIT:
            raise ModelError(f"{where}: more than {INPUT_LIMIT} inputs of nodes; {_DAMAGED}")
    for node in nodes.values():
        for name, _ in node.inputs:
            if name not in nodes:
                raise ModelError(f"{where}: {node} reads node {short(name)}, which is not there; {_DAMAGED}")
    return nodes


def parse(message: str, data: bytes, where: str) -> Any:
    """`data` as a message of this name, messages in it as bytes. Raises ModelError, ConfigError without protobuf."""
    try:
        from quantgru.importers.tensorflow1_messages import FLAT, DecodeError
    except ImportError:
        raise ConfigError(
            "reading .pb files needs protobuf, which is not installed: pip install quantgru[tensorflow1]"
        ) from None
    try:
        return FLAT[message].FromString(data)
    except DecodeError as error:
        raise ModelError(f"{where}: no {message} of TensorFlow ({first_line(error)}); {_DAMAGED}") from None


def _node(message: Any, where: str) -> Node:
    if len(message.input) > INPUT_LIMIT:
        raise ModelError(f"{where}: node {short(message.name)} has {len(message.input)} inputs; {_DAMAGED}")
    for name in (message.name, message.op):
        if not NAME.fullmatch(name):
            raise ModelError(f"{where}: {short(name)} is no name of a node or an operation; {_DAMAGED}")
    entries = [parse("AttrEntry", entry, where) for entry in message.attr]
    attributes = {entry.key: entry.value for entry in entries if not entry.key.startswith("_")}  # _ is for optimizers
    for key, value in attributes.items():
        if key != "value" and len(value) > ATTRIBUTE_LIMIT:
            raise ModelError(f"{where}: attribute {short(key)} of {len(value)} bytes in node {short(message.name)}")
    inputs = tuple(_input(name) for name in message.input if not name.startswith("^"))
    return Node(message.name, message.op, inputs, attributes)


def _input(text: str) -> tuple[str, int]:
    """An input is NODE or NODE:OUTPUT."""
    name, colon, output = text.rpartition(":")
    if colon and output.isdecimal() and output.isascii() and len(output) < 6:
        return name, int(output)
    return text, 0


# What files begin with that come with the suffix of a graph, and what to do.
_OTHER_FILES: Final[dict[bytes, str]] = {
    rb"\x08\x01": "a SavedModel, whose variables are in other files; of TensorFlow 1: freeze_graph "
    "--input_saved_model_dir FOLDER --output_node_names NAME --output_graph model.pb; of Keras: save it as .keras",
    rb"\x08": "an ONNX model by its first bytes; give it the suffix .onnx",
    rb"\x89HDF": "an HDF5 file; give it the suffix .h5",
    rb"PK\x03\x04": "a zip archive; give it the suffix that it was saved with: .keras, .pt or .npz",
    rb".{4}TFL3": "a TensorFlow Lite model; give the model that it was made from",
    rb"\s*(node|versions|library|#)": "a graph as text; write it in binary: "
    "tf.io.write_graph(graph, folder, name, as_text=False)",
}


def _other_file(data: bytes) -> str:
    """What a file is that does not begin with a node."""
    if not data:
        return "the file is empty; expected a frozen graph (GraphDef) of TensorFlow 1"
    for beginning, message in _OTHER_FILES.items():
        if re.match(beginning, data, re.DOTALL):
            return message
    return f"does not begin with a node of a graph; {_DAMAGED}"


def _shape(message: bytes, where: str) -> tuple[int, ...] | None:
    shape = parse("TensorShapeProto", message, where)
    if shape.unknown_rank:
        return None
    if len(shape.dim) > 8:
        raise ModelError(f"{where}: a shape of {len(shape.dim)} axes, allowed are 8; {_DAMAGED}")
    return tuple(parse("Dim", dim, where).size for dim in shape.dim)


def _array(where: str, tensor: Any) -> npt.NDArray[Any]:
    if tensor.dtype not in _DATA_TYPES:
        name = _DATA_TYPE_NAMES.get(tensor.dtype, f"number {tensor.dtype}")
        raise ModelError(f"{where}: values of type {name}, supported are half, float, double, integers and bool")
    shape = _shape(tensor.tensor_shape, where) or ()
    n_values = prod(shape)
    if min(shape, default=0) < 0 or prod(max(size, 1) for size in shape) > CONSTANT_LIMIT:
        raise ModelError(f"{where}: shape {shape}, allowed are {CONSTANT_LIMIT} values; {_DAMAGED}")
    type_name, field = _DATA_TYPES[tensor.dtype]
    dtype = np.dtype(type_name)
    if tensor.tensor_content:
        found = len(tensor.tensor_content)
        if found != n_values * dtype.itemsize:
            raise ModelError(f"{where}: {found} bytes, shape {shape} takes {n_values * dtype.itemsize}; {_DAMAGED}")
        values = np.frombuffer(tensor.tensor_content, dtype).reshape(shape)
    else:
        values = _single_values(where, getattr(tensor, field), dtype, shape)
    kind = {"f": np.float64, "i": np.int64, "b": np.bool_}[dtype.kind]
    return values.astype(kind)


def _single_values(where: str, field: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Values one by one; the last one stands for all that follow, none at all for zeros."""
    n_values = prod(shape)
    if len(field) > n_values:
        raise ModelError(f"{where}: {len(field)} values, shape {shape} takes {n_values}; {_DAMAGED}")
    if dtype == np.float16:  # as the integers that have the same bits
        given = np.asarray(field, dtype=np.int64).astype(np.uint16).view(np.float16)
    else:
        given = np.asarray(field, dtype=dtype)
    values = np.zeros(n_values, dtype)
    values[: len(given)] = given
    values[len(given) :] = given[-1] if len(given) else 0
    return values.reshape(shape)
