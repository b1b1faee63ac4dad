"""The Arduino library: what is in it; built as the Arduino IDE builds it, and run on a simulated ATmega328P."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from arduino_builder import CORE, PLATFORM, build_sketch, builder_or_skip
from command_line import assert_refused, contents, done, quantgru
from conftest import tool_path
from hil_boards import board_or_skip
from strategies import BidirectionalPlan, GruPlan, Plan, from_oracle, random_model
from support_export import NAMES, ROOT, load, run_command

import quantgru as qg
from quantgru.errors import ConfigError
from quantgru.exporter import arduino_files, export_arduino, export_files
from quantgru.hil.images import Image, launch
from quantgru.hil.transport import SerialTransport

HARNESS = ROOT / "firmware" / "harness"
TEST_FIRMWARE = "examples/test_firmware"


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each golden model, exported."""
    root = tmp_path_factory.mktemp("libraries")
    for name in NAMES:
        export_arduino(load(name), root / name)
    return {name: root / name for name in NAMES}


@contextmanager
def uploaded(library: Path, sketch: str, directory: Path) -> Iterator[str]:
    """The port of an Uno that runs a sketch of a library."""
    with running(build_sketch(library.parent, library / "examples" / sketch, directory)) as url:
        yield url


@contextmanager
def running(program: Path) -> Iterator[str]:
    with launch(board_or_skip("atmega328p"), Image(program, 0, 0)) as url:
        yield url


# ---- text ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_sources_are_those_of_the_other_export_in_one_folder(name: str) -> None:
    plain = export_files(load(name), name)
    del plain["CMakeLists.txt"], plain[f"{name}_example.c"]
    files = arduino_files(load(name), name)
    sources = {path.removeprefix("src/"): text for path, text in files.items() if path.startswith("src/")}
    assert sources == {path.split("/")[-1]: text for path, text in plain.items()}


@pytest.mark.parametrize("name", NAMES)
def test_the_test_firmware_is_the_one_of_all_boards_without_its_main(name: str) -> None:
    files = arduino_files(load(name), name)
    sources = {path.split("/")[-1]: text for path, text in files.items() if path.startswith(f"{TEST_FIRMWARE}/src/")}
    paths = (path for folder in (HARNESS, HARNESS / "compiled") for path in folder.glob("*.[ch]"))
    harness = {path.name: path.read_text(encoding="utf-8") for path in paths}
    assert "int main(void)" in harness.pop("main.c")
    assert harness.items() <= sources.items()
    assert sources.keys() - harness.keys() == {"model.h", "port.cpp", "port_config.h"}


def test_metadata_is_what_arduino_and_platformio_read() -> None:
    files = arduino_files(load("gesture"), "gesture")
    lines = files["library.properties"].splitlines()
    properties = dict(line.split("=", 1) for line in lines)
    assert len(properties) == len(lines)
    required = "name version author maintainer sentence paragraph category url architectures".split()
    assert set(required) <= set(properties)
    assert (properties["name"], properties["includes"]) == ("gesture", "gesture.h")
    assert properties["dot_a_linkage"] == "true"
    manifest = json.loads(files["library.json"])
    assert (manifest["name"], manifest["version"]) == (properties["name"], properties["version"])
    assert f"src/{manifest['headers']}" in files


@pytest.mark.parametrize("name", NAMES)
def test_sketches_are_named_as_their_folders(name: str) -> None:
    sketches = [Path(path) for path in arduino_files(load(name), name) if path.endswith(".ino")]
    assert sketches
    assert all(path.stem == path.parent.name for path in sketches)


def test_the_sketch_runs_no_more_steps_than_there_is_room_for() -> None:
    sketches = [arduino_files(load("phrase"), "phrase", max_steps=steps) for steps in (5, 500)]
    found = [int(files["examples/sensor/sensor.ino"].split("STEPS = ")[1].split(";")[0]) for files in sketches]
    assert found == [5, 12]  # its calibration data had 12


# ---- names ---------------------------------------------------------------------------------------------------------


