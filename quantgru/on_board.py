"""A model on a board, held against the simulator: the parts for it, which know nothing of each other, joined."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, get_args

from quantgru.array_types import IntArray
from quantgru.errors import ConfigError, DataError, DeviceError, warn
from quantgru.expected_steps import expected_runs, expected_steps
from quantgru.exporter import blob_memory, export, to_blob
from quantgru.hil.boards import find_board
from quantgru.hil.compare import Batch, Comparison, compare_batches, compare_states
from quantgru.hil.generator import Generator
from quantgru.hil.images import Image, build, build_for_models, launch
from quantgru.hil.link import Patience
from quantgru.hil.runs import compare_runs, run_checks, run_outputs
from quantgru.hil.session import Session
from quantgru.hil.timer import StepCost, Timer, board_timer
from quantgru.hil.transport import BAUD_RATE, BAUD_RATES, PortVanishedError, SerialTransport
from quantgru.hil.upload import Upload
from quantgru.hil.ways import ByDigests, ByOutputs, BySeeds, Difference
from quantgru.int_model import IntModel, require_int_model
from quantgru.int_model.avr import avr_excess
from quantgru.int_model.cost import cost
from quantgru.int_model.packing import Packing
from quantgru.sequences import Sequences, SequencesLike, as_sequences, with_token_axis, without_masked
from quantgru.simulator.inputs import to_raw

By = Literal["outputs", "states", "digests"]
_Answer = TypeVar("_Answer")

_LONGEST_WAIT_S: Final = 24 * 3600.0
_POINTER_BYTES: Final = 8  # the most that a board has: what the model needs there is no more
_MOST_STEPS: Final = 2**16 - 1  # of a run: the library counts them in 16 bits
_SEEDED_STEPS: Final = 1000  # of a sequence
_SEEDED_SEQUENCES: Final = 16  # whose inputs are made at a time
_MOST_SEEDED_STEPS: Final = 100_000_000
_SEEDED_SHIFTS: Final = 8
_MOST_CLIPPED: Final = 0.1  # of the input values, without a warning


@dataclass(frozen=True)
class Target:
    """A board to build and start here, by name, with a packing as in `export`; or a port with one, and its baud rate,
    115,200 if None."""

    kind: Literal["board", "port"]
    name: str
    baud: int | None = None
    packing: Packing = "auto"


@dataclass(frozen=True, eq=False)
class BoardResult:
    """How a run on a board ended.

    target            what the board calls itself
    steps             steps that were compared; the last one differs if `first_difference` is not None
    total_steps       steps that were asked for
    first_difference  the first number that differs: sequence, step, layer, gate, unit, both values, format; or as much
                      of it as was known when the board failed, and why (`not_narrowed`)
    step_cost         cycles, instructions or time of the recurrent part of a step, or of whole sequences, divided by
                      their steps; None for a board without a timer
    flash_bytes       of the whole test firmware, code and constants; None for a board that its user flashed
    ram_bytes         static RAM of the whole test firmware; None for a board that its user flashed
    stack_bytes       the deepest that the stack has been; None for a board that cannot say
    repeats           requests that were sent again
    damaged_frames    frames from the board that came in damaged
    clipped_inputs    values of each input feature that were out of range and saturated [inputs], of all steps that were
                      asked for; None if the board generated them
    """

    target: str
    steps: int
    total_steps: int
    first_difference: Difference | None
    step_cost: StepCost | None
    flash_bytes: int | None
    ram_bytes: int | None
    stack_bytes: int | None
    repeats: int
    damaged_frames: int
    clipped_inputs: IntArray | None

    @property
    def equal(self) -> bool:
        """Whether all steps that were asked for were compared, at least one, and each was equal."""
        return self.first_difference is None and self.steps == self.total_steps > 0

    @property
    def clipped_share(self) -> float | None:
        """Clipped values among all input values."""
        if self.clipped_inputs is None:
            return None
        return float(self.clipped_inputs.sum() / (self.clipped_inputs.size * self.total_steps))

    def to_json(self) -> dict[str, Any]:
        """The result as JSON values."""
        cost, difference, clipped = self.step_cost, self.first_difference, self.clipped_inputs
        return {
            "target": self.target,
            "equal": self.equal,
            "steps": self.steps,
            "total_steps": self.total_steps,
            "first_difference": None if difference is None else vars(difference),
            "step_cost": None if cost is None else vars(cost),
            "flash_bytes": self.flash_bytes,
            "ram_bytes": self.ram_bytes,
            "stack_bytes": self.stack_bytes,
            "repeats": self.repeats,
            "damaged_frames": self.damaged_frames,
            "clipped_inputs": None if clipped is None else clipped.tolist(),
            "clipped_share": self.clipped_share,
        }


def run_on_board(
    model: IntModel,
    x: SequencesLike | Sequences,
    *,
    board: str | None = None,
    port: str | os.PathLike[str] | None = None,
    baud: int | None = None,
    by: By = "outputs",
    packing: Packing = "auto",
    send: bool = False,
    timeout_s: float | None = None,
    deadline_s: float | None = None,
    progress: Callable[[int], None] = lambda steps: None,
) -> BoardResult:
    """Runs x [sequences, steps, inputs] on a board and compares every step with the simulator.

    board     a name from `quantgru boards`: the test firmware is built and started here
    port      anything that pyserial opens, with a board that runs the test firmware with this model
    baud      bits per second of the port, 9,600 ... 12,000,000; 115,200 if None
    by        "outputs": the outputs of every step, and a CRC-32 of its whole state, come back;
              "states": every number of every state and gate, which takes longer;
              "digests": one number for many steps, so that a long run costs only the way of its inputs to the board
    packing   how codes of weights lie in the firmware that is built here, as in `export`
    send      builds the test firmware without a model, and sends it the model over the line. A port with such firmware
              is sent the model in any case
    timeout_s how long one answer may take; 4.5 s for the first and 7.5 s for the others if None, more for a slow board
    deadline_s how long everything may take once the line is open: all requests, and the simulation between them; 24
              hours if None. Building a board is apart: each tool may take 5 minutes
    progress  called with the number of steps compared since its last call

    Where a step differs, the sequence is run again up to it, and all its gates are read back. A model that needs whole
    sequences is run with them (NAME_run), and keeps no states: "outputs" compares all outputs and their CRC-32 [R24],
    "digests" the CRC-32, and "states" is refused. Warns if more than a tenth of the input values is clipped.

    Raises DataError; ModelError for what is not an IntModel; ConfigError for an unknown board or a missing tool;
    DeviceError for a board that is silent, answers garbage, holds another model or shorter sequences, or dies.
    """
    require_int_model(model, "run on a board")
    target = _target(board, port, baud, packing, send)
    _check_way(model, by)
    given = x if model.embedding is None else with_token_axis(x)
    sequences = without_masked(as_sequences(given, n_features=model.n_inputs), mask_value=model.mask_value)
    _, clipped_inputs = to_raw(model, sequences)
    longest = None if model.streaming else _longest(sequences)
    patience = _patience(model, timeout_s, deadline_s)
    with _opened(model, target, send, patience, longest) as place:  # what is wrong with it is said before simulating
        comparison = _compare(place.session, model, sequences, by, progress)
        result = _result(place, comparison, sequences.n_steps, clipped_inputs)
    warn_of_clipped(result)
    return result


def warn_of_clipped(result: BoardResult) -> None:
    """Warns if so many inputs stood at their limits that equal steps say little of others."""
    if result.clipped_share is not None and result.clipped_share > _MOST_CLIPPED:
        warn(
            f"run on a board: {100 * result.clipped_share:.1f} % of the input values are clipped, and what is compared "
            "is of little use; give inputs as they were in the calibration data"
        )


def _compare(
    session: Session, model: IntModel, sequences: Sequences, by: By, progress: Callable[[int], None]
) -> Comparison:
    if not model.streaming:
        runs = expected_runs(model, sequences, session.check_deadline)
        run_way = run_outputs if by == "outputs" else run_checks
        return compare_runs(session, model, sequences.lengths.tolist(), runs, run_way, progress)
    batches = expected_steps(model, sequences, session.check_deadline)
    if by == "states":
        return compare_states(session, model, batches, sequences.n_steps, progress)
    way = ByOutputs() if by == "outputs" else ByDigests()
    return compare_batches(session, model, batches, sequences.n_steps, way, progress)


def _check_way(model: IntModel, by: str) -> None:
    if by not in get_args(By):
        raise ConfigError(f"run on a board: by={by!r}, expected one of {', '.join(get_args(By))}")
    if by == "states" and not model.streaming:
        raise ConfigError(
            f"run on a board: model {model.name!r} needs whole sequences, and a run of one keeps no states; "
            "compare by outputs or digests"
        )


def _longest(sequences: Sequences) -> int:
    """Steps of the longest sequence. Raises DataError for more than a run can have."""
    longest = int(sequences.lengths.max())
    if longest > _MOST_STEPS:
        raise DataError(
            f"run on a board: a sequence of {longest:,} steps, and a run has at most {_MOST_STEPS:,}; cut it"
        )
    return max(longest, 1)


def run_seeded_on_board(
    model: IntModel,
    n_steps: int,
    *,
    seed: int = 1,
    board: str | None = None,
    port: str | os.PathLike[str] | None = None,
    baud: int | None = None,
    packing: Packing = "auto",
    send: bool = False,
    timeout_s: float | None = None,
    deadline_s: float | None = None,
    progress: Callable[[int], None] = lambda steps: None,
) -> BoardResult:
    """As run_on_board, on inputs that the board generates from a seed: a million steps need a few bytes of the line.

    The steps are sequences of 1,000, each from reset. Their inputs are spread evenly over the whole range of raw
    values, over half of it, and so on down to 1/128, and then over the whole range again.
    """
    require_int_model(model, "run on a board")
    target = _target(board, port, baud, packing, send)
    if not model.streaming:
        raise ConfigError(
            f"run on a board: model {model.name!r} needs whole sequences, and boards generate single steps; "
            "give sequences"
        )
    if not 1 <= n_steps <= _MOST_SEEDED_STEPS:
        raise ConfigError(
            f"run on a board: {n_steps} steps, expected 1 ... {_MOST_SEEDED_STEPS}; seeds give other ones"
        )
    if not 0 <= seed < 2**32:
        raise ConfigError(f"run on a board: seed {seed}, expected 0 ... 4294967295")
    lengths = [min(_SEEDED_STEPS, n_steps - start) for start in range(0, n_steps, _SEEDED_STEPS)]
    generators = [Generator((seed + i) % 2**32, i % _SEEDED_SHIFTS) for i in range(len(lengths))]
    with _opened(model, target, send, _patience(model, timeout_s, deadline_s)) as place:
        batches = _seeded_batches(place.session, model, generators, lengths)
        comparison = compare_batches(place.session, model, batches, n_steps, BySeeds(generators), progress)
        return _result(place, comparison, n_steps, None)


def _seeded_batches(
    session: Session, model: IntModel, generators: Sequence[Generator], lengths: Sequence[int]
) -> Iterator[Batch]:
    """What is expected of as many steps of each generator."""
    for first in range(0, len(lengths), _SEEDED_SEQUENCES):
        some = slice(first, first + _SEEDED_SEQUENCES)
        raw = [
            generator.inputs(length, model.n_inputs)
            for generator, length in zip(generators[some], lengths[some], strict=True)
        ]
        sequences = as_sequences(raw, n_features=model.n_inputs)
        yield from expected_steps(model, sequences, session.check_deadline, raw_input=True, first=first)


def _target(
    board: str | None, port: str | os.PathLike[str] | None, baud: int | None, packing: Packing, send: bool
) -> Target:
    if (board is None) == (port is None):
        raise ConfigError("run on a board: give either a board, by name, or a port")
    if baud is not None and baud not in BAUD_RATES:
        allowed = f"{BAUD_RATES[0]:,} ... {BAUD_RATES[-1]:,}"
        raise ConfigError(f"run on a board: a baud rate of {baud!r}, expected {allowed}, as the board has it")
    if packing != "auto" and (board is None or send):
        raise ConfigError(
            f"run on a board: packing {packing!r}, which is for a model in firmware that is built here; give a board "
            "by name, and do not send the model"
        )
    if board is not None:
        if baud is not None:
            raise ConfigError(f"run on a board: board {board!r} is started here and has no baud rate; leave it out")
        return Target("board", board, packing=packing)
    if not isinstance(port, (str, os.PathLike)):
        raise ConfigError(f"run on a board: port {port!r}, expected a path or a URL, as pyserial opens it")
    return Target("port", os.fspath(port), baud)


def _patience(model: IntModel, timeout_s: float | None, deadline_s: float | None) -> Patience:
    for what, seconds in (("timeout", timeout_s), ("deadline", deadline_s)):
        if seconds is not None and not 0 < seconds <= _LONGEST_WAIT_S:
            raise ConfigError(
                f"run on a board: {what} of {seconds:g} s, expected more than 0 and at most {_LONGEST_WAIT_S:,.0f} s"
            )
    constants = cost(model).constant_bytes
    patience = Patience().for_constants(constants) if timeout_s is None else Patience.of(timeout_s)
    return patience if deadline_s is None else replace(patience, total_s=deadline_s)


@contextmanager
def _running(
    model: IntModel, target: Target, *, send: bool, max_steps: int | None
) -> Iterator[tuple[str, Image | None, Timer | None]]:
    """Builds and starts a board, with the model or for one that is sent: its port, its image, what its ticks are
    worth."""
    description = find_board(target.name)
    description.require_tools()
    with tempfile.TemporaryDirectory(prefix="quantgru-") as folder:
        if send:
            image = build_for_models(description, Path(folder))
        else:
            if description.is_avr and (excess := avr_excess(model, target.packing)):
                raise ConfigError(f"board {target.name}: model {model.name!r} has {excess}")
            source = Path(folder) / "export"
            export(model, source, "model", max_steps=max_steps, packing=target.packing)
            image = build(description, source, Path(folder) / "build")
        with launch(description, image) as url:
            yield url, image, description.timer


@contextmanager
def _connected(port: str) -> Iterator[tuple[str, Image | None, Timer | None]]:
    yield port, None, None


@dataclass(frozen=True)
class _Place:
    """A board with an open session; its image, and what its ticks are worth, where it was built here."""

    session: Session
    image: Image | None
    timer: Timer | None


@contextmanager
def _opened(
    model: IntModel, target: Target, send: bool, patience: Patience, max_steps: int | None = None
) -> Iterator[_Place]:
    """max_steps is the longest sequence, for a model that needs whole ones."""
    upload = Upload(model, to_blob(model), blob_memory(model, _POINTER_BYTES)) if send or model.streaming else None
    if target.kind == "board":
        place = _running(model, target, send=send, max_steps=max_steps)
        patience = patience.without_bootloader()
    else:
        place = _connected(target.name)
    baud_rate = BAUD_RATE if target.baud is None else target.baud
    with place as (url, image, timer), ExitStack() as lines:

        def open_session() -> Session:
            session = Session(lines.enter_context(SerialTransport(url, baud_rate)), patience)
            session.open(model, upload)
            return session

        try:
            session = open_session()
        except PortVanishedError:  # being opened has reset the board: its port comes back, and stays
            lines.close()
            session = open_session()
        yield _Place(session, image, timer or board_timer(session.board))


def _result(place: _Place, comparison: Comparison, total_steps: int, clipped_inputs: IntArray | None) -> BoardResult:
    return BoardResult(
        place.session.board.target,
        comparison.steps,
        total_steps,
        comparison.first_difference,
        _step_cost(place, comparison),
        None if place.image is None else place.image.flash_bytes,
        None if place.image is None else place.image.ram_bytes,
        _deepest_stack(place.session, comparison),
        place.session.repeats,
        place.session.damaged_frames,
        clipped_inputs,
    )


def _ask_after(comparison: Comparison, question: Callable[[], _Answer]) -> _Answer | None:
    """None where the board fails, and is known to be wrong in any case."""
    try:
        return question()
    except DeviceError:
        if comparison.first_difference is None:
            raise
        return None


def _step_cost(place: _Place, comparison: Comparison) -> StepCost | None:
    """None where the board has no timer."""
    if place.timer is None:
        return None
    cost = comparison.ticks.cost(place.timer)
    if cost.of_runs:
        return cost
    ticks = _ask_after(comparison, place.session.output_ticks)
    return replace(cost, outputs=None if ticks is None else ticks / place.timer.ticks_per_unit)


def _deepest_stack(session: Session, comparison: Comparison) -> int | None:
    """In bytes; None where the board cannot say. Raises DeviceError for a stack that was too small."""
    stack = _ask_after(comparison, session.stack)
    if stack is None:
        return None
    if stack.overflown:
        raise DeviceError(
            f"{session.board.target}: the board's stack is too small, all its {stack.bytes} bytes were used, and what "
            "lies behind may be destroyed: nothing that it answered counts; give it more"
        )
    return stack.used or None
