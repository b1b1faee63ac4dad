"""Writes tests/models/keras2/old_*: files of Keras 2.0 of 2017, when it ran on Theano and had its own defaults.

    pip install "setuptools<60" wheel numpy==1.23.5 "scipy<1.12" "h5py<3.9" six pyyaml
    pip install --no-deps theano==1.0.5 keras==2.0.9
    python tools/import_test_models/keras2_old.py

The configuration of a Sequential is a list, that of a functional model is of class Model, a GRU has no reset_after and
hard_sigmoid gates, and the names of weights have no cell in them. h5py of that time stored lists of names with a fixed
length, which comes back as bytes; the script stores them so. Outputs are those of a float64 copy.
"""

# ruff: noqa: E402 - what Keras and Theano look for has to be there before they are imported

from __future__ import annotations

import collections
import collections.abc
import inspect
import os
from typing import Any

os.environ["KERAS_BACKEND"] = "theano"
os.environ["THEANO_FLAGS"] = "cxx=,blas.ldflags=,optimizer=fast_compile"  # needs no compiler
for _name in ("Callable", "Iterable", "Mapping", "MutableMapping", "Sequence"):  # where they were until Python 3.9
    setattr(collections, _name, getattr(collections.abc, _name))
inspect.getargspec = inspect.getfullargspec

import h5py
import keras
import numpy as np
import theano
import theano.ifelse
from common import MODELS, generator_of, random_sequences, random_weights, record, report
from keras import layers

FOLDER = MODELS / "keras2"
STEPS, INPUTS = 7, 3


def build(name: str, dtype: str) -> Any:
    """Precise is the wake-word engine of Mycroft; this is its network, with fewer units."""
    theano.config.floatX = dtype
    keras.backend.set_floatx(dtype)
    if name == "old_precise":
        gru = layers.GRU(5, activation="linear", input_shape=(STEPS, INPUTS), name="net")
        return keras.models.Sequential([gru, layers.Dense(1, activation="sigmoid", name="score")])
    x = layers.Input((STEPS, INPUTS), name="samples")
    y = layers.Bidirectional(layers.GRU(3, name="gru"), merge_mode="concat", name="both")(x)
    return keras.models.Model(x, layers.Dense(2, name="scores")(y), name=name)


def with_names_of_fixed_length(path: str) -> None:
    with h5py.File(path, "r+") as file:
        for group in (file["model_weights"], *file["model_weights"].values()):
            for key in ("layer_names", "weight_names"):
                if key in group.attrs:
                    group.attrs[key] = np.array([str(name).encode() for name in group.attrs[key]], "S")


def write(name: str) -> None:
    path, generator = FOLDER / f"{name}.h5", generator_of(name)
    model, precise = build(name, "float32"), build(name, "float64")
    keras.backend.set_floatx("float32")
    model.set_weights([random_weights(generator, weights.shape) for weights in model.get_weights()])
    precise.set_weights([weights.astype(np.float64) for weights in model.get_weights()])
    model.save(str(path))
    with_names_of_fixed_length(str(path))
    report(path)
    x = random_sequences(generator, (3, STEPS, INPUTS))
    keras.backend.set_floatx("float64")
    y = precise.predict(x.astype(np.float64))
    record(path, x=x, y=y)


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in ("old_precise", "old_functional"):
        write(name)


if __name__ == "__main__":
    main()
