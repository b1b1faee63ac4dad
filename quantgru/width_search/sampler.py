"""What a search tries next: widths to begin with, then children of the best ones, by NSGA-II."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from optuna.samplers import NSGAIISampler
from optuna.trial import TrialState

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

_POPULATION: Final = 16
_LOST_AFTER: Final = 64  # trials that began later and are finished: more than others run at the same time


class StartsSampler(NSGAIISampler):
    """Optuna's own, whose first trials are `starts`, each once: trials of them count as others do.

    They are not enqueued in the study: each of several processes that begin at the same time would do so.

    choices  of all trials
    """

    def __init__(self, choices: Mapping[str, BaseDistribution], seed: int) -> None:
        super().__init__(population_size=_POPULATION, seed=seed)
        self.starts: list[Mapping[str, int]] = []
        self._choices = choices

    def left(self, trials: Sequence[FrozenTrial]) -> list[Mapping[str, int]]:
        """Starts that none of these trials of a study has: finished, or under way and not lost."""
        finished = [trial for trial in trials if trial.state.is_finished()]
        tried = {self._widths(trial.params) for trial in [*finished, *_under_way(trials)]}
        return [weight_bits for weight_bits in self.starts if self._widths(weight_bits) not in tried]

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """That of all trials; not what those before have in common, of which the first one has none."""
        return {section: choice for section, choice in self._choices.items() if not choice.single()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Widths of a new trial. Of those that others begin just now nothing is known yet: they take the first ones."""
        child = super().sample_relative(study, trial, search_space)
        trials = study.get_trials(deepcopy=False)
        left = self.left(trials)
        if not left:
            return child
        n_beginning = sum(len(other.params) < len(self._choices) for other in _under_way(trials[: trial.number]))
        return dict(left[min(n_beginning, len(left) - 1)])

    def _widths(self, weight_bits: Mapping[str, int]) -> tuple[int | None, ...]:
        return tuple(weight_bits.get(section) for section in self._choices)


def _under_way(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Those that are, unless they were lost with a process that was killed."""
    finished = np.array([trial.number for trial in trials if trial.state.is_finished()])
    running = [trial for trial in trials if trial.state == TrialState.RUNNING]
    return [trial for trial in running if (finished > trial.number).sum() < _LOST_AFTER]
