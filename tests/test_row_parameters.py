"""Short scales and biases of rows: which numbers can be, where they lie, and what the quantizer makes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from float_models import random_dense, random_gru, random_x
from hypothesis import given
from hypothesis import strategies as st
from packed_models import short_model_of_bytes, short_model_of_widths

import quantgru as qg
from quantgru.demo import digits
from quantgru.errors import ModelError
from quantgru.exporter import to_blob
from quantgru.exporter.files import export_files
from quantgru.int_model import Matrix
from quantgru.int_model.cost import cost, kernel_bytes
from quantgru.int_model.row_parameters import EXACT, SHORT, is_short, short_biases, short_scales
from quantgru.quantizer.rounding import Nearest
from quantgru.quantizer.weights import rows_on_scales, shortened

X = random_x(20, 40, 3)
MODELS = Path(__file__).parent / "models"


def matrix_of(multipliers: list[int], shifts: list[int]) -> Matrix:
    return Matrix(np.ones((len(shifts), 1), np.int8), np.array(multipliers, np.uint16), np.array(shifts, np.uint8))


def test_a_short_scale_by_hand() -> None:
    """32 steps an octave: 2^14 + 512 n, and 32 for each shift above the least."""
    short = short_scales(matrix_of([2**14, 2**14 + 512, 2**15 - 512, 2**14 + 5 * 512], [9, 9, 10, 16]))
    assert short is not None
    assert (short.scales.tolist(), short.first_shift) == ([0, 1, 32 + 31, 7 * 32 + 5], 9)


@pytest.mark.parametrize(
    ("multipliers", "shifts"), [([2**14 + 256] * 2, [9, 9]), ([2**14 + 1] * 2, [9, 9]), ([2**14] * 2, [9, 17])]
)
def test_scales_that_are_not_short(multipliers: list[int], shifts: list[int]) -> None:
    assert short_scales(matrix_of(multipliers, shifts)) is None


@given(st.lists(st.tuples(st.integers(0, 31), st.integers(0, 7)), min_size=1), st.integers(1, 23))
def test_a_byte_stands_for_its_scale(rows: list[tuple[int, int]], least: int) -> None:
    multipliers, shifts = [2**14 + 512 * step for step, _ in rows], [least + above for _, above in rows]
    short = short_scales(matrix_of(multipliers, shifts))
    assert short is not None
    assert [(32 + b % 32) << 9 for b in short.scales.tolist()] == multipliers
    assert [short.first_shift + b // 32 for b in short.scales.tolist()] == shifts


@pytest.mark.parametrize(
    ("biases", "expected"),
    [
        ([32767, -32768, 1], [32767, -32768, 1]),
        ([32768, 3, -3, 1], [32768, 4, -2, 2]),  # multiples of 2; ties go up
        ([65535, 1], [65534, 2]),  # 32768 steps of 2 are one too many
        ([-65537, 2], [-65536, 4]),  # -16384.25 and 0.5 steps of 4
        ([2**31 - 2**14, 2**15], [2**31 - 2**16, 2**16]),
    ],
)
def test_short_biases_by_hand(biases: list[int], expected: list[int]) -> None:
    assert shortened(np.array(biases, np.int32)).tolist() == expected


@given(st.lists(st.integers(-(2**30), 2**30), min_size=9, max_size=9), st.integers(0, 16))
def test_biases_that_were_shortened_are_short(values: list[int], shift: int) -> None:
    biases = shortened(np.array([value >> shift for value in values], np.int32))
    gru = replace(short_model_of_bytes().grus[1], bias=np.resize(biases, 27), recurrent_bias=np.zeros(0, np.int32))
    short = short_biases(gru)
    assert short is not None
    assert (short.bias.astype(np.int64) << short.shift == gru.bias).all()


def test_rows_are_on_the_next_larger_short_scale() -> None:
    """1.5 octaves in steps of 1/32 of an octave's lower end; the last two have no weights to speak of."""
    scale = np.array([1.0, 1.001, 1.5, 0.5 * (1 + 31 / 32) + 1e-9, 2.0**-20, 0.0])
    matrix = rows_on_scales(np.zeros((6, 2)), scale, 0, [Nearest(8)], "rows", SHORT)
    expected = [1.0, 1 + 1 / 32, 1.5, 1.0, 2.0**-7, 2.0**-7]
    np.testing.assert_array_equal(matrix.row_scales(0), expected)
    dead = rows_on_scales(np.zeros((2, 2)), np.zeros(2), 0, [Nearest(8)], "rows", SHORT)
    assert dead.shifts.tolist() == [30, 30]  # nothing is less
    exact = rows_on_scales(np.zeros((6, 2)), scale, 0, [Nearest(8)], "rows", EXACT)
    assert 1.001 <= exact.row_scales(0)[1] <= 1.001 * (1 + 2**-14)


@pytest.mark.parametrize("rounding", ["compensated", "nearest"])
@pytest.mark.parametrize("reset", ["after", "before"])
def test_what_is_quantized_short_is_exported_short(rounding, reset: str) -> None:
    rng = np.random.default_rng(2)
    model = qg.FloatModel((random_gru(rng, 3, 16, reset, "gru"), random_dense(rng, 16, 4, "linear", "out")), False)
    exact, short = (qg.quantize(model, X, rounding=rounding, row_parameters=name) for name in ("exact", "short"))
    assert (is_short(exact), is_short(short)) == (False, True)
    n_biases = 3 * 16 + (16 if reset == "after" else 0)
    assert cost(exact).constant_bytes - cost(short).constant_bytes == 2 * (2 * 48 + 4) + 2 * n_biases
    assert kernel_bytes(exact) == 0 < kernel_bytes(short)
    exact_error, short_error = (np.std(qg.simulate(each, X) - model.run(X)) for each in (exact, short))
    assert short_error < 2 * exact_error  # the same within noise
    assert not np.array_equal(qg.simulate(exact, X), qg.simulate(short, X))


