"""Exported C: golden files byte for byte, every compiler, and programs that compute the simulator's integers."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import quantgru as qg
from quantgru.errors import ConfigError
from quantgru.exporter import export, export_files
from quantgru.exporter.layout import c_array, memory_order
from quantgru.int_model.cost import cost
from quantgru.simulator import run

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = Path(__file__).resolve().parent / "golden"
WARNINGS = ["-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]
CORTEX_M0 = ["-mcpu=cortex-m0", "-mthumb"]
CORTEX_M4 = ["-mcpu=cortex-m4", "-mthumb"]

FindTool = Callable[[str], str]


@pytest.fixture(scope="module")
def gesture() -> qg.IntModel:
    return qg.IntModel.load(GOLDEN / "gesture.qgru")


@pytest.fixture(scope="module")
def folder(gesture: qg.IntModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("export") / "gesture"
    export(gesture, directory)
    return directory


def run_command(*command: str | Path, cwd: Path | None = None) -> str:
    result = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{' '.join(map(str, command))}\n{result.stdout}{result.stderr}"
    return result.stdout


def includes(directory: Path) -> list[str]:
    return [f"-I{directory}", f"-I{directory / 'quantgru' / 'include'}"]


def library_sources(directory: Path) -> list[Path]:
    return sorted((directory / "quantgru" / "src").glob("*.c"))


def model_sources(directory: Path, name: str) -> list[Path]:
    return [directory / f"{name}.c", directory / f"{name}_selftest.c"]


# ---- text ----------------------------------------------------------------------------------------------------------


def test_files_are_the_golden_ones_byte_for_byte(gesture: qg.IntModel) -> None:
    files = export_files(gesture, "gesture")
    golden = {path.name: path.read_text(encoding="utf-8") for path in (GOLDEN / "gesture").iterdir()}
    assert {path: text for path, text in files.items() if not path.startswith("quantgru/")} == golden


def test_the_library_comes_along_unchanged(gesture: qg.IntModel) -> None:
    files = {path for path in export_files(gesture, "gesture") if path.startswith("quantgru/")}
    expected = {
        f"quantgru/{kind}/{path.name}" for kind in ("include", "src") for path in (ROOT / "firmware" / kind).iterdir()
    }
    assert files == expected
    assert export_files(gesture, "gesture")["quantgru/include/quantgru.h"] == (
        ROOT / "firmware" / "include" / "quantgru.h"
    ).read_text(encoding="utf-8")


def test_a_name_changes_identifiers_but_no_number(gesture: qg.IntModel) -> None:
    renamed = export_files(gesture, "kws")["kws.c"]
    assert renamed == export_files(gesture, "gesture")["gesture.c"].replace("gesture", "kws").replace("GESTURE", "KWS")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "2fast",
        "a b",
        "a-b",
        "int",
        "class",
        "main",
        "_x",
        "qg_model",
        "QG_x",
        "quantgru",
        "naïve",
        "a" * 32,
        "a;b",
        "x\n",
    ],
)
def test_a_name_that_is_no_c_identifier_is_refused(name: str, gesture: qg.IntModel, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be used in C; allowed are"):
        export(gesture, tmp_path / "out", name)
    assert not (tmp_path / "out").exists()


def test_layer_names_cannot_leave_a_comment(gesture: qg.IntModel) -> None:
    hostile = replace(gesture.grus[0], name="*/ int evil; /*\n#error \\")
    model = replace(gesture, layers=(hostile, *gesture.layers[1:]))
    source = export_files(model, "gesture")["gesture.c"]
    assert "/* GRU _/ int evil_ /___error _: 3 inputs, 9 units, reset after */" in source


def test_units_stand_in_the_header_and_cannot_leave_their_comment(gesture: qg.IntModel) -> None:
    model = replace(gesture, input_units=("*/ evil", "m/s^2", "x\ny"), output_units=("µV", "°C", "%", "m/s²"))
    header = export_files(model, "gesture")["gesture.h"]
    assert " * In _/ evil, m/s^2, x_y */" in header
    assert " * In uV, degC, %, m/s^2 */" in header


def test_memory_order_of_a_block_and_the_rows_that_are_left() -> None:
    codes = np.arange(20, dtype=np.int8).reshape(10, 2)  # one section of 8 + 2 rows
    assert memory_order(codes, 10).tolist() == [0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15, 16, 17, 18, 19]
    assert memory_order(codes, 5).tolist() == list(range(20))  # two sections without a block


def test_arrays_break_at_120_characters_and_hold_the_smallest_number() -> None:
    text = c_array("int32_t", "bias", [-(2**31), 2**31 - 1, *range(100)])
    assert max(map(len, text.splitlines())) <= 120
    assert "(-2147483647 - 1), 2147483647, 0, 1," in text


def test_export_replaces_its_files_and_leaves_others(gesture: qg.IntModel, tmp_path: Path) -> None:
    (tmp_path / "gesture.c").write_text("old")
    (tmp_path / "notes.txt").write_text("mine")
    paths = export(gesture, tmp_path)
    assert (tmp_path / "gesture.c").read_text() == export_files(gesture, "gesture")["gesture.c"]
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == {*paths, tmp_path / "notes.txt"}


def test_a_folder_that_is_a_file_is_refused(gesture: qg.IntModel, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ConfigError, match="cannot be written"):
        export(gesture, tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


# ---- compilers -----------------------------------------------------------------------------------------------------

COMPILERS = {
    "gcc": ["gcc", "-std=c99"],
    "clang": ["clang", "-std=c99"],
    "c++": ["g++", "-x", "c++", "-std=c++11"],
    "cortex-m0": ["arm-none-eabi-gcc", "-std=c99", *CORTEX_M0],
    "cortex-m4": ["arm-none-eabi-gcc", "-std=c99", *CORTEX_M4],
    "avr": ["avr-gcc", "-std=c99", "-mmcu=atmega2560"],
}


@pytest.mark.parametrize("target", COMPILERS)
def test_every_compiler_takes_every_file_without_a_warning(
    target: str, folder: Path, find_tool: FindTool, tmp_path: Path
) -> None:
    compiler, *options = COMPILERS[target]
    for source in [*folder.glob("*.c"), *library_sources(folder)]:
        run_command(
            find_tool(compiler), *options, "-O2", *WARNINGS, *includes(folder), "-c", source, "-o", tmp_path / "out.o"
        )


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("option", ["-O0", "-O3", "-fsanitize=undefined,address"])
def test_the_example_runs_and_its_selftest_passes(
    compiler: str, option: str, folder: Path, find_tool: FindTool, tmp_path: Path
) -> None:
    sources = [*folder.glob("*.c"), *library_sources(folder)]
    stop = ["-fno-sanitize-recover=all"] if "sanitize" in option else []
    program = tmp_path / "example"
    run_command(find_tool(compiler), "-std=c99", option, *stop, *includes(folder), *sources, "-o", program)
    run_command(program)


def test_cmake_builds_the_example_and_two_models_in_one_program(
    gesture: qg.IntModel, find_tool: FindTool, tmp_path: Path
) -> None:
    cmake = find_tool("cmake")
    export(gesture, tmp_path / "gesture")
    export(gesture, tmp_path / "kws", "kws")
    run_command(cmake, "-S", tmp_path / "gesture", "-B", tmp_path / "alone")
    run_command(cmake, "--build", tmp_path / "alone")
    run_command(tmp_path / "alone" / "gesture_example")
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.13)\nproject(both C)\nadd_subdirectory(gesture)\nadd_subdirectory(kws)\n"
        "add_executable(both both.c)\ntarget_link_libraries(both PRIVATE gesture kws)\n"
    )
    (tmp_path / "both.c").write_text(
        '#include "gesture.h"\n#include "kws.h"\n'
        "int main(void)\n{\n    gesture_state a;\n    gesture_scratch shared;\n"
        "    kws_state b;\n    kws_scratch other;\n"
        "    return gesture_selftest(&a, &shared) != 0 || kws_selftest(&b, &other) != 0;\n}\n"
    )
    run_command(cmake, "-S", tmp_path, "-B", tmp_path / "build")
    run_command(cmake, "--build", tmp_path / "build")
    run_command(tmp_path / "build" / "both")


@pytest.mark.parametrize("version", ["QG_SPEC_MAJOR", "QG_EXPORT_FORMAT"])
def test_a_library_of_another_version_does_not_compile(
    version: str, folder: Path, find_tool: FindTool, tmp_path: Path
) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    header = tmp_path / "copy" / "quantgru" / "include" / "quantgru.h"
    text = header.read_text()
    assert f"#define {version} 1\n" in text
    header.write_text(text.replace(f"#define {version} 1\n", f"#define {version} 2\n"))
    command = [find_tool("gcc"), "-c", str(tmp_path / "copy" / "gesture.c"), "-o", str(tmp_path / "o")]
    result = subprocess.run([*command, *includes(tmp_path / "copy")], capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert "gesture needs a quantgru library of SPEC 1.0, export format 1" in result.stderr


def test_a_model_too_large_for_an_avr_says_so(find_tool: FindTool, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shapes = ((3, 105, 2), (3, 105, 105), (3, 105), (105,))  # 33,075 weights in U: one array too large
    gru = qg.Gru("wide", "after", *(rng.normal(size=shape) / 10 for shape in shapes))
    model = qg.quantize(qg.FloatModel((gru,), last_step=True), rng.normal(size=(2, 5, 2)))
    export(model, tmp_path / "wide", "wide")
    command = ["-c", str(tmp_path / "wide" / "wide.c"), "-o", str(tmp_path / "o"), *includes(tmp_path / "wide")]
    avr = [find_tool("avr-gcc"), "-mmcu=atmega2560"]
    result = subprocess.run([*avr, *command], capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert "wide: 37309 bytes of constants, the largest array 33075; an AVR reads 64 KB in all" in result.stderr
    run_command(find_tool("gcc"), *command)


def test_names_that_belong_to_others_are_refused(gesture: qg.IntModel, tmp_path: Path) -> None:
    for name in ("string", "signal", "Math", "qg", "QG", "help", "install"):
        with pytest.raises(ConfigError, match="no system header, no target of CMake, not 'qg'"):
            export(gesture, tmp_path / "out", name)


# ---- numbers -------------------------------------------------------------------------------------------------------

STEPS_PROGRAM = """\
#include "gesture.h"
#include <stdio.h>

