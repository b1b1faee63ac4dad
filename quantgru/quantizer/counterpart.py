"""A float model beside the integer model that was made from it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from quantgru.array_types import FloatArray
from quantgru.errors import ModelError
from quantgru.int_model import IntModel
from quantgru.model import Bidirectional, Dense, Embedding, FloatModel, Gru, Layer
from quantgru.quantizer.dequantize import dequantize
from quantgru.quantizer.resemblance import codes_away, warn_of_another
from quantgru.structure import Reverse


def counterparts(model: FloatModel, int_model: IntModel) -> tuple[FloatModel, FloatModel]:
    """Two models of the same shapes, weight beside weight: `model`, and the real weights that `int_model` means.

    An integer embedding puts out codes, whose real scale is part of the weights behind it; that scale is taken out of
    the float model's vectors and put into its weights, too. Raises ModelError for models that differ in structure, and
    warns where their weights differ by more than rounding explains.
    """
    if not isinstance(model, FloatModel):
        raise ModelError(f"a model of type {type(model).__name__}, expected the FloatModel that was quantized")
    meant = dequantize(int_model)
    found, expected = (tuple(map(_shape, each.layers)) for each in (model, meant))
    if found != expected or model.last_step != meant.last_step:
        number = next((i for i, pair in enumerate(zip(found, expected, strict=False)) if pair[0] != pair[1]), None)
        where = "" if number is None else f": layer {number} is {found[number]}, and {expected[number]} in integers"
        raise ModelError(
            f"float model {model.name!r} ({model.widths}) is not what integer model {int_model.name!r} "
            f"({int_model.widths}) was made from{where}; give the model that was quantized"
        )
    floats = _in_units_of_codes(model, meant)
    warn_of_another(floats, meant, int_model)
    return floats, meant


def with_codes_away(int_model: IntModel, model: FloatModel) -> IntModel:
    """`int_model` with a note of how far its weights are from those of `model`, which it was made from."""
    meant = dequantize(int_model)
    away = codes_away(_in_units_of_codes(model, meant), meant, int_model)
    return replace(int_model, notes={**int_model.notes, "codes_away": [list(pair) for pair in away]})  # as JSON has it


def _shape(layer: Layer) -> str:
    """What is the same in a layer and in its integers."""
    match layer:
        case Gru():
            functions = f"reset {layer.reset}, {layer.gate}, {layer.candidate}"
            return f"a GRU {layer.n_inputs} → {layer.n_units}, {functions}"
        case Bidirectional():
            directions = f"{_shape(layer.forward)} and {_shape(layer.backward)}"
            return f"bidirectional, {directions}, {layer.merge}{', final states' if layer.final else ''}"
        case Dense():
            return f"dense {layer.n_inputs} → {layer.n_outputs}, {layer.activation}"
        case Embedding():
            return f"an embedding {layer.n_tokens} → {layer.n_outputs}"
        case Reverse():
            return "a reversal"


def _in_units_of_codes(model: FloatModel, meant: FloatModel) -> FloatModel:
    """The same model, with vectors of an embedding as near to the codes as a factor for each column brings them."""
    if model.embedding is None or meant.embedding is None:
        return model
    vectors, codes = model.embedding.vectors, meant.embedding.vectors
    scale = (vectors * codes).sum(axis=0) / np.maximum((codes**2).sum(axis=0), 1.0)
    scale = np.where(scale > 0, scale, 1.0)
    layers = list(model.layers)
    layers[0] = replace(model.embedding, vectors=vectors / scale)
    reader = next(i for i, layer in enumerate(layers) if i > 0 and not isinstance(layer, Reverse))
    layers[reader] = _scaled(layers[reader], scale)
    return replace(model, layers=tuple(layers))


def _scaled(layer: Layer, scale: FloatArray) -> Layer:
    """Weights on operands that are divided by scale [inputs]."""
    match layer:
        case Gru():
            return replace(layer, input_weights=layer.input_weights * scale)
        case Dense():
            return replace(layer, weights=layer.weights * scale)
        case Bidirectional():
            forward, backward = (
                replace(gru, input_weights=gru.input_weights * scale) for gru in (layer.forward, layer.backward)
            )
            return replace(layer, forward=forward, backward=backward)
        case Embedding() | Reverse():
            raise ModelError(f"layer {layer.name!r}: no weights behind an embedding")
