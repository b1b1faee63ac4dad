"""What all tests share: the demo's model, the tools that a test may need, and what a skip means.

A test that needs a compiler or an emulator says so, and is skipped with the line that installs it:

    @pytest.mark.requires_tool("avr-gcc")         the test is skipped where avr-gcc is missing
    def test_sizes(find_tool):
        path = find_tool("clang")                 the same, in the middle of a test; gives the path

Other reasons may end in "; install with: COMMAND". The run closes with a list of all; under CI=true a skip fails it.
"""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("KERAS_BACKEND", "torch")  # before anything imports keras
os.environ.setdefault("OMP_NUM_THREADS", "1")  # PyTorch's: models this small take longer in several

import hypothesis
import numpy as np
import pytest
from command_line import done, quantgru

from quantgru.model import FloatModel
from quantgru.model.file import load as load_float_model
from quantgru.sequences import load_npz

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "quantgru" / "demo"
N_SEQUENCES = 6  # of the demo's test data, for commands
INSTALL = re.compile(r"; install [^:]+: ")

# Where Debian has ccache under the names of all compilers: hundreds of firmware images differ in their model alone.
COMPILER_CACHE = "/usr/lib/ccache"
if shutil.which("ccache"):
    os.environ["PATH"] = os.pathsep.join([COMPILER_CACHE, os.environ["PATH"]])

# The same commit gives the same result. To explore at random: pytest --hypothesis-profile=default
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci")


class Digits(NamedTuple):
    """The demo's model and data: x [400, 8, 8], labels [400], calibration [300, 8, 8]."""

    model: FloatModel
    x: np.ndarray
    labels: np.ndarray
    calibration: np.ndarray


@pytest.fixture(scope="session")
def digits() -> Digits:
    folder = ROOT / "quantgru" / "demo"
    test, labels = load_npz(folder / "digits.npz")
    calibration, _ = load_npz(folder / "digits_calibration.npz")
    assert labels is not None
    return Digits(load_float_model(folder / "digits.qgf"), test.values, labels, calibration.values)


def packages() -> dict[str, str]:
    """Tool -> the Debian packages that bring it, from tools/packages.txt."""
    lines = (ROOT / "tools" / "packages.txt").read_text().splitlines()
    entries = (line.split(maxsplit=1) for line in lines if line and not line.startswith("#"))
    return {name: " ".join(names.split()) for name, names in entries}


def path_without_cache() -> str:
    """PATH as it is for tools that look beside a compiler, or have a compiler of their own."""
    return os.pathsep.join(folder for folder in os.get_exec_path() if folder != COMPILER_CACHE)


def tool_path(name: str) -> str:
    """Returns the path of a tool, or of the newest numbered one (`clang-14`). Skips the test where neither exists."""
    if path := shutil.which(name, path=path_without_cache()):
        return path
    folders = [Path(folder) for folder in path_without_cache().split(os.pathsep) if folder]
    numbered = [path for folder in folders for path in folder.glob(f"{name}-*") if path.name.split("-")[-1].isdigit()]
    if numbered:
        return str(max(numbered, key=lambda path: int(path.name.split("-")[-1])))
    pytest.skip(f"{name} is missing; install with: sudo apt-get install --no-install-recommends {packages()[name]}")


@pytest.fixture(scope="session")
def find_tool() -> Callable[[str], str]:
    """A function that gives the path of a tool of tools/packages.txt, or skips the test."""
    return tool_path


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "requires_tool(*names): skip where one of tools/packages.txt is missing")


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("requires_tool"):
        for name in marker.args:
            tool_path(name)


def skip_reasons(config: pytest.Config) -> Counter[str]:
    """Reason -> number of tests (or modules) that were skipped for it; examples marked +SKIP are not meant to run."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    reports = reporter.stats.get("skipped", []) if reporter else []
    reasons = Counter(str(report.longrepr[2]).removeprefix("Skipped: ") for report in reports)
    del reasons["all tests skipped by +SKIP option"]
    return reasons


def what_installs(reason: str) -> tuple[str, str]:
    """Returns what is missing, and the command that brings it ('' where none is known)."""
    if INSTALL.search(reason):
        missing, command = INSTALL.split(reason, maxsplit=1)
        return missing, command
    if match := re.match(r"could not import '([\w.]+)'", reason):
        return f"Python module {match[1]} is missing", "pip install -e '.[test]'"
    return reason, ""


def in_ci() -> bool:
    return os.environ.get("CI", "").lower() in {"true", "1"}


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if exitstatus == pytest.ExitCode.OK and in_ci() and skip_reasons(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    """After all other sections, so that it stands beside the closing line."""
    yield
    reasons = skip_reasons(terminalreporter.config)
    if not reasons:
        return
    terminalreporter.section("Skipped, and what installs it", sep="=", yellow=True)
    for reason, count in sorted(reasons.items()):
        missing, command = what_installs(reason)
        terminalreporter.line(f"{count:4} {'test' if count == 1 else 'tests'}: {missing}")
        if command:
            terminalreporter.line(f"            {command}")
    if in_ci():
        terminalreporter.line("FAILED: under CI=true a skipped test is a failure", red=True)


@pytest.fixture(scope="session")
def digits_qgru(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's model, quantized by the command line."""
    path = tmp_path_factory.mktemp("model") / "digits.qgru"
    calibration = DEMO / "digits_calibration.npz"
    done(quantgru("quantize", DEMO / "digits.qgf", "--calibration", calibration, "-o", path))
    return path


@pytest.fixture
def here(digits_qgru: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to work in, with a model, its source, and a few test sequences; no temporary file may stay in it."""
    shutil.copy(digits_qgru, tmp_path / "m.qgru")
    shutil.copy(DEMO / "digits.qgf", tmp_path / "m.qgf")
    with np.load(DEMO / "digits.npz") as test:
        np.savez(tmp_path / "x.npz", **{name: test[name][:N_SEQUENCES] for name in test.files})
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert not list(tmp_path.rglob(".*"))
