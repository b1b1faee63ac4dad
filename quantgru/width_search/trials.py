"""Trials of a search, one after the other or several at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantgru.errors import QuantgruError
from quantgru.width_search.study import Study, Worth

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True, eq=False)
class Trials:
    """What is to be done: n trials, as many at a time as there are workers to `submit` to.

    progress  called with the number of trials that are finished since the last call
    """

    study: Study
    n: int
    workers: int
    submit: Callable[[Mapping[str, int]], Future[Worth]]
    progress: Callable[[int], None]

    def run(self) -> None:
        """Runs them all. An interrupt lets those that are under way come to their end, and be kept."""
        stopped = threading.Event()
        with ThreadPoolExecutor(1) as executor:  # an interrupt, which the main thread gets, must not break a storage
            finished = executor.submit(self._run, stopped)
            try:
                finished.result()
            finally:
                stopped.set()

    def _run(self, stopped: threading.Event) -> None:
        running: dict[Future[Worth], optuna.Trial] = {}
        left = self.n
        while running or (left and not stopped.is_set()):
            while left and len(running) < self.workers and not stopped.is_set():
                trial = self.study.ask()
                left -= 1
                running[self._begin(trial.params)] = trial
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                self.study.tell(running.pop(future), _found(future))
                self.progress(1)

    def _begin(self, weight_bits: Mapping[str, int]) -> Future[Worth]:
        known = self.study.known(weight_bits)
        if known is None:
            return self.submit(weight_bits)
        future: Future[Worth] = Future()
        future.set_result(known)
        return future


def _found(future: Future[Worth]) -> Worth | QuantgruError:
    try:
        return future.result()
    except QuantgruError as error:
        return error
