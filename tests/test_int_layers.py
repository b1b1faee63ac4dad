"""Layers of integer models: the smallest of each kind that breaks an invariant is refused, the ends of ranges are not."""

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

from quantgru.int_model import IntEmbedding, IntReverse, Matrix

@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("codes", np.zeros((3, 2), np.int16)),
        ("codes", np.zeros((3, 2), np.uint8)),
        ("codes", np.zeros((3, 2), ">i2").astype(">i2")),
        ("codes", np.zeros(6, np.int8)),
        ("codes", np.zeros((3, 2, 1), np.int8)),
        ("codes", np.zeros((0, 2), np.int8)),
        ("codes", np.zeros((3, 0), np.int8)),
        ("codes", np.zeros((1, 65536), np.int8)),
        ("codes", np.zeros((65536, 1), np.int8)),
        ("multiplier", np.full(2, 2**14, np.uint16)),
        ("multiplier", np.full((3, 1), 2**14, np.uint16)),
        ("multiplier", np.full(3, 2**14, np.int16)),
        ("multiplier", np.full(3, 2**14, np.int64)),
        ("multiplier", np.array([2**14, 2**14 - 1, 2**14], np.uint16)),
        ("multiplier", np.array([2**14, 2**14, 2**15], np.uint16)),
        ("shift", np.ones(2, np.uint8)),
        ("shift", np.ones(3, np.int8)),
        ("shift", np.array([1, 0, 1], np.uint8)),
        ("shift", np.array([1, 31, 1], np.uint8)),
        ("left_shift", -1),
        ("left_shift", 16),
        ("bits", 7),
        ("bits", 16),
        *[("left_shift", value) for value in NO_INTEGERS],
        *[("bits", value) for value in (8.0, "8", None, [8])],
    ],
)
def test_matrix_refuses(name, value):
    matrix = zero_matrix(3, 2)
    with refused("matrix"):
        replace(matrix, **{name: value})


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
    ],
)
def test_gru_layer_refuses(changes):
    layer = zero_gru()
    with refused():
        replace(layer, **changes)


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
