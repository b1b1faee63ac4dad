"""Chapter 4 of SPEC.md: a GRU layer."""

from collections.abc import Sequence

from oracle.arithmetic import (
    hard_sigmoid,
    requantize,
    reset_product,
    round_shift,
    s16,
    s32,
    saturate16,
    sigmoid,
    tanh,
    within,
)
from oracle.models import (
    CANDIDATE_HARD_TANH,
    CANDIDATE_LINEAR,
    CANDIDATE_RELU,
    CANDIDATE_SIGMOID,
    CANDIDATE_TANH,
    GATE_HARD_SIGMOID,
    GATE_SIGMOID,
    RESET_AFTER,
    RESET_BEFORE,
    Gru,
    GruStep,
    Matrix,
    Model,
    State,
)


def row(matrix: Matrix, i: int, x: Sequence[int]) -> int:
    """R9: row i of the matrix times x, requantized. Every partial sum is an s32 by P1."""
    assert len(matrix.codes[i]) == len(x)
    acc = 0
    for w, value in zip(matrix.codes[i], x, strict=True):
        acc = s32(acc + s32(s16(w) * s16(value)))
    return requantize(acc, matrix.k, matrix.m[i], matrix.s[i])


def gate_row(layer: Gru, i: int, x: Sequence[int], h: Sequence[int]) -> int:
    """W_i(x) + U_i(h) + b_i of R10, not saturated."""
    return s32(s32(row(layer.w, i, x) + row(layer.u, i, h)) + s32(layer.b[i]))


def gate(kind: int, a: int) -> int:
    """R10: the gate function of a layer."""
    return {GATE_SIGMOID: sigmoid, GATE_HARD_SIGMOID: hard_sigmoid}[kind](a)


def update_gate(layer: Gru, x: Sequence[int], h: Sequence[int]) -> tuple[int, ...]:
    """R10: u of all units."""
    return tuple(32768 - gate(layer.gate, gate_row(layer, i, x, h)) for i in range(layer.units))


def reset_gate(layer: Gru, x: Sequence[int], h: Sequence[int]) -> tuple[int, ...]:
    """R10: r of all units."""
    return tuple(gate(layer.gate, gate_row(layer, layer.units + i, x, h)) for i in range(layer.units))


def candidate(kind: int, a: int, f_h: int) -> int:
    """R19: n of one unit, an s16 with f_h fraction bits."""
    s32(a)
    if kind in (CANDIDATE_RELU, CANDIDATE_LINEAR):
        within(f_h, -31, 31)
        return saturate16(max(a, 0) if kind == CANDIDATE_RELU else a)
    within(f_h, -15, 15)
    if kind == CANDIDATE_TANH:
        t = tanh(a)
    elif kind == CANDIDATE_SIGMOID:
        t = min(sigmoid(a), 32767)
    else:
        assert kind == CANDIDATE_HARD_TANH
        t = saturate16(a)
    return s16(t if f_h == 15 else round_shift(t, 15 - f_h))


def saturated(layer: Gru, n: Sequence[int]) -> int:
    """R25: how many of these candidates."""
    return sum(s16(v) in (32767, -32768) for v in n) if layer.candidate in (CANDIDATE_RELU, CANDIDATE_LINEAR) else 0


def candidate_reset_after(layer: Gru, x: Sequence[int], h: Sequence[int], r: Sequence[int]) -> tuple[int, ...]:
    """R11a: n of all units, the reset gate acting after the product."""
    n = []
    for unit in range(layer.units):
        i = 2 * layer.units + unit
        from_h = reset_product(s32(row(layer.u, i, h) + s32(layer.c[unit])), r[unit])
        a = s32(s32(row(layer.w, i, x) + s32(layer.b[i])) + from_h)
        n.append(candidate(layer.candidate, a, layer.f_h))
    return tuple(n)


def candidate_reset_before(layer: Gru, x: Sequence[int], h: Sequence[int], r: Sequence[int]) -> tuple[int, ...]:
    """R11b: n of all units, the reset gate acting before the product."""
    p = [s16(round_shift(h_j * r_j, 15)) for h_j, r_j in zip(h, r, strict=True)]
    a = [gate_row(layer, 2 * layer.units + unit, x, p) for unit in range(layer.units)]
    return tuple(candidate(layer.candidate, a_j, layer.f_h) for a_j in a)


def update_state(u: int, n: int, h: int, e: int) -> tuple[int, int]:
    """R12: (h', e') of one unit."""
    within(u, 0, 32768), s16(n), s16(h), within(e, 0, 32767)
    acc = s32(s32(u * (n - h)) + e)
    assert acc != -(2**31)
    new_h = within(h + (acc >> 15), min(h, n), max(h, n))
    return s16(new_h), acc & 32767


def reset(model: Model) -> State:
    """R13, R20: the state before the first step."""
    return State(tuple(gru.h0 for gru in model.grus), tuple((0,) * gru.units for gru in model.grus))


def gru_step(layer: Gru, x: Sequence[int], h: Sequence[int], e: Sequence[int]) -> GruStep:
    """R10 … R12 for one layer, all from the old h."""
    u = update_gate(layer, x, h)
    r = reset_gate(layer, x, h)
    candidates = {RESET_AFTER: candidate_reset_after, RESET_BEFORE: candidate_reset_before}[layer.reset]
    n = candidates(layer, x, h, r)
    new = [update_state(*unit) for unit in zip(u, n, h, e, strict=True)]
    return GruStep(tuple(pair[0] for pair in new), tuple(pair[1] for pair in new), u, r, n)
