"""Each layer of a float model as integers, on the format that the layer before it puts out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from quantgru.activations import BOUNDED_CANDIDATES
from quantgru.array_types import FloatArray, IntArray
from quantgru.errors import ModelError
from quantgru.fixed import MAX_FRACTION_BITS, PRE_ACTIVATION, STATE, to_raw16
from quantgru.int_model import (
    IntBidirectional,
    IntDense,
    IntEmbedding,
    IntGru,
    IntLayer,
    Matrix,
    output_bits,
)
from quantgru.int_model.contract import MAX_TOKENS
from quantgru.int_model.layers import gru_row_bits
from quantgru.int_model.row_parameters import SHORT, RowParameters
from quantgru.model import Bidirectional, Dense, Embedding, FloatModel, Gate, Gru, Reverse
from quantgru.quantizer.calibrate import Calibration, DenseStatistics, GruStatistics, Moments
from quantgru.quantizer.compensation import GruCompensation
from quantgru.quantizer.dequantize import real_weights
from quantgru.quantizer.formats import LARGEST_VALUE, largest_fraction_bits, output_fraction_bits
from quantgru.quantizer.rounding import (
    ANY_SCALE,
    Compensated,
    Measure,
    Nearest,
    Remembered,
    RoundingName,
    RowRounding,
    least_steps,
)
from quantgru.quantizer.weights import quantize_bias, quantize_biases, quantize_rows
from quantgru.quantizer.widths import GATES, Widths

Section = tuple[str, ...]  # the names of layer, matrix and gate, or of a dense layer alone

_LARGEST_SUM: Final = 2.0**28  # of a row in its own format: half of what the smallest multiplier and shift reach


@dataclass(frozen=True, eq=False)
class Roundings:
    """How the weights of a model are rounded, and to how many bits.

    compensations  of each GRU layer
    known          what was found before on the same calibration, maybe with other widths: rows of U depend on those of
                   W, and on another gate's only where that leaves them less room in the accumulator
    """

    rounding: RoundingName
    widths: Widths
    parameters: RowParameters
    compensations: tuple[GruCompensation, ...]
    known: dict[tuple[object, ...], Remembered] = field(default_factory=dict)
    measures: dict[tuple[object, ...], Measure] = field(default_factory=dict)

    def of_gru(
        self, layer: Gru, matrix: str, compensation: GruCompensation, operand_scale: FloatArray
    ) -> list[RowRounding]:
        """Of each gate's rows of W or U, for weights on raw operands."""
        curvature = compensation.input if matrix == "W" else compensation.recurrent
        return [
            self._of(
                (layer.name, matrix, gate), compensation, None if curvature is None else curvature[i], operand_scale
            )
            for i, gate in enumerate(GATES)
        ]

    def of_dense(self, layer: Dense, operands: Moments, operand_scale: FloatArray) -> RowRounding:
        compensated = self.rounding == "compensated" and operands.n >= least_steps(layer.n_inputs)
        curvature = operands.covariance[None] if compensated else None
        return self._of((layer.name,), operands, curvature, operand_scale)

    def _of(
        self, section: Section, seen: object, curvature: FloatArray | None, operand_scale: FloatArray
    ) -> RowRounding:
        """`curvature` [groups, columns, columns] on real operands, which are `operand_scale` times the raw ones."""
        bits = self.widths.of(*section)
        if curvature is None:
            return Nearest(bits)
        key = (section, seen)
        if key not in self.measures:
            self.measures[key] = Measure(curvature / np.outer(operand_scale, operand_scale))
        if (*key, bits) not in self.known:
            scale_bits = self.parameters.multiplier_bits if self.parameters == SHORT else ANY_SCALE
            self.known[*key, bits] = Remembered(Compensated(bits, self.measures[key], scale_bits))
        return self.known[*key, bits]