def test_names_of_the_cores_headers_are_refused(tmp_path: Path) -> None:
    builder_or_skip()
    folders = [CORE, PLATFORM / "variants" / "standard", *PLATFORM.glob("libraries/*/src")]
    headers = {path.stem for folder in folders for path in folder.glob("*.h")}
    assert {"Arduino", "pins_arduino", "Wire"} <= headers
    for name in sorted(headers | {"ARDUINO", "wire"}):
        with pytest.raises(ConfigError, match=r"the Arduino core, .* has a header of this name|cannot be used in C"):
            export_arduino(load("gesture"), tmp_path / "out", name)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("name", "taken"), [("harness", "HARNESS_H"), ("Port", "PORT_H"), ("held", "HELD_INPUTS")])
def test_names_that_the_test_firmware_has_are_refused(name: str, taken: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"name '{name}': the test firmware has a {taken} of its own; choose another"):
        export_arduino(load("gesture"), tmp_path / "out", name)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["", "a-b", "int", "string", "../x"])
def test_a_name_that_is_no_c_identifier_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be used in C; allowed are"):
        export_arduino(load("gesture"), tmp_path / "out", name)
    assert not (tmp_path / "out").exists()


# ---- the command ---------------------------------------------------------------------------------------------------


def test_the_command_writes_a_library(here: Path) -> None:
    printed = done(quantgru("export", "m.qgru", "-o", "lib", "--for", "arduino", "--name", "digits"))
    assert {Path(line) for line in printed.splitlines()} == {path for path in Path("lib").rglob("*") if path.is_file()}
    assert (here / "lib" / "src" / "digits.h").is_file()
    assert not (here / "lib" / "CMakeLists.txt").exists()


def test_the_command_refuses_what_the_core_has(here: Path) -> None:
    assert_refused(quantgru("export", "m.qgru", "-o", "lib", "--for", "arduino", "--name", "Arduino"), "'Arduino'")
    assert not (here / "lib").exists()


def test_the_folder_of_another_library_is_left_alone(here: Path) -> None:
    """All sources below src/ would be compiled, those of both models."""
    export = ("export", "m.qgru", "-o", "lib", "--for", "arduino", "--name")
    done(quantgru(*export, "first"))
    before = contents(here / "lib")
    assert_refused(quantgru(*export, "second"), "folder lib: holds the Arduino library 'first', and 'second' is to be")
    assert contents(here / "lib") == before
    (here / "lib" / "src" / "first.c").unlink()
    done(quantgru(*export, "first"))
    assert contents(here / "lib") == before


def test_the_command_knows_two_builds(here: Path) -> None:
    result = quantgru("export", "m.qgru", "-o", "lib", "--for", "make")
    assert result.code == 2
    assert "'make' is not one of 'cmake', 'arduino'" in result.err
    assert not (here / "lib").exists()


# ---- on a simulated Uno --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "name"), [("gesture", "port_config"), ("valve", "valve"), ("gesture", "model")])
def test_the_test_firmware_equals_the_simulator(model: str, name: str, tmp_path: Path) -> None:
    int_model = load(model)
    library = tmp_path / "libraries" / name
    export_arduino(int_model, library, name)
    raw = np.random.default_rng(1).integers(-(2**15), 2**15, (3, 40, int_model.n_inputs))
    x = raw * 2.0**-int_model.input_fraction_bits  # exact
    with uploaded(library, "test_firmware", tmp_path / "build") as url:
        result = qg.run_on_board(int_model, x, port=url)
    assert result.equal, str(result.first_difference)
    assert result.steps == 120
    assert result.target == "arduino"
    assert result.step_cost is not None
    assert result.step_cost.unit == "us"
    assert 1000 < result.step_cost.median < 20_000


def test_the_test_firmware_runs_whole_sequences(tmp_path: Path) -> None:
    """Of 1 ... 12 tokens; 0 is padding."""
    model = load("phrase")
    export_arduino(model, tmp_path / "libraries" / "phrase", max_steps=12)
    tokens = [np.random.default_rng(n).integers(1, 11, n) for n in (12, 1, 7)]
    with uploaded(tmp_path / "libraries" / "phrase", "test_firmware", tmp_path / "build") as url:
        result = qg.run_on_board(model, tokens, port=url)
    assert result.equal, str(result.first_difference)
    assert (result.steps, result.target) == (20, "arduino")
    assert result.step_cost is not None and result.step_cost.unit == "us"


