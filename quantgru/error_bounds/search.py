"""Inputs and states that drive integers and floats apart: found by changing the best ones so far, not proved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Protocol

import numpy as np

from quantgru.array_types import FloatArray
from quantgru.error_bounds.bound import ErrorBound
from quantgru.fixed import INT16_MAX, INT16_MIN, to_real
from quantgru.int_model import IntModel
from quantgru.model import FloatModel
from quantgru.model.run import run_body
from quantgru.sequences import Sequences
from quantgru.simulator import GruState, run

ROUNDS: Final = 300
MOST_STEPS_SEARCHED: Final = 32  # from the reset: a minute for a GRU of 154 units
_LARGEST_RESIDUAL: Final = 2**15 - 1


@dataclass(frozen=True, eq=False)
class FoundErrors:
    """Largest |integer - float| of h that a search found: not proved to be the largest there are.

    one_step  of each GRU layer [units], after one step from any state; compare with `ErrorBound.one_step`
    steps     of sequences of up to `ErrorBound.steps` steps from the reset, 32 at most; None for no steps
    """

    one_step: tuple[FloatArray, ...]
    steps: float | None


def find_errors(
    bound: ErrorBound,
    *,
    rounds: int = ROUNDS,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> FoundErrors:
    """Searches within the ranges of `bound`, for its two models.

    progress  called after each round, of which there are twice as many where there is a bound for more than no steps
    """
    rng = np.random.default_rng(seed)
    advance = progress or (lambda n: None)
    units = np.cumsum([gru.n_units for gru in bound.model.grus])[:-1]
    of_units = _search(_OneStep(bound), rng, rounds, advance)
    steps = None
    if bound.steps:
        steps = float(_search(_FromReset(bound), rng, rounds, advance).max())
    return FoundErrors(tuple(np.split(of_units, units)), steps)


class _Problem(Protocol):
    """What is to be made large: errors of n_units units, over candidates between low and high [values]."""

    n_units: int
    low: FloatArray
    high: FloatArray

    def errors(self, candidates: FloatArray) -> FloatArray:
        """Largest |integer - float| of h of each unit [candidates, units], for candidates [candidates, values]."""


class _OneStep:
    """A candidate is the inputs of a step, then h of all units before it, then their residuals, all these raw."""

    def __init__(self, bound: ErrorBound) -> None:
        self._models = _Models(bound.model, bound.float_model)
        self.n_units = n = bound.model.n_units
        residual = _LARGEST_RESIDUAL if bound.model.streaming else 0  # a whole sequence begins without one [R24]
        self.low = np.concatenate((bound.low, np.full(n, float(INT16_MIN)), np.zeros(n)))
        self.high = np.concatenate((bound.high, np.full(n, float(INT16_MAX)), np.full(n, float(residual))))

    def errors(self, candidates: FloatArray) -> FloatArray:
        x, h, residual = np.split(candidates, [-2 * self.n_units, -self.n_units], axis=1)
        return self._models.errors(x[:, None], (np.round(h), np.round(residual)))


class _FromReset:
    """A candidate is the inputs of all steps, one after the other."""

    def __init__(self, bound: ErrorBound) -> None:
        self._models = _Models(bound.model, bound.float_model)
        self._steps = min(bound.steps, MOST_STEPS_SEARCHED)
        self.n_units = bound.model.n_units
        self.low, self.high = np.tile(bound.low, self._steps), np.tile(bound.high, self._steps)

    def errors(self, candidates: FloatArray) -> FloatArray:
        return self._models.errors(candidates.reshape(len(candidates), self._steps, -1), None)


class _Models:
    """Both models, without a value that masks steps: here, every step is one."""

    def __init__(self, int_model: IntModel, model: FloatModel) -> None:
        self._int_model, self._model = replace(int_model, mask_value=None), model
        self._units = np.cumsum([gru.n_units for gru in int_model.grus])[:-1]

    def errors(self, x: FloatArray, states: tuple[FloatArray, FloatArray] | None) -> FloatArray:
        """Of x [sequences, steps, inputs], from raw h and residuals [sequences, units] or from the reset."""
        if self._int_model.embedding is not None:
            x = np.round(x)
        sequences = Sequences(x, np.full(len(x), x.shape[1]))
        raw = reals = None
        if states is not None:
            h, residual = (np.split(part, self._units, axis=1) for part in states)
            raw = [GruState(a.astype(np.int16), e.astype(np.uint16)) for a, e in zip(h, residual, strict=True)]
            reals = [to_real(a, g.state_fraction_bits) for a, g in zip(h, self._int_model.grus, strict=True)]
        result = run(self._int_model, sequences, initial_states=raw)
        floats = run_body(self._model, sequences, reals).states
        return np.concatenate(
            [
                np.abs(to_real(of_device, gru.state_fraction_bits) - real).max(axis=1)
                for of_device, real, gru in zip(result.states_raw, floats, self._int_model.grus, strict=True)
            ],
            axis=1,
        )


def _search(problem: _Problem, rng: np.random.Generator, rounds: int, advance: Callable[[int], None]) -> FloatArray:
    """The largest error of each unit [units]. Each has its own best candidate, of which the next ones are made."""
    n = problem.n_units
    candidates = _anywhere(problem, rng)
    best, largest = candidates, np.full(n, -1.0)
    for _ in range(rounds):
        errors = problem.errors(candidates)
        winners = errors.argmax(axis=0)  # of each unit
        found = errors[winners, np.arange(n)]
        best = np.where((found > largest)[:, None], candidates[winners], best)
        largest = np.maximum(found, largest)
        changed = rng.random(best.shape) < 1.0 / rng.integers(1, best.shape[1] + 1, (n, 1))
        candidates = np.where(changed, _anywhere(problem, rng), best)
        advance(1)
    return largest


def _anywhere(problem: _Problem, rng: np.random.Generator) -> FloatArray:
    """A candidate for each unit; most of its values are at an end."""
    shape = (problem.n_units, problem.low.size)
    within = problem.low + (problem.high - problem.low) * rng.random(shape)
    at_an_end = np.where(rng.random(shape) < 0.5, problem.low, problem.high)
    return np.where(rng.random(shape) < 0.8, at_an_end, within)
