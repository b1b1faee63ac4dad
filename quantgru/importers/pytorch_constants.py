"""Nodes of a traced graph that do not depend on the input's values: they are computed, once and for all.

Such are initial states, and the constants of a normalisation. Where they ask for a size of the input, they get that of
an input with SIZES.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import fx, nn

from quantgru.errors import QuantgruError
from quantgru.importers.pytorch_signals import CannotSayError, LastIndex, Signal, Size
from quantgru.importers.verify import first_line

SIZES: Final = {0: 4, 1: 5}  # of the leading axes of the input while it is traced: different, and small
MORE_STEPS: Final = 1100  # for loops in Python that end early, or treat one step in another way
MORE_SEQUENCES: Final = 300
KEPT: Final = "leave it out: the import starts each run at zero or at given states, and a device keeps its own"
UNINITIALISED: Final = ("new", "new_empty", "empty", "empty_like")


@contextmanager
def more_steps(axis: int) -> Iterator[None]:
    """Other SIZES, with the many steps on that axis."""
    before = dict(SIZES)
    SIZES.update({axis: MORE_STEPS, 1 - axis: MORE_SEQUENCES})
    try:
        yield
    finally:
        SIZES.update(before)


def attribute(root: nn.Module, path: str) -> Any:
    """A copy of a parameter or a buffer."""
    value = operator.attrgetter(path)(root)
    return value.detach().clone() if isinstance(value, torch.Tensor) else value


def evaluate(node: fx.Node, root: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """The value of a node whose inputs are constants. Raises CannotSayError where it is another one at each call."""
    if node.target is operator.mul and all(isinstance(value, Size) for value in args):
        return Size(args[0].axis + args[1].axis)
    if node.target is operator.sub and isinstance(args[0], Size) and _is_one(args[1]) and len(args[0].axis) == 1:
        return LastIndex(args[0].axis)
    first, second = (_call(node, root, *_concrete((tuple(args), dict(kwargs)))) for _ in range(2))
    if not _equal(first, second):
        raise CannotSayError("is another one at each call", "make it a constant, or a parameter")
    return first


def _is_one(value: Any) -> bool:
    return type(value) is int and value == 1


def of_input(call: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What a method of the input that looks at its type and device only, such as new_zeros, gives."""
    args, kwargs = _concrete((tuple(args), dict(kwargs)))
    try:
        return _initialised(call, getattr(torch.zeros(1, dtype=torch.float64), call)(*args, **kwargs))
    except Exception as error:  # whatever the user's arguments lead to
        raise CannotSayError(f"fails ({first_line(error)})") from None


def _call(node: fx.Node, root: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    try:
        match node.op:
            case "call_module":
                return root.get_submodule(str(node.target))(*args, **kwargs)
            case "call_method":
                return _initialised(str(node.target), getattr(args[0], str(node.target))(*args[1:], **kwargs))
        function: Any = node.target
        return _initialised(getattr(function, "__name__", ""), function(*args, **kwargs))
    except QuantgruError:
        raise
    except Exception as error:  # the user's own functions, which may raise anything
        raise CannotSayError(f"fails ({first_line(error)})") from None


def _initialised(function: str, value: Any) -> Any:
    """Memory that a function leaves as it was is not a number: something must be written to it before it is used."""
    return value.fill_(math.nan) if function in UNINITIALISED and value.is_floating_point() else value


def _concrete(values: Any) -> Any:
    """Sizes as numbers, and copies of tensors, which a function may change."""

    def concrete(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value.clone()
        if isinstance(value, (Size, LastIndex)):
            if not set(value.axis) <= SIZES.keys():
                raise CannotSayError("needs the number of inputs, which is not known", "give it as a number")
            return math.prod(SIZES[label] for label in value.axis) - isinstance(value, LastIndex)
        if isinstance(value, Signal):
            raise CannotSayError("makes a constant of the input")
        return value

    return fx.node.map_aggregate(values, concrete)


def _comparable(values: torch.Tensor) -> torch.Tensor:
    """NaN, which `_initialised` writes, is equal to nothing."""
    return torch.where(values.isnan(), math.inf, values) if values.is_floating_point() else values


def _equal(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor):
        return isinstance(second, torch.Tensor) and torch.equal(_comparable(first), _comparable(second))
    if isinstance(first, (tuple, list)):
        return len(first) == len(second) and all(map(_equal, first, second))
    return bool(first == second)
