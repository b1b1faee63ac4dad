"""The oracle against each number that SPEC.md works out. What it claims of the table: test_oracle_table.py."""

import hashlib
import re
import zlib
from dataclasses import replace
from fractions import Fraction
from itertools import takewhile
from pathlib import Path

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


CANDIDATES = {
    "tanh": oracle.CANDIDATE_TANH,
    "relu": oracle.CANDIDATE_RELU,
    "linear": oracle.CANDIDATE_LINEAR,
    "sigmoid": oracle.CANDIDATE_SIGMOID,
    "hard_tanh": oracle.CANDIDATE_HARD_TANH,
}
MERGES = {
    "concat": oracle.MERGE_CONCAT,
    "sum": oracle.MERGE_SUM,
    "mul": oracle.MERGE_MUL,
    "ave": oracle.MERGE_AVE,
}


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


@pytest.mark.parametrize("cells", worked_rows("| a | real | hard_sigmoid |"))
def test_worked_numbers_of_hard_sigmoid(cells):
    a = int(cells[0])
    assert float(cells[1]) == pytest.approx(a / 2**15, abs=0.5e-4)
    assert oracle.hard_sigmoid(a) == int(cells[2])


@pytest.mark.parametrize("cells", worked_rows("| candidate | a | f_h | n | |"))
def test_worked_numbers_of_the_candidate(cells):
    assert oracle.candidate(CANDIDATES[cells[0]], int(cells[1]), int(cells[2])) == int(cells[3])


@pytest.mark.parametrize("cells", worked_rows("| candidate | allowed f_h | format of a | n |"))
def test_allowed_fraction_bits_of_a_state(cells):
    low, high = map(int, cells[1].split(" … "))
    layer = replace(worked_layer(oracle.RESET_AFTER), candidate=CANDIDATES[cells[0]])

    def admitted(f_h: int) -> bool:
        return oracle.proved(oracle.Model((0, 0), 0, (replace(layer, f_h=f_h),)))

    assert [f_h for f_h in range(-40, 41) if admitted(f_h)] == list(range(low, high + 1))
    for f_h in (low - 1, high + 1):
        with pytest.raises(AssertionError):
            oracle.candidate(layer.candidate, 0, f_h)


@pytest.mark.parametrize("cells", worked_rows("| x | token | output 0 | output 1 |"))
def test_worked_numbers_of_the_embedding(cells):
    x, token, *outputs = map(int, cells)
    assert oracle.token(x, 3) == token
    assert oracle.embed(worked_embedding(), (x,)) == tuple(outputs)


@pytest.mark.parametrize("cells", worked_rows("| merge | hf | hb | y | |"))
def test_worked_numbers_of_merges(cells):
    assert oracle.merge(MERGES[cells[0]], int(cells[1]), int(cells[2])) == int(cells[3])


@pytest.mark.parametrize("cells", worked_rows("| merge | y | fraction bits of y |"))
def test_fraction_bits_of_merges(cells):
    factor, less = re.fullmatch(r"(\d*) ?f_h(?: - (\d+))?", cells[2]).groups()
    for f_h in (-31, 0, 15, 31):
        assert oracle.merged_fraction(MERGES[cells[0]], f_h) == int(factor or 1) * f_h - int(less or 0)


@pytest.mark.parametrize("cells", worked_rows("| u | n | h | e | acc | h' | e' |"))
def test_worked_numbers_of_the_state_update(cells):
    u, n, h, e, acc, new_h, new_e = map(int, cells)
    assert u * (n - h) + e == acc
    assert oracle.update_state(u, n, h, e) == (new_h, new_e)


@pytest.mark.parametrize("cells", worked_rows("| x | f | raw |"))
def test_worked_numbers_of_input_conversion(cells):
    assert oracle.convert_input(Fraction(cells[0]), int(cells[1])) == number(cells[2])


def worked_embedding() -> oracle.Embedding:
    """The embedding of R21."""
    codes = re.findall(r"\((-?\d+), (-?\d+)\)", TEXT.split("**R21 ")[1].split("|")[0])
    assert len(codes) == 3
    return oracle.Embedding(tuple((int(first), int(second)) for first, second in codes))


