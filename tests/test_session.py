"""Sessions with the real host firmware over a line that fails: no wrong verdict, no hang, no step twice."""

import random
import time
from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np
import pytest
from hil_boards import PATIENCE, build_edited, build_model, replace_in, running
from hil_faults import FAULTS, Clock, FaultyLine, SlowBoard, double, drop, flip_bit
from hil_models import Case, make_case
from strategies import Plan

from quantgru.errors import DataError, DeviceError
from quantgru.hil.compare import compare
from quantgru.hil.link import Patience
from quantgru.hil.requests import Step
from quantgru.hil.session import Session
from quantgru.hil.transport import SerialTransport
from quantgru.hil.ways import Expected


@pytest.fixture(scope="module")
def case() -> Case:
    return make_case(lengths=(5, 1, 3))


@pytest.fixture
def line(case: Case) -> Iterator[SerialTransport]:
    with running(build_model(case.model)) as transport:
        yield transport


class SmallFrames(Session):
    """A session that sends one step a frame, so that a run has more exchanges."""

    def open(self, model):
        description = super().open(model)
        room = 4 + 14 + max(2 * description.n_inputs, 8 + 2 * description.n_outputs)
        self._board = type(description)(**vars(description) | {"receive_bytes": room, "transmit_bytes": room})
        return self._board


def run(case: Case, line: object, clock: Clock | None = None):
    session = SmallFrames(line, PATIENCE, clock or time.monotonic)
    session.open(case.model)
    return session, compare(session, case.model, case.inputs, case.expected)


def n_steps(case: Case) -> int:
    return sum(len(x) for x in case.inputs)


# ---- what goes well ------------------------------------------------------------------------------------------------


def test_all_steps_are_equal(case, line):
    session, found = run(case, line)
    assert found.equal
    assert found.steps == found.ticks.n_steps == n_steps(case)
    assert session.repeats == session.damaged_frames == 0


def test_many_steps_go_into_one_frame(line, case):
    session = Session(line, PATIENCE)
    board = session.open(case.model)
    assert (board.target, board.credit, board.digest) == ("host", 4, case.model.digest)
    assert board.steps_per_frame == (2048 - 14 - 4) // (8 + 2 * case.model.n_outputs)
    assert session.most_steps(Step) == 1


def test_frames_grow_as_long_as_the_board_answers_quickly(line):
    longer = make_case(lengths=(900, 3))
    counting = FaultyLine(line, Clock())
    session = Session(counting, PATIENCE)
    limit = session.open(longer.model).steps_per_frame
    assert compare(session, longer.model, longer.inputs, longer.expected).equal
    assert session.most_steps(Step) == limit == 169
    # with four under way: HELLO, RESET, 1 1 1 2 2 2 4 ... steps, RESET, 3 steps
    assert counting.n_requests < 40


def test_a_new_session_starts_anew(line, case):
    for _ in range(3):
        assert run(case, line)[1].equal


def test_the_last_step_is_read_as_it_was_computed(line, case):
    session = Session(line, PATIENCE)
    session.open(case.model)
    assert all(not values.any() for values in session.read().values())  # after reset
    session.step(case.inputs[0][:3])
    trace = case.expected.trace(0, 2)
    for name, values in session.read().items():
        np.testing.assert_array_equal(values, getattr(trace, name), err_msg=name)


def test_small_buffers(case):
    """108 bytes, as few as a description takes, hold seven steps, and the arrays of 150 units in four parts."""
    wide = make_case(Plan(3, (150,), (0,), ((2, 0),)), lengths=(7,))

    def shrink(firmware, export):
        replace_in(firmware / "ports" / "host" / "port_config.h", "PORT_BUFFER_BYTES 2048", "PORT_BUFFER_BYTES 96")

    with running(build_edited(wide.model, shrink)) as line:
        session = Session(line, PATIENCE)
        board = session.open(wide.model)
        assert (board.receive_bytes, board.transmit_bytes, board.steps_per_frame) == (108, 108, 7)
        assert compare(session, wide.model, wide.inputs, wide.expected).equal
        trace = wide.expected.trace(0, 6)
        for name, values in session.read().items():
            np.testing.assert_array_equal(values, getattr(trace, name), err_msg=name)


# ---- a line with faults --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("direction", ["requests", "replies"])
def test_one_fault_anywhere_is_recovered(case, line, fault, direction):
    n_requests = 1 + len(case.inputs) + n_steps(case)
    for number in range(n_requests):
        clock = Clock()
        session, found = run(case, FaultyLine(line, clock, **{direction: {number: fault}}), clock)
        assert found.equal
        assert found.steps == n_steps(case)
        assert session.repeats <= 4  # what was under way
        assert clock.now <= 2 * PATIENCE.reply_s


@pytest.mark.parametrize("number", range(8))
def test_a_late_reply_is_not_taken_for_the_next_one(case, line, number):
    clock = Clock()
    session, found = run(case, FaultyLine(line, clock, stalls=frozenset([number])), clock)
    assert found.equal
    assert session.repeats <= 4


