"""Live Keras 3 models: read through their configuration, converted, and compared with the import. Nothing is built."""

from __future__ import annotations

import importlib
import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from quantgru.errors import ModelError
from quantgru.importers.chain import Chain, identifier, refuse
from quantgru.importers.keras_compare import compare_layer, compare_model, state_variables
from quantgru.importers.keras_config import ModelConfig, read_config
from quantgru.importers.keras_entries import RECURRENT
from quantgru.importers.keras_layers import KerasReader
from quantgru.importers.keras_precision import TOLERANCES
from quantgru.importers.keras_trace import traced
from quantgru.importers.options import ImportOptions
from quantgru.importers.verify import first_line, random_states_kept
from quantgru.model import FloatModel


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
    with random_states_kept(), warnings.catch_warnings(), _followed(where, model) as followed:
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)  # NumPy, of Keras on torch
        config = _config(where, followed)
        reader = KerasReader(Chain(options.softmax), lambda entry: layer_at(followed, entry.path).get_weights())
        reader.read(config.entries)
        if reader.precisions:
            allowed = max(TOLERANCES[precision] for precision in reader.precisions)
            reader.chain.notes.append(f"compared with Keras: the same within {allowed:.0e} of the largest output")
        converted = reader.chain.model(identifier(model.name), f"Keras model {model.name}")
        alone = [source for source in reader.sources if source.alone]
        layers = [layer_at(followed, source.entry.path) for source in alone]
        for layer, source in zip(layers, alone, strict=True):
            compare_layer(layer, source)
        states = [variable for layer in layers for variable in state_variables(layer)]
        compare_model(model, config, reader, converted, states)
    return converted


def _followed(where: str, model: Any) -> AbstractContextManager[Any]:
    """The model itself, if its configuration says what it does, otherwise a Functional one out of its call()."""
    if type(model).__module__.partition(".")[0] == "keras" or not hasattr(model, "layers"):
        return nullcontext(model)
    return traced(where, model)


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
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, NotImplementedError) as error:
        raise refuse(where, f"its get_config() is not that of a chain ({first_line(error)})") from None
