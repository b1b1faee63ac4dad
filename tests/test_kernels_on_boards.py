"""The kernels that some targets have of their own, run on these targets, against the oracle, with `==`."""

import random
import struct
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import oracle
import pytest
from hil_boards import board_or_skip

from quantgru.hil.compiler import WARNINGS, port_sources
from quantgru.hil.images import Image, launch
from quantgru.hil.transport import SerialTransport

PROBE = Path(__file__).parent / "firmware" / "kernel_probe.c"
# AVR, few registers, no multiplier. The kernels of all others run on this machine, too: test_c_library.py.
BOARDS = ("atmega328p", "microbit", "riscv-rv32ec")

ROUND_SHIFT, REQUANTIZE, RESET_PRODUCT, SIGMOID, TANH, SWEEP_SIGMOID, SWEEP_TANH, DOT_ROW, DOT_BLOCK, PING = range(10)

S32_LIMITS = (-(2**31), -(2**31) + 1, -(2**30), -65537, -65536, -32769, -257, -256, -1)
S32_LIMITS += (0, 1, 127, 128, 255, 256, 32768, 65535, 65536, 2**24 - 1, 2**24, 2**30, 2**31 - 2, 2**31 - 1)

BATCH = 64  # requests on their way
MOST_COLUMNS = 40
ROWS = 8
CODES = [code - 128 for code in random.Random(0).sample(range(256), 256)]  # every code
CODES += [-128] * (ROWS * MOST_COLUMNS) + [127] * (ROWS * MOST_COLUMNS)
ALL_CODES, LOWEST, HIGHEST = 0, 256, 256 + ROWS * MOST_COLUMNS  # where they begin


class Probe:
    """A board that computes single values."""

    def __init__(self, line: SerialTransport) -> None:
        self._line = line
        for _ in range(20):  # what comes before the program listens is lost
            line.write(bytes([PING]))
            if line.read(0.5):
                break
        else:
            pytest.fail("no answer")
        while line.read(0.2):
            pass

    def values(self, function: int, cases: Sequence[tuple[int, ...]]) -> list[int]:
        """A number for each case, of up to three arguments."""
        results = []
        for i in range(0, len(cases), BATCH):
            batch = cases[i : i + BATCH]
            self._line.write(b"".join(_request(function, *case) for case in batch))
            results += self._numbers(len(batch))
        return results

    def dots(self, function: int, first: int, x: Sequence[int]) -> list[int]:
        """The dot product of codes `first` … with x, or those of a block."""
        self._line.write(_request(function, first, len(x)) + struct.pack(f"<{len(x)}h", *x))
        return self._numbers(ROWS if function == DOT_BLOCK else 1)

    def _numbers(self, n: int) -> list[int]:
        received = b""
        while len(received) < 4 * n:
            more = self._line.read(20)
            assert more, f"{len(received)} of {4 * n} bytes came"
            received += more
        return list(struct.unpack(f"<{n}i", received))


def _request(function: int, *arguments: int) -> bytes:
    numbers = [*arguments, 0, 0, 0][:3]
    return struct.pack("<B3I", function, *(number % 2**32 for number in numbers))


@pytest.fixture(scope="module", params=BOARDS)
def probe(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Probe]:
    board = board_or_skip(request.param)
    folder = tmp_path_factory.mktemp(board.name)
    codes = ", ".join(map(str, CODES))
    (folder / "codes.h").write_text(
        '#include "quantgru.h"\n'
        f"#define MOST_COLUMNS {MOST_COLUMNS}\n"
        f"static const int8_t stored_codes[{len(CODES)}] QG_CONSTANT = {{{codes}}};\n"
    )
    firmware, of_board = board.firmware, port_sources(board)
    folders = [folder, firmware / "include", firmware / "src", firmware / "harness", board.folder]
    folders += [source.parent for source in of_board]
    command = [board.program.compiler, "-std=c99", *WARNINGS, *board.program.flags, *(f"-I{path}" for path in folders)]
    command += [str(source) for source in (PROBE, *sorted((firmware / "src").glob("*.c")), *of_board)]
    command += [flag.format(port=board.folder) for flag in board.program.link_flags]
    subprocess.run([*command, "-o", str(folder / "probe.elf")], check=True)
    with launch(board, Image(folder / "probe.elf", 0, 0)) as url, SerialTransport(url) as line:
        yield Probe(line)