def quantize_layers(model: FloatModel, seen: Calibration, input_bits: IntArray, how: Roundings) -> tuple[IntLayer, ...]:
    """Integer layers for what was seen; input_bits are the fraction bits of the inputs [inputs]. Raises ModelError."""
    grus, dense, compensations = iter(seen.grus), iter(seen.dense), iter(how.compensations)
    bits = input_bits  # of each operand of the next layer
    scale = np.exp2(-bits.astype(np.float64))  # the real value of a raw one
    layers: list[IntLayer] = []
    for layer in model.layers:
        match layer:
            case Gru():
                gru_seen = next(grus)
                layers.append(_gru(layer, scale, next(compensations), _state_bits(layer, scale, gru_seen), how))
            case Bidirectional():
                both, of_both = (next(grus), next(grus)), (next(compensations), next(compensations))
                layers.append(_bidirectional(layer, scale, both, of_both, how))
            case Dense():
                layers.append(_dense(layer, scale, next(dense), how))
            case Reverse():
                layers.append(layer)
                continue  # operands as before
            case Embedding():
                layers.append(_embedding(layer))
        bits = output_bits(layers[-1], bits)
        scale = np.exp2(-bits.astype(np.float64))
        if isinstance(layer, Embedding):  # one real scale for each column, which the next weights absorb
            scale = embedding_scale(layer) * scale
    return tuple(layers)


def _rows(
    weights: FloatArray,
    operand_scale: FloatArray,
    row_bits: IntArray,
    roundings: Sequence[RowRounding],
    parameters: RowParameters,
    where: str,
) -> tuple[Matrix, FloatArray]:
    """Integer rows, and the real weights that they stand for [rows, columns].

    operand_scale is the real value of a raw one [columns]; `roundings` are those of as many equal parts of the rows.
    """
    matrix = quantize_rows(weights * operand_scale, row_bits, roundings, where, parameters)
    on_raw = real_weights(matrix, np.zeros(matrix.n_columns, np.int64), row_bits)
    return matrix, on_raw / operand_scale


def _state_bits(layer: Gru, operand_scale: FloatArray, seen: GruStatistics) -> int:
    """Fraction bits of the state: 15 where it stays within 1, else as calibrated."""
    if layer.candidate in BOUNDED_CANDIDATES:  # nothing is larger than the initial states: no room beyond them
        peak = seen.state_peak
        return STATE.fraction_bits if peak <= 1 else int(largest_fraction_bits(-peak, peak))
    where = f"GRU layer {layer.name!r}, whose candidate {layer.candidate} has no limit"
    bias = layer.bias[Gate.N] + np.abs(layer.recurrent_bias)
    return _bits_for(layer.input_weights[Gate.N], bias, operand_scale, seen.state_peak, where)


def _bits_for(weights: FloatArray, bias: FloatArray, operand_scale: FloatArray, peak: float, where: str) -> int:
    """Fraction bits of what rows [rows, columns] give: room for twice the peak, and their sums fit 32 bits."""
    largest = float(((np.abs(weights) * operand_scale * 2**15).sum(axis=1) + np.abs(bias)).max())
    if peak == 0:  # nothing to go by: room for all that the operands' range allows
        peak = largest / 2
    if not 2 * peak <= LARGEST_VALUE:
        raise ModelError(
            f"{where}: values up to {peak:.3g}, allowed are {LARGEST_VALUE / 2:.3g}: what 16 bits hold, with room for "
            "twice as much; check the weights, and the scale of the inputs"
        )
    bits = output_fraction_bits(peak)
    while bits > -MAX_FRACTION_BITS and np.ldexp(largest, bits) > _LARGEST_SUM:
        bits -= 1
    return bits


