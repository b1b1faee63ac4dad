"""How far an integer model can be from its float model, for one step and for many."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from quantgru.array_types import FloatArray
from quantgru.error_bounds.enclosure import Enclosure
from quantgru.error_bounds.from_reset import longest_from_reset
from quantgru.error_bounds.interval import Interval
from quantgru.error_bounds.network import Network
from quantgru.errors import DataError
from quantgru.fixed import INT16_MAX, INT16_MIN, to_raw16, to_real
from quantgru.int_model import IntModel, require_int_model
from quantgru.model import FloatModel
from quantgru.quantizer import fold_standardisation

LARGEST_ERROR: Final = 0.1
MOST_STEPS: Final = 1024

InputRange = tuple[FloatArray, FloatArray]


@dataclass(frozen=True, eq=False)
class ErrorBound:
    """No |integer - float| is larger, for any inputs within the range.

    float_model    the model that `model` was made from, on inputs in their own units
    low, high      of each input [inputs]
    one_step       of h of each GRU layer [units], after one step from any state that its format holds, the same in both
    outputs        of each output [outputs], after that step
    largest_error, most_steps  what `steps` is about
    steps          in sequences of up to so many steps from the reset no |integer - float| of h exceeds largest_error;
                   at most `most_steps`, where the search for more ends
    after_steps    the largest |integer - float| of h in these; 0 for no steps
    any_length     whether sequences of any number of steps stay within after_steps; `steps` is then most_steps
    """

    model: IntModel
    float_model: FloatModel
    low: FloatArray
    high: FloatArray
    one_step: tuple[FloatArray, ...]
    outputs: FloatArray
    largest_error: float
    most_steps: int
    steps: int
    after_steps: float
    any_length: bool


def error_bound(
    int_model: IntModel,
    model: FloatModel,
    *,
    mean: npt.ArrayLike | None = None,
    scale: npt.ArrayLike | None = None,
    input_range: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    largest_error: float = LARGEST_ERROR,
    most_steps: int = MOST_STEPS,
    progress: Callable[[int], None] | None = None,
) -> ErrorBound:
    """A proved bound of the error of `int_model` against `model`, the float model that it was made from.

    mean, scale  [inputs], where `model` was trained on (x - mean) / scale
    input_range  lowest and highest real value of each input [inputs], limited to what the formats hold, which is the
                 range if None. Tokens are all that there are
    most_steps   where the search for `ErrorBound.steps` ends
    progress     called with 1 after each step that is proved, most_steps times at most

    Raises ModelError for models that are no pair, DataError for a range that is none.
    """
    require_int_model(int_model, "error bound")
    if isinstance(model, FloatModel):
        model = fold_standardisation(model, mean, scale)
    low, high = _range(int_model, input_range)
    network = Network(int_model, model)
    x = _inputs(int_model, low, high)
    with np.errstate(over="ignore", invalid="ignore"):  # an error that leaves float64 is too large, like any other
        states, outputs = network.run([x], [pair.any_state() for pair in network.grus])
        reset = longest_from_reset(network, x, largest_error, most_steps, progress or (lambda steps: None))
    one_step = tuple(of_layer.errors.magnitude for (of_layer,) in states)
    of_outputs = outputs[-1].errors.magnitude
    return ErrorBound(
        int_model,
        model,
        low,
        high,
        one_step,
        of_outputs,
        largest_error,
        most_steps,
        reset.steps,
        reset.error,
        reset.any_length,
    )


def calibrated_range(model: IntModel) -> InputRange | None:
    """What inputs the quantizer noted, lowest and highest; None where a model has no such notes."""
    try:
        low, high = (np.array([float(entry[end]) for entry in model.notes["inputs"]]) for end in ("min", "max"))
    except (KeyError, TypeError, ValueError):  # no digest covers notes: in a file they may be anything
        return None
    return (low, high) if low.shape == (model.n_inputs,) and (low <= high).all() else None


def _range(model: IntModel, given: tuple[npt.ArrayLike, npt.ArrayLike] | None) -> InputRange:
    ends = tuple(np.ldexp(float(end), -model.input_fraction_bits.astype(np.int64)) for end in (INT16_MIN, INT16_MAX))
    if model.embedding is not None:
        ends = np.zeros(1), np.array([model.embedding.n_tokens - 1.0])
    elif given is not None:
        low, high = (np.asarray(end, dtype=np.float64) for end in given)
        shape = (model.n_inputs,)
        if low.shape != shape or high.shape != shape or not (low <= high).all():
            raise DataError(
                f"input range: {low.shape} and {high.shape}, expected {shape} lowest values and as many highest ones "
                "that are not below them"
            )
        ends = np.clip(low, *ends), np.clip(high, *ends)
    return ends[0], ends[1]


def _inputs(model: IntModel, low: FloatArray, high: FloatArray) -> Enclosure:
    """[R15]; of tokens their numbers, which are exact."""
    reals = Interval(low, high)
    if model.embedding is not None:
        return Enclosure(reals, reals, Interval.around_zero(np.zeros(1)))
    bits = model.input_fraction_bits.astype(np.int64)
    ends = (to_real(to_raw16(end, bits)[0], bits) for end in (low, high))
    return Enclosure(Interval(*ends), reals, Interval.around_zero(np.exp2(-1.0 - bits)))
