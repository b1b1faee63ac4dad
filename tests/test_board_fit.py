"""What a model takes on a board: sizes against those of the cost model, the stack against marks that a run leaves."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import oracle
import pytest
from command_line import assert_refused, done, quantgru
from conftest import path_without_cache
from hil_boards import board_or_skip
from packed_models import model_of_widths, wide_model
from strategies import Plan, from_oracle, random_model
from support_export import WARNINGS, load, run_command

import quantgru as qg
from quantgru.exporter import export
from quantgru.hil.boards import Board, find_boards
from quantgru.hil.compiler import port_sources
from quantgru.hil.footprint import Footprint, footprint
from quantgru.hil.images import Image, launch
from quantgru.hil.stack import deepest_stack, read_functions
from quantgru.hil.transport import SerialTransport
from quantgru.int_model.cost import cost
from quantgru.int_model.packing import Packing

ROOT = Path(__file__).resolve().parent.parent


def measured(model: qg.IntModel, board: Board, folder: Path, packing: Packing = "auto") -> Footprint:
    export(model, folder / "export", "model", packing=packing)
    return footprint(board, folder / "export", folder / "build", streaming=model.streaming)


def model_of(units: int) -> qg.IntModel:
    rng = np.random.default_rng(0)
    w, u, b = (rng.normal(size=(3, units, *more)) / 8 for more in ((3,), (units,), ()))
    gru = qg.Gru("gru", "after", w, u, b, b[0])
    return qg.quantize(qg.FloatModel((gru,), False), calibration=rng.normal(size=(2, 9, 3)))


# ---- sizes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gesture", "phrase"])
@pytest.mark.parametrize("board", ["host", "mps2-an386", "atmega328p", "riscv-rv32ec"])
def test_sizes_contain_the_model(board: str, name: str, tmp_path: Path) -> None:
    model = load(name)
    sizes, known = measured(model, board_or_skip(board), tmp_path), cost(model)
    assert known.constant_bytes + 1000 < sizes.model_flash_bytes < known.constant_bytes + 16_000
    assert sizes.model_flash_bytes < sizes.flash_bytes
    variables = known.state_bytes + known.scratch_bytes + 2 * (model.n_inputs + model.n_outputs)
    assert variables <= sizes.model_ram_bytes <= sizes.ram_bytes


def test_a_unit_more_costs_what_the_cost_model_says(tmp_path: Path) -> None:
    """From 8 to 16 units: whole blocks, so that nothing but constants and variables grows."""
    board = board_or_skip("mps2-an386")
    small, large = model_of(8), model_of(16)
    first, second = measured(small, board, tmp_path / "a"), measured(large, board, tmp_path / "b")
    constants = cost(large).constant_bytes - cost(small).constant_bytes
    assert abs(second.model_flash_bytes - first.model_flash_bytes - constants) <= 40  # alignment of a dozen arrays
    variables = 8 * (4 + 6 + 2)  # state, gates, outputs
    assert second.model_ram_bytes - first.model_ram_bytes == variables
    assert second.stack_bytes == first.stack_bytes


def test_a_program_that_is_larger_than_its_board_is_measured(tmp_path: Path) -> None:
    model, board = model_of(93), board_or_skip("atmega328p")
    assert cost(model).constant_bytes < 32768
    assert measured(model, board, tmp_path).flash_bytes > 32768
    fit = qg.inspect_board(model, "atmega328p", rate_hz=1)
    (flash,) = [gate for gate in fit.gates if gate.name == "flash"]
    assert not flash.holds and not fit.fits and fit.load is None


# ---- the stack -----------------------------------------------------------------------------------------------------

HIGH_WATER_PROGRAM = """\
#include "model.h"
#include "port.h"

#define PAINTED 900 /* bytes below this function's variables; the first ones may be in use */
#define SPARED 48

static model_state state;
static model_scratch scratch;
static int16_t inputs[MODEL_INPUTS];
static int16_t outputs[MODEL_OUTPUTS];

