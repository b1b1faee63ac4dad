"""Codes of less than a byte: where they lie, when they are packed, and that no board computes anything else."""

import functools
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import oracle
import pytest
from command_line import done, quantgru
from hil_boards import board_or_skip
from packed_models import model_of_widths, narrowed, short_model_of_bytes, short_model_of_widths, wide_model
from strategies import DensePlan, GruPlan, Plan, from_oracle, random_model
from zero_models import model_of, zero_gru, zero_matrix

import quantgru as qg
from quantgru.exporter import export
from quantgru.exporter.files import export_files
from quantgru.exporter.layout import packed
from quantgru.hil.boards import find_boards
from quantgru.hil.footprint import footprint
from quantgru.int_model.avr import avr_excess
from quantgru.int_model.cores import Core
from quantgru.int_model.cost import cost, kernel_bytes
from quantgru.int_model.packing import (
    Packing,
    Section,
    code_array_bytes,
    code_bits,
    code_flash_bytes,
    layout,
    packing_bytes,
    packing_for,
    section_of,
    sections,
)
from quantgru.report.inspection import inspection

PACKINGS: tuple[Packing, ...] = ("auto", "never", "always")

WIDTHS = [([0, 0], 2), ([1, -2], 2), ([2], 3), ([-3], 3), ([-4, 3], 3), ([-5], 4), ([7, -8], 4), ([8], 5)]
WIDTHS += [([-17], 6), ([31], 6), ([32], 7), ([-64, 63], 7), ([64], 8), ([-65], 8), ([-128, 127], 8)]
WIDTHS += [([128], 9), ([-129], 9), ([-2048, 2047], 12), ([2048], 13), ([-32768, 32767], 16)]


@pytest.mark.parametrize(("codes", "bits"), WIDTHS)
def test_as_many_bits_as_hold_all_codes(codes: list[int], bits: int) -> None:
    assert code_bits(np.array([codes], np.int16)) == bits


def in_memory(rows: list[list[int]], bits: int) -> list[int]:
    section = Section(np.array(rows, np.int8), bits)
    found = packed(section)
    assert len(found) == section.size.n_bytes
    return found.view(np.uint8).tolist()


def test_codes_of_16_bits() -> None:
    """A block column by column, then rows by themselves, however many they are."""
    rows = [[row, -row] for row in range(1, 9)] + [[300 + row, -32768] for row in range(7)]
    section = section_of(np.array(rows, np.int16), 2)
    assert (section.bits, section.size.n_bytes) == (16, 2 * 2 * 15)
    by_themselves = [code for row in rows[8:] for code in row]
    assert packed(section).tolist() == [*range(1, 9), *range(-1, -9, -1), *by_themselves]


def test_a_block_of_four_bits() -> None:
    rows = [[1, -1], [2, -2], [3, -3], [4, -4], [5, -5], [6, -6], [7, -7], [-8, -8]]
    assert in_memory(rows, 4) == [0x21, 0x43, 0x65, 0x87, 0xEF, 0xCD, 0xAB, 0x89]


def test_a_block_of_three_bits() -> None:
    rows = [[0], [1], [2], [3], [-4], [-3], [-2], [-1]]  # from the top: 111 110 101 100 011 010 001 000
    assert in_memory(rows, 3) == [0b10001000, 0b11000110, 0b11111010]


def test_a_block_of_seven_bits() -> None:
    rows = [[-1], [0], [-1], [0], [-1], [0], [-1], [0]]
    assert in_memory(rows, 7) == [0x7F, 0xC0, 0x1F, 0xF0, 0x07, 0xFC, 0x01]


def test_rows_that_are_left_are_a_block_where_that_is_shorter() -> None:
    block = [[1, 1]] * 8
    in_block = [0b01010101, 0b01010101] * 2  # each column has two bytes
    assert in_memory([*block, [-1, 0], [0, 1]], 2) == [*in_block, 255, 0, 0, 1]  # each row by itself
    assert in_memory([*block, [-1, 0], [0, 1], [1, -1]], 2) == [*in_block, 0b010011, 0, 0b110100, 0]


