"""HDF5 files as h5py writes them unless asked otherwise, read without its library, which a damaged file can crash.

That is version 0 of the format: groups as symbol tables, data sets as one block, attributes in object headers. Source:
"HDF5 File Format Specification Version 3.0", The HDF Group; sections are cited as [IV.A.2.m].

Nothing here trusts a number in the file: each slice is checked against its end, and each step against a budget, so that
time and memory are bounded by the size of the file.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

SIGNATURE: Final = b"\x89HDF\r\n\x1a\n"
STEPS_LIMIT: Final = 500_000  # reads of headers, names and texts in one file
BYTES_LIMIT: Final = 32 << 20  # of all these reads together
_UNDEFINED: Final = (1 << 64) - 1

# Message types of object headers [IV.A.2].
_DATASPACE, _LINK_INFO, _DATATYPE, _EXTERNAL, _LAYOUT, _ATTRIBUTE, _CONTINUATION, _SYMBOL_TABLE = (
    1,
    2,
    3,
    7,
    8,
    12,
    16,
    17,
)
_COMPACT, _CONTIGUOUS = 0, 1  # classes of data layouts: in the header itself, in one block [IV.A.2.i]
_SHARED: Final = 2  # flag of a message that is in another place

# IEEE 754 [IV.A.2.d]: offset, precision, exponent location and size, mantissa location and size, bias, and sign.
_FLOATS: Final = {
    2: (0, 16, 10, 5, 0, 10, 15, 15),
    4: (0, 32, 23, 8, 0, 23, 127, 31),
    8: (0, 64, 52, 11, 0, 52, 1023, 63),
}


class Hdf5Error(Exception):
    """The file is damaged, or has something that h5py does not write unless asked to."""


@dataclass(frozen=True)
class Message:
    kind: int
    data: bytes


@dataclass(frozen=True)
class Link:
    """A member of a group that is not in it: a soft link."""


class Hdf5File:
    """The content of a file. `root` is its outermost group."""

    def __init__(self, content: bytes) -> None:
        self._content = memoryview(content)
        self._steps = self._bytes = 0
        self._objects: dict[int, Group | DataSet] = {}
        self._collections: dict[int, Mapping[int, tuple[int, int]]] = {}
        if self.slice(0, 8) != SIGNATURE:
            raise Hdf5Error("not an HDF5 file")
        versions = self.slice(8, 5)
        if versions[0] != 0 or self.slice(13, 2) != b"\x08\x08":
            raise Hdf5Error(f"HDF5 superblock of version {versions[0]}, h5py writes version 0")
        if self.integers(24, "<Q") != (0,):
            raise Hdf5Error("HDF5 in the middle of another file")
        (end,) = self.integers(40, "<Q")
        if end > len(content):
            raise Hdf5Error(f"cut off after {len(content)} of {end} bytes")
        self.root = self.object_at(self.integers(64, "<Q")[0])  # second field of the symbol table entry [II.A]

    def view(self, address: int, size: int) -> memoryview:
        if address < 0 or size < 0 or address + size > len(self._content):
            raise Hdf5Error(f"{size} bytes at {address}, of a file of {len(self._content)}")
        return self._content[address : address + size]

    def slice(self, address: int, size: int) -> bytes:
        """A copy for what is small. All copies together have a limit."""
        self.count(size)
        return bytes(self.view(address, size))

    def integers(self, address: int, layout: str) -> tuple[int, ...]:
        return struct.unpack(layout, self.slice(address, struct.calcsize(layout)))

    def count(self, n_bytes: int) -> None:
        """Counts a step and its bytes against the limits."""
        self._steps += 1
        self._bytes += n_bytes
        if self._steps > STEPS_LIMIT or self._bytes > BYTES_LIMIT:
            raise Hdf5Error(f"more than {STEPS_LIMIT} headers or {BYTES_LIMIT} bytes of them, or they lead in a circle")

    def object_at(self, address: int) -> Group | DataSet:
        if address not in self._objects:
            messages = list(self._messages(address))
            kinds = {message.kind for message in messages}
            if not kinds & {_SYMBOL_TABLE, _LAYOUT}:
                raise Hdf5Error(
                    "a group in the newer form, which h5py writes for names that are not plain ASCII and for links"
                    if _LINK_INFO in kinds
                    else f"the object at {address} is neither a group nor a data set"
                )
            self._objects[address] = (Group if _SYMBOL_TABLE in kinds else DataSet)(self, messages)
        return self._objects[address]

    def text_at(self, reference: bytes) -> bytes:
        """The bytes of a text of variable length, which are in a global heap."""
        length, address, number = struct.unpack("<IQI", reference)
        if length == 0:
            return b""
        if address not in self._collections:
            self._collections[address] = dict(self._collection(address))
        start, size = self._collections[address].get(number, (0, -1))
        if length > size:
            raise Hdf5Error("a text that is not where it should be")
        return self.slice(start, length)

    def _collection(self, address: int) -> Iterator[tuple[int, tuple[int, int]]]:
        """Number, address and size of each object in one collection of the global heap [III.E]."""
        if self.slice(address, 5) != b"GCOL\1":
            raise Hdf5Error("a text that is not where it should be")
        (size,) = self.integers(address + 8, "<Q")
        at = address + 16
        while at + 16 <= address + size:
            number, _, length = self.integers(at, "<HHxxxxQ")
            if number == 0:  # the free rest
                break
            yield number, (at + 16, length)
            at += 16 + -(-length // 8) * 8

    def _messages(self, address: int) -> Iterator[Message]:
        """Those of an object header of version 1 [IV.A.1.a], through all its blocks."""
        version, _, count, _, size = self.integers(address, "<BBHII")
        if version != 1:
            raise Hdf5Error(f"object header of version {version}, h5py writes version 1")
        blocks = [(address + 16, size)]
        for start, length in blocks:
            at = start
            while count and at + 8 <= start + length:
                kind, size, flags = self.integers(at, "<HHB")
                data = self.slice(at + 8, size)
                at += 8 + size
                count -= 1
                if kind == _CONTINUATION:
                    blocks.append(struct.unpack("<QQ", data[:16]))
                elif flags & _SHARED:
                    raise Hdf5Error("a type that several objects share, which Keras does not write")
                else:
                    yield Message(kind, data)


class _Object:
    """A group or a data set: its attributes."""

    def __init__(self, file: Hdf5File, messages: list[Message]) -> None:
        self._file = file
        self._messages = messages

    def message(self, kind: int) -> bytes:
        found = [message.data for message in self._messages if message.kind == kind]
        if len(found) != 1:
            raise Hdf5Error(f"{len(found)} messages of type {kind}, expected one")
        return found[0]

    def has(self, kind: int) -> bool:
        return any(message.kind == kind for message in self._messages)

    @cached_property
    def attributes(self) -> Mapping[str, Attribute]:
        found = [_attribute(message.data) for message in self._messages if message.kind == _ATTRIBUTE]
        return {attribute.name: attribute for attribute in found}

    def text(self, name: str) -> str:
        """An attribute that is one text."""
        attribute = self.attributes[name]
        if attribute.shape != ():
            raise Hdf5Error(f"attribute {name!r} has shape {attribute.shape}, expected one text")
        return next(self._texts(attribute))

    def texts(self, name: str) -> list[str]:
        """An attribute that is a list of texts."""
        attribute = self.attributes[name]
        if len(attribute.shape) != 1:
            raise Hdf5Error(f"attribute {name!r} has shape {attribute.shape}, expected a list of texts")
        return list(self._texts(attribute))

    def _texts(self, attribute: Attribute) -> Iterator[str]:
        size = attribute.type.size
        for i in range(math.prod(attribute.shape)):
            data = attribute.data[i * size : (i + 1) * size]
            if len(data) != size or not size:
                raise Hdf5Error(f"attribute {attribute.name!r} has {len(attribute.data)} bytes, fewer than its shape")
            if attribute.type.kind == "variable text":
                data = self._file.text_at(data)
            elif attribute.type.kind != "text":
                raise Hdf5Error(f"attribute {attribute.name!r} is of type {attribute.type.kind}, expected text")
            self._file.count(len(data))
            yield data.rstrip(b"\0").decode("utf-8")


class Group(_Object):
    """Names and objects; what links lead to is not followed."""

    @cached_property
    def members(self) -> Mapping[str, int | Link]:
        """By name the address of an object header."""
        tree, heap = struct.unpack("<QQ", self.message(_SYMBOL_TABLE)[:16])
        names = self._names(heap)
        found: dict[str, int | Link] = {}
        for entry in self._entries(tree):
            name_at, address, cache = struct.unpack("<QQI", entry[:20])
            end = names.find(b"\0", name_at)
            if end < 0:
                raise Hdf5Error("the name of a member has no end")
            self._file.count(end - name_at)
            name = names[name_at:end].decode("utf-8")
            found[name] = Link() if cache == 2 or address == _UNDEFINED else address
        return found

    def _names(self, heap: int) -> bytes:
        """The data of a local heap [III.D]."""
        if self._file.slice(heap, 5) != b"HEAP\0":
            raise Hdf5Error("a group without names")
        size, _, address = self._file.integers(heap + 8, "<QQQ")
        return self._file.slice(address, size)

    def _entries(self, tree: int) -> Iterator[bytes]:
        """The symbol table entries, through a B-tree [III.A.1] to its leaves [III.B]."""
        pending = [tree]
        while pending:
            node = pending.pop()
            if self._file.slice(node, 5) == b"TREE\0":
                (count,) = self._file.integers(node + 6, "<H")
                fields = self._file.integers(node + 24, f"<{2 * count}Q")  # key, child, key, child, ...
                pending += fields[1::2][::-1]
            elif self._file.slice(node, 5) == b"SNOD\1":
                (count,) = self._file.integers(node + 6, "<H")
                for i in range(count):
                    yield self._file.slice(node + 8 + 40 * i, 40)
            else:
                raise Hdf5Error("a group whose members are not where it says")


class DataSet(_Object):
    """Numbers in one block of the file: shape and dtype without reading them, the array with [()]."""

    @cached_property
    def shape(self) -> tuple[int, ...]:
        return _shape(self.message(_DATASPACE))

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        found = _type(self.message(_DATATYPE))
        return np.dtype(found.numpy) if found.numpy else np.dtype(f"V{found.size}")

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def data(self) -> memoryview:
        """The bytes, checked, not copied."""
        if self.has(_EXTERNAL):
            raise Hdf5Error("its data are in another file, Keras writes them into its own")
        layout = self.message(_LAYOUT)
        if layout[0] != 3 or layout[1] not in (_COMPACT, _CONTIGUOUS):
            raise Hdf5Error("its data are in chunks or virtual, Keras writes them whole")
        if layout[1] == _COMPACT:
            data = memoryview(layout)[4 : 4 + struct.unpack("<H", layout[2:4])[0]]
        else:
            address, size = struct.unpack("<QQ", layout[2:18])
            data = self._file.view(address if size else 0, size)
        if len(data) != self.nbytes:
            raise Hdf5Error(f"{len(data)} bytes of data for shape {self.shape} of {self.dtype}")
        return data

    def __getitem__(self, index: tuple[()]) -> npt.NDArray[Any]:
        return np.frombuffer(self.data, self.dtype).reshape(self.shape)


@dataclass(frozen=True)
class Type:
    """kind: "number", "text" of a fixed size, "variable text" or "other"; the numpy dtype of numbers and texts."""

    kind: str
    size: int
    numpy: str = ""


@dataclass(frozen=True)
class Attribute:
    name: str
    type: Type
    shape: tuple[int, ...]
    data: bytes


def _attribute(message: bytes) -> Attribute:
    """An attribute message [IV.A.2.m]."""
    version, flags, *sizes = struct.unpack("<BBHHH", message[:8])
    if version not in (1, 2, 3) or (version > 1 and flags):
        raise Hdf5Error(f"attribute message of version {version} with flags {flags}")
    parts, at = [], 9 if version == 3 else 8
    for size in sizes:
        parts.append(message[at : at + size])
        at += -(-size // 8) * 8 if version == 1 else size
    name = parts[0].rstrip(b"\0").decode("utf-8")
    return Attribute(name, _type(parts[1]), _shape(parts[2]), message[at:])


def _shape(message: bytes) -> tuple[int, ...]:
    """A dataspace message [IV.A.2.b]."""
    version, rank = struct.unpack("<BB", message[:2])
    start = {1: 8, 2: 4}.get(version)
    if start is None or (version == 2 and message[3] == 2):
        raise Hdf5Error("an array without a shape")
    return struct.unpack(f"<{rank}Q", message[start : start + 8 * rank])


def _type(message: bytes) -> Type:
    """A datatype message [IV.A.2.d]."""
    kind, order, sign, size = struct.unpack("<BBBxI", message[:8])
    properties = message[8:]
    big = ">" if order & 1 else "<"
    match kind & 15:
        case 0 if size in (1, 2, 4, 8) and struct.unpack("<HH", properties[:4]) == (0, 8 * size):
            return Type("number", size, f"{big}{'i' if order & 8 else 'u'}{size}")
        case 1 if (*struct.unpack("<HHBBBBI", properties[:12]), sign) == _FLOATS.get(size) and order & 0x70 == 0x20:
            return Type("number", size, f"{big}f{size}")
        case 3:
            return Type("text", size, f"S{size}")
        case 9 if order & 15 == 1 and size == 16:
            return Type("variable text", size)
    return Type("other", size)
