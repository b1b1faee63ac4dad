"""What the float model does on the user's data: what formats and biases are chosen from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from quantgru.activations import BOUNDED_CANDIDATES
from quantgru.array_types import FloatArray
from quantgru.model import Dense, FloatModel, Gru
from quantgru.model.run import BodyRun, dense_output, run_body
from quantgru.sequences import Sequences, StatesLike

_EXTREME = 1 - 2.0**-9  # of half the range of z and r, and of |n|


@dataclass(frozen=True, eq=False)
class Moments:
    """Of operands of a matrix [columns]: mean, and covariance [columns, columns], over n steps."""

    mean: FloatArray
    covariance: FloatArray
    n: int

    @classmethod
    def of(cls, values: FloatArray) -> Moments:
        """values [n, columns]"""
        sums = MomentSums(values.shape[1])
        sums.add(values)
        return sums.moments()


class MomentSums:
    """Moments of values that come a few at a time, at least one in all."""

    def __init__(self, n_columns: int) -> None:
        self._n = 0
        self._origin = np.zeros(n_columns)  # near the mean, for the sake of digits
        self._sum = np.zeros(n_columns)
        self._products = np.zeros((n_columns, n_columns))

    def add(self, values: FloatArray) -> None:
        """values [n, columns]"""
        if self._n == 0 and len(values):
            self._origin = values.mean(axis=0)
        self._n += len(values)
        around = values - self._origin
        self._sum += around.sum(axis=0)
        self._products += around.T @ around

    def moments(self) -> Moments:
        mean, square = self._sum / self._n, self._products / self._n
        covariance = square - np.outer(mean, mean)
        # A variance that is nothing but rounding errors could be negative: those of the difference, and of the values.
        noise = 1e-12 * np.diag(square) + 1e-28 * self._origin**2
        constant = np.diag(covariance) <= noise
        covariance[constant] = 0.0
        covariance[:, constant] = 0.0
        return Moments(self._origin + mean, covariance, self._n)


@dataclass(frozen=True, eq=False)
class GruStatistics:
    """Of one GRU layer.

    inputs          what W multiplies [inputs]
    states          what U multiplies for z and r: h before the step [units]
    candidate_states  the same for n: h, or r * h with reset "before"
    largest_update  largest u = 1 - z of each unit [units]
    extreme_share   share of all z, r and bounded n at the ends of their range: within 2**-10 of 0 or 1, 2**-9 of 1
    state_peak      largest |h| and |n|, the state before the first step included
    """

    inputs: Moments
    states: Moments
    candidate_states: Moments
    largest_update: FloatArray
    extreme_share: float
    state_peak: float


@dataclass(frozen=True, eq=False)
class DenseStatistics:
    """Of one dense layer: its inputs, and the largest |output|."""

    inputs: Moments
    peak: float


@dataclass(frozen=True, eq=False)
class Calibration:
    """What was seen on the calibration data, padding left out.

    longest                                           steps of the longest sequence
    input_min, input_max, input_rms, input_deviation  [inputs]; deviation is the standard deviation
    grus                                              of each of `FloatModel.grus`
    dense                                             of each dense layer, in the order in which they run
    """

    n_sequences: int
    n_steps: int
    longest: int
    input_min: FloatArray
    input_max: FloatArray
    input_rms: FloatArray
    input_deviation: FloatArray
    grus: tuple[GruStatistics, ...]
    dense: tuple[DenseStatistics, ...]


def calibrate(
    model: FloatModel, sequences: Sequences, initial_states: StatesLike | None = None
) -> tuple[Calibration, BodyRun]:
    """Runs `model` on `sequences` and collects statistics. Raises DataError."""
    inputs = sequences.vectors()
    observers = [_GruObserver(layer, sequences) for layer in model.grus]
    body = run_body(model, sequences, initial_states, observers)
    gru_inputs = [Moments.of(x.vectors()) for x in body.gru_inputs]
    dense = [
        _dense_statistics(layer, x.vectors())
        for layer, x in zip(model.body, body.inputs, strict=True)
        if isinstance(layer, Dense)
    ]
    y = body.output.vectors()
    for layer in model.head:
        dense.append(_dense_statistics(layer, y))
        y = dense_output(layer, y)
    seen = Calibration(
        sequences.n_sequences,
        sequences.n_steps,
        int(sequences.lengths.max()),
        inputs.min(axis=0),
        inputs.max(axis=0),
        np.sqrt(np.mean(inputs**2, axis=0)),
        inputs.std(axis=0),
        tuple(observer.statistics(moments) for observer, moments in zip(observers, gru_inputs, strict=True)),
        tuple(dense),
    )
    return seen, body


class _GruObserver:
    """Collects over the steps of a run, without keeping their gates."""

    def __init__(self, layer: Gru, sequences: Sequences) -> None:
        self._reset = layer.reset
        self._bounded = layer.candidate in BOUNDED_CANDIDATES
        self._lengths = sequences.lengths
        self._n_steps = sequences.n_steps
        self._largest_update = np.zeros(layer.n_units)
        self._states = MomentSums(layer.n_units)
        self._candidate_states = self._states if layer.reset == "after" else MomentSums(layer.n_units)
        self._n_extreme = 0
        self._state_peak = 0.0

    def __call__(self, t: int, h: FloatArray, z: FloatArray, r: FloatArray, n: FloatArray) -> None:
        running = self._lengths > t
        np.maximum(self._largest_update, (1 - z[running]).max(axis=0, initial=0.0), out=self._largest_update)
        self._states.add(h[running])
        if self._reset == "before":
            self._candidate_states.add((r * h)[running])
        extreme = [np.abs(z - 0.5) > _EXTREME / 2, np.abs(r - 0.5) > _EXTREME / 2]
        if self._bounded:
            extreme.append(np.abs(n) > _EXTREME)
        self._n_extreme += sum(int(values[running].sum()) for values in extreme)
        # h' lies between h and n: after the last step, too, nothing is larger than what was seen before it.
        peaks = (np.abs(values[running]).max(initial=0.0) for values in (h, n))
        self._state_peak = max(self._state_peak, *peaks)

    def statistics(self, inputs: Moments) -> GruStatistics:
        gates = 3 if self._bounded else 2
        share = self._n_extreme / (gates * self._largest_update.size * self._n_steps)
        states, candidate_states = self._states.moments(), self._candidate_states.moments()
        peak = float(self._state_peak)
        return GruStatistics(inputs, states, candidate_states, self._largest_update, share, peak)


def _dense_statistics(layer: Dense, x: FloatArray) -> DenseStatistics:
    return DenseStatistics(Moments.of(x), float(np.abs(dense_output(layer, x)).max()))
