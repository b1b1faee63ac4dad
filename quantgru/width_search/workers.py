"""What one trial does, in this process or in several others."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context, parent_process

from quantgru.errors import ConfigError
from quantgru.int_model.cores import Core
from quantgru.int_model.cost import flash_bytes
from quantgru.quantizer.model import CalibratedModel
from quantgru.width_search.judge import Judge
from quantgru.width_search.study import Worth

_of_worker = threading.local()


@dataclass(frozen=True, eq=False)
class Problem:
    """A model, what is asked of it, and where its size counts."""

    calibrated: CalibratedModel
    judge: Judge
    threads: int
    core: Core

    def worth(self, weight_bits: Mapping[str, int]) -> Worth:
        """Of a model of these widths."""
        model = self.calibrated.quantize(weight_bits)
        return Worth(flash_bytes(model, self.core), *self.judge.worth(model, self.threads))


@contextmanager
def workers(
    calibrated: CalibratedModel, judge: Judge, n: int, core: Core
) -> Iterator[Callable[[Mapping[str, int]], Future[Worth]]]:
    """Yields the function that gives widths to one of n workers; a single one is a thread of this process.

    Raises ConfigError where a process ends before its time.
    """
    problem = Problem(calibrated, judge, max(1, (os.cpu_count() or 1) // n), core)
    executor: Executor
    if n == 1:
        executor = ThreadPoolExecutor(1, initializer=_begin, initargs=(problem,))
    else:
        executor = ProcessPoolExecutor(n, get_context("spawn"), _begin_process, (problem,))
    try:
        with executor:
            yield lambda weight_bits: executor.submit(_work, weight_bits)
    except BrokenProcessPool:
        raise ConfigError(
            "search: a worker process has ended; use fewer workers if memory was short, and in a script "
            "`if __name__ == '__main__':`"
        ) from None


def _begin(problem: Problem) -> None:
    _of_worker.problem = problem


def _begin_process(problem: Problem) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; who started this process ends it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _begin(problem)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(weight_bits: Mapping[str, int]) -> Worth:
    problem: Problem = _of_worker.problem
    return problem.worth(weight_bits)
