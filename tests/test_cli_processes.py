"""The command line as a process: outputs that cannot be written, interruptions, bugs, strange places."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from command_line import UNFINISHED, assert_refused, contents, done, finish, hil, quantgru, start
from hil_boards import board_or_skip

from quantgru.cli.main import ENDED, INTERRUPTED, NO_READER

N_SEQUENCES = 6
N_STEPS = 8 * N_SEQUENCES


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


# ---- ends ----------------------------------------------------------------------------------------------------------


def processes_with(text: str) -> list[str]:
    """Their command lines."""
    found = []
    for number in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):  # it has ended
            command_line = Path("/proc", number, "cmdline").read_bytes()
            found.append(command_line.decode(errors="replace").replace("\0", " ").strip())
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
    assert json.loads(Path("r.json").read_text()) == UNFINISHED


@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, INTERRUPTED), (signal.SIGTERM, ENDED)])
def test_a_compiler_that_is_ended_leaves_nothing_behind(
    how: signal.Signals, code: int, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board_or_skip("host")
    temporary = here / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setenv("CCACHE_DISABLE", "1")  # it would be done before it can be ended
    process = start("hil", "m.qgru", "--input", "x.npz", "--board", "host")
    deadline = time.monotonic() + 20
    while not [file for file in temporary.rglob("cc*") if file.stat().st_size > 0]:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(how)
    assert finish(process).code == code
    assert not list(temporary.iterdir())
    while processes_with(str(temporary)):  # what the compiler had started ends by itself
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not list(temporary.iterdir())


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

    monkeypatch.setattr("quantgru.on_boards.run_on_board", bug)
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
