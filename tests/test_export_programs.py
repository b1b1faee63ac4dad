"""Exported C that runs: on this machine, in an emulated Cortex-M4, on a simulated AVR. Text: test_export.py."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import oracle
import pytest
from conversions import to_oracle
from strategies import random_inputs
from support_export import (
    NAMES,
    WARNINGS,
    FindTool,
    includes,
    library_sources,
    load,
    model_sources,
    run_command,
)

import quantgru as qg
from quantgru.exporter import export
from quantgru.hil.boards import find_board
from quantgru.hil.compiler import port_sources
from quantgru.hil.images import Image, launch
from quantgru.hil.transport import SerialTransport
from quantgru.simulator import run


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each golden model, exported."""
    root = tmp_path_factory.mktemp("export")
    for name in NAMES:
        export(load(name), root / name)
    return {name: root / name for name in NAMES}


@pytest.fixture(scope="module")
def gesture() -> qg.IntModel:
    return load("gesture")


@pytest.fixture(scope="module")
def folder(folders: dict[str, Path]) -> Path:
    return folders["gesture"]


def compile_program(
    text: str, folder: Path, name: str, find_tool: FindTool, tmp_path: Path, *options: str, compiler: str = "gcc"
) -> Path:
    """`text` with an exported model and its library."""
    source, program = tmp_path / "program.c", tmp_path / "program"
    source.write_text(text)
    sources = [*model_sources(folder, name), *library_sources(folder), source]
    run_command(find_tool(compiler), "-std=c99", "-O2", *options, *includes(folder), *sources, "-o", program)
    return program


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("option", ["-O0", "-O3", "-fsanitize=undefined,address"])
def test_the_example_runs_and_its_selftest_passes(
    name: str, compiler: str, option: str, folders: dict[str, Path], find_tool: FindTool, tmp_path: Path
) -> None:
    sources = [*folders[name].glob("*.c"), *library_sources(folders[name])]
    stop = ["-fno-sanitize-recover=all"] if "sanitize" in option else []
    program = tmp_path / "example"
    run_command(find_tool(compiler), "-std=c99", option, *stop, *includes(folders[name]), *sources, "-o", program)
    run_command(program)


STEPS_PROGRAM = """\
#include "net.h"
#include <stdio.h>

int main(void)
{
    net_state state;
    net_scratch scratch;
    int16_t inputs[NET_INPUTS];
    int16_t outputs[NET_OUTPUTS];
    net_reset(&state);
    for (;;) {
        for (int i = 0; i < NET_INPUTS; ++i) {
            int value;
            if (scanf("%d", &value) != 1) {
                return 0;
            }
            inputs[i] = (int16_t)value;
        }
        net_step(&state, &scratch, inputs);
        net_output(&state, &scratch, outputs);
        for (int i = 0; i < NET_UNITS; ++i) {
            printf("%d %u %u %u %d ", state.h[i], state.residual[i], scratch.u[i], scratch.r[i], scratch.n[i]);
        }
        for (int i = 0; i < NET_OUTPUTS; ++i) {
            printf("%d ", outputs[i]);
        }
        printf("%d\\n", SATURATED);
    }
}
"""


@pytest.mark.parametrize("name", ["gesture", "valve"])
def test_steps_outputs_and_gates_equal_the_oracles(name: str, find_tool: FindTool, tmp_path: Path) -> None:
    model = load(name)
    export(model, tmp_path / "net", "net")
    saturated = "net_saturated(&scratch)" if name == "valve" else "0"  # it has a layer of relu
    program = compile_program(
        f"#define SATURATED {saturated}\n{STEPS_PROGRAM}", tmp_path / "net", "net", find_tool, tmp_path
    )
    inputs = [x for kind in ("small", "random") for x in random_inputs(kind, 50, model.n_inputs, seed=1)]
    printed = subprocess.run(
        [program], input=" ".join(str(v) for x in inputs for v in x), capture_output=True, text=True, check=True
    ).stdout
    expected = []
    spec = to_oracle(model)
    for step in oracle.run(spec, inputs):
        count = sum(oracle.saturated(gru, n) for gru, n in zip(spec.grus, step.n, strict=True))
        arrays = (step.state.h, step.state.e, step.u, step.r, step.n)
        units = zip(*([v for layer in array for v in layer] for array in arrays), strict=True)
        expected.append([v for unit in units for v in unit] + [*step.outputs, count])
    assert [list(map(int, line.split())) for line in printed.splitlines()] == expected


