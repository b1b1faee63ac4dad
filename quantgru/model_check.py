"""Two integer models on the same data: whether the new one may take the place of the old one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from quantgru.errors import ConfigError, DataError, ModelError
from quantgru.int_model import IntModel, require_int_model
from quantgru.int_model.cost import cost
from quantgru.model import FloatModel
from quantgru.report.accuracy import sqnr_db
from quantgru.report.gates import Gate
from quantgru.sequences import Sequences, SequencesLike, as_sequences, check_labels, with_token_axis
from quantgru.simulator import SimulationResult, run

MIN_DB: Final = 30.0
MIN_AGREEMENT: Final = 0.99
MAX_ACCURACY_LOSS: Final = 0.005

_NEXT_STEP: Final = (
    "both must take the same inputs and give the same outputs: as the old one, give the .qgru that the new one is to "
    "replace"
)


@dataclass(frozen=True)
class CheckedModel:
    """What one of the two models is, and does with the data.

    flash_bytes    constants; the kernel library is the same for both
    ram_bytes      state and scratch; of a model that runs whole sequences, scratch and rows for the longest of the data
    step_macs      multiply-accumulates of a step
    clipped        input values that saturate
    accuracy       share of the labels that it gets right, 0 ... 1; None without labels
    """

    name: str
    digest: str
    flash_bytes: int
    ram_bytes: int
    step_macs: int
    clipped: int
    accuracy: float | None


@dataclass(frozen=True)
class CheckResult:
    """How a new model compares with an old one.

    n_sequences, n_steps  of the data
    gates                 each figure with its limit
    """

    n_sequences: int
    n_steps: int
    old: CheckedModel
    new: CheckedModel
    gates: tuple[Gate, ...]

    @property
    def passed(self) -> bool:
        """Whether all gates hold."""
        return all(gate.holds for gate in self.gates)

    def to_json(self) -> dict[str, Any]:
        """The result as JSON values."""
        return {
            "passed": self.passed,
            "sequences": self.n_sequences,
            "steps": self.n_steps,
            "old": vars(self.old),
            "new": vars(self.new),
            "gates": [gate.to_json() for gate in self.gates],
        }


def check(
    old: IntModel,
    new: IntModel,
    x: SequencesLike | Sequences,
    labels: npt.ArrayLike | None = None,
    *,
    min_db: float = MIN_DB,
    min_agreement: float | None = None,
    max_accuracy_loss: float | None = None,
    max_flash_growth: int = 0,
    max_ram_growth: int = 0,
    progress: Callable[[int], None] | None = None,
) -> CheckResult:
    """Runs both models on x [sequences, steps, inputs] and holds the new one against the old one.

    labels             integers [sequences], the numbers of the right outputs, for models of the last step
    min_db             signal of the old outputs to difference of the new ones, over all of them
    min_agreement      share of outputs with the same largest entry, 0 ... 1; None: 0.99; a single output has none
    max_accuracy_loss  share of labels, 0 ... 1; None: 0.005 if there are labels
    max_flash_growth   bytes of constants
    max_ram_growth     bytes of state and scratch
    progress           called, from any thread, with the number of sequences that are finished since the last call; both
                       models count

    Raises ModelError for models of other inputs or outputs, DataError, and ConfigError for a limit that is none, or for
    which the models or the data have no figure.
    """
    _check_models(old, new)
    _check_limits(min_db, min_agreement, max_accuracy_loss, max_flash_growth, max_ram_growth)
    given = x if old.embedding is None else with_token_axis(x)
    # Ragged: outputs of every step come back without padding, which must count for nothing.
    sequences = replace(as_sequences(given, n_features=old.n_inputs), ragged=True)
    right = None if labels is None else sequence_labels(old, labels, sequences)
    results = [run(model, sequences, progress=progress) for model in (old, new)]
    outputs = [result.outputs if old.last_step else np.concatenate(result.outputs) for result in results]
    before, after = (_checked(result, y, right) for result, y in zip(results, outputs, strict=True))
    gates = [Gate("output SQNR", "dB", "min", sqnr_db(*outputs), min_db)]
    gates += _label_gates(outputs, right, min_agreement, max_accuracy_loss)
    gates.append(_growth("flash growth", before.flash_bytes, after.flash_bytes, max_flash_growth))
    gates.append(_growth("RAM growth", before.ram_bytes, after.ram_bytes, max_ram_growth))
    return CheckResult(sequences.n_sequences, sequences.n_steps, before, after, tuple(gates))


def _label_gates(
    outputs: list[Any],
    labels: npt.NDArray[np.int64] | None,
    min_agreement: float | None,
    max_accuracy_loss: float | None,
) -> list[Gate]:
    """Of labels that agree, if there are two outputs, and of right ones, if those are known."""
    gates = []
    if outputs[0].shape[1] >= 2:
        agreement = float((outputs[0].argmax(axis=1) == outputs[1].argmax(axis=1)).mean())
        limit = MIN_AGREEMENT if min_agreement is None else min_agreement
        gates.append(Gate("labels as the old model's", "share", "min", agreement, limit))
    elif min_agreement is not None:
        raise ConfigError("check: a gate on labels, but a single output has no largest entry; leave out min_agreement")
    if labels is not None:
        lost = _hits(outputs[0], labels) - _hits(outputs[1], labels)  # in whole labels: equal to the limit is within it
        limit = MAX_ACCURACY_LOSS if max_accuracy_loss is None else max_accuracy_loss
        gates.append(Gate("accuracy loss", "share", "max", lost / len(labels), limit))
    elif max_accuracy_loss is not None:
        raise ConfigError("check: a gate on accuracy, and no labels; give labels, or leave out max_accuracy_loss")
    return gates


def _hits(outputs: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> int:
    """How many labels are right."""
    return int((outputs.argmax(axis=1) == labels).sum())


def _growth(name: str, before: int, after: int, limit: int) -> Gate:
    return Gate(name, "bytes", "max", after - before, limit)


def _checked(
    result: SimulationResult, outputs: npt.NDArray[np.float64], labels: npt.NDArray[np.int64] | None
) -> CheckedModel:
    model, total = result.model, cost(result.model)
    return CheckedModel(
        model.name,
        model.digest.hex(),
        total.constant_bytes,
        total.state_bytes + total.scratch_bytes + total.row_bytes * int(result.sequences.lengths.max()),
        total.step_macs,
        int(result.clipped_inputs.sum()),
        None if labels is None else _hits(outputs, labels) / len(labels),
    )


def sequence_labels(model: IntModel | FloatModel, labels: npt.ArrayLike, sequences: Sequences) -> npt.NDArray[np.int64]:
    """The labels [sequences], if the model can be judged by them. Raises DataError."""
    array = np.asarray(labels)
    if not model.last_step or model.n_outputs < 2:
        raise DataError(
            f"labels: model {model.name!r} gives no label to a sequence, which takes outputs of the last step"
        )
    if array.shape != (sequences.n_sequences,) or array.dtype.kind not in "iu":
        raise DataError(f"labels: {array.dtype} {array.shape}, expected integers ({sequences.n_sequences},)")
    return check_labels(array.astype(np.int64), model.n_outputs)


def _check_models(old: IntModel, new: IntModel) -> None:
    for model in (old, new):
        require_int_model(model, "check")
    for what in ("n_inputs", "n_outputs", "last_step", "reversed_output"):
        if getattr(old, what) != getattr(new, what):
            raise ModelError(
                f"check: {what} is {getattr(old, what)} of the old model {old.name!r}, {getattr(new, what)} of the new "
                f"{new.name!r}; {_NEXT_STEP}"
            )
    if (old.embedding is None) != (new.embedding is None):
        raise ModelError(f"check: one model takes tokens, the other numbers; {_NEXT_STEP}")


def _check_limits(min_db: float, min_agreement: float | None, max_accuracy_loss: float | None, *growths: int) -> None:
    if math.isnan(min_db):
        raise ConfigError("check: min_db is not a number")
    for name, share in (("min_agreement", min_agreement), ("max_accuracy_loss", max_accuracy_loss)):
        if share is not None and not 0 <= share <= 1:
            raise ConfigError(f"check: {name} {share}, expected a share, 0 ... 1")
    for growth in growths:
        if isinstance(growth, bool) or not isinstance(growth, int):
            raise ConfigError(f"check: a growth of {growth!r}, expected a whole number of bytes")
