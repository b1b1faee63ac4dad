"""The boards of firmware/ports: found, built, run for real, and compared; and what is said where that fails."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import oracle
import pytest
from hil_boards import PATIENCE, board_or_skip, build_edited, build_model, claiming, running
from hil_models import PLAN, expected_values, make_case, run_steps
from strategies import Plan, from_oracle

from quantgru.errors import ConfigError, DeviceError
from quantgru.exporter import export
from quantgru.firmware_files import firmware_directory
from quantgru.hil.boards import find_board, find_boards
from quantgru.hil.compare import compare
from quantgru.hil.images import build, launch
from quantgru.hil.link import Patience
from quantgru.hil.messages import BoardDescription, StackUse, Steps, Summary, TimerKind
from quantgru.hil.session import Session
from quantgru.hil.timer import StepCost, Ticks, Timer, board_timer
from quantgru.hil.transport import SerialTransport

BOARDS = ["host", "mps2-an386", "riscv-rv32ec"]

PLANS = {
    "one unit": Plan(1, (1,), (oracle.RESET_AFTER,)),
    "two layers": PLAN,
    "no head": Plan(2, (17,), (oracle.RESET_BEFORE,), last_step=1),
    "all heads": Plan(5, (8,), (oracle.RESET_AFTER,), ((3, 0), (8, 1), (9, 2), (2, 3)), weights="extreme"),
    "wide": Plan(300, (154,), (oracle.RESET_BEFORE,), ((200, 0),)),
}


def run(case, image, board, patience=PATIENCE):
    with running(image, board) as line:
        session = Session(line, patience)
        session.open(case.model)
        return session, compare(session, case.model, case.inputs, case.expected)


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_every_step_is_equal(plan, board):
    case = make_case(plan, lengths=(6, 2) if plan.n_inputs > 100 else (40, 1, 13))
    _, found = run(case, build_model(case.model, board), board)
    assert found.equal, str(found.first_difference)
    assert found.steps == sum(len(x) for x in case.inputs)


@pytest.mark.parametrize("board", BOARDS)
def test_a_wrong_board_is_reported_where_it_went_wrong(board):
    """A board with the right digest and one wrong weight: what differs first is what the oracle says."""
    case = make_case(lengths=(3, 9))
    wrong = change_weight(case.oracle_model)
    expected = expected_values(wrong, [x.tolist() for x in case.inputs])
    sequence, step = first_wrong_step(case.expected.checks, expected.checks)

    image = build_edited(from_oracle(wrong), claiming(case.model), board)
    difference = run(case, image, board)[1].first_difference
    board_trace, simulator_trace = (values.trace(sequence, step) for values in (expected, case.expected))
    assert (difference.sequence, difference.step, difference.layer) == (sequence, step, "gru_1")
    assert (difference.gate, difference.unit, difference.format) == ("r", 2, "u16f15")
    assert difference.board == board_trace.r[9 + 2]
    assert difference.simulator == simulator_trace.r[9 + 2]


def change_weight(model: oracle.Model) -> oracle.Model:
    """One weight of U, reset gate of unit 2, in the second layer."""
    layer = model.grus[1]
    codes = [list(row) for row in layer.u.codes]
    codes[layer.units + 2][3] += 40 if codes[layer.units + 2][3] < 80 else -40
    changed = replace(layer, u=replace(layer.u, codes=tuple(map(tuple, codes))))
    changed_model = replace(model, layers=(model.grus[0], changed, *model.head))
    assert oracle.proved(changed_model)
    return changed_model


def first_wrong_step(right, wrong) -> tuple[int, int]:
    for sequence, (a, b) in enumerate(zip(right, wrong, strict=True)):
        if (a != b).any():
            return sequence, int((a != b).argmax())
    raise AssertionError("the wrong weight makes no difference")


@pytest.mark.parametrize("board", BOARDS)
def test_another_model_on_the_board(board):
    case, other = make_case(lengths=(2,)), make_case(seed=5, lengths=(2,))
    with pytest.raises(DeviceError, match=rf"board {board}: .*another model.*{other.model.digest.hex()}"):
        run(case, build_model(other.model, board), board)


@pytest.mark.parametrize("board", BOARDS)
def test_a_buffer_smaller_than_one_step_grows(board):
    plan = Plan(1100, (3,), (oracle.RESET_AFTER,))
    case = make_case(plan, lengths=(2,))
    session, found = run(case, build_model(case.model, board), board)
    assert found.equal
    assert session.board.receive_bytes == 14 + 4 + 2 * 1100
    assert session.board.steps_per_frame == 1


def test_instructions_are_counted_and_always_the_same():
    case = make_case(Plan(10, (32,), (oracle.RESET_AFTER,)), lengths=(20,))
    board = board_or_skip("mps2-an386")
    image = build_model(case.model, "mps2-an386")
    (session, first), (_, second) = (run(case, image, "mps2-an386") for _ in range(2))
    cost, again = first.ticks.cost(board.timer), second.ticks.cost(board.timer)
    assert abs(cost.median - again.median) < 1  # an instruction is no whole tick
    macs = 3 * 32 * (10 + 32)
    assert cost.unit == "instructions"
    assert 1 * macs < cost.minimum <= cost.median <= cost.maximum < 10 * macs
    assert board_timer(session.board).unit == "us"  # the board knows a time only


def test_the_host_counts_time():
    case = make_case(lengths=(3,))
    session, found = run(case, build_model(case.model), "host")
    cost = found.ticks.cost(board_timer(session.board))
    assert cost.unit == "us"
    assert 0 < cost.minimum < 1e5


# ---- images and processes ------------------------------------------------------------------------------------------


def test_sizes_of_a_small_model():
    case = make_case(Plan(3, (4,), (oracle.RESET_AFTER,)), lengths=(1,))
    image = build_model(case.model, "mps2-an386")
    assert 3000 < image.flash_bytes < 9800
    assert 2 * 1024 < image.ram_bytes < 2 * 1024 + 300


@pytest.mark.parametrize("board", BOARDS)
def test_nothing_is_left_behind(board):
    case = make_case(lengths=(1,))
    image = build_model(case.model, board)
    with contextlib.suppress(KeyboardInterrupt), running(image, board) as line:
        Session(line, PATIENCE).open(case.model)
        assert processes_of(image)
        raise KeyboardInterrupt
    assert not processes_of(image)


@pytest.mark.parametrize("board", BOARDS)
def test_a_board_that_is_killed_in_the_middle(board):
    case = make_case(lengths=(4,))
    image = build_model(case.model, board)
    start = time.monotonic()
    with pytest.raises(DeviceError, match=f"board {board}: ") as caught:
        step_and_kill(case, image, board)
    assert "process ended with status -9" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("board", BOARDS)
def test_a_board_ends_with_whoever_started_it(board, tmp_path):
    image = build_model(make_case(lengths=(1,)).model, board)
    program = (
        "import sys, time; from pathlib import Path\n"
        "from quantgru.hil.boards import find_board; from quantgru.hil.images import Image, launch\n"
        "with launch(find_board(sys.argv[1]), Image(Path(sys.argv[2]), 0, 0)):\n"
        "    print('running', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", program, board, str(image.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as starter:
        assert starter.stdout.readline() == b"running\n"
        # It runs beside its starter, and its guard is in place. (Between two programs a process has no command line.)
        wait_for(lambda: len(processes_of(image)) > 1 and not processes_of(image, program="setpriv"))
        starter.kill()
    wait_for(lambda: not processes_of(image))


def step_and_kill(case, image, board) -> None:
    with running(image, board) as line:
        session = Session(line, Patience(reply_s=0.3, attempts=3))
        session.open(case.model)
        session.step(case.inputs[0][:1])
        for process in processes_of(image):
            os.kill(process, 9)
        session.step(case.inputs[0][:1])


def test_what_the_process_said_is_in_the_message(tmp_path):
    board = board_or_skip("host")
    image = build_model(make_case(lengths=(1,)).model)
    complaining = replace(board, command=("sh", "-c", "echo 'no such machine' >&2; exit 3"))
    with (
        pytest.raises(DeviceError, match=r"did not say which port.*status 3; it said: no such machine"),
        launch(complaining, image),
    ):
        pass


def wait_for(condition) -> None:
    """Returns as soon as the condition holds; fails after a minute."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def processes_of(image, program: str = "") -> list[int]:
    """Those whose command line names the image, and begins with `program`."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                arguments = file.read().split(b"\0")
        except OSError:
            continue
        if str(image.path).encode() in arguments and arguments[0].startswith(program.encode()):
            found.append(int(entry))
    return found


# ---- what is not there ---------------------------------------------------------------------------------------------


def test_the_boards():
    boards = find_boards()
    assert next(iter(boards)) == "host"
    assert set(BOARDS) <= set(boards)
    for board in boards.values():
        assert board.description
        commands = ("apt-get install --no-install-recommends ", "npm install --global ")
        assert not board.missing() or board.install_line().startswith(commands)


def test_an_unknown_board():
    with pytest.raises(ConfigError, match=r"board 'esp99': unknown, there are host, .*mps2-an386"):
        find_board("esp99")


def test_missing_tools_are_named_with_their_packages(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    board = find_board("mps2-an386")
    assert board.missing() == ["arm-none-eabi-gcc", "nano.specs", "arm-none-eabi-size", "qemu-system-arm"]
    with pytest.raises(ConfigError, match=r"install it: apt-get .* gcc-arm-none-eabi .* qemu-system-arm$"):
        build(board, tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("name", "packages"),
    [
        ("mps2-an386", "gcc-arm-none-eabi libnewlib-arm-none-eabi binutils-arm-none-eabi qemu-system-arm"),
        (
            "atmega328p",
            "gcc-avr avr-libc gcc libc6-dev libsimavr-dev libelf-dev binutils-avr",
        ),
        (
            "rp2040",
            "gcc-arm-none-eabi libnewlib-arm-none-eabi binutils-arm-none-eabi nodejs npm && "
            "npm install --global rp2040js@1.4.1",
        ),
    ],
)
def test_one_line_installs_all_that_a_board_needs(name, packages, tmp_path, monkeypatch):
    """From nothing: what a package only recommends, or what only another tool could have looked for, is named, too."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_board(name).install_line() == f"apt-get install --no-install-recommends {packages}"


