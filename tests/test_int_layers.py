"""Layers of integer models: the smallest that breaks an invariant is refused, the ends of all ranges are taken."""

from dataclasses import replace

import numpy as np
import pytest
from zero_models import (
    NO_INTEGERS,
    NO_NAMES,
    refused,
    zero_bidirectional,
    zero_dense,
    zero_embedding,
    zero_gru,
    zero_matrix,
)

from quantgru.int_model import IntEmbedding, Matrix, Reverse


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("codes", np.zeros((3, 2), np.int32)),
        ("codes", np.zeros((3, 2), np.uint8)),
        ("codes", np.zeros((3, 2), ">i2").astype(">i2")),
        ("codes", np.zeros(6, np.int8)),
        ("codes", np.zeros((3, 2, 1), np.int8)),
        ("codes", np.zeros((0, 2), np.int8)),
        ("codes", np.zeros((3, 0), np.int8)),
        ("codes", np.zeros((1, 65536), np.int8)),
        ("codes", np.zeros((65536, 1), np.int8)),
        ("multipliers", np.full(2, 2**14, np.uint16)),
        ("multipliers", np.full((3, 1), 2**14, np.uint16)),
        ("multipliers", np.full(3, 2**14, np.int16)),
        ("multipliers", np.full(3, 2**14, np.int64)),
        ("multipliers", np.array([2**14, 2**14 - 1, 2**14], np.uint16)),
        ("multipliers", np.array([2**14, 2**14, 2**15], np.uint16)),
        ("shifts", np.ones(2, np.uint8)),
        ("shifts", np.ones(3, np.int8)),
        ("shifts", np.array([1, 0, 1], np.uint8)),
        ("shifts", np.array([1, 31, 1], np.uint8)),
        ("left_shift", -1),
        ("left_shift", 16),
        *[("left_shift", value) for value in NO_INTEGERS],
    ],
)
def test_matrix_refuses(name, value):
    matrix = zero_matrix(3, 2)
    with refused("matrix"):
        replace(matrix, **{name: value})


@pytest.mark.parametrize(
    ("code", "bits"), [(0, 8), (-128, 8), (127, 8), (-129, 16), (128, 16), (-32768, 16), (32767, 16)]
)
def test_codes_are_int16_where_one_needs_it(code, bits):
    matrix = replace(zero_matrix(2, 1), codes=np.array([[0], [code]], np.int16))
    assert (matrix.codes.dtype, matrix.bits) == ({8: np.int8, 16: np.int16}[bits], bits)
    assert matrix.codes.tolist() == [[0], [code]]


def test_matrix_takes_the_ends_of_all_ranges():
    matrix = Matrix(
        np.array([[-128], [127]], np.int8),
        np.array([2**14, 2**15 - 1], np.uint16),
        np.array([1, 30], np.uint8),
        left_shift=15,
    )
    assert (matrix.n_rows, matrix.n_columns) == (2, 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"reset": "middle"},
        {"reset": 0},
        {"reset": None},
        {"reset": "before"},  # has a recurrent bias
        {"input": zero_matrix(2, 2)},
        {"recurrent": zero_matrix(3, 2)},
        {"recurrent": zero_matrix(4, 1)},
        {"recurrent": zero_matrix(6, 2)},
        {"bias": np.zeros(2, np.int32)},
        {"bias": np.zeros(3, np.int64)},
        {"bias": np.zeros(3, np.float32)},
        {"recurrent_bias": np.zeros(0, np.int32)},
        {"recurrent_bias": np.zeros(1, np.int16)},
        *[{"name": name} for name in NO_NAMES],
        *[{"gate": gate} for gate in ("relu", "tanh", "", 0, None, ["sigmoid"])],
        *[{"candidate": candidate} for candidate in ("softsign", "hard_sigmoid", 1, None)],
        *[{"state_fraction_bits": bits} for bits in (16, -16, *NO_INTEGERS)],
        *[{"state_fraction_bits": 16, "candidate": candidate} for candidate in ("sigmoid", "hard_tanh")],
        *[{"state_fraction_bits": bits, "candidate": "relu"} for bits in (32, -32)],
        *[{"state_fraction_bits": bits, "candidate": "linear"} for bits in (32, -32)],
        {"initial_state": np.zeros(2, np.int16)},
        {"initial_state": np.zeros((1, 1), np.int16)},
        {"initial_state": np.zeros(1, np.int32)},
        {"initial_state": np.zeros(1)},
        {"initial_state": [0]},
    ],
)
def test_gru_layer_refuses(changes):
    layer = zero_gru()
    with refused():
        replace(layer, **changes)


