"""The simulator: equal to the oracle for any model, whatever way it is run."""

from __future__ import annotations

from dataclasses import replace

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
    random_inputs,
    random_model,
)

from quantgru.errors import ConfigError, DataError
from quantgru.int_model import IntModel
from quantgru.simulator import GruState, SimulationResult, batch, check_values, run, run_check, simulate
from quantgru.simulator.batch import step_check

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
def test_sequences_of_unequal_lengths_equal_the_oracle(
    data: st.DataObject, model: IntModel, lengths: list[int]
) -> None:
    """Together, in chunks and threads of any number: none of them sees another one, or its own padding."""
    kind = data.draw(st.sampled_from(strategies.INPUTS))
    inputs = [random_inputs(kind, n, model.n_inputs, seed=i) for i, n in enumerate(lengths)]
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(batch, "_CHUNK", data.draw(st.integers(1, 5)))
        together = [np.array(sequence) for sequence in inputs]
        result = run(
            model, together, raw_input=True, trace=data.draw(st.booleans()), threads=data.draw(st.integers(1, 3))
        )
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


# ---- a batch ------------------------------------------------------------------------------------------------------


def test_outputs_of_a_list_are_a_list() -> None:
    rng = np.random.default_rng(0)
    listed = [rng.normal(size=(length, 3)) for length in (5, 1, 12)]
    together = simulate(small_model, listed)
    assert [len(y) for y in together] == [5, 1, 12]
    for x, y in zip(listed, together, strict=True):
        assert np.array_equal(simulate(small_model, x[None])[0], y)


@pytest.mark.parametrize("name", ["streaming", "reversed", "bidirectional"])
def test_the_last_step_is_that_of_each_sequence(name: str) -> None:
    rng = np.random.default_rng(0)
    listed = [rng.normal(size=(length, 3)) for length in (5, 1, 12)]
    every_step = run(structured(name), listed, trace=True)
    last_step = run(structured(name, last_step=1), listed, trace=True)
    assert last_step.outputs.shape == (3, 2)
    assert np.array_equal(last_step.outputs, [y[-1] for y in every_step.outputs])
    assert last_step.trace is not None and every_step.trace is not None
    assert np.array_equal(last_step.trace.outputs, every_step.outputs_raw)
    assert np.array_equal(every_step.trace.outputs, every_step.outputs_raw)


def test_a_single_vector_is_the_only_step_of_a_trace() -> None:
    result = run(structured("final"), np.ones((4, 6, 3)), trace=True)
    assert result.trace is not None
    assert np.array_equal(result.trace.outputs, result.outputs_raw[:, None])


def test_the_number_of_threads_does_not_matter_and_progress_is_complete() -> None:
    x = np.random.default_rng(0).normal(size=(150, 4, 3))
    finished: list[int] = []
    many = run(small_model, x, threads=3, progress=finished.append)
    assert np.array_equal(many.outputs_raw, run(small_model, x, threads=1).outputs_raw)
    assert sum(finished) == 150


@pytest.mark.parametrize("name", STRUCTURES)
def test_a_trace_does_not_change_the_result(name: str) -> None:
    model, x = structured(name), np.random.default_rng(0).normal(size=(70, 6, 3))
    plain, full = run(model, x), run(model, x, trace=True)
    assert plain.trace is None
    assert np.array_equal(plain.outputs_raw, full.outputs_raw)
    assert (plain.saturated_outputs, plain.saturated_states) == (full.saturated_outputs, full.saturated_states)
    for h, traced_h in zip(plain.states_raw, full.states_raw, strict=True):
        assert np.array_equal(h, traced_h)


