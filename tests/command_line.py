"""The command line in tests: run in this process or as one of its own, and what its output must be."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from quantgru.cli.main import main

# What `quantgru hil --json` leaves of a run that was ended.
UNFINISHED = {"format": 1, "equal": False, "error": "the run did not finish", "run": None, "boards": []}


class Result(NamedTuple):
    code: int
    out: str
    err: str


def quantgru(*arguments: str | Path) -> Result:
    """The command line in this process, from its arguments to its exit code."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", ["quantgru", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
    code = end.value.code
    assert code is None or isinstance(code, int)
    return Result(code or 0, out.getvalue(), err.getvalue())


def start(*arguments: str | Path, **options: object) -> subprocess.Popen[str]:
    """The command line as a process of its own."""
    command = [sys.executable, "-m", "quantgru", *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, **{"stdout": pipe, "stderr": pipe, "text": True} | options)  # type: ignore


def finish(process: subprocess.Popen[str]) -> Result:
    out, err = process.communicate(timeout=60)
    return Result(process.returncode, out, err)


def done(result: Result) -> str:
    """What a command printed that must have succeeded."""
    assert (result.code, result.err) == (0, ""), result
    return result.out


def assert_refused(result: Result, *says: str) -> None:
    """One line on stderr, exit code 2, and nothing that sounds like success."""
    assert result.code == 2, result
    assert result.err.startswith("quantgru: ") and result.err.endswith("\n") and result.err.count("\n") == 1, result.err
    assert "equal" not in result.out and "wrote" not in result.out
    for text in says:
        assert text in result.err


def contents(folder: Path) -> dict[Path, bytes]:
    """All files and folders, so that two looks can be compared."""
    return {path: path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


def hil(*options: str) -> Result:
    """Runs it where an earlier run has left its verdict: that must not stay behind."""
    old_verdict = '{"equal": true}'
    Path("r.json").write_text(old_verdict)
    result = quantgru("hil", "m.qgru", "--input", "x.npz", "--json", "r.json", *options)
    left = Path("r.json").read_text()
    if result.err.startswith("quantgru: "):
        verdict = json.loads(left)
        assert verdict["equal"] is False
        assert verdict["error"] == result.err.removeprefix("quantgru: ").rstrip("\n")
    elif "Traceback" in result.err:
        assert json.loads(left) == UNFINISHED
    else:  # options that click itself refuses, or the command
        assert "Usage:" in result.err and (left == old_verdict or json.loads(left)["error"] in result.err)
    return result
