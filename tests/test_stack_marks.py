"""How deep the stack of the test firmware has been: its ends on AVRs, by hand from the data sheets, and the marks."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from arduino_builder import build_sketch
from hil_boards import board_or_skip
from support_export import ROOT, WARNINGS, run_command

from quantgru.hil.boards import Board
from quantgru.hil.compiler import port_sources, program_size
from quantgru.hil.images import Image, launch
from quantgru.hil.transport import SerialTransport

FIRMWARE = ROOT / "firmware"


@contextmanager
def running(program: Path, board: Board) -> Iterator[SerialTransport]:
    with launch(board, Image(program, 0, 0)) as url, SerialTransport(url) as line:
        yield line


def asked(line: SerialTransport) -> bytes:
    """What a program answers to a byte; one that comes before it listens is lost."""
    answer = b""
    for _ in range(20):
        line.write(b"?")
        while part := line.read(0.3):
            answer += part
        if answer:
            return answer
    raise AssertionError("no answer")


# ---- the ATmega boards ---------------------------------------------------------------------------------------------

PROGRAM = """\
#include "port.h"
#include "stack.h"

int main(void)
{
    stack_paint();
    *(volatile uint8_t *)LOWEST_USED = 0;
    const uint32_t numbers[] = {stack_bytes(), stack_used_bytes()};
    port_init();
    for (;;) {
        (void)port_read_byte();
        port_write((const uint8_t *)numbers, sizeof numbers);
    }
}
"""


@pytest.mark.parametrize(
    ("name", "ram_bytes", "behind_ram"),
    [("atmega328p", 2048, 0x100 + 2048), ("atmega2560", 8192, 0x200 + 8192)],
)
def test_the_last_byte_of_ram_belongs_to_the_stack(name: str, ram_bytes: int, behind_ram: int, tmp_path: Path) -> None:
    """RAM begins behind the registers. A byte that is changed 1,000 bytes below its end has been used, and no other."""
    board = board_or_skip(name)
    (tmp_path / "program.c").write_text(PROGRAM)
    sources = [tmp_path / "program.c", FIRMWARE / "harness" / "stack.c", *port_sources(board)]
    includes = [f"-I{place}" for place in (FIRMWARE / "harness", board.folder)]
    flags = ["-std=c99", *WARNINGS, *board.program.flags, *includes, f"-DLOWEST_USED={behind_ram - 1000}"]
    image = tmp_path / "program.elf"
    run_command(board.program.compiler, *flags, *sources, *board.program.link_flags, "-o", image)
    with running(image, board) as line:
        stack_bytes, used_bytes = struct.unpack("<II", asked(line)[:8])
    _, variables = program_size(board, image)
    assert stack_bytes == ram_bytes - variables
    assert used_bytes == 1000


# ---- Arduino -------------------------------------------------------------------------------------------------------

SKETCH = """\
extern "C" {
#include "src/port.h"
#include "src/stack.h"
}

static uint8_t *kept;
static uint8_t n_kept = ALLOCATED;

void setup()
{
    Serial.begin(115200);
#if ALLOCATED
    kept = static_cast<uint8_t *>(malloc(n_kept));
    memset(kept, 7, n_kept);
#endif
    stack_paint();
}

void loop()
{
    if (Serial.read() < 0) {
        return;
    }
    uint8_t n_same = 0;
    for (uint8_t i = 0; i < n_kept; ++i) {
        if (kept[i] == 7) {
            ++n_same;
        }
    }
    Serial.println(n_same);
    Serial.println(reinterpret_cast<uintptr_t>(kept) + n_kept);
    Serial.println(stack_bytes());
    Serial.println(stack_used_bytes());
}
"""


def printed_numbers(allocated: int, folder: Path) -> list[int]:
    """What the sketch prints that allocates so many bytes before the stack is painted."""
    sketch = folder / "marks"
    (sketch / "src").mkdir(parents=True)
    harness, port = FIRMWARE / "harness", FIRMWARE / "ports" / "arduino"
    for path in (harness / "port.h", harness / "stack.h", harness / "stack.c", port / "port_config.h"):
        (sketch / "src" / path.name).write_text(path.read_text())
    (sketch / "marks.ino").write_text(SKETCH.replace("ALLOCATED", str(allocated)))
    program = build_sketch(folder, sketch, folder / "build")
    with running(program, board_or_skip("atmega328p")) as line:
        return [int(number) for number in asked(line).split()[:4]]


def test_painting_spares_the_heap_of_a_sketch(tmp_path: Path) -> None:
    """The stack then ends at the heap, whose end is that of its last block."""
    n_same, heap_end, stack_bytes, used_bytes = printed_numbers(200, tmp_path)
    assert n_same == 200
    assert stack_bytes == 0x100 + 2048 - heap_end
    assert 0 < used_bytes < 200


def test_a_sketch_without_a_heap_has_all_ram_behind_its_variables(tmp_path: Path) -> None:
    _, _, stack_bytes, used_bytes = printed_numbers(0, tmp_path)
    _, variables = program_size(board_or_skip("atmega328p"), tmp_path / "build" / "marks.ino.elf")
    assert stack_bytes == 2048 - variables
    assert 0 < used_bytes < 200
