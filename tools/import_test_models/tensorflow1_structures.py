"""Writes tests/models/structures/*.pb: frozen graphs of TensorFlow 1 with the structures that docs/sources.md names.

    pip install tensorflow-cpu==2.21.0 tf_keras==2.21.0 tf2onnx==1.17.0 onnx==1.23.2 onnxruntime
    python tools/import_test_models/tensorflow1_structures.py

Each has one structure; graphs of static_rnn are the smaller ones. Names are those of the rows, as far as names go.
"""

from __future__ import annotations

import numpy as np
import tensorflow.compat.v1 as tf
from common import MODELS, generator_of, random_sequences
from tensorflow1 import INPUTS, SEQUENCES, STEPS, UNITS, UNROLLED, build, cells, freeze, write

FOLDER = MODELS / "structures"
TOKENS = 5
MEAN, SCALE = np.array([0.5, -0.25, 2.0]), np.array([2.0, 0.75, 1.5])


def steps_of(outputs: list[tf.Tensor]) -> tf.Tensor:
    return tf.stack(outputs, axis=1)


def static_normalisation(x: tf.Tensor) -> tf.Tensor:
    x = (x - MEAN.astype(x.dtype.as_numpy_dtype)) / SCALE.astype(x.dtype.as_numpy_dtype)
    return steps_of(tf.nn.static_rnn(cells.GRUCell(UNITS), tf.unstack(x, UNROLLED, axis=1), dtype=x.dtype)[0])


def dynamic_dense_around(x: tf.Tensor) -> tf.Tensor:
    y = tf.layers.dense(x, 4, tf.tanh, name="before")
    y, _ = tf.nn.dynamic_rnn(cells.GRUCell(UNITS), y, dtype=x.dtype, scope="first")
    y = tf.layers.dense(y, 3, tf.nn.relu, name="between")
    y, _ = tf.nn.dynamic_rnn(cells.GRUCell(UNITS, activation=tf.sigmoid), y, dtype=x.dtype, scope="second")
    return tf.layers.dense(y, 2, name="after")


def dynamic_both(x: tf.Tensor) -> tf.Tensor:
    outputs, _ = tf.nn.bidirectional_dynamic_rnn(cells.GRUCell(UNITS), cells.GRUCell(UNITS), x, dtype=x.dtype)
    return tf.concat(outputs, axis=2)


def static_directions(x: tf.Tensor) -> tuple[list[tuple[tf.Tensor, tf.Tensor]], tuple[tf.Tensor, tf.Tensor]]:
    """Both of each step, and both final states."""
    inputs = tf.unstack(x, UNROLLED, axis=1)
    outputs, *states = tf.nn.static_bidirectional_rnn(cells.GRUCell(UNITS), cells.GRUCell(UNITS), inputs, dtype=x.dtype)
    return [(y[:, :UNITS], y[:, UNITS:]) for y in outputs], (states[0], states[1])


def static_final(x: tf.Tensor) -> tf.Tensor:
    return tf.concat(static_directions(x)[1], axis=1)


def static_sum(x: tf.Tensor) -> tf.Tensor:
    return steps_of([f + b for f, b in static_directions(x)[0]])


def static_mul(x: tf.Tensor) -> tf.Tensor:
    return steps_of([f * b for f, b in static_directions(x)[0]])


def static_ave(x: tf.Tensor) -> tf.Tensor:
    return steps_of([(f + b) / 2 for f, b in static_directions(x)[0]])


def dynamic_backwards(x: tf.Tensor) -> tf.Tensor:
    cell = cells.GRUCell(UNITS, activation=tf.identity)
    return tf.nn.dynamic_rnn(cell, tf.reverse(x, [1]), dtype=x.dtype)[0]


def static_constant_state(x: tf.Tensor) -> tf.Tensor:
    start = tf.get_variable("start", (1, UNITS), x.dtype)
    state = tf.tile(start, [tf.shape(x)[0], 1])
    return steps_of(tf.nn.static_rnn(cells.GRUCell(UNITS), tf.unstack(x, UNROLLED, axis=1), state)[0])


def static_given_state(x: tf.Tensor) -> tf.Tensor:
    state = tf.placeholder(x.dtype, (None, UNITS), name="h0")
    return steps_of(tf.nn.static_rnn(cells.GRUCell(UNITS), tf.unstack(x, UNROLLED, axis=1), state)[0])


def dynamic_lengths(x: tf.Tensor) -> tf.Tensor:
    """The final states, which are those at the lengths."""
    lengths = tf.placeholder(tf.int32, (None,), name="lengths")
    return tf.nn.dynamic_rnn(cells.GRUCell(UNITS), x, lengths, dtype=x.dtype)[1]


FUNCTIONS = [
    static_normalisation,
    dynamic_dense_around,
    dynamic_both,
    static_final,
    static_sum,
    static_mul,
    static_ave,
    dynamic_backwards,
    static_constant_state,
    static_given_state,
    dynamic_lengths,
]
LENGTHS = np.array([STEPS, 2, STEPS - 1], dtype=np.int32)


def embedding() -> None:
    """Its input is no sequence of numbers, so it is built here."""
    name, generator = "tokens", generator_of("tokens x")
    x = generator.integers(0, TOKENS, (SEQUENCES, UNROLLED)).astype(np.int32)
    definitions, outputs = [], []
    for dtype in (tf.float32, tf.float64):
        with tf.Graph().as_default() as graph:
            tokens = tf.placeholder(tf.int32, (None, UNROLLED), name="samples")
            vectors = tf.nn.embedding_lookup(tf.get_variable("vectors", (TOKENS, INPUTS), dtype), tokens)
            steps = tf.unstack(vectors, UNROLLED, axis=1)
            y = tf.identity(steps_of(tf.nn.static_rnn(cells.GRUCell(UNITS), steps, dtype=dtype)[0]), name="scores")
            session = tf.Session(graph=graph)
            loaded = generator_of(name)
            for variable in tf.global_variables():
                shape = tuple(variable.shape.as_list())
                variable.load(loaded.normal(0, 0.5, shape).astype(np.float32), session)
            outputs.append(session.run(y, {"samples:0": x}))
            definition = session.graph.as_graph_def(add_shapes=False)
            definitions.append(tf.graph_util.convert_variables_to_constants(session, definition, ["scores"]))
    write(definitions[0], FOLDER / "static_tokens.pb", outputs[1], samples=x)


def main() -> None:
    tf.disable_v2_behavior()
    FOLDER.mkdir(parents=True, exist_ok=True)
    for function in FUNCTIONS:
        name = function.__name__
        graph, precise = (build(function, dtype, name) for dtype in (tf.float32, tf.float64))
        steps = STEPS if "dynamic" in name else UNROLLED
        feeds = {"samples": random_sequences(generator_of(f"{name} x"), (SEQUENCES, steps, INPUTS))}
        if name == "static_given_state":
            feeds["h0"] = random_sequences(generator_of(f"{name} h0"), (SEQUENCES, UNITS))
        if name == "dynamic_lengths":
            feeds["lengths"] = LENGTHS
        write(freeze(graph), FOLDER / f"{name}.pb", precise.run(**feeds), **feeds)
    embedding()


if __name__ == "__main__":
    main()
