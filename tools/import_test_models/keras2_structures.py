"""Writes tests/models/structures/*.h5: files of Keras 2 with the structures and functions that docs/sources.md names.

    pip install tensorflow-cpu==2.21.0 tf_keras==2.21.0 tf2onnx==1.17.0 onnx==1.23.2 onnxruntime
    python tools/import_test_models/keras2_structures.py

tf_keras is Keras 2, maintained for newer TensorFlow. Each file has several structures. Outputs are those of a float64
copy; `h0` is what a second input gives, `y_next` what a stateful model gives when it is called again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras
from common import MODELS, generator_of, random_sequences, random_weights, record, report
from tf_keras import layers

FOLDER = MODELS / "structures"
SEQUENCES, STEPS, INPUTS = 3, 7, 3


def gru(units: int, activation: str = "tanh", **options: Any) -> layers.GRU:
    return layers.GRU(units, activation=activation, return_sequences=True, **options)


def sequential(*parts: Any) -> keras.Model:
    return keras.Sequential([keras.Input((None, INPUTS)), *parts])


def around() -> keras.Model:
    """Normalised, and dense layers before and between; GRU layers without bias."""
    return sequential(
        layers.BatchNormalization(),
        layers.Dense(4, activation="tanh"),
        gru(3, "relu", use_bias=False),
        layers.Dense(2),
        gru(3, "sigmoid", go_backwards=True, recurrent_activation="hard_sigmoid"),
    )


def merged() -> keras.Model:
    """One upon the other, merged in all ways, but for sum."""
    return sequential(
        layers.Bidirectional(gru(3, "linear", reset_after=False, use_bias=False)),
        layers.Bidirectional(gru(3, recurrent_activation="hard_sigmoid"), "mul"),
        layers.Bidirectional(gru(2, "sigmoid", reset_after=False), "ave"),
    )


def given_state() -> keras.Model:
    x, h = keras.Input((None, INPUTS), name="samples"), keras.Input((4,), name="state")
    return keras.Model([x, h], gru(4, recurrent_activation="hard_sigmoid")(x, initial_state=h))


def constant_state() -> keras.Model:
    """Refused: which tensor it is, the file does not say in a way that another version could read."""
    x = keras.Input((None, INPUTS), batch_size=SEQUENCES)
    return keras.Model(x, gru(4)(x, initial_state=tf.ones((SEQUENCES, 4))))


def stateful() -> keras.Model:
    x = keras.Input(batch_shape=(SEQUENCES, None, INPUTS))
    return keras.Sequential([x, gru(4, "relu", stateful=True), layers.Dense(2, activation="relu")])


MODELS_BY_NAME: dict[str, Callable[[], keras.Model]] = {
    "around": around,
    "merged": merged,
    "given_state": given_state,
    "stateful": stateful,
}


def build(name: str, dtype: str) -> keras.Model:
    """Layers get the same names each time."""
    keras.backend.clear_session()
    keras.backend.set_floatx(dtype)
    return MODELS_BY_NAME[name]()


def write(name: str) -> None:
    path, generator = FOLDER / f"keras2_{name}.h5", generator_of(f"keras2 {name}")
    model = build(name, "float32")
    weights = [random_weights(generator, variable.shape) for variable in model.weights]
    names = [variable.name for variable in model.weights]
    model.set_weights([abs(w) + 0.25 if "variance" in key else w for w, key in zip(weights, names, strict=True)])
    x = random_sequences(generator, (SEQUENCES, STEPS, INPUTS))
    more = {"h0": random_weights(generator, (SEQUENCES, 4))} if name == "given_state" else {}
    model.save(path)
    report(path)
    precise = build(name, "float64")
    precise.set_weights(model.get_weights())
    inputs = [array.astype(np.float64) for array in (x, *more.values())]
    y, y_next = (precise(inputs if more else inputs[0], training=False).numpy() for _ in range(2))
    record(path, x=x, y=y, **more, **({"y_next": y_next} if name == "stateful" else {}))
    loaded = keras.models.load_model(path)
    assert np.abs(loaded([x, *more.values()] if more else x).numpy() - y).max() < 1e-5, path


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in MODELS_BY_NAME:
        write(name)
    keras.backend.set_floatx("float32")
    keras.utils.set_random_seed(0)
    constant_state().save(FOLDER / "refused_constant_state.h5")


if __name__ == "__main__":
    main()
