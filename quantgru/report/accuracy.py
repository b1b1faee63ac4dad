"""How far the integers are from the floats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from quantgru.array_types import FloatArray
from quantgru.errors import DataError
from quantgru.sequences import check_labels


@dataclass(frozen=True)
class Comparison:
    """Integers against floats on the same inputs.

    state_sqnr_db     of all steps and units of the last GRU layer
    largest_error     of an output, in its own units
    label_agreement   share of outputs with the same largest entry, 0 ... 1; None for fewer than two outputs
    float_accuracy    share of labels that the float model gets right, 0 ... 1; None without labels
    int_accuracy      the same of the integers
    """

    state_sqnr_db: float
    largest_error: float
    label_agreement: float | None
    float_accuracy: float | None
    int_accuracy: float | None


def sqnr_db(exact: FloatArray, approximate: FloatArray) -> float:
    """10 log10(signal power / error power); infinite for no error.

    >>> round(sqnr_db(np.array([3.0, 4.0]), np.array([3.0, 3.0])), 2)
    13.98
    """
    noise = float(((exact - approximate) ** 2).sum())
    if noise == 0:
        return float("inf")
    signal = float((exact**2).sum())
    return float(10 * np.log10(signal / noise)) if signal else float("-inf")


def compare(
    float_states: FloatArray,
    int_states: FloatArray,
    float_outputs: FloatArray,
    int_outputs: FloatArray,
    labels: npt.NDArray[Any] | None = None,
) -> Comparison:
    """States [steps, units] and outputs [n, outputs] without padding; labels [n], if there are any.

    Raises DataError where there are not as many labels as outputs.
    """
    if labels is not None and len(labels) != len(float_outputs):
        raise DataError(f"labels: {len(labels)}, expected one for each of the {len(float_outputs)} outputs")
    largest_error = float(np.abs(float_outputs - int_outputs).max())
    agreement = float_accuracy = int_accuracy = None
    if float_outputs.shape[1] >= 2:
        float_labels, int_labels = float_outputs.argmax(axis=1), int_outputs.argmax(axis=1)
        agreement = float((float_labels == int_labels).mean())
        if labels is not None:
            check_labels(labels, float_outputs.shape[1])
            float_accuracy = float((float_labels == labels).mean())
            int_accuracy = float((int_labels == labels).mean())
    return Comparison(sqnr_db(float_states, int_states), largest_error, agreement, float_accuracy, int_accuracy)
