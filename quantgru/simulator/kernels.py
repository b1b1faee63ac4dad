"""The contract in Numba: scalar rules, one step of a layer, runs over sequences. Rules are cited as in SPEC.md.

Integers that could leave 32 bits in between are computed in 64; the proof that travels with a model says that the
device never needs to. Dot products stay in 32 bits, exactly as on the device, so that they vectorise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import config, njit, types
from numba.extending import intrinsic

# t(x) = tanh(x / 2), unsigned, 16 fraction bits: x = 0, 1/32 ... 5, then 5 1/8 ... 12 [R6]. It stands in this file
# because compiled kernels are kept for as long as the file does not change. `tools/activation_table.py` derives it.
# fmt: off
HALF_TANH = np.array([
    0, 1024, 2047, 3070, 4091, 5110, 6126, 7140, 8150, 9156, 10158, 11155, 12146, 13132, 14112, 15085,
    16051, 17010, 17961, 18904, 19839, 20765, 21681, 22588, 23486, 24373, 25251, 26117, 26973, 27818, 28652, 29475,
    30286, 31086, 31873, 32649, 33413, 34165, 34904, 35632, 36347, 37050, 37740, 38419, 39085, 39738, 40380, 41009,
    41626, 42231, 42824, 43404, 43973, 44530, 45076, 45610, 46132, 46643, 47143, 47631, 48109, 48576, 49032, 49477,
    49912, 50337, 50752, 51157, 51552, 51938, 52314, 52681, 53039, 53388, 53728, 54059, 54382, 54697, 55004, 55303,
    55594, 55877, 56153, 56421, 56683, 56937, 57185, 57426, 57661, 57889, 58111, 58327, 58537, 58741, 58939, 59132,
    59320, 59503, 59680, 59852, 60020, 60183, 60341, 60494, 60644, 60789, 60930, 61067, 61200, 61329, 61454, 61576,
    61694, 61809, 61921, 62029, 62134, 62236, 62335, 62431, 62524, 62615, 62703, 62788, 62871, 62952, 63030, 63105,
    63179, 63250, 63319, 63386, 63451, 63514, 63576, 63635, 63693, 63749, 63803, 63856, 63907, 63956, 64004, 64051,
    64096, 64140, 64182, 64224, 64264, 64302, 64340, 64376, 64412, 64446, 64479, 64512, 64543, 64573, 64603, 64631,
    64660, 64762, 64852, 64932, 65003, 65065, 65121, 65169, 65212, 65250, 65284, 65313, 65339, 65362, 65383, 65401,
    65417, 65431, 65443, 65454, 65464, 65472, 65480, 65486, 65492, 65497, 65502, 65506, 65509, 65512, 65515, 65518,
    65520, 65522, 65523, 65525, 65526, 65527, 65528, 65529, 65530, 65531, 65531, 65532, 65532, 65533, 65533, 65534,
    65534, 65534, 65534, 65534, 65535, 65535, 65535, 65535, 65535,
], dtype=np.int64)
# fmt: on
LIMIT = 12 * 2**14 - 1  # of arguments: beyond it, R7 and R8 are constant
FINE_END = 5 * 2**14

# As R17 numbers them: an enumerator inside a loop is compiled once, a function that is handed in once for each.
_HARD_SIGMOID = 1
_TANH, _RELU, _LINEAR, _SIGMOID, _HARD_TANH = range(5)


def _jit(function: Any) -> Any:
    """Compiles a kernel, which lets other threads run and is kept on disk; where nothing can be written, it is not."""
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:  # "no locator available": neither beside the file nor at home
        return njit(nogil=True)(function)


def _multiply_add_intrinsic(typing_context: Any, acc: Any, a: Any, b: Any) -> Any:
    """acc + a * b for int16 a and b, in int32. Numba would widen to 64 bits, and LLVM then finds no vpmaddwd."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        acc_value, a_value, b_value = arguments
        wide = ir.IntType(32)
        return builder.add(acc_value, builder.mul(builder.sext(a_value, wide), builder.sext(b_value, wide)))

    return types.int32(types.int32, types.int16, types.int16), codegen


def _multiply_add_python(acc: Any, a: Any, b: Any) -> Any:
    """The same for NUMBA_DISABLE_JIT=1, in which an intrinsic is nothing that can be called."""
    return acc + np.int32(a) * np.int32(b)


_multiply_add = _multiply_add_python if config.DISABLE_JIT else intrinsic(_multiply_add_intrinsic)


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
    """[R6], 0 <= a <= LIMIT."""
    if a < FINE_END:
        j = a >> 9
        fraction = (a & 511) * 4
    else:
        j = (a >> 11) + 120
        fraction = a & 2047
    return HALF_TANH[j] * 2048 + (HALF_TANH[j + 1] - HALF_TANH[j]) * fraction


@_jit
def sigmoid(a):  # type: ignore[no-untyped-def]
    """[R7]"""
    q = (half_tanh_q27(min(abs(a), LIMIT)) + 4096) >> 13
    return 16384 + q if a >= 0 else 16384 - q


