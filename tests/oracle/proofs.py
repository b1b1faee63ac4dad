"""Chapter 7 of SPEC.md: what a model must prove."""

from collections.abc import Sequence

from oracle.arithmetic import S32_MAX
from oracle.layers import merged_fraction
from oracle.models import (
    BOUNDED,
    CANDIDATE_LINEAR,
    CANDIDATE_RELU,
    GATE_HARD_SIGMOID,
    GATE_SIGMOID,
    LINEAR,
    MERGE_AVE,
    MERGE_CONCAT,
    MERGE_MUL,
    MERGE_SUM,
    RELU,
    RESET_AFTER,
    RESET_BEFORE,
    SIGMOID,
    TANH,
    Bidirectional,
    Dense,
    Embedding,
    Gru,
    Layer,
    Matrix,
    Model,
    Reverse,
)


def accumulator_bound(codes: Sequence[int]) -> int:
    """A: a bound of every partial sum of a row, in any order, for every s16 operand."""
    return 32768 * sum(abs(w) for w in codes)


def requantized_bound(matrix: Matrix, i: int) -> int:
    """Q of P2: a bound of |requantize| of row i."""
    return ((accumulator_bound(matrix.codes[i]) * 2**matrix.k * matrix.m[i]) >> 16 >> matrix.s[i]) + 1


def accumulators_fit(matrix: Matrix) -> bool:
    """P1, for all rows of a matrix."""
    return all(accumulator_bound(codes) * 2**matrix.k <= S32_MAX for codes in matrix.codes)


def gate_bound(layer: Gru, i: int) -> int:
    """The left side of P2 for row i of a GRU layer."""
    bound = requantized_bound(layer.w, i) + requantized_bound(layer.u, i) + abs(layer.b[i])
    if layer.reset == RESET_AFTER and i >= 2 * layer.units:
        bound += abs(layer.c[i - 2 * layer.units])
    return bound


def dense_bound(layer: Dense, i: int) -> int:
    """The left side of P2 for row i of a dense layer."""
    return requantized_bound(layer.matrix, i) + abs(layer.b[i])


def pre_activations_fit(model: Model) -> bool:
    """P2, for all rows of all layers."""
    bounds = [gate_bound(gru, i) for gru in model.grus for i in range(3 * gru.units)]
    bounds += [dense_bound(layer, i) for layer in dense_layers(model) for i in range(len(layer.b))]
    return max(bounds) <= S32_MAX


def dense_layers(model: Model) -> list[Dense]:
    """All dense layers, wherever they stand."""
    return [layer for layer in model.layers if isinstance(layer, Dense)]


def matrix_in_ranges(matrix: Matrix, rows: int, columns: int) -> bool:
    """P3 for one matrix."""
    return (
        len(matrix.codes) == len(matrix.m) == len(matrix.s) == rows
        and all(len(codes) == columns for codes in matrix.codes)
        and all(-(2**15) <= w <= 2**15 - 1 for codes in matrix.codes for w in codes)
        and all(2**14 <= m <= 2**15 - 1 for m in matrix.m)
        and all(1 <= s <= 30 for s in matrix.s)
        and 0 <= matrix.k <= 15
    )


def gru_in_ranges(gru: Gru, columns: int) -> bool:
    """P3 for a GRU layer that reads `columns` values."""
    units, f_max = gru.units, 15 if gru.candidate in BOUNDED else 31
    return (
        gru.reset in (RESET_AFTER, RESET_BEFORE)
        and gru.gate in (GATE_SIGMOID, GATE_HARD_SIGMOID)
        and gru.candidate in (*BOUNDED, CANDIDATE_RELU, CANDIDATE_LINEAR)
        and -f_max <= gru.f_h <= f_max
        and len(gru.b) == 3 * units
        and len(gru.c) == (units if gru.reset == RESET_AFTER else 0)
        and len(gru.h0) == units
        and all(-(2**15) <= v <= 2**15 - 1 for v in gru.h0)
        and matrix_in_ranges(gru.w, 3 * units, columns)
        and matrix_in_ranges(gru.u, 3 * units, units)
    )