RUN_PROGRAM = """\
#include "net.h"
#include <stdio.h>

static net_work work;

int main(void)
{
    static int16_t inputs[100];
    int n_steps;
    while (scanf("%d", &n_steps) == 1) {
        for (int i = 0; i < n_steps; ++i) {
            int value = 0;
            (void)!scanf("%d", &value);
            inputs[i] = (int16_t)value;
        }
        for (int from = 0; from < 2; ++from) {
            int16_t outputs[NET_OUTPUTS] = {0};
            printf("%d", net_run(&work, inputs, (uint16_t)n_steps, from ? initial_states : NULL, outputs));
            for (int i = 0; i < NET_OUTPUTS; ++i) {
                printf(" %d", outputs[i]);
            }
            printf(" %u\\n", (unsigned)work.saturated);
        }
    }
    return 0;
}
"""


@pytest.mark.parametrize("most_steps", [12, 1, 30])
def test_runs_equal_the_oracles_up_to_the_longest_sequence(
    most_steps: int, find_tool: FindTool, tmp_path: Path
) -> None:
    """Longer ones are refused. The model itself is compiled with another number: that of the caller counts."""
    model = load("phrase")
    assert (model.n_inputs, model.last_step) == (1, True)
    export(model, tmp_path / "net", "net", max_steps=20)
    spec = to_oracle(model)
    (row,) = random_inputs("random", 1, model.n_units, seed=3)
    numbers = iter(row)
    h = tuple(tuple(next(numbers) for _ in range(gru.units)) for gru in spec.grus)
    start = oracle.State(h, oracle.reset(spec).e)
    states = f"static const int16_t initial_states[NET_UNITS] = {{{', '.join(map(str, row))}}};\n"
    text = f'#define NET_STEPS {most_steps}\n#include "net.h"\n{states}{RUN_PROGRAM}'
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    program = compile_program(text, tmp_path / "net", "net", find_tool, tmp_path, *sanitizers)
    sequences = [[x for (x,) in random_inputs("tokens", n, 1, seed=n)] for n in (1, 2, 12, 13, 30, 31)]
    words = [str(v) for sequence in [[], *sequences] for v in (len(sequence), *sequence)]
    printed = subprocess.run([program], input=" ".join(words), capture_output=True, text=True, check=True).stdout
    lines = [list(map(int, line.split())) for line in printed.splitlines()]
    for sequence in [[], *sequences]:
        for state in (None, start):
            *found, saturated = lines.pop(0)
            if not 1 <= len(sequence) <= most_steps:
                assert found == [-2, 0, 0, 0]
                continue
            expected = oracle.run_sequence(spec, [[x] for x in sequence], state)
            assert found == [0, *expected.outputs[0]]
            traces = zip(spec.grus, expected.traces, strict=True)
            assert saturated == sum(oracle.saturated(gru, step.n) for gru, steps in traces for step in steps)
    assert not lines


def test_a_selftest_longer_than_the_longest_sequence_is_refused(
    folders: dict[str, Path], find_tool: FindTool, tmp_path: Path
) -> None:
    program = (
        '#include "phrase.h"\nint main(void)\n{\n    phrase_work work;\n    return phrase_selftest(&work) + 3;\n}\n'
    )
    results = []
    for steps in (7, 8):  # it has 8
        path = compile_program(
            f"#define PHRASE_STEPS {steps}\n{program}", folders["phrase"], "phrase", find_tool, tmp_path
        )
        results.append(subprocess.run([path], check=False).returncode - 3)
    assert results == [-2, 0]


