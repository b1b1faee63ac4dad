"""The pytest plugin, in runs of pytest of their own: a user's tests, with and without boards."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hil_boards import board_or_skip, build_model

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
def project(pytester: pytest.Pytester, here: Path) -> Iterator[pytest.Pytester]:
    """A user's project: a model, sequences, and two tests."""
    for name in ("m.qgru", "x.npz"):
        shutil.copy(here / name, pytester.path)
    pytester.makepyfile(USERS_TEST)
    os.chdir(pytester.path)
    yield pytester
    shutil.rmtree(pytester.path / ".pytest_cache", ignore_errors=True)


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
    result.assert_outcomes(passed=1, failed=1, deselected=2)
    result.stdout.fnmatch_lines(["*ConfigError: board 'esp99': unknown, there are host*"])


def test_a_wrong_model_fails_with_both_digests(project: pytest.Pytester) -> None:
    on_the_board = qg.IntModel.load("m.qgru")
    other = qg.quantize(qg.load("../here.qgf" if Path("../here.qgf").exists() else DEMO), calibration=CALIBRATION)
    with launch(board_or_skip("host"), build_model(on_the_board)) as port:
        other.save("m.qgru")
        result = run(project, "--quantgru-port", port, "-k", "long")
    result.assert_outcomes(failed=1, deselected=1)
    digests = f"*found*{on_the_board.digest.hex()}*expected {other.digest.hex()}*"
    result.stdout.fnmatch_lines([f"*DeviceError: {port}: another model is on the board: {digests[1:]}"])
