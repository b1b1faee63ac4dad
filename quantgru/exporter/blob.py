"""An integer model as one blob of bytes that a device loads when it runs (firmware/BLOB.md)."""

from __future__ import annotations

import struct
import zlib
from typing import Any, Final

import numpy.typing as npt

from quantgru.errors import ModelError
from quantgru.exporter.layout import memory_order
from quantgru.int_model import IntDense, IntEmbedding, IntGru, IntLayer, IntModel, Matrix, Reverse, require_int_model
from quantgru.int_model.contract import ACTIVATION_NUMBERS, CANDIDATE_NUMBERS, GATE_NUMBERS, SPEC_MAJOR
from quantgru.int_model.cores import BYTE_BITS
from quantgru.int_model.cost import cost
from quantgru.int_model.packing import matrices
from quantgru.int_model.versions import stated_minor

BLOB_VERSION: Final = 1  # QG_BLOB_VERSION

_MAGIC: Final = b"qgrb"
_KINDS: Final = {IntGru: 1, IntDense: 2, IntEmbedding: 3, Reverse: 4}  # [R17]
_CRC_BYTES: Final = 4

_HEADER: Final = struct.Struct("<4s BBBB I HB x I 32s")
_MATRIX: Final = "IIIBB2x"
_GRU: Final = struct.Struct(f"<HBBb3x {_MATRIX} {_MATRIX} III")
_DENSE: Final = struct.Struct(f"<HBb {_MATRIX} I")
_EMBEDDING: Final = struct.Struct("<HHI")
_RECORD_BYTES: Final = {IntGru: _GRU.size, IntDense: _DENSE.size, IntEmbedding: _EMBEDDING.size, Reverse: 0}

# The descriptors of quantgru.h: P stands for a pointer of the device, and 0P aligns what comes next as one.
_C_MATRIX: Final = "PPPP HHBB 0P"
_C_GRU: Final = f"PPP {_C_MATRIX} {_C_MATRIX} PPP HBbBBB 0P"
_C_DENSE: Final = f"P {_C_MATRIX} P Bb 0P"
_C_EMBEDDING: Final = "P HH 0P"
_C_WIDE_MATRIX: Final = "PP" + 3 * "PPP HB 0P"  # qg_wide_matrix of qg_load_parts.h


def to_blob(model: IntModel) -> bytes:
    """The blob of a model that runs step by step. The same model gives the same bytes.

    Raises ModelError for a model that needs whole sequences, and for what is not an IntModel.
    """
    _require_streaming(model)
    kinds = bytes(_KINDS[type(layer)] for layer in model.layers)
    kinds += bytes(-len(kinds) % 4)
    arrays = _Arrays(_HEADER.size + len(kinds) + sum(_RECORD_BYTES[type(layer)] for layer in model.layers))
    input_fraction_bits = arrays.add(model.input_fraction_bits, "<i1")
    records = b"".join(_record(layer, arrays) for layer in model.layers)
    content = kinds + records + arrays.content()
    header = _HEADER.pack(
        _MAGIC,
        BLOB_VERSION,
        SPEC_MAJOR,
        stated_minor(model),
        model.last_step,
        _HEADER.size + len(content) + _CRC_BYTES,
        model.n_inputs,
        len(model.layers),
        input_fraction_bits,
        model.digest,
    )
    return header + content + struct.pack("<I", zlib.crc32(header + content))


def blob_memory(model: IntModel, pointer_bytes: int = 4) -> int:
    """Bytes that a device needs besides the blob, as `qg_load` counts them: descriptors, state and scratch.

    pointer_bytes  4 on a microcontroller, 8 on a computer

    Raises ModelError as `to_blob`.
    """
    _require_streaming(model)
    pointer = {4: "I", 8: "Q"}[pointer_bytes]
    descriptors = [_C_GRU] * len(model.grus) + [_C_DENSE] * len(model.dense)
    descriptors += [] if model.embedding is None else [_C_EMBEDDING]
    descriptors += [_C_WIDE_MATRIX for matrix, _ in matrices(model) if matrix.bits > BYTE_BITS]
    known = cost(model)
    descriptor_bytes = sum(struct.calcsize(fields.replace("P", pointer)) for fields in descriptors)
    return descriptor_bytes + known.state_bytes + known.scratch_bytes


def _require_streaming(model: IntModel) -> None:
    require_int_model(model, "blob")
    if not model.streaming:
        raise ModelError(
            f"model {model.name!r}: needs whole sequences, but a blob is run step by step; export it as C files"
        )


class _Arrays:
    """Arrays one after the other from offset `start` on, each at a multiple of the size of its elements."""

    def __init__(self, start: int) -> None:
        self._start = start
        self._bytes = bytearray()

    def add(self, values: npt.NDArray[Any], dtype: str) -> int:
        """Appends an array; returns its offset from the start of the blob."""
        stored = values.astype(dtype)
        self._align(stored.itemsize)
        offset = self._start + len(self._bytes)
        self._bytes += stored.tobytes()
        return offset

    def content(self) -> bytes:
        """All arrays, up to where the CRC can stand."""
        self._align(_CRC_BYTES)
        return bytes(self._bytes)

    def _align(self, size: int) -> None:
        self._bytes += bytes(-(self._start + len(self._bytes)) % size)


def _record(layer: IntLayer, arrays: _Arrays) -> bytes:
    match layer:
        case IntGru():
            return _gru(layer, arrays)
        case IntDense():
            return _DENSE.pack(
                layer.n_outputs,
                ACTIVATION_NUMBERS[layer.activation],
                layer.output_fraction_bits,
                *_matrix(layer.matrix, layer.n_outputs, arrays),
                arrays.add(layer.bias, "<i4"),
            )
        case IntEmbedding():
            return _EMBEDDING.pack(layer.n_tokens, layer.n_outputs, arrays.add(layer.codes, "<i1"))
        case _:  # a reversal is nothing but its kind
            return b""


def _gru(layer: IntGru, arrays: _Arrays) -> bytes:
    return _GRU.pack(
        layer.n_units,
        GATE_NUMBERS[layer.gate],
        CANDIDATE_NUMBERS[layer.candidate],
        layer.state_fraction_bits,
        *_matrix(layer.input, layer.n_units, arrays),
        *_matrix(layer.recurrent, layer.n_units, arrays),
        arrays.add(layer.bias, "<i4"),
        arrays.add(layer.recurrent_bias, "<i4") if layer.reset == "after" else 0,
        0 if layer.initial_state is None else arrays.add(layer.initial_state, "<i2"),
    )


def _matrix(matrix: Matrix, section_rows: int, arrays: _Arrays) -> tuple[int, int, int, int, bool]:
    """Offsets of the arrays, the left shift, and whether codes have 16 bits."""
    wide = matrix.bits > BYTE_BITS
    codes = arrays.add(memory_order(matrix.codes, section_rows), "<i2" if wide else "<i1")
    multipliers = arrays.add(matrix.multipliers, "<u2")
    return codes, multipliers, arrays.add(matrix.shifts, "<u1"), matrix.left_shift, wide
