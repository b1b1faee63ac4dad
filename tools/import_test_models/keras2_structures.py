"""Writes tests/models/structures/keras2_*: files of Keras 2 with structures and functions that docs/sources.md names.

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
from tf_keras.src.layers.rnn.cudnn_gru import CuDNNGRU

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
    x = keras.Input((None, INPUTS), batch_size=SEQUENCES)
    start = tf.constant(np.tile([[0.5, -0.25, 1.0, 0.0]], (SEQUENCES, 1)), keras.backend.floatx())
    return keras.Model(x, gru(4)(x, initial_state=start))


def operations() -> keras.Model:
    """On tensors, which Keras 2 makes layers of: the inputs scaled, the steps turned around."""
    x = keras.Input((None, INPUTS))
    scaled = np.array([2.0, 0.5, 4.0]) - (x - 1.5) / 2
    y = gru(4)(tf.reverse(scaled * 2 + 1, axis=[1]))[:, ::-1]
    return keras.Model(x, tf.nn.relu(-layers.Dense(2)(y))[:, -1])


def two_directions() -> keras.Model:
    """Merged by layers of their own."""
    x = keras.Input((None, INPUTS))
    both = layers.Average()(layers.Bidirectional(gru(3), merge_mode=None)(x))
    summed = tf.add(gru(3)(both), gru(3, go_backwards=True)(both)[:, ::-1])
    ends = [layers.GRU(2)(summed), layers.GRU(2, go_backwards=True)(summed)]
    return keras.Model(x, layers.Dense(2)(layers.Concatenate()(ends)))


def stateful() -> keras.Model:
    x = keras.Input(batch_shape=(SEQUENCES, None, INPUTS))
    return keras.Sequential([x, gru(4, "relu", stateful=True), layers.Dense(2, activation="relu")])


def masked(layer: layers.Layer) -> keras.Model:
    """The mask ends at the layer, which does not support it in Keras 2: the GRU layer computes every step."""
    return sequential(layers.Masking(), layers.Dense(3), layer, layers.GRU(3))


def masked_rescaling() -> keras.Model:
    """As `.keras`, whose weights are as save_weights("x.weights.h5") writes them: hard_sigmoid is not said there."""
    return sequential(layers.Masking(), layers.Rescaling(2.0, 1.0), layers.GRU(3, recurrent_activation="hard_sigmoid"))


MODELS_BY_NAME: dict[str, Callable[[], keras.Model]] = {
    "around": around,
    "merged": merged,
    "constant_state": constant_state,
    "given_state": given_state,
    "masked_identity": lambda: masked(layers.Identity()),
    "masked_normalization": lambda: masked(layers.Normalization(mean=[0.5, 1.0, -1.0], variance=[1.0, 4.0, 0.25])),
    "masked_rescaling": masked_rescaling,
    "operations": operations,
    "stateful": stateful,
    "two_directions": two_directions,
}


def build(name: str, dtype: str) -> keras.Model:
    """Layers get the same names each time."""
    keras.backend.clear_session()
    keras.backend.set_floatx(dtype)
    return MODELS_BY_NAME[name]()


def write(name: str) -> None:
    suffix = "keras" if name == "masked_rescaling" else "h5"
    path, generator = FOLDER / f"keras2_{name}.{suffix}", generator_of(f"keras2 {name}")
    model = build(name, "float32")
    weights = [random_weights(generator, variable.shape) for variable in model.weights]
    names = [variable.name for variable in model.weights]
    model.set_weights([abs(w) + 0.25 if "variance" in key else w for w, key in zip(weights, names, strict=True)])
    x = random_sequences(generator, (SEQUENCES, STEPS, INPUTS))
    if name.startswith("masked"):
        x[:, [1, STEPS - 1]] = 0
    more = {"h0": random_weights(generator, (SEQUENCES, 4))} if name == "given_state" else {}
    model.save(path)
    report(path)
    precise = build(name, "float64")
    precise.set_weights(model.get_weights())
    inputs = [array.astype(np.float64) for array in (x, *more.values())]
    y, y_next = (precise(inputs if more else inputs[0], training=False).numpy() for _ in range(2))
    record(path, x=x, y=y, **more, **({"y_next": y_next} if name == "stateful" else {}))
    if name == "constant_state":  # Keras 2 itself loads numbers where it needs a tensor
        return
    loaded = keras.models.load_model(path)
    assert np.abs(loaded([x, *more.values()] if more else x).numpy() - y).max() < 1e-5, path


def cudnn(layer: type[layers.Layer], **options: Any) -> keras.Model:
    """A GRU on NVIDIA's library, or on any processor."""
    x = keras.Input((None, INPUTS))
    y = layers.Bidirectional(layer(3, return_sequences=True, name="both", **options), name="outer")(x)
    return keras.Model(x, layer(4, name="gru", **options)(y))


def write_cudnn() -> None:
    """CuDNNGRU is built without a GPU, but runs on one only: Keras 2 itself converts its weights to those of GRU."""
    path, generator = FOLDER / "keras2_cudnn.h5", generator_of("keras2 cudnn")
    keras.backend.clear_session()
    keras.backend.set_floatx("float32")
    model = cudnn(CuDNNGRU)
    model.set_weights([random_weights(generator, variable.shape) for variable in model.weights])
    model.save(path)
    report(path)
    same = cudnn(layers.GRU, reset_after=True)
    same.load_weights(path)
    keras.backend.set_floatx("float64")
    precise = cudnn(layers.GRU, reset_after=True)
    precise.set_weights(same.get_weights())
    x = random_sequences(generator, (SEQUENCES, STEPS, INPUTS))
    record(path, x=x, y=precise(x.astype(np.float64), training=False).numpy())


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in MODELS_BY_NAME:
        write(name)
    write_cudnn()


if __name__ == "__main__":
    main()
