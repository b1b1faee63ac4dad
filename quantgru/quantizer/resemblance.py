"""Whether the weights of an integer model can be those of a float model, rounded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from quantgru.array_types import FloatArray, IntArray
from quantgru.errors import warn
from quantgru.int_model import IntBidirectional, IntDense, IntGru, IntModel, output_bits
from quantgru.model import FloatModel, Gate

_MOST_CODES: Final = 2.0  # root mean square of a section; rounding by itself was seen to reach 0.6, at 2 to 8 bits
_LEAST_CODES: Final = 0.6  # where weights are smaller than their codes: nearest ones are 0.5 away at most
_SLACK: Final = 1.1  # where the integer model notes larger distances: weights of U make up for errors of W

_Section = tuple[str, FloatArray, FloatArray, FloatArray]  # name, weights, rounded ones, what one code is worth


def codes_away(floats: FloatModel, meant: FloatModel, model: IntModel) -> list[tuple[str, float]]:
    """Each gate of each matrix and each dense layer, and how many codes it is away from `floats`, root mean square.

    `floats` and `meant` are counterparts.
    """
    return [
        (name, float(f"{_root_mean_square((exact - rounded) / one):.3g}"))
        for name, exact, rounded, one in _sections(floats, meant, model)
    ]


def warn_of_another(floats: FloatModel, meant: FloatModel, model: IntModel) -> None:
    """Warns where weights are farther from those of `model` than it notes, and than rounding takes them.

    `floats` and `meant` are counterparts. Distances are in codes, of each gate of each matrix: few, or less than the
    weights themselves where these are no more than that.
    """
    farthest, excess = "", 1.0
    sections = list(_sections(floats, meant, model))
    for (name, exact, rounded, one), noted_codes in zip(sections, _noted(model, len(sections)), strict=True):
        away, size = (_root_mean_square(weights / one) for weights in (exact - rounded, exact))
        found = away / max(min(_MOST_CODES, max(_LEAST_CODES, size)), _SLACK * noted_codes)
        if found > excess:
            farthest, excess = f"{name} is {away:.3g} codes away from it (root mean square)", found
    if farthest:
        warn(
            f"float model {floats.name!r} does not look like the one that integer model {model.name!r} was made from: "
            f"{farthest}, which rounding does not explain; give the model that was quantized, with its standardisation"
        )


def _noted(model: IntModel, n_sections: int) -> list[float]:
    """How many codes away each section was when the model was made; 0 where the file says nothing of the kind."""
    try:
        noted = [float(codes) for _, codes in model.notes["codes_away"]]
    except (KeyError, TypeError, ValueError, OverflowError):
        noted = []
    return noted if len(noted) == n_sections else [0.0] * n_sections


def _sections(floats: FloatModel, meant: FloatModel, model: IntModel) -> Iterator[_Section]:
    """Each gate of each matrix, and each dense layer, named as `weight_bits` names it."""
    of_grus, of_dense = _operand_bits(model)
    for gru, bits, exact, rounded in zip(model.grus, of_grus, floats.grus, meant.grus, strict=True):
        state_bits = np.full(gru.n_units, gru.state_fraction_bits)
        for matrix, codes, operand_bits, weights, of_codes in (
            ("W", gru.input, bits, exact.input_weights, rounded.input_weights),
            ("U", gru.recurrent, state_bits, exact.recurrent_weights, rounded.recurrent_weights),
        ):
            one = np.outer(codes.row_scales(gru.row_bits), np.exp2(operand_bits)).reshape(weights.shape)
            for gate in Gate:
                yield f"{gru.name}.{matrix}.{gate.name.lower()}", weights[gate], of_codes[gate], one[gate]
    for dense, bits, layer, of_integers in zip(model.dense, of_dense, floats.dense, meant.dense, strict=True):
        of_rows = dense.matrix.row_scales(np.full(dense.n_outputs, dense.row_bits))
        yield dense.name, layer.weights, of_integers.weights, np.outer(of_rows, np.exp2(bits))


def _operand_bits(model: IntModel) -> tuple[list[IntArray], list[IntArray]]:
    """Fraction bits of what is read [inputs], by each GRU layer and by each dense layer."""
    of_grus: list[IntArray] = []
    of_dense: list[IntArray] = []
    bits = model.input_fraction_bits.astype(np.int64)
    for layer in model.layers:
        match layer:
            case IntGru():
                of_grus.append(bits)
            case IntBidirectional():
                of_grus += [bits, bits]
            case IntDense():
                of_dense.append(bits)
        bits = output_bits(layer, bits)
    return of_grus, of_dense


def _root_mean_square(values: FloatArray) -> float:
    return float(np.sqrt((values**2).mean()))
