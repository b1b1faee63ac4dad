"""Models that need whole sequences, on boards: every output is the oracle's, and what is not is found."""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import oracle
import pytest
from hil_boards import (
    PATIENCE,
    board_or_skip,
    build_edited,
    build_model,
    build_sanitized,
    claiming,
    replace_in,
    running,
)
from hil_faults import FAULTS, Clock, FaultyLine, SlowBoard
from hil_requests import Requests
from strategies import (
    REVERSE,
    BidirectionalPlan,
    DensePlan,
    EmbeddingPlan,
    GruPlan,
    Plan,
    from_oracle,
    random_inputs,
    random_model,
)

import quantgru as qg
from quantgru.errors import ConfigError, DataError, DeviceError, ModelError
from quantgru.hil.compare import Comparison
from quantgru.hil.images import Image, launch
from quantgru.hil.messages import Refusal
from quantgru.hil.requests import Inputs, Outputs, Run, Type, pack_request
from quantgru.hil.runs import ExpectedRun, compare_runs, run_checks, run_outputs
from quantgru.hil.session import Session

AFTER, BEFORE = oracle.RESET_AFTER, oracle.RESET_BEFORE
LENGTHS = (20, 1, 13)
LONGEST = max(LENGTHS)


def both(units: int, merge: int, final: int = 0, **functions: int) -> BidirectionalPlan:
    """Directions of both kinds, one of them with an initial state."""
    return BidirectionalPlan(GruPlan(units, AFTER, **functions, starts=True), GruPlan(units, BEFORE), merge, final)


CONCAT, SUM, MUL, AVE = oracle.MERGE_CONCAT, oracle.MERGE_SUM, oracle.MERGE_MUL, oracle.MERGE_AVE
PLANS = {
    "concat": Plan(3, layers=(both(4, CONCAT), DensePlan(2, oracle.SIGMOID))),
    "sum": Plan(2, layers=(both(9, SUM),)),
    "mul": Plan(1, layers=(both(3, MUL), DensePlan(4, oracle.RELU), DensePlan(3)), last_step=1),
    "average": Plan(3, layers=(DensePlan(5, oracle.TANH), both(1, AVE), GruPlan(3))),
    "concat of final states": Plan(3, layers=(both(5, CONCAT, 1), DensePlan(2)), last_step=1),
    "average of final states": Plan(3, layers=(GruPlan(4), both(3, AVE, 1)), last_step=1),
    "two, reversed": Plan(2, layers=(REVERSE, both(3, CONCAT), GruPlan(4, BEFORE), REVERSE, both(2, MUL))),
    "reversed": Plan(3, layers=(GruPlan(8), REVERSE, GruPlan(3, BEFORE), REVERSE)),
    "tokens": Plan(1, layers=(EmbeddingPlan(9, 3), both(4, SUM, gate=oracle.GATE_HARD_SIGMOID), DensePlan(5))),
}
EACH_MERGE = ("concat", "mul", "average of final states", "two, reversed", "tokens")
ON_BOARDS = [(name, "host") for name in PLANS]
ON_BOARDS += [(name, board) for name in EACH_MERGE for board in ("mps2-an386", "riscv-rv32imc", "atmega2560")]


@dataclass(frozen=True, eq=False)
class Case:
    """A model, raw inputs of sequences of unequal lengths, and what the oracle makes of them."""

    oracle_model: oracle.Model
    model: qg.IntModel
    inputs: list[np.ndarray]
    expected: list[ExpectedRun]

    @property
    def x(self) -> list[np.ndarray]:
        """The inputs as real numbers: exact, and exact again when they are quantized."""
        return [raw * 2.0**-self.model.input_fraction_bits for raw in self.inputs]

    @property
    def lengths(self) -> list[int]:
        return [len(raw) for raw in self.inputs]

    def runs(self) -> Iterable[tuple[np.ndarray, ExpectedRun]]:
        return zip(self.inputs, self.expected, strict=True)


def make_case(name: str = "concat", lengths: Sequence[int] = LENGTHS, seed: int = 1) -> Case:
    plan = PLANS[name]
    model = random_model(plan, seed)
    kind = "tokens" if name == "tokens" else "random"
    rows = [random_inputs(kind, n, plan.n_inputs, seed=seed + n) for n in lengths]
    return Case(model, from_oracle(model), [np.array(x, np.int16) for x in rows], expected_runs(model, rows))


def expected_runs(model: oracle.Model, sequences: Sequence[Sequence[Sequence[int]]]) -> list[ExpectedRun]:
    runs = [oracle.run_sequence(model, rows) for rows in sequences]
    return [ExpectedRun(np.array(run.outputs, np.int16), run.check) for run in runs]


@pytest.fixture(scope="module")
def case() -> Case:
    return make_case()


