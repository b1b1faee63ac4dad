"""`.h5` files: whole models of Keras 2 and, in its legacy format, of Keras 3. Those with weights only go on from here.

The version in the file decides what it means: hard_sigmoid is another function in Keras 3 than in Keras 2.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from quantgru.errors import ConfigError, ModelError
from quantgru.importers.chain import Chain, identifier
from quantgru.importers.keras_arguments import plain
from quantgru.importers.keras_config import read_config
from quantgru.importers.keras_entries import Entry
from quantgru.importers.keras_hdf5 import (
    DAMAGED,
    WEIGHTS_LIMIT,
    WeightsFile,
    keras_version,
    open_weights,
)
from quantgru.importers.keras_layers import KerasReader
from quantgru.importers.keras_recurrent import HARD_SIGMOID_SLOPES
from quantgru.importers.keras_weights import parts_of_keras_2, parts_of_keras_3, says_keras_3
from quantgru.importers.options import ImportOptions
from quantgru.importers.weights_chain import chain_of_parts
from quantgru.model import FloatModel


def load_h5_file(path: Path, options: ImportOptions) -> FloatModel:
    """The float model of an `.h5` file; one with weights only needs `options.chain`.

    Raises ModelError, ConfigError where a chain is given to a whole model.
    """
    where = f"HDF5 file {path}"
    size = path.stat().st_size
    if size > WEIGHTS_LIMIT:
        raise ModelError(
            f"{where}: {size} bytes, allowed are {WEIGHTS_LIMIT}; save it without what the optimizer holds: "
            "model.save(path, include_optimizer=False)"
        )
    with open_weights(where, path.read_bytes()) as file:
        if file.has("", "model_config"):
            return _whole_model(file, options)
        return _weights_only(file, path, options)


def _whole_model(file: WeightsFile, options: ImportOptions) -> FloatModel:
    if options.chain is not None:
        raise ConfigError(f"{file.where}: chain={options.chain!r}, but the file says how its layers run; leave it out")
    version = _version(file, "")
    content = json.loads(file.text("", "model_config"))
    config = read_config(content["class_name"], content["config"])
    reader = KerasReader(Chain(options.softmax), lambda entry: _data_sets(file, entry), version)
    reader.read(config.entries)
    return reader.chain.model(identifier(config.name), f"HDF5 file of Keras {version}, model {plain(config.name)}")


def _version(file: WeightsFile, group: str) -> int:
    return keras_version(file.where, file.text(group, "keras_version") if file.has(group, "keras_version") else "1")


def _data_sets(file: WeightsFile, entry: Entry) -> list[Any]:
    """The weights of a layer, not read yet. A model inside the model has one group for all its layers."""
    group = f"model_weights/{entry.path[0]}"
    names = file.texts(group, "weight_names")
    if len(entry.path) > 1:
        names = _names_of(entry.path, names)
    return [file.data_set(f"{group}/{name}") for name in names]


def _names_of(path: tuple[str, ...], names: list[str]) -> list[str]:
    """The names, outer/inner/gru/gru_cell/kernel and the like, that have as much of a layer's path as any has."""
    for start in range(len(path)):
        wanted = f"/{'/'.join(path[start:])}/"
        if found := [name for name in names if wanted in f"/{name}"]:
            return found
    return []


def _weights_only(file: WeightsFile, path: Path, options: ImportOptions) -> FloatModel:
    if file.has("", "layer_names"):
        version: int | None = _version(file, "")
        parts = parts_of_keras_2(file)
    else:
        version, parts = (3 if says_keras_3(file) else None), parts_of_keras_3(file)
    if not parts:
        raise ModelError(f"{file.where}: neither a model nor weights of Keras; {DAMAGED}")
    chain = chain_of_parts(file.where, parts, options, HARD_SIGMOID_SLOPES[version] if version else None)
    name = path.stem.removesuffix(".weights")
    return chain.model(identifier(name), f"weights of Keras {version or '2 or 3'} in {path.name}")
