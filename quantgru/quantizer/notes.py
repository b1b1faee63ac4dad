"""What the quantizer has to say about a model: ranges that it saw, and warnings."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from quantgru.activations import BOUNDED_CANDIDATES
from quantgru.array_types import IntArray
from quantgru.fixed import MAX_FRACTION_BITS
from quantgru.int_model import IntModel
from quantgru.int_model.row_parameters import SHORT
from quantgru.model import FloatModel
from quantgru.quantizer.calibrate import Calibration
from quantgru.quantizer.layers import Roundings
from quantgru.quantizer.lost_bits import lost_bits_warnings
from quantgru.quantizer.rounding import least_steps

FAINTEST_PEAK: Final = 2.0 ** (7 - MAX_FRACTION_BITS)  # below, an input has fewer than 8 bits even in the finest format
_MOST_EXTREME: Final = 0.9  # of all gates at the ends of their range: no trained model works there
_SLOWEST_UPDATE: Final = 16  # of 2^15: a unit whose u stays below moves by the residual alone


def notes(model: FloatModel, seen: Calibration, int_model: IntModel, roundings: Roundings) -> dict[str, Any]:
    """What reports say about the calibration and the rounding; JSON values."""
    inputs = [
        {
            "min": float(seen.input_min[i]),
            "max": float(seen.input_max[i]),
            "rms": _noted(seen.input_rms[i]),
            "clips_below": float(np.ldexp(-(2.0**15), -bits)),
            "clips_above": float(np.ldexp(2.0**15 - 1, -bits)),
        }
        for i, bits in enumerate(int_model.input_fraction_bits.tolist())
    ]
    outputs = [
        {"layer": layer.name, "peak": _noted(of_layer.peak)}
        for layer, of_layer in zip(model.dense, seen.dense, strict=True)
    ]
    states = [
        {"layer": layer.name, "peak": _noted(of_layer.state_peak)}
        for layer, of_layer in zip(model.grus, seen.grus, strict=True)
    ]
    return {
        "rounding": roundings.rounding,
        "calibration": {"sequences": seen.n_sequences, "steps": seen.n_steps, "longest": seen.longest},
        "inputs": inputs,
        "outputs": outputs,
        "states": states,
        "warnings": [
            *_input_warnings(seen),
            *_extreme_warnings(model, seen),
            *_update_warnings(model, seen),
            *_state_warnings(model, seen),
            *_output_warnings(model, seen),
            *(_rounding_warnings(model, seen) if roundings.rounding == "compensated" else []),
            *(lost_bits_warnings(model, int_model, roundings.widths) if roundings.parameters == SHORT else []),
        ],
        "import": list(model.notes),
    }


def _noted(value: float) -> float:
    """Six digits: the last ones of a sum differ from processor to processor, and the file should not."""
    return float(f"{value:.6g}")


def _input_warnings(seen: Calibration) -> list[str]:
    peaks = np.maximum(np.abs(seen.input_min), np.abs(seen.input_max))
    dead, faint = np.flatnonzero(peaks == 0), np.flatnonzero((peaks > 0) & (peaks < FAINTEST_PEAK))
    warnings = []
    if dead.size:
        warnings.append(f"input {_numbers(dead)}: always 0 in the calibration data; the format is a guess")
    constant = np.flatnonzero((seen.input_min == seen.input_max) & (peaks > 0))
    if constant.size:
        warnings.append(
            f"input {_numbers(constant)}: always the same in the calibration data; other values may be clipped, and "
            "their weights are rounded as if there were none"
        )
    if faint.size:
        warnings.append(
            f"input {_numbers(faint)}: never above {peaks[faint].max():.3g} in the calibration data, and the finest "
            f"input format has steps of 2^-{MAX_FRACTION_BITS}; scale it up"
        )
    return warnings


def _extreme_warnings(model: FloatModel, seen: Calibration) -> list[str]:
    return [
        f"GRU layer {layer.name!r}: {100 * gru.extreme_share:.0f} % of its gates are at the ends of their range; if "
        "the model was trained on (x - mean) / scale, say so: mean= and scale=, or --standardisation S.npz"
        for layer, gru in zip(model.grus, seen.grus, strict=True)
        if gru.extreme_share > _MOST_EXTREME
    ]


def _update_warnings(model: FloatModel, seen: Calibration) -> list[str]:
    warnings = []
    for layer, gru in zip(model.grus, seen.grus, strict=True):
        slow = np.flatnonzero(gru.largest_update * 2**15 < _SLOWEST_UPDATE)
        if slow.size:
            warnings.append(
                f"GRU layer {layer.name!r}, unit {_numbers(slow)}: u = 1 - z stays below {_SLOWEST_UPDATE} / 2^15; "
                "so slow a unit follows its input coarsely"
            )
    return warnings


def _state_warnings(model: FloatModel, seen: Calibration) -> list[str]:
    return [
        f"GRU layer {layer.name!r}: its state is always 0 on the calibration data; its format is a guess"
        for layer, of_layer in zip(model.grus, seen.grus, strict=True)
        if of_layer.state_peak == 0 and layer.candidate not in BOUNDED_CANDIDATES
    ]


def _output_warnings(model: FloatModel, seen: Calibration) -> list[str]:
    return [
        f"dense layer {layer.name!r}: always 0 on the calibration data; the format of its output is a guess"
        for layer, of_layer in zip(model.dense, seen.dense, strict=True)
        if of_layer.peak == 0
    ]


def _rounding_warnings(model: FloatModel, seen: Calibration) -> list[str]:
    """Of layers for which there is too little calibration data."""
    columns = {f"GRU layer {layer.name!r}": layer.n_inputs + layer.n_units for layer in model.grus}
    columns |= {f"dense layer {layer.name!r}": layer.n_inputs for layer in model.dense}
    return [
        f"{where}: {seen.n_steps:,} steps of calibration data are too few to tell how {n:,} values go together, which "
        f"takes {least_steps(n):,}; its weights are rounded to nearest"
        for where, n in columns.items()
        if seen.n_steps < least_steps(n)
    ]


def _numbers(indices: IntArray) -> str:
    shown = ", ".join(str(index) for index in indices[:8].tolist())
    return shown if indices.size <= 8 else f"{shown} and {indices.size - 8} more"
