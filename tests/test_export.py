"""Exported C: golden files byte for byte, and every compiler without a warning. Programs: test_export_programs.py."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import oracle
import pytest
from conversions import from_oracle
from strategies import BidirectionalPlan, DensePlan, EmbeddingPlan, GruPlan, Plan, random_model
from support_export import (
    CORTEX_M0,
    CORTEX_M4,
    GOLDEN,
    NAMES,
    ROOT,
    WARNINGS,
    FindTool,
    includes,
    library_sources,
    load,
    run_command,
    try_command,
)

import quantgru as qg
from quantgru.errors import ConfigError
from quantgru.exporter import export, export_files
from quantgru.exporter.layout import c_array, memory_order


@pytest.fixture(scope="module")
def gesture() -> qg.IntModel:
    return load("gesture")


@pytest.fixture(scope="module")
def folder(gesture: qg.IntModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("export") / "gesture"
    export(gesture, directory)
    return directory


def plain_model(*layers: object, **values: object) -> qg.IntModel:
    """A random model of these layers."""
    n_inputs = 1 if isinstance(layers[0], EmbeddingPlan) else 3
    return from_oracle(random_model(Plan(n_inputs, layers=layers, **values), seed=1))


# ---- text ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_files_are_the_golden_ones_byte_for_byte(name: str) -> None:
    files = export_files(load(name), name)
    golden = {path.name: path.read_text(encoding="utf-8") for path in (GOLDEN / name).iterdir()}
    assert {path: text for path, text in files.items() if not path.startswith("quantgru/")} == golden


@pytest.mark.parametrize("name", NAMES)
def test_lines_are_no_longer_than_those_of_the_library(name: str) -> None:
    for path in (GOLDEN / name).glob("*.[ch]"):
        for line in path.read_text(encoding="utf-8").splitlines():
            assert len(line) <= 120 or "Digest" in line, f"{path}: {line}"


def test_the_library_comes_along_unchanged(gesture: qg.IntModel) -> None:
    files = {path for path in export_files(gesture, "gesture") if path.startswith("quantgru/")}
    expected = {
        f"quantgru/{kind}/{path.name}" for kind in ("include", "src") for path in (ROOT / "firmware" / kind).iterdir()
    }
    assert files == expected
    assert export_files(gesture, "gesture")["quantgru/include/quantgru.h"] == (
        ROOT / "firmware" / "include" / "quantgru.h"
    ).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_a_name_changes_identifiers_but_no_number(name: str) -> None:
    renamed = export_files(load(name), "kws")["kws.c"]
    assert renamed == export_files(load(name), name)[f"{name}.c"].replace(name, "kws").replace(name.upper(), "KWS")


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


def test_names_that_belong_to_others_are_refused(gesture: qg.IntModel, tmp_path: Path) -> None:
    for name in ("string", "signal", "Math", "qg", "QG", "help", "install"):
        with pytest.raises(ConfigError, match="no system header, no target of CMake, not 'qg'"):
            export(gesture, tmp_path / "out", name)


def test_layer_names_cannot_leave_a_comment() -> None:
    evil = "*/ int evil; /*\n#error \\"
    model = load("gesture")
    model = replace(model, layers=(replace(model.grus[0], name=evil), *model.layers[1:]))
    source = export_files(model, "gesture")["gesture.c"]
    assert "/* GRU _/ int evil_ /___error _: 3 inputs, 9 units, reset after, gates sigmoid, candidate tanh */" in source
    model = load("phrase")
    model = replace(model, layers=tuple(replace(layer, name=evil) for layer in model.layers))
    source = export_files(model, "phrase")["phrase.c"]
    assert "/* Embedding _/ int evil_ /___error _: 11 tokens, 5 outputs */" in source
    assert "/* GRU _/ int evil_ /___error _ backward: 5 inputs, 4 units, reset before," in source
    assert "int evil;" not in source


def test_units_stand_in_the_header_and_cannot_leave_their_comment(gesture: qg.IntModel) -> None:
    model = replace(gesture, input_units=("*/ evil", "m/s^2", "x\ny"), output_units=("µV", "°C", "%", "m/s²"))
    header = export_files(model, "gesture")["gesture.h"]
    assert " * In _/ evil, m/s^2, x_y */" in header
    assert " * In uV, degC, %, m/s^2 */" in header


def test_the_header_says_what_a_caller_must_know() -> None:
    header = export_files(load("valve"), "valve")["valve.h"]
    assert " * Steps are given from the last to the first: the model reads sequences from their end.\n" in header
    assert " * A step at which each input, in real units, is -1 is padding: leave it out, it is no step.\n" in header
    assert " * A sequence starts from an initial state that belongs to the model, not from zeros.\n" in header
    assert "int16_t h[VALVE_UNITS]; /* 9 of s16f12, then 3 of s16f15, then 2 of s16f13 */" in header
    header = export_files(load("phrase"), "phrase")["phrase.h"]
    assert " * The input is the number of a token, 0 ... 10; others count as the nearest of these.\n" in header
    assert " * A step at which the token is 0 is padding: leave it out, it is no step.\n" in header
    for note in ("from the last to the first", "padding", "initial state that", "token"):
        assert note not in export_files(load("gesture"), "gesture")["gesture.h"]


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


# ---- the longest sequence ------------------------------------------------------------------------------------------


def steps_of(model: qg.IntModel, **options: int) -> int:
    header = export_files(model, "net", **options)["net.h"]
    return int(header.split("#define NET_STEPS ")[1].split()[0])


@pytest.mark.parametrize(
    ("notes", "steps"),
    [
        ({"calibration": {"longest": 300}}, 300),
        ({"calibration": {"longest": 1}}, 8),  # the self-test has 8
        ({"calibration": {"longest": 70000}}, 64),
        ({"calibration": {"longest": "many"}}, 64),
        ({"calibration": 5}, 64),
        ({}, 64),
    ],
)
def test_the_longest_sequence_is_that_of_the_calibration_data(notes: dict[str, object], steps: int) -> None:
    assert steps_of(replace(load("phrase"), notes=notes)) == steps


def test_the_longest_sequence_can_be_said(tmp_path: Path) -> None:
    assert [steps_of(load("phrase"), max_steps=steps) for steps in (1, 200, 65535)] == [1, 200, 65535]
    export(load("phrase"), tmp_path, "net", max_steps=77)
    assert "#define NET_STEPS 77\n" in (tmp_path / "net.h").read_text()


@pytest.mark.parametrize("max_steps", [0, -1, 65536, 2.0, True, "8"])
def test_a_number_of_steps_that_is_none_is_refused(max_steps: object, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"max_steps .*, expected a number of steps, 1 \.\.\. 65535"):
        export(load("phrase"), tmp_path / "out", max_steps=max_steps)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_a_model_that_runs_step_by_step_has_no_longest_sequence(gesture: qg.IntModel) -> None:
    with pytest.raises(ConfigError, match="model 'gesture': runs step by step, any number of steps; leave out max"):
        export_files(gesture, "gesture", max_steps=8)


def test_one_vector_needs_no_memory_for_steps() -> None:
    both = BidirectionalPlan(GruPlan(3), GruPlan(3), oracle.MERGE_AVE, final=1)
    model = plain_model(both, DensePlan(2), last_step=1)
    assert steps_of(model) == 65535
    assert "rows" not in export_files(model, "net")["net.h"].replace("work->rows", "")


# ---- compilers -----------------------------------------------------------------------------------------------------

COMPILERS = {
    "gcc": ["gcc", "-std=c99"],
    "clang": ["clang", "-std=c99"],
    "c++": ["g++", "-x", "c++", "-std=c++11"],
    "cortex-m0": ["arm-none-eabi-gcc", "-std=c99", *CORTEX_M0],
    "cortex-m4": ["arm-none-eabi-gcc", "-std=c99", *CORTEX_M4],
    "avr": ["avr-gcc", "-std=gnu99", "-mmcu=atmega2560"],
}


@pytest.mark.parametrize("target", COMPILERS)
def test_every_compiler_takes_every_file_without_a_warning(
    target: str, folder: Path, find_tool: FindTool, tmp_path: Path
) -> None:
    compiler, *options = COMPILERS[target]
    sources = [*folder.glob("*.c"), *library_sources(folder)]
    for name in NAMES[1:]:
        export(load(name), tmp_path / name)
        sources += (tmp_path / name).glob("*.c")
    for source in sources:
        search = [f"-I{source.parent}", *includes(folder)]
        run_command(find_tool(compiler), *options, "-O2", *WARNINGS, *search, "-c", source, "-o", tmp_path / "out.o")


def test_cmake_builds_the_example_and_three_models_in_one_program(find_tool: FindTool, tmp_path: Path) -> None:
    cmake = find_tool("cmake")
    export(load("gesture"), tmp_path / "gesture")
    export(load("gesture"), tmp_path / "kws", "kws")
    export(load("phrase"), tmp_path / "phrase")
    run_command(cmake, "-S", tmp_path / "gesture", "-B", tmp_path / "alone")
    run_command(cmake, "--build", tmp_path / "alone")
    run_command(tmp_path / "alone" / "gesture_example")
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.13)\nproject(all C)\n"
        "add_subdirectory(gesture)\nadd_subdirectory(kws)\nadd_subdirectory(phrase)\n"
        "add_executable(together together.c)\ntarget_link_libraries(together PRIVATE gesture kws phrase)\n"
    )
    (tmp_path / "together.c").write_text(
        '#include "gesture.h"\n#include "kws.h"\n#include "phrase.h"\n'
        "int main(void)\n{\n    gesture_state a;\n    gesture_scratch shared;\n"
        "    kws_state b;\n    kws_scratch other;\n    phrase_work work;\n"
        "    return gesture_selftest(&a, &shared) != 0 || kws_selftest(&b, &other) != 0\n"
        "        || phrase_selftest(&work) != 0;\n}\n"
    )
    run_command(cmake, "-S", tmp_path, "-B", tmp_path / "build")
    run_command(cmake, "--build", tmp_path / "build")
    run_command(tmp_path / "build" / "together")


@pytest.mark.parametrize(
    ("version", "other"),
    [("QG_SPEC_MAJOR 1", "QG_SPEC_MAJOR 2"), ("QG_SPEC_MINOR 2", "QG_SPEC_MINOR 0")]
    + [("QG_EXPORT_FORMAT 4", f"QG_EXPORT_FORMAT {number}") for number in (3, 5)],
)
def test_a_library_of_another_version_does_not_compile(
    version: str, other: str, folder: Path, find_tool: FindTool, tmp_path: Path
) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    header = tmp_path / "copy" / "quantgru" / "include" / "quantgru.h"
    text = header.read_text()
    assert f"#define {version}\n" in text
    header.write_text(text.replace(f"#define {version}\n", f"#define {other}\n"))
    command = [find_tool("gcc"), "-c", tmp_path / "copy" / "gesture.c", "-o", tmp_path / "o"]
    result = try_command(*command, *includes(tmp_path / "copy"))
    assert result.returncode != 0
    assert "gesture needs a quantgru library of SPEC 1.1, export format 4" in result.stderr


def test_a_model_too_large_for_an_avr_says_so(find_tool: FindTool, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shapes = ((3, 105, 2), (3, 105, 105), (3, 105), (105,))  # 33,075 weights in U: one array too large
    gru = qg.Gru("wide", "after", *(rng.normal(size=shape) / 10 for shape in shapes))
    model = qg.quantize(qg.FloatModel((gru,), last_step=True), rng.normal(size=(2, 5, 2)))
    assert_too_large(model, "37,309 bytes of constants, the largest array 33,075", find_tool, tmp_path)


def test_an_embedding_too_large_for_an_avr_says_so(find_tool: FindTool, tmp_path: Path) -> None:
    model = plain_model(EmbeddingPlan(4096, 8), GruPlan(1))  # 32,768 bytes: one more than an array can have
    assert_too_large(model, "32,862 bytes of constants, the largest array 32,768", find_tool, tmp_path)


def assert_too_large(model: qg.IntModel, message: str, find_tool: FindTool, tmp_path: Path) -> None:
    """For an AVR, and for no other."""
    export(model, tmp_path / "wide", "wide")
    command = ["-c", tmp_path / "wide" / "wide.c", "-o", tmp_path / "o", *includes(tmp_path / "wide")]
    result = try_command(find_tool("avr-gcc"), "-mmcu=atmega2560", *command)
    assert result.returncode != 0
    limits = "an AVR reads 64,000 in all, and 32,767 an array: use fewer bits, with --weight-bits, or fewer units"
    assert f"wide: {message}; {limits}" in result.stderr
    run_command(find_tool("gcc"), *command)


def test_steps_out_of_range_do_not_compile(find_tool: FindTool, tmp_path: Path) -> None:
    export(load("phrase"), tmp_path)
    command = [find_tool("gcc"), "-c", tmp_path / "phrase.c", "-o", tmp_path / "o", *includes(tmp_path)]
    for steps in (1, 65535):
        run_command(*command, f"-DPHRASE_STEPS={steps}")
    for steps in (0, 65536):
        assert "PHRASE_STEPS: expected 1 ... 65535" in try_command(*command, f"-DPHRASE_STEPS={steps}").stderr


def test_strict_c_on_an_avr_says_what_it_lacks(find_tool: FindTool, tmp_path: Path) -> None:
    """Its descriptors lie in an address space of GNU C."""
    export(load("gesture"), tmp_path, "gesture")
    command = ["-c", tmp_path / "gesture.c", "-o", tmp_path / "o", *includes(tmp_path)]
    result = try_command(find_tool("avr-gcc"), "-std=c99", "-mmcu=atmega328p", *command)
    assert "descriptors of models lie in flash: compile C for an AVR with -std=gnu99 or later" in result.stderr