@pytest.mark.parametrize("seed", range(20))
def test_faults_in_one_frame_of_five_both_ways(case, line, seed):
    rng = random.Random(seed)
    requests, replies = ({i: rng.choice(FAULTS) for i in range(200) if rng.random() < 0.2} for _ in range(2))
    clock = Clock()
    session, found = run(case, FaultyLine(line, clock, requests, replies), clock)
    assert found.equal
    assert found.steps == n_steps(case)
    assert session.repeats > 0


def test_a_lost_reply_does_not_step_twice(case, line):
    """Told by the check values: a step that runs twice gives another one."""
    clock = Clock()
    session = SmallFrames(FaultyLine(line, clock, replies={2: drop, 3: drop, 4: flip_bit, 5: double}), PATIENCE, clock)
    session.open(case.model)
    session.reset()
    for t in range(3):
        answered = session.step(case.inputs[0][t : t + 1])
        assert answered.checks[0] == case.expected.checks[0][t]
    assert session.repeats == 3


def test_a_wrong_board_is_wrong_through_faults_too(case, line):
    rng = random.Random(5)
    wrong = [outputs.copy() for outputs in case.expected.outputs]
    wrong[2][1, 0] ^= 1
    expected = Expected(wrong, case.expected.checks, case.expected.trace)
    for _ in range(5):
        clock = Clock()
        requests, replies = ({i: rng.choice(FAULTS) for i in range(200) if rng.random() < 0.2} for _ in range(2))
        session = SmallFrames(FaultyLine(line, clock, requests, replies), PATIENCE, clock)
        session.open(case.model)
        found = compare(session, case.model, case.inputs, expected)
        assert not found.equal
        assert (found.first_difference.sequence, found.first_difference.step, found.steps) == (2, 1, 8)
        difference = found.first_difference
        assert (difference.layer, difference.gate, difference.unit) == ("", "output", 0)
        assert difference.board == difference.simulator ^ 1
        assert "output of unit 0: board" in str(difference)
        assert "the same each time" in str(difference)


def test_a_boot_banner_does_not_matter(case, line):
    clock = Clock()
    banner = b"\r\nbooting\0 from flash \0\0 ok\r\n\x00\x07"
    assert run(case, FaultyLine(line, clock, replies={0: lambda frame: banner + frame}), clock)[1].equal


def test_a_board_survives_that_its_port_is_closed(case):
    with running(build_model(case.model)) as first:
        assert run(case, first)[1].equal
        first.close()
        with SerialTransport(first.name) as second:
            assert run(case, second)[1].equal


# ---- a board that goes away ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(1, 12))
def test_a_reset_of_the_board_is_noticed(case, line, number):
    with running(build_model(case.model)) as after_reset:
        clock = Clock()
        faulty = FaultyLine(line, clock)

        def reset_board(request: int) -> None:
            if request == number:
                faulty.reset_board(after_reset)

        faulty.before_request = reset_board
        with pytest.raises(DeviceError, match=r"reset in mid-run.*; check power"):
            run(case, faulty, clock)


@pytest.mark.parametrize("number", [0, 1, 5])
def test_a_board_that_falls_silent_is_given_up(case, line, number):
    clock = Clock()
    faulty = FaultyLine(line, clock, requests=dict.fromkeys(range(number, 200), drop))
    with pytest.raises(DeviceError, match="silent" if number == 0 else "stopped answering in mid-run"):
        run(case, faulty, clock)
    assert clock.now <= 10 * 0.3 + 0.01
    assert faulty.n_requests == number + 10 * (4 if number else 1)  # what was under way, ten times


def test_damaged_frames_for_ever_are_given_up(case, line):
    clock = Clock()
    with pytest.raises(DeviceError, match=r"stopped answering in mid-run.*damaged frames only"):
        run(case, FaultyLine(line, clock, replies=dict.fromkeys(range(3, 2000), flip_bit)), clock)


def test_bursts_of_noise_before_the_answer_do_not_end_a_run(case, line):
    """Each is a damaged frame; the answer behind them still counts."""
    clock = Clock()
    bursts = lambda frame: b"".join(bytes([0x55, i + 1, 0]) for i in range(20)) + frame  # noqa: E731
    session, found = run(case, FaultyLine(line, clock, replies=dict.fromkeys(range(1, 200), bursts)), clock)
    assert found.equal
    assert session.repeats == 0


def test_another_host_is_noticed(case, line):
    first = Session(line, PATIENCE)
    first.open(case.model)
    Session(line, PATIENCE).open(case.model)
    with pytest.raises(DeviceError, match="another program has opened a session"):
        first.reset()


def test_the_limit_for_everything_together(case, line):
    clock = Clock()
    faulty = FaultyLine(line, clock, requests=dict.fromkeys(range(0, 400, 2), drop))
    session = SmallFrames(faulty, Patience(hello_first_s=0.3, hello_s=0.3, reply_s=0.3, total_s=1.0), clock)
    session.open(case.model)
    with pytest.raises(DeviceError, match="not done within 1 s"):
        compare(session, case.model, case.inputs, case.expected)
    assert clock.now <= 1.01