@pytest.mark.parametrize("name", STRUCTURES)
def test_a_trace_holds_what_each_gru_layer_read(name: str) -> None:
    x = np.random.default_rng(0).normal(size=(1, 6, 3))
    result = run(structured(name), x, trace=True)
    assert result.trace is not None
    read = [layer.x[0] for layer in result.trace.layers]
    inputs, first_h = result.inputs_raw[0], result.states_raw[0][0]
    if name == "bidirectional":
        assert np.array_equal(read[0], inputs) and np.array_equal(read[1], inputs[::-1])
        assert np.array_equal(read[2], np.concatenate((first_h, result.states_raw[1][0, ::-1]), axis=1))
    if name == "final":
        assert np.array_equal(read[1], first_h) and np.array_equal(read[2], first_h[::-1])
    if name == "streaming":
        assert np.array_equal(read[1], first_h)


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


def constant_layer(candidate: int, sums: tuple[int, ...], f_h: int) -> oracle.Gru:
    """A GRU layer whose candidates are made of these sums, whatever it reads."""
    units = len(sums)
    w, u = (
        oracle.Matrix(((0,) * columns,) * 3 * units, (2**14,) * 3 * units, (1,) * 3 * units, 0)
        for columns in (2, units)
    )
    return oracle.Gru(oracle.RESET_BEFORE, w, u, (*(0,) * 2 * units, *sums), (), candidate=candidate, f_h=f_h)


@pytest.mark.parametrize(
    ("candidate", "f_h", "expected"),
    [
        (oracle.CANDIDATE_LINEAR, 9, 5),
        (oracle.CANDIDATE_RELU, 9, 3),
        (oracle.CANDIDATE_HARD_TANH, 15, 0),
        (oracle.CANDIDATE_TANH, 12, 0),
        (oracle.CANDIDATE_SIGMOID, 15, 0),
    ],
)
def test_saturated_states_are_counted_without_padding(candidate: int, f_h: int, expected: int) -> None:
    sums = (32766, 32767, 32768, -32767, -32768, -32769, 2**20)
    layer = constant_layer(candidate, sums, f_h)
    quiet = oracle.Dense(oracle.LINEAR, 0, oracle.Matrix(((0,) * 7,) * 2, (2**14,) * 2, (1,) * 2, 0), (0, 0))
    model = from_oracle(oracle.Model((0, 0), 0, (layer, quiet, constant_layer(candidate, (0,), f_h))))
    result = run(model, [np.zeros((4, 2)), *[np.zeros((1, 2))] * 96])  # more than one chunk
    assert result.saturated_states == (100 * expected, 0)


@pytest.mark.parametrize("merge", strategies.MERGE_KINDS)
def test_every_pair_of_states_is_merged_as_the_oracle_does(merge: int) -> None:
    """Layers that keep the state that they are given."""
    layer = constant_layer(oracle.CANDIDATE_LINEAR, (0,), 15)
    keeps = replace(layer, b=(2**20, 0, 0))
    model = from_oracle(oracle.Model((0, 0), 0, (oracle.Bidirectional(keeps, keeps, merge),)))
    values = (-32768, -32767, -16384, -3, -2, -1, 0, 1, 2, 3, 16384, 32766, 32767)
    pairs = np.array([(forward, backward) for forward in values for backward in values], np.int16)
    residual = np.zeros((len(pairs), 1), np.uint16)
    states = [GruState(pairs[:, :1], residual), GruState(pairs[:, 1:], residual)]
    outputs = run(model, np.zeros((len(pairs), 1, 2)), initial_states=states).outputs_raw[:, 0]
    assert outputs.tolist() == [list(oracle.merge_all(merge, (f,), (b,))) for f, b in pairs.tolist()]


def test_saturated_outputs_of_all_dense_layers_are_counted_in_order() -> None:
    layers = (DensePlan(4), GruPlan(2), DensePlan(5, oracle.RELU), DensePlan(1, oracle.TANH))
    model = to_oracle(from_oracle(random_model(Plan(n_inputs=2, layers=layers, biases="limit"), seed=1)))
    inputs = random_inputs("random", 6, 2, seed=0)
    result = traced(from_oracle(model), inputs)
    assert result.trace is not None
    first = [oracle.dense(model.layers[0], x) for x in inputs]
    second = [oracle.dense(model.layers[2], h) for h in result.states_raw[0][0].tolist()]
    counts = [sum(v in (-32768, 32767) for y in values for v in y) for values in (first, second)]
    assert min(counts) > 0  # with biases at the limits of the proof, what is at a limit of s16 saturated there
    assert result.saturated_outputs == (*counts, 0)


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