def selftest_call(name: str) -> str:
    """Objects and a call of the self-test, for a program."""
    if load(name).streaming:
        return f"static {name}_state a;\nstatic {name}_scratch b;\n#define SELFTEST() {name}_selftest(&a, &b)\n"
    return f"static {name}_work work;\n#define SELFTEST() {name}_selftest(&work)\n"


CORTEX_M4_PROGRAM = """\
#include "port.h"

int main(void)
{
    port_init();
    for (;;) {
        const uint8_t wrong = port_read_byte() == '!';
        const uint8_t answer = (SELFTEST() == 0) != wrong ? 'P' : 'F';
        port_write(&answer, 1);
    }
}
"""


@pytest.mark.requires_tool("arm-none-eabi-gcc", "qemu-system-arm")
@pytest.mark.parametrize("name", NAMES)
def test_the_selftest_passes_on_a_cortex_m4(
    name: str, folders: dict[str, Path], find_tool: FindTool, tmp_path: Path
) -> None:
    board = find_board("mps2-an386")
    text = f'#include "{name}.h"\n{selftest_call(name)}{CORTEX_M4_PROGRAM}'
    harness = board.firmware / "harness"
    sources = port_sources(board)
    places = [harness, board.folder, *(source.parent for source in sources)]
    options = [*board.program.flags, *WARNINGS, *(f"-I{place}" for place in places), *map(str, sources)]
    options += [flag.format(port=board.folder) for flag in board.program.link_flags]
    program = compile_program(text, folders[name], name, find_tool, tmp_path, *options, compiler=board.program.compiler)
    with launch(board, Image(program, 0, 0)) as url, SerialTransport(url) as line:
        for request, answer in ((b"?", b"P"), (b"!", b"F")):
            line.write(request)
            assert line.read(10) == answer


AVR_PROGRAM = """\
#include <avr/interrupt.h>
#include <avr/io.h>
#include <avr/sleep.h>

static void put(char letter)
{
    while ((UCSR0A & (1 << UDRE0)) == 0) {
    }
    UDR0 = letter;
}

int main(void)
{
    UBRR0 = 0;
    UCSR0B = 1 << TXEN0;
    put(SELFTEST() == 0 ? 'P' : 'F');
    put('\\n');
    while ((UCSR0A & (1 << UDRE0)) == 0) {
    }
    cli();
    sleep_mode(); /* with interrupts off: the simulator ends */
    return 0;
}
"""


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("device", ["atmega2560", "atmega328p"])
def test_the_selftest_passes_on_a_machine_with_an_int_of_16_bits(
    device: str, name: str, folders: dict[str, Path], find_tool: FindTool, tmp_path: Path
) -> None:
    text = f'#include "{name}.h"\n{selftest_call(name)}{AVR_PROGRAM}'
    program = compile_program(
        text, folders[name], name, find_tool, tmp_path, "-std=gnu99", f"-mmcu={device}", compiler="avr-gcc"
    )
    command = [find_tool("simavr"), "-m", device, "-f", "16000000", str(program)]
    printed = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    letters = re.findall(r"[PF](?=\.)", printed.stdout + printed.stderr)
    assert letters == ["P"], printed.stdout + printed.stderr


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("gesture", "gru0_bias"),
        ("gesture", "dense1_codes"),
        ("valve", "gru0_initial_state"),
        ("valve", "dense1_shifts"),
        ("valve", "gru2_recurrent_bias"),
        ("phrase", "embedding_codes"),
        ("phrase", "gru1_recurrent_codes"),
        ("phrase", "gru4_input_multipliers"),
    ],
)
def test_wrong_numbers_fail_the_selftest(
    name: str, array: str, folders: dict[str, Path], find_tool: FindTool, tmp_path: Path
) -> None:
    shutil.copytree(folders[name], tmp_path / "copy")
    source = tmp_path / "copy" / f"{name}.c"
    start, numbers, end = re.split(rf"(?<={array})(\[\d+\] QG_CONSTANT = {{[^}}]*}})", source.read_text())
    size, values = numbers.split(" = ")
    largest = {"shifts": 31, "multipliers": 2**14 + 2**15 - 1}.get(array.split("_")[-1], -1)
    others = re.sub(r"-?\d+", lambda match: str(largest - int(match[0])), values)  # in range, too
    source.write_text(f"{start}{size} = {others}{end}")
    sources = [*(tmp_path / "copy").glob("*.c"), *library_sources(tmp_path / "copy")]
    run_command(find_tool("gcc"), *includes(tmp_path / "copy"), *sources, "-o", tmp_path / "example")
    assert subprocess.run([tmp_path / "example"], check=False).returncode == 1


