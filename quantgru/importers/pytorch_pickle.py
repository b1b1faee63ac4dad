"""What the pickle of a PyTorch file says, without running it: its opcodes are read as data, one by one.

Unpickling calls whatever functions a file names. Nothing is called here: a global is a name, a call is one of the few
that a state dict has, and everything else is refused. A pickle can write down little more than it has bytes, so a limit
on its size bounds memory and time.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

SIZE_LIMIT: Final = 2 << 20  # bytes; 200 for each tensor is usual
AXES_LIMIT: Final = 8

_MARK: Final = object()


class UnreadableError(Exception):
    """Found in a pickle: what no state dict has. The reader of the file says where, and what to do."""


@dataclass(frozen=True)
class Global:
    """The name of a class or a function, which is never imported. Also stands for objects of no use here."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True)
class Storage:
    """A storage beside the pickle: its key there, the global of its type, and how many elements it has."""

    key: str
    kind: Global
    count: int


@dataclass(frozen=True)
class Tensor:
    """A strided view into a storage, not checked yet."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def _tensor(arguments: tuple[Any, ...]) -> Any:
    storage, offset, size, stride = arguments[:4]
    axes = isinstance(size, tuple) and isinstance(stride, tuple) and len(size) == len(stride) <= AXES_LIMIT
    if (
        not axes
        or not isinstance(storage, Storage)
        or any(type(n) is not int or n < 0 for n in (offset, *size, *stride))
    ):
        raise UnreadableError("a tensor with sizes that cannot be")
    return Tensor(storage, offset, size, stride)


CALLS: Final[dict[Global, Callable[[tuple[Any, ...]], Any]]] = {
    Global("collections", "OrderedDict"): lambda arguments: {},
    Global("torch._utils", "_rebuild_tensor_v2"): _tensor,
    Global("torch._utils", "_rebuild_parameter"): lambda arguments: arguments[0],
    Global("torch", "Size"): lambda arguments: Global("torch", "Size"),
    Global("torch", "device"): lambda arguments: Global("torch", "device"),
}
DTYPES: Final = frozenset(
    ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
)


def read_pickle(file: BinaryIO) -> tuple[Any, list[Storage]]:
    """The value of the pickle at the position of `file`, which is left behind it, and the storages that it names.

    Containers, numbers and texts are Python's; everything else is one of the types above. Raises UnreadableError, and
    ValueError for a damaged pickle.
    """
    reader = _Reader()
    try:
        for opcode, argument, _ in pickletools.genops(file):
            reader.step(opcode.name, argument)
        return reader.stack.pop(), reader.storages
    except UnreadableError:
        raise
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError) as error:
        raise ValueError(f"a pickle that ends in {type(error).__name__}") from None


class _Reader:
    """The stack machine of pickles, as far as torch.save makes use of it (protocols 2 to 5)."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.storages: list[Storage] = []

    def step(self, name: str, argument: Any) -> None:
        if name in _VALUES:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _ACTIONS:
            _ACTIONS[name](self, argument)
        else:
            raise UnreadableError(f"pickle opcode {name}")

    def pop(self, count: int) -> list[Any]:
        """The last values, the lowest first."""
        if len(self.stack) < count:
            raise IndexError
        taken = self.stack[-count:]
        del self.stack[-count:]
        return taken

    def pop_to_mark(self) -> list[Any]:
        taken = []
        while (value := self.stack.pop()) is not _MARK:
            taken.append(value)
        return taken[::-1]

    def push_global(self, module: str, name: str) -> None:
        if type(module) is not str or type(name) is not str:
            raise UnreadableError("a Python object without a name")
        found = Global(module, name)
        if found not in CALLS and not (module == "torch" and (name in DTYPES or name.endswith("Storage"))):
            raise UnreadableError(f"the Python object {str(found)[:80]!r}")
        self.stack.append(found)

    def call(self) -> None:
        function, arguments = self.pop(2)
        if not isinstance(function, Global) or function not in CALLS or not isinstance(arguments, tuple):
            raise UnreadableError("a call of an object")
        self.stack.append(CALLS[function](arguments))

    def build(self) -> None:
        """The attributes of an OrderedDict, among them _metadata: not wanted."""
        target, _ = self.pop(2)
        if not isinstance(target, dict):
            raise UnreadableError("attributes of an object")
        self.stack.append(target)

    def persistent(self) -> None:
        """("storage", type, key, device, count), in the format before 1.6 with a view, None."""
        (value,) = self.pop(1)
        kind, storage_type, key, _, count, *view = value
        fits = kind == "storage" and isinstance(storage_type, Global) and isinstance(key, str) and type(count) is int
        if not fits or count < 0 or view not in ([], [None]):
            raise UnreadableError("a reference to something else than a storage")
        self.storages.append(Storage(key, storage_type, count))
        self.stack.append(self.storages[-1])

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise UnreadableError("items of an object")
        if any(type(key) not in (str, int, float) for key in items[::2]):  # others can take forever to compare
            raise UnreadableError("a key that is neither text nor number")
        target.update(zip(items[::2], items[1::2], strict=True))

    def append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise UnreadableError("entries of an object")
        target.extend(items)


_VALUES: Final = frozenset(
    "BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE SHORT_BINUNICODE BINBYTES SHORT_BINBYTES".split()
)
_CONSTANTS: Final[dict[str, Callable[[], Any]]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "MARK": lambda: _MARK,
}


def _tuple_of(count: int) -> Callable[[_Reader, Any], None]:
    return lambda reader, argument: reader.stack.append(tuple(reader.pop(count)))


_ACTIONS: Final[dict[str, Callable[[_Reader, Any], None]]] = {
    "PROTO": lambda reader, argument: None,
    "FRAME": lambda reader, argument: None,
    "STOP": lambda reader, argument: None,
    "TUPLE": lambda reader, argument: reader.stack.append(tuple(reader.pop_to_mark())),
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "BINPUT": lambda reader, number: reader.memo.update({number: reader.stack[-1]}),
    "LONG_BINPUT": lambda reader, number: reader.memo.update({number: reader.stack[-1]}),
    "MEMOIZE": lambda reader, argument: reader.memo.update({len(reader.memo): reader.stack[-1]}),
    "BINGET": lambda reader, number: reader.stack.append(reader.memo[number]),
    "LONG_BINGET": lambda reader, number: reader.stack.append(reader.memo[number]),
    "GLOBAL": lambda reader, names: reader.push_global(*names.split(" ", 1)),
    "STACK_GLOBAL": lambda reader, argument: reader.push_global(*reader.pop(2)),
    "REDUCE": lambda reader, argument: reader.call(),
    "BUILD": lambda reader, argument: reader.build(),
    "BINPERSID": lambda reader, argument: reader.persistent(),
    "SETITEM": lambda reader, argument: reader.set_items(reader.pop(2)),
    "SETITEMS": lambda reader, argument: reader.set_items(reader.pop_to_mark()),
    "APPEND": lambda reader, argument: reader.append(reader.pop(1)),
    "APPENDS": lambda reader, argument: reader.append(reader.pop_to_mark()),
}
