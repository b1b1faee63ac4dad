"""Compensated rounding against exhaustive search, by hand, and at its edges."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantgru.quantizer.calibrate import Moments, MomentSums
from quantgru.quantizer.rounding import Compensated, Measure, Nearest, groups_of

ONE = np.ones(1)


def compensated(covariance, bits=8):
    return Compensated(bits, Measure(covariance[None]))


def mean_square(lost, x):
    """Of the row's sum on operands x [n, columns], around its mean: what a bias cannot take back. Each operand has
    noise of its own, of 1 % of the mean variance."""
    return float(np.var(x @ lost) + 0.01 * x.var(axis=0).mean() * (lost**2).sum())


def test_an_error_is_taken_over_by_an_operand_that_goes_along():
    """0.4 and 0.4 on operands that are always equal are 0.8 on one: a single 1 is nearest to that, not two 0."""
    equal = np.array([[1.0, 1.0], [1.0, 1.0]])
    assert Nearest(8).codes(np.array([[0.4, 0.4]]), ONE).tolist() == [[0, 0]]
    assert compensated(equal).codes(np.array([[0.4, 0.4]]), ONE).sum() == 1


def test_an_error_is_taken_over_by_an_operand_that_goes_against():
    opposed = np.array([[1.0, -1.0], [-1.0, 1.0]])
    codes = compensated(opposed).codes(np.array([[0.6, 0.6]]), ONE)
    assert codes[0, 0] == codes[0, 1]  # 0.6 - 0.6 = 0: any two equal codes


@pytest.mark.parametrize("covariance", [np.eye(3), np.diag([1.0, 100.0, 1e-6]), np.zeros((3, 3))])
def test_without_correlations_each_weight_has_its_nearest_code(covariance):
    weights = np.random.default_rng(1).normal(size=(50, 3)) * 40
    scale = np.abs(weights).max(axis=1) / 127
    assert (compensated(covariance).codes(weights, scale) == Nearest(8).codes(weights, scale)).all()


@st.composite
def correlated_operands(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n_columns = draw(st.integers(1, 4))
    x = rng.normal(size=(60, n_columns)) @ rng.normal(size=(n_columns, n_columns))
    return rng, x * np.exp(rng.normal(size=n_columns)) + rng.normal(size=n_columns)


@given(correlated_operands())
def test_no_row_is_worse_than_to_nearest_and_most_are_the_best_there_is(case):
    """The best of all codes within 2 of the weights, by trying them all."""
    rng, x = case
    weights = rng.normal(size=(6, x.shape[1])) * 3
    scale = np.ones(6)
    codes = compensated(Moments.of(x).covariance).codes(weights, scale)
    nearest = Nearest(8).codes(weights, scale)
    ratios = []
    for row, found, near in zip(weights, codes, nearest, strict=True):
        around = itertools.product(*([c + d for d in range(-2, 3)] for c in np.round(row)))
        least = min(mean_square(row - np.array(tried), x) for tried in around)
        error = mean_square(row - found, x)
        assert error <= mean_square(row - near, x) * (1 + 1e-9)
        ratios.append(error / least)
    assert np.median(ratios) < 1.5


def test_codes_stay_in_their_range_however_large_an_error_is():
    x = np.repeat(np.random.default_rng(2).normal(size=(40, 1)), 3, axis=1)
    codes = compensated(Moments.of(x).covariance).codes(np.array([[500.0, -500.0, 3.0]]), ONE)
    assert codes.min() >= -128 and codes.max() <= 127


def test_a_scale_below_that_of_the_largest_weight_is_chosen_where_it_costs_less():
    """The largest weight acts on an operand that hardly moves; on its scale, all others are 1/2 of a code off."""
    weights = np.array([[1.0, *[0.5 / 127] * 400]])
    rounding = compensated(np.diag([1e-9, *[1.0] * 400]))
    assert Nearest(8).best_scale(weights)[0] == pytest.approx(1 / 127)
    assert rounding.best_scale(weights)[0] < 0.7 / 127


@pytest.mark.parametrize("n", [1, 2, 3, 1000])
@pytest.mark.parametrize("start", [0.0, 0.1, 1e9])
def test_operands_that_never_change_have_no_variance(n, start):
    """Not even that of rounding errors, which can be negative. Values come one after the other, or all at once."""
    values = np.tile(start + np.array([0.0, 0.07, -0.3]), (n, 1))
    sums = MomentSums(3)
    for value in values:
        sums.add(value[None])
    for moments in (sums.moments(), Moments.of(values)):
        assert not moments.covariance.any()
        assert moments.n == n
        np.testing.assert_allclose(moments.mean, values[0], rtol=1e-15)
        assert compensated(moments.covariance).codes(np.array([[3.4, 0.6, -7.0]]), ONE).tolist() == [[3, 1, -7]]


@given(correlated_operands(), st.integers(1, 60))
def test_moments_are_those_of_numpy(case, n_first):
    _, x = case
    sums = MomentSums(x.shape[1])
    sums.add(x[:n_first])
    sums.add(x[n_first:])
    expected = np.cov(x, rowvar=False, bias=True).reshape(x.shape[1], -1)
    for moments in (sums.moments(), Moments.of(x)):
        np.testing.assert_allclose(moments.mean, x.mean(axis=0), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(moments.covariance, expected, rtol=1e-9, atol=1e-12 * np.abs(expected).max())


def test_rows_of_zeros_have_codes_of_zero():
    rounding = compensated(np.eye(2))
    assert (rounding.best_scale(np.zeros((2, 2))) >= 0).all()
    assert not rounding.codes(np.zeros((2, 2)), np.full(2, 1e-9)).any()


def test_each_row_goes_by_the_measure_of_its_group():
    """Operands go along for the first rows, against for the last; 0.4 and 0.4, and 0.6 and 0.6, as above."""
    measure = Measure(np.array([[[1.0, 1.0], [1.0, 1.0]], [[1.0, -1.0], [-1.0, 1.0]]]))
    codes = Compensated(8, measure).codes(np.array([[0.4, 0.4]] * 2 + [[0.6, 0.6]] * 2), np.ones(4))
    assert codes[:2].sum(axis=1).tolist() == [1, 1]
    assert (codes[2:, 0] == codes[2:, 1]).all()


def test_groups_are_as_equal_as_can_be():
    assert groups_of(5, 2).tolist() == [0, 0, 0, 1, 1]
    assert groups_of(4, 4).tolist() == [0, 1, 2, 3]
    assert groups_of(3, 1).tolist() == [0, 0, 0]


@pytest.mark.parametrize("n_columns", [15, 16, 17, 40])
def test_errors_are_handed_on_to_all_later_columns(n_columns):
    """A row of equal operands is a single weight: its codes add up to what the sum of the weights is nearest to,
    however many columns there are; errors are handed on to 16 of them at a time."""
    weights = np.random.default_rng(5).normal(size=(8, n_columns)) * 4
    codes = compensated(np.ones((n_columns, n_columns))).codes(weights, np.ones(8))
    assert np.abs(codes.sum(axis=1) - weights.sum(axis=1)).max() <= 0.5 + 0.02 * n_columns
