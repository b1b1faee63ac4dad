"""What an integer model is worth, beside the float model, on sequences that it was not calibrated on."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from quantgru.array_types import FloatArray, IntArray
from quantgru.errors import ConfigError, DataError
from quantgru.int_model import IntModel
from quantgru.model import FloatModel
from quantgru.model_check import sequence_labels
from quantgru.report.accuracy import sqnr_db
from quantgru.sequences import Sequences, SequencesLike
from quantgru.simulator import run

Objective = Literal["accuracy", "sqnr", "agreement"]

_LEAST_LABELS: Final = 20  # with fewer, a single one counts for more than 5 points


class Labels(NamedTuple):
    """Labels of an integer model, one for each of n sequences, of which some are others than the float model's."""

    changed: int
    n: int

    @property
    def uncertainty(self) -> float:
        """Of points lost on as many other sequences, two standard deviations from those that are lost here.

        A changed label is one right answer more or less, or none: a variance of 1 at most, here and there. There, one
        more may change: models are chosen for what they are here.
        """
        return 100 * 2 * math.sqrt(2 * (self.changed + 1)) / self.n


@dataclass(frozen=True, eq=False)
class Judge:
    """What is asked of a model.

    exact      outputs of the float model [n, outputs]
    right      the numbers of the outputs that should be the largest [n]; None: the SQNR of all outputs counts
    reference  what the float model is worth; infinite for an SQNR
    """

    sequences: Sequences
    exact: FloatArray
    right: IntArray | None
    reference: float

    def worth(self, model: IntModel, threads: int) -> tuple[float, float]:
        """Right labels in percent, or the outputs' SQNR in dB; and that SQNR."""
        outputs = self.outputs(model, threads)
        output_db = sqnr_db(self.exact, outputs)
        return output_db if self.right is None else _percent_right(outputs, self.right), output_db

    def labels(self, model: IntModel) -> Labels | None:
        """Beside those of the float model; None where the SQNR counts, or where a sequence has a label for each step:
        these go together."""
        if self.right is None or len(self.right) > self.sequences.n_sequences:
            return None
        changed = self.outputs(model).argmax(axis=1) != self.exact.argmax(axis=1)
        return Labels(int(changed.sum()), len(changed))

    def outputs(self, model: IntModel, threads: int | None = None) -> FloatArray:
        """As `exact`, of an integer model."""
        return _joined(run(model, self.sequences, threads=threads).outputs, model.last_step)


def judge_of(model: FloatModel, x: SequencesLike | Sequences, labels: Any, objective: Objective) -> Judge:
    """labels [sequences] are used for accuracy only. Raises DataError, and ConfigError where there is no label."""
    # Ragged: outputs of every step come back without padding, which must count for nothing.
    sequences = replace(model.sequences(x), ragged=True)
    exact = _joined(model.run(sequences), model.last_step)
    if objective == "sqnr":
        return Judge(sequences, exact, None, np.inf)
    if model.n_outputs < 2:
        raise ConfigError(f"search: the objective {objective}, but a single output has no largest entry; use sqnr")
    if objective == "agreement":
        right = exact.argmax(axis=1)
    elif labels is None:
        raise DataError("search: the objective accuracy, and no labels [sequences]; give them, or use agreement")
    else:
        right = sequence_labels(model, labels, sequences)
    if len(right) < _LEAST_LABELS:
        raise DataError(
            f"search: {len(right)} labels to judge by, each worth {100 / len(right):.3g} points; expected "
            f"{_LEAST_LABELS} and more: give more sequences, or use sqnr"
        )
    return Judge(sequences, exact, right, _percent_right(exact, right))


def _joined(outputs: Any, last_step: bool) -> FloatArray:
    """[n, outputs] of the last step, or of all steps of a list of sequences."""
    return np.asarray(outputs if last_step else np.concatenate(outputs))


def _percent_right(outputs: FloatArray, right: npt.NDArray[np.int64]) -> float:
    return float(100 * (outputs.argmax(axis=1) == right).mean())
