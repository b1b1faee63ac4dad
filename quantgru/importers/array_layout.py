"""What an array of a convention consists of: blocks of the canonical cell, side by side and one above the other.

Letters name a block. Its gate: z, r, n. What it multiplies: x the input, h the state; or it is a bias: b beside the
product with x, c beside the product with h.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from quantgru.model import Gate

GATES: Final = {"z": Gate.Z, "r": Gate.R, "n": Gate.N}
FACTORS: Final = {"x": "W", "h": "U", "b": "b", "c": "c"}  # and the arrays of the canonical cell that hold its weights


@dataclass(frozen=True)
class Sizes:
    """H and I."""

    units: int
    inputs: int


@dataclass(frozen=True)
class Block:
    """gates    one; two where a convention has one array for both
    factor   x, h, b or c
    columns  whether the gate is on axis 1: the weights of a unit are a column
    where    its slice on each axis
    """

    gates: str
    factor: str
    columns: bool
    where: tuple[slice, ...]


@dataclass(frozen=True, init=False)
class Array:
    """name  as the convention writes it; "/" stands between the parts of a nested name
    axes  for each axis its blocks in order

    The letters of a block are those of its place on all axes together:

    >>> Array("kernel", "x", "z r n").shape_text
    '[I, 3H]'
    >>> Array("bias", "b c", "z r n").shape(Sizes(units=4, inputs=3))
    (2, 12)
    """

    name: str
    axes: tuple[str, ...]

    def __init__(self, name: str, *axes: str) -> None:
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "axes", axes)

    @property
    def key(self) -> str:
        """The name as an identifier."""
        return as_key(self.name)

    @property
    def factors(self) -> str:
        """Which of x, h, b, c are in it."""
        return "".join(factor for factor in FACTORS if any(factor in axis for axis in self.axes))

    @property
    def shape_text(self) -> str:
        return f"[{', '.join(map(_size_text, self.axes))}]"

    def shape(self, sizes: Sizes) -> tuple[int, ...]:
        return tuple(sum(_size(letters, sizes) for letters in axis.split()) for axis in self.axes)

    def units(self, shape: tuple[int, ...]) -> int | None:
        """H, if it follows from the shape of this array."""
        for axis, size in zip(self.axes, shape, strict=True):
            if "x" not in axis and _multiples_of_units(axis):
                return size // _multiples_of_units(axis)
        return None

    def inputs(self, shape: tuple[int, ...], units: int) -> int | None:
        """I, if it follows from the shape of this array and H."""
        for axis, size in zip(self.axes, shape, strict=True):
            if "x" in axis:
                return size - units * _multiples_of_units(axis)
        return None

    def blocks(self, sizes: Sizes) -> Iterator[Block]:
        for places in _places(self.axes, sizes):
            letters = "".join(name for name, _ in places)
            gates = "".join(gate for gate in GATES if gate in letters)
            (factor,) = (letter for letter in letters if letter in FACTORS)
            columns = factor in "xh" and not any(gate in places[0][0] for gate in GATES)
            yield Block(gates, factor, columns, tuple(where for _, where in places))


def as_key(name: str) -> str:
    """
    >>> as_key("gates/kernel")
    'gates_kernel'
    """
    return name.replace("/", "_").replace(".", "_")


def _places(axes: tuple[str, ...], sizes: Sizes) -> Iterator[tuple[tuple[str, slice], ...]]:
    """Letters and slice of each block, on each axis; row by row."""
    if not axes:
        yield ()
        return
    start = 0
    for letters in axes[0].split():
        stop = start + _size(letters, sizes)
        for rest in _places(axes[1:], sizes):
            yield ((letters, slice(start, stop)), *rest)
        start = stop


def _is_units(letters: str) -> bool:
    return letters == "h" or any(gate in letters for gate in GATES)


def _size(letters: str, sizes: Sizes) -> int:
    if _is_units(letters):
        return sizes.units
    return sizes.inputs if letters == "x" else 1


def _multiples_of_units(axis: str) -> int:
    return sum(map(_is_units, axis.split()))


def _size_text(axis: str) -> str:
    names = axis.split()
    units = _multiples_of_units(axis)
    terms = [
        "I" if "x" in names else "",
        f"{units if units > 1 else ''}H" if units else "",
        str(len(names)) if names[0] in ("b", "c") else "",
    ]
    return " + ".join(filter(None, terms))
