"""A live Keras model and its import on the same random input: steps, tokens, masked steps, given states.

The model is run as it is, in inference, and its states start from zero.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from quantgru.array_types import FloatArray
from quantgru.errors import ModelError
from quantgru.importers.keras_affine import OPERATIONS
from quantgru.importers.keras_config import ModelConfig
from quantgru.importers.keras_layers import AFFINE, KerasReader
from quantgru.importers.keras_precision import TOLERANCES, half_precisions
from quantgru.importers.keras_sources import KerasSource
from quantgru.importers.verify import (
    LEFT_OUT,
    N_SEQUENCES,
    N_STEPS,
    PLAIN,
    TOLERANCE,
    compare,
    difference,
    first_line,
)
from quantgru.model import Dense, Embedding, FloatModel, Reverse
from quantgru.model.run import dense_output

SIZES: Final = ((N_SEQUENCES, N_STEPS), (1, 1), (3, 2), (1, 20), (2, 130))  # sequences, steps
SIZE_LIMIT: Final = 1 << 13  # steps of all sequences; that many take no time


@dataclass(frozen=True)
class KerasImport:
    """A live model that was read; `layers` are those that can be compared alone, each after what was made of it."""

    config: ModelConfig
    reader: KerasReader
    layers: Sequence[tuple[KerasSource, Any]]
    model: FloatModel


def sizes(reader: KerasReader, states: Sequence[Any]) -> list[tuple[int, int]]:
    """How many sequences of how many steps are compared: few and many, as far as the model takes any number."""
    fixed = reader.n_sequences or (int(states[0].shape[0]) if states else None)
    first, *others = dict.fromkeys((fixed or n_sequences, reader.n_steps or n_steps) for n_sequences, n_steps in SIZES)
    return [first, *(size for size in others if size[0] * size[1] <= SIZE_LIMIT)]


def compare_layers(found: KerasImport) -> list[Any]:
    """The variables of all states in the model.

    Raises ModelError where a layer alone does not compute what its import does.
    """
    for source, layer in found.layers:
        _compare_layer(layer, source, state_variables(layer))
    return [variable for _, layer in found.layers for variable in state_variables(layer)]


def _compare_layer(layer: Any, source: KerasSource, states: Sequence[Any]) -> None:
    where, first = source.entry.where, source.layers[0]
    if layer.compute_dtype not in TOLERANCES:
        raise ModelError(
            f"{where}: computes in {layer.compute_dtype}, supported are {', '.join(TOLERANCES)}; "
            "set the dtype policy to 'float32'"
        )
    n_sequences = int(states[0].shape[0]) if states else N_SEQUENCES
    x = _input_of(layer, source, _n_inputs(source), n_sequences, N_STEPS)
    if isinstance(first, Embedding):
        found = first.vectors[x]
    elif isinstance(first, Dense):
        x = x[:, 0] if source.flat else x
        found = LEFT_OUT[source.left_out](dense_output(first, x))
    else:
        found = FloatModel(source.layers, source.last_step).run(x)
    _start_from_zero(states)
    expected = _run(where, layer, _tensor(x, layer.compute_dtype))
    precisions = half_precisions((source.entry,))
    _compare(where, expected[source.entry.result], found, precisions, _tolerance(precisions))


def compare_model(
    model: Any, found: KerasImport, variables: Sequence[Any], size: tuple[int, int], again: FloatModel | None
) -> None:
    """The same for the whole model, with `variables` for its states; with masked steps, too, if it leaves any out.

    again  what was read of the model for this number of sequences and steps alone

    Runs call() rather than the model, since it may have been declared with another number of steps.
    """
    where = f"Keras model {model.name!r} ({type(model).__name__}) on {size[0]} sequences of {size[1]} steps"
    reader, converted = found.reader, found.model
    x = _input_of(model, reader.sources[0], converted.n_inputs, *size)
    states, initial = _initial_states(found, len(x))
    for inputs, keep in _masked_and_not(x, converted.mask_value):
        _start_from_zero(variables)
        arguments = _arguments(found.config.inputs, inputs, states, model.compute_dtype)
        call = model.call if model._call_has_training_arg else lambda x, training: model.call(x)
        expected = _run(where, call, arguments)[0]
        own = LEFT_OUT[reader.chain.left_out](converted.run(_steps(inputs), initial_states=initial))
        allowed = _tolerance(reader.precisions)
        if size[1] != N_STEPS:
            allowed = _after_growth(allowed, converted, inputs, initial)
        if not converted.last_step:
            expected, own = expected[keep], own[keep]
        if allowed < 1 and (size[1] == N_STEPS or np.isfinite(expected).all()):  # relu may leave the range of Keras
            _compare(where, expected, own, reader.precisions, allowed)
        if again is not None and not _same(converted, again, _steps(inputs)):
            raise ModelError(f"{where}: does something else than on others; {PLAIN}")


def _initial_states(found: KerasImport, n_sequences: int) -> tuple[dict[str, FloatArray], list[FloatArray]]:
    """Random states for the inputs of the model that give them, by name; and those that each GRU layer starts from."""
    layers = list(zip(found.reader.given, found.model.grus, strict=True))
    states = {
        name: np.random.default_rng(i).uniform(-1, 1, (n_sequences, gru.n_units))
        for i, (name, gru) in enumerate(layers)
        if name
    }
    return states, [states.get(name or "", np.broadcast_to(gru.h0, (n_sequences, gru.n_units))) for name, gru in layers]


def _after_growth(tolerance: float, model: FloatModel, x: Any, initial: Sequence[FloatArray]) -> float:
    """What may come of rounding over many steps: more of it, and what the model makes of a little in its states.

    From 1 on nothing can be compared: rounding decides what such a model gives.
    """
    runs = [model.run(_steps(x), initial_states=[state + more for state in initial]) for more in (0.0, tolerance)]
    return max(10 * tolerance, 100 * difference(*runs))


def _same(model: FloatModel, other: FloatModel, steps: FloatArray) -> bool:
    return model.mask_value == other.mask_value and np.array_equal(model.run(steps), other.run(steps))


def _compare(where: str, expected: Any, found: FloatArray, precisions: Sequence[str], tolerance: float) -> None:
    try:
        compare(where, expected, found, tolerance)
    except ModelError as error:
        if not precisions:
            raise
        raise ModelError(
            f"{error}; or {' and '.join(precisions)} is too coarse for it: build it with the dtype policy 'float32', "
            "with the same weights, or give it as a .keras file, which is not compared"
        ) from None


def _tolerance(precisions: Sequence[str]) -> float:
    """For the rounding of the coarsest of the half precisions in which Keras computes."""
    return max((TOLERANCES[precision] for precision in precisions), default=TOLERANCE)


def _steps(x: Any) -> Any:
    """Tokens as [sequences, steps, 1]."""
    return x[..., None] if x.ndim == 2 else x


def state_variables(layer: Any) -> list[Any]:
    """The states that a stateful layer holds, of a bidirectional one both."""
    parts = [getattr(layer, name) for name in ("forward_layer", "backward_layer") if hasattr(layer, name)]
    return [
        variable
        for part in parts or [layer]
        if getattr(part, "stateful", False) and hasattr(part, "cell")
        for variable in part.states or ()
    ]


def _start_from_zero(variables: Sequence[Any]) -> None:
    for variable in variables:
        variable.assign(np.zeros(variable.shape))


def _n_inputs(source: KerasSource) -> int:
    return next(layer.n_inputs for layer in source.layers if not isinstance(layer, Reverse))


def _input_of(layer: Any, source: KerasSource, n_inputs: int, n_sequences: int, n_steps: int) -> Any:
    """Random input [sequences, steps, features]; tokens [sequences, steps].

    What a normalisation reads first is in its range, so that the layers after it are not driven into saturation.
    """
    first = source.layers[0]
    generator = np.random.default_rng(20190429)
    x = generator.standard_normal((n_sequences, n_steps, n_inputs))
    if isinstance(first, Embedding):
        tokens = generator.integers(0, first.n_tokens, x.shape[:2])
        tokens[:, 0] = np.maximum(tokens[:, 0], min(1, first.n_tokens - 1))  # 0 may be masked
        return tokens.astype(np.int32)
    if source.entry.kind in (*AFFINE, *OPERATIONS) and isinstance(first, Dense):
        scale = np.diag(first.weights)
        usable = np.abs(scale) > 1e-6
        x = np.where(usable, (x - first.bias) / np.where(usable, scale, 1.0), x)
    rounded = _tensor(x, layer.compute_dtype)
    return np.asarray(importlib.import_module("keras").ops.convert_to_numpy(rounded), dtype=np.float64)


def _masked_and_not(x: Any, mask_value: float | None) -> Iterator[tuple[Any, npt.NDArray[np.bool_]]]:
    """The input, then with masked steps, if the model has any: patterns of steps with at least one that is kept."""
    n_sequences, n_steps = x.shape[:2]
    keep = np.ones((n_sequences, n_steps), dtype=np.bool_)
    if mask_value is None or x.ndim == 3:
        yield x, keep
    if mask_value is not None:
        n_bits = min(n_steps, N_STEPS)
        patterns = np.arange(n_sequences) % (2**n_bits - 1) + 1
        keep = (patterns[:, None] >> np.arange(n_steps) % n_bits) & 1 == 1
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
