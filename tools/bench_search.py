"""How small models get by a search for widths, against 8 bits for all: the tasks with classes, some trainings each.

    python tools/bench_search.py                          trains the models first: half an hour
    python tools/bench_search.py --task words --seeds 1 --trials 100
    python tools/bench_search.py --core cortex-m4         sizes there, not the most on any core

Needs scikit-learn, PyTorch and Optuna, and espeak-ng for the words. The search judges by the first half of the test
data and chooses the smallest model within 0.3 points of the float model's accuracy; points lost are shown on that half,
and on the other one, which it has not seen. Flash is that of the constants, and of the code to unpack weights on a
core, or on any at most. Figures are medians of the seeds.
"""

from __future__ import annotations

import argparse
import time
from typing import Final, NamedTuple, get_args

import numpy as np
from bench_quantization import N_CALIBRATION
from rich.console import Console
from rich.table import Table
from trained_tasks import TASKS, Data, Task, trained

import quantgru as qg
from quantgru.int_model.cores import ANY, Core
from quantgru.int_model.cost import flash_bytes
from quantgru.report.pareto import by_layer

WANTED: Final = {"words": "≥ 50 % smaller"}
COLUMNS: Final = ("task", "8 bits: bytes", "chosen", "smaller by", "points lost", "on other data", "8 bits", "time")


class Found(NamedTuple):
    """Of one search. Points lost are hundredths of the accuracy, against the float model.

    lost           on the data of the search
    lost_on_other  on data that it has not seen
    wide_lost      of 8 bits for all on those
    """

    wide_bytes: float
    bytes: float
    smaller: float
    lost: float
    lost_on_other: float
    wide_lost: float
    seconds: float


def measure(task: Task, seed: int, core: Core, trials: int, workers: int) -> tuple[Found, str]:
    """What a search finds, and the widths that it chooses."""
    model, training, test = trained(task, seed)
    judged, other = halves(task, test, seed)
    calibration = training.x[:N_CALIBRATION]
    start = time.monotonic()
    result = qg.search(
        model,
        calibration,
        judged.x,
        judged.y,
        objective="accuracy",
        trials=trials,
        workers=workers,
        seed=seed,
        core=core,
    )
    seconds = time.monotonic() - start
    wide = qg.quantize(model, calibration)
    wide_bytes = flash_bytes(wide, core)
    found = Found(
        wide_bytes,
        result.chosen.flash_bytes,
        100 * (1 - result.chosen.flash_bytes / wide_bytes),
        result.reference - result.chosen.quality,
        points_lost(model, result.model, other),
        points_lost(model, wide, other),
        seconds,
    )
    return found, ", ".join(f"{layer} {widths}" for layer, widths in by_layer(result.chosen.weight_bits).items())


def halves(task: Task, data: Data, seed: int) -> tuple[Data, Data]:
    """To choose by, and to judge what was chosen: no clip is in both."""
    n_clips = len(data.x) // task.takes
    first, second = np.array_split(np.random.default_rng(seed).permutation(n_clips), 2)
    takes = n_clips * np.arange(task.takes)[:, None]
    return data[(takes + first).ravel()], data[(takes + second).ravel()]


def points_lost(model: qg.FloatModel, int_model: qg.IntModel, data: Data) -> float:
    right = [np.mean(y.argmax(axis=1) == data.y) for y in (model.run(data.x), qg.simulate(int_model, data.x))]
    return float(100 * (right[0] - right[1]))


def main() -> None:
    tasks = [task for task in TASKS if task.classes]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=[task.name for task in tasks], action="append", help="may be repeated")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--core", choices=get_args(Core), default=ANY)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    title = f"{arguments.trials} trials, medians of {arguments.seeds} seeds, core: {arguments.core}"
    table = Table(*COLUMNS, "wanted", title=title)
    for task in tasks:
        if arguments.task is not None and task.name not in arguments.task:
            continue
        found = []
        for seed in range(arguments.seeds):
            one, widths = measure(task, seed, arguments.core, arguments.trials, arguments.workers)
            print(f"seed {seed}:", *_row(task, one), widths, sep="  ", flush=True)
            found.append(one)
        table.add_row(*_row(task, Found(*np.median(found, axis=0))))
    Console(width=130).print(table)


def _row(task: Task, found: Found) -> list[str]:
    return [
        f"{task.name} {task.n_inputs}→{task.n_units}",
        f"{found.wide_bytes:,.0f}",
        f"{found.bytes:,.0f}",
        f"{found.smaller:.1f} %",
        f"{found.lost:+.2f}",
        f"{found.lost_on_other:+.2f}",
        f"{found.wide_lost:+.2f}",
        f"{found.seconds:.0f} s",
        WANTED.get(task.name, ""),
    ]


if __name__ == "__main__":
    main()
