"""A live Keras model and its import on the same random input: steps, tokens, masked steps, given states.

The model is run as it is, in inference; the states of stateful layers are put back.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from quantgru.errors import ModelError
from quantgru.importers.keras_affine import OPERATIONS
from quantgru.importers.keras_config import ModelConfig
from quantgru.importers.keras_layers import AFFINE, KerasReader
from quantgru.importers.keras_precision import TOLERANCES, half_precisions
from quantgru.importers.keras_sources import KerasSource
from quantgru.importers.verify import LEFT_OUT, N_SEQUENCES, N_STEPS, TOLERANCE, compare, first_line, probe
from quantgru.model import Dense, Embedding, FloatModel, Reverse
from quantgru.model.run import dense_output

FloatArray = npt.NDArray[np.float64]


def compare_layer(layer: Any, source: KerasSource) -> None:
    """Raises ModelError where a layer does not compute what its import does."""
    where, first = source.entry.where, source.layers[0]
    if layer.compute_dtype not in TOLERANCES:
        raise ModelError(
            f"{where}: computes in {layer.compute_dtype}, supported are {', '.join(TOLERANCES)}; "
            "set the dtype policy to 'float32'"
        )
    states = state_variables(layer)
    x = _input_of(layer, source, _n_inputs(source), int(states[0].shape[0]) if states else N_SEQUENCES)
    if isinstance(first, Embedding):
        found = first.vectors[x]
    elif isinstance(first, Dense):
        x = x[:, 0] if source.flat else x
        found = LEFT_OUT[source.left_out](dense_output(first, x))
    else:
        found = FloatModel(source.layers, source.last_step).run(x)
    with _from_zero(states):
        expected = _run(where, layer, _tensor(x, layer.compute_dtype))
    _compare(where, expected[source.entry.result], found, half_precisions((source.entry,)))


def compare_model(
    model: Any, config: ModelConfig, reader: KerasReader, converted: FloatModel, variables: Sequence[Any]
) -> None:
    """The same for the whole model, with `variables` for its states; with masked steps, too, if it leaves any out.

    Runs call() rather than the model, since a few steps are enough of one that was declared with thousands.
    """
    where = f"Keras model {model.name!r} ({type(model).__name__})"
    n_sequences = reader.n_sequences or (int(variables[0].shape[0]) if variables else N_SEQUENCES)
    x = _input_of(model, reader.sources[0], converted.n_inputs, n_sequences, reader.n_steps or N_STEPS)
    states = {
        name: np.random.default_rng(i).uniform(-1, 1, (len(x), gru.n_units))
        for i, (name, gru) in enumerate(zip(reader.given, converted.grus, strict=True))
        if name
    }
    initial = [
        states.get(name or "", np.broadcast_to(0.0 if gru.initial_state is None else gru.initial_state, shape))
        for name, gru in zip(reader.given, converted.grus, strict=True)
        for shape in [(len(x), gru.n_units)]
    ]
    for inputs, keep in _masked_and_not(x, converted.mask_value):
        with _from_zero(variables):
            arguments = _arguments(config.inputs, inputs, states, model.compute_dtype)
            call = model.call if model._call_has_training_arg else lambda x, training: model.call(x)
            expected = _run(where, call, arguments)[0]
        steps = inputs[..., None] if inputs.ndim == 2 else inputs
        found = LEFT_OUT[reader.chain.left_out](converted.run(steps, initial_states=initial))
        if not converted.last_step:
            expected, found = expected[keep], found[keep]
        _compare(where, expected, found, reader.precisions)


def _compare(where: str, expected: Any, found: FloatArray, precisions: Sequence[str]) -> None:
    """Allows for the rounding of the coarsest of the half precisions in which Keras computes."""
    tolerance = max((TOLERANCES[precision] for precision in precisions), default=TOLERANCE)
    try:
        compare(where, expected, found, tolerance)
    except ModelError as error:
        if not precisions:
            raise
        raise ModelError(
            f"{error}; or {' and '.join(precisions)} is too coarse for it: build it with the dtype policy 'float32', "
            "with the same weights, or give it as a .keras file, which is not compared"
        ) from None


def state_variables(layer: Any) -> list[Any]:
    """The states that a stateful layer holds, of a bidirectional one both."""
    parts = [getattr(layer, name) for name in ("forward_layer", "backward_layer") if hasattr(layer, name)]
    return [
        variable
        for part in parts or [layer]
        if getattr(part, "stateful", False) and hasattr(part, "cell")
        for variable in part.states or ()
    ]


@contextmanager
def _from_zero(variables: Sequence[Any]) -> Iterator[None]:
    """Runs start with states of zero, and leave those that were there."""
    operations = importlib.import_module("keras").ops
    before = [operations.convert_to_numpy(variable).copy() for variable in variables]
    try:
        for variable, value in zip(variables, before, strict=True):
            variable.assign(np.zeros_like(value))
        yield
    finally:
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)


def _n_inputs(source: KerasSource) -> int:
    return next(layer.n_inputs for layer in source.layers if not isinstance(layer, Reverse))


def _input_of(layer: Any, source: KerasSource, n_inputs: int, n_sequences: int, n_steps: int = N_STEPS) -> Any:
    """Random input [sequences, steps, features]; tokens [sequences, steps].

    What a normalisation reads first is in its range, so that the layers after it are not driven into saturation.
    """
    first = source.layers[0]
    x = probe(n_inputs)[np.arange(n_sequences) % N_SEQUENCES][:, np.arange(n_steps) % N_STEPS]
    if isinstance(first, Embedding):
        tokens = np.random.default_rng(20190429).integers(0, first.n_tokens, x.shape[:2])
        tokens[:, 0] = np.maximum(tokens[:, 0], min(1, first.n_tokens - 1))  # 0 may be masked
        return tokens.astype(np.int32)
    if source.entry.kind in (*AFFINE, *OPERATIONS) and isinstance(first, Dense):
        scale = np.diag(first.weights)
        usable = np.abs(scale) > 1e-6
        x = np.where(usable, (x - first.bias) / np.where(usable, scale, 1.0), x)
    rounded = _tensor(x, layer.compute_dtype)
    return np.asarray(importlib.import_module("keras").ops.convert_to_numpy(rounded), dtype=np.float64)


def _masked_and_not(x: Any, mask_value: float | None) -> Iterator[tuple[Any, npt.NDArray[np.bool_]]]:
    """The input, then with masked steps, if the model has any: each pattern of steps with at least one that is kept."""
    n_sequences, n_steps = x.shape[:2]
    keep = np.ones((n_sequences, n_steps), dtype=np.bool_)
    if mask_value is None or x.ndim == 3:
        yield x, keep
    if mask_value is not None:
        patterns = np.arange(n_sequences) % (2**n_steps - 1) + 1
        keep = (patterns[:, None] >> np.arange(n_steps)) & 1 == 1
        if x.ndim == 2:
            yield np.where(keep, np.maximum(x, 1), 0).astype(x.dtype), keep
        else:
            yield np.where(keep[..., None], x, mask_value), keep


def _arguments(inputs: Any, x: Any, states: Mapping[str, FloatArray], dtype: str) -> Any:
    """What the model is called with: x, and the initial states that are inputs, in the structure of the inputs."""
    if isinstance(inputs, Mapping):
        return {key: _arguments(value, x, states, dtype) for key, value in inputs.items()}
    if isinstance(inputs, list) and len(inputs) > 1:  # Keras 3.6 writes a list for a lone input, too
        return [_arguments(value, x, states, dtype) for value in inputs]
    return _tensor(states.get(inputs, x) if isinstance(inputs, str) else x, dtype)


def _tensor(x: Any, dtype: str) -> Any:
    operations = importlib.import_module("keras").ops
    return operations.convert_to_tensor(x, dtype="int32" if x.dtype.kind == "i" else dtype)


def _run(where: str, call: Any, arguments: Any) -> list[Any]:
    """The results as arrays."""
    keras = importlib.import_module("keras")
    try:
        results = keras.tree.flatten(call(arguments, training=False))
        return [keras.ops.convert_to_numpy(result) for result in results]
    except Exception as error:  # runs layers, hooks and the back end, which may raise anything
        raise ModelError(f"{where}: fails on random input ({first_line(error)})") from None