def test_gates_of_equal_width_are_one_section_where_their_blocks_are_full() -> None:
    first, second = model_of_widths().grus
    assert [(section.bits, len(section.codes)) for section in sections(first.input, 24, 2)] == [(4, 72)]
    assert [(section.bits, len(section.codes)) for section in sections(first.recurrent, 24, 2)] == [
        (2, 24),
        (3, 24),
        (8, 24),
    ]
    assert [(section.bits, len(section.codes)) for section in sections(second.recurrent, 21, 2)] == [(4, 21)] * 3


def test_what_the_codes_take() -> None:
    """Columns times blocks times bits; then what the rows take that are left, 5 of 21 and of 13."""
    model = model_of_widths()
    of_first = [3 * 9 * 4, 24 * 3 * 2, 24 * 3 * 3, 24 * 3 * 8]
    of_second = [24 * (2 * bits + 5) for bits in (5, 6, 7)] + 3 * [21 * (2 * 4 + 4)]
    assert code_array_bytes(layout(model, 2)) == [*of_first, *of_second, 21 * (3 + 3)]
    grus, dense = model.grus, model.dense[0]
    others = sum(array.nbytes for gru in grus for array in (gru.bias, gru.recurrent_bias)) + dense.bias.nbytes
    rows = sum(matrix.n_rows for gru in grus for matrix in (gru.input, gru.recurrent)) + 13
    of_codes = sum(code_array_bytes(layout(model, 2)))
    assert cost(model, "always").constant_bytes == of_codes + others + 3 * rows + 3 + 32  # formats, digest


def test_what_packing_takes() -> None:
    """On RV32IMC, where all widths take most, a kernel for each and another loop; on an AVR one kernel for all. 16 for
    each section and 8 for each matrix."""
    of_widths = layout(model_of_widths(), 2)
    assert packing_bytes(of_widths) == packing_bytes(of_widths, "rv32imc") == 6 * 445 + 535 - 430 + 16 * 11 + 8 * 5
    assert packing_bytes(of_widths, "avr") == 495 - 90 + 16 * 11 + 8 * 5
    layer = random_model(Plan(3, (8,)), seed=1).layers[0]
    narrow = replace(layer, w=narrowed(layer.w, 4), u=narrowed(layer.u, 4))
    model = from_oracle(replace(random_model(Plan(3, (8,)), seed=1), layers=(narrow,)))
    of_four_bits = layout(model, 2)
    assert packing_bytes(of_four_bits) == packing_bytes(of_four_bits, "avr") == 495 - 90 + 16 * 2 + 8 * 2
    assert packing_bytes(of_four_bits, "cortex-m4") == 250 - 330 + 16 * 2 + 8 * 2  # less than the kernel of bytes
    assert packing_bytes(layout(model, 8), "cortex-m4") == 0


def test_a_core_that_is_not_known() -> None:
    with pytest.raises(qg.ConfigError, match=r"^core 'cortex-m9', allowed are any, avr, cortex-m0, cortex-m3, "):
        packing_bytes(layout(model_of_widths(), 2), "cortex-m9")  # type: ignore[arg-type]


def packed_model() -> qg.IntModel:
    """144 codes of 4 bits, 768 of 3: just enough."""
    model = random_model(Plan(3, (16,)), seed=1)
    layer = model.layers[0]
    return from_oracle(replace(model, layers=(replace(layer, w=narrowed(layer.w, 4), u=narrowed(layer.u, 3)),)))


def size_on(board_name: str, model: qg.IntModel, packing: Packing, folder: Path) -> int:
    """Flash of model and library."""
    export(model, folder / packing, name="model", packing=packing)
    built = footprint(board_or_skip(board_name), folder / packing, folder / packing / "build", streaming=True)
    return built.model_flash_bytes


def code_on(board_name: str, model: qg.IntModel, packing: Packing, folder: Path) -> int:
    """All that is no constant."""
    return size_on(board_name, model, packing, folder) - cost(model, packing).constant_bytes


