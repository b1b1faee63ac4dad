"""Writes tests/models/keras2: .h5 files of Keras 2. Of one of them tf2onnx makes onnx/keras2_reset_after.onnx.

    pip install tensorflow-cpu==2.21.0 tf_keras==2.21.0 tf2onnx==1.17.0 onnx==1.23.2 onnxruntime
    python tools/import_test_models/keras2.py

tf_keras is Keras 2, maintained for newer TensorFlow. Outputs are those of a float64 copy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import tensorflow as tf
import tf2onnx
import tf_keras as keras
from common import MODELS, generator_of, random_sequences, random_weights, record, report
from tf_keras import layers

FOLDER = MODELS / "keras2"
MASK_VALUE = -1.5
SHAPES = {"embedding": (None,)}


HARD = dict(recurrent_activation="hard_sigmoid")

# Precise is the wake-word engine of Mycroft: its network is one such layer and one unit.
PARTS: dict[str, Callable[[], list[Any]]] = {
    "reset_after": lambda: [layers.GRU(4), layers.Dense(2)],
    "stack": lambda: [
        layers.GRU(4, return_sequences=True, name="first"),
        layers.Dropout(0.2),
        layers.GRU(3, reset_after=False, use_bias=False, name="second"),
        layers.Dense(2, activation="sigmoid", name="scores"),
    ],
    "embedding": lambda: [
        layers.Embedding(7, 3),
        layers.Bidirectional(layers.GRU(3, return_sequences=True), merge_mode="sum"),
        layers.TimeDistributed(layers.Dense(2)),
    ],
    "masking": lambda: [layers.Masking(MASK_VALUE), layers.GRU(4, return_sequences=True, **HARD)],
    "precise": lambda: [
        layers.GRU(5, activation="linear", reset_after=False, dropout=0.2, name="net", **HARD),
        layers.Dense(1, activation="sigmoid"),
    ],
}


def build(name: str, dtype: str) -> keras.Model:
    """Layers get the same names each time; `stack` is a functional model, which has its inputs in its configuration."""
    keras.backend.clear_session()
    keras.backend.set_floatx(dtype)
    if name != "stack":
        return keras.Sequential([keras.Input(SHAPES.get(name, (None, 3))), *PARTS[name]()], name=name)
    x = y = keras.Input((None, 3), name="samples")
    for part in PARTS[name]():
        y = part(y)
    return keras.Model(x, y, name=name)


def write(name: str) -> None:
    path, generator = FOLDER / f"{name}.h5", generator_of(f"keras2 {name}")
    model = build(name, "float32")
    model.set_weights([random_weights(generator, weights.shape) for weights in model.get_weights()])
    x = random_sequences(generator, (3, 7, 3))
    if name == "embedding":
        x = generator.integers(0, 7, (3, 7)).astype(np.int32)
    if name == "masking":
        x[1, 4:] = x[2, 3] = MASK_VALUE
    model.save(path)
    report(path)
    precise = build(name, "float64")
    precise.set_weights(model.get_weights())
    y = precise(x if name == "embedding" else x.astype(np.float64), training=False).numpy()
    record(path, x=x, y=y)
    loaded = keras.models.load_model(path)
    assert np.abs(loaded(x).numpy() - y).max() < 1e-5, path
    if name == "reset_after":
        write_onnx(name, model, x, y)


def write_onnx(name: str, model: keras.Model, x: np.ndarray, y: np.ndarray) -> None:
    path = MODELS / "onnx" / f"keras2_{name}.onnx"
    keras.backend.set_floatx("float32")
    signature = [tf.TensorSpec((None, None, 3), tf.float32, name="x")]
    tf2onnx.convert.from_keras(model, signature, output_path=path)
    session = onnxruntime.InferenceSession(path)
    found = session.run(None, {session.get_inputs()[0].name: x})[0]
    assert np.abs(found - y).max() < 1e-5, path
    record(path, x=x, y=y)
    report(path)


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in PARTS:
        write(name)


if __name__ == "__main__":
    main()
