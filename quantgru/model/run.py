"""The float run: the canonical cell in float64, over a batch of sequences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from quantgru.activations import CANDIDATES, DENSE_ACTIVATIONS, GATES, Function
from quantgru.array_types import FloatArray
from quantgru.errors import DataError
from quantgru.model.float_model import FloatModel
from quantgru.model.layers import Bidirectional, Dense, Embedding, Gru, Layer
from quantgru.sequences import Sequences, StatesLike, as_states, check_tokens
from quantgru.signals import Signal, merge_directions
from quantgru.structure import Reverse

FloatSignal = Signal[np.float64]

# Called after each step with its number, the state before it, z, r and n, [sequences, units] each.
GateObserver = Callable[[int, FloatArray, FloatArray, FloatArray, FloatArray], None]

MERGES: Final[dict[str, Callable[[FloatArray, FloatArray], FloatArray]]] = {
    "concat": lambda forward, backward: np.concatenate((forward, backward), axis=-1),
    "sum": lambda forward, backward: forward + backward,
    "mul": lambda forward, backward: forward * backward,
    "ave": lambda forward, backward: (forward + backward) / 2,
}


def weighted_mean(h: FloatArray, z: FloatArray, n: FloatArray) -> FloatArray:
    """h' of a step."""
    return z * h + (1 - z) * n


@dataclass(frozen=True)
class Cell:
    """The functions that a GRU layer computes between its products; `update` gives h' for h, z and n."""

    gate: Function
    candidate: Function
    update: Callable[[FloatArray, FloatArray, FloatArray], FloatArray] = weighted_mean

    @classmethod
    def of(cls, layer: Gru) -> Cell:
        """In float64."""
        return cls(GATES[layer.gate], CANDIDATES[layer.candidate])


@dataclass(frozen=True)
class Replaced:
    """Parts of a run that are computed in another way: cells by the number of the GRU layer, activations by the number
    of the dense layer, both in the order in which layers run."""

    cells: Mapping[int, Cell] = field(default_factory=dict)
    activations: Mapping[int, Function] = field(default_factory=dict)


NOTHING_REPLACED: Final = Replaced()


@dataclass(frozen=True, eq=False)
class BodyRun:
    """What the layers before the head computed.

    inputs      what each of these layers read
    gru_inputs  what each GRU layer read, steps in the order in which it read them
    starts      h of each GRU layer before the first step [sequences, units]
    states      h of each GRU layer after each step [sequences, steps, units], in that order
    output      what the head reads
    """

    inputs: tuple[FloatSignal, ...]
    gru_inputs: tuple[FloatSignal, ...]
    starts: tuple[FloatArray, ...]
    states: tuple[FloatArray, ...]
    output: FloatSignal


def run_body(
    model: FloatModel,
    sequences: Sequences,
    initial_states: StatesLike | None = None,
    observers: Sequence[GateObserver] = (),
    replaced: Replaced = NOTHING_REPLACED,
) -> BodyRun:
    """Runs the layers before the head; observers are none, or one for each GRU layer. Raises DataError."""
    given = [layer.h0 for layer in model.grus] if initial_states is None else initial_states
    starts = as_states(given, [layer.n_units for layer in model.grus], sequences.n_sequences)
    inputs: list[FloatSignal] = []
    gru_inputs: list[FloatSignal] = []
    states: list[FloatArray] = []
    signal = FloatSignal(sequences.values, sequences.lengths)

    def run_gru(layer: Gru, x: FloatSignal) -> FloatArray:
        number = len(states)
        gru_inputs.append(x)
        cell = replaced.cells.get(number)
        states.append(gru_states(layer, x, starts[number], observers[number] if observers else None, cell))
        return states[-1]

    dense_numbers = iter(range(len(model.dense)))

    def run_dense(layer: Dense, x: FloatSignal) -> FloatArray:
        return dense_output(layer, x.values, replaced.activations.get(next(dense_numbers)))

    for layer in model.body:
        inputs.append(signal)
        signal = _run_layer(layer, signal, run_gru, run_dense)
    return BodyRun(tuple(inputs), tuple(gru_inputs), tuple(starts), tuple(states), signal)