def _gru(
    layer: Gru,
    operand_scale: FloatArray,
    compensation: GruCompensation,
    state_bits: int,
    how: Roundings,
) -> IntGru:
    units = layer.n_units
    where = f"GRU layer {layer.name!r}"
    row_bits = gru_row_bits(layer.gate, layer.candidate, state_bits, units)
    roundings = how.of_gru(layer, "W", compensation, operand_scale)
    weights = layer.input_weights.reshape(3 * units, -1)
    w, real_w = _rows(weights, operand_scale, row_bits, roundings, how.parameters, f"{where}, W")
    lost_w = layer.input_weights - real_w.reshape(layer.input_weights.shape)
    state_scale = np.full(units, 2.0**-state_bits)
    roundings = how.of_gru(layer, "U", compensation, state_scale)
    recurrent = layer.recurrent_weights + compensation.recurrent_change(lost_w)
    u, real_u = _rows(recurrent.reshape(-1, units), state_scale, row_bits, roundings, how.parameters, f"{where}, U")
    lost = np.concatenate((lost_w, layer.recurrent_weights - real_u.reshape(recurrent.shape)), axis=2)
    bias = (layer.bias + compensation.bias_change(lost)).reshape(-1)
    recurrent_bias = np.zeros(0)
    if layer.reset == "after":
        recurrent_bias = layer.recurrent_bias + compensation.recurrent_bias_change(lost)
    return IntGru(
        layer.name,
        layer.reset,
        w,
        u,
        *quantize_biases(bias, recurrent_bias, row_bits, how.parameters, where),
        layer.gate,
        layer.candidate,
        state_bits,
        to_raw16(layer.h0, state_bits)[0],
    )


def _bidirectional(
    layer: Bidirectional,
    operand_scale: FloatArray,
    seen: tuple[GruStatistics, GruStatistics],
    compensations: tuple[GruCompensation, GruCompensation],
    how: Roundings,
) -> IntBidirectional:
    """Both directions get the coarser one's format, so that their states can be merged."""
    grus = (layer.forward, layer.backward)
    state_bits = min(_state_bits(gru, operand_scale, of_gru) for gru, of_gru in zip(grus, seen, strict=True))
    if layer.merge == "mul":  # products have 2 f - 15 fraction bits, and no format has more than 31
        state_bits = min(state_bits, (MAX_FRACTION_BITS + STATE.fraction_bits) // 2)
    forward, backward = (
        _gru(gru, operand_scale, of_gru, state_bits, how) for gru, of_gru in zip(grus, compensations, strict=True)
    )
    return IntBidirectional(layer.name, forward, backward, layer.merge, layer.final)


def _dense(layer: Dense, operand_scale: FloatArray, seen: DenseStatistics, how: Roundings) -> IntDense:
    where = f"dense layer {layer.name!r}"
    output_bits = STATE.fraction_bits
    row_bits = PRE_ACTIVATION.fraction_bits
    if layer.activation in ("linear", "relu"):
        output_bits = row_bits = _bits_for(layer.weights, layer.bias, operand_scale, seen.peak, where)
    rows_bits = np.full(layer.n_outputs, row_bits)
    roundings = [how.of_dense(layer, seen.inputs, operand_scale)]
    matrix, real = _rows(layer.weights, operand_scale, rows_bits, roundings, how.parameters, where)
    # An error of a weight acts on the mean of its operand, too, which may be far larger than its deviation.
    bias = layer.bias + (layer.weights - real) @ seen.inputs.mean
    return IntDense(layer.name, layer.activation, matrix, quantize_bias(bias, rows_bits, where), output_bits)


def embedding_scale(layer: Embedding) -> FloatArray:
    """Real value of one code of each column [outputs]; 1 for a column of zeros."""
    peaks = np.maximum(layer.vectors.max(axis=0) / 127, -layer.vectors.min(axis=0) / 128)
    return np.where(peaks > 0, peaks, 1.0)


def _embedding(layer: Embedding) -> IntEmbedding:
    if layer.n_tokens > MAX_TOKENS:
        raise ModelError(
            f"embedding {layer.name!r}: {layer.n_tokens} tokens, a 16-bit input tells {MAX_TOKENS} apart; train with a "
            "smaller vocabulary"
        )
    codes = np.clip(np.floor(layer.vectors / embedding_scale(layer) + 0.5), -128, 127)
    return IntEmbedding(layer.name, codes.astype(np.int8))
