"""Figures with limits: what was found, what is wanted, and whether it holds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich.table import Table


@dataclass(frozen=True)
class Gate:
    """A figure and its limit, both in the same unit.

    kind  "min": the figure must reach the limit; "max": it must not exceed it
    """

    name: str
    unit: Literal["dB", "share", "bytes"]
    kind: Literal["min", "max"]
    value: float
    limit: float

    @property
    def holds(self) -> bool:
        """A figure that is no number holds nothing."""
        return self.value >= self.limit if self.kind == "min" else self.value <= self.limit

    def to_json(self) -> dict[str, Any]:
        """JSON knows no infinity: there, it is null."""
        return {
            "name": self.name,
            "unit": self.unit,
            "kind": self.kind,
            "value": _finite(self.value),
            "limit": _finite(self.limit),
            "holds": self.holds,
        }


def gate_table(gates: Sequence[Gate]) -> Table:
    table = Table("gate", "found", "wanted", "")
    for gate in gates:
        wanted = f"{'≥' if gate.kind == 'min' else '≤'} {figure(gate.limit, gate.unit)}"
        table.add_row(gate.name, figure(gate.value, gate.unit), wanted, "holds" if gate.holds else "FAILS")
    return table


def figure(value: float, unit: str) -> str:
    """
    >>> figure(0.985, "share"), figure(-5358, "bytes"), figure(float("inf"), "dB"), figure(46.25, "dB")
    ('98.50 %', '-5,358 bytes', 'no error', '46.2 dB')
    """
    if unit == "share":
        return f"{100 * value:,.2f} %"
    if unit == "bytes":
        return f"{value:,.0f} bytes"
    return "no error" if value == math.inf else f"{value:.1f} dB"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
