"""A live Keras model is left as it was, though its call() is run: its attributes and those of its layers, all values.

What an attribute refers to is put back if it is a dict, a list or a set; what lies deeper or elsewhere is not.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np


@contextmanager
def left_as_it_was(model: Any) -> Iterator[None]:
    """Puts back what the block changes in a model or a single layer. Keras notes in layers what they were called on."""
    layers = list(model._flatten_layers())
    attributes = [vars(layer) for layer in layers]
    containers: list[Any] = [*attributes, *(value for found in attributes for value in found.values())]
    before = [(found, found.copy()) for found in containers if isinstance(found, (dict, list, set))]
    operations = importlib.import_module("keras").ops
    states = [state for layer in layers if getattr(layer, "stateful", False) for state in getattr(layer, "states", ())]
    values = [(each, np.copy(operations.convert_to_numpy(each))) for each in (*model.variables, *states)]
    try:
        yield
    finally:
        for found, content in before:
            _put_back(found, content)
        for variable, value in values:
            if not np.array_equal(operations.convert_to_numpy(variable), value):
                variable.assign(value)


def _put_back(found: Any, content: Any) -> None:
    """In place, without what Keras does when one of its own lists is changed."""
    kind: Any = next(kind for kind in (dict, list, set) if isinstance(found, kind))
    kind.clear(found)
    (list.extend if kind is list else kind.update)(found, content)
