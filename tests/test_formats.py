"""Formats, codes and scales against their definitions in exact fractions."""

from fractions import Fraction

import numpy as np
import oracle
import pytest
from float_models import S32_MAX, half_up, random_x
from hypothesis import example, given
from hypothesis import strategies as st

from quantgru.errors import ModelError
from quantgru.quantizer.formats import input_fraction_bits, largest_fraction_bits, output_fraction_bits
from quantgru.quantizer.rounding import Nearest
from quantgru.quantizer.weights import quantize_bias, quantize_rows

# ---- formats -------------------------------------------------------------------------------------------------------


def fits(value, fraction_bits):
    """Whether a real value is an s16 after rounding [R15]."""
    return -32768 <= half_up(Fraction(value) * Fraction(2) ** fraction_bits) <= 32767


def most_fraction_bits(low, high):
    """By the definition: the largest of -31 ... 31 with which neither end clips."""
    return max(f for f in range(-31, 32) if fits(low, f) and fits(high, f))


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 0.0, 31),
        (-1.0, 0.5, 15),  # -2^15 is an s16
        (-0.5, 1.0, 14),  # 2^15 is not
        (0.0, 32767.0, 0),
        (0.0, 32767.25, 0),
        (0.0, 32767.5, -1),  # the tie goes up, out of range
        (-32768.5, 0.0, 0),  # the tie goes up, into range
        (-32768.75, 0.0, -1),
        (0.0, 32767.0 * 2**31, -31),
        (0.0, 1e-30, 31),
    ],
)
def test_largest_fraction_bits(low, high, expected):
    assert most_fraction_bits(low, high) == expected
    assert int(largest_fraction_bits(low, high)) == expected


ranges = st.floats(-7e13, 7e13) | st.floats(-4, 4) | st.integers(-70000, 70000).map(lambda v: v / 2)


@given(st.lists(st.tuples(ranges, ranges), min_size=1, max_size=5))
def test_largest_fraction_bits_is_its_definition(pairs):
    low, high = np.sort(np.array(pairs), axis=1).T
    expected = [most_fraction_bits(*pair) for pair in zip(low.tolist(), high.tolist(), strict=True)]
    assert largest_fraction_bits(low, high).tolist() == expected


@pytest.mark.parametrize(("peak", "expected"), [(1.0, 13), (0.5, 14), (16384.0, -1), (16383.5, 0), (3.5e13, -31)])
def test_outputs_have_room_for_twice_the_peak(peak, expected):
    assert output_fraction_bits(peak) == expected


@given(
    st.lists(st.tuples(st.floats(-1e13, 1e13), st.floats(-1e-3, 1e3)), min_size=1, max_size=6),
    st.integers(0, 2**32),
)
def test_no_input_clips_on_what_was_seen(pairs, seed):
    low, high = np.sort(np.array(pairs), axis=1).T
    deviation = np.sqrt((low**2 + high**2) / 2)
    bits = input_fraction_bits(low, high, deviation, random_x(6, len(pairs), seed=seed))
    for f, *ends in zip(bits.tolist(), low.tolist(), high.tolist(), strict=True):
        assert all(fits(end, f) for end in ends)


def formats_of(deviation, peak_factor=4.0, weights=None):
    """Fraction bits of features that reach `peak_factor` times their deviation on both sides."""
    peaks = np.asarray(deviation) * peak_factor
    if weights is None:
        weights = random_x(24, len(deviation)) / np.where(np.asarray(deviation) > 0, deviation, 1)
    return input_fraction_bits(-peaks, peaks, np.asarray(deviation), weights)


@pytest.mark.parametrize("spread", [1, 10, 100, 1000])
def test_raw_deviations_are_equal(spread):
    """As equal as powers of two can make them: each within a factor of sqrt(2) of a common level."""
    deviation = np.geomspace(1, spread, 7)
    raw = deviation * 2.0 ** formats_of(deviation)
    assert raw.max() / raw.min() <= 2 * (1 + 1e-9)
    assert 100 < raw.min()


def test_a_feature_without_peaks_does_not_use_its_room():
    """A square wave could have three bits more than its neighbours, and would spoil the scale of their weights."""
    deviation, peaks = np.ones(6), np.array([1.0, 8.0, 8.0, 8.0, 8.0, 8.0])
    bits = input_fraction_bits(-peaks, peaks, deviation, random_x(24, 6))
    assert bits.tolist() == [most_fraction_bits(-8.0, 8.0)] * 6


def test_a_feature_with_a_rare_peak_has_what_its_peak_allows():
    deviation = np.ones(4)
    peaks = np.array([4.0, 4.0, 4.0, 4000.0])
    bits = input_fraction_bits(-peaks, peaks, deviation, random_x(24, 4))
    assert bits[3] == most_fraction_bits(-4000.0, 4000.0) == 3
    assert len(set(bits[:3].tolist())) == 1
    assert bits[0] > 3


