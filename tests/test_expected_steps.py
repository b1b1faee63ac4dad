"""What a board is held against is simulated part by part; together that is what the oracle computes step by step."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import oracle
import pytest
from hil_models import Case, make_case
from strategies import REVERSE, GruPlan, Plan

from quantgru.expected_steps import expected_runs, expected_steps
from quantgru.hil.ways import Part, StepTrace
from quantgru.sequences import Sequences, as_sequences

AT_A_TIME = 8
# Some at a time; one that is cut twice, with an end of its own; one that ends where it is cut; one step.
LENGTHS = (3, 2, 19, 16, 1)
PLANS = {
    "forward": Plan(3, (9, 5), (oracle.RESET_AFTER, oracle.RESET_BEFORE), ((2, oracle.SIGMOID),)),
    "from its last step": Plan(3, layers=(REVERSE, GruPlan(5, starts=True))),
}


@pytest.fixture(autouse=True)
def few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quantgru.expected_steps._STEPS", AT_A_TIME)


@pytest.fixture(params=PLANS)
def case(request: pytest.FixtureRequest) -> Case:
    return make_case(PLANS[request.param], LENGTHS)


def as_a_user_gives_them(case: Case) -> Sequences:
    """The case has them as the board gets them."""
    return as_sequences([x[::-1] if case.model.reversed_input else x for x in case.inputs])


def test_all_parts_together_are_what_the_oracle_computes(case: Case) -> None:
    number = 40
    for inputs, expected in expected_steps(case.model, as_a_user_gives_them(case), raw_input=True, first=40):
        assert expected.first == number
        for x in inputs:
            whole = Part(number, 0, len(x))
            assert np.array_equal(x, case.inputs[number - 40])
            assert np.array_equal(expected.outputs_of(whole), case.expected.outputs[number - 40])
            assert np.array_equal(expected.checks_of(whole), case.expected.checks[number - 40])
            for step in range(len(x)):
                found, right = expected.trace(number, step), case.expected.trace(number - 40, step)
                assert all(np.array_equal(getattr(found, of.name), getattr(right, of.name)) for of in fields(StepTrace))
            number += 1
    assert number == 40 + len(LENGTHS)


def test_no_more_is_simulated_than_is_asked_for(case: Case) -> None:
    parts: list[None] = []
    batches = expected_steps(case.model, as_a_user_gives_them(case), lambda: parts.append(None), raw_input=True)
    sizes = [(len(inputs), len(parts)) for inputs, _ in batches]
    assert sizes == [(2, 1), (1, 1 + 3), (1, 1 + 3 + 2), (1, 1 + 3 + 2 + 1)]


def test_runs_of_whole_sequences_are_simulated_some_at_a_time() -> None:
    model = make_case(PLANS["forward"], (1,)).model
    parts: list[None] = []
    runs = expected_runs(model, as_sequences([np.zeros((n, 3)) for n in LENGTHS]), lambda: parts.append(None))
    assert [(len(inputs), len(parts)) for inputs, _ in runs] == [(3, 1), (2, 1), (19, 2), (16, 3), (1, 4)]
