"""State dicts: weights by name, without the code that uses them. From a mapping, a `.pt` or a `.safetensors` file.

Which module a group of arrays is, is read from their names and shapes; in which order modules run, the user says
(`weights_chain`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from quantgru.errors import ModelError, warn
from quantgru.importers.chain import Chain, identifier
from quantgru.importers.gates import finite
from quantgru.importers.options import ImportOptions
from quantgru.importers.pytorch_file import read_pt, read_safetensors
from quantgru.importers.pytorch_layers import BATCH_NORM_EPSILON, gru_layers, parameter_names
from quantgru.importers.pytorch_pickle import Tensor
from quantgru.importers.verify import first_line
from quantgru.importers.weights_chain import Matrix, Normalisation, Part, Recurrent, Unsupported, chain_of_parts, listed
from quantgru.model import Dense, FloatModel

ELEMENTS_LIMIT: Final = 32 << 20  # of all arrays together: 256 MiB in float64
NAME_LIMIT: Final = 200  # characters
NESTED: Final = (
    "state_dict",
    "model_state_dict",
    "model",
)  # where training checkpoints keep the state dict, first of all
PREFIXES: Final = ("module.", "_orig_mod.")  # of DataParallel and of torch.compile
ALONE: Final = "save or give the tensors of the wanted modules alone, as a mapping of names to tensors"

_RECURRENT: Final = re.compile(r"(weight_ih|weight_hh|weight_hr|bias_ih|bias_hh)(_l\d{1,4}(_reverse)?)?")
OTHER_CELLS: Final = {1: "a simple RNN layer", 4: "an LSTM layer"}  # by blocks of rows
TRAIN: Final = "train a GRU in its place"

# How old tools store a weight: endings of two names, which tool, and what puts the weight itself back.
REPARAMETRISED: Final = {
    ("_orig", "_mask"): ("pruning", "prune.remove(module, name)"),
    ("_g", "_v"): ("weight_norm", "remove_weight_norm(module, name)"),
    ("_orig", "_u"): ("spectral_norm", "remove_spectral_norm(module, name)"),
}

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]


def load_state_dict(state: Mapping[Any, Any], options: ImportOptions) -> FloatModel:
    """The float model of a mapping of names to tensors or arrays, as module.state_dict() gives it.

    Raises ModelError for what is neither, for modules that are not supported, and where the chain is missing or wrong.
    """
    chosen, others = _state_of("state dict", state)
    return _chain("state dict", chosen, others, options).model("model", "a state dict")


def load_pt_file(path: Path, options: ImportOptions) -> FloatModel:
    """The float model of a state dict or a training checkpoint by torch.save. Raises ModelError for everything else."""
    where = f"PyTorch file {path}"
    file = read_pt(where, path)
    state, others = _state_of(where, file.value)
    chain = _chain(where, file.arrays(state), others, options)
    return chain.model(identifier(path.stem.removesuffix(".pth")), f"PyTorch file {path.name}")


def load_safetensors_file(path: Path, options: ImportOptions) -> FloatModel:
    """The float model of a state dict in safetensors. Raises ModelError for everything else."""
    where = f"safetensors file {path}"
    chain = _chain(where, read_safetensors(where, path), "", options)
    return chain.model(identifier(path.stem), f"safetensors file {path.name}")


def _state_of(where: str, value: Any) -> tuple[Mapping[Any, Any], str]:
    """The state dict itself, or the one that a checkpoint holds; and what to say of others there."""
    if not isinstance(value, Mapping):
        raise ModelError(f"{where}: holds a {type(value).__name__}, expected a state dict: names with tensors")
    inside = [key for key in NESTED if _is_state(value.get(key), any)]
    inside += [key for key in value if key not in inside and isinstance(key, str) and _is_state(value[key], all)]
    if not inside:
        return value, ""
    beside = [key for key in value if isinstance(key, str) and _RECURRENT.fullmatch(key.rpartition(".")[2])]
    if beside:
        raise ModelError(
            f"{where}: {beside[0][:NAME_LIMIT]!r} beside another state dict, {inside[0][:NAME_LIMIT]!r}; {ALONE}"
        )
    first, *others = (key[:NAME_LIMIT] for key in inside)
    said = f"several state dicts: that under {first!r} is taken, not {listed(list(map(repr, others)))}"
    state: Mapping[Any, Any] = value[inside[0]]
    return state, said if others else ""


def _is_state(value: Any, enough: Callable[[Iterable[bool]], bool]) -> bool:
    """Whether a value is a mapping to tensors, all or any of its values."""
    if not isinstance(value, Mapping) or not value:
        return False
    return enough(isinstance(tensor, Tensor) or hasattr(tensor, "shape") for tensor in value.values())


def _chain(where: str, state: Mapping[Any, Any], others: str, options: ImportOptions) -> Chain:
    chain = chain_of_parts(where, _parts(where, _arrays(where, state)), options)
    if others:
        chain.notes.append(others)
        warn(f"{where}: {others}; give one alone for another")
    return chain


def _arrays(where: str, state: Mapping[Any, Any]) -> dict[str, Array]:
    """All values as arrays, under names without the prefixes of wrappers."""
    names = list(state)
    if any(not isinstance(name, str) or len(name) > NAME_LIMIT or not name.isprintable() for name in names):
        raise ModelError(f"{where}: holds keys that are no names, expected a state dict: names with tensors")
    if nested := [name for name, value in state.items() if isinstance(value, Mapping)]:
        places = ", ".join(map(repr, NESTED))
        raise ModelError(
            f"{where}: {nested[0]!r} is a mapping, not a tensor; state dicts may be under {places}; {ALONE}"
        )
    n_elements = sum(math.prod(getattr(value, "shape", ())) for value in state.values())
    if n_elements > ELEMENTS_LIMIT:
        raise ModelError(f"{where}: {n_elements} elements, allowed are {ELEMENTS_LIMIT}; {ALONE}")
    for prefix in (*PREFIXES, *PREFIXES):  # of both, in either order
        if all(name.startswith(prefix) for name in names):
            names = [name.removeprefix(prefix) for name in names]
    return {name: _array(where, name, value) for name, value in zip(names, state.values(), strict=True)}


def _array(where: str, name: str, value: Any) -> Array:
    """A numpy array, or the array of a tensor; bfloat16, which numpy has not, by way of float64."""
    try:
        if hasattr(value, "detach"):
            value = value.detach().cpu()
            value = (value.double() if value.is_floating_point() else value).numpy()
        return np.asarray(value)
    except Exception as error:  # whatever a foreign object raises
        raise ModelError(f"{where}: {name!r} is no array ({first_line(error)}); give tensors or arrays") from None


def _parts(where: str, arrays: Arrays) -> dict[str, Part]:
    """What each module is; its name is that of its arrays up to the last dot."""
    modules: dict[str, dict[str, Array]] = {}
    for path, array in arrays.items():
        owner, _, inside = path.rpartition("parametrizations.")
        module, _, name = path.rpartition(".")
        if owner.endswith(".") or (inside != path and not owner):
            module, name = owner.removesuffix("."), f"parametrizations.{inside}"
        modules.setdefault(module, {})[name] = array
    parts: dict[str, Part] = {}
    for module, group in modules.items():
        found = _parts_of_module(where, module, group)
        if both := parts.keys() & found.keys():
            raise ModelError(f"{where}: two modules named {both.pop()[:80]!r}; rename one")
        parts |= found
    return parts


def _parts_of_module(where: str, module: str, group: dict[str, Array]) -> dict[str, Part]:
    if cause := _reparametrised(group):
        return {module or "gru": Unsupported(cause)}
    recurrent = {name: array for name, array in group.items() if _RECURRENT.fullmatch(name)}
    others = {name: array for name, array in group.items() if name not in recurrent}
    found: dict[str, Part] = {}
    if recurrent:
        part = _recurrent_part(where, module or "gru", recurrent)
        of_another_cell = isinstance(part, Unsupported) and part.next_step
        found[module or ("recurrent" if of_another_cell else "gru")] = part
    if others and module and not recurrent:
        found[module] = _other_part(where, module, others)
    else:
        found |= {f"{module}.{name}".lstrip("."): Unsupported(_shape(array)) for name, array in others.items()}
    return found


def _reparametrised(names: Mapping[str, Array]) -> str | None:
    """What computes a module's weights from what is stored, and how to store them."""
    for name in names:
        if name.startswith("parametrizations."):
            weight = name.split(".")[1]
            return f"{weight} is parametrized; save it after parametrize.remove_parametrizations(module, {weight!r})"
        for (stored, beside), (cause, remove) in REPARAMETRISED.items():
            weight = name.removesuffix(stored)
            if weight != name and weight + beside in names:
                return f"{weight} is stored as {name} and {weight}{beside} by {cause}; save it after {remove}"
    return None


