"""Reads blobs as firmware/BLOB.md says, into the oracle's types: slow, plain, and nothing of quantgru is used."""

import struct
import zlib
from collections.abc import Sequence

import oracle

BLOCK_ROWS = 8
SIZES = {"b": 1, "B": 1, "h": 2, "H": 2, "i": 4}


class RefusedError(Exception):
    """The bytes are no blob, whatever numbers it holds."""


def read_blob(blob: bytes) -> oracle.Model:
    """The model of a blob, in whatever ranges its numbers are. Raises RefusedError."""
    return _Blob(blob).model()


class _Blob:
    def __init__(self, blob: bytes) -> None:
        require(len(blob) >= 56 and blob[:4] == b"qgrb" and blob[4:6] == b"\1\1" and blob[6] <= 2)
        length = struct.unpack_from("<I", blob, 8)[0]
        require(56 <= length <= len(blob))
        self.bytes, self.end = blob[: length - 4], length - 4
        require(blob[self.end : length] == struct.pack("<I", zlib.crc32(self.bytes)))

    def model(self) -> oracle.Model:
        last_step, n_inputs, n_layers = self.bytes[7], self.number("H", 12), self.bytes[14]
        require(last_step <= 1 and self.bytes[15] == 0 and n_inputs > 0)
        kinds = self.part(52, n_layers)
        at, columns, layers = (52 + n_layers + 3) // 4 * 4, n_inputs, []
        for kind in kinds:
            record = self.part(at, {1: 52, 2: 24, 3: 8, 4: 0}.get(kind, self.end))
            layers.append(self.layer(kind, at, columns))
            columns = oracle.width(layers[-1], columns)
            at += len(record)
        require(any(isinstance(layer, oracle.Gru) for layer in layers))
        model = oracle.Model(self.array("b", 16, n_inputs), last_step, tuple(layers))
        require(oracle.streaming(model))
        return model

    def layer(self, kind: int, at: int, columns: int) -> oracle.Layer:
        if kind == 1:
            return self.gru(at, columns)
        if kind == 2:
            rows, activation, f_out = struct.unpack_from("<HBb", self.bytes, at)
            matrix = self.matrix(at + 4, rows, rows, columns)
            return oracle.Dense(activation, f_out, matrix, self.array("i", at + 20, rows))
        if kind == 3:
            tokens, outputs = struct.unpack_from("<HH", self.bytes, at)
            require(at == 52 + (self.bytes[14] + 3) // 4 * 4 and tokens > 0 and outputs > 0)
            return oracle.Embedding(rows_of(self.array("b", at + 4, tokens * outputs), outputs))
        return oracle.Reverse()

    def gru(self, at: int, columns: int) -> oracle.Gru:
        units, gate, candidate, f_h = struct.unpack_from("<HBBb", self.bytes, at)
        require(0 < units <= 21845 and not any(self.bytes[at + 5 : at + 8]))
        reset = oracle.RESET_AFTER if self.number("I", at + 44) else oracle.RESET_BEFORE
        return oracle.Gru(
            reset,
            self.matrix(at + 8, units, 3 * units, columns),
            self.matrix(at + 24, units, 3 * units, units),
            self.array("i", at + 40, 3 * units),
            self.array("i", at + 44, units) if reset == oracle.RESET_AFTER else (),
            gate,
            candidate,
            f_h,
            self.array("h", at + 48, units) if self.number("I", at + 48) else (),
        )

    def matrix(self, at: int, section_rows: int, rows: int, columns: int) -> oracle.Matrix:
        require(section_rows > 0 and self.bytes[at + 13] <= 1 and not any(self.bytes[at + 14 : at + 16]))
        codes = self.array("bh"[self.bytes[at + 13]], at, rows * columns)
        sections = rows_of(codes, section_rows * columns)
        matrix = tuple(row for section in sections for row in unblocked(section, columns))
        return oracle.Matrix(matrix, self.array("H", at + 4, rows), self.array("B", at + 8, rows), self.bytes[at + 12])

    def number(self, kind: str, at: int) -> int:
        return struct.unpack_from(f"<{kind}", self.bytes, at)[0]

    def array(self, kind: str, field: int, n: int) -> tuple[int, ...]:
        offset = self.number("I", field)
        require(offset >= 52 and offset % SIZES[kind] == 0)
        return struct.unpack(f"<{n}{kind}", self.part(offset, n * SIZES[kind]))

    def part(self, at: int, n: int) -> bytes:
        require(at + n <= self.end)
        return self.bytes[at : at + n]


def require(condition: bool) -> None:
    if not condition:
        raise RefusedError


def rows_of(values: Sequence[int], n: int) -> tuple[tuple[int, ...], ...]:
    """n values a row."""
    return tuple(tuple(values[i : i + n]) for i in range(0, len(values), n))


def unblocked(codes: Sequence[int], columns: int) -> list[tuple[int, ...]]:
    """The rows of one section: blocks of 8 rows, column by column, then single rows."""
    rows: list[tuple[int, ...]] = []
    in_blocks = len(codes) // columns // BLOCK_ROWS * BLOCK_ROWS * columns
    for block in rows_of(codes[:in_blocks], BLOCK_ROWS * columns):
        rows += zip(*rows_of(block, BLOCK_ROWS), strict=True)
    return [*rows, *rows_of(codes[in_blocks:], columns)]
