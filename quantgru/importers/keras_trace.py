"""Subclassed live models of Keras: their call() is run once on a symbolic tensor, and what it calls is the model.

Values are unknown then: a call() that depends on one fails, and is refused. One that depends on how many sequences or
steps there are shows it where it is run for several of each.
"""

from __future__ import annotations

import importlib
from typing import Any

from quantgru.errors import ModelError
from quantgru.importers.chain import refuse
from quantgru.importers.verify import first_line

WITHOUT_CALL = "build it as keras.Sequential or keras.Model(inputs, outputs)"


def traced(where: str, model: Any, n_sequences: int | None = None, n_steps: int | None = None) -> Any:
    """A Functional model of the same layers, for a model whose call(x) takes one tensor of steps.

    n_sequences, n_steps  of the symbolic tensor, None for any

    Raises ModelError where call() does more than calling layers and operations of Keras.
    """
    keras = importlib.import_module("keras")
    batch_size, features = _input_shape(where, model)
    arguments = {"training": False} if model._call_has_training_arg else {}
    dtype = None if features else "int32"
    x = keras.Input((n_steps, *features), n_sequences or batch_size, dtype=dtype, name="x")
    try:
        return keras.Model(x, model.call(x, **arguments), name=model.name)
    except Exception as error:  # runs the user's code, which may raise anything
        found = f"its call() does more than calling layers and keras.ops ({first_line(error)})"
        raise ModelError(f"{where}: {found}; {WITHOUT_CALL}") from None


def graph_of(model: Any) -> Any:
    """The model itself or a Functional one, where configurations say what it does; None where only its call() does."""
    if not hasattr(model, "layers") or type(model).__module__.partition(".")[0] == "keras":
        return model
    if getattr(model, "inputs", None):  # a class of the user's that is Functional
        return importlib.import_module("keras").Model(model.inputs, model.outputs, name=model.name)
    return None


def _input_shape(where: str, model: Any) -> tuple[int | None, tuple[int, ...]]:
    """The number of sequences if it is fixed, and that of features, which tokens do not have."""
    shape = (model.get_build_config() or {}).get("input_shape")
    if shape is None:
        raise refuse(where, "does not say the shape of its input", WITHOUT_CALL)
    if not isinstance(shape, (list, tuple)) or len(shape) not in (2, 3) or any(isinstance(n, tuple) for n in shape):
        raise refuse(where, f"its call() takes {shape}, expected one tensor (batch, steps, features)", WITHOUT_CALL)
    stateful = any(getattr(layer, "stateful", False) for layer in model._flatten_layers())
    return shape[0] if stateful else None, tuple(shape[2:])