def packing_code_on(board_name: str, model: qg.IntModel, folder: Path) -> int:
    """What code takes more with "always" than with "never"."""
    always, never = (code_on(board_name, model, packing, folder) for packing in ("always", "never"))
    return always - never


CORES: dict[Core, str] = {
    "avr": "atmega328p",
    "cortex-m0": "microbit",
    "cortex-m3": "mps2-an385",
    "cortex-m4": "mps2-an386",
    "cortex-m7": "mps2-an500",
    "cortex-m33": "mps2-an505",
    "cortex-m55": "mps3-an547",
    "rv32imc": "riscv-rv32imc",
    "rv32ec": "riscv-rv32ec",
}


def of_three_widths(*widths: int) -> qg.IntModel:
    """Of W, U and a dense layer; 16 is a single code of 9 bits."""
    model = random_model(Plan(3, layers=(GruPlan(24), DensePlan(8, oracle.LINEAR))), seed=5)
    gru, dense = model.layers
    w, u, of_dense = (of_width(matrix, bits) for matrix, bits in zip((gru.w, gru.u, dense.matrix), widths, strict=True))
    return from_oracle(replace(model, layers=(replace(gru, w=w, u=u), replace(dense, matrix=of_dense))))


def of_width(matrix: oracle.Matrix, bits: int) -> oracle.Matrix:
    if bits <= 8:
        return narrowed(matrix, bits)
    codes = narrowed(matrix, 7).codes
    return replace(matrix, codes=((200, *codes[0][1:]), *codes[1:]))


@pytest.fixture(scope="module")
def code_of_bytes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Core], int]:
    @functools.cache
    def on(core: Core) -> int:
        return code_on(CORES[core], of_three_widths(8, 8, 8), "never", tmp_path_factory.mktemp("bytes"))

    return on


@pytest.mark.parametrize("widths", [(4, 4, 4), (7, 8, 7), (3, 5, 7), (4, 8, 16)])
@pytest.mark.parametrize("core", CORES)
def test_what_packing_takes_on_a_core(
    core: Core, widths: tuple[int, ...], code_of_bytes: Callable[[Core], int], tmp_path: Path
) -> None:
    """At most, and not much less: kernels of some widths are smaller than those of others."""
    model = of_three_widths(*widths)
    code = code_on(CORES[core], model, "always", tmp_path) - code_of_bytes(core)
    most = packing_bytes(layout(model, 2), core)
    assert most - 200 < code <= most <= packing_bytes(layout(model, 2))


@pytest.mark.parametrize("core", CORES)
def test_all_widths_take_no_more_on_a_core(core: Core, tmp_path: Path) -> None:
    code = packing_code_on(CORES[core], model_of_widths(), tmp_path)
    assert code <= packing_bytes(layout(model_of_widths(), 2), core)


@pytest.mark.parametrize("board_name", ["microbit", "atmega328p"])
def test_packing_takes_no_more_on_a_board(board_name: str, tmp_path: Path) -> None:
    model = packed_model()
    code = packing_code_on(board_name, model, tmp_path)
    sizes = {packing: size_on(board_name, model, packing, tmp_path) for packing in PACKINGS}
    assert code <= kernel_bytes(model)
    assert sizes["auto"] == sizes["always"] < sizes["never"]


def small_model() -> qg.IntModel:
    """Codes of 8 bits, and 192 of 2."""
    model = random_model(Plan(3, (8,)), seed=1)
    return from_oracle(replace(model, layers=(replace(model.layers[0], u=narrowed(model.layers[0].u, 2)),)))


# ---- the choice ----------------------------------------------------------------------------------------------------


def test_auto_packs_where_that_saves_more_than_kernels_take() -> None:
    small, large = ({name: source_of(model(), name) for name in PACKINGS} for model in (small_model, packed_model))
    assert small["auto"] == small["never"] != small["always"]
    assert large["auto"] == large["always"] != large["never"]
    assert "qg_affine_packed" in small["always"] and "qg_affine_packed" not in large["never"]


