"""The simulator against PyTorch's float GRU: one thread, one sequence at a time, both in the same run.

    python tools/bench_simulator.py

The two run in turn; the ratio is the median over the pairs, so that a machine whose speed drifts does not matter.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import quantgru as qg

SHAPES = ((10, 154), (16, 32), (40, 64), (3, 16))
STEPS = 1000


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(inputs: int, units: int, pairs: int) -> tuple[float, float, float]:
    """Microseconds a step of the simulator and of PyTorch, and the median ratio."""
    module = torch.nn.GRU(inputs, units, batch_first=True).eval()
    x = np.random.default_rng(0).normal(size=(1, STEPS, inputs)).astype(np.float32)
    int_model = qg.quantize(qg.load(module), x)
    tensor = torch.from_numpy(x)

    def simulator() -> object:
        return qg.run(int_model, x, threads=1)

    def peer() -> object:
        with torch.no_grad():
            return module(tensor)

    simulator(), peer()
    times = [(seconds(simulator), seconds(peer)) for _ in range(pairs)]
    return (
        statistics.median(ours for ours, _ in times) / STEPS * 1e6,
        statistics.median(theirs for _, theirs in times) / STEPS * 1e6,
        statistics.median(theirs / ours for ours, theirs in times),
    )


def first_call() -> tuple[float, float]:
    """Seconds of `quantgru --help`, and of a first simulation in a new process whose kernels are compiled already."""
    simulation = (
        "import time; start = time.perf_counter(); import quantgru as qg; from quantgru.demo import digits; "
        "model, calibration, _, _ = digits(); x = calibration.values[:1]; "
        "qg.simulate(qg.quantize(model, calibration), x); print(time.perf_counter() - start)"
    )
    for _ in range(2):  # the first one compiles, if nobody has yet
        printed = subprocess.run([sys.executable, "-c", simulation], capture_output=True, text=True, check=True).stdout
    command = [sys.executable, "-m", "quantgru", "--help"]
    help_s = min(seconds(lambda: subprocess.run(command, capture_output=True, check=True)) for _ in range(3))
    return help_s, float(printed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=15, help="runs of each (default 15)")
    pairs = parser.parse_args().pairs
    torch.set_num_threads(1)
    title = f"One sequence of {STEPS:,} steps, one thread; PyTorch {torch.__version__} float32"
    table = Table("GRU", "simulator, µs a step", "PyTorch, µs a step", "times faster", "wanted", title=title)
    for inputs, units in SHAPES:
        ours, theirs, ratio = compare(inputs, units, pairs)
        wanted = "≥ 2" if (inputs, units) == (10, 154) else ""
        table.add_row(f"{inputs}→{units}", f"{ours:.2f}", f"{theirs:.2f}", f"{ratio:.2f}", wanted)
    console = Console(width=120)
    console.print(table)
    help_s, call_s = first_call()
    console.print(f"quantgru --help: {help_s:.2f} s (wanted: < 0.4)")
    console.print(
        f"first call in a new process, kernels compiled before, import included: {call_s:.2f} s (wanted: < 3)"
    )


if __name__ == "__main__":
    main()
