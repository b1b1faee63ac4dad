"""How long a session waits, and what it makes of what comes late: also when the host itself is held up."""

import re
from collections.abc import Callable, Iterator

import pytest
from fault_boards import AHEAD_BYTES
from fault_line import FaultyBytes
from hil_boards import build_model, running
from hil_faults import Clock, FaultyLine, drop, flip_bit
from hil_models import Case, make_case

from quantgru.errors import DeviceError
from quantgru.hil.compare import Comparison, compare
from quantgru.hil.link import Credit, Link, Patience
from quantgru.hil.requests import Type
from quantgru.hil.session import Session
from quantgru.hil.transport import SerialTransport
from quantgru.hil.ways import Expected


@pytest.fixture(scope="module")
def case() -> Case:
    return make_case(lengths=(9, 1, 6))


@pytest.fixture
def board(case: Case) -> Iterator[SerialTransport]:
    with running(build_model(case.model)) as transport:
        yield transport


def run(
    case: Case,
    line: FaultyBytes | FaultyLine,
    patience: Patience | None = None,
    progress: Callable[[int], None] = lambda steps: None,
) -> tuple[Session, Comparison]:
    session = Session(line, patience, line.clock)
    session.open(case.model)
    return session, compare(session, case.model, case.inputs, case.expected, progress=progress)


# ---- a host that is held up -----------------------------------------------------------------------------------------


def test_a_host_that_takes_its_time_finds_the_answers_that_wait(case: Case, board: SerialTransport) -> None:
    line = FaultyBytes(board, 0.0, AHEAD_BYTES[4])

    def think(steps: int) -> None:
        line.clock.now += 100.0

    session, found = run(case, line, progress=think)
    assert found.equal
    assert session.repeats == 0


class StoppedHost(FaultyBytes):
    """Each third look for bytes finds none and takes a quarter of an hour, as of a laptop that sleeps."""

    n_looks = 0

    def read(self, timeout_s: float) -> bytes:
        self.n_looks += 1
        if self.n_looks % 3 == 0:
            self.clock.now += 900.0
            return b""
        return super().read(timeout_s)


def test_a_host_that_was_stopped_finds_the_answers_that_wait(case: Case, board: SerialTransport) -> None:
    line = StoppedHost(board, 0.0, AHEAD_BYTES[4])
    assert run(case, line)[1].equal
    assert line.clock.now >= 2 * 900


def test_prompt_answers_do_not_move_the_deadline(case: Case, board: SerialTransport) -> None:
    line = FaultyBytes(board, 0.0, AHEAD_BYTES[4])

    def think(steps: int) -> None:
        line.clock.now += 1.0

    with pytest.raises(DeviceError, match=r"not done within 5 s.*; 6 of 16 steps had been equal"):
        run(case, line, Patience(total_s=5.0), think)


# ---- how soon a loss is made good -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("lengths", "work_s"), [((3,), 0.0), ((9, 1, 6), 0.0), ((9, 1, 6), 0.3)])
def test_a_damaged_reply_is_asked_for_again_at_once(
    board: SerialTransport, lengths: tuple[int, ...], work_s: float
) -> None:
    """Even if later ones came with it, and nothing more does; but not after each quiet that follows."""
    case = make_case(lengths=lengths)
    whole = FaultyBytes(board, work_s, AHEAD_BYTES[4])
    run(case, whole)
    first, last = (len(whole.replies.sent[n]) for n in (0, -1))
    for at in range(first + 5, whole.replies.position - last, 17):
        line = FaultyBytes(board, work_s, AHEAD_BYTES[4])
        line.replies.faults[at] = lambda stream, byte: stream.put(bytes([byte ^ 0x80]))
        session, found = run(case, line)
        assert found.equal
        assert line.injected == 1
        assert 1 <= session.repeats <= 4 + 3 + 2 + 1  # the reply to each later one shows it again
        assert line.clock.now - whole.clock.now < 0.1


# ---- why it was given up --------------------------------------------------------------------------------------------


def test_silence_after_damaged_frames_is_silence(case: Case, board: SerialTransport) -> None:
    """Replies 2 and 3 are damaged, asked for again and good; from reply 9 on nothing comes."""
    replies = dict.fromkeys((2, 3), flip_bit) | dict.fromkeys(range(9, 500), drop)
    line = FaultyLine(board, Clock(), replies=replies)
    says = r"no answer any more\); check cable and power.* wait longer with --timeout; \d of 16 steps"
    with pytest.raises(DeviceError, match=says):
        run(case, line)


def test_damaged_frames_after_good_ones_are_told(case: Case, board: SerialTransport) -> None:
    line = FaultyLine(board, Clock(), replies=dict.fromkeys(range(4, 5000), flip_bit))
    says = r"damaged frames only\); check the cable.* --timeout has a request repeated for longer; \d of 16 steps"
    with pytest.raises(DeviceError, match=says):
        run(case, line)


# ---- what was found before the line fails ---------------------------------------------------------------------------


def test_a_difference_is_told_although_the_board_then_falls_silent(case: Case, board: SerialTransport) -> None:
    """The first STEP is answered, and wrong; of what is on its way behind it, nothing comes."""
    line = FaultyLine(board, Clock(), replies=dict.fromkeys(range(3, 500), drop))
    wrong = [outputs.copy() for outputs in case.expected.outputs]
    wrong[0][0, 0] ^= 1
    session = Session(line, clock=line.clock)
    session.open(case.model)
    expected = Expected(wrong, case.expected.checks, case.expected.trace)
    found = compare(session, case.model, case.inputs, expected)
    assert not found.equal and found.steps == 1
    says = "sequence 0, step 0: output of unit 0: board .*; not narrowed down: .*the board stopped answering in mid-run"
    assert re.match(says, str(found.first_difference))
    assert line.clock.now < 1.1 * sum(Patience().reply_waits_s)  # nobody waits for it twice


# ---- numbers that wrap ----------------------------------------------------------------------------------------------


def test_sequence_numbers_wrap_under_faults(board: SerialTransport) -> None:
    line = FaultyLine(board, Clock())
    line.requests = dict.fromkeys(range(65530, 65545, 3), drop)
    line.replies = dict.fromkeys(range(65531, 65545, 4), drop)
    link = Link(line, Patience(), line.clock)
    (_,) = link.exchange([(Type.HELLO, b"")], Credit())
    replies = link.exchange(((Type.RESET, b"") for _ in range(65560)), Credit(4, 4096, 24))
    numbers = [reply.sequence for reply in replies if reply.type == Type.RESET | 0x80]
    assert numbers == [n % 2**16 for n in range(1, 65561)]
    assert link.repeats > 5
