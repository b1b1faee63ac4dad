"""The oracle against SPEC.md itself: each number that the page works out, and what it claims of the table."""

import re
import runpy
import zlib
from dataclasses import replace
from fractions import Fraction
from functools import cache
from itertools import takewhile

import numpy as np
import oracle
import pytest
from strategies import Plan, random_inputs, random_model

TEXT = oracle.SPEC.read_text(encoding="utf-8")


def worked_rows(heading: str) -> list[tuple[str, ...]]:
    """The rows of the first table that begins with the line `heading`."""
    lines = TEXT.split(f"\n{heading}\n")[1].splitlines()[1:]
    table = takewhile(lambda line: line.startswith("|"), lines)
    return [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in table]


def number(text: str) -> int:
    """An integer as the page writes them: 5, 2147483647 - 2^29, 32767 (saturated)."""
    total, sign = 0, 1
    for token in re.sub(r"\(.*\)", "", text).split():
        if token in "+-":
            sign = 1 if token == "+" else -1
            continue
        base, _, exponent = token.partition("^")
        total += sign * int(base) ** int(exponent or 1)
    return total


WORKED = {  # heading: function
    "| v | s | result | |": oracle.round_shift,
    "| a | m | result |": oracle.mul_shift16,
    "| acc | k | m | s | result | |": oracle.requantize,
    "| b | r | result | |": oracle.reset_product,
}


WORKED_CASES = [(function, cells) for heading, function in WORKED.items() for cells in worked_rows(heading)]


@pytest.mark.parametrize(("function", "cells"), WORKED_CASES)
def test_worked_numbers_of_the_primitives(function, cells):
    n_arguments = function.__code__.co_argcount
    assert function(*map(number, cells[:n_arguments])) == number(cells[n_arguments])


@pytest.mark.parametrize("cells", worked_rows("| a | real | sigmoid | tanh |"))
def test_worked_numbers_of_sigmoid_and_tanh(cells):
    a = int(cells[0])
    assert float(cells[1]) == pytest.approx(a / 2**14, abs=0.5e-4)
    assert (oracle.sigmoid(a), oracle.tanh(a)) == (int(cells[2]), int(cells[3]))


@pytest.mark.parametrize("cells", worked_rows("| u | n | h | e | acc | h' | e' |"))
def test_worked_numbers_of_the_state_update(cells):
    u, n, h, e, acc, new_h, new_e = map(int, cells)
    assert u * (n - h) + e == acc
    assert oracle.update_state(u, n, h, e) == (new_h, new_e)


@pytest.mark.parametrize("cells", worked_rows("| x | f | raw |"))
def test_worked_numbers_of_input_conversion(cells):
    assert oracle.convert_input(Fraction(cells[0]), int(cells[1])) == number(cells[2])


def worked_layer(reset: int) -> oracle.Gru:
    """The layer of chapter 8."""
    w = oracle.Matrix(((100, -50), (20, 30), (-128, 127)), (16384, 24576, 32767), (3, 2, 4), 0)
    u = oracle.Matrix(((64,), (-64,), (127,)), (20000, 16384, 30000), (5, 3, 4), 1)
    return oracle.Gru(reset, w, u, (1000, -2000, 300), (-150,) if reset == oracle.RESET_AFTER else ())


@pytest.mark.parametrize("reset", [oracle.RESET_AFTER, oracle.RESET_BEFORE])
def test_worked_numbers_of_a_step(reset):
    rows = worked_rows("| value | rule | reset after | reset before | |")
    said = {cells[0]: int(cells[2 + reset]) for cells in rows if cells[2 + reset] != "-"}
    layer, x, h = worked_layer(reset), (1000, -2000), (5000,)
    (new_h,), (new_e,), (u,), (r,), (n,) = oracle.gru_step(layer, x, h, (123,))
    head = oracle.Matrix(((100,), (-100,)), (16384,) * 2, (4,) * 2, 0)
    outputs = oracle.dense(oracle.Dense(oracle.RELU, 15, head, (7, 7)), (new_h,))
    found = {f"W_{gate}(x)": oracle.row(layer.w, i, x) for i, gate in enumerate("zrn")}
    found |= {"U_z(h)": oracle.row(layer.u, 0, h), "U_r(h)": oracle.row(layer.u, 1, h)}
    found |= {"a_z": oracle.gate_row(layer, 0, x, h), "a_r": oracle.gate_row(layer, 1, x, h)}
    found |= {"u": u, "r": r, "n": n, "h'": new_h, "e'": new_e, "output 0": outputs[0], "output 1": outputs[1]}
    if reset == oracle.RESET_AFTER:
        from_h = oracle.row(layer.u, 2, h)
        found |= {"U_n(h)": from_h, "reset_product": oracle.reset_product(from_h - 150, r)}
    else:
        p = oracle.round_shift(h[0] * r, 15)
        found |= {"p": p, "U_n(p)": oracle.row(layer.u, 2, (p,))}
    assert found == said