@pytest.mark.parametrize("step_s", [0.001, 0.15, 3.0, 7.0])
def test_a_slow_board_is_waited_for(case, line, step_s):
    board = SlowBoard(line, Clock(), step_s)
    session = Session(board, clock=board.clock)
    session.open(case.model)
    assert compare(session, case.model, case.inputs, case.expected).equal
    assert board.most_steps * step_s < 7.5  # what one answer may take


def test_how_long_a_board_may_take_can_be_said(case, line):
    for patience, equal in ((Patience(), False), (Patience.of(30.0), True)):
        board = SlowBoard(line, Clock(), step_s=20.0)
        session = Session(board, patience, board.clock)
        session.open(case.model)
        if equal:
            assert compare(session, case.model, case.inputs, case.expected).equal
        else:
            with pytest.raises(DeviceError, match="stopped answering in mid-run"):
                compare(session, case.model, case.inputs, case.expected)


def test_a_killed_board(case):
    with ExitStack() as stack:
        transport = stack.enter_context(running(build_model(case.model)))
        session = Session(transport, Patience(reply_s=0.2, attempts=3))
        session.open(case.model)
        stack.pop_all().close()  # ends the process
        with pytest.raises(DeviceError):
            session.step(case.inputs[0])


# ---- verdicts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inputs", [[], [np.zeros((0, 3), np.int16)]], ids=["no sequences", "no steps"])
def test_nothing_compared_is_no_pass(case, line, inputs):
    session = Session(line, PATIENCE)
    session.open(case.model)
    empty = Expected([np.zeros((0, 2), np.int16)] * len(inputs), [np.zeros(0, np.uint32)] * len(inputs), None)
    with pytest.raises(DataError, match="no steps to compare"):
        compare(session, case.model, inputs, empty)


def test_shapes_that_do_not_fit(case, line):
    session = Session(line, PATIENCE)
    session.open(case.model)
    for inputs in ([x[:, :2] for x in case.inputs], [x.astype(np.int32) for x in case.inputs], case.inputs[:2]):
        with pytest.raises(DataError):
            compare(session, case.model, inputs, case.expected)


FAULTY_STEP = """
#include "model.h"
static unsigned steps_done;
static void faulty_step(const qg_gru *gru, const int16_t *x, int16_t *h, uint16_t *residual, const qg_gates *gates,
                        int16_t *product)
{
    qg_gru_reset_%(reset)s(gru, x, h, residual, gates, product);
    if (++steps_done == %(count)d) {
        %(fault)s
        h[0] ^= 4; /* the consequence, which the check value sees */
    }
}
"""


def faulty_image(case: Case, layer: int, step: int, fault: str):
    """Firmware whose `layer` does `fault` at a step after the reset, with the digest of the right model."""
    reset = case.model.grus[layer].reset

    def edit(firmware, export):
        values = {"reset": reset, "count": step + 1, "fault": fault}
        replace_in(export / "model.c", '#include "model.h"\n', FAULTY_STEP % values)
        replace_in(export / "model.c", f"{{qg_gru_reset_{reset},", "{faulty_step,")
        replace_in(export / "model.c", "    qg_reset(", "    steps_done = 0;\n    qg_reset(")

    return build_edited(case.model, edit)


@pytest.mark.parametrize(
    ("layer", "fault", "gate", "unit"),
    [
        (0, "gates->u[8] ^= 0x40;", "u", 8),
        (1, "gates->r[4] ^= 1;", "r", 4),
        (1, "gates->n[0] ^= 1; gates->n[3] ^= 1;", "n", 0),
        (0, "h[5] ^= 1;", "h", 0),
        (1, "residual[2] ^= 1; h[0] ^= 4;", "residual", 2),
    ],
)
def test_a_wrong_answer_is_found_where_it_arose(case, layer, fault, gate, unit):
    with running(faulty_image(case, layer, 3, fault)) as line:
        found = run(case, line)[1]
    difference = found.first_difference
    assert not found.equal
    where = (difference.sequence, difference.step, difference.layer, difference.gate, difference.unit)
    assert where == (0, 3, f"gru_{layer}", gate, unit)
    assert found.steps == 4
    trace = getattr(case.expected.trace(0, 3), gate)
    assert difference.simulator == trace[unit + 9 * layer]
    assert difference.board != difference.simulator
    assert difference.format == {"n": "s16f15", "h": "s16f15", "residual": "u16f30"}.get(gate, "u16f15")
    assert f"{gate} of unit {unit}" in str(difference)


def test_a_wrong_output_is_found(case):
    def edit(firmware, export):
        replace_in(export / "model.c", "vectors, outputs);", "vectors, outputs);\n    outputs[1] ^= 1;")

    with running(build_edited(case.model, edit)) as line:
        difference = run(case, line)[1].first_difference
    assert (difference.sequence, difference.step, difference.layer) == (0, 0, "dense_1")
    assert (difference.gate, difference.unit, difference.format) == ("output", 1, "s16f15")
    assert difference.board == difference.simulator ^ 1
