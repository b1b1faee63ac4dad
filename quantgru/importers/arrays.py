"""Plain arrays, named as in a convention, given as arguments or in an .npz file: one function for all conventions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from numbers import Real
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from quantgru.activations import Candidate, GateFunction
from quantgru.array_types import FloatArray
from quantgru.errors import ConfigError, DataError, ModelError
from quantgru.importers.array_layout import FACTORS, GATES, Array, Sizes, as_key
from quantgru.importers.chain import identifier
from quantgru.importers.conventions import CONVENTIONS, Convention
from quantgru.importers.gates import finite, stacked_gru, with_hard_sigmoid
from quantgru.importers.options import ImportOptions
from quantgru.model import FloatModel, Gate, Gru
from quantgru.npz import read_npz

_LIMIT_BYTES: Final = 2**28  # of the arrays of a file together
_NUMBERED: Final = re.compile(r"(0|[1-9]\d{0,2})[./](.+)")  # "0.kernel": an array of the first layer
_TEXTS: Final = ("convention", "gate", "candidate")


@dataclass(frozen=True)
class Functions:
    """What arrays do not say: the gate function, with the slope of a hard_sigmoid, and the candidate function."""

    gate: GateFunction = "sigmoid"
    slope: float | None = None
    candidate: Candidate = "tanh"

    def __post_init__(self) -> None:
        has_slope = self.gate == "hard_sigmoid"
        if has_slope and not (isinstance(self.slope, Real) and 0 < self.slope < np.inf):
            raise ConfigError(
                f"gate 'hard_sigmoid' with slope={self.slope!r}: it is slope * a + 1/2, limited to 0 ... 1, with a "
                "positive slope: 0.2 in Keras 2 and, unless a file says otherwise, in ONNX; 1/6 in Keras 3 and PyTorch"
            )
        if not has_slope and self.slope is not None:
            raise ConfigError(f"slope={self.slope!r} with gate {self.gate!r}: only gate 'hard_sigmoid' has a slope")

    def put_into(self, layer: Gru) -> Gru:
        layer = replace(layer, gate=self.gate, candidate=self.candidate)
        return layer if self.slope is None else with_hard_sigmoid(layer, self.slope)


def from_arrays(
    convention: str,
    *,
    name: str = "gru",
    gate: GateFunction = "sigmoid",
    slope: float | None = None,
    candidate: Candidate = "tanh",
    initial_state: npt.ArrayLike | None = None,
    **arrays: npt.ArrayLike,
) -> FloatModel:
    """The float model of one GRU layer, with the state of every step as its output.

    convention     what the arrays mean, for example "pytorch": docs/conventions.md has them all
    arrays         named as in the convention, in which "/" may be "_"; leading axes of length 1 may be there or not
    gate           the function of update and reset gate; hard_sigmoid is slope * a + 1/2, limited to 0 ... 1
    slope          of hard_sigmoid: 0.2 in Keras 2, 1/6 in Keras 3
    candidate      the function of the candidate
    initial_state  h before the first step [H]; otherwise zero

    More layers are put around it: qg.FloatModel((*qg.from_arrays(...).layers, qg.Dense(...)), last_step=True).
    Raises ConfigError for an unknown convention, ModelError for arrays that it does not have, or of other shapes.
    """
    known = convention_named(convention)
    layer = gru_of_arrays(f"from_arrays, convention {known.name!r}", known, name, arrays)
    functions = Functions(gate, slope, candidate)
    return _model(name, (_with_state(functions.put_into(layer), initial_state),), known, "arrays")


def load_npz_file(path: Path, options: ImportOptions) -> FloatModel:
    """The GRU layers of an .npz file whose arrays are named as in a convention.

    The convention is `options.convention`, or a text in the file, an array 'convention' of no axes. The file may also
    have the texts 'gate' and 'candidate', the number 'slope', and 'initial_state', all as `from_arrays` has them. With
    several layers, names begin with their numbers: '0.kernel', '1.kernel'. Raises ModelError, or ConfigError for an
    unknown convention.
    """
    where = f"model {path}"
    try:
        arrays, _ = read_npz(path, "model", limit_bytes=_LIMIT_BYTES)
    except DataError as error:
        raise ModelError(str(error)) from None
    texts = {key: _text(where, key, arrays.pop(key)) for key in _TEXTS if key in arrays}
    known = convention_named(_chosen(where, options.convention, texts.pop("convention", None)))
    slope = _number(where, arrays.pop("slope")) if "slope" in arrays else None
    functions = Functions(slope=slope, **texts)  # type: ignore[arg-type]  # the layer checks the names
    grus = []
    for number, of_layer in _layers(where, arrays):
        name = "gru" if number is None else f"gru_{number}"
        inside = f"{where}, convention {known.name!r}" + ("" if number is None else f", layer {number}")
        state = of_layer.pop("initial_state", None)
        layer = gru_of_arrays(inside, known, name, of_layer)
        grus.append(_with_state(functions.put_into(layer), state))
    return _model(path.stem, tuple(grus), known, path.name)


def convention_named(name: object) -> Convention:
    if isinstance(name, str) and name in CONVENTIONS:
        return CONVENTIONS[name]
    text = str(name).lower()
    close = [known for known in CONVENTIONS if text in known] or get_close_matches(text, CONVENTIONS, n=3)
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    raise ConfigError(f"convention {_short(name)} is unknown; {hint}known are {', '.join(CONVENTIONS)}")


def gru_of_arrays(where: str, convention: Convention, name: str, given: Mapping[str, Any]) -> Gru:
    """The canonical layer, with sigmoid and tanh. The only place that knows what a convention means."""
    arrays = _checked(where, convention, given)
    sizes = _sizes(where, convention, arrays)
    units = sizes.units
    parts = {factor: np.zeros((3, units, width)) for factor, width in _widths(sizes).items()}
    for array, values in arrays.items():
        for block in array.blocks(sizes):
            block_values = values[block.where]
            for gate in block.gates:
                oriented = block_values.T if block.columns else block_values
                parts[block.factor][GATES[gate]] = oriented.reshape(units, -1)
    if convention.update == "replaces":  # 1 - g(a) = g(-a)
        for part in parts.values():
            part[Gate.Z] *= -1
    w, u, b, c = (part.reshape(3 * units, -1) for part in parts.values())
    return stacked_gru(name, convention.reset, tuple(Gate), (w, u), (b[:, 0], c[:, 0]))


def _widths(sizes: Sizes) -> dict[str, int]:
    return dict(zip(FACTORS, (sizes.inputs, sizes.units, 1, 1), strict=True))


def _checked(where: str, convention: Convention, given: Mapping[str, Any]) -> dict[Array, FloatArray]:
    """The arrays as finite float64, each with as many axes as it has to have. Raises ModelError."""
    by_key = {array.key: array for array in convention.all_arrays}
    unknown = [name for name in given if as_key(name) not in by_key]
    if unknown:
        raise ModelError(f"{where}: no array {_short(unknown[0])} in it; it has {convention.expected}")
    found = {by_key[as_key(name)]: values for name, values in given.items()}
    if len(found) < len(given):
        raise ModelError(f"{where}: two arrays for one, of {sorted(given)}; it has {convention.expected}")
    for group in (convention.arrays, *convention.optional):
        missing = [array.name for array in group if array not in found]
        if missing and (group is convention.arrays or len(missing) < len(group)):
            raise ModelError(f"{where}: array {missing[0]!r} is missing; it has {convention.expected}")
    return {array: _real(where, array, values) for array, values in found.items()}


def _real(where: str, array: Array, given: Any) -> FloatArray:
    try:
        values = np.asarray(given)
    except (TypeError, ValueError, RuntimeError) as error:  # unequal rows; a tensor that records gradients
        raise ModelError(f"{where}: {array.name} cannot be read as an array ({str(error).splitlines()[0]})") from None
    if values.dtype.kind not in "fiu":
        raise ModelError(f"{where}: {array.name} is of type {values.dtype}, expected real numbers {array.shape_text}")
    shape = values.shape
    while len(shape) > len(array.axes) and shape[0] == 1:  # directions of ONNX, rows of d2l
        shape = shape[1:]
    if len(shape) != len(array.axes):
        raise ModelError(f"{where}: {array.name} {values.shape}, expected {array.shape_text}")
    return finite(where, array.name, values).reshape(shape)


def _sizes(where: str, convention: Convention, arrays: Mapping[Array, FloatArray]) -> Sizes:
    """H and I, with which all shapes agree. Raises ModelError."""
    from_state_first = sorted(convention.arrays, key=lambda array: "h" not in array.factors)  # these hold H twice
    required = [(array, arrays[array].shape) for array in from_state_first]
    units = next(found for array, shape in required if (found := array.units(shape)) is not None)
    inputs = next(found for array, shape in required if (found := array.inputs(shape, units)) is not None)
    sizes = Sizes(max(units, 1), max(inputs, 1))
    for array, values in arrays.items():
        if values.shape != array.shape(sizes):
            raise ModelError(
                f"{where}: {array.name} {values.shape}, expected {array.shape_text}, that is {array.shape(sizes)} for "
                f"H = {sizes.units} units and I = {sizes.inputs} inputs; it has {convention.expected}"
            )
    return sizes


def _with_state(layer: Gru, initial_state: Any) -> Gru:
    if initial_state is None:
        return layer
    where = f"GRU layer {layer.name!r}"
    return replace(layer, initial_state=_real(where, Array("initial_state", "h"), initial_state))


def _model(name: str, layers: tuple[Gru, ...], convention: Convention, source: str) -> FloatModel:
    biased = any(layer.bias.any() or layer.recurrent_bias.any() for layer in layers)
    note = f"imported from {source}, convention {convention.name}" + ("" if biased else ", all biases zero")
    return FloatModel(layers, False, identifier(name), (note,))


def _chosen(where: str, option: str | None, text: str | None) -> str:
    chosen = option or text
    if chosen is None:
        raise ConfigError(
            f"{where}: of which convention are its arrays? Say it with load(..., convention=...) or --convention, or "
            f"save a text of that name with them; known are {', '.join(CONVENTIONS)}"
        )
    if text not in (None, chosen):
        raise ConfigError(f"{where}: convention {chosen!r}, but the file itself says {_short(text)}; leave one out")
    return chosen


def _layers(where: str, arrays: dict[str, npt.NDArray[Any]]) -> list[tuple[int | None, dict[str, Any]]]:
    """The arrays of each layer, by name; number None where there is a single layer without a number."""
    matches = {name: _NUMBERED.fullmatch(name) for name in arrays}
    if not any(matches.values()):
        return [(None, dict(arrays))]
    layers: dict[int, dict[str, Any]] = {}
    for name, match in matches.items():
        if match is None:
            raise ModelError(f"{where}: array {_short(name)} has no layer number, others have, such as '0.kernel'")
        layers.setdefault(int(match[1]), {})[match[2]] = arrays[name]
    if sorted(layers) != list(range(len(layers))):
        raise ModelError(f"{where}: layers {sorted(layers)[:8]}, expected 0, 1, 2 and so on")
    return sorted(layers.items())


def _text(where: str, key: str, array: npt.NDArray[Any]) -> str:
    if array.dtype.kind != "U" or array.shape != ():
        raise ModelError(f"{where}: {key!r} is {array.dtype} {array.shape}, expected a single text")
    return str(array)


def _number(where: str, array: npt.NDArray[Any]) -> float:
    if array.dtype.kind not in "fiu" or array.shape != ():
        raise ModelError(f"{where}: 'slope' is {array.dtype} {array.shape}, expected a single number")
    return float(array)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
