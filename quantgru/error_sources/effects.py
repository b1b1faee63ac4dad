"""What each source of error costs on a set of sequences."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from quantgru.array_types import FloatArray
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
from quantgru.report.accuracy import sqnr_db
from quantgru.sequences import Sequences, SequencesLike, StatesLike
from quantgru.simulator import SimulationResult, run

ALL_WEIGHTS, EVERYTHING = "all weights and biases", "the integer model"


@dataclass(frozen=True)
class FirstStep:
    """Where labels part first: the smallest step at which one differs, and the first sequence in which it does."""

    step: int
    sequence: int


@dataclass(frozen=True)
class Effect:
    """Of one source alone, all else in float; or of some together.

    state_db        signal of h of the last GRU layer to its error, over all steps and units
    output_db       the same of the outputs
    changed_labels  outputs whose largest entry is another than the float model's; None of a single output
    first           where that happens first; None if it does not
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
    seen = calibrate(floats, floats.sequences(calibration, what="calibration data"), calibration_states)
    data = _Data(floats.sequences(x), initial_states)
    exact = data.run(floats)
    integers = run(int_model, data.sequences, initial_states=initial_states)

    def effect(part: Source) -> Effect:
        given = data.rounded(int_model) if part.rounds_inputs else data
        found = given.run(part.model, part.replaced())
        saturated = None if part.saturated is None else part.saturated(integers)
        if progress is not None:
            progress(1)
        return data.effect(part.name, exact, found, part.flash_bytes, saturated)

    effects = [effect(part) for part in sources(int_model, floats, meant, seen)]
    saturated = sum(each.saturated or 0 for each in effects)
    together = (
        *(effect(part) for part in whole_layers(int_model, floats, meant)),
        data.effect(ALL_WEIGHTS, exact, data.run(meant), None, None),
        data.effect(EVERYTHING, exact, _of_simulator(integers), cost(int_model).constant_bytes, saturated),
    )
    n_sequences, n_steps = data.sequences.n_sequences, data.sequences.n_steps
    return Sensitivity(n_sequences, n_steps, len(exact.outputs), tuple(effects), together)


@dataclass(frozen=True, eq=False)
class _Result:
    """h of the last GRU layer [steps, units] and the outputs [n, outputs], without padding."""

    states: FloatArray
    outputs: FloatArray


def _of_simulator(result: SimulationResult) -> _Result:
    model, valid = result.model, result.sequences.valid
    outputs = to_real(result.outputs_raw, model.output_fraction_bits)
    states = to_real(result.states_raw[-1], model.grus[-1].state_fraction_bits)
    return _Result(states[valid], outputs if model.last_step else outputs[valid])


@dataclass(frozen=True, eq=False)
class _Data:
    sequences: Sequences
    starts: StatesLike | None

    def rounded(self, model: IntModel) -> _Data:
        """As the device gets it [R15]."""
        values = rounded16(self.sequences.values, model.input_fraction_bits.astype(np.int64))
        return replace(self, sequences=replace(self.sequences, values=values))

    def run(self, model: FloatModel, replaced: Replaced = NOTHING_REPLACED) -> _Result:
        body = run_body(model, self.sequences, self.starts, replaced=replaced)
        y = body.output.last_step().values[:, 0] if model.last_step else body.output.vectors()
        for number, layer in enumerate(model.head, start=len(model.dense) - len(model.head)):
            y = dense_output(layer, y, replaced.activations.get(number))
        return _Result(body.states[-1][self.sequences.valid], y)

    def effect(
        self, name: str, exact: _Result, found: _Result, flash_bytes: int | None, saturated: int | None
    ) -> Effect:
        changed, first = None, None
        if exact.outputs.shape[1] >= 2:
            differs = exact.outputs.argmax(axis=1) != found.outputs.argmax(axis=1)
            changed, first = int(differs.sum()), self._first(differs)
        state_db, output_db = sqnr_db(exact.states, found.states), sqnr_db(exact.outputs, found.outputs)
        return Effect(name, state_db, output_db, changed, first, flash_bytes, saturated)

    def _first(self, differs: npt.NDArray[np.bool_]) -> FirstStep | None:
        """Of outputs of every step, or of the last steps."""
        valid = self.sequences.valid
        if len(differs) == self.sequences.n_sequences:
            where = np.stack((np.arange(len(differs)), self.sequences.lengths - 1), axis=1)[differs]
        else:
            where = np.argwhere(valid)[differs]
        if not len(where):
            return None
        step, sequence = min((int(t), int(i)) for i, t in where)
        return FirstStep(step, sequence)
