"""Models, inputs and expected values for the tests of the harness. Expected values are the oracle's."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import oracle
from strategies import Plan, from_oracle, random_inputs, random_model

from quantgru.hil.ways import Expected, StepTrace
from quantgru.int_model import IntModel

# Two layers of both kinds and a head; units around the blocks of eight rows.
PLAN = Plan(
    n_inputs=3,
    units=(9, 5),
    resets=(oracle.RESET_AFTER, oracle.RESET_BEFORE),
    head=((4, oracle.RELU), (2, oracle.SIGMOID)),
)


@dataclass(frozen=True, eq=False)
class Case:
    """A model, raw inputs of sequences of unequal lengths, and what comes out."""

    oracle_model: oracle.Model
    model: IntModel
    inputs: list[np.ndarray]
    expected: Expected


def make_case(
    plan: Plan = PLAN, lengths: Sequence[int] = (12, 1, 7), seed: int = 3, rows: list[list[list[int]]] | None = None
) -> Case:
    """A random model, with these inputs, or random ones."""
    model = random_model(plan, seed)
    rows = rows or [random_inputs("random", n, plan.n_inputs, seed=seed + 10 + n) for n in lengths]
    return Case(
        model,
        from_oracle(model),
        [np.array(sequence, np.int16).reshape(-1, plan.n_inputs) for sequence in rows],
        expected_values(model, rows),
    )


def run_steps(model: oracle.Model, rows: Sequence[Sequence[int]]) -> list[oracle.Step]:
    """All steps of one sequence, the check value of each by itself."""
    state, steps = oracle.reset(model), []
    for x in rows:
        steps.append(oracle.step(model, state, x))
        state = steps[-1].state
    return steps


def expected_values(model: oracle.Model, sequences: Sequence[Sequence[Sequence[int]]]) -> Expected:
    """The oracle's outputs, check values and traces."""
    runs = [run_steps(model, rows) for rows in sequences]
    outputs = [np.array([step.outputs for step in run], np.int16) for run in runs]
    checks = [np.array([step.check for step in run], np.uint32) for run in runs]
    return Expected(outputs, checks, lambda sequence, step: _trace(runs[sequence][step]))


def _trace(step: oracle.Step) -> StepTrace:
    def flat(layers: tuple, dtype: type) -> np.ndarray:
        return np.array([value for layer in layers for value in layer], dtype)

    return StepTrace(
        flat(step.u, np.uint16),
        flat(step.r, np.uint16),
        flat(step.n, np.int16),
        flat(step.state.h, np.int16),
        flat(step.state.e, np.uint16),
        np.array(step.outputs, np.int16),
    )
