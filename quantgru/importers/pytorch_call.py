"""One node of a traced graph for `pytorch_operations`: which operation, by the name of a method, on which values."""

from __future__ import annotations

import builtins
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import fx
from torch.nn import functional

from quantgru.importers.pytorch_chain import SignalChain
from quantgru.importers.pytorch_signals import PAIR, CannotSayError, Signal

# Functions that have another name than the tensor method that does the same.
ALIASES: Final[dict[Any, str]] = {
    builtins.getattr: "getattr",
    operator.add: "add",
    operator.getitem: "getitem",
    operator.matmul: "matmul",
    operator.mul: "mul",
    operator.neg: "neg",
    operator.sub: "sub",
    operator.truediv: "div",
    torch.concat: "cat",
    torch.concatenate: "cat",
    torch.swapaxes: "transpose",
    torch.swapdims: "transpose",
}


def operation(node: fx.Node) -> str:
    """What a call of a function or a method is, by the name of the tensor method; empty for other functions."""
    if node.op == "call_method":
        return str(node.target)
    if node.op != "call_function":
        return ""
    name = getattr(node.target, "__name__", "")
    known = (getattr(torch, name, None), getattr(functional, name, None))
    return ALIASES.get(node.target) or (name if node.target in known else "")


@dataclass(frozen=True)
class Call:
    """One node of the graph with the values of its arguments."""

    chain: SignalChain
    where: str
    name: str
    node: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        return self.args[position] if len(self.args) > position else self.kwargs.get(name, default)

    def rest(self, name: str) -> tuple[Any, ...]:
        """The numbers after the first argument, given one by one or as one sequence."""
        given = self.args[1:] or (self.kwargs.get(name),)
        return tuple(given[0]) if len(given) == 1 and isinstance(given[0], (tuple, list)) else given

    def signal(self) -> Signal:
        value = self.argument(0, "input")
        if isinstance(value, (tuple, list)):
            raise CannotSayError("gets the pair that nn.GRU returns", PAIR)
        if not isinstance(value, Signal):
            raise CannotSayError("gets the input at another place than the first")
        return value
