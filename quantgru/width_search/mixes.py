"""Mixes of widths that are likely to be good, by what each gate and dense layer alone does to the outputs.

A search that starts anywhere finds no mixes in models of a dozen gates and more: each further width costs a kernel,
which is more than most mixes save, and so many gates are not put right by chance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import combinations, pairwise, product
from typing import Final, NamedTuple

import numpy as np

from quantgru.int_model import IntModel
from quantgru.int_model.cores import ANY, Core
from quantgru.int_model.cost import flash_bytes
from quantgru.int_model.packing import (
    SectionSize,
    code_flash_bytes,
    layout,
    least_code_bits,
    matrices,
    packing_for,
    section_sizes,
)
from quantgru.quantizer.model import CalibratedModel
from quantgru.quantizer.widths import names_by_matrix, section_names
from quantgru.width_search.judge import Judge

N_MIXES: Final = 256  # more than most searches try

_AT_ONCE: Final = 64  # of a front
_ROUNDS: Final = 2  # in which neighbours are looked at
_NARROW_BITS: Final = 4  # of one section, beside all others in 8: what it does is far above what they do, and yet small
_WIDE_BITS: Final = 8

Mix = tuple[int, ...]  # the widths of sections, in the order of their names


def likely_mixes(
    calibrated: CalibratedModel, judge: Judge, widths: Sequence[int], core: Core = ANY
) -> list[dict[str, int]]:
    """At most N_MIXES mixes of `widths` with little error for their size, by a `Forecast`.

    First those that no other beats, then those that only these beat, and so on; of each such front the first ones are
    as far apart as all. Raises ModelError where the model has no integer one.
    """
    if len(widths) == 1:
        return []
    forecast = Forecast.of(calibrated, judge, core)
    some = [found for k in range(1, len(widths) + 1) for found in combinations(sorted(widths), k)]
    found = {mix for each in some for mix in _from_narrow_to_wide(forecast, each)}
    for _ in range(_ROUNDS):
        best = _spaced(_front(forecast.expected(found)), _AT_ONCE)
        found |= {mix for one in best for mix in forecast.neighbours(one, widths)}
    mixes: list[Mix] = []
    left = forecast.expected(found)
    while left and len(mixes) < N_MIXES:
        front = _front(left)
        best = _spaced([mix for mix in front if not _is_uniform(mix)], min(_AT_ONCE, N_MIXES - len(mixes)))
        halves_first = sorted(range(len(best)), key=lambda i: -(i & -i))  # 32, then 16 and 48, then 8, 24, ...
        mixes += [best[i] for i in halves_first]
        done = {*best, *filter(_is_uniform, front)}
        left = [one for one in left if one.mix not in done]
    return [dict(zip(forecast.names, mix, strict=True)) for mix in mixes]


def _is_uniform(mix: Mix) -> bool:
    return len(set(mix)) == 1


def _spaced(front: Sequence[Mix], n: int) -> list[Mix]:
    """At most n of them, evenly."""
    return [front[i] for i in np.unique(np.linspace(0, len(front) - 1, min(n, len(front))).round().astype(int))]


class Expected(NamedTuple):
    """What a mix will have: flash, and the outputs' error as a sum of squares."""

    flash_bytes: int
    error: float
    mix: Mix


