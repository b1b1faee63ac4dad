"""Modules of PyTorch with weights of their own, as canonical layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from quantgru.importers.chain import BY_HAND, refuse
from quantgru.importers.gates import finite
from quantgru.importers.pytorch_layers import gru_layers, parameter_names
from quantgru.model import Bidirectional, Dense, Embedding, Gru, Layer

FloatArray = npt.NDArray[np.float64]

ACTIVATIONS: Final[dict[type[nn.Module], str]] = {nn.ReLU: "relu", nn.Sigmoid: "sigmoid", nn.Tanh: "tanh"}
SOFTMAXES: Final[dict[type[nn.Module], str]] = {nn.Softmax: "softmax", nn.LogSoftmax: "log_softmax"}
IDENTITIES: Final = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout, nn.FeatureAlphaDropout)
CELL: Final = (
    "use nn.GRU in its place, which runs over all steps: its weight_ih_l0, weight_hh_l0, bias_ih_l0 and bias_hh_l0 are "
    "the cell's weight_ih, weight_hh, bias_ih and bias_hh"
)
NEXT_STEPS: Final[dict[type[nn.Module], str]] = {
    nn.GRUCell: CELL,
    nn.LSTM: "train an nn.GRU in its place",
    nn.LSTMCell: "train an nn.GRU in its place",
    nn.RNN: "train an nn.GRU in its place",
    nn.RNNCell: "train an nn.GRU in its place",
}

# Hooks of torch's own that compute weights, and leave inputs and outputs alone.
WEIGHT_HOOKS: Final = (WeightNorm, SpectralNorm, BasePruningMethod)


@dataclass(frozen=True)
class Source:
    """A module of the user's and the layers made of it, to be compared one with the other."""

    path: str
    module: nn.Module
    layers: tuple[Layer, ...]

    @property
    def where(self) -> str:
        return f"module {self.path!r} ({type(self.module).__name__})"


def want_stock(where: str, module: nn.Module) -> None:
    """Raises ModelError for a module of PyTorch's that was changed: a comparison need not reach where it differs."""
    kinds: list[Any] = [kind for kind in type(module).__mro__ if kind.__module__.startswith("torch.nn.modules.")]
    stock = kinds[0]  # of those, nn.Module is the last
    if stock is nn.Module:  # no layer of PyTorch's: refused by its name
        return
    kept = type(module).forward is stock.forward and type(module).__call__ is nn.Module.__call__
    if not kept or "forward" in vars(module):
        next_step = (
            f"put a plain nn.{stock.__name__} with the same weights in its place, and what else it does around it"
        )
        raise refuse(where, "a forward() of its own", next_step)
    want_no_hooks(where, module)


def want_no_hooks(where: str, module: nn.Module) -> None:
    """Raises ModelError for hooks that may change inputs or outputs."""
    hooks = [*module._forward_pre_hooks.values(), *module._forward_hooks.values()]
    if any(not isinstance(hook, WEIGHT_HOOKS) for hook in hooks):
        raise refuse(where, "a forward hook", "remove it with its handle.remove(); what it does belongs in forward()")


def recurrent_layers(path: str, module: nn.GRU) -> tuple[Gru | Bidirectional, ...]:
    """One canonical layer for each layer of an nn.GRU."""
    names = parameter_names(module.num_layers, module.bidirectional, module.bias)
    arrays = {name: parameter(path, module, name) for name in names}
    return gru_layers(path, arrays, module.num_layers, module.bidirectional)


def dense_layer(path: str, module: nn.Linear) -> Dense:
    weights = parameter(path, module, "weight")
    bias = np.zeros(len(weights)) if module.bias is None else parameter(path, module, "bias")
    return Dense(path, weights, bias)


def embedding_layer(path: str, module: nn.Embedding) -> Embedding:
    if module.max_norm is not None:
        raise refuse(_where(path, module), "max_norm", "normalise its weights once, and leave max_norm out")
    return Embedding(path, parameter(path, module, "weight"))


def normalisation(path: str, module: nn.BatchNorm1d) -> tuple[FloatArray, FloatArray]:
    """Scale and shift of a batch normalisation with the statistics of its training."""
    if module.running_mean is None:
        raise refuse(_where(path, module), "track_running_stats=False", "train it with its running statistics")
    mean, variance = (parameter(path, module, name) for name in ("running_mean", "running_var"))
    if not (variance + module.eps > 0).all():
        raise refuse(_where(path, module), f"a variance of {variance.min():g}", "train it again")
    scale = 1 / np.sqrt(variance + module.eps)
    shift = -mean * scale
    if module.affine:
        weight = parameter(path, module, "weight")
        scale, shift = scale * weight, shift * weight + parameter(path, module, "bias")
    return scale, shift


def initial_states(where: str, hx: Any, shape: tuple[int, int, int]) -> FloatArray:
    """The constant h_0 [layers and directions, units], which `hx` of `shape` repeats for each sequence."""
    if not isinstance(hx, torch.Tensor):
        raise refuse(where, f"an initial state that is a {type(hx).__name__}", "give it a tensor")
    values = finite(where, "hx", hx.detach().double().numpy())
    if values.shape != shape:
        found = f"an initial state {values.shape} for a batch of {shape[1]}, expected {shape}"
        raise refuse(where, found, "make it with the batch of the input, as x.size(0)")
    if (values != values[:, :1]).any():
        raise refuse(where, "an initial state that is another one in each sequence", "expand one over the batch")
    return np.asarray(values[:, 0])


def starting_at(layers: Sequence[Gru | Bidirectional], states: FloatArray) -> tuple[Gru | Bidirectional, ...]:
    """`layers` with initial states, one for each layer and direction."""
    if not states.any():
        return tuple(layers)
    rows = iter(states)

    def starting(layer: Gru) -> Gru:
        return replace(layer, initial_state=next(rows))

    return tuple(
        replace(layer, forward=starting(layer.forward), backward=starting(layer.backward))
        if isinstance(layer, Bidirectional)
        else starting(layer)
        for layer in layers
    )


def next_step(module: nn.Module) -> str:
    return next((step for kind, step in NEXT_STEPS.items() if isinstance(module, kind)), BY_HAND)


def parameter(path: str, module: nn.Module, name: str) -> FloatArray:
    return finite(_where(path, module), name, getattr(module, name).detach().numpy())


def _where(path: str, module: nn.Module) -> str:
    return f"module {path!r} ({type(module).__name__})"
