"""Float model and calibration data to an integer model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
import numpy.typing as npt

from quantgru.array_types import FloatArray, IntArray
from quantgru.errors import ConfigError, DataError, ModelError
from quantgru.fixed import to_real
from quantgru.int_model import IntLayer, IntModel, SelfTest
from quantgru.int_model.row_parameters import ROW_PARAMETERS, RowParametersName
from quantgru.model import Bidirectional, Dense, FloatModel, Gru
from quantgru.quantizer.calibrate import Calibration, calibrate
from quantgru.quantizer.counterpart import with_codes_away
from quantgru.quantizer.formats import LARGEST_VALUE, input_fraction_bits
from quantgru.quantizer.held_out import gain_db, outputs_error
from quantgru.quantizer.layers import Roundings, quantize_layers
from quantgru.quantizer.notes import FAINTEST_PEAK, notes
from quantgru.quantizer.refine import refine_layers
from quantgru.quantizer.rounding import RoundingName
from quantgru.quantizer.standardisation import fold_standardisation
from quantgru.quantizer.whole_sequences import compensations
from quantgru.quantizer.widths import DEFAULT_BITS, WeightBits, Widths
from quantgru.sequences import Sequences, SequencesLike, StatesLike
from quantgru.simulator.batch import run, run_check, step_check

_SELFTEST_STEPS = 8


def quantize(
    model: FloatModel,
    calibration: SequencesLike | Sequences,
    *,
    mean: npt.ArrayLike | None = None,
    scale: npt.ArrayLike | None = None,
    initial_states: StatesLike | None = None,
    rounding: RoundingName = "compensated",
    weight_bits: WeightBits = DEFAULT_BITS,
    row_parameters: RowParametersName = "exact",
    refine: int = 0,
    name: str | None = None,
    input_units: Sequence[str] = (),
    output_units: Sequence[str] = (),
    progress: Callable[[int], None] | None = None,
) -> IntModel:
    """The integer model of `model`, with formats chosen on calibration data [sequences, steps, inputs].

    With mean and scale [inputs], `model` was trained on (x - mean) / scale; they are folded into the weights, and x,
    here and on the device, is in its own units. Initial states, of each GRU layer [units] or [sequences, units], are
    such as sequences will start from, if not from the model's own: the state's format then holds them. Units are texts
    for reports and exported headers, such as "deg/s", one for each input or output.

    rounding  "compensated": errors of a row's weights make up for one another in the states of the calibration
              sequences, and weights of U for errors of W; "nearest": each weight by itself
    weight_bits  2 ... 16 bits for all codes, or by name of layer, matrix and gate: {"": 4, "gru.U.n": 8, "dense": 6};
                 exports pack what has less than 8 where that makes them smaller, and take two bytes for more. Of more
                 than 8 bits a row uses as many as its accumulator has room for, 11 to 13.5 in typical models
    row_parameters  "exact", or "short": scales and biases of rows such that exports have them in one byte and two,
                    instead of three and four
    refine    rounds in which GRU layers get other codes, scales and biases, so that states of whole sequences come
              nearer to the float model's, with short row parameters on the scales that they have; then dense layers,
              for the states that come out; every fifth sequence is not fitted to, and decides which rounds count
    progress  called with 1 after each of these rounds of each GRU layer

    Raises DataError for unusable data, ModelError for weights that no fixed-point accumulator can hold, ConfigError.
    """
    _require_float_model(model)
    Widths(model, weight_bits)  # refused before the work
    if isinstance(refine, bool) or not isinstance(refine, (int, np.integer)) or refine < 0:
        raise ConfigError(f"refine={refine!r}, expected a number of rounds, 0 or more")
    calibrated = calibrate_model(
        model,
        calibration,
        mean=mean,
        scale=scale,
        initial_states=initial_states,
        rounding=rounding,
        row_parameters=row_parameters,
        name=name,
        input_units=input_units,
        output_units=output_units,
    )
    if refine:
        return calibrated.refined(weight_bits, model.sequences(calibration), initial_states, int(refine), progress)
    return calibrated.quantize(weight_bits)


def _no_progress(rounds: int) -> None:
    """Nobody wants to know."""


@dataclass(frozen=True, eq=False)
class CalibratedModel:
    """All that integer models of one float model have in common, whatever the widths of their weights.

    float_model    on inputs in their own units
    fraction_bits  of the inputs [inputs]
    first_steps    of the calibration data [1, steps, inputs], for the self-test
    roundings      with what they have found so far: another width for one gate rounds that gate again, and of W the
                   same gate of U, too
    """

    float_model: FloatModel
    seen: Calibration
    fraction_bits: IntArray
    first_steps: FloatArray
    roundings: Roundings
    name: str
    input_units: Sequence[str]
    output_units: Sequence[str]

    def quantize(self, weight_bits: WeightBits) -> IntModel:
        """The integer model of these widths, as `quantize` gives it. Raises ModelError."""
        roundings = replace(self.roundings, widths=Widths(self.float_model, weight_bits))
        int_model = IntModel(
            quantize_layers(self.float_model, self.seen, self.fraction_bits, roundings),
            self.fraction_bits.astype(np.int8),
            self.float_model.last_step,
            SelfTest(np.zeros((1, self.fraction_bits.size), np.int16), 0),  # stands in: only a model can run
            name=self.name,
            input_units=self.input_units,  # the model checks them, and makes them tuples
            output_units=self.output_units,
            mask_value=self.float_model.mask_value,
        )
        said = notes(self.float_model, self.seen, int_model, roundings)
        int_model = replace(int_model, notes=said, selftest=_selftest(int_model, self.first_steps))
        return with_codes_away(int_model, self.float_model)

    def refined(
        self,
        weight_bits: WeightBits,
        sequences: Sequences,
        initial_states: StatesLike | None,
        rounds: int,
        progress: Callable[[int], None] | None,
    ) -> IntModel:
        """The integer model of these widths, refined on `sequences`, which it was calibrated on. Raises ModelError.

        It is left alone where its outputs get worse on sequences held out, though its states did not.
        """
        int_model, model = self.quantize(weight_bits), self.float_model
        widths, parameters = Widths(model, weight_bits), self.roundings.parameters
        refined = refine_layers(
            model, int_model, sequences, initial_states, widths, parameters, rounds, progress or _no_progress
        )
        changed = with_layers(int_model, refined.layers)
        notes = {**int_model.notes, "warnings": [*int_model.notes["warnings"], *refined.warnings]}
        before, after = (outputs_error(model, each, sequences, initial_states) for each in (int_model, changed))
        if after > before:
            notes["warnings"].append(
                f"not refined: that makes errors of the outputs larger by {gain_db(after, before):.2g} dB on "
                "calibration data held out, though states come nearer; give more sequences, or more bits"
            )
            return replace(int_model, notes=notes)
        gains = [(name, round(decibels, 2)) for name, decibels in refined.gains]
        changed = replace(changed, notes=notes | {"refined": {"rounds": rounds, "gains": gains}})
        return with_codes_away(changed, model)


def calibrate_model(
    model: FloatModel,
    calibration: SequencesLike | Sequences,
    *,
    mean: npt.ArrayLike | None = None,
    scale: npt.ArrayLike | None = None,
    initial_states: StatesLike | None = None,
    rounding: RoundingName = "compensated",
    row_parameters: RowParametersName = "exact",
    name: str | None = None,
    input_units: Sequence[str] = (),
    output_units: Sequence[str] = (),
) -> CalibratedModel:
    """What `quantize` does before it rounds: all but the widths is decided here. Raises DataError, ModelError."""
    _require_float_model(model)
    if rounding not in get_args(RoundingName):
        raise ModelError(f"quantize: rounding {rounding!r}, allowed are {' and '.join(get_args(RoundingName))}")
    if row_parameters not in ROW_PARAMETERS:
        raise ModelError(f"quantize: row parameters {row_parameters!r}, allowed are {' and '.join(ROW_PARAMETERS)}")
    sequences = model.sequences(calibration, what="calibration data")
    folded = fold_standardisation(model, mean, scale)
    if folded.embedding is None:
        _check_range(sequences)
    seen, body = calibrate(folded, sequences, initial_states)
    return CalibratedModel(
        folded,
        seen,
        _input_fraction_bits(folded, seen),
        sequences.values[:1, : min(_SELFTEST_STEPS, int(sequences.lengths[0]))],
        Roundings(
            rounding,
            Widths(folded, DEFAULT_BITS),
            ROW_PARAMETERS[row_parameters],
            compensations(folded, body, seen, rounding),
        ),
        name or model.name,
        input_units,
        output_units,
    )


def _require_float_model(model: object) -> None:
    if not isinstance(model, FloatModel):
        raise ModelError(
            f"quantize: a model of type {type(model).__name__}, expected a FloatModel; qg.load(model) makes one"
        )


def _check_range(sequences: Sequences) -> None:
    peaks = np.abs(sequences.vectors()).max(axis=0)
    feature = int(peaks.argmax())
    if peaks[feature] > LARGEST_VALUE:
        raise DataError(
            f"calibration data: feature {feature} reaches {peaks[feature]:.3g}, a 16-bit input at most "
            f"{LARGEST_VALUE:.3g}; scale the inputs"
        )
    if peaks[feature] < FAINTEST_PEAK:
        raise DataError(
            f"calibration data: no value is larger than {peaks[feature]:.3g}, which says nothing about the ranges of "
            "the inputs; give sequences as the device will see them, and scale inputs as small as this"
        )


def _input_fraction_bits(model: FloatModel, seen: Calibration) -> IntArray:
    """Of each input [inputs], by what the first layer with weights makes of it; 0 for token numbers."""
    if model.embedding is not None:
        return np.zeros(1, dtype=np.int64)
    first = next(layer for layer in model.layers if isinstance(layer, (Gru, Bidirectional, Dense)))
    grus = [first.forward, first.backward] if isinstance(first, Bidirectional) else [first]
    rows = [gru.input_weights.reshape(-1, gru.n_inputs) if isinstance(gru, Gru) else gru.weights for gru in grus]
    return input_fraction_bits(seen.input_min, seen.input_max, seen.input_deviation, np.concatenate(rows))


def _selftest(model: IntModel, x: FloatArray) -> SelfTest:
    """A few steps as the device gets them: R16 after each for a model that runs step by step, else R24."""
    result = run(model, x, trace=True, threads=1)
    raw = result.inputs_raw[0]
    if not model.streaming:
        return SelfTest(raw, run_check(result, 0))
    assert result.trace is not None
    check = 0
    for step in range(x.shape[1]):
        check = step_check(result.trace, 0, step, check)
    return SelfTest(raw[::-1] if model.reversed_input else raw, check)


def with_layers(model: IntModel, layers: Sequence[IntLayer]) -> IntModel:
    """`model` with other layers of the same shapes and formats, its self-test on the same inputs. Raises ModelError."""
    changed = replace(model, layers=tuple(layers))
    raw = model.selftest.inputs[::-1] if model.reversed_input else model.selftest.inputs
    return replace(changed, selftest=_selftest(changed, to_real(raw, model.input_fraction_bits)[None]))
