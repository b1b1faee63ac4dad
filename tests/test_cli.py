"""The command line: what every command says of itself, and the chain from a model to a board."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command_line import assert_refused, done, quantgru
from hil_boards import board_or_skip, build_model

import quantgru as qg
from quantgru.cli.main import cli
from quantgru.hil.images import launch
from quantgru.sequences import Sequences
from quantgru.simulator import Trace, check_values, run

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "tests" / "models"
N_SEQUENCES = 6
N_STEPS = 8 * N_SEQUENCES


# ---- help ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", cli.commands)
def test_help_shows_an_example(command: str) -> None:
    out = done(quantgru(command, "--help"))
    assert f"Example: quantgru {command}" in " ".join(out.split())
    assert done(quantgru(command, "-h")) == out


def test_help_names_the_commands_in_the_order_of_work() -> None:
    out = done(quantgru("--help"))
    order = ("demo", "formats", "quantize", "inspect", "explain", "simulate", "check", "export", "hil")
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
    done(quantgru("simulate", "m.qgru", "--raw", "raw.npz", "-o", "y.npz"))
    with np.load("y.npz") as found:
        assert found["y"].dtype == np.int16
        assert np.array_equal(found["y"], expected.outputs_raw)


def test_hil_writes_its_result(here: Path) -> None:
    board_or_skip("host")
    out = done(quantgru("hil", "m.qgru", "--input", "x.npz", "--board", "host", "--json", "r.json"))
    assert out.splitlines()[-1] == f"{N_STEPS} of {N_STEPS} steps equal"
    report = json.loads(Path("r.json").read_text())
    (result,) = report["boards"]
    assert (report["format"], report["equal"], report["error"]) == (1, True, None)
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

    monkeypatch.setattr("quantgru.expected_steps.check_values", wrong)
    result = quantgru("hil", "m.qgru", "--input", "x.npz", "--board", "host", "--json", "r.json")
    assert (result.code, result.err) == (1, "")
    assert "DIFFERENT: sequence 2, step 3" in result.out and "steps equal" not in result.out
    found = json.loads(Path("r.json").read_text())
    assert (found["equal"], found["error"]) == (False, None)
    assert found["boards"][0]["first_difference"]["step"] == 3


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
    for name in ("train.npz", "test.npz", "validation.npz"):
        shutil.copy(MODELS / "stack.npz", name)
    # Arguments are aligned in columns; what three blanks set apart is a remark.
    shown = re.findall(r"^    quantgru (\w+) {1,9}(\S.*?)?(?: {3}.*)?$", (ROOT / "README.md").read_text(), re.MULTILINE)
    commands = [[command, *shlex.split(arguments)] for command, arguments in shown if "--port" not in arguments]
    assert [command[0] for command in commands] == [
        "formats",
        "quantize",
        "search",
        "sensitivity",
        "inspect",
        "inspect",
        "inspect",
        "explain",
        "simulate",
        "check",
        "export",
        "blob",
        "hil",
        "boards",
        "search",
        "export",
    ]
    done(quantgru("quantize", "gesture.keras", "--calibration", "train.npz", "-o", "released.qgru"))
    for command in commands:
        few = ["--trials", "8"] if command[0] == "search" else []
        done(quantgru(*command, *few))


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