int main(void)
{
    gesture_state state;
    gesture_scratch scratch;
    int16_t inputs[GESTURE_INPUTS];
    int16_t outputs[GESTURE_OUTPUTS];
    gesture_reset(&state);
    for (;;) {
        for (int i = 0; i < GESTURE_INPUTS; ++i) {
            int value;
            if (scanf("%d", &value) != 1) {
                return 0;
            }
            inputs[i] = (int16_t)value;
        }
        gesture_step(&state, &scratch, inputs);
        gesture_output(&state, &scratch, outputs);
        for (int i = 0; i < GESTURE_UNITS; ++i) {
            printf("%d %u %u %u %d ", state.h[i], state.residual[i], scratch.u[i], scratch.r[i], scratch.n[i]);
        }
        for (int i = 0; i < GESTURE_OUTPUTS; ++i) {
            printf("%d ", outputs[i]);
        }
        printf("\\n");
    }
}
"""


def test_steps_outputs_and_gates_equal_the_simulators(
    gesture: qg.IntModel, folder: Path, find_tool: FindTool, tmp_path: Path
) -> None:
    (tmp_path / "steps.c").write_text(STEPS_PROGRAM)
    sources = [*model_sources(folder, "gesture"), *library_sources(folder), tmp_path / "steps.c"]
    run_command(find_tool("gcc"), "-std=c99", "-O2", *includes(folder), *sources, "-o", tmp_path / "steps")
    raw = np.random.default_rng(0).integers(-(2**15), 2**15, (1, 200, 3))
    printed = subprocess.run(
        [tmp_path / "steps"], input=" ".join(map(str, raw.ravel())), capture_output=True, text=True, check=True
    ).stdout
    board = np.array([line.split() for line in printed.splitlines()], dtype=np.int64)
    trace = run(gesture, raw, raw_input=True, trace=True).trace
    assert trace is not None
    columns = [
        np.stack([layer.h, layer.residual, layer.u, layer.r, layer.n], axis=-1)[0].reshape(200, -1)
        for layer in (
            # int64, so that the five kinds stack without a wrap
            type(layer)(*(getattr(layer, name).astype(np.int64) for name in ("h", "residual", "u", "r", "n")))
            for layer in trace.layers
        )
    ]
    assert np.array_equal(board, np.concatenate([*columns, trace.outputs[0]], axis=1))


AVR_PROGRAM = """\
#include "gesture.h"
#include <avr/interrupt.h>
#include <avr/io.h>
#include <avr/sleep.h>

