"""Live Keras 3 models: read through their configuration, converted, and compared with the import. Nothing is built."""

from __future__ import annotations

import importlib
import warnings
from typing import Any, Final

from quantgru.errors import ModelError
from quantgru.importers.chain import Chain, identifier, refuse
from quantgru.importers.keras_compare import KerasImport, compare_layers, compare_model, sizes
from quantgru.importers.keras_config import ModelConfig, read_config
from quantgru.importers.keras_entries import RECURRENT
from quantgru.importers.keras_kept import left_as_it_was
from quantgru.importers.keras_layers import KerasReader
from quantgru.importers.keras_precision import TOLERANCES
from quantgru.importers.keras_trace import graph_of, traced
from quantgru.importers.options import ImportOptions
from quantgru.importers.verify import first_line, random_states_kept
from quantgru.model import FloatModel

# What configurations raise that are not Keras's own, or of another version of it.
UNREADABLE: Final = (AttributeError, IndexError, KeyError, NotImplementedError, TypeError, ValueError)


def load_keras(model: Any, options: ImportOptions) -> FloatModel:
    """The float model of a chain, Sequential, Functional or subclassed, or of a single recurrent layer; any back end.

    Raises ModelError for everything else, and where model and import do not compute the same.
    """
    keras = importlib.import_module("keras")  # whoever gives a live model has chosen the back end already
    where = f"Keras model {model.name!r} ({type(model).__name__})"
    if not str(keras.__version__).startswith("3."):
        raise ModelError(
            f"{where}: of Keras {keras.__version__}, supported is Keras 3; save it as .h5, and give the file"
        )
    if not model.built:
        raise ModelError(f"{where}: has no weights yet; start it with keras.Input((None, features)), or call it once")
    with random_states_kept(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)  # NumPy, of Keras on torch
        with left_as_it_was(model):
            return _load(where, model, options)


def _load(where: str, model: Any, options: ImportOptions) -> FloatModel:
    graph = graph_of(model)
    found = _read(where, traced(where, model) if graph is None else graph, options)
    states = compare_layers(found)
    for size in sizes(found.reader, states):
        again = None if graph is not None else _read_again(where, model, size, options)
        compare_model(model, found, states, size, again)
    return found.model


def _read_again(where: str, model: Any, size: tuple[int, int], options: ImportOptions) -> FloatModel | None:
    """What call() gives for an input of that size: it may look at it. None if Keras cannot trace it."""
    try:
        graph = traced(where, model, *size)
    except ModelError:  # a Sequential model inside, say, which was built on another number of steps
        return None
    return _read(where, graph, options).model


def _read(where: str, model: Any, options: ImportOptions) -> KerasImport:
    config = _config(where, model)
    reader = KerasReader(Chain(options.softmax), lambda entry: layer_at(model, entry.path).get_weights())
    try:
        reader.read(config.entries)
    except UNREADABLE as error:
        raise refuse(where, f"a layer's get_config() is not that of Keras ({first_line(error)})") from None
    if reader.precisions:
        allowed = max(TOLERANCES[precision] for precision in reader.precisions)
        reader.chain.notes.append(f"compared with Keras: the same within {allowed:.0e} of the largest output")
    converted = reader.chain.model(identifier(model.name), f"Keras model {model.name}")
    alone = [(source, layer_at(model, source.entry.path)) for source in reader.sources if source.alone]
    return KerasImport(config, reader, alone, converted)


def layer_at(model: Any, path: tuple[str, ...]) -> Any:
    """The layer at a path of names; of a single layer, itself."""
    for name in path if hasattr(model, "layers") else ():
        model = model.get_layer(name)
    return model


def _config(where: str, model: Any) -> ModelConfig:
    """Raises ModelError where the model's configuration is not that of one chain."""
    kind = type(model).__name__
    try:
        with warnings.catch_warnings(action="ignore"):  # Keras warns of lambdas, which are refused below
            config = model.get_config()
        if kind in RECURRENT:
            layer = {"class_name": kind, "module": type(model).__module__, "config": config}
            return read_config("Sequential", {"name": model.name, "layers": [layer]})
        if not hasattr(model, "layers"):
            raise refuse(where, "a single layer that is not recurrent", "give the model that it is part of")
        return read_config(kind, config)
    except UNREADABLE as error:
        raise refuse(where, f"its get_config() is not that of a chain ({first_line(error)})") from None
