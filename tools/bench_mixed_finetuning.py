"""A width for each gate, and fine-tuning: what is left of the size of 8 bits for all, and what of the accuracy.

    python tools/bench_mixed_finetuning.py                trains the model first
    python tools/bench_mixed_finetuning.py --seeds 1 --trials 50

Needs scikit-learn, PyTorch and Optuna, and espeak-ng for the words. The search judges by the first half of the test
data, and gives the best model of at most 40 % of the bytes; that is fine-tuned on the training data. What counts is
shown on the other half, which neither has seen. Points are hundredths of the accuracy, against the float model.
"""

from __future__ import annotations

import argparse
import time
from typing import Final, NamedTuple

import numpy as np
import torch
from bench_finetuning import tune
from bench_quantization import N_CALIBRATION
from bench_search import halves, points_lost
from rich.console import Console
from rich.table import Table
from trained_tasks import TASKS, Task, trained

import quantgru as qg
from quantgru.int_model.cost import flash_bytes
from quantgru.report.pareto import by_layer

LEFT: Final = 0.4  # of the bytes of 8 bits for all
WIDTHS: Final = (2, 3, 4)
WANTED: Final = "≥ 60 % smaller, ≤ 0.3 points"


class Found(NamedTuple):
    """Of one training: bytes of flash with 8 bits for all, and with the widths that were found; points lost."""

    wide_bytes: float
    bytes: float
    smaller: float
    searched_lost: float
    before_lost: float
    after_lost: float
    seconds: float


def measure(task: Task, seed: int, trials: int) -> tuple[Found, str]:
    """What is found, and the widths."""
    model, training, test = trained(task, seed)
    judged, other = halves(task, test, seed)
    calibration = training.x[:N_CALIBRATION]
    start = time.monotonic()
    wide_bytes = flash_bytes(qg.quantize(model, calibration))
    result = qg.search(
        model,
        calibration,
        judged.x,
        objective="sqnr",
        trials=trials,
        widths=WIDTHS,
        flash=int(LEFT * wide_bytes),
        seed=seed,
    )
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    prepared = qg.torch.prepare(model, calibration, weight_bits=result.chosen.weight_bits, row_parameters="short")
    tuned, _ = tune(task, model, prepared, training.x)
    tuned_bytes = flash_bytes(tuned)
    found = Found(
        wide_bytes,
        tuned_bytes,
        100 * (1 - tuned_bytes / wide_bytes),
        points_lost(model, tuned, judged),
        points_lost(model, result.model, other),
        points_lost(model, tuned, other),
        time.monotonic() - start,
    )
    return found, ", ".join(f"{layer} {widths}" for layer, widths in by_layer(result.chosen.weight_bits).items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=[task.name for task in TASKS if task.classes], default="words")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=200)
    arguments = parser.parse_args()
    (task,) = (task for task in TASKS if task.name == arguments.task)
    columns = (
        "seed",
        "8 bits: bytes",
        "bytes",
        "smaller by",
        "lost on the search's data",
        "on others, before",
        "after",
    )
    table = Table(*columns, title=f"{task.name}: {arguments.trials} trials, then {task.epochs // 2} epochs. {WANTED}")
    found = []
    for seed in range(arguments.seeds):
        one, widths = measure(task, seed, arguments.trials)
        print(f"{task.name}, seed {seed}, {one.seconds:.0f} s: {widths}", flush=True)
        table.add_row(str(seed), *_cells(one))
        found.append(one)
    table.add_section()
    table.add_row("median", *_cells(Found(*np.median(found, axis=0))))
    Console(width=130).print(table)


def _cells(found: Found) -> list[str]:
    lost = (f"{points:+.2f}" for points in (found.searched_lost, found.before_lost, found.after_lost))
    return [f"{found.wide_bytes:,.0f}", f"{found.bytes:,.0f}", f"{found.smaller:.1f} %", *lost]


if __name__ == "__main__":
    main()
