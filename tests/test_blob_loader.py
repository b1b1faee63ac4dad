"""The loader of firmware/src/qg_load.c: what it accepts runs as the oracle says, here and on a board."""

from pathlib import Path

import oracle
import pytest
from blob_cases import (
    LIBRARY,
    PROGRAM,
    RICH,
    Answer,
    Case,
    answers,
    loader_program,
    read_answer,
)
from c_library import FIRMWARE, NO_COMPILER, ROOT
from hil_boards import board_or_skip
from hil_models import run_steps
from strategies import (
    from_oracle,
    random_inputs,
    random_model,
)
from support_export import FindTool, run_command, try_command
from test_board_models import PLANS

from quantgru.exporter import blob_memory, to_blob
from quantgru.hil.compiler import WARNINGS, port_sources
from quantgru.hil.images import Image, launch
from quantgru.hil.transport import SerialTransport
from quantgru.int_model import IntModel

pytestmark = pytest.mark.skipif(NO_COMPILER is not None, reason=str(NO_COMPILER))

AFTER, BEFORE = oracle.RESET_AFTER, oracle.RESET_BEFORE

PLAN_CASES = {**PLANS, "rich": (RICH, "tokens")}


@pytest.fixture(scope="module")
def program() -> Path:
    return loader_program()


def plan_case(name: str) -> tuple[oracle.Model, IntModel, Case]:
    """A model of the board tests and its blob, with inputs of as many steps as the oracle can do in a moment."""
    plan, kind = PLAN_CASES[name]
    model = random_model(plan, seed=1)
    int_model = from_oracle(model)
    inputs = random_inputs(kind, 10 if name == "large" else 50, plan.n_inputs, seed=2)
    return model, int_model, Case(to_blob(int_model), inputs=inputs)


def check_answer(answer: Answer, model: oracle.Model, int_model: IntModel, case: Case) -> None:
    """Holds a loaded model against the oracle."""
    assert answer.code == 0
    assert answer.shape == (
        int_model.n_inputs,
        int_model.n_outputs,
        int_model.n_units,
        model.last_step,
        int_model.output_fraction_bits,
    )
    assert answer.named_digest == answer.digest == bytes.fromhex(oracle.digest(model))
    assert list(answer.steps) == [(step.check, step.outputs) for step in run_steps(model, case.inputs)]


def test_every_step_is_equal(program: Path) -> None:
    made = [plan_case(name) for name in PLAN_CASES]
    for answer, (model, int_model, case) in zip(answers(program, [case for *_, case in made]), made, strict=True):
        check_answer(answer, model, int_model, case)
        assert answer.memory_bytes == blob_memory(int_model, pointer_bytes=8)


def test_every_step_is_equal_on_a_cortex_m4(tmp_path: Path) -> None:
    board = board_or_skip("mps2-an386")
    program = board_program(tmp_path)
    with launch(board, Image(program, 0, 0)) as url, SerialTransport(url) as line:
        received = bytearray()

        def read(n: int) -> bytes:
            while len(received) < n:
                more = line.read(10)
                assert more, "no answer"
                received.extend(more)
            taken = bytes(received[:n])
            del received[:n]
            return taken

        for name in sorted(PLAN_CASES.keys() - {"large"}):  # the line is slow
            model, int_model, case = plan_case(name)
            line.write(case.request())
            answer = read_answer(case, read)
            check_answer(answer, model, int_model, case)
            assert answer.memory_bytes == blob_memory(int_model, pointer_bytes=4)


def board_program(folder: Path) -> Path:
    """The test program for a Cortex-M4."""
    board = board_or_skip("mps2-an386")
    ports = port_sources(board)
    folders = [*(ROOT / "firmware" / name for name in ("include", "src", "harness")), board.folder]
    options = [f"-I{place}" for place in [*folders, *(source.parent for source in ports)]]
    options += [flag.format(port=board.folder) for flag in board.program.link_flags]
    sources = [*PROGRAM, *LIBRARY, *ports]
    program = folder / "load_cases.elf"
    compiler = board.program.compiler
    run_command(compiler, "-std=c99", *WARNINGS, *board.program.flags, *sources, *options, "-o", program)
    return program


def test_other_bytes_may_follow_a_blob(program: Path) -> None:
    *_, case = plan_case("rich")
    (answer,) = answers(program, [Case(case.blob + b"whatever", inputs=[[1]])])
    assert answer.code == 0 and len(answer.steps) == 1


@pytest.mark.parametrize(
    ("compiler", "flags", "says"),
    [
        ("avr-gcc", ["-std=gnu99", "-mmcu=atmega328p"], "constants are read from flash on this target"),
        ("gcc", ["-U__BYTE_ORDER__", "-D__BYTE_ORDER__=__ORDER_BIG_ENDIAN__"], "a blob is little-endian"),
    ],
)
def test_targets_that_cannot_run_a_blob(
    compiler: str, flags: list[str], says: str, find_tool: FindTool, tmp_path: Path
) -> None:
    """Who includes the header is told; the sources, which some build systems always compile, are empty."""
    (tmp_path / "program.c").write_text('#include "quantgru_load.h"\n')
    command = [find_tool(compiler), "-std=c99", *WARNINGS, *flags, f"-I{FIRMWARE / 'include'}", "-c"]
    result = try_command(*command, tmp_path / "program.c", cwd=tmp_path)
    assert result.returncode != 0 and says in result.stderr
    for source in (FIRMWARE / "src").glob("qg_load*.c"):
        run_command(*command, source, "-o", tmp_path / "empty.o")