def test_a_compiler_error_is_one_line(tmp_path):
    case = make_case(lengths=(1,))
    export(case.model, tmp_path / "export", name="model")
    (tmp_path / "export" / "model.c").write_text("#error broken\n")
    with pytest.raises(ConfigError, match=r"gcc failed: .*model.c.*broken") as caught:
        build(board_or_skip("host"), tmp_path / "export", tmp_path / "build")
    assert "\n" not in str(caught.value)


def test_run_steps_agrees_with_the_running_check_value():
    """The check value of a step by itself is the running one only in the first step."""
    case = make_case(lengths=(3,))
    alone, running_on = run_steps(case.oracle_model, case.inputs[0].tolist()), None
    running_on = oracle.run(case.oracle_model, case.inputs[0].tolist())
    assert alone[0].check == running_on[0].check
    assert alone[1].check != running_on[1].check
    assert alone[2].state == running_on[2].state


def test_the_line_of_a_board_can_be_opened_by_hand():
    case = make_case(lengths=(2,))
    with ExitStack() as stack:
        url = stack.enter_context(launch(board_or_skip("host"), build_model(case.model)))
        assert url.startswith("/dev/")
        line = stack.enter_context(SerialTransport(url))
        session = Session(line, PATIENCE)
        session.open(case.model)
        assert compare(session, case.model, case.inputs, case.expected).equal


