"""The digest of a model: SHA-256 over its numbers in canonical order (SPEC.md R17)."""

from __future__ import annotations

import hashlib
import struct

from quantgru.int_model.types import (
    ACTIVATION_NUMBERS,
    RESET_NUMBERS,
    SPEC_MAJOR,
    IntGru,
    IntLayer,
    IntModel,
    Matrix,
)


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
    return hashlib.sha256(canonical_bytes(model)).digest()


def _layer(layer: IntLayer) -> bytes:
    if isinstance(layer, IntGru):
        start = struct.pack("<BBBBB", 1, RESET_NUMBERS[layer.reset], 0, 0, 15)
        biases = layer.bias.astype("<i4").tobytes() + layer.recurrent_bias.astype("<i4").tobytes()
        return start + _matrix(layer.input) + _matrix(layer.recurrent) + biases
    start = struct.pack("<BBb", 2, ACTIVATION_NUMBERS[layer.activation], layer.output_fraction_bits)
    return start + _matrix(layer.matrix) + layer.bias.astype("<i4").tobytes()


def _matrix(matrix: Matrix) -> bytes:
    return b"".join(
        [
            struct.pack("<BBHH", matrix.bits, matrix.left_shift, matrix.n_rows, matrix.n_columns),
            matrix.multiplier.astype("<u2").tobytes(),
            matrix.shift.astype("<u1").tobytes(),
            matrix.codes.astype("<i1").tobytes(),
        ]
    )