def test_dead_features_leave_the_others_alone():
    weights = random_x(24, 3)
    alone = formats_of([1.0, 2.0], weights=weights[:, :2])
    assert formats_of([1.0, 2.0, 0.0], weights=weights)[:2].tolist() == alone.tolist()
    assert formats_of([1.0, 2.0, 0.0], weights=weights)[2] in range(-31, 32)


def test_the_size_of_the_weights_does_not_choose_the_format():
    weights = random_x(24, 3)
    expected = formats_of([1.0, 2.0, 9.0], weights=weights).tolist()
    for factor in (0.0, 1e-290, 2.0**-40, 2.0**40, 1e290):
        found = formats_of([1.0, 2.0, 9.0], weights=weights * factor).tolist()
        assert found == expected or factor == 0.0


# ---- weights -------------------------------------------------------------------------------------------------------


def row_scale(matrix, row, fraction_bits):
    """The real value of one code times one raw operand, as the device computes it [R4]."""
    exponent = matrix.left_shift - 16 - int(matrix.shifts[row]) - fraction_bits
    return int(matrix.multipliers[row]) * Fraction(2) ** exponent


def check_rows(weights, fraction_bits, matrix):
    """Codes are nearest for the device's scale, every sum is proved, no scale is larger than it must be."""
    k = matrix.left_shift
    assert k == 0 or min(matrix.shifts.tolist()) == 1
    for row, (codes, values) in enumerate(zip(matrix.codes.tolist(), weights.tolist(), strict=True)):
        scale = row_scale(matrix, row, fraction_bits)
        for code, value in zip(codes, values, strict=True):
            assert abs(Fraction(value) / scale - code) <= Fraction(1, 2) + Fraction(1, 2**40)
        assert oracle.accumulator_bound(codes) << k <= S32_MAX
        largest_step = max(Fraction(max(values)) / 127, -Fraction(min(values)) / 128)
        nearly_dead = int(matrix.shifts[row]) == 30 and int(matrix.multipliers[row]) == 2**14
        full_sum = sum(abs(Fraction(value)) for value in values) / largest_step if largest_step else 0
        assert scale >= largest_step
        bounded = (full_sum + Fraction(len(values), 2)) * 2 ** (15 + k) > 2**31
        if not (nearly_dead or bounded):
            assert scale <= largest_step * (1 + Fraction(1, 2**14)), "15 bits of multiplier come closer"
            assert max(codes) == 127 or min(codes) == -128, "the range of the codes is not used"


