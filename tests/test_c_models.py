"""Whole models in the C library against the oracle, with `==`, also with UBSan and ASan."""

import os
import subprocess
import sys
from dataclasses import replace

import c_library
import oracle
import pytest
from c_library import CModel, CSequenceModel, load_library
from conversions import from_oracle, to_oracle
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from packed_models import model_of_widths, short_model_of_bytes, short_model_of_widths
from strategies import Plan, any_plans, int_models_with_inputs, random_inputs, random_model

if c_library.NO_COMPILER:
    pytest.skip(c_library.NO_COMPILER, allow_module_level=True)

MODELS = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
UNITS = settings(MODELS, max_examples=200)

S32 = st.integers(-(2**31), 2**31 - 1) | st.integers(-(2**18), 2**18)
S16 = st.integers(-32768, 32767)


@pytest.fixture(params=["plain", "undefined"], scope="module")
def library(request):
    return load_library(request.param)


@pytest.fixture(autouse=True)
def no_undefined_behaviour(capfd):
    """Fails a test in which UBSan found something: it reports on stderr, and goes on."""
    yield
    assert "runtime error" not in capfd.readouterr().err


@MODELS
@given(case=int_models_with_inputs())
def test_random_models_equal_the_oracle(library, case):
    model, inputs = case
    assert CModel(library, model).run(inputs) == oracle.run(to_oracle(model), inputs)


@MODELS
@given(case=int_models_with_inputs(kinds=any_plans(streaming=True)))
def test_random_models_of_all_layer_kinds_equal_the_oracle(library, case):
    model, inputs = case
    c_model = CModel(library, model)
    assert c_model.run(inputs) == oracle.run(to_oracle(model), inputs)
    assert c_model.digest() == model.digest.hex()


@pytest.mark.parametrize("make", [model_of_widths, short_model_of_widths, short_model_of_bytes])
def test_packed_codes_and_short_row_parameters_equal_the_oracle(library, make):
    model, inputs = make(), random_inputs("random", 20, 3, seed=4)
    c_model = CModel(library, model)
    assert c_model.run(inputs) == oracle.run(to_oracle(model), inputs)
    assert c_model.digest() == model.digest.hex()
    assert bool(c_model.descriptor.grus[0].input.multipliers) == (make is model_of_widths)


@MODELS
@given(case=int_models_with_inputs(kinds=any_plans(streaming=False)).filter(lambda case: not case[0].streaming))
def test_random_runs_of_whole_sequences_equal_the_oracle(library, case):
    model, inputs = case
    expected = oracle.run_sequence(to_oracle(model), inputs)
    c_model = CSequenceModel(library, model, len(inputs) + 1)
    for _ in range(2):  # nothing of a run remains for the next
        assert c_model.run(inputs) == (0, expected.outputs)
        assert c_model.saturated == saturated_in(to_oracle(model), expected)
    assert c_model.digest() == oracle.digest(to_oracle(model))
    assert c_model.selftest(inputs, expected.check) == 0
    assert c_model.selftest(inputs, expected.check ^ 1) == -1


def test_the_count_of_a_run_stays_at_its_limit(library):
    limits = _biases_only(0, 2**20, candidate=oracle.CANDIDATE_LINEAR).grus[0]
    model = oracle.Model((0,), 1, (oracle.Bidirectional(limits, limits, oracle.MERGE_MUL, final=1),))
    c_model = CSequenceModel(library, from_oracle(model), 65535)
    for n_steps, expected in ((1000, 2000), (32767, 65534), (32768, 65535), (65535, 65535), (1, 2)):
        assert c_model.run([(0,)] * n_steps)[0] == 0
        assert c_model.saturated == expected


def saturated_in(model: oracle.Model, run: oracle.Run) -> int:
    layers = zip(model.grus, run.traces, strict=True)
    return sum(oracle.saturated(gru, step.n) for gru, steps in layers for step in steps)


