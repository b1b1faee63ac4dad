"""Import against the framework: largest difference of outputs, float64, on random weights, for each convention.

    python tools/bench_import.py

Keras's torch back end multiplies in float32 even for float64 models: its figures are its own rounding.
"""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import argparse
import itertools
import logging

import keras
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import quantgru as qg


def pytorch_error(layers: int, bias: bool, seed: int) -> float:
    torch.manual_seed(seed)
    module = torch.nn.GRU(10, 24, layers, bias=bias, batch_first=True).double()
    x = np.random.default_rng(seed).normal(size=(4, 20, 10))
    with torch.no_grad():
        expected = module(torch.from_numpy(x))[0].numpy()
    return float(np.abs(qg.load(module).run(x) - expected).max())


def keras_error(reset_after: bool, bias: bool, seed: int) -> float:
    keras.utils.set_random_seed(seed)
    layer = keras.layers.GRU(24, reset_after=reset_after, use_bias=bias, return_sequences=True, dtype="float64")
    model = keras.Sequential([keras.Input((20, 10), dtype="float64"), layer])
    rng = np.random.default_rng(seed)
    layer.set_weights([rng.normal(size=weight.shape) * 0.3 for weight in layer.get_weights()])
    x = rng.normal(size=(4, 20, 10))
    expected = keras.ops.convert_to_numpy(model(x, training=False))
    return float(np.abs(qg.load(model).run(x) - expected).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="random models of each kind (default 5)")
    seeds = range(parser.parse_args().seeds)
    logging.disable(logging.WARNING)
    table = Table("source", "largest difference", "wanted", title="Import against the framework, float64")
    for layers, bias in itertools.product((1, 2), (True, False)):
        worst = max(pytorch_error(layers, bias, seed) for seed in seeds)
        table.add_row(f"PyTorch GRU, {layers} layers, bias={bias}", f"{worst:.1e}", "≤ 1e-6")
    for reset_after, bias in itertools.product((True, False), (True, False)):
        worst = max(keras_error(reset_after, bias, seed) for seed in seeds)
        table.add_row(f"Keras GRU, reset_after={reset_after}, use_bias={bias}", f"{worst:.1e}", "≤ 1e-6")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
