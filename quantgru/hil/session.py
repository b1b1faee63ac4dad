"""A session with a board: what PROTOCOL.md lets a host ask, with the answers checked. No port, no clock of its own.

Whatever the board or the line does wrong is a DeviceError; a session that raised one is of no more use.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from quantgru.errors import DeviceError
from quantgru.hil import messages
from quantgru.hil.frames import PROTOCOL_VERSION, Frame
from quantgru.hil.link import Credit, Link, Patience
from quantgru.hil.messages import (
    ERROR_REPLY,
    BoardDescription,
    ErrorReply,
    Int16Array,
    MessageError,
    Refusal,
    RunReply,
    StackUse,
    Steps,
    Summary,
)
from quantgru.hil.requests import (
    ARRAY_NAMES,
    ArrayName,
    Digest,
    Hello,
    Inputs,
    Load,
    Outputs,
    Read,
    Request,
    Reset,
    Run,
    Seed,
    Stack,
    Step,
    Stepping,
    Time,
    Type,
    Write,
    pack_request,
)
from quantgru.hil.transport import Transport
from quantgru.hil.upload import Upload
from quantgru.int_model import IntModel
from quantgru.int_model.contract import SPEC_MAJOR
from quantgru.int_model.versions import stated_minor

_Reply = TypeVar("_Reply")

_FLASH: Final = "export the model, build the test firmware of this version with it, and flash it"

# A frame that was answered sooner may be followed by one twice as long; after a slower one it is half as long.
_QUICK_S: Final = 0.2
_SLOW_S: Final = 0.8
_MEASURED_STEPS: Final = 16  # before the first whole sequence is run: it may be minutes of work
_MOST_SEEDED_STEPS: Final = 2**16 - 1


class Session:
    """One session with a board. `open` first."""

    def __init__(
        self,
        transport: Transport,
        patience: Patience | None = None,
        clock: Callable[[], float] = time.monotonic,
        number: int | None = None,
    ) -> None:
        """Its number is drawn; it is given, 1 ... 2^32 - 1, where a run must be the same each time."""
        self._name = transport.name
        self._clock = clock
        self._link = Link(transport, patience or Patience(), clock, number)
        self._board: BoardDescription | None = None
        self._steps_at_a_time = 1
        self._run_step_s: float | None = None  # of a run; known once there was one

    @property
    def repeats(self) -> int:
        """Requests that were sent again."""
        return self._link.repeats

    @property
    def damaged_frames(self) -> int:
        return self._link.damaged_frames

    @property
    def board(self) -> BoardDescription:
        """What the board said when the session was opened."""
        if self._board is None:
            raise DeviceError(f"{self._name}: the session is not open; open it first")
        return self._board

    def open(self, model: IntModel, upload: Upload | None = None) -> BoardDescription:
        """Opens the session; the board's state is reset. A board that takes models over the line is sent `upload`, if
        it has not got this model. Raises DeviceError if another one is on the board, or if the model does not fit."""
        description = self._ask(Hello(), messages.unpack_description)
        if upload is not None and description.model_room > 0 and description.digest != model.digest:
            description = self._send(upload, description)
        self._check_model(description, model)
        if description.stack.overflown:
            raise self._link.fail(
                f"the board's stack is too small: one step used all its {description.stack.bytes} bytes",
                "give it more, or use a model with fewer units",
            )
        self._board = description
        return description

    def _send(self, upload: Upload, board: BoardDescription) -> BoardDescription:
        if (refusal := upload.refusal(board)) is not None:
            raise self._link.fail(refusal, "use a smaller model, or export it and compile it in")
        self._write(list(upload.requests(board)), board)
        refused, description = self._ask(Load(len(upload.blob)), messages.unpack_load)
        if refused:
            raise self._link.fail(f"the board refuses the model that was sent (cause {refused} of PROTOCOL.md)", _FLASH)
        return description

    def check_deadline(self) -> None:
        """For what is done between two requests. Raises DeviceError once the time for everything together is up."""
        self._link.check_deadline()

    def reset(self) -> None:
        """Resets the model's state."""
        self._ask(Reset(), messages.unpack_nothing)

    def stack(self) -> StackUse:
        """How deep the board's stack has been."""
        return self._ask(Stack(), messages.unpack_stack)

    def output_ticks(self) -> int:
        """How long the outputs of the last step take, computed again."""
        return self._ask(Time(), messages.unpack_time)

    # ---- steps --------------------------------------------------------------------------------------------------

    def step(self, inputs: Int16Array) -> Steps:
        """Runs 1 ... board.steps_per_frame steps on raw inputs, int16 [steps, inputs]."""
        allowed = self.board.steps_per_frame
        if not 1 <= inputs.shape[0] <= allowed or inputs.shape[1:] != (self.board.n_inputs,):
            raise ValueError(f"inputs {inputs.shape}, allowed (1 ... {allowed}, {self.board.n_inputs})")
        request = Step(inputs)
        return self._ask(request, partial(messages.unpack_steps, request=request, n_outputs=self.board.n_outputs))

    def run(
        self, kind: type[Stepping], requests: Iterable[Stepping | Reset]
    ) -> Generator[tuple[Stepping, Steps | Summary]]:
        """The answer to each request of the kind; between them, RESET. As many are on their way as there is credit for.

        A request is taken when it can be sent: its size may follow `most_steps` of that moment.
        """
        sent: deque[Stepping | Reset] = deque()

        def packed() -> Iterator[tuple[int, bytes]]:
            for request in requests:
                sent.append(request)
                yield pack_request(request)

        with closing(self._link.exchange(packed(), self._credit(kind))) as replies:
            before = self._clock()
            for reply in replies:
                request = sent.popleft()
                answer = self._unpack(request, reply, partial(messages.unpack_answer, request, self.board))
                took_s = self._clock() - before
                if not isinstance(request, Reset):
                    assert answer is not None
                    self._adapt(request, took_s)
                    yield request, answer
                before = self._clock()

    def _credit(self, kind: type[Stepping]) -> Credit:
        """One request at a time where steps are timed one by one and the interrupts of the line would count."""
        if kind is Step and self.board.times_the_line:
            return Credit(reply_bytes=self.board.transmit_bytes)
        return Credit(self.board.credit, self.board.ahead_bytes, self.board.transmit_bytes)

    def most_steps(self, kind: type[Stepping]) -> int:
        """Steps to ask for in the next request: one at first, more as long as the board answers quickly.

        How fast a board is only shows when it runs. A full frame may be minutes of work to a small one, and then looks
        like a board that has stopped answering.
        """
        return min(self._steps_at_a_time, self._limit(kind))

    def _limit(self, kind: type[Stepping]) -> int:
        if kind is Seed:
            return _MOST_SEEDED_STEPS
        return self.board.steps_per_digest if kind is Digest else self.board.steps_per_frame

    def _adapt(self, request: Stepping, took_s: float) -> None:
        n_steps = request.n_steps
        if took_s < _QUICK_S and self._steps_at_a_time <= n_steps < self._limit(type(request)):
            self._steps_at_a_time = 2 * n_steps
        elif took_s > _SLOW_S:
            self._steps_at_a_time = max(1, n_steps // 2)

    # ---- whole sequences ----------------------------------------------------------------------------------------

    def require_steps(self, n_steps: int) -> None:
        """Raises DeviceError if the board holds no sequence of n_steps."""
        if n_steps > self.board.most_steps:
            raise self._link.fail(
                f"a sequence of {n_steps:,} steps, and the board holds {self.board.most_steps:,}",
                f"build its test firmware with -DMODEL_STEPS={n_steps}",
            )

    def run_sequence(self, inputs: Int16Array) -> RunReply:
        """Runs a sequence of raw inputs, int16 [steps, inputs], of which the board holds as many steps."""
        at_a_time = self.board.steps_per_digest
        starts = range(0, inputs.shape[0], at_a_time)
        self._write([Inputs(start, inputs[start : start + at_a_time]) for start in starts], self.board)
        if self._run_step_s is None:
            n_steps = min(inputs.shape[0], _MEASURED_STEPS)
            before = self._clock()
            self._run(n_steps, 0.0)
            self._run_step_s = (self._clock() - before) / n_steps
        return self._run(inputs.shape[0], self._run_step_s)

    def _run(self, n_steps: int, step_s: float) -> RunReply:
        """step_s is what a step takes, as far as that is known: a long run is waited for."""
        request = Run(n_steps)
        credit = Credit(reply_bytes=self.board.transmit_bytes, work_s=2 * n_steps * step_s)
        (reply,) = self._link.exchange([pack_request(request)], credit)
        return self._unpack(request, reply, partial(messages.unpack_run, request=request))

    def read_outputs(self, n_steps: int) -> Int16Array:
        """Outputs of the last run, int16 [n_steps, outputs]: of each step that it has, or of the only one."""
        at_a_time = self.board.steps_per_read
        parts: list[Int16Array] = []
        for start in range(0, n_steps, at_a_time):
            request = Outputs(start, min(at_a_time, n_steps - start))
            unpack = partial(messages.unpack_outputs, request=request, n_outputs=self.board.n_outputs)
            parts.append(self._ask(request, unpack))
        return np.concatenate(parts)

    # ---- arrays -------------------------------------------------------------------------------------------------

    def read(self) -> dict[ArrayName, npt.NDArray[np.integer]]:
        """State and gates of the last step: u, r, n, h, residual of all layers, one after the other."""
        return {array: self.read_array(array) for array in ARRAY_NAMES}

    def read_array(self, array: ArrayName) -> npt.NDArray[np.integer]:
        """One of them."""
        n_units = self.board.n_units
        parts: list[npt.NDArray[np.integer]] = []
        n_read = 0
        while n_read < n_units:
            request = Read(array, n_read)
            parts.append(self._ask(request, partial(messages.unpack_values, request=request, n_units=n_units)))
            n_read += parts[-1].size
        return np.concatenate(parts)

    # ---- requests -----------------------------------------------------------------------------------------------

    def _ask(self, request: Request, unpack: Callable[[bytes], _Reply]) -> _Reply:
        """The answer to a request that is sent alone."""
        credit = Credit(reply_bytes=self._board.transmit_bytes if self._board else 0)
        (reply,) = self._link.exchange([pack_request(request)], credit)
        return self._unpack(request, reply, unpack)

    def _write(self, requests: Sequence[Write | Inputs], board: BoardDescription) -> None:
        """As many requests on their way as there is credit for; the replies say nothing."""
        credit = Credit(board.credit, board.ahead_bytes, board.transmit_bytes)
        replies = self._link.exchange(map(pack_request, requests), credit)
        for request, reply in zip(requests, replies, strict=True):
            self._unpack(request, reply, messages.unpack_nothing)

    def _unpack(self, request: Request, reply: Frame, unpack: Callable[[bytes], _Reply]) -> _Reply:
        type_, _ = pack_request(request)
        try:
            if reply.type == ERROR_REPLY:
                raise self._refused(type_, messages.unpack_error(reply.payload))
            return unpack(reply.payload)
        except MessageError as error:
            raise self._link.fail(f"the reply to {type_.name} is not what PROTOCOL.md says ({error})", _FLASH) from None

    def _refused(self, type_: Type, error: ErrorReply) -> DeviceError:
        match error.code:
            case Refusal.NO_SESSION:
                what, next_step = "the board was reset in mid-run, its session is gone", "check power and watchdog"
            case Refusal.OTHER_SESSION:
                what, next_step = "another program has opened a session with the board", "end it, then run again"
            case Refusal.VERSION:
                what = f"the board speaks protocol {error.expected}, this program {PROTOCOL_VERSION}"
                next_step = _FLASH
            case _:
                what = f"the board refused {type_.name}: {error.code.name.lower()}, it expected {error.expected}"
                next_step = _FLASH
        return self._link.fail(what, next_step)

    def _check_model(self, board: BoardDescription, model: IntModel) -> None:
        if not board.has_model:
            next_step = "send it: quantgru hil --send" if model.streaming else "export it, and compile it in"
            raise self._link.fail("there is no model on the board yet", next_step)
        if board.spec_major != SPEC_MAJOR or board.digest != model.digest:
            found = f"digest {board.digest.hex()} (SPEC {board.spec_major}.{board.spec_minor})"
            expected = f"{model.digest.hex()} (SPEC {SPEC_MAJOR}.{stated_minor(model)})"
            raise self._link.fail(f"another model is on the board: {found}, expected {expected}", _FLASH)
        sizes = (board.n_inputs, board.n_outputs, board.n_units)
        allowed = (model.n_inputs, model.n_outputs, model.n_units)
        if sizes != allowed:
            raise self._link.fail(f"(inputs, outputs, units) of the board are {sizes}, expected {allowed}", _FLASH)
