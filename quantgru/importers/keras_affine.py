"""The layers and operations of Keras that scale and shift each feature in inference: as a scale and a shift."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from quantgru.array_types import FloatArray
from quantgru.importers.chain import refuse
from quantgru.importers.gates import finite
from quantgru.importers.keras_arguments import Shape, arrays, constant, flag, number, numbers, shown, want
from quantgru.importers.keras_entries import Entry

OPERATIONS: Final = ("Add", "Divide", "Multiply", "Negative", "Subtract", "TrueDivide")
SMALLEST_DEVIATION: Final = 1e-7  # keras.config.epsilon(), below which Normalization does not divide


def read_affine(entry: Entry, weights: Sequence[Any], rank: int) -> tuple[FloatArray, FloatArray]:
    """Scale and shift of a Normalization, BatchNormalization or Rescaling layer, or of an operation with a constant.

    rank  how many axes the tensor has that it is called on

    Both are one number, or one for each feature. Raises ModelError for another axis than the features.
    """
    with np.errstate(all="ignore"):  # what is not finite then is refused
        match entry.kind:
            case "BatchNormalization":
                scale, shift = _batch_normalization(entry, weights, rank)
            case "Normalization":
                scale, shift = _normalization(entry, weights, rank)
            case kind if kind in OPERATIONS:
                scale, shift = _operation(entry, rank)
            case _:
                scale, shift = (numbers(entry.where, key, entry.config[key]) for key in ("scale", "offset"))
        return finite(entry.where, "scale", scale), finite(entry.where, "shift", shift)


def _batch_normalization(entry: Entry, weights: Sequence[Any], rank: int) -> tuple[FloatArray, FloatArray]:
    where, config = entry.where, entry.config
    want(where, config, {"renorm": False})
    _want_features(where, config, rank)
    names = [name for name, key in (("gamma", "scale"), ("beta", "center")) if flag(where, config, key)]
    shapes: dict[str, Shape] = dict.fromkeys((*names, "moving_mean", "moving_variance"), (None,))
    found = arrays(where, weights, shapes)
    if len({values.shape for values in found.values()}) > 1:
        raise refuse(where, "weights of different lengths")
    scale = found.get("gamma", 1.0) / np.sqrt(found["moving_variance"] + number(where, config, "epsilon"))
    return np.asarray(scale), np.asarray(found.get("beta", 0.0) - found["moving_mean"] * scale)


def _normalization(entry: Entry, weights: Sequence[Any], rank: int) -> tuple[FloatArray, FloatArray]:
    where, config = entry.where, entry.config
    shape: Shape = () if config["axis"] in (None, [], ()) else (None,)
    if shape:
        _want_features(where, config, rank)
    if config.get("mean") is not None:
        mean, variance = (numbers(where, key, config[key]) for key in ("mean", "variance"))
    else:
        found = arrays(where, weights[:2], {"mean": shape, "variance": shape})  # the third is a count
        mean, variance = found["mean"], found["variance"]
    if mean.shape != variance.shape:
        raise refuse(where, f"mean {mean.shape} and variance {variance.shape}")
    deviation = np.maximum(np.sqrt(variance), SMALLEST_DEVIATION)
    if flag(where, config, "invert", False):
        return deviation, mean
    return np.asarray(1 / deviation), np.asarray(-mean / deviation)


def _operation(entry: Entry, rank: int) -> tuple[FloatArray, FloatArray]:
    """Of -x, and of x + c, x - c, c - x, x * c and x / c."""
    zero, one = np.zeros(()), np.ones(())
    if entry.kind == "Negative":
        return -one, zero
    if entry.constant is None or (entry.constant_first and entry.kind in ("Divide", "TrueDivide")):
        raise refuse(entry.where, "computes something else than a fixed scale and shift of each feature")
    shape = constant(entry.where, "operand", entry.constant).shape
    if len(shape) > rank:
        raise refuse(entry.where, f"operand of shape {shape} on a tensor of {rank} axes")
    operand = numbers(entry.where, "operand", entry.constant)
    match entry.kind:
        case "Add":
            return one, operand
        case "Subtract":
            return (-one, operand) if entry.constant_first else (one, -operand)
        case "Multiply":
            return operand, zero
    return 1 / operand, zero


def _want_features(where: str, config: Mapping[str, Any], rank: int) -> None:
    axis = config["axis"]
    if isinstance(axis, (list, tuple)) and len(axis) == 1:
        axis = axis[0]
    if axis not in (-1, rank - 1):
        raise refuse(
            where, f"axis={shown(config['axis'])}, of a tensor of {rank} axes", "normalise the features, axis=-1"
        )