@_jit
def tanh(a):  # type: ignore[no-untyped-def]
    """[R8]"""
    q = min((half_tanh_q27(min(2 * abs(a), LIMIT)) + 2048) >> 12, 32767)
    return q if a >= 0 else -q


@_jit
def gate(kind, a):  # type: ignore[no-untyped-def]
    """[R7, R18]"""
    if kind == _HARD_SIGMOID:
        return 16384 + min(max(a, np.int64(-16384)), np.int64(16384))
    return sigmoid(a)


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
def candidates(kind, shift, a, n):  # type: ignore[no-untyped-def]
    """n of all units for their sums a; returns how many saturated [R19, R25]."""
    units, saturated = n.shape[0], 0
    if kind == _TANH:
        for i in range(units):
            n[i] = tanh(a[i])
    elif kind == _SIGMOID:
        for i in range(units):
            n[i] = min(sigmoid(a[i]), 32767)
    else:
        for i in range(units):
            n[i] = saturate16(max(a[i], np.int64(0)) if kind == _RELU else a[i])
            saturated += kind != _HARD_TANH and (n[i] == 32767 or n[i] == -32768)
    if shift > 0:
        for i in range(units):
            n[i] = round_shift(np.int64(n[i]), shift)
    return saturated


@_jit
def step_reset_after(layer, x, h, residual, u, r, n):  # type: ignore[no-untyped-def]
    """One step of a layer, h and residual in place, u, r and n written [R10, R11a, R12]; returns how many n saturated.

    layer is (W, U, bias int64 [3H], recurrent bias int64 [H], (gate, candidate, shift), work int64 [6H]).
    """
    w, rec, bias, recurrent_bias, (gate_kind, candidate_kind, shift), work = layer
    units = h.shape[0]
    from_x, from_h = work[: 3 * units], work[3 * units :]
    affine(w, 0, x, from_x)
    affine(rec, 0, h, from_h)
    for i in range(units):
        u[i] = 32768 - gate(gate_kind, from_x[i] + from_h[i] + bias[i])
    for i in range(units):
        r[i] = gate(gate_kind, from_x[units + i] + from_h[units + i] + bias[units + i])
    for i in range(units):
        inner = reset_product(from_h[2 * units + i] + recurrent_bias[i], np.int64(r[i]))
        from_x[2 * units + i] += bias[2 * units + i] + inner
    saturated = candidates(candidate_kind, shift, from_x[2 * units :], n)
    update_state(h, residual, u, n)
    return saturated


@_jit
def step_reset_before(layer, x, h, residual, u, r, n):  # type: ignore[no-untyped-def]
    """One step of a layer, h and residual in place, u, r and n written [R10, R11b, R12]; returns how many n saturated.

    layer is as in `step_reset_after`; the recurrent bias is not read.
    """
    w, rec, bias, _, (gate_kind, candidate_kind, shift), work = layer
    units = h.shape[0]
    from_x, from_h = work[: 3 * units], work[3 * units :]
    product = np.empty(units, dtype=np.int16)
    affine(w, 0, x, from_x)
    affine(rec, 0, h, from_h[: 2 * units])
    for i in range(units):
        u[i] = 32768 - gate(gate_kind, from_x[i] + from_h[i] + bias[i])
    for i in range(units):
        r[i] = gate(gate_kind, from_x[units + i] + from_h[units + i] + bias[units + i])
        product[i] = round_shift(np.int64(h[i]) * np.int64(r[i]), 15)
    affine(rec, 2 * units, product, from_h[2 * units :])
    for i in range(units):
        from_x[2 * units + i] += from_h[2 * units + i] + bias[2 * units + i]
    saturated = candidates(candidate_kind, shift, from_x[2 * units :], n)
    update_state(h, residual, u, n)
    return saturated


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
    """All steps of a batch through one layer; h and residual [sequences, units] in place. Returns how many n saturated.

    traces is (h, residual, u, r, n), each [sequences, steps, units]. An array with a single step is overwritten at
    each one: that is how a run without traces saves memory.
    """
    h_trace, residual_trace, u_trace, r_trace, n_trace = traces
    saturated = 0
    for i in range(x.shape[0]):
        for t in range(lengths[i]):
            kept = t if u_trace.shape[1] > 1 else 0
            u, r, n = u_trace[i, kept], r_trace[i, kept], n_trace[i, kept]
            if reset_after:
                saturated += step_reset_after(layer, x[i, t], h[i], residual[i], u, r, n)
            else:
                saturated += step_reset_before(layer, x[i, t], h[i], residual[i], u, r, n)
            for j in range(h.shape[1]):  # as slices, Numba would compile the text of an error, too
                h_trace[i, t, j] = h[i, j]
                residual_trace[i, kept, j] = residual[i, j]
    return saturated


@_jit
def run_dense(matrix, bias, activation, x, y):  # type: ignore[no-untyped-def]
    """A dense layer on x [vectors, inputs], into y [vectors, outputs]; returns how many outputs saturated."""
    sums = np.empty(y.shape[1], dtype=np.int64)
    saturated = 0
    for i in range(x.shape[0]):
        saturated += dense(matrix, bias, activation, x[i], sums, y[i])
    return saturated
