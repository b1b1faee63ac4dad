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
from dataclasses import InitVar, dataclass
from fractions import Fraction
from math import floor
from pathlib import Path
from typing import NamedTuple

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
GATE_SIGMOID, GATE_HARD_SIGMOID = range(2)
CANDIDATE_TANH, CANDIDATE_RELU, CANDIDATE_LINEAR, CANDIDATE_SIGMOID, CANDIDATE_HARD_TANH = range(5)
MERGE_CONCAT, MERGE_SUM, MERGE_MUL, MERGE_AVE = range(4)
BOUNDED = (CANDIDATE_TANH, CANDIDATE_SIGMOID, CANDIDATE_HARD_TANH)


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
    """One GRU layer; `c` is empty for RESET_BEFORE. An empty h0 stands for zeros, and is replaced by them."""

    reset: int
    w: Matrix
    u: Matrix
    b: tuple[int, ...]
    c: tuple[int, ...]
    gate: int = GATE_SIGMOID
    candidate: int = CANDIDATE_TANH
    f_h: int = 15
    h0: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.h0:
            object.__setattr__(self, "h0", (0,) * self.units)

    @property
    def units(self) -> int:
        return self.u.columns


@dataclass(frozen=True)
class Bidirectional:
    """Two GRU layers, one of them from the end; `final` is 1 for one vector instead of one at every step."""

    forward: Gru
    backward: Gru
    merge: int
    final: int = 0


@dataclass(frozen=True)
class Reverse:
    """The sequence from its end."""


@dataclass(frozen=True)
class Dense:
    """One dense layer; f_out of SIGMOID and TANH is 15."""

    activation: int
    f_out: int
    matrix: Matrix
    b: tuple[int, ...]


@dataclass(frozen=True)
class Embedding:
    """The codes of each token."""

    codes: tuple[tuple[int, ...], ...]


Layer = Gru | Bidirectional | Reverse | Dense | Embedding


@dataclass(frozen=True)
class Model:
    """Fraction bits of the inputs, and layers. `more` are layers that follow, for callers that keep a head apart."""

    input_fractions: tuple[int, ...]
    last_step: int
    layers: tuple[Layer, ...]
    more: InitVar[tuple[Layer, ...]] = ()

    def __post_init__(self, more: tuple[Layer, ...]) -> None:
        object.__setattr__(self, "layers", (*self.layers, *more))

    @property
    def grus(self) -> tuple[Gru, ...]:
        """All GRU layers in order; of a bidirectional one forward, then backward."""
        return tuple(gru for layer in self.layers for gru in grus_of(layer))

    @property
    def head(self) -> tuple[Dense, ...]:
        """The dense layers after the last GRU layer."""
        last = max(i for i, layer in enumerate(self.layers) if grus_of(layer))
        return tuple(layer for layer in self.layers[last:] if isinstance(layer, Dense))


def grus_of(layer: Layer) -> tuple[Gru, ...]:
    """The GRU layers that a layer is made of."""
    if isinstance(layer, Bidirectional):
        return layer.forward, layer.backward
    return (layer,) if isinstance(layer, Gru) else ()


@dataclass(frozen=True)
class State:
    """h and e of all GRU layers, indexed [layer][unit]."""

    h: tuple[tuple[int, ...], ...]
    e: tuple[tuple[int, ...], ...]


class GruStep(NamedTuple):
    """What one step of one GRU layer computes, of each unit: the new h and e, and u, r and n."""

    h: tuple[int, ...]
    e: tuple[int, ...]
    u: tuple[int, ...]
    r: tuple[int, ...]
    n: tuple[int, ...]


@dataclass(frozen=True)
class Step:
    """All that one step computes; u, r and n are indexed [layer][unit] like the state."""

    state: State
    u: tuple[tuple[int, ...], ...]
    r: tuple[tuple[int, ...], ...]
    n: tuple[tuple[int, ...], ...]
    outputs: tuple[int, ...]
    check: int


@dataclass(frozen=True)
class Run:
    """All that the run of a whole sequence computes.

    outputs  of every step; of the last one only, if that is what has a meaning
    check    CRC-32 over them
    state    of each GRU layer after all of its steps
    traces   indexed [GRU layer][t]: what the layer computed when it read its t-th input. The last that a backward
             layer computed is that of t = 0
    """

    outputs: tuple[tuple[int, ...], ...]
    check: int
    state: State
    traces: tuple[tuple[GruStep, ...], ...]


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


