"""Which of the models that none beats in both size and quality is the one to take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from quantgru.errors import ConfigError
from quantgru.report.pareto import Candidate, quality_text

_ROUNDING: Final = 1e-9  # shares of labels in percent are not exact


def smallest_within(
    front: Sequence[Candidate], tried: Sequence[Candidate], within: float, reference: float, unit: str
) -> tuple[Candidate, str]:
    """The smallest that lacks at most `within` of the float model's quality, or of the best one's if that is infinite.

    front is sorted by size, and of `tried`. Returns the candidate, the best one if none is as near, and why it is the
    one. Where labels count, models of its SQNR must be as near, too, and of its size it is that with the most bits: of
    many models of like errors the best is best by luck.
    """
    best = front[-1]
    goal, whose = (reference, "the float model's") if math.isfinite(reference) else (best.quality, "the best one's")
    distance = f"within {within:g} {'dB' if unit == 'dB' else 'points'} of {whose} {quality_text(goal, unit)}"
    least = goal - within - _ROUNDING
    if unit == "dB":
        near = [candidate for candidate in front if candidate.quality >= least]
        return (near[0], f"the smallest {distance}") if near else (best, f"the best; none is {distance}")
    expected = zip(tried, expected_qualities(tried), strict=True)
    near = [candidate for candidate, others in expected if min(candidate.quality, others) >= least]
    if not near:
        because = f"the best; none is, as models of its SQNR in the mean, {distance}"
        return _widest(best, because, front, tried, best.quality - within)
    flash_bytes = min(candidate.flash_bytes for candidate in near)
    of_size = [candidate for candidate in near if candidate.flash_bytes == flash_bytes]
    return max(of_size, key=_bits_and_quality), f"the smallest that is, as models of its SQNR in the mean, {distance}"


def expected_qualities(tried: Sequence[Candidate]) -> list[float]:
    """Of each candidate, what models of its SQNR have in the mean: the higher the SQNR, the better, and no luck."""
    from scipy.optimize import isotonic_regression

    order = sorted(range(len(tried)), key=lambda i: (tried[i].output_db, tried[i].quality))
    fitted = isotonic_regression([tried[i].quality for i in order]).x
    return [float(quality) for _, quality in sorted(zip(order, fitted, strict=True))]


def best_within(
    front: Sequence[Candidate], tried: Sequence[Candidate], flash_bytes: int, within: float
) -> tuple[Candidate, str]:
    """The best of at most so many bytes, and why it is the one; front is sorted by size, and of `tried`.

    Of its size it is that with the most bits of those that lack at most `within` of the best one's quality. Raises
    ConfigError.
    """
    small = [candidate for candidate in front if candidate.flash_bytes <= flash_bytes]
    if not small:
        raise ConfigError(
            f"search: no model of at most {flash_bytes:,} bytes was found, the smallest one has "
            f"{front[0].flash_bytes:,}; allow as many, or fewer bits"
        )
    because = f"the best of at most {flash_bytes:,} bytes"
    return _widest(small[-1], because, front, tried, small[-1].quality - within)


def _widest(
    chosen: Candidate, because: str, front: Sequence[Candidate], tried: Sequence[Candidate], least: float
) -> tuple[Candidate, str]:
    """The one of chosen's size with the largest sum of widths, of quality `least`, that no smaller one beats."""
    smaller = max((one.quality for one in front if one.flash_bytes < chosen.flash_bytes), default=-math.inf)
    of_size = [one for one in tried if one.flash_bytes == chosen.flash_bytes and one.quality > smaller]
    as_good = [one for one in of_size if one.quality >= least - _ROUNDING]
    widest = max(as_good, key=_bits_and_quality)
    return (chosen, because) if widest == chosen else (widest, f"{because}; of its size, that with the most bits")


def _bits_and_quality(candidate: Candidate) -> tuple[int, float]:
    return sum(candidate.weight_bits.values()), candidate.quality
