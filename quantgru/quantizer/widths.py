"""How many bits the codes of weights have: one number for all, or by layer, matrix and gate."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Final

import numpy as np

from quantgru.errors import ModelError
from quantgru.model import FloatModel

WeightBits = int | str | Mapping[str, int]  # the text as `parse_weight_bits` takes it

LEAST_BITS: Final = 2
MOST_BITS: Final = 16
DEFAULT_BITS: Final = 8
GATES: Final = ("z", "r", "n")


def parse_weight_bits(text: str) -> dict[str, int]:
    """The widths in a text: "4", or "4,gru.U.n=8,dense=6"; an entry without a name stands for all others.

    Entries are those of a line of CSV: a name with a comma takes quotes. Raises ModelError for what is no number, and
    for two numbers of one name.
    """
    allowed = f"write a number for all, {LEAST_BITS} ... {MOST_BITS}, and name=number for others: 4,gru.U.n=8,dense=6"
    try:
        entries = next(csv.reader([text], skipinitialspace=True, strict=True)) or [""]
    except csv.Error as error:
        raise ModelError(f"weight bits {text!r}: {error}; {allowed}") from None
    found: dict[str, int] = {}
    for entry in entries:
        name, _, bits = entry.rpartition("=")
        name, bits = name.strip(), bits.strip()
        is_number = bits.isascii() and bits.isdecimal() and len(bits) <= 2
        if not is_number or name in found:
            again = "is given twice" if name else "is a second number for all others"
            what = again if is_number else "is no width"
            raise ModelError(f"weight bits {text!r}: {entry.strip()!r} {what}; {allowed}")
        found[name] = int(bits)
    return found


def weight_bits_text(widths: Mapping[str, int]) -> str:
    """The text from which `parse_weight_bits` gets these widths, of names without spaces at an end or line breaks."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(f"{name}={bits}" if name else bits for name, bits in widths.items())
    return line.getvalue()


def section_names(model: FloatModel) -> list[str]:
    """The names of all that can have a width of its own: each gate of each matrix, and each dense layer."""
    return list(dict.fromkeys(name for of_matrix in names_by_matrix(model) for name in of_matrix))


def names_by_matrix(model: FloatModel) -> list[list[str]]:
    """The same of each matrix, W and U of each GRU layer, then those of dense layers, whose names need not differ."""
    of_grus = [[f"{gru.name}.{matrix}.{gate}" for gate in GATES] for gru in model.grus for matrix in "WU"]
    return [*of_grus, *([dense.name] for dense in model.dense)]


class Widths:
    """The width of each matrix of a model.

    A key names a layer ("gru"), a matrix of a GRU layer ("gru.U"), or a gate of that ("gru.U.n"); the longest one that
    fits counts, and "" stands for all. What no key names has DEFAULT_BITS. Raises ModelError for a width out of range,
    and for a key that names nothing.
    """

    def __init__(self, model: FloatModel, bits: WeightBits) -> None:
        if isinstance(bits, str):
            bits = parse_weight_bits(bits)
        given: dict[str, int] = dict(bits) if isinstance(bits, Mapping) else {"": bits}
        known = [""]
        for gru in model.grus:
            matrices = [f"{gru.name}.{matrix}" for matrix in "WU"]
            known += [gru.name, *matrices, *(f"{matrix}.{gate}" for matrix in matrices for gate in GATES)]
        known += [dense.name for dense in model.dense]
        for key, width in given.items():
            where = f"weight bits of {key!r}" if key else "weight bits"
            if (
                isinstance(width, bool)
                or not isinstance(width, (int, np.integer))
                or not LEAST_BITS <= width <= MOST_BITS
            ):
                raise ModelError(f"{where}: {width!r}, allowed are {LEAST_BITS} ... {MOST_BITS}")
            if key not in known:
                raise ModelError(f"{where}: the model has nothing of this name; there are {', '.join(known[1:])}")
        self._bits = {key: int(width) for key, width in given.items()}

    def of(self, *path: str) -> int:
        """Of a dense layer, by its name; of a gate, by the names of layer, matrix and gate."""
        keys = [".".join(path[:n]) for n in range(len(path), 0, -1)]
        return next((self._bits[key] for key in [*keys, ""] if key in self._bits), DEFAULT_BITS)
