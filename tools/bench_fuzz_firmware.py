"""Fuzzes what the firmware does with bytes from outside, with address and undefined-behaviour sanitizers. Needs clang.

    python tools/bench_fuzz_firmware.py
    python tools/bench_fuzz_firmware.py --inputs 100000 --target load

Ten million inputs each, unless said otherwise: 100,000 take all but two of the loader's edges that ten million take.
Inputs that fail are kept in build/fuzz; the exit code is 1 then.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import oracle
from rich.console import Console
from rich.progress import track
from rich.table import Table
from strategies import (
    REVERSE,
    BidirectionalPlan,
    DensePlan,
    EmbeddingPlan,
    GruPlan,
    Plan,
    from_oracle,
    random_model,
)

from quantgru.exporter import export, to_blob
from quantgru.firmware_files import firmware_directory

AFTER, BEFORE = oracle.RESET_AFTER, oracle.RESET_BEFORE

INPUTS = 10_000_000
FAILED = Path("build") / "fuzz"
SANITIZERS = ["-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all"]
WARNINGS = ["-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]
INSTALL = "install with: sudo apt-get install --no-install-recommends clang libclang-rt-dev"


# ---- seeds ----------------------------------------------------------------------------------------------------------


PLANS = [
    Plan(1, (1,), (AFTER,)),
    Plan(3, (9, 2), (AFTER, BEFORE), ((4, oracle.RELU), (2, oracle.SIGMOID))),
    Plan(2, (8,), (BEFORE,), ((9, oracle.TANH),), 1, "extreme", "any", "limit"),
    Plan(
        2,
        layers=(
            GruPlan(2, BEFORE, oracle.GATE_HARD_SIGMOID, oracle.CANDIDATE_LINEAR, -31, True),
            GruPlan(3, AFTER, oracle.GATE_SIGMOID, oracle.CANDIDATE_HARD_TANH, 14),
            GruPlan(1, AFTER, oracle.GATE_SIGMOID, oracle.CANDIDATE_SIGMOID, -15),
        ),
    ),
    Plan(
        1,
        layers=(
            EmbeddingPlan(5, 4),
            REVERSE,
            DensePlan(6, oracle.RELU),
            DensePlan(2),
            GruPlan(8, candidate=oracle.CANDIDATE_RELU, f_h=9, starts=True),
            DensePlan(5),
        ),
    ),
    Plan(2, layers=(GruPlan(9), DensePlan(3)), weights="wide"),
]

HARNESS_PLAN = Plan(3, (2, 1), (AFTER, BEFORE), ((2, oracle.LINEAR),))

RELU = GruPlan(2, candidate=oracle.CANDIDATE_RELU, f_h=9)
SEQUENCE_PLAN = Plan(3, layers=(BidirectionalPlan(RELU, RELU), REVERSE, GruPlan(1, BEFORE), DensePlan(2)))


def blobs() -> Iterator[bytes]:
    """Of models that together have every kind of layer, function and array that a blob can hold."""
    return (to_blob(from_oracle(random_model(plan, seed=1))) for plan in PLANS)


def message(content: bytes, flags: int = 0) -> bytes:
    """One message of tools/fuzz/harness.c."""
    return struct.pack("<BH", flags, len(content)) + content


def conversations() -> Iterator[bytes]:
    """All requests, with 1 and 3 steps of 3 inputs and for each array; in order, repeated, out of order, raw."""
    hello, reset, stack = b"\1", b"\2", b"\7"
    steps = [struct.pack("<BHH", type_, n, 0) + bytes(range(6 * n)) for type_ in (3, 5) for n in (1, 3)]
    reads = [struct.pack("<BBBH", 4, array, 0, 2) for array in range(5)]
    seeds = [struct.pack("<BHBBII", 6, n, shift, 0, 1, 2**32 - 2) for n, shift in ((1, 0), (3, 15))]
    requests = [hello, reset, *steps, *reads, *seeds, stack]
    yield b"".join(map(message, requests))
    yield b"".join(message(request) + message(b"", 16) for request in requests)
    yield b"".join(message(request, flags) for request in requests for flags in (0, 2, 4, 8))
    yield message(hello) + message(b"\0\1\2\3\xff\xff\0\0", 1) + message(steps[0])


def conversations_about_sequences() -> Iterator[bytes]:
    """Inputs in parts, runs and outputs: in order, repeated, out of order, of too many steps, before there is a run."""
    hello, outputs, last = b"\1", struct.pack("<BHH", 12, 3, 0), struct.pack("<BHH", 12, 1, 2)
    inputs = [struct.pack("<BHH", 10, n, first) + bytes(range(6 * n)) for n, first in ((1, 0), (2, 1), (3, 61))]
    runs = [struct.pack("<BHH", 11, n, 0) for n in (1, 3, 64, 65)]
    requests = [hello, *inputs, runs[1], outputs, last, b"\7", *runs, struct.pack("<BHH", 12, 25, 39)]
    yield b"".join(map(message, requests))
    yield b"".join(message(request) + message(b"", 16) for request in requests)
    yield b"".join(map(message, [hello, outputs, runs[3], inputs[0], runs[0], outputs]))


def conversations_with_a_model() -> Iterator[bytes]:
    """Models of 1 and 3 inputs that are sent in parts, loaded and run; then loaded again with a byte changed."""
    for plan in (PLANS[0], HARNESS_PLAN):
        blob = to_blob(from_oracle(random_model(plan, seed=1)))
        parts = [struct.pack("<BI", 8, at) + blob[at : at + 100] for at in range(0, len(blob), 100)]
        load = struct.pack("<BI", 9, len(blob))
        step = struct.pack("<BHH", 3, 1, 0) + bytes(2 * plan.n_inputs)
        requests = [b"\1", *parts, load, step, b"\2", struct.pack("<BBBH", 4, 0, 0, 0)]
        yield b"".join(map(message, requests))
        yield b"".join(map(message, [*requests[:-2], struct.pack("<BIB", 8, 60, 9), load, step]))


def frames() -> Iterator[bytes]:
    """Room for a frame, then bytes: without zeros, with zeros, as long as a block and longer."""
    for n in (10, 24, 254, 255, 300, 600):
        yield bytes([255]) + bytes(range(1, 11)) + b"\1" * (n - 10)
        yield bytes([n & 255]) + bytes(n)
        yield bytes([20]) + bytes(i % 251 for i in range(n))


# ---- targets --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """A program of tools/fuzz, the sources of the firmware that it needs, and how long its inputs can be.

    held  the folder of the harness that says where its model is
    plan  of the model that is compiled in
    """

    name: str
    program: str
    sources: Sequence[str]
    seeds: Callable[[], Iterator[bytes]]
    most_bytes: int
    held: str | None = None
    plan: Plan | None = None


HARNESS = ["harness/*.c", "src/*.c"]
TARGETS = [
    Target("frames", "frames", ["harness/frames.c", "src/qg_check.c"], frames, 600),
    Target("compiled", "harness", HARNESS, conversations, 250, "compiled", HARNESS_PLAN),
    Target("sequences", "harness", HARNESS, conversations_about_sequences, 250, "compiled", SEQUENCE_PLAN),
    Target("loaded", "harness", [*HARNESS, "harness/loaded/*.c"], conversations_with_a_model, 500, "loaded"),
    Target("load", "load", ["harness/model_digest.c", "harness/sha256.c", "src/*.c"], blobs, 2000),
]


@dataclass(frozen=True)
class Outcome:
    """What libFuzzer says at the end. `reached` counts the inputs, or parts of them, that got as far as they can."""

    inputs: int
    per_second: int
    edges: int
    reached: str
    failure: str  # empty: none


def build(target: Target, firmware: Path, folder: Path) -> Path:
    """Compiles a target; a model that is compiled in is exported into `folder`."""
    programs = Path(__file__).with_name("fuzz")
    sources = [programs / f"{target.program}.c", programs / "fuzz.c"]
    sources += [path for pattern in target.sources for path in sorted(firmware.glob(pattern)) if path.name != "main.c"]
    harness = firmware / "harness"
    places = [programs, firmware / "include", harness]
    if target.held is not None:
        places.append(harness / target.held)
    if target.plan is not None:
        export(from_oracle(random_model(target.plan, seed=1)), folder / "export", "model")
        sources.append(folder / "export" / "model.c")
        places.append(folder / "export")
    command = ["-std=c99", "-O2", "-g", *WARNINGS, *SANITIZERS, *(f"-I{place}" for place in places)]
    subprocess.run([clang(), *command, *map(str, sources), "-o", str(folder / "fuzz")], check=True)
    return folder / "fuzz"


def clang() -> str:
    for name in ("clang", "clang-14"):
        if path := shutil.which(name):
            return path
    sys.exit(f"clang is missing; {INSTALL}")


def fuzz(target: Target, firmware: Path, inputs: int) -> Outcome:
    """Runs a target from its seeds on."""
    FAILED.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="quantgru_fuzz_") as name:
        folder = Path(name)
        program = build(target, firmware, folder)
        (folder / "corpus").mkdir()
        for i, seed in enumerate(target.seeds()):
            (folder / "corpus" / f"seed{i}").write_bytes(seed)
        options = [f"-runs={inputs}", f"-max_len={target.most_bytes}", "-seed=1", "-timeout=10", "-print_final_stats=1"]
        options += [f"-artifact_prefix={FAILED}/{target.name}-", str(folder / "corpus")]
        result = subprocess.run([program, *options], capture_output=True, text=True, errors="replace", check=False)
    return read_outcome(result.stderr, result.returncode)


def read_outcome(said: str, exit_code: int) -> Outcome:
    def last(pattern: str) -> str:
        return (re.findall(pattern, said, re.MULTILINE) or ["0"])[-1]

    summary = re.search(r"^SUMMARY: (.*)", said, re.MULTILINE)
    failure = "" if exit_code == 0 else summary[1] if summary else f"exit code {exit_code}"
    return Outcome(
        int(last(r"stat::number_of_executed_units: (\d+)")),
        int(last(r"stat::average_exec_per_sec: +(\d+)")),
        int(last(r" cov: (\d+)")),
        last(r"stat::reached: (.*)"),
        failure,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=INPUTS, help="for each target")
    parser.add_argument("--target", choices=[target.name for target in TARGETS], action="append")
    parser.add_argument("--firmware", type=Path, default=firmware_directory(), help="the C sources, or a copy to try")
    arguments = parser.parse_args()
    chosen = [target for target in TARGETS if arguments.target is None or target.name in arguments.target]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        running = pool.map(lambda target: fuzz(target, arguments.firmware, arguments.inputs), chosen)
        outcomes = list(track(running, "fuzzing", total=len(chosen), console=Console(stderr=True)))
    table = Table("target", "inputs", "per second", "edges", "reached", "failure", title="libFuzzer, ASan and UBSan")
    for target, outcome in zip(chosen, outcomes, strict=True):
        figures = (f"{number:,}" for number in (outcome.inputs, outcome.per_second, outcome.edges))
        table.add_row(target.name, *figures, outcome.reached, outcome.failure or "none")
    Console(width=120).print(table)
    sys.exit(any(outcome.failure for outcome in outcomes))


if __name__ == "__main__":
    main()
