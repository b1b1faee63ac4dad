"""What is lost with fewer bits: four tasks, five trainings each; to nearest, with errors that compensate each other,
and refined over whole sequences.

    python tools/bench_quantization.py                    trains the models first: half an hour; refining takes longer
    python tools/bench_quantization.py --task rows --seeds 2

Needs scikit-learn and PyTorch, and espeak-ng for the words. SQNR is that of the states over all steps, against the
float64 model on the test data; figures are medians of the seeds. Points are hundredths of the accuracy.
"""

from __future__ import annotations

import argparse
from typing import Final, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table
from trained_tasks import TASKS, Data, Task, trained

import quantgru as qg
from quantgru.model.run import run_body
from quantgru.quantizer.rounding import RoundingName
from quantgru.report.accuracy import sqnr_db
from quantgru.sequences import as_sequences
from quantgru.simulator import run

BITS: Final = (8, 6, 4, 3, 2)
ROUNDS: Final = 8
WAYS: Final[tuple[RoundingName, ...]] = ("nearest", "compensated")
N_CALIBRATION: Final = 1000
WANTED: Final = {
    (8, "rows"): "≥ 50 dB, 99.8 %",
    (8, "pixels"): "≥ 50 dB, 99.8 %",
    (8, "words"): "≥ 50 dB, 99.8 %",
    (8, "memory"): "≥ 40 dB",
    (4, "rows"): "≤ 0.5 points",
    (4, "pixels"): "≤ 0.5 points",
    (4, "words"): "≤ 0.5 points",
    (3, "rows"): "≤ 1.0 points",
    (3, "pixels"): "≤ 1.0 points",
    (3, "words"): "≤ 1.0 points",
}


class Found(NamedTuple):
    """Of one quantized model. What a task has no classes for, or no values, is NaN.

    points_lost  of accuracy, against the float model
    agreement    share of labels that are the float model's
    error_more   RMS error of the outputs over the deviation of what they should be, less that of the float model
    """

    state_sqnr_db: float
    points_lost: float
    agreement: float
    error_more: float


def measure(task: Task, model: qg.FloatModel, test: Data, int_model: qg.IntModel) -> Found:
    sequences = as_sequences(test.x)
    exact = run_body(model, sequences).states[-1]
    result = run(int_model, sequences)
    raw = result.states_raw[-1]
    sqnr = sqnr_db(exact.ravel(), raw.ravel() * 2.0 ** -int_model.grus[-1].state_fraction_bits)
    outputs = model.run(sequences)
    if task.classes:
        expected, found = outputs.argmax(axis=-1), result.outputs.argmax(axis=-1)
        lost = 100 * (np.mean(expected == test.y) - np.mean(found == test.y))
        return Found(sqnr, float(lost), float(np.mean(expected == found)), np.nan)
    errors = [np.sqrt(np.mean((y - test.y) ** 2) / np.var(test.y)) for y in (outputs, result.outputs)]
    return Found(sqnr, np.nan, np.nan, float(errors[1] - errors[0]))


def float_quality(task: Task, model: qg.FloatModel, test: Data) -> float:
    """Accuracy in percent, or the RMS error over the deviation."""
    y = model.run(test.x)
    if task.classes:
        return float(100 * np.mean(y.argmax(axis=-1) == test.y))
    return float(np.sqrt(np.mean((y - test.y) ** 2) / np.var(test.y)))


def rows_of(task: Task, seeds: int, rounds: int) -> list[list[str]]:
    ways = _ways(rounds)
    found: dict[tuple[int, str], list[Found]] = {}
    quality = []
    for seed in range(seeds):
        model, training, test = trained(task, seed)
        quality.append(float_quality(task, model, test))
        for bits in BITS:
            for way, (rounding, refine) in ways.items():
                calibration = training.x[:N_CALIBRATION]
                int_model = qg.quantize(model, calibration, rounding=rounding, weight_bits=bits, refine=refine)
                found.setdefault((bits, way), []).append(measure(task, model, test, int_model))
    shown = f"{np.median(quality):.1f} %" if task.classes else f"error {np.median(quality):.3f}"
    name = f"{task.name} {task.n_inputs}→{task.n_units}, {shown}"
    rows = []
    for bits in BITS:
        cells = [_cell(task, Found(*np.median(found[bits, way], axis=0))) for way in ways]
        rows.append([name if bits == BITS[0] else "", str(bits), *cells, WANTED.get((bits, task.name), "")])
    return rows


def _ways(rounds: int) -> dict[str, tuple[RoundingName, int]]:
    """Name, rounding, and rounds of refinement."""
    ways: dict[str, tuple[RoundingName, int]] = {name: (name, 0) for name in WAYS}
    return ways | ({"refined": ("compensated", rounds)} if rounds else {})


def _cell(task: Task, median: Found) -> str:
    if task.classes:
        return f"{median.state_sqnr_db:.1f} dB, {100 * median.agreement:.1f} %, {median.points_lost:+.2f}"
    return f"{median.state_sqnr_db:.1f} dB, {median.error_more:+.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=[task.name for task in TASKS], action="append", help="may be repeated")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of refinement; 0 leaves it out")
    arguments = parser.parse_args()
    columns = (
        "task, float",
        "bits",
        *(f"{way}: states, labels, points lost" for way in _ways(arguments.rounds)),
        "wanted",
    )
    table = Table(*columns, title=f"Medians of {arguments.seeds} seeds")
    for task in TASKS:
        if arguments.task is None or task.name in arguments.task:
            for row in rows_of(task, arguments.seeds, arguments.rounds):
                table.add_row(*row)
            table.add_section()
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