@pytest.mark.parametrize(
    ("candidate", "most", "candidate_bits", "shifts"),
    [  # fraction bits of the pre-activation, and shifts to the state's format, at both ends: R19
        ("tanh", 15, (14, 14), (30, 0)),
        ("sigmoid", 15, (14, 14), (30, 0)),
        ("hard_tanh", 15, (15, 15), (30, 0)),
        ("relu", 31, (-31, 31), (0, 0)),
        ("linear", 31, (-31, 31), (0, 0)),
    ],
)
def test_formats_of_candidates_at_the_ends_of_their_ranges(candidate, most, candidate_bits, shifts):
    for bits, of_rows, shift in zip((-most, most), candidate_bits, shifts, strict=True):
        layer = zero_gru(candidate=candidate, state_fraction_bits=bits, initial_state=np.array([-(2**15)], np.int16))
        assert (layer.candidate_bits, layer.state_shift) == (of_rows, shift)


@pytest.mark.parametrize(("gate", "bits"), [("sigmoid", 14), ("hard_sigmoid", 15)])
def test_formats_of_rows(gate, bits):
    layer = zero_gru(units=2, gate=gate, candidate="relu", state_fraction_bits=-3)
    assert layer.row_bits.tolist() == [bits] * 4 + [-3] * 2


def test_an_initial_state_of_zeros_is_none():
    for zeros in (None, np.zeros(3, np.int16)):
        layer = zero_gru(units=3, initial_state=zeros)
        assert layer.initial_state is None and layer.h0.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    "changes",
    [
        {"merge": "max"},
        {"merge": 0},
        {"merge": None},
        {"forward": zero_gru(units=2)},
        {"backward": zero_gru(n_inputs=3)},
        {"backward": zero_gru(state_fraction_bits=14)},
        *[{"final": value} for value in (0, 1, None, "yes")],
        *[{"name": name} for name in NO_NAMES],
    ],
)
def test_bidirectional_layer_refuses(changes):
    layer = zero_bidirectional()
    with refused("bidirectional layer"):
        replace(layer, **changes)


@pytest.mark.parametrize(
    ("merge", "low", "high", "outputs"),
    [  # fraction bits of the states, and what the smallest and the largest merge to: R23, P3
        ("concat", -31, 31, (-31, 31)),
        ("sum", -30, 31, (-31, 30)),
        ("ave", -31, 31, (-31, 31)),
        ("mul", -8, 23, (-31, 31)),
    ],
)
def test_formats_that_can_be_merged(merge, low, high, outputs):
    def layer(bits):
        gru = zero_gru(candidate="linear", state_fraction_bits=bits)
        return zero_bidirectional(merge=merge, forward=gru, backward=gru)

    assert tuple(layer(bits).output_fraction_bits for bits in (low, high)) == outputs
    for bits in {low - 1, high + 1} & set(range(-31, 32)):
        with refused(r"allowed are -31 \.\.\. 31"):
            layer(bits)


@pytest.mark.parametrize("name", NO_NAMES)
def test_names_are_texts(name):
    with refused("reverse: name"):
        Reverse(name)
    with refused("embedding: name"):
        IntEmbedding(name, np.zeros((1, 1), np.int8))


@pytest.mark.parametrize(
    "codes",
    [
        np.zeros((2, 2), np.int16),
        np.zeros((2, 2), np.uint8),
        np.zeros((2, 2)),
        np.zeros(2, np.int8),
        np.zeros((1, 2, 1), np.int8),
        np.zeros((0, 2), np.int8),
        np.zeros((2, 0), np.int8),
        np.zeros((32769, 1), np.int8),
        np.zeros((1, 65536), np.int8),
    ],
)
def test_embedding_refuses(codes):
    with refused("embedding 'e': "):
        IntEmbedding("e", codes)


def test_embedding_takes_the_ends_of_all_ranges():
    assert zero_embedding(32768, 1).n_tokens == 32768
    assert zero_embedding(1, 65535).n_outputs == 65535
    assert IntEmbedding("e", np.array([[-128, 127]], np.int8)).n_inputs == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"activation": "softmax"},
        {"activation": 0},
        {"bias": np.zeros(2, np.int32)},
        {"bias": np.zeros(1, np.int16)},
        {"output_fraction_bits": 32},
        {"output_fraction_bits": -32},
        {"activation": "sigmoid", "output_fraction_bits": 14},
        {"activation": "tanh", "output_fraction_bits": 16},
        *[{"output_fraction_bits": value} for value in NO_INTEGERS],
        *[{"name": name} for name in NO_NAMES],
    ],
)
def test_dense_layer_refuses(changes):
    layer = zero_dense()
    with refused():
        replace(layer, **changes)
