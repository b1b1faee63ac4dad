"""The modules of files that hold weights only: `.weights.h5` of Keras 3 and late 2, and `.h5` of Keras 2.

Such a file has arrays in groups. What a layer is follows from the names that Keras gives, and from shapes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from quantgru.errors import ModelError
from quantgru.importers.gates import finite
from quantgru.importers.keras_arguments import plain, shown
from quantgru.importers.keras_hdf5 import DAMAGED, WeightsFile
from quantgru.importers.keras_recurrent import gru_of_arrays
from quantgru.importers.weights_chain import Normalisation, Part, Recurrent, Unsupported
from quantgru.model import Bidirectional, Dense, Embedding, Gru

BATCH_EPSILON: Final = 1e-3  # the default of BatchNormalization; Normalization adds none
DEPTH_LIMIT: Final = 8  # of groups in groups
GROUPS_LIMIT: Final = 10_000


@dataclass(frozen=True)
class Module:
    """The arrays of one layer, not read yet.

    kind    what its class is called in files of Keras 3, as far as it is known: "dense", "batch_normalization"
    arrays  those of each cell, of other layers a single list
    """

    kind: str
    arrays: tuple[tuple[Any, ...], ...]


def parts_of_keras_2(file: WeightsFile) -> dict[str, Part]:
    """Modules by the names of their layers, out of arrays called "gru/gru_cell/kernel:0" and the like."""
    parts: dict[str, Part] = {}
    for layer in file.texts("", "layer_names"):
        names = file.texts(layer, "weight_names")
        cells: dict[str, list[Any]] = {}
        for name in names:
            cells.setdefault(name.rpartition("/")[0], []).append(file.data_set(f"{layer}/{name}"))
        if names:
            kind = _kind_of_names(names)
            if kind == "rnn" and len({cell.rpartition("/")[0] for cell in cells}) > 1:
                kind = "other"  # a model in the model, or a layer of the user's: of GRU layers with something between
            module = Module(kind, tuple(map(tuple, cells.values())))
            parts[layer] = _part(f"{file.where}: layer {shown(layer)}", layer, module)
    return parts


def _kind_of_names(names: Sequence[str]) -> str:
    """The class that has arrays of these names."""
    own = tuple(name.rpartition("/")[2].partition(":")[0] for name in names)
    if "recurrent_kernel" in own:
        return "bidirectional" if any("/forward_" in f"/{name}" for name in names) else "rnn"
    known = {
        ("kernel",): "dense",
        ("kernel", "bias"): "dense",
        ("embeddings",): "embedding",
        ("gamma", "beta", "moving_mean", "moving_variance"): "batch_normalization",
        ("moving_mean", "moving_variance"): "batch_normalization",
        ("mean", "variance", "count"): "normalization",
    }
    return known.get(own, "other")


def parts_of_keras_3(file: WeightsFile) -> dict[str, Part]:
    """Modules by the names of their layers; of a subclassed model, by the names of its attributes."""
    parts: dict[str, Part] = {}
    for name, kind, path in _walk(file):
        if name in parts:
            name = path
        module = _module(file, kind, path)
        if module.arrays:
            parts[name] = _part(f"{file.where}: layer {shown(name)}", name, module)
    return parts


def says_keras_3(file: WeightsFile) -> bool:
    """Whether a file in the layout of Keras 3 is of it. Keras 2.13 and later write the same, but no names of layers.

    The first versions of Keras 3 write none either.
    """
    return "vars" in file.keys("") and file.has("vars", "name")


def _walk(file: WeightsFile) -> Iterator[tuple[str, str, str]]:
    """Name, class and group of each layer, those of models inside the model, too."""
    pending = [("", False)]  # groups whose members are layers, and whether they are called by their classes
    n_groups = 0
    while pending:
        path, by_class = pending.pop()
        keys = [key for key in file.keys(path) if key != "vars"]
        n_groups += len(keys)
        if n_groups > GROUPS_LIMIT or path.count("/") > DEPTH_LIMIT:
            raise ModelError(f"{file.where}: more groups than Keras writes; {DAMAGED}")
        if not by_class and _has_variables(file, path):  # of the model's own, beside its layers
            yield f"{path}/vars".lstrip("/"), "model", path
        for key in sorted(keys, key=_number):
            child = f"{path}/{key}".lstrip("/")
            inside = file.keys(child)
            if key == "layers" or "layers" in inside:
                pending.append((child, key == "layers"))
            else:
                named = by_class and "vars" in inside and file.has(f"{child}/vars", "name")
                yield file.text(f"{child}/vars", "name") if named else key, _class(key), child


def _class(key: str) -> str:
    return re.sub(r"_\d+$", "", key)


def _number(key: str) -> tuple[str, int, str]:
    """Sorts gru_2 before gru_10."""
    return _class(key), len(key), key


def _module(file: WeightsFile, kind: str, path: str) -> Module:
    if kind == "model":
        return Module(kind, (_variables(file, path), ()))
    groups = _groups_below(file, path)
    if "cell" in file.keys(path):
        kind, parts = "rnn", _cells(file, f"{path}/cell")
    elif {"forward_layer", "backward_layer"} <= set(file.keys(path)):
        kind = "bidirectional"
        parts = [cell for way in ("forward", "backward") for cell in _cells(file, f"{path}/{way}_layer/cell")]
    elif groups == [f"{path}/layer"]:  # of TimeDistributed
        kind, parts = "other", groups
    else:
        parts = [path] if groups == [path] else [*groups, path] if groups else []
    if not set(groups) <= set(parts):  # a layer of the user's, which holds more than one of Keras
        kind, parts = "other", groups
    return Module(kind, tuple(_variables(file, part) for part in parts))


def _cells(file: WeightsFile, path: str) -> list[str]:
    if "cells" not in file.keys(path):
        return [path]
    return [f"{path}/cells/{key}" for key in sorted(file.keys(f"{path}/cells"), key=_number)]


def _groups_below(file: WeightsFile, path: str) -> list[str]:
    """A group and those in it, as far as they have arrays; those of dropout are none that count."""
    pending, found = [path], []
    while pending:
        path = pending.pop()
        if path.count("/") > 2 * DEPTH_LIMIT:
            raise ModelError(f"{file.where}: more groups than Keras writes; {DAMAGED}")
        found += [path] if _has_variables(file, path) else []
        pending += [f"{path}/{key}" for key in file.groups(path) if key not in ("seed_generator", "vars")]
    return found


def _variables(file: WeightsFile, path: str) -> tuple[Any, ...]:
    if not _has_variables(file, path):
        return ()
    path = f"{path}/vars".lstrip("/")
    return tuple(file.data_set(f"{path}/{i}") for i in range(len(file.keys(path))))


def _has_variables(file: WeightsFile, path: str) -> bool:
    return "vars" in file.keys(path) and bool(file.keys(f"{path}/vars".lstrip("/")))


def _part(where: str, name: str, module: Module) -> Part:
    """Nothing is read before its shape is that of a layer."""
    shapes = [tuple(array.shape) for cell in module.arrays for array in cell]
    listed = ", ".join("x".join(map(str, shape)) or "a number" for shape in shapes[:6])
    floats = [array for cell in module.arrays for array in cell if array.dtype.kind == "f"]
    found: Part | None = None
    if any(0 in shape for shape in shapes):
        found = None
    elif module.kind in ("rnn", "bidirectional"):
        found = _recurrent(where, name, module) if len(floats) == len(shapes) else None
    elif len(module.arrays) == 1 and len(floats) >= len(shapes) - 1:  # a count is an integer
        found = _other(where, name, module.kind, floats)
    return found or Unsupported(f"a layer ({plain(module.kind)}) with arrays {listed}")


def _recurrent(where: str, name: str, module: Module) -> Part | None:
    for cell in module.arrays:
        shapes = [tuple(array.shape) for array in cell]
        if len(shapes) not in (2, 3) or len(shapes[0]) != 2 or len(shapes[1]) != 2:
            return None
        units, columns = shapes[1]
        if columns in (units, 4 * units):
            return Unsupported("a SimpleRNN layer" if columns == units else "an LSTM layer")
        biases = ((3 * units,), (2, 3 * units), (6 * units,))
        if columns != 3 * units or shapes[0][1] != columns or not set(shapes[2:]) <= set(biases):
            return None
    both = module.kind == "bidirectional"
    if both and (len(module.arrays) != 2 or module.arrays[0][0].shape != module.arrays[1][0].shape):
        return None
    grus = [_gru(where, name, part, module) for part in range(len(module.arrays))]
    layers = (Bidirectional(name, grus[0], grus[1]),) if both else tuple(grus)
    return Recurrent(layers, says_reset=all(len(cell) == 3 for cell in module.arrays))


def _gru(where: str, name: str, part: int, module: Module) -> Gru:
    """The shape of a bias says where the reset gate acts, and whether it is of CuDNNGRU, which packs its kernels."""
    arrays = [finite(where, str(i), array[()]) for i, array in enumerate(module.arrays[part])]
    columns = arrays[0].shape[1]
    bias = arrays[2].shape if len(arrays) == 3 else ()
    if len(module.arrays) > 1:
        name = f"{name}.{('forward', 'backward')[part] if module.kind == 'bidirectional' else part}"
    return gru_of_arrays(name, "before" if bias == (columns,) else "after", arrays, from_cudnn=bias == (2 * columns,))


def _other(where: str, name: str, kind: str, arrays: Sequence[Any]) -> Part | None:
    """A dense layer, an embedding or a normalisation."""
    shapes = [tuple(array.shape) for array in arrays]
    ranks = [len(shape) for shape in shapes]
    if max(ranks, default=3) > 2:
        return None
    values = [finite(where, str(i), array[()]) for i, array in enumerate(arrays)]
    if kind == "embedding" and ranks == [2]:
        return Embedding(name, values[0])
    if ranks == [2, 1] and shapes[0][1:] == shapes[1]:
        return Dense(name, values[0].T, values[1])
    if kind == "dense" and ranks == [2]:
        return Dense(name, values[0].T, np.zeros(shapes[0][1]))
    if ranks[:2] != [1, 1] or len(set(shapes[: len(ranks) // 2 * 2])) > 1:
        return None
    ones, zeros = np.ones(shapes[0]), np.zeros(shapes[0])
    if len(ranks) == 4:
        return Normalisation(values[2], values[3], values[0], values[1], BATCH_EPSILON)
    if kind == "batch_normalization" and len(ranks) == 2:
        return Normalisation(values[0], values[1], ones, zeros, BATCH_EPSILON)
    if kind == "normalization" and ranks[2:] in ([], [0]):  # a count may follow
        return Normalisation(values[0], values[1], ones, zeros, 0.0)
    return None
