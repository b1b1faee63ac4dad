"""The contract in Numba: scalar rules, one step of a layer, runs over sequences. Rules are cited as in SPEC.md.

Integers that could leave 32 bits in between are computed in 64; the proof that travels with a model says that the
device never needs to. Dot products stay in 32 bits, exactly as on the device, so that they vectorise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from quantgru.activations import HALF_TANH

_TABLE = np.array(HALF_TANH, dtype=np.int64)
_LIMIT = 12 * 2**14 - 1
_FINE_END = 5 * 2**14

# Kernels are kept compiled on disk and let other threads run.
_jit = njit(cache=True, nogil=True)


@intrinsic  # type: ignore[untyped-decorator]
def _multiply_add(typing_context: Any, acc: Any, a: Any, b: Any) -> Any:
    """acc + a * b for int16 a and b, in int32. Numba would widen to 64 bits, and LLVM then finds no vpmaddwd."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        acc_value, a_value, b_value = arguments
        wide = ir.IntType(32)
        return builder.add(acc_value, builder.mul(builder.sext(a_value, wide), builder.sext(b_value, wide)))

    return types.int32(types.int32, types.int16, types.int16), codegen


@_jit
def dot(codes, x):  # type: ignore[no-untyped-def]
    """Exact sum of codes[c] * x[c], both int16; the model proves that it fits int32 [R9]."""
    acc = np.int32(0)
    for c in range(codes.shape[0]):
        acc = _multiply_add(acc, codes[c], x[c])
    return np.int64(acc)


@_jit
def round_shift(v, s):  # type: ignore[no-untyped-def]
    """[R1]"""
    return (v + (np.int64(1) << (s - 1))) >> s


@_jit
def saturate16(v):  # type: ignore[no-untyped-def]
    """[R2]"""
    return min(max(v, np.int64(-32768)), np.int64(32767))


@_jit
def requantize(acc, k, m, s):  # type: ignore[no-untyped-def]
    """[R3, R4]"""
    return round_shift(((acc << k) * m) >> 16, s)


@_jit
def reset_product(b, r):  # type: ignore[no-untyped-def]
    """[R5]"""
    return (b * r + 16384) >> 15


@_jit
def half_tanh_q27(a):  # type: ignore[no-untyped-def]
    """[R6], 0 <= a <= _LIMIT."""
    if a < _FINE_END:
        j = a >> 9
        fraction = (a & 511) * 4
    else:
        j = (a >> 11) + 120
        fraction = a & 2047
    return _TABLE[j] * 2048 + (_TABLE[j + 1] - _TABLE[j]) * fraction


@_jit
def sigmoid(a):  # type: ignore[no-untyped-def]
    """[R7]"""
    q = (half_tanh_q27(min(abs(a), _LIMIT)) + 4096) >> 13
    return 16384 + q if a >= 0 else 16384 - q


@_jit
def tanh(a):  # type: ignore[no-untyped-def]
    """[R8]"""
    q = min((half_tanh_q27(min(2 * abs(a), _LIMIT)) + 2048) >> 12, 32767)
    return q if a >= 0 else -q


@_jit
def affine(matrix, first_row, x, sums):  # type: ignore[no-untyped-def]
    """sums[i] = row first_row + i, requantized; matrix is (codes int16 [rows, columns], k, m, s int64 [rows]) [R9]."""
    codes, k, m, s = matrix
    for i in range(sums.shape[0]):
        sums[i] = dot(codes[first_row + i], x)
    for i in range(sums.shape[0]):
        sums[i] = requantize(sums[i], k, m[first_row + i], s[first_row + i])


@_jit
def update_state(h, residual, u, n):  # type: ignore[no-untyped-def]
    """[R12], in place."""
    for i in range(h.shape[0]):
        acc = np.int64(u[i]) * (np.int64(n[i]) - np.int64(h[i])) + np.int64(residual[i])
        h[i] += acc >> 15
        residual[i] = acc & 32767


