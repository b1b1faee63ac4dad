"""Writes tests/golden: a small integer model, and the C files that must come out of it, byte for byte.

    python tools/make_golden.py            export the committed .qgru again, after a deliberate change of the exporter
    python tools/make_golden.py --model    make the .qgru anew, after a deliberate change of the file format

Two GRU layers with either reset, two dense layers, odd sizes: every part of the templates is used.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

import quantgru as qg
from quantgru.exporter import export_files

GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "golden"
NAME = "gesture"


def make_model() -> qg.IntModel:
    rng = np.random.default_rng(7)

    def gru(name: str, reset: str, inputs: int, units: int) -> qg.Gru:
        inner = rng.normal(size=units) if reset == "after" else np.zeros(units)
        shapes = ((3, units, inputs), (3, units, units), (3, units))
        return qg.Gru(name, reset, *(rng.normal(size=shape) for shape in shapes), inner)

    ranges = np.array([1.0, 10.0, 300.0])
    motion = gru("motion", "after", 3, 9)
    layers = (
        replace(motion, input_weights=motion.input_weights / ranges),
        gru("context", "before", 9, 5),
        qg.Dense("hidden", rng.normal(size=(6, 5)), rng.normal(size=6), "relu"),
        qg.Dense("class", rng.normal(size=(4, 6)), rng.normal(size=4)),
    )
    model = qg.FloatModel(layers, last_step=True, name=NAME)
    return qg.quantize(model, rng.normal(size=(20, 30, 3)) * ranges, input_units=["m/s^2", "deg/s", "hPa"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="store_true", help="make the .qgru anew")
    path = GOLDEN / f"{NAME}.qgru"
    if parser.parse_args().model:
        GOLDEN.mkdir(exist_ok=True)
        make_model().save(path)
    for name, text in export_files(qg.IntModel.load(path), NAME).items():
        if not name.startswith("quantgru/"):  # copies of the library are compared with the library
            (GOLDEN / NAME).mkdir(exist_ok=True)
            (GOLDEN / NAME / name).write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
