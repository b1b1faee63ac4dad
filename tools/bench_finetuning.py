"""What fine-tuning wins back with very few bits: the tasks of trained_tasks.py, before it and after it.

    python tools/bench_finetuning.py                      trains the models first
    python tools/bench_finetuning.py --task rows --seeds 2 --refine 8

Needs scikit-learn and PyTorch, and espeak-ng for the words. Half as many epochs as the training took, on the float
model's outputs alone: labels would train it further, and that is not what is measured here. The best epoch, or none, is
chosen on a fifth of the training data, which fine-tuning is not given. Figures are medians of the seeds, on the test
data. Points are hundredths of the accuracy; dB are those of the float model's outputs to their error.
"""

from __future__ import annotations

import argparse
import time
from typing import Final, NamedTuple

import numpy as np
import torch
from bench_quantization import N_CALIBRATION, Found, float_quality, measure
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import nn
from torch.nn import functional
from trained_tasks import TASKS, FloatArray, Task, trained

import quantgru as qg
from quantgru.int_model.cost import cost
from quantgru.report.accuracy import sqnr_db

BITS: Final = (3, 2)
WANTED: Final = {3: 0.2, 2: 1.0}  # points lost at most
LEARNING_RATE: Final = 1e-3


class Tuned(NamedTuple):
    """Of one model: as it is quantized, and as it is after fine-tuning.

    quality    of the float model, as `float_quality` gives it
    before_db  SQNR of the outputs
    size_left  bytes of constants, as a share of those of the model in 8 bits
    """

    quality: float
    before: Found
    after: Found
    before_db: float
    after_db: float
    size_left: float
    epoch_s: float


def tune(
    task: Task, model: qg.FloatModel, prepared: qg.torch.Prepared, inputs: FloatArray
) -> tuple[qg.IntModel, float]:
    """The best of the models before the first epoch and after each; and the seconds of an epoch.

    Trains `prepared` in place, on the outputs of `model`. Every fifth sequence is held out, and says which one is best.
    """
    held_out = np.arange(len(inputs)) % 5 == 4
    x, y = (torch.tensor(values[~held_out], dtype=torch.float32) for values in (inputs, model.run(inputs)))
    n_batches, epochs = len(x) // task.batch, task.epochs // 2
    optimizer = torch.optim.AdamW(prepared.parameters(), LEARNING_RATE, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * n_batches)
    models = [qg.torch.convert(prepared)]
    started = time.perf_counter()
    for _ in track(range(epochs), f"fine-tuning {task.name}", transient=True):
        for chosen in torch.randperm(len(x))[: n_batches * task.batch].split(task.batch):
            optimizer.zero_grad()
            functional.mse_loss(prepared(x[chosen]), y[chosen]).backward()
            nn.utils.clip_grad_norm_(prepared.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        models.append(qg.torch.convert(prepared))
    epoch_s = (time.perf_counter() - started) / epochs
    return nearest(models, model, inputs[held_out]), epoch_s


def nearest(int_models: list[qg.IntModel], model: qg.FloatModel, inputs: FloatArray) -> qg.IntModel:
    """The one whose outputs are nearest to those of `model`, by the mean square of their differences."""
    wanted = model.run(inputs)
    return min(int_models, key=lambda int_model: np.mean((qg.simulate(int_model, inputs) - wanted) ** 2))


def tuned(task: Task, seed: int, bits: int, rounds: int) -> Tuned:
    model, training, test = trained(task, seed)
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    prepared = qg.torch.prepare(model, training.x[:N_CALIBRATION], weight_bits=bits, refine=rounds)
    untuned = qg.torch.convert(prepared)
    int_model, epoch_s = tune(task, model, prepared, training.x)
    of_8_bits = qg.quantize(model, training.x[:N_CALIBRATION], rounding="nearest")
    size_left = cost(int_model).constant_bytes / cost(of_8_bits).constant_bytes
    before, after = (measure(task, model, test, each) for each in (untuned, int_model))
    exact = model.run(test.x)
    before_db, after_db = (sqnr_db(exact, qg.simulate(each, test.x)) for each in (untuned, int_model))
    return Tuned(float_quality(task, model, test), before, after, before_db, after_db, size_left, epoch_s)


def row_of(task: Task, seeds: int, bits: int, rounds: int) -> list[str]:
    found = [tuned(task, seed, bits, rounds) for seed in range(seeds)]
    quality, size_left, epoch_s = (
        np.median([getattr(one, name) for one in found]) for name in ("quality", "size_left", "epoch_s")
    )
    unit = " %" if task.classes else ""
    before = _cell(task, [one.before for one in found], [one.before_db for one in found])
    after = _cell(task, [one.after for one in found], [one.after_db for one in found])
    wanted = f"≤ {WANTED[bits]}" if task.classes else ""
    of_8_bits = f"{100 * size_left:.0f} %"
    return [task.name, f"{quality:.3f}{unit}", str(bits), before, after, wanted, of_8_bits, f"{epoch_s:.1f}"]


def _cell(task: Task, found: list[Found], of_outputs_db: list[float]) -> str:
    lost = f"{np.median([one.points_lost for one in found]):+.2f}"
    if not task.classes:
        lost = f"{np.median([one.error_more for one in found]):+.4f}"
    return f"{lost}, {np.median(of_outputs_db):.1f} dB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=[task.name for task in TASKS], action="append", help="may be repeated")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--refine", type=int, default=0, metavar="ROUNDS", help="of refinement, to begin with")
    arguments = parser.parse_args()
    columns = ("task", "float", "bits", "points lost", "fine-tuned", "wanted", "bytes of 8 bits", "an epoch, s")
    table = Table(*columns, title=f"Medians of {arguments.seeds} seeds; of memory, error more instead of points lost")
    for task in TASKS:
        if arguments.task is None or task.name in arguments.task:
            for bits in BITS:
                table.add_row(*row_of(task, arguments.seeds, bits, arguments.refine))
            table.add_section()
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
