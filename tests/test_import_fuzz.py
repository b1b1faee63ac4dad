"""Mutated model files of every type, a few of each: only our errors, no hang, no memory. The long run is a bench."""

import pytest
from import_fuzz import SOURCES, fuzz

MOST_MIB = 600  # beyond what the files themselves take: the limit of a reader is 256 MiB, held twice


@pytest.mark.parametrize("suffix", SOURCES)
def test_mutated_files_are_read_or_refused(suffix, tmp_path):
    outcome = fuzz(suffix, 150, tmp_path)
    assert outcome.failures == []
    assert outcome.loaded > 0
    assert sum(outcome.refused.values()) > 30
    assert outcome.grown_mib < MOST_MIB
