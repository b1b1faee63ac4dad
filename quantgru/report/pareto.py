"""Widths that were tried, and those of them that none beats in both size and quality: as a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

from rich.table import Table

from quantgru.quantizer.widths import GATES

_MATRICES: Final = ("W", "U")


@dataclass(frozen=True)
class Candidate:
    """Widths that were tried.

    weight_bits  by names of layer, matrix and gate, or of a dense layer: as `quantize` takes them
    flash_bytes  constants, and code for packed weights and short scales
    quality      right labels in percent, or SQNR in dB
    output_db    SQNR of the outputs
    """

    weight_bits: Mapping[str, int]
    flash_bytes: int
    quality: float
    output_db: float

    @property
    def uniform_bits(self) -> int | None:
        """The one width that all have; None for mixed ones."""
        widths = set(self.weight_bits.values())
        return widths.pop() if len(widths) == 1 else None

    def to_json(self) -> dict[str, Any]:
        """The candidate as JSON values; JSON knows no infinity: there, it is null."""
        worth = {"quality": self.quality, "output_db": self.output_db}
        finite = {name: value if math.isfinite(value) else None for name, value in worth.items()}
        return {"weight_bits": dict(self.weight_bits), "flash_bytes": self.flash_bytes} | finite


def by_layer(weight_bits: Mapping[str, int]) -> dict[str, str]:
    """Layer -> its widths, those of the gates z, r and n side by side, in whatever order they are given.

    >>> by_layer({"gru.U.r": 3, "gru.W.z": 4, "gru.W.n": 8, "fc.W.1": 6, "gru.W.r": 2, "gru.U.n": 4, "gru.U.z": 5})
    {'gru': 'W 428 U 534', 'fc.W.1': '6'}
    """
    layers: dict[str, str] = {}
    for name, bits in weight_bits.items():
        layer = name.rsplit(".", 2)[0]
        gates = [[f"{layer}.{matrix}.{gate}" for gate in GATES] for matrix in _MATRICES]
        if name in chain(*gates) and weight_bits.keys() >= set(chain(*gates)):
            widths = ("".join(str(weight_bits[gate]) for gate in of_matrix) for of_matrix in gates)
            layers[layer] = " ".join(f"{matrix} {found}" for matrix, found in zip(_MATRICES, widths, strict=True))
        else:  # a dense layer may be called net.W.0
            layers[name] = str(bits)
    return layers


def quality_text(quality: float, unit: str) -> str:
    """
    >>> quality_text(98.5, "%"), quality_text(46.25, "dB"), quality_text(float("inf"), "dB")
    ('98.50 %', '46.2 dB', 'no error')
    """
    if quality == float("inf"):
        return "no error"
    return f"{quality:.2f} %" if unit == "%" else f"{quality:.1f} {unit}"


def pareto_table(candidates: Sequence[Candidate], chosen: Candidate, objective: str, unit: str) -> Table:
    """The candidates, smallest first."""
    layers = list(by_layer(chosen.weight_bits))
    table = Table(
        "flash",
        objective,
        *(["output SQNR"] if unit == "%" else []),
        *(f"bits of {layer}" for layer in layers),
        "",
        title="The chosen one, and those that none beats in both size and quality.\n"
        "Flash: constants, and code for packed weights and short scales.\n"
        "Bits: gates z, r, n",
        title_justify="left",
    )
    for candidate in sorted(candidates, key=lambda candidate: candidate.flash_bytes):
        widths = by_layer(candidate.weight_bits)
        table.add_row(
            f"{candidate.flash_bytes:,} bytes",
            quality_text(candidate.quality, unit),
            *([quality_text(candidate.output_db, "dB")] if unit == "%" else []),
            *(widths[layer] for layer in layers),
            "chosen" if candidate == chosen else "",
        )
    return table
