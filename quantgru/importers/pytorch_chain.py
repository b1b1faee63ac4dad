"""Signals put into a `Chain`, layer by layer: what waits in a signal becomes a part of the layers when one reads it.

`pytorch_signals` says what a signal is, `chain` what may follow what.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from quantgru.activations import Merge
from quantgru.importers.chain import Chain, refuse
from quantgru.importers.pytorch_signals import (
    DIRECTIONS,
    FEATURES,
    LAST_STEP,
    LAYERS,
    Axis,
    CannotSayError,
    FloatArray,
    Pick,
    Signal,
    State,
)
from quantgru.model import Bidirectional, Dense, Embedding, Gru


@dataclass
class SignalChain:
    """A chain and what was learnt of the module's input on the way.

    one_step    whether a call is one step: its input [batch, features] has no axis of steps, which then has number 1
    position    changes of the chain until now; a signal of another position is another branch
    time_axis   the axis of the input that has the steps; -1 until the first GRU says it
    input_rank  the number of axes of the input
    n_tokens    if the input are tokens
    starts      of each GRU layer, the given state that it starts at, if any
    squeezed    where axes are taken away if their size is 1, which may be those of the sequences or the steps
    """

    chain: Chain
    one_step: bool = False
    position: int = 0
    time_axis: int = -1
    input_rank: int = 3
    n_tokens: int | None = None
    starts: list[State | None] = field(default_factory=list)
    squeezed: list[str] = field(default_factory=list)
    _joins_at: int = -1  # the position right after a bidirectional layer
    _reversed: dict[int, str] = field(default_factory=dict)  # axes reversed before they are known to be the steps

    def input(self) -> Signal:
        if self.one_step:
            self.time_axis, self.input_rank = 1, 2
            return Signal(((0,), (FEATURES,)), self.position, None)
        return Signal(((0,), (1,), (FEATURES,)), self.position, None)

    def univariate(self, signal: Signal) -> Signal:
        """Inputs [sequences, steps] with the one feature that they are."""
        self.input_rank -= 1
        return replace(signal, width=1)

    def want_steps(self, where: str, signal: Signal, batch_first: bool) -> None:
        """Raises ModelError unless the axes are those that a GRU reads; the first one says which the steps are."""
        want_no_states(signal)
        if signal.pick != "all" or self.chain.last_step:
            raise refuse(where, "a GRU layer after the last step was taken")
        axis = signal.axes[1 if batch_first else 0]
        if self.time_axis < 0 and axis in ((0,), (1,)):
            self.want_time_axis(where, axis[0])
        steps: Axis = () if self.one_step else (self.time_axis,)
        batch = (1 - self.time_axis,)
        if signal.axes != (*((batch, steps) if batch_first else (steps, batch)), (FEATURES,)):
            found = f"batch_first={batch_first} takes the batch for the steps, or others for the features"
            raise refuse(where, found, "transpose before it")

    def want_one_step(self, signal: Signal) -> None:
        """Raises CannotSayError for what is not what an nn.GRUCell reads."""
        if self.chain.last_step or signal.pick != "all":
            raise CannotSayError("a GRU layer after the last step was taken")
        if self.time_axis < 0 or signal.axes != ((1 - self.time_axis,), (FEATURES,)):
            raise CannotSayError("a cell reads one step, of a loop or of forward(x, h)", "use nn.GRU for all steps")

    def want_time_axis(self, where: str, axis: int) -> None:
        """Raises ModelError where the steps are on another axis than a GRU has read, or than was reversed."""
        if self.time_axis not in (-1, axis):
            raise refuse(where, "takes the batch for the steps", "transpose before it")
        self.time_axis = axis
        for reversed_axis, place in self._reversed.items():
            if reversed_axis != axis:
                raise refuse(place, "reverses the sequences of a batch, not their steps")

    def recurrent(self, where: str, signal: Signal, layers: Sequence[Gru | Bidirectional]) -> tuple[Signal, Signal]:
        """The outputs of all steps, and the final states [layers and directions, batch, units]."""
        bidirectional = isinstance(layers[-1], Bidirectional)
        if bidirectional and self.one_step:
            raise CannotSayError("reads one step in both directions", "give it whole sequences")
        signal, choice = self._without_choice(signal, layers[0].n_inputs)
        if choice is not None:
            layers = [_choosing(layers[0], *choice), *layers[1:]]
        signal = self.settled(where, signal)
        self.chain.add_recurrent(where, layers)
        self.position += 1
        last = layers[-1]
        if bidirectional:
            self._joins_at = self.position
        units = last.forward.n_units if isinstance(last, Bidirectional) else last.n_units
        kind = (LAYERS,) * (len(layers) > 1) + (DIRECTIONS,) * bidirectional
        axes = (kind, (1 - self.time_axis,), (FEATURES,))
        pick: Pick = "all" if self.one_step else "final" if bidirectional else "last"
        states = Signal(axes, self.position, units, pick, n_layers=len(layers))
        return Signal(signal.axes, self.position, last.n_outputs), states

    def embedding(self, where: str, signal: Signal, layer: Embedding) -> Signal:
        if signal.axes[-1:] != ((FEATURES,),) or signal.width is not None or signal.waits:
            raise refuse(where, "an embedding after another layer", "it reads token numbers: put it first")
        self.chain.add_embedding(where, layer)
        self.n_tokens, self.input_rank = layer.n_tokens, self.input_rank - 1
        return self._after(signal, layer.n_outputs)

    def dense(self, where: str, signal: Signal, layer: Dense) -> Signal:
        want_features(signal, len(signal.axes) - 1, "reads the last axis, which are not the features")
        signal, choice = self._without_choice(signal, layer.n_inputs)
        if choice is not None:
            matrix, shift = choice
            layer = replace(layer, weights=layer.weights @ matrix, bias=layer.bias + layer.weights @ shift)
        signal = self.settled(where, signal)
        self.chain.add_dense(where, layer)
        return self._after(signal, layer.n_outputs)

    def activation(self, where: str, signal: Signal, name: str) -> Signal:
        signal = self.settled(where, signal)
        self.chain.add_activation(where, name)
        return self._after(signal, signal.width)

    def softmax(self, where: str, signal: Signal, kind: str, dim: Any) -> Signal:
        signal = self.settled(where, signal)
        rank = len(signal.axes)
        of_features = type(dim) is int and -rank <= dim < rank and signal.axes[dim] == (FEATURES,)
        self.chain.add_softmax(where, kind, None if of_features else str(dim))
        return self._after(signal, signal.width)

    def reverse(self, where: str, signal: Signal, axis: Axis) -> Signal:
        """The steps from the last to the first."""
        if signal.pick != "all" or axis not in ((0,), (1,)) or (self.time_axis >= 0 and axis != (self.time_axis,)):
            raise CannotSayError("reverses something else than the steps")
        if self.time_axis < 0:
            self._reversed[axis[0]] = where
        self.chain.add_reverse(where)
        return self._after(signal, signal.width)

    def product(self, first: Signal, second: Signal) -> Signal:
        """The one product of two signals that a layer can be: that of both directions."""
        units = self.units()
        halves = [np.eye(2 * units)[:units], np.eye(2 * units)[units:]]
        found = [signal.linear() for signal in (first, second)]
        in_order = found if np.array_equal(found[0][0], halves[0]) else found[::-1]
        same = all(np.array_equal(matrix, half) for (matrix, _), half in zip(in_order, halves, strict=True))
        if not units or not same or any(shift.any() for _, shift in found):
            raise CannotSayError("multiplies two tensors that depend on the input")
        self._merge("mul")
        return self._after(replace(first, matrix=None, scale=1.0, shift=0.0), units)

    def settled(self, where: str, signal: Signal) -> Signal:
        """`signal` with nothing waiting any more: it is in the chain."""
        want_no_states(signal)
        signal = self.as_final(signal)
        match signal.pick:
            case "first":
                raise CannotSayError("does not take the last step but the first", LAST_STEP)
            case "last":
                self.chain.take_last_step()
                if self.units():
                    self.chain.notes.append(f"{where}: at the last step, the backward direction has read one step only")
            case "final":
                self.chain.take_final_states(where)
        self._settle_features(where, signal)
        return self._after(Signal(signal.axes, self.position, signal.width), signal.width)

    def _settle_features(self, where: str, signal: Signal) -> None:
        if not signal.waits:
            return
        if signal.matrix is None:
            self.chain.add_affine(where, signal.scale, signal.shift)
            return
        matrix, shift = signal.linear()
        both = np.tile(np.eye(len(matrix)), 2)
        can_merge = len(matrix) == self.units() and not shift.any()
        if np.array_equal(matrix, np.diag(np.diag(matrix))):
            self.chain.add_affine(where, np.diag(matrix), shift)
        elif can_merge and np.array_equal(matrix, both):
            self._merge("sum")
        elif can_merge and np.array_equal(matrix, both / 2):
            self._merge("ave")
        else:
            self.chain.add_dense(where, Dense(f"linear_{len(self.chain.layers)}", matrix, shift))

    def _without_choice(self, signal: Signal, n_inputs: int) -> tuple[Signal, tuple[FloatArray, FloatArray] | None]:
        """All features, where a signal takes some of them or another order, and the matrix and shift that do this.

        Folded into the weights of the layer that reads them, this costs nothing.
        """
        signal = self.as_final(signal)
        if signal.matrix is None or (np.count_nonzero(signal.matrix, axis=1) > 1).any():
            return signal, None
        matrix, shift = signal.linear()
        if n_inputs != len(matrix):
            raise CannotSayError(f"{n_inputs} inputs, but gets {len(matrix)}")
        return replace(signal, matrix=None, scale=1.0, shift=0.0, width=matrix.shape[1]), (matrix, shift)

    def units(self) -> int:
        """Those of each direction, where the chain's last change was a bidirectional layer; otherwise 0."""
        last = self.chain.layers[-1] if self.chain.layers else None
        return last.forward.n_units if isinstance(last, Bidirectional) and self.position == self._joins_at else 0

    def as_final(self, signal: Signal) -> Signal:
        """As final states what a signal takes of the last step forwards alone, or of the first backwards alone."""
        units = self.units()
        if not units or signal.pick not in ("first", "last"):
            return signal
        matrix, _ = signal.linear()
        other = matrix[:, units:] if signal.pick == "last" else matrix[:, :units]
        return signal if other.any() else replace(signal, pick="final")

    def _merge(self, kind: Merge) -> None:
        last = self.chain.layers[-1]
        assert isinstance(last, Bidirectional)
        self.chain.layers[-1] = replace(last, merge=kind)

    def _after(self, signal: Signal, width: int | None) -> Signal:
        """`signal` after a change of the chain."""
        self.position += 1
        return replace(signal, position=self.position, width=width)


def _choosing(layer: Gru | Bidirectional, matrix: FloatArray, shift: FloatArray) -> Gru | Bidirectional:
    """`layer` that computes matrix @ x + shift of its inputs itself."""

    def choosing(gru: Gru) -> Gru:
        weights = gru.input_weights
        return replace(gru, input_weights=weights @ matrix, bias=gru.bias + weights @ shift)

    if isinstance(layer, Bidirectional):
        return replace(layer, forward=choosing(layer.forward), backward=choosing(layer.backward))
    return choosing(layer)


def want_features(signal: Signal, axis: int, found: str) -> None:
    """Raises CannotSayError where an axis are not the features."""
    want_no_states(signal)
    if axis >= len(signal.axes) or signal.axes[axis] != (FEATURES,):
        raise CannotSayError(found, "transpose before it")


def want_no_states(signal: Signal) -> None:
    """Raises CannotSayError for h_n as a whole."""
    if {LAYERS, DIRECTIONS} & {label for axis in signal.axes for label in axis}:
        raise CannotSayError("gets the final states of all layers", "give it h_n[-1]")