def worked_layer(reset: int) -> oracle.Gru:
    """The layer of chapter 8."""
    w = oracle.Matrix(((100, -50), (20, 30), (-128, 127)), (16384, 24576, 32767), (3, 2, 4), 0)
    u = oracle.Matrix(((64,), (-64,), (127,)), (20000, 16384, 30000), (5, 3, 4), 1)
    return oracle.Gru(reset, w, u, (1000, -2000, 300), (-150,) if reset == oracle.RESET_AFTER else ())


def worked_head() -> oracle.Dense:
    """The dense layer of chapter 8."""
    matrix = oracle.Matrix(((100,), (-100,)), (16384,) * 2, (4,) * 2, 0)
    return oracle.Dense(oracle.RELU, 15, matrix, (7, 7))


def test_every_rule_is_in_the_list_of_rules():
    """In the order of the page, chapter by chapter."""
    page = oracle.SPEC.read_text(encoding="utf-8")
    listed = [re.findall(r"\b[RP]\d+[ab]?\b", rules) for _, rules in worked_rows("| chapter | rules |")]
    chapters = re.split(r"^## \d\. ", page, flags=re.MULTILINE)[2:8]
    assert listed == [re.findall(r"^\*\*([RP]\d+[ab]?)\b", chapter, re.MULTILINE) for chapter in chapters]


@pytest.mark.parametrize("reset", [oracle.RESET_AFTER, oracle.RESET_BEFORE])
def test_worked_numbers_of_a_step(reset):
    rows = worked_rows("| value | rule | reset after | reset before | |")
    said = {cells[0]: int(cells[2 + reset]) for cells in rows if cells[2 + reset] != "-"}
    layer, x, h = worked_layer(reset), (1000, -2000), (5000,)
    (new_h,), (new_e,), (u,), (r,), (n,) = oracle.gru_step(layer, x, h, (123,))
    outputs = oracle.dense(worked_head(), (new_h,))
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


def test_worked_numbers_of_steps_with_other_functions():
    rows = worked_rows("| value | rule | step 0 | step 1 | |")
    layer = replace(
        worked_layer(oracle.RESET_BEFORE),
        b=(1000, 15000, 8000),
        gate=oracle.GATE_HARD_SIGMOID,
        candidate=oracle.CANDIDATE_RELU,
        f_h=12,
        h0=(5000,),
    )
    model = oracle.Model((12, 12), 0, (layer,))
    assert oracle.proved(model)
    assert oracle.digest(model) in TEXT.split("## 8. ")[1].split("## 9. ")[0]
    state, check = oracle.reset(model), 0
    for column in (2, 3):
        said = {cells[0]: int(cells[column], 0) for cells in rows}
        x, h, e = (said["input 0"], said["input 1"]), state.h[0], state.e[0]
        step = oracle.step(model, state, x, check)
        p = oracle.round_shift(h[0] * step.r[0][0], 15)
        found = {"input 0": x[0], "input 1": x[1], "h": h[0], "e": e[0]}
        found |= {f"W_{gate}(x)": oracle.row(layer.w, i, x) for i, gate in enumerate("zrn")}
        found |= {"U_z(h)": oracle.row(layer.u, 0, h), "U_r(h)": oracle.row(layer.u, 1, h)}
        found |= {"a_z": oracle.gate_row(layer, 0, x, h), "a_r": oracle.gate_row(layer, 1, x, h)}
        found |= {"u": step.u[0][0], "r": step.r[0][0], "p": p, "U_n(p)": oracle.row(layer.u, 2, (p,))}
        found |= {"a_n": oracle.gate_row(layer, 2, x, (p,)), "n": step.n[0][0]}
        found |= {"h'": step.state.h[0][0], "e'": step.state.e[0][0], "check value": step.check}
        assert found == said
        assert step.outputs == step.state.h[0]
        state, check = step.state, step.check


def test_worked_numbers_of_codes_of_16_bits():
    said = {cells[0]: int(cells[2]) for cells in worked_rows("| value | rule | 16 bits | |")}
    layer, x, h = worked_layer(oracle.RESET_AFTER), (1000, -2000), (5000,)
    w = replace(layer.w, codes=((25600, -12800), (20, 30), (-32768, 32767)), s=(11, 2, 12))
    u = replace(layer.u, codes=((64,), (-64,), (32512,)), s=(5, 3, 12))
    layer = replace(layer, w=w, u=u)
    model = oracle.Model((12, 12), 0, (layer,))
    assert oracle.proved(model)
    assert oracle.digest(model) in TEXT.split("**With codes of 16 bits.**")[1].split("## 9. ")[0]
    (new_h,), (new_e,), _, _, (n,) = oracle.gru_step(layer, x, h, (123,))
    found = {f"W_{gate}(x)": oracle.row(layer.w, i, x) for i, gate in enumerate("zrn")}
    assert found | {"U_n(h)": oracle.row(layer.u, 2, h), "n": n, "h'": new_h, "e'": new_e} == said


