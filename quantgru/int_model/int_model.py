"""The integer model: layers in the order in which they run, and what belongs to their inputs and outputs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from quantgru.checks import check_finite, check_flag, check_name, in_range, own, own_integer
from quantgru.errors import ModelError
from quantgru.fixed import MAX_FRACTION_BITS
from quantgru.int_model.layers import (
    IntBidirectional,
    IntDense,
    IntEmbedding,
    IntGru,
    IntLayer,
    output_bits,
)
from quantgru.structure import Reverse, Structure


@dataclass(frozen=True, eq=False)
class SelfTest:
    """Raw inputs of a few steps [steps, inputs] from reset, and the check value that they give [R16, R24]."""

    inputs: npt.NDArray[np.int16]
    check: int

    def __post_init__(self) -> None:
        own(self, "inputs", np.int16, np.shape(self.inputs), "self-test")
        own_integer(self, "check", 0, 2**32 - 1, "self-test")


@dataclass(frozen=True, eq=False, repr=False)
class IntModel(Structure[IntLayer, IntGru, IntDense, IntEmbedding]):
    """Layers in the order in which they run, in integers. Immutable; proved by `proof.prove` when it is made.

    input_fraction_bits  int8 [inputs]
    last_step            whether the output has a meaning after the last step only
    selftest             a few steps for the device; not part of the digest
    input_units          physical unit of each input, such as "g" or "deg/s"; empty if unknown; not part of the digest
    output_units         the same of each output
    notes                what the quantizer reports (ranges, warnings); JSON values, not part of the digest
    mask_value           steps at which all real inputs have this value are none: they are not given to the device
    """

    input_fraction_bits: npt.NDArray[np.int8]
    last_step: bool
    selftest: SelfTest
    name: str = "model"
    notes: Mapping[str, Any] = field(default_factory=dict)
    input_units: Sequence[str] = ()
    output_units: Sequence[str] = ()
    mask_value: float | None = None

    def __post_init__(self) -> None:
        from quantgru.int_model.proof import prove

        where = f"model {self.name!r}"
        object.__setattr__(self, "layers", tuple(self.layers))
        check_name(self.name, "model")
        if not isinstance(self.notes, Mapping):
            raise ModelError(f"{where}: notes are a {type(self.notes).__name__}, expected a mapping")
        try:
            json.dumps(dict(self.notes), allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise ModelError(f"{where}: notes that JSON does not have ({error}), expected values of JSON") from None
        object.__setattr__(self, "notes", MappingProxyType(dict(self.notes)))
        check_flag(self.last_step, where, "last_step")
        if self.mask_value is not None:
            check_finite(self.mask_value, where, "mask value")
        self._check_layers(where)
        self._check_inputs()
        _own_physical_units(self, "input_units", self.n_inputs)
        _own_physical_units(self, "output_units", self.n_outputs)
        weighted: tuple[IntGru | IntDense, ...] = (*self.grus, *self.dense)
        for layer in weighted:
            prove(layer)

    def _check_layers(self, where: str) -> None:
        self.check_order(where, self.last_step)
        if len(self.layers) > 255:
            raise ModelError(f"{where}: {len(self.layers)} layers, allowed are 255")
        if self.n_units > 2**16 - 1:
            raise ModelError(f"{where}: {self.n_units} units, allowed are 65535")

    def _check_inputs(self) -> None:
        own(self, "input_fraction_bits", np.int8, (self.n_inputs,), "model")
        in_range("input fraction bits", self.input_fraction_bits, -MAX_FRACTION_BITS, MAX_FRACTION_BITS)
        if self.embedding is not None and self.input_fraction_bits.any():
            raise ModelError(f"input fraction bits: {self.input_fraction_bits[0]}, a token number has 0")
        steps = self.selftest.inputs.shape
        if len(steps) != 2 or steps[1] != self.n_inputs or not 1 <= steps[0] <= 2**16 - 1:
            raise ModelError(f"self-test: inputs {steps}, expected (1 ... 65535 steps, {self.n_inputs})")

    def __reduce__(self) -> tuple[Any, ...]:
        """For pickle and copy: the mapping of the notes cannot be pickled."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return partial(IntModel, **values | {"notes": dict(self.notes)}), ()

    def __repr__(self) -> str:
        return f"<IntModel {self.name!r}: {self.widths}, digest {self.digest.hex()[:12]}>"

    @property
    def streaming(self) -> bool:
        """Whether the model can run step by step; else it needs the whole sequence."""
        seen_gru = False
        for layer in self.layers:
            if isinstance(layer, IntBidirectional) or (seen_gru and isinstance(layer, Reverse)):
                return False
            seen_gru |= isinstance(layer, IntGru)
        return True

    @property
    def reversed_input(self) -> bool:
        """Whether a streaming model is given its sequence from the last step to the first."""
        return self.streaming and self.reversed_output

    @property
    def saturating(self) -> bool:
        """Whether a candidate can be larger than the state's format holds [R25]."""
        return not all(gru.bounded for gru in self.grus)

    @property
    def n_units(self) -> int:
        """Units of all GRU layers together."""
        return sum(layer.n_units for layer in self.grus)

    @property
    def output_fraction_bits(self) -> int:
        """Fraction bits of the s16 outputs."""
        bits = self.input_fraction_bits.astype(np.int64)
        for layer in self.layers:
            bits = output_bits(layer, bits)
        return int(bits[0])  # the same for all: the last layer that is no reversal is recurrent or dense

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


def require_int_model(model: object, what: str) -> None:
    """Raises ModelError for what is not an IntModel; `what` was to be done with it."""
    if not isinstance(model, IntModel):
        raise ModelError(
            f"{what}: a model of type {type(model).__name__}, expected an IntModel; "
            "qg.quantize or qg.IntModel.load gives one"
        )


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
