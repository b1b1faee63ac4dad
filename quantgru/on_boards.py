"""A model on several boards at once, each in a process of its own."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from queue import Empty, Queue
from typing import Any, Final, Literal

from quantgru.errors import QuantgruError
from quantgru.int_model import IntModel
from quantgru.on_board import BoardResult, By, run_on_board, run_seeded_on_board
from quantgru.sequences import Sequences

_POLL_S: Final = 0.1


@dataclass(frozen=True)
class Target:
    """A board to build and start here, by name, or a port with one."""

    kind: Literal["board", "port"]
    name: str


@dataclass(frozen=True)
class Work:
    """What every board is to do: run sequences, compared `by`; or run n_seeded steps on inputs of its own."""

    model: IntModel
    sequences: Sequences | None
    n_seeded: int = 0
    seed: int = 1
    by: By = "outputs"
    timeout_s: float | None = None
    deadline_s: float | None = None

    @property
    def n_steps(self) -> int:
        return self.n_seeded if self.sequences is None else self.sequences.n_steps


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
        """The outcome as JSON values."""
        found = {"equal": False, "error": self.error} if self.result is None else self.result.to_json()
        return {self.target.kind: self.target.name, **found, "seconds": round(self.seconds, 3)}


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
        "timeout_s": work.timeout_s,
        "deadline_s": work.deadline_s,
        "progress": progress,
    }
    if work.sequences is None:
        return run_seeded_on_board(work.model, work.n_seeded, seed=work.seed, **where)
    return run_on_board(work.model, work.sequences, by=work.by, **where)


def run_on_boards(
    work: Work, targets: Sequence[Target], progress: Callable[[int, int], None] = lambda target, steps: None
) -> list[Outcome]:
    """All boards at once, but emulated ones no more than there are cores. The outcomes in the order of `targets`.

    `progress` is called with the number of a target and that of its steps compared since its last call.
    """
    n_ports = sum(target.kind == "port" for target in targets)
    n_processes = min(len(targets), n_ports + (os.cpu_count() or 1))
    spawn = get_context("spawn")
    with spawn.Manager() as manager, ProcessPoolExecutor(n_processes, spawn) as pool:
        told: Queue[tuple[int, int]] = manager.Queue()
        runs = [pool.submit(_run_in_process, work, target, i, told) for i, target in enumerate(targets)]
        try:
            _tell(runs, told, progress)
            return [run.result() for run in runs]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _run_in_process(work: Work, target: Target, number: int, told: Queue[tuple[int, int]]) -> Outcome:
    return run_target(work, target, lambda steps: told.put((number, steps)))


def _tell(runs: Sequence[Future[Outcome]], told: Queue[tuple[int, int]], progress: Callable[[int, int], None]) -> None:
    """Passes on what the processes tell, until all have ended."""
    left = set(runs)
    while left:
        _, left = wait(left, _POLL_S, FIRST_COMPLETED)
        while True:
            try:
                progress(*told.get_nowait())
            except Empty:
                break
