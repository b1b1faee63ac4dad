"""Trials of a search, in a study of Optuna: its storage is what processes and machines share, and what is resumed."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from quantgru.errors import ConfigError, ModelError, QuantgruError
from quantgru.report.pareto import Candidate

if TYPE_CHECKING:
    import optuna

Worth = tuple[int, float]  # bytes of constants, and quality: what a trial finds

_POPULATION: Final = 16
_DIRECTIONS: Final = ("minimize", "maximize")  # of a Worth
_DIGEST: Final = "quantgru digest"  # an attribute of a study: what it is about
_REASON: Final = "quantgru error"  # an attribute of a trial: why it failed
_LOCK_TIMEOUT_S: Final = 60  # until another process has written to the same SQLite file


def require_optuna() -> None:
    """Raises ConfigError where it is not installed."""
    if find_spec("optuna") is None:
        raise ConfigError("search needs optuna, which is not installed: pip install quantgru[search]")


@contextmanager
def optuna_quiet() -> Iterator[None]:
    """Optuna tells of nothing meanwhile."""
    import optuna

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)


def open_study(storage: str | None, name: str, digest: str, seed: int) -> optuna.Study:
    """The study of this name, new or from an earlier run.

    storage  a URL of a database, or the path of a journal; None: in memory
    digest   of all that trials depend on

    Raises ConfigError where the storage cannot be used, and for a study of something else.
    """
    import optuna

    try:
        study = optuna.create_study(
            storage=_storage(storage), study_name=name, directions=_DIRECTIONS, load_if_exists=True
        )
        n_before, about = len(study.trials), study.user_attrs.get(_DIGEST)
    except Exception as error:  # of any database's driver
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(f"study {storage}: cannot be used ({reason[0]}); choose another file or URL") from None
    directions = tuple(direction.name.lower() for direction in study.directions)
    if about != digest and (about is not None or n_before or directions != _DIRECTIONS):
        raise ConfigError(
            f"study {name!r} in {storage}: of another model, or of other data, objectives or widths; choose another "
            "name or storage"
        )
    study.set_user_attr(_DIGEST, digest)
    state = np.random.SeedSequence([seed, n_before]).generate_state(1)  # going on is not trying the same again
    study.sampler = optuna.samplers.NSGAIISampler(population_size=_POPULATION, seed=int(state[0]))
    return study


def _storage(storage: str | None) -> Any:
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend

    if storage is None:
        return None
    if "://" not in storage:
        # Absolute: its lock is a symbolic link with this path as its target, which is looked for beside the lock.
        return JournalStorage(JournalFileBackend(os.path.abspath(storage)))
    options = {"connect_args": {"timeout": _LOCK_TIMEOUT_S}} if storage.startswith("sqlite") else None
    return RDBStorage(storage, engine_kwargs=options)


def enqueue_uniform(study: optuna.Study, sections: Sequence[str], widths: Sequence[int]) -> None:
    """One width for all, from the most bits down, before anything else: with as many trials, no result is worse."""
    from optuna.trial import TrialState

    known = [
        trial.system_attrs.get("fixed_params", trial.params)
        for trial in study.get_trials(deepcopy=False)
        if trial.state in (TrialState.COMPLETE, TrialState.WAITING) or _REASON in trial.user_attrs
    ]
    for bits in sorted(widths, reverse=True):
        if (uniform := dict.fromkeys(sections, bits)) not in known:
            study.enqueue_trial(uniform)


@dataclass(frozen=True, eq=False)
class Trials:
    """What is to be done: n trials, as many at a time as there are workers to `submit` to.

    progress  called with the number of trials that are finished since the last call
    """

    study: optuna.Study
    sections: Sequence[str]
    widths: Sequence[int]
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
        from optuna.distributions import BaseDistribution, CategoricalDistribution

        choices: dict[str, BaseDistribution] = {
            section: CategoricalDistribution(self.widths) for section in self.sections
        }
        running: dict[Future[Worth], optuna.Trial] = {}
        left = self.n
        while left or running:
            while left and len(running) < self.workers:
                trial = self.study.ask(choices)
                left -= 1
                running[_known(self.study, trial) or self.submit(trial.params)] = trial
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                _tell(self.study, running.pop(future), future)
                self.progress(1)
            if stopped.is_set():
                left = 0


def _known(study: optuna.Study, trial: optuna.Trial) -> Future[Worth] | None:
    """What these widths were worth in an earlier trial."""
    from optuna.trial import TrialState

    for earlier in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        if earlier.params == trial.params:
            future: Future[Worth] = Future()
            future.set_result((int(earlier.values[0]), earlier.values[1]))
            return future
    return None


def _tell(study: optuna.Study, trial: optuna.Trial, future: Future[Worth]) -> None:
    from optuna.trial import TrialState

    try:
        study.tell(trial, future.result())
    except QuantgruError as error:
        trial.set_user_attr(_REASON, str(error))
        study.tell(trial, state=TrialState.FAIL)


def tried(study: optuna.Study) -> list[Candidate]:
    """Different widths that were tried, first things first. Raises ModelError if all trials failed."""
    from optuna.trial import TrialState

    candidates = [_candidate(trial) for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))]
    if not candidates:
        failed = study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
        reasons = Counter(trial.user_attrs[_REASON] for trial in failed)
        ((reason, count),) = reasons.most_common(1)
        raise ModelError(f"search: all {len(failed)} trials failed, {count} of them for this reason: {reason}")
    return list({tuple(candidate.weight_bits.items()): candidate for candidate in candidates}.values())


def n_failed(study: optuna.Study) -> int:
    """Trials that gave no model."""
    from optuna.trial import TrialState

    return len(study.get_trials(deepcopy=False, states=(TrialState.FAIL,)))


def front(study: optuna.Study) -> list[Candidate]:
    """Those that none beats in both size and quality; of several with the same of both the first. Smallest first."""
    best = {trial.values[0]: _candidate(trial) for trial in reversed(study.best_trials)}
    return [best[flash_bytes] for flash_bytes in sorted(best)]


def _candidate(trial: optuna.trial.FrozenTrial) -> Candidate:
    return Candidate(dict(trial.params), int(trial.values[0]), trial.values[1])