static gesture_state state;
static gesture_scratch scratch;

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
    put(gesture_selftest(&state, &scratch) == 0 ? 'P' : 'F');
    put('\\n');
    while ((UCSR0A & (1 << UDRE0)) == 0) {
    }
    cli();
    sleep_mode(); /* with interrupts off: the simulator ends */
    return 0;
}
"""


@pytest.mark.parametrize("device", ["atmega2560", "atmega328p"])
def test_the_selftest_passes_on_a_machine_with_an_int_of_16_bits(
    device: str, folder: Path, find_tool: FindTool, tmp_path: Path
) -> None:
    (tmp_path / "main.c").write_text(AVR_PROGRAM)
    sources = [*model_sources(folder, "gesture"), *library_sources(folder), tmp_path / "main.c"]
    options = ["-std=c99", "-O2", f"-mmcu={device}", *includes(folder)]
    run_command(find_tool("avr-gcc"), *options, *sources, "-o", tmp_path / "program.elf")
    command = [find_tool("simavr"), "-m", device, "-f", "16000000", str(tmp_path / "program.elf")]
    printed = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    letters = re.findall(r"[PF](?=\.)", printed.stdout + printed.stderr)
    assert letters == ["P"], printed.stdout + printed.stderr


def test_a_wrong_weight_fails_the_selftest(folder: Path, find_tool: FindTool, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    source = tmp_path / "copy" / "gesture.c"
    text = source.read_text()
    changed = re.sub(r"(gru0_bias\[27\] QG_CONSTANT = \{\n    )(-?\d+)", lambda m: f"{m[1]}{int(m[2]) + 400}", text)
    assert changed != text
    source.write_text(changed)
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
    (tmp_path / "convert.c").write_text(FLOAT_PROGRAM)
    sources = [*model_sources(folder, "gesture"), *library_sources(folder), tmp_path / "convert.c"]
    run_command(find_tool("gcc"), "-std=c99", "-O2", *WARNINGS, *includes(folder), *sources, "-o", tmp_path / "convert")
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
        [tmp_path / "convert"],
        input=" ".join(f"{v!r}" for v in values.tolist()),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    expected = run(gesture, np.repeat(values.astype(np.float64), 3).reshape(1, -1, 3)).inputs_raw
    assert np.array_equal(np.array(printed.split(), dtype=int), expected.ravel())


def test_conversion_from_float_of_what_is_no_number(folder: Path, find_tool: FindTool, tmp_path: Path) -> None:
    (tmp_path / "convert.c").write_text(FLOAT_PROGRAM)
    sources = [*model_sources(folder, "gesture"), *library_sources(folder), tmp_path / "convert.c"]
    # Converting NaN to an integer is undefined, and gives 0 on some machines: the sanitizer sees that it is not tried.
    checked = ["-fsanitize=float-cast-overflow", "-fno-sanitize-recover=all"]
    run_command(find_tool("gcc"), "-std=c99", *checked, *includes(folder), *sources, "-o", tmp_path / "convert")
    printed = subprocess.run([tmp_path / "convert"], input="nan inf -inf", capture_output=True, text=True, check=True)
    assert printed.stdout.split() == ["0"] * 3 + ["32767"] * 3 + ["-32768"] * 3


def test_cost_is_what_the_linker_sees(gesture: qg.IntModel, folder: Path, find_tool: FindTool, tmp_path: Path) -> None:
    compiler = find_tool("arm-none-eabi-gcc")
    run_command(compiler, *CORTEX_M4, "-O2", *includes(folder), "-c", folder / "gesture.c", "-o", tmp_path / "o")
    symbols = {}
    for line in run_command(find_tool("arm-none-eabi-nm"), "-S", tmp_path / "o").splitlines():
        fields = line.split()
        if len(fields) == 4 and fields[2] in "rR" and fields[3] not in ("grus", "head", "gesture_descriptor"):
            symbols[fields[3]] = int(fields[1], 16)
    expected = cost(gesture)
    assert sum(symbols.values()) == expected.constant_bytes
    sizes = tmp_path / "sizes.c"
    sizes.write_text(
        '#include "gesture.h"\n'
        f"typedef char state_is_as_told[sizeof(gesture_state) == {expected.state_bytes} ? 1 : -1];\n"
        f"typedef char scratch_is_as_told[sizeof(gesture_scratch) == {expected.scratch_bytes} ? 1 : -1];\n"
    )
    run_command(compiler, *CORTEX_M4, *includes(folder), "-c", sizes, "-o", tmp_path / "o")
