"""Logs of raw inputs that a device has kept, in files."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from quantgru.array_types import Int16Array, UInt16Array
from quantgru.errors import DataError
from quantgru.fixed import INT16_MAX, INT16_MIN
from quantgru.npz import read_npz
from quantgru.sequences import load_npz, load_vectors

MOST_RESIDUAL: Final = 2**15 - 1

# A record, as firmware/include/quantgru_log.h describes it.
_FORMAT: Final = b"qglog\x01"
_HEAD: Final = struct.Struct("<6sHHHII32s")  # inputs, units, steps, all steps, clipped inputs, digest
_END: Final = struct.Struct("<II")  # CRC-32 of the state after the last step, and of the record


@dataclass(frozen=True, eq=False)
class InputLog:
    """Raw inputs of steps that followed one another on a device, in the order in which it took them.

    source           where the log comes from, for messages
    inputs           int16 [steps, inputs]
    h, residual      before the first step, int16 and uint16 [units] of all GRU layers; None: the steps follow a reset
    first_step       how many steps the device had taken before them, modulo 2^32
    clipped          inputs that the device counted as clipped in all its steps; None: it did not count
    digest           of the device's model; None: not known
    state_check      CRC-32 of h and residual after the last step; None: not known
    """

    source: str
    inputs: Int16Array
    h: Int16Array | None = None
    residual: UInt16Array | None = None
    first_step: int = 0
    clipped: int | None = None
    digest: bytes | None = None
    state_check: int | None = None


def read_logs(*paths: str | Path) -> list[InputLog]:
    """The logs in files, all of one after all of another. A file holds

    - records as NAME_log_send sends them, in binary, or as text in hexadecimal digits;
    - text with a step on each line, integers between commas or spaces; what stands before "->" is a time, after "#" a
      comment. The steps follow a reset;
    - or is an .npz with integers x [sequences, steps, inputs], optionally lengths [sequences], h and residual
      [sequences, units].

    Raises DataError, which says what is damaged.
    """
    return [log for path in paths for log in _read_file(Path(path))]


def _read_file(path: Path) -> list[InputLog]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"log {path}: cannot be read ({error.strerror or error})") from None
    if content.startswith(b"PK"):
        return list(_of_npz(path))
    if content.startswith(_FORMAT[:-1]):
        return list(_records(content, str(path)))
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(
            f"log {path}: neither a record, nor text, nor an .npz file; a record begins with qglog"
        ) from None
    if re.match(_FORMAT[:-1].hex(), text.lstrip(), re.IGNORECASE):
        return list(_records(_from_hexadecimal(text, path), str(path)))
    return [InputLog(str(path), _of_text(text, path))]


def _from_hexadecimal(text: str, path: Path) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise DataError(f"log {path}: a record in hexadecimal digits, damaged: {error}") from None


def _records(content: bytes, source: str) -> Iterator[InputLog]:
    """All records, one after the other."""
    start, number = 0, 0
    while start < len(content):
        where = source if number == 0 else f"{source}, record {number}"
        end = start + _record_bytes(content[start:], where)
        yield _record(content[start:end], where)
        start, number = end, number + 1


def _record_bytes(content: bytes, where: str) -> int:
    """The length of the record that `content` begins with."""
    if not content.startswith(_FORMAT[:-1]):
        raise DataError(f"log {where}: {content[:5]!r}, expected the 'qglog' of another record; the file is damaged")
    if content[5:6] not in (b"", _FORMAT[-1:]):
        raise DataError(f"log {where}: format {content[5]}, this version reads {_FORMAT[5]}; update quantgru")
    expected = _HEAD.size + _END.size
    if len(content) >= _HEAD.size:
        _, n_inputs, n_units, n_steps, *_ = _HEAD.unpack_from(content)
        expected += 4 * n_units + 2 * n_steps * n_inputs
    if len(content) < expected:
        raise DataError(f"log {where}: cut off, {len(content)} of {expected} bytes; send it again")
    return expected


def _record(content: bytes, where: str) -> InputLog:
    _, n_inputs, n_units, n_steps, all_steps, clipped, digest = _HEAD.unpack_from(content)
    state_check, crc = _END.unpack_from(content, len(content) - _END.size)
    if zlib.crc32(content[:-4]) != crc:
        raise DataError(f"log {where}: its CRC-32 is wrong; the record is damaged, send it again")
    values = np.frombuffer(content, "<u2", offset=_HEAD.size, count=2 * n_units + n_steps * n_inputs).astype(np.uint16)
    h, residual, inputs = np.split(values, [n_units, 2 * n_units])
    return InputLog(
        where,
        inputs.view(np.int16).reshape(n_steps, n_inputs),
        h.view(np.int16),
        residual,
        (all_steps - n_steps) % 2**32,
        clipped,
        digest,
        state_check,
    )


def _of_text(text: str, path: Path) -> Int16Array:
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        words = re.split(r"[,;\s]+", line.split("#")[0].rpartition("->")[2].strip(" \t,;"))
        if words == [""]:
            continue
        if not all(re.fullmatch(r"[+-]?\d{1,5}", word) for word in words):
            raise DataError(f"log {path}, line {number}: {line.strip()[:60]!r}, expected the raw integers of one step")
        rows.append([int(word) for word in words])
        if len(rows[-1]) != len(rows[0]):
            raise DataError(f"log {path}, line {number}: {len(rows[-1])} values, the lines before have {len(rows[0])}")
    return _raw(np.array(rows or np.empty((0, 0))), f"log {path}")


def _of_npz(path: Path) -> Iterator[InputLog]:
    _, names = read_npz(path, "log", ())
    if any(name.startswith("initial_state") for name in names):
        raise DataError(f"log {path}: has real initial states; give raw ones, arrays h and residual [sequences, units]")
    sequences, _ = load_npz(path, "log")
    values = _raw(sequences.values, f"log {path}, array 'x'")
    states = _npz_states(path, sequences.n_sequences) if {"h", "residual"} & set(names) else None
    for i, length in enumerate(sequences.lengths):
        source = f"{path}, sequence {i}" if len(values) > 1 else str(path)
        h, residual = (None, None) if states is None else (states[0][i], states[1][i])
        yield InputLog(source, values[i, :length], h, residual)


def _npz_states(path: Path, n_sequences: int) -> tuple[Int16Array, UInt16Array]:
    h, residual = load_vectors(path, ["h", "residual"], "log")
    if h.ndim != 2 or h.shape != residual.shape or len(h) != n_sequences:
        raise DataError(
            f"log {path}: h {h.shape} and residual {residual.shape}, expected [{n_sequences}, units] of both"
        )
    if (residual != np.floor(residual)).any() or not (0 <= residual.min() and residual.max() <= MOST_RESIDUAL):
        raise DataError(f"log {path}, array 'residual': expected integers of 0 ... {MOST_RESIDUAL}")
    return _raw(h, f"log {path}, array 'h'"), residual.astype(np.uint16)


def _raw(values: npt.NDArray[Any], what: str) -> Int16Array:
    """As int16. Raises DataError for what is none."""
    if values.size and ((values != np.floor(values)).any() or values.min() < INT16_MIN or values.max() > INT16_MAX):
        raise DataError(f"{what}: {values.min()} ... {values.max()}, expected integers of -32768 ... 32767")
    return values.astype(np.int16)
