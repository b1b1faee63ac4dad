"""Fake-quantized layers for training: what the integers compute, in real numbers and with gradients.

Weights have the values of their codes, and what a format holds ends where that format ends. Rounding to 16 bits is
left out: it costs far less than codes of 8 bits do. Each layer gives, by `integers`, the integer layer that it stands
for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from quantgru.array_types import FloatArray
from quantgru.fixed import round_half_up, to_raw16, to_real
from quantgru.int_model import IntBidirectional, IntDense, IntEmbedding, IntGru
from quantgru.int_model.row_parameters import RowParameters
from quantgru.model import Bidirectional, Dense, Embedding, Gru
from quantgru.quantizer.layers import embedding_scale
from quantgru.quantizer.weights import quantize_bias, quantize_biases
from quantgru.quantizer.widths import GATES, Widths
from quantgru.structure import Reverse
from quantgru.torch.rows import Operands, Rows, numbers, straight_through
from quantgru.torch.steps import BothDirections, Steps

Function = Callable[[Tensor], Tensor]


def _hard_sigmoid(a: Tensor) -> Tensor:
    return (a + 0.5).clamp(0, 1)


_GATES: Final[dict[str, Function]] = {"sigmoid": torch.sigmoid, "hard_sigmoid": _hard_sigmoid}
_BOUNDED: Final[dict[str, Function]] = {
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "hard_tanh": partial(torch.clamp, min=-1, max=1),
}
_MERGES: Final[dict[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "concat": lambda forward, backward: torch.cat((forward, backward), dim=-1),
    "sum": lambda forward, backward: forward + backward,
    "mul": lambda forward, backward: forward * backward,
    "ave": lambda forward, backward: (forward + backward) / 2,
}


_Step = tuple[Tensor, Tensor]  # z and n


def _function(name: str, fraction_bits: int) -> Function:
    """Of a candidate or a dense layer; what has no bound of its own ends where s16 with fraction_bits does."""
    if name in _BOUNDED:
        return _BOUNDED[name]
    end = 2.0 ** (15 - fraction_bits)
    low, high = 0.0 if name == "relu" else -end, end - 2.0**-fraction_bits
    return partial(torch.clamp, min=low, max=high)


def _parameter(values: FloatArray) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values, dtype=torch.float32))


class GruLayer(nn.Module):
    """A GRU layer. W [3H, I], U [3H, H] and bias [3H] have gates z, r, n one after the other; recurrent bias [H]."""

    def __init__(
        self, layer: Gru, start: IntGru, operands: Operands, widths: Widths, parameters: RowParameters
    ) -> None:
        super().__init__()
        self._start, self._row_parameters, units = start, parameters, layer.n_units
        self._gate, self._candidate = _GATES[layer.gate], _function(layer.candidate, start.state_fraction_bits)
        w_bits, u_bits = ([widths.of(layer.name, matrix, gate) for gate in GATES] for matrix in "WU")
        states = Operands.of_format(np.full(units, start.state_fraction_bits))
        w, u = layer.input_weights.reshape(3 * units, -1), layer.recurrent_weights.reshape(3 * units, -1)
        self.input = Rows(w, start.input, start.row_bits, w_bits, operands, f"{self._where}, W", parameters)
        self.recurrent = Rows(u, start.recurrent, start.row_bits, u_bits, states, f"{self._where}, U", parameters)
        _, from_mean = self.input.integers()
        self.bias = _parameter(to_real(start.bias, start.row_bits) + from_mean)
        if start.reset == "after":
            self.recurrent_bias = _parameter(to_real(start.recurrent_bias, start.candidate_bits))
        self.initial_state = None
        if start.initial_state is not None:
            self.initial_state = _parameter(to_real(start.initial_state, start.state_fraction_bits))

    @property
    def _where(self) -> str:
        return f"GRU layer {self._start.name!r}"

    def forward(self, x: Steps, states: list[Tensor]) -> Steps:
        """h after every step [sequences, steps, units]; see `RunLayer`."""
        units = self._start.n_units
        from_x = nn.functional.linear(x.values, self.input(), self.bias)
        from_x = from_x.to(self.bias.dtype)  # under autocast, which multiplies in 16 bits: states are kept in more
        gates_from_x, candidate_from_x = (part.unbind(dim=1) for part in from_x.split((2 * units, units), dim=-1))
        run_step = self._step_reset_after if self._start.reset == "after" else self._step_reset_before
        weights = self.recurrent().T
        h = self._first_state(from_x).expand(len(x.lengths), -1)
        of_steps = []
        for of_gates, of_candidate in zip(gates_from_x, candidate_from_x, strict=True):
            z, n = run_step(of_gates, of_candidate, h, weights)
            h = torch.lerp(n, h, z)
            of_steps.append(h)  # in padding, too, where nobody looks
        values = torch.where(x.valid[..., None], torch.stack(of_steps, dim=1), 0.0)
        states.append(values)
        return replace(x, values=values)

    def _first_state(self, like: Tensor) -> Tensor:
        if self.initial_state is None:
            return like.new_zeros(self._start.n_units)
        saturate = _function("linear", self._start.state_fraction_bits)
        return saturate(self.initial_state)

    def _step_reset_after(self, of_gates: Tensor, of_candidate: Tensor, h: Tensor, weights: Tensor) -> _Step:
        units = self._start.n_units
        gates_from_h, candidate_from_h = (h @ weights).split((2 * units, units), dim=-1)
        z, r = self._gate(of_gates + gates_from_h).chunk(2, dim=-1)
        return z, self._candidate(torch.addcmul(of_candidate, r, candidate_from_h + self.recurrent_bias))

    def _step_reset_before(self, of_gates: Tensor, of_candidate: Tensor, h: Tensor, weights: Tensor) -> _Step:
        units = self._start.n_units
        z, r = self._gate(of_gates + h @ weights[:, : 2 * units]).chunk(2, dim=-1)
        return z, self._candidate(of_candidate + (r * h) @ weights[:, 2 * units :])

    def integers(self) -> IntGru:
        """Raises ModelError."""
        start, where = self._start, self._where
        w, from_mean = self.input.integers()
        u, _ = self.recurrent.integers()
        of_candidate = numbers(self.recurrent_bias) if start.reset == "after" else np.zeros(0)
        real_bias = numbers(self.bias) - from_mean
        bias, recurrent_bias = quantize_biases(real_bias, of_candidate, start.row_bits, self._row_parameters, where)
        initial_state = start.initial_state
        if self.initial_state is not None:
            initial_state, _ = to_raw16(numbers(self.initial_state), start.state_fraction_bits)
        return replace(
            start, input=w, recurrent=u, bias=bias, recurrent_bias=recurrent_bias, initial_state=initial_state
        )


class BidirectionalLayer(nn.Module):
    """Two GRU layers on one sequence."""

    def __init__(
        self,
        layer: Bidirectional,
        start: IntBidirectional,
        operands: Operands,
        widths: Widths,
        parameters: RowParameters,
    ) -> None:
        super().__init__()
        self._start = start
        self.forward_gru = GruLayer(layer.forward, start.forward, operands, widths, parameters)
        self.backward_gru = GruLayer(layer.backward, start.backward, operands, widths, parameters)

    def forward(self, x: Steps, states: list[Tensor]) -> Steps:
        """The merged states of every step, or of the last steps alone; see `RunLayer`."""
        merge = _MERGES[self._start.merge]
        return BothDirections(self.forward_gru, self.backward_gru, merge, self._start.final)(x, states)

    def integers(self) -> IntBidirectional:
        """Raises ModelError."""
        return replace(self._start, forward=self.forward_gru.integers(), backward=self.backward_gru.integers())


class DenseLayer(nn.Module):
    """A dense layer: weights [outputs, inputs], bias [outputs]."""

    def __init__(
        self, layer: Dense, start: IntDense, operands: Operands, widths: Widths, parameters: RowParameters
    ) -> None:
        super().__init__()
        self._start = start
        self._function = _function(layer.activation, start.output_fraction_bits)
        row_bits = np.full(layer.n_outputs, start.row_bits)
        bits = [widths.of(layer.name)]
        self.rows = Rows(layer.weights, start.matrix, row_bits, bits, operands, self._where, parameters)
        _, from_mean = self.rows.integers()
        self.bias = _parameter(to_real(start.bias, row_bits) + from_mean)

    @property
    def _where(self) -> str:
        return f"dense layer {self._start.name!r}"

    def forward(self, x: Steps, states: list[Tensor]) -> Steps:
        """[sequences, steps, outputs]; see `RunLayer`."""
        return replace(x, values=self._function(nn.functional.linear(x.values, self.rows(), self.bias)))

    def integers(self) -> IntDense:
        """Raises ModelError."""
        matrix, from_mean = self.rows.integers()
        bias = quantize_bias(numbers(self.bias) - from_mean, self._start.row_bits, self._where)
        return replace(self._start, matrix=matrix, bias=bias)


class EmbeddingLayer(nn.Module):
    """Vectors [tokens, outputs], of codes on one scale for each column, which stays."""

    def __init__(self, layer: Embedding, start: IntEmbedding) -> None:
        super().__init__()
        self._start = start
        self.vectors = _parameter(layer.vectors)
        self.register_buffer("scale", torch.tensor(embedding_scale(layer)))

    def forward(self, x: Steps, states: list[Tensor]) -> Steps:
        """[sequences, steps, outputs]; see `RunLayer`."""
        scale = self.scale.to(self.vectors.dtype)
        codes = torch.clamp(self.vectors / scale, -128, 127)
        vectors = straight_through(codes, codes.round()) * scale
        return replace(x, values=vectors[x.values[..., 0].long()])

    def integers(self) -> IntEmbedding:
        codes = np.clip(round_half_up(numbers(self.vectors) / numbers(self.scale)), -128, 127)
        return replace(self._start, codes=codes.astype(np.int8))


class ReverseLayer(nn.Module):
    """The sequence from its last step to its first."""

    def __init__(self, layer: Reverse) -> None:
        super().__init__()
        self._start = layer

    def forward(self, x: Steps, states: list[Tensor]) -> Steps:
        """See `RunLayer`."""
        return x.reversed()

    def integers(self) -> Reverse:
        return self._start