static uint16_t high_water(void)
{
    volatile uint8_t here = 0;
    const uintptr_t top = (uintptr_t)&here;
    for (uint16_t depth = SPARED; depth <= PAINTED; ++depth) {
        *(volatile uint8_t *)(top - depth) = 0xa5;
    }
    model_reset(&state);
    for (uint16_t step = 0; step < 20; ++step) {
        for (uint16_t i = 0; i < MODEL_INPUTS; ++i) {
            inputs[i] = (int16_t)(step * 1000 - i * 3000);
        }
        model_step(&state, &scratch, inputs);
        model_output(&state, &scratch, outputs);
    }
    uint16_t depth = PAINTED;
    while (depth > SPARED && *(volatile uint8_t *)(top - depth) == 0xa5) {
        --depth;
    }
    return depth;
}

int main(void)
{
    const uint16_t depth = high_water(); /* before interrupts, which take some stack, too */
    const uint8_t bytes[2] = {(uint8_t)depth, (uint8_t)(depth >> 8)};
    port_init();
    port_write(bytes, sizeof bytes);
    for (;;) {
        (void)port_read_byte();
    }
}
"""


MODELS = {"packed": model_of_widths, "wide": wide_model}


@pytest.mark.parametrize("name", ["gesture", "valve", *MODELS])
@pytest.mark.parametrize("board_name", ["mps2-an386", "microbit", "atmega328p", "riscv-rv32imc"])
def test_the_stack_is_what_a_run_leaves_marks_on(board_name: str, name: str, tmp_path: Path) -> None:
    """And on what the call itself takes; the last bytes of a frame may stay unwritten."""
    board, model = board_or_skip(board_name), MODELS[name]() if name in MODELS else load(name)
    predicted = measured(model, board, tmp_path, "always" if name in MODELS else "auto").stack_bytes
    (tmp_path / "program.c").write_text(HIGH_WATER_PROGRAM)
    library = tmp_path / "export" / "quantgru"
    ports = port_sources(board)
    places = [tmp_path / "export", library / "include", board.firmware / "harness", board.folder]
    includes = [f"-I{place}" for place in [*places, *(source.parent for source in ports)]]
    sources = [tmp_path / "program.c", tmp_path / "export" / "model.c", *(library / "src").glob("*.c"), *ports]
    link_flags = [flag.format(port=board.folder) for flag in board.program.link_flags]
    flags = ["-std=c99", *WARNINGS, *board.program.flags, *includes]
    run_command(board.program.compiler, *flags, *sources, *link_flags, "-o", tmp_path / "program.elf")
    with launch(board, Image(tmp_path / "program.elf", 0, 0)) as url, SerialTransport(url) as line:
        answer = b""
        while len(answer) < 2:
            received = line.read(10)
            assert received, "no answer"
            answer += received
    found = int.from_bytes(answer, "little")
    assert predicted - 8 <= found <= predicted + 16


STACK_USAGE = """\
src/qg_step.c:7:6:outer\t100\tstatic
src/qg_step.c:9:6:other\t8\tstatic
qg_gru_any.c:1:6:qg_gru_one\t50\tstatic
qg_gru_any.c:2:6:qg_gru_two\t70\tstatic
qg_gru_any.c:3:6:inner.isra.0\t6\tstatic
values.c:1:6:value\t4\tstatic
"""
RELOCATIONS = """
RELOCATION RECORDS FOR [.text.outer]:
OFFSET   TYPE              VALUE
0000000c R_AVR_CALL        .text.unlikely.other
00000010 R_AVR_CALL        memcpy

RELOCATION RECORDS FOR [.text.qg_gru_one]:
OFFSET   TYPE              VALUE
0000000c R_ARM_THM_CALL    inner.isra.0

RELOCATION RECORDS FOR [.rodata.table]:
OFFSET   TYPE              VALUE
00000000 R_AVR_16_PM       qg_gru_one
00000002 R_ARM_ABS32       value