def random_states(model: oracle.Model, seed: int) -> oracle.State:
    rows = random_inputs("random", len(model.grus), max(gru.units for gru in model.grus), seed)
    h = tuple(tuple(row[: gru.units]) for row, gru in zip(rows, model.grus, strict=True))
    return oracle.State(h, tuple((0,) * gru.units for gru in model.grus))


@MODELS
@given(
    case=int_models_with_inputs(kinds=any_plans(streaming=False)).filter(lambda case: not case[0].streaming),
    seed=st.integers(0, 2**32),
)
def test_runs_of_whole_sequences_begin_with_any_states(library, case, seed):
    model, inputs = case
    start = random_states(to_oracle(model), seed)
    c_model = CSequenceModel(library, model, len(inputs))
    expected = oracle.run_sequence(to_oracle(model), inputs, start)
    assert c_model.run(inputs, start.h) == (0, expected.outputs)
    assert c_model.run(inputs) == (0, oracle.run_sequence(to_oracle(model), inputs).outputs)


@pytest.mark.parametrize("candidate", range(5))
def test_saturated_candidates_are_counted_as_in_r25(library, candidate):
    functions = {"candidate": candidate, "f_h": 15}
    layers = [
        replace(_biases_only(0, a, **functions).grus[0], h0=(0,)) for a in (32766, 32767, 2**20, -32768, -(2**20))
    ]
    model = oracle.Model((0,), 0, tuple(layers))
    c_model = CModel(library, from_oracle(model))
    expected = {oracle.CANDIDATE_RELU: 2, oracle.CANDIDATE_LINEAR: 4}.get(candidate, 0)
    for step in c_model.run([(5,), (-5,)]):
        assert sum(oracle.saturated(gru, n) for gru, n in zip(layers, step.n, strict=True)) == expected
    assert c_model.saturated() == expected


def test_runs_of_no_steps_and_of_too_many_are_refused(library):
    layer = oracle.Bidirectional(*random_model(Plan(2, (2, 2), (0, 1)), seed=1).layers, oracle.MERGE_CONCAT)
    c_model = CSequenceModel(library, from_oracle(oracle.Model((0, 0), 0, (layer,))), 3)
    assert c_model.run([]) == (-2, ())
    assert c_model.run([[1, 2]] * 4) == (-2, ((0, 0, 0, 0),) * 4)
    assert c_model.selftest([[1, 2]] * 4, 0) == -2
    assert c_model.run([[1, 2]] * 3)[0] == 0


@UNITS
@given(
    a=S32 | st.integers(-40000, 40000),
    kind=st.sampled_from((*oracle.BOUNDED, oracle.CANDIDATE_RELU, oracle.CANDIDATE_LINEAR)),
    f_h=st.integers(-31, 31),
)
@example(a=-100000, kind=oracle.CANDIDATE_TANH, f_h=-15)
@example(a=-40000, kind=oracle.CANDIDATE_HARD_TANH, f_h=15)
@example(a=2**31 - 9, kind=oracle.CANDIDATE_SIGMOID, f_h=15)
@example(a=2**31 - 9, kind=oracle.CANDIDATE_LINEAR, f_h=-31)
def test_candidate_is_r19_of_any_pre_activation(library, a, kind, f_h):
    """A unit without weights, so that its bias is the pre-activation."""
    f_h = min(max(f_h, -15), 15) if kind in oracle.BOUNDED else f_h
    model = _biases_only(0, a, candidate=kind, f_h=f_h)
    assert CModel(library, from_oracle(model)).step([0]).n == ((oracle.candidate(kind, model.grus[0].b[2], f_h),),)


@MODELS
@given(case=int_models_with_inputs(kinds=any_plans(streaming=True)), seed=st.integers(0, 2**32))
def test_a_caller_may_write_the_state_after_a_reset(library, case, seed):
    model, inputs = case
    c_model = CModel(library, model)
    c_model.reset()
    start = random_states(to_oracle(model), seed)
    c_model.h[:] = [v for of_layer in start.h for v in of_layer]
    check = 0
    for x, expected in zip(inputs, oracle.run(to_oracle(model), inputs, start), strict=True):
        step = c_model.step(x, check)
        assert step == expected
        check = step.check


