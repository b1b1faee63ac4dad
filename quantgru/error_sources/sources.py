"""Sources of error: the float model with one of its parts as the integer model has it, and all else in float."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from quantgru.array_types import FloatArray
from quantgru.error_sources.rounding import DeviceState, device_activation, device_functions
from quantgru.int_model import IntDense, IntGru, IntModel, Matrix
from quantgru.int_model.packing import least_code_bits, section_codes, section_of
from quantgru.int_model.row_parameters import bias_bytes, scale_bytes
from quantgru.model import Bidirectional, Dense, FloatModel, Gate, Gru, Layer
from quantgru.model.run import NOTHING_REPLACED, Replaced
from quantgru.quantizer.calibrate import Calibration, DenseStatistics
from quantgru.quantizer.compensation import GruCompensation
from quantgru.simulator import SimulationResult


@dataclass(frozen=True, eq=False)
class Source:
    """One part of a model.

    name           of a weight tensor, as `weight_bits` names it
    model          the float model, with this part as in the integer model
    flash_bytes    of the part; None for what is no constant
    replaced       what a run of `model` computes as a device does, made for each run: states have residuals
    rounds_inputs  whether the run gets inputs as the device does
    saturated      how many values of the part saturated in a run of the integer model; None for what cannot
    """

    name: str
    model: FloatModel
    flash_bytes: int | None = None
    replaced: Callable[[], Replaced] = lambda: NOTHING_REPLACED
    rounds_inputs: bool = False
    saturated: Callable[[SimulationResult], int] | None = None


def n_sources(model: IntModel) -> int:
    """How many `sources` and `whole_layers` give."""
    return 1 + 10 * len(model.grus) + 4 * len(model.dense)


def sources(
    int_model: IntModel,
    floats: FloatModel,
    meant: FloatModel,
    seen: Calibration,
    compensations: Sequence[GruCompensation],
) -> Iterator[Source]:
    """All of them, in the order of the model; `floats` and `meant` are counterparts, `seen` is of `floats`.

    compensations  of each GRU layer of `floats`
    """
    yield _first(int_model, floats, meant)
    for number, gru in enumerate(int_model.grus):
        pair = floats.grus[number], meant.grus[number]
        matrices = {"W": gru.input, "U": gru.recurrent}
        sizes = {name: _tensor_bytes(int_model, matrix, gru.n_units) for name, matrix in matrices.items()}
        sizes["biases"] = [bias_bytes(int_model, gru)]
        for name, layer, n_bytes in _gru_tensors(*pair, compensations[number], sizes):
            yield Source(f"{gru.name}{name}", _with(floats, pair[0], layer), n_bytes)
        yield from _gru_arithmetic(floats, pair[1], gru, number)
    for number, dense in enumerate(int_model.dense):
        (size,) = _tensor_bytes(int_model, dense.matrix, dense.n_outputs)
        yield from _of_dense(floats, meant.dense[number], dense, number, seen.dense[number], size)


def whole_layers(int_model: IntModel, floats: FloatModel, meant: FloatModel) -> Iterator[Source]:
    """Of each layer all weights and biases at once."""
    of_device: list[IntGru | IntDense] = [*int_model.grus, *int_model.dense]
    exact: list[Layer] = [*floats.grus, *floats.dense]
    rounded: list[Layer] = [*meant.grus, *meant.dense]
    for layer, of_integers, integers in zip(exact, rounded, of_device, strict=True):
        yield Source(
            f"{integers.name}, all weights", _with(floats, layer, of_integers), _layer_bytes(int_model, integers)
        )


def _layer_bytes(model: IntModel, layer: IntGru | IntDense) -> int:
    if isinstance(layer, IntDense):
        return sum(_tensor_bytes(model, layer.matrix, layer.n_outputs)) + layer.bias.nbytes
    tensors = (
        size for matrix in (layer.input, layer.recurrent) for size in _tensor_bytes(model, matrix, layer.n_units)
    )
    h0 = 0 if layer.initial_state is None else layer.initial_state.nbytes
    return sum(tensors) + bias_bytes(model, layer) + h0


def _first(int_model: IntModel, floats: FloatModel, meant: FloatModel) -> Source:
    """Inputs, or the embedding: token numbers are exact."""
    if int_model.embedding is None or floats.embedding is None or meant.embedding is None:
        n_bytes = int_model.input_fraction_bits.nbytes
        return Source(
            "inputs", floats, n_bytes, rounds_inputs=True, saturated=lambda run: int(run.clipped_inputs.sum())
        )
    codes = replace(floats.embedding, vectors=meant.embedding.vectors)
    return Source(codes.name, _with(floats, floats.embedding, codes), int_model.embedding.codes.nbytes)


def _gru_tensors(
    floats: Gru, meant: Gru, compensation: GruCompensation, sizes: dict[str, list[int]]
) -> Iterator[tuple[str, Gru, int]]:
    """End of the name, the layer with this tensor alone as integers, and its bytes.

    A weight tensor comes with what weights of U take over of it, and what biases take back.
    """
    lost_w = floats.input_weights - meant.input_weights
    taken_over = compensation.recurrent_change(lost_w)
    lost_u = floats.recurrent_weights + taken_over - meant.recurrent_weights
    rest = floats  # that biases are of, of all tensors so far
    for matrix, (of_w, of_u) in {"W": (lost_w, -taken_over), "U": (np.zeros_like(lost_w), lost_u)}.items():
        for gate in Gate:
            lost = np.zeros((3, floats.n_units, floats.n_inputs + floats.n_units))
            lost[gate] = np.concatenate((of_w[gate], of_u[gate]), axis=1)
            yield f".{matrix}.{gate.name.lower()}", _with_errors(floats, lost, compensation), sizes[matrix][gate]
            rest = _with_errors(rest, lost, compensation)
    biases = {
        name: getattr(floats, name) + getattr(meant, name) - getattr(rest, name) for name in ("bias", "recurrent_bias")
    }
    yield ", biases", replace(floats, **biases), sizes["biases"][0]


def _with_errors(layer: Gru, lost: FloatArray, compensation: GruCompensation) -> Gru:
    """Weights without `lost` [gates, units, inputs + units], and biases that make up for that."""
    of_w, of_u = np.split(lost, [layer.n_inputs], axis=2)
    return replace(
        layer,
        input_weights=layer.input_weights - of_w,
        recurrent_weights=layer.recurrent_weights - of_u,
        bias=layer.bias + compensation.bias_change(lost),
        recurrent_bias=layer.recurrent_bias + compensation.recurrent_bias_change(lost),
    )


def _gru_arithmetic(floats: FloatModel, meant: Gru, of_device: IntGru, number: int) -> Iterator[Source]:
    """Functions and states of a layer."""
    functions = {number: device_functions(of_device)}
    yield Source(f"{of_device.name}, functions", floats, replaced=lambda: Replaced(functions))
    start = replace(floats.grus[number], initial_state=meant.initial_state)
    h0 = of_device.initial_state
    yield Source(
        f"{of_device.name}, state",
        _with(floats, floats.grus[number], start),
        None if h0 is None else h0.nbytes,
        lambda: Replaced({number: DeviceState(of_device).cell()}),
        saturated=lambda run: run.saturated_states[number],
    )


def _of_dense(
    floats: FloatModel, meant: Dense, of_device: IntDense, number: int, seen: DenseStatistics, size: int
) -> Iterator[Source]:
    layer, name = floats.dense[number], of_device.name
    lost = _lost(layer.weights, meant.weights, seen.inputs.mean)
    weights = replace(layer, weights=meant.weights, bias=layer.bias + lost)
    yield Source(name, _with(floats, layer, weights), size)
    biases = replace(layer, bias=meant.bias - lost)
    yield Source(f"{name}, biases", _with(floats, layer, biases), of_device.bias.nbytes)
    activations = {number: device_activation(of_device)}
    yield Source(
        f"{name}, output",
        floats,
        replaced=lambda: Replaced(activations=activations),
        saturated=lambda run: run.saturated_outputs[number],
    )


def _lost(exact: FloatArray, rounded: FloatArray, mean: FloatArray) -> FloatArray:
    """What rounding of weights [rows, columns] takes from each row's mean [rows], and the bias gives back."""
    return np.asarray((exact - rounded) @ mean)


def _tensor_bytes(model: IntModel, matrix: Matrix, section_rows: int) -> list[int]:
    """Codes and scales of each section, a gate or all of a dense layer."""
    least_bits = least_code_bits(model, "auto")
    of_scales = section_rows * scale_bytes(model)
    return [section_of(codes, least_bits).size.n_bytes + of_scales for codes in section_codes(matrix, section_rows)]


def _with(model: FloatModel, old: Layer, new: Layer) -> FloatModel:
    """The model with a layer, or a direction of one, in the place of another."""

    def changed(layer: Layer) -> Layer:
        if isinstance(layer, Bidirectional):
            forward, backward = (new if gru is old else gru for gru in (layer.forward, layer.backward))
            assert isinstance(forward, Gru) and isinstance(backward, Gru)
            return replace(layer, forward=forward, backward=backward)
        return new if layer is old else layer

    return replace(model, layers=tuple(map(changed, model.layers)))
