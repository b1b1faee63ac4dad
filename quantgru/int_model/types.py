"""Types of the integer model and their invariants. No format is chosen here; what breaks SPEC.md is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from quantgru.errors import ModelError
from quantgru.fixed import MAX_FRACTION_BITS, STATE

SPEC_MAJOR: Final = 1
SPEC_MINOR: Final = 0

Reset = Literal["after", "before"]
DenseActivation = Literal["linear", "relu", "sigmoid", "tanh"]

MAX_LEFT_SHIFT: Final = 15

# Enumerators as the digest, the kernels and the device know them [R17].
RESET_NUMBERS: Final[dict[str, int]] = {"after": 0, "before": 1}
ACTIVATION_NUMBERS: Final[dict[str, int]] = {"linear": 0, "relu": 1, "sigmoid": 2, "tanh": 3}


@dataclass(frozen=True, eq=False)
class Matrix:
    """Rows of integer weights, each with a scale of its own [R4].

    codes       int8 [rows, columns]
    multiplier  uint16 [rows], m: 2**14 ... 2**15 - 1
    shift       uint8 [rows], s: 1 ... 30
    left_shift  k: 0 ... 15
    """

    codes: npt.NDArray[np.int8]
    multiplier: npt.NDArray[np.uint16]
    shift: npt.NDArray[np.uint8]
    left_shift: int = 0
    bits: int = 8

    def __post_init__(self) -> None:
        shape = np.shape(self.codes)
        if len(shape) != 2 or 0 in shape or max(shape) > 2**16 - 1:
            raise ModelError(f"matrix: codes {shape}, expected (rows, columns) of 1 ... 65535 each")
        own(self, "codes", np.int8, shape, "matrix")
        own(self, "multiplier", np.uint16, shape[:1], "matrix")
        own(self, "shift", np.uint8, shape[:1], "matrix")
        own_integer(self, "bits", 1, 16, "matrix")
        if self.bits != 8:
            raise ModelError(f"matrix: {self.bits} bits, this version reads 8; update quantgru")
        in_range("matrix: multiplier", self.multiplier, 2**14, 2**15 - 1)
        in_range("matrix: shift", self.shift, 1, 30)
        own_integer(self, "left_shift", 0, MAX_LEFT_SHIFT, "matrix")

    @property
    def n_rows(self) -> int:
        return int(self.codes.shape[0])

    @property
    def n_columns(self) -> int:
        return int(self.codes.shape[1])


@dataclass(frozen=True, eq=False)
class IntGru:
    """A GRU layer: W [3H x I] and U [3H x H], gates z, r, n one after the other; biases s32f14; state s16f15.

    recurrent_bias is c [H] for reset "after" and empty for "before".
    """

    name: str
    reset: Reset
    input: Matrix
    recurrent: Matrix
    bias: npt.NDArray[np.int32]
    recurrent_bias: npt.NDArray[np.int32]

    def __post_init__(self) -> None:
        check_name(self.name, "GRU layer")
        where = f"GRU layer {self.name!r}"
        if self.reset not in get_args(Reset):
            raise ModelError(f"{where}: reset {self.reset!r}, allowed are 'after' and 'before'")
        units, remainder = divmod(self.recurrent.n_rows, 3)
        if remainder or self.recurrent.n_columns != units or self.input.n_rows != 3 * units:
            raise ModelError(
                f"{where}: W {self.input.codes.shape}, U {self.recurrent.codes.shape}, expected (3 H, I) and (3 H, H)"
            )
        own(self, "bias", np.int32, (3 * units,), where)
        own(self, "recurrent_bias", np.int32, (units if self.reset == "after" else 0,), where)

    @property
    def n_inputs(self) -> int:
        return self.input.n_columns

    @property
    def n_units(self) -> int:
        return self.recurrent.n_columns


@dataclass(frozen=True, eq=False)
class IntDense:
    """A dense layer [R14]. output_fraction_bits is the format of output and bias for linear and relu, else 15."""

    name: str
    activation: DenseActivation
    matrix: Matrix
    bias: npt.NDArray[np.int32]
    output_fraction_bits: int

    def __post_init__(self) -> None:
        check_name(self.name, "dense layer")
        where = f"dense layer {self.name!r}"
        if self.activation not in get_args(DenseActivation):
            allowed = ", ".join(get_args(DenseActivation))
            raise ModelError(f"{where}: activation {self.activation!r}, allowed are {allowed}")
        own(self, "bias", np.int32, (self.matrix.n_rows,), where)
        own_integer(self, "output_fraction_bits", -MAX_FRACTION_BITS, MAX_FRACTION_BITS, where)
        if self.activation in ("sigmoid", "tanh") and self.output_fraction_bits != 15:
            raise ModelError(f"{where}: {self.output_fraction_bits} output fraction bits, {self.activation} has 15")

    @property
    def n_inputs(self) -> int:
        return self.matrix.n_columns

    @property
    def n_outputs(self) -> int:
        return self.matrix.n_rows


IntLayer = IntGru | IntDense


@dataclass(frozen=True, eq=False)
class SelfTest:
    """Raw inputs of a few steps [steps, inputs] from reset, and the check value that they give [R16]."""

    inputs: npt.NDArray[np.int16]
    check: int

    def __post_init__(self) -> None:
        own(self, "inputs", np.int16, np.shape(self.inputs), "self-test")
        own_integer(self, "check", 0, 2**32 - 1, "self-test")


@dataclass(frozen=True, eq=False, repr=False)
class IntModel:
    """GRU layers, then dense layers, in integers. Immutable; proved by `proof.prove` when it is made.

    input_fraction_bits  int8 [inputs]
    last_step            whether the output has a meaning after the last step only
    selftest             a few steps for the device; not part of the digest
    input_units          physical unit of each input, such as "g" or "deg/s"; empty if unknown; not part of the digest
    output_units         the same of each output
    notes                what the quantizer reports (ranges, warnings); JSON values, not part of the digest
    """

    layers: tuple[IntLayer, ...]
    input_fraction_bits: npt.NDArray[np.int8]
    last_step: bool
    selftest: SelfTest
    name: str = "model"
    notes: Mapping[str, Any] = field(default_factory=dict)
    input_units: Sequence[str] = ()
    output_units: Sequence[str] = ()

    def __post_init__(self) -> None:
        from quantgru.int_model.proof import prove

        object.__setattr__(self, "layers", tuple(self.layers))
        check_name(self.name, "model")
        if not isinstance(self.notes, Mapping):
            raise ModelError(f"model {self.name!r}: notes are a {type(self.notes).__name__}, expected a mapping")
        object.__setattr__(self, "notes", MappingProxyType(dict(self.notes)))
        if type(self.last_step) is not bool:
            raise ModelError(f"model {self.name!r}: last_step is {self.last_step!r}, expected True or False")
        n_grus = len(self.grus)
        if n_grus == 0 or len(self.layers) > 255:
            raise ModelError(
                f"model {self.name!r}: {n_grus} GRU and {len(self.head)} dense layers, expected at least one GRU "
                "layer and at most 255 layers"
            )
        if any(isinstance(layer, IntGru) for layer in self.layers[n_grus:]):
            raise ModelError(f"model {self.name!r}: a dense layer before a GRU layer")
        own(self, "input_fraction_bits", np.int8, (self.n_inputs,), "model")
        in_range("input fraction bits", self.input_fraction_bits, -MAX_FRACTION_BITS, MAX_FRACTION_BITS)
        width = self.n_inputs
        for layer in self.layers:
            if layer.n_inputs != width:
                raise ModelError(f"layer {layer.name!r}: {layer.n_inputs} inputs, the layer before it gives {width}")
            width = layer.n_units if isinstance(layer, IntGru) else layer.n_outputs
        if self.n_units > 2**16 - 1:
            raise ModelError(f"model {self.name!r}: {self.n_units} units, allowed are 65535")
        steps = self.selftest.inputs.shape
        if len(steps) != 2 or steps[1] != self.n_inputs or not 1 <= steps[0] <= 2**16 - 1:
            raise ModelError(f"self-test: inputs {steps}, expected (1 ... 65535 steps, {self.n_inputs})")
        _own_physical_units(self, "input_units", self.n_inputs)
        _own_physical_units(self, "output_units", self.n_outputs)
        for layer in self.layers:
            prove(layer)

    def __reduce__(self) -> tuple[Any, ...]:
        """For pickle and copy: the mapping of the notes cannot be pickled."""
        return IntModel, (
            self.layers, self.input_fraction_bits, self.last_step, self.selftest, self.name, dict(self.notes),
            self.input_units, self.output_units,
        )  # fmt: skip

    def __repr__(self) -> str:
        widths = [layer.n_units if isinstance(layer, IntGru) else layer.n_outputs for layer in self.layers]
        sizes = " → ".join(map(str, [self.n_inputs, *widths]))
        return f"<IntModel {self.name!r}: {sizes}, digest {self.digest.hex()[:12]}>"

    @property
    def grus(self) -> tuple[IntGru, ...]:
        return tuple(layer for layer in self.layers if isinstance(layer, IntGru))

    @property
    def head(self) -> tuple[IntDense, ...]:
        return tuple(layer for layer in self.layers if isinstance(layer, IntDense))

    @property
    def n_inputs(self) -> int:
        return self.layers[0].n_inputs

    @property
    def n_units(self) -> int:
        """Units of all GRU layers together."""
        return sum(layer.n_units for layer in self.grus)

    @property
    def n_outputs(self) -> int:
        last = self.layers[-1]
        return last.n_units if isinstance(last, IntGru) else last.n_outputs

    @property
    def output_fraction_bits(self) -> int:
        last = self.layers[-1]
        return STATE.fraction_bits if isinstance(last, IntGru) else last.output_fraction_bits

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 over the numbers in canonical order [R17]."""
        from quantgru.int_model.digest import digest

        return digest(self)

    def save(self, path: str | Path) -> None:
        """Writes a `.qgru` file. Raises ModelError where the path cannot be written."""
        from quantgru.int_model.file import save

        save(self, path)

    @classmethod
    def load(cls, path: str | Path) -> IntModel:
        """Reads a `.qgru` file. Raises ModelError for what is missing, damaged, unknown, or breaks an invariant."""
        from quantgru.int_model.file import load

        return load(path)


