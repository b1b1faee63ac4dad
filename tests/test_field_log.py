"""Logs of raw inputs: what exported C keeps and sends, on this machine and on emulated boards, and that it is replayed
to the integers of the oracle. Files of logs: test_replay.py."""

from __future__ import annotations

import re
import struct
import subprocess
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import oracle
import pytest
from c_library import CModel, load_library
from command_line import done, quantgru
from conversions import to_oracle
from hil_boards import board_or_skip
from strategies import random_inputs
from support_export import WARNINGS, FindTool, includes, library_sources, load, model_sources, run_command

import quantgru as qg
from quantgru.exporter import export
from quantgru.hil.compiler import port_sources
from quantgru.hil.images import Image, launch
from quantgru.hil.transport import SerialTransport

HALF = 3  # steps


def compile_program(text: str, model: qg.IntModel, compiler: str, tmp_path: Path, *options: str) -> Path:
    """`text` with a model that is exported as "net"."""
    export(model, tmp_path / "net", "net")
    source, program = tmp_path / "program.c", tmp_path / "program"
    source.write_text(text)
    sources = [*model_sources(tmp_path / "net", "net"), *library_sources(tmp_path / "net"), source]
    flags = ["-std=c99", "-O2", *WARNINGS, *includes(tmp_path / "net")]
    run_command(compiler, *flags, *options, *sources, "-o", program)
    return program


class Record(NamedTuple):
    """A record as quantgru_log.h describes it, taken apart here."""

    all_steps: int
    clipped: int
    digest: bytes
    h: list[int]
    residual: list[int]
    inputs: list[list[int]]
    state_check: int

    @classmethod
    def of(cls, content: bytes) -> Record:
        magic, n_inputs, n_units, n_steps, all_steps, clipped = struct.unpack_from("<6s3H2I", content)
        assert magic == b"qglog\x01"
        h = struct.unpack_from(f"<{n_units}h", content, 52)
        residual = struct.unpack_from(f"<{n_units}H", content, 52 + 2 * n_units)
        inputs = struct.unpack_from(f"<{n_steps * n_inputs}h", content, 52 + 4 * n_units)
        check, crc = struct.unpack_from("<2I", content, 52 + 4 * n_units + 2 * n_steps * n_inputs)
        assert len(content) == 60 + 4 * n_units + 2 * n_steps * n_inputs
        assert crc == zlib.crc32(content[:-4])
        rows = [list(inputs[i : i + n_inputs]) for i in range(0, len(inputs), n_inputs)]
        return cls(all_steps, clipped, content[20:52], list(h), list(residual), rows, check)


def flat(layers: tuple[tuple[int, ...], ...]) -> list[int]:
    return [value for layer in layers for value in layer]


