"""Blobs through the loader of the C library: requests and answers of tests/firmware/load_cases.c, and ways to edit a
blob by the offsets of firmware/BLOB.md."""

import functools
import struct
import subprocess
import tempfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import oracle
from c_library import COMPILER, FIRMWARE, ROOT, SOURCES
from hil_boards import work_directory
from strategies import REVERSE, DensePlan, EmbeddingPlan, GruPlan, Plan

from quantgru.hil.compiler import WARNINGS

PROGRAM = [ROOT / "tests" / "firmware" / "load_cases.c", FIRMWARE / "harness" / "frames.c"]
LIBRARY = [source for source in SOURCES if source.name != "shim.c"]
SANITIZED = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]

# Every kind of layer that a blob can have, and every array.
RICH = Plan(
    1,
    layers=(
        EmbeddingPlan(11, 4),
        REVERSE,
        DensePlan(6, oracle.RELU),
        GruPlan(9, oracle.RESET_AFTER, oracle.GATE_HARD_SIGMOID, oracle.CANDIDATE_RELU, 9, True),
        GruPlan(3, oracle.RESET_BEFORE, oracle.GATE_SIGMOID, oracle.CANDIDATE_TANH, 15),
        DensePlan(5, oracle.LINEAR),
        DensePlan(2, oracle.SIGMOID),
    ),
)

HEADER_BYTES = 52
RECORD_BYTES = {1: 52, 2: 24, 3: 8, 4: 0}  # by kind


@dataclass(frozen=True)
class Case:
    """A blob, where it lies, how much memory there is, and raw inputs [steps][inputs] to run."""

    blob: bytes
    blob_offset: int = 0
    memory_bytes: int = 4096
    memory_offset: int = 0
    inputs: Sequence[Sequence[int]] = ()

    def request(self) -> bytes:
        values = [value for step in self.inputs for value in step]
        numbers = (len(self.blob), self.blob_offset, self.memory_bytes, self.memory_offset, len(values))
        return struct.pack("<5I", *numbers) + self.blob + struct.pack(f"<{len(values)}h", *values)


@dataclass(frozen=True)
class Answer:
    """What qg_load returned; of an accepted blob, what the model is, and (check value, outputs) of each step."""

    code: int
    memory_bytes: int
    shape: tuple[int, ...] = ()  # inputs, outputs, units, last_step, output fraction bits
    named_digest: bytes = b""
    digest: bytes = b""
    steps: tuple[tuple[int, tuple[int, ...]], ...] = ()


def read_answer(case: Case, read: Callable[[int], bytes]) -> Answer:
    """The answer to one case; `read(n)` gives the next n bytes of the line."""
    code, memory_bytes = struct.unpack("<bI", read(5))
    if code:
        return Answer(code, memory_bytes)
    shape = struct.unpack("<3HBb", read(8))
    named_digest, digest = read(32), read(32)
    steps = []
    for _ in range(sum(map(len, case.inputs)) // shape[0]):
        check, *outputs = struct.unpack(f"<I{shape[1]}h", read(4 + 2 * shape[1]))
        steps.append((check, tuple(outputs)))
    return Answer(code, memory_bytes, shape, named_digest, digest, tuple(steps))


@functools.cache
def loader_program() -> Path:
    """The program for this machine, with sanitizers that end it at the first mistake; compiled once."""
    directory = Path(tempfile.mkdtemp(dir=work_directory()))
    folders = [ROOT / "firmware" / name for name in ("include", "src", "harness", "ports/host")]
    sources = [*PROGRAM, ROOT / "tests" / "firmware" / "stdio_port.c", *LIBRARY]
    command = [COMPILER, "-std=c99", *WARNINGS, *SANITIZED, *(f"-I{folder}" for folder in folders), *map(str, sources)]
    subprocess.run([*command, "-o", str(directory / "load_cases")], check=True)
    return directory / "load_cases"


def answers(program: Path, cases: Sequence[Case]) -> list[Answer]:
    """The answers to all cases, from one process. What a sanitizer finds fails."""
    requests = b"".join(case.request() for case in cases)
    result = subprocess.run([program], input=requests, capture_output=True, check=False, timeout=120)
    assert result.returncode == 0, result.stderr.decode()
    line, found = memoryview(result.stdout), []
    at = 0

    def read(n: int) -> bytes:
        nonlocal at
        at += n
        return bytes(line[at - n : at])

    found = [read_answer(case, read) for case in cases]
    assert at == len(line)
    return found


# ---- editing --------------------------------------------------------------------------------------------------------


def sealed(content: bytes) -> bytes:
    """A blob of everything but its CRC, with a length and a CRC that are right."""
    content = content[:8] + struct.pack("<I", len(content) + 4) + content[12:]
    return content + struct.pack("<I", zlib.crc32(content))


def edited(blob: bytes, at: int, value: bytes) -> bytes:
    """A blob with other bytes at an offset, and the right CRC."""
    return sealed(blob[:at] + value + blob[at + len(value) : -4])


def records(blob: bytes) -> list[int]:
    """Offsets of the layers' records."""
    kinds = blob[HEADER_BYTES : HEADER_BYTES + blob[14]]
    at, found = (HEADER_BYTES + len(kinds) + 3) // 4 * 4, []
    for kind in kinds:
        found.append(at)
        at += RECORD_BYTES[kind]
    return found


def u32(blob: bytes, at: int) -> int:
    """A number of a blob, such as the offset of an array."""
    return int.from_bytes(blob[at : at + 4], "little")
