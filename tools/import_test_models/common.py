"""What the scripts of this folder share: where files go, random weights, and the record beside each file.

Each script writes the files of one framework to a folder of tests/models and names in its docstring what to install.
`NAME.npz` holds for every file whose name up to the first dot is NAME: `x` [sequences, steps, inputs] and `y`, which
the framework computed, in float64 if it can. Weights are random, a seed per name: the same versions give the same
bytes, and a new model changes no other. Only tf2onnx names the constants of its files differently each time.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np

MODELS = Path(__file__).resolve().parents[2] / "tests" / "models"
RMS = 0.5  # of weights and biases: gate order, transposition, a bias too many or too few show in the first digit


def generator_of(name: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(name.encode()))


def random_weights(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return generator.normal(0, RMS, shape).astype(np.float32)


def random_sequences(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return generator.standard_normal(shape).astype(np.float32)


def record(path: Path, **arrays: np.ndarray) -> None:
    """Writes NAME.npz beside NAME.anything."""
    np.savez(path.parent / f"{path.name.split('.')[0]}.npz", **arrays)


def report(path: Path) -> None:
    print(f"{path.relative_to(MODELS)}  {path.stat().st_size} bytes")
