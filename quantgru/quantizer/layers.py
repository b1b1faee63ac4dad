"""Float model and calibration data to an integer model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from quantgru.errors import DataError, ModelError
from quantgru.fixed import MAX_FRACTION_BITS, PRE_ACTIVATION, STATE
from quantgru.int_model import IntDense, IntGru, IntLayer, IntModel, SelfTest
from quantgru.int_model import Matrix
from quantgru.model import Dense, FloatModel, Gru
from quantgru.quantizer.calibrate import Calibration, DenseStatistics, GruStatistics, calibrate
from quantgru.quantizer.dequantize import real_weights
from quantgru.quantizer.formats import LARGEST_VALUE, input_fraction_bits, output_fraction_bits
from quantgru.quantizer.standardisation import fold_standardisation
from quantgru.quantizer.weights import quantize_bias, quantize_rows
from quantgru.sequences import Sequences, SequencesLike, as_sequences
from quantgru.simulator.batch import run, step_check

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_SELFTEST_STEPS = 8
_FAINTEST_PEAK = 2.0 ** (7 - MAX_FRACTION_BITS)  # below, an input has fewer than 8 bits even in the finest format
_MOST_EXTREME = 0.9  # of all gates at the ends of their range: no trained model works there
_SLOWEST_UPDATE = 16  # of 2^15: a unit whose u stays below moves by the residual alone


def quantize(
    model: FloatModel,
    calibration: SequencesLike | Sequences,
    *,
    mean: npt.ArrayLike | None = None,
    scale: npt.ArrayLike | None = None,
    name: str | None = None,
    input_units: Sequence[str] = (),
    output_units: Sequence[str] = (),
) -> IntModel:
    """The integer model of `model`, with formats chosen on calibration data [sequences, steps, inputs].

    With mean and scale [inputs], `model` was trained on (x - mean) / scale; they are folded into the weights, and x,
    here and on the device, is in its own units. Units are texts for reports and exported headers, such as "deg/s", one
    for each input or output.

    Raises DataError for unusable data, ModelError for weights that no fixed-point accumulator can hold.
    """
    if not isinstance(model, FloatModel):
        raise ModelError(
            f"quantize: a model of type {type(model).__name__}, expected a FloatModel; qg.load(model) makes one"
        )
    sequences = as_sequences(calibration, "calibration data", model.n_inputs)
    _check_range(sequences)
    folded = fold_standardisation(model, mean, scale)
    seen = calibrate(folded, sequences)
    first = folded.grus[0]
    rows = first.input_weights.reshape(-1, first.n_inputs)
    fraction_bits = input_fraction_bits(seen.input_min, seen.input_max, seen.input_deviation, rows)
    int_model = IntModel(
        _layers(folded, seen, fraction_bits),
        fraction_bits.astype(np.int8),
        model.last_step,
        SelfTest(np.zeros((1, model.n_inputs), np.int16), 0),
        name or model.name,
        _notes(folded, seen, fraction_bits),
        input_units,  # the model checks them, and makes them tuples
        output_units,
    )
    first_steps = sequences.values[:1, : min(_SELFTEST_STEPS, int(sequences.lengths[0]))]
    return replace(int_model, selftest=_selftest(int_model, first_steps))


def _layers(model: FloatModel, seen: Calibration, operand_bits: IntArray) -> tuple[IntLayer, ...]:
    """Integer layers, each on the format that the one before it puts out; operand_bits are those of the inputs."""
    layers: list[IntLayer] = []
    for gru, gru_seen in zip(model.grus, seen.grus, strict=True):
        layers.append(_gru(gru, operand_bits, gru_seen))
        operand_bits = np.full(gru.n_units, STATE.fraction_bits)
    for dense, dense_seen in zip(model.head, seen.head, strict=True):
        layer = _dense(dense, operand_bits, dense_seen)
        layers.append(layer)
        operand_bits = np.full(layer.n_outputs, layer.output_fraction_bits)
    return tuple(layers)


def _check_range(sequences: Sequences) -> None:
    peaks = np.abs(sequences.rows()).max(axis=0)
    feature = int(peaks.argmax())
    if peaks[feature] > LARGEST_VALUE:
        raise DataError(
            f"calibration data: feature {feature} reaches {peaks[feature]:.3g}, a 16-bit input at most "
            f"{LARGEST_VALUE:.3g}; scale the inputs"
        )
    if peaks[feature] < _FAINTEST_PEAK:
        raise DataError(
            f"calibration data: no value is larger than {peaks[feature]:.3g}, which says nothing about the ranges of "
            "the inputs; give sequences as the device will see them, and scale inputs as small as this"
        )


def _rows(
    weights: FloatArray, operand_bits: IntArray, result_bits: int, operand_means: FloatArray, where: str
) -> tuple[Matrix, FloatArray]:
    """Integer rows, and what their rounding takes from each row's mean [rows]: the bias must give it back.

    Without that, a rounding error of a weight acts on the mean of its operand, too, which may be far larger than its
    deviation: a temperature in kelvin. operand_means is [columns], or [rows, columns] where it depends on the row.
    """
    matrix = quantize_rows(np.ldexp(weights, -operand_bits), result_bits, where)
    lost = weights - real_weights(matrix, operand_bits, result_bits)
    return matrix, (lost * operand_means).sum(axis=1)


def _gru(layer: Gru, operand_bits: IntArray, seen: GruStatistics) -> IntGru:
    bits = PRE_ACTIVATION.fraction_bits
    units = layer.n_units
    where = f"GRU layer {layer.name!r}"
    weights = layer.input_weights.reshape(-1, layer.n_inputs)
    w, from_x = _rows(weights, operand_bits, bits, seen.input_mean, f"{where}, W")
    recurrent = layer.recurrent_weights.reshape(-1, units)
    means = np.repeat(seen.recurrent_means, units, axis=0)
    u, from_h = _rows(recurrent, np.full(units, STATE.fraction_bits), bits, means, f"{where}, U")
    bias = layer.bias.reshape(-1) + from_x
    recurrent_bias = np.zeros(0)
    if layer.reset == "after":  # what U_n loses is inside the reset product, like c
        recurrent_bias = layer.recurrent_bias + from_h[2 * units :]
        from_h[2 * units :] = 0.0
    return IntGru(
        layer.name,
        layer.reset,
        w,
        u,
        quantize_bias(bias + from_h, bits, where),
        quantize_bias(recurrent_bias, bits, where),
    )


def _dense(layer: Dense, operand_bits: IntArray, seen: DenseStatistics) -> IntDense:
    where = f"dense layer {layer.name!r}"
    output_bits = STATE.fraction_bits
    row_bits = PRE_ACTIVATION.fraction_bits
    if layer.activation in ("linear", "relu"):
        output_bits = row_bits = _output_format(layer, operand_bits, seen.peak)
    matrix, lost = _rows(layer.weights, operand_bits, row_bits, seen.input_mean, where)
    return IntDense(
        layer.name, layer.activation, matrix, quantize_bias(layer.bias + lost, row_bits, where), output_bits
    )


def _output_format(layer: Dense, operand_bits: IntArray, peak: float) -> int:
    if peak == 0:  # nothing to go by: room for all that the operands' range allows
        peak = float((np.ldexp(np.abs(layer.weights), 15 - operand_bits).sum(axis=1) + np.abs(layer.bias)).max()) / 2
    if not 2 * peak <= LARGEST_VALUE:
        raise ModelError(
            f"dense layer {layer.name!r}: outputs up to {peak:.3g}, allowed are {LARGEST_VALUE / 2:.3g}: "
            "what a 16-bit output holds, with room for twice as much; check the weights"
        )
    return output_fraction_bits(peak)


def _selftest(model: IntModel, x: FloatArray) -> SelfTest:
    result = run(model, x, trace=True, threads=1)
    assert result.trace is not None
    check = 0
    for step in range(x.shape[1]):
        check = step_check(result.trace, 0, step, check)
    return SelfTest(result.inputs_raw[0], check)


def _notes(model: FloatModel, seen: Calibration, fraction_bits: IntArray) -> dict[str, Any]:
    """What reports say about the calibration; JSON values."""
    inputs = [
        {
            "min": float(seen.input_min[i]),
            "max": float(seen.input_max[i]),
            "rms": _noted(seen.input_rms[i]),
            "clips_below": float(np.ldexp(-(2.0**15), -bits)),
            "clips_above": float(np.ldexp(2.0**15 - 1, -bits)),
        }
        for i, bits in enumerate(fraction_bits.tolist())
    ]
    outputs = [
        {"layer": layer.name, "peak": _noted(dense.peak)} for layer, dense in zip(model.head, seen.head, strict=True)
    ]
    return {
        "calibration": {"sequences": seen.n_sequences, "steps": seen.n_steps},
        "inputs": inputs,
        "outputs": outputs,
        "warnings": [
            *_input_warnings(seen),
            *_extreme_warnings(model, seen),
            *_update_warnings(model, seen),
            *_output_warnings(model, seen),
        ],
        "import": list(model.notes),
    }


def _noted(value: float) -> float:
    """Six digits: the last ones of a sum differ from processor to processor, and the file should not."""
    return float(f"{value:.6g}")


def _input_warnings(seen: Calibration) -> list[str]:
    peaks = np.maximum(np.abs(seen.input_min), np.abs(seen.input_max))
    dead, faint = np.flatnonzero(peaks == 0), np.flatnonzero((peaks > 0) & (peaks < _FAINTEST_PEAK))
    warnings = []
    if dead.size:
        warnings.append(f"input {_numbers(dead)}: always 0 in the calibration data; the format is a guess")
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


def _output_warnings(model: FloatModel, seen: Calibration) -> list[str]:
    return [
        f"dense layer {layer.name!r}: always 0 on the calibration data; the format of its output is a guess"
        for layer, dense in zip(model.head, seen.head, strict=True)
        if dense.peak == 0
    ]


def _numbers(indices: IntArray) -> str:
    shown = ", ".join(str(index) for index in indices[:8].tolist())
    return shown if indices.size <= 8 else f"{shown} and {indices.size - 8} more"
