"""The pytest plugin, in runs of pytest of their own: a user's tests, with and without boards."""

from __future__ import annotations

import os
import pty
import shutil
from pathlib import Path

import pytest
from hil_boards import board_or_skip, build_edited, build_model, wrong_at_step_6
from hil_models import make_case

import quantgru as qg
from quantgru.hil.images import launch

pytest_plugins = ["pytester"]

USERS_TEST = """
import numpy as np

def test_gesture(quantgru_board):
    result = quantgru_board.run("m.qgru", np.load("x.npz")["x"], by="digests")
    assert result.equal, result.first_difference

def test_long(quantgru_board):
    assert quantgru_board.run_seeded("m.qgru", 3000).equal
"""


@pytest.fixture
def project(pytester: pytest.Pytester, here: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A user's project: a model, sequences, and two tests."""
    for name in ("m.qgru", "x.npz"):
        shutil.copy(here / name, pytester.path)
    pytester.makepyfile(USERS_TEST)
    monkeypatch.chdir(pytester.path)
    return pytester


def run(project: pytest.Pytester, *options: str) -> pytest.RunResult:
    return project.runpytest_subprocess("-p", "no:cacheprovider", "-rsA", "-W", "error", *options)


def test_a_board_and_a_port(project: pytest.Pytester) -> None:
    model = qg.IntModel.load("m.qgru")
    with launch(board_or_skip("host"), build_model(model)) as port:
        result = run(project, "--quantgru-board", "host", "--quantgru-port", port, "-k", "gesture")
    result.assert_outcomes(passed=2, deselected=2)
    result.stdout.fnmatch_lines_random(["PASSED *::test_gesture[[]host]", f"PASSED *::test_gesture[[]{port}]"])


def test_without_a_board_tests_are_skipped_with_the_hint(project: pytest.Pytester) -> None:
    result = run(project)
    result.assert_outcomes(skipped=2)
    result.stdout.fnmatch_lines(["*no board: run pytest with --quantgru-board NAME or --quantgru-port URL*"])


def test_two_boards_run_each_test_twice(project: pytest.Pytester) -> None:
    board_or_skip("host")
    result = run(project, "--quantgru-board", "host", "--quantgru-board", "esp99", "-k", "long")
    result.assert_outcomes(passed=1, errors=1, deselected=2)
    result.stdout.fnmatch_lines(["not compared: board 'esp99': unknown, there are host*"])


def test_a_missing_tool_is_an_error_with_what_installs_it(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(project.path))
    result = run(project, "--quantgru-board", "host")
    result.assert_outcomes(errors=2)
    says = "not compared: board host: gcc, size not found on this machine; install it: apt-get install *"
    result.stdout.fnmatch_lines([says])
    result.stdout.no_fnmatch_line("*During handling*")


def test_workers_that_share_a_port_take_turns_by_groups(project: pytest.Pytester) -> None:
    board_or_skip("host")
    model = qg.IntModel.load("m.qgru")
    with launch(board_or_skip("host"), build_model(model)) as port:
        result = run(project, "-n", "2", "--quantgru-port", port)
        result.assert_outcomes(errors=2)
        result.stdout.fnmatch_lines([f"not compared: 2 workers would share port {port}; add --dist loadgroup"])
        options = ("-n", "2", "--dist", "loadgroup", "--strict-markers")
        run(project, *options, "--quantgru-port", port).assert_outcomes(passed=2)


def test_a_wrong_board_fails_with_the_difference(project: pytest.Pytester) -> None:
    model = qg.IntModel.load("m.qgru")
    with launch(board_or_skip("host"), build_edited(model, wrong_at_step_6)) as port:
        result = run(project, "--quantgru-port", port, "-k", "gesture")
    result.assert_outcomes(failed=1, deselected=1)
    result.stdout.fnmatch_lines(["E *AssertionError: *sequence*0*step*6*gru*"])


def test_another_model_on_the_board_fails_with_both_digests(project: pytest.Pytester) -> None:
    other = make_case().model
    with launch(board_or_skip("host"), build_model(other)) as port:
        result = run(project, "--quantgru-port", port, "-k", "long")
    result.assert_outcomes(failed=1, deselected=1)
    expected = qg.IntModel.load("m.qgru").digest.hex()
    digests = f"digest {other.digest.hex()} *expected {expected}*"
    result.stdout.fnmatch_lines([f"not compared: {port}: another model is on the board: {digests}"])


USERS_EXCUSE = """
import pytest

def test_gesture(quantgru_board):
    try:
        assert quantgru_board.run("m.qgru", [[[0.0] * 8]], timeout_s=0.2).equal
    except Exception as error:
        pytest.skip(str(error))
"""


def test_a_board_that_fails_is_one_line_and_never_a_pass_or_skip(project: pytest.Pytester) -> None:
    """Whatever the test makes of errors."""
    project.makepyfile(USERS_EXCUSE)
    board, port = pty.openpty()
    name = os.ttyname(port)
    result = run(project, "--quantgru-port", name)
    for descriptor in (board, port):
        os.close(descriptor)
    result.assert_outcomes(failed=1)
    start = next(i for i, line in enumerate(result.outlines) if "test_gesture" in line and line.startswith("___"))
    assert result.outlines[start + 1].startswith(f"not compared: {name}: the board is silent (0.2 s); check port")
    assert result.outlines[start + 2].startswith("===")


def test_the_baud_rate_of_ports(project: pytest.Pytester) -> None:
    result = run(project, "--quantgru-port", "COM5", "--quantgru-baud", "300", "-k", "long")
    result.assert_outcomes(failed=1, deselected=1)
    result.stdout.fnmatch_lines(["not compared: run on a board: a baud rate of 300, expected 9,600 ... 12,000,000*"])
    result = run(project, "--quantgru-board", "host", "--quantgru-baud", "9600")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --quantgru-baud goes with --quantgru-port"])
