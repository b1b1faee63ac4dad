"""Random models of every kind of layer, all the way: float run, quantizer, simulator, oracle, C library."""

from __future__ import annotations

import c_library
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from support_budget import bounded_outputs
from support_integers import assert_integers_equal
from support_random import Case, cases, outputs_by_formula
from test_float_structure import CANDIDATES, GATES, gru_of

import quantgru as qg
from quantgru.fixed import to_real
from quantgru.quantizer import dequantize

if c_library.NO_COMPILER:
    pytest.skip(c_library.NO_COMPILER, allow_module_level=True)

TOLERANCE = 1e-10  # float64 against float64, of the largest output
EXAMPLES = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def quantized(case: Case) -> qg.IntModel:
    """With formats for these very sequences, so that no input is clipped."""
    return qg.quantize(case.model, case.model.sequences(case.x, case.mask), initial_states=case.initial_states)


@EXAMPLES
@given(case=cases())
def test_the_float_run_is_the_formula(case: Case) -> None:
    found = case.model.run(case.x, **case.run_options)
    for y, expected in zip(found, outputs_by_formula(case), strict=True):
        largest = max(1.0, np.abs(expected).max())
        np.testing.assert_allclose(np.atleast_2d(y), expected, rtol=0, atol=TOLERANCE * largest)


@EXAMPLES
@given(case=cases())
def test_the_integers_are_equal_everywhere(case: Case) -> None:
    assert_integers_equal(quantized(case), case.x, **case.run_options)


@EXAMPLES
@given(case=cases())
def test_integers_are_as_close_as_their_formats_say(case: Case) -> None:
    """Each output within the sum of all roundings on its way; on what it was calibrated with, nothing saturates."""
    model = quantized(case)
    result = qg.run(model, case.x, **case.run_options)
    assert not any(result.saturated_states) and not any(result.saturated_outputs)
    floats = dequantize(model).run(result.sequences, initial_states=case.initial_states)
    for i, length in enumerate(result.sequences.lengths.tolist()):
        starts = None if case.initial_states is None else [h[i] for h in case.initial_states]
        bounded = bounded_outputs(model, result.sequences.values[i, :length], starts)
        outputs = result.outputs_raw[i][None] if model.last_step else result.outputs_raw[i, :length]
        expected = bounded[-1:] if model.last_step else bounded
        assert (np.abs(to_real(outputs, model.output_fraction_bits) - expected.values) <= expected.errors).all()
        np.testing.assert_allclose(np.atleast_2d(floats[i])[-1], expected.values[-1], rtol=0, atol=1e-9)


@pytest.mark.parametrize("candidate", CANDIDATES)
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("reset", ["after", "before"])
def test_that_is_close(reset: str, gate: str, candidate: str) -> None:
    """The bound is of use: after five steps it is far below the outputs."""
    layer = gru_of(1, reset=reset, gate=gate, candidate=candidate)
    x = np.random.default_rng(2).normal(size=(1, 5, 2))
    model = qg.quantize(qg.FloatModel((layer,), last_step=False), x)
    bounded = bounded_outputs(model, x[0], None)
    assert bounded.errors.max() < 0.02 * np.abs(bounded.values).max()
