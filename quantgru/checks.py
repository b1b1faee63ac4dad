"""Checks that the types of models share: what they refuse is a ModelError."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from quantgru.errors import ModelError


def own(owner: object, name: str, dtype: type[np.generic], shape: Sequence[int], where: str) -> None:
    """Replaces an array field by a read-only copy; type and shape must be these. Raises ModelError."""
    array = np.asarray(getattr(owner, name))
    if array.dtype != dtype or array.shape != tuple(shape):
        raise ModelError(
            f"{where}: {name} is {array.dtype} {array.shape}, expected {np.dtype(dtype).name} {tuple(shape)}"
        )
    array = np.array(array, order="C")
    array.flags.writeable = False
    object.__setattr__(owner, name, array)


def real_array(owner: object, name: str, where: str) -> npt.NDArray[Any]:
    """An array field as it was given, of integers or real numbers. Raises ModelError."""
    values = getattr(owner, name)
    if hasattr(values, "detach"):  # a parameter of PyTorch, which otherwise records what becomes of it
        values = values.detach()
    try:
        array = np.asarray(values)
    except ValueError:
        raise ModelError(f"{where}: {name} has rows of unequal lengths") from None
    if array.dtype.kind not in "fiu":
        raise ModelError(f"{where}: {name} is of type {array.dtype}, expected real numbers")
    return array


def own_real(owner: object, name: str, shape: Sequence[int], where: str) -> None:
    """Replaces an array field by a finite, read-only copy in float64. Raises ModelError."""
    array = np.array(real_array(owner, name, where), dtype=np.float64)
    if array.shape != tuple(shape):
        raise ModelError(f"{where}: {name} {array.shape}, expected {tuple(shape)}")
    if not np.isfinite(array).all():
        bad = np.argwhere(~np.isfinite(array))[0].tolist()
        raise ModelError(f"{where}: {name} holds {array[tuple(bad)]} at {bad}; all weights must be finite")
    array.flags.writeable = False
    object.__setattr__(owner, name, array)


def in_range(what: str, values: npt.ArrayLike, low: int, high: int) -> None:
    """Raises ModelError unless all values are in low ... high."""
    array = np.asarray(values)
    if array.size and not (low <= array.min() and array.max() <= high):
        raise ModelError(f"{what}: {array.min()} ... {array.max()}, allowed {low} ... {high}")


def own_integer(owner: object, name: str, low: int, high: int, where: str) -> None:
    """Replaces an integer field, which may be numpy's, by a plain int in low ... high. Raises ModelError."""
    value = getattr(owner, name)
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= value <= high:
        raise ModelError(f"{where}: {name} {value!r}, expected an integer of {low} ... {high}")
    object.__setattr__(owner, name, int(value))


def one_of(where: str, what: str, found: object, allowed: Iterable[str]) -> None:
    """Raises ModelError unless `found` is one of the allowed names."""
    names = list(allowed)
    if found not in names:
        raise ModelError(f"{where}: {what} {found!r}, supported are {', '.join(names)}")


def check_name(name: object, where: str) -> None:
    """Raises ModelError unless `name` is text."""
    if not isinstance(name, str):
        raise ModelError(f"{where}: name {name!r}, expected text")


def check_finite(number: object, where: str, what: str) -> None:
    """Raises ModelError unless `number` is a finite real number."""
    if isinstance(number, bool) or not isinstance(number, (int, float, np.number)) or not np.isfinite(number):
        raise ModelError(f"{where}: {what} {number!r}, expected a finite number")


def check_flag(flag: object, where: str, what: str) -> None:
    """Raises ModelError unless `flag` is True or False."""
    if type(flag) is not bool:
        raise ModelError(f"{where}: {what} is {flag!r}, expected True or False")
