"""Proofs, for all arguments, of what SPEC.md claims of its integer rules and of P2: exact, and within 32 bits.

z3 looks for a counterexample and finds none. Products of two variables are hard for it, so that each proof has two
halves: lemmas that bound a product by its factors, and then the rule itself in linear arithmetic over that product as
an unknown with these bounds. The rules are written here as in SPEC.md and the C source; test_c_library.py holds the
compiled functions to them.
"""

import pytest

z3 = pytest.importorskip("z3", reason="z3 is missing; install with: pip install z3-solver")

S32_MIN, S32_MAX = -(2**31), 2**31 - 1


def proves(claim, *assumptions):
    """Whether `claim` follows from `assumptions`. A search of more than 20 s fails."""
    solver = z3.Solver()
    solver.set("timeout", 20_000)
    solver.add(*assumptions, z3.Not(claim))
    answer = solver.check()
    assert answer != z3.unknown, "not decided in time"
    return answer == z3.unsat


def floor_shift(v, s):
    """v >> s. z3's division by a positive number rounds down."""
    return v / 2**s


def round_half_up(numerator, bits):
    """numerator / 2^bits to nearest, ties up: what R1, R4 and R5 are said to equal."""
    return floor_shift(numerator + 2 ** (bits - 1), bits)


def s32(v):
    """v fits an s32."""
    return z3.And(v >= S32_MIN, v <= S32_MAX)


def between(low, v, high):
    return z3.And(low <= v, v <= high)


a, b, m, r, u, hi, lo, high, low, product, bound = z3.Ints("a b m r u hi lo high low product bound")

# a = hi * 2^16 + lo as R3 splits it; high = hi * m and low = lo * m as unknowns with the bounds of the lemmas below.
R3_SPLIT = (between(-(2**15), hi, 2**15 - 1), between(0, lo, 2**16 - 1), between(0, m, 2**15 - 1))
R3_PRODUCTS = (between(-(2**15) * (2**15 - 1), high, (2**15 - 1) ** 2), between(0, low, (2**16 - 1) * (2**15 - 1)))


def test_a_false_claim_is_not_proved():
    assert not proves(round_half_up(a, 2) == floor_shift(a, 2))
    assert not proves(s32(a * 2), s32(a))


# ---- R1 -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("s", range(1, 31))
def test_r1_as_the_library_rounds(s):
    """The half added behind the shift, as 1: equal for every s32, and no sum that leaves it."""
    kept = floor_shift(a, s - 1)
    assert proves(floor_shift(kept + 1, 1) == round_half_up(a, s))
    assert proves(s32(kept + 1), s32(a), a + 2 ** (s - 1) <= S32_MAX)


@pytest.mark.parametrize("s", range(1, 31))
def test_r1_by_the_last_bit_that_a_shift_drops(s):
    """As AVRs round: what a shift leaves in the carry is added."""
    carry = floor_shift(a, s - 1) % 2
    assert proves(floor_shift(a, s) + carry == round_half_up(a, s))


# ---- R3 and R4 ----------------------------------------------------------------------------------------------------


def test_r3_products_fit_their_types():
    assert proves(z3.And(*R3_PRODUCTS), *R3_SPLIT, high == hi * m, low == lo * m)
    assert proves(z3.And(s32(high), between(0, low, 2**31)), *R3_PRODUCTS)


def test_r3_is_the_floor_of_the_quotient():
    """With high = hi m and low = lo m: a m = high 2^16 + low."""
    assert proves(high + floor_shift(low, 16) == floor_shift(high * 2**16 + low, 16))


@pytest.mark.parametrize("s", range(1, 31))
def test_r4_rounds_the_exact_quotient_within_32_bits(s):
    """product = acc 2^k m, any integer for the first claim: the floor of R3 loses nothing that R1 would have seen."""
    shifted = floor_shift(product, 16)
    assert proves(round_half_up(shifted, s) == round_half_up(product, 16 + s))
    # The sum of R3 and the half of R1 fit, for every s32 that is multiplied.
    sum_r3 = high + floor_shift(low, 16)
    assert proves(z3.And(s32(sum_r3), s32(sum_r3 + 2 ** (s - 1))), *R3_PRODUCTS)


