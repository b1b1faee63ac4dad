"""A short run of tools/bench_fuzz_firmware.py, which runs longer by itself; and whether it finds what is wrong."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from c_library import FIRMWARE, ROOT

INPUTS = 30_000  # of each target

pytestmark = pytest.mark.requires_tool("clang")


def fuzz(target: str, firmware: Path, folder: Path, inputs: int = INPUTS) -> subprocess.CompletedProcess[str]:
    script = ROOT / "tools" / "bench_fuzz_firmware.py"
    arguments = ["--target", target, "--inputs", str(inputs), "--firmware", str(firmware)]
    return subprocess.run(
        [sys.executable, str(script), *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.parametrize("target", ["frames", "compiled", "sequences", "loaded", "load"])
def test_a_short_run_finds_nothing(target: str, tmp_path: Path) -> None:
    result = fuzz(target, FIRMWARE, tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "none" in result.stdout


MISTAKES = {
    "elements of one byte": ("load", "src/qg_load.c", "n > (blob->end - offset) / size", "n > blob->end - offset"),
    "no bound of a bias": ("load", "src/qg_load_proof.c", "bound > *left", "0"),
    "no room for a product": ("load", "src/qg_load.c", "2 * (size_t)shape->product_units", "0"),
    "steps behind the inputs": ("sequences", "harness/runs.c", "wanted.first <= last_first", "wanted.first <= 60000"),
    "a run that is too long": ("sequences", "harness/runs.c", "n_steps == 0 || n_steps > HELD_STEPS", "n_steps == 0"),
    "one byte too many": ("frames", "harness/frames.c", "->length == decoder->size", "->length > decoder->size"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_found(mistake: str, tmp_path: Path) -> None:
    target, path, text, instead = MISTAKES[mistake]
    shutil.copytree(FIRMWARE, tmp_path / "firmware")
    source = tmp_path / "firmware" / path
    assert source.read_text().count(text) == 1
    source.write_text(source.read_text().replace(text, instead))
    result = fuzz(target, tmp_path / "firmware", tmp_path, 10 * INPUTS)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "Sanitizer" in result.stdout
    assert list((tmp_path / "build" / "fuzz").glob(f"{target}-crash-*"))