def dense_in_ranges(layer: Dense, columns: int) -> bool:
    """P3 for a dense layer that reads `columns` values."""
    return (
        layer.activation in (LINEAR, RELU, SIGMOID, TANH)
        and -31 <= layer.f_out <= 31
        and (layer.activation in (LINEAR, RELU) or layer.f_out == 15)
        and matrix_in_ranges(layer.matrix, len(layer.b), columns)
    )


def bidirectional_in_ranges(layer: Bidirectional, columns: int) -> bool:
    """P3 for a bidirectional layer that reads `columns` values."""
    forward, backward = layer.forward, layer.backward
    return (
        gru_in_ranges(forward, columns)
        and gru_in_ranges(backward, columns)
        and (forward.units, forward.f_h) == (backward.units, backward.f_h)
        and layer.merge in (MERGE_CONCAT, MERGE_SUM, MERGE_MUL, MERGE_AVE)
        and layer.final in (0, 1)
        and -31 <= merged_fraction(layer.merge, forward.f_h) <= 31
    )


def embedding_in_ranges(layer: Embedding) -> bool:
    """P3 for an embedding."""
    dim = len(layer.codes[0])
    return (
        1 <= len(layer.codes) <= 32768
        and 1 <= dim <= 65535
        and all(len(vector) == dim and all(-128 <= code <= 127 for code in vector) for vector in layer.codes)
    )


def layer_in_ranges(layer: Layer, columns: int) -> bool:
    """P3 for one layer that reads `columns` values."""
    if isinstance(layer, Gru):
        return gru_in_ranges(layer, columns)
    if isinstance(layer, Dense):
        return dense_in_ranges(layer, columns)
    if isinstance(layer, Bidirectional):
        return bidirectional_in_ranges(layer, columns)
    return isinstance(layer, Reverse) or (embedding_in_ranges(layer) and columns == 1)


def width(layer: Layer, columns: int) -> int:
    """How many values a layer puts out that reads `columns`."""
    if isinstance(layer, Gru):
        return layer.units
    if isinstance(layer, Dense):
        return len(layer.b)
    if isinstance(layer, Bidirectional):
        return layer.forward.units * (2 if layer.merge == MERGE_CONCAT else 1)
    return len(layer.codes[0]) if isinstance(layer, Embedding) else columns


def in_order(model: Model) -> bool:
    """P3: which layers may stand where."""
    kinds = [type(layer) for layer in model.layers]
    ok = bool(model.grus) and len(kinds) <= 255 and Embedding not in kinds[1:]
    ok = ok and (kinds[0] is not Embedding or model.input_fractions == (0,))
    ends = [i for i, layer in enumerate(model.layers) if isinstance(layer, Bidirectional) and layer.final]
    return ok and all(model.last_step == 1 and set(kinds[i + 1 :]) <= {Dense} for i in ends)


def in_ranges(model: Model) -> bool:
    """P3: shapes, formats and enumerators; the layers fit together."""
    ok = 1 <= len(model.input_fractions) <= 65535 and model.last_step in (0, 1)
    ok = ok and all(-31 <= f <= 31 for f in model.input_fractions) and in_order(model)
    ok = ok and sum(gru.units for gru in model.grus) <= 65535
    columns = len(model.input_fractions)
    for layer in model.layers:
        ok = ok and layer_in_ranges(layer, columns)
        columns = width(layer, columns)
    return ok


def proved(model: Model) -> bool:
    """P1, P2 and P3."""
    matrices = [matrix for gru in model.grus for matrix in (gru.w, gru.u)]
    matrices += [layer.matrix for layer in dense_layers(model)]
    return in_ranges(model) and all(map(accumulators_fit, matrices)) and pre_activations_fit(model)
