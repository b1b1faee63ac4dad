"""Graphs of ONNX built node by node, one for each structure of docs/sources.md, and run by ONNX Runtime.

Inputs are [sequences, steps, inputs] and turned for the GRU node, or come as it takes them, [steps, sequences, inputs].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper
from support_cases import (
    INPUTS,
    LENGTHS,
    SEQUENCES,
    TOKENS,
    UNITS,
    Functions,
    Made,
    generator_of,
    ragged_x,
    random_tokens,
    random_weights,
    random_x,
)

CANDIDATES: Final = {"tanh": "Tanh", "relu": "Relu", "linear": "Affine", "sigmoid": "Sigmoid"}
ACTIVATIONS: Final = {"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh"}


@dataclass
class Graph:
    """Nodes and constants; names are made, constants are random unless they are given."""

    functions: Functions
    generator: np.random.Generator
    time_first: bool
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)

    def add(self, kind: str, *inputs: str, n_outputs: int = 1, **attributes: Any) -> Any:
        """The name of the output, or a list of several."""
        outputs = [f"{kind.lower()}_{len(self.nodes)}_{i}" for i in range(n_outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), outputs, **attributes))
        return outputs[0] if n_outputs == 1 else outputs

    def constant(self, values: Any, dtype: type = np.float32) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def random(self, *shape: int) -> str:
        return self.constant(random_weights(self.generator, shape))

    def input(self, name: str, shape: Sequence[int | None], kind: int = onnx.TensorProto.FLOAT) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def x(self, inputs: int = INPUTS) -> str:
        """The input, as the GRU node takes it."""
        shape = ["steps", "sequences", inputs] if self.time_first else ["sequences", "steps", inputs]
        return self.turned(self.input("x", shape))

    def turned(self, name: str) -> str:
        """Steps and sequences exchanged, if the input has the sequences first."""
        return name if self.time_first else self.add("Transpose", name, perm=[1, 0, 2])

    def gru(
        self, x: str, inputs: int = INPUTS, units: int = UNITS, direction: str = "forward", **more: str
    ) -> list[str]:
        """Y and Y_h; `more` are lengths and h."""
        n = 2 if direction == "bidirectional" else 1
        bias = self.random(n, 6 * units) if self.functions.bias != "no" else ""
        names = [x, self.random(n, 3 * units, inputs), self.random(n, 3 * units, units), bias]
        names += [more.get("lengths", ""), more.get("h", "")]
        while not names[-1]:
            names.pop()
        attributes = self._functions(n) | {"hidden_size": units, "direction": direction}
        return self.add(
            "GRU", *names, n_outputs=2, linear_before_reset=int(self.functions.reset == "after"), **attributes
        )

    def _functions(self, n_directions: int) -> dict[str, Any]:
        gate, candidate = self.functions[:2]
        names, alphas, betas = [], [], []
        for _ in range(n_directions):
            names += ["Sigmoid" if gate == "sigmoid" else "HardSigmoid", CANDIDATES[candidate]]
            slope, offset = self.functions.choose((0.2, 0.5), (0.3, 0.4), (1 / 6, 0.5))
            alphas += [slope] * (gate == "hard_sigmoid") + [1.0] * (candidate == "linear")
            betas += [offset] * (gate == "hard_sigmoid") + [0.0] * (candidate == "linear")
        if names == ["Sigmoid", "Tanh"] * n_directions and self.functions.choose(True, False):
            return {}
        parameters = {"activation_alpha": alphas, "activation_beta": betas} if alphas else {}
        return {"activations": names, **parameters}

    def dense(self, x: str, inputs: int, outputs: int) -> str:
        """On every step; the bias first or last."""
        product, bias = self.add("MatMul", x, self.random(inputs, outputs)), self.random(outputs)
        y = self.add("Add", *self.functions.choose((product, bias), (bias, product)))
        activation = self.functions.dense_activation
        return y if activation == "linear" else self.add(ACTIVATIONS[activation], y)

    def every_step(self, y: str) -> str:
        """Y of one direction, without its axis."""
        return self.turned(self.add("Squeeze", y, self.constant([1], np.int64)))

    def save(self, path: Path, rank: int) -> Path:
        """The outputs have `rank` axes."""
        float32 = onnx.TensorProto.FLOAT
        outputs = [helper.make_tensor_value_info(name, float32, [None] * rank) for name in self.outputs]
        graph = helper.make_graph(self.nodes, "model", self.inputs, outputs, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.checker.check_model(model)
        path.write_bytes(model.SerializeToString())
        return path


# ---- structures ----------------------------------------------------------------------------------------------------


def _every_step(graph: Graph) -> str:
    return graph.every_step(graph.gru(graph.x())[0])


def _last_step(graph: Graph) -> str:
    y, y_h = graph.gru(graph.x())
    kind = graph.functions.choose("state", "gather", "slice")
    if kind == "state":
        return graph.add("Squeeze", y_h, graph.constant([0], np.int64))
    y, axis = graph.every_step(y), 0 if graph.time_first else 1
    if kind == "gather":
        return graph.add("Gather", y, graph.constant(-1, np.int64), axis=axis)
    start, end, axes = (graph.constant([n], np.int64) for n in (-1, 2**31 - 1, axis))
    return graph.add("Squeeze", graph.add("Slice", y, start, end, axes), axes)


def _stack(graph: Graph) -> str:
    y = graph.add("Squeeze", graph.gru(graph.x(), units=2)[0], graph.constant([1], np.int64))
    return graph.every_step(graph.gru(y, 2)[0])


def _concatenated(graph: Graph) -> str:
    y = graph.add("Transpose", graph.gru(graph.x(), direction="bidirectional")[0], perm=[0, 2, 1, 3])
    return graph.turned(graph.add("Reshape", y, graph.constant([0, 0, -1], np.int64)))


def _directions(graph: Graph) -> list[str]:
    """Both directions of every step."""
    y = graph.gru(graph.x(), direction="bidirectional")[0]
    if graph.functions.choose(True, False):
        axis = graph.constant([1], np.int64)
        return [graph.add("Squeeze", part, axis) for part in graph.add("Split", y, n_outputs=2, axis=1)]
    return [graph.add("Gather", y, graph.constant(i, np.int64), axis=1) for i in (0, 1)]


def _summed(graph: Graph) -> str:
    return graph.turned(graph.add("Add", *_directions(graph)))


def _multiplied(graph: Graph) -> str:
    return graph.turned(graph.add("Mul", *_directions(graph)))


def _averaged(graph: Graph) -> str:
    kind, factor = graph.functions.choose(("Mul", 0.5), ("Div", 2.0))
    return graph.turned(graph.add(kind, graph.add("Add", *_directions(graph)), graph.constant(factor)))


def _both_final(graph: Graph) -> str:
    y_h = graph.gru(graph.x(), direction="bidirectional")[1]
    if graph.functions.choose(True, False):
        y = graph.add("Transpose", y_h, perm=[1, 0, 2])
        return graph.add("Reshape", y, graph.constant([0, -1], np.int64))
    parts = [graph.add("Gather", y_h, graph.constant(i, np.int64), axis=0) for i in (0, 1)]
    return graph.add("Concat", *parts, axis=1)


def _backwards(graph: Graph) -> str:
    return graph.every_step(graph.gru(graph.x(), direction="reverse")[0])


def _dense_before(graph: Graph) -> str:
    return graph.every_step(graph.gru(graph.dense(graph.x(), INPUTS, 3), 3)[0])


def _dense_between(graph: Graph) -> str:
    y = graph.every_step(graph.gru(graph.x())[0])
    return graph.every_step(graph.gru(graph.turned(graph.dense(y, UNITS, 2)), 2)[0])


def _dense_after(graph: Graph) -> str:
    return graph.dense(graph.every_step(graph.gru(graph.x())[0]), UNITS, 2)


def _embedded(graph: Graph) -> str:
    shape = ["steps", "sequences"] if graph.time_first else ["sequences", "steps"]
    tokens = graph.input("x", shape, onnx.TensorProto.INT64)
    vectors = graph.turned(graph.add("Gather", graph.random(TOKENS, INPUTS), tokens))
    return graph.every_step(graph.gru(vectors)[0])


def _normalised(graph: Graph) -> str:
    x = graph.x()
    mean, scale = graph.constant([0.5, -0.25]), graph.constant([2.0, 0.75])
    match graph.functions.choose("divided", "multiplied", "batch"):
        case "divided":
            x = graph.add("Div", graph.add("Sub", x, mean), scale)
        case "multiplied":
            x = graph.add("Add", graph.add("Mul", x, scale), mean)
        case _:
            x = graph.add("Transpose", x, perm=[1, 2, 0])  # BatchNormalization takes axis 1 for the features
            numbers = [graph.random(INPUTS), graph.random(INPUTS), mean, scale]
            x = graph.add("Transpose", graph.add("BatchNormalization", x, *numbers, epsilon=1e-4), perm=[2, 0, 1])
    return graph.every_step(graph.gru(x)[0])


def _starting(graph: Graph) -> str:
    """The same state for every sequence, repeated in the file or at run time."""
    start, x = random_weights(graph.generator, (1, 1, UNITS)), graph.x()
    if graph.functions.choose(True, False):
        h = graph.constant(start.repeat(SEQUENCES, axis=1))
    else:
        batch = graph.add("Gather", graph.add("Shape", x), graph.constant([1], np.int64), axis=0)
        shape = graph.add("Concat", graph.constant([1], np.int64), batch, graph.constant([UNITS], np.int64), axis=0)
        h = graph.add("Expand", graph.constant(start), shape)
    return graph.every_step(graph.gru(x, h=h)[0])


def _given_state(graph: Graph) -> str:
    return graph.every_step(graph.gru(graph.x(), h=graph.input("h", [1, "sequences", UNITS]))[0])


def _streaming(graph: Graph) -> str:
    y, y_h = graph.gru(graph.x(), h=graph.input("h", [1, "sequences", UNITS]))
    graph.outputs.append(y_h)
    return graph.every_step(y)


def _with_lengths(graph: Graph) -> str:
    lengths = graph.input("lengths", ["sequences"], onnx.TensorProto.INT32)
    return graph.every_step(graph.gru(graph.x(), lengths=lengths)[0])


STRUCTURES: Final[dict[str, Callable[[Graph], str]]] = {
    "every step": _every_step,
    "last step": _last_step,
    "stack": _stack,
    "bidirectional, concat": _concatenated,
    "bidirectional, sum": _summed,
    "bidirectional, mul": _multiplied,
    "bidirectional, ave": _averaged,
    "final states of both directions": _both_final,
    "backwards": _backwards,
    "dense before": _dense_before,
    "dense between": _dense_between,
    "dense after": _dense_after,
    "embedding": _embedded,
    "normalisation": _normalised,
    "constant initial state": _starting,
    "given initial state": _given_state,
    "streaming": _streaming,
    "unequal lengths": _every_step,
    "lengths as an input": _with_lengths,
}


ONE_VECTOR: Final = ("last step", "final states of both directions")


def by_hand(structure: str, functions: Functions, folder: Path) -> Made:
    graph = Graph(functions, generator_of(structure, functions), functions.choose(True, False, False))
    graph.outputs.insert(0, STRUCTURES[structure](graph))
    path = graph.save(folder / "model.onnx", rank=2 if structure in ONE_VECTOR else 3)
    return replace(run(structure, functions, Session(path, graph.time_first)), forms=(path,))


# ---- what comes out ------------------------------------------------------------------------------------------------


class Session:
    """A file in ONNX Runtime; inputs and outputs have the sequences first."""

    def __init__(self, path: Path, time_first: bool = False) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._time_first = time_first

    def __call__(self, x: np.ndarray, **more: np.ndarray) -> list[np.ndarray]:
        kind = np.int64 if x.dtype.kind == "i" else np.float32
        feed = {"x": self._turned(x.astype(kind))} | more
        y, *rest = self._session.run(None, feed)
        return [self._turned(y) if y.ndim == 3 else y, *rest]

    def _turned(self, values: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(values.swapaxes(0, 1)) if self._time_first else values


def run(structure: str, functions: Functions, session: Session) -> Made:
    """What a graph is given and what it gives, still without forms."""
    generator = generator_of(f"x {structure}", functions)
    x = random_x(generator)
    match structure:
        case "embedding":
            tokens = random_tokens(generator)
            return Made((), tokens[..., None], session(tokens)[0])
        case "given initial state":
            h = random_weights(generator, (SEQUENCES, UNITS))
            y = session(x, h=h[None].astype(np.float32))[0]
            return Made((), x, y, run_options={"initial_states": [h]})
        case "streaming":
            first, h = session(x[:, :2], h=np.zeros((1, SEQUENCES, UNITS), np.float32))
            second, _ = session(x[:, 2:], h=h)
            return Made((), x, np.concatenate((first, second), axis=1), goes_on=True)
        case "unequal lengths":
            ragged = ragged_x(generator)
            return Made((), ragged, [session(rows[None])[0][0] for rows in ragged])
        case "lengths as an input":
            return _run_with_lengths(session, ragged_x(generator))
    return Made((), x, session(x)[0])


def _run_with_lengths(session: Session, x: list[np.ndarray]) -> Made:
    padded = np.zeros((len(x), max(LENGTHS), INPUTS))
    for rows, given in zip(padded, x, strict=True):
        rows[: len(given)] = given
    y = session(padded, lengths=np.array(LENGTHS, np.int32))[0]
    return Made((), x, [rows[: len(given)] for rows, given in zip(y, x, strict=True)])
