"""What passes between two layers: sequences of unequal lengths in one array, of real numbers or of raw ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, Self, TypeVar

import numpy as np
import numpy.typing as npt

Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True, eq=False)
class Signal(Generic[Number]):
    """Sequences, each with padding at its end.

    values   [sequences, steps, features]: float64 in float runs, int16 in the simulator
    lengths  int64 [sequences], 1 ... steps
    """

    values: npt.NDArray[Number]
    lengths: npt.NDArray[np.int64]

    @property
    def n_sequences(self) -> int:
        return int(self.values.shape[0])

    @property
    def n_steps(self) -> int:
        """Steps of all sequences together, without padding."""
        return int(self.lengths.sum())

    @property
    def valid(self) -> npt.NDArray[np.bool_]:
        """[sequences, steps]: true where a step is not padding."""
        return np.asarray(np.arange(self.values.shape[1]) < self.lengths[:, None])

    def vectors(self) -> npt.NDArray[Number]:
        """[steps of all sequences, features], without padding."""
        return np.asarray(self.values[self.valid])

    def some(self, chosen: npt.NDArray[np.int64]) -> Signal[Number]:
        """The sequences of these numbers."""
        return Signal(self.values[chosen], self.lengths[chosen])

    def reversed(self) -> Self:
        """The sequences from their last step to the first [R22]."""
        return replace(self, values=reverse_steps(self.values, self.lengths))

    def last_step(self) -> Signal[Number]:
        """The last step of each sequence, as a sequence of one step."""
        last = self.values[np.arange(self.n_sequences), self.lengths - 1]
        return Signal(last[:, None], np.ones(self.n_sequences, np.int64))


def merge_directions(
    forward: Signal[Number], backward: Signal[Number], merge: Callable[[Any, Any], Any], *, final: bool
) -> Signal[Number]:
    """Both directions, each in the order in which it was computed, as one signal; if `final`, of one step [R23]."""
    if final:
        forward, backward = forward.last_step(), backward.last_step()
    else:
        backward = backward.reversed()
    return replace(forward, values=merge(forward.values, backward.values))


def reverse_steps(values: npt.NDArray[Any], lengths: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """[sequences, steps, ...] with the first lengths[i] steps of each sequence from the last to the first."""
    t = np.arange(values.shape[1])
    order = np.where(t < lengths[:, None], lengths[:, None] - 1 - t, t)
    return np.ascontiguousarray(np.take_along_axis(values, order[..., None], axis=1))