def _run_layer(
    layer: Layer,
    x: FloatSignal,
    run_gru: Callable[[Gru, FloatSignal], FloatArray],
    run_dense: Callable[[Dense, FloatSignal], FloatArray],
) -> FloatSignal:
    match layer:
        case Gru():
            return replace(x, values=run_gru(layer, x))
        case Bidirectional():
            forward = replace(x, values=run_gru(layer.forward, x))
            backward = replace(x, values=run_gru(layer.backward, x.reversed()))
            return merge_directions(forward, backward, MERGES[layer.merge], final=layer.final)
        case Reverse():
            return x.reversed()
        case Dense():
            return replace(x, values=run_dense(layer, x))
        case Embedding():
            return replace(x, values=_vectors(layer, x))


def _vectors(layer: Embedding, x: FloatSignal) -> FloatArray:
    check_tokens(x, layer.n_tokens, layer.name)
    return np.asarray(layer.vectors[x.values[..., 0].astype(np.int64)])


def gru_states(
    layer: Gru,
    signal: FloatSignal,
    start: npt.ArrayLike = 0.0,
    observe: GateObserver | None = None,
    cell: Cell | None = None,
) -> FloatArray:
    """h after every step, [sequences, steps, units], from `start` [units] or [sequences, units]. It stays in padding.

    Raises DataError where h leaves the range of float64, which an unbounded candidate can do.
    """
    x = signal.values
    n_sequences, n_steps, _ = x.shape
    units = layer.n_units
    cell = cell or Cell.of(layer)
    h = np.broadcast_to(np.asarray(start, dtype=np.float64), (n_sequences, units))
    states = np.empty((n_sequences, n_steps, units))
    running = signal.valid[..., None]
    with np.errstate(over="ignore", invalid="ignore"):
        for t in range(n_steps):
            z, r, n = gates(layer, x[:, t], h, cell)
            new_h = np.where(running[:, t], cell.update(h, z, n), h)
            if observe is not None:
                observe(t, h, z, r, n)
            h = new_h
            states[:, t] = h
    _refuse_divergence(layer, states)
    return states


def gates(layer: Gru, x: FloatArray, h: FloatArray, cell: Cell) -> tuple[FloatArray, FloatArray, FloatArray]:
    """z, r and n [..., units] of a step that reads x [..., inputs] and comes after h [..., units]."""
    units = layer.n_units
    # Gates side by side: one product for all three.
    recurrent_weights = layer.recurrent_weights.reshape(3 * units, units).T
    from_x = x @ layer.input_weights.reshape(3 * units, -1).T + layer.bias.reshape(-1)
    from_h = h @ recurrent_weights
    z = cell.gate(from_x[..., :units] + from_h[..., :units])
    r = cell.gate(from_x[..., units : 2 * units] + from_h[..., units : 2 * units])
    if layer.reset == "after":
        inner = r * (from_h[..., 2 * units :] + layer.recurrent_bias)
    else:
        inner = (r * h) @ recurrent_weights[:, 2 * units :]
    return z, r, cell.candidate(from_x[..., 2 * units :] + inner)


def _refuse_divergence(layer: Gru, states: FloatArray) -> None:
    bad = np.argwhere(~np.isfinite(states))
    if len(bad):
        i, t, unit = bad[0].tolist()
        raise DataError(
            f"GRU layer {layer.name!r}: unit {unit} diverges at sequence {i}, step {t}; its candidate is "
            f"{layer.candidate}, which has no limit: scale the inputs, or check the weights"
        )


def dense_output(layer: Dense, x: FloatArray, activation: Function | None = None) -> FloatArray:
    """[..., outputs] for x [..., inputs]; with the layer's own activation if None is given."""
    return (activation or DENSE_ACTIVATIONS[layer.activation])(x @ layer.weights.T + layer.bias)


def outputs(model: FloatModel, sequences: Sequences, body_output: FloatSignal) -> Any:
    """The head on what the body gave, arranged as `FloatModel.run` says."""
    y = body_output.last_step().values[:, 0] if model.last_step else body_output.values
    for layer in model.head:
        y = dense_output(layer, y)
    if model.last_step:
        return y
    return sequences.arrange(np.where(sequences.valid[..., None], y, 0.0), from_last_step=model.reversed_output)
