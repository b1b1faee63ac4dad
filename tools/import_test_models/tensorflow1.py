"""Writes tests/models/tensorflow1: frozen graphs (.pb) of TensorFlow 1, and tests/models/onnx/tensorflow1_*.

    pip install tensorflow-cpu==2.21.0 tf_keras==2.21.0 tf2onnx==1.17.0 onnx==1.23.2 onnxruntime
    python tools/import_test_models/tensorflow1.py

Graphs are built with tf.compat.v1, its behaviour of TensorFlow 2 switched off: GRUCell in dynamic_rnn is a while loop
of Enter, Switch, Merge, NextIteration and Exit, in static_rnn one copy of the cell per step. Variables are frozen by
convert_variables_to_constants. `samples` is the input, `scores` the output. Outputs are those of the same graph in
float64.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # newer Keras has no cells of TensorFlow 1

import numpy as np
import onnxruntime
import tensorflow.compat.v1 as tf
import tf2onnx
from common import MODELS, generator_of, random_sequences, random_weights, record, report
from tensorflow.python.grappler import tf_optimizer

FOLDER = MODELS / "tensorflow1"
ONNX = MODELS / "onnx"
SEQUENCES, STEPS, INPUTS, UNITS = 3, 7, 3, 4
UNROLLED = 3  # steps

cells = tf.nn.rnn_cell


def head(state: tf.Tensor, n_outputs: int = 2) -> tf.Tensor:
    """As tutorials of TensorFlow 1 write it, with variables of its own."""
    weights = tf.get_variable("head/weights", (state.shape[-1], n_outputs), state.dtype)
    return tf.nn.xw_plus_b(state, weights, tf.get_variable("head/biases", (n_outputs,), state.dtype))


def dynamic(x: tf.Tensor) -> tf.Tensor:
    outputs, _ = tf.nn.dynamic_rnn(cells.GRUCell(UNITS), x, dtype=x.dtype)
    return head(outputs[:, -1])


def dynamic_state(x: tf.Tensor) -> tf.Tensor:
    """Of its own besides the final state: relu, and an input that is turned outside of dynamic_rnn."""
    cell = cells.GRUCell(UNITS, activation=tf.nn.relu)
    _, state = tf.nn.dynamic_rnn(cell, tf.transpose(x, [1, 0, 2]), dtype=x.dtype, time_major=True)
    return tf.layers.dense(state, 2, tf.sigmoid)


def dynamic_every_step(x: tf.Tensor) -> tf.Tensor:
    with tf.variable_scope("model", use_resource=True):
        outputs, _ = tf.nn.dynamic_rnn(cells.GRUCell(UNITS), x, dtype=x.dtype)
        flat = head(tf.reshape(outputs, [-1, UNITS]))
        return tf.reshape(flat, [-1, tf.shape(x)[1], 2])


def dynamic_stack(x: tf.Tensor) -> tf.Tensor:
    both = cells.MultiRNNCell([cells.GRUCell(UNITS), cells.GRUCell(UNITS - 1)])
    outputs, _ = tf.nn.dynamic_rnn(both, x, dtype=x.dtype)
    return head(outputs[:, -1])


def static(x: tf.Tensor) -> tf.Tensor:
    outputs, _ = tf.nn.static_rnn(cells.GRUCell(UNITS), tf.unstack(x, UNROLLED, axis=1), dtype=x.dtype)
    return head(outputs[-1])


def static_relu(x: tf.Tensor) -> tf.Tensor:
    steps = tf.unstack(x, UNROLLED, axis=1)
    outputs, _ = tf.nn.static_rnn(cells.GRUCell(UNITS, activation=tf.nn.relu), steps, dtype=x.dtype)
    return head(outputs[-1])


def refused_lstm(x: tf.Tensor) -> tf.Tensor:
    steps = tf.unstack(x, UNROLLED, axis=1)
    return head(tf.nn.static_rnn(cells.LSTMCell(UNITS), steps, dtype=x.dtype)[0][-1])


@dataclass
class Graph:
    session: tf.Session
    outputs: tf.Tensor

    def run(self, **feeds: np.ndarray) -> np.ndarray:
        """The outputs for what its placeholders get, by name; numbers in the precision of the graph."""
        return self.session.run(self.outputs, self._feed(feeds))

    def _feed(self, feeds: Mapping[str, np.ndarray]) -> dict[tf.Tensor, np.ndarray]:
        return {self.session.graph.get_tensor_by_name(f"{name}:0"): array for name, array in feeds.items()}


def build(
    function: Callable[[tf.Tensor], tf.Tensor],
    dtype: tf.DType,
    seed: str,
    shape: tuple[int | None, ...] | None = None,
    rounded: tf.DType = tf.float32,
) -> Graph:
    """The graph of a function of `samples`, with rounded random weights; dynamic in steps if its name says so."""
    graph = tf.Graph()
    with graph.as_default():
        steps = None if function.__name__.startswith("dynamic") else UNROLLED
        x = tf.placeholder(dtype, shape or (None, steps, INPUTS), name="samples")
        outputs = tf.identity(function(x), name="scores")
        generator = generator_of(seed)
        session = tf.Session(graph=graph)
        for variable in tf.global_variables():
            weights = random_weights(generator, tuple(variable.shape.as_list())).astype(rounded.as_numpy_dtype)
            variable.load(np.abs(weights) + 0.5 if "variance" in variable.name else weights, session)
    return Graph(session, outputs)


def freeze(graph: Graph) -> Any:
    definition = graph.session.graph.as_graph_def(add_shapes=False)
    return tf.graph_util.convert_variables_to_constants(graph.session, definition, ["scores"])


def write(definition: Any, path: Path, y: np.ndarray, recorded: np.ndarray | None = None, **feeds: np.ndarray) -> None:
    """The graph; and `samples` as x, or as `recorded`, with the other feeds and the outputs y, beside it."""
    path.write_bytes(definition.SerializeToString(deterministic=True))
    report(path)
    others = {name: array for name, array in feeds.items() if name != "samples"}
    record(path, x=feeds["samples"] if recorded is None else recorded, y=y, **others)
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(tf.GraphDef.FromString(path.read_bytes()), name="")
        with tf.Session(graph=graph) as session:
            found = Graph(session, graph.get_tensor_by_name("scores:0")).run(**feeds)
            assert np.abs(found.reshape(y.shape) - y).max() < (2e-3 if found.dtype == np.float16 else 1e-5), path


def folded(definition: Any) -> Any:
    """By Grappler, the optimizer of graphs: constants are computed, shapes and arithmetic simplified."""
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(definition, name="")
        meta = tf.train.export_meta_graph(graph_def=graph.as_graph_def(), graph=graph)
    meta.collection_def["train_op"].node_list.value.append("scores")  # what Grappler has to keep
    config = tf.ConfigProto()
    config.graph_options.rewrite_options.min_graph_nodes = -1  # also a small graph
    return tf_optimizer.OptimizeGraph(config, meta)


def before_1_15(definition: Any) -> Any:
    """TensorFlow up to 1.14 wrote Add where later ones write AddV2; with equal shapes they are the same."""
    changed = tf.GraphDef()
    changed.CopyFrom(definition)
    for node in changed.node:
        if node.op == "AddV2":
            node.op = "Add"
    return changed


def write_onnx(name: str, definition: Any, x: np.ndarray, y: np.ndarray) -> None:
    path = ONNX / f"tensorflow1_{name}.onnx"
    tf2onnx.convert.from_graph_def(
        definition, input_names=["samples:0"], output_names=["scores:0"], output_path=str(path)
    )
    found = onnxruntime.InferenceSession(path).run(None, {"samples:0": x})[0]
    assert np.abs(found - y).max() < 1e-5, path
    report(path)
    record(path, x=x, y=y)


def main() -> None:
    tf.disable_v2_behavior()
    for folder in (FOLDER, ONNX):
        folder.mkdir(parents=True, exist_ok=True)
    functions = [dynamic, dynamic_state, dynamic_every_step, dynamic_stack, static, static_relu, refused_lstm]
    for function in functions:
        name = function.__name__
        graph, precise = (build(function, dtype, name) for dtype in (tf.float32, tf.float64))
        steps = STEPS if "dynamic" in name else UNROLLED
        x = random_sequences(generator_of(f"{name} x"), (SEQUENCES, steps, INPUTS))
        y = precise.run(samples=x)
        definition = freeze(graph)
        write(definition, FOLDER / f"{name}.pb", y, samples=x)
        if name == "dynamic":
            write(folded(definition), FOLDER / f"{name}.folded.pb", y, samples=x)
            write_onnx(name, definition, x, y)
        if name == "static":
            write(before_1_15(definition), FOLDER / f"{name}.before_1_15.pb", y, samples=x)


if __name__ == "__main__":
    main()
