"""The command line: the chain from a model to a board, what every command says, and what it says to bad input."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import pty
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import tty
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_line import Result, assert_refused, done, finish, quantgru, start
from hil_boards import board_or_skip, build_model

import quantgru as qg
from quantgru.cli.main import INTERRUPTED, NO_READER, cli
from quantgru.hil.boards import launch
from quantgru.sequences import Sequences
from quantgru.simulator import Trace, check_values, run

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "tests" / "models"
DEMO = ROOT / "quantgru" / "demo"
N_SEQUENCES = 6
N_STEPS = 8 * N_SEQUENCES


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


# ---- help ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", cli.commands)
def test_help_shows_an_example(command: str) -> None:
    out = done(quantgru(command, "--help"))
    assert f"Example: quantgru {command}" in " ".join(out.split())
    assert done(quantgru(command, "-h")) == out


def test_help_names_the_commands_in_the_order_of_work() -> None:
    out = done(quantgru("--help"))
    order = ("demo", "formats", "quantize", "inspect", "explain", "simulate", "export", "hil")
    positions = [out.index(f"\n  {name} ") for name in order]
    assert positions == sorted(positions)


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys, contextlib; sys.argv = ['quantgru', '--help']\n"
        "from quantgru.cli.main import main\n"
        "with contextlib.suppress(SystemExit): main()\n"
        "print('loaded:', *({'numba', 'numpy', 'jinja2', 'rich', 'serial', 'torch', 'h5py'} & sys.modules.keys()))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "loaded:"


def test_version() -> None:
    assert qg.__version__ in done(quantgru("--version"))


# ---- the chain -----------------------------------------------------------------------------------------------------


def test_a_keras_file_all_the_way_to_a_board(tmp_path: Path, find_tool: Callable[[str], str]) -> None:
    model, out = tmp_path / "gesture.qgru", tmp_path / "firmware"
    x = MODELS / "reset_after.npz"
    done(quantgru("quantize", MODELS / "reset_after.keras", "--calibration", x, "-o", model))
    facts = json.loads(done(quantgru("inspect", model, "--json")))
    assert facts["name"] == "gesture"
    done(quantgru("simulate", model, "--input", x, "-o", tmp_path / "y.npz"))
    with np.load(tmp_path / "y.npz") as simulated, np.load(x) as keras:
        assert np.abs(simulated["y"] - keras["y"]).max() < 0.02  # int8 weights
    files = [Path(line) for line in done(quantgru("export", model, "-o", out, "--name", "wave")).splitlines()]
    assert {path for path in out.rglob("*") if path.is_file()} == set(files)
    assert out / "wave.h" in files
    sources = [path for path in files if path.suffix == ".c"]
    includes = [f"-I{out}", f"-I{out / 'quantgru' / 'include'}"]
    subprocess.run([find_tool("gcc"), "-std=c99", *includes, *sources, "-o", tmp_path / "example"], check=True)
    subprocess.run([tmp_path / "example"], check=True, stdout=subprocess.DEVNULL)
    assert "21 of 21 steps equal" in done(quantgru("hil", model, "--input", x, "--board", "host"))


def test_inspect_says_what_is_in_a_model(here: Path) -> None:
    text, facts = done(quantgru("inspect", "m.qgru")), json.loads(done(quantgru("inspect", "m.qgru", "--json")))
    model = qg.IntModel.load("m.qgru")
    assert facts["digest"] == model.digest.hex() and facts["digest"] in text
    assert [layer["kind"] for layer in facts["layers"]] == ["GRU, reset after", "dense, linear"]
    assert all(layer["accumulator_bound"] < 2**31 for layer in facts["layers"])
    assert "No accumulator" in text and "5,358 bytes" in text


def test_simulate_gives_the_numbers_of_the_api(here: Path) -> None:
    out = done(quantgru("simulate", "m.qgru", "--input", "x.npz", "-o", "y.npz", "--trace"))
    assert f"{N_SEQUENCES} sequences, {N_STEPS} steps" in out and "labels: " in out
    with np.load("x.npz") as inputs:
        expected = run(qg.IntModel.load("m.qgru"), inputs["x"], trace=True)
    assert expected.trace is not None
    with np.load("y.npz") as found:
        assert np.array_equal(found["y"], expected.outputs)
        for name in ("u", "r", "n", "h", "residual"):
            assert np.array_equal(found[f"layer0.{name}"], getattr(expected.trace.layers[0], name))


def test_raw_inputs_give_the_same_integers_again(here: Path) -> None:
    with np.load("x.npz") as inputs:
        expected = run(qg.IntModel.load("m.qgru"), inputs["x"])
    np.savez("raw.npz", x=expected.inputs_raw)
    done(quantgru("simulate", "m.qgru", "--input", "raw.npz", "-o", "y.npz", "--raw"))
    with np.load("y.npz") as found:
        assert found["y"].dtype == np.int16
        assert np.array_equal(found["y"], expected.outputs_raw)


def test_hil_writes_its_result(here: Path) -> None:
    board_or_skip("host")
    out = done(quantgru("hil", "m.qgru", "--input", "x.npz", "--board", "host", "--json", "r.json"))
    assert out.splitlines()[-1] == f"{N_STEPS} of {N_STEPS} steps equal"
    result = json.loads(Path("r.json").read_text())
    assert (result["target"], result["equal"], result["first_difference"]) == ("host", True, None)
    assert result["steps"] == result["total_steps"] == N_STEPS
    assert result["flash_bytes"] > 5358 and result["ram_bytes"] > 0


def test_hil_through_a_port_and_with_another_model_on_the_board(here: Path) -> None:
    board = board_or_skip("host")
    with launch(board, build_model(qg.IntModel.load("m.qgru"))) as port:
        out = done(quantgru("hil", "m.qgru", "--input", "x.npz", "--port", port))
        assert f"{N_STEPS} of {N_STEPS} steps equal" in out and "flash" not in out
        done(quantgru("quantize", "m.qgf", "--calibration", "x.npz", "-o", "other.qgru"))
        result = quantgru("hil", "other.qgru", "--input", "x.npz", "--port", port, "--json", "r.json")
    assert_refused(result, port, "another model is on the board", "flash it")
    verdict = json.loads(Path("r.json").read_text())  # an "equal" of an earlier run must not stay behind
    assert verdict["equal"] is False
    assert "another model is on the board" in verdict["error"]


def test_a_difference_ends_with_1(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board_or_skip("host")

    def wrong(trace: Trace, sequences: Sequences) -> np.ndarray:
        checks = check_values(trace, sequences)
        checks[2, 3] ^= 1
        return checks

    monkeypatch.setattr("quantgru.on_board.check_values", wrong)
    result = quantgru("hil", "m.qgru", "--input", "x.npz", "--board", "host", "--json", "r.json")
    assert (result.code, result.err) == (1, "")
    assert "DIFFERENT: sequence 2, step 3" in result.out and "steps equal" not in result.out
    found = json.loads(Path("r.json").read_text())
    assert not found["equal"] and found["first_difference"]["step"] == 3


def test_boards() -> None:
    out = done(quantgru("boards"))
    assert "host" in out and "mps2-an386" in out and "--port PORT" in out


def test_boards_says_in_one_line_what_installs_a_board(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    lines = done(quantgru("boards")).splitlines()
    assert any(line.startswith("host: gcc, size not found; install it: apt-get install ") for line in lines)
    assert any(line.startswith("mps2-an386: ") and line.endswith("qemu-system-arm") for line in lines)


def test_demo(tmp_path: Path) -> None:
    board_or_skip("host")
    out = done(quantgru("demo", "--sequences", "20", "-o", tmp_path / "kept"))
    for row in ("accuracy", "labels as the float model's", "state SQNR", "flash for constants", "RAM", "multiply"):
        assert row in out
    assert out.splitlines()[-1] == "160 of 160 steps equal on host"
    assert qg.IntModel.load(tmp_path / "kept" / "digits.qgru").name == "digits"
    assert (tmp_path / "kept" / "digits" / "digits.c").is_file()


def test_the_shell_commands_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board_or_skip("host")
    monkeypatch.chdir(tmp_path)
    shutil.copy(MODELS / "stack.keras", "gesture.keras")
    for name in ("train.npz", "test.npz"):
        shutil.copy(MODELS / "stack.npz", name)
    # Arguments are aligned in columns; what three blanks set apart is a remark.
    shown = re.findall(r"^    quantgru (\w+) {1,9}(\S.*?)?(?: {3}.*)?$", (ROOT / "README.md").read_text(), re.MULTILINE)
    commands = [[command, *shlex.split(arguments)] for command, arguments in shown]
    assert [command[0] for command in commands] == [
        "formats",
        "quantize",
        "inspect",
        "explain",
        "simulate",
        "export",
        "hil",
        "boards",
        "export",
    ]
    for command in commands:
        done(quantgru(*command))


def test_units_go_from_the_command_line_into_header_and_report(here: Path) -> None:
    units = "g,g,g,deg/s,deg/s,deg/s,V, °C"
    command = ["quantize", "m.qgf", "--calibration", "x.npz", "-o", "out.qgru"]
    assert "deg/s" in done(quantgru(*command, "--input-units", units))
    assert qg.IntModel.load("out.qgru").input_units == ("g", "g", "g", "deg/s", "deg/s", "deg/s", "V", "°C")
    assert_refused(quantgru(*command, "--input-units", "g"), "input_units ['g'], expected 8 texts, or none")
    done(quantgru("export", "out.qgru", "-o", "c"))
    assert "In g, g, g, deg/s, deg/s, deg/s, V, degC" in Path("c/out.h").read_text()


def test_clipped_inputs_are_reported_by_share_and_input(here: Path) -> None:
    x = np.load("x.npz")["x"]
    lengths = x.shape[0] * x.shape[1]
    wide = x.copy()
    wide[:, :, 3] = 1e6
    np.savez("wide.npz", x=wide)
    out = done(quantgru("simulate", "m.qgru", "--input", "wide.npz", "-o", "y.npz"))
    assert f"clipped inputs: {lengths:,} of {x.size:,} (input 3 100.0 %): calibrate on data that reaches as far" in out
    assert f"clipped inputs: 0 of {x.size:,}\n" in done(
        quantgru("simulate", "m.qgru", "--input", "x.npz", "-o", "y.npz")
    )


# ---- bad models ----------------------------------------------------------------------------------------------------

COMMANDS = {
    "inspect": ["inspect", "{model}"],
    "simulate": ["simulate", "{model}", "--input", "x.npz", "-o", "out"],
    "export": ["export", "{model}", "-o", "out"],
    "hil": ["hil", "{model}", "--input", "x.npz", "--board", "host"],
    "quantize": ["quantize", "{model}", "--calibration", "x.npz", "-o", "out"],
}


def write_bad_models() -> None:
    Path("truncated.qgru").write_bytes(Path("m.qgru").read_bytes()[:1000])
    Path("truncated.qgf").write_bytes(Path("m.qgf").read_bytes()[:1000])
    Path("truncated.keras").write_bytes((MODELS / "stack.keras").read_bytes()[:1000])
    for suffix in ("qgru", "qgf", "keras"):
        Path(f"empty.{suffix}").touch()
        Path(f"folder.{suffix}").mkdir()
        shutil.copy("x.npz", f"foreign.{suffix}")
    shutil.copy("m.qgf", "float.qgru")
    shutil.copy("m.qgru", "integer.qgf")


@pytest.mark.parametrize("command", ["inspect", "simulate", "export", "hil"])
def test_a_file_that_is_no_integer_model(command: str, here: Path) -> None:
    write_bad_models()
    before = contents(here)
    for name, says in {
        "missing.qgru": "no such file",
        "truncated.qgru": "truncated",
        "empty.qgru": "truncated, or not a quantgru file",
        "foreign.qgru": "not a quantgru file",
        "folder.qgru": "folder.qgru",
        "float.qgru": "holds 'float model', expected an integer model (.qgru)",
        "": "no such file",
    }.items():
        assert_refused(quantgru(*(part.format(model=name) for part in COMMANDS[command])), name, says)
    assert contents(here) == before


def test_a_file_that_is_no_float_model(here: Path) -> None:
    write_bad_models()
    before = contents(here)
    for name, says in {
        "missing.qgf": "no such file",
        "missing.keras": "no such file",
        "truncated.qgf": "truncated",
        "truncated.keras": "save it again with model.save(path)",
        "empty.qgf": "truncated, or not a quantgru file",
        "empty.keras": "not a readable zip archive",
        "foreign.qgf": "not a quantgru file",
        "foreign.keras": "holds no metadata.json",
        "folder.qgf": "folder.qgf",
        "folder.keras": "a folder",
        "integer.qgf": "holds 'integer model', expected a float model",
        "m.qgru": "is already quantized",
        "x.npz": "of which convention are its arrays?",
        "gru.onnx": "model gru.onnx: ",
        "gru": "file type ''",
    }.items():
        assert_refused(quantgru(*(part.format(model=name) for part in COMMANDS["quantize"])), name, says)
    assert contents(here) == before


def test_softmax_is_refused_and_can_be_left_out(here: Path) -> None:
    with zipfile.ZipFile(MODELS / "reset_after.keras") as source, zipfile.ZipFile("softmax.keras", "w") as copy:
        for entry in source.infolist():
            content = source.read(entry)
            if entry.filename == "config.json":
                config = json.loads(content)
                config["config"]["layers"][-1]["config"]["activation"] = "softmax"
                content = json.dumps(config).encode()
            copy.writestr(entry, content)
    command = ["quantize", "softmax.keras", "--calibration", MODELS / "reset_after.npz", "-o", "out.qgru"]
    assert_refused(quantgru(*command), "softmax", "--softmax logits", "the largest output stays the largest")
    assert not Path("out.qgru").exists()
    done(quantgru(*command, "--softmax", "logits"))


@pytest.mark.parametrize(
    "notes",
    [
        {"inputs": 3, "calibration": []},
        {"inputs": [{}]},
        {"inputs": [{}], "calibration": {"sequences": "many"}},
        {"warnings": 7},
    ],
)
def test_notes_may_be_anything(notes: dict[str, object], here: Path) -> None:
    """No digest covers them: inspect still shows the numbers."""
    replace(qg.IntModel.load("m.qgru"), notes=notes).save("notes.qgru")
    assert "notes on the calibration are damaged" in done(quantgru("inspect", "notes.qgru"))


def test_names_are_no_markup(here: Path) -> None:
    model = qg.IntModel.load("m.qgru")
    name = "a[red] [/b] :warning:"
    replace(model, layers=(replace(model.layers[0], name=name), *model.layers[1:])).save("names.qgru")
    assert name in done(quantgru("inspect", "names.qgru"))


# ---- bad data ------------------------------------------------------------------------------------------------------

X = np.linspace(0, 1, 2 * 3 * 8).reshape(2, 3, 8)
NAN, INFINITE = X.copy(), X.copy()
NAN[1, 2, 3] = np.nan
INFINITE[0, 0, 7] = -np.inf

BAD_DATA = {
    "nan": (dict(x=NAN), "nan at sequence 1, step 2, feature 3"),
    "infinite": (dict(x=INFINITE), "-inf at sequence 0, step 0, feature 7"),
    "no sequence": (dict(x=X[:0]), "holds no steps"),
    "no step": (dict(x=X[:, :0]), "holds no steps"),
    "features": (dict(x=X[:, :, :7]), "7 features, the model has 8 inputs"),
    "no x": (dict(y=X), "no array 'x', found ['y']"),
    "dimensions": (dict(x=X[0]), "shape (3, 8), expected [sequences, steps, features]"),
    "text": (dict(x=np.full((2, 3, 8), "a")), "expected real numbers"),
    "complex": (dict(x=X + 0j), "expected real numbers"),
    "objects": (dict(x=np.full((2, 3, 8), None)), "pickled objects, which are never read"),
    "long": (dict(x=X, lengths=[3, 4]), "'lengths': 3 ... 4, allowed 1 ... 3"),
    "none": (dict(x=X, lengths=[0, 3]), "'lengths': 0 ... 3, allowed 1 ... 3"),
    "lengths": (dict(x=X, lengths=[1, 2, 3]), "'lengths': int64 (3,), expected integers (2,)"),
    "real lengths": (dict(x=X, lengths=[1.0, 2.0]), "'lengths': float64 (2,), expected integers (2,)"),
    "labels": (dict(x=X, labels=[1]), "'labels': int64 (1,), expected integers (2,)"),
}


@pytest.mark.parametrize(("arrays", "says"), BAD_DATA.values(), ids=BAD_DATA)
def test_bad_sequences(arrays: dict[str, object], says: str, here: Path) -> None:
    np.savez("bad.npz", **arrays)  # type: ignore[arg-type]
    before = contents(here)
    assert_refused(quantgru("quantize", "m.qgf", "--calibration", "bad.npz", "-o", "out.qgru"), says, "calibration")
    assert_refused(quantgru("simulate", "m.qgru", "--input", "bad.npz", "-o", "out.npz"), says)
    assert_refused(quantgru("hil", "m.qgru", "--input", "bad.npz", "--board", "host"), says)
    assert contents(here) == before


def test_a_file_that_holds_no_sequences(here: Path) -> None:
    np.save("array.npy", X)
    Path("text.npz").write_text("x = 1")
    Path("truncated.npz").write_bytes(Path("x.npz").read_bytes()[:500])
    Path("folder.npz").mkdir()
    before = contents(here)
    for name in ("missing.npz", "array.npy", "text.npz", "truncated.npz", "folder.npz", "m.qgru"):
        assert_refused(quantgru("quantize", "m.qgf", "--calibration", name, "-o", "out.qgru"), name)
        result = quantgru("simulate", "m.qgru", "--input", name, "-o", "out.npz")
        assert_refused(result, name)
        assert "pickled" not in result.err
    assert contents(here) == before


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        (dict(mean=np.zeros(8)), "no array 'scale', found ['mean']"),
        (dict(mean=np.zeros(8), scale=np.zeros(8)), "scale: 0 at feature 0"),
        (dict(mean=np.zeros(7), scale=np.ones(8)), "mean: shape (7,), expected (8,)"),
        (dict(mean=np.full(8, np.nan), scale=np.ones(8)), "mean: nan"),
    ],
)
def test_bad_standardisation(arrays: dict[str, np.ndarray], says: str, here: Path) -> None:
    np.savez("s.npz", **arrays)
    command = ["quantize", "m.qgf", "--calibration", "x.npz", "-o", "out.qgru", "--standardisation", "s.npz"]
    assert_refused(quantgru(*command), says)


def test_raw_inputs_must_be_raw(here: Path) -> None:
    result = quantgru("simulate", "m.qgru", "--input", "x.npz", "-o", "out.npz", "--raw")
    assert_refused(result, "raw input", "expected integers of -32768 ... 32767")


# ---- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("gesture.qgru", "gesture"),
        ("2fast-model.qgru", "model_2fast_model"),
        ("modèle n° 1.qgru", "modele_n_1"),
        ("int.qgru", "model_int"),
        ("quantgru.qgru", "model_quantgru"),
        ("手.qgru", "model"),
        ("a" * 50 + ".qgru", "a" * 31),
    ],
)
def test_the_name_of_the_file_becomes_a_name_for_c(file: str, name: str, here: Path) -> None:
    done(quantgru("quantize", "m.qgf", "--calibration", "x.npz", "-o", file))
    assert qg.IntModel.load(file).name == name
    assert f"{name}.c" in done(quantgru("export", file, "-o", "out dir/é"))


@pytest.mark.parametrize("name", ["", "2fast", "a b", "int", "x" * 32, "*/"])
def test_a_name_that_is_none_for_c(name: str, here: Path) -> None:
    before = contents(here)
    says = f"model name {name!r}: cannot be used in C", "--name"
    quantize = ["quantize", "m.qgf", "--calibration", "x.npz", "-o", "out.qgru"]
    assert_refused(quantgru(*quantize, "--name", name), *says)
    assert_refused(quantgru("export", "m.qgru", "-o", "out", "--name", name), *says)
    assert contents(here) == before


# ---- outputs -------------------------------------------------------------------------------------------------------


def writing_commands(output: str) -> list[list[str]]:
    return [
        ["quantize", "m.qgf", "--calibration", "x.npz", "-o", output],
        ["simulate", "m.qgru", "--input", "x.npz", "-o", output],
        ["hil", "m.qgru", "--input", "x.npz", "--board", "host", "--json", output],
    ]


@pytest.mark.parametrize(
    ("output", "says"),
    [
        ("nowhere/out", "there is no folder nowhere"),
        ("folder", "is a folder"),
        ("", "is a folder"),
        ("pipe", "is not a regular file"),
        ("x.npz/out", "there is no folder x.npz"),
    ],
)
def test_an_output_that_cannot_be_written(output: str, says: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said before the work: no work is done here."""
    monkeypatch.setattr("quantgru.int_model.IntModel.load", None)
    monkeypatch.setattr("quantgru.importers.load", None)
    Path("folder").mkdir()
    os.mkfifo("pipe")
    before = {path: path.stat().st_mtime_ns for path in here.rglob("*")}
    for command in writing_commands(output):
        assert_refused(quantgru(*command), f"output {output!r}: {says}; choose another path")
    assert {path: path.stat().st_mtime_ns for path in here.rglob("*")} == before
    assert Path("pipe").is_fifo()


