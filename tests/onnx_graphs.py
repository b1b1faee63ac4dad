"""Small ONNX graphs for tests, written node by node; what onnxruntime computes, and how quantgru refuses them."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="ONNX is not installed: pip install quantgru[onnx]")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

import quantgru as qg  # noqa: E402

MODELS = Path(__file__).parent / "models" / "onnx"
UNITS = 3  # of most graphs, which have as many inputs
TOLERANCE = 1e-6
LONGEST_MESSAGE = 400  # characters, without the path of the file

Arrays = Mapping[str, np.ndarray]

onnxruntime.set_default_logger_severity(4)  # what it cannot do, it raises
RMS = 0.4  # of weights


class GraphBuilder:
    """Collects nodes. Each method returns the name of what it adds."""

    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self.inputs: list[onnx.ValueInfoProto] = []
        self._n = 0

    def name(self, kind: str) -> str:
        self._n += 1
        return f"{kind}_{self._n}"

    def input(self, name: str, shape: Sequence[int | str], kind: int = TensorProto.FLOAT) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def constant(self, values: Any, kind: Any = None) -> str:
        name = self.name("constant")
        array = np.asarray(values)
        self.constants[name] = array.astype(kind or (np.int64 if array.dtype.kind in "iu" else np.float32))
        return name

    def weights(self, *shape: int) -> str:
        return self.constant(self.random.normal(0, RMS, shape))

    def add(self, kind: str, *inputs: str, n_outputs: int = 1, **attributes: Any) -> Any:
        outputs = [self.name(kind.lower()) for _ in range(n_outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), outputs, name=self.name("node"), **attributes))
        return outputs[0] if n_outputs == 1 else outputs

    def gru(self, x: str, n_inputs: int, units: int, **options: Any) -> tuple[str, str]:
        """Y and Y_h of a node with random weights; options are its attributes, and bias, lengths and start."""
        directions = 2 if options.get("direction") == "bidirectional" else 1
        weights = [self.weights(directions, 3 * units, n) for n in (n_inputs, units)]
        bias = self.weights(directions, 6 * units) if options.pop("bias", True) else ""
        inputs = [x, *weights, bias, options.pop("lengths", ""), options.pop("start", "")]
        while not inputs[-1]:
            inputs.pop()
        y, y_h = self.add("GRU", *inputs, n_outputs=2, hidden_size=units, **options)
        return y, y_h

    def model(self, *outputs: str, opset: int = 20, producer: str = "") -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "graph",
            self.inputs,
            [onnx.ValueInfoProto(name=name) for name in outputs],
            [numpy_helper.from_array(array, name) for name, array in self.constants.items()],
        )
        for entry in graph.output:
            entry.type.tensor_type.elem_type = TensorProto.FLOAT
        opsets = [helper.make_opsetid("", opset)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name=producer)


def computed(model: onnx.ModelProto, **inputs: np.ndarray) -> list[np.ndarray]:
    """The outputs by onnxruntime; floats as float32, as it computes."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = {name: a.astype(np.float32) if a.dtype == np.float64 else a for name, a in inputs.items()}
    return [np.asarray(output, dtype=np.float64) for output in session.run(None, feed)]


def written(folder: Path, model: onnx.ModelProto, name: str = "model") -> Path:
    path = folder / f"{name}.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def samples(seed: int, *shape: int) -> np.ndarray:
    """Normal values that float32 has, so that both sides read the same."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32).astype(np.float64)


def forward(g: GraphBuilder, shape: Sequence[int | str] = ("batch", "steps", 3), **options: Any) -> tuple[str, str]:
    """[batch, steps, units] and [1, batch, units] of a layer on input x, batch first."""
    y, y_h = g.gru(g.add("Transpose", g.input("x", shape), perm=[1, 0, 2]), 3, UNITS, **options)
    return batch_first(g, y), y_h


def batch_first(g: GraphBuilder, y: str) -> str:
    """[batch, steps, units] of Y of one direction."""
    return g.add("Transpose", g.add("Squeeze", y, g.constant([1])), perm=[1, 0, 2])


def refusal(path: Path, **options: str) -> str:
    """The message of the error, without the path of the file."""
    with pytest.raises(qg.ModelError) as caught:
        qg.load(path, **options)
    start, _, text = str(caught.value).partition(f"{path}: ")
    assert start == "ONNX file "
    assert "\n" not in text
    assert len(text) <= LONGEST_MESSAGE, text
    return text


@contextmanager
def bounded_memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 1 << 26
    finally:
        tracemalloc.stop()
