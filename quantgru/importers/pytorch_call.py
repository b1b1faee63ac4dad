"""One node of a traced graph: which operation, on which values."""

from __future__ import annotations

import builtins
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch.nn import functional

from quantgru.importers.pytorch_chain import SignalChain
from quantgru.importers.pytorch_signals import CannotSayError, Signal

# Functions by the names of the tensor methods that do the same.
FUNCTIONS: Final[dict[Any, str]] = {
    builtins.getattr: "getattr",
    operator.add: "add",
    operator.getitem: "getitem",
    operator.matmul: "matmul",
    operator.mul: "mul",
    operator.neg: "neg",
    operator.sub: "sub",
    operator.truediv: "div",
    torch.add: "add",
    torch.cat: "cat",
    torch.chunk: "chunk",
    torch.concat: "cat",
    torch.concatenate: "cat",
    torch.div: "div",
    torch.flatten: "flatten",
    torch.flip: "flip",
    torch.log_softmax: "log_softmax",
    torch.matmul: "matmul",
    torch.mul: "mul",
    torch.neg: "neg",
    torch.permute: "permute",
    torch.relu: "relu",
    torch.reshape: "reshape",
    torch.select: "select",
    torch.sigmoid: "sigmoid",
    torch.softmax: "softmax",
    torch.squeeze: "squeeze",
    torch.sub: "sub",
    torch.swapaxes: "transpose",
    torch.tanh: "tanh",
    torch.transpose: "transpose",
    torch.unsqueeze: "unsqueeze",
    functional.dropout: "dropout",
    functional.linear: "linear",
    functional.log_softmax: "log_softmax",
    functional.relu: "relu",
    functional.sigmoid: "sigmoid",
    functional.softmax: "softmax",
    functional.tanh: "tanh",
}


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
            raise CannotSayError("gets the pair that nn.GRU returns", "give it out or h_n[-1]")
        if not isinstance(value, Signal):
            raise CannotSayError("gets the input at another place than the first")
        return value
