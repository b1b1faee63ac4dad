"""firmware/SPEC.md, executed in exact Python integers: slow and obvious, one function per rule.

Imports nothing of quantgru, and reads the table out of the page itself. Python's integers never overflow, so each
value that the page says fits a type is checked against that type: an AssertionError here means that the page promises
a bound that does not hold. What is not a rule (fast runs, files, conversions from quantgru's types) lives elsewhere.
"""

import hashlib
import re
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import floor
from pathlib import Path

SPEC = Path(__file__).resolve().parent.parent / "firmware" / "SPEC.md"


def spec_version(text: str) -> tuple[int, int]:
    """Returns (major, minor) of the page."""
    major, minor = re.search(r"^Version (\d+)\.(\d+)\.", text, re.MULTILINE).groups()
    return int(major), int(minor)


def spec_table_entries(text: str) -> tuple[int, ...]:
    """Returns the entries of the first code block after R6."""
    block = text.split("**R6 ")[1].split("```")[1]
    return tuple(int(entry) for entry in re.findall(r"\d+", block))


MAJOR, MINOR = spec_version(SPEC.read_text(encoding="utf-8"))
T = spec_table_entries(SPEC.read_text(encoding="utf-8"))
LIMIT = 12 * 2**14 - 1
S32_MAX = 2**31 - 1

RESET_AFTER, RESET_BEFORE = 0, 1
LINEAR, RELU, SIGMOID, TANH = range(4)


@dataclass(frozen=True)
class Matrix:
    """Rows of s8 codes, each row with its multiplier m and shift s; one k for the matrix."""

    codes: tuple[tuple[int, ...], ...]
    m: tuple[int, ...]
    s: tuple[int, ...]
    k: int

    @property
    def columns(self) -> int:
        return len(self.codes[0])


@dataclass(frozen=True)
class Gru:
    """One GRU layer; `c` is empty for RESET_BEFORE."""

    reset: int
    w: Matrix
    u: Matrix
    b: tuple[int, ...]
    c: tuple[int, ...]

    @property
    def units(self) -> int:
        return self.u.columns


@dataclass(frozen=True)
class Dense:
    """One dense layer; f_out of SIGMOID and TANH is 15."""

    activation: int
    f_out: int
    matrix: Matrix
    b: tuple[int, ...]


@dataclass(frozen=True)
class Model:
    """Fraction bits of the inputs, then GRU layers, then dense layers."""

    input_fractions: tuple[int, ...]
    last_step: int
    grus: tuple[Gru, ...]
    head: tuple[Dense, ...]


@dataclass(frozen=True)
class State:
    """h and e of all layers, indexed [layer][unit]."""

    h: tuple[tuple[int, ...], ...]
    e: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Step:
    """All that one step computes; u, r and n are indexed [layer][unit] like the state."""

    state: State
    u: tuple[tuple[int, ...], ...]
    r: tuple[tuple[int, ...], ...]
    n: tuple[tuple[int, ...], ...]
    outputs: tuple[int, ...]
    check: int


# ---- types: each returns its argument, or fails --------------------------------------------------------------------


def within(v: int, low: int, high: int) -> int:
    """Returns v if it is an integer of low … high."""
    assert type(v) is int and low <= v <= high, (v, low, high)
    return v


def s8(v: int) -> int:
    """Returns v if it is a signed 8-bit integer."""
    return within(v, -(2**7), 2**7 - 1)


def s16(v: int) -> int:
    """Returns v if it is a signed 16-bit integer."""
    return within(v, -(2**15), 2**15 - 1)


def s32(v: int) -> int:
    """Returns v if it is a signed 32-bit integer."""
    return within(v, -(2**31), 2**31 - 1)


def u32(v: int) -> int:
    """Returns v if it is an unsigned 32-bit integer."""
    return within(v, 0, 2**32 - 1)


# ---- chapter 2: primitives ----------------------------------------------------------------------------------------


def round_shift(v: int, s: int) -> int:
    """R1: v / 2^s to nearest, ties towards plus infinity."""
    within(s, 1, 30)
    return s32(s32(s32(v) + 2 ** (s - 1)) >> s)


def saturate16(v: int) -> int:
    """R2: the nearest s16. The argument may be any integer: R15 needs more than s32."""
    return s16(min(max(v, -32768), 32767))


