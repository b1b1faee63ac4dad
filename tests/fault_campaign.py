"""Runs over a line with faults, and what must come of each: recovered, or noticed as what it is. Never a wrong verdict.

All that happens in a run follows from its kind and its number.
"""

import random
import signal
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from fault_boards import AHEAD_BYTES, ARRAYS, GENERATORS, LENGTHS, Boards, Wrong
from fault_line import (
    Fault,
    FaultyBytes,
    HangError,
    Stream,
    cut_frame,
    double_bytes,
    drop_bytes,
    flip_bit,
    frame_end,
    insert_bytes,
    replay,
    stall,
)

from quantgru.errors import DeviceError
from quantgru.hil.compare import Comparison, compare
from quantgru.hil.frames import Frame, FrameReader, encode
from quantgru.hil.link import Patience
from quantgru.hil.requests import Type
from quantgru.hil.session import Session
from quantgru.hil.ways import ByDigests, ByOutputs, BySeeds, Difference, Way

WAYS: dict[str, Way] = {"outputs": ByOutputs(), "digests": ByDigests(), "seeds": BySeeds(GENERATORS)}
WORK_S = (0.0, 0.03, 0.3)  # per request: the second is longer than the quiet after which the host repeats
MOST_S = 60.0  # of the line's clock: every run has ended by then
WATCHDOG_S = 20  # of real time
EARLIER_SESSION = 1  # its number; trials have those that follow, and after them comes each one's LATER
LATER = 2**31

MakeFault = Callable[[random.Random], Fault]


class TrialError(Exception):
    """What may not come of a run."""


class WrongVerdictError(TrialError):
    """Equal that is not, different that is not, or different at another place."""


@dataclass(frozen=True)
class Traffic:
    """A run without faults: all frames of both directions."""

    requests: list[bytes]
    replies: list[bytes]

    @property
    def n_bytes(self) -> tuple[int, int]:
        return sum(map(len, self.requests)), sum(map(len, self.replies))


class Laboratory:
    """Boards, and what their traffic is without faults."""

    def __init__(self, boards: Boards) -> None:
        self.boards = boards
        self._traffic: dict[tuple[str, int, float], Traffic] = {}

    def traffic(self, way: str, credit: int, work_s: float) -> Traffic:
        key = (way, credit, work_s)
        if key not in self._traffic:
            self.boards.tell(Wrong())
            line = FaultyBytes(self.boards.board(credit), work_s, AHEAD_BYTES[credit])
            session = Session(line, Patience(), line.clock, EARLIER_SESSION)
            check_equal(run(session, self.boards, way))
            assert session.repeats == 0
            self._traffic[key] = Traffic(line.requests.sent, line.replies.sent)
        return self._traffic[key]


def run(session: Session, boards: Boards, way: str) -> Comparison | DeviceError:
    case = boards.case
    try:
        session.open(case.model)
        return compare(session, case.model, case.inputs, case.expected, WAYS[way])
    except DeviceError as error:
        return error


class Trial:
    """One run: the way it compares, the board's credit and speed, where its faults are."""

    def __init__(self, laboratory: Laboratory, kind: str, number: int) -> None:
        self.rng = random.Random(f"{kind} {number}")
        self.boards = laboratory.boards
        self.way = list(WAYS)[number % len(WAYS)]
        self.credit = self.rng.choice(list(AHEAD_BYTES))
        self.work_s = self.rng.choice(WORK_S)
        self.traffic = laboratory.traffic(self.way, self.credit, self.work_s)
        self.boards.tell(Wrong())
        self.line = FaultyBytes(self.boards.board(self.credit), self.work_s, AHEAD_BYTES[self.credit])
        self.session = Session(self.line, Patience(), self.line.clock, EARLIER_SESSION + 1 + number)
        self.number = number

    def scatter(self, make: MakeFault, n: int) -> None:
        """n faults anywhere in the bytes of both directions."""
        for _ in range(n):
            direction = self.rng.randrange(2)
            stream = (self.line.requests, self.line.replies)[direction]
            stream.faults[self.rng.randrange(self.traffic.n_bytes[direction])] = make(self.rng)

    def run(self) -> Comparison | DeviceError:
        return run(self.session, self.boards, self.way)

    def new_session(self) -> None:
        """On the same board, over a line that is whole again; what the old one had still to say comes first."""
        line = FaultyBytes(self.line.board.inner, self.work_s, AHEAD_BYTES[self.credit])
        line.replies.put(self.line.replies.rest())
        check_equal(run(Session(line, Patience(), line.clock, LATER + self.number), self.boards, self.way))


def check_equal(found: Comparison | DeviceError) -> None:
    if isinstance(found, DeviceError):
        raise TrialError(f"not recovered: {found}")
    if not found.equal or found.steps != sum(LENGTHS):
        raise WrongVerdictError(f"{found.steps} steps, {found.first_difference}")