def worked_models() -> dict[str, oracle.Model]:
    """The models of chapter 9."""
    forward = replace(worked_layer(oracle.RESET_AFTER), h0=(5000,))
    models = {}
    for name, merge, then, last_step, *_ in worked_rows(
        "| model | merge | then | last_step | outputs | check value (R24) |"
    ):
        kind, _, final = merge.partition(", ")
        both = oracle.Bidirectional(
            forward, worked_layer(oracle.RESET_BEFORE), MERGES[kind], {"": 0, "`final`": 1}[final]
        )
        more = {"": (), "reverse": (oracle.Reverse(),), "the head": (worked_head(),)}[then]
        models[name] = oracle.Model((0,), int(last_step), (worked_embedding(), both, *more))
    return models


def test_worked_numbers_of_a_sequence():
    rows = worked_rows("| t | x_t | embedded | hf_t | e of forward | hb_t | e of backward | sum, ave | mul |")
    sequence = [(int(cells[1]),) for cells in rows]
    run = oracle.run_sequence(worked_models()["A"], sequence)
    for t, cells in enumerate(rows):
        forward, backward = (trace[t] for trace in run.traces)
        both = forward.h[0], backward.h[0]
        embedded = oracle.embed(worked_embedding(), sequence[t])
        found = [t, sequence[t][0], ", ".join(map(str, embedded)), both[0], forward.e[0], both[1], backward.e[0]]
        found += [oracle.merge(oracle.MERGE_SUM, *both), oracle.merge(oracle.MERGE_MUL, *both)]
        assert [str(value) for value in found] == list(cells)
        assert oracle.merge(oracle.MERGE_AVE, *both) == oracle.merge(oracle.MERGE_SUM, *both)


def test_worked_numbers_of_models_with_a_whole_sequence():
    digests = dict(worked_rows("| model | digest (R17) |"))
    for name, *_, outputs, check in worked_rows("| model | merge | then | last_step | outputs | check value (R24) |"):
        model = worked_models()[name]
        run = oracle.run_sequence(model, [(0,), (1,), (7,)])
        assert "; ".join(", ".join(map(str, y)) for y in run.outputs) == outputs
        assert (f"{run.check:#010x}", oracle.digest(model)) == (check, digests.pop(name))
        assert oracle.proved(model)
    assert not digests


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
    source = Path(__file__).read_text(encoding="utf-8")
    checked = {*WORKED, *re.findall(r'worked_rows\(\s*"(.+)"\s*\)', source)}
    assert headings == formats | checked
    assert len(headings) == sum(line in headings for line in TEXT.splitlines())


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
        (oracle.hard_sigmoid, (2**31,)),
        (oracle.candidate, (5, 0, 15)),
        (oracle.token, (32768, 1)),
        (oracle.token, (0, 32769)),
        (oracle.merge, (oracle.MERGE_SUM, 32768, 0)),
        (oracle.merge, (oracle.MERGE_CONCAT, 0, 0)),
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
        return replace(model, layers=(replace(gru, b=(b, *gru.b[1:])),))

    assert oracle.proved(with_first_bias(room))
    assert oracle.proved(with_first_bias(-room))
    assert not oracle.proved(with_first_bias(room + 1))
    wide = oracle.Matrix(((-128,) * 511 + (127,),), (2**14,), (1,), 0)
    assert oracle.accumulators_fit(wide)
    assert not oracle.accumulators_fit(replace(wide, codes=((-128,) * 512,)))
    assert not oracle.accumulators_fit(replace(wide, k=1))
    of_16_bits = replace(wide, codes=((32767, -32768),))
    assert oracle.accumulators_fit(of_16_bits)
    assert not oracle.accumulators_fit(replace(of_16_bits, codes=((-32768, -32768),)))


