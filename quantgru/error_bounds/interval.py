"""Intervals of real numbers: each result holds every value that exact arithmetic could give.

Ends are float64 and are moved outwards: by one ulp after an operation that rounds once; after a sum of n products by
more than n ulps of the sum of their magnitudes (N. Higham, "Accuracy and Stability of Numerical Algorithms", 3.1);
after a function by `FUNCTION_SLACK`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quantgru.activations import Function
from quantgru.array_types import FloatArray

_ULP = 2.0**-53
FUNCTION_SLACK = 2.0**-48  # of 1 and of the value: NumPy's tanh is within 4 ulps, what is around it rounds 4 times


@dataclass(frozen=True, eq=False)
class Interval:
    """low ... high, elementwise [n]"""

    low: FloatArray
    high: FloatArray

    @classmethod
    def of(cls, values: npt.ArrayLike) -> Interval:
        """Exactly these values."""
        array = np.asarray(values, dtype=np.float64)
        return cls(array, array)

    @classmethod
    def around_zero(cls, radius: npt.ArrayLike) -> Interval:
        """-radius ... radius"""
        array = np.asarray(radius, dtype=np.float64)
        return cls(-array, array)

    @property
    def magnitude(self) -> FloatArray:
        """The largest absolute value [n]; infinite where an end has left float64."""
        largest = np.maximum(np.abs(self.low), np.abs(self.high))
        return np.where(np.isnan(largest), np.inf, largest)

    def __add__(self, other: Interval) -> Interval:
        return _outward(self.low + other.low, self.high + other.high)

    def __sub__(self, other: Interval) -> Interval:
        return _outward(self.low - other.high, self.high - other.low)

    def __mul__(self, other: Interval) -> Interval:
        products = np.stack([a * b for a in (self.low, self.high) for b in (other.low, other.high)])
        return _outward(products.min(axis=0), products.max(axis=0))

    def hull(self, other: Interval) -> Interval:
        """What lies in either, and between them."""
        return Interval(np.minimum(self.low, other.low), np.maximum(self.high, other.high))

    def extrapolated(self, before: Interval) -> Interval:
        """Wider by as much as it has become since `before`, which it contains."""
        return Interval(2 * self.low - before.low, 2 * self.high - before.high)

    def contains(self, other: Interval) -> bool:
        """Whether nothing of the other one is outside."""
        return bool(((self.low <= other.low) & (other.high <= self.high)).all())

    def hull_of_parts(self) -> Interval:
        """Of all axes but the last one [n]."""
        axes = tuple(range(self.low.ndim - 1))
        return Interval(self.low.min(axis=axes), self.high.max(axis=axes))

    def intersection(self, other: Interval) -> Interval:
        """What lies in both."""
        return Interval(np.maximum(self.low, other.low), np.minimum(self.high, other.high))

    def limited(self, low: npt.ArrayLike, high: npt.ArrayLike) -> Interval:
        """Of the values, limited to low ... high."""
        return Interval(np.clip(self.low, low, high), np.clip(self.high, low, high))

    def beyond(self, low: npt.ArrayLike, high: npt.ArrayLike) -> Interval:
        """What limiting the values to low ... high takes away from them: it grows with the value."""
        kept = self.limited(low, high)
        return _outward(self.low - kept.low, self.high - kept.high)

    def concatenated(self, other: Interval) -> Interval:
        """One after the other."""
        return Interval(np.concatenate((self.low, other.low)), np.concatenate((self.high, other.high)))


def product(matrix: FloatArray, x: Interval, magnitude: FloatArray | None = None) -> Interval:
    """matrix [rows, n] times x [n]; `magnitude` [rows, n] is above that of numbers whose difference the matrix is."""
    positive, negative = np.maximum(matrix, 0.0), np.minimum(matrix, 0.0)
    low = positive @ x.low + negative @ x.high
    high = positive @ x.high + negative @ x.low
    sizes = (np.abs(matrix) if magnitude is None else magnitude) @ x.magnitude
    slack = (4 * matrix.shape[1] + 16) * _ULP * sizes
    return _outward(low - slack, high + slack)


def mixture(share: Interval, a: Interval, b: Interval) -> Interval:
    """share * a + (1 - share) * b, for shares of 0 ... 1: extreme where the share is."""
    lows, highs = (
        [s * x + (1.0 - s) * y for s in (share.low, share.high)] for x, y in ((a.low, b.low), (a.high, b.high))
    )
    slack = 4 * _ULP * (a.magnitude + b.magnitude)
    return _outward(np.minimum(*lows) - slack, np.maximum(*highs) + slack)


def image(function: Function, a: Interval) -> Interval:
    """Values of a function that never falls."""
    low, high = function(a.low), function(a.high)
    return _outward(low - _slack(low), high + _slack(high))


def change(function: Function, a: Interval, step: Interval) -> Interval:
    """f(a + step) - f(a), for a function that never falls, and whose slope is even and never rises away from 0, or
    never falls at all (relu).

    It grows with the step. For one step, as a function of a, it is monotone on either side of -step / 2, from where a
    and a + step are equally far from 0; or, for relu, monotone throughout. So its extremes are at three points.
    """
    return _outward(_extreme(function, a, step.low, np.minimum), _extreme(function, a, step.high, np.maximum))


def _extreme(function: Function, a: Interval, step: FloatArray, choose: np.ufunc) -> FloatArray:
    found = []
    for point in (a.low, a.high, np.clip(-step / 2, a.low, a.high)):
        before, after = function(point), function(point + step)
        slack = _slack(before) + _slack(after)
        found.append(after - before + (slack if choose is np.maximum else -slack))
    return np.asarray(choose.reduce(found))


def _slack(values: FloatArray) -> FloatArray:
    return FUNCTION_SLACK * (1.0 + np.abs(values))


def _outward(low: FloatArray, high: FloatArray) -> Interval:
    return Interval(np.nextafter(low, -np.inf), np.nextafter(high, np.inf))
