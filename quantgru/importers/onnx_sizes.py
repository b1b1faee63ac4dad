"""Sizes of axes that a file leaves free, and the whole numbers that a graph computes from them.

Exporters reshape by arithmetic on shapes: 2 * hidden, batch * steps, steps - 1. Here it is exact, for every size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Final

from quantgru.errors import ModelError


@dataclass(frozen=True)
class Symbol:
    """The size of an axis of an input: 1 or more; `size` where the file fixes it."""

    input: str
    axis: int
    size: int | None

    def __str__(self) -> str:
        return f"axis {self.axis} of {self.input[:60]!r}"


Monomial = tuple[Symbol, ...]  # a product, in order of input and axis

LIMIT: Final = 16  # terms of a sum, and factors of a product


class Size:
    """A whole number: the sum of count * product of symbols."""

    def __init__(self, terms: Mapping[Monomial, int]):
        self.terms = {monomial: count for monomial, count in terms.items() if count}
        degree = max(map(len, self.terms), default=0)
        if len(self.terms) > LIMIT or degree > LIMIT or any(abs(count) >= 1 << 63 for count in self.terms.values()):
            raise ModelError("arithmetic on sizes that no exporter writes")

    @classmethod
    def of(cls, value: Size | Symbol | int) -> Size:
        if isinstance(value, Size):
            return value
        if isinstance(value, Symbol):
            return cls({(value,): 1})
        if value != int(value):
            raise ModelError(f"arithmetic on sizes with {value:g}")
        return cls({(): int(value)})

    @property
    def number(self) -> int | None:
        """Its value where the file fixes every size in it."""
        terms = self._free_terms
        return None if any(terms) else terms.get((), 0)

    @property
    def _free_terms(self) -> Mapping[Monomial, int]:
        """The same sum with numbers for all sizes that the file fixes."""
        terms: Counter[Monomial] = Counter()
        for monomial, count in self.terms.items():
            free = tuple(symbol for symbol in monomial if symbol.size is None)
            terms[free] += count * prod(symbol.size for symbol in monomial if symbol.size is not None)
        return {monomial: count for monomial, count in terms.items() if count}

    @property
    def symbol(self) -> Symbol | None:
        """The symbol that it is, if it is a single one."""
        only = [monomial for monomial, count in self.terms.items() if count == 1 and len(monomial) == 1]
        return only[0][0] if len(only) == len(self.terms) == 1 else None

    @property
    def symbols(self) -> Monomial | None:
        """The symbols whose product it is, if it is one."""
        only = [monomial for monomial, count in self.terms.items() if count == 1 and monomial]
        return only[0] if len(only) == len(self.terms) == 1 else None

    @property
    def sign(self) -> int | None:
        """-1, 0 or 1 where it is the same for all sizes, else None."""
        number, terms = self.number, self._free_terms
        if number is not None:
            return (number > 0) - (number < 0)
        free = [count for monomial, count in terms.items() if monomial]
        at_ones = sum(terms.values())  # sizes are 1 or more
        if min(free) > 0 and at_ones > 0:
            return 1
        return -1 if max(free) < 0 and at_ones < 0 else None

    def _plus(self, other: Size | int, factor: int) -> Size:
        terms = Counter(self.terms)
        for monomial, count in Size.of(other).terms.items():
            terms[monomial] += factor * count
        return Size(terms)

    def __add__(self, other: Size | int) -> Size:
        return self._plus(other, 1)

    def __sub__(self, other: Size | int) -> Size:
        return self._plus(other, -1)

    def __rsub__(self, other: Size | int) -> Size:
        return Size.of(other) - self

    def __neg__(self) -> Size:
        return 0 - self

    def __mul__(self, other: Size | int) -> Size:
        terms: Counter[Monomial] = Counter()
        for a, n in self.terms.items():
            for b, m in Size.of(other).terms.items():
                terms[_product((*a, *b))] += n * m
        return Size(terms)

    def __floordiv__(self, other: Size | int) -> Size | int:
        """Exact, or between numbers, cut and not rounded down. Raises ModelError."""
        divisor = Size.of(other)
        if divisor.terms and len(divisor.terms) == 1:
            ((monomial, count),) = divisor.terms.items()
            quotient = {_without(a, monomial): n // count for a, n in self.terms.items() if n % count == 0}
            if len(quotient) == len(self.terms) and None not in quotient:
                return Size({a: n for a, n in quotient.items() if a is not None})
        numbers = self.number, divisor.number
        if numbers[0] is None or not numbers[1]:
            raise ModelError(f"the size {self} divided by {divisor} is not a whole number for every size")
        cut = abs(numbers[0]) // abs(numbers[1])
        return cut if (numbers[0] < 0) == (numbers[1] < 0) else -cut

    __radd__ = __add__
    __rmul__ = __mul__

    def __rfloordiv__(self, other: Size | int) -> Size | int:
        return Size.of(other) // self

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (Size, int)):
            return NotImplemented
        return compare(self, other, "equal") == 0

    __hash__ = None  # type: ignore[assignment]  # equal sizes may be written in several ways

    def __lt__(self, other: Size | int) -> bool:
        return compare(self, other, "less") < 0

    def __gt__(self, other: Size | int) -> bool:
        return compare(self, other, "greater") > 0

    def __le__(self, other: Size | int) -> bool:
        return not self > other

    def __ge__(self, other: Size | int) -> bool:
        return not self < other

    def __str__(self) -> str:
        parts = [
            " * ".join(map(str, (*([count] if count != 1 or not m else []), *m))) for m, count in self.terms.items()
        ]
        return " + ".join(parts) or "0"


class FreeSizeError(ModelError):
    """A comparison that depends on a size which the file leaves free."""


def compare(a: Size | int, b: Size | int, what: str) -> int:
    """The sign of a - b. Raises FreeSizeError."""
    sign = (Size.of(a) - b).sign
    if sign is None:
        raise FreeSizeError(f"whether the size {a} is {what} to {b} depends on a size that the file leaves free")
    return sign


def product(values: Iterable[Size | Symbol | int]) -> Size:
    result = Size.of(1)
    for value in values:
        result = result * Size.of(value)
    return result


def agree(a: Size | Symbol | int, b: Size | Symbol | int) -> bool:
    """Whether both are the same number, for all sizes that the file leaves free."""
    difference = Size.of(a) - Size.of(b)
    return not difference.terms or (difference.number == 0)


def _product(symbols: Monomial) -> Monomial:
    return tuple(sorted(symbols, key=lambda symbol: (symbol.input, symbol.axis)))


def _without(monomial: Monomial, divisor: Monomial) -> Monomial | None:
    rest = list(monomial)
    for symbol in divisor:
        if symbol not in rest:
            return None
        rest.remove(symbol)
    return tuple(rest)
