"""Which of the models that none beats in both size and quality is the one to take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from quantgru.errors import ConfigError
from quantgru.report.pareto import Candidate, quality_text

_ROUNDING: Final = 1e-9  # shares of labels in percent are not exact


def smallest_within(front: Sequence[Candidate], within: float, reference: float, unit: str) -> tuple[Candidate, str]:
    """The smallest that lacks at most `within` of the float model's quality, or of the best one's if that is infinite.

    front is sorted by size. Returns the candidate, the best one if none is as near, and why it is the one.
    """
    best = front[-1]
    goal, whose = (reference, "the float model's") if math.isfinite(reference) else (best.quality, "the best one's")
    distance = f"within {within:g} {'dB' if unit == 'dB' else 'points'} of {whose} {quality_text(goal, unit)}"
    near = [candidate for candidate in front if candidate.quality >= goal - within - _ROUNDING]
    return (near[0], f"the smallest {distance}") if near else (best, f"the best; none is {distance}")


def best_within(front: Sequence[Candidate], flash_bytes: int) -> tuple[Candidate, str]:
    """The best of at most so many bytes, and why it is the one; front is sorted by size. Raises ConfigError."""
    small = [candidate for candidate in front if candidate.flash_bytes <= flash_bytes]
    if not small:
        raise ConfigError(
            f"search: no model of at most {flash_bytes:,} bytes was found, the smallest one has "
            f"{front[0].flash_bytes:,}; allow as many, or fewer bits"
        )
    return small[-1], f"the best of at most {flash_bytes:,} bytes"
