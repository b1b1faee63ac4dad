"""The smallest integer models: layers of zeros that fit together, to be changed in one place."""

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import oracle
import pytest
from conversions import from_oracle
from strategies import Plan, random_model

from quantgru.errors import ModelError
from quantgru.int_model import IntBidirectional, IntDense, IntEmbedding, IntGru, IntModel, Matrix, SelfTest


@contextmanager
def refused(pattern="."):
    """The block raises a ModelError of one line, in which `pattern` is found."""
    with pytest.raises(ModelError, match=pattern) as caught:
        yield
    assert len(str(caught.value).splitlines()) == 1


def small_model():
    """Two inputs, one layer of two units (reset after), one dense layer with one output."""
    return from_oracle(random_model(Plan(2, (2,), (oracle.RESET_AFTER,), ((1, oracle.LINEAR),)), seed=1))


def zero_matrix(rows, columns, **changes):
    codes, m, s = np.zeros((rows, columns), np.int8), np.full(rows, 2**14, np.uint16), np.ones(rows, np.uint8)
    return replace(Matrix(codes, m, s), **changes)


def zero_gru(reset="after", n_inputs=2, units=1, **changes):
    c = np.zeros(units if reset == "after" else 0, np.int32)
    w, u = zero_matrix(3 * units, n_inputs), zero_matrix(3 * units, units)
    return replace(IntGru("gru", reset, w, u, np.zeros(3 * units, np.int32), c), **changes)


def zero_dense(rows=1, columns=1, **changes):
    return replace(IntDense("dense", "linear", zero_matrix(rows, columns), np.zeros(rows, np.int32), 0), **changes)


def zero_bidirectional(merge="concat", final=False, n_inputs=2, units=1, **changes):
    forward, backward = (zero_gru(reset, n_inputs, units) for reset in ("after", "before"))
    return replace(IntBidirectional("both", forward, backward, merge, final), **changes)


def zero_embedding(tokens=2, outputs=2):
    return IntEmbedding("embedding", np.zeros((tokens, outputs), np.int8))


def model_of(*layers, n_inputs=2, last_step=False):
    return IntModel(layers, np.zeros(n_inputs, np.int8), last_step, SelfTest(np.zeros((1, n_inputs), np.int16), 0))


def at(array, index, value):
    """A copy of an array with one element changed."""
    array = array.copy()
    array[index] = value
    return array


NO_INTEGERS = [0.5, 1.0, True, "1", None, [1], [], float("nan")]
NO_NAMES = [None, 5, ["x"], b"x"]
