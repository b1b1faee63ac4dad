"""The contract in PyTorch: an integer model on a batch, in int64. Rules are cited as in SPEC.md.

Products of matrices are computed in float64: all sums are below 2**31, which it holds exactly in any order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from quantgru.fixed import INT16_MAX, INT16_MIN
from quantgru.int_model import (
    IntBidirectional,
    IntDense,
    IntEmbedding,
    IntGru,
    IntLayer,
    IntModel,
    Matrix,
    Reverse,
)
from quantgru.int_model.layers import EMBEDDING_BITS
from quantgru.simulator.kernels import FINE_END, HALF_TANH, LIMIT
from quantgru.torch.steps import BothDirections, RunLayer, Steps, run_layers, run_reversed

Function = Callable[[Tensor], Tensor]


def run_integers(model: IntModel, x: Steps) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Raw outputs and states for raw inputs, all int64; see `run_layers`."""
    layers = [_layer(layer, x.values.device) for layer in model.layers]
    return run_layers(model, model.last_step, layers, x)


def _layer(layer: IntLayer, device: torch.device) -> RunLayer:
    match layer:
        case IntGru():
            return _Gru(layer, device)
        case IntBidirectional():
            directions = _Gru(layer.forward, device), _Gru(layer.backward, device)
            return BothDirections(*directions, _MERGES[layer.merge], layer.final)
        case Reverse():
            return run_reversed
        case IntDense():
            return _Dense(layer, device)
        case IntEmbedding():
            return _Embedding(layer, device)


def _round_shift(v: Tensor, s: int) -> Tensor:
    """[R1]"""
    return (v + (1 << (s - 1))) >> s


def _saturate16(v: Tensor) -> Tensor:
    """[R2]"""
    return v.clamp(INT16_MIN, INT16_MAX)


def _half_tanh_q27(a: Tensor) -> Tensor:
    """[R6], 0 <= a <= LIMIT."""
    fine = a < FINE_END
    j = torch.where(fine, a >> 9, (a >> 11) + 120)
    fraction = torch.where(fine, (a & 511) * 4, a & 2047)
    table = torch.as_tensor(HALF_TANH, device=a.device)
    return table[j] * 2048 + (table[j + 1] - table[j]) * fraction


def _sigmoid(a: Tensor) -> Tensor:
    """[R7]"""
    return 16384 + a.sign() * ((_half_tanh_q27(a.abs().clamp(max=LIMIT)) + 4096) >> 13)


def _tanh(a: Tensor) -> Tensor:
    """[R8]"""
    return a.sign() * ((_half_tanh_q27((2 * a.abs()).clamp(max=LIMIT)) + 2048) >> 12).clamp(max=INT16_MAX)


def _short_sigmoid(a: Tensor) -> Tensor:
    """[R14, R19]"""
    return _sigmoid(a).clamp(max=INT16_MAX)


def _hard_sigmoid(a: Tensor) -> Tensor:
    """[R18]"""
    return 16384 + a.clamp(-16384, 16384)


def _saturated_relu(a: Tensor) -> Tensor:
    """[R14, R19]"""
    return _saturate16(a.clamp(min=0))


