"""Writes tests/models/*.keras and tests/models/keras3 (.keras, whole-model .h5 and .weights.h5 of Keras 3).

    pip install tensorflow-cpu==2.21.0 keras==3.15.1
    python tools/import_test_models/keras3.py

Archives get a fixed date and no addresses: the same Keras gives the same bytes. Outputs are those of a float64 copy,
which only the back end TensorFlow really computes in float64: the others multiply matrices in float32.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import numpy as np
from common import MODELS, generator_of, random_sequences, random_weights, record, report
from keras import layers

FOLDER = MODELS / "keras3"
FIRST = ("reset_after", "reset_before", "no_bias", "stack")  # these are in tests/models itself
MASK_VALUE = -1.5
WHOLE_HDF5 = ("whole",)
WEIGHTS_HDF5 = ("functional",)


def chain(*parts: Any, inputs: Any = None) -> keras.Model:
    return keras.Sequential([keras.Input((None, 3)) if inputs is None else inputs, *parts])


def stack() -> keras.Model:
    x = keras.Input((None, 3))
    y = layers.GRU(4, return_sequences=True, name="first")(x)
    y = layers.Dropout(0.2)(y)
    y = layers.GRU(3, reset_after=False, return_sequences=True, name="second")(y)
    y = layers.TimeDistributed(layers.Dense(4, activation="tanh"), name="each_step")(y)
    return keras.Model(x, layers.Dense(2, use_bias=False, name="scores")(y))


def functional() -> keras.Model:
    x = keras.Input((None, 3), name="samples")
    y = layers.GRU(5, return_sequences=True, name="first")(x)
    return keras.Model(x, layers.Dense(2, name="scores")(layers.GRU(4, reset_after=False, name="second")(y)))


def given_state() -> keras.Model:
    x, h0 = keras.Input((None, 3), name="x"), keras.Input((4,), name="h0")
    return keras.Model([x, h0], layers.GRU(4, return_sequences=True)(x, initial_state=h0))


def returned_state() -> keras.Model:
    x = keras.Input((None, 3))
    y, state = layers.GRU(4, return_sequences=True, return_state=True)(x)
    return keras.Model(x, [layers.Dense(2)(y), state])


def state_only() -> keras.Model:
    x = keras.Input((None, 3))
    return keras.Model(x, layers.Dense(2)(layers.GRU(4, return_state=True)(x)[1]))


def compiled() -> keras.Model:
    model = chain(layers.GRU(4), layers.Dense(2))
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    return model


def learned_normalization() -> layers.Normalization:
    layer = layers.Normalization()
    layer.adapt(generator_of("normalization data").normal([3, -20, 0.1], [2, 9, 0.05], (50, 8, 3)).astype(np.float32))
    return layer


def bidirectional(merge: str | None = "concat", sequences: bool = True, **options: Any) -> layers.Bidirectional:
    return layers.Bidirectional(layers.GRU(4, return_sequences=sequences), merge_mode=merge, **options)


BACKWARD = dict(reset_after=False, go_backwards=True, return_sequences=True)
TOKENS = dict(shape=(None,), dtype="int32")

BUILDERS: dict[str, Callable[[], keras.Model]] = {
    "reset_after": lambda: chain(layers.GRU(4), layers.Dense(2)),
    "reset_before": lambda: chain(layers.GRU(4, reset_after=False), layers.Dense(2, activation="sigmoid")),
    "no_bias": lambda: chain(layers.GRU(4, use_bias=False, return_sequences=True)),
    "stack": stack,
    "functional": functional,
    "compiled": compiled,
    "whole": lambda: chain(learned_normalization(), bidirectional(sequences=False), layers.Dense(2)),
    "bidirectional_concat": lambda: chain(bidirectional(), layers.Dense(2)),
    "bidirectional_sum": lambda: chain(bidirectional("sum", sequences=False), layers.Dense(2)),
    "bidirectional_mul": lambda: chain(bidirectional("mul")),
    "bidirectional_ave": lambda: chain(bidirectional("ave", sequences=False)),
    "bidirectional_stack": lambda: chain(bidirectional(), layers.GRU(3, return_sequences=True), bidirectional("sum")),
    "bidirectional_final": lambda: chain(bidirectional(), bidirectional(sequences=False), layers.Dense(2)),
    "bidirectional_two_layers": lambda: chain(bidirectional(backward_layer=layers.GRU(4, **BACKWARD))),
    "go_backwards": lambda: chain(layers.GRU(4, go_backwards=True, return_sequences=True)),
    "go_backwards_last": lambda: chain(layers.GRU(4, go_backwards=True), layers.Dense(2)),
    "go_backwards_stack": lambda: chain(layers.GRU(4, return_sequences=True), layers.GRU(3, **BACKWARD)),
    "masking": lambda: chain(layers.Masking(MASK_VALUE), layers.GRU(4), layers.Dense(2)),
    "masking_every_step": lambda: chain(layers.Masking(MASK_VALUE), layers.GRU(4, return_sequences=True)),
    "masking_stack": lambda: chain(layers.Masking(MASK_VALUE), layers.GRU(4, return_sequences=True), layers.GRU(3)),
    "masking_bidirectional": lambda: chain(layers.Masking(MASK_VALUE), bidirectional()),
    "masking_go_backwards": lambda: chain(layers.Masking(MASK_VALUE), layers.GRU(4, **BACKWARD)),
    "embedding": lambda: chain(
        layers.Embedding(7, 3), layers.GRU(4, return_sequences=True), inputs=keras.Input(**TOKENS)
    ),
    "embedding_mask_zero": lambda: chain(
        layers.Embedding(7, 3, mask_zero=True), layers.GRU(4), layers.Dense(2), inputs=keras.Input(**TOKENS)
    ),
    "normalization": lambda: chain(learned_normalization(), layers.GRU(4), layers.Dense(2)),
    "normalization_given": lambda: chain(
        layers.Normalization(mean=[3, -20, 0.1], variance=[4, 81, 0.0025]), layers.GRU(4), layers.Dense(2)
    ),
    "normalization_invert": lambda: chain(
        layers.Normalization(mean=[3, -20, 0.1], variance=[4, 81, 0.0025], invert=True), layers.GRU(4)
    ),
    "batch_normalization": lambda: chain(
        layers.BatchNormalization(), layers.GRU(4, return_sequences=True), layers.BatchNormalization(), layers.GRU(3)
    ),
    "rescaling": lambda: chain(layers.Rescaling(1 / 127.5, offset=-1), layers.GRU(4), layers.Dense(2)),
    "dense_between": lambda: chain(
        layers.Dense(4, activation="tanh"),
        layers.GRU(5, return_sequences=True),
        layers.TimeDistributed(layers.Dense(4, activation="relu")),
        layers.GRU(4),
        layers.Dense(3, activation="sigmoid"),
        layers.Dense(2),
    ),
    "relu": lambda: chain(layers.GRU(4, activation="relu", return_sequences=True)),
    "linear": lambda: chain(layers.GRU(4, activation="linear", reset_after=False, return_sequences=True)),
    "sigmoid": lambda: chain(layers.GRU(4, activation="sigmoid", return_sequences=True)),
    "hard_tanh": lambda: chain(layers.GRU(4, activation="hard_tanh", return_sequences=True)),
    "hard_sigmoid": lambda: chain(layers.GRU(4, recurrent_activation="hard_sigmoid"), layers.Dense(2)),
    "hard_sigmoid_relu": lambda: chain(
        layers.GRU(4, activation="relu", recurrent_activation="hard_sigmoid", reset_after=False, return_sequences=True)
    ),
    "stateful": lambda: chain(
        layers.GRU(4, stateful=True, return_sequences=True), inputs=keras.Input(batch_shape=(3, None, 3))
    ),
    "cell": lambda: chain(layers.RNN(layers.GRUCell(4)), layers.Dense(2)),
    "cells": lambda: chain(layers.RNN([layers.GRUCell(4), layers.GRUCell(3)], return_sequences=True)),
    "given_state": given_state,
    "returned_state": returned_state,
    "state_only": state_only,
}


def build(name: str, dtype: str) -> keras.Model:
    """Layers get the same names each time."""
    keras.backend.clear_session()
    keras.config.set_dtype_policy(dtype)
    keras.config.set_floatx(dtype)
    model = BUILDERS[name]()
    model.name = name
    return model


def set_random_weights(model: keras.Model, generator: np.random.Generator) -> None:
    """Of all layers except Normalization, which has learned from data."""
    for variable in model.weights:
        if "/normalization/" not in variable.path:
            value = random_weights(generator, tuple(variable.shape))
            variable.assign(value**2 + 0.5 if "variance" in variable.path else value)


def inputs_of(name: str, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Three sequences of seven steps; masked ones are padded, and one step inside is missing."""
    inputs = {"x": random_sequences(generator, (3, 7, 3))}
    if name.startswith("embedding"):
        inputs["x"] = generator.integers(1, 7, (3, 7)).astype(np.int32)
    if name.startswith("normalization") or name == "whole":
        inputs["x"] = (inputs["x"] * [2, 9, 0.05] + [3, -20, 0.1]).astype(np.float32)
    if name == "rescaling":
        inputs["x"] = generator.integers(0, 256, (3, 7, 3)).astype(np.float32)
    if name.startswith("masking") or name == "embedding_mask_zero":
        missing = MASK_VALUE if name.startswith("masking") else 0
        inputs["x"][1, 4:] = inputs["x"][2, 3] = missing
    if name == "given_state":
        inputs["h0"] = random_weights(generator, (3, 4))
    return inputs


