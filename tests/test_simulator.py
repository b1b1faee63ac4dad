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
from committed_vectors import ModelVector, load_model_vectors
from conversions import from_oracle, to_oracle
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import (
    REVERSE,
    BidirectionalPlan,
    DensePlan,
    EmbeddingPlan,
    GruPlan,
    Plan,
    any_plans,
    int_models,
    int_models_with_inputs,
    plans,
    random_inputs,
    random_model,
)

from quantgru.errors import ConfigError, DataError, ModelError
from quantgru.int_model import IntModel
from quantgru.simulator import SimulationResult, batch, check_values, kernels, run, run_check, simulate
from quantgru.simulator.batch import step_check

HERE = Path(__file__).resolve().parent
LIMIT = 12 * 2**14 - 1

small_model = from_oracle(random_model(Plan(n_inputs=3, units=(7,), head=((4, 0),), biases="small"), seed=1))

# A model of each structure: what streams, what needs the whole sequence, what ends in one vector.
STRUCTURES = {
    "streaming": (REVERSE, DensePlan(4, oracle.TANH), GruPlan(5), GruPlan(3, oracle.RESET_BEFORE), DensePlan(2)),
    "reversed": (GruPlan(5), REVERSE, DensePlan(4, oracle.RELU), GruPlan(3), REVERSE, DensePlan(2)),
    "bidirectional": (BidirectionalPlan(GruPlan(5), GruPlan(5, starts=True)), GruPlan(3), DensePlan(2)),
    "final": (GruPlan(4), BidirectionalPlan(GruPlan(5), GruPlan(5), oracle.MERGE_SUM, final=1), DensePlan(2)),
}


def structured(name: str, n_inputs: int = 3, last_step: int = 0) -> IntModel:
    plan = Plan(n_inputs=n_inputs, layers=STRUCTURES[name], last_step=1 if name == "final" else last_step)
    return from_oracle(random_model(plan, seed=2))


def traced(model: IntModel, inputs: list[list[int]]) -> SimulationResult:
    return run(model, np.array([inputs]), raw_input=True, trace=True, threads=1)


def assert_equals_steps(result: SimulationResult, steps: list[oracle.Step]) -> None:
    """One sequence of a streaming model against the oracle's steps: every integer, and the running check value."""
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


def backward_layers(model: oracle.Model) -> list[bool]:
    """Of each GRU layer, whether it is the second of a bidirectional one."""
    return [i > 0 for layer in model.layers for i in range(len(oracle.grus_of(layer)))]


def assert_equals_run(result: SimulationResult, sequence: int, expected: oracle.Run) -> None:
    """One sequence against the oracle's run: outputs, check value, final states, every gate, and zeros in padding."""
    n_steps = int(result.sequences.lengths[sequence])
    outputs = result.outputs_raw[sequence].tolist()
    if result.model.last_step:
        assert outputs == list(expected.outputs[0])
    else:
        assert outputs[:n_steps] == list(map(list, expected.outputs))
        assert not np.any(outputs[n_steps:])
    assert run_check(result, sequence) == expected.check
    backward = backward_layers(to_oracle(result.model))
    for layer, trace in enumerate(expected.traces):
        steps = trace[::-1] if backward[layer] else trace  # as the layer read them
        assert result.states_raw[layer][sequence, :n_steps].tolist() == [list(step.h) for step in steps]
        assert result.final_states[layer].h[sequence].tolist() == list(expected.state.h[layer])
        assert result.final_states[layer].residual[sequence].tolist() == list(expected.state.e[layer])
        if result.trace is None:
            continue
        found = result.trace.layers[layer]
        arrays = (found.h, found.residual, found.u, found.r, found.n)  # in the order of GruStep
        for t, step in enumerate(steps):
            assert tuple(tuple(array[sequence, t].tolist()) for array in arrays) == step
        assert not any(array[sequence, n_steps:].any() for array in (*arrays, found.x))


@settings(max_examples=100)
@given(int_models_with_inputs())
def test_plain_models_equal_the_oracle(case: tuple[IntModel, list[list[int]]]) -> None:
    model, inputs = case
    assert_equals_steps(traced(model, inputs), oracle.run(to_oracle(model), inputs))


