"""Sketches, compiled as the Arduino IDE does it for an Uno: the AVR core of Debian, with the flags of its platform.txt.

Warnings are errors in what quantgru exports, which compiles without -fpermissive, too; the core itself is the system's.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import packages, tool_path
from hil_boards import work_directory
from support_export import run_command

PLATFORM = Path("/usr/share/arduino/hardware/arduino/avr")
CORE = PLATFORM / "cores" / "arduino"
VARIANT = PLATFORM / "variants" / "standard"

FLAGS = "-c -Os -ffunction-sections -fdata-sections -flto -fno-fat-lto-objects -mmcu=atmega328p".split()
FLAGS += "-DF_CPU=16000000L -DARDUINO=10819 -DARDUINO_AVR_UNO -DARDUINO_ARCH_AVR".split()
LANGUAGES = {
    ".c": "-std=gnu11".split(),
    ".cpp": "-std=gnu++11 -fno-exceptions -fno-threadsafe-statics".split(),
    ".S": "-x assembler-with-cpp".split(),
}
LINK_FLAGS = "-Os -flto -fuse-linker-plugin -Wl,--gc-sections -mmcu=atmega328p".split()
WARNINGS = "-Wall -Wextra -Wconversion -Wshadow -Werror".split()


def core_or_skip() -> None:
    """Skips the test, with the line that installs it, where the core is missing."""
    if not CORE.is_dir():
        package = packages()["arduino-core-avr"]
        pytest.skip(
            f"the Arduino core is missing; install with: sudo apt-get install --no-install-recommends {package}"
        )


def compile_sources(sources: Iterable[Path], flags: Sequence[str], directory: Path) -> list[Path]:
    """Objects of C, C++ and assembler sources, which are made in `directory`."""
    directory.mkdir(parents=True)
    by_language: dict[str, list[Path]] = {}
    for source in sources:
        by_language.setdefault(source.suffix, []).append(source)
    for suffix, of_language in by_language.items():
        command = [tool_path("avr-gcc"), *FLAGS, *LANGUAGES[suffix], *flags, *of_language]
        run_command(*command, cwd=directory)
    return sorted(directory.glob("*.o"))


def make_archive(path: Path, objects: Sequence[Path]) -> Path:
    run_command(tool_path("avr-gcc-ar"), "rcs", path, *objects)
    return path


@functools.cache
def core_archive() -> Path:
    """The core, compiled once in a test run."""
    directory = work_directory() / "arduino_core"
    sources = [path for path in sorted(CORE.iterdir()) if path.suffix in LANGUAGES]
    # The core needs DECIMAL_DIG, which float.h of Debian's avr-gcc 5.4 does not give to C++.
    flags = ["-w", "-fpermissive", "-DDECIMAL_DIG=__DECIMAL_DIG__", f"-I{CORE}", f"-I{VARIANT}"]
    with ThreadPoolExecutor(2) as pool:
        parts = [pool.submit(compile_sources, sources[i::2], flags, directory / str(i)) for i in range(2)]
        objects = [path for part in parts for path in part.result()]
    return make_archive(directory / "core.a", objects)


def build_sketch(libraries: Sequence[Path], sketch: Path, directory: Path) -> Path:
    """The program of a sketch that uses these libraries, each with a folder src/."""
    core_or_skip()
    flags = [*WARNINGS, *(f"-I{folder}" for folder in (*(library / "src" for library in libraries), CORE, VARIANT))]
    linked = []
    for i, library in enumerate(libraries):
        objects = compile_sources(sorted((library / "src").rglob("*.c")), flags, directory / f"library{i}")
        is_archive = "dot_a_linkage=true" in (library / "library.properties").read_text().splitlines()
        linked += [make_archive(directory / f"library{i}.a", objects)] if is_archive else objects
    copy = shutil.copytree(sketch, directory / "sketch")
    (copy / "sketch.cpp").write_text("#include <Arduino.h>\n" + (copy / f"{sketch.name}.ino").read_text())
    sources = [path for path in sorted(copy.rglob("*")) if path.suffix in LANGUAGES]
    objects = compile_sources(sources, flags, directory / "objects")
    program = directory / f"{sketch.name}.elf"
    run_command(tool_path("avr-gcc"), *LINK_FLAGS, *objects, *linked, core_archive(), "-lm", "-o", program)
    return program