@pytest.mark.parametrize("reset", [oracle.RESET_AFTER, oracle.RESET_BEFORE])
@pytest.mark.parametrize("units", [31, 32, 33, 41])
def test_layers_of_more_than_one_block(library, units, reset):
    head = ((units, oracle.LINEAR), (units, oracle.TANH), (units, oracle.SIGMOID), (2, oracle.LINEAR))
    model = random_model(Plan(5, (units,), (reset,), head), seed=units)
    inputs = random_inputs("random", 2, 5, seed=units)
    assert CModel(library, from_oracle(model)).run(inputs) == oracle.run(model, inputs)


def test_rows_that_use_all_of_the_accumulator(library):
    plan = Plan(512, (3,), (oracle.RESET_AFTER,), scales="useful")
    model = random_model(plan, seed=1)
    longest = ((-128,) * 511 + (127,), (127,) * 512, (-128, 127) * 256)
    w = replace(model.grus[0].w, codes=3 * longest, k=0)
    layer = replace(model.grus[0], w=w, b=(0,) * 9, c=(0,) * 3)
    model = oracle.Model(model.input_fractions, model.last_step, (layer,))
    assert oracle.proved(model)
    for kind in ("lowest", "highest", "alternating"):
        inputs = random_inputs(kind, 2, 512, seed=1)
        assert CModel(library, from_oracle(model)).run(inputs) == oracle.run(model, inputs)


@UNITS
@given(b_z=S32, b_n=S32, h=S16, e=st.integers(0, 32767))
@example(b_z=-(2**18), b_n=-(2**18), h=32767, e=32767)
@example(b_z=-(2**18), b_n=2**18, h=-32768, e=32767)
@example(b_z=2**18, b_n=2**18, h=-32768, e=32767)
def test_state_update_is_r12_from_any_state(library, b_z, b_n, h, e):
    """A unit without weights, so that its biases choose u and n."""
    c_model = CModel(library, from_oracle(_biases_only(max(b_z, -(2**31) + 9), max(b_n, -(2**31) + 9))))
    c_model.h[0], c_model.residual[0] = h, e
    step = c_model.step([0])
    u, n = 32768 - oracle.sigmoid(b_z), oracle.tanh(b_n)
    assert (step.u, step.n) == (((u,),), ((n,),))
    new_h, new_e = oracle.update_state(u, n, h, e)
    assert step.state == oracle.State(((new_h,),), ((new_e,),))


def _biases_only(b_z, b_n, **functions):
    none = oracle.Matrix(((0,), (0,), (0,)), (2**14,) * 3, (1,) * 3, 0)
    limit = oracle.S32_MAX - 2  # P2 gives each of the two matrices one LSB
    b = tuple(min(max(v, -limit), limit) for v in (b_z, 0, b_n))
    return oracle.Model((0,), 0, (oracle.Gru(oracle.RESET_AFTER, none, none, b, (0,), **functions),))


WIDEST_RUN = """
import oracle
from c_library import CModel, load_library
from conversions import from_oracle
from strategies import Plan, random_model

model = random_model(Plan(1, (1,), (oracle.RESET_AFTER,), ((65535, oracle.LINEAR),), biases="limit"), seed=1)
assert CModel(load_library("plain"), from_oracle(model)).run([[1]]) == oracle.run(model, [[1]])
print("equal")
"""


def test_a_dense_layer_of_as_many_rows_as_a_matrix_can_have():
    """In a process of its own, which can be ended: a row counter of 16 bits that wraps around never does."""
    assert run_python(WIDEST_RUN, {}).stdout == "equal\n"