def test_the_exporter_decides_by_the_numbers() -> None:
    model = short_model_of_widths()
    text = export_files(model, "small", packing="always")["small.c"]
    assert text.count("NULL, gru") == 4  # no multipliers
    assert "qg_gru_reset_after_short" in text and "qg_affine_packed_short" in text and "int32_t gru" not in text
    gru = model.grus[0]
    other = replace(gru, bias=gru.bias + np.eye(1, gru.bias.size, dtype=np.int32)[0])
    text = export_files(replace(model, layers=(other, *model.layers[1:])), "large", packing="always")["large.c"]
    assert "NULL, gru" not in text and "_short," not in text and " int16_t gru" not in text


def test_a_blob_has_exact_ones() -> None:
    model = short_model_of_bytes()
    assert model.grus[0].input.multipliers.astype("<u2").tobytes() in to_blob(model)
    assert model.grus[0].bias.astype("<i4").tobytes() in to_blob(model)


def test_another_name_is_refused() -> None:
    model = qg.FloatModel((random_gru(np.random.default_rng(2), 3, 4),), False)
    with pytest.raises(ModelError, match=r"^quantize: row parameters 'brief', allowed are exact and short$"):
        qg.quantize(model, X, row_parameters="brief")


# ---- bits that rows lose -------------------------------------------------------------------------------------------


def model_of_candidates(candidate_weights: list[float], candidate: str = "linear") -> qg.FloatModel:
    """A unit for each weight, on one input; other weights are 1. A bias makes linear candidates as large as 60: their
    format has 8 fraction bits then, and that of gates has 14."""
    n = len(candidate_weights)
    weights, bias = np.ones((3, n, 1)), np.zeros((3, n))
    weights[2, :, 0] = candidate_weights
    bias[2] = 60 if candidate == "linear" else 0.1
    gru = qg.Gru("gru", "after", weights, np.zeros((3, n, n)), bias, np.zeros(n), candidate=candidate)
    return qg.FloatModel((gru,), last_step=False)


def lost(model: qg.FloatModel, bits: int = 8, row_parameters: str = "short") -> list[str]:
    x = np.linspace(-1, 1, 200).reshape(2, 100, 1)
    warnings = qg.quantize(model, x, weight_bits=bits, row_parameters=row_parameters).notes["warnings"]
    return [text for text in warnings if "octaves" in text]


@pytest.mark.parametrize(("asked", "found"), [(8, 5), (7, 4)])
def test_a_gate_that_loses_bits_is_warned_of(asked: int, found: int) -> None:
    """Formats are 2^6 apart and weights 2^5, of which scales bridge 2^7: 2^4 are missing, and 128 / 2^4 is 8."""
    model = model_of_candidates([2.0**-5, -(2.0**-5)])
    (warning,) = lost(model, asked)
    assert warning == (
        f"GRU layer 'gru', W, gate n: codes of 2 of 2 rows have {found - 1} ... {found} of the {asked} bits asked for: "
        "short scales of a matrix lie within 8 octaves, and other rows have larger ones; use exact row parameters "
        "(--row-parameters exact)"
    )
    assert lost(model, asked, "exact") == []


def test_a_row_of_which_nothing_is_left_has_lost_its_bits_also_with_two() -> None:
    (warning,) = lost(model_of_candidates([2.0**-5] * 4), bits=2)
    assert "codes of 4 of 4 rows are 0: " in warning


@pytest.mark.parametrize(("small", "warned"), [(0, 0), (1, 0), (2, 1)])
def test_a_quarter_of_the_rows_is_warned_of(small: int, warned: int) -> None:
    assert len(lost(model_of_candidates([2.0**-5] * small + [1.0] * (8 - small)))) == warned


@pytest.mark.parametrize(
    "model",
    [
        model_of_candidates([0.0] * 4),  # nothing to lose
        model_of_candidates([1.0] + [1e-9] * 3),
        model_of_candidates([2.0**-5] * 4, "tanh"),  # one format for all: within the range
        model_of_candidates([2.0**-1] * 4),
    ],
)
def test_rows_that_lose_nothing(model: qg.FloatModel) -> None:
    assert lost(model) == []


def test_outputs_that_lose_bits() -> None:
    """Of a head, which has one format: 2^-10 is 2^2 or 2^3 beyond the range."""
    gru = random_gru(np.random.default_rng(1), 1, 4)
    weights = np.ones((2, 4)) * [[1.0], [2.0**-10]]
    (warning,) = lost(qg.FloatModel((gru, qg.Dense("head", weights, np.zeros(2))), last_step=False))
    assert warning.startswith("dense layer 'head': codes of 1 of 2 rows have 6 of the 8 bits asked for")


@pytest.mark.parametrize("bits", [8, 3])
def test_trained_models_lose_nothing(bits: int) -> None:
    for name in ("keras3/relu", "keras3/linear", "keras3/hard_sigmoid", "stack"):
        with np.load(MODELS / f"{name}.npz") as arrays:
            int_model = qg.quantize(
                qg.load(MODELS / f"{name}.keras"), arrays["x"], weight_bits=bits, row_parameters="short"
            )
        assert not any("bits asked for" in text for text in int_model.notes["warnings"])
    model, calibration, _, _ = digits()
    assert qg.quantize(model, calibration, weight_bits=bits, row_parameters="short").notes["warnings"] == []
