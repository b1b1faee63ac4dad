"""Files of arrays with one JSON header, in the safetensors format: no code is executed when one is read.

The header is a single metadata entry, so that the same content always gives the same bytes.
"""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from quantgru.errors import ModelError

_KEY = "quantgru"
_SIZE_LIMIT = 2**28  # bytes; of a float model, too


Arrays = dict[str, npt.NDArray[Any]]


def write_atomically(path: str | Path, content: bytes) -> None:
    """Writes beside, then renames: a reader sees the old file or the new one, never half of one. Raises OSError.

    A link stays: what it points to is replaced. A device or a pipe is refused: a file in its place would be a disaster.
    """
    if Path(path).exists() and not (Path(path).is_file() or Path(path).is_dir()):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    path = Path(os.path.realpath(path))
    handle, beside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(beside, 0o666 & ~current_umask())
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def encode(header: Mapping[str, Any], arrays: Arrays) -> bytes:
    text = json.dumps(header, sort_keys=True, separators=(",", ":"), allow_nan=False)
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return bytes(safetensors.numpy.save(contiguous, metadata={_KEY: text}))


def save(path: str | Path, header: Mapping[str, Any], arrays: Arrays) -> None:
    """Writes header and arrays. Raises ModelError where the folder cannot be written."""
    try:
        write_atomically(path, encode(header, arrays))
    except OSError as error:
        raise ModelError(f"{path}: cannot be written ({error.strerror or error}); choose another path") from None


def load(path: str | Path, what: str) -> tuple[dict[str, Any], Arrays]:
    """Reads header and arrays of a file that `save` wrote. Raises ModelError for anything else."""
    if not Path(path).is_file():
        raise ModelError(f"{what} {path}: no such file")
    if (size := Path(path).stat().st_size) > _SIZE_LIMIT:
        raise ModelError(
            f"{what} {path}: {size} bytes, allowed are {_SIZE_LIMIT}; no microcontroller holds such a model"
        )
    try:
        with safetensors.safe_open(str(path), framework="numpy") as file:
            text = (file.metadata() or {}).get(_KEY)
            arrays = {name: np.asarray(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (safetensors.SafetensorError, OSError, ValueError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{what} {path}: truncated, or not a quantgru file ({error}); copy it again, or make it again"
        ) from None
    if text is None:
        raise ModelError(
            f"{what} {path}: a safetensors file that quantgru did not write; expected the output of save()"
        )
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise ModelError(f"{what} {path}: the header is not a JSON object; the file is damaged")
    return header, arrays


def check_fields(entry: Mapping[str, Any], fields: Iterable[str], what: str) -> None:
    """Raises ModelError for a field that is not among `fields`, KeyError for one that is missing."""
    unknown = set(entry) - set(fields)
    if unknown:
        raise ModelError(f"{what}: unknown field {min(unknown)!r}; update quantgru")
    missing = set(fields) - set(entry)
    if missing:
        raise KeyError(min(missing))


def check_nothing_left(arrays: Arrays) -> None:
    """Raises ModelError for arrays that no reader has taken out."""
    if arrays:
        raise ModelError(f"unknown array {min(arrays)!r}, one of {len(arrays)}; update quantgru")