def check_error(found: Comparison | DeviceError, part: str) -> None:
    if not isinstance(found, DeviceError):
        raise WrongVerdictError(f"not noticed: {found}")
    if part not in str(found) or "\n" in str(found):
        raise TrialError(f"noticed as something else: {found}")


# ---- kinds ----------------------------------------------------------------------------------------------------------
# Each runs a trial, and tells whether the faults were recovered or noticed. Anything else is a TrialError.


def recovered(make: MakeFault, most: int, trial: Trial) -> str:
    trial.scatter(make, trial.rng.randint(1, most))
    check_equal(trial.run())
    return "recovered"


def any_fault(rng: random.Random) -> Fault:
    makes = (flip_bit, drop_bytes, double_bytes, insert_bytes, cut_frame, stall(0.001, 0.1))
    return rng.choice(makes)(rng)


def replayed(trial: Trial) -> str:
    """Frames of an earlier session are not believed; its HELLO opens it again, which is noticed."""
    trial.scatter(replay(trial.traffic.requests, trial.traffic.replies), trial.rng.randint(1, 3))
    found = trial.run()
    taken = any(frame.type == Type.HELLO and frame.session == EARLIER_SESSION for frame in trial.line.board.heard)
    if taken and isinstance(found, DeviceError):
        check_error(found, "line with faults: ")
        return "noticed"
    check_equal(found)
    return "recovered"


def disconnected(trial: Trial) -> str:
    def fault(stream: Stream, byte: int) -> None:
        stream.to_lose = frame_end(stream) - stream.position + 1
        trial.line.connected = False

    trial.scatter(lambda rng: fault, 1)
    check_error(trial.run(), "connection lost")
    trial.new_session()
    return "noticed"


def board_reset(trial: Trial) -> str:
    """Noticed, if there was more than HELLO to forget, and more to say than the delimiter behind the last reply."""
    noticed = False

    def fault(stream: Stream, byte: int) -> None:
        nonlocal noticed
        line = trial.line
        opened = any(frame.type != Type.HELLO for frame in FrameReader().feed(b"".join(line.requests.sent)))
        noticed = opened and line.replies.position < trial.traffic.n_bytes[1]
        line.requests.forget()
        if stream is line.requests:
            line.replies.forget()
            stream.put(bytes([byte]))
        else:
            stream.to_lose = frame_end(stream) - stream.position + 1
        line.board.reset(trial.boards.reset(trial.credit))

    trial.scatter(lambda rng: fault, 1)
    found = trial.run()
    if not noticed:
        check_equal(found)
        return "recovered"
    check_error(found, "the board was reset in mid-run")
    trial.new_session()
    return "noticed"


def wrong_step(trial: Trial) -> str:
    """A board that computes a number wrongly, each time: found where it is, whatever the line does."""
    rng, case = trial.rng, trial.boards.case
    array = rng.choice(ARRAYS)
    n = case.model.n_outputs if array == "output" else case.model.n_units
    wrong = Wrong(rng.randint(1, max(LENGTHS)), array, rng.randrange(n), rng.randrange(16))
    trial.boards.tell(wrong)
    trial.scatter(any_fault, rng.randint(0, 2))
    found = trial.run()
    check_difference(found, wrong, trial)
    return "noticed"


def check_difference(found: Comparison | DeviceError, wrong: Wrong, trial: Trial) -> None:
    difference, case = first_difference(found), trial.boards.case
    sequence = next(i for i, length in enumerate(LENGTHS) if length >= wrong.step)
    trace = case.expected.trace(sequence, wrong.step - 1)
    values = trace.outputs if wrong.array == "output" else getattr(trace, wrong.array)
    layer, unit = ("dense_1", wrong.unit) if wrong.array == "output" else place(wrong.unit, trial)
    expected = (sequence, wrong.step - 1, layer, wrong.array, unit, int(values[wrong.unit]))
    at = (difference.sequence, difference.step, difference.layer, difference.gate, difference.unit)
    steps = sum(LENGTHS[:sequence]) + wrong.step
    changed = (difference.board ^ difference.simulator) & 0xFFFF
    if (*at, difference.simulator) != expected or found.steps != steps or changed != 1 << wrong.bit:
        raise WrongVerdictError(f"{wrong} is found at another place: {difference}")


def first_difference(found: Comparison | DeviceError) -> Difference:
    if isinstance(found, DeviceError):
        raise TrialError(f"not recovered: {found}")
    if found.first_difference is None:
        raise WrongVerdictError("no difference")
    return found.first_difference


def place(unit: int, trial: Trial) -> tuple[str, int]:
    """Name of the layer, and number in it."""
    for layer in trial.boards.case.model.grus:
        if unit < layer.n_units:
            return layer.name, unit
        unit -= layer.n_units
    raise AssertionError(unit)


