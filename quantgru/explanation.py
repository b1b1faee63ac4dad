"""How a GRU comes to its numbers, step by step and unit by unit, in float and in integers side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import numpy as np
import numpy.typing as npt

from quantgru.array_types import FloatArray
from quantgru.errors import ConfigError, DataError, ModelError
from quantgru.int_model import IntModel
from quantgru.model import FloatModel
from quantgru.model.run import run_body
from quantgru.quantizer import dequantize, fold_standardisation, quantize
from quantgru.report.derivation import Derivation, GateValues, GruNumbers, unit_lines
from quantgru.sequences import Sequences, SequencesLike, StatesLike, as_states
from quantgru.simulator import run
from quantgru.simulator.states import start_states


def explain(
    model: FloatModel | IntModel,
    x: SequencesLike | Sequences,
    *,
    calibration: SequencesLike | Sequences | None = None,
    mean: npt.ArrayLike | None = None,
    scale: npt.ArrayLike | None = None,
    initial_states: StatesLike | None = None,
    sequence: int = 0,
    layer: int | str | None = None,
    step: int | None = None,
    unit: int | None = None,
) -> Derivations:
    """The derivations of one sequence of x: of all GRU layers, steps and units, or of those that are given.

    model           a float model, of which an integer one is made with formats from `calibration` (x if None); or an
                    integer model, and the float weights are those that its integers mean
    mean, scale     [inputs], of a float model that was trained on (x - mean) / scale: folded into its weights
    initial_states  for each GRU layer h before the first step, [units] or [sequences, units]
    layer           number or name of a GRU layer; of a bidirectional layer each direction is one
    step            in the order in which the layer reads the steps; masked ones are not among them

    Raises DataError, ModelError, ConfigError for a layer, step or unit that there is not.
    """
    if isinstance(model, FloatModel):
        model = fold_standardisation(model, mean, scale)
    elif mean is not None or scale is not None:
        raise ConfigError("explain: mean and scale are in the weights of an integer model already; leave them out")
    starts = initial_states if calibration is None else None  # they belong to x
    float_model, int_model = _both(model, x if calibration is None else calibration, starts)
    sequences = float_model.sequences(x)
    if not 0 <= sequence < sequences.n_sequences:
        raise DataError(f"explain: sequence {sequence}, the input has 0 ... {sequences.n_sequences - 1}")
    one = Sequences(sequences.values[sequence : sequence + 1], sequences.lengths[sequence : sequence + 1])
    numbers = _numbers(float_model, int_model, one, _of_sequence(float_model, initial_states, sequence, sequences))
    chosen = range(len(numbers)) if layer is None else [_layer_number(int_model, layer)]
    steps = _chosen("step", step, int(one.lengths[0]))
    layers = [(numbers[i], _chosen("unit", unit, numbers[i].integers.n_units)) for i in chosen]
    return Derivations(sequence, steps, layers)


class Derivations(Sequence[Derivation]):
    """Derivations of layer after layer, step after step, unit after unit, each of them made when it is asked for."""

    def __init__(self, sequence: int, steps: range, layers: Sequence[tuple[GruNumbers, range]]) -> None:
        """layers are the numbers of each, and the units that are asked for."""
        self._sequence, self._steps, self._layers = sequence, steps, layers

    def __len__(self) -> int:
        return len(self._steps) * sum(len(units) for _, units in self._layers)

    @overload
    def __getitem__(self, index: int) -> Derivation: ...

    @overload
    def __getitem__(self, index: slice) -> list[Derivation]: ...

    def __getitem__(self, index: int | slice) -> Derivation | list[Derivation]:
        places = range(len(self))[index]
        return self._derive(places) if isinstance(places, int) else [self._derive(place) for place in places]

    def _derive(self, place: int) -> Derivation:
        for numbers, units in self._layers:
            step, unit = divmod(place, len(units))
            if step < len(self._steps):
                t, u = self._steps[step], units[unit]
                return Derivation(numbers.integers.name, self._sequence, t, u, unit_lines(numbers, t, u))
            place -= len(self._steps) * len(units)
        raise IndexError(place)


def _of_sequence(
    model: FloatModel, initial_states: StatesLike | None, sequence: int, sequences: Sequences
) -> list[FloatArray] | None:
    """h [1, units] of each GRU layer before the first step of one sequence."""
    if initial_states is None:
        return None
    states = as_states(initial_states, [gru.n_units for gru in model.grus], sequences.n_sequences)
    return [h[sequence : sequence + 1] for h in states]


def _both(
    model: object, calibration: SequencesLike | Sequences, initial_states: StatesLike | None
) -> tuple[FloatModel, IntModel]:
    if isinstance(model, IntModel):
        return dequantize(model), model
    if isinstance(model, FloatModel):
        return model, quantize(model, calibration, initial_states=initial_states)
    raise ModelError(f"explain: a model of type {type(model).__name__}, expected a FloatModel or an IntModel")


def _chosen(what: str, number: int | None, n: int) -> range:
    if number is None:
        return range(n)
    if isinstance(number, bool) or not isinstance(number, (int, np.integer)) or not 0 <= number < n:
        raise ConfigError(f"explain: {what} {number!r}, there are 0 ... {n - 1}")
    return range(number, number + 1)


def _layer_number(model: IntModel, layer: int | str) -> int:
    names = [gru.name for gru in model.grus]
    if isinstance(layer, str) and names.count(layer) == 1:
        return names.index(layer)
    if str(layer).isdecimal() and int(layer) < len(names):
        return int(layer)
    known = ", ".join(f"{i} {name}" for i, name in enumerate(names))
    raise ConfigError(f"explain: GRU layer {layer!r}, there are: {known}; several of one name are told apart by number")


def _numbers(
    float_model: FloatModel, int_model: IntModel, one: Sequences, initial_states: list[FloatArray] | None
) -> list[GruNumbers]:
    """Of each GRU layer, on a batch of one sequence."""
    body = run_body(float_model, one, initial_states)
    trace = run(int_model, one, initial_states=initial_states, trace=True).trace
    assert trace is not None
    raw_starts = start_states(int_model, initial_states, 1)
    result = []
    for i, (floats, integers) in enumerate(zip(float_model.grus, int_model.grus, strict=True)):
        start = floats.h0 if initial_states is None else initial_states[i][0]
        layer = trace.layers[i]
        result.append(
            GruNumbers(
                floats,
                integers,
                body.gru_inputs[i].values[0],
                np.concatenate((start[None], body.states[i][0])),
                layer.x[0],
                np.concatenate((raw_starts[i].h, layer.h[0])),
                np.concatenate((np.zeros((1, integers.n_units), np.uint16), layer.residual[0])),
                GateValues(layer.u[0], layer.r[0], layer.n[0]),
            )
        )
    return result