def source_of(model: qg.IntModel, packing: Packing) -> str:
    return export_files(model, "model", packing=packing)["model.c"]


@pytest.mark.parametrize("packing", PACKINGS)
def test_codes_of_8_bits_are_in_bytes_whatever_is_chosen(packing: Packing) -> None:
    assert "qg_affine_bytes_short" in source_of(short_model_of_bytes(), packing)


def test_codes_above_8_bits_take_words_and_others_bytes_where_none_is_packed() -> None:
    source = source_of(wide_model(), "never")
    assert "QG_WIDE_SECTION(gru0_input_codes0, 11)" in source
    assert set(re.findall(r"QG_SECTION\(\w+, \d+, (\d+)\)", source)) == {"8"}
    assert "4" in set(re.findall(r"QG_SECTION\(\w+, \d+, (\d+)\)", source_of(wide_model(), "always")))


@pytest.mark.parametrize(
    ("model", "never", "always", "widths"),
    [
        (small_model, 72 + 192, 72 + 48, "2 and 8"),
        (model_of_widths, 72 * 27 + 63 * 45 + 13 * 21, 3150, "2, 3, 4, 5, 6, 7 and 8"),
    ],
)
def test_what_is_said_of_a_choice_is_of_that_layout(
    model: Callable[[], qg.IntModel], never: int, always: int, widths: str
) -> None:
    """`never` by the shapes, `always` by what test_what_the_codes_take adds up."""
    others = cost(model(), "never").constant_bytes - never
    headers = {name: export_files(model(), "model", packing=name)["model.h"] for name in PACKINGS}
    in_bits = {"never": f"{never + others:,} bytes of constants, codes of weights in 8 bits"}
    in_bits["always"] = f"{always + others:,} bytes of constants, codes of weights in {widths} bits"
    assert all(f" * In flash: {text}.\n" in headers[name] for name, text in in_bits.items())


def test_the_command_exports_what_is_chosen(tmp_path: Path) -> None:
    packed_model().save(tmp_path / "model.qgru")
    for packing in PACKINGS:
        done(quantgru("export", tmp_path / "model.qgru", "-o", tmp_path / packing, "--packing", packing))
        assert (tmp_path / packing / "model.c").read_text() == source_of(packed_model(), packing)


def test_inspection_says_what_is_chosen(tmp_path: Path) -> None:
    """144 codes of 4 bits and 768 of 3, or each a byte."""
    packed_model().save(tmp_path / "m.qgru")
    said = {
        name: json.loads(done(quantgru("inspect", tmp_path / "m.qgru", "--json", "--packing", name)))
        for name in PACKINGS
    }
    constants = {name: facts["cost"]["constant_bytes"] for name, facts in said.items()}
    assert constants["never"] - constants["always"] == 144 + 768 - (72 + 288)
    assert constants["auto"] == constants["always"]
    assert [facts["cost"]["packed"] for facts in said.values()] == [name != "never" for name in said]
    shown = done(quantgru("inspect", tmp_path / "m.qgru", "--packing", "never"))
    assert f"{constants['never']:,} bytes of constants" in shown


def test_an_avr_reads_codes_that_are_packed_and_would_not_in_bytes() -> None:
    model = model_of(zero_gru(units=154))
    assert not avr_excess(model)
    assert "the largest array 71,148; " in avr_excess(model, "never")
    assert ": pack weights, with --packing always, or use fewer bits" in avr_excess(model, "never")
    assert "#error" not in export_files(model, "m")["m.h"].partition("__AVR__")[2][:40]
    fit = qg.inspect_board(model, "atmega2560", packing="never")
    assert [gate.name for gate in fit.gates] == ["constants that an AVR reads", "an array that an AVR reads"]


