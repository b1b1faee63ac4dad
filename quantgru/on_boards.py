"""A model on several boards at once, each in a process of its own."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from multiprocessing import get_context, parent_process, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, Final

from quantgru.errors import QuantgruError, QuantgruWarning
from quantgru.int_model import IntModel
from quantgru.int_model.cost import cost
from quantgru.on_board import BoardResult, By, Target, run_on_board, run_seeded_on_board, warn_of_clipped
from quantgru.sequences import Sequences

_END_TIMEOUT_S: Final = 2.0  # to end an emulator and remove a folder
_RESULT_NAMES: Final = (*(field.name for field in fields(BoardResult)), "clipped_share")  # of BoardResult.to_json


@dataclass(frozen=True)
class Work:
    """What every board is to do: run sequences, compared `by`; or run n_seeded steps on inputs of its own."""

    model: IntModel
    sequences: Sequences | None
    n_seeded: int = 0
    seed: int = 1
    by: By = "outputs"
    send: bool = False
    timeout_s: float | None = None
    deadline_s: float | None = None

    @property
    def n_steps(self) -> int:
        return self.n_seeded if self.sequences is None else self.sequences.n_steps

    def to_json(self) -> dict[str, Any]:
        """What was run, as JSON values; the sequences are not in it."""
        seeded = self.sequences is None
        return {
            "model": self.model.name,
            "digest": self.model.digest.hex(),
            "step_macs": cost(self.model).step_macs,
            "by": "digests" if seeded else self.by,
            "steps": self.n_seeded if seeded else None,
            "seed": self.seed if seeded else None,
            "send": self.send,
        }


@dataclass(frozen=True)
class Outcome:
    """How a board's run ended: with a result, or with what was wrong."""

    target: Target
    result: BoardResult | None
    error: str | None
    seconds: float

    @property
    def equal(self) -> bool:
        return self.result is not None and self.result.equal

    def to_json(self) -> dict[str, Any]:
        """The outcome as JSON values, with the same names however the run ended."""
        where: dict[str, Any] = {"board": None, "port": None, self.target.kind: self.target.name}
        where["packing"] = self.target.packing if self.target.kind == "board" else None
        found = dict.fromkeys(_RESULT_NAMES) if self.result is None else self.result.to_json()
        return {**where, **found, "equal": self.equal, "error": self.error, "seconds": round(self.seconds, 3)}


def run_target(work: Work, target: Target, progress: Callable[[int], None]) -> Outcome:
    """One board, in this process. `progress` is called with the number of steps compared since its last call."""
    start = time.monotonic()
    try:
        result, error = _run(work, target, progress), None
    except QuantgruError as caught:
        result, error = None, str(caught)
    return Outcome(target, result, error, time.monotonic() - start)


def _run(work: Work, target: Target, progress: Callable[[int], None]) -> BoardResult:
    where: dict[str, Any] = {
        target.kind: target.name,
        "baud": target.baud,
        "packing": target.packing,
        "send": work.send,
        "timeout_s": work.timeout_s,
        "deadline_s": work.deadline_s,
        "progress": progress,
    }
    if work.sequences is None:
        return run_seeded_on_board(work.model, work.n_seeded, seed=work.seed, **where)
    return run_on_board(work.model, work.sequences, by=work.by, **where)


# ---- several -----------------------------------------------------------------------------------------------------


def run_on_boards(
    work: Work, targets: Sequence[Target], progress: Callable[[int, int], None] = lambda target, steps: None
) -> list[Outcome]:
    """All boards at once, but emulated ones no more than there are cores. The outcomes in the order of `targets`.

    `progress` is called with the number of a target and that of its steps compared since its last call. Whatever
    interrupts it ends all processes first.
    """
    outcomes: dict[int, Outcome] = {}
    waiting = deque(sorted(range(len(targets)), key=lambda number: targets[number].kind == "board"))  # ports first
    running: dict[Connection, _Process] = {}
    try:
        while waiting or running:
            while waiting and _has_core(targets[waiting[0]], running):
                process = _Process(work, waiting[0], targets[waiting[0]])
                running[process.told] = process
                waiting.popleft()
            for told in wait(list(running)):
                process = running[told]  # type: ignore[index]
                said = process.hear()
                if isinstance(said, Outcome):
                    outcomes[process.number] = said
                    running.pop(process.told).end()
                else:
                    progress(process.number, said)
    finally:
        for process in running.values():
            process.stop()
        for process in running.values():
            process.end()
    ordered = [outcomes[number] for number in range(len(targets))]
    if found := [outcome.result for outcome in ordered if outcome.result is not None]:
        warn_of_clipped(found[0])  # the inputs are the same for all
    return ordered


def _has_core(target: Target, running: dict[Connection, _Process]) -> bool:
    emulated = sum(process.target.kind == "board" for process in running.values())
    return target.kind == "port" or emulated < (os.cpu_count() or 1)


class _Process:
    """A process that runs one board and tells how far it is, then its outcome."""

    def __init__(self, work: Work, number: int, target: Target) -> None:
        self.number = number
        self.target = target
        self._start = time.monotonic()
        spawn = get_context("spawn")
        self.told, tells = spawn.Pipe(duplex=False)
        self._process: SpawnProcess = spawn.Process(target=_run_in_process, args=(work, target, tells), daemon=True)
        with _interrupts_blocked():
            self._process.start()
        tells.close()

    def hear(self) -> int | Outcome:
        """What it says next; waits for it. A process that was killed has an outcome, too."""
        try:
            said: int | Outcome = self.told.recv()
        except (EOFError, OSError):
            self._process.join(_END_TIMEOUT_S)
            error = f"{self.target.kind} {self.target.name}: its process ended with status {self._process.exitcode}"
            return Outcome(self.target, None, error, time.monotonic() - self._start)
        return said

    def stop(self) -> None:
        """Asks it to end now."""
        self._process.terminate()

    def end(self) -> None:
        """Waits until it has ended, and does not wait long."""
        self._process.join(_END_TIMEOUT_S)
        self._process.kill()
        self._process.join()
        self.told.close()


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """For starting a process that is not to see Ctrl-C, which goes to every process of a terminal: who started it ends
    it, and says so once. What is blocked stays so in the new process."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # which the first process would start, and that unblocks SIGINT
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _run_in_process(work: Work, target: Target, tells: Connection) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # through the `with` blocks: emulators end, folders vanish
    threading.Thread(target=_end_with_parent, daemon=True).start()
    warnings.simplefilter("ignore", QuantgruWarning)  # said once, by the first process
    tells.send(run_target(work, target, tells.send))


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
