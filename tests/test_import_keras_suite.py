"""The cases of Keras's own tests, run through the import: inputs, masks, states and expected numbers are theirs.

Source: keras/src/layers/rnn/gru_test.py and bidirectional_test.py of Keras 3 (Apache License 2.0).
"""

from __future__ import annotations

import numpy as np
import pytest
from keras_models import constant, layers  # without float64: these tests are of float32 layers

import quantgru as qg

TOLERANCE = 1e-6  # numbers are written with seven or eight digits

MASK = np.array([[True, True, False, True], [True, False, False, True]])
START = np.arange(4.0).reshape(2, 2)


def sequence(*shape):
    return np.arange(float(np.prod(shape))).reshape(shape)


def imported(layer, x):
    layer(x.astype("float32"))
    return qg.load(layer)


def rows(*values, units=1):
    """Units have equal weights, so they have equal values."""
    return np.repeat(np.array(values)[..., None], units, axis=-1)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, [0.5217289, 0.6371659, 0.3938496]),
        ({"implementation": 0}, [0.5217289, 0.6371659, 0.3938496]),
        ({"go_backwards": True}, [0.24406259, 0.611516, 0.3928808]),
        ({"unroll": True}, [0.5217289, 0.6371659, 0.3938496]),
        ({"reset_after": False}, [0.51447755, 0.6426879, 0.40208298]),
        ({"use_bias": False}, [0.49988455, 0.64701194, 0.4103359]),
    ],
)
def test_correctness(arguments, expected):
    x = sequence(3, 6, 4)
    found = imported(constant(units=3, **arguments), x).run(x)
    np.testing.assert_allclose(found, rows(*expected, units=3), rtol=0, atol=TOLERANCE)


def test_statefulness():
    x = sequence(2, 3, 4)
    model = imported(constant(units=4, stateful=True), x)
    found = model.run(x, initial_states=model.final_states(x))
    np.testing.assert_allclose(found, rows(0.29542392, 0.5885018, units=4), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("return_state", [False, True])
@pytest.mark.parametrize(
    ("backwards", "expected"),
    [
        (False, [[0.23774096, 0.33508456], [0.83659905, 1.0227708]]),
        (True, [[0.13486053, 0.23261218], [0.78257304, 0.9691353]]),
    ],
)
def test_initial_state(backwards, expected, return_state):
    x = sequence(2, 4, 3)
    model = imported(constant(units=2, go_backwards=backwards, return_state=return_state), x)
    np.testing.assert_allclose(model.run(x, initial_states=[START]), expected, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(model.final_states(x, initial_states=[START])[0], expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [({"unroll": True}, [0.19393763, 0.30818558]), ({"go_backwards": True}, [0.11669192, 0.28380975])],
)
def test_masking(arguments, expected):
    x = sequence(2, 4, 3)
    found = imported(constant(units=2, **arguments), x).run(x, mask=MASK)
    np.testing.assert_allclose(found, rows(*expected, units=2), rtol=0, atol=TOLERANCE)


EVERY_STEP = [[0.03606692, 0.09497581, 0.09497581, 0.19393763], [0.16051409, 0.16051409, 0.16051409, 0.30818558]]


def test_masking_of_every_step():
    x = sequence(2, 4, 3)
    found = imported(constant(units=2, return_sequences=True), x).run(x, mask=MASK)
    np.testing.assert_allclose(found, rows(*EVERY_STEP, units=2), rtol=0, atol=TOLERANCE)


def test_masking_with_zero_output():
    """At masked steps, Keras gives 0 and the import what it gave before; the other steps are equal."""
    x = sequence(2, 4, 3)
    found = imported(constant(units=2, return_sequences=True, zero_output_for_mask=True), x).run(x, mask=MASK)
    np.testing.assert_allclose(
        np.where(MASK[..., None], found, 0), rows(*EVERY_STEP, units=2) * MASK[..., None], atol=1e-6
    )


def test_bidirectional_correctness():
    x = sequence(2, 3, 4)
    layer = layers.Bidirectional(constant(units=2, return_sequences=True), merge_mode="sum")
    expected = [[0.20937867, 0.34462988, 0.40290534], [0.59829646, 0.6734641, 0.6479671]]
    np.testing.assert_allclose(imported(layer, x).run(x), rows(*expected, units=2), rtol=0, atol=TOLERANCE)


def test_bidirectional_masking():
    x = sequence(2, 4, 3)
    found = imported(layers.Bidirectional(constant(units=2)), x).run(x, mask=MASK)
    expected = [[0.19393763, 0.19393763, 0.11669192, 0.11669192], [0.30818558, 0.30818558, 0.28380975, 0.28380975]]
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)
