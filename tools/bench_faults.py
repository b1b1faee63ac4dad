"""Faults on the line between host and board: the firmware is that of the host board, the clock does not wait.

    python tools/bench_faults.py [faults of each kind, 10000]
    python tools/bench_faults.py --kind "bit flips" --run 1234

The second form repeats one run: all that happens in it follows from its kind and its number. The exit code is 1 if
there was a wrong verdict, a hang, or a fault that should have been recovered and was not.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from fault_boards import Boards
from fault_campaign import KINDS, Laboratory, Tally, campaign, try_one
from rich.console import Console
from rich.progress import track
from rich.table import Table


def run_kind(arguments: tuple[str, int]) -> tuple[str, Tally]:
    kind, n_faults = arguments
    with Boards() as boards:
        return kind, campaign(Laboratory(boards), kind, n_faults)


def run_all(n_faults: int) -> dict[str, Tally]:
    """All kinds, each in a process of its own, as many at once as there are processors."""
    slowest_first = [(kind, n_faults) for kind in reversed(KINDS)]
    with multiprocessing.get_context("spawn").Pool(os.cpu_count(), maxtasksperchild=1) as pool:
        found = pool.imap_unordered(run_kind, slowest_first, chunksize=1)
        tallies = dict(track(found, "injecting", len(KINDS), console=Console(stderr=True)))
    return {kind: tallies[kind] for kind in KINDS}


def run_one(kind: str, number: int) -> dict[str, Tally]:
    tally = Tally()
    with Boards() as boards:
        try_one(Laboratory(boards), kind, number, tally)
    return {kind: tally}


def show(tallies: dict[str, Tally], seconds: float) -> None:
    columns = (
        "faults",
        "runs",
        "recovered",
        "noticed",
        "wrong verdicts",
        "hangs",
        "other failures",
        "requests again",
        "longest run, s",
    )
    table = Table("kind", title=f"faults on the line, {seconds:.0f} s")
    for column in columns:
        table.add_column(column, justify="right")
    for kind, tally in tallies.items():
        bad = map(len, (tally.wrong_verdicts, tally.hangs, tally.failures))
        counts = (tally.faults, tally.runs, tally.results["recovered"], tally.results["noticed"], *bad, tally.repeats)
        table.add_row(kind, *(f"{count:,}" for count in counts), f"{tally.longest_s:.1f}")
    Console(width=130).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faults", nargs="?", type=int, default=10_000, help="of each kind")
    parser.add_argument("--kind", choices=KINDS, help="of the one run to repeat")
    parser.add_argument("--run", type=int, default=0, help="its number")
    arguments = parser.parse_args()
    start = time.monotonic()
    tallies = run_one(arguments.kind, arguments.run) if arguments.kind else run_all(arguments.faults)
    show(tallies, time.monotonic() - start)
    wrong = [line for tally in tallies.values() for line in tally.wrong_verdicts + tally.hangs + tally.failures]
    for line in wrong[:20]:
        print(line)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
