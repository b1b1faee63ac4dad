"""Standardised inputs, (x - mean) / scale, folded into the weights: the device reads the sensor's own units."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from quantgru.array_types import FloatArray
from quantgru.errors import DataError
from quantgru.model import Bidirectional, Dense, Embedding, FloatModel, Gru, Layer, Reverse


def fold_standardisation(model: FloatModel, mean: npt.ArrayLike | None, scale: npt.ArrayLike | None) -> FloatModel:
    """The model that gives for x what `model` gives for (x - mean) / scale; mean and scale [inputs] or one number.

    Raises DataError.
    """
    if mean is None and scale is None:
        return model
    shift = _per_input(0.0 if mean is None else mean, model.n_inputs, "mean")
    factor = _per_input(1.0 if scale is None else scale, model.n_inputs, "scale")
    if (factor == 0).any():
        raise DataError(f"scale: 0 at feature {int(np.argmin(np.abs(factor)))}; a constant feature has scale 1")
    if model.mask_value is not None:
        raise DataError("mean and scale: the model masks steps by their standardised value; standardise x before it")
    layers = list(model.layers)
    first = next(i for i, layer in enumerate(layers) if not isinstance(layer, Reverse))
    layers[first] = _folded(layers[first], shift, factor)
    return replace(model, layers=tuple(layers))


def _folded(layer: Layer, shift: FloatArray, factor: FloatArray) -> Layer:
    match layer:
        case Gru():
            return _folded_gru(layer, shift, factor)
        case Dense():
            weights = _divided(layer.weights, factor)
            return replace(layer, weights=weights, bias=layer.bias - weights @ shift)
        case Bidirectional():
            forward, backward = (_folded_gru(gru, shift, factor) for gru in (layer.forward, layer.backward))
            return replace(layer, forward=forward, backward=backward)
        case Embedding() | Reverse():
            raise DataError(f"mean and scale: the model reads token numbers, of layer {layer.name!r}; leave them out")


def _folded_gru(layer: Gru, shift: FloatArray, factor: FloatArray) -> Gru:
    weights = _divided(layer.input_weights, factor)
    return replace(layer, input_weights=weights, bias=layer.bias - weights @ shift)


def _divided(weights: FloatArray, factor: FloatArray) -> FloatArray:
    with np.errstate(over="ignore"):
        divided = weights / factor
    if not np.isfinite(divided).all():
        raise DataError(f"scale: {np.abs(factor).min():.3g} is too small for the weights of the model")
    return np.asarray(divided)


def _per_input(values: npt.ArrayLike, n_inputs: int, what: str) -> npt.NDArray[np.float64]:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(f"{what}: expected {n_inputs} real numbers, one for each input of the model") from None
    if array.shape not in ((), (1,), (n_inputs,)):
        raise DataError(f"{what}: shape {array.shape}, expected ({n_inputs},): one value for each input of the model")
    if not np.isfinite(array).all():
        raise DataError(f"{what}: {array[~np.isfinite(array)].flat[0]}, all values must be finite")
    return np.broadcast_to(array, (n_inputs,))