@st.composite
def weight_matrices(draw):
    """Rows of very different scales, some of zeros, some of few values."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows, columns = draw(st.integers(1, 6)), draw(st.sampled_from([1, 2, 3, 8, 40, 600]))
    exponents = draw(st.lists(st.integers(-60, -14), min_size=rows, max_size=rows))
    kind = draw(st.sampled_from(["normal", "positive", "negative", "equal", "sparse"]))
    values = rng.normal(size=(rows, columns))
    if kind in ("positive", "negative"):
        values = np.abs(values) * (1 if kind == "positive" else -1)
    elif kind == "equal":
        values = np.sign(values)
    elif kind == "sparse":
        values *= rng.random((rows, columns)) < 0.2
    return np.ldexp(values, np.array(exponents)[:, None])


@given(weight_matrices(), st.sampled_from([14, 15, 3, 20, -2]))
@example(np.zeros((2, 3)), 14)
@example(np.array([[80.0, 3.0], [1.4e-11, 0.7e-11]]) * [[2.0**-12], [1.0]], 14)  # k > 0, and a row that needs s > 30
@example(np.full((2, 1366), 1e-6), 14)  # codes of 46.5 round up all together
@example(np.full((1, 5000), -1e-6), 14)
@example(np.array([[5e-324, -5e-324], [1e-5, 2e-5]]), 14)
def test_rows_are_their_nearest_codes(weights, fraction_bits):
    try:
        matrix = quantize_rows(weights, fraction_bits, [Nearest(8)], "W")
    except ModelError:  # only what is out of reach
        assert np.abs(weights).sum(axis=1).max() > 2.0 ** (28 - 15 - fraction_bits) * 0.98
        return
    check_rows(weights, fraction_bits, matrix)


def test_zero_rows():
    matrix = quantize_rows(np.zeros((2, 3)), 14, [Nearest(8)], "W")
    assert (matrix.codes.tolist(), matrix.left_shift) == ([[0] * 3] * 2, 0)


def test_the_negative_end_is_used():
    """-1 is code -128, where 0.9 would have been 115 with a symmetric range of 127."""
    matrix = quantize_rows(np.array([[-1.0, 0.9]]) * 2.0**-15, 14, [Nearest(8)], "W")
    assert matrix.codes.tolist() == [[-128, 115]]
    assert row_scale(matrix, 0, 14) == Fraction(1, 128 * 2**15)
    assert quantize_rows(np.array([[1.0, -0.9]]) * 2.0**-15, 14, [Nearest(8)], "W").codes.tolist() == [[127, -114]]


def test_rows_of_very_different_scales():
    weights = np.array([[100.0, -30.0], [0.9e-3, 2e-3], [1e-6, -1e-7]]) * 2.0**-15
    matrix = quantize_rows(weights, 14, [Nearest(8)], "W")
    assert matrix.left_shift > 0
    assert matrix.codes[:, 0].tolist() == [127, 57, 127]
    check_rows(weights, 14, matrix)


@pytest.mark.parametrize("n_columns", [516, 517, 700, 1366, 1395, 20_000])
def test_long_rows_at_full_scale_have_larger_scales(n_columns):
    """516 codes of 127 fit (R4, P1); beyond, the sum decides. No more than 2 % of it is given away."""
    weights = np.tile([1e-6, -1e-6], n_columns)[None, :n_columns]
    matrix = quantize_rows(weights, 14, [Nearest(8)], "W")
    bound = oracle.accumulator_bound(matrix.codes[0].tolist())
    assert bound <= S32_MAX
    check_rows(weights, 14, matrix)
    if n_columns <= 516:
        assert matrix.codes.max() == 127
    elif n_columns < 2000:
        assert bound > 0.97 * 2**31


def test_one_bounded_row_does_not_coarsen_the_others():
    weights = np.stack([np.full(700, 1e-6), np.linspace(-1e-6, 1e-7, 700)])
    matrix = quantize_rows(weights, 14, [Nearest(8)], "W")
    assert matrix.codes[0].max() == 93  # 65535 / 700 = 93.6
    assert matrix.codes[1].min() == -128


@pytest.mark.parametrize("factor", [1.01, 1e6, 1e300])
def test_weights_that_are_too_large_name_their_row(factor):
    """A sum of 32768 is where a 32-bit accumulator ends, with 14 fraction bits."""
    weights = np.full((3, 4), 1e-6)
    weights[1] = 2.0**-15 * 32768 / 4 * factor
    with pytest.raises(ModelError, match=r"^W, row 1: the sum reaches .* accumulator holds up to 32768; lower the"):
        quantize_rows(weights, 14, [Nearest(8)], "W")


def test_few_bits_fit_less_than_the_whole_accumulator():
    """A row of one weight, and so of one code: 1, whose multiplier ends at 2^15 - 1 and whose shift begins at 1 [R4].

    2^15 * 2^15 * (2^15 - 1) / 2^17 is nearly 2^28, half of what larger codes reach.
    """
    fits, too_large = (np.array([[2.0**-15 * end]]) for end in (16383, 16385))
    assert quantize_rows(fits, 14, [Nearest(2)], "W").codes.tolist() == [[1]]
    says = r"^W, row 0: the sum reaches 1\.638e\+04 .*, of which codes of 2 bits may leave half .* use more bits, lower"
    with pytest.raises(ModelError, match=says):
        quantize_rows(too_large, 14, [Nearest(2)], "W")
    check_rows(too_large, 14, quantize_rows(too_large, 14, [Nearest(8)], "W"))


def test_the_largest_weights_that_fit():
    weights = np.full((1, 4), 2.0**-15 * 32768 / 4 * 0.98)
    check_rows(weights, 14, quantize_rows(weights, 14, [Nearest(8)], "W"))


@pytest.mark.parametrize(
    ("bias", "expected"),
    [
        (0.0, 0),
        (1.0, 16384),
        (0.5 / 16384, 1),  # ties go up
        (-0.5 / 16384, 0),
        (-1.5 / 16384, -1),
        (0.49999 / 16384, 0),
        (131072 - 1 / 16384, S32_MAX),
        (-131072 + 1 / 16384, -S32_MAX),
        (-131072.00001 + 1 / 16384, -S32_MAX),
    ],
)
def test_biases(bias, expected):
    raw = quantize_bias(np.array([bias]), 14, "gru")
    assert (raw.tolist(), raw.dtype) == ([expected], np.int32)


@pytest.mark.parametrize("bias", [131072.0, -131072.0, 131072 - 0.5 / 16384, 1e300, -1e308])
def test_biases_that_do_not_fit(bias):
    with pytest.raises(ModelError, match=r"^GRU layer 'g', bias 1: .* does not fit s32f14; check the model's weights$"):
        quantize_bias(np.array([0.0, bias]), 14, "GRU layer 'g'")
