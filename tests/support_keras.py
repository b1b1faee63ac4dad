"""Models of Keras 3, one for each structure of docs/sources.md: live, as .keras, as .h5, and as .weights.h5."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np
from keras import layers
from support_cases import (
    INPUTS,
    SEQUENCES,
    TOKENS,
    UNITS,
    Functions,
    Made,
    generator_of,
    ragged_x,
    random_tokens,
    random_weights,
    random_x,
)

MASK_VALUE: Final = -1.5


def gru(functions: Functions, units: int = UNITS, **options: Any) -> layers.GRU:
    options = dict(return_sequences=True, name="gru") | options
    return layers.GRU(units, **_arguments(functions), **options)


def _cell(functions: Functions, units: int, name: str) -> layers.GRUCell:
    return layers.GRUCell(units, **_arguments(functions), name=name)


def _arguments(functions: Functions) -> dict[str, Any]:
    return dict(
        recurrent_activation=functions.gate,
        activation=functions.candidate,
        reset_after=functions.reset == "after",
        use_bias=functions.bias != "no",
    )


def _sequential(*parts: Any, **input_options: Any) -> keras.Model:
    options = dict(shape=(None, INPUTS)) | input_options
    return keras.Sequential([keras.Input(**options), *parts])


def _dense(functions: Functions, units: int, name: str = "dense") -> layers.Dense:
    return layers.Dense(units, activation=functions.dense_activation, name=name)


# ---- structures ----------------------------------------------------------------------------------------------------


def _last_step(functions: Functions) -> keras.Model:
    if functions.choose(True, False):
        return _sequential(gru(functions, return_sequences=False))
    x = keras.Input((None, INPUTS))
    if functions.choose(True, False, True):
        return keras.Model(x, gru(functions)(x)[:, -1])
    return keras.Model(x, gru(functions, return_sequences=False, return_state=True)(x)[1])


def _stack(functions: Functions) -> keras.Model:
    if functions.choose(True, False):
        return _sequential(gru(functions, 2, name="first"), gru(functions, name="second"))
    cells = [_cell(functions, units, name) for units, name in ((2, "low"), (UNITS, "high"))]
    return _sequential(layers.RNN(cells, return_sequences=True, name="both"))


def _bidirectional(merge: str, **options: Any) -> Callable[[Functions], keras.Model]:
    def make(functions: Functions) -> keras.Model:
        backward = {}
        if functions.choose(True, False):
            backward["backward_layer"] = gru(functions, name="other", go_backwards=True, **options)
        return _sequential(layers.Bidirectional(gru(functions, **options), merge, name="gru", **backward))

    return make


def _normalised(functions: Functions) -> keras.Model:
    """As a layer that holds its numbers in weights, or in its configuration."""
    norm = functions.choose(layers.Normalization, layers.BatchNormalization)(name="norm")
    if isinstance(norm, layers.Normalization):
        norm.adapt(np.random.default_rng(0).normal([0.5, -0.25], [2.0, 0.75], (50, 1, INPUTS)))
    return _sequential(norm, gru(functions))


def _normalised_by_configuration(functions: Functions) -> keras.Model:
    make = functions.choose(
        lambda: layers.Rescaling([0.5, 2.0], [0.25, -1.0]),
        lambda: layers.Normalization(mean=[0.5, -0.25], variance=[4.0, 0.5]),
    )
    return _sequential(make(), gru(functions))


def _masked(functions: Functions) -> keras.Model:
    if functions.choose(True, False):
        return _sequential(layers.Masking(MASK_VALUE), gru(functions))
    return _sequential(layers.Embedding(TOKENS, 2, mask_zero=True), gru(functions), shape=(None,))


def _constant_state(functions: Functions) -> keras.Model:
    """As an array, or as a tensor with a row for each sequence."""
    start = random_weights(generator_of("start", functions), (1, UNITS))
    if functions.choose(True, False):
        x = keras.Input((None, INPUTS))
        return keras.Model(x, gru(functions)(x, initial_state=start))
    x = keras.Input((None, INPUTS), batch_size=SEQUENCES)
    rows = keras.ops.convert_to_tensor(np.tile(start, (SEQUENCES, 1)))
    return keras.Model(x, gru(functions)(x, initial_state=[rows]))


def _given_state(functions: Functions) -> keras.Model:
    x, h = keras.Input((None, INPUTS)), keras.Input((UNITS,))
    return keras.Model([x, h], gru(functions)(x, initial_state=h))


STRUCTURES: Final[dict[str, Callable[[Functions], keras.Model]]] = {
    "every step": lambda f: _sequential(gru(f)),
    "last step": _last_step,
    "stack": _stack,
    "bidirectional, concat": _bidirectional("concat"),
    "bidirectional, sum": _bidirectional("sum"),
    "bidirectional, mul": _bidirectional("mul"),
    "bidirectional, ave": _bidirectional("ave"),
    "final states of both directions": _bidirectional("concat", return_sequences=False),
    "backwards": lambda f: _sequential(gru(f, go_backwards=True)),
    "dense before": lambda f: _sequential(_dense(f, 3), gru(f)),
    "dense between": lambda f: _sequential(gru(f, name="first"), _dense(f, 2), gru(f, name="second")),
    "dense after": lambda f: _sequential(
        gru(f), layers.TimeDistributed(_dense(f, 2), name="each_step"), _dense(f, 2, "head")
    ),
    "embedding": lambda f: _sequential(layers.Embedding(TOKENS, 2, name="embedding"), gru(f), shape=(None,)),
    "normalisation": _normalised,
    "constant initial state": _constant_state,
    "given initial state": _given_state,
    "streaming": lambda f: _sequential(gru(f, stateful=True), batch_size=SEQUENCES),
    "unequal lengths": lambda f: _sequential(gru(f)),
    "masked steps": _masked,
}


# What files of weights say beside the name of the GRU layer, which gets {f}, its functions, and its merge.
CHAINS: Final = {
    "last step": "gru{f} last",
    "stack": ("first{f} second{f}", "both{f}"),
    "final states of both directions": "gru{f} final",
    "backwards": "reverse gru{f}",
    "dense before": "dense{a} gru{f}",
    "dense between": "first{f} dense{a} second{f}",
    "dense after": "gru{f} each_step{a} head{a}",
    "embedding": "embedding gru{f}",
    "normalisation": "norm gru{f}",
}


def model_of(structure: str, functions: Functions, by_configuration: bool) -> keras.Model:
    """With random weights, in float64; a normalisation may have its numbers in its configuration."""
    make = _normalised_by_configuration if by_configuration else STRUCTURES[structure]
    with _float64():
        model = make(functions)
    generator = generator_of(structure, functions)
    for variable in model.weights:
        if not any(word in variable.path for word in ("norm/mean", "norm/variance", "norm/count")):
            values = random_weights(generator, tuple(variable.shape))
            variable.assign(abs(values) + 0.25 if "variance" in variable.name else values)
    return model


@contextmanager
def _float64() -> Iterator[None]:
    before = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    try:
        yield
    finally:
        keras.config.set_floatx(before[0])
        keras.config.set_dtype_policy(before[1])


# ---- what comes out ------------------------------------------------------------------------------------------------


def run(structure: str, functions: Functions, model: keras.Model) -> Made:
    """What a model is given and what it gives, still without forms."""
    generator = generator_of(f"x {structure}", functions)
    x = random_x(generator)
    match structure:
        case "embedding":
            x = random_tokens(generator)[..., None]
            return Made((), x, _call(model, x[..., 0]))
        case "masked steps":
            return _run_masked(model, x, random_tokens(generator))
        case "given initial state":
            return run_with_state(model, x, random_weights(generator, (SEQUENCES, UNITS)))
        case "streaming":
            parts = [_call(model, x[:, :2]), _call(model, x[:, 2:])]
            return Made((), x, np.concatenate(parts, axis=1), goes_on=True)
        case "unequal lengths":
            ragged = ragged_x(generator)
            return Made((), ragged, [_call(model, rows[None])[0] for rows in ragged])
    return Made((), x, _call(model, x))


def run_with_state(model: keras.Model, x: np.ndarray, h: np.ndarray) -> Made:
    """A model with a second input for its initial state."""
    return Made((), x, _call(model, [x, h]), run_options={"initial_states": [h]})


def _run_masked(model: keras.Model, x: np.ndarray, tokens: np.ndarray) -> Made:
    """A sequence masked at its end, and one in between."""
    if isinstance(model.layers[0], layers.Embedding):
        tokens[tokens == 0] = 1
        tokens[0, 3] = tokens[1, 1] = 0
        return Made((), tokens[..., None], _call(model, tokens))
    x[0, 3] = x[1, 1] = MASK_VALUE
    return Made((), x, _call(model, x))


def _call(model: keras.Model, x: Any) -> np.ndarray:
    return keras.ops.convert_to_numpy(model(x, training=False))


# ---- sources -------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def model_and_run(structure: str, functions: Functions, by_configuration: bool) -> tuple[keras.Model, Made]:
    """One model for all files of it, which are tested one after the other."""
    model = model_of(structure, functions, by_configuration)
    return model, run(structure, functions, model)


def live(structure: str, functions: Functions, folder: Path) -> Made:
    """And as .keras."""
    by_configuration = structure == "normalisation" and functions.choose(True, False, True)
    model, made = model_and_run(structure, functions, by_configuration)
    model.save(folder / "model.keras")
    return replace(made, forms=(model, folder / "model.keras"))


def h5(structure: str, functions: Functions, folder: Path) -> Made:
    model, made = model_and_run(structure, functions, False)
    model.save(folder / "model.h5")
    return replace(made, forms=(folder / "model.h5",))


def weights_h5(structure: str, functions: Functions, folder: Path) -> Made:
    model, made = model_and_run(structure, functions, False)
    model.save_weights(folder / "model.weights.h5")
    return replace(made, forms=(folder / "model.weights.h5",), options={"chain": chain_of(structure, functions)})


def chain_of(structure: str, functions: Functions) -> str:
    """Where a layer has no bias, its file does not say where the reset gate acts."""
    said = [functions.gate, functions.candidate]
    if functions[:2] == ("sigmoid", "tanh") and functions.choose(True, False):
        said = []
    if functions.bias == "no":
        said.append(functions.reset)
    kind, _, merge = structure.partition(", ")
    if kind == "bidirectional" and merge != "concat":
        said.append(merge)
    text = CHAINS.get(structure, "gru{f}")
    text = text if isinstance(text, str) else functions.choose(*text)
    activation = functions.dense_activation
    text = text.replace("{f}", f"({', '.join(said)})" if said else "")
    return text.replace("{a}", "" if activation == "linear" else f" {activation}")