def outputs_in_float64(name: str, model: keras.Model, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A stateful model is called twice with the same x."""
    precise = build(name, "float64")
    for layer, source in zip(precise.layers, model.layers, strict=True):
        layer.set_weights(source.get_weights())
        if isinstance(layer, layers.Normalization):
            layer.finalize_state()
    arguments = [inputs["x"].astype(np.float64), inputs["h0"]] if "h0" in inputs else inputs["x"]
    outputs = precise(arguments, training=False)
    outputs = dict(zip(("y", "state"), outputs if isinstance(outputs, (list, tuple)) else (outputs,), strict=False))
    if name == "stateful":
        outputs["y_next"] = precise(arguments, training=False)
    return {key: keras.ops.convert_to_numpy(value) for key, value in outputs.items()}


def without_ids(config: Any) -> Any:
    """The configuration without `shared_object_id`, which are addresses in memory."""
    if isinstance(config, dict):
        return {key: without_ids(value) for key, value in config.items() if key != "shared_object_id"}
    return [without_ids(value) for value in config] if isinstance(config, list) else config


def save_archive(model: keras.Model, path: Path) -> None:
    """Saves without times and addresses, and packed."""
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model.keras")
        with zipfile.ZipFile(Path(folder) / "model.keras") as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
    metadata = json.loads(members["metadata.json"])
    members["config.json"] = json.dumps(without_ids(json.loads(members["config.json"]))).encode()
    members["metadata.json"] = json.dumps(metadata | {"date_saved": "2000-01-01@00:00:00"}).encode()
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    path.write_bytes(content.getvalue())


def write(name: str) -> None:
    keras.utils.set_random_seed(0)  # for what layers draw themselves, such as the seed of a Dropout
    path = (MODELS if name in FIRST else FOLDER) / f"{name}.keras"
    model, generator = build(name, "float32"), generator_of(name)
    set_random_weights(model, generator)
    inputs = inputs_of(name, generator)
    save_archive(model, path)
    report(path)
    if name in WHOLE_HDF5:
        model.save(path.with_suffix(".h5"))
        report(path.with_suffix(".h5"))
    if name in WEIGHTS_HDF5:
        model.save_weights(path.with_suffix(".weights.h5"))
        report(path.with_suffix(".weights.h5"))
    outputs = outputs_in_float64(name, model, inputs)
    record(path, **inputs, **outputs)
    found = keras.saving.load_model(path)([inputs["x"], inputs["h0"]] if "h0" in inputs else inputs["x"])
    found = keras.ops.convert_to_numpy(found[0] if isinstance(found, (list, tuple)) else found)
    assert np.abs(found - outputs["y"]).max() < 1e-5, name


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in BUILDERS:
        write(name)


if __name__ == "__main__":
    main()