def test_worked_numbers_inside_the_text():
    rows = re.findall(r"(-?\d+) → (-?\d+)", TEXT.split("**R2 ")[1].split("**R3 ")[0])
    assert rows == [("32768", "32767"), ("-32769", "-32768")]
    assert [oracle.saturate16(int(v)) for v, _ in rows] == [int(result) for _, result in rows]
    values = re.findall(r"t27\((\d+)\) = ([\d ·]+)", TEXT)
    assert len(values) == 4
    for a, product in values:
        factors = [int(factor) for factor in product.split("·")]
        assert oracle.t27(int(a)) == int(np.prod(factors))
    assert oracle.t27(512) == 2097152


def test_no_table_of_worked_numbers_is_left_out():
    headings = {line for line, rule in zip(TEXT.splitlines(), TEXT.splitlines()[1:], strict=False) if "|---" in rule}
    formats = {"| quantity | format |", "| activation | format of a and b | output |"}
    checked = {*WORKED, "| a | real | sigmoid | tanh |", "| u | n | h | e | acc | h' | e' |", "| x | f | raw |"}
    checked.add("| value | rule | reset after | reset before | |")
    assert headings == formats | checked


def test_check_value_is_the_crc_of_ieee_802_3():
    polynomial = 0xEDB88320  # 0x04c11db7 reflected
    crc = 0xFFFFFFFF
    for byte in b"123456789":
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (polynomial if crc & 1 else 0)
    assert crc ^ 0xFFFFFFFF == zlib.crc32(b"123456789") == 0xCBF43926
    state = oracle.State(((-2, 1), (256,)), ((3, 0), (32767,)))
    expected = zlib.crc32(bytes.fromhex("feff 0100 0001 0300 0000 ff7f 0080"))
    assert oracle.check_value(state, [-32768]) == expected


# ---- the table ----------------------------------------------------------------------------------------------------


