"""The rules in the simulator's kernels, each against the oracle, and kernels that are not compiled."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import oracle
import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st

from quantgru.simulator import kernels

HERE = Path(__file__).resolve().parent
LIMIT = 12 * 2**14 - 1


def test_the_table_is_that_of_the_contract() -> None:
    assert kernels.HALF_TANH.tolist() == list(oracle.T)


def test_sigmoid_and_tanh_equal_the_oracle_at_every_node_and_beside_it() -> None:
    nodes = [j << 9 for j in range(161)] + [81920 + (j << 11) for j in range(57)]
    halves = [a // 2 for a in nodes]
    beyond = [LIMIT, LIMIT + 1, 2**20, 2**31 - 1]
    for a in {a + d for a in (*nodes, *halves, *beyond) for d in (-1, 0, 1) if abs(a + d) < 2**31}:
        for signed in (a, -a):
            assert kernels.sigmoid(signed) == oracle.sigmoid(signed)
            assert kernels.tanh(signed) == oracle.tanh(signed)
    assert kernels.sigmoid(-(2**31)) == oracle.sigmoid(-(2**31))
    assert kernels.tanh(-(2**31)) == oracle.tanh(-(2**31))


@given(st.integers(-(2**31), 2**31 - 1), st.integers(0, 2**15))
def test_reset_product_equals_the_oracle(b: int, r: int) -> None:
    assert kernels.reset_product(b, r) == oracle.reset_product(b, r)


@given(st.integers(-(2**31), 2**31 - 1), st.integers(2**14, 2**15 - 1), st.integers(1, 30))
def test_requantize_equals_the_oracle(acc: int, m: int, s: int) -> None:
    assert kernels.requantize(acc, 0, m, s) == oracle.requantize(acc, 0, m, s)


EDGES = (-(2**31), -40000, -32769, -32768, -16385, -16384, -1, 0, 1, 16383, 16384, 32767, 32768, 40000, 2**31 - 1)
pre_activations = st.sampled_from(EDGES) | st.integers(-(2**18), 2**18) | st.integers(-(2**31), 2**31 - 1)


@given(pre_activations)
def test_gates_equal_the_oracle(a: int) -> None:
    for kind in strategies.GATE_KINDS:
        assert kernels.gate(kind, a) == oracle.gate(kind, a)


@pytest.mark.parametrize("kind", strategies.CANDIDATE_KINDS)
@given(st.data(), st.lists(pre_activations, min_size=1))
def test_candidates_equal_the_oracle(kind: int, data: st.DataObject, a: list[int]) -> None:
    bounded = kind in oracle.BOUNDED
    f_h = data.draw(st.integers(-15, 15)) if bounded else 15
    n = np.zeros(len(a), np.int16)
    saturated = kernels.candidates(kind, 15 - f_h, np.array(a), n)
    assert n.tolist() == [oracle.candidate(kind, v, f_h) for v in a]
    unweighted = oracle.Matrix(((0,),) * 3, (2**14,) * 3, (1,) * 3, 0)
    layer = oracle.Gru(oracle.RESET_BEFORE, unweighted, unweighted, (0,) * 3, (), candidate=kind)
    assert saturated == oracle.saturated(layer, n.tolist())


def run_python(program: str, **environment: str) -> str:
    """What a Python process of its own prints."""
    variables = os.environ | environment
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=variables, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


SIGMOIDS = "from quantgru.simulator import kernels; print([int(kernels.sigmoid(a)) for a in (-9999, 0, 9999)])"


def test_kernels_run_where_no_compiled_code_can_be_kept() -> None:
    no_place = "import numba.core.caching as caching; caching.CacheImpl._locator_classes = []\n"
    assert run_python(no_place + SIGMOIDS).strip() == str([oracle.sigmoid(a) for a in (-9999, 0, 9999)])


def test_kernels_run_without_compiling() -> None:
    """As coverage tools and debuggers want it; numpy then also reports an overflow, which compiled code does not."""
    program = (
        "import warnings; warnings.simplefilter('error')\n"
        f"import sys; sys.path.insert(0, {str(HERE)!r})\n"
        "import committed_vectors, test_simulator\n"
        "for vector in committed_vectors.load_model_vectors():\n"
        "    test_simulator.assert_equals_vector(vector)\n"
        "print('equal')"
    )
    assert run_python(program, NUMBA_DISABLE_JIT="1").strip() == "equal"
