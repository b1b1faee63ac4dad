"""Files of tensors, `.pt` and `.safetensors`, as arrays: no PyTorch, no code of the file's, nothing unpacked to disk.

A file may be damaged or made to harm: every size is compared with what the file holds before anything is made of it.
"""

from __future__ import annotations

import io
import math
import os
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import safetensors

from quantgru.errors import ModelError
from quantgru.importers.pytorch_pickle import SIZE_LIMIT as PICKLE_LIMIT
from quantgru.importers.pytorch_pickle import Storage, Tensor, UnreadableError, read_pickle
from quantgru.importers.verify import first_line

Array = npt.NDArray[Any]

FILE_LIMIT: Final = 256 << 20  # bytes; a thousand times what a microcontroller holds
ENTRIES_LIMIT: Final = 20_000  # of a zip archive; a state dict has one for each tensor, and few others
HEADER_LIMIT: Final = 2 << 20  # bytes of the names and shapes in a safetensors file
LEGACY_MAGIC: Final = 0x1950A86A20F9469CFC6C  # of files before PyTorch 1.6: pickles, then storages
LEGACY_VERSION: Final = 1001

# Types by the names of storages; bfloat16 is the upper half of a float32.
STORAGES: Final = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
SAFETENSORS: Final = {
    "F64": "f8",
    "F32": "f4",
    "F16": "f2",
    "BF16": "bfloat16",
    "I64": "i8",
    "I32": "i4",
    "I16": "i2",
    "I8": "i1",
    "U64": "u8",
    "U32": "u4",
    "U16": "u2",
    "U8": "u1",
    "BOOL": "?",
}
# What damaged files lead to. KeyError: no such entry; TypeError: another value than expected; RuntimeError: encrypted.
_DAMAGED: Final = (
    EOFError,
    KeyError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
)
SAVE: Final = "save weights alone, with torch.save(model.state_dict(), path) or safetensors.torch.save_file"


@dataclass(frozen=True)
class PtFile:
    """What a `.pt` file holds: `value`, in which tensors are `Tensor`, and the arrays that these are views of."""

    where: str
    value: Any
    storages: Mapping[str, Array]

    def arrays(self, values: Mapping[Any, Any]) -> dict[Any, Any]:
        """`values` with arrays for tensors; nothing is copied. Raises ModelError."""
        return {
            name: self._array(name, value) if isinstance(value, Tensor) else value for name, value in values.items()
        }

    def _array(self, name: Any, tensor: Tensor) -> Array:
        storage = self.storages[tensor.storage.key]
        last = tensor.offset + sum((n - 1) * step for n, step in zip(tensor.size, tensor.stride, strict=True))
        n_elements = math.prod(tensor.size)
        if n_elements > len(storage) or (n_elements and last >= len(storage)):
            raise ModelError(
                f"{self.where}: tensor {str(name)[:80]!r} of shape {_shown(tensor.size)} does not fit its storage of "
                f"{len(storage)} elements; the file is damaged, or the tensor is an expanded view: clone() it"
            )
        if not n_elements:
            return np.empty(tensor.size, storage.dtype)
        strides = [step * storage.itemsize if n > 1 else 0 for n, step in zip(tensor.size, tensor.stride, strict=True)]
        return np.lib.stride_tricks.as_strided(storage[tensor.offset :], tensor.size, strides, writeable=False)


def read_pt(where: str, path: Path) -> PtFile:
    """The content of a file by torch.save. Raises ModelError for anything else than tensors in plain containers."""
    content = _content(where, path)
    try:
        if content.startswith(b"PK\x03\x04"):
            return _read_zip(where, content)
        if content.startswith(b"\x80"):
            return _read_legacy(where, content)
    except UnreadableError as error:
        raise ModelError(
            f"{where}: holds {error}, which no state dict has; nothing of it was executed; {SAVE}"
        ) from None
    except _DAMAGED as error:
        raise ModelError(f"{where}: {first_line(error)}; the file is damaged; save it again") from None
    raise ModelError(f"{where}: not a file that torch.save wrote; {SAVE}")


def read_safetensors(where: str, path: Path) -> dict[str, Array]:
    """The arrays of a safetensors file. Raises ModelError."""
    content = _content(where, path)
    if int.from_bytes(content[:8], "little") > HEADER_LIMIT:
        raise ModelError(f"{where}: a header of more than {HEADER_LIMIT} bytes; not a safetensors file, or damaged")
    try:
        entries: Any = safetensors.deserialize(content)  # type: ignore[no-untyped-call]
        return {name: _typed(where, name, entry) for name, entry in entries}
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{where}: {first_line(error)[:120]}; the file is damaged; save it again") from None


def _typed(where: str, name: str, entry: Mapping[str, Any]) -> Array:
    if entry["dtype"] not in SAFETENSORS:
        raise ModelError(f"{where}: tensor {name[:80]!r} is of type {entry['dtype']}; save it in float32")
    return _elements(entry["data"], SAFETENSORS[entry["dtype"]], "<").reshape(entry["shape"])


