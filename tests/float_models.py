"""Small random float models and data for tests of the quantizer."""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np

from quantgru.model import Dense, FloatModel, Gru

S32_MAX = 2**31 - 1


def half_up(v):
    """The nearest integer of a Fraction, ties up."""
    return math.floor(v + Fraction(1, 2))


def random_gru(rng, n_inputs, n_units, reset="after", name="gru"):
    """Weights as in trained layers: pre-activations of a few units."""
    bound = 2 / np.sqrt(n_units)
    return Gru(
        name,
        reset,
        rng.uniform(-bound, bound, (3, n_units, n_inputs)),
        rng.uniform(-bound, bound, (3, n_units, n_units)),
        rng.uniform(-bound, bound, (3, n_units)),
        rng.uniform(-bound, bound, n_units) if reset == "after" else np.zeros(n_units),
    )


def random_dense(rng, n_inputs, n_outputs, activation="linear", name="dense"):
    return Dense(name, rng.normal(size=(n_outputs, n_inputs)), rng.normal(size=n_outputs), activation)


def small_model(n_inputs=2, head=(), last_step=False, seed=0):
    return FloatModel((random_gru(np.random.default_rng(seed), n_inputs, 4), *head), last_step, "small")


def scaled(model, **factors):
    """`model` with arrays of its first layer multiplied."""
    first = model.layers[0]
    arrays = {name: getattr(first, name) * factor for name, factor in factors.items()}
    return replace(model, layers=(replace(first, **arrays), *model.layers[1:]))


def random_x(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape)
