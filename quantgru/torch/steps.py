"""What passes between two layers: a batch of sequences in one tensor, of real numbers or of raw ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from quantgru.structure import Structure


@dataclass(frozen=True, eq=False)
class Steps:
    """Sequences, each with padding at its end.

    values   [sequences, steps, features]: the type of the parameters in training, int64 in integer runs
    lengths  int64 [sequences], 1 ... steps
    """

    values: Tensor
    lengths: Tensor

    @property
    def valid(self) -> Tensor:
        """bool [sequences, steps]: true where a step is not padding."""
        return torch.arange(self.values.shape[1], device=self.lengths.device) < self.lengths[:, None]

    def reversed(self) -> Steps:
        """The sequences from their last step to the first [R22]."""
        t = torch.arange(self.values.shape[1], device=self.lengths.device)
        ends = self.lengths[:, None]
        order = torch.where(t < ends, ends - 1 - t, t)
        return replace(self, values=self.values.gather(1, order[..., None].expand_as(self.values)))

    def last_step(self) -> Steps:
        """The last step of each sequence, as a sequence of one step."""
        last = self.values[torch.arange(len(self.lengths), device=self.lengths.device), self.lengths - 1]
        return Steps(last[:, None], torch.ones_like(self.lengths))


class RunLayer(Protocol):
    """A layer that runs: what it puts out for x. GRU layers add h after each step to `states`, 0 in padding."""

    def __call__(self, x: Steps, states: list[Tensor]) -> Steps: ...


def run_reversed(x: Steps, states: list[Tensor]) -> Steps:
    """The layer Reverse [R22]."""
    return x.reversed()


@dataclass(frozen=True, eq=False)
class BothDirections:
    """Two GRU layers on one sequence, and how their outputs are merged [R23]."""

    forward: RunLayer
    backward: RunLayer
    merge: Callable[[Tensor, Tensor], Tensor]
    final: bool

    def __call__(self, x: Steps, states: list[Tensor]) -> Steps:
        forward = self.forward(x, states)
        backward = self.backward(x.reversed(), states)
        if self.final:
            forward, backward = forward.last_step(), backward.last_step()
        else:
            backward = backward.reversed()
        return replace(forward, values=self.merge(forward.values, backward.values))


def run_layers(
    model: Structure[Any, Any, Any, Any], last_step: bool, layers: Sequence[RunLayer], x: Steps
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Outputs and states of `layers`, which stand for those of `model`: the head runs on the steps that it is for.

    Outputs [sequences, steps, outputs], zero in padding, or [sequences, outputs] of the last step.
    """
    n_body = len(model.body)
    states: list[Tensor] = []
    for layer in layers[:n_body]:
        x = layer(x, states)
    if last_step:
        x = x.last_step()
    for layer in layers[n_body:]:
        x = layer(x, states)
    outputs = x.values[:, 0] if last_step else torch.where(x.valid[..., None], x.values, 0)
    return outputs, tuple(states)
