"""What `quantgru inspect --bound` shows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from rich.console import Console

    from quantgru.array_types import FloatArray
    from quantgru.error_bounds import ErrorBound, FoundErrors
    from quantgru.int_model import IntModel
    from quantgru.model import FloatModel


def bound_and_search(
    int_model: IntModel, model: FloatModel, standardisation: dict[str, Any]
) -> tuple[ErrorBound, FoundErrors]:
    """On the calibrated range of the inputs; on all that their formats hold where it is not known."""
    from quantgru.cli.console import progress
    from quantgru.error_bounds import MOST_STEPS, ROUNDS, calibrated_range, error_bound, find_errors

    known = calibrated_range(int_model)
    with progress("proving bounds", MOST_STEPS, "steps") as advance:
        bound = error_bound(int_model, model, **standardisation, input_range=known, progress=advance)
    rounds = ROUNDS * (2 if bound.steps else 1)
    with progress("searching for large errors", rounds, "rounds") as advance:
        return bound, find_errors(bound, progress=advance)


def bound_json(bound: ErrorBound, found: FoundErrors) -> dict[str, Any]:
    layers = [
        {"name": gru.name, "proved": _finite(proved), "found": of_search.tolist()}
        for gru, proved, of_search in zip(bound.model.grus, bound.one_step, found.one_step, strict=True)
    ]
    return {
        "inputs": {"low": bound.low.tolist(), "high": bound.high.tolist()},
        "one_step": {"layers": layers, "outputs": _finite(bound.outputs)},
        "steps": {
            "largest_error": bound.largest_error,
            "steps": bound.steps,
            "any_length": bound.any_length,
            "proved": bound.after_steps,
            "found": found.steps,
        },
    }


def _finite(bounds: FloatArray) -> list[float | None]:
    """JSON knows no infinity: there, it is null."""
    return [value if math.isfinite(value) else None for value in bounds.tolist()]


def print_bound(bound: ErrorBound, found: FoundErrors, console: Console) -> None:
    from rich.table import Table

    from quantgru.error_bounds import calibrated_range
    from quantgru.error_bounds.search import MOST_STEPS_SEARCHED

    table = Table(
        "layer", "proved: largest", "of unit", "median", "found, not proved: largest", "median",
        title="|integer - float| of h after one step, from any state (of each unit: --json)",
        title_justify="left",
    )  # fmt: skip
    for gru, proved, of_search in zip(bound.model.grus, bound.one_step, found.one_step, strict=True):
        figures = [f"{value:.4f}" for value in (proved.max(), np.median(proved), of_search.max(), np.median(of_search))]
        table.add_row(gru.name, figures[0], str(proved.argmax()), *figures[1:])
    console.print(table)
    known = calibrated_range(bound.model) is not None
    inputs = "within the range of the calibration data" if known else "that their formats hold"
    console.print(f"for all inputs {inputs}")
    console.print(f"outputs after one step: proved within {bound.outputs.max():.4g}")
    at_least = "at least " if bound.steps == bound.most_steps else ""
    steps = f"{at_least}{bound.steps:,} step{'' if bound.steps == 1 else 's'}"
    if bound.any_length:
        steps = "any number of steps"
    line = f"from the reset the error is proved to stay within {bound.largest_error:g} for {steps}"
    if found.steps is not None:
        searched = f" in {MOST_STEPS_SEARCHED}" if bound.steps > MOST_STEPS_SEARCHED else ""
        line += f": within {bound.after_steps:.4f}; found, not proved{searched}: {found.steps:.4f}"
    console.print(line)
