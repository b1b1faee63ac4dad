"""The project as a whole: start-up is light, the README says what is true, files carry nothing of one machine."""

from __future__ import annotations

import doctest
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"

HEAVY = {"numba", "llvmlite", "torch", "keras", "h5py", "onnx", "matplotlib"}

# A path of one machine: a home folder, or a folder that only one workplace has.
MACHINE_PATH = re.compile(r"(?<![\w.$}~-])(?:/(?:home|root|Users|work)/\w|[A-Z]:\\Users\\)")
UNFINISHED = re.compile(r"\b(?:TO[D]O|FIX[M]E)\b")


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def code_blocks(text: str, language: str = "") -> list[str]:
    """The fenced blocks of a Markdown text; all of them, or those of one language."""
    blocks = re.findall(r"^```([^\n]*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [block for name, block in blocks if not language or name == language]


def code(text: str) -> str:
    """All code of a Markdown text, in blocks and in lines."""
    return "\n".join([*code_blocks(text), *inline_code(text)])


def inline_code(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def tracked_files() -> list[Path]:
    """The files that are, or are about to be, in the repository, without binary ones."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    if listed.returncode:
        pytest.skip("no git checkout, so no list of its files; install with: git clone")
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file() and b"\0" not in path.read_bytes()[:8192]]


@pytest.mark.parametrize(
    "start",
    ["import quantgru", "import sys; sys.argv = ['quantgru', '--help']; from quantgru.cli.main import main; main()"],
    ids=["import", "help"],
)
def test_start_imports_nothing_heavy(start: str) -> None:
    report = "import atexit, json, sys; atexit.register(lambda: print('\\n' + json.dumps(list(sys.modules))))\n"
    modules = json.loads(run_python(report + start).splitlines()[-1])
    assert "quantgru" in modules
    assert not HEAVY & set(modules)


def test_version_is_the_same_everywhere() -> None:
    import tomllib

    import quantgru

    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert quantgru.__version__ == version
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()


def make_targets() -> set[str]:
    done = subprocess.run(["make", "help"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return set(re.findall(r"^  make (\w+) +\S", done.stdout, re.MULTILINE))


def test_make_help_names_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)", makefile, re.MULTILINE)
    assert phony
    assert make_targets() == set(phony[1].split())
    assert make_targets() >= {"help", "demo", "test", "lint", "bench"}


def test_readme_begins_with_the_demo() -> None:
    assert "make demo" in code("\n".join(README.read_text().splitlines()[:60]))


def test_make_targets_of_the_readme_exist() -> None:
    named = set(re.findall(r"\bmake ([a-z]+)", code(README.read_text())))
    assert named
    assert named <= make_targets()


def test_commands_of_the_readme_exist() -> None:
    text = code(README.read_text())
    named = set(re.findall(r"^(?:\$ )?(?:\S*/)?quantgru ([a-z]+)", text, re.MULTILINE))
    assert named
    run_help = "import sys; sys.argv = ['quantgru', '--help']; from quantgru.cli.main import main; main()"
    commands = run_python(run_help).split("Commands:")[1]
    existing = set(re.findall(r"^ +([a-z]+)(?: {2,}\S|$)", commands, re.MULTILINE))
    assert named <= existing


@pytest.mark.parametrize(
    "page", [README, *(ROOT / "docs").glob("*.md"), *(ROOT / "firmware").glob("*.md")], ids=lambda page: page.name
)
def test_files_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    of_project = r"\b(?:quantgru|firmware|tests|tools|docs)/[\w/.*-]*\w"
    missing = [name for name in re.findall(of_project, "\n".join(inline_code(text))) if not any(ROOT.glob(name))]
    links = re.findall(r"\]\(([\w/.-]+)\)", text)
    missing += [link for link in links if not (page.parent / link).exists()]
    assert missing == []


def test_python_of_the_readme_compiles() -> None:
    text = README.read_text()
    blocks = code_blocks(text, "python")
    assert blocks
    for block in blocks:
        source = "".join(example.source for example in doctest.DocTestParser().get_examples(block)) or block
        line = text[: text.index(block)].count("\n")
        compile("\n" * line + source, "README.md", "exec")


def test_files_carry_nothing_of_one_machine_and_nothing_unfinished() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in tracked_files()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if MACHINE_PATH.search(line) or UNFINISHED.search(line)
    ]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("line", "pattern"),
    [
        ("see " + "/home/" + "ada/model.keras", MACHINE_PATH),
        ("'" + "/root/" + "x'", MACHINE_PATH),
        ("# TO" + "DO later", UNFINISHED),
    ],
)
def test_the_patterns_find_what_they_are_for(line: str, pattern: re.Pattern[str]) -> None:
    assert pattern.search(line)


@pytest.mark.parametrize("line", ["https://example.org/home/page", "$HOME/home/x", "/dev/ttyACM0", "src/work/x.c"])
def test_other_paths_are_allowed(line: str) -> None:
    assert not MACHINE_PATH.search(line)


def test_demo_files_are_small_and_of_the_right_shape(digits) -> None:
    folder = ROOT / "quantgru" / "demo"
    assert sum(path.stat().st_size for path in folder.iterdir() if path.is_file()) < 300_000
    assert digits.x.shape == (400, 8, 8)
    assert digits.calibration.shape == (300, 8, 8)
    assert set(digits.labels) == set(range(10))


def test_demo_model_is_as_good_as_its_page_says(digits) -> None:
    scores = digits.model.run(digits.x)
    assert (scores.argmax(axis=1) == digits.labels).mean() == 0.985


def test_calibration_holds_no_test_sequence(digits) -> None:
    seen = {image.tobytes() for image in digits.calibration}
    assert not [i for i, image in enumerate(digits.x) if image.tobytes() in seen]


@pytest.mark.parametrize(("ci", "returncode"), [("true", 1), ("", 0)])
def test_a_skip_names_its_remedy_and_fails_in_ci(tmp_path: Path, ci: str, returncode: int) -> None:
    (tmp_path / "test_sample.py").write_text(
        "import pytest\n"
        "def test_one(): pass\n"
        "def test_two(): pytest.skip('frobnicator is missing; install with: apt-get install frobnicator')\n"
        "def test_three(): pytest.importorskip('no_such_module')\n"
        "@pytest.mark.requires_tool('avr-gcc')\n"
        "def test_four(): pass\n"
    )
    environment = os.environ | {"CI": ci, "PYTHONPATH": str(ROOT / "tests"), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-c", os.devnull, "--rootdir", tmp_path, "-p", "conftest", tmp_path],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
    )
    assert done.returncode == returncode, done.stdout
    closing = done.stdout.split("Skipped, and what installs it")[1]
    assert "1 test: frobnicator is missing\n            apt-get install frobnicator" in closing
    assert "no_such_module is missing" in closing
    assert "sudo apt-get install --no-install-recommends gcc-avr avr-libc" in closing
    assert ("FAILED: under CI=true" in closing) == bool(ci)


def test_the_readme_shows_what_the_demo_prints():
    result = subprocess.run([sys.executable, "-m", "quantgru", "demo"], capture_output=True, text=True, check=False)
    if "install it" in result.stderr:
        pytest.skip(result.stderr.strip())
    assert result.returncode == 0, result.stderr
    printed = [line.rstrip() for line in result.stdout.splitlines()]
    table = printed[next(i for i, line in enumerate(printed) if line.startswith("Digits")) :]
    assert "\n".join(table) in README.read_text(encoding="utf-8")


def test_an_installed_package_has_all_that_the_demo_needs(tmp_path):
    """From a wheel, in an empty folder: the C sources, templates and data are in the package."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    source = tmp_path / "source"
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    wheels = tmp_path / "wheels"
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", wheels, source], check=True)
    (wheel,) = wheels.iterdir()
    installed = tmp_path / "installed"
    subprocess.run([*pip, "install", "--no-deps", "--target", installed, wheel], check=True)
    found = "import quantgru.firmware_files as f; print(f.firmware_directory())"
    environment = os.environ | {"PYTHONPATH": str(installed)}
    for command in (["-c", found], ["-m", "quantgru", "demo", "-o", "out"]):
        result = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        if "install it" in result.stderr:
            pytest.skip(result.stderr.strip())
        assert result.returncode == 0, result.stderr
        assert str(installed) in result.stdout or "steps equal on host" in result.stdout
    assert (tmp_path / "out" / "digits" / "quantgru" / "src" / "qg_gru.c").is_file()