def test_the_digest_sees_every_number():
    model = random_model(Plan(2, (1,), (oracle.RESET_AFTER,), ((1, oracle.LINEAR),)), seed=1)
    gru, dense = model.layers
    w = gru.w
    grus = [
        replace(gru, reset=oracle.RESET_BEFORE, c=()),
        replace(gru, c=(gru.c[0] ^ 1,)),
        replace(gru, w=replace(w, k=w.k ^ 1)),
        replace(gru, w=replace(w, m=(w.m[0] ^ 1, *w.m[1:]))),
        replace(gru, w=replace(w, s=(w.s[0] ^ 1, *w.s[1:]))),
        replace(gru, w=replace(w, codes=((w.codes[0][0] ^ 1, w.codes[0][1]), *w.codes[1:]))),
        replace(gru, gate=oracle.GATE_HARD_SIGMOID),
        *(replace(gru, candidate=candidate) for candidate in range(1, 5)),
        replace(gru, f_h=14),
        replace(gru, f_h=-14),
        replace(gru, h0=(1,)),
        replace(gru, h0=(-1,)),
        oracle.Embedding(((1,), (2,))),
        oracle.Embedding(((1, 2),)),
        oracle.Embedding(((1, 3),)),
        oracle.Reverse(),
        *(oracle.Bidirectional(gru, gru, merge, final) for merge in range(4) for final in range(2)),
        oracle.Bidirectional(replace(gru, f_h=14), gru, 0),
        oracle.Bidirectional(gru, replace(gru, f_h=14), 0),
    ]
    others = [
        replace(model, input_fractions=(model.input_fractions[0] ^ 1, model.input_fractions[1])),
        replace(model, last_step=1),
        replace(model, layers=(gru,)),
        replace(model, layers=(dense, gru)),
        replace(model, layers=(gru, replace(dense, f_out=dense.f_out ^ 1))),
        replace(model, layers=(gru, replace(dense, activation=oracle.RELU))),
        replace(model, layers=(gru, replace(dense, b=(dense.b[0] ^ 1,)))),
        *(replace(model, layers=(layer, dense)) for layer in grus),
    ]
    assert len({oracle.digest(other) for other in (model, *others)}) == 1 + len(others)


def test_the_bytes_of_the_digest_are_those_of_the_page():
    """Written by hand from R17: an embedding, Reverse, a GRU with h0, a bidirectional layer of two GRUs from zero."""
    w = oracle.Matrix(((1,), (-1,), (2,)), (16384, 16385, 32767), (1, 2, 30), 3)
    after = oracle.Gru(oracle.RESET_AFTER, w, w, (1, -2, 3), (-1,))
    before = replace(after, reset=oracle.RESET_BEFORE, c=(), gate=1, candidate=4, f_h=-15, h0=(-2,))
    both = oracle.Bidirectional(after, after, oracle.MERGE_MUL)
    model = oracle.Model((0,), 1, (oracle.Embedding(((-128,), (127,))), oracle.Reverse(), before, both))
    matrix = "08 03 0300 0100 0040 0140 ff7f 01 02 1e 01 ff 02"
    b, from_zero = "01000000 feffffff 03000000", "01 00 00 00 0f"
    expected = [
        b"quantgru".hex() + "01 01 0100 00 04",
        "03 0200 0100 80 7f",
        "04",
        f"06 01 01 04 f1 {matrix} {matrix} {b} feff",
        "05 02 00" + f"{from_zero} {matrix} {matrix} {b} ffffffff" * 2,
    ]
    assert oracle.digest(model) == hashlib.sha256(bytes.fromhex("".join(expected))).hexdigest()
    wide = replace(w, codes=((1,), (-1,), (128,)))
    assert oracle.matrix_bytes(wide).hex(" ", 2).replace(" ", "") == ("10030300010000400140ff7f01021e0100ffff8000")


def test_an_initial_state_of_zeros_is_none():
    layer = worked_layer(oracle.RESET_AFTER)
    assert replace(layer, h0=(0,)) == layer
    assert oracle.layer_bytes(layer)[0] == 1


def test_a_run_continues_check_values_from_the_reset():
    model = random_model(Plan(2, (3, 2), (oracle.RESET_AFTER, oracle.RESET_BEFORE)), seed=2)
    inputs = random_inputs("random", 3, 2, seed=2)
    state, check, steps = oracle.reset(model), 0, oracle.run(model, inputs)
    for x, step in zip(inputs, steps, strict=True):
        assert step == oracle.step(model, state, x, check)
        assert step.outputs == step.state.h[-1]
        state, check = step.state, step.check