_GATES: Final[dict[str, Function]] = {"sigmoid": _sigmoid, "hard_sigmoid": _hard_sigmoid}
_FUNCTIONS: Final[dict[str, Function]] = {  # of candidates and dense layers
    "tanh": _tanh,
    "sigmoid": _short_sigmoid,
    "hard_tanh": _saturate16,
    "relu": _saturated_relu,
    "linear": _saturate16,
}
_MERGES: Final[dict[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "concat": lambda forward, backward: torch.cat((forward, backward), dim=-1),
    "sum": lambda forward, backward: _round_shift(forward + backward, 1),
    "mul": lambda forward, backward: _saturate16(_round_shift(forward * backward, 15)),
    "ave": lambda forward, backward: _round_shift(forward + backward, 1),
}


class _Rows:
    """Some rows of a matrix [R4, R9]."""

    def __init__(self, matrix: Matrix, rows: slice, device: torch.device) -> None:
        self._codes = torch.tensor(matrix.codes[rows], dtype=torch.float64, device=device).T
        self._multipliers = torch.tensor(matrix.multipliers[rows], dtype=torch.int64, device=device)
        self._shifts = torch.tensor(matrix.shifts[rows], dtype=torch.int64, device=device)
        self._halves = torch.bitwise_left_shift(torch.ones_like(self._shifts), self._shifts - 1)
        self._left_shift = matrix.left_shift

    def __call__(self, x: Tensor) -> Tensor:
        acc = (x.double() @ self._codes).long()
        return ((((acc << self._left_shift) * self._multipliers) >> 16) + self._halves) >> self._shifts


class _Gru:
    """[R10 ... R13, R19, R20]"""

    def __init__(self, layer: IntGru, device: torch.device) -> None:
        units = layer.n_units
        self._units, self._reset_after, self._state_shift = units, layer.reset == "after", layer.state_shift
        self._from_x = _Rows(layer.input, slice(None), device)
        self._gates_from_h = _Rows(layer.recurrent, slice(2 * units), device)
        self._candidate_from_h = _Rows(layer.recurrent, slice(2 * units, None), device)
        self._bias = torch.tensor(layer.bias, dtype=torch.int64, device=device)
        self._recurrent_bias = torch.tensor(layer.recurrent_bias, dtype=torch.int64, device=device)
        self._gate, self._candidate = _GATES[layer.gate], _FUNCTIONS[layer.candidate]
        self._h0 = torch.tensor(layer.h0, dtype=torch.int64, device=device)

    def __call__(self, x: Steps, states: list[Tensor]) -> Steps:
        from_x = self._from_x(x.values) + self._bias
        h = self._h0.expand(len(x.lengths), -1)
        residual = torch.zeros_like(h)
        of_steps = []
        for of_step in from_x.unbind(dim=1):
            u, n = self._update_and_candidate(of_step, h)
            acc = u * (n - h) + residual  # [R12]
            h, residual = h + (acc >> 15), acc & 32767
            of_steps.append(h)  # in padding, too, where nobody looks
        states.append(torch.where(x.valid[..., None], torch.stack(of_steps, dim=1), 0))
        return replace(x, values=states[-1])

    def _update_and_candidate(self, from_x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """u and n of a step."""
        units = self._units
        gates = self._gate(from_x[:, : 2 * units] + self._gates_from_h(h))
        u, r = 32768 - gates[:, :units], gates[:, units:]
        if self._reset_after:
            from_h = _round_shift((self._candidate_from_h(h) + self._recurrent_bias) * r, 15)  # [R5]
        else:
            from_h = self._candidate_from_h(_round_shift(h * r, 15))
        n = self._candidate(from_x[:, 2 * units :] + from_h)
        return u, n if self._state_shift == 0 else _round_shift(n, self._state_shift)


class _Dense:
    """[R14]"""

    def __init__(self, layer: IntDense, device: torch.device) -> None:
        self._rows = _Rows(layer.matrix, slice(None), device)
        self._bias = torch.tensor(layer.bias, dtype=torch.int64, device=device)
        self._function = _FUNCTIONS[layer.activation]

    def __call__(self, x: Steps, states: list[Tensor]) -> Steps:
        return replace(x, values=self._function(self._rows(x.values) + self._bias))


class _Embedding:
    """[R21]"""

    def __init__(self, layer: IntEmbedding, device: torch.device) -> None:
        self._vectors = torch.tensor(layer.codes, dtype=torch.int64, device=device) << EMBEDDING_BITS

    def __call__(self, x: Steps, states: list[Tensor]) -> Steps:
        return replace(x, values=self._vectors[x.values[..., 0].clamp(0, len(self._vectors) - 1)])