def random_s32(n: int, seed: int) -> list[int]:
    """Of every magnitude."""
    source = random.Random(seed)
    return [source.getrandbits(32) - 2**31 >> source.randrange(31) for _ in range(n)]


def test_round_shift_is_r1(probe: Probe) -> None:
    values = [*S32_LIMITS, *random_s32(5, seed=1)]
    cases = [(v, s) for v in values for s in range(1, 31) if v + 2 ** (s - 1) < 2**31]
    assert probe.values(ROUND_SHIFT, cases) == [oracle.round_shift(v, s) for v, s in cases]


def test_requantize_is_r4(probe: Probe) -> None:
    """For acc 2^k as one number: k is the caller's business."""
    multipliers = (2**14, 2**14 + 255, 2**15 - 1)
    cases = [(a, m, s) for a in S32_LIMITS for m in multipliers for s in (1, 2, 7, 8, 9, 15, 16, 17, 23, 24, 25, 30)]
    source = random.Random(2)
    cases += [(a, source.randrange(2**14, 2**15), source.randint(1, 30)) for a in random_s32(700, seed=3)]
    assert probe.values(REQUANTIZE, cases) == [oracle.requantize(a, 0, m, s) for a, m, s in cases]


def test_reset_product_is_r5(probe: Probe) -> None:
    cases = [(b, r) for b in S32_LIMITS for r in (0, 1, 255, 256, 2**14, 2**15 - 1, 2**15)]
    source = random.Random(4)
    cases += [(b, source.randint(0, 2**15)) for b in random_s32(500, seed=5)]
    assert probe.values(RESET_PRODUCT, cases) == [oracle.reset_product(b, r) for b, r in cases]


@pytest.mark.parametrize("function", [SIGMOID, TANH])
def test_sigmoid_and_tanh_are_r7_and_r8(probe: Probe, function: int) -> None:
    rule = {SIGMOID: oracle.sigmoid, TANH: oracle.tanh}[function]
    ends = [
        sign * (end + i)
        for end in (0, 5 << 13, 5 << 14, oracle.LIMIT // 2, oracle.LIMIT)
        for i in range(-3, 4)
        for sign in (-1, 1)
    ]
    cases = [(a,) for a in (*S32_LIMITS, *ends, *random_s32(300, seed=6))]
    assert probe.values(function, cases) == [rule(a) for (a,) in cases]


@pytest.mark.parametrize("n_columns", [1, 2, 3, 4, 5, 31])
def test_dot_products_of_every_code(probe: Probe, n_columns: int) -> None:
    source = random.Random(n_columns)
    x = [source.choice((-32768, 32767, 0, -1, 255, 256, -256, source.randint(-32768, 32767))) for _ in range(n_columns)]
    assert probe.dots(DOT_ROW, ALL_CODES, x) == [row_sum(x, ALL_CODES, stride=1)]
    assert probe.dots(DOT_BLOCK, ALL_CODES, x) == [row_sum(x, ALL_CODES + row, stride=ROWS) for row in range(ROWS)]


@pytest.mark.parametrize("first", [LOWEST, HIGHEST])
@pytest.mark.parametrize("value", [-32768, 32767])
def test_dot_products_of_the_largest_products(probe: Probe, first: int, value: int) -> None:
    total = MOST_COLUMNS * CODES[first] * value
    assert probe.dots(DOT_ROW, first, [value] * MOST_COLUMNS) == [total]
    assert probe.dots(DOT_BLOCK, first, [value] * MOST_COLUMNS) == [total] * ROWS


def row_sum(x: Sequence[int], first: int, stride: int) -> int:
    return sum(CODES[first + stride * i] * value for i, value in enumerate(x))


@pytest.mark.parametrize("probe", ["atmega328p"], indirect=True)
@pytest.mark.parametrize("function", [SWEEP_SIGMOID, SWEEP_TANH])
def test_sigmoid_and_tanh_of_an_avr_for_every_input(probe: Probe, function: int) -> None:
    rule = {SWEEP_SIGMOID: oracle.sigmoid, SWEEP_TANH: oracle.tanh}[function]
    first, n = -oracle.LIMIT - 5, 2 * oracle.LIMIT + 11
    total = check = 0
    for a in range(first, first + n):
        total += rule(a)
        check += total
    assert probe.values(function, [(first, n)]) == [(check + 2**31) % 2**32 - 2**31]