def mul_shift16(a: int, m: int) -> int:
    """R3: floor(a * m / 2^16), by the two products of the rule, each of them checked."""
    s32(a), within(m, 0, 32767)
    high = s32(s16(a >> 16) * m)
    low = u32((a & 0xFFFF) * m) >> 16
    result = s32(high + low)
    assert result == (a * m) // 2**16
    return result


def requantize(acc: int, k: int, m: int, s: int) -> int:
    """R4: acc * 2^k * m / 2^(16 + s) to nearest, ties up."""
    within(m, 2**14, 2**15 - 1), within(k, 0, 15)
    result = round_shift(mul_shift16(s32(acc * 2**k), m), s)
    assert result == round_half_up(Fraction(acc * 2**k * m, 2 ** (16 + s)))
    return result


def reset_product(b: int, r: int) -> int:
    """R5: b * r / 2^15 to nearest, ties up."""
    s32(b), within(r, 0, 32768)
    high = s32((b >> 15) * r)
    low = s32(s32((b & 0x7FFF) * r) + 2**14) >> 15
    result = s32(high + low)
    assert result == round_half_up(Fraction(b * r, 2**15))
    return result


def round_half_up(v: Fraction) -> int:
    """What R1, R4, R5 and R15 mean by to nearest, ties up."""
    return floor(v + Fraction(1, 2))


# ---- chapter 3: functions -----------------------------------------------------------------------------------------


def t27(a: int) -> int:
    """R6: tanh(x / 2) with 27 fraction bits, for a = x * 2^14 of 0 … LIMIT."""
    within(a, 0, LIMIT)
    if a < 81920:
        j, f = a >> 9, (a & 511) * 4
    else:
        j, f = (a >> 11) + 120, a & 2047
    return within(T[j] * 2048 + (T[j + 1] - T[j]) * f, 0, 2**27 - 1)


def sigmoid(a: int) -> int:
    """R7: s32f14 to u16f15, 0 … 32768."""
    q = (t27(min(abs(s32(a)), LIMIT)) + 4096) >> 13
    return within(16384 + q if a >= 0 else 16384 - q, 0, 32768)


def tanh(a: int) -> int:
    """R8: s32f14 to s16f15, -32767 … 32767."""
    q = min((t27(min(2 * abs(s32(a)), LIMIT)) + 2048) >> 12, 32767)
    return within(q if a >= 0 else -q, -32767, 32767)


# ---- chapter 4: a GRU layer ---------------------------------------------------------------------------------------


def row(matrix: Matrix, i: int, x: Sequence[int]) -> int:
    """R9: row i of the matrix times x, requantized. Every partial sum is an s32 by P1."""
    assert len(matrix.codes[i]) == len(x)
    acc = 0
    for w, value in zip(matrix.codes[i], x, strict=True):
        acc = s32(acc + s32(s8(w) * s16(value)))
    return requantize(acc, matrix.k, matrix.m[i], matrix.s[i])


def gate_row(layer: Gru, i: int, x: Sequence[int], h: Sequence[int]) -> int:
    """W_i(x) + U_i(h) + b_i of R10, not saturated."""
    return s32(s32(row(layer.w, i, x) + row(layer.u, i, h)) + s32(layer.b[i]))


def update_gate(layer: Gru, x: Sequence[int], h: Sequence[int]) -> tuple[int, ...]:
    """R10: u of all units."""
    return tuple(32768 - sigmoid(gate_row(layer, i, x, h)) for i in range(layer.units))


def reset_gate(layer: Gru, x: Sequence[int], h: Sequence[int]) -> tuple[int, ...]:
    """R10: r of all units."""
    return tuple(sigmoid(gate_row(layer, layer.units + i, x, h)) for i in range(layer.units))


def candidate_reset_after(layer: Gru, x: Sequence[int], h: Sequence[int], r: Sequence[int]) -> tuple[int, ...]:
    """R11a: n of all units, the reset gate acting after the product."""
    n = []
    for unit in range(layer.units):
        i = 2 * layer.units + unit
        from_h = reset_product(s32(row(layer.u, i, h) + s32(layer.c[unit])), r[unit])
        n.append(tanh(s32(s32(row(layer.w, i, x) + s32(layer.b[i])) + from_h)))
    return tuple(n)


def candidate_reset_before(layer: Gru, x: Sequence[int], h: Sequence[int], r: Sequence[int]) -> tuple[int, ...]:
    """R11b: n of all units, the reset gate acting before the product."""
    p = [s16(round_shift(h_j * r_j, 15)) for h_j, r_j in zip(h, r, strict=True)]
    return tuple(tanh(gate_row(layer, 2 * layer.units + unit, x, p)) for unit in range(layer.units))


