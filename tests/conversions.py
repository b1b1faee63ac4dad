"""Models between the oracle's types and those of quantgru: the same numbers, no rule."""

from collections.abc import Sequence
from itertools import count

import numpy as np
import oracle

from quantgru.int_model import (
    IntBidirectional,
    IntDense,
    IntEmbedding,
    IntGru,
    IntLayer,
    IntModel,
    Matrix,
    Reverse,
    SelfTest,
)

# In the order of R17.
RESETS = ("after", "before")
GATES = ("sigmoid", "hard_sigmoid")
CANDIDATES = ("tanh", "relu", "linear", "sigmoid", "hard_tanh")
ACTIVATIONS = ("linear", "relu", "sigmoid", "tanh")
MERGES = ("concat", "sum", "mul", "ave")


def to_oracle(model: IntModel) -> oracle.Model:
    """The same numbers in the oracle's types."""
    layers = tuple(_layer_to_oracle(layer) for layer in model.layers)
    return oracle.Model(tuple(model.input_fraction_bits.tolist()), int(model.last_step), layers)


def _layer_to_oracle(layer: IntLayer) -> oracle.Layer:
    match layer:
        case IntGru():
            return _gru_to_oracle(layer)
        case IntBidirectional():
            forward, backward = _gru_to_oracle(layer.forward), _gru_to_oracle(layer.backward)
            return oracle.Bidirectional(forward, backward, MERGES.index(layer.merge), int(layer.final))
        case Reverse():
            return oracle.Reverse()
        case IntDense():
            matrix, activation = _matrix_to_oracle(layer.matrix), ACTIVATIONS.index(layer.activation)
            return oracle.Dense(activation, layer.output_fraction_bits, matrix, tuple(layer.bias.tolist()))
        case IntEmbedding():
            return oracle.Embedding(tuple(map(tuple, layer.codes.tolist())))


def _gru_to_oracle(layer: IntGru) -> oracle.Gru:
    return oracle.Gru(
        RESETS.index(layer.reset),
        _matrix_to_oracle(layer.input),
        _matrix_to_oracle(layer.recurrent),
        tuple(layer.bias.tolist()),
        tuple(layer.recurrent_bias.tolist()),
        GATES.index(layer.gate),
        CANDIDATES.index(layer.candidate),
        layer.state_fraction_bits,
        tuple(layer.h0.tolist()),
    )


def _matrix_to_oracle(matrix: Matrix) -> oracle.Matrix:
    codes = tuple(tuple(row) for row in matrix.codes.tolist())
    return oracle.Matrix(codes, tuple(matrix.multipliers.tolist()), tuple(matrix.shifts.tolist()), matrix.left_shift)


def from_oracle(model: oracle.Model, name: str = "model") -> IntModel:
    """The same numbers as an integer model, with a self-test of two steps. Layers are numbered by their kind."""
    numbers = {kind: count() for kind in ("gru", "bidirectional", "reverse", "dense", "embedding")}

    def next_name(kind: str) -> str:
        return f"{kind}_{next(numbers[kind])}"

    def convert(layer: oracle.Layer) -> IntLayer:
        if isinstance(layer, oracle.Gru):
            return _gru_from_oracle(layer, next_name("gru"))
        if isinstance(layer, oracle.Bidirectional):
            forward, backward = (_gru_from_oracle(part, next_name("gru")) for part in (layer.forward, layer.backward))
            merge, final = MERGES[layer.merge], bool(layer.final)
            return IntBidirectional(next_name("bidirectional"), forward, backward, merge, final)
        if isinstance(layer, oracle.Reverse):
            return Reverse(next_name("reverse"))
        if isinstance(layer, oracle.Embedding):
            return IntEmbedding(next_name("embedding"), np.array(layer.codes, np.int8))
        matrix, bias = _matrix_from_oracle(layer.matrix), np.array(layer.b, np.int32)
        return IntDense(next_name("dense"), ACTIVATIONS[layer.activation], matrix, bias, layer.f_out)

    inputs = np.random.default_rng(1).integers(-(2**15), 2**15, (2, len(model.input_fractions)))
    return IntModel(
        tuple(convert(layer) for layer in model.layers),
        np.array(model.input_fractions, np.int8),
        bool(model.last_step),
        self_test(model, inputs.tolist()),
        name,
    )


def _gru_from_oracle(layer: oracle.Gru, name: str) -> IntGru:
    return IntGru(
        name,
        RESETS[layer.reset],
        _matrix_from_oracle(layer.w),
        _matrix_from_oracle(layer.u),
        np.array(layer.b, np.int32),
        np.array(layer.c, np.int32),
        GATES[layer.gate],
        CANDIDATES[layer.candidate],
        layer.f_h,
        np.array(layer.h0, np.int16),
    )


def _matrix_from_oracle(matrix: oracle.Matrix) -> Matrix:
    return Matrix(
        np.array(matrix.codes, np.int16), np.array(matrix.m, np.uint16), np.array(matrix.s, np.uint8), matrix.k
    )


def self_test(model: oracle.Model, inputs: Sequence[Sequence[int]]) -> SelfTest:
    """Inputs as a device gets them, and the check value that the oracle gives them."""
    check = oracle.run(model, inputs)[-1].check if oracle.streaming(model) else oracle.run_sequence(model, inputs).check
    return SelfTest(np.array(inputs, np.int16), check)
