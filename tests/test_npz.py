"""Archives of arrays that declare more than they hold. Other damage: test_import_arrays.py, test_sequences.py."""

import io
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from quantgru.errors import DataError
from quantgru.npz import read_npz


def archive(shape: tuple[int, ...], values: bytes, method: int, declared: int | None = None) -> bytes:
    """An .npz of one array of bytes; its directory says that the member unpacks to `declared` bytes."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as file:
        file.writestr("x.npy", header.getvalue() + values)
    damaged = bytearray(content.getvalue())
    if declared is not None:
        directory = damaged.index(b"PK\x01\x02")
        struct.pack_into("<I", damaged, directory + 24, len(header.getvalue()) + declared)
    return bytes(damaged)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_declared_size_allocates_nothing(method: int, tmp_path: Path) -> None:
    path, n = tmp_path / "x.npz", 2**32 - 1000
    path.write_bytes(archive((n,), b"abc", method, declared=n))
    tracemalloc.start()
    with pytest.raises(DataError, match=r"'x.npy' declares \d+ bytes, more than it can hold"):
        read_npz(path, "input")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_what_deflates_best_is_read(tmp_path: Path) -> None:
    """Zeros: the ratio comes within 1 % of the bound."""
    path = tmp_path / "x.npz"
    path.write_bytes(archive((2**24,), bytes(2**24), zipfile.ZIP_DEFLATED))
    assert path.stat().st_size * 1000 < 2**24
    arrays, names = read_npz(path, "input")
    assert names == ["x"] and arrays["x"].shape == (2**24,) and not arrays["x"].any()
    with pytest.raises(DataError, match=r"its arrays declare 16777\d{3} bytes, allowed are 1048576"):
        read_npz(path, "input", limit_bytes=2**20)
