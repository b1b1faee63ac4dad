"""How one unit comes to its new state in one step, in float and in integers, so that a person can check it by hand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Final, NamedTuple

import numpy as np

from quantgru.activations import CANDIDATES, GATES, Function
from quantgru.array_types import FloatArray, Int16Array, UInt16Array
from quantgru.fixed import GATE, Format, requantize, round_shift
from quantgru.int_model import IntGru
from quantgru.model import Gate, Gru

_FUNCTIONS: Final = {
    "sigmoid": "sigmoid({})",
    "hard_sigmoid": "{} + 1/2, limited to 0 ... 1",
    "tanh": "tanh({})",
    "hard_tanh": "{}, limited to -1 ... 1",
    "relu": "max({}, 0)",
    "linear": "{}",
}


@dataclass(frozen=True)
class Line:
    """One number.

    name         what it is: "z", "W_z x", "W_z x[0]"
    formula      how the float comes about
    value        the float; None for the residual, which only the integers have
    raw_formula  how the integer comes about
    raw          the integer
    format       of the integer, such as "s32f14"; empty for a product, whose scale is that of its row
    real         what the integer means
    is_term      whether it is a term of the sum that follows
    """

    name: str
    formula: str
    value: float | None
    raw_formula: str
    raw: int
    format: str
    real: float
    is_term: bool = False


@dataclass(frozen=True)
class Derivation:
    """One step of one unit: each gate's terms, sum and value, and the new state."""

    layer: str
    sequence: int
    step: int
    unit: int
    lines: tuple[Line, ...]

    def __getitem__(self, name: str) -> Line:
        """The line of this name. Raises KeyError."""
        for line in self.lines:
            if line.name == name:
                return line
        raise KeyError(name)

    def to_json(self) -> dict[str, Any]:
        """The derivation as JSON values."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class GateValues:
    """Raw u, r and n, [steps, units] each; u and r u16f15."""

    u: UInt16Array
    r: UInt16Array
    n: Int16Array


@dataclass(frozen=True, eq=False)
class GruNumbers:
    """One layer on one sequence, in float and in integers.

    x, x_raw         what the layer reads [steps, inputs]
    h, h_raw         its state [steps + 1, units], from before the first step on
    residual         [steps + 1, units]
    gates            raw
    """

    floats: Gru
    integers: IntGru
    x: FloatArray
    h: FloatArray
    x_raw: Int16Array
    h_raw: Int16Array
    residual: UInt16Array
    gates: GateValues


def unit_lines(numbers: GruNumbers, t: int, unit: int) -> tuple[Line, ...]:
    """All lines of one unit at step t."""
    return _UnitStep(numbers, t, unit).derive()


class _Both(NamedTuple):
    """One number as a float and as an integer."""

    value: float
    raw: int


class _UnitStep:
    """One unit at one step, in the notation of SPEC.md. A method adds lines, and returns their result."""

    def __init__(self, numbers: GruNumbers, t: int, unit: int) -> None:
        self._numbers, self._t, self._unit = numbers, t, unit
        self._floats, self._integers = numbers.floats, numbers.integers
        self._x, self._h = numbers.x[t], numbers.h[t]
        self._x_raw, self._h_raw = numbers.x_raw[t], numbers.h_raw[t]
        self._state_format = Format(16, self._integers.state_fraction_bits)
        self._candidate_format = Format(32, self._integers.candidate_bits)
        self._lines: list[Line] = []

    def derive(self) -> tuple[Line, ...]:
        gate, candidate, gates = self._floats.gate, self._floats.candidate, self._numbers.gates
        u_raw, r_raw, n_raw = (int(values[self._t, self._unit]) for values in (gates.u, gates.r, gates.n))
        z = _apply(GATES[gate], self._gate_sum(Gate.Z))
        self._add("z", _function(gate, "a_z"), _Both(z, 2**15 - u_raw), "2^15 - u", GATE)
        self._add("u", "1 - z", _Both(1 - z, u_raw), f"{gate}(-a_z)", GATE)
        r = _Both(_apply(GATES[gate], self._gate_sum(Gate.R)), r_raw)
        self._add("r", _function(gate, "a_r"), r, f"{gate}(a_r)", GATE)
        inner = self._after_product(r) if self._floats.reset == "after" else self._before_product()
        n = _apply(CANDIDATES[candidate], self._candidate_sum(*inner))
        self._add("n", _function(candidate, "a_n"), _Both(n, n_raw), f"{candidate}(a_n)", self._state_format)
        self._new_state(z, n)
        return tuple(self._lines)

    def _gate_sum(self, gate: Gate) -> float:
        letter, bits = gate.name.lower(), Format(32, self._integers.gate_bits)
        from_x = self._row(f"W_{letter} x", gate, self._x, self._x_raw)
        from_h = self._row(f"U_{letter} h", gate, self._h, self._h_raw)
        bias = self._bias(gate, bits)
        total = _Both(from_x.value + from_h.value + bias.value, from_x.raw + from_h.raw + bias.raw)
        formula = f"W_{letter} x + U_{letter} h + b_{letter}"
        self._add(f"a_{letter}", formula, total, formula, bits)
        return total.value

    def _after_product(self, r: _Both) -> tuple[str, _Both]:
        from_h = self._row("U_n h", Gate.N, self._h, self._h_raw)
        c = _Both(float(self._floats.recurrent_bias[self._unit]), int(self._integers.recurrent_bias[self._unit]))
        self._add("c", "", c, "", self._candidate_format)
        raw = round_shift((from_h.raw + c.raw) * r.raw, 15)  # [R5]
        name = "r (U_n h + c)"
        inner = _Both(r.value * (from_h.value + c.value), raw)
        self._add(name, "r * (U_n h + c)", inner, "(U_n h + c) * r / 2^15", self._candidate_format)
        return name, inner

    def _before_product(self) -> tuple[str, _Both]:
        products = round_shift(self._h_raw.astype(np.int64) * self._numbers.gates.r[self._t], 15)  # [R11b]
        name = "U_n (r h)"
        return name, self._row(name, Gate.N, self._reset_gates() * self._h, products.astype(np.int16))

    def _candidate_sum(self, name: str, inner: _Both) -> float:
        from_x = self._row("W_n x", Gate.N, self._x, self._x_raw)
        bias = self._bias(Gate.N, self._candidate_format)
        total = _Both(from_x.value + bias.value + inner.value, from_x.raw + bias.raw + inner.raw)
        formula = f"W_n x + b_n + {name}"
        self._add("a_n", formula, total, formula, self._candidate_format)
        return total.value

    def _reset_gates(self) -> FloatArray:
        """r of all units: with the reset before the product, each of them acts on this unit."""
        w, u, b = (getattr(self._floats, name)[Gate.R] for name in ("input_weights", "recurrent_weights", "bias"))
        return GATES[self._floats.gate](w @ self._x + u @ self._h + b)

    def _bias(self, gate: Gate, bits: Format) -> _Both:
        raw = int(self._integers.bias[gate * self._integers.n_units + self._unit])
        bias = _Both(float(self._floats.bias[gate, self._unit]), raw)
        return self._add(f"b_{gate.name.lower()}", "", bias, "", bits)

    def _row(self, name: str, gate: Gate, operand: FloatArray, operand_raw: Int16Array) -> _Both:
        """The terms of one row, and their sum, requantized [R9]."""
        is_input = name.startswith("W")
        weights = (self._floats.input_weights if is_input else self._floats.recurrent_weights)[gate, self._unit]
        matrix = self._integers.input if is_input else self._integers.recurrent
        row = gate * self._integers.n_units + self._unit
        bits = Format(32, int(self._integers.row_bits[row]))
        codes, values = matrix.codes[row].astype(int), operand_raw.astype(int)
        scale = float(matrix.row_scales(bits.fraction_bits)[row])
        self._terms(name, zip(weights, operand, codes, values, strict=True), scale)
        acc = int(codes @ values)
        k, m, s = matrix.left_shift, int(matrix.multipliers[row]), int(matrix.shifts[row])
        raw = requantize(acc, k, m, s)
        raw_formula = f"{acc}{f' * 2^{k}' if k else ''} * {m} / 2^{16 + s}"
        return self._add(name, "sum", _Both(float(weights @ operand), raw), raw_formula, bits)

    def _terms(self, name: str, terms: Iterable[tuple[float, float, int, int]], scale: float) -> None:
        for i, (weight, value, code, raw) in enumerate(terms):
            formula, raw_formula = f"{weight:.7g} * {value:.7g}", f"{code} * {raw}"
            real, product = float(weight * value) + 0.0, int(code * raw)  # without a sign of zero
            means = float(product * scale)
            self._lines.append(Line(f"{name}[{i}]", formula, real, raw_formula, product, "", means, is_term=True))

    def _new_state(self, z: float, n: float) -> None:
        t, unit, numbers = self._t, self._unit, self._numbers
        before = _Both(float(self._h[unit]), int(self._h_raw[unit]))
        self._add("h before", "", before, "", self._state_format)
        self._add_residual("e before", "", int(numbers.residual[t, unit]))
        after = _Both(z * before.value + (1 - z) * n, int(numbers.h_raw[t + 1, unit]))
        self._add("h", "z * h + (1 - z) * n", after, "h + (u * (n - h) + e >> 15)", self._state_format)
        self._add_residual("e", "u * (n - h) + e & 32767", int(numbers.residual[t + 1, unit]))

    def _add_residual(self, name: str, raw_formula: str, raw: int) -> None:
        bits = Format(16, self._state_format.fraction_bits + 15, signed=False)
        self._lines.append(Line(name, "", None, raw_formula, raw, str(bits), float(np.ldexp(raw, -bits.fraction_bits))))

    def _add(self, name: str, formula: str, both: _Both, raw_formula: str, bits: Format) -> _Both:
        means = float(np.ldexp(both.raw, -bits.fraction_bits))
        self._lines.append(Line(name, formula, both.value, raw_formula, both.raw, str(bits), means))
        return both


def _apply(function: Function, a: float) -> float:
    return float(function(np.array([a]))[0])


def _function(name: str, argument: str) -> str:
    return _FUNCTIONS[name].format(argument)


def print_derivations(derivations: Iterable[Derivation], console: Any) -> None:
    """One table for each step and unit on a rich console, as they come."""
    for derivation in derivations:
        console.print(_table(derivation))


def _table(derivation: Derivation) -> Any:
    from rich.table import Table

    where = f"layer {derivation.layer}, sequence {derivation.sequence}, step {derivation.step}, unit {derivation.unit}"
    table = Table(title=where, title_justify="left", box=None, pad_edge=False)
    for header, justify in (("", "left"), ("float", "left"), ("", "right"), ("integers", "left"), ("", "right")):
        table.add_column(header, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    table.add_column("format")
    table.add_column("means", justify="right", no_wrap=True)
    for line in derivation.lines:
        name = f"  {line.name}" if line.is_term else line.name
        value = "" if line.value is None else f"{line.value:.7g}"
        values = (value, line.raw_formula, str(line.raw), line.format, f"{line.real:.7g}")
        table.add_row(name, line.formula, *values)
    return table
