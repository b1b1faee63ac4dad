"""Subclassed live models of Keras: their call() is run once on a symbolic tensor, and what it calls is the model.

The number of steps is unknown then, and so is every value: a call() that depends on one of them fails, and is refused.
The layers are put back as they were: Keras notes in each one what it was called on.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from quantgru.importers.chain import refuse
from quantgru.importers.verify import first_line

WITHOUT_CALL = "build it as keras.Sequential or keras.Model(inputs, outputs)"


@contextmanager
def traced(where: str, model: Any) -> Iterator[Any]:
    """A Functional model of the same layers, for a model whose call(x) takes one tensor of steps.

    Raises ModelError where call() does more than calling layers and operations of Keras.
    """
    nodes = [(layer, list(layer._inbound_nodes), list(layer._outbound_nodes)) for layer in model._flatten_layers()]
    try:
        yield _functional(where, model)
    finally:
        for layer, inbound, outbound in nodes:
            layer._inbound_nodes[:], layer._outbound_nodes[:] = inbound, outbound


def _functional(where: str, model: Any) -> Any:
    keras = importlib.import_module("keras")
    if getattr(model, "inputs", None):  # a class of the user's that is Functional
        return keras.Model(model.inputs, model.outputs, name=model.name)
    shape = (model.get_build_config() or {}).get("input_shape")
    if shape is None:
        raise refuse(where, "does not say the shape of its input", WITHOUT_CALL)
    if not isinstance(shape, (list, tuple)) or len(shape) not in (2, 3) or any(isinstance(n, tuple) for n in shape):
        raise refuse(where, f"its call() takes {shape}, expected one tensor (batch, steps, features)", WITHOUT_CALL)
    arguments = {"training": False} if model._call_has_training_arg else {}
    batch_size = shape[0] if any(getattr(layer, "stateful", False) for layer in model._flatten_layers()) else None
    x = keras.Input((None, *shape[2:]), batch_size, dtype="int32" if len(shape) == 2 else None, name="x")
    try:
        return keras.Model(x, model.call(x, **arguments), name=model.name)
    except Exception as error:  # runs the user's code, which may raise anything
        found = f"its call() does more than calling layers and keras.ops ({first_line(error)})"
        raise refuse(where, found, WITHOUT_CALL) from None