FLOAT_PROGRAM = """\
#include "gesture_float.h"
#include <stdio.h>
#include <stdlib.h>

int main(void)
{
    char text[64];
    while (scanf("%63s", text) == 1) {
        for (uint16_t i = 0; i < GESTURE_INPUTS; ++i) {
            printf("%d ", gesture_input_from_float(i, strtof(text, NULL)));
        }
    }
    return 0;
}
"""


def test_conversion_from_float_is_that_of_the_simulator(
    gesture: qg.IntModel, folder: Path, find_tool: FindTool, tmp_path: Path
) -> None:
    program = compile_program(FLOAT_PROGRAM, folder, "gesture", find_tool, tmp_path, *WARNINGS)
    rng = np.random.default_rng(0)
    values = np.concatenate(
        [
            rng.normal(size=500) * 10.0 ** rng.integers(-6, 6, 500),
            (np.arange(-40, 40) + 0.5) / 2**13,  # ties of the first input
            np.nextafter((np.arange(-40, 40) + 0.5) / 2**13, 9, dtype=np.float32),
            [0.0, -0.0, 4.0, -4.0, 1e38, -1e38],
        ]
    ).astype(np.float32)
    printed = subprocess.run(
        [program], input=" ".join(f"{v!r}" for v in values.tolist()), capture_output=True, text=True, check=True
    ).stdout
    expected = run(gesture, np.repeat(values.astype(np.float64), 3).reshape(1, -1, 3)).inputs_raw
    assert np.array_equal(np.array(printed.split(), dtype=int), expected.ravel())


def test_conversion_from_float_of_what_is_no_number(folder: Path, find_tool: FindTool, tmp_path: Path) -> None:
    # Converting NaN to an integer is undefined, and gives 0 on some machines: the sanitizer sees that it is not tried.
    checked = ["-fsanitize=float-cast-overflow", "-fno-sanitize-recover=all"]
    program = compile_program(FLOAT_PROGRAM, folder, "gesture", find_tool, tmp_path, *checked)
    printed = subprocess.run([program], input="nan inf -inf", capture_output=True, text=True, check=True)
    assert printed.stdout.split() == ["0"] * 3 + ["32767"] * 3 + ["-32768"] * 3


@pytest.mark.parametrize(("name", "scale"), [("gesture", 2.0**-11), ("valve", 2.0**-13), ("phrase", 2.0**-12)])
def test_outputs_in_float(
    name: str, scale: float, folders: dict[str, Path], find_tool: FindTool, tmp_path: Path
) -> None:
    text = f'#include "{name}_float.h"\n#include <stdio.h>\n'
    text += f'int main(void)\n{{\n    printf("%.9g", {name}_output_to_float(-12345));\n    return 0;\n}}\n'
    program = compile_program(text, folders[name], name, find_tool, tmp_path, *WARNINGS)
    assert float(run_command(program)) == pytest.approx(-12345 * scale, rel=1e-8)
    assert load(name).output_fraction_bits == -np.log2(scale)