# ---- tokens and masks ---------------------------------------------------------------------------------------------

token_model = from_oracle(random_model(Plan(layers=(EmbeddingPlan(5, 3), GruPlan(4))), seed=1))


def test_tokens_are_numbers_of_rows() -> None:
    x = np.array([[[0.0], [4.0], [2.0]]])
    result = run(token_model, x, trace=True)
    assert result.trace is not None and token_model.embedding is not None
    assert np.array_equal(result.trace.layers[0].x[0], 256 * token_model.embedding.codes[[0, 4, 2]].astype(int))
    assert result.clipped_inputs.tolist() == [0]


@pytest.mark.parametrize("token", [-1, 5, 1.5])
def test_what_is_no_token_is_refused(token: float) -> None:
    with pytest.raises(DataError, match=r"at sequence 1, step 2, embedding 'embedding_0' takes integers of 0 \.\.\. 4"):
        run(token_model, [[[0], [0], [0]], [[4], [4], [token]]])


def test_raw_tokens_are_limited_and_counted() -> None:
    limited = run(token_model, [[[-1], [5], [32767], [4], [0]], [[-32768]]], raw_input=True)
    allowed = run(token_model, [[[0], [4], [4], [4], [0]], [[0]]], raw_input=True)
    assert np.array_equal(limited.outputs_raw, allowed.outputs_raw)
    assert (limited.clipped_inputs.tolist(), allowed.clipped_inputs.tolist()) == ([4], [0])


@pytest.mark.parametrize("name", STRUCTURES)
def test_masked_steps_are_left_out(name: str) -> None:
    model, rng = structured(name), np.random.default_rng(3)
    x, mask = rng.normal(size=(70, 9, 3)), rng.random((70, 9)) < 0.6
    mask[np.arange(70), rng.integers(0, 9, 70)] = True
    masked = run(model, x, mask=mask)
    left = run(model, [rows[keep] for rows, keep in zip(x, mask, strict=True)])
    assert np.array_equal(masked.outputs_raw, left.outputs_raw)
    assert np.array_equal(masked.inputs_raw, left.inputs_raw)
    for state, left_state in zip(masked.final_states, left.final_states, strict=True):
        assert np.array_equal(state.h, left_state.h) and np.array_equal(state.residual, left_state.residual)
    if model.last_step:
        assert np.array_equal(masked.outputs, left.outputs)
        return
    n_reverse = STRUCTURES[name].count(REVERSE)
    mask = mask[:, ::-1] if n_reverse % 2 else mask  # outputs then begin with that of the last step
    for y, kept, keep in zip(masked.outputs, left.outputs, mask, strict=True):
        assert np.array_equal(y[keep], kept)
        for t in np.flatnonzero(~keep):  # repeats the step before
            assert np.array_equal(y[t], y[t - 1] if t else np.zeros(2))


def test_a_mask_value_masks_real_inputs_only() -> None:
    model = replace(small_model, mask_value=2.0)
    x = np.random.default_rng(0).normal(size=(2, 5, 3))
    x[0, 1] = x[1, 0] = 2.0
    x[1, 4, :2] = 2.0  # not all of them
    mask = np.array([[True, False, True, True, True], [False, True, True, True, True]])
    assert np.array_equal(simulate(model, x), simulate(small_model, x, mask))
    raw = np.full((1, 4, 3), 2)
    assert run(model, raw, raw_input=True).sequences.lengths.tolist() == [4]


def test_a_sequence_without_a_step_is_refused() -> None:
    with pytest.raises(DataError, match="sequence 1: every step is masked"):
        run(small_model, np.zeros((2, 3, 3)), mask=np.array([[True] * 3, [False] * 3]))
