"""The HDF5 files of Keras, read with care: they may be damaged or made to harm."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from quantgru.errors import ModelError
from quantgru.importers.hdf5 import DataSet, Group, Hdf5Error, Hdf5File
from quantgru.importers.keras_arguments import plain, shown
from quantgru.importers.verify import first_line

WEIGHTS_LIMIT: Final = 256 << 20  # bytes; a thousand times what a microcontroller holds
NAMES_LIMIT: Final = 200_000

DAMAGED: Final = "the file is damaged, or not one that Keras saved; save it again with model.save(path)"

# What reading foreign bytes and foreign configurations raises: fields that are missing or of another type.
_UNREADABLE: Final = (
    AttributeError,
    Hdf5Error,
    IndexError,
    KeyError,
    MemoryError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)


class WeightsFile:
    """An open file: its groups, attributes and data sets, by their paths; "" is the whole."""

    def __init__(self, where: str, content: bytes) -> None:
        self.where = where
        self._file = Hdf5File(content)
        self._size = len(content)
        self._declared = 0  # bytes of the data sets given so far
        self._listed = 0  # names given so far

    def keys(self, path: str) -> list[str]:
        """The names in a group. They are bounded in all: a group can be in itself."""
        names = list(self._group(path).members)
        self._listed += len(names)
        if self._listed > NAMES_LIMIT:
            raise ModelError(f"{self.where}: more groups than Keras writes; {DAMAGED}")
        return names

    def groups(self, path: str) -> list[str]:
        """The names of groups in a group."""
        return [name for name in self.keys(path) if isinstance(self._item(f"{path}/{name}"), Group)]

    def data_set(self, path: str) -> DataSet:
        """Weights, not read yet. All together declare no more than the file has: Keras writes each once."""
        found = self._item(path)
        if not isinstance(found, DataSet):
            raise ModelError(f"{self.where}: weights {shown(path)} are a group, expected numbers; {DAMAGED}")
        self._declared += found.nbytes
        try:
            if self._declared > self._size:
                raise Hdf5Error(f"with the weights before it more than the {self._size} bytes of the file")
            _ = found.data
        except Hdf5Error as error:
            raise ModelError(f"{self.where}: weights {shown(path)} {found.shape}: {error}; {DAMAGED}") from None
        return found

    def has(self, path: str, name: str) -> bool:
        """Whether there is an attribute of that name."""
        return name in self._item(path).attributes

    def text(self, path: str, name: str) -> str:
        """An attribute that is a text."""
        return self._item(path).text(name)

    def texts(self, path: str, name: str) -> list[str]:
        """An attribute that is a list of texts; Keras splits long ones into name0, name1, ..."""
        if self.has(path, name):
            return self._item(path).texts(name)
        found: list[str] = []
        part = 0
        while self.has(path, f"{name}{part}"):
            found += self._item(path).texts(f"{name}{part}")
            part += 1
        return found

    def _group(self, path: str) -> Group:
        item = self._item(path)
        if not isinstance(item, Group):
            raise ModelError(f"{self.where}: {shown(path)} are numbers, expected a group; {DAMAGED}")
        return item

    def _item(self, path: str) -> Group | DataSet:
        """What is in this very file: links are not followed."""
        item: Group | DataSet = self._file.root
        for part in path.split("/") if path else ():
            address = item.members.get(part) if isinstance(item, Group) else None
            if not isinstance(address, int):
                raise ModelError(f"{self.where}: weights {shown(path)} are missing; {DAMAGED}")
            item = self._file.object_at(address)
        return item


def keras_version(where: str, version: str) -> int:
    """2 or 3, which are not the same language. Raises ModelError for others."""
    if not version.startswith(("2.", "3.")):
        raise ModelError(f"{where}: saved by Keras {plain(version)}, supported are 2 and 3; save it again there")
    return int(version[0])


@contextmanager
def open_weights(where: str, content: bytes) -> Iterator[WeightsFile]:
    """A file out of memory. Whatever is wrong with it, or with the configuration in it, is a ModelError."""
    try:
        yield WeightsFile(where, content)
    except _UNREADABLE as error:
        reason = str(error) if isinstance(error, Hdf5Error) else first_line(error)
        raise ModelError(f"{where}: {reason}; {DAMAGED}") from None
