"""What the tests of exported C share: the golden models, compilers and their flags."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import quantgru as qg

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = Path(__file__).resolve().parent / "golden"
NAMES = ["gesture", "valve", "phrase"]  # see tools/make_golden.py; phrase needs whole sequences

WARNINGS = ["-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]
CORTEX_M0 = ["-mcpu=cortex-m0", "-mthumb"]
CORTEX_M4 = ["-mcpu=cortex-m4", "-mthumb"]

FindTool = Callable[[str], str]


def load(name: str) -> qg.IntModel:
    return qg.IntModel.load(GOLDEN / f"{name}.qgru")


def run_command(*command: str | Path, cwd: Path | None = None) -> str:
    """What a command prints; it must succeed."""
    result = try_command(*command, cwd=cwd)
    assert result.returncode == 0, f"{' '.join(map(str, command))}\n{result.stdout}{result.stderr}"
    return result.stdout


def try_command(*command: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)


def includes(directory: Path) -> list[str]:
    return [f"-I{directory}", f"-I{directory / 'quantgru' / 'include'}"]


def library_sources(directory: Path) -> list[Path]:
    return sorted((directory / "quantgru" / "src").glob("*.c"))


def model_sources(directory: Path, name: str) -> list[Path]:
    return [directory / f"{name}.c", directory / f"{name}_selftest.c"]