def test_an_unfinished_folder_beside_does_not_matter(tmp_path, monkeypatch):
    shutil.copytree(firmware_directory(), tmp_path / "firmware")
    (tmp_path / "firmware" / "ports" / "mine").mkdir()
    (tmp_path / "firmware" / "ports" / "mine" / "port.toml").write_text("description = 'not ready'")
    monkeypatch.setattr("quantgru.hil.boards.firmware_directory", lambda: tmp_path / "firmware")
    assert find_board("host").name == "host"
    with pytest.raises(ConfigError, match="not a description of a board"):
        find_board("mine")


# ---- what ticks mean -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "hertz", "timer"),
    [
        (TimerKind.NONE, 0, None),
        (TimerKind.CYCLES, 16_000_000, Timer("cycles", 1.0)),
        (TimerKind.INSTRUCTIONS, 0, Timer("instructions", 1.0)),
        (TimerKind.TIME, 25_000_000, Timer("us", 25.0)),
    ],
)
def test_what_a_board_says_about_its_timer(kind, hertz, timer):
    description = BoardDescription(1, 0, 1, kind, hertz, 512, 512, 3, 2, 4, 0, bytes(32), "board", 0, StackUse(0, 0), 0)
    assert board_timer(description) == timer


def test_the_cost_of_a_step():
    collected = Ticks()
    for ticks in ([32, 16], [192]):
        collected.add(Steps(np.array(ticks, np.uint32), np.zeros(len(ticks), np.uint32), np.zeros((len(ticks), 2))))
    assert collected.cost(Timer("instructions", 1.6)) == StepCost("instructions", 10.0, 20.0, 50.0, 120.0)


def test_the_cost_of_a_step_from_sums():
    collected = Ticks()
    collected.add(Summary(n_steps=3, digest=0, least_ticks=5, most_ticks=2**32 - 1, total_ticks=2**32 + 20))
    collected.add(Summary(n_steps=1, digest=0, least_ticks=4, most_ticks=4, total_ticks=4))
    assert collected.cost(Timer("cycles", 1.0)) == StepCost("cycles", 4.0, None, (2**32 + 24) / 4, 2.0**32 - 1)
