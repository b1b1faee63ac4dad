"""What is known of a tensor on its way through a PyTorch module: the meaning of its axes, and what waits to be done.

Selecting the last step, taking or joining features and scaling change no layer yet: they wait in the signal until a
layer reads it. So several views of one tensor can come together again, as both directions of a GRU do. PyTorch itself
is not needed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

# The meaning of an axis. 0 and 1 are the leading axes of the module's input: the first GRU says which are the steps.
FEATURES: Final = 2
LAYERS: Final = 3  # of h_n
DIRECTIONS: Final = 4  # of h_n

# One axis of a tensor: what was joined in it, from the outer to the inner; empty for an axis of size 1.
Axis = tuple[int, ...]

Pick = Literal["all", "first", "last", "final"]

FULL: Final = slice(None)
INPUTS_LIMIT: Final = 4096  # of those that an index takes, where their number is not known
PAIR: Final = "give it `out` of `out, h_n = gru(x)`, or h_n[-1]"
ONE_BY_ONE: Final = "use nn.GRU for all steps, or an nn.GRUCell in a loop: h = cell(x[:, t], h)"
EVERY_STEP: Final = "give the model all steps of its input: take them of the data, before the model"
LAST_STEP: Final = "take it with out[:, -1] (batch_first=True), out[-1] (batch_first=False) or h_n[-1]"


class CannotSayError(Exception):
    """An operation that no canonical layer can say. The reader adds where it is."""

    def __init__(self, found: str, *next_step: str) -> None:
        super().__init__(found)
        self.found = found
        self.next_step = next_step


@dataclass(frozen=True)
class Size:
    """The size of an axis, which is a number at run time only."""

    axis: Axis


@dataclass(frozen=True)
class LastIndex:
    """The `Size` of an axis minus one, which is the number of its last entry."""

    axis: Axis

    def __str__(self) -> str:
        return f"x.size({self.axis[0]}) - 1"


@dataclass(frozen=True)
class State:
    """A state that forward() is given, by the name of its argument: of all layers, or that of one of them.

    unsqueezed  whether it has an axis of size 1 in front of [sequences, units], for the one layer of an nn.GRU
    """

    name: str
    index: int | None = None
    unsqueezed: bool = False


@dataclass(frozen=True, eq=False)
class Signal:
    """scale * (matrix @ features) + shift of the steps `pick` of what the chain gives at `position`.

    axes      [batch, steps, features] or however they lie
    position  how many changes the chain had gone through
    pick      all steps, the first, the last, or the final states, which for the backward direction are another step
    width     number of features; None if it is not known, as at the input
    matrix    [width, features of the chain]; None for the identity
    """

    axes: tuple[Axis, ...]
    position: int
    width: int | None
    pick: Pick = "all"
    matrix: FloatArray | None = None
    scale: Any = 1.0
    shift: Any = 0.0
    n_layers: int = 1

    @property
    def waits(self) -> bool:
        """Whether something is to be done to the features."""
        identity = self.matrix is None or np.array_equal(self.matrix, np.eye(*self.matrix.shape))
        return not identity or bool(np.any(self.scale != 1.0) or np.any(self.shift))

    def linear(self) -> tuple[FloatArray, FloatArray]:
        """Weights and shift of what waits."""
        if self.width is None:
            raise CannotSayError("works on inputs whose number is not known", "do it on the data, before the model")
        matrix = np.eye(self.width) if self.matrix is None else self.matrix
        return matrix * np.broadcast_to(self.scale, self.width)[:, None], np.broadcast_to(self.shift, self.width)

    def take(self, rows: Any) -> Signal:
        """The features `rows`, an index of numpy that gives one axis."""
        matrix, shift = self.linear()
        return replace(self, width=len(shift[rows]), matrix=matrix[rows], scale=1.0, shift=shift[rows])

    def scaled(self, scale: Any, shift: Any) -> Signal:
        """scale * self + shift, numbers or one for each feature."""
        width = self.width
        for values in (scale, shift):
            width = len(values) if np.ndim(values) and width is None else width
        return replace(self, width=width, scale=self.scale * scale, shift=self.shift * scale + shift)

    def times(self, matrix: FloatArray) -> Signal:
        """matrix @ self."""
        if matrix.ndim != 2 or self.width not in (None, matrix.shape[1]):
            raise CannotSayError(f"a product of {self.width} features with weights {matrix.shape}")
        weights, shift = replace(self, width=matrix.shape[1]).linear()
        return replace(self, width=len(matrix), matrix=matrix @ weights, scale=1.0, shift=matrix @ shift)


def joined(signals: Sequence[Signal]) -> Signal:
    """The features of all, one signal after the other."""
    matrices, shifts = zip(*(signal.linear() for signal in signals), strict=True)
    matrix, shift = np.concatenate(_padded(matrices)), np.concatenate(shifts)
    return replace(signals[0], width=len(matrix), matrix=matrix, scale=1.0, shift=shift)


def added(first: Signal, second: Signal) -> Signal:
    (matrix, shift), (other_matrix, other_shift) = first.linear(), second.linear()
    if len(matrix) != len(other_matrix):
        raise CannotSayError(f"adds {len(other_matrix)} features to {len(matrix)}")
    matrix, other_matrix = _padded((matrix, other_matrix))
    return replace(first, matrix=matrix + other_matrix, scale=1.0, shift=shift + other_shift)


def _padded(matrices: Sequence[FloatArray]) -> list[FloatArray]:
    """With columns of zeros: of inputs whose number is not known, each knows those up to the last one that it takes."""
    width = max(matrix.shape[1] for matrix in matrices)
    return [np.pad(matrix, ((0, 0), (0, width - matrix.shape[1]))) for matrix in matrices]


def want_same_steps(signals: Sequence[Signal]) -> None:
    """Raises CannotSayError for signals that cannot be put together step by step."""
    if any(signal.pick != signals[0].pick or signal.axes != signals[0].axes for signal in signals):
        raise CannotSayError("takes different steps or axes together")


def axis_number(axis: Any, rank: int) -> int:
    """0 ... rank - 1 for an axis that may be counted from the end."""
    if type(axis) is not int or not -rank <= axis < rank:
        raise CannotSayError(f"axis {axis} of {rank}")
    return axis % rank


def permuted(signal: Signal, order: Sequence[int]) -> Signal:
    if sorted(order) != list(range(len(signal.axes))):
        raise CannotSayError(f"axes in the order {tuple(order)}, of {len(signal.axes)}")
    return replace(signal, axes=tuple(signal.axes[axis] for axis in order))


def with_axes(signal: Signal, axes: Sequence[Axis]) -> Signal:
    """`signal` with axes that were joined or divided; both directions of a state next to its features are features."""
    width = signal.width
    changed: list[Axis] = []
    for axis in axes:
        if axis[-2:] == (DIRECTIONS, FEATURES) and width is not None:
            axis, width = (*axis[:-2], FEATURES), 2 * width
        if FEATURES in axis and width == 1:
            axis = tuple(label for label in axis if label != FEATURES) if len(axis) > 1 else axis
        if FEATURES in axis and len(axis) > 1:
            raise CannotSayError("joins features with steps, sequences or layers", LAST_STEP)
        changed.append(axis)
    return replace(signal, axes=tuple(changed), width=width)


def reshaped(signal: Signal, sizes: Sequence[Any]) -> Signal:
    """`signal` in a shape of numbers, `Size`s and one -1."""
    labels = [label for axis in signal.axes for label in axis]
    unknown = [i for i, size in enumerate(sizes) if type(size) is int and size == -1]
    if len(unknown) > 1:
        raise CannotSayError(f"a shape with {len(unknown)} unknown sizes")
    at = unknown[0] if unknown else len(sizes)
    left: list[Axis] = []
    for size in sizes[:at]:
        left.append(_leading(signal, size, labels))
        labels = labels[len(left[-1]) :]
    right: list[Axis] = []
    for size in reversed(sizes[at + 1 :]):
        right.append(_leading(signal, size, labels[::-1])[::-1])
        labels = labels[: len(labels) - len(right[-1])]
    if labels and not unknown:
        raise CannotSayError("a shape that is not made of the sizes of its input", "use x.size(0) and -1 for them")
    middle = [tuple(labels)] if unknown else []
    return with_axes(signal, [*left, *middle, *right[::-1]])


def _leading(signal: Signal, size: Any, labels: Sequence[int]) -> Axis:
    """As many of the first labels as have `size` together."""
    if isinstance(size, Size):
        if tuple(labels[: len(size.axis)]) not in (size.axis, size.axis[::-1]):
            raise CannotSayError("a shape that exchanges axes", "use transpose for it")
        return tuple(labels[: len(size.axis)])
    if labels and labels[0] == FEATURES and signal.width in (None, size):
        return (FEATURES,)
    known = {FEATURES: signal.width, LAYERS: signal.n_layers, DIRECTIONS: 2}
    count, product = 0, 1
    while product != size and count < len(labels) and known.get(labels[count]):
        product *= known[labels[count]] or 1
        count += 1
    if product != size:
        raise CannotSayError(
            f"a shape with {size}, which is no size of its input", "use x.size(0) and -1 for the others"
        )
    return tuple(labels[:count])


def indexed(signal: Signal, index: Any, steps: int) -> Signal:
    """signal[index]; `steps` is the label of the steps, -1 while it is not known."""
    axes: list[Axis] = []
    waiting = list(signal.axes)
    for entry in _entries(index, len(signal.axes)):
        if entry is None:
            axes.append(())
            continue
        axis = waiting.pop(0)
        if isinstance(entry, LastIndex):
            entry = _last_of(axis, entry)
        if entry == FULL:
            axes.append(axis)
            continue
        signal, kept = _indexed_axis(signal, axis, entry, steps)
        axes += kept
    return with_axes(signal, axes)


def _entries(index: Any, rank: int) -> list[Any]:
    """One entry for each of `rank` axes, beside those that are None and add one."""
    entries = [_plain(entry) for entry in (index if isinstance(index, tuple) else [index])]
    missing = rank - sum(entry is not None and entry is not Ellipsis for entry in entries)
    if missing < 0 or sum(isinstance(entry, list) for entry in entries) > 1:
        raise CannotSayError("an index of more axes than it has, or with several lists")
    at = next((i for i, entry in enumerate(entries) if entry is Ellipsis), len(entries))
    rest = [entry for entry in entries[at + 1 :] if entry is not Ellipsis]
    return [*entries[:at], *[FULL] * missing, *rest]


def _last_of(axis: Axis, entry: LastIndex) -> int:
    if entry.axis != axis:
        raise CannotSayError("does not take the last step", LAST_STEP)
    return -1


def _plain(entry: Any) -> Any:
    """An entry of an index; a list of numbers for a tensor of them. Raises CannotSayError for what is no number."""
    if isinstance(entry, LastIndex):
        return entry
    if hasattr(entry, "tolist") and not isinstance(entry, Signal):
        entry = entry.tolist()
    parts = (entry.start, entry.stop, entry.step) if isinstance(entry, slice) else entry
    for part in parts if isinstance(parts, (tuple, list)) else [parts]:
        if isinstance(part, LastIndex):
            raise CannotSayError("takes some of the steps", LAST_STEP if part is parts[0] else EVERY_STEP)
        if part is not None and part is not Ellipsis and type(part) is not int:
            raise CannotSayError("an index that is neither a number nor a slice or a list of numbers")
    return list(entry) if isinstance(entry, tuple) else entry


def _indexed_axis(signal: Signal, axis: Axis, entry: Any, steps: int) -> tuple[Signal, list[Axis]]:
    """The signal, and what is left of the axis: nothing for a number, an axis for a slice."""
    left: list[Axis] = [] if type(entry) is int else [()]
    if axis == (FEATURES,):
        if signal.width is None:
            signal = replace(signal, width=_fewest(entry))
        taken = signal.take(_rows(entry, signal.width or 0))
        return taken, [] if type(entry) is int else [(FEATURES,)]
    if isinstance(entry, list):
        raise CannotSayError("a list of numbers on another axis than the features", LAST_STEP)
    if axis == (steps,) and signal.pick == "all" and entry in (-1, 0, slice(-1, None)):
        return replace(signal, pick="first" if entry == 0 else "last"), left
    if axis == () and len(_rows(entry, 1)) == 1:
        return signal, left
    if axis and set(axis) <= {LAYERS, DIRECTIONS}:
        return _indexed_states(signal, axis, entry)
    if steps < 0 and isinstance(entry, slice) and (entry.stop or 0) - (entry.start or 0) != 1:
        raise CannotSayError("takes some of the steps", EVERY_STEP)
    if steps < 0:
        raise CannotSayError("takes steps of the input one by one", ONE_BY_ONE)
    raise CannotSayError("does not take the last step", LAST_STEP)


def _fewest(entry: Any) -> int:
    """The fewest inputs of which an index takes the same, whether there are more or not."""
    if isinstance(entry, slice):
        numbers = [entry.start or 0, -1 if entry.stop is None else entry.stop - 1]
    else:
        numbers = entry if isinstance(entry, list) else [entry]
    if not numbers or min(numbers) < 0 or max(numbers) >= INPUTS_LIMIT:
        raise CannotSayError("takes inputs whose number is not known", "give the model these inputs alone")
    return 1 + int(max(numbers))


def _rows(entry: Any, size: int) -> list[int]:
    if isinstance(entry, slice):
        return list(range(size))[entry]
    return [axis_number(number, size) for number in (entry if isinstance(entry, list) else [entry])]


def _indexed_states(signal: Signal, axis: Axis, entry: Any) -> tuple[Signal, list[Axis]]:
    """States out of h_n, which are those of the last layer, or one of its directions."""
    n_directions = 2 if DIRECTIONS in axis else 1
    n_states = n_directions * (signal.n_layers if LAYERS in axis else 1)
    rows = _rows(entry, n_states)
    of_last_layer = [row - n_states + n_directions for row in rows]
    if not rows or min(of_last_layer) < 0:
        raise CannotSayError("does not take the last step of the last layer", LAST_STEP)
    if n_directions == 1 or len(rows) == 2:  # one layer, with whatever directions it has on another axis
        return signal, [] if type(entry) is int else [(DIRECTIONS,) * (len(rows) == 2)]
    width = signal.width or 0
    both = replace(signal, width=2 * width)
    chosen = both.take(range(width) if of_last_layer == [0] else range(width, 2 * width))
    return chosen, [] if type(entry) is int else [()]
