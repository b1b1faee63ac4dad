"""Standardised inputs, (x - mean) / scale, folded into the weights: the device reads the sensor's own units."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from quantgru.errors import DataError
from quantgru.model import FloatModel, Gru


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
    first = model.layers[0]
    assert isinstance(first, Gru)
    with np.errstate(over="ignore"):
        weights = first.input_weights / factor
    if not np.isfinite(weights).all():
        raise DataError(f"scale: {np.abs(factor).min():.3g} is too small for the weights of the model")
    folded = replace(first, input_weights=weights, bias=first.bias - weights @ shift)
    return replace(model, layers=(folded, *model.layers[1:]))


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
