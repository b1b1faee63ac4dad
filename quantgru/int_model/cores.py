"""Code that packed codes of weights take on processor cores, beyond what codes of a byte take."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import Final, Literal, get_args

from quantgru.errors import ConfigError

Core = Literal[
    "any", "avr", "cortex-m0", "cortex-m3", "cortex-m4", "cortex-m7", "cortex-m33", "cortex-m55", "rv32imc", "rv32ec"
]

ANY: Final[Core] = "any"  # the most on any of them

BYTE_BITS: Final = 8
WORD_BITS: Final = 16  # of codes that a byte does not hold, however many bits they have


@dataclass(frozen=True)
class _Code:
    """Bytes of flash at most, as sums over all that a model needs: GCC 12 with -O2, on an AVR GCC 5 with -Os.

    loop    over sections, in the place of that over bytes and its kernel, which are larger
    narrow  the kernel of a width of 2 ... 7 bits; with `one_for_all` of them and of bytes
    byte    that of bytes
    word    that of 16 bits
    """

    loop: int
    narrow: int
    byte: int
    word: int
    one_for_all: bool = False

    def of(self, widths: Set[int]) -> int:
        n_narrow = min(widths) <= BYTE_BITS if self.one_for_all else sum(bits < BYTE_BITS for bits in widths)
        kernels = self.narrow * n_narrow + self.byte * (BYTE_BITS in widths) + self.word * (WORD_BITS in widths)
        return self.loop + kernels


_CODE: Final[dict[Core, _Code]] = {
    "avr": _Code(-90, 495, 0, 190, one_for_all=True),
    "cortex-m0": _Code(-30, 250, 140, 180),
    "cortex-m3": _Code(-330, 320, 435, 475),
    "cortex-m4": _Code(-330, 250, 440, 475),
    "cortex-m7": _Code(-335, 250, 440, 465),
    "cortex-m33": _Code(-325, 305, 440, 475),
    "cortex-m55": _Code(-425, 265, 525, 650),
    "rv32imc": _Code(-430, 445, 535, 575),
    "rv32ec": _Code(-55, 275, 160, 295),
}


def check_core(core: str) -> None:
    """Raises ConfigError."""
    if core not in get_args(Core):
        raise ConfigError(f"core {core!r}, allowed are {', '.join(get_args(Core))}")


def cores_of(core: Core) -> list[Core]:
    """The one; all of them for ANY."""
    return [name for name in get_args(Core) if name != ANY and core in (name, ANY)]


def kernel_code_bytes(widths: Set[int], core: Core = ANY) -> int:
    """What codes in sections of these widths, of which not all are 8, take in code on a core. Raises ConfigError."""
    check_core(core)
    return max(_CODE[name].of(widths) for name in cores_of(core))