def small_frames(firmware: Path, exported: Path) -> None:
    """108 bytes, as few as a description takes: 15 steps of 3 inputs, 22 of 2 outputs."""
    replace_in(firmware / "ports" / "host" / "port_config.h", "PORT_BUFFER_BYTES 2048", "PORT_BUFFER_BYTES 96")


@pytest.fixture(scope="module")
def in_parts(case: Case) -> Image:
    """A board to which a sequence comes in two parts."""
    return build_edited(case.model, small_frames, max_steps=LONGEST)


WAYS = {"outputs": run_outputs, "digests": run_checks}


def compared(case: Case, line: object, way: str = "outputs", clock: Clock | None = None) -> tuple[Session, Comparison]:
    session = Session(line, PATIENCE, clock) if clock else Session(line, PATIENCE)
    session.open(case.model)
    return session, compare_runs(session, case.model, case.lengths, case.runs(), WAYS[way])


# ---- what goes well ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "board"), ON_BOARDS)
def test_every_run_is_equal(name: str, board: str) -> None:
    case = make_case(name)
    board_or_skip(board)
    with running(build_model(case.model, board, LONGEST), board) as line:
        for way in WAYS:
            session, found = compared(case, line, way)
            assert found.equal, str(found.first_difference)
            assert found.steps == found.ticks.n_steps == sum(LENGTHS)
        assert session.board.most_steps == LONGEST


def test_long_sequences_come_and_go_in_parts(in_parts: Image) -> None:
    case = make_case(lengths=(20, 16, 15))
    with running(in_parts) as line:
        session, found = compared(case, line)
        assert found.equal
        assert (session.board.steps_per_digest, session.board.steps_per_read) == (15, 22)


def test_more_outputs_than_a_frame_holds() -> None:
    case = make_case("sum", lengths=(60,))
    image = build_edited(case.model, small_frames, max_steps=60)
    with running(image) as line:
        session, found = compared(case, line)
        assert found.equal
        assert session.board.steps_per_read == 5


def test_as_many_steps_as_the_counter_holds() -> None:
    """65,535, in each direction."""
    model = random_model(PLANS["concat of final states"], 1)
    raw = random_inputs("random", 5, 3, seed=1)
    x = np.array((raw * 13107)[:65535]) * 2.0 ** -from_oracle(model).input_fraction_bits
    result = qg.run_on_board(from_oracle(model), [x], board="host")
    assert result.equal
    assert result.steps == 65535


def test_a_run_longer_than_the_timer_is_timed() -> None:
    """SysTick wraps after 2^24 ticks, less than 2,000 steps of this model."""
    case = make_case()
    x = np.resize(case.x[0], (3000, 3))
    costs = [qg.run_on_board(case.model, [x[:n]], board="mps2-an386").step_cost for n in (300, 3000)]
    assert costs[0].mean == pytest.approx(costs[1].mean, rel=0.01)


def test_a_slow_board_is_waited_for(case: Case) -> None:
    """8 s a sequence; without knowing what a step takes, 7.5 s are waited for an answer."""
    with running(build_model(case.model, "host", LONGEST)) as line:
        board = SlowBoard(line, Clock(), step_s=0.4)
        session = Session(board, clock=board.clock)
        session.open(case.model)
        assert compare_runs(session, case.model, case.lengths, case.runs()).equal


# ---- wrong boards --------------------------------------------------------------------------------------------------


def with_a_wrong_weight(model: oracle.Model) -> oracle.Model:
    """In U of the backward direction, reset gate of unit 2."""
    layer = model.layers[0]
    backward = layer.backward
    codes = [list(row) for row in backward.u.codes]
    codes[backward.units + 2][1] += 40 if codes[backward.units + 2][1] < 80 else -40
    changed = replace(backward, u=replace(backward.u, codes=tuple(map(tuple, codes))))
    changed_model = replace(model, layers=(replace(layer, backward=changed), *model.layers[1:]))
    assert oracle.proved(changed_model)
    return changed_model


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("board", ["host", "mps2-an386"])
def test_a_wrong_weight_is_found_at_the_output_that_it_changes(case: Case, board: str, way: str) -> None:
    board_or_skip(board)
    wrong = with_a_wrong_weight(case.oracle_model)
    of_board = expected_runs(wrong, [x.tolist() for x in case.inputs])
    image = build_edited(from_oracle(wrong), claiming(case.model), board, LONGEST)
    with running(image, board) as line:
        _, found = compared(case, line, way)
    sequence = next(i for i, run in enumerate(case.expected) if (run.outputs != of_board[i].outputs).any())
    simulator, wrong_outputs = case.expected[sequence].outputs, of_board[sequence].outputs
    step, unit = (int(v) for v in np.argwhere(simulator != wrong_outputs)[0])
    difference = found.first_difference
    assert (difference.sequence, difference.step, difference.layer) == (sequence, step, "dense_0")
    assert (difference.gate, difference.unit, difference.format) == ("output", unit, "s16f15")
    assert (difference.board, difference.simulator) == (wrong_outputs[step, unit], simulator[step, unit])
    assert found.steps == sum(LENGTHS[:sequence]) + step + 1
    assert not found.equal
    assert f"output of unit {unit}: board {difference.board}, simulator {difference.simulator}" in str(difference)