def expected_record(model: qg.IntModel, inputs: list[list[int]], steps: list[oracle.Step], half: int) -> Record:
    """After all of `inputs`, with the oracle's steps: the window begins with the half before the present one."""
    start = max(0, ((len(inputs) - 1) // half - 1) * half)
    before = steps[start - 1].state if start else oracle.reset(to_oracle(model))
    clipped = sum(value in (-32768, 32767) for x in inputs for value in x)
    after = flat(steps[-1].state.h) + flat(steps[-1].state.e)
    end = struct.pack(f"<{len(after)}H", *(value & 0xFFFF for value in after))
    return Record(len(inputs), clipped, model.digest, flat(before.h), flat(before.e), inputs[start:], zlib.crc32(end))


# ---- on this machine -----------------------------------------------------------------------------------------------

RECORD_OF_EACH_STEP = f"""\
#define NET_LOG_STEPS {2 * HALF}
#include "net_log.h"
#include <stdio.h>

static void put(void *context, uint8_t byte)
{{
    fprintf((FILE *)context, "%02x", byte);
}}

int main(void)
{{
    static net_state state;
    static net_scratch scratch;
    static net_log log;
    int n_steps;
    while (scanf("%d", &n_steps) == 1) {{
        net_reset(&state);
        net_log_start(&log);
        log.window.clipped = 0;
        for (int step = 0; step < n_steps; ++step) {{
            int16_t inputs[NET_INPUTS];
            for (int i = 0; i < NET_INPUTS; ++i) {{
                int value = 0;
                (void)!scanf("%d", &value);
                inputs[i] = (int16_t)value;
            }}
            net_log_step(&log, &state, inputs);
            net_step(&state, &scratch, inputs);
            net_log_send(&log, &state, put, stdout);
            printf("\\n");
        }}
    }}
    return 0;
}}
"""


@pytest.mark.parametrize("name", ["gesture", "valve"])
def test_the_window_and_its_state_equal_the_oracles(name: str, find_tool: FindTool, tmp_path: Path) -> None:
    """After each step of two sequences, of which the second is begun before the log of the first was full twice."""
    model = load(name)
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    program = compile_program(RECORD_OF_EACH_STEP, model, find_tool("gcc"), tmp_path, *sanitizers)
    kinds = ["random", "highest", "random", "alternating", "small"]
    sequences = [
        [random_inputs(kinds[t % 5], 1, model.n_inputs, seed=100 * n + t)[0] for t in range(n)] for n in (20, 5)
    ]
    words = [str(v) for x in sequences for v in (len(x), *(value for row in x for value in row))]
    printed = subprocess.run([program], input=" ".join(words), capture_output=True, text=True, check=True).stdout
    lines = printed.splitlines()
    for inputs in sequences:
        steps = oracle.run(to_oracle(model), inputs)
        for n in range(1, len(inputs) + 1):
            text = lines.pop(0)
            expected = expected_record(model, inputs[:n], steps[:n], HALF)
            assert Record.of(bytes.fromhex(text)) == expected
            (tmp_path / "log.txt").write_text(text)
            (log,) = qg.read_logs(tmp_path / "log.txt")
            replay = qg.replay(model, [log])
            outputs = [step.outputs for step in steps[n - len(expected.inputs) : n]]
            expected_outputs = outputs[-1] if model.last_step else outputs
            assert replay.equal == (True,)
            assert np.array_equal(replay.result.outputs_raw[0], expected_outputs)
            assert log.first_step == n - len(expected.inputs)
    assert not lines


def test_a_program_without_a_log_has_nothing_of_it(find_tool: FindTool, tmp_path: Path) -> None:
    text = (
        '#include "net.h"\nint main(void)\n{\n    static net_state state;\n    net_reset(&state);\n    return 0;\n}\n'
    )
    options = ["-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections"]
    with_sections = compile_program(text, load("gesture"), find_tool("gcc"), tmp_path, *options)
    names = run_command("nm", with_sections)
    assert " qg_reset\n" in names
    assert "qg_log" not in names and "qg_clipped" not in names


def test_a_log_is_for_models_that_run_step_by_step(tmp_path: Path) -> None:
    export(load("phrase"), tmp_path, "net")
    assert (tmp_path / "net_float.h").is_file() and not (tmp_path / "net_log.h").exists()


@pytest.mark.parametrize("steps", [0, 1, 7, 65536])
def test_a_window_has_two_halves(steps: int, find_tool: FindTool, tmp_path: Path) -> None:
    export(load("gesture"), tmp_path, "net")
    (tmp_path / "program.c").write_text(f'#define NET_LOG_STEPS {steps}\n#include "net_log.h"\n')
    command = [find_tool("gcc"), "-std=c99", *includes(tmp_path), "-fsyntax-only", tmp_path / "program.c"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1 and "expected an even number, 2 ... 65534" in result.stderr


def test_the_example_of_the_page_compiles(find_tool: FindTool, tmp_path: Path) -> None:
    page = Path(__file__).resolve().parent.parent / "docs" / "in-the-field.md"
    (example,) = re.findall(r"```c\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    export(load("gesture"), tmp_path, "gesture")
    (tmp_path / "program.c").write_text(example)
    for compiler, *machine in (("gcc",), ("avr-gcc", "-mmcu=atmega328p"), ("g++", "-x", "c++", "-std=c++11")):
        language = [] if compiler == "g++" else ["-std=gnu99" if machine else "-std=c99"]
        flags = [*language, *machine, *WARNINGS, *includes(tmp_path)]
        run_command(find_tool(compiler), *flags, "-c", tmp_path / "program.c", "-o", tmp_path / "program.o")


COUNTER = """\
#include "net_log.h"

int main(void)
{
    static net_state state;
    static net_log log;
    static const int16_t inputs[NET_INPUTS] = {INT16_MIN, 0, INT16_MAX};
    net_log_start(&log);
    log.window.clipped = UINT32_MAX - 3;
    net_log_step(&log, &state, inputs);
    if (log.window.clipped != UINT32_MAX - 1) {
        return 1;
    }
    net_log_step(&log, &state, inputs);
    net_log_step(&log, &state, inputs);
    net_log_start(&log);
    return log.window.clipped != UINT32_MAX;
}
"""


def test_the_counter_ends_at_its_maximum_and_survives_a_start(find_tool: FindTool, tmp_path: Path) -> None:
    run_command(compile_program(COUNTER, load("gesture"), find_tool("gcc"), tmp_path))


@pytest.mark.parametrize(
    ("name", "x", "clipped"),
    [
        ("gesture", (-32768, 0, 32767), 2),
        ("gesture", (-32767, 32766, 1), 0),
        ("phrase", (-1,), 1),
        ("phrase", (0,), 0),
        ("phrase", ("last",), 0),
        ("phrase", ("last + 1",), 1),
        ("phrase", (32767,), 1),
    ],
)
def test_what_counts_as_clipped(name: str, x: tuple[int | str, ...], clipped: int) -> None:
    """phrase begins with an embedding: its inputs are tokens."""
    model, library = load(name), load_library("plain")
    if model.embedding is not None:
        tokens = {"last": model.embedding.n_tokens - 1, "last + 1": model.embedding.n_tokens}
        x = tuple(tokens.get(v, v) for v in x)  # type: ignore[arg-type]
    c_model = CModel(library, model)
    assert library.qg_clipped(c_model.descriptor, (np.ctypeslib.ctypes.c_int16 * len(x))(*x)) == clipped
    counted = qg.run(model, np.array([[x]], np.int16), raw_input=True).clipped_inputs
    assert counted.sum() == clipped


# ---- on emulated boards --------------------------------------------------------------------------------------------

BOARD_STEPS = 50
BOARD_PROGRAM = """\
#define NET_LOG_STEPS 16
#include "net_log.h"
#include "port.h"

static void put(void *context, uint8_t byte)
{
    (void)context;
    port_write(&byte, 1);
}

/* From an own generator, so that nothing has to be sent. */
static void read_sensor(int16_t inputs[NET_INPUTS])
{
    static uint32_t seed = 1;
    for (uint16_t i = 0; i < NET_INPUTS; ++i) {
        seed = seed * 1664525u + 1013904223u;
        inputs[i] = net_input_from_counts(i, (int32_t)(seed >> 27) - 16);
    }
}

int main(void)
{
    static net_state state;
    static net_scratch scratch;
    static net_log log;
    port_init();
    net_reset(&state);
    net_log_start(&log);
    put(NULL, 'r'); /* ready: what comes earlier can be lost */
    for (;;) {
        const uint8_t n_steps = port_read_byte();
        for (uint8_t step = 0; step < n_steps; ++step) {
            int16_t inputs[NET_INPUTS];
            read_sensor(inputs);
            net_log_step(&log, &state, inputs);
            net_step(&state, &scratch, inputs);
        }
        net_log_send(&log, &state, put, NULL);
    }
}
"""


def sensor_counts(n_steps: int, n_inputs: int) -> list[list[int]]:
    """What read_sensor of BOARD_PROGRAM gives, before the conversion."""
    seed, rows = 1, []
    for _ in range(n_steps):
        row = []
        for _ in range(n_inputs):
            seed = (seed * 1664525 + 1013904223) % 2**32
            row.append((seed >> 27) - 16)
        rows.append(row)
    return rows


@pytest.mark.parametrize("name", ["mps2-an386", "atmega328p"])
def test_a_window_in_mid_run_is_replayed_from_a_board_by_the_command_line(name: str, tmp_path: Path) -> None:
    board, model = board_or_skip(name), load("gesture")
    sources = port_sources(board)
    places = [board.firmware / "harness", board.folder, *(source.parent for source in sources)]
    options = [*board.program.flags, *(f"-I{place}" for place in places), *map(str, sources)]
    options += [flag.format(port=board.folder) for flag in board.program.link_flags]
    program = compile_program(BOARD_PROGRAM, model, board.program.compiler, tmp_path, *options)
    inputs = [
        [oracle.convert_input(count, bits) for count, bits in zip(x, model.input_fraction_bits.tolist(), strict=True)]
        for x in sensor_counts(BOARD_STEPS, model.n_inputs)
    ]
    steps = oracle.run(to_oracle(model), inputs)
    expected = expected_record(model, inputs, steps, 8)
    with launch(board, Image(program, 0, 0)) as url, SerialTransport(url) as line:
        assert line.read(10) == b"r"
        line.write(bytes([BOARD_STEPS]))
        record = b""
        while len(record) < 60 + 4 * model.n_units + 2 * len(expected.inputs) * model.n_inputs:
            received = line.read(10)
            assert received, f"silent after {len(record)} bytes"
            record += received
    assert Record.of(record) == expected
    (tmp_path / "log.bin").write_bytes(record)
    model_file, outputs = tmp_path / "m.qgru", tmp_path / "y.npz"
    model.save(model_file)
    said = done(quantgru("simulate", model_file, "--raw", tmp_path / "log.bin", "-o", outputs))
    assert "10 steps from step 40 on, beginning with the logged state; the state after them equals the device's" in said
    assert f"the device counted {expected.clipped} clipped inputs in all its steps" in said
    with np.load(outputs) as found:
        assert found["first_step"].tolist() == [40]
        assert found["y"].tolist() == [list(steps[-1].outputs)]
