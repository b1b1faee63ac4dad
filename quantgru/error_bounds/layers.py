"""Enclosures through one layer: a float layer beside the real weights that its integers mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from quantgru.error_bounds.enclosure import Enclosure, gate_function, output_function, parts_between, rows
from quantgru.error_bounds.interval import Interval, mixture
from quantgru.fixed import INT16_MAX, INT16_MIN
from quantgru.int_model import IntBidirectional, IntDense, IntGru
from quantgru.model import Dense, Gate, Gru

Steps = list[Enclosure]  # one enclosure for each step of a sequence

# Where r, the sum that it multiplies and the argument of n are split at once: finest where the bound gains most.
_PARTS_OF_R: Final = parts_between(*np.linspace(0.4, 5.2, 13))
_PARTS_OF_SUM: Final = parts_between(1.0, 2.0, 3.5, 5.0, 7.0, 9.0)
_PARTS_OF_ARGUMENT: Final = parts_between(0.3, 0.6, 1.0, 1.5, 2.5)


@dataclass(frozen=True, eq=False)
class GruPair:
    """A GRU layer in float, the real weights that its integers mean, and the integers."""

    floats: Gru
    meant: Gru
    integers: IntGru

    def any_state(self) -> Enclosure:
        """Every state that the format holds, the same in float."""
        ends = (np.full(self.floats.n_units, np.ldexp(float(end), -self._bits)) for end in (INT16_MIN, INT16_MAX))
        every = Interval(*ends)
        return Enclosure(every, every, Interval.around_zero(np.zeros(self.floats.n_units)))

    def reset(self) -> Enclosure:
        """[R13, R20]"""
        return Enclosure.of_constants(self.floats.h0, self.meant.h0)

    def run(self, inputs: Steps, h: Enclosure) -> Steps:
        """h after each step. What it is before a step includes what it was before earlier ones: a run of fewer steps is
        among those that are enclosed. Where that adds nothing any more, all later steps on the same input are equal."""
        found: Steps = []
        settled = False
        for t, x in enumerate(inputs):
            if settled and x is inputs[t - 1]:
                found.append(found[-1])
                continue
            found.append(self.step(x, h))
            settled = h.contains(found[-1])
            h = h.hull(found[-1])
        return found

    def step(self, x: Enclosure, h: Enclosure) -> Enclosure:
        """[R10, R11a, R11b, R19]"""
        gate = gate_function(self.integers.gate)
        a_z, a_r = (self._from_input(g, x) + self._from_state(g, h) for g in (Gate.Z, Gate.R))
        candidate = self._candidate_reset_after if self.integers.reset == "after" else self._candidate_reset_before
        return self._update(h, gate(a_z.split(1)), candidate(x, h, a_r)).hull_of_parts()

    def _candidate_reset_after(self, x: Enclosure, h: Enclosure, a_r: Enclosure) -> Enclosure:
        """n for each part of its argument [parts, 1, 1, units].

        An error of r counts as many times as the sum B that it is multiplied by. Where B is large, r B saturates n
        unless r is small, and then its errors are small, too: so parts of r, B and the argument are seen together.
        """
        r = gate_function(self.integers.gate)(a_r.split(1, _PARTS_OF_R))
        c = Enclosure.of_constants(self.floats.recurrent_bias, self.meant.recurrent_bias)
        b = (self._from_state(Gate.N, h) + c).split(2, _PARTS_OF_SUM)
        a_n = self._from_input(Gate.N, x) + (r * b).rounded(self.integers.candidate_bits)
        n = self._candidate(a_n.split(3, _PARTS_OF_ARGUMENT))
        return n.hull_within_parts(a_n.reached(3, _PARTS_OF_ARGUMENT))

    def _candidate_reset_before(self, x: Enclosure, h: Enclosure, a_r: Enclosure) -> Enclosure:
        """n for each part of its argument [parts, 1, units]."""
        r = gate_function(self.integers.gate)(a_r.split(1))
        from_h = self._from_state(Gate.N, (r * h).hull_of_parts().rounded(self._bits))
        return self._candidate((self._from_input(Gate.N, x) + from_h).split(2))

    def _candidate(self, a_n: Enclosure) -> Enclosure:
        function = output_function(self.integers.candidate, 15 if self.integers.bounded else self._bits)
        n = function(a_n)
        return n.rounded(self._bits) if self.integers.state_shift else n

    def _update(self, h: Enclosure, z: Enclosure, n: Enclosure) -> Enclosure:
        """z h + (1 - z) n, and the residual, which before and after is less than one LSB [R12].

        The error is z' (error of h) + (1 - z') (error of n) + (error of z) (h - n), with z' of the device.
        """
        values, reals = (mixture(*of_each) for of_each in ((z.values, h.values, n.values), (z.reals, h.reals, n.reals)))
        errors = mixture(z.values, h.errors, n.errors) + z.errors * (h.reals - n.reals)
        found = Enclosure(values, reals, errors).off_by(np.ldexp(1.0, -self._bits)).tightened()
        between = h.values.hull(n.values)
        return Enclosure(found.values.limited(between.low, between.high), reals, found.errors)

    @property
    def _bits(self) -> int:
        return self.integers.state_fraction_bits

    def _row_bits(self, gate: Gate) -> int:
        return self.integers.candidate_bits if gate == Gate.N else self.integers.gate_bits

    def _from_input(self, gate: Gate, x: Enclosure) -> Enclosure:
        of_weights = rows(self.floats.input_weights[gate], self.meant.input_weights[gate], x, self._row_bits(gate))
        return of_weights + Enclosure.of_constants(self.floats.bias[gate], self.meant.bias[gate])

    def _from_state(self, gate: Gate, h: Enclosure) -> Enclosure:
        return rows(self.floats.recurrent_weights[gate], self.meant.recurrent_weights[gate], h, self._row_bits(gate))


@dataclass(frozen=True, eq=False)
class DensePair:
    """A dense layer in float, the real weights that its integers mean, and the integers."""

    floats: Dense
    meant: Dense
    integers: IntDense

    def step(self, x: Enclosure) -> Enclosure:
        """[R14]"""
        bias = Enclosure.of_constants(self.floats.bias, self.meant.bias)
        a = rows(self.floats.weights, self.meant.weights, x, self.integers.row_bits) + bias
        return output_function(self.integers.activation, self.integers.output_fraction_bits)(a)


def merged(layer: IntBidirectional, forward: Enclosure, backward: Enclosure) -> Enclosure:
    """[R23]"""
    bits = layer.output_fraction_bits
    match layer.merge:
        case "concat":
            return forward.concatenated(backward)
        case "sum":
            return (forward + backward).rounded(bits)
        case "mul":
            return (forward * backward).rounded(bits).limited(*(np.ldexp(end, -bits) for end in (INT16_MIN, INT16_MAX)))
        case "ave":
            half = Enclosure.of_constants(np.array(0.5), np.array(0.5))
            return ((forward + backward) * half).rounded(bits)