def _recurrent_part(where: str, module: str, arrays: Arrays) -> Part:
    """An nn.GRU, or an nn.GRUCell, whose names have no layer number."""
    if not any("_l" in name for name in arrays):
        arrays = {f"{name}_l0": array for name, array in arrays.items()}
    bidirectional = any(name.endswith("_reverse") for name in arrays)
    n_layers = 1 + max(int(name.partition("_l")[2].removesuffix("_reverse") or 0) for name in arrays)
    if found := _not_gru(arrays, n_layers, bidirectional):
        return Unsupported(found, TRAIN if found.startswith(tuple(OTHER_CELLS.values())) else "")
    values = {name: finite(f"{where}: module {module!r}", name, array) for name, array in arrays.items()}
    return Recurrent(gru_layers(module, values, n_layers, bidirectional))


def _not_gru(arrays: Arrays, n_layers: int, bidirectional: bool) -> str | None:
    """What arrays of a recurrent layer are instead of those of a GRU: rows are stacked, three blocks of the units."""
    bias = any(name.startswith("bias") for name in arrays)
    if n_layers > len(arrays):
        return f"a recurrent layer {n_layers - 1} without those before it"
    names = set(parameter_names(n_layers, bidirectional, bias))
    if any(name.startswith("weight_hr") for name in arrays):
        return "an LSTM layer with a projection"
    if missing := sorted(names - arrays.keys()):
        return f"a recurrent layer without {missing[0]}"
    if more := sorted(arrays.keys() - names):
        return f"a recurrent layer with {more[0]}, too"
    if wrong := [name for name, array in arrays.items() if not _is_number(array)]:
        return f"{wrong[0]} of type {arrays[wrong[0]].dtype}"
    units = arrays["weight_hh_l0"].shape[-1] if arrays["weight_hh_l0"].ndim == 2 else 0
    blocks, rest = divmod(len(arrays["weight_hh_l0"]), units) if units else (0, 0)
    if not rest and blocks in OTHER_CELLS:
        return OTHER_CELLS[blocks]
    n_inputs = arrays["weight_ih_l0"].shape[-1] if arrays["weight_ih_l0"].ndim == 2 else 0
    for name in sorted(names):
        columns = n_inputs if "_l0" in name else units * (1 + bidirectional)
        shape = {"weight_ih": (3 * units, columns), "weight_hh": (3 * units, units)}.get(name[:9], (3 * units,))
        if arrays[name].shape != shape or 0 in shape:
            return f"{name} {arrays[name].shape}, expected {shape} in a GRU"
    return None


