"""Models whose codes have less than 8 bits, or more."""

from dataclasses import replace

import oracle
from strategies import DensePlan, GruPlan, Plan, from_oracle, random_model

import quantgru as qg


def model_of_widths() -> qg.IntModel:
    """Blocks that are full, blocks with zeros, rows by themselves; gates of equal and of different widths."""
    layers = (GruPlan(24), GruPlan(21, oracle.RESET_BEFORE), DensePlan(13, oracle.LINEAR))
    model = random_model(Plan(3, layers=layers), seed=5)
    first, second, dense = model.layers
    first = replace(first, w=narrowed(first.w, 4), u=narrowed(first.u, 2, 3, 8))
    second = replace(second, w=narrowed(second.w, 5, 6, 7), u=narrowed(second.u, 4))
    return from_oracle(replace(model, layers=(first, second, replace(dense, matrix=narrowed(dense.matrix, 3)))))


def wide_model() -> qg.IntModel:
    """Gates with codes of 16, 8 and 4 bits in one matrix; blocks that are full, and rows by themselves."""
    layers = (GruPlan(11), GruPlan(9, oracle.RESET_BEFORE), DensePlan(3, oracle.LINEAR))
    return from_oracle(random_model(Plan(3, layers=layers, weights="wide"), seed=6))


def narrowed(matrix: oracle.Matrix, *widths: int) -> oracle.Matrix:
    """With codes that have these bits, in as many sections. What it needs of an accumulator becomes less."""
    n = len(matrix.codes) // len(widths)
    codes = tuple(tuple(code >> (8 - widths[row // n]) for code in codes) for row, codes in enumerate(matrix.codes))
    return replace(matrix, codes=codes)