def hard_sigmoid(a: int) -> int:
    """R18: s32f15 to u16f15, 0 … 32768."""
    return within(16384 + min(max(s32(a), -16384), 16384), 0, 32768)


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


# ---- chapter 5: other layers --------------------------------------------------------------------------------------


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


def token(x: int, tokens: int) -> int:
    """R21: the token that an input means."""
    return min(max(s16(x), 0), within(tokens, 1, 32768) - 1)


def embed(layer: Embedding, x: Sequence[int]) -> tuple[int, ...]:
    """R21: the outputs of an embedding."""
    (number,) = x
    return tuple(s16(256 * s8(code)) for code in layer.codes[token(number, len(layer.codes))])


def merge(kind: int, forward: int, backward: int) -> int:
    """R23: one output of a bidirectional layer that does not concatenate."""
    s16(forward), s16(backward)
    if kind == MERGE_MUL:
        return saturate16(round_shift(forward * backward, 15))
    assert kind in (MERGE_SUM, MERGE_AVE)
    return s16(round_shift(forward + backward, 1))


def merge_all(kind: int, forward: Sequence[int], backward: Sequence[int]) -> tuple[int, ...]:
    """R23: the outputs of a bidirectional layer at one step."""
    if kind == MERGE_CONCAT:
        return (*forward, *backward)
    return tuple(merge(kind, f, b) for f, b in zip(forward, backward, strict=True))


def merged_fraction(kind: int, f_h: int) -> int:
    """R23: the fraction bits of these outputs."""
    return {MERGE_CONCAT: f_h, MERGE_SUM: f_h - 1, MERGE_AVE: f_h, MERGE_MUL: 2 * f_h - 15}[kind]


def streaming(model: Model) -> bool:
    """R22: whether the model can run step by step."""
    kinds = [type(layer) for layer in model.layers]
    return Bidirectional not in kinds and Reverse not in kinds[kinds.index(Gru) :]


# ---- chapter 6: inputs, outputs, check values ---------------------------------------------------------------------


def convert_input(x: Fraction | int | float, f: int) -> int:
    """R15: the raw input of a real number or a count. Finite values only: R15 says nothing of an infinity."""
    return saturate16(round_half_up(Fraction(x) * Fraction(2) ** within(f, -31, 31)))


def check_value(state: State, outputs: Sequence[int], before: int = 0) -> int:
    """R16: the running CRC-32 after a step; `before` is its value after the step before, 0 at the reset."""
    h = [v for layer in state.h for v in layer]
    e = [v for layer in state.e for v in layer]
    return crc([*h, *e, *outputs], before)


def crc(values: Sequence[int], before: int = 0) -> int:
    """R16, R24: CRC-32 over values of two bytes, low byte first."""
    return zlib.crc32(b"".join((v & 0xFFFF).to_bytes(2, "little") for v in values), before)


def digest(model: Model) -> str:
    """R17: SHA-256 over the numbers of the model, as hexadecimal text."""
    parts = [b"quantgru", struct.pack("<BBH", MAJOR, model.last_step, len(model.input_fractions))]
    parts += [struct.pack("<b", f) for f in model.input_fractions]
    parts.append(struct.pack("<B", len(model.layers)))
    parts += [layer_bytes(layer) for layer in model.layers]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def layer_bytes(layer: Layer) -> bytes:
    """R17: the bytes of one layer."""
    if isinstance(layer, Dense):
        return struct.pack("<BBb", 2, layer.activation, layer.f_out) + matrix_bytes(layer.matrix) + packed("i", layer.b)
    if isinstance(layer, Embedding):
        codes = [code for vector in layer.codes for code in vector]
        return struct.pack("<BHH", 3, len(layer.codes), len(layer.codes[0])) + packed("b", codes)
    if isinstance(layer, Reverse):
        return struct.pack("<B", 4)
    if isinstance(layer, Bidirectional):
        head = struct.pack("<BBB", 5, layer.merge, layer.final)
        return head + layer_bytes(layer.forward) + layer_bytes(layer.backward)
    kind = 6 if any(layer.h0) else 1
    head = struct.pack("<4Bb", kind, layer.reset, layer.gate, layer.candidate, layer.f_h)
    numbers = packed("i", (*layer.b, *layer.c)) + (packed("h", layer.h0) if kind == 6 else b"")
    return head + matrix_bytes(layer.w) + matrix_bytes(layer.u) + numbers


