"""What the trials of a search depend on: a study of another search can say in what it differs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from quantgru import container
from quantgru.model import FloatModel
from quantgru.model.file import content
from quantgru.sequences import Sequences

_TRIALS_FORMAT: Final = 4  # raised when the same widths give another size or quality: older studies are of no use then

Arrays = Mapping[str, npt.ArrayLike | None]


def about(model: FloatModel, data: Mapping[str, Arrays], options: Mapping[str, str]) -> dict[str, str]:
    """Options as they are, digests of all else, and the version of trials.

    Not of names and notes of the model, on which nothing depends; and not of what machines compute with different last
    digits.
    """
    header, arrays = content(replace(model, name="", notes=()))
    digests = {"model": _digest(header, arrays)} | {name: _digest({}, of_data) for name, of_data in data.items()}
    return {"version of quantgru": str(_TRIALS_FORMAT), **digests, **options}


def arrays_of(sequences: Sequences) -> Arrays:
    """All that they consist of."""
    mask = None if sequences.mask is None else sequences.mask.keep
    return {"x": sequences.values, "lengths": sequences.lengths, "mask": mask}


def _digest(header: dict[str, Any], arrays: Arrays) -> str:
    there = {name: np.asarray(array) for name, array in arrays.items() if array is not None}
    return hashlib.sha256(container.encode(header, there)).hexdigest()