@pytest.mark.parametrize("k", range(16))
def test_r4_left_shift_as_unsigned_is_exact_under_p1(k):
    acc = z3.BitVec("acc", 32)
    wide = z3.SignExt(32, acc)
    p1 = z3.And(wide * 2**k <= S32_MAX, wide * 2**k >= -S32_MAX)
    assert proves(z3.SignExt(32, acc << k) == wide * 2**k, p1)


@pytest.mark.parametrize("s", range(1, 31))
def test_p2_bounds_what_r4_returns(s):
    """product = acc 2^k m, and A 2^k m = bound."""
    q = floor_shift(floor_shift(bound, 16), s) + 1
    result = round_half_up(product, 16 + s)
    assert proves(between(-q, result, q), between(-bound, product, bound))


# ---- R5 -----------------------------------------------------------------------------------------------------------

# b = hi * 2^15 + lo as R5 splits it; high = hi * r and low = lo * r.
R5_SPLIT = (between(-(2**16), hi, 2**16 - 1), between(0, lo, 2**15 - 1), between(0, r, 2**15))
R5_PRODUCTS = (between(-(2**16) * r, high, (2**16 - 1) * r), between(0, low, (2**15 - 1) * r), between(0, r, 2**15))


def test_r5_products_are_bounded_by_their_factors():
    assert proves(z3.And(*R5_PRODUCTS), *R5_SPLIT, high == hi * r, low == lo * r)


def test_r5_rounds_the_exact_quotient_within_32_bits():
    low_part = floor_shift(low + 2**14, 15)
    assert proves(high + low_part == round_half_up(high * 2**15 + low, 15))
    assert proves(z3.And(s32(high), s32(low + 2**14), s32(high + low_part)), *R5_PRODUCTS)


def test_r5_is_no_larger_than_its_argument():
    """What P2 needs, to bound the candidate by |U_n(h) + c|."""
    facts = (0 <= r, r <= 2**15, z3.Implies(b >= 0, between(0, product, b * 2**15)))
    assert proves(between(0, b * r, b * 2**15), b >= 0, 0 <= r, r <= 2**15)
    assert proves(between(b * 2**15, b * r, 0), b <= 0, 0 <= r, r <= 2**15)
    assert proves(between(0, round_half_up(product, 15), b), *facts, b >= 0)
    assert proves(between(b, round_half_up(product, 15), 0), b <= 0, between(b * 2**15, product, 0))


def test_r5_split_at_16_bits_as_avrs_do_it():
    hi_16, lo_16 = between(-(2**15), hi, 2**15 - 1), between(0, lo, 2**16 - 1)
    gate = between(0, r, 2**15)
    bounds = (between(-(2**15) * r, high, (2**15 - 1) * r), between(0, low, (2**16 - 1) * r), gate)
    assert proves(z3.And(*bounds), hi_16, lo_16, gate, high == hi * r, low == lo * r)
    low_part = floor_shift(2 * low + 2**15, 16)
    assert proves(2 * high + low_part == round_half_up(high * 2**16 + low, 15))
    unsigned = between(0, 2 * low + 2**15, 2**32 - 1)
    assert proves(z3.And(s32(2 * high), unsigned, s32(2 * high + low_part)), *bounds)


# ---- R7 and R8 ----------------------------------------------------------------------------------------------------


