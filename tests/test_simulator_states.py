"""Runs that go on: initial states, what a run leaves behind, and streams, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import oracle
import pytest
from conversions import from_oracle, to_oracle
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import (
    REVERSE,
    EmbeddingPlan,
    GruPlan,
    Plan,
    any_plans,
    int_models,
    int_models_with_inputs,
    random_inputs,
    random_model,
)
from test_simulator import assert_equals_run, small_model, structured, traced

from quantgru.errors import DataError, ModelError
from quantgru.int_model import IntModel
from quantgru.simulator import GruState, Stream, run, simulate


def assert_equal_states(found: Sequence[GruState], expected: Sequence[GruState]) -> None:
    for state, other in zip(found, expected, strict=True):
        assert np.array_equal(state.h, other.h) and np.array_equal(state.residual, other.residual)


def one(values: Sequence[Sequence[int]], dtype: type) -> list[np.ndarray]:
    """[layer][unit] as an array [1, units] of each layer."""
    return [np.array([units], dtype) for units in values]


# ---- initial states -----------------------------------------------------------------------------------------------


@settings(max_examples=100)
@given(st.data(), int_models_with_inputs(kinds=any_plans()))
def test_a_run_from_any_state_equals_the_oracle(data: st.DataObject, case: tuple[IntModel, list[list[int]]]) -> None:
    model, inputs = case

    def values(low: int, high: int) -> tuple[tuple[int, ...], ...]:
        numbers = st.sampled_from((low, high)) | st.integers(low, high)
        units = [gru.n_units for gru in model.grus]
        return tuple(tuple(data.draw(st.lists(numbers, min_size=n, max_size=n))) for n in units)

    start = oracle.State(values(-32768, 32767), values(0, 32767 if model.streaming else 0))
    states = [GruState(*state) for state in zip(one(start.h, np.int16), one(start.e, np.uint16), strict=True)]
    result = run(model, [inputs], raw_input=True, trace=True, initial_states=states)
    assert_equals_run(result, 0, oracle.run_sequence(to_oracle(model), inputs, start))


def test_a_run_of_whole_sequences_begins_with_h_alone() -> None:
    """As on a device: what the residual of another run would mean for a backward direction, nobody can say."""
    gru = random_model(Plan(2, (3,)), seed=1).grus[0]
    model = from_oracle(oracle.Model((0, 0), 0, (oracle.Bidirectional(gru, gru, oracle.MERGE_SUM),)))
    ended = run(model, [[[1, 2], [3, 4]]], raw_input=True)
    with pytest.raises(DataError, match="runs whole sequences, and does not go on between"):
        run(model, [[[1, 2]]], raw_input=True, initial_states=ended.final_states)
    h_alone = [GruState(state.h, np.zeros_like(state.residual)) for state in ended.final_states]
    run(model, [[[1, 2]]], raw_input=True, initial_states=h_alone)


@settings(max_examples=50)
@given(st.data(), int_models_with_inputs(kinds=any_plans(streaming=True)))
def test_a_run_goes_on_exactly_where_another_one_ended(
    data: st.DataObject, case: tuple[IntModel, list[list[int]]]
) -> None:
    model, inputs = case
    whole = traced(model, inputs)
    fed = inputs[::-1] if model.reversed_input else inputs
    cut = data.draw(st.integers(1, len(inputs)))
    states, outputs = None, []
    for part in filter(None, (fed[:cut], fed[cut:])):
        result = run(model, [part[::-1] if model.reversed_input else part], raw_input=True, initial_states=states)
        states = result.final_states
        outputs += [result.outputs_raw[0]] if model.last_step else list(result.outputs_raw[0])
    assert np.array_equal(outputs[-1] if model.last_step else outputs, whole.outputs_raw[0])
    assert_equal_states(result.final_states, whole.final_states)


def test_sequences_of_unequal_lengths_go_on_each_from_its_own_end() -> None:
    rng = np.random.default_rng(1)
    x = [rng.normal(size=(length, 3)) for length in (4, 9, 6)]
    cuts = (1, 5, 4)
    first = run(small_model, [rows[:cut] for rows, cut in zip(x, cuts, strict=True)])
    second = run(
        small_model, [rows[cut:] for rows, cut in zip(x, cuts, strict=True)], initial_states=first.final_states
    )
    whole = run(small_model, x)
    for parts, y in zip(zip(first.outputs, second.outputs, strict=True), whole.outputs, strict=True):
        assert np.array_equal(np.concatenate(parts), y)
    assert_equal_states(second.final_states, whole.final_states)


def test_a_run_does_not_change_the_states_that_it_is_given() -> None:
    first = run(small_model, np.ones((2, 3, 3)))
    before = [GruState(state.h.copy(), state.residual.copy()) for state in first.final_states]
    run(small_model, np.ones((2, 3, 3)), initial_states=first.final_states)
    assert_equal_states(first.final_states, before)


@settings(max_examples=50)
@given(st.data(), int_models(any_plans()))
def test_real_states_are_converted_as_inputs_are(data: st.DataObject, model: IntModel) -> None:
    inputs = random_inputs("random", 2, model.n_inputs, seed=1)
    real = []
    for gru in model.grus:
        limit = 2.0 ** (15 - gru.state_fraction_bits)
        numbers = st.sampled_from((-limit, limit, 0.5 * limit / 2**15)) | st.floats(-limit, limit)
        real.append(data.draw(st.lists(numbers, min_size=gru.n_units, max_size=gru.n_units)))
    h = tuple(
        tuple(oracle.convert_input(Fraction(v), gru.state_fraction_bits) for v in state)
        for state, gru in zip(real, model.grus, strict=True)
    )
    result = run(model, [inputs], raw_input=True, initial_states=real)
    reset = oracle.reset(to_oracle(model))
    assert_equals_run(result, 0, oracle.run_sequence(to_oracle(model), inputs, oracle.State(h, reset.e)))


def test_states_are_given_to_all_sequences_or_to_each() -> None:
    x, h = np.zeros((2, 3, 3)), np.random.default_rng(0).uniform(-1, 1, (2, 7))
    each = simulate(small_model, x, initial_states=[h])
    for i in range(2):
        assert np.array_equal(each[i], simulate(small_model, x, initial_states=[h[i]])[0])
    assert not np.array_equal(each[0], each[1])


WIDE = from_oracle(random_model(Plan(2, layers=(GruPlan(3, candidate=oracle.CANDIDATE_RELU, f_h=10),)), seed=0))


@pytest.mark.parametrize(
    ("model", "states", "pattern"),
    [
        (small_model, [np.full(7, 1.001)], r"layer 0: 1.001 at sequence 0, unit 0, .* lie in -1 \.\.\. 1; give"),
        (
            WIDE,
            [[[0, 0, 0], [0, 0, -32.5]]],
            r"-32.5 at sequence 1, unit 2, the states of 'gru_0' lie in -32 \.\.\. 32",
        ),
        (small_model, [np.full(7, np.nan)], "not finite"),
        (small_model, [np.zeros(6)], r"shape \(6,\), expected"),
        (small_model, [np.zeros((3, 7))], r"shape \(3, 7\), expected"),
        (small_model, [np.zeros(7), np.zeros(7)], "2 of them, expected a list of 1"),
        (small_model, np.zeros((1, 7)), "expected a list"),
        (small_model, [], "0 of them"),
        (small_model, ["x"], "expected real numbers"),
    ],
)
def test_wrong_real_states_are_refused(model: IntModel, states: object, pattern: str) -> None:
    with pytest.raises(DataError, match=pattern):
        run(model, np.zeros((2, 1, model.n_inputs)), initial_states=states)


def raw_state(h: object = ((0,) * 7,) * 2, residual: object = ((0,) * 7,) * 2) -> GruState:
    return GruState(np.array(h, np.int16), np.array(residual, np.uint16))


@pytest.mark.parametrize(
    ("states", "pattern"),
    [
        ([raw_state()] * 2, "2 of GruState, expected 1 of GruState"),
        ([raw_state(), np.zeros(7)], "2 of GruState, ndarray, expected 1"),
        ([raw_state(h=np.zeros((1, 7)))], r"h int16 \(1, 7\), expected int16 \(2, 7\)"),
        ([raw_state(residual=np.zeros(7))], r"residual uint16 \(7,\), expected uint16 \(2, 7\)"),
        ([GruState(np.zeros((2, 7)), raw_state().residual)], "h float64"),
        ([GruState(raw_state().h, raw_state().h)], "residual int16"),
        ([raw_state(residual=np.full((2, 7), 32768))], r"residual 32768, allowed are 0 \.\.\. 32767"),
    ],
)
def test_wrong_raw_states_are_refused(states: list[GruState], pattern: str) -> None:
    with pytest.raises(DataError, match=pattern):
        run(small_model, np.zeros((2, 1, 3)), initial_states=states)


# ---- streams ------------------------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(int_models_with_inputs(kinds=any_plans(streaming=True)))
def test_a_stream_equals_a_batch(case: tuple[IntModel, list[list[int]]]) -> None:
    model, inputs = case
    result = traced(model, inputs)
    assert result.trace is not None
    stream = Stream(model)
    for _ in range(2):  # the second time after a reset
        for t, x in enumerate(inputs[::-1] if model.reversed_input else inputs):
            assert stream.step_raw(np.array(x, np.int16)).tolist() == result.trace.outputs[0, t].tolist()
        assert_equal_states(stream.states, result.final_states)
        stream.reset()


def test_a_stream_takes_real_inputs() -> None:
    x = np.random.default_rng(0).normal(size=(1, 9, 3))
    expected = run(small_model, x).outputs
    stream = Stream(small_model)
    assert np.array_equal([stream.step(row) for row in x[0]], expected[0])


def test_a_stream_begins_with_the_initial_states_of_the_model() -> None:
    model = from_oracle(random_model(Plan(2, layers=(GruPlan(4, starts=True),)), seed=1))
    stream = Stream(model)
    assert model.grus[0].initial_state is not None
    assert np.array_equal(stream.states[0].h, [model.grus[0].h0])
    stream.step([0, 0])
    stream.reset()
    assert_equal_states(stream.states, [GruState(model.grus[0].h0[None], np.zeros((1, 4), np.uint16))])


def test_states_of_a_stream_are_kept_and_set() -> None:
    model, x = structured("streaming"), np.random.default_rng(0).normal(size=(8, 3))
    stream = Stream(model)
    for row in x[:4]:
        stream.step(row)
    kept = stream.states
    rest = [stream.step(row) for row in x[4:]]
    stream.states = kept
    assert np.array_equal([stream.step(row) for row in x[4:]], rest)
    assert model.reversed_input
    assert np.array_equal(simulate(model, x[None, :3:-1], initial_states=kept)[0], rest)
    stream.states = [np.full(5, 0.5), np.full(3, -1.0)]
    assert [state.h.tolist() for state in stream.states] == [[[16384] * 5], [[-32768] * 3]]
    with pytest.raises(DataError, match=r"shape \(2, 5\)"):
        stream.states = [np.zeros((2, 5)), np.zeros(3)]


@pytest.mark.parametrize("name", ["reversed", "bidirectional", "final"])
def test_a_stream_refuses_what_needs_the_whole_sequence(name: str) -> None:
    with pytest.raises(ModelError, match=r"needs the whole sequence; qg\.simulate takes whole sequences"):
        Stream(structured(name))


def test_a_stream_refuses_wrong_inputs() -> None:
    stream = Stream(small_model)
    with pytest.raises(DataError, match="finite"):
        stream.step([0, 0, np.inf])
    with pytest.raises(DataError, match=r"int16 \(2,\), expected int16 \(3,\)"):
        stream.step_raw(np.zeros(2, np.int16))
    tokens = Stream(from_oracle(random_model(Plan(layers=(EmbeddingPlan(5, 3), REVERSE, GruPlan(4))), seed=1)))
    for five in (5, [5]):
        with pytest.raises(DataError, match=r"takes integers of 0 \.\.\. 4"):
            tokens.step(five)


def test_a_step_of_a_token() -> None:
    model = from_oracle(random_model(Plan(layers=(EmbeddingPlan(5, 3), GruPlan(4))), seed=1))
    expected = simulate(model, np.array([[4, 0, 2]]))[0]
    for tokens in ([4, 0, 2], [[4], [0], [2]], np.array([4, 0, 2]), np.array([[4.0], [0.0], [2.0]])):
        stream = Stream(model)
        assert np.array_equal([stream.step(token) for token in tokens], expected)
