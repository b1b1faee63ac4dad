"""Plain arrays, as .npz and as arguments, for each structure of docs/sources.md that arrays can have.

They are the weights of Keras layers, so that Keras says what must come out. The conventions are tested elsewhere; here
one is taken for each kind of reset gate and biases.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from support_cases import SEQUENCES, UNITS, Functions, Made, generator_of, random_weights
from support_keras import model_and_run, run_with_state

import quantgru as qg

KERAS_SLOPE: Final = 1 / 6  # of hard_sigmoid


def arrays(structure: str, functions: Functions, folder: Path) -> Made:
    generator = generator_of(f"arrays {structure}", functions)
    starts = structure == "constant initial state"
    of_keras = functions._replace(bias="one") if functions[2:] == ("before", "two") else functions
    model, made = model_and_run("given initial state" if starts else structure, of_keras, False)
    given: dict[str, Any] = dict(gate=functions.gate, candidate=functions.candidate)
    if functions.gate == "hard_sigmoid":
        given["slope"] = KERAS_SLOPE
    if starts:
        given["initial_state"] = random_weights(generator, (UNITS,))
        made = run_with_state(model, made.x, given["initial_state"][None].repeat(SEQUENCES, axis=0))
        made = replace(made, run_options={})
    per_layer = 2 if functions.bias == "no" else 3
    weights = model.get_weights()
    grus = [weights[i : i + per_layer] for i in range(0, len(weights), per_layer)]
    convention, *of_layers = _in_convention(functions, grus, generator)
    if len(grus) == 1:
        np.savez(folder / "model.npz", convention=convention, **given, **of_layers[0])
        as_arguments = qg.from_arrays(convention, **given, **of_layers[0])
        return replace(made, forms=(folder / "model.npz", as_arguments))
    numbered = {f"{i}.{name}": values for i, layer in enumerate(of_layers) for name, values in layer.items()}
    np.savez(folder / "model.npz", **given, **numbered)
    return replace(made, forms=(folder / "model.npz",), options={"convention": convention})


def _in_convention(functions: Functions, weights: list[list[np.ndarray]], generator: np.random.Generator) -> list[Any]:
    """The name of the convention, and the arrays of each layer."""
    if functions[2:] == ("before", "two"):
        return ["onnx-linear-before-reset-0", *(_as_onnx(*of_layer, generator) for of_layer in weights)]
    names = ("kernel", "recurrent_kernel", "bias")
    return [f"keras-reset-{functions.reset}", *(dict(zip(names, layer, strict=False)) for layer in weights)]


def _as_onnx(
    kernel: np.ndarray, recurrent: np.ndarray, bias: np.ndarray, generator: np.random.Generator
) -> dict[str, np.ndarray]:
    """Two biases whose sum is the one of Keras."""
    beside_h = random_weights(generator, bias.shape)
    return {"W": kernel.T, "R": recurrent.T, "B": np.concatenate((bias - beside_h, beside_h))}