def test_r7_and_r8_of_what_is_rounded_down_to_16_bits():
    """t27, the interpolation with 27 fraction bits, may lose 11 of them first; then 16 bits are enough."""
    t27, low_node, rise = z3.Ints("t27 low_node rise")
    t16 = floor_shift(t27, 11)
    assert proves(floor_shift(floor_shift(t16, 1) + 1, 1) == round_half_up(t27, 13))
    assert proves(floor_shift(t16 + 1, 1) == round_half_up(t27, 12))
    # rise = (high - low) fraction with 11 bits, of which an AVR has 16: 32 times as much, 2^16 instead of 2^11
    assert proves(low_node + floor_shift(rise * 32, 16) == floor_shift(low_node * 2**11 + rise, 11))
    assert proves(clip(0, round_half_up(t27, 12), 32767) == 32767, t16 >= 65534)


# ---- R11b and R12 -------------------------------------------------------------------------------------------------


def test_r11b_product_of_state_and_reset_gate_is_an_s16():
    h = z3.Int("h")
    s16_h = between(-(2**15), h, 2**15 - 1)
    bounds = between(-(2**15) * r, product, (2**15 - 1) * r)
    assert proves(bounds, s16_h, between(0, r, 2**15), product == h * r)
    p = round_half_up(product, 15)
    assert proves(z3.And(s32(product + 2**14), between(-(2**15), p, 2**15 - 1)), bounds, between(0, r, 2**15))


def test_r12_fits_and_stays_between_state_and_candidate():
    h, n, e = z3.Ints("h n e")
    d = n - h
    operands = (between(-(2**15), h, 2**15 - 1), between(-(2**15), n, 2**15 - 1), between(0, e, 2**15 - 1))
    for sign in (d >= 0, d <= 0):
        bounds = z3.If(d >= 0, between(0, product, 2**15 * d), between(2**15 * d, product, 0))
        assert proves(bounds, sign, between(0, u, 2**15), product == u * d)
        acc = product + e
        new_h = h + floor_shift(acc, 15)
        assert proves(z3.And(s32(product), s32(acc), acc > S32_MIN), bounds, sign, *operands)
        assert proves(z3.If(d >= 0, between(h, new_h, n), between(n, new_h, h)), bounds, sign, *operands)
        assert proves(between(0, acc % 2**15, 2**15 - 1), bounds, sign, *operands)
        assert proves(floor_shift(acc, 15) * 2**15 + acc % 2**15 == acc)


def test_r12_loses_nothing():
    """With e as the 15 bits below h, the step is exactly h + u (n - h), in whatever format h and n have."""
    h, e, new_h, new_e = z3.Ints("h e new_h new_e")
    acc = product + e
    step = z3.And(new_h == h + floor_shift(acc, 15), new_e == acc % 2**15)
    assert proves(new_h * 2**15 + new_e == h * 2**15 + e + product, step)


def test_a_shift_by_15_in_halves_as_avrs_do_it():
    """(v >> 16) 2 + the highest bit of the lower half."""
    assert proves(floor_shift(a, 16) * 2 + floor_shift(a % 2**16, 15) == floor_shift(a, 15))


# ---- dot products -------------------------------------------------------------------------------------------------


def test_a_product_by_looked_up_digits():
    """Without a multiplier: code = 16 high + low, both digits -8 ... 8."""
    code = z3.Int("code")
    high_digit, low_digit = floor_shift(code + 8, 4), (code + 8) % 16 - 8
    codes = between(-128, code, 127)
    assert proves(16 * high_digit + low_digit == code)
    assert proves(z3.And(between(-8, high_digit, 8), between(-8, low_digit, 8)), codes)


# ---- R18 ----------------------------------------------------------------------------------------------------------


def clip(low_end, v, high_end):
    return z3.If(v < low_end, low_end, z3.If(v > high_end, high_end, v))


def hard_sigmoid(v):
    return 16384 + clip(-16384, v, 16384)


def test_r18_lies_between_0_and_1_and_is_symmetric():
    assert proves(between(0, hard_sigmoid(a), 32768), s32(a))
    assert proves(hard_sigmoid(a) + hard_sigmoid(-a) == 32768, s32(a))
    assert proves(hard_sigmoid(a) <= hard_sigmoid(b), s32(a), s32(b), a <= b)


