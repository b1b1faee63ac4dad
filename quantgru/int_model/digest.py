"""The digest of a model: SHA-256 over its numbers in canonical order (SPEC.md R17)."""

from __future__ import annotations

import hashlib
import struct

from quantgru.int_model.contract import (
    ACTIVATION_NUMBERS,
    CANDIDATE_NUMBERS,
    GATE_NUMBERS,
    MERGE_NUMBERS,
    RESET_NUMBERS,
    SPEC_MAJOR,
)
from quantgru.int_model.int_model import IntModel
from quantgru.int_model.layers import IntBidirectional, IntDense, IntEmbedding, IntGru, IntLayer, Matrix
from quantgru.structure import Reverse

GRU, DENSE, EMBEDDING, REVERSE, BIDIRECTIONAL, GRU_WITH_INITIAL_STATE = range(1, 7)


def canonical_bytes(model: IntModel) -> bytes:
    """The bytes that the digest is taken of."""
    head = struct.pack("<8sBBH", b"quantgru", SPEC_MAJOR, model.last_step, model.n_inputs)
    return b"".join(
        [
            head,
            model.input_fraction_bits.astype("<i1").tobytes(),
            struct.pack("<B", len(model.layers)),
            *(_layer(layer) for layer in model.layers),
        ]
    )


def digest(model: IntModel) -> bytes:
    """32 bytes: equal for two models that compute the same numbers from the same integers."""
    return hashlib.sha256(canonical_bytes(model)).digest()


def _layer(layer: IntLayer) -> bytes:
    match layer:
        case IntGru():
            return _gru(layer)
        case IntDense():
            start = struct.pack("<BBb", DENSE, ACTIVATION_NUMBERS[layer.activation], layer.output_fraction_bits)
            return start + _matrix(layer.matrix) + layer.bias.astype("<i4").tobytes()
        case IntEmbedding():
            return struct.pack("<BHH", EMBEDDING, layer.n_tokens, layer.n_outputs) + layer.codes.astype("<i1").tobytes()
        case Reverse():
            return struct.pack("<B", REVERSE)
        case IntBidirectional():
            start = struct.pack("<BBB", BIDIRECTIONAL, MERGE_NUMBERS[layer.merge], layer.final)
            return start + _gru(layer.forward) + _gru(layer.backward)


def _gru(layer: IntGru) -> bytes:
    start = struct.pack(
        "<BBBBb",
        GRU if layer.initial_state is None else GRU_WITH_INITIAL_STATE,
        RESET_NUMBERS[layer.reset],
        GATE_NUMBERS[layer.gate],
        CANDIDATE_NUMBERS[layer.candidate],
        layer.state_fraction_bits,
    )
    biases = layer.bias.astype("<i4").tobytes() + layer.recurrent_bias.astype("<i4").tobytes()
    initial_state = b"" if layer.initial_state is None else layer.initial_state.astype("<i2").tobytes()
    return start + _matrix(layer.input) + _matrix(layer.recurrent) + biases + initial_state


def _matrix(matrix: Matrix) -> bytes:
    return b"".join(
        [
            struct.pack("<BBHH", matrix.bits, matrix.left_shift, matrix.n_rows, matrix.n_columns),
            matrix.multipliers.astype("<u2").tobytes(),
            matrix.shifts.astype("<u1").tobytes(),
            matrix.codes.astype(matrix.codes.dtype.newbyteorder("<")).tobytes(),
        ]
    )
