"""Reported numbers against ones computed by hand."""

import math

import numpy as np
import pytest

from quantgru.errors import DataError
from quantgru.report.accuracy import Comparison, compare, sqnr_db


@pytest.mark.parametrize(
    ("exact", "approximate", "expected"),
    [
        ([3.0, 4.0], [3.0, 3.0], 10 * math.log10(25)),
        ([3.0, 4.0], [4.0, 3.0], 10 * math.log10(12.5)),
        ([[1.0, -1.0], [1.0, -1.0]], [[1.1, -1.0], [1.0, -1.0]], 10 * math.log10(400)),
        ([1.0], [3.0], -10 * math.log10(4)),  # more error than signal
        ([1e-9, 1e-9], [1e-9, 0.0], 10 * math.log10(2)),
        ([0.5, 0.25], [0.5, 0.25], math.inf),
        ([0.0, 0.0], [0.0, 0.0], math.inf),
        ([0.0, 0.0], [0.0, 1e-3], -math.inf),
    ],
)
def test_sqnr(exact, approximate, expected):
    assert sqnr_db(np.array(exact), np.array(approximate)) == pytest.approx(expected, abs=1e-6)


def test_sqnr_in_units_of_the_state():
    """A sine of amplitude 1 with 15 fraction bits, rounded: 6.02 dB a bit + 1.76 dB, as in any text book."""
    h = np.sin(np.arange(100_000) * 0.01234567)
    raw = np.floor(h * 2**15 + 0.5)
    assert sqnr_db(h, raw / 2**15) == pytest.approx(6.0206 * 16 + 1.761, abs=0.1)


FLOAT_OUTPUTS = np.array([[0.1, 0.9, 0.0], [0.5, 0.2, 0.3], [0.2, 0.3, 0.4], [0.4, 0.6, 0.1]])
INT_OUTPUTS = np.array([[0.1, 0.8, 0.0], [0.5, 0.2, 0.3], [0.2, 0.45, 0.4], [0.65, 0.6, 0.1]])
# largest entries             float 1, 0, 2, 1              integer 1, 0, 1, 0


def compare_outputs(float_outputs, int_outputs, labels=None):
    return compare(np.array([[3.0, 4.0]]), np.array([[3.0, 3.0]]), float_outputs, int_outputs, labels)


def test_compare_with_labels():
    found = compare_outputs(FLOAT_OUTPUTS, INT_OUTPUTS, np.array([1, 1, 2, 1]))
    assert found.state_sqnr_db == pytest.approx(13.9794)
    assert found.largest_error == pytest.approx(0.25)
    assert (found.label_agreement, found.float_accuracy, found.int_accuracy) == (0.5, 0.75, 0.25)


def test_compare_without_labels():
    found = compare_outputs(FLOAT_OUTPUTS, INT_OUTPUTS)
    assert (found.label_agreement, found.float_accuracy, found.int_accuracy) == (0.5, None, None)


def test_compare_a_single_output():
    """It has no largest entry to agree on."""
    found = compare_outputs(np.array([[0.5], [-1.0]]), np.array([[0.5], [-1.5]]), np.array([1, 0]))
    assert found == Comparison(found.state_sqnr_db, 0.5, None, None, None)


def test_compare_equal_runs():
    found = compare(FLOAT_OUTPUTS, FLOAT_OUTPUTS, FLOAT_OUTPUTS, FLOAT_OUTPUTS, np.array([1, 0, 2, 1]))
    assert found == Comparison(math.inf, 0.0, 1.0, 1.0, 1.0)


def test_the_largest_error_has_no_sign():
    for sign in (1, -1):
        assert compare_outputs(np.array([[0.0, sign * 2.0]]), np.array([[0.5, 0.0]])).largest_error == 2.0


def test_comparisons_are_plain_numbers():
    """They go into JSON."""
    found = compare_outputs(FLOAT_OUTPUTS, INT_OUTPUTS, np.array([1, 0, 2, 0]))
    assert {type(value) for value in vars(found).values()} == {float}


def test_labels_that_are_not_one_for_each_output_are_refused():
    outputs = np.eye(3)
    with pytest.raises(DataError, match="labels: 2, expected one for each of the 3 outputs"):
        compare(np.ones((3, 1)), np.ones((3, 1)), outputs, outputs, labels=np.array([0, 1]))
