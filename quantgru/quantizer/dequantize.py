"""The real weights that an integer model stands for."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from quantgru.fixed import PRE_ACTIVATION, STATE, to_real
from quantgru.int_model import IntDense, IntGru, IntModel, Matrix
from quantgru.model import Dense, FloatModel, Gru

FloatArray = npt.NDArray[np.float64]


def dequantize(model: IntModel) -> FloatModel:
    """The float model with exactly the weights and biases of `model`.

    What `model` and its float run differ in is then arithmetic alone: rounding of inputs, tables, states.
    """
    operand_bits = model.input_fraction_bits.astype(np.int64)
    layers: list[Gru | Dense] = []
    for gru in model.grus:
        layers.append(_gru(gru, operand_bits))
        operand_bits = np.full(gru.n_units, STATE.fraction_bits)
    for dense in model.head:
        layers.append(_dense(dense, operand_bits))
        operand_bits = np.full(dense.n_outputs, dense.output_fraction_bits)
    return FloatModel(tuple(layers), model.last_step, model.name)


def real_weights(matrix: Matrix, operand_bits: npt.NDArray[np.int64], result_bits: int) -> FloatArray:
    """Real weights [rows, columns] of a matrix on operands with `operand_bits`, whose sums have `result_bits`."""
    exponent = matrix.left_shift - 16 - matrix.shift.astype(np.int64) - result_bits
    scale = np.ldexp(matrix.multiplier.astype(np.float64), exponent)
    return np.asarray(np.ldexp(matrix.codes * scale[:, None], operand_bits))


def _gru(layer: IntGru, operand_bits: npt.NDArray[np.int64]) -> Gru:
    bits = PRE_ACTIVATION.fraction_bits
    units = layer.n_units
    state_bits = np.full(units, STATE.fraction_bits)
    recurrent_bias = np.zeros(units)
    if layer.reset == "after":
        recurrent_bias = to_real(layer.recurrent_bias, bits)
    return Gru(
        layer.name,
        layer.reset,
        real_weights(layer.input, operand_bits, bits).reshape(3, units, -1),
        real_weights(layer.recurrent, state_bits, bits).reshape(3, units, units),
        to_real(layer.bias, bits).reshape(3, units),
        recurrent_bias,
    )


def _dense(layer: IntDense, operand_bits: npt.NDArray[np.int64]) -> Dense:
    bits = PRE_ACTIVATION.fraction_bits if layer.activation in ("sigmoid", "tanh") else layer.output_fraction_bits
    return Dense(
        layer.name, real_weights(layer.matrix, operand_bits, bits), to_real(layer.bias, bits), layer.activation
    )
