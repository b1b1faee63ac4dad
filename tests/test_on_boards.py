"""Several boards at once: `quantgru.on_boards`, and `quantgru hil` with more than one."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from command_line import UNFINISHED, Result, assert_refused, done, finish, quantgru, start
from conftest import N_SEQUENCES
from hil_boards import board_or_skip, build_edited, build_model, wrong_at_step_6
from test_cli_processes import processes_with

import quantgru as qg
from quantgru.cli.main import INTERRUPTED
from quantgru.errors import DeviceError
from quantgru.expected_steps import expected_steps
from quantgru.hil.boards import find_boards
from quantgru.hil.images import Image, launch
from quantgru.on_board import By, Target
from quantgru.on_boards import Work, run_on_boards
from quantgru.simulator import run

N_STEPS = 8 * N_SEQUENCES


@pytest.fixture(scope="module")
def model(digits_qgru: Path) -> qg.IntModel:
    return qg.IntModel.load(digits_qgru)


@pytest.fixture(scope="module")
def images(model: qg.IntModel) -> dict[str, Image]:
    """Of the right firmware, and of one whose step 6 since a reset is wrong."""
    return {"right": build_model(model), "wrong": build_edited(model, wrong_at_step_6)}


@pytest.fixture
def ports(here: Path, images: dict[str, Image]) -> Iterator[dict[str, str]]:
    with ExitStack() as boards:
        yield {name: boards.enter_context(launch(board_or_skip("host"), image)) for name, image in images.items()}


def hil(*options: str) -> Result:
    return quantgru("hil", "m.qgru", "--input", "x.npz", *options)


# ---- from Python ---------------------------------------------------------------------------------------------------


def test_each_board_has_its_outcome_at_its_place(ports: dict[str, str], model: qg.IntModel) -> None:
    names = [("board", "host"), ("port", ports["wrong"]), ("board", "esp99"), ("port", ports["right"])]
    targets = [Target(kind, name) for kind, name in names]  # type: ignore[arg-type]
    told = dict.fromkeys(range(4), 0)

    def progress(number: int, steps: int) -> None:
        told[number] += steps

    outcomes = run_on_boards(Work(model, None, n_seeded=3000), targets, progress)
    assert [outcome.target for outcome in outcomes] == targets
    assert [outcome.equal for outcome in outcomes] == [True, False, False, True]
    assert told[0] == told[3] == 3000 and told[2] == 0
    found = outcomes[1].result
    assert found is not None and found.first_difference is not None
    difference = found.first_difference
    assert (difference.sequence, difference.step, difference.gate, difference.unit) == (0, 6, "h", 4)
    assert outcomes[2].error is not None and outcomes[2].error.startswith("board 'esp99': unknown")


def test_a_process_that_is_killed_has_an_outcome(ports: dict[str, str], model: qg.IntModel) -> None:
    def kill_one() -> None:
        while not (children := multiprocessing.active_children()):
            time.sleep(0.01)
        os.kill(children[0].pid or 0, signal.SIGKILL)

    thread = threading.Thread(target=kill_one)
    thread.start()
    (outcome,) = run_on_boards(Work(model, None, n_seeded=1_000_000), [Target("port", ports["right"])])
    thread.join()
    assert outcome.result is None
    assert outcome.error == f"port {ports['right']}: its process ended with status -9"


def test_emulated_boards_share_the_cores(
    here: Path, model: qg.IntModel, monkeypatch: pytest.MonkeyPatch, images: dict[str, Image]
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    most = 0

    def progress(number: int, steps: int) -> None:
        nonlocal most
        most = max(most, len(multiprocessing.active_children()))

    outcomes = run_on_boards(Work(model, None, n_seeded=100), [Target("board", "host")] * 2, progress)
    assert all(outcome.equal for outcome in outcomes)
    assert most == 1


# ---- the command ---------------------------------------------------------------------------------------------------


def junit(path: str) -> dict[str, tuple[str, str]]:
    """Name of each case -> what it says (failure, error, or nothing), and its message."""
    cases = ElementTree.parse(path).getroot().iter("testcase")
    return {
        case.attrib["name"]: next(((said.tag, said.get("message", "")) for said in case), ("", "")) for case in cases
    }


def test_a_table_and_reports_of_several(ports: dict[str, str]) -> None:
    reports = ["--json", "r.json", "--junit", "r.xml"]
    result = hil("--port", ports["right"], "--port", ports["wrong"], "--board", "host", *reports)
    assert (result.code, result.err) == (1, "")
    rows = {line.split("│")[1].strip(): line for line in result.out.splitlines() if line.startswith("│")}
    assert {name: row.split("│")[3].strip() for name, row in rows.items()} == {
        "host": "yes",
        ports["right"]: "yes",
        ports["wrong"]: "NO",
    }
    assert f"{ports['wrong']}: DIFFERENT: sequence 0, step 6, layer gru, h of unit 4: board " in result.out
    assert "2 of 3 boards equal" in result.out
    found = json.loads(Path("r.json").read_text())
    assert found["equal"] is False
    assert [board["equal"] for board in found["boards"]] == [True, True, False]
    assert found["boards"][2]["first_difference"]["step"] == 6
    cases = junit("r.xml")
    assert cases["host"] == cases[ports["right"]] == ("", "")
    kind, message = cases[ports["wrong"]]
    assert kind == "failure" and message.startswith("sequence 0, step 6")
    assert message.endswith(f"; 6 of {N_STEPS} steps had been equal")


def test_one_that_differs_counts_more_than_one_that_fails(ports: dict[str, str]) -> None:
    result = hil("--port", ports["wrong"], "--board", "esp99", "--junit", "r.xml")
    assert result.code == 1 and result.err == ""
    assert "esp99: board 'esp99': unknown" in result.out and "0 of 2 boards equal" in result.out
    kinds = {name: kind for name, (kind, _) in junit("r.xml").items()}
    assert kinds == {"esp99": "error", ports["wrong"]: "failure"}


def test_one_that_fails_counts_more_than_one_that_is_equal(ports: dict[str, str]) -> None:
    result = hil("--port", ports["right"], "--board", "esp99")
    assert result.code == 2 and result.err == ""
    assert "1 of 2 boards equal" in result.out


@pytest.mark.parametrize("options", [["--by", "states"], ["--by", "digests"], ["--by", "outputs"]])
def test_each_way_finds_the_difference(options: list[str], ports: dict[str, str]) -> None:
    assert f"{N_STEPS} of {N_STEPS} steps equal" in done(hil("--port", ports["right"], *options))
    result = hil("--port", ports["wrong"], *options)
    assert (result.code, result.err) == (1, "")
    assert "DIFFERENT: sequence 0, step 6, layer gru, h of unit 4" in result.out
    assert f"; 6 of {N_STEPS} steps had been equal" in result.out


@pytest.mark.parametrize("by", ["states", "digests", "outputs"])
def test_a_difference_that_is_not_in_the_first_sequences_that_are_simulated(
    by: By, ports: dict[str, str], model: qg.IntModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Step 6 is wrong, and before the third sequence there is none."""
    monkeypatch.setattr("quantgru.expected_steps._STEPS", 4)
    x = [np.zeros((n, model.n_inputs)) for n in (5, 2, 9)]
    found = qg.run_on_board(model, x, port=ports["wrong"], by=by)
    difference = found.first_difference
    assert difference is not None and found.steps == 5 + 2 + 7
    assert (difference.sequence, difference.step, difference.gate, difference.unit) == (2, 6, "h", 4)