@cache
def sweep() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(a, sigmoid, tanh) for every pre-activation up to five beyond the end of the table, both signs."""
    a = range(-oracle.LIMIT - 5, oracle.LIMIT + 6)
    return np.array(a), np.array([oracle.sigmoid(v) for v in a]), np.array([oracle.tanh(v) for v in a])


def test_the_table_has_217_entries_of_16_bits():
    assert len(oracle.T) == 217
    assert 2 * len(oracle.T) <= 450
    assert all(0 <= low <= high < 2**16 for low, high in zip(oracle.T, oracle.T[1:], strict=False))


def test_the_script_in_tools_derives_the_entries():
    derived = runpy.run_path(str(oracle.SPEC.parent.parent / "tools" / "activation_table.py"))["table"]()
    assert tuple(derived) == tuple(oracle.T)


def test_errors_over_all_inputs():
    a, sigmoid, tanh = sweep()
    sigmoid_error = np.abs(sigmoid - 2**15 / (1 + np.exp(-a / 2**14))).max()
    tanh_error = np.abs(tanh - 2**15 * np.tanh(a / 2**14)).max()
    assert sigmoid_error <= 0.85
    assert tanh_error <= 1.10
    claimed = re.findall(r"[Ll]argest error (\d\.\d+) ", TEXT)
    assert [f"{sigmoid_error:.2f}", f"{tanh_error:.2f}"] == claimed


def test_sigmoid_is_monotone_and_symmetric():
    _, sigmoid, _ = sweep()
    assert (np.diff(sigmoid) >= 0).all()
    assert (sigmoid + sigmoid[::-1] == 32768).all()
    assert (sigmoid.min(), sigmoid.max()) == (0, 32768)


def test_tanh_is_monotone_and_odd():
    _, _, tanh = sweep()
    assert (np.diff(tanh) >= 0).all()
    assert (tanh == -tanh[::-1]).all()
    assert (tanh.min(), tanh.max()) == (-32767, 32767)


@pytest.mark.parametrize("a", [oracle.LIMIT, 2**18, 2**30 - 1, 2**30, 2**30 + 1, 2**31 - 1])
def test_beyond_the_table_the_functions_are_constant(a):
    assert (oracle.sigmoid(a), oracle.sigmoid(-a), oracle.sigmoid(-a - 1)) == (32768, 0, 0)
    assert (oracle.tanh(a), oracle.tanh(-a), oracle.tanh(-a - 1)) == (32767, -32767, -32767)


# ---- the oracle's own guards --------------------------------------------------------------------------------------


@pytest.mark.parametrize("v", [2**31, -(2**31) - 1, 1.0, True, np.int32(1)])
def test_a_value_that_leaves_its_type_is_an_error(v):
    with pytest.raises(AssertionError):
        oracle.s32(v)


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (oracle.round_shift, (1, 0)),
        (oracle.round_shift, (1, 31)),
        (oracle.round_shift, (2**31 - 2**29, 30)),
        (oracle.mul_shift16, (1, 32768)),
        (oracle.requantize, (2**16, 15, 2**14, 1)),
        (oracle.reset_product, (1, 32769)),
        (oracle.t27, (oracle.LIMIT + 1,)),
        (oracle.update_state, (32769, 0, 0, 0)),
    ],
)
def test_arguments_outside_a_rule_are_an_error(function, arguments):
    with pytest.raises(AssertionError):
        function(*arguments)


def test_the_proof_has_the_edge_that_the_page_gives_it():
    model = random_model(Plan(n_inputs=1), seed=1)
    gru = model.grus[0]
    room = oracle.S32_MAX - oracle.gate_bound(gru, 0) + abs(gru.b[0])

    def with_first_bias(b: int) -> oracle.Model:
        return replace(model, grus=(replace(gru, b=(b, *gru.b[1:])),))

    assert oracle.proved(with_first_bias(room))
    assert oracle.proved(with_first_bias(-room))
    assert not oracle.proved(with_first_bias(room + 1))
    wide = oracle.Matrix(((-128,) * 511 + (127,),), (2**14,), (1,), 0)
    assert oracle.accumulators_fit(wide)
    assert not oracle.accumulators_fit(replace(wide, codes=((-128,) * 512,)))
    assert not oracle.accumulators_fit(replace(wide, k=1))


def test_the_digest_sees_every_number():
    model = random_model(Plan(2, (1,), (oracle.RESET_AFTER,), ((1, oracle.LINEAR),)), seed=1)
    gru, dense = model.grus[0], model.head[0]
    w = gru.w
    others = [
        replace(model, input_fractions=(model.input_fractions[0] ^ 1, model.input_fractions[1])),
        replace(model, last_step=1),
        replace(model, head=()),
        replace(model, head=(replace(dense, f_out=dense.f_out ^ 1),)),
        replace(model, head=(replace(dense, activation=oracle.RELU),)),
        replace(model, head=(replace(dense, b=(dense.b[0] ^ 1,)),)),
        replace(model, grus=(replace(gru, reset=oracle.RESET_BEFORE, c=()),)),
        replace(model, grus=(replace(gru, c=(gru.c[0] ^ 1,)),)),
        replace(model, grus=(replace(gru, w=replace(w, k=w.k ^ 1)),)),
        replace(model, grus=(replace(gru, w=replace(w, m=(w.m[0] ^ 1, *w.m[1:]))),)),
        replace(model, grus=(replace(gru, w=replace(w, s=(w.s[0] ^ 1, *w.s[1:]))),)),
        replace(model, grus=(replace(gru, w=replace(w, codes=((w.codes[0][0] ^ 1, w.codes[0][1]), *w.codes[1:]))),)),
    ]
    assert len({oracle.digest(other) for other in (model, *others)}) == 1 + len(others)


def test_a_run_continues_check_values_from_the_reset():
    model = random_model(Plan(2, (3, 2), (oracle.RESET_AFTER, oracle.RESET_BEFORE)), seed=2)
    inputs = random_inputs("random", 3, 2, seed=2)
    state, check, steps = oracle.reset(model), 0, oracle.run(model, inputs)
    for x, step in zip(inputs, steps, strict=True):
        assert step == oracle.step(model, state, x, check)
        assert step.outputs == step.state.h[-1]
        state, check = step.state, step.check
