"""What a search tries next: mixes to begin with, each of them once, then children of the best ones, by NSGA-II."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from optuna.samplers import NSGAIISampler
from optuna.trial import TrialState

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

_POPULATION: Final = 16


class StartsSampler(NSGAIISampler):
    """Optuna's own, whose first trials are `starts`: trials of them count as others do.

    They are not enqueued in the study: each of several processes that begin at the same time would do so.

    choices  of all trials
    counts   whether a trial has its widths for good: a process was killed in the midst of some
    """

    def __init__(
        self, choices: Mapping[str, BaseDistribution], counts: Callable[[FrozenTrial], bool], seed: int
    ) -> None:
        super().__init__(population_size=_POPULATION, seed=seed)
        self.starts: list[Mapping[str, int]] = []
        self._choices, self._counts = choices, counts

    def left(self, trials: Sequence[FrozenTrial]) -> list[Mapping[str, int]]:
        """Starts that none of these trials of a study has."""
        tried = {self._widths(trial.params) for trial in trials if self._counts(trial)}
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
        n_beginning = sum(self._begins(other) for other in trials[: trial.number])
        return dict(left[min(n_beginning, len(left) - 1)])

    def _begins(self, trial: FrozenTrial) -> bool:
        return trial.state == TrialState.RUNNING and self._counts(trial) and len(trial.params) < len(self._choices)

    def _widths(self, weight_bits: Mapping[str, int]) -> tuple[int | None, ...]:
        return tuple(weight_bits.get(section) for section in self._choices)
