"""Errors of sigmoid and tanh over every input, and what the table weighs.

python tools/bench_table.py
"""

from __future__ import annotations

import argparse

import numpy as np
from rich.console import Console
from rich.table import Table

from quantgru.simulator import kernels

LIMIT = 12 * 2**14 - 1  # beyond it, the functions are constant


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    a = np.arange(-LIMIT - 1, LIMIT + 2)
    real = a / 2**14
    table = Table("function", "largest error, LSB of 2^-15", "wanted", "monotone", "symmetric", title="All inputs")
    sigmoid = np.array([kernels.sigmoid(value) for value in a])
    tanh = np.array([kernels.tanh(value) for value in a])
    for name, values, exact, wanted, symmetric in (
        ("sigmoid", sigmoid, 2**15 / (1 + np.exp(-real)), "≤ 0.85", (sigmoid + sigmoid[::-1] == 2**15).all()),
        ("tanh", tanh, 2**15 * np.tanh(real), "≤ 1.10", (tanh == -tanh[::-1]).all()),
    ):
        error = np.abs(values - exact).max()
        table.add_row(name, f"{error:.3f}", wanted, str(bool((np.diff(values) >= 0).all())), str(bool(symmetric)))
    console = Console(width=120)
    console.print(table)
    console.print(f"table: {2 * len(kernels.HALF_TANH)} bytes (wanted: ≤ 450)")


if __name__ == "__main__":
    main()
