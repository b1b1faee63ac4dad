"""Models whose codes have less than 8 bits, or more, and models whose row parameters are short."""

from dataclasses import replace

import oracle
from strategies import DensePlan, GruPlan, Plan, from_oracle, random_model

import quantgru as qg


def model_of_widths() -> qg.IntModel:
    """Blocks that are full, blocks with zeros, rows by themselves; gates of equal and of different widths."""
    return from_oracle(_of_widths())


def short_model_of_widths() -> qg.IntModel:
    """The same with short row parameters."""
    return from_oracle(with_short_rows(_of_widths()))


def short_model_of_bytes() -> qg.IntModel:
    """Codes of 8 bits with short row parameters, either reset."""
    plan = Plan(3, layers=(GruPlan(11), GruPlan(9, oracle.RESET_BEFORE), DensePlan(5, oracle.LINEAR)))
    return from_oracle(with_short_rows(random_model(plan, seed=6)))


def _of_widths() -> oracle.Model:
    layers = (GruPlan(24), GruPlan(21, oracle.RESET_BEFORE), DensePlan(13, oracle.LINEAR))
    model = random_model(Plan(3, layers=layers), seed=5)
    first, second, dense = model.layers
    first = replace(first, w=narrowed(first.w, 4), u=narrowed(first.u, 2, 3, 8))
    second = replace(second, w=narrowed(second.w, 5, 6, 7), u=narrowed(second.u, 4))
    return replace(model, layers=(first, second, replace(dense, matrix=narrowed(dense.matrix, 3))))


def wide_model() -> qg.IntModel:
    """Gates with codes of 16, 8 and 4 bits in one matrix; blocks that are full, and rows by themselves."""
    layers = (GruPlan(11), GruPlan(9, oracle.RESET_BEFORE), DensePlan(3, oracle.LINEAR))
    return from_oracle(random_model(Plan(3, layers=layers, weights="wide"), seed=6))


def narrowed(matrix: oracle.Matrix, *widths: int) -> oracle.Matrix:
    """With codes that have these bits, in as many sections. What it needs of an accumulator becomes less."""
    n = len(matrix.codes) // len(widths)
    codes = tuple(tuple(code >> (8 - widths[row // n]) for code in codes) for row, codes in enumerate(matrix.codes))
    return replace(matrix, codes=codes)


def with_short_rows(model: oracle.Model) -> oracle.Model:
    """Of multipliers the six upper bits, shifts of a matrix that differ by seven, of biases the upper bits that 16
    have."""
    return replace(model, layers=tuple(_with_short_rows(layer) for layer in model.layers))


def _with_short_rows(layer: oracle.Layer) -> oracle.Layer:
    if isinstance(layer, oracle.Dense):
        return replace(layer, matrix=_with_short_scales(layer.matrix))
    most_bits = max(max(bias, -1 - bias).bit_length() for bias in (*layer.b, *layer.c))
    shift = max(0, most_bits - 15)
    b, c = (tuple(bias >> shift << shift for bias in part) for part in (layer.b, layer.c))
    return replace(layer, w=_with_short_scales(layer.w), u=_with_short_scales(layer.u), b=b, c=c)


def _with_short_scales(matrix: oracle.Matrix) -> oracle.Matrix:
    least = min(matrix.s)
    shifts = tuple(min(s, least + 7) for s in matrix.s)
    return replace(matrix, m=tuple(m // 512 * 512 for m in matrix.m), s=shifts)
