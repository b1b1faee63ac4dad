"""Writes tests/golden: small integer models, and the C files that must come out of them, byte for byte.

    python tools/make_golden.py                 export the committed .qgru again, after a change of the exporter
    python tools/make_golden.py --model valve   make these .qgru anew, after a change of the file format

gesture  two GRU layers with either reset, two dense layers: what SPEC 1.0 has, in a file of format 1, which stays so
valve    step by step with everything else that can be: reversed, dense layers all over, other functions and formats
phrase   whole sequences of tokens through two bidirectional layers and a reversal

Sizes are odd, and together every part of the templates is used.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

import quantgru as qg
from quantgru.exporter import export_files
from quantgru.model.layers import Bidirectional, Embedding, Reverse

GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "golden"


def gru(rng: np.random.Generator, name: str, reset: str, inputs: int, units: int, **functions: object) -> qg.Gru:
    inner = rng.normal(size=units) if reset == "after" else np.zeros(units)
    arrays = [rng.normal(size=shape) for shape in ((3, units, inputs), (3, units, units), (3, units))]
    if functions:  # a hard_sigmoid has ends, and a state without a limit must not grow for ever
        arrays = [array / 10 for array in arrays]
    return qg.Gru(name, reset, *arrays, inner, **functions)


def dense(rng: np.random.Generator, name: str, inputs: int, outputs: int, activation: str = "linear") -> qg.Dense:
    return qg.Dense(name, rng.normal(size=(outputs, inputs)), rng.normal(size=outputs), activation)


def gesture() -> qg.IntModel:
    rng = np.random.default_rng(7)
    ranges = np.array([1.0, 10.0, 300.0])
    motion = gru(rng, "motion", "after", 3, 9)
    layers = (
        replace(motion, input_weights=motion.input_weights / ranges),
        gru(rng, "context", "before", 9, 5),
        dense(rng, "hidden", 5, 6, "relu"),
        dense(rng, "class", 6, 4),
    )
    model = qg.FloatModel(layers, last_step=True, name="gesture")
    return qg.quantize(model, rng.normal(size=(20, 30, 3)) * ranges, input_units=["m/s^2", "deg/s", "hPa"])


def valve() -> qg.IntModel:
    rng = np.random.default_rng(8)
    layers = (
        Reverse("from the end"),
        dense(rng, "mix", 2, 5, "tanh"),
        dense(rng, "shape", 5, 3, "sigmoid"),
        gru(rng, "flow", "after", 3, 9, gate="hard_sigmoid", candidate="relu", initial_state=rng.normal(size=9) + 2),
        dense(rng, "narrow", 9, 4, "relu"),
        gru(rng, "level", "before", 4, 3, gate="hard_sigmoid", candidate="hard_tanh"),
        gru(rng, "trend", "after", 3, 2, candidate="sigmoid", initial_state=np.array([0.5, -3.0])),
        dense(rng, "a", 2, 4, "tanh"),
        dense(rng, "b", 4, 3),
        dense(rng, "opening", 3, 1),
    )
    model = qg.FloatModel(layers, last_step=False, name="valve", mask_value=-1.0)
    x = rng.normal(size=(20, 30, 2)) * [1, 40]
    return qg.quantize(model, x, input_units=["l/min", "mbar"], output_units=["%"])


def phrase() -> qg.IntModel:
    rng = np.random.default_rng(9)
    layers = (
        Embedding("words", rng.normal(size=(11, 5))),
        Bidirectional("context", gru(rng, "f", "after", 5, 4), gru(rng, "b", "before", 5, 4), "concat", final=False),
        dense(rng, "narrow", 8, 3, "relu"),
        Reverse("from the end"),
        gru(rng, "order", "after", 3, 5, candidate="linear"),
        Bidirectional(
            "sense",
            gru(rng, "f", "before", 5, 9, initial_state=rng.uniform(-1, 1, 9)),
            gru(rng, "b", "before", 5, 9, gate="hard_sigmoid"),
            "mul",
            final=True,
        ),
        dense(rng, "hidden", 9, 6, "relu"),
        dense(rng, "class", 6, 3),
    )
    model = qg.FloatModel(layers, last_step=True, name="phrase", mask_value=0.0)
    tokens = rng.integers(1, 11, (20, 12, 1)).astype(float)
    return qg.quantize(model, tokens)


MODELS: dict[str, Callable[[], qg.IntModel]] = {"gesture": gesture, "valve": valve, "phrase": phrase}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=[], choices=MODELS, help="make these .qgru anew")
    for name in parser.parse_args().model:
        MODELS[name]().save(GOLDEN / f"{name}.qgru")
    for name in MODELS:
        for path, text in export_files(qg.IntModel.load(GOLDEN / f"{name}.qgru"), name).items():
            if not path.startswith("quantgru/"):  # copies of the library are compared with the library
                (GOLDEN / name).mkdir(exist_ok=True)
                (GOLDEN / name / path).write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
