"""A trained matrix whose codes have few bits: real weights, and the integer rows that they become."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from quantgru.array_types import FloatArray, IntArray
from quantgru.fixed import INT32_MAX
from quantgru.int_model import Matrix
from quantgru.int_model.row_parameters import EXACT, RowParameters
from quantgru.quantizer.rounding import Nearest
from quantgru.quantizer.weights import rows_on_scales

_INSIDE: Final = 0.4  # of a code's cell, which ends at 0.5: how far from its centre a weight starts at most


@dataclass(frozen=True, eq=False)
class Operands:
    """What the raw operands of a matrix mean to the float model: (raw - mean) * scale [columns]."""

    scale: FloatArray
    mean: FloatArray

    @classmethod
    def of_format(cls, fraction_bits: IntArray) -> Operands:
        """s16 values with fraction_bits [columns]."""
        return cls(np.exp2(-fraction_bits.astype(np.float64)), np.zeros(len(fraction_bits)))


def straight_through(values: Tensor, rounded: Tensor) -> Tensor:
    """`rounded`, with the gradient of `values`."""
    return values + (rounded - values).detach()


class Rows(nn.Module):
    """Weights [rows, columns] in the unit of the float model, trained; each row keeps the scale that it has, as long as
    its accumulator cannot overflow: then both training and the integers take a larger one.

    The start is an integer matrix: each weight is the float model's, as far as its code stays that of the matrix.
    Gradients pass through the rounding and the limits of the codes, so that a weight beyond them finds its way back.
    """

    def __init__(
        self,
        weights: FloatArray,
        matrix: Matrix,
        row_bits: IntArray,
        bits: Sequence[int],
        operands: Operands,
        where: str,
        parameters: RowParameters = EXACT,
    ) -> None:
        """`bits` are those of the codes of each of as many equal parts; sums have row_bits fraction bits [rows]; errors
        call the matrix `where`."""
        super().__init__()
        self._where, self._row_parameters, self.bits = where, parameters, list(bits)
        self._row_bits, self._parts = row_bits, [Nearest(n) for n in bits]
        self._largest_sum = INT32_MAX >> (15 + matrix.left_shift)  # of the codes of a row [P1]
        row_scales = matrix.row_scales(row_bits)
        one = row_scales[:, None] / operands.scale  # the weight that one code stands for
        room = _INSIDE * np.abs(one)
        start = matrix.codes * one + np.clip(weights - matrix.codes * one, -room, room)
        self.weights = nn.Parameter(torch.tensor(start, dtype=torch.float32))
        ends = np.repeat([2.0 ** (n - 1) for n in bits], len(start) // len(bits))[:, None]
        constants = {"row_scales": row_scales, "lowest": -ends, "highest": ends - 1}
        constants |= {"operand_scale": operands.scale, "operand_mean": operands.mean}
        for name, values in constants.items():
            self.register_buffer(name, torch.tensor(values, dtype=torch.float64))

    def forward(self) -> Tensor:
        """The weights that the integers stand for, fake-quantized [rows, columns]. Raises ModelError where none do."""
        one = self.row_scales[:, None] / self.operand_scale
        codes = (self.weights / one).round().clamp(self.lowest, self.highest)
        rounded = codes * one
        if (codes.detach().abs().sum(dim=1) > self._largest_sum).any():
            rounded = self._on_larger_scales()
        return straight_through(self.weights, rounded.to(self.weights.dtype))

    def integers(self) -> tuple[Matrix, FloatArray]:
        """The integer rows, and what the mean of the operands gives their sums [rows]. Raises ModelError."""
        matrix = self._matrix()
        return matrix, (matrix.codes @ numbers(self.operand_mean)) * matrix.row_scales(self._row_bits)

    def _matrix(self) -> Matrix:
        raw_weights = numbers(self.weights) * numbers(self.operand_scale)
        return rows_on_scales(
            raw_weights, numbers(self.row_scales), self._row_bits, self._parts, self._where, self._row_parameters
        )

    def _on_larger_scales(self) -> Tensor:
        """The weights of the integers, some of whose scales are not those of the start [rows, columns]."""
        matrix = self._matrix()
        real = matrix.codes * matrix.row_scales(self._row_bits)[:, None] / numbers(self.operand_scale)
        return torch.tensor(real, device=self.weights.device)


def numbers(tensor: Tensor) -> FloatArray:
    """Float64 values of a parameter or buffer, wherever it is."""
    return np.asarray(tensor.detach().cpu().double().numpy())