@dataclass
class Liar:
    """Changes a bit of one answer, check value, output or digest, in an intact frame."""

    rng: random.Random
    n_before: int  # answers that are true
    sequence: int = -1
    step: int = 0
    found: tuple[int, int] | None = field(default=None)

    def __call__(self, request: Frame, reply: bytes) -> bytes:
        if request.type == Type.RESET:
            self.sequence, self.step = self.sequence + 1, 0
        if request.type not in (Type.STEP, Type.DIGEST, Type.SEED):
            return reply
        start, n_steps = self.step, struct.unpack_from("<H", request.payload)[0]
        self.step += n_steps
        self.n_before -= 1
        return self._changed(reply, start, n_steps) if self.n_before == -1 else reply

    def _changed(self, reply: bytes, start: int, n_steps: int) -> bytes:
        (frame,) = FrameReader().feed(reply)
        payload = bytearray(frame.payload)
        if frame.type == Type.STEP | 0x80:
            record, n_bytes = self.rng.randrange(n_steps), (len(payload) - 4) // n_steps
            at = 4 + record * n_bytes + self.rng.randrange(4, n_bytes)  # behind the ticks
        else:
            record, at = 0, self.rng.randrange(4, 8)
        payload[at] ^= 1 << self.rng.randrange(8)
        self.found = (self.sequence, start + record)
        return encode(Frame(frame.type, frame.session, frame.sequence, bytes(payload)))


def wrong_once(trial: Trial) -> str:
    """An answer that is wrong once: found at its step, or at the first of those that it is the digest of."""
    frames = FrameReader().feed(b"".join(trial.traffic.requests))
    n_answers = sum(frame.type in (Type.STEP, Type.DIGEST, Type.SEED) for frame in frames)
    liar = Liar(trial.rng, trial.rng.randrange(n_answers))
    trial.line.board.alter = liar
    found = trial.run()
    difference = first_difference(found)
    if (difference.sequence, difference.step) != liar.found or "the same each time" not in str(difference):
        raise WrongVerdictError(f"found at another place than {liar.found}: {difference}")
    return "noticed"


KINDS: dict[str, Callable[[Trial], str]] = {
    "bit flips": partial(recovered, flip_bit, 4),
    "dropped bytes": partial(recovered, drop_bytes, 4),
    "doubled bytes": partial(recovered, double_bytes, 4),
    "inserted bytes": partial(recovered, insert_bytes, 4),
    "cut frames": partial(recovered, cut_frame, 4),
    "stalls": partial(recovered, stall(1.6, 3.4), 1),
    "any of these": partial(recovered, any_fault, 6),
    "frames again": replayed,
    "disconnects": disconnected,
    "board resets": board_reset,
    "wrong steps": wrong_step,
    "wrong answers": wrong_once,
}


# ---- campaign -------------------------------------------------------------------------------------------------------


@dataclass
class Tally:
    """What came of the runs of a kind."""

    faults: int = 0
    runs: int = 0
    results: Counter[str] = field(default_factory=Counter)  # recovered, noticed
    repeats: int = 0
    longest_s: float = 0.0  # of the line's clock
    hangs: list[str] = field(default_factory=list)
    wrong_verdicts: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)  # others


def try_one(laboratory: Laboratory, kind: str, number: int, tally: Tally) -> None:
    """One run; a failure or a hang is noted with its number."""
    trial = Trial(laboratory, kind, number)
    try:
        with watchdog():
            result = KINDS[kind](trial)
        if trial.line.clock.now > MOST_S:
            raise HangError(f"{trial.line.clock.now:.1f} s of the line's clock")
        tally.results[result] += 1
    except WrongVerdictError as wrong:
        tally.wrong_verdicts.append(f"{kind} {number}: {wrong}")
    except TrialError as failure:
        tally.failures.append(f"{kind} {number}: {failure}")
    except HangError as hang:
        tally.hangs.append(f"{kind} {number}: {hang}")
        laboratory.boards.reset(trial.credit)
    tally.runs += 1
    tally.faults += 1 if kind.startswith("wrong") else trial.line.injected
    tally.repeats += trial.session.repeats
    tally.longest_s = max(tally.longest_s, trial.line.clock.now)


def campaign(laboratory: Laboratory, kind: str, n_faults: int) -> Tally:
    """Runs of a kind, numbered from 0 on, until so many faults have been injected."""
    tally = Tally()
    while tally.faults < n_faults and tally.runs < 2 * n_faults:
        try_one(laboratory, kind, tally.runs, tally)
    return tally


@contextmanager
def watchdog() -> Iterator[None]:
    def ring(signum: int, frame: object) -> None:
        raise HangError(f"{WATCHDOG_S} s of real time")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(WATCHDOG_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
