"""Live Keras 3 models: read through their configuration, converted, and compared with the import. Nothing is built."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

from quantgru.errors import ModelError
from quantgru.importers.chain import Chain, identifier, refuse
from quantgru.importers.keras_config import Entry, chain_entries
from quantgru.importers.keras_layers import KerasReader, KerasSource
from quantgru.importers.options import ImportOptions
from quantgru.importers.verify import LEFT_OUT, compare, first_line, probe, random_states_kept
from quantgru.model import Dense, FloatModel, Gru
from quantgru.model.run import dense_output


def load_keras(model: Any, options: ImportOptions) -> FloatModel:
    """The float model of a Sequential or Functional chain, or of a single GRU layer; on any back end.

    Raises ModelError for everything else, and where model and import do not compute the same.
    """
    keras = importlib.import_module("keras")  # whoever gives a live model has chosen the back end already
    where = f"Keras model {model.name!r} ({type(model).__name__})"
    if not str(keras.__version__).startswith("3."):
        raise ModelError(
            f"{where}: of Keras {keras.__version__}, supported is Keras 3; load it there and give it again"
        )
    if not model.built:
        raise ModelError(f"{where}: has no weights yet; start it with keras.Input((None, features)), or call it once")
    entries = _entries(where, model)
    layers = {layer.name: layer for layer in getattr(model, "layers", [model])}
    with random_states_kept():
        reader = KerasReader(Chain(options.softmax), lambda entry: layers[entry.name].get_weights())
        reader.read(entries)
        converted = reader.chain.model(identifier(model.name), f"Keras model {model.name}")
        for source in reader.sources:
            _compare_layer(layers[source.entry.name], source)
        _compare_model(where, model, converted, reader.chain)
    return converted


def _entries(where: str, model: Any) -> list[Entry]:
    """Raises ModelError where the model's configuration is not that of one chain."""
    kind = type(model).__name__
    try:
        with warnings.catch_warnings(action="ignore"):  # Keras warns of lambdas, which are refused below
            config = model.get_config()
        if kind == "GRU":
            layer = {"class_name": kind, "module": type(model).__module__, "config": config}
            return chain_entries("Sequential", {"name": model.name, "layers": [layer]})
        return chain_entries(kind, config)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, NotImplementedError) as error:
        raise refuse(where, f"its get_config() is not that of a chain ({first_line(error)})") from None


def _compare_layer(layer: Any, source: KerasSource) -> None:
    where = source.entry.where
    if layer.compute_dtype not in ("float32", "float64"):
        raise ModelError(
            f"{where}: computes in {layer.compute_dtype}, supported are float32 and float64; "
            "set the dtype policy to 'float32'"
        )
    assert isinstance(source.layer, (Gru, Dense))
    x = probe(source.layer.n_inputs)
    if isinstance(source.layer, Gru):
        found = FloatModel((source.layer,), last_step=not source.entry.config["return_sequences"]).run(x)
    else:
        found = LEFT_OUT[source.left_out](dense_output(source.layer, x))
    compare(where, _run(where, layer, layer, x), found)


def _compare_model(where: str, model: Any, converted: FloatModel, chain: Chain) -> None:
    """Runs call() rather than the model, since a few steps are enough of one that was declared with thousands."""
    expected = _run(where, model, model.call, probe(converted.n_inputs))
    compare(where, expected, LEFT_OUT[chain.left_out](converted.run(probe(converted.n_inputs))))


def _run(where: str, layer: Any, call: Any, x: Any) -> Any:
    operations = importlib.import_module("keras").ops
    try:
        y = call(operations.convert_to_tensor(x, dtype=layer.compute_dtype), training=False)
        return operations.convert_to_numpy(y)
    except Exception as error:  # runs layers, hooks and the back end, which may raise anything
        raise ModelError(f"{where}: fails on random input {x.shape} ({first_line(error)})") from None
