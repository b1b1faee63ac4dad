"""A float GRU classifier of handwritten digits, read row by row, with real test sequences.

Made by `tools/train_digits.py` from the UCI data set "Optical Recognition of Handwritten Digits" (CC BY 4.0), as
scikit-learn ships it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from quantgru.model import FloatModel
from quantgru.model.file import load
from quantgru.sequences import Sequences, load_npz

_FOLDER = Path(__file__).resolve().parent


def digits() -> tuple[FloatModel, Sequences, Sequences, npt.NDArray[np.int64]]:
    """The model, calibration sequences, and test sequences with their labels."""
    calibration, _ = load_npz(_FOLDER / "digits_calibration.npz", "calibration data")
    test, labels = load_npz(_FOLDER / "digits.npz")
    assert labels is not None
    return load(_FOLDER / "digits.qgf"), calibration, test, labels
