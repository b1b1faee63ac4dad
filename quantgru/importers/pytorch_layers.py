"""Layers out of the arrays of PyTorch's modules, named as in a state dict: for live modules and for files alike.

PyTorch itself is not needed here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from quantgru.importers.gates import PYTORCH_ORDER, stacked_gru
from quantgru.model import Bidirectional, Gru

FloatArray = npt.NDArray[np.float64]

BATCH_NORM_EPSILON: Final = 1e-5  # the default of nn.BatchNorm1d
WEIGHTS: Final = ("weight_ih", "weight_hh")
BIASES: Final = ("bias_ih", "bias_hh")


def gru_layers(
    name: str, arrays: Mapping[str, FloatArray], n_layers: int, bidirectional: bool
) -> tuple[Gru | Bidirectional, ...]:
    """The canonical layers of an nn.GRU: rows are stacked r, z, n, the reset gate acts after the product."""
    layers: list[Gru | Bidirectional] = []
    for k in range(n_layers):
        path = name if n_layers == 1 else f"{name}.{k}"
        if bidirectional:
            forward = gru_layer(f"{path}.forward", arrays, f"_l{k}")
            backward = gru_layer(f"{path}.backward", arrays, f"_l{k}_reverse")
            layers.append(Bidirectional(path, forward, backward))
        else:
            layers.append(gru_layer(path, arrays, f"_l{k}"))
    return tuple(layers)


def gru_layer(name: str, arrays: Mapping[str, FloatArray], suffix: str) -> Gru:
    """One direction of one layer, or an nn.GRUCell, whose parameters have no suffix. Biases may be absent."""
    from_input, from_state = (arrays[kind + suffix] for kind in WEIGHTS)
    biases = [arrays.get(kind + suffix, np.zeros(len(from_input))) for kind in BIASES]
    return stacked_gru(name, "after", PYTORCH_ORDER, (from_input, from_state), (biases[0], biases[1]))


def parameter_names(n_layers: int, bidirectional: bool, bias: bool) -> Iterator[str]:
    """The names of an nn.GRU's parameters."""
    for kind in (*WEIGHTS, *BIASES) if bias else WEIGHTS:
        for k in range(n_layers):
            yield f"{kind}_l{k}"
            if bidirectional:
                yield f"{kind}_l{k}_reverse"
