"""Enclosures of what a device holds and of how far the float model is from it, through the rules of SPEC.md."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt

from quantgru.activations import CANDIDATES, GATES, Candidate, Function, GateFunction
from quantgru.array_types import BoolArray, FloatArray
from quantgru.error_bounds.interval import FUNCTION_SLACK, Interval, change, image, product
from quantgru.fixed import GATE, INT16_MAX, INT16_MIN, PRE_ACTIVATION, to_real
from quantgru.simulator.kernels import LIMIT
from quantgru.simulator.tables import function_values


def parts_between(*ends: float) -> FloatArray:
    """Where parts of the real line end, on either side of 0 [parts + 1]."""
    positive = [*ends, np.inf]
    return np.array([*(-end for end in reversed(positive)), 0.0, *positive])


# Arguments of gates and candidates are looked at part by part: where a function is steep, its values are in the middle.
PARTS: Final = parts_between(0.2, 0.4, 0.7, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)


@dataclass(frozen=True, eq=False)
class Enclosure:
    """Of n numbers of a model, for all inputs at once.

    values  what they can be on a device, as real numbers [n]
    reals   what they can be in the float model [n]
    errors  what those of the float model can be above those of the device, for one and the same input [n]
    """

    values: Interval
    reals: Interval
    errors: Interval

    @classmethod
    def of_constants(cls, floats: npt.ArrayLike, meant: npt.ArrayLike) -> Enclosure:
        """Of constants of a model, in float and as integers mean them."""
        reals, values = Interval.of(floats), Interval.of(meant)
        return cls(values, reals, reals - values)

    def __add__(self, other: Enclosure) -> Enclosure:
        return Enclosure(self.values + other.values, self.reals + other.reals, self.errors + other.errors)

    def __mul__(self, other: Enclosure) -> Enclosure:
        """The error of a b is a' (error of b) + (error of a) b, with a' of the device."""
        errors = self.values * other.errors + self.errors * other.reals
        return Enclosure(self.values * other.values, self.reals * other.reals, errors)

    def hull(self, other: Enclosure) -> Enclosure:
        """Of either."""
        parts = zip(self._parts(), other._parts(), strict=True)
        return Enclosure(*(mine.hull(others) for mine, others in parts))

    def extrapolated(self, before: Enclosure) -> Enclosure:
        """Wider by as much as it has become since `before`, which it contains."""
        parts = zip(self._parts(), before._parts(), strict=True)
        return Enclosure(*(mine.extrapolated(others) for mine, others in parts))

    def contains(self, other: Enclosure) -> bool:
        """Whether nothing of the other one is outside."""
        return all(mine.contains(others) for mine, others in zip(self._parts(), other._parts(), strict=True))

    def split(self, axis: int, ends: FloatArray = PARTS) -> Enclosure:
        """In parts, by what the device holds: arrays get `axis` more dimensions, the parts along the first of them."""
        edges = np.clip(self._ends(axis, ends), self.values.low, self.values.high)
        values = Interval(edges[:-1], edges[1:])
        return Enclosure(values, (values + self.errors).intersection(self.reals), self.errors)

    def reached(self, axis: int, ends: FloatArray) -> BoolArray:
        """Which parts of `split` are not empty. An empty one is given as the nearest value that there is."""
        ends = self._ends(axis, ends)
        return np.asarray((ends[:-1] <= self.values.high) & (self.values.low <= ends[1:]))

    def _ends(self, axis: int, ends: FloatArray) -> FloatArray:
        """[parts + 1, 1, ...], without those beyond all values."""
        between = (self.values.low.min() < ends) & (ends < self.values.high.max())
        return np.expand_dims(np.array([-np.inf, *ends[between], np.inf]), tuple(range(1, axis + 1)))

    def hull_of_parts(self) -> Enclosure:
        """Of all axes but the last one [n]."""
        return Enclosure(*(part.hull_of_parts() for part in self._parts()))

    def hull_within_parts(self, reached: BoolArray) -> Enclosure:
        """Of each part along the first axis [parts, 1, ..., n], of what is not empty; an empty part is like another."""
        axes = tuple(range(1, reached.ndim - 1))
        some = np.asarray(reached.any(axis=axes, keepdims=True))
        parts = np.where(some, np.expand_dims(np.arange(len(some)), tuple(range(1, some.ndim))), some.argmax(axis=0))

        def hull(interval: Interval) -> Interval:
            low, high = (np.broadcast_to(end, reached.shape) for end in (interval.low, interval.high))
            low = low.min(axis=axes, keepdims=True, where=reached, initial=np.inf)
            high = high.max(axis=axes, keepdims=True, where=reached, initial=-np.inf)
            return Interval(np.take_along_axis(low, parts, axis=0), np.take_along_axis(high, parts, axis=0))

        return Enclosure(*map(hull, self._parts()))

    def concatenated(self, other: Enclosure) -> Enclosure:
        """One after the other."""
        parts = zip(self._parts(), other._parts(), strict=True)
        return Enclosure(*(mine.concatenated(others) for mine, others in parts))

    def off_by(self, radius: npt.ArrayLike) -> Enclosure:
        """Where a device is up to `radius` from the exact result for its operands."""
        off = Interval.around_zero(radius)
        return Enclosure(self.values + off, self.reals, self.errors - off)

    def rounded(self, fraction_bits: npt.ArrayLike) -> Enclosure:
        """To nearest [R1, R4, R5]: off by half an LSB at most."""
        return self.off_by(np.exp2(-1.0 - np.asarray(fraction_bits, dtype=np.float64)))

    def limited(self, low: npt.ArrayLike, high: npt.ArrayLike) -> Enclosure:
        """Where a device limits its results to low ... high [R2]."""
        return Enclosure(self.values.limited(low, high), self.reals, self.errors + self.values.beyond(low, high))

    def tightened(self) -> Enclosure:
        """No error is larger than what reals and values leave room for."""
        return Enclosure(self.values, self.reals, self.errors.intersection(self.reals - self.values))

    def _parts(self) -> tuple[Interval, Interval, Interval]:
        return self.values, self.reals, self.errors


def rows(floats: FloatArray, meant: FloatArray, x: Enclosure, fraction_bits: npt.ArrayLike) -> Enclosure:
    """Rows of weights [rows, n] on x [n], requantized [R9]: w x - w' x' = (w - w') x' + w (x - x')."""
    of_weights = product(floats - meant, x.values, np.abs(floats) + np.abs(meant))
    errors = of_weights + product(floats, x.errors)
    return Enclosure(product(meant, x.values), product(floats, x.reals), errors).rounded(fraction_bits)


@dataclass(frozen=True)
class DeviceFunction:
    """A function as a device computes it: the real one, limited to low ... high, within `error` of that."""

    real: Function
    error: float
    low: float
    high: float

    def __call__(self, a: Enclosure) -> Enclosure:
        values, reals = image(self.real, a.values), image(self.real, a.reals)
        exact = Enclosure(values, reals, change(self.real, a.values, a.errors))
        found = exact.limited(self.low, self.high).off_by(self.error)
        return Enclosure(found.values.limited(self.low, self.high), reals, found.errors).tightened()


def gate_function(name: GateFunction) -> DeviceFunction:
    """[R7, R18]"""
    return DeviceFunction(GATES[name], table_errors().get(name, 0.0), 0.0, 1.0)


def output_function(name: Candidate, fraction_bits: int) -> DeviceFunction:
    """Of a candidate [R19] or a dense layer [R14]; `fraction_bits` are those of what it gives, 15 of a bounded one."""
    low, high = (float(np.ldexp(float(end), -fraction_bits)) for end in (INT16_MIN, INT16_MAX))
    if name == "tanh":  # what it loses below 1 is among the errors of the table
        high = 1.0
    return DeviceFunction(CANDIDATES[name], table_errors().get(name, 0.0), low, high)


@cache
def table_errors() -> dict[str, float]:
    """The largest error of sigmoid and of tanh, over every argument [R6, R7, R8]."""
    raw = np.arange(LIMIT + 1)  # odd around their middle, so that negative ones have the same errors
    found = {}
    for name in ("sigmoid", "tanh"):
        integers = to_real(function_values(name), GATE.fraction_bits)
        errors = np.abs(integers - CANDIDATES[name](to_real(raw, PRE_ACTIVATION.fraction_bits)))
        beyond = abs(integers[-1] - 1.0)  # integers stay where they are, and the real function goes on to 1
        found[name] = float(max(errors.max(), beyond)) + FUNCTION_SLACK
    return found
