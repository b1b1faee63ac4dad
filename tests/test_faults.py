"""Faults of every kind on the line to real firmware, a few of each. The long run is a bench."""

from collections.abc import Iterator

import pytest
from fault_boards import Boards
from fault_campaign import KINDS, Laboratory, campaign

N_FAULTS = 60


@pytest.fixture(scope="module")
def laboratory() -> Iterator[Laboratory]:
    with Boards() as boards:
        yield Laboratory(boards)


@pytest.mark.parametrize("kind", KINDS)
def test_faults_are_recovered_or_noticed(laboratory: Laboratory, kind: str) -> None:
    tally = campaign(laboratory, kind, N_FAULTS)
    assert tally.wrong_verdicts == tally.failures == tally.hangs == []
    assert tally.faults >= N_FAULTS
    assert sum(tally.results.values()) == tally.runs
