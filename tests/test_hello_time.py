"""HELLO on a slow board with a large model: it hashes tens of kilobytes before it answers, and the host waits."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import oracle
import pytest
from hil_boards import board_or_skip
from strategies import Plan, from_oracle, random_model
from support_export import WARNINGS, run_command

import quantgru as qg
from quantgru.exporter import export
from quantgru.hil.compiler import port_sources
from quantgru.hil.images import Image, launch
from quantgru.hil.link import Patience
from quantgru.hil.transport import SerialTransport
from quantgru.int_model.cost import cost

CLOCK_HZ = 16_000_000
BOOTLOADER_S = 2.5  # the first HELLO may go into it


PROGRAM = """\
#include "model.h"
#include "model_digest.h"
#include "port.h"

int main(void)
{
    uint8_t digest[QG_DIGEST_BYTES];
    port_init();
    const uint32_t start = port_ticks();
    model_digest(&model_descriptor, digest);
    const uint32_t ticks = port_ticks() - start;
    for (;;) {
        (void)port_read_byte();
        port_write((const uint8_t *)&ticks, sizeof ticks);
    }
}
"""


def hash_cycles(model: qg.IntModel, folder: Path) -> int:
    board = board_or_skip("atmega2560")
    export(model, folder / "export", "model")
    (folder / "program.c").write_text(PROGRAM)
    harness, library = board.firmware / "harness", folder / "export" / "quantgru"
    sources = [folder / "program.c", folder / "export" / "model.c", *(library / "src").glob("*.c")]
    sources += [harness / "model_digest.c", harness / "sha256.c", *port_sources(board)]
    includes = [f"-I{place}" for place in (folder / "export", library / "include", harness, board.folder)]
    flags = ["-std=c99", *WARNINGS, *board.program.flags, *includes]
    image = folder / "program.elf"
    run_command(board.program.compiler, *flags, *sources, *board.program.link_flags, "-o", image)
    answer = b""
    with launch(board, Image(image, 0, 0)) as url, SerialTransport(url) as line:
        while len(answer) < 4:
            line.write(b"?")  # lost, if the program does not listen yet
            answer += line.read(1.0)
    return int(struct.unpack("<I", answer[:4])[0])


@pytest.fixture(scope="module")
def model() -> qg.IntModel:
    """A GRU 10→96, whose largest array is all but what an AVR can read."""
    board_or_skip("atmega2560")
    made = from_oracle(random_model(Plan(10, (96,), (oracle.RESET_AFTER,)), seed=1))
    assert cost(made).constant_bytes > 33_000
    return made


def test_the_host_waits_for_the_hash_at_the_clock_of_a_real_board(model: qg.IntModel, tmp_path: Path) -> None:
    """The emulator is quicker than that: its cycles count."""
    waits_s = Patience().for_constants(cost(model).constant_bytes).hello_waits_s
    assert 5.0 < hash_cycles(model, tmp_path) / CLOCK_HZ < sum(waits_s) - BOOTLOADER_S


def test_the_board_runs_it(model: qg.IntModel) -> None:
    result = qg.run_on_board(model, np.zeros((1, 2, 10)), board="atmega2560")
    assert result.equal, str(result.first_difference)