RELOCATION RECORDS FOR [.eh_frame]:
OFFSET   TYPE              VALUE
00000000 R_X86_64_PC32     .text.qg_gru_two
"""


@pytest.mark.parametrize(
    ("code", "of_outer", "of_layer"),
    [
        *((call, 100 + 50 + 6 + 4, 50 + 6 + 4) for call in ("blx\tr3", "jalr\ta5", "icall", "call   *0x8(%rax)")),
        *((jump, 100 + 8, 50 + 6) for jump in ("bx\tr3", "jr\ta5", "eijmp", "jmp    *%rax")),  # leaves its frame before
    ],
)
def test_a_chain_of_calls_by_hand(code: str, of_outer: int, of_layer: int) -> None:
    """outer calls a layer through a pointer, that calls a helper, and the helper a value function through another."""
    disassembly = "".join(
        f"00000000 <{name}>:\n   0:\t{last}\n"
        for name, last in {
            "outer": code,
            "other": "ret",
            "qg_gru_one": "nop",
            "inner.isra.0": code,
            "value": "ret",
        }.items()
    )
    functions = read_functions([STACK_USAGE], RELOCATIONS, disassembly)
    assert functions.pointed_to == {"qg_gru_one", "value"}  # not what only tables of the debugger point to
    assert deepest_stack(functions, ["outer"]) == of_outer
    assert deepest_stack(functions, ["qg_gru_one"]) == of_layer
    assert deepest_stack(functions, ["qg_gru_two", "other"]) == 70


def test_a_jump_table_is_no_pointer_to_a_function() -> None:
    table = "RELOCATION RECORDS FOR [.rodata.outer]:\n00000000 R_ARM_ABS32       .text.outer+0x4\n"
    assert read_functions([STACK_USAGE], table, "").pointed_to == set()


@pytest.mark.parametrize(
    "code", ["bx\tlr", "bl\t0 <other>", "jalr\tra # 14 <.L2>", "jr\tt1 # 2c <outer>", "ret", "rcall\t.+4"]
)
def test_direct_calls_and_returns_go_through_no_pointer(code: str) -> None:
    functions = read_functions([STACK_USAGE], RELOCATIONS, f"00000000 <outer>:\n   0:\t{code}\n")
    assert deepest_stack(functions, ["outer"]) == 100 + 8


# ---- boards --------------------------------------------------------------------------------------------------------


def test_a_linker_script_has_the_memory_of_the_chip() -> None:
    """The sizes of memory.ld, where a board has one, are those of its port.toml."""
    units = {"K": 1024, "M": 1024**2}
    compared = 0
    for board in find_boards().values():
        if (script := board.folder / "memory.ld").is_file():
            found = re.findall(r"(FLASH|RAM) .*LENGTH = (\d+)([KM])", script.read_text())
            sizes = {name: int(number) * units[unit] for name, number, unit in found}
            assert (board.chip.flash_bytes, board.chip.ram_bytes) == (sizes["FLASH"], sizes["RAM"]), board.name
            compared += 1
    assert compared >= 7


def test_the_share_of_the_processor() -> None:
    board_or_skip("atmega328p")
    fit = qg.inspect_board(load("gesture"), "atmega328p", rate_hz=20)
    assert fit.load is not None and fit.load.share is not None
    assert fit.load.step.unit == "cycles" and not fit.load.at_least
    step = fit.load.step
    assert step.outputs is not None and fit.load.share == (step.maximum + step.outputs) * 20 / 16_000_000
    assert fit.gates[-1].value == fit.load.share and fit.fits == (fit.load.share <= 1)


def test_a_head_may_take_most_of_the_processor() -> None:
    """4→100 behind a GRU of 4 units: an AVR takes three multiplications, of 2 cycles each, for a weight."""
    board_or_skip("atmega328p")
    plan = Plan(1, (4,), (oracle.RESET_AFTER,), ((100, oracle.LINEAR),))
    fit = qg.inspect_board(from_oracle(random_model(plan, seed=1)), "atmega328p", rate_hz=1000)
    assert fit.load is not None and fit.load.share is not None and fit.load.step.outputs is not None
    assert fit.load.step.maximum < 16_000 and fit.load.step.outputs > 6 * 400
    assert fit.load.share > 1 and not fit.fits


def test_instructions_are_a_lower_bound_of_cycles() -> None:
    board_or_skip("mps2-an386")
    fit = qg.inspect_board(load("gesture"), "mps2-an386", rate_hz=100, clock_hz=1_000_000)
    assert fit.load is not None and fit.load.at_least
    assert fit.load.share == (fit.load.step.maximum + fit.load.step.outputs) * 100 / 1_000_000
    assert [gate.name for gate in fit.gates] == ["flash", "RAM and stack", "processor"]


def test_an_array_that_an_avr_cannot_read() -> None:
    """Of 3 · 105 · 105 weights. Nothing is compiled: no tool is needed."""
    fit = qg.inspect_board(model_of(105), "atmega2560")
    (gate,) = fit.gates
    assert (gate.name, gate.value, gate.limit) == ("an array that an AVR reads", 33_075, 32_767)
    assert not fit.fits and fit.footprint is None


def test_a_board_without_limits_judges_nothing() -> None:
    board_or_skip("riscv-rv32imc")
    fit = qg.inspect_board(load("valve"), "riscv-rv32imc")
    assert fit.fits and fit.gates == () and fit.footprint is not None


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"rate_hz": 0}, "rate_hz 0, expected a positive number"),
        ({"rate_hz": float("nan")}, "rate_hz nan"),
        ({"clock_hz": -1}, "clock_hz -1"),
        ({"ram_bytes": 0}, "ram_bytes 0"),
    ],
)
def test_numbers_that_are_none(options: dict, says: str) -> None:
    with pytest.raises(qg.ConfigError, match=says):
        qg.inspect_board(load("gesture"), "host", **options)


def test_a_rate_for_whole_sequences_is_refused() -> None:
    board_or_skip("host")
    with pytest.raises(qg.ModelError, match="need the whole sequence"):
        qg.inspect_board(load("phrase"), "host", rate_hz=1)


# ---- the command ---------------------------------------------------------------------------------------------------


def test_a_model_that_fits(here: Path) -> None:
    board_or_skip("mps2-an386")
    out = done(quantgru("inspect", "m.qgru", "--board", "mps2-an386", "--rate", "100"))
    assert out.splitlines()[-1] == "fits mps2-an386, as far as instructions tell" and "can fit" in out
    assert re.search(
        r"[\d,]+ instructions a step at most and [\d,]+ for its outputs, 100 steps a second\n.*at least one cycle each",
        out,
    )
    facts = json.loads(done(quantgru("inspect", "m.qgru", "--board", "mps2-an386", "--json")))
    assert facts["board"]["fits"] is True and facts["board"]["load"] is None
    assert facts["board"]["chip"]["flash_bytes"] == 4 * 2**20
    assert facts["name"] == "digits"


@pytest.mark.parametrize(
    ("limits", "failing"),
    [
        (("--flash", "6000"), "flash"),
        (("--flash", "5000"), "flash, by constants alone"),
        (("--ram", "500"), "RAM and stack"),
        (("--rate", "100", "--clock", "1000000"), "processor"),
    ],
)
def test_a_model_that_does_not_fit_ends_with_1(limits: tuple[str, ...], failing: str, here: Path) -> None:
    board_or_skip("mps2-an386")
    result = quantgru("inspect", "m.qgru", "--board", "mps2-an386", *limits)
    assert (result.code, result.err) == (1, "")
    assert result.out.splitlines()[-1] == f"DOES NOT FIT: {failing}"
    as_json = quantgru("inspect", "m.qgru", "--board", "mps2-an386", *limits, "--json")
    assert as_json.code == 1
    gates = json.loads(as_json.out)["board"]["gates"]
    assert [gate["name"] for gate in gates if not gate["holds"]] == [failing]


def test_a_missing_compiler_is_named_with_its_package(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(here))
    assert_refused(
        quantgru("inspect", "m.qgru", "--board", "microbit"), "arm-none-eabi-gcc", "install it: apt-get install"
    )
    assert_refused(quantgru("inspect", "m.qgru", "--board", "esp99"), "board 'esp99': unknown")


def test_sizes_need_no_emulator(here: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory) -> None:
    """A machine that has the compiler and its binutils only."""
    board = board_or_skip("mps2-an386")
    tools = tmp_path_factory.mktemp("tools")
    for tool in (board.program.compiler, board.size_tool, "arm-none-eabi-objdump"):
        (tools / tool).symlink_to(shutil.which(tool, path=path_without_cache()) or tool)
    monkeypatch.setenv("PATH", str(tools))
    assert done(quantgru("inspect", "m.qgru", "--board", "mps2-an386")).splitlines()[-1] == "fits mps2-an386"
    result = quantgru("inspect", "m.qgru", "--board", "mps2-an386", "--rate", "1")
    assert_refused(result, "qemu-system-arm not found on this machine; install it: apt-get install")


def test_limits_belong_to_a_board(here: Path) -> None:
    result = quantgru("inspect", "m.qgru", "--rate", "100")
    assert result.code == 2 and "need --board NAME" in result.err