def run_python(code, environment):
    """Runs `code` beside these tests, with more in its environment, for two minutes at most."""
    environment = os.environ | {"PYTHONPATH": str(c_library.ROOT / "tests")} | environment
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)


# ---- accesses ----------------------------------------------------------------------------------------------------


ADDRESS_RUN = """
import sys
import oracle
from c_library import CModel, CSequenceModel, load_library
from conversions import from_oracle
from strategies import BidirectionalPlan, DensePlan, EmbeddingPlan, GruPlan, Plan, REVERSE, random_inputs, random_model

library = load_library("address")


def gru(units, seed=0):
    return GruPlan(units, seed % 2, gate=seed // 2 % 2, candidate=seed % 5, f_h=12, starts=True)


def both(units, seed, final=0):
    return BidirectionalPlan(gru(units, seed), gru(units, seed + 1), merge=seed % 4, final=final)


def check_steps(plan, seed):
    model = random_model(plan, seed)
    inputs = random_inputs("random", 2, plan.n_inputs, seed)
    c_model = CModel(library, from_oracle(model))
    steps = oracle.run(model, inputs)
    assert c_model.run(inputs) == steps
    assert c_model.digest() == oracle.digest(model)


def check_run(plan, seed):
    model = random_model(plan, seed)
    inputs = random_inputs("tokens", 1 + seed % 5, plan.n_inputs, seed)
    c_model = CSequenceModel(library, from_oracle(model), len(inputs))
    run = oracle.run_sequence(model, inputs)
    assert c_model.run(inputs) == (0, run.outputs)
    assert c_model.selftest(inputs, run.check) == 0


for seed in range(10):
    units = (9 + seed % 9, (9, 16, 17, 33)[seed % 4])
    head = ((9 + seed % 3, 0), (20, 1), (9, 2))[: seed // 3]
    check_steps(Plan(9 + seed % 5, units, (seed % 2, seed // 2 % 2), head), seed)
    last = [DensePlan(*dense) for dense in head]
    tokens = EmbeddingPlan(5, 9 + seed % 3)
    dense = [DensePlan(10 + seed % 7), DensePlan(12), DensePlan(9)][: seed % 4]
    check_steps(Plan(1, layers=(tokens, *dense, gru(9, seed), *dense, gru(11), *last)), seed)
    check_steps(Plan(9, layers=(*dense, REVERSE, gru(17, seed), *last)), seed)
    check_steps(Plan(5, layers=(gru(9, seed), DensePlan(3)), weights="wide"), seed)
    check_run(Plan(1, layers=(tokens, *dense, both(9, seed), REVERSE, gru(12, seed), *last)), seed)
    check_run(Plan(1, last_step=1, layers=(tokens, REVERSE, both(9 + seed, seed, final=1), *last)), seed)
    check_run(Plan(9, last_step=1, layers=(gru(30), *dense, both(10, seed), both(9, seed, final=1), *last)), seed)
    check_run(Plan(20, last_step=seed % 2, layers=(both(20, seed), both(9, seed + 2), *last)), seed)
print("all equal", flush=True)
library.shim_read((library.shim_read.argtypes[0]._type_ * 9)(), 9)
"""


def test_no_access_outside_of_an_array():
    """ASan must be loaded before all else. Its last line reads one beyond the end, to see that ASan would tell.

    All arrays are of 9 and more values, for ctypes keeps smaller ones where ASan cannot guard them.
    """
    command = [c_library.COMPILER, "-print-file-name=libasan.so"]
    runtime = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    if not os.path.isabs(runtime):
        pytest.skip(f"libasan.so is missing; {c_library.INSTALL}")
    environment = {"LD_PRELOAD": runtime, "ASAN_OPTIONS": "detect_leaks=0", "PYTHONMALLOC": "malloc"}
    result = run_python(ADDRESS_RUN, environment)
    assert result.stdout == "all equal\n", result.stderr
    assert "AddressSanitizer: heap-buffer-overflow" in result.stderr
