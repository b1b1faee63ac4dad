"""Chapters 2 and 3 of SPEC.md: primitives and functions, and the types that values are checked against."""

from fractions import Fraction
from math import floor

from oracle.page import T

LIMIT = 12 * 2**14 - 1
S32_MAX = 2**31 - 1


def within(v: int, low: int, high: int) -> int:
    """Returns v if it is an integer of low … high."""
    assert type(v) is int and low <= v <= high, (v, low, high)
    return v


def s8(v: int) -> int:
    """Returns v if it is a signed 8-bit integer."""
    return within(v, -(2**7), 2**7 - 1)


def s16(v: int) -> int:
    """Returns v if it is a signed 16-bit integer."""
    return within(v, -(2**15), 2**15 - 1)


def s32(v: int) -> int:
    """Returns v if it is a signed 32-bit integer."""
    return within(v, -(2**31), 2**31 - 1)


def u32(v: int) -> int:
    """Returns v if it is an unsigned 32-bit integer."""
    return within(v, 0, 2**32 - 1)


def round_shift(v: int, s: int) -> int:
    """R1: v / 2^s to nearest, ties towards plus infinity."""
    within(s, 1, 30)
    return s32(s32(s32(v) + 2 ** (s - 1)) >> s)


def saturate16(v: int) -> int:
    """R2: the nearest s16. The argument may be any integer: R15 needs more than s32."""
    return s16(min(max(v, -32768), 32767))


def mul_shift16(a: int, m: int) -> int:
    """R3: floor(a * m / 2^16), by the two products of the rule, each of them checked."""
    s32(a), within(m, 0, 32767)
    high = s32(s16(a >> 16) * m)
    low = u32((a & 0xFFFF) * m) >> 16
    result = s32(high + low)
    assert result == (a * m) // 2**16
    return result


def requantize(acc: int, k: int, m: int, s: int) -> int:
    """R4: acc * 2^k * m / 2^(16 + s) to nearest, ties up."""
    within(m, 2**14, 2**15 - 1), within(k, 0, 15)
    result = round_shift(mul_shift16(s32(acc * 2**k), m), s)
    assert result == round_half_up(Fraction(acc * 2**k * m, 2 ** (16 + s)))
    return result


def reset_product(b: int, r: int) -> int:
    """R5: b * r / 2^15 to nearest, ties up."""
    s32(b), within(r, 0, 32768)
    high = s32((b >> 15) * r)
    low = s32(s32((b & 0x7FFF) * r) + 2**14) >> 15
    result = s32(high + low)
    assert result == round_half_up(Fraction(b * r, 2**15))
    return result


def round_half_up(v: Fraction) -> int:
    """What R1, R4, R5 and R15 mean by to nearest, ties up."""
    return floor(v + Fraction(1, 2))


# ---- chapter 3: functions -----------------------------------------------------------------------------------------


def t27(a: int) -> int:
    """R6: tanh(x / 2) with 27 fraction bits, for a = x * 2^14 of 0 … LIMIT."""
    within(a, 0, LIMIT)
    if a < 81920:
        j, f = a >> 9, (a & 511) * 4
    else:
        j, f = (a >> 11) + 120, a & 2047
    return within(T[j] * 2048 + (T[j + 1] - T[j]) * f, 0, 2**27 - 1)


def sigmoid(a: int) -> int:
    """R7: s32f14 to u16f15, 0 … 32768."""
    q = (t27(min(abs(s32(a)), LIMIT)) + 4096) >> 13
    return within(16384 + q if a >= 0 else 16384 - q, 0, 32768)


def tanh(a: int) -> int:
    """R8: s32f14 to s16f15, -32767 … 32767."""
    q = min((t27(min(2 * abs(s32(a)), LIMIT)) + 2048) >> 12, 32767)
    return within(q if a >= 0 else -q, -32767, 32767)


def hard_sigmoid(a: int) -> int:
    """R18: s32f15 to u16f15, 0 … 32768."""
    return within(16384 + min(max(s32(a), -16384), 16384), 0, 32768)
