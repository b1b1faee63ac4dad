"""Writes tests/models/tensorflow1/form_*.pb: GRUs as people wrote them in TensorFlow 1, besides GRUCell.

    pip install tensorflow-cpu==2.21.0 tf_keras==2.21.0 tf2onnx==1.17.0 onnx==1.23.2 onnxruntime
    python tools/import_test_models/tensorflow1_forms.py

tf.contrib is gone: its cells are written down here by their formulas, GRUBlockCell around the operation that it used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow.compat.v1 as tf
from common import generator_of, random_sequences
from tensorflow1 import FOLDER, INPUTS, SEQUENCES, STEPS, UNITS, UNROLLED, build, cells, freeze, head, write

LENGTHS = np.array([STEPS - 1, 2, STEPS - 2], dtype=np.int32)


def variables(scope: str, dtype: tf.DType, **shapes: tuple[int, ...]) -> list[tf.Tensor]:
    with tf.variable_scope(scope, reuse=tf.AUTO_REUSE):
        return [tf.get_variable(name, shape, dtype) for name, shape in shapes.items()]


class BlockCell(cells.RNNCell):
    """As GRUBlockCellV2: one operation for the whole step, in float32 only."""

    state_size = output_size = UNITS

    def __call__(self, x: tf.Tensor, h: tf.Tensor, scope: Any = None) -> tuple[tf.Tensor, tf.Tensor]:
        width = INPUTS + UNITS
        shapes = {"w_ru": (width, 2 * UNITS), "w_c": (width, UNITS), "b_ru": (2 * UNITS,), "b_c": (UNITS,)}
        arrays = dict(zip(shapes, variables("block", x.dtype, **shapes), strict=True))
        h = tf.raw_ops.GRUBlockCell(x=x, h_prev=h, **arrays).h
        return h, h


class CudnnCompatibleCell(cells.RNNCell):
    """As CudnnCompatibleGRUCell: c = tanh(W x + b + r * (U h + d))."""

    state_size = output_size = UNITS

    def __call__(self, x: tf.Tensor, h: tf.Tensor, scope: Any = None) -> tuple[tf.Tensor, tf.Tensor]:
        kernel, bias = variables("gates", x.dtype, kernel=(INPUTS + UNITS, 2 * UNITS), bias=(2 * UNITS,))
        r, u = tf.split(tf.sigmoid(tf.matmul(tf.concat([x, h], 1), kernel) + bias), 2, axis=1)
        w, b = variables("candidate/input_projection", x.dtype, kernel=(INPUTS, UNITS), bias=(UNITS,))
        hidden, d = variables("candidate/hidden_projection", x.dtype, kernel=(UNITS, UNITS), bias=(UNITS,))
        c = tf.tanh(tf.nn.bias_add(tf.matmul(x, w), b) + r * tf.nn.bias_add(tf.matmul(h, hidden), d))
        h = (1 - u) * c + u * h
        return h, h


def dynamic_block(x: tf.Tensor) -> tf.Tensor:
    return tf.nn.dynamic_rnn(BlockCell(), x, dtype=x.dtype)[1]


def dynamic_cudnn_compatible(x: tf.Tensor) -> tf.Tensor:
    return head(tf.nn.dynamic_rnn(CudnnCompatibleCell(), x, dtype=x.dtype)[0][:, -1])


def dynamic_scan(x: tf.Tensor) -> tf.Tensor:
    """By hand, with a loop of tf.scan; z is the share of the candidate."""
    shapes = {"W": (INPUTS, 3 * UNITS), "U": (UNITS, 3 * UNITS), "b": (3 * UNITS,), "c": (UNITS,)}
    w, u, b, c = variables("hand", x.dtype, **shapes)

    def step(h: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        a = tf.matmul(x, w) + b
        z = tf.sigmoid(a[:, :UNITS] + tf.matmul(h, u[:, :UNITS]))
        r = tf.sigmoid(a[:, UNITS : 2 * UNITS] + tf.matmul(h, u[:, UNITS : 2 * UNITS]))
        n = tf.tanh(a[:, 2 * UNITS :] + r * (tf.matmul(h, u[:, 2 * UNITS :]) + c))
        return (1 - z) * h + z * n

    return tf.scan(step, tf.transpose(x, [1, 0, 2]), initializer=tf.zeros([tf.shape(x)[0], UNITS], x.dtype))[-1]


def dynamic_keras(x: tf.Tensor) -> tf.Tensor:
    return tf.keras.layers.GRU(UNITS, reset_after=True, use_bias=False, dtype=x.dtype)(x)


def static_keras(x: tf.Tensor) -> tf.Tensor:
    """The default of Keras in TensorFlow 1, without biases."""
    options = {"recurrent_activation": "hard_sigmoid", "reset_after": False, "use_bias": False}
    return tf.keras.layers.GRU(UNITS, return_sequences=True, unroll=True, dtype=x.dtype, **options)(x)


def static_rnn(x: tf.Tensor, **options: Any) -> tf.Tensor:
    cell = cells.GRUCell(UNITS, **options)
    return tf.stack(tf.nn.static_rnn(cell, tf.unstack(x, UNROLLED, axis=1), dtype=x.dtype)[0], axis=1)


def static_hard_tanh(x: tf.Tensor) -> tf.Tensor:
    return static_rnn(x, activation=lambda a: tf.clip_by_value(a, -1.0, 1.0))


def static_half(x: tf.Tensor) -> tf.Tensor:
    return static_rnn(x)


def static_batch_normalisation(x: tf.Tensor) -> tf.Tensor:
    return tf.layers.batch_normalization(static_rnn(tf.layers.batch_normalization(x)))


def static_dropout_off(x: tf.Tensor) -> tf.Tensor:
    """By an input that is 1 by default."""
    keep = tf.placeholder_with_default(tf.constant(1, x.dtype), (), name="keep")
    cell = cells.DropoutWrapper(cells.GRUCell(UNITS), output_keep_prob=keep)
    return head(tf.nn.static_rnn(cell, tf.unstack(x, UNROLLED, axis=1), dtype=x.dtype)[0][-1])


def static_flat(x: tf.Tensor) -> tf.Tensor:
    """Steps and features in one axis; a dense layer before, on all steps of all sequences as rows."""
    rows = tf.reshape(tf.transpose(tf.reshape(x, [-1, UNROLLED, INPUTS]), [1, 0, 2]), [-1, INPUTS])
    w, b = variables("before", x.dtype, weights=(INPUTS, 2), bias=(2,))
    steps = tf.split(tf.matmul(rows, w) + b, UNROLLED, 0)
    return head(tf.nn.static_rnn(cells.GRUCell(UNITS), steps, dtype=x.dtype)[0][-1])


def static_two_states(x: tf.Tensor) -> tf.Tensor:
    """The initial states of two layers, in one placeholder."""
    states = tf.placeholder(x.dtype, (2, None, UNITS), name="h0")
    both = cells.MultiRNNCell([cells.GRUCell(UNITS), cells.GRUCell(UNITS)])
    steps = tf.unstack(x, axis=1)
    return tf.stack(tf.nn.static_rnn(both, steps, tuple(tf.unstack(states)))[0], axis=1)


def dynamic_lengths_every_step(x: tf.Tensor) -> tf.Tensor:
    lengths = tf.placeholder(tf.int32, (None,), name="lengths")
    return tf.nn.dynamic_rnn(cells.GRUCell(UNITS), x, lengths, dtype=x.dtype)[0]


def dynamic_lengths_both(x: tf.Tensor) -> tf.Tensor:
    lengths = tf.placeholder(tf.int32, (None,), name="lengths")
    cell = cells.GRUCell(UNITS), cells.GRUCell(UNITS)
    return tf.add(*tf.nn.bidirectional_dynamic_rnn(*cell, x, lengths, dtype=x.dtype)[1])


FUNCTIONS: list[Callable[[tf.Tensor], tf.Tensor]] = [
    dynamic_block,
    dynamic_cudnn_compatible,
    dynamic_scan,
    dynamic_keras,
    static_keras,
    static_hard_tanh,
    static_half,
    static_batch_normalisation,
    static_dropout_off,
    static_flat,
    static_two_states,
    dynamic_lengths_every_step,
    dynamic_lengths_both,
]


# Shapes of samples that are others than usual; of two steps where three would be a larger file.
SHAPES = {
    static_flat: (None, UNROLLED * INPUTS),
    static_keras: (None, 2, INPUTS),
    static_two_states: (None, 2, INPUTS),
}


def main() -> None:
    tf.disable_v2_behavior()
    for function in FUNCTIONS:
        name, shape = function.__name__, SHAPES.get(function)
        dtype = tf.float16 if function is static_half else tf.float32
        steps = STEPS if name.startswith("dynamic") else shape[1] if shape and len(shape) == 3 else UNROLLED
        x = random_sequences(generator_of(f"{name} x"), (SEQUENCES, steps, INPUTS)).astype(dtype.as_numpy_dtype)
        feeds = {"samples": x.reshape(SEQUENCES, -1) if function is static_flat else x}
        if "lengths" in name:
            feeds["lengths"] = LENGTHS
        if function is static_two_states:
            feeds["h0"] = random_sequences(generator_of(f"{name} h0"), (2, SEQUENCES, UNITS))
        graph = build(function, dtype, name, shape)
        precise = graph if function is dynamic_block else build(function, tf.float64, name, shape, dtype)
        write(freeze(graph), FOLDER / f"form_{name}.pb", precise.run(**feeds), x, **feeds)


if __name__ == "__main__":
    main()