def packed(kind: str, values: Sequence[int]) -> bytes:
    """Each value as struct's `kind`, little-endian."""
    return struct.pack(f"<{len(values)}{kind}", *values)


def matrix_bytes(matrix: Matrix) -> bytes:
    """R17: the bytes of one matrix."""
    head = struct.pack("<BBHH", 8, matrix.k, len(matrix.codes), matrix.columns)
    codes = [w for row_codes in matrix.codes for w in row_codes]
    return head + packed("H", matrix.m) + packed("B", matrix.s) + packed("b", codes)


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
    bounds += [dense_bound(layer, i) for layer in dense_layers(model) for i in range(len(layer.b))]
    return max(bounds) <= S32_MAX


def dense_layers(model: Model) -> list[Dense]:
    """All dense layers, wherever they stand."""
    return [layer for layer in model.layers if isinstance(layer, Dense)]


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


def gru_in_ranges(gru: Gru, columns: int) -> bool:
    """P3 for a GRU layer that reads `columns` values."""
    units, f_max = gru.units, 15 if gru.candidate in BOUNDED else 31
    return (
        gru.reset in (RESET_AFTER, RESET_BEFORE)
        and gru.gate in (GATE_SIGMOID, GATE_HARD_SIGMOID)
        and gru.candidate in (*BOUNDED, CANDIDATE_RELU, CANDIDATE_LINEAR)
        and -f_max <= gru.f_h <= f_max
        and len(gru.b) == 3 * units
        and len(gru.c) == (units if gru.reset == RESET_AFTER else 0)
        and len(gru.h0) == units
        and all(-(2**15) <= v <= 2**15 - 1 for v in gru.h0)
        and matrix_in_ranges(gru.w, 3 * units, columns)
        and matrix_in_ranges(gru.u, 3 * units, units)
    )


def dense_in_ranges(layer: Dense, columns: int) -> bool:
    """P3 for a dense layer that reads `columns` values."""
    return (
        layer.activation in (LINEAR, RELU, SIGMOID, TANH)
        and -31 <= layer.f_out <= 31
        and (layer.activation in (LINEAR, RELU) or layer.f_out == 15)
        and matrix_in_ranges(layer.matrix, len(layer.b), columns)
    )


def bidirectional_in_ranges(layer: Bidirectional, columns: int) -> bool:
    """P3 for a bidirectional layer that reads `columns` values."""
    forward, backward = layer.forward, layer.backward
    return (
        gru_in_ranges(forward, columns)
        and gru_in_ranges(backward, columns)
        and (forward.units, forward.f_h) == (backward.units, backward.f_h)
        and layer.merge in (MERGE_CONCAT, MERGE_SUM, MERGE_MUL, MERGE_AVE)
        and layer.final in (0, 1)
        and -31 <= merged_fraction(layer.merge, forward.f_h) <= 31
    )


def embedding_in_ranges(layer: Embedding) -> bool:
    """P3 for an embedding."""
    dim = len(layer.codes[0])
    return (
        1 <= len(layer.codes) <= 32768
        and 1 <= dim <= 65535
        and all(len(vector) == dim and all(-128 <= code <= 127 for code in vector) for vector in layer.codes)
    )


def layer_in_ranges(layer: Layer, columns: int) -> bool:
    """P3 for one layer that reads `columns` values."""
    if isinstance(layer, Gru):
        return gru_in_ranges(layer, columns)
    if isinstance(layer, Dense):
        return dense_in_ranges(layer, columns)
    if isinstance(layer, Bidirectional):
        return bidirectional_in_ranges(layer, columns)
    return isinstance(layer, Reverse) or (embedding_in_ranges(layer) and columns == 1)


def width(layer: Layer, columns: int) -> int:
    """How many values a layer puts out that reads `columns`."""
    if isinstance(layer, Gru):
        return layer.units
    if isinstance(layer, Dense):
        return len(layer.b)
    if isinstance(layer, Bidirectional):
        return layer.forward.units * (2 if layer.merge == MERGE_CONCAT else 1)
    return len(layer.codes[0]) if isinstance(layer, Embedding) else columns


def in_order(model: Model) -> bool:
    """P3: which layers may stand where."""
    kinds = [type(layer) for layer in model.layers]
    ok = bool(model.grus) and len(kinds) <= 255 and Embedding not in kinds[1:]
    ok = ok and (kinds[0] is not Embedding or model.input_fractions == (0,))
    ends = [i for i, layer in enumerate(model.layers) if isinstance(layer, Bidirectional) and layer.final]
    return ok and all(model.last_step == 1 and set(kinds[i + 1 :]) <= {Dense} for i in ends)


