"""Real firmware for tests, built once and run as often as wanted, and ways to build it wrong on purpose."""

import atexit
import functools
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from quantgru.exporter import export
from quantgru.firmware_files import firmware_directory
from quantgru.hil.boards import Board, find_boards
from quantgru.hil.images import Image, build, launch
from quantgru.hil.link import Patience
from quantgru.hil.transport import SerialTransport
from quantgru.int_model import IntModel

# Short waits: what is late is asked for again, and only costs time.
PATIENCE = Patience(hello_first_s=0.3, hello_s=0.3, hello_attempts=10, reply_s=0.3, attempts=10, total_s=60.0)


@functools.cache
def work_directory() -> Path:
    """A folder for the whole test run."""
    directory = Path(tempfile.mkdtemp(prefix="quantgru_hil_"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return directory


def board_or_skip(name: str) -> Board:
    """Skips the test, with the line that installs what is missing, if the board cannot be built and run here."""
    board = find_boards()[name]
    if missing := board.missing():
        pytest.skip(f"{', '.join(missing)} is missing; install with: sudo {board.install_line()}")
    return board


@functools.cache
def build_model(model: IntModel, board: str = "host", max_steps: int | None = None) -> Image:
    """The test firmware of a board with `model`, of sequences of max_steps where it needs whole ones."""
    directory = Path(tempfile.mkdtemp(dir=work_directory()))
    export(model, directory / "export", name="model", max_steps=max_steps)
    return build(board_or_skip(board), directory / "export", directory / "build")


def build_edited(
    model: IntModel, edit: Callable[[Path, Path], None], board: str = "host", max_steps: int | None = None
) -> Image:
    """As build_model, after `edit` has changed a copy of (firmware, export)."""
    directory = Path(tempfile.mkdtemp(dir=work_directory()))
    board_or_skip(board)
    shutil.copytree(firmware_directory(), directory / "firmware")
    export(model, directory / "export", name="model", max_steps=max_steps)
    edit(directory / "firmware", directory / "export")
    return build(find_boards(directory / "firmware")[board], directory / "export", directory / "build")


def build_sanitized(model: IntModel, max_steps: int | None = None) -> Image:
    """The host's test firmware, which ends with a message at an error of addresses or undefined behaviour."""
    directory = Path(tempfile.mkdtemp(dir=work_directory()))
    board = board_or_skip("host")
    export(model, directory / "export", name="model", max_steps=max_steps)
    sanitize = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    program = replace(board.program, flags=(*board.program.flags, *sanitize))
    return build(replace(board, program=program), directory / "export", directory / "build")


def replace_in(path: Path, old: str, new: str) -> None:
    """Replaces text that must be there."""
    text = path.read_text()
    assert old in text, f"{path.name} has changed: {old!r} is not in it"
    path.write_text(text.replace(old, new))


@contextmanager
def running(image: Image, board: str = "host") -> Iterator[SerialTransport]:
    """A line to a board that runs `image`."""
    with launch(board_or_skip(board), image) as url, SerialTransport(url) as transport:
        yield transport


def claiming(model: IntModel) -> Callable[[Path, Path], None]:
    """An edit for build_edited: a board that claims to have `model`."""

    def edit(firmware: Path, export_directory: Path) -> None:
        digest = ", ".join(map(str, model.digest))
        replace_in(
            firmware / "harness" / "model_digest.c",
            "    sha256_end(&hash, digest);\n",
            "    sha256_end(&hash, digest);\n"
            f"    static const uint8_t claimed[QG_DIGEST_BYTES] = {{{digest}}};\n"
            "    for (uint8_t i = 0; i < QG_DIGEST_BYTES; ++i) {\n        digest[i] = claimed[i];\n    }\n",
        )

    return edit


def without_timer(firmware: Path, export_directory: Path) -> None:
    """An edit for build_edited: the host board, giving the same bytes each time."""
    config = firmware / "ports" / "host" / "port_config.h"
    replace_in(config, "PORT_TIMER_KIND PORT_TIMER_TIME", "PORT_TIMER_KIND PORT_TIMER_NONE")
    replace_in(config, "PORT_TIMER_HZ 1000000000", "PORT_TIMER_HZ 0")
    replace_in(firmware / "ports" / "host" / "port.c", " + (uint32_t)now.tv_nsec", "")


def wrong_at_step_6(firmware: Path, exported: Path) -> None:
    """An edit for build_edited: unit 4 of the first layer is wrong after step 6 of each sequence."""
    code = exported / "model.c"
    replace_in(code, '#include "model.h"\n', '#include "model.h"\nstatic unsigned steps_done;\n')
    replace_in(code, "    qg_reset(", "    steps_done = 0;\n    qg_reset(")
    step = "inputs, state->h, state->residual, &arrays);\n"
    replace_in(code, step, step + "    if (++steps_done == 7) {\n        state->h[4] ^= 1;\n    }\n")
