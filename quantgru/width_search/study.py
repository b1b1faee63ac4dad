"""What is known of widths that were tried: a study of Optuna, which processes share, and which is resumed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from quantgru.errors import ConfigError, ModelError, QuantgruError
from quantgru.report.pareto import Candidate
from quantgru.width_search.storage import open_storage, reason, shown

if TYPE_CHECKING:
    import optuna

_DIRECTIONS: Final = ("minimize", "maximize")  # of a Worth
_ABOUT: Final = "quantgru search"  # an attribute of a study: what its trials depend on
_MIXES: Final = "quantgru mixes"  # another: what is tried after uniform widths
_OUTPUT_DB: Final = "quantgru output dB"  # an attribute of a trial, as the next one
_REASON: Final = "quantgru error"  # why it failed


class Worth(NamedTuple):
    """What a trial finds: flash, what the search goes by, and the SQNR of the outputs."""

    flash_bytes: int
    quality: float
    output_db: float


def require_packages() -> None:
    """Raises ConfigError where one is not installed."""
    for name in ("optuna", "scipy"):
        if find_spec(name) is None:
            raise ConfigError(f"search needs {name}, which is not installed: pip install quantgru[search]")


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


class Study:
    """Trials of the widths of `sections`, new or with those of earlier runs.

    storage  the path of a journal, or a URL of a database; None: in memory
    about    what trials depend on, or digests of it, by the names of these things

    Raises ConfigError where the storage cannot be used, for a study of something else, which is left as it is, and from
    any method where the storage fails.
    """

    def __init__(
        self,
        storage: str | None,
        name: str,
        about: Mapping[str, str],
        seed: int,
        sections: Sequence[str],
        widths: Sequence[int],
    ) -> None:
        from optuna.distributions import BaseDistribution, CategoricalDistribution

        from quantgru.width_search.sampler import StartsSampler

        self._storage, self._sections = storage, sections
        self._choices: dict[str, BaseDistribution] = {section: CategoricalDistribution(widths) for section in sections}
        try:
            self._study = _opened(storage, name)
            before, kept = self._study.get_trials(deepcopy=False), self._study.user_attrs.get(_ABOUT)
        except Exception as error:  # of any database's driver
            found = reason(error, storage)
            raise ConfigError(f"study {shown(storage)}: cannot be used ({found}); choose another file or URL") from None
        if problem := self._not_about(about, kept, before):
            raise ConfigError(f"study {name!r} in {shown(storage)}: {problem}; choose another name or storage")
        self.n_kept = sum(trial.state.is_finished() for trial in before)
        state = np.random.SeedSequence([seed, len(before)]).generate_state(1)  # going on is not trying the same again
        self._sampler = StartsSampler(self._choices, int(state[0]))
        self._sampler.starts += [dict.fromkeys(sections, bits) for bits in sorted(widths, reverse=True)]
        self._study.sampler = self._sampler
        with self._in_use():
            if kept is None:
                self._study.set_user_attr(_ABOUT, dict(about))

    def n_starts_left(self) -> int:
        """Widths to begin with that no trial has."""
        with self._in_use():
            return len(self._sampler.left(self._study.get_trials(deepcopy=False)))

    def begin_mixes(self, find: Callable[[], Sequence[Mapping[str, int]]]) -> None:
        """What is tried after uniform widths: mixes that the study has, of another process or run, or else new ones."""
        kept = self._kept_mixes()
        if kept is None:
            mixes = [[weight_bits[section] for section in self._sections] for weight_bits in find()]
            kept = self._kept_mixes()  # another process may have found them meanwhile
            if kept is None:
                kept = mixes
                with self._in_use():
                    self._study.set_user_attr(_MIXES, kept)
        self._sampler.starts += [dict(zip(self._sections, mix, strict=True)) for mix in kept]

    def ask(self) -> optuna.Trial:
        """A new trial, with its widths as parameters."""
        with self._in_use():
            return self._study.ask(self._choices)

    def _not_about(self, about: Mapping[str, str], kept: Any, before: Sequence[optuna.trial.FrozenTrial]) -> str | None:
        """What is wrong with a study that another search has begun, or something else."""
        directions = tuple(direction.name.lower() for direction in self._study.directions)
        if directions != _DIRECTIONS or not isinstance(kept, dict | None) or (before and kept is None):
            return "not begun by this version of quantgru search"
        if kept is None:
            return None
        # One of them may have no labels.
        others = [name for name, value in about.items() if kept.get(name, value) != value]
        return f"begun by a search that differs in {', '.join(others)}" if others else None

    def _kept_mixes(self) -> list[list[int]] | None:
        with self._in_use():
            return self._study.user_attrs.get(_MIXES)

    def known(self, weight_bits: Mapping[str, int]) -> Worth | None:
        """What these widths were worth in an earlier trial."""
        for earlier in self._complete():
            if earlier.params == weight_bits:
                return _worth(earlier)
        return None

    def tell(self, trial: optuna.Trial, found: Worth | QuantgruError) -> None:
        """What its widths are worth, or why they give no model."""
        from optuna.trial import TrialState

        with self._in_use():
            if isinstance(found, QuantgruError):
                trial.set_user_attr(_REASON, str(found))
                self._study.tell(trial, state=TrialState.FAIL)
            else:
                trial.set_user_attr(_OUTPUT_DB, found.output_db)
                self._study.tell(trial, (found.flash_bytes, found.quality))
        self.n_kept += 1

    def tried(self) -> list[Candidate]:
        """Different widths that were tried, first things first. Raises ModelError if all trials failed."""
        candidates = [self._candidate(trial) for trial in self._complete()]
        if not candidates:
            failed = self._failed()
            ((why, count),) = Counter(trial.user_attrs.get(_REASON, "not known") for trial in failed).most_common(1)
            raise ModelError(f"search: all {len(failed)} trials failed, {count} of them for this reason: {why}")
        return list({tuple(candidate.weight_bits.values()): candidate for candidate in candidates}.values())

    def n_failed(self) -> int:
        """Trials that gave no model, or of which the storage has lost a part."""
        return len(self._failed())

    def front(self) -> list[Candidate]:
        """Those that none beats in both size and quality; of equal ones the first. Smallest first."""
        found: list[Candidate] = []
        for one in sorted(self.tried(), key=lambda one: (one.flash_bytes, -one.quality)):
            if not found or one.quality > found[-1].quality:
                found.append(one)
        return found

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        """Meanwhile, all that fails is the storage. Raises ConfigError then."""
        try:
            yield
        except Exception as error:  # of any database's driver
            raise ConfigError(
                f"study {shown(self._storage)}: has failed after {self.n_kept:,} trials "
                f"({reason(error, self._storage)}); repair or restore it, and the same search goes on with all that it "
                "holds"
            ) from None

    def _complete(self) -> list[optuna.trial.FrozenTrial]:
        return [trial for trial in self._finished() if self._is_whole(trial)]

    def _failed(self) -> list[optuna.trial.FrozenTrial]:
        return [trial for trial in self._finished() if not self._is_whole(trial)]

    def _finished(self) -> list[optuna.trial.FrozenTrial]:
        with self._in_use():
            trials = self._study.get_trials(deepcopy=False)
        return [trial for trial in trials if trial.state.is_finished()]

    def _is_whole(self, trial: optuna.trial.FrozenTrial) -> bool:
        """Whether it gave a model, and all of it is there: lines and rows of storages may be lost."""
        from optuna.trial import TrialState

        return (
            trial.state == TrialState.COMPLETE
            and trial.params.keys() >= set(self._sections)
            and len(trial.values or ()) == len(_DIRECTIONS)
            and _OUTPUT_DB in trial.user_attrs
        )

    def _candidate(self, trial: optuna.trial.FrozenTrial) -> Candidate:
        """Storages have their own order of parameters."""
        weight_bits = {section: trial.params[section] for section in self._sections}
        return Candidate(weight_bits, *_worth(trial))


def _worth(trial: optuna.trial.FrozenTrial) -> Worth:
    return Worth(int(trial.values[0]), trial.values[1], trial.user_attrs[_OUTPUT_DB])


def _opened(storage: str | None, name: str) -> optuna.Study:
    """Nothing is written where the study is there."""
    import optuna

    opened = open_storage(storage)
    if opened is not None and name in optuna.get_all_study_names(opened):
        return optuna.load_study(storage=opened, study_name=name)
    return optuna.create_study(storage=opened, study_name=name, directions=_DIRECTIONS, load_if_exists=True)
