"""Graphs of TensorFlow 1 made by hand, node by node, and files that are changed copies of those of TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import quantgru as qg
from quantgru.importers.tensorflow1_messages import GraphDef

MODELS = Path(__file__).parent / "models" / "tensorflow1"
DATA_TYPES = {"float32": 1, "float64": 2, "int32": 3, "int64": 9, "bool": 10, "float16": 19}


class GraphMaker:
    """Adds nodes one after the other; each call gives the name of the node, to be an input of others."""

    def __init__(self) -> None:
        self.graph = GraphDef()

    def node(self, op: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """Attributes: a tuple is a shape, a list one of integers, text a data type."""
        name = name or f"{op}_{len(self.graph.node)}"
        node = self.graph.node.add(name=name, op=op, input=inputs)
        for key, value in attributes.items():
            set_attribute(node.attr.add(key=key).value, value)
        return name

    def constant(self, values: Any, name: str = "") -> str:
        array = np.asarray(values)
        array = array.astype({"f": np.float32, "i": np.int32, "b": np.bool_}[array.dtype.kind])
        name = self.node("Const", name=name)
        tensor = self.graph.node[-1].attr.add(key="value").value.tensor
        tensor.dtype, tensor.tensor_content = DATA_TYPES[array.dtype.name], array.tobytes()
        for size in array.shape:
            tensor.tensor_shape.dim.add(size=size)
        return name

    def placeholder(self, *shape: int, dtype: str = "float32", name: str = "samples") -> str:
        return self.node("Placeholder", name=name, shape=shape, dtype=dtype)

    def join(self, *parts: str) -> str:
        return self.node("ConcatV2", *parts, self.constant(1))

    def dense(self, x: str, weights: Any, bias: Any) -> str:
        return self.node("BiasAdd", self.node("MatMul", x, self.constant(weights)), self.constant(bias))

    def split(self, x: str) -> tuple[str, str]:
        name = self.node("Split", self.constant(1), x, num_split=2)
        return name, f"{name}:1"

    def mixture(self, u: str, a: str, b: str) -> str:
        """u * a + (1 - u) * b"""
        rest = self.node("Sub", self.constant(1.0), u)
        return self.node("AddV2", self.node("Mul", u, a), self.node("Mul", rest, b))

    def save(self, path: Path) -> Path:
        path.write_bytes(self.graph.SerializeToString(deterministic=True))
        return path


def set_attribute(attribute: Any, value: Any) -> None:
    attribute.Clear()
    match value:
        case bool():
            attribute.b = value
        case int():
            attribute.i = value
        case bytes():
            attribute.s = value
        case str():
            attribute.type = DATA_TYPES[value]
        case list():
            attribute.list.i.extend(value)
        case tuple():
            attribute.shape.SetInParent()
            for size in value:
                attribute.shape.dim.add(size=size)


def changed(name: str, folder: Path, change: Callable[[Any], None]) -> Path:
    """A copy of a file of TensorFlow's, with `change` done to its GraphDef."""
    maker = GraphMaker()
    maker.graph.ParseFromString((MODELS / name).read_bytes())
    change(maker.graph)
    return maker.save(folder / name)


def node_of(graph: Any, name: str) -> Any:
    return next(node for node in graph.node if node.name == name)


def attribute_of(graph: Any, name: str, key: str) -> Any:
    return next(entry.value for entry in node_of(graph, name).attr if entry.key == key)


def keep_up_to(graph: Any, name: str) -> None:
    """Removes all nodes that `name` does not need."""
    inputs = {node.name: [text.lstrip("^").split(":")[0] for text in node.input] for node in graph.node}
    needed, pending = {name}, [name]
    while pending:
        before = set(inputs.get(pending.pop(), ())) - needed
        needed |= before
        pending += before
    for node in [node for node in graph.node if node.name not in needed]:
        graph.node.remove(node)


def refusal(path: Path) -> str:
    """What is said of a file that is not loaded: one line, and a short one."""
    with pytest.raises(qg.ModelError) as caught:
        qg.load(path)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) <= 400
    return text
