"""The GRU cell in a trace: found by its arithmetic, whatever its nodes are called and however they are grouped.

h' = u * h + (1 - u) * n, where u is a sigmoid of sums of products of x and h with matrices, and n a function of such
sums in which h comes with a reset gate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import numpy as np

from quantgru.activations import Candidate, GateFunction, Merge, Reset
from quantgru.importers.tensorflow1_sums import (
    MismatchError,
    Terms,
    constant_operand,
    factors,
    mixtures,
    operand_without,
    operands,
    terms,
    want_size,
    weights,
)
from quantgru.importers.tensorflow1_trace import FloatArray, Ids, Trace
from quantgru.model import Gate, Gru


@dataclass(frozen=True, eq=False)
class Cell:
    """One step of a GRU cell: where its numbers come from, without the weights.

    ids            of the new state
    argument       of the candidate function
    inner          what the reset gate multiplies, of reset "after"
    reset_product  r * h, of reset "before"; otherwise empty
    keeps          whether u is the share of h that is kept, rather than that of n
    """

    ids: Ids
    x: Ids
    h: Ids
    update: Terms
    reset_gate: Terms
    argument: Terms
    inner: Terms | None
    reset_product: Ids
    functions: tuple[GateFunction, Candidate]
    keeps: bool
    node: str


def find_cell(trace: Trace, ids: Ids) -> Cell:
    """The cell that gives `ids`. Raises MismatchError."""
    for update, kept, other in mixtures(trace, ids):
        for state, candidate, keeps in ((kept, other, True), (other, kept, False)):
            try:
                return _cell(trace, ids, update, state, candidate, keeps)
            except MismatchError:
                continue
    raise MismatchError


def merged(trace: Trace, ids: Ids) -> tuple[Merge, Ids, Ids]:
    """How two vectors are merged into `ids`, and these. Raises MismatchError."""
    source = trace.source(ids)
    if source and source[0].kind == "product" and not constant_operand(trace, source):
        return "mul", *operands(source)
    sums = terms(trace, ids)
    if len(sums.others) != 2 or sums.products or sums.bias.any():
        raise MismatchError
    (scale, first), (other_scale, second) = sums.others
    merges: dict[float, Merge] = {1.0: "sum", 0.5: "ave"}
    if (scale != scale[0]).any() or (other_scale != scale[0]).any() or scale[0] not in merges:
        raise MismatchError
    return merges[float(scale[0])], second, first  # the last one was pending first


def gru_layer(name: str, cell: Cell, initial_state: FloatArray | None) -> Gru:
    """The canonical layer with the weights of a cell. Raises MismatchError where it has more than those of x and h."""
    n_units, n_inputs = len(cell.h), len(cell.x)
    want_size(3 * n_units * (n_units + n_inputs))
    reset: Reset = "after" if cell.inner else "before"
    input_weights, recurrent_weights = np.zeros((3, n_units, n_inputs)), np.zeros((3, n_units, n_units))
    bias, recurrent_bias = np.zeros((3, n_units)), np.zeros(n_units)
    for gate, sums, h in (
        (Gate.Z, cell.update, cell.h),
        (Gate.R, cell.reset_gate, cell.h),
        (Gate.N, cell.argument, cell.reset_product),
    ):
        input_weights[gate], recurrent_weights[gate, :, : len(h)] = weights(sums, cell.x, h)
        bias[gate] = sums.bias
    if cell.inner:
        (recurrent_weights[Gate.N],), recurrent_bias = weights(cell.inner, cell.h), cell.inner.bias
    if not cell.keeps:  # 1 - sigmoid(a) = sigmoid(-a)
        for blocks in (input_weights, recurrent_weights, bias):
            blocks[Gate.Z] *= -1
    return Gru(
        name,
        reset,
        input_weights,
        recurrent_weights,
        bias,
        recurrent_bias,
        *cell.functions,
        initial_state=initial_state,
    )


def _cell(trace: Trace, ids: Ids, update: Ids, state: Ids, candidate: Ids, keeps: bool) -> Cell:
    gate, update_terms = _gate(trace, update)
    x = operand_without(update_terms, state)
    function, argument = _candidate(trace, candidate)
    inner, reset_product = None, state[:0]
    if argument.others:  # r * (U h + c)
        reset, inner = _reset_after(trace, argument)
    else:  # U (r * h)
        reset_product = operand_without(argument, x)
        reset = next((r for r, h in factors(trace, reset_product) if np.array_equal(h, state)), state[:0])
    reset_gate, reset_terms = _gate(trace, reset)
    if reset_gate != gate:
        raise MismatchError
    node = trace.owner(int(update[0])).node
    functions = gate, function
    return Cell(ids, x, state, update_terms, reset_terms, argument, inner, reset_product, functions, keeps, node)


def _gate(trace: Trace, ids: Ids) -> tuple[GateFunction, Terms]:
    """The function of a gate, and what it is applied to."""
    source = trace.source(ids) if len(ids) else None
    if source and source[0].kind == "sigmoid":
        return "sigmoid", terms(trace, source[0].operand(0, source[1]))
    return "hard_sigmoid", terms(trace, _clipped(trace, ids, 0.0, 1.0), shift=-0.5)


def _candidate(trace: Trace, ids: Ids) -> tuple[Candidate, Terms]:
    """The candidate function, and what it is applied to."""
    source = trace.source(ids)
    if source is None:
        raise MismatchError
    for name in get_args(Candidate):
        if source[0].kind == name:
            return name, terms(trace, source[0].operand(0, source[1]))
    if source[0].kind in ("minimum", "maximum"):
        return "hard_tanh", terms(trace, _clipped(trace, ids, -1.0, 1.0))
    return "linear", terms(trace, ids)


def _clipped(trace: Trace, ids: Ids, low: float, high: float) -> Ids:
    """What is limited to low ... high. Raises MismatchError where nothing is, or to something else."""
    limits = {"maximum": low, "minimum": high}
    while limits:
        source = trace.source(ids) if len(ids) else None
        if source is None or source[0].kind not in limits:
            raise MismatchError
        found = constant_operand(trace, source)
        if found is None or (found[0] != limits.pop(source[0].kind)).any():
            raise MismatchError
        ids = found[1]
    return ids


def _reset_after(trace: Trace, argument: Terms) -> tuple[Ids, Terms]:
    """The reset gate, and what it multiplies."""
    (scale, product), *more = argument.others
    for reset, inside in () if more else factors(trace, product):
        source = trace.source(reset)
        inner = terms(trace, inside, scale)
        if source and source[0].kind in ("sigmoid", "minimum", "maximum") and not inner.others:
            return reset, inner
    raise MismatchError