def test_a_wrong_output_of_the_last_step() -> None:
    """It is that of the last step, wherever the sequence ends."""
    case = make_case("mul")
    wrong = [replace(run, outputs=run.outputs.copy()) for run in case.expected]
    wrong[2].outputs[0, 1] ^= 1
    with running(build_model(case.model, "host", LONGEST)) as line:
        session = Session(line, PATIENCE)
        session.open(case.model)
        found = compare_runs(session, case.model, case.lengths, zip(case.inputs, wrong, strict=True))
    difference = found.first_difference
    assert (difference.sequence, difference.step, difference.unit, found.steps) == (2, LENGTHS[2] - 1, 1, sum(LENGTHS))


@pytest.mark.parametrize("way", WAYS)
def test_a_wrong_check_value_of_right_outputs(case: Case, way: str) -> None:
    def edit(firmware: Path, exported: Path) -> None:
        replace_in(firmware / "harness" / "runs.c", "    return check;", "    return check ^ 1;")

    with running(build_edited(case.model, edit, max_steps=LONGEST)) as line:
        difference = compared(case, line, way)[1].first_difference
    assert (difference.sequence, difference.gate) == (0, "run")
    assert difference.board == case.expected[0].check ^ 1
    assert "its outputs are right: the board does not compute the same each time" in str(difference)


def test_another_model_on_the_board(case: Case) -> None:
    """Only the kind of merging differs."""
    layer = case.oracle_model.layers[0]
    first, second = (
        from_oracle(replace(case.oracle_model, layers=(replace(layer, merge=merge),))) for merge in (SUM, AVE)
    )
    with running(build_model(first, "host", LONGEST)) as line, pytest.raises(DeviceError) as caught:
        Session(line, PATIENCE).open(second)
    for part in (first.digest.hex(), second.digest.hex(), "another model"):
        assert part in str(caught.value)


# ---- a line with faults --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("direction", ["requests", "replies"])
def test_one_fault_anywhere_is_recovered(
    case: Case, in_parts: Image, fault: Callable[[bytes], bytes], direction: str
) -> None:
    with running(in_parts) as line:
        for number in range(1 + 5 + 3 + 3):  # HELLO; INPUTS in 2, 1 and 1 parts, RUN, OUTPUTS; RUN to measure
            clock = Clock()
            session, found = compared(case, FaultyLine(line, clock, **{direction: {number: fault}}), clock=clock)
            assert found.equal
            assert session.repeats <= 2


@pytest.mark.parametrize("seed", range(10))
def test_faults_in_one_frame_of_five_both_ways(case: Case, in_parts: Image, seed: int) -> None:
    rng = random.Random(seed)
    requests, replies = ({i: rng.choice(FAULTS) for i in range(200) if rng.random() < 0.2} for _ in range(2))
    with running(in_parts) as line:
        clock = Clock()
        session, found = compared(case, FaultyLine(line, clock, requests, replies), clock=clock)
    assert found.equal
    assert found.steps == sum(LENGTHS)
    assert session.repeats > 0


@pytest.mark.parametrize("number", range(1, 12))
def test_a_reset_of_the_board_is_noticed(case: Case, in_parts: Image, number: int) -> None:
    with running(in_parts) as line, running(in_parts) as after_reset:
        clock = Clock()
        faulty = FaultyLine(line, clock)

        def reset_board(request: int) -> None:
            if request == number:
                faulty.reset_board(after_reset)

        faulty.before_request = reset_board
        with pytest.raises(DeviceError, match=r"reset in mid-run.*; check power.* of 34 steps had been equal"):
            compared(case, faulty, clock=clock)


# ---- what a board refuses ------------------------------------------------------------------------------------------