def test_steps_on_inputs_of_the_board(ports: dict[str, str]) -> None:
    for seed in ("1", "4294967295"):
        options = ("--steps", "2500", "--seed", seed)
        assert "2,500 of 2,500 steps equal" in done(quantgru("hil", "m.qgru", *options, "--port", ports["right"]))
        result = quantgru("hil", "m.qgru", *options, "--port", ports["wrong"])
        assert result.code == 1 and "DIFFERENT: sequence 0, step 6" in result.out


def test_all_is_every_board_that_can_run_here(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = board_or_skip("host")
    away = find_boards()["atmega328p"]
    monkeypatch.setattr(type(away), "missing", lambda board: [] if board.name == "host" else ["a tool"])
    out = done(hil("--board", "all", "--board", host.name))
    assert out.startswith(f"host: {N_STEPS} of {N_STEPS} steps compared")


def test_all_of_no_board_is_no_pass(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(here))
    result = hil("--board", "all", "--json", "r.json")
    assert_refused(result, "--board all: no board can be built and run here; `quantgru boards` says what is missing")
    report = json.loads((here / "r.json").read_text())
    assert (report["equal"], report["boards"]) == (False, [])


def test_a_port_with_two_names_is_one_board(ports: dict[str, str], here: Path) -> None:
    (here / "tty").symlink_to(ports["right"])
    out = done(hil("--port", ports["right"], "--port", str(here / "tty")))
    assert "boards equal" not in out and f"{N_STEPS} of {N_STEPS} steps equal" in out


def test_a_deadline_ends_a_run(ports: dict[str, str]) -> None:
    begin = time.monotonic()
    result = quantgru("hil", "m.qgru", "--steps", "200000", "--deadline", "0.05", "--port", ports["right"])
    assert time.monotonic() - begin < 30
    assert result.code == 2 and "not done within 0.05 s, the limit for everything together; " in result.err
    assert "--deadline" in result.err


def test_a_deadline_ends_the_simulation(
    ports: dict[str, str], model: qg.IntModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is done for as many steps as the board is asked, then for the next ones."""
    simulated = 0

    def counting(*arguments: Any, **options: Any) -> Any:
        nonlocal simulated
        result = run(*arguments, **options)
        simulated += result.sequences.n_steps
        time.sleep(0.1)  # so that it takes seconds on any machine
        return result

    monkeypatch.setattr("quantgru.expected_steps.run", counting)
    with pytest.raises(DeviceError, match=r"not done within 1 s.*; [\d,]+ of 1,000,000 steps had been equal"):
        qg.run_seeded_on_board(model, 1_000_000, port=ports["right"], deadline_s=1)
    assert 0 < simulated < 500_000
    simulated = 0
    with pytest.raises(DeviceError, match=r"not done within 1 s.*; 0 of 1,000,000 steps had been equal"):
        qg.run_on_board(model, np.zeros((1, 1_000_000, model.n_inputs)), port=ports["right"], deadline_s=1)
    assert 0 < simulated < 500_000


def test_a_deadline_covers_the_simulation_and_not_the_building(
    model: qg.IntModel, images: dict[str, Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = 1.5

    def build(*arguments: Any) -> Image:
        time.sleep(seconds)
        return images["right"]

    def simulate(*arguments: Any, **options: Any) -> Any:
        time.sleep(seconds)
        return expected_steps(*arguments, **options)

    monkeypatch.setattr("quantgru.on_board.build", build)
    assert qg.run_seeded_on_board(model, 50, board="host", deadline_s=seconds).equal
    monkeypatch.setattr("quantgru.on_board.expected_steps", simulate)
    with pytest.raises(DeviceError, match=r"not done within 1\.5 s"):
        qg.run_seeded_on_board(model, 50, board="host", deadline_s=seconds)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--steps", "5"], "give either --input X.npz or --steps N"),
        (["--by", "luck"], "'luck' is not one of"),
        (["--board", "host", "--deadline", "0"], "deadline of 0 s, expected more than 0 and at most 86,400 s"),
        (["--baud", "9600"], "--baud goes with --port"),
        (["--port", "COM5", "--baud", "many"], "Invalid value for '--baud': 'many' is not a valid integer"),
        (["--board", "host", "--timeout", "-1"], "timeout of -1 s, expected more than 0 and at most 86,400 s"),
        (["--board", "host", "--junit", "nowhere/r.xml"], "there is no folder nowhere"),
    ],
)
def test_options_that_make_no_sense(options: list[str], says: str, here: Path) -> None:
    result = hil("--board", "host", *options)
    assert result.code == 2 and says in result.err


def test_seeds_and_steps_that_make_no_sense(here: Path) -> None:
    for options, says in (
        (["0"], "0 steps, expected 1 ... 100000000"),
        (["9", "--seed", "-1"], "seed -1, expected 0 ... "),
    ):
        assert_refused(quantgru("hil", "m.qgru", "--board", "host", "--steps", *options), says)


def test_a_run_without_a_board_is_an_error_in_its_report(here: Path) -> None:
    assert_refused(quantgru("hil", "m.qgru", "--input", "no.npz", "--board", "host", "--junit", "r.xml"), "no.npz")
    ((kind, message),) = junit("r.xml").values()
    assert kind == "error" and "no.npz" in message


# ---- interruption --------------------------------------------------------------------------------------------------


@pytest.fixture
def temporary(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the processes keep what they build."""
    board_or_skip("host")
    folder = here / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def start_two(temporary: Path) -> subprocess.Popen[str]:
    """A long run, with a board that computes, and one whose port is awaited."""
    boards = ["--board", "host", "--port", str(temporary / "never")]
    process = start("hil", "m.qgru", "--steps", "3000000", *boards, "--json", "r.json", start_new_session=True)
    deadline = time.monotonic() + 30
    while not any(line.endswith("quantgru-host.elf") and "gcc" not in line for line in processes_with(str(temporary))):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    return process


@pytest.mark.parametrize("interrupt", [os.killpg, os.kill], ids=["of a terminal", "to the first process alone"])
def test_ctrl_c_ends_all_boards(interrupt: Callable[[int, int], None], temporary: Path) -> None:
    process = start_two(temporary)
    begin = time.monotonic()
    interrupt(process.pid, signal.SIGINT)
    result = finish(process)
    assert time.monotonic() - begin < 5  # 1 s, and some for a machine that does other things
    assert (result.code, result.out, result.err.split()) == (INTERRUPTED, "", ["quantgru:", "interrupted"])
    assert not processes_with(str(temporary))
    assert not list(temporary.iterdir())
    assert json.loads(Path("r.json").read_text()) == UNFINISHED


def test_ctrl_c_does_not_reach_the_processes_of_the_boards(temporary: Path) -> None:
    """They would end before they are ended, each with a traceback."""
    process = start_two(temporary)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    boards = [pid for pid in children if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]
    blocked = [re.findall(r"SigBlk:\s(\w+)", Path(f"/proc/{pid}/status").read_text()) for pid in boards]
    interrupt = 1 << (signal.SIGINT - 1)
    assert [int(mask, 16) & interrupt for (mask,) in blocked] == 2 * [interrupt]
    process.kill()
    process.communicate()


def test_boards_end_when_the_first_process_is_killed(temporary: Path) -> None:
    process = start_two(temporary)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 10
    while processes_with(str(temporary)) or list(temporary.iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