def test_r18_is_the_nearest_to_the_real_function():
    """x + 1/2, limited to 0 … 1, with x = a / 2^15, is a multiple of 2^-15: no rounding at all."""
    assert proves(hard_sigmoid(a) == clip(0, a + 2**14, 2**15), s32(a))


def test_r18_within_32_bits_where_it_is_limited_first():
    wide = z3.BitVec("wide", 32)
    limited = z3.If(wide < -16384, z3.BitVecVal(-16384, 32), z3.If(wide > 16384, z3.BitVecVal(16384, 32), wide))
    exact = z3.BV2Int(wide, is_signed=True)
    assert proves(z3.BV2Int(limited + 16384) == hard_sigmoid(exact))
    added_first = z3.BV2Int(wide + 16384, is_signed=True)
    assert not proves(clip(0, added_first, 32768) == hard_sigmoid(exact))


# ---- R19 ----------------------------------------------------------------------------------------------------------


def s16(v):
    """v fits an s16."""
    return between(-(2**15), v, 2**15 - 1)


@pytest.mark.parametrize("f_h", range(-15, 15))
def test_r19_state_of_a_bounded_candidate_is_in_range(f_h):
    """For every t of tanh, sigmoid and hard_tanh: R1 is allowed, n is the nearest, and lies between -1.0 and 1.0."""
    t, shift = z3.Int("t"), 15 - f_h
    n = round_half_up(t, shift)
    one = 2**f_h if f_h >= 0 else 1  # below 0 fraction bits 1.0 is less than one LSB
    assert 1 <= shift <= 30
    assert proves(z3.And(s32(t + 2 ** (shift - 1)), s16(n)), s16(t))
    assert proves(between(-one, n, one), s16(t))
    assert proves(between(-(2 ** (shift - 1)), n * 2**shift - t, 2 ** (shift - 1)), s16(t))


def test_r19_saturates_to_an_s16():
    saturated = clip(-(2**15), a, 2**15 - 1)
    assert proves(s16(saturated), s32(a))
    assert proves(s16(clip(-(2**15), z3.If(a > 0, a, 0), 2**15 - 1)), s32(a))
    assert proves(saturated == a, s16(a))


# ---- R21 and R23 --------------------------------------------------------------------------------------------------


def test_r21_reads_a_token_that_exists_and_puts_out_an_s16():
    x, tokens, code = z3.Ints("x tokens code")
    limited = z3.If(x < 0, 0, x)
    token = z3.If(limited < tokens, limited, tokens - 1)
    assert proves(between(0, token, tokens - 1), s16(x), between(1, tokens, 2**15))
    assert proves(token == x, between(0, x, tokens - 1), s16(x), between(1, tokens, 2**15))
    assert proves(s16(256 * code), between(-(2**7), code, 2**7 - 1))


def test_r23_sum_and_average_fit_an_s16_and_round_once():
    forward, backward = z3.Ints("forward backward")
    both = forward + backward
    assert proves(z3.And(s32(both + 1), s16(round_half_up(both, 1))), s16(forward), s16(backward))
    assert proves(between(0, 2 * round_half_up(both, 1) - both, 1), s16(forward), s16(backward))


def test_r23_product_saturates_in_one_case_only():
    forward, backward = z3.Ints("forward backward")
    operands = (s16(forward), s16(backward), product == forward * backward)
    bounds = between(-(2**15) * (2**15 - 1), product, 2**30)
    assert proves(bounds, *operands)
    assert proves(z3.And(s32(product + 2**14), -(2**15) <= round_half_up(product, 15)), bounds)
    assert proves(round_half_up(product, 15) <= 2**15 - 1, bounds, product <= (2**15 - 1) * 2**15)
    assert proves(product <= (2**15 - 1) * 2**15, *operands, z3.Or(forward > -(2**15), backward > -(2**15)))
