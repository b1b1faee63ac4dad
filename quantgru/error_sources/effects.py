"""What each source of error costs on a set of sequences."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from quantgru.array_types import FloatArray, IntArray
from quantgru.error_sources.rounding import rounded16
from quantgru.error_sources.sources import Source, sources, whole_layers
from quantgru.fixed import to_real
from quantgru.int_model import IntModel, require_int_model
from quantgru.int_model.cost import cost
from quantgru.model import FloatModel
from quantgru.model.run import NOTHING_REPLACED, Replaced, dense_output, run_body
from quantgru.quantizer import fold_standardisation
from quantgru.quantizer.calibrate import calibrate
from quantgru.quantizer.counterpart import counterparts
from quantgru.quantizer.rounding import RoundingName
from quantgru.quantizer.whole_sequences import compensations
from quantgru.report.accuracy import sqnr_db
from quantgru.sequences import Sequences, SequencesLike, StatesLike
from quantgru.simulator import SimulationResult, run

ALL_WEIGHTS, EVERYTHING = "all weights and biases", "the integer model"


@dataclass(frozen=True)
class FirstStep:
    """Where labels part first: the smallest step, as the model reads them, at which one differs; the first sequence."""

    step: int
    sequence: int


@dataclass(frozen=True)
class Effect:
    """Of one source alone, all else in float; or of some together.

    state_db        signal of h of the last GRU layer to its error, over all steps and units
    output_db       the same of the outputs
    changed_labels  outputs whose largest entry is another than the float model's; None of a single output
    first           where that happens first; None if it does not. Of a model that answers after the last step: where,
                    asked after each step, it would first have given one of these sequences another label; None if it
                    needs whole sequences
    flash_bytes     what the part takes; None for what is no constant
    saturated       values that saturate there when the integer model runs; None for what cannot
    """

    name: str
    state_db: float
    output_db: float
    changed_labels: int | None
    first: FirstStep | None
    flash_bytes: int | None
    saturated: int | None

    def to_json(self) -> dict[str, Any]:
        """As JSON values, which know no infinity: where there is no error or no signal, dB are null."""
        decibels = {name: vars(self)[name] for name in ("state_db", "output_db")}
        finite = {name: value if math.isfinite(value) else None for name, value in decibels.items()}
        return vars(self) | finite | {"first": None if self.first is None else vars(self.first)}


@dataclass(frozen=True)
class Sensitivity:
    """Where the error of an integer model comes from.

    n_sequences, n_steps  of the data
    n_labels   outputs that were compared
    sources    each by itself, in the order of the model
    together   all weights and biases of each layer; then ALL_WEIGHTS, all of these, with arithmetic in float; and
               EVERYTHING, as the simulator runs it
    """

    n_sequences: int
    n_steps: int
    n_labels: int
    sources: tuple[Effect, ...]
    together: tuple[Effect, ...]

    def to_json(self) -> dict[str, Any]:
        """The result as JSON values."""
        return vars(self) | {
            name: [effect.to_json() for effect in vars(self)[name]] for name in ("sources", "together")
        }


def sensitivity(
    int_model: IntModel,
    model: FloatModel,
    x: SequencesLike | Sequences,
    calibration: SequencesLike | Sequences,
    *,
    mean: npt.ArrayLike | None = None,
    scale: npt.ArrayLike | None = None,
    initial_states: StatesLike | None = None,
    calibration_states: StatesLike | None = None,
    progress: Callable[[int], None] | None = None,
) -> Sensitivity:
    """What each part of `int_model` costs against `model`, from which it was made on `calibration`, on sequences x.

    mean, scale                         [inputs], where `model` was trained on (x - mean) / scale
    initial_states, calibration_states  of x and of the calibration data, as in `quantize`
    progress                            called with 1 after each of `n_sources(int_model)` runs

    Raises ModelError for models that are no pair, DataError.
    """
    require_int_model(int_model, "sensitivity")
    if isinstance(model, FloatModel):
        model = fold_standardisation(model, mean, scale)
    floats, meant = counterparts(model, int_model)
    seen, body = calibrate(floats, floats.sequences(calibration, what="calibration data"), calibration_states)
    rounding: RoundingName = "compensated" if int_model.notes.get("rounding") == "compensated" else "nearest"
    of_grus = compensations(floats, body, seen, rounding)
    data = _Data(floats.sequences(x), initial_states, floats.last_step, not floats.last_step or int_model.streaming)
    exact = data.run(floats)
    integers = run(int_model, data.sequences, initial_states=initial_states)

    def effect(part: Source) -> Effect:
        given = data.rounded(int_model) if part.rounds_inputs else data
        found = given.run(part.model, part.replaced())
        saturated = None if part.saturated is None else part.saturated(integers)
        if progress is not None:
            progress(1)
        return data.effect(part.name, exact, found, part.flash_bytes, saturated)

    effects = [effect(part) for part in sources(int_model, floats, meant, seen, of_grus)]
    saturated = sum(each.saturated or 0 for each in effects)
    together = (
        *(effect(part) for part in whole_layers(int_model, floats, meant)),
        data.effect(ALL_WEIGHTS, exact, data.run(meant), None, None),
        data.effect(EVERYTHING, exact, data.of_simulator(integers), cost(int_model).constant_bytes, saturated),
    )
    n_sequences, n_steps = data.sequences.n_sequences, data.sequences.n_steps
    return Sensitivity(n_sequences, n_steps, len(exact.outputs), tuple(effects), together)


@dataclass(frozen=True, eq=False)
class _Result:
    """h of the last GRU layer [steps, units] and the outputs [n, outputs], without padding.

    labels  after each step [sequences, steps], anything in padding; None where a model answers whole sequences only
    """

    states: FloatArray
    outputs: FloatArray
    labels: IntArray | None


@dataclass(frozen=True, eq=False)
class _Data:
    """Sequences, with states before the first step.

    last_step   whether models on them answer after the last step
    step_by_step  whether they could answer after each
    """

    sequences: Sequences
    starts: StatesLike | None
    last_step: bool
    step_by_step: bool

    def rounded(self, model: IntModel) -> _Data:
        """As the device gets it [R15]."""
        values = rounded16(self.sequences.values, model.input_fraction_bits.astype(np.int64))
        return replace(self, sequences=replace(self.sequences, values=values))

    def run(self, model: FloatModel, replaced: Replaced = NOTHING_REPLACED) -> _Result:
        body = run_body(model, self.sequences, self.starts, replaced=replaced)
        y = body.output.values if self.step_by_step else body.output.last_step().values
        for number, layer in enumerate(model.head, start=len(model.dense) - len(model.head)):
            y = dense_output(layer, y, replaced.activations.get(number))
        return self._result(body.states[-1], y)

    def of_simulator(self, result: SimulationResult) -> _Result:
        model = result.model
        states = to_real(result.states_raw[-1], model.grus[-1].state_fraction_bits)
        raw = result.outputs_raw
        if self.last_step and self.step_by_step:
            raw = run(replace(model, last_step=False), self.sequences, initial_states=self.starts).outputs_raw
        elif self.last_step:
            raw = raw[:, None]
        return self._result(states, to_real(raw, model.output_fraction_bits))

    def _result(self, states: FloatArray, outputs: FloatArray) -> _Result:
        """`outputs` [sequences, steps, outputs], with a single step unless `step_by_step`."""
        valid = self.sequences.valid
        labels = outputs.argmax(axis=2) if self.step_by_step else None
        if self.last_step:
            ends = self.sequences.lengths - 1 if self.step_by_step else 0
            return _Result(states[valid], outputs[np.arange(len(outputs)), ends], labels)
        return _Result(states[valid], outputs[valid], labels)

    def effect(
        self, name: str, exact: _Result, found: _Result, flash_bytes: int | None, saturated: int | None
    ) -> Effect:
        changed, first = None, None
        if exact.outputs.shape[1] >= 2:
            differs = exact.outputs.argmax(axis=1) != found.outputs.argmax(axis=1)
            changed, first = int(differs.sum()), self._first(differs, exact.labels, found.labels)
        state_db, output_db = sqnr_db(exact.states, found.states), sqnr_db(exact.outputs, found.outputs)
        return Effect(name, state_db, output_db, changed, first, flash_bytes, saturated)

    def _first(
        self, differs: npt.NDArray[np.bool_], exact: IntArray | None, found: IntArray | None
    ) -> FirstStep | None:
        """`differs` are outputs, of the last steps or of all; labels are those after each step."""
        if exact is None or found is None:
            return None
        parted = (exact != found) & self.sequences.valid
        if self.last_step:
            parted &= differs[:, None]
        where = np.argwhere(parted.T)  # (step, sequence), the smallest first
        return FirstStep(*map(int, where[0])) if len(where) else None
