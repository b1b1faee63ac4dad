"""Integers against floats: the digits of the demo, a model with a long memory, features of very different ranges.

    python tools/bench_accuracy.py

SQNR is of the states of the last GRU layer over all steps and units, against the float64 run on unquantized inputs.
"""

from __future__ import annotations

import argparse
import itertools
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

import quantgru as qg
from quantgru.demo import digits
from quantgru.int_model import IntModel
from quantgru.model import FloatModel, Gru
from quantgru.model.run import run_body
from quantgru.quantizer import dequantize, fold_standardisation
from quantgru.report.accuracy import compare, sqnr_db
from quantgru.sequences import SequencesLike, as_sequences
from quantgru.simulator import run

FloatArray = npt.NDArray[np.float64]


def state_sqnr(reference: FloatModel, model: IntModel, x: SequencesLike) -> float:
    """SQNR of the last layer's states, in dB."""
    sequences = as_sequences(x)
    exact = run_body(reference, sequences).states[-1]
    raw = run(model, sequences).states_raw[-1]
    return sqnr_db(exact[sequences.valid], raw[sequences.valid] / 2**15)


def digits_rows() -> list[tuple[str, str, str]]:
    model, calibration, test, labels = digits()
    int_model = qg.quantize(model, calibration)
    result = run(int_model, test)
    exact = run_body(model, test).states[-1]
    found = compare(
        exact[test.valid], result.states_raw[-1][test.valid] / 2**15, model.run(test), result.outputs, labels
    )
    assert found.float_accuracy is not None and found.int_accuracy is not None and found.label_agreement is not None
    lost = 100 * (found.float_accuracy - found.int_accuracy)
    return [
        ("digits 8→32: accuracy lost, points", f"{lost:.2f}", "≤ 0.2"),
        ("digits: labels the float model's, %", f"{100 * found.label_agreement:.2f}", "≥ 99.5"),
        ("digits: state SQNR, dB", f"{found.state_sqnr_db:.1f}", "≥ 40"),
    ]


def slow_model(rng: np.random.Generator, shortest: float, units: int = 64, inputs: int = 4) -> FloatModel:
    """Every unit is slow: time constants log-uniform from `shortest` to 1,000 steps, z = 1 - 1 / time constant."""
    time_constants = np.exp(rng.uniform(np.log(shortest), np.log(1000), units))
    bias = np.zeros((3, units))
    bias[0] = np.log(time_constants - 1)
    recurrent = rng.normal(size=(3, units, units)) * np.array([0.1, 0.5, 0.5])[:, None, None] / np.sqrt(units)
    weights = rng.normal(size=(3, units, inputs)) * np.array([0.1, 0.5, 1.0])[:, None, None] / np.sqrt(inputs)
    return FloatModel((Gru("slow", "after", weights, recurrent, bias, np.zeros(units)),), last_step=False)


def slow_rows(seeds: int, n_steps: int = 5000) -> list[tuple[str, str, str]]:
    rows = []
    for shortest, wanted in ((1.5, "≥ 44"), (100.0, "≥ 44"), (1000.0, "(the hardest case)")):
        found = []
        for seed in range(seeds):
            rng = np.random.default_rng(seed)
            model = slow_model(rng, shortest)
            x = rng.normal(size=(2, n_steps, 4))
            int_model = qg.quantize(model, x)
            found.append(state_sqnr(dequantize(int_model), int_model, x))
        what = f"time constants {shortest:g} to 1,000, {n_steps:,} steps: arithmetic-only SQNR, dB"
        rows.append((what, f"{np.median(found):.1f}, {min(found):.1f}", wanted))
    return rows


def spread_rows(seeds: int) -> list[tuple[str, str, str]]:
    lost = []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        model, x = _random_model(rng, 32, 8), rng.normal(size=(50, 50, 8))
        factors = rng.permutation(np.geomspace(0.1, 10, 8))
        first = model.grus[0]
        spread = replace(model, layers=(replace(first, input_weights=first.input_weights / factors),))
        plain = state_sqnr(model, qg.quantize(model, x), x)
        lost.append(plain - state_sqnr(spread, qg.quantize(spread, x * factors), x * factors))
    what = "feature ranges spread by 100: SQNR lost, dB"
    return [(what, f"{np.median(lost):.2f}, {max(lost):.2f}", "≤ 3")]


def offset_rows(seeds: int) -> list[tuple[str, str, str]]:
    rows = []
    scale = np.array([1.0, 0.1, 10.0, 1.0, 1.0, 1.0])
    for distance in (0, 1, 3, 10, 40, 100):
        found = []
        for seed, reset in itertools.product(range(seeds), ("after", "before")):
            rng = np.random.default_rng(seed)
            model = _random_model(rng, 32, 6, reset)
            mean = distance * scale
            x = rng.normal(size=(40, 50, 6)) * scale + mean
            int_model = qg.quantize(model, x, mean=mean, scale=scale)
            found.append(state_sqnr(fold_standardisation(model, mean, scale), int_model, x))
        what = f"means {distance} standard deviations from zero: state SQNR, dB"
        rows.append((what, f"{np.median(found):.1f}, {min(found):.1f}", ""))
    return rows


def _random_model(rng: np.random.Generator, units: int, inputs: int, reset: str = "after") -> FloatModel:
    bound = 2 / np.sqrt(units)
    layer = Gru(
        "gru",
        reset,
        rng.uniform(-bound, bound, (3, units, inputs)),
        rng.uniform(-bound, bound, (3, units, units)),
        rng.uniform(-bound, bound, (3, units)),
        rng.uniform(-bound, bound, units) if reset == "after" else np.zeros(units),
    )
    return FloatModel((layer,), last_step=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="random models of each kind (default 5)")
    seeds = parser.parse_args().seeds
    title = f"Integers against floats; of random models, the median and the worst of {seeds}"
    table = Table("figure", "measured", "wanted", title=title, title_justify="left")
    for row in (*digits_rows(), *slow_rows(seeds), *spread_rows(seeds), *offset_rows(seeds)):
        table.add_row(*row)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