def without_override() -> None:
    """For a process about to start: as root, too, a folder without write permission is read-only."""
    if os.getuid() == 0 and sys.platform == "linux":
        drop_from_bounding_set, override = 24, 1  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE
        ctypes.CDLL(None).prctl(drop_from_bounding_set, override, 0, 0, 0)


def test_a_folder_that_is_read_only(here: Path) -> None:
    (here / "locked").mkdir(mode=0o500)
    results = [finish(start(*command, preexec_fn=without_override)) for command in writing_commands("locked/out")[1:]]
    results.append(finish(start("export", "m.qgru", "-o", "locked/out", preexec_fn=without_override)))
    for result in results:
        assert_refused(result, "locked", "choose another")
    # Reading needs no folder that can be written.
    result = finish(start("inspect", here / "m.qgru", cwd="locked", preexec_fn=without_override))
    assert "No accumulator" in done(result)
    assert not list((here / "locked").iterdir())


def test_a_disk_that_is_full_at_the_end(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device", ".out.abcdef")

    monkeypatch.setattr("quantgru.container.write_atomically", full)
    for command in writing_commands("out")[:2]:
        result = quantgru(*command)
        assert_refused(result, "out", "No space left on device")
        assert ".out.abcdef" not in result.err


def test_export_into_what_is_no_folder(here: Path) -> None:
    before = contents(here)
    assert_refused(quantgru("export", "m.qgru", "-o", "x.npz"), "folder x.npz: cannot be written (is no folder)")
    assert_refused(quantgru("export", "m.qgru", "-o", "x.npz/out"), "folder x.npz/out: cannot be written")
    empty = quantgru("export", "m.qgru", "-o", "")
    assert empty.code == 2 and "-o DIR is empty" in empty.err
    assert contents(here) == before


# ---- boards and ports ----------------------------------------------------------------------------------------------


def hil(*options: str) -> Result:
    """Runs it where an earlier run has left its verdict: that must not stay behind."""
    old_verdict = '{"equal": true}'
    Path("r.json").write_text(old_verdict)
    result = quantgru("hil", "m.qgru", "--input", "x.npz", "--json", "r.json", *options)
    left = Path("r.json").read_text()
    if result.err.startswith("quantgru: "):
        assert json.loads(left) == {"equal": False, "error": result.err.removeprefix("quantgru: ").rstrip("\n")}
    elif "Traceback" in result.err:
        assert json.loads(left) == {"equal": False, "error": "the run did not finish"}
    else:  # nothing was run
        assert "Usage:" in result.err and left == old_verdict
    return result


def test_neither_board_nor_port_and_both(here: Path) -> None:
    for options in ([], ["--board", "host", "--port", "/dev/ttyACM0"]):
        result = hil(*options)
        assert result.code == 2 and "give either --board NAME or --port URL" in result.err


def test_a_board_that_is_not_there(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_refused(hil("--board", "esp99"), "board 'esp99': unknown, there are host, ", "`quantgru boards`")
    assert_refused(quantgru("demo", "--board", "esp99"), "board 'esp99': unknown")
    monkeypatch.setenv("PATH", str(here))
    says = "gcc, size not found on this machine; install it: apt-get install --no-install-recommends gcc"
    assert_refused(hil("--board", "host"), says)
    assert_refused(quantgru("demo"), says)


@pytest.mark.parametrize("port", ["/dev/ttyNONE", "", "socket://127.0.0.1:1", "bogus://x", "/etc/passwd", "x.npz"])
def test_a_port_that_is_not_there(port: str, here: Path) -> None:
    assert_refused(hil("--port", port), f"port {port}: cannot be opened", "check that the board is connected")


@contextlib.contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """A port behind which somebody answers each request with the same bytes."""
    board, port = pty.openpty()
    tty.setraw(port)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while os.read(board, 4096):
                os.write(board, answer)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield os.ttyname(port)
    finally:
        os.close(port)  # which ends serve() with an error
        os.close(board)


def test_ports_where_nobody_answers(here: Path) -> None:
    with answering(b"") as silent, answering(b"\x00READY\r\n\xff") as noisy:
        ports = {silent: "the board is silent", noisy: "bytes came in, but no answer"}
        processes = {port: start("hil", "m.qgru", "--input", "x.npz", "--port", port) for port in ports}
        for port, says in ports.items():
            assert_refused(finish(processes[port]), port, says, "check")


@contextlib.contextmanager
def relay(port: str, n_bytes: int) -> Iterator[str]:
    """A port that leads to `port`, and is closed as soon as `n_bytes` have come back from there."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            board, left = os.open(port, os.O_RDWR | os.O_NOCTTY), n_bytes
            tty.setraw(board)
            with connection, contextlib.suppress(OSError):
                threading.Thread(target=forward, args=(connection, board), daemon=True).start()
                while left > 0:
                    data = os.read(board, min(left, 4096))
                    connection.sendall(data)
                    left -= len(data)
                connection.shutdown(socket.SHUT_RDWR)

        threading.Thread(target=serve, daemon=True).start()
        yield f"socket://127.0.0.1:{listening.getsockname()[1]}"


def forward(connection: socket.socket, board: int) -> None:
    with contextlib.suppress(OSError):
        while data := connection.recv(4096):
            os.write(board, data)


@pytest.mark.parametrize("n_bytes", [10, 150, 400])
def test_a_line_that_breaks_in_the_middle(n_bytes: int, here: Path) -> None:
    board = board_or_skip("host")
    with launch(board, build_model(qg.IntModel.load("m.qgru"))) as port, relay(port, n_bytes) as url:
        assert_refused(hil("--port", url), url, "connection lost", "run again")


# ---- ends ----------------------------------------------------------------------------------------------------------


def processes_with(text: str) -> list[str]:
    """Their command lines."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_bytes().decode(errors="replace").replace("\0", " ").strip())
    return [line for line in found if text in line]


def test_ctrl_c_leaves_nothing_behind(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board_or_skip("host")
    np.savez("long.npz", x=np.zeros((2, 100_000, 8)))
    temporary = here / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    process = start("hil", "m.qgru", "--input", "long.npz", "--board", "host", "--json", "r.json")
    image = "quantgru-host.elf"
    deadline = time.monotonic() + 20
    while not any(line.endswith(image) and "gcc" not in line for line in processes_with(str(temporary))):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    result = finish(process)
    assert (result.code, result.out) == (INTERRUPTED, "")
    assert result.err.split() == ["quantgru:", "interrupted"]
    assert not processes_with(str(temporary))
    assert not list(temporary.iterdir())
    assert json.loads(Path("r.json").read_text()) == {"equal": False, "error": "the run did not finish"}


@pytest.mark.parametrize(
    ("command", "codes"),
    [
        (["inspect", "m.qgru"], {1, NO_READER}),
        (["inspect", "m.qgru", "--json"], {NO_READER}),
        (["hil", "m.qgru", "--input", "x.npz", "--board", "host"], {NO_READER}),  # 1 would say: different
    ],
)
def test_nobody_reads_the_output(command: list[str], codes: set[int], here: Path) -> None:
    process = start(*command)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == ""
    assert process.wait(30) in codes


def test_there_is_no_output_at_all(here: Path) -> None:
    command = shlex.join([sys.executable, "-m", "quantgru", "inspect", "m.qgru"])
    result = subprocess.run(["sh", "-c", f"{command} >&-"], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_an_output_without_unicode(encoding: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    shutil.copy("m.qgru", "модель.qgru")
    assert "No accumulator" in done(finish(start("inspect", "модель.qgru")))
    result = finish(start("inspect", "другой.qgru"))
    assert_refused(result, "no such file")


def test_debug_shows_the_traceback_and_ends_alike() -> None:
    result = finish(start("--debug", "inspect", "missing.qgru"))
    assert result.code == 2
    assert result.err.startswith("Traceback") and "ModelError: model missing.qgru: no such file" in result.err


def test_a_bug_never_ends_as_a_difference(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("quantgru.on_board.run_on_board", bug)
    result = hil("--board", "host")
    assert result.code == 2 and "ZeroDivisionError: a bug" in result.err


# ---- places --------------------------------------------------------------------------------------------------------


def test_paths_with_blanks_and_unicode(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board_or_skip("host")
    odd = here / "dös 手" / "a b"
    odd.mkdir(parents=True)
    shutil.copy("m.qgru", odd / "m [1].qgru")
    shutil.copy("x.npz", odd / "x y.npz")
    monkeypatch.setenv("TMPDIR", str(odd))
    monkeypatch.chdir(odd)
    result = finish(start("hil", "../a b/m [1].qgru", "--input", "./x y.npz", "--board", "host", "--json", "r ü.json"))
    assert f"{N_STEPS} of {N_STEPS} steps equal" in done(result)
    assert {path.name for path in odd.iterdir()} == {"m [1].qgru", "x y.npz", "r ü.json"}


def test_without_home_and_cache_and_twice_at_once(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(here / "x.npz" / "not a folder"))
    processes = [start("simulate", "m.qgru", "--input", "x.npz", "-o", "y.npz") for _ in range(2)]
    for process in processes:
        assert "wrote y.npz" in done(finish(process))
    with np.load("y.npz") as found:
        assert found["y"].shape == (N_SEQUENCES, 10)
