"""HDF5 files of Keras, read with care: they may be damaged or made to harm.

Every size is compared with that of the file before anything is read, and no link is followed out of the file.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from quantgru.errors import ConfigError, ModelError
from quantgru.importers.verify import first_line

WEIGHTS_LIMIT: Final = 256 << 20  # bytes; a thousand times what a microcontroller holds
NAMES_LIMIT: Final = 10_000  # names in one attribute
TEXT_LIMIT: Final = 16 << 20  # bytes of one attribute

DAMAGED: Final = "the file is damaged, or not one that Keras saved; save it again with model.save(path)"

# What h5py and the reading of foreign structures raise.
UNREADABLE: Final = (
    AttributeError,
    IndexError,
    KeyError,
    MemoryError,
    OSError,
    OverflowError,
    RuntimeError,
    TypeError,
    ValueError,
)


class WeightsFile:
    """An open HDF5 file: its groups, attributes and data sets, checked."""

    def __init__(self, where: str, file: Any, size: int) -> None:
        self.where = where
        self.size = size
        self._file = file
        self._declared = 0  # bytes of the data sets given so far

    def group(self, path: str) -> Any:
        """A group or data set that is in this very file, "" for the whole: other links are not followed."""
        item = self._file
        for part in path.split("/") if path else ():
            link = item.get(part, getlink=True) if hasattr(item, "keys") else None
            if type(link).__name__ != "HardLink":
                raise ModelError(f"{self.where}: weights {path!r} are missing; {DAMAGED}")
            item = item[part]
        return item

    def keys(self, path: str) -> list[str]:
        """The names in a group."""
        group = self.group(path)
        if not hasattr(group, "keys") or len(group) > NAMES_LIMIT:
            raise ModelError(f"{self.where}: {path!r} is no group of weights; {DAMAGED}")
        return list(group.keys())

    def data_set(self, path: str) -> Any:
        """Weights, not read yet. All together declare no more than the file has: Keras writes them whole, and once."""
        found = self.group(path)
        self._declared += found.nbytes
        if found.external or found.is_virtual or self._declared > self.size:
            raise ModelError(
                f"{self.where}: weights {found.name} {found.shape} are not in the file that declares them; {DAMAGED}"
            )
        if found.chunks:  # a chunk is unpacked whole, however large
            raise ModelError(
                f"{self.where}: weights {found.name} are compressed in chunks, Keras writes them whole; {DAMAGED}"
            )
        return found

    def text(self, path: str, name: str) -> str:
        """An attribute that is a text."""
        return self._texts(path, name, ())[0]

    def names(self, path: str, name: str) -> list[str]:
        """An attribute that is a list of texts; long ones are split into name0, name1, ..."""
        if self.has(path, name):
            return self._texts(path, name, None)
        found: list[str] = []
        part = 0
        while self.has(path, f"{name}{part}"):
            found += self._texts(path, f"{name}{part}", None)
            part += 1
        return found

    def has(self, path: str, name: str) -> bool:
        return name in self.group(path).attrs

    def _texts(self, path: str, name: str, shape: tuple[int, ...] | None) -> list[str]:
        attributes = self.group(path).attrs
        declared = attributes.get_id(name)
        is_list = shape is None and len(declared.shape) == 1
        count = math.prod(declared.shape)
        fits = count <= NAMES_LIMIT and count * declared.dtype.itemsize <= TEXT_LIMIT
        if not (declared.shape == shape or is_list) or not fits:
            raise ModelError(f"{self.where}: attribute {name!r} is of shape {declared.shape}, no text; {DAMAGED}")
        values = attributes[name]
        return [_decoded(value) for value in (values if is_list else [values])]


def _decoded(value: Any) -> str:
    text = value.decode("utf-8") if isinstance(value, bytes) else value
    if not isinstance(text, str):
        raise TypeError(f"an attribute is {type(value).__name__}, expected a text")
    return text


@contextmanager
def open_weights(where: str, content: bytes) -> Iterator[WeightsFile]:
    """An HDF5 file out of memory, so that nothing beside it can be reached. Raises ModelError, ConfigError."""
    try:
        import h5py
    except ImportError:
        raise ConfigError(
            "reading files of Keras needs h5py, which is not installed: pip install quantgru[keras]"
        ) from None
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            yield WeightsFile(where, file, len(content))
    except UNREADABLE as error:
        raise ModelError(f"{where}: {first_line(error)}; {DAMAGED}") from None
