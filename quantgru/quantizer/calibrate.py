"""What the float model does on the user's data: the ranges that formats are chosen from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quantgru.model import FloatModel
from quantgru.model.run import dense_output, gru_states
from quantgru.sequences import Sequences

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Calibration:
    """Ranges seen on the calibration data, padding left out.

    input_min, input_max, input_rms  [inputs]
    largest_update  largest u = 1 - z of each unit, of each GRU layer [units]
    dense_peaks     largest |output| of each dense layer
    """

    n_sequences: int
    n_steps: int
    input_min: FloatArray
    input_max: FloatArray
    input_rms: FloatArray
    largest_update: tuple[FloatArray, ...]
    dense_peaks: tuple[float, ...]


def calibrate(model: FloatModel, sequences: Sequences) -> Calibration:
    """Runs `model` on `sequences` and collects ranges."""
    rows = sequences.rows()
    x = sequences.values
    updates = []
    for layer in model.grus:
        largest = np.zeros(layer.n_units)

        def observe(t: int, z: FloatArray, r: FloatArray, n: FloatArray, largest: FloatArray = largest) -> None:
            running = sequences.lengths > t
            np.maximum(largest, (1 - z[running]).max(axis=0, initial=0.0), out=largest)

        x = gru_states(layer, x, observe)
        updates.append(largest)
    peaks = []
    y = x[sequences.valid]
    for dense in model.head:
        y = dense_output(dense, y)
        peaks.append(float(np.abs(y).max()))
    return Calibration(
        sequences.n_sequences,
        sequences.n_steps,
        rows.min(axis=0),
        rows.max(axis=0),
        np.sqrt(np.mean(rows**2, axis=0)),
        tuple(updates),
        tuple(peaks),
    )
