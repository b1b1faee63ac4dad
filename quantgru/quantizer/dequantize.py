"""The real weights that an integer model stands for."""

from __future__ import annotations

import numpy as np

from quantgru.array_types import FloatArray, IntArray
from quantgru.fixed import to_real
from quantgru.int_model import (
    IntBidirectional,
    IntDense,
    IntEmbedding,
    IntGru,
    IntLayer,
    IntModel,
    Matrix,
    output_bits,
)
from quantgru.model import Bidirectional, Dense, Embedding, FloatModel, Gru, Layer, Reverse


def dequantize(model: IntModel) -> FloatModel:
    """The float model with exactly the weights and biases of `model`.

    What `model` and its float run differ in is then arithmetic alone: rounding of inputs, tables, states. (The vectors
    of an embedding are its codes: their scale is part of the next weights.)
    """
    operand_bits = model.input_fraction_bits.astype(np.int64)
    layers: list[Layer] = []
    for layer in model.layers:
        layers.append(_layer(layer, operand_bits))
        operand_bits = output_bits(layer, operand_bits)
    return FloatModel(tuple(layers), model.last_step, model.name, mask_value=model.mask_value)


def real_weights(matrix: Matrix, operand_bits: IntArray, result_bits: IntArray) -> FloatArray:
    """Real weights [rows, columns] of a matrix on operands with `operand_bits` [columns], whose sums have `result_bits`
    [rows]."""
    return np.asarray(np.ldexp(matrix.codes * matrix.row_scales(result_bits)[:, None], operand_bits))


def dequantize_gru(layer: IntGru, operand_bits: IntArray) -> Gru:
    """The layer in real numbers, on real operands of which raw ones have `operand_bits` [inputs]."""
    bits, units = layer.row_bits, layer.n_units
    recurrent_bias = np.zeros(units)
    if layer.reset == "after":
        recurrent_bias = to_real(layer.recurrent_bias, layer.candidate_bits)
    state_bits = np.full(units, layer.state_fraction_bits)
    return Gru(
        layer.name,
        layer.reset,
        real_weights(layer.input, operand_bits, bits).reshape(3, units, -1),
        real_weights(layer.recurrent, state_bits, bits).reshape(3, units, units),
        to_real(layer.bias, bits).reshape(3, units),
        recurrent_bias,
        layer.gate,
        layer.candidate,
        None if layer.initial_state is None else to_real(layer.initial_state, layer.state_fraction_bits),
    )


def _layer(layer: IntLayer, operand_bits: IntArray) -> Layer:
    match layer:
        case IntGru():
            return dequantize_gru(layer, operand_bits)
        case IntBidirectional():
            forward, backward = (
                dequantize_gru(layer.forward, operand_bits),
                dequantize_gru(layer.backward, operand_bits),
            )
            return Bidirectional(layer.name, forward, backward, layer.merge, layer.final)
        case Reverse():
            return layer
        case IntDense():
            bits = np.full(layer.n_outputs, layer.row_bits)
            weights = real_weights(layer.matrix, operand_bits, bits)
            return Dense(layer.name, weights, to_real(layer.bias, bits), layer.activation)
        case IntEmbedding():
            return Embedding(layer.name, layer.codes.astype(np.float64))