def update_state(u: int, n: int, h: int, e: int) -> tuple[int, int]:
    """R12: (h', e') of one unit."""
    within(u, 0, 32768), s16(n), s16(h), within(e, 0, 32767)
    acc = s32(s32(u * (n - h)) + e)
    assert acc != -(2**31)
    new_h = within(h + (acc >> 15), min(h, n), max(h, n))
    return s16(new_h), acc & 32767


def reset(model: Model) -> State:
    """R13: the state before the first step."""
    zeros = tuple((0,) * layer.units for layer in model.grus)
    return State(zeros, zeros)


def gru_step(layer: Gru, x: Sequence[int], h: Sequence[int], e: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """R10 … R12 for one layer: (h', e', u, r, n), all from the old h."""
    u = update_gate(layer, x, h)
    r = reset_gate(layer, x, h)
    candidate = {RESET_AFTER: candidate_reset_after, RESET_BEFORE: candidate_reset_before}[layer.reset]
    n = candidate(layer, x, h, r)
    new = [update_state(*unit) for unit in zip(u, n, h, e, strict=True)]
    return tuple(pair[0] for pair in new), tuple(pair[1] for pair in new), u, r, n


# ---- chapter 5: dense layers --------------------------------------------------------------------------------------


def activate(activation: int, a: int) -> int:
    """R14: one value of the table of activations."""
    if activation == LINEAR:
        return saturate16(a)
    if activation == RELU:
        return saturate16(max(a, 0))
    if activation == SIGMOID:
        return s16(min(sigmoid(a), 32767))
    assert activation == TANH
    return tanh(a)


def dense(layer: Dense, x: Sequence[int]) -> tuple[int, ...]:
    """R14: the outputs of one dense layer."""
    return tuple(
        activate(layer.activation, s32(row(layer.matrix, i, x) + s32(layer.b[i]))) for i in range(len(layer.b))
    )


def output(model: Model, state: State) -> tuple[int, ...]:
    """R14: the outputs of the model, from the new h of its last GRU layer."""
    x = state.h[-1]
    for layer in model.head:
        x = dense(layer, x)
    return x


# ---- chapter 6: inputs, outputs, check values ---------------------------------------------------------------------


def convert_input(x: Fraction | int | float, f: int) -> int:
    """R15: the raw input of a real number or a count. Finite values only: R15 says nothing of an infinity."""
    return saturate16(round_half_up(Fraction(x) * Fraction(2) ** within(f, -31, 31)))


def check_value(state: State, outputs: Sequence[int], before: int = 0) -> int:
    """R16: the running CRC-32 after a step; `before` is its value after the step before, 0 at the reset."""
    h = [v for layer in state.h for v in layer]
    e = [v for layer in state.e for v in layer]
    return zlib.crc32(b"".join((v & 0xFFFF).to_bytes(2, "little") for v in [*h, *e, *outputs]), before)


def digest(model: Model) -> str:
    """R17: SHA-256 over the numbers of the model, as hexadecimal text."""
    parts = [b"quantgru", struct.pack("<BBH", MAJOR, model.last_step, len(model.input_fractions))]
    parts += [struct.pack("<b", f) for f in model.input_fractions]
    parts.append(struct.pack("<B", len(model.grus) + len(model.head)))
    for gru in model.grus:
        parts.append(struct.pack("<5B", 1, gru.reset, 0, 0, 15))
        parts += [matrix_bytes(gru.w), matrix_bytes(gru.u)]
        parts += [struct.pack("<i", v) for v in (*gru.b, *gru.c)]
    for layer in model.head:
        parts += [struct.pack("<BBb", 2, layer.activation, layer.f_out), matrix_bytes(layer.matrix)]
        parts += [struct.pack("<i", v) for v in layer.b]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def matrix_bytes(matrix: Matrix) -> bytes:
    """R17: the bytes of one matrix."""
    head = struct.pack("<BBHH", 8, matrix.k, len(matrix.codes), matrix.columns)
    m = b"".join(struct.pack("<H", v) for v in matrix.m)
    s = b"".join(struct.pack("<B", v) for v in matrix.s)
    return head + m + s + b"".join(struct.pack("<b", w) for codes in matrix.codes for w in codes)


# ---- chapter 7: what a model must prove ---------------------------------------------------------------------------


def accumulator_bound(codes: Sequence[int]) -> int:
    """A: a bound of every partial sum of a row, in any order, for every s16 operand."""
    return 32768 * sum(abs(w) for w in codes)


def requantized_bound(matrix: Matrix, i: int) -> int:
    """Q of P2: a bound of |requantize| of row i."""
    return ((accumulator_bound(matrix.codes[i]) * 2**matrix.k * matrix.m[i]) >> 16 >> matrix.s[i]) + 1


def accumulators_fit(matrix: Matrix) -> bool:
    """P1, for all rows of a matrix."""
    return all(accumulator_bound(codes) * 2**matrix.k <= S32_MAX for codes in matrix.codes)


def gate_bound(layer: Gru, i: int) -> int:
    """The left side of P2 for row i of a GRU layer."""
    bound = requantized_bound(layer.w, i) + requantized_bound(layer.u, i) + abs(layer.b[i])
    if layer.reset == RESET_AFTER and i >= 2 * layer.units:
        bound += abs(layer.c[i - 2 * layer.units])
    return bound


def dense_bound(layer: Dense, i: int) -> int:
    """The left side of P2 for row i of a dense layer."""
    return requantized_bound(layer.matrix, i) + abs(layer.b[i])


def pre_activations_fit(model: Model) -> bool:
    """P2, for all rows of all layers."""
    bounds = [gate_bound(gru, i) for gru in model.grus for i in range(3 * gru.units)]
    bounds += [dense_bound(layer, i) for layer in model.head for i in range(len(layer.b))]
    return max(bounds) <= S32_MAX


def matrix_in_ranges(matrix: Matrix, rows: int, columns: int) -> bool:
    """P3 for one matrix."""
    return (
        len(matrix.codes) == len(matrix.m) == len(matrix.s) == rows
        and all(len(codes) == columns for codes in matrix.codes)
        and all(-128 <= w <= 127 for codes in matrix.codes for w in codes)
        and all(2**14 <= m <= 2**15 - 1 for m in matrix.m)
        and all(1 <= s <= 30 for s in matrix.s)
        and 0 <= matrix.k <= 15
    )


def in_ranges(model: Model) -> bool:
    """P3: shapes, formats and enumerators; the layers fit together."""
    ok = len(model.grus) >= 1 and len(model.input_fractions) >= 1 and model.last_step in (0, 1)
    ok = ok and all(-31 <= f <= 31 for f in model.input_fractions)
    columns = len(model.input_fractions)
    for gru in model.grus:
        units = gru.units
        ok = ok and gru.reset in (RESET_AFTER, RESET_BEFORE) and len(gru.b) == 3 * units
        ok = ok and len(gru.c) == (units if gru.reset == RESET_AFTER else 0)
        ok = ok and matrix_in_ranges(gru.w, 3 * units, columns) and matrix_in_ranges(gru.u, 3 * units, units)
        columns = units
    for layer in model.head:
        ok = ok and layer.activation in (LINEAR, RELU, SIGMOID, TANH) and -31 <= layer.f_out <= 31
        ok = ok and (layer.activation in (LINEAR, RELU) or layer.f_out == 15)
        ok = ok and matrix_in_ranges(layer.matrix, len(layer.b), columns)
        columns = len(layer.b)
    return ok


def proved(model: Model) -> bool:
    """P1, P2 and P3."""
    matrices = [matrix for gru in model.grus for matrix in (gru.w, gru.u)] + [layer.matrix for layer in model.head]
    return in_ranges(model) and all(map(accumulators_fit, matrices)) and pre_activations_fit(model)


# ---- a whole model ------------------------------------------------------------------------------------------------


def step(model: Model, state: State, x: Sequence[int], check: int = 0) -> Step:
    """One step of all layers and the head: each further layer reads the new h of the layer before it."""
    layers = []
    for gru, h, e in zip(model.grus, state.h, state.e, strict=True):
        layers.append(gru_step(gru, x, h, e))
        x = layers[-1][0]
    h, e, u, r, n = (tuple(values) for values in zip(*layers, strict=True))
    new = State(h, e)
    outputs = output(model, new)
    return Step(new, u, r, n, outputs, check_value(new, outputs, check))


def run(model: Model, sequence: Sequence[Sequence[int]]) -> list[Step]:
    """All steps of one sequence, from the reset."""
    state, check, steps = reset(model), 0, []
    for x in sequence:
        steps.append(step(model, state, x, check))
        state, check = steps[-1].state, steps[-1].check
    return steps
