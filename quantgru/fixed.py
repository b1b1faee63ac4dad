"""Fixed-point numbers: formats, and the one rounding and the one saturation of the contract (SPEC.md R1, R2, R15)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

IntLike = TypeVar("IntLike", int, npt.NDArray[np.int32], npt.NDArray[np.int64])

INT8_MIN: Final = -(2**7)
INT8_MAX: Final = 2**7 - 1
INT16_MIN: Final = -(2**15)
INT16_MAX: Final = 2**15 - 1
INT32_MAX: Final = 2**31 - 1

MAX_FRACTION_BITS: Final = 31  # of inputs and outputs, and its negative


@dataclass(frozen=True)
class Format:
    """A fixed-point format: raw value r means r * 2**-fraction_bits.

    >>> str(Format(16, 15)), str(Format(16, 30, signed=False))
    ('s16f15', 'u16f30')
    """

    bits: int
    fraction_bits: int
    signed: bool = True

    def __str__(self) -> str:
        return f"{'s' if self.signed else 'u'}{self.bits}f{self.fraction_bits}"


STATE: Final = Format(16, 15)
PRE_ACTIVATION: Final = Format(32, 14)
GATE: Final = Format(16, 15, signed=False)
RESIDUAL: Final = Format(16, 30, signed=False)


def round_shift(v: IntLike, s: int) -> IntLike:
    """v / 2**s to nearest, ties towards plus infinity, s >= 1; of Python's integers or of an array with room [R1]."""
    return (v + (1 << (s - 1))) >> s


def requantize(acc: int, k: int, m: int, s: int) -> int:
    """acc * 2**k * m / 2**(16 + s), rounded as the contract does [R4]."""
    return round_shift((acc << k) * m >> 16, s)


def round_half_up(v: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Nearest integer, ties towards plus infinity. Compares the fraction, since adding 1/2 first could round."""
    v = np.asarray(v, dtype=np.float64)
    floor = np.floor(v)
    return np.asarray(floor + (v - floor >= 0.5))


def to_raw16(x: npt.ArrayLike, fraction_bits: npt.ArrayLike) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.bool_]]:
    """Raw s16 of real x, rounded and saturated [R15], and where it saturated."""
    with np.errstate(over="ignore"):  # what leaves float64 is infinite, and limited like all that is out of range
        scaled = np.ldexp(np.asarray(x, dtype=np.float64), np.asarray(fraction_bits))
    rounded = round_half_up(np.clip(scaled, INT16_MIN - 1, INT16_MAX + 1))
    clipped = (rounded < INT16_MIN) | (rounded > INT16_MAX)
    return np.clip(rounded, INT16_MIN, INT16_MAX).astype(np.int16), np.asarray(clipped)


def to_real(raw: npt.NDArray[Any], fraction_bits: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """raw * 2**-fraction_bits, exactly."""
    return np.asarray(np.ldexp(raw.astype(np.float64), -np.asarray(fraction_bits)))
