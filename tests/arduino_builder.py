"""Sketches, built for an Uno by what builds them in the Arduino IDE, with the AVR core of Debian."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import packages, tool_path
from hil_boards import work_directory
from support_export import try_command

PLATFORM = Path("/usr/share/arduino/hardware/arduino/avr")
CORE = PLATFORM / "cores" / "arduino"
HARDWARE = [Path("/usr/share/arduino-builder"), PLATFORM.parent.parent]  # of the builder, and the boards

WARNINGS = "-Wconversion -Wshadow"  # beside those of -warnings=all


def builder_or_skip() -> str:
    """The builder's path. Skips the test, with the line that installs it, where it or the core is missing."""
    builder = tool_path("arduino-builder")
    if not CORE.is_dir():
        command = f"sudo apt-get install --no-install-recommends {packages()['arduino-builder']}"
        pytest.skip(f"the Arduino core is missing; install with: {command}")
    return builder


def build_sketch(libraries: Path, sketch: Path, directory: Path) -> Path:
    """The program of a sketch, made in `directory`; the libraries are those of a folder. Only the core may warn."""
    cache = work_directory() / "arduino_core"  # compiled once in a test run
    for folder in (directory, cache):
        folder.mkdir(parents=True, exist_ok=True)
    command: list[str | Path] = [builder_or_skip(), "-compile", "-fqbn=arduino:avr:uno", "-warnings=all"]
    command += ["-core-api-version=10819"]
    command += [f"-hardware={folder}" for folder in HARDWARE]
    command += [f"-tools={HARDWARE[0]}", f"-libraries={libraries}", f"-build-path={directory}", f"-build-cache={cache}"]
    # The core needs DECIMAL_DIG, which float.h of Debian's avr-gcc 5.4 does not give to C++.
    flags = {"c": WARNINGS, "cpp": f"{WARNINGS} -DDECIMAL_DIG=__DECIMAL_DIG__"}
    command += [f"-prefs=compiler.{language}.extra_flags={text}" for language, text in flags.items()]
    command += [f"-prefs=compiler.path={Path(tool_path('avr-gcc')).parent}/", sketch / f"{sketch.name}.ino"]
    result = try_command(*command)
    assert result.returncode == 0, result.stderr
    warnings = [
        line for line in result.stderr.splitlines() if "warning:" in line and not line.startswith(str(PLATFORM))
    ]
    assert not warnings, "\n".join(warnings)
    return directory / f"{sketch.name}.ino.elf"
