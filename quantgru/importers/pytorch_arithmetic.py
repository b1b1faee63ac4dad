"""Operations of `pytorch_operations` with numbers: of signals with constants, and of two signals."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from quantgru.importers.gates import finite
from quantgru.importers.pytorch_call import Call
from quantgru.importers.pytorch_chain import want_features, want_no_states
from quantgru.importers.pytorch_signals import (
    FEATURES,
    PAIR,
    CannotSayError,
    LastIndex,
    Signal,
    Size,
    added,
    want_same_steps,
)
from quantgru.model import Dense


def linear(call: Call) -> Any:
    weights = _constant(call, call.argument(1, "weight"))
    bias = call.argument(2, "bias")
    values = np.zeros(len(weights)) if bias is None else _constant(call, bias)
    return call.chain.dense(call.where, call.signal(), Dense(call.node, weights, values))


def matmul(call: Call) -> Any:
    signal = call.signal()
    want_features(signal, len(signal.axes) - 1, "multiplies another axis than the features")
    return signal.times(_constant(call, call.argument(1, "other")).T)


def negative(call: Call) -> Any:
    return call.signal().scaled(-1.0, 0.0)


def arithmetic(call: Call) -> Any:
    """+, -, * and / of a signal and a constant, or of two signals."""
    if call.kwargs.keys() - {"other"}:
        raise CannotSayError(f"with {', '.join(call.kwargs)}")
    first, second = call.args[0], call.argument(1, "other")
    for value in (first, second):
        if isinstance(value, (tuple, list)):
            raise CannotSayError("gets the pair that nn.GRU returns", PAIR)
        if isinstance(value, Signal):
            want_no_states(value)
    if isinstance(first, Signal) and isinstance(second, Signal):
        return _of_two(call, call.chain.as_final(first), call.chain.as_final(second))
    if isinstance(first, Signal):
        return _with_constant(call, call.name, first, second)
    if call.name == "sub":
        return _with_constant(call, "add", second.scaled(-1.0, 0.0), first)
    if call.name == "div":
        raise CannotSayError("divides by what depends on the input")
    return _with_constant(call, call.name, second, first)


def _of_two(call: Call, first: Signal, second: Signal) -> Signal:
    want_same_steps([first, second])
    match call.name:
        case "add":
            return added(first, second)
        case "sub":
            return added(first, second.scaled(-1.0, 0.0))
        case "mul":
            return call.chain.product(first, second)
    raise CannotSayError("divides by what depends on the input")


def _with_constant(call: Call, name: str, signal: Signal, constant: Any) -> Signal:
    values = _along_features(signal, _constant(call, constant))
    match name:
        case "add":
            return signal.scaled(1.0, values)
        case "sub":
            return signal.scaled(1.0, -values)
        case "mul":
            return signal.scaled(values, 0.0)
    if not np.all(values):
        raise CannotSayError("divides by zero")
    return signal.scaled(1 / values, 0.0)


def _along_features(signal: Signal, values: Any) -> Any:
    """A number, or one for each feature. Raises CannotSayError for what differs along another axis."""
    shape = (1,) * (len(signal.axes) - values.ndim) + values.shape
    if len(shape) > len(signal.axes) or any(
        size != 1 and axis != (FEATURES,) for size, axis in zip(shape, signal.axes, strict=True)
    ):
        raise CannotSayError(f"a constant {values.shape} along other axes than the features")
    if values.size > 1 and signal.width not in (None, values.size):
        raise CannotSayError(f"a constant of {values.size} numbers on {signal.width} features")
    return values.reshape(-1) if values.size > 1 else float(values.reshape(()))


def _constant(call: Call, value: Any) -> Any:
    """A constant in float64."""
    if isinstance(value, torch.Tensor):
        value = value.detach().double().numpy()
    elif type(value) not in (int, float):
        found = "size of the input" if isinstance(value, (Size, LastIndex)) else type(value).__name__
        raise CannotSayError(f"with a {found}, expected a number or a tensor")
    return finite(call.where, "constant", value)
