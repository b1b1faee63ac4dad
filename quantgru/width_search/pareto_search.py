"""The search itself: what is tried, on how many processes, and which of the models is chosen."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, get_args

import numpy.typing as npt

from quantgru.errors import ConfigError, ModelError
from quantgru.int_model import IntModel
from quantgru.int_model.cores import ANY, Core, check_core
from quantgru.int_model.cost import flash_bytes
from quantgru.int_model.packing import Packing, packing_for
from quantgru.int_model.row_parameters import RowParametersName
from quantgru.model import FloatModel
from quantgru.quantizer.model import CalibratedModel, calibrate_model
from quantgru.quantizer.widths import DEFAULT_BITS, LEAST_BITS, section_names
from quantgru.report.pareto import Candidate
from quantgru.sequences import Sequences, SequencesLike, StatesLike
from quantgru.width_search.about import about, arrays_of
from quantgru.width_search.choice import best_within, smallest_within
from quantgru.width_search.judge import Judge, Labels, Objective, judge_of
from quantgru.width_search.mixes import likely_mixes
from quantgru.width_search.study import Study, optuna_quiet, require_packages
from quantgru.width_search.trials import Trials
from quantgru.width_search.workers import workers as start_workers

_MOST_BITS: Final = DEFAULT_BITS  # more are for models that need them everywhere
ROW_PARAMETERS: Final[RowParametersName] = "short"  # unless said otherwise: few bits for them, too
UNITS: Final[dict[Objective, str]] = {"accuracy": "%", "sqnr": "dB", "agreement": "%"}  # of the quality
WITHIN: Final[dict[Objective, float]] = {"accuracy": 0.3, "sqnr": 6.0, "agreement": 0.5}  # unless said otherwise


@dataclass(frozen=True, eq=False)
class SearchResult:
    """What a search found, with what earlier runs of the same study have found.

    model      the chosen one
    row_parameters  of all models
    core       on which sizes are as said
    chosen     its widths, its size, and what it is worth
    because    why it is the chosen one
    front      those that none beats in both size and quality, smallest first; of the chosen one's size that one, which
               others may beat by luck with labels
    tried      all different ones
    reference  what the float model is worth; infinite for an SQNR
    labels     of the chosen model on x, and how far from what it loses there, beside the float model, it may be on
               other data. None for an SQNR, and for a label at each step
    n_failed   trials that gave no model
    """

    model: IntModel
    objective: Objective
    row_parameters: RowParametersName
    core: Core
    chosen: Candidate
    because: str
    front: tuple[Candidate, ...]
    tried: tuple[Candidate, ...]
    reference: float
    labels: Labels | None
    n_failed: int

    @property
    def quality(self) -> str:
        """What the quality is: for reports."""
        return {"accuracy": "accuracy", "sqnr": "output SQNR", "agreement": "labels as float"}[self.objective]

    @property
    def unit(self) -> str:
        """Of the quality."""
        return UNITS[self.objective]

    @property
    def packing(self) -> Packing:
        """With which an export of the model has its size: "auto", if that is the same as what `core` wants."""
        wanted = packing_for(self.model, self.core)
        return "auto" if wanted == packing_for(self.model) else wanted

    def to_json(self) -> dict[str, Any]:
        """The result as JSON values."""
        return {
            "digest": self.model.digest.hex(),
            "objective": self.objective,
            "unit": self.unit,
            "row_parameters": self.row_parameters,
            "core": self.core,
            "packing": self.packing,
            "float": self.reference if math.isfinite(self.reference) else None,
            "chosen": self.chosen.to_json(),
            "because": self.because,
            "front": [candidate.to_json() for candidate in self.front],
            "labels": None if self.labels is None else {"changed": self.labels.changed, "n": self.labels.n},
            "tried": [candidate.to_json() for candidate in self.tried],
            "failed": self.n_failed,
        }


def search(
    model: FloatModel,
    calibration: SequencesLike | Sequences,
    x: SequencesLike | Sequences,
    labels: npt.ArrayLike | None = None,
    *,
    objective: Objective = "sqnr",
    trials: int = 200,
    widths: Sequence[int] = range(LEAST_BITS, _MOST_BITS + 1),
    within: float | None = None,
    flash: int | None = None,
    study: str | os.PathLike[str] | None = None,
    study_name: str = "search",
    workers: int = 1,
    seed: int = 0,
    row_parameters: RowParametersName = ROW_PARAMETERS,
    core: Core = ANY,
    mean: npt.ArrayLike | None = None,
    scale: npt.ArrayLike | None = None,
    initial_states: StatesLike | None = None,
    name: str | None = None,
    progress: Callable[[int], None] = lambda n: None,
) -> SearchResult:
    """Tries widths for each gate of each matrix and for each dense layer, and chooses a small model that is good on x.

    Where labels decide, the best of many models of like errors is best on x by luck. So the chosen one is as good as
    asked, and models of its SQNR are, too, in the mean; and of its size it has the most bits: a model whose codes are
    not packed has one size for all widths. With `flash`, it has the most bits of those that lack no more of the best
    one of their size than `within` allows by default.

    x           [sequences, steps, inputs], not the calibration data; what is good on it must prove so on other data
    labels      integers [sequences], the numbers of the right outputs, for the objective "accuracy"
    objective   "accuracy", or "agreement" with the float model's labels, or "sqnr" of the outputs
    trials      of this run; one width for all, from the most bits down, comes first, then mixes that are likely to be
                good, by what each gate or dense layer does to the outputs when it alone has 4 bits: a model more for
                each of these
    widths      that may be given, of 2 ... 8 bits
    within      the smallest model is chosen that lacks at most so much: points (hundredths) of the float model's
                accuracy, or of full agreement, or dB of the best SQNR. None: 0.3 points, 0.5 points, 6 dB
    flash       instead: the best model is chosen of those with at most so many bytes of constants, and of code to
                unpack weights on `core`
    study       where trials are kept, to go on later or to share them with other machines: the path of a journal, or
                the URL of a database as Optuna takes it, "sqlite:///study.db". None: in memory
    workers     processes; more than one need a script that can be imported (`if __name__ == "__main__":`)
    seed        the same search gives the same result, with one worker; machines that share a study need different ones
    row_parameters  of all models, as in `quantize`
    core        sizes are those on it, with codes packed where that takes less; "any": what they are on any core at most
    progress    called, from any thread, with the number of trials that are finished since the last call

    `calibration` and what is not named here are as in `quantize`. Raises ConfigError, DataError, ModelError: also where
    all trials failed, and for a study of something else.
    """
    require_packages()
    _check(objective, trials, widths, workers, seed, within, flash, core)
    widths = sorted(set(widths))
    calibrated = calibrate_model(
        model,
        calibration,
        mean=mean,
        scale=scale,
        initial_states=initial_states,
        row_parameters=row_parameters,
        name=name,
    )
    judge = judge_of(calibrated.float_model, x, labels, objective)
    states = {f"initial_state{i}": state for i, state in enumerate(initial_states or ())}
    data = {
        "calibration data": {**arrays_of(model.sequences(calibration)), **states},
        "standardisation": {"mean": mean, "scale": scale},
        "input data": arrays_of(judge.sequences),
        **({"labels": {"labels": labels}} if objective == "accuracy" else {}),
    }
    options = {"objective": objective, "widths": repr(widths), "row parameters": row_parameters, "core": core}
    names = section_names(calibrated.float_model)
    if flash is not None:
        _check_flash(calibrated, dict.fromkeys(names, widths[0]), flash, core)
    with optuna_quiet(), start_workers(calibrated, judge, workers, core) as submit:
        storage = None if study is None else os.fspath(study)
        opened = Study(storage, study_name, about(model, data, options), seed, names, widths)
        if trials > opened.n_starts_left():
            opened.begin_mixes(partial(_mixes, calibrated, judge, widths, core))
        Trials(opened, trials, workers, submit, progress).run()
        candidates, best, failed = opened.tried(), opened.front(), opened.n_failed()
    chosen, because = _choice(best, candidates, objective, within, flash, judge.reference)
    others = (one for one in best if one.flash_bytes != chosen.flash_bytes)
    front = tuple(sorted((*others, chosen), key=lambda one: one.flash_bytes))
    int_model = calibrated.quantize(chosen.weight_bits)
    return SearchResult(
        int_model,
        objective,
        row_parameters,
        core,
        chosen,
        because,
        front,
        tuple(candidates),
        judge.reference,
        judge.labels(int_model),
        failed,
    )


def _check(
    objective: str,
    trials: int,
    widths: Sequence[int],
    workers: int,
    seed: int,
    within: float | None,
    flash: int | None,
    core: str,
) -> None:
    """Raises ConfigError."""
    if objective not in get_args(Objective):
        raise ConfigError(f"search: objective {objective!r}, allowed are {', '.join(get_args(Objective))}")
    check_core(core)
    for what, number, least in (("trials", trials, 1), ("workers", workers, 1), ("seed", seed, 0)):
        if type(number) is not int or number < least:
            raise ConfigError(f"search: {what} {number!r}, expected a whole number, {least} or more")
    allowed = range(LEAST_BITS, _MOST_BITS + 1)
    if not len(widths) or any(type(bits) is not int or bits not in allowed for bits in widths):
        raise ConfigError(f"search: widths {list(widths)!r}, expected some of {LEAST_BITS} ... {_MOST_BITS} bits")
    if within is not None and flash is not None:
        raise ConfigError("search: within and flash, of which each says what to choose; give one of them")
    if flash is not None and (type(flash) is not int or flash < 1):
        raise ConfigError(f"search: flash {flash!r}, expected a whole number of bytes")
    if within is not None and not within >= 0:
        raise ConfigError(f"search: within {within!r}, expected points or dB, 0 or more")


def _choice(
    front: Sequence[Candidate],
    tried: Sequence[Candidate],
    objective: Objective,
    within: float | None,
    flash: int | None,
    reference: float,
) -> tuple[Candidate, str]:
    """Which to take, and why. Raises ConfigError where none is as small as `flash`."""
    if flash is not None:
        return best_within(front, tried, flash, 0.0 if objective == "sqnr" else WITHIN[objective])
    tolerance = WITHIN[objective] if within is None else within
    return smallest_within(front, tried, tolerance, reference, UNITS[objective])


def _mixes(calibrated: CalibratedModel, judge: Judge, widths: Sequence[int], core: Core) -> list[dict[str, int]]:
    """None where there is no integer model, of which trials will tell."""
    try:
        return likely_mixes(calibrated, judge, widths, core)
    except ModelError:
        return []


def _check_flash(calibrated: CalibratedModel, fewest_bits: Mapping[str, int], flash: int, core: Core) -> None:
    """Raises ConfigError where not even a model of the fewest bits for all is so small; ModelError if there is none."""
    smallest = flash_bytes(calibrated.quantize(fewest_bits), core)
    if flash < smallest:
        (bits,) = set(fewest_bits.values())
        raise ConfigError(
            f"search: flash {flash:,} bytes, and the smallest model, {bits} bits for all, has {smallest:,}; allow as "
            "many, or take a model with fewer units"
        )