def test_a_packing_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(qg.ConfigError, match=r"^packing 'some', allowed are auto, never, always$"):
        qg.export(small_model(), "out", "m", packing="some")  # type: ignore[arg-type]
    small_model().save("m.qgru")
    for command in (
        ["export", "-o", "out"],
        ["inspect", "--board", "host"],
        ["hil", "--steps", "9", "--board", "host"],
    ):
        result = quantgru(command[0], "m.qgru", *command[1:], "--packing", "some")
        assert result.code == 2 and "'some' is not one of 'auto', 'never', 'always'" in result.err
    assert not Path("out").exists()


def test_a_packing_without_a_model_that_is_built_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small_model().save("m.qgru")
    for options in (["--port", "/dev/none"], ["--board", "host", "--send"]):
        result = quantgru("hil", "m.qgru", "--steps", "9", *options, "--packing", "never")
        assert result.code == 2 and "--packing goes with --board, and not with --send" in result.err
    x = np.zeros((1, 1, 3))
    for where in ({"port": "/dev/none"}, {"board": "host", "send": True}):
        with pytest.raises(
            qg.ConfigError, match="packing 'never', which is for a model in firmware that is built here"
        ):
            qg.run_on_board(small_model(), x, packing="never", **where)


# ---- boards --------------------------------------------------------------------------------------------------------


def test_codes_of_16_bits_are_in_sections_whatever_that_saves() -> None:
    matrices = [(matrix, gru.n_units) for gru in wide_model().grus for matrix in (gru.input, gru.recurrent)]
    widths = [[section.bits for section in sections(*each, 2)] for each in matrices]
    assert widths == [[16, 4, 8], [4, 4, 16], [16, 16, 4], [8, 8, 16]]
    small = from_oracle(random_model(Plan(1, (1,), weights="wide"), seed=3))
    source = export_files(small, "small")["small.c"]
    assert "QG_WIDE_SECTION(gru0_input_codes0, 1)" in source


BOARDS = [name for name, board in find_boards().items() if name != "rp2040" or not board.missing()]
ONE_OF_EACH_KERNEL = ["host", "microbit", "riscv-rv32ec", "atmega328p"]


@pytest.mark.parametrize("make", [short_model_of_widths, wide_model])
@pytest.mark.parametrize("board", BOARDS)
def test_a_board_computes_the_same_of_codes_in_sections(board: str, make: Callable[[], qg.IntModel]) -> None:
    check_on(board, make(), "always")


@pytest.mark.parametrize(("model", "packing"), [(model_of_widths, "always"), (short_model_of_bytes, "auto")])
@pytest.mark.parametrize("board", ONE_OF_EACH_KERNEL)
def test_a_board_computes_the_same(board: str, model: Callable[[], qg.IntModel], packing: Packing) -> None:
    check_on(board, model(), packing)


@pytest.mark.parametrize(
    ("model", "packing"), [(packed_model, "never"), (wide_model, "never"), (small_model, "always")]
)
@pytest.mark.parametrize("board", ["host", "mps2-an386", "atmega328p"])
def test_a_board_computes_the_same_of_what_auto_would_not_choose(
    board: str, model: Callable[[], qg.IntModel], packing: Packing
) -> None:
    check_on(board, model(), packing)


def check_on(board: str, model: qg.IntModel, packing: Packing) -> None:
    """Digest, outputs and states: the board makes the digest of the numbers that it unpacks."""
    board_or_skip(board)
    x = np.random.default_rng(3).integers(-(2**15), 2**15, (2, 20, 3)) * 2.0**-model.input_fraction_bits
    result = qg.run_on_board(model, x, board=board, by="states", packing=packing)
    assert result.equal, str(result.first_difference)
    assert result.steps == 40


def test_inspection_shows_the_widths() -> None:
    first, second, dense = inspection(model_of_widths())["layers"]
    assert (first["weight_bits"], second["weight_bits"], dense["weight_bits"]) == ([2, 3, 4, 8], [4, 5, 6, 7], [3])


