"""A small model, what it is searched with, and the command that searches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from command_line import Result, quantgru
from float_models import random_dense, random_gru, random_x

import quantgru as qg

optuna = pytest.importorskip("optuna", reason="Optuna is not installed; install with: pip install quantgru[search]")

CALIBRATION = random_x(20, 12, 3)
X = random_x(60, 12, 3, seed=2)
SECTIONS = [f"gru.{matrix}.{gate}" for matrix in "WU" for gate in "zrn"] + ["dense"]
ALL_UNIFORM = 7  # of 2 ... 8 bits
COMMAND = ("search", "m.qgf", "--calibration", "c.npz", "--input", "y.npz", "-o", "m.qgru")


def small_model() -> qg.FloatModel:
    rng = np.random.default_rng(3)
    return qg.FloatModel((random_gru(rng, 3, 20), random_dense(rng, 20, 4)), last_step=True, name="small")


def labels_of(model: qg.FloatModel) -> np.ndarray:
    """What the float model says, but for every tenth."""
    said = model.run(X).argmax(axis=1)
    said[::10] = (said[::10] + 1) % 4
    return said


def write_files(folder: Path) -> None:
    """What the command reads."""
    model = small_model()
    model.save(folder / "m.qgf")
    np.savez(folder / "c.npz", x=CALIBRATION)
    np.savez(folder / "y.npz", x=X, labels=labels_of(model))


def command(*options: str) -> Result:
    return quantgru(*COMMAND, *options)


def study_of(journal: str) -> optuna.Study:
    backend = optuna.storages.journal.JournalFileBackend(journal)
    return optuna.load_study(study_name="search", storage=optuna.storages.JournalStorage(backend))
