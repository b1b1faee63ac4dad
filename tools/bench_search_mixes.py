"""What a search wins by the mixes that it begins with, beside NSGA-II alone: quality for size, by SQNR.

    python tools/bench_search_mixes.py                     trains the models first: some minutes
    python tools/bench_search_mixes.py --task gestures --core avr

Needs scikit-learn, PyTorch and Optuna, and espeak-ng for the words. A figure is the SQNR in dB of the best model that
is no larger, in the mean over all sizes from that of 2 bits for all to that of 8 bits for all. Searches differ in how
many of their trials, after one width for all, are likely mixes; NSGA-II has the others, if there are any. In brackets:
how many of the models that none beats are NSGA-II's.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import pairwise
from typing import Final, NamedTuple, get_args

import numpy as np
from bench_quantization import N_CALIBRATION
from bench_search import halves
from rich.console import Console
from rich.table import Table
from trained_tasks import TASKS, trained

import quantgru as qg
from quantgru.int_model.cores import ANY, Core
from quantgru.model import Dense, Gru
from quantgru.report.pareto import Candidate
from quantgru.width_search import mixes

STACK: Final = "4→20→20→2, random weights"
N_JUDGED: Final = 400  # sequences
N_MIXES: Final = (0, 64, 128, 256)


class Searched(NamedTuple):
    """A float model, and inputs to calibrate it and to judge by."""

    model: qg.FloatModel
    calibration: np.ndarray
    x: np.ndarray


def of_task(name: str, seed: int) -> Searched:
    if name == STACK:
        return stack(seed)
    (task,) = (task for task in TASKS if task.name == name)
    model, training, test = trained(task, seed)
    return Searched(model, training.x[:N_CALIBRATION], halves(task, test, seed)[0].x[:N_JUDGED])


def stack(seed: int) -> Searched:
    """13 gates and dense layers: two GRU layers and a regression from their last state."""
    rng = np.random.default_rng(seed)

    def gru(name: str, n_inputs: int, n: int) -> Gru:
        shapes = (3, n, n_inputs), (3, n, n), (3, n), (n,)
        return Gru(name, "after", *(rng.uniform(-2, 2, shape) / np.sqrt(n) for shape in shapes))

    dense = Dense("dense", rng.normal(size=(2, 20)), rng.normal(size=2))
    model = qg.FloatModel((gru("first", 4, 20), gru("second", 20, 20), dense), last_step=True)
    x = np.cumsum(rng.normal(0, 0.3, (2 * N_JUDGED, 40, 4)), axis=1)  # as slow as what sensors measure
    return Searched(model, x[:N_JUDGED], x[N_JUDGED:])


def measure(searched: Searched, n_mixes: int, core: Core, trials: int) -> tuple[float, int]:
    """The mean SQNR, and how many of the front are NSGA-II's."""
    mixes.N_MIXES = n_mixes  # type: ignore[misc]
    result = qg.search(*searched, trials=trials, core=core)
    n_starts = 7 + n_mixes
    late = sum(result.tried.index(one) >= n_starts for one in result.front)
    return mean_quality(result.front, [one.flash_bytes for one in result.tried if one.uniform_bits]), late


def mean_quality(front: Sequence[Candidate], sizes: Sequence[int]) -> float:
    """Of the best that is no larger, over all sizes between the smallest and the largest of `sizes`."""
    least, most = min(sizes), max(sizes)
    ends = [min(max(one.flash_bytes, least), most) for one in front] + [most]
    return sum(one.quality * (end - begin) for one, (begin, end) in zip(front, pairwise(ends), strict=True)) / (
        most - least
    )


def main() -> None:
    names = [STACK, *(task.name for task in TASKS if task.classes)]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=names, action="append", help="may be repeated")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--core", choices=get_args(Core), default=ANY)
    parser.add_argument("--trials", type=int, default=200)
    arguments = parser.parse_args()
    table = Table(
        "model", "seed", *(f"{n} mixes" for n in N_MIXES), title=f"{arguments.trials} trials, core: {arguments.core}"
    )
    for name in arguments.task or [STACK, "gestures", "words_32"]:
        for seed in range(arguments.seeds):
            searched = of_task(name, seed)
            found = [measure(searched, n, arguments.core, arguments.trials) for n in N_MIXES]
            cells = [f"{quality:.1f} dB ({late})" for quality, late in found]
            print(name, seed, *cells, sep="  ", flush=True)
            table.add_row(name, str(seed), *cells)
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
