"""The recurrent layers of Keras: GRU, CuDNNGRU of Keras 2, RNN around GRU cells, and Bidirectional around these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, get_args

import numpy as np

from quantgru.activations import CANDIDATES, GATES, Merge, Reset
from quantgru.array_types import FloatArray
from quantgru.importers.chain import refuse
from quantgru.importers.gates import KERAS_ORDER, stacked_gru, with_hard_sigmoid
from quantgru.importers.keras_arguments import Shape, arrays, flag, function, plain, positive, shown, want
from quantgru.importers.keras_entries import Entry, refuse_foreign_class
from quantgru.model import Bidirectional, Gru

# hard_sigmoid(x) is slope * x + 1/2, limited to 0 ... 1: Keras 2 and 3 have functions of the same name.
HARD_SIGMOID_SLOPES: Final = {2: 0.2, 3: 1 / 6}
CANDIDATES_OF: Final = {2: tuple(name for name in CANDIDATES if name != "hard_tanh"), 3: tuple(CANDIDATES)}


@dataclass(frozen=True)
class Cell:
    """A GRU cell: its class, its configuration, and what it is called within its layer, if not like the layer."""

    kind: str
    config: Mapping[str, Any]
    part: str = ""


@dataclass(frozen=True)
class Sweep:
    """Cells that run over a sequence: a GRU layer, an RNN layer, or one direction of a bidirectional layer.

    sequences    whether it gives every step
    zero_masked  whether it gives 0 at masked steps, rather than what it gave before
    """

    cells: tuple[Cell, ...]
    backwards: bool
    sequences: bool
    stateful: bool
    zero_masked: bool


@dataclass(frozen=True)
class Recurrent:
    """What a recurrent layer does: its layers, with a Reverse before them if `reverse`, and after them if `turned`."""

    reverse: bool
    layers: tuple[Gru | Bidirectional, ...]
    sequences: bool
    stateful: bool
    zero_masked: bool
    turned: bool = False


def read_recurrent(entry: Entry, weights: Sequence[Any], version: int) -> Recurrent:
    """The layers of a GRU, CuDNNGRU, RNN or Bidirectional layer, as Keras of that version computes it."""
    if entry.kind == "Bidirectional":
        return _bidirectional(entry, weights, version)
    sweep = _sweep(entry.where, entry.kind, entry.config)
    layers = _grus(entry, sweep.cells, weights, version)
    return Recurrent(sweep.backwards, layers, sweep.sequences, sweep.stateful, sweep.zero_masked)


def _bidirectional(entry: Entry, weights: Sequence[Any], version: int) -> Recurrent:
    """Its backward layer gives the steps in the order of the sequence: Keras turns them around."""
    where, config = entry.where, entry.config
    merge = config["merge_mode"]
    if merge not in get_args(Merge):
        raise refuse(
            where, f"merge_mode={shown(merge)}, supported are {', '.join(get_args(Merge))}", "merge both of its results"
        )
    forward = _direction(where, config["layer"], "forward")
    if config.get("backward_layer"):
        backward = _direction(where, config["backward_layer"], "backward")
    else:
        mirrored = {**config["layer"]["config"], "go_backwards": not forward.backwards}
        backward = _direction(where, {**config["layer"], "config": mirrored}, "backward")
    if forward.backwards == backward.backwards or forward.sequences != backward.sequences:
        raise refuse(where, "both directions differ in return_sequences, or do not differ in go_backwards")
    first, second = _grus(entry, (*forward.cells, *backward.cells), weights, version)
    if first.input_weights.shape != second.input_weights.shape:
        raise refuse(where, f"{first.n_units} units forward, {second.n_units} backward", "give both the same units")
    both = Bidirectional(entry.name, first, second, merge, final=not forward.sequences)
    stateful = forward.stateful or backward.stateful
    return Recurrent(forward.backwards, (both,), forward.sequences, stateful, zero_masked=forward.sequences)


def _direction(where: str, layer: Mapping[str, Any], part: str) -> Sweep:
    refuse_foreign_class(where, layer)
    if layer["class_name"] not in ("GRU", "CuDNNGRU", "RNN"):
        raise refuse(where, f"around a {plain(layer['class_name'])}", "only GRU may be inside")
    sweep = _sweep(where, layer["class_name"], layer["config"], part)
    if len(sweep.cells) != 1:
        raise refuse(where, "around several cells", "give each GRU a Bidirectional of its own")
    return sweep


def _sweep(where: str, kind: str, config: Mapping[str, Any], part: str = "") -> Sweep:
    want(where, config, {"time_major": False})
    cells = _cells(where, config["cell"], part) if kind == "RNN" else (Cell(kind, config, part),)
    flags = [flag(where, config, key, False) for key in ("go_backwards", "stateful", "zero_output_for_mask")]
    return Sweep(cells, flags[0], flag(where, config, "return_sequences"), flags[1], flags[2])


def _cells(where: str, cell: Mapping[str, Any], part: str) -> tuple[Cell, ...]:
    if cell["class_name"] != "StackedRNNCells":
        return (_cell(where, cell, part),)
    return tuple(_cell(where, inner, str(i)) for i, inner in enumerate(cell["config"]["cells"]))


def _cell(where: str, cell: Mapping[str, Any], part: str) -> Cell:
    refuse_foreign_class(where, cell)
    if cell["class_name"] != "GRUCell":
        raise refuse(where, f"with a cell of class {plain(cell['class_name'])}", "only GRUCell may be inside")
    return Cell("GRU", cell["config"], part)


def _grus(entry: Entry, cells: Sequence[Cell], weights: Sequence[Any], version: int) -> tuple[Gru, ...]:
    shapes = {f"{cell.part} {name}".strip(): shape for cell in cells for name, shape in _shapes(entry, cell).items()}
    found = list(arrays(entry.where, weights, shapes).values())
    layers = []
    for cell in cells:
        n_arrays = len(_shapes(entry, cell))
        layers.append(_gru(entry, cell, found[:n_arrays], version))
        found = found[n_arrays:]
    return tuple(layers)


def _shapes(entry: Entry, cell: Cell) -> dict[str, Shape]:
    units = positive(entry.where, cell.config, "units")
    shapes: dict[str, Shape] = {"kernel": (None, 3 * units), "recurrent_kernel": (units, 3 * units)}
    if cell.kind == "CuDNNGRU":
        shapes["bias"] = (6 * units,)
    elif flag(entry.where, cell.config, "use_bias"):
        shapes["bias"] = (2, 3 * units) if _reset_after(entry.where, cell) else (3 * units,)
    return shapes


def _reset_after(where: str, cell: Cell) -> bool:
    """Keras 2.1 and before, which did not write it, had no other kind than reset before the product."""
    return cell.kind == "CuDNNGRU" or flag(where, cell.config, "reset_after", False)


def _gru(entry: Entry, cell: Cell, found: Sequence[FloatArray], version: int) -> Gru:
    name = f"{entry.name}.{cell.part}" if cell.part else entry.name
    if cell.kind == "CuDNNGRU":
        return gru_of_arrays(name, "after", found, from_cudnn=True)
    gate = function(entry.where, cell.config, "recurrent_activation", tuple(GATES))
    candidate = function(entry.where, cell.config, "activation", CANDIDATES_OF[version])
    layer = gru_of_arrays(name, "after" if _reset_after(entry.where, cell) else "before", found)
    layer = replace(layer, candidate=candidate)
    return with_hard_sigmoid(layer, HARD_SIGMOID_SLOPES[version]) if gate == "hard_sigmoid" else layer


def gru_of_arrays(name: str, reset: Reset, arrays: Sequence[FloatArray], from_cudnn: bool = False) -> Gru:
    """A layer of kernel [I, 3*H], recurrent kernel [H, 3*H] and, if there is one, bias [3*H], [2, 3*H] or [6*H].

    from_cudnn  each block [I, H] of a kernel holds the memory of a matrix [H, I], as CuDNNGRU keeps it
    """
    kernel, recurrent, *bias = arrays
    biases = np.zeros((2, kernel.shape[1]))
    if bias:
        rows = bias[0].reshape(-1, kernel.shape[1])
        biases[: len(rows)] = rows
    weights = kernel.T, recurrent.T
    if from_cudnn:
        weights = _memory_of_blocks(kernel), _memory_of_blocks(recurrent)
    return stacked_gru(name, reset, KERAS_ORDER, weights, (biases[0], biases[1]))


def _memory_of_blocks(kernel: FloatArray) -> FloatArray:
    return np.concatenate([block.reshape(block.shape[1], -1) for block in np.split(kernel, 3, axis=1)])
