"""State dicts: weights by name, without the code that uses them. From a mapping, a `.pt` or a `.safetensors` file.

Which module a group of arrays is, is read from their names and shapes; in which order modules run, the user says
(`weights_chain`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from quantgru.errors import ModelError
from quantgru.importers.chain import identifier
from quantgru.importers.gates import finite
from quantgru.importers.options import ImportOptions
from quantgru.importers.pytorch_file import read_pt, read_safetensors
from quantgru.importers.pytorch_layers import BATCH_NORM_EPSILON, gru_layer, gru_layers, parameter_names
from quantgru.importers.verify import first_line
from quantgru.importers.weights_chain import Matrix, Normalisation, Part, Recurrent, Unsupported, chain_of_parts
from quantgru.model import Dense, FloatModel

ELEMENTS_LIMIT: Final = 32 << 20  # of all arrays together: 256 MiB in float64
NESTED: Final = ("state_dict", "model_state_dict", "model")  # where training checkpoints keep the state dict
PREFIXES: Final = ("module.", "_orig_mod.")  # of DataParallel and of torch.compile

_RECURRENT: Final = re.compile(r"(weight_ih|weight_hh|weight_hr|bias_ih|bias_hh)(_l\d{1,4}(_reverse)?)?")
_CELL: Final = ({"weight_ih", "weight_hh"}, {"weight_ih", "weight_hh", "bias_ih", "bias_hh"})
_STATISTICS: Final = {"running_mean", "running_var"}

Arrays = Mapping[str, np.ndarray[Any, Any]]


def load_state_dict(state: Mapping[Any, Any], options: ImportOptions) -> FloatModel:
    """The float model of a mapping of names to tensors or arrays, as module.state_dict() gives it.

    Raises ModelError for what is neither, for modules that are not supported, and where the chain is missing or wrong.
    """
    return _model("state dict", "model", _state_of("state dict", state), options)


def load_pt_file(path: Path, options: ImportOptions) -> FloatModel:
    """The float model of a state dict or a training checkpoint by torch.save. Raises ModelError for everything else."""
    where = f"PyTorch file {path}"
    file = read_pt(where, path)
    return _model(where, path.stem, file.arrays(_state_of(where, file.value)), options)


def load_safetensors_file(path: Path, options: ImportOptions) -> FloatModel:
    """The float model of a state dict in safetensors. Raises ModelError for everything else."""
    where = f"safetensors file {path}"
    return _model(where, path.stem, read_safetensors(where, path), options)


def _state_of(where: str, value: Any) -> Mapping[Any, Any]:
    """The state dict itself, or the one that a checkpoint holds beside other things."""
    if not isinstance(value, Mapping):
        raise ModelError(f"{where}: holds a {type(value).__name__}, expected a state dict: names with tensors")
    inside = [key for key in NESTED if isinstance(value.get(key), Mapping)]
    if len(inside) > 1:
        raise ModelError(f"{where}: state dicts under {' and '.join(map(repr, inside))}; give one of them")
    state: Mapping[Any, Any] = value[inside[0]] if inside else value
    return state


def _model(where: str, name: str, state: Mapping[Any, Any], options: ImportOptions) -> FloatModel:
    arrays = _arrays(where, state)
    chain = chain_of_parts(where, _parts(where, arrays), options)
    return chain.model(identifier(name), where)


def _arrays(where: str, state: Mapping[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """All values as arrays, under names without the prefixes of wrappers. Numbers and the like are no arrays."""
    if any(not isinstance(name, str) for name in state):
        raise ModelError(f"{where}: holds keys that are no names, expected a state dict: names with tensors")
    n_elements = sum(math.prod(getattr(value, "shape", ())) for value in state.values())
    if n_elements > ELEMENTS_LIMIT:
        raise ModelError(f"{where}: {n_elements} elements, allowed are {ELEMENTS_LIMIT}; no microcontroller holds them")
    names = list(state)
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in names):
            names = [name.removeprefix(prefix) for name in names]
    return {name: _array(where, name, value) for name, value in zip(names, state.values(), strict=True)}


def _array(where: str, name: str, value: Any) -> np.ndarray[Any, Any]:
    """A numpy array, or the array of a tensor; bfloat16, which numpy has not, by way of float64."""
    try:
        if hasattr(value, "detach"):
            value = value.detach().cpu()
            value = (value.double() if value.is_floating_point() else value).numpy()
        return np.asarray(value)
    except Exception as error:  # whatever a foreign object raises
        raise ModelError(f"{where}: {name[:80]!r} is no array ({first_line(error)}); give tensors or arrays") from None


def _parts(where: str, arrays: Arrays) -> dict[str, Part]:
    """What each module is; its name is that of its arrays up to the last dot."""
    modules: dict[str, dict[str, Array]] = {}
    for path, array in arrays.items():
        module, _, name = path.rpartition(".")
        modules.setdefault(module, {})[name] = array
    parts: dict[str, Part] = {}
    for module, group in modules.items():
        recurrent = {name: array for name, array in group.items() if _RECURRENT.fullmatch(name)}
        others = {name: array for name, array in group.items() if name not in recurrent}
        found: dict[str, Part] = {}
        if recurrent:
            found[module or "gru"] = _recurrent_part(where, module or "gru", recurrent)
        if others and module and not recurrent:
            found[module] = _other_part(where, module, others)
        else:
            found |= {f"{module}.{name}".lstrip("."): Unsupported(_shape(array)) for name, array in others.items()}
        if both := parts.keys() & found.keys():
            raise ModelError(f"{where}: two modules named {both.pop()[:80]!r}; rename one")
        parts |= found
    return parts


def _recurrent_part(where: str, module: str, arrays: Arrays) -> Part:
    layout = _layout(arrays)
    if isinstance(layout, Unsupported):
        return layout
    values = {name: finite(f"{where}: module {module!r}", name, array) for name, array in arrays.items()}
    if layout is _CELL:
        return Recurrent((gru_layer(module, values, ""),))
    return Recurrent(gru_layers(module, values, *layout))


def _layout(arrays: Arrays) -> tuple[int, bool] | Unsupported:
    """Number of layers and whether bidirectional, or _CELL; or what it is instead of a GRU."""
    names = set(arrays)
    bias = any(name.startswith("bias") for name in names)
    bidirectional = any(name.endswith("_reverse") for name in names)
    n_layers = 1 + max(int(name.partition("_l")[2].removesuffix("_reverse") or 0) for name in names)
    cell = not any("_l" in name for name in names)
    ...


def _shape(array: Array) -> str:
    return f"an array {' x '.join(map(str, array.shape)) or 'of one number'}"
