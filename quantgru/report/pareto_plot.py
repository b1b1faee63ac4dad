"""Widths that were tried, as a picture: size against quality."""

from __future__ import annotations

import io
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from quantgru.errors import ConfigError
from quantgru.report.pareto import Candidate

_METADATA: Final = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}


def plot_format(path: str) -> str:
    """By the end of its name. Raises ConfigError, also where plots cannot be drawn."""
    if find_spec("matplotlib") is None:
        raise ConfigError("plots need matplotlib, which is not installed: pip install quantgru[report]")
    name = Path(path).suffix.lower().removeprefix(".")
    if name not in _METADATA:
        raise ConfigError(f"plot {path}: expected a name that ends with .{', .'.join(_METADATA)}")
    return name


def pareto_plot(
    tried: Sequence[Candidate],
    front: Sequence[Candidate],
    chosen: Candidate,
    quality: str,
    unit: str,
    file_format: str,
) -> bytes:
    """A file: all that were tried, the front that none of them beats, the uniform widths, and the chosen one."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot(
        xlabel="flash for constants, and code for packed weights and short scales, in bytes",
        ylabel=f"{quality} in {unit}",
    )
    axes.scatter(*_points(tried), s=12, color="silver", label="tried")
    unbeaten = [one for one in front if not any(_beats(other, one) for other in front)]  # the chosen one may not be
    axes.step(*_points(unbeaten), where="post", marker="o", markersize=4, label="none is both smaller and better")
    uniform = [candidate for candidate in tried if candidate.uniform_bits is not None]
    axes.scatter(*_points(uniform), marker="s", color="black", label="one width for all", zorder=3)
    below: dict[str, Any] = {"textcoords": "offset points", "xytext": (0, -16), "ha": "center", "zorder": 5}
    for candidate in uniform:
        at = (candidate.flash_bytes, candidate.quality)
        axes.annotate(f"{candidate.uniform_bits} bits", at, **below)
    axes.scatter(*_points([chosen]), marker="*", s=200, color="crimson", label="chosen", zorder=4)
    axes.legend(loc="lower right")
    file = io.BytesIO()
    with rc_context({"svg.hashsalt": "quantgru"}):  # of its identifiers, which are random without
        figure.savefig(file, format=file_format, dpi=150, metadata=_METADATA[file_format])
    return file.getvalue()


def _beats(one: Candidate, other: Candidate) -> bool:
    return one.flash_bytes < other.flash_bytes and one.quality >= other.quality


def _points(candidates: Sequence[Candidate]) -> tuple[list[int], list[float]]:
    """Sizes and qualities, smallest first."""
    ordered = sorted(candidates, key=lambda candidate: candidate.flash_bytes)
    return [candidate.flash_bytes for candidate in ordered], [candidate.quality for candidate in ordered]