def in_ranges(model: Model) -> bool:
    """P3: shapes, formats and enumerators; the layers fit together."""
    ok = 1 <= len(model.input_fractions) <= 65535 and model.last_step in (0, 1)
    ok = ok and all(-31 <= f <= 31 for f in model.input_fractions) and in_order(model)
    ok = ok and sum(gru.units for gru in model.grus) <= 65535
    columns = len(model.input_fractions)
    for layer in model.layers:
        ok = ok and layer_in_ranges(layer, columns)
        columns = width(layer, columns)
    return ok


def proved(model: Model) -> bool:
    """P1, P2 and P3."""
    matrices = [matrix for gru in model.grus for matrix in (gru.w, gru.u)]
    matrices += [layer.matrix for layer in dense_layers(model)]
    return in_ranges(model) and all(map(accumulators_fit, matrices)) and pre_activations_fit(model)


# ---- a whole model ------------------------------------------------------------------------------------------------


def step(model: Model, state: State, x: Sequence[int], check: int = 0) -> Step:
    """One step of a streaming model, each layer reading what the layer before it puts out."""
    assert streaming(model)
    states, found = zip(state.h, state.e, strict=True), []
    for layer in model.layers:
        if isinstance(layer, Gru):
            found.append(gru_step(layer, x, *next(states)))
            x = found[-1].h
        elif not isinstance(layer, Reverse):
            x = dense(layer, x) if isinstance(layer, Dense) else embed(layer, x)
    h, e, u, r, n = (tuple(values) for values in zip(*found, strict=True))
    new = State(h, e)
    return Step(new, u, r, n, tuple(x), check_value(new, x, check))


def run(model: Model, sequence: Sequence[Sequence[int]], start: State | None = None) -> list[Step]:
    """All steps of a streaming model in the order in which it is fed, from the reset or from a state."""
    state, check, steps = start or reset(model), 0, []
    for x in sequence:
        steps.append(step(model, state, x, check))
        state, check = steps[-1].state, steps[-1].check
    return steps


def run_sequence(model: Model, sequence: Sequence[Sequence[int]], start: State | None = None) -> Run:
    """R24: layer by layer over the whole sequence x_0 … x_(T-1), from the reset or from a state."""
    assert sequence
    state = start or reset(model)
    states, traces = zip(state.h, state.e, strict=True), []
    values = [tuple(x) for x in sequence]
    ends = []
    for layer in model.layers:
        if isinstance(layer, Gru):
            traces.append(gru_sequence(layer, values, *next(states)))
            ends.append(traces[-1][-1])
            values = [made.h for made in traces[-1]]
        elif isinstance(layer, Bidirectional):
            forward = gru_sequence(layer.forward, values, *next(states))
            backward = gru_sequence(layer.backward, values[::-1], *next(states))[::-1]
            traces += [forward, backward]
            ends += [forward[-1], backward[0]]
            values = merge_sequences(layer, forward, backward)
        elif isinstance(layer, Reverse):
            values = values[::-1]
        else:
            values = [dense(layer, x) if isinstance(layer, Dense) else embed(layer, x) for x in values]
    outputs = tuple(values[-1:] if model.last_step else values)
    final = State(tuple(end.h for end in ends), tuple(end.e for end in ends))
    return Run(outputs, crc([v for y in outputs for v in y]), final, tuple(map(tuple, traces)))


def gru_sequence(layer: Gru, sequence: Sequence[Sequence[int]], h: Sequence[int], e: Sequence[int]) -> list[GruStep]:
    """One GRU layer over a sequence, in the order in which it is given."""
    steps = []
    for x in sequence:
        steps.append(gru_step(layer, x, h, e))
        h, e = steps[-1].h, steps[-1].e
    return steps


def merge_sequences(
    layer: Bidirectional, forward: Sequence[GruStep], backward: Sequence[GruStep]
) -> list[tuple[int, ...]]:
    """R23: the outputs of a bidirectional layer; forward[t] and backward[t] have read x_t last."""
    if layer.final:
        return [merge_all(layer.merge, forward[-1].h, backward[0].h)]
    return [merge_all(layer.merge, f.h, b.h) for f, b in zip(forward, backward, strict=True)]
