"""Functions of torch and methods of tensors, as far as they have a meaning for signals: the table OPERATIONS.

A `Call` comes in, a `Signal` goes out; `pytorch_signals` has what is done to axes and features, `pytorch_arithmetic`
the operations with constants.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import numpy as np
import torch

from quantgru.importers.chain import IDENTITY_WEIGHTS_LIMIT
from quantgru.importers.pytorch_arithmetic import arithmetic, linear, matmul, negative
from quantgru.importers.pytorch_call import Call
from quantgru.importers.pytorch_chain import want_features
from quantgru.importers.pytorch_constants import of_input
from quantgru.importers.pytorch_signals import (
    DIRECTIONS,
    FEATURES,
    LAST_STEP,
    LAYERS,
    CannotSayError,
    Signal,
    Size,
    State,
    added,
    axis_number,
    indexed,
    joined,
    permuted,
    reshaped,
    want_same_steps,
    with_axes,
)
from quantgru.model import Embedding

HALVES: Final = ("half", "bfloat16")
NEW: Final = ("new", "new_zeros", "new_ones", "new_full", "new_empty", "new_tensor")
POOLED: Final = "take the last step, h_n[-1]; or leave it out, and do it to the outputs of every step, on the host"
STATES: Final = "the first argument of forward() is the data, the others are states of GRUs; give others a default"
STATE_AXES: Final = "give {!r} as nn.GRU takes it: [layers, batch, units]"
RESHAPING: Final = ("transpose", "swapaxes", "permute", "movedim", "view", "reshape", "squeeze", "unsqueeze", "getitem")


def _identity(call: Call) -> Any:
    return call.signal()


def of_state(call: Call, state: State) -> State:
    """What may be done to a state that forward() is given, and what it is then."""
    if call.args[:1] == (state,):
        if call.name in ("contiguous", "detach", "clone", "to", "float", "double"):
            return state
        if call.name == "getattr" and call.args[1:] == ("data",):
            return state
        if (part := _part_of_state(call, state)) is not None:
            return part
        if call.name in RESHAPING:
            raise CannotSayError(f"changes the axes of the state {state.name!r}", STATE_AXES.format(state.name))
    raise CannotSayError(f"uses argument {state.name!r} as something else than a state", STATES)


def _part_of_state(call: Call, state: State) -> State | None:
    """The state of one layer, or a state with an axis of size 1 in front of it; None for anything else."""
    index = call.argument(1, "dim")
    if call.name == "unsqueeze" and index == 0:
        index = None
    elif call.name != "getitem":
        return None
    if index is None and not state.unsqueezed:
        return replace(state, unsqueezed=True)
    if state.index is not None or state.unsqueezed:
        return None
    if type(index) is int and index >= 0:
        return replace(state, index=index)
    if isinstance(index, slice) and type(index.stop) is int:  # of h[i : i + 1]
        at = index.stop - 1
        if at >= 0 and index in (slice(at, at + 1), slice(None, 1)):
            return replace(state, index=at, unsqueezed=True)
    return None


def _activation(call: Call) -> Any:
    return call.chain.activation(call.where, call.signal(), call.name)


def _softmax(call: Call) -> Any:
    return call.chain.softmax(call.where, call.signal(), call.name, call.argument(1, "dim"))


def _dropout(call: Call) -> Any:
    if call.argument(2, "training", True) is not False:
        raise CannotSayError("drops outputs at each call", "use nn.Dropout, or give it training=self.training")
    return call.signal()


def _to(call: Call) -> Any:
    """To a device, or another type of floating-point numbers."""
    value, targets = call.args[0], [*call.args[1:], *call.kwargs.values()]
    if not isinstance(value, Signal):  # a constant, to the type and device of the input
        return value.double()
    targets += [getattr(torch, call.name)] if call.name in HALVES else []
    if _is_input(value) and torch.long in targets:
        return value
    if any(isinstance(target, torch.dtype) and target not in (torch.float32, torch.float64) for target in targets):
        raise CannotSayError("changes the type of its numbers", "leave it out: the import has one type for all")
    return value


def _integers(call: Call) -> Any:
    if not _is_input(call.signal()):
        raise CannotSayError("rounds", "leave it out")
    return call.signal()


def _is_input(signal: Signal) -> bool:
    """Whether nothing is known of it but that it is the input, which may also have two axes."""
    return signal.position == 0 and signal.width is None


def _getitem(call: Call) -> Any:
    signal, index = call.signal(), call.argument(1, "")
    if _is_input(signal) and index in ((slice(None), slice(None), None), (Ellipsis, None)):
        return call.chain.univariate(signal)
    return _indexed(call, signal, index)


def _select(call: Call) -> Any:
    """One entry of an axis, or several of index_select."""
    return _along(call, call.argument(2, "index"))


def _narrow(call: Call) -> Any:
    start, length = call.argument(2, "start"), call.argument(3, "length")
    if type(start) is not int or type(length) is not int:
        raise CannotSayError("a part whose start or length is no number", LAST_STEP)
    return _along(call, slice(start, start + length))


def _along(call: Call, entry: Any, default: Any = None) -> Signal:
    """An index of the one axis that the call names."""
    signal = call.signal()
    axis = axis_number(call.argument(1, "dim", default), len(signal.axes))
    return _indexed(call, signal, (*[slice(None)] * axis, entry))


def _indexed(call: Call, signal: Signal, index: Any) -> Signal:
    taken = indexed(signal, index, call.chain.time_axis)
    if taken.pick == "first" and not call.chain.units():  # of use for the backward direction only
        raise CannotSayError("does not take the last step", LAST_STEP)
    if signal.width is None and taken.matrix is not None:
        call.chain.chain.notes.append(f"{call.where}: the model has no inputs beyond the last that is taken")
    return taken


def _squeeze(call: Call) -> Any:
    signal, dim = call.signal(), call.argument(1, "dim")
    rank = len(signal.axes)
    dims = range(rank) if dim is None else [axis_number(d, rank) for d in (dim if isinstance(dim, tuple) else [dim])]
    gone = [
        axis for axis in dims if signal.axes[axis] == () or (signal.axes[axis] == (FEATURES,) and signal.width == 1)
    ]
    if len(gone) < len(dims):
        call.chain.squeezed.append(call.where)
    return with_axes(signal, [axis for i, axis in enumerate(signal.axes) if i not in gone])


def _unsqueeze(call: Call) -> Any:
    signal, dim = call.signal(), call.argument(1, "dim")
    if _is_input(signal) and dim in (-1, 2):
        return call.chain.univariate(signal)
    at = axis_number(dim, len(signal.axes) + 1)
    return with_axes(signal, [*signal.axes[:at], (), *signal.axes[at:]])


def _flatten(call: Call) -> Any:
    signal = call.signal()
    rank = len(signal.axes)
    start = axis_number(call.argument(1, "start_dim", 0), rank)
    end = axis_number(call.argument(2, "end_dim", -1), rank)
    together = tuple(label for axis in signal.axes[start : end + 1] for label in axis)
    return with_axes(signal, [*signal.axes[:start], together, *signal.axes[end + 1 :]])


def _reshape(call: Call) -> Any:
    return reshaped(call.signal(), call.rest("shape"))


def _transpose(call: Call) -> Any:
    signal = call.signal()
    order = list(range(len(signal.axes)))
    first, second = (
        axis_number(call.argument(i + 1, f"dim{i}", call.kwargs.get(f"axis{i}")), len(order)) for i in range(2)
    )
    order[first], order[second] = order[second], order[first]
    return permuted(signal, order)


def _permute(call: Call) -> Any:
    signal = call.signal()
    return permuted(signal, [axis_number(axis, len(signal.axes)) for axis in call.rest("dims")])


def _flip(call: Call) -> Any:
    signal, dims = call.signal(), call.rest("dims")
    if len(dims) != 1:
        raise CannotSayError(f"reverses {len(dims)} axes", "reverse the steps alone")
    return call.chain.reverse(call.where, signal, signal.axes[axis_number(dims[0], len(signal.axes))])


def _cat(call: Call) -> Any:
    signals = call.argument(0, "tensors")
    dim = call.argument(1, "dim", call.kwargs.get("axis", 0))
    if not isinstance(signals, (tuple, list)) or not all(isinstance(signal, Signal) for signal in signals):
        raise CannotSayError("joins constants to what depends on the input")
    signals = [call.chain.as_final(signal) for signal in signals]
    want_same_steps(signals)
    want_features(signals[0], axis_number(dim, len(signals[0].axes)), "joins another axis than the features")
    return joined(signals)


def _hstack(call: Call) -> Any:
    """Along axis 1, which are the features of one step."""
    return _cat(replace(call, args=(call.argument(0, "tensors"), 1), kwargs={}))


def _chunk(call: Call) -> Any:
    """The features in that many parts."""
    n_chunks = call.argument(1, "chunks")
    if type(n_chunks) is not int or n_chunks < 1:
        raise CannotSayError("a number of parts that is not known")
    return _parts(call, lambda width: -(-width // n_chunks))


def _split(call: Call) -> Any:
    """The features in parts of that size, or of these sizes."""
    return _parts(call, lambda width: call.argument(1, "split_size_or_sections", call.kwargs.get("split_size")))


def _parts(call: Call, size_of: Callable[[int], Any]) -> tuple[Signal, ...]:
    signal = call.signal()
    want_features(signal, axis_number(call.argument(2, "dim", 0), len(signal.axes)), "divides another axis")
    if signal.width is None:
        raise CannotSayError("divides features whose number is not known")
    size, rows = size_of(signal.width), np.arange(signal.width)
    if type(size) is int and size > 0:
        return tuple(signal.take(rows[i : i + size]) for i in range(0, signal.width, size))
    if not isinstance(size, (tuple, list)) or any(type(n) is not int for n in size) or sum(size) != signal.width:
        raise CannotSayError(f"parts of other sizes than {signal.width} features have together")
    return tuple(signal.take(part) for part in np.split(rows, np.cumsum(size)[:-1]))


def _unbind(call: Call) -> Any:
    """The states of both directions."""
    signal = call.signal()
    axis = axis_number(call.argument(1, "dim", 0), len(signal.axes))
    if signal.axes[axis] != (DIRECTIONS,):
        raise CannotSayError("takes others than the final states of both directions", LAST_STEP)
    return tuple(_along(call, i, 0) for i in range(2))


def _reduced(call: Call) -> Any:
    """The sum or the mean of the final states of both directions."""
    signal, dim = call.signal(), call.argument(1, "dim", call.kwargs.get("axis"))
    if call.name in ("sum", "mean") and type(dim) is int:
        axis = axis_number(dim, len(signal.axes))
        if signal.axes[axis] == (DIRECTIONS,) and not call.argument(2, "keepdim"):
            total = added(*(_along(call, i, dim) for i in range(2)))
            return total if call.name == "sum" else total.scaled(0.5, 0.0)
    raise CannotSayError(f"the {call.name} of steps or features", POOLED)


def _one_hot(call: Call) -> Any:
    signal, n_tokens = call.signal(), call.argument(1, "num_classes", -1)
    if not _is_input(signal):
        raise CannotSayError("of something else than the tokens that are the input")
    if type(n_tokens) is not int or n_tokens < 1 or n_tokens**2 > IDENTITY_WEIGHTS_LIMIT:
        raise CannotSayError(f"of {n_tokens} classes", "write num_classes=, the number of tokens")
    return call.chain.embedding(call.where, signal, Embedding(call.node, np.eye(n_tokens)))


def _sizes(call: Call) -> Any:
    """The sizes of all axes, or of one; those that are only known at run time as `Size`."""
    signal = call.args[0]
    known = {LAYERS: signal.n_layers, DIRECTIONS: 2}
    if signal.width is not None:
        known[FEATURES] = signal.width
    sizes = [
        math.prod(known[label] for label in axis) if known.keys() >= set(axis) else Size(axis) for axis in signal.axes
    ]
    dim = call.argument(1, "dim") if call.name == "size" else None
    return tuple(sizes) if dim is None else sizes[axis_number(dim, len(sizes))]


def _attribute(call: Call) -> Any:
    match call.args[1]:
        case "shape":
            return _sizes(call)
        case "device":
            return torch.device("cpu")
        case "dtype":
            return torch.float64
    raise CannotSayError(f"asks for {call.args[1]!r}, which is not supported here")


def _new(call: Call) -> Any:
    return of_input(call.name, call.args[1:], call.kwargs)


# What asks for sizes and types only, and may do so of a tensor that a layer has read.
QUERIES: Final[frozenset[str]] = frozenset(("size", "getattr", *NEW))

OPERATIONS: Final[dict[str, Callable[[Call], Any]]] = {
    **dict.fromkeys(("contiguous", "detach", "clone", "double", "float"), _identity),
    **dict.fromkeys(("relu", "sigmoid", "tanh"), _activation),
    **dict.fromkeys(("softmax", "log_softmax"), _softmax),
    **dict.fromkeys(("add", "sub", "mul", "div"), arithmetic),
    **dict.fromkeys(("reshape", "view"), _reshape),
    **dict.fromkeys(("transpose", "swapaxes", "swapdims"), _transpose),
    **dict.fromkeys(("to", "type", "type_as", *HALVES), _to),
    **dict.fromkeys(("hstack", "column_stack"), _hstack),
    **dict.fromkeys(("sum", "mean", "max", "min", "amax", "amin"), _reduced),
    **dict.fromkeys(("long", "int"), _integers),
    **dict.fromkeys(NEW, _new),
    "cat": _cat,
    "chunk": _chunk,
    "dropout": _dropout,
    "flatten": _flatten,
    "flip": _flip,
    "narrow": _narrow,
    "one_hot": _one_hot,
    "split": _split,
    "unbind": _unbind,
    "getattr": _attribute,
    "getitem": _getitem,
    "linear": linear,
    "matmul": matmul,
    "neg": negative,
    "permute": _permute,
    **dict.fromkeys(("select", "index_select"), _select),
    "size": _sizes,
    "squeeze": _squeeze,
    "unsqueeze": _unsqueeze,
}