def _content(where: str, path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            content = file.read(size) if size <= FILE_LIMIT else b""
    except OSError as error:
        raise ModelError(f"{where}: cannot be read ({error.strerror or error})") from None
    if size > FILE_LIMIT:
        raise ModelError(f"{where}: {size} bytes, allowed are {FILE_LIMIT}; no microcontroller holds them; {SAVE}")
    return content


def _read_zip(where: str, content: bytes) -> PtFile:
    """ROOT/data.pkl, and storages of raw bytes in ROOT/data/KEY."""
    if content.count(b"PK\x01\x02") > ENTRIES_LIMIT:  # the mark of each entry in the directory
        raise ModelError(f"{where}: more than {ENTRIES_LIMIT} entries; {SAVE}")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = archive.namelist()
        for name in names:
            if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/") or ":" in name:
                raise ModelError(f"{where}: an entry named {name[:80]!r}; the file is made to harm, or damaged")
        roots = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise ModelError(f"{where}: a zip archive that torch.save did not write; {SAVE}")
        if any(name.startswith((f"{roots[0]}code/", f"{roots[0]}constants.pkl")) for name in names):
            raise ModelError(f"{where}: a TorchScript archive, which is code with weights; {SAVE}")
        reader = _ZipReader(archive, roots[0])
        value, storages = read_pickle(io.BytesIO(reader.read("data.pkl", PICKLE_LIMIT)))
        return PtFile(where, value, reader.storages(storages))


@dataclass
class _ZipReader:
    """Entries of the archive below `root`; together they cannot be larger than a file may be."""

    archive: zipfile.ZipFile
    root: str
    left: int = field(default=FILE_LIMIT)

    def read(self, name: str, limit: int) -> bytes:
        entry = self.archive.getinfo(self.root + name)
        if entry.file_size > min(limit, self.left) or entry.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"entry {name[:80]!r} has {entry.file_size} bytes, or is packed")
        self.left -= entry.file_size
        with self.archive.open(entry) as file:
            return file.read(entry.file_size)

    def storages(self, storages: list[Storage]) -> dict[str, Array]:
        names = set(self.archive.namelist())
        big = self.root + "byteorder" in names and self.read("byteorder", 16) == b"big"
        by_key = _by_key(storages)
        arrays = {
            key: _elements(self.read(f"data/{key}", FILE_LIMIT), _kind(storage), ">" if big else "<")
            for key, storage in by_key.items()
        }
        _check_counts(by_key, arrays)
        return arrays


def _read_legacy(where: str, content: bytes) -> PtFile:
    """Five pickles: magic, version, system, value, keys of the storages; then the storages, each after its count."""
    file = io.BytesIO(content[:PICKLE_LIMIT])
    for expected in (LEGACY_MAGIC, LEGACY_VERSION):
        if read_pickle(file)[0] != expected:
            raise ModelError(f"{where}: a pickle that torch.save did not write; nothing of it was executed; {SAVE}")
    system, _ = read_pickle(file)
    order = "<" if system["little_endian"] is True else ">"
    value, storages = read_pickle(file)
    keys, _ = read_pickle(file)
    kinds = {key: _kind(storage) for key, storage in _by_key(storages).items()}
    arrays: dict[str, Array] = {}
    position = file.tell()
    for key in keys:
        (count,) = struct.unpack_from("<q", content, position)
        position += 8
        end = position + count * _item_size(kinds[key])
        if count < 0 or end > len(content) or key in arrays:
            raise ValueError("a storage ends after the file")
        arrays[key] = _elements(content[position:end], kinds[key], order)
        position = end
    _check_counts(_by_key(storages), arrays)
    return PtFile(where, value, arrays)


def _kind(storage: Storage) -> str:
    if storage.kind.name not in STORAGES:
        raise UnreadableError(f"a tensor of type {str(storage.kind)[:80]!r}")
    return STORAGES[storage.kind.name]


def _item_size(kind: str) -> int:
    return 2 if kind == "bfloat16" else np.dtype(kind).itemsize


def _elements(content: bytes, kind: str, order: str) -> Array:
    """The elements in `content`; bfloat16, which numpy has not, as float32."""
    if kind != "bfloat16":
        return np.frombuffer(content, np.dtype(order + kind))
    upper = np.frombuffer(content, np.dtype(order + "u2")).astype(np.uint32)
    return (upper << 16).view(np.float32)


def _by_key(storages: list[Storage]) -> dict[str, Storage]:
    by_key: dict[str, Storage] = {}
    for storage in storages:
        if by_key.setdefault(storage.key, storage) != storage:
            raise UnreadableError("one storage with two types")
    return by_key


def _check_counts(storages: Mapping[str, Storage], arrays: Mapping[str, Array]) -> None:
    for key, storage in storages.items():
        if len(arrays[key]) != storage.count:
            raise ValueError(f"a storage of {len(arrays[key])} elements that should have {storage.count}")


def _shown(shape: tuple[int, ...]) -> str:
    return str(shape) if len(str(shape)) < 80 else f"{len(shape)} axes"
