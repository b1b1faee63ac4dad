"""Chapter 6 of SPEC.md: inputs, check values and digests."""

import hashlib
import struct
import zlib
from collections.abc import Sequence
from fractions import Fraction

from oracle.arithmetic import round_half_up, saturate16, within
from oracle.models import Bidirectional, Dense, Embedding, Layer, Matrix, Model, Reverse, State
from oracle.page import MAJOR


def convert_input(x: Fraction | int | float, f: int) -> int:
    """R15: the raw input of a real number or a count. Finite values only: R15 says nothing of an infinity."""
    return saturate16(round_half_up(Fraction(x) * Fraction(2) ** within(f, -31, 31)))


def check_value(state: State, outputs: Sequence[int], before: int = 0) -> int:
    """R16: the running CRC-32 after a step; `before` is its value after the step before, 0 at the reset."""
    h = [v for layer in state.h for v in layer]
    e = [v for layer in state.e for v in layer]
    return crc([*h, *e, *outputs], before)


def crc(values: Sequence[int], before: int = 0) -> int:
    """R16, R24: CRC-32 over values of two bytes, low byte first."""
    return zlib.crc32(b"".join((v & 0xFFFF).to_bytes(2, "little") for v in values), before)


def digest(model: Model) -> str:
    """R17: SHA-256 over the numbers of the model, as hexadecimal text."""
    parts = [b"quantgru", struct.pack("<BBH", MAJOR, model.last_step, len(model.input_fractions))]
    parts += [struct.pack("<b", f) for f in model.input_fractions]
    parts.append(struct.pack("<B", len(model.layers)))
    parts += [layer_bytes(layer) for layer in model.layers]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def layer_bytes(layer: Layer) -> bytes:
    """R17: the bytes of one layer."""
    if isinstance(layer, Dense):
        return struct.pack("<BBb", 2, layer.activation, layer.f_out) + matrix_bytes(layer.matrix) + packed("i", layer.b)
    if isinstance(layer, Embedding):
        codes = [code for vector in layer.codes for code in vector]
        return struct.pack("<BHH", 3, len(layer.codes), len(layer.codes[0])) + packed("b", codes)
    if isinstance(layer, Reverse):
        return struct.pack("<B", 4)
    if isinstance(layer, Bidirectional):
        head = struct.pack("<BBB", 5, layer.merge, layer.final)
        return head + layer_bytes(layer.forward) + layer_bytes(layer.backward)
    kind = 6 if any(layer.h0) else 1
    head = struct.pack("<4Bb", kind, layer.reset, layer.gate, layer.candidate, layer.f_h)
    numbers = packed("i", (*layer.b, *layer.c)) + (packed("h", layer.h0) if kind == 6 else b"")
    return head + matrix_bytes(layer.w) + matrix_bytes(layer.u) + numbers


def packed(kind: str, values: Sequence[int]) -> bytes:
    """Each value as struct's `kind`, little-endian."""
    return struct.pack(f"<{len(values)}{kind}", *values)


def matrix_bytes(matrix: Matrix) -> bytes:
    """R17: the bytes of one matrix."""
    head = struct.pack("<BBHH", matrix.bits, matrix.k, len(matrix.codes), matrix.columns)
    codes = [w for row_codes in matrix.codes for w in row_codes]
    return head + packed("H", matrix.m) + packed("B", matrix.s) + packed({8: "b", 16: "h"}[matrix.bits], codes)
