"""The simulator: equal to the oracle for any model, whatever way it is run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import oracle
import pytest
import strategies
from hypothesis import given, settings
from hypothesis import strategies as st

from quantgru.errors import ConfigError, DataError
from quantgru.int_model import IntModel
from quantgru.simulator import SimulationResult, Stream, check_values, kernels, run, simulate
from quantgru.simulator.batch import step_check

HERE = Path(__file__).resolve().parent
LIMIT = 12 * 2**14 - 1

small_model = strategies.from_oracle(
    strategies.random_model(strategies.Plan(n_inputs=3, units=(7,), head=((4, 0),), biases="small"), seed=1)
)


def traced(model: IntModel, inputs: list[list[int]]) -> SimulationResult:
    return run(model, np.array([inputs]), raw_input=True, trace=True, threads=1)


def assert_equals_steps(result: SimulationResult, steps: list[oracle.Step]) -> None:
    """One sequence against the oracle's steps: every integer, and the running check value."""
    assert result.trace is not None
    check = 0
    for t, step in enumerate(steps):
        for layer, trace in enumerate(result.trace.layers):
            assert trace.u[0, t].tolist() == list(step.u[layer])
            assert trace.r[0, t].tolist() == list(step.r[layer])
            assert trace.n[0, t].tolist() == list(step.n[layer])
            assert trace.h[0, t].tolist() == list(step.state.h[layer])
            assert trace.residual[0, t].tolist() == list(step.state.e[layer])
        assert result.trace.outputs[0, t].tolist() == list(step.outputs)
        check = step_check(result.trace, 0, t, check)
        assert check == step.check
    outputs = [list(step.outputs) for step in steps]
    assert result.outputs_raw[0].tolist() == (outputs[-1] if result.model.last_step else outputs)


@settings(max_examples=150)
@given(strategies.int_models_with_inputs())
def test_every_integer_equals_the_oracles(case: tuple[IntModel, list[list[int]]]) -> None:
    model, inputs = case
    assert_equals_steps(traced(model, inputs), oracle.run(strategies.to_oracle(model), inputs))


@pytest.mark.parametrize("vector", strategies.load_model_vectors(), ids=lambda vector: vector.name)
def test_every_committed_vector(vector: strategies.ModelVector) -> None:
    assert_equals_steps(traced(vector.int_model, vector.inputs), vector.steps)
    assert vector.int_model.digest.hex() == vector.digest


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


@settings(max_examples=30)
@given(strategies.int_models_with_inputs())
def test_a_stream_equals_a_batch(case: tuple[IntModel, list[list[int]]]) -> None:
    model, inputs = case
    result = traced(model, inputs)
    assert result.trace is not None
    stream = Stream(model)
    for _ in range(2):  # the second time after a reset
        for t, x in enumerate(inputs):
            assert stream.step_raw(np.array(x, np.int16)).tolist() == result.trace.outputs[0, t].tolist()
        stream.reset()


def test_a_stream_takes_real_inputs() -> None:
    x = np.random.default_rng(0).normal(size=(1, 9, 3))
    expected = run(small_model, x).outputs
    stream = Stream(small_model)
    assert np.array_equal([stream.step(row) for row in x[0]], expected[0])


def test_sequences_of_unequal_lengths_equal_each_by_itself() -> None:
    rng = np.random.default_rng(0)
    batch = [rng.normal(size=(length, 3)) for length in (5, 1, 12)]
    together = simulate(small_model, batch)
    assert [len(y) for y in together] == [5, 1, 12]
    for x, y in zip(batch, together, strict=True):
        assert np.array_equal(simulate(small_model, x[None])[0], y)


def test_the_last_step_is_that_of_each_sequence() -> None:
    model = strategies.from_oracle(
        strategies.random_model(strategies.Plan(n_inputs=3, units=(7,), head=((4, 0),), last_step=1), seed=1)
    )
    rng = np.random.default_rng(0)
    batch = [rng.normal(size=(length, 3)) for length in (5, 1, 12)]
    together = simulate(model, batch)
    assert together.shape == (3, 4)
    for x, y in zip(batch, together, strict=True):
        assert np.array_equal(simulate(model, x[None])[0], y)


