"""Single modules of PyTorch as canonical layers, and what must not have been changed in them.

What their arrays mean is in `pytorch_layers`, which state dicts share.
"""

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

from quantgru.importers.chain import refuse
from quantgru.importers.gates import finite
from quantgru.importers.pytorch_layers import BIASES, WEIGHTS, gru_layer, gru_layers, parameter_names
from quantgru.importers.pytorch_signals import CannotSayError, State
from quantgru.model import Bidirectional, Dense, Embedding, Gru, Layer

FloatArray = npt.NDArray[np.float64]

ACTIVATIONS: Final[dict[type[nn.Module], str]] = {nn.ReLU: "relu", nn.Sigmoid: "sigmoid", nn.Tanh: "tanh"}
SOFTMAXES: Final[dict[type[nn.Module], str]] = {nn.Softmax: "softmax", nn.LogSoftmax: "log_softmax"}
IDENTITIES: Final = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout, nn.FeatureAlphaDropout)
OTHER_CELLS: Final = (nn.LSTM, nn.LSTMCell, nn.RNN, nn.RNNCell)

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


def with_current_weights(module: nn.Module) -> nn.Module:
    """`module`, changed: weights that hooks compute before each call are computed, as if it had been called."""
    for part in module.modules():
        for hook in part._forward_pre_hooks.values():
            if isinstance(hook, WEIGHT_HOOKS):
                hook(part, None)
    return module


def recurrent_layers(path: str, module: nn.GRU | nn.GRUCell) -> tuple[Gru | Bidirectional, ...]:
    """One canonical layer for each layer of an nn.GRU; one for an nn.GRUCell."""
    if isinstance(module, nn.GRUCell):
        names = [*WEIGHTS, *BIASES] if module.bias else WEIGHTS
        return (gru_layer(path, {name: parameter(path, module, name) for name in names}, ""),)
    names = list(parameter_names(module.num_layers, module.bidirectional, module.bias))
    arrays = {name: parameter(path, module, name) for name in names}
    return gru_layers(path, arrays, module.num_layers, module.bidirectional)


def n_states_of(module: nn.GRU | nn.GRUCell) -> int:
    """Of all layers and directions."""
    return module.num_layers * (1 + module.bidirectional) if isinstance(module, nn.GRU) else 1


def starts_of(state: State, module: nn.GRU | nn.GRUCell) -> list[State]:
    """What each layer and direction starts at, of the state that a module is given; as forward() itself is given it."""
    if isinstance(module, nn.GRUCell):
        if state.unsqueezed:
            raise CannotSayError("starts at a state of three axes", "give it one of two, as nn.GRUCell takes it")
        return [state]
    n_states = n_states_of(module)
    if state.index is None and not state.unsqueezed:
        return [State(state.name, i) for i in range(n_states)]
    if n_states != 1:
        raise CannotSayError(f"starts at a part of a state, but has {n_states} states", "give it the whole argument")
    return [replace(state, unsqueezed=not state.unsqueezed)]


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


def initial_states(where: str, hx: Any, module: nn.GRU | nn.GRUCell, n_sequences: int) -> FloatArray:
    """The constant h_0 [layers and directions, units], which `hx` repeats for each of the sequences."""
    if not isinstance(hx, torch.Tensor):
        raise refuse(where, f"an initial state that is a {type(hx).__name__}", "give it a tensor")
    if hx.is_floating_point() and hx.isnan().any():
        raise refuse(where, "an initial state that is not initialised, or NaN", "use torch.zeros")
    values = finite(where, "hx", hx.detach().double().numpy())
    shape: tuple[int, ...] = (n_sequences, module.hidden_size)
    if isinstance(module, nn.GRU):
        shape = (n_states_of(module), *shape)
    if values.shape != shape:
        expected = ", ".join(map(str, (*shape[:-2], "batch", shape[-1])))
        found = f"an initial state {values.shape} that does not fit every batch, expected ({expected})"
        raise refuse(where, found, "make it with the batch of the input, as x.size(0)")
    values = values.reshape(-1, n_sequences, module.hidden_size)
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
    """What to do about a module that is not supported, if anything helps."""
    if "quantized" in type(module).__module__:
        return "give the float module: quantgru quantizes it itself"
    return "train an nn.GRU in its place" if isinstance(module, OTHER_CELLS) else ""


def parameter(path: str, module: nn.Module, name: str) -> FloatArray:
    return finite(_where(path, module), name, getattr(module, name).detach().numpy())


def _where(path: str, module: nn.Module) -> str:
    return f"module {path!r} ({type(module).__name__})"
