"""The table of sigmoid and tanh, and the functions over all inputs: what SPEC.md claims of them, in the oracle."""

import re
import runpy
from functools import cache

import numpy as np
import oracle
import pytest


@cache
def sweep() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(a, sigmoid, tanh) for every pre-activation up to five beyond the end of the table, both signs."""
    a = range(-oracle.LIMIT - 5, oracle.LIMIT + 6)
    return np.array(a), np.array([oracle.sigmoid(v) for v in a]), np.array([oracle.tanh(v) for v in a])


def test_the_table_has_217_entries_of_16_bits():
    assert len(oracle.T) == 217
    assert 2 * len(oracle.T) <= 450
    assert all(0 <= low <= high < 2**16 for low, high in zip(oracle.T, oracle.T[1:], strict=False))


def test_the_script_in_tools_derives_the_entries():
    derived = runpy.run_path(str(oracle.SPEC.parent.parent / "tools" / "activation_table.py"))["table"]()
    assert tuple(derived) == tuple(oracle.T)


def test_errors_over_all_inputs():
    a, sigmoid, tanh = sweep()
    sigmoid_error = np.abs(sigmoid - 2**15 / (1 + np.exp(-a / 2**14))).max()
    tanh_error = np.abs(tanh - 2**15 * np.tanh(a / 2**14)).max()
    assert sigmoid_error <= 0.85
    assert tanh_error <= 1.10
    claimed = re.findall(r"[Ll]argest error (\d\.\d+) ", oracle.SPEC.read_text(encoding="utf-8"))
    assert [f"{sigmoid_error:.2f}", f"{tanh_error:.2f}"] == claimed


def test_sigmoid_is_monotone_and_symmetric():
    _, sigmoid, _ = sweep()
    assert (np.diff(sigmoid) >= 0).all()
    assert (sigmoid + sigmoid[::-1] == 32768).all()
    assert (sigmoid.min(), sigmoid.max()) == (0, 32768)


def test_tanh_is_monotone_and_odd():
    _, _, tanh = sweep()
    assert (np.diff(tanh) >= 0).all()
    assert (tanh == -tanh[::-1]).all()
    assert (tanh.min(), tanh.max()) == (-32767, 32767)


def test_hard_sigmoid_is_monotone_and_symmetric():
    hard_sigmoid = np.array([oracle.hard_sigmoid(a) for a in range(-16390, 16391)])
    assert set(np.diff(hard_sigmoid)) == {0, 1}
    assert (hard_sigmoid + hard_sigmoid[::-1] == 32768).all()
    assert (hard_sigmoid.min(), hard_sigmoid.max()) == (0, 32768)


@pytest.mark.parametrize("a", [oracle.LIMIT, 2**18, 2**30 - 1, 2**30, 2**30 + 1, 2**31 - 1])
def test_beyond_the_table_the_functions_are_constant(a):
    assert (oracle.sigmoid(a), oracle.sigmoid(-a), oracle.sigmoid(-a - 1)) == (32768, 0, 0)
    assert (oracle.tanh(a), oracle.tanh(-a), oracle.tanh(-a - 1)) == (32767, -32767, -32767)