def own(owner: object, name: str, dtype: type[np.generic], shape: Sequence[int], where: str) -> None:
    """Replaces an array field by a checked, read-only copy. Raises ModelError."""
    array = np.asarray(getattr(owner, name))
    if array.dtype != dtype or array.shape != tuple(shape):
        raise ModelError(
            f"{where}: {name} is {array.dtype} {array.shape}, expected {np.dtype(dtype).name} {tuple(shape)}"
        )
    array = np.array(array, order="C")
    array.flags.writeable = False
    object.__setattr__(owner, name, array)


def in_range(what: str, values: npt.ArrayLike, low: int, high: int) -> None:
    array = np.asarray(values)
    if array.size and not (low <= array.min() and array.max() <= high):
        raise ModelError(f"{what}: {array.min()} ... {array.max()}, allowed {low} ... {high}")


def own_integer(owner: object, name: str, low: int, high: int, where: str) -> None:
    """Replaces an integer field, which may be numpy's, by a plain int in low ... high. Raises ModelError."""
    value = getattr(owner, name)
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= value <= high:
        raise ModelError(f"{where}: {name} {value!r}, expected an integer of {low} ... {high}")
    object.__setattr__(owner, name, int(value))


def _own_physical_units(model: IntModel, name: str, n: int) -> None:
    """Replaces units by a tuple of none or `n` texts. Raises ModelError."""
    units = getattr(model, name)
    if (
        not isinstance(units, (tuple, list))
        or len(units) not in (0, n)
        or not all(isinstance(unit, str) for unit in units)
    ):
        raise ModelError(f"model {model.name!r}: {name} {units!r}, expected {n} texts, or none")
    object.__setattr__(model, name, tuple(units))


def check_name(name: object, where: str) -> None:
    """Raises ModelError unless `name` is text."""
    if not isinstance(name, str):
        raise ModelError(f"{where}: name {name!r}, expected text")