def _other_part(where: str, module: str, arrays: Arrays) -> Part:
    """A dense layer, an embedding or a normalisation, by the names and the axes of its arrays."""
    where = f"{where}: module {module!r}"
    numbers = {name: array for name, array in arrays.items() if _is_number(array)}
    weight, bias = numbers.get("weight"), numbers.get("bias")
    if weight is not None and weight.ndim == 2 and weight.size:
        if arrays.keys() == {"weight"}:
            return Matrix(finite(where, "weight", weight))
        if arrays.keys() == {"weight", "bias"} and bias is not None and bias.shape == weight.shape[:1]:
            return Dense(module, finite(where, "weight", weight), finite(where, "bias", bias))
    vectors = {name: array for name, array in numbers.items() if name != "num_batches_tracked"}
    of_norm = vectors.keys() in ({"running_mean", "running_var"}, {"running_mean", "running_var", "weight", "bias"})
    if of_norm and {array.shape for array in vectors.values()} == {(vectors["running_mean"].size,)}:
        return _normalisation(where, vectors)
    if arrays.keys() == {"weight", "bias"} and {array.shape for array in arrays.values()} == {(arrays["bias"].size,)}:
        return Unsupported(f"a LayerNorm or the like of {arrays['bias'].size} features")
    listed = [f"{name} {array.shape}" for name, array in sorted(arrays.items())[:4]]
    return Unsupported(", ".join(listed))


def _normalisation(where: str, arrays: Arrays) -> Normalisation:
    mean, variance = (finite(where, name, arrays[name]) for name in ("running_mean", "running_var"))
    scale = finite(where, "weight", arrays.get("weight", np.ones(len(mean))))
    shift = finite(where, "bias", arrays.get("bias", np.zeros(len(mean))))
    return Normalisation(mean, variance, scale, shift, BATCH_NORM_EPSILON)


def _is_number(array: Array) -> bool:
    """Not one byte, which is a number of steps of quantized weights."""
    return array.dtype.kind in "fiu" and array.dtype.itemsize > 1


def _shape(array: Array) -> str:
    return f"an array {' x '.join(map(str, array.shape)) or 'of one number'}"