@dataclass(frozen=True, eq=False)
class Forecast:
    """What models of any widths of 2 ... 8 bits will be, without making them.

    names   of the sections
    model   one of them
    errors  what each section does to the outputs when it alone has _NARROW_BITS, beside all wide: sums of squares
    by_matrix  names of the sections of each of its matrices
    core    where sizes are those of
    """

    names: Sequence[str]
    model: IntModel
    errors: Sequence[float]
    by_matrix: Sequence[Sequence[str]]
    core: Core

    @classmethod
    def of(cls, calibrated: CalibratedModel, judge: Judge, core: Core = ANY) -> Forecast:
        """By a model for each section. Raises ModelError."""
        names = section_names(calibrated.float_model)
        all_wide = dict.fromkeys(names, _WIDE_BITS)
        wide = calibrated.quantize(all_wide)
        exact = judge.outputs(wide)  # what inputs that saturate do to them is the same for all
        narrow = (calibrated.quantize(all_wide | {name: _NARROW_BITS}) for name in names)
        errors = [float(((judge.outputs(model) - exact) ** 2).sum()) for model in narrow]
        return cls(names, wide, errors, names_by_matrix(calibrated.float_model), core)

    def expected(self, mixes: Iterable[Mix]) -> list[Expected]:
        """Smallest first."""
        return sorted(Expected(self.flash_bytes(mix), self.error(mix), mix) for mix in mixes)

    def flash_bytes(self, mix: Mix) -> int:
        """As `cost.flash_bytes` has it of the model with these widths, if its codes need them."""
        widths = (tuple(mix[place] for place in of_matrix) for of_matrix in self._places)
        packed = [self._sizes(i, of_matrix) for i, of_matrix in enumerate(widths)]
        return self._other_bytes + min(code_flash_bytes(packed, self.core), self._byte_codes)

    def error(self, mix: Mix) -> float:
        """Sum of squares over all outputs: those of sections add up."""
        return sum(error * _noise(bits) for error, bits in zip(self.errors, mix, strict=True)) / _noise(_NARROW_BITS)

    def gain(self, section: int, bits: int, more_bits: int) -> float:
        """Of error, for each bit of the section's codes."""
        gained = self.errors[section] * (_noise(bits) - _noise(more_bits))
        return gained / (self._n_codes[section] * (more_bits - bits))

    def neighbours(self, mix: Mix, widths: Sequence[int]) -> Iterator[Mix]:
        """Mixes in which some sections of one matrix have another width, and all of them the same."""
        for of_matrix in self._places:
            some = (found for k in range(1, len(of_matrix) + 1) for found in combinations(of_matrix, k))
            for places, bits in product(some, widths):
                yield tuple(bits if place in places else same for place, same in enumerate(mix))

    @cached_property
    def _places(self) -> list[list[int]]:
        """Of the sections of each matrix, in a mix."""
        return [[self.names.index(name) for name in of_matrix] for of_matrix in self.by_matrix]

    @cached_property
    def _sizes(self) -> Callable[[int, tuple[int, ...]], Sequence[SectionSize]]:
        """Of the sections of a matrix, by its number and their widths."""
        shapes = [(matrix.n_columns, section_rows) for matrix, section_rows in matrices(self.model)]
        return cache(lambda i, widths: section_sizes(*shapes[i], widths))

    @cached_property
    def _byte_codes(self) -> int:
        return sum(matrix.codes.size for matrix, _ in matrices(self.model))

    @cached_property
    def _n_codes(self) -> Sequence[int]:
        """Of each section."""
        counts = dict.fromkeys(self.names, 0)
        for of_matrix, (matrix, section_rows) in zip(self.by_matrix, matrices(self.model), strict=True):
            for name in of_matrix:
                counts[name] += section_rows * matrix.n_columns
        return list(counts.values())

    @cached_property
    def _other_bytes(self) -> int:
        packing = packing_for(self.model, self.core)
        of_codes = layout(self.model, least_code_bits(self.model, packing))
        return flash_bytes(self.model, self.core) - code_flash_bytes(of_codes, self.core)


def _noise(bits: int) -> float:
    """Power of rounding errors of codes that reach from -(2**(bits - 1) - 1) to as far above, without a unit."""
    return float((2 ** (bits - 1) - 1) ** -2.0)


def _from_narrow_to_wide(forecast: Forecast, widths: Sequence[int]) -> Iterator[Mix]:
    """From the fewest of `widths` for all to the most, a section at a time: what gains most for its bits comes first.

    The more bits a section has, the less it gains by the next ones: its steps are in order.
    """
    steps = [(section, *step) for section in range(len(forecast.names)) for step in pairwise(widths)]
    mix = [widths[0]] * len(forecast.names)
    yield tuple(mix)
    for section, _, bits in sorted(steps, key=lambda step: (-forecast.gain(*step), step[2])):
        mix[section] = bits
        yield tuple(mix)


def _front(expected: Sequence[Expected]) -> list[Mix]:
    """Those that none beats in both size and error; smallest first, as all are."""
    front, least = [], np.inf
    for one in expected:
        if one.error < least:
            front.append(one.mix)
            least = one.error
    return front