def test_the_number_of_threads_does_not_matter_and_progress_is_complete() -> None:
    x = np.random.default_rng(0).normal(size=(150, 4, 3))
    finished: list[int] = []
    many = run(small_model, x, threads=3, progress=finished.append)
    assert np.array_equal(many.outputs_raw, run(small_model, x, threads=1).outputs_raw)
    assert sum(finished) == 150


def test_a_trace_does_not_change_the_result() -> None:
    x = np.random.default_rng(0).normal(size=(4, 6, 3))
    plain, full = run(small_model, x), run(small_model, x, trace=True)
    assert plain.trace is None
    assert np.array_equal(plain.outputs_raw, full.outputs_raw)
    assert np.array_equal(plain.states_raw[0], full.states_raw[0])


def test_clipped_inputs_are_counted_by_feature_without_padding() -> None:
    limits = np.ldexp(1.0, 15 - small_model.input_fraction_bits.astype(int))
    x = np.zeros((3, 3))
    x[0, 1] = limits[1]  # 32768 raw: one too large
    x[1, 1] = -limits[1]  # -32768: fits
    x[2, 2] = -2 * limits[2]
    result = run(small_model, [x, x[:1]])
    assert result.clipped_inputs.tolist() == [0, 2, 1]


def test_saturated_outputs_are_counted() -> None:
    plan = strategies.Plan(n_inputs=1, units=(3,), head=((5, 0),), biases="limit")
    model = strategies.from_oracle(strategies.random_model(plan, seed=3))
    inputs = strategies.random_inputs("random", 6, 1, seed=0)
    steps = oracle.run(strategies.to_oracle(model), inputs)
    at_limits = sum(value in (-32768, 32767) for step in steps for value in step.outputs)
    assert at_limits > 0
    # With biases at the limits of the proof, a value at a limit of s16 is there because it saturated.
    assert traced(model, inputs).saturated_outputs == (at_limits,)


def test_check_values_are_those_of_single_steps() -> None:
    inputs = strategies.random_inputs("random", 4, 3, seed=0)
    result = traced(small_model, inputs)
    assert result.trace is not None
    for step, check in zip(
        oracle.run(strategies.to_oracle(small_model), inputs),
        check_values(result.trace, result.sequences)[0],
        strict=True,
    ):
        assert check == oracle.check_value(step.state, step.outputs)


@pytest.mark.parametrize("x", [[[[0.5, 0, 0]]], [[[32768, 0, 0]]], [[[-32769, 0, 0]]]])
def test_raw_inputs_are_integers_of_16_bits(x: list[list[list[float]]]) -> None:
    with pytest.raises(DataError, match=r"expected integers of -32768 \.\.\. 32767"):
        run(small_model, x, raw_input=True)


@pytest.mark.parametrize("threads", [0, -1])
def test_threads_are_at_least_one(threads: int) -> None:
    with pytest.raises(ConfigError, match="expected at least 1"):
        run(small_model, np.zeros((1, 1, 3)), threads=threads)


def test_wrong_inputs_are_refused() -> None:
    with pytest.raises(DataError, match="2 features, the model has 3 inputs"):
        run(small_model, np.zeros((1, 1, 2)))
    x = np.zeros((1, 2, 3))
    x[0, 1, 2] = np.nan
    with pytest.raises(DataError, match="nan at sequence 0, step 1, feature 2"):
        run(small_model, x)
    stream = Stream(small_model)
    with pytest.raises(DataError, match="finite"):
        stream.step([0, 0, np.inf])
    with pytest.raises(DataError, match=r"int16 \(2,\), expected int16 \(3,\)"):
        stream.step_raw(np.zeros(2, np.int16))


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
        "import strategies, test_simulator\n"
        "for vector in strategies.load_model_vectors():\n"
        "    test_simulator.assert_equals_steps(test_simulator.traced(vector.int_model, vector.inputs), vector.steps)\n"
        "print('equal')"
    )
    assert run_python(program, NUMBA_DISABLE_JIT="1").strip() == "equal"