def test_inspection_shows_the_bits_that_codes_use() -> None:
    """Not those that they take in memory."""
    codes = np.zeros((3, 2), np.int16)
    codes[:, 0] = (-8, 127, 1024)
    gru = zero_gru(input=replace(zero_matrix(3, 2), codes=codes))
    (of_gru,) = inspection(model_of(gru))["layers"]
    assert of_gru["weight_bits"] == [2, 4, 8, 12]
    assert of_gru["gate_bits"] == {"W": {"z": 4, "r": 8, "n": 12}, "U": {"z": 2, "r": 2, "n": 2}}


def test_the_command_shows_each_gate(tmp_path: Path) -> None:
    model_of_widths().save(tmp_path / "m.qgru")
    shown = " ".join(done(quantgru("inspect", tmp_path / "m.qgru", "--packing", "always")).split())
    assert "W 4 4 4, U 2 3 8 bit" in shown and "W 5 6 7, U 4 4 4 bit" in shown and "│ 3 bit │" in shown
    assert "codes packed, up to 2,991 bytes of code for packed weights" in shown  # as test_what_packing_takes adds up
    on_core = " ".join(done(quantgru("inspect", tmp_path / "m.qgru", "--packing", "always", "--core", "avr")).split())
    assert "codes packed, up to 621 bytes of code for packed weights" in on_core


def test_what_packing_would_save_is_shown(tmp_path: Path) -> None:
    """192 codes of 2 bits would have 48 bytes; on RV32IMC a loop, a kernel of 2 bits and one of bytes, beside two
    descriptors of 16 bytes and two of 8."""
    small_model().save(tmp_path / "m.qgru")
    constants = cost(small_model()).constant_bytes
    shown = " ".join(done(quantgru("inspect", tmp_path / "m.qgru")).split())
    packed = f"(packed, with export --packing always: {constants - 144:,}, and up to {550 + 48} bytes of code)"
    assert f"{constants:,} bytes of constants {packed}" in shown
    random_8 = from_oracle(random_model(Plan(3, (8,)), seed=1))
    random_8.save(tmp_path / "m.qgru")
    for packing in PACKINGS:
        assert "bytes of constants, and the k" in done(quantgru("inspect", tmp_path / "m.qgru", "--packing", packing))


def test_code_for_wide_codes_is_shown(tmp_path: Path) -> None:
    """Whether packed or not, they lie in sections: the first gate of W and U has words, others bytes or 7 bits."""
    of_three_widths(16, 16, 4).save(tmp_path / "m.qgru")
    shown = " ".join(
        done(quantgru("inspect", tmp_path / "m.qgru", "--packing", "never", "--core", "cortex-m0")).split()
    )
    descriptors = 16 * 7 + 8 * 3
    never, always = -30 + 140 + 180 + descriptors, -30 + 2 * 250 + 180 + descriptors
    assert f"bytes of constants, up to {never} bytes of code for wide weights (packed, with" in shown
    assert f", and up to {always} bytes of code)" in shown


@pytest.mark.parametrize("units", [8, 16, 24])
def test_auto_packs_where_that_saves_on_each_core(units: int) -> None:
    """Also beside codes of 16 bits, which have code of their own in either form: the kernel of 4 bits is larger than
    that of bytes on some cores."""
    for n_narrow in range(1, 3):
        model = wide_and_narrow(units, n_narrow)
        saves = {
            core: code_flash_bytes(layout(model, 2), core) < code_flash_bytes(layout(model, 8), core) for core in CORES
        }
        assert packing_for(model) == ("always" if all(saves.values()) else "never")
        assert [packing_for(model, core) == "always" for core in CORES] == list(saves.values())


def wide_and_narrow(units: int, n_narrow: int) -> qg.IntModel:
    """W or W and U in 4 bits, the rest in 16."""
    model = random_model(Plan(3, layers=(GruPlan(units), DensePlan(4, oracle.LINEAR))), seed=5)
    gru, dense = model.layers
    w, u = of_width(gru.w, 4), of_width(gru.u, 4 if n_narrow > 1 else 16)
    return from_oracle(
        replace(model, layers=(replace(gru, w=w, u=u), replace(dense, matrix=of_width(dense.matrix, 16))))
    )
