"""Arrays in .npz files, which come from anywhere.

Nothing is unpickled. What an array takes is bounded by what lies in the file: a size that the file only declares
allocates nothing.
"""

from __future__ import annotations

import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from quantgru.errors import DataError

_SUFFIX: Final = ".npy"  # of each member of the archive
_END_BYTES: Final = 22  # of the record that ends a zip archive; at 10 in it, 16 bits: the number of members
_CHUNK_BYTES: Final = 2**20
_MOST_DEFLATED: Final = 1032  # bytes that one byte of a deflated stream can stand for: zlib.net/zlib_tech.html
_LAST_CODE_POINT: Final = 0x10FFFF  # of Unicode: numpy keeps characters as numbers, and checks none

# What numpy and zipfile raise for damaged archives; RuntimeError: encrypted, MemoryError: a size that cannot be.
_UNREADABLE: Final = (
    EOFError,
    KeyError,
    MemoryError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


def read_npz(
    path: Path, what: str, names: Sequence[str] | None = None, limit_bytes: int | None = None
) -> tuple[dict[str, npt.NDArray[Any]], list[str]]:
    """The arrays of these names that the file has (or all), and the names of all that it has.

    limit_bytes bounds what the arrays that are read may take together. Raises DataError.
    """
    try:
        with open(path, "rb") as file:
            start = file.peek(6)
            if start.startswith(b"\x93NUMPY"):
                raise DataError(
                    f"{what} {path}: a single array, expected an .npz file; save it with np.savez(path, x=x)"
                )
            # A pickle: its protocol, and what to do. (The length that safetensors and .qgru begin with may be like it.)
            if start[:1] == b"\x80" and start[1:2] <= b"\x05" and start[2:3] > b"\0":
                raise ValueError("it holds pickled objects, which are never read; save arrays of numbers")
            if not start.startswith(b"PK"):
                raise ValueError("it is no zip archive; save it with np.savez(path, x=x)")
            with zipfile.ZipFile(file) as archive:
                _check_directory(archive, file)
                return _read_members(archive, names, limit_bytes)
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{what} {path}: no such file") from None
    except _UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{what} {path}: not a readable .npz file ({reason})") from None


def _check_directory(archive: zipfile.ZipFile, file: IO[bytes]) -> None:
    """zipfile takes what a damaged directory still shows, and arrays that may be missing would be missing silently."""
    methods = {member.compress_type for member in archive.infolist()}
    if not methods <= {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:  # the others unpack without a bound
        raise ValueError("packed in a way that numpy does not use")
    file.seek(-_END_BYTES - len(archive.comment), 2)
    (count,) = struct.unpack_from("<H", file.read(_END_BYTES), 10)
    if count != len(archive.infolist()):
        raise ValueError(f"its directory shows {len(archive.infolist())} of {count} arrays")
    if len(set(archive.namelist())) < count:
        raise ValueError("it holds two arrays of the same name")
    size = file.seek(0, 2)
    for member in archive.infolist():
        most = 1 if member.compress_type == zipfile.ZIP_STORED else _MOST_DEFLATED
        if member.compress_size > size or member.file_size > most * member.compress_size:
            raise ValueError(f"{member.filename!r} declares {member.file_size} bytes, more than it can hold")


def _read_members(
    archive: zipfile.ZipFile, names: Sequence[str] | None, limit_bytes: int | None
) -> tuple[dict[str, npt.NDArray[Any]], list[str]]:
    members = {member.filename.removesuffix(_SUFFIX): member for member in archive.infolist()}
    wanted = {name: member for name, member in members.items() if names is None or name in names}
    size = sum(member.file_size for member in wanted.values())
    if limit_bytes is not None and size > limit_bytes:
        raise ValueError(f"its arrays declare {size} bytes, allowed are {limit_bytes}")
    arrays = {}
    for name, member in wanted.items():
        with archive.open(member) as stream:
            arrays[name] = _read_array(name, stream, member.file_size)
    return arrays, sorted(members)


def _read_array(name: str, stream: IO[bytes], size: int) -> npt.NDArray[Any]:
    """The array of a member that unpacks to `size` bytes: the stream never gives more."""
    shape, fortran_order, dtype = _read_header(name, stream)
    if dtype.hasobject:
        raise ValueError("it holds pickled objects, which are never read; save arrays of numbers")
    n_bytes = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or stream.tell() + n_bytes != size:
        raise ValueError(f"array {name!r} declares {dtype} {shape}, and has {size - stream.tell()} bytes")
    values = np.empty(n_bytes, dtype=np.uint8)
    done = 0
    while done < n_bytes:
        chunk = stream.read(min(_CHUNK_BYTES, n_bytes - done))
        if not chunk:
            raise EOFError(f"array {name!r} ends after {done} of {n_bytes} bytes")
        values[done : done + len(chunk)] = np.frombuffer(chunk, dtype=np.uint8)
        done += len(chunk)
    if stream.read(1):  # the end of the member is where its checksum is compared
        raise ValueError(f"array {name!r} has more than its {size} bytes")
    if dtype.kind == "U" and (values.view(np.dtype("u4").newbyteorder(dtype.byteorder)) > _LAST_CODE_POINT).any():
        raise ValueError(f"array {name!r} holds characters that there are not")
    return values.view(dtype).reshape(shape, order="F" if fortran_order else "C")


def _read_header(name: str, stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(stream)
    if version == (1, 0):
        return npy.read_array_header_1_0(stream)
    if version == (2, 0):
        return npy.read_array_header_2_0(stream)
    raise ValueError(f"array {name!r} is in npy format {version[0]}.{version[1]}, which arrays of numbers do not need")