def test_what_the_firmware_refuses(case: Case) -> None:
    with running(build_model(case.model, "host", LONGEST)) as line:
        requests = Requests(line)
        for type_ in (0, Type.RESET, Type.STEP, Type.READ, Type.DIGEST, Type.SEED, Type.WRITE, Type.LOAD, 13, 99):
            assert requests.refusal(type_, b"") == (Refusal.TYPE, Type.OUTPUTS)
        assert requests.refusal(*pack_request(Outputs(0, 1))) == (Refusal.ARGUMENT, 0)  # before the first run
        x = np.zeros((20, 3), np.int16)
        for request, code, expected in [
            (Inputs(0, x[:0]), Refusal.ARGUMENT, 20),
            (Inputs(0, np.zeros((21, 3), np.int16)), Refusal.ARGUMENT, 20),
            (Inputs(1, x), Refusal.ARGUMENT, 0),
            (Inputs(20, x[:1]), Refusal.ARGUMENT, 19),
            (Inputs(0, x[:5, :2]), Refusal.LENGTH, 4 + 5 * 3 * 2),
            (Run(0), Refusal.ARGUMENT, 20),
            (Run(21), Refusal.ARGUMENT, 20),
        ]:
            assert requests.refusal(*pack_request(request)) == (code, expected)
        assert requests.refusal(Type.RUN, b"\1\0\1\0") == (Refusal.ARGUMENT, 0)
        for type_ in (Type.INPUTS, Type.RUN, Type.OUTPUTS):
            assert requests.refusal(type_, b"\1\0\0") == (Refusal.LENGTH, 4)
        assert requests.refusal(Type.RUN, bytes(5)) == (Refusal.LENGTH, 4)
        assert requests.ask(*pack_request(Run(3))).type == 0x8B
        for request, expected in [(Outputs(0, 0), 3), (Outputs(0, 4), 3), (Outputs(1, 3), 0), (Outputs(3, 1), 2)]:
            assert requests.refusal(*pack_request(request)) == (Refusal.ARGUMENT, expected)
        assert requests.ask(*pack_request(Outputs(1, 2))).type == 0x8C


def test_outputs_of_a_model_that_ends_in_one_vector() -> None:
    case = make_case("concat of final states")
    with running(build_model(case.model, "host", LONGEST)) as line:
        requests = Requests(line)
        requests.ask(*pack_request(Run(5)))
        assert requests.refusal(*pack_request(Outputs(0, 2))) == (Refusal.ARGUMENT, 1)
        assert len(requests.ask(*pack_request(Outputs(0, 1))).payload) == 4 + 2 * 2


def test_hostile_frames_do_no_harm(case: Case) -> None:
    """Under sanitizers: numbers of any size in frames of any length."""
    rng = random.Random(6)
    with running(build_sanitized(case.model, LONGEST)) as line:
        requests = Requests(line)
        executed = 0
        for _ in range(300):
            type_ = rng.choice((Type.INPUTS, Type.RUN, Type.OUTPUTS))
            n = rng.choice((1, 2, rng.randrange(25), rng.randrange(2**16)))
            first = rng.choice((0, 0, rng.randrange(25), rng.randrange(2**16)))
            n_bytes = rng.choice((6 * min(n, 300) * (type_ == Type.INPUTS), rng.randrange(50)))
            payload = n.to_bytes(2, "little") + first.to_bytes(2, "little") + rng.randbytes(n_bytes)
            executed += requests.ask(type_, payload).type < 0xFF
        assert executed > 20


# ---- as a user calls it --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["outputs", "digests"])
def test_run_on_board(case: Case, by: str) -> None:
    told: list[int] = []
    result = qg.run_on_board(case.model, case.x, board="host", by=by, progress=told.append)
    assert result.equal
    assert told == list(LENGTHS)
    assert result.step_cost.of_runs
    assert 0 < result.step_cost.minimum <= result.step_cost.median <= result.step_cost.maximum


def test_a_port_with_a_board_for_shorter_sequences(case: Case) -> None:
    image = build_model(case.model, "host", 13)
    with launch(board_or_skip("host"), image) as port:
        assert qg.run_on_board(case.model, case.x[1:], port=port).equal
        with pytest.raises(
            DeviceError, match=r"a sequence of 20 steps, and the board holds 13; build its test .* -DMODEL_STEPS=20$"
        ):
            qg.run_on_board(case.model, case.x, port=port)


def test_what_cannot_be_run(case: Case) -> None:
    with pytest.raises(ConfigError, match="needs whole sequences, and a run of one keeps no states; compare by"):
        qg.run_on_board(case.model, case.x, board="host", by="states")
    with pytest.raises(ConfigError, match=r"needs whole sequences, and boards generate single steps; give sequences$"):
        qg.run_seeded_on_board(case.model, 100, board="host")
    with pytest.raises(ModelError, match="needs whole sequences, but a blob is run step by step"):
        qg.run_on_board(case.model, case.x, board="host", send=True)
    with pytest.raises(DataError, match="a sequence of 65,536 steps, and a run has at most 65,535; cut it"):
        qg.run_on_board(case.model, np.zeros((1, 65536, 3)), board="host")


def test_a_sequence_that_does_not_fit_the_memory_of_a_board(case: Case) -> None:
    board_or_skip("atmega2560")
    with pytest.raises(ConfigError, match=r"^board atmega2560: the program does not fit into memory region data of"):
        qg.run_on_board(case.model, np.zeros((1, 1000, 3)), board="atmega2560")