@settings(max_examples=200)
@given(int_models_with_inputs(kinds=any_plans()))
def test_every_integer_equals_the_oracles(case: tuple[IntModel, list[list[int]]]) -> None:
    model, inputs = case
    assert_equals_run(traced(model, inputs), 0, oracle.run_sequence(to_oracle(model), inputs))


@settings(max_examples=50)
@given(int_models_with_inputs(kinds=any_plans(streaming=True)))
def test_steps_and_check_values_of_streaming_models_equal_the_oracles(case: tuple[IntModel, list[list[int]]]) -> None:
    model, inputs = case
    assert model.streaming
    fed = inputs[::-1] if model.reversed_input else inputs
    assert_equals_steps(traced(model, inputs), oracle.run(to_oracle(model), fed))


@settings(max_examples=50)
@given(st.data(), int_models(any_plans()), st.lists(st.integers(1, 6), min_size=2, max_size=5))
def test_sequences_of_unequal_lengths_equal_the_oracle(data: st.DataObject, model: IntModel, lengths: list[int]) -> None:
    """Together, in chunks and threads of any number: none of them sees another one, or its own padding."""
    kind = data.draw(st.sampled_from(strategies.INPUTS))
    inputs = [random_inputs(kind, n, model.n_inputs, seed=i) for i, n in enumerate(lengths)]
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(batch, "_CHUNK", data.draw(st.integers(1, 5)))
        together = [np.array(sequence) for sequence in inputs]
        result = run(model, together, raw_input=True, trace=data.draw(st.booleans()), threads=data.draw(st.integers(1, 3)))
    for i, sequence in enumerate(inputs):
        assert_equals_run(result, i, oracle.run_sequence(to_oracle(model), sequence))


@pytest.mark.parametrize("vector", load_model_vectors(), ids=lambda vector: vector.name)
def test_every_committed_vector(vector: ModelVector) -> None:
    assert_equals_vector(vector)


def assert_equals_vector(vector: ModelVector) -> None:
    if vector.run is not None:
        assert_equals_run(traced(vector.int_model, vector.inputs), 0, vector.run)
    else:
        inputs = vector.inputs[::-1] if vector.int_model.reversed_input else vector.inputs
        assert_equals_steps(traced(vector.int_model, inputs), vector.steps)


# ---- functions ----------------------------------------------------------------------------------------------------


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
    low = -32768 if kind == oracle.CANDIDATE_LINEAR else -(2**31)  # relu cuts what is negative: that is its function
    assert saturated == (0 if bounded else sum(v > 32767 or v < low for v in a))


# ---- a batch ------------------------------------------------------------------------------------------------------


def test_outputs_of_a_list_are_a_list() -> None:
    rng = np.random.default_rng(0)
    batch = [rng.normal(size=(length, 3)) for length in (5, 1, 12)]
    together = simulate(small_model, batch)
    assert [len(y) for y in together] == [5, 1, 12]
    for x, y in zip(batch, together, strict=True):
        assert np.array_equal(simulate(small_model, x[None])[0], y)


def test_the_last_step_is_that_of_each_sequence() -> None:
    model = from_oracle(
        random_model(Plan(n_inputs=3, units=(7,), head=((4, 0),), last_step=1), seed=1)
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
    plan = Plan(n_inputs=1, units=(3,), head=((5, 0),), biases="limit")
    model = from_oracle(random_model(plan, seed=3))
    inputs = random_inputs("random", 6, 1, seed=0)
    steps = oracle.run(to_oracle(model), inputs)
    at_limits = sum(value in (-32768, 32767) for step in steps for value in step.outputs)
    assert at_limits > 0
    # With biases at the limits of the proof, a value at a limit of s16 is there because it saturated.
    assert traced(model, inputs).saturated_outputs == (at_limits,)


def test_check_values_are_those_of_single_steps() -> None:
    inputs = random_inputs("random", 4, 3, seed=0)
    result = traced(small_model, inputs)
    assert result.trace is not None
    for step, check in zip(
        oracle.run(to_oracle(small_model), inputs),
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
