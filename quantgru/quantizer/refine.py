"""Codes, scales and biases that lower the error of whole sequences on the calibration data, layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from quantgru.array_types import FloatArray
from quantgru.int_model import IntBidirectional, IntDense, IntGru, IntLayer, IntModel
from quantgru.int_model.row_parameters import RowParameters
from quantgru.model import Dense, FloatModel
from quantgru.model.run import FloatSignal, dense_output, run_body
from quantgru.quantizer.held_out import too_little_data
from quantgru.quantizer.refine_dense import DenseTask, refined_dense
from quantgru.quantizer.refine_gru import GruTask, refined_gru
from quantgru.quantizer.widths import GATES, Widths
from quantgru.sequences import Sequences, StatesLike
from quantgru.simulator.inputs import to_raw
from quantgru.simulator.program import RawSignal, Record, layer_program
from quantgru.simulator.states import GruState, start_states


class Refined(NamedTuple):
    """Layers of a model, and what is to be said about them.

    gains     of those that were refined: name, and dB by which the error is lower on sequences held out, that of a GRU
              layer's states, of a dense layer's outputs
    warnings  of those that were left alone
    """

    layers: tuple[IntLayer, ...]
    gains: list[tuple[str, float]]
    warnings: list[str]


def refine_layers(
    model: FloatModel,
    int_model: IntModel,
    sequences: Sequences,
    initial_states: StatesLike | None,
    widths: Widths,
    parameters: RowParameters,
    rounds: int,
    progress: Callable[[int], None],
) -> Refined:
    """The layers of `int_model`, which was made of `model` on `sequences`, with other codes, scales and biases.

    Each on what the ones before it give: there, no layer's error gets larger on the sequences held out.

    rounds    for each GRU layer
    progress  called with 1 after each round, or with all of them for a layer that is left alone
    """
    exact = run_body(model, sequences, initial_states)
    targets, starts = iter(exact.states), iter(start_states(int_model, initial_states, sequences.n_sequences))
    refinement = _Refinement(widths, parameters, rounds, progress)
    layers: list[IntLayer] = []
    signal = RawSignal(to_raw(int_model, sequences)[0], sequences.lengths)
    for layer, float_layer, exact_x in zip(int_model.body, model.body, exact.inputs, strict=True):
        states: list[GruState] = []
        match layer:
            case IntGru():
                states = [next(starts)]
                layers.append(refinement.gru(layer, signal, states[0], next(targets)))
            case IntBidirectional():
                states = [next(starts), next(starts)]
                forward = refinement.gru(layer.forward, signal, states[0], next(targets))
                backward = refinement.gru(layer.backward, signal.reversed(), states[1], next(targets))
                layers.append(replace(layer, forward=forward, backward=backward))
            case IntDense():
                assert isinstance(float_layer, Dense)
                layers.append(refinement.dense(layer, signal, float_layer, exact_x))
            case _:
                layers.append(layer)
        signal = layer_program(layers[-1]).run(signal, Record(iter(states), every_step=False))
    y, exact_y = signal, exact.output
    if model.last_step:
        y, exact_y = y.last_step(), exact_y.last_step()
    for head, float_head in zip(int_model.head, model.head, strict=True):
        layers.append(refinement.dense(head, y, float_head, exact_y))
        y = layer_program(layers[-1]).run(y, Record(iter(()), every_step=False))
        exact_y = replace(exact_y, values=dense_output(float_head, exact_y.values))
    return Refined(tuple(layers), refinement.gains, refinement.warnings)


@dataclass(frozen=True, eq=False)
class _Refinement:
    """What all layers have in common, and what was found so far."""

    widths: Widths
    parameters: RowParameters
    rounds: int
    progress: Callable[[int], None]
    gains: list[tuple[str, float]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def gru(self, layer: IntGru, x: RawSignal, start: GruState, target: FloatArray) -> IntGru:
        """`target`: states of the float model [sequences, steps, units]."""
        warning = too_little_data(f"GRU layer {layer.name!r}", x.lengths, layer.n_inputs + layer.n_units)
        if warning is not None:
            self.warnings.append(warning)
            self.progress(self.rounds)
            return layer
        w, u = ([self.widths.of(layer.name, matrix, gate) for gate in GATES] for matrix in "WU")
        task = GruTask(x, start, target, (w, u), self.parameters)
        found, gain = refined_gru(layer, task, self.rounds, self.progress)
        self.gains.append((layer.name, gain))
        return found

    def dense(self, layer: IntDense, x: RawSignal, exact: Dense, exact_x: FloatSignal) -> IntDense:
        """`exact` is the layer of the float model, and exact_x what that reads."""
        warning = too_little_data(f"dense layer {layer.name!r}", x.lengths, layer.n_inputs)
        if warning is not None:
            self.warnings.append(warning)
            return layer
        task = DenseTask(x, exact, exact_x, self.widths.of(layer.name), self.parameters)
        found, gain = refined_dense(layer, task)
        self.gains.append((layer.name, gain))
        return found