def test_all_outputs_of_whole_sequences_come_back(tmp_path: Path) -> None:
    """In parts: 20 steps of 3 inputs and 4 outputs are more than a frame holds."""
    model = from_oracle(random_model(Plan(3, layers=(BidirectionalPlan(GruPlan(2), GruPlan(2)),)), seed=1))
    export_arduino(model, tmp_path / "libraries" / "model", "model", max_steps=20)
    raw = np.random.default_rng(1).integers(-(2**15), 2**15, (2, 20, 3))
    x = raw * 2.0**-model.input_fraction_bits  # exact
    with uploaded(tmp_path / "libraries" / "model", "test_firmware", tmp_path / "build") as url:
        result = qg.run_on_board(model, x, port=url)
        assert result.equal, str(result.first_difference)
        assert result.steps == 40


@pytest.mark.parametrize(("options", "rate"), [([], 115200), (["-DPORT_BAUD=250000"], 250000)])
def test_the_test_firmware_takes_another_baud_rate(
    options: list[str], rate: int, libraries: dict[str, Path], tmp_path: Path
) -> None:
    builder_or_skip()
    port = libraries["gesture"] / TEST_FIRMWARE / "src" / "port.cpp"
    folders = [f"-I{folder}" for folder in (port.parent, CORE, PLATFORM / "variants" / "standard")]
    flags = ["-mmcu=atmega328p", "-DARDUINO=10819", *folders, *options]
    preprocessed = run_command(tool_path("avr-gcc"), "-E", *flags, port)
    assert f"Serial.begin({rate});" in preprocessed


@pytest.mark.parametrize("name", NAMES)
def test_the_sensor_sketch_prints_what_the_simulator_says(
    name: str, libraries: dict[str, Path], tmp_path: Path
) -> None:
    """Nothing is connected: the simulated converter reads 0."""
    model = load(name)
    sketch = (libraries[name] / "examples" / "sensor" / "sensor.ino").read_text()
    found = re.search(r"STEPS = (\d+);", sketch)
    assert found
    inputs = np.zeros((1, int(found[1]), model.n_inputs), np.int16)
    outputs = qg.run(model, inputs, raw_input=True).outputs[0]
    with uploaded(libraries[name], "sensor", tmp_path) as url:
        printed = read_lines(url, 1 if model.last_step else len(outputs))
    if model.last_step:
        assert printed == [str(int(np.argmax(outputs)))]
    else:
        np.testing.assert_allclose([float(line) for line in printed], outputs[:, 0], rtol=0, atol=6e-5)  # four digits


def read_lines(url: str, n_lines: int) -> list[str]:
    received = b""
    with SerialTransport(url) as port:
        while received.count(b"\n") < n_lines:
            data = port.read(10)
            assert data, received
            received += data
    return received.decode("ascii").splitlines()[:n_lines]


def test_two_models_in_one_sketch_share_the_kernels(libraries: dict[str, Path], tmp_path: Path) -> None:
    sketch = tmp_path / "both"
    sketch.mkdir()
    (sketch / "both.ino").write_text(
        "#include <gesture.h>\n#include <phrase.h>\n"
        "static gesture_state state;\nstatic gesture_scratch scratch;\nstatic phrase_work work;\n"
        "void setup()\n{\n    Serial.begin(115200);\n"
        "    Serial.println(gesture_selftest(&state, &scratch));\n    Serial.println(phrase_selftest(&work));\n}\n"
        "void loop()\n{\n}\n"
    )
    with running(build_sketch(libraries["gesture"].parent, sketch, tmp_path / "build")) as url:
        assert read_lines(url, 2) == ["0", "0"]


def test_the_port_says_what_serial_buffers(libraries: dict[str, Path], tmp_path: Path) -> None:
    sketch = tmp_path / "buffer"
    (sketch / "src").mkdir(parents=True)
    for name in ("port.h", "port_config.h"):
        text = (libraries["gesture"] / TEST_FIRMWARE / "src" / name).read_text()
        (sketch / "src" / name).write_text(text)
    (sketch / "buffer.ino").write_text(
        '#include "src/port.h"\n'
        'static_assert(PORT_RECEIVE_BYTES == SERIAL_RX_BUFFER_SIZE - 1, "one byte of the ring stays free");\n'
        "void setup()\n{\n}\nvoid loop()\n{\n}\n"
    )
    build_sketch(libraries["gesture"].parent, sketch, tmp_path / "build")
