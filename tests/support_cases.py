"""What the tests of docs/sources.md share: the functions of a layer, a made model, and random numbers for it.

A maker builds one model with one framework, runs it there, and gives a `Made`: what `qg.load` gets, and what must come
out. All models are tiny, with weights of rms 0.5 and biases that are all different; most have an output of every step.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import quantgru as qg

RMS = 0.5
SEQUENCES, STEPS, INPUTS, UNITS = 2, 4, 2, 3
LENGTHS = (4, 3, 1)
TOKENS = 5
ACTIVATIONS = ("linear", "relu", "sigmoid", "tanh")  # of dense layers


class Functions(NamedTuple):
    """What one GRU layer computes; bias is "two" (one beside each product), "one" or "no"."""

    gate: str
    candidate: str
    reset: str
    bias: str

    def __str__(self) -> str:
        return f"{self.gate}, {self.candidate}, reset {self.reset}, {self.bias} bias"

    @property
    def dense_activation(self) -> str:
        """Of dense layers: each one comes with some functions."""
        return ACTIVATIONS[seed_of(*self) % len(ACTIVATIONS)]

    def choose(self, *variants: Any) -> Any:
        """One of several ways to write the same; each way comes with some functions."""
        return variants[seed_of("variant", *self) % len(variants)]


@dataclass(frozen=True, eq=False)
class Made:
    """forms     what qg.load gets, one by one, with `options`: the same model in several forms
    x         input as `FloatModel.run` takes it, with `run_options`
    expected  what the framework gave for it, arranged as `run` arranges it
    goes_on   whether a run in two parts, states handed on, must give the same
    """

    forms: tuple[Any, ...]
    x: Any
    expected: Any
    options: Mapping[str, Any] = field(default_factory=dict)
    run_options: Mapping[str, Any] = field(default_factory=dict)
    goes_on: bool = False

    def load(self) -> list[qg.FloatModel]:
        return [qg.load(form, **self.options) for form in self.forms]


# A structure and the functions of its layers, made in a folder.
Maker = Callable[[str, Functions, Path], Made]


def seed_of(*names: str) -> int:
    return zlib.crc32("/".join(names).encode())


def generator_of(structure: str, functions: Functions) -> np.random.Generator:
    return np.random.default_rng(seed_of(structure, *functions))


def random_weights(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers that float32 has, too: every framework starts from the same."""
    return generator.normal(0, RMS, shape).astype(np.float32).astype(np.float64)


def random_x(generator: np.random.Generator, inputs: int = INPUTS, steps: int = STEPS) -> np.ndarray:
    return random_weights(generator, (SEQUENCES, steps, inputs)) / RMS


def ragged_x(generator: np.random.Generator, inputs: int = INPUTS) -> list[np.ndarray]:
    return [random_weights(generator, (length, inputs)) / RMS for length in LENGTHS]


def random_tokens(generator: np.random.Generator) -> np.ndarray:
    """[sequences, steps]"""
    return generator.integers(0, TOKENS, (SEQUENCES, STEPS))
