"""Mutated model files for every importer: what came of them, the slowest, and the memory that they took.

    python tools/bench_import_fuzz.py [files of each type, 3000]

Exit code 1 if any gave something else than a model or one of our errors.
"""

from __future__ import annotations

import multiprocessing
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from import_fuzz import SOURCES, Outcome, fuzz
from rich.console import Console
from rich.progress import track
from rich.table import Table


def run(suffix: str, n: int, folder: Path, outcomes: multiprocessing.Queue[tuple[str, Outcome]]) -> None:
    outcomes.put((suffix, fuzz(suffix, n, folder)))


def main() -> None:
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 3000
    context = multiprocessing.get_context("spawn")  # a process of its own for each type: its peak of memory is its own
    outcomes: multiprocessing.Queue[tuple[str, Outcome]] = context.Queue()
    table = Table("type", "files", "loaded", "refused", "other", "slowest", "memory")
    failures: list[str] = []
    folder = Path(tempfile.mkdtemp(prefix="quantgru-fuzz-"))
    for suffix in track(SOURCES, "mutating", console=Console(stderr=True)):
        process = context.Process(target=run, args=(suffix, n, folder, outcomes))
        process.start()
        _, outcome = outcomes.get()
        process.join()
        failures += outcome.failures
        table.add_row(
            suffix,
            f"{outcome.n:,}",
            f"{outcome.loaded:,}",
            f"{sum(outcome.refused.values()):,}",
            f"{len(outcome.failures):,}",
            f"{1000 * outcome.slowest_s:.0f} ms",
            f"{outcome.grown_mib:.0f} MiB",
        )
    Console(width=120).print(table)
    for failure in failures[:20]:
        print(failure)
    if failures:
        sys.exit(f"{len(failures)} files gave something else; they are in {folder}")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