@_jit
def step_reset_after(layer, x, h, residual, u, r, n):  # type: ignore[no-untyped-def]
    """One step of a layer, h and residual in place, u, r and n written [R10, R11a, R12].

    layer is (W, U, bias int64 [3H], recurrent bias int64 [H], work int64 [6H]).
    """
    w, rec, bias, recurrent_bias, work = layer
    units = h.shape[0]
    from_x, from_h = work[: 3 * units], work[3 * units :]
    affine(w, 0, x, from_x)
    affine(rec, 0, h, from_h)
    for i in range(units):
        u[i] = 32768 - sigmoid(from_x[i] + from_h[i] + bias[i])
    for i in range(units):
        r[i] = sigmoid(from_x[units + i] + from_h[units + i] + bias[units + i])
    for i in range(units):
        inner = reset_product(from_h[2 * units + i] + recurrent_bias[i], np.int64(r[i]))
        n[i] = tanh(from_x[2 * units + i] + bias[2 * units + i] + inner)
    update_state(h, residual, u, n)


@_jit
def step_reset_before(layer, x, h, residual, u, r, n):  # type: ignore[no-untyped-def]
    """One step of a layer, h and residual in place, u, r and n written [R10, R11b, R12].

    layer is as in `step_reset_after`; the recurrent bias is not read.
    """
    w, rec, bias, _, work = layer
    units = h.shape[0]
    from_x, from_h = work[: 3 * units], work[3 * units :]
    product = np.empty(units, dtype=np.int16)
    affine(w, 0, x, from_x)
    affine(rec, 0, h, from_h[: 2 * units])
    for i in range(units):
        u[i] = 32768 - sigmoid(from_x[i] + from_h[i] + bias[i])
    for i in range(units):
        r[i] = sigmoid(from_x[units + i] + from_h[units + i] + bias[units + i])
        product[i] = round_shift(np.int64(h[i]) * np.int64(r[i]), 15)
    affine(rec, 2 * units, product, from_h[2 * units :])
    for i in range(units):
        n[i] = tanh(from_x[2 * units + i] + from_h[2 * units + i] + bias[2 * units + i])
    update_state(h, residual, u, n)


@_jit
def dense(matrix, bias, activation, x, sums, y):  # type: ignore[no-untyped-def]
    """One dense layer on one vector; returns how many outputs saturated [R14]. Activations are numbered as in R17."""
    saturated = 0
    affine(matrix, 0, x, sums)
    for i in range(y.shape[0]):
        a = sums[i] + bias[i]
        if activation == 2:
            y[i] = min(sigmoid(a), 32767)
        elif activation == 3:
            y[i] = tanh(a)
        else:
            if activation == 1:
                a = max(a, np.int64(0))
            y[i] = saturate16(a)
            saturated += y[i] != a
    return saturated


@_jit
def run_gru(layer, reset_after, x, lengths, h, residual, traces):  # type: ignore[no-untyped-def]
    """All steps of a batch through one layer; h and residual [sequences, units] in place.

    traces is (h, residual, u, r, n), each [sequences, steps, units]. An array with a single step is overwritten at
    each one: that is how a run without traces saves memory.
    """
    h_trace, residual_trace, u_trace, r_trace, n_trace = traces
    for i in range(x.shape[0]):
        for t in range(lengths[i]):
            kept = t if u_trace.shape[1] > 1 else 0
            u, r, n = u_trace[i, kept], r_trace[i, kept], n_trace[i, kept]
            if reset_after:
                step_reset_after(layer, x[i, t], h[i], residual[i], u, r, n)
            else:
                step_reset_before(layer, x[i, t], h[i], residual[i], u, r, n)
            h_trace[i, t] = h[i]
            residual_trace[i, kept] = residual[i]


@_jit
def run_dense(matrix, bias, activation, x, y):  # type: ignore[no-untyped-def]
    """A dense layer on x [vectors, inputs], into y [vectors, outputs]; returns how many outputs saturated."""
    sums = np.empty(y.shape[1], dtype=np.int64)
    saturated = 0
    for i in range(x.shape[0]):
        saturated += dense(matrix, bias, activation, x[i], sums, y[i])
    return saturated
