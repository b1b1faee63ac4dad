"""Derives the table of t(x) = tanh(x / 2) that SPEC.md prints [R6]; `bench_table.py` measures its errors.

Piecewise linear on x = 0 ... 12: spacing 1/32 up to 5, then 1/8. Between two nodes t is concave, so a chord through
the curve lies below it by up to h^2/8 |t''|. Lifting each node by half of that leaves an error of the same size on
both sides, which is the smallest that a chord can have (minimax).

    python tools/activation_table.py            the entries, as SPEC.md and the sources hold them
"""

from __future__ import annotations

import argparse

import numpy as np

FINE, COARSE = 1 / 32, 1 / 8


def table() -> list[int]:
    """Returns the 217 nodes, unsigned with 16 fraction bits."""
    x = np.concatenate([np.arange(0, 5, FINE), np.arange(5, 12 + COARSE, COARSE)])
    spacing = np.where(x < 5, FINE, COARSE)
    t = np.tanh(x / 2)
    second_derivative = -t * (1 - t * t) / 2
    nodes = np.round((t - spacing**2 / 16 * second_derivative) * 2**16)
    return [int(node) for node in np.minimum(nodes, 2**16 - 1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    entries = [f"{entry}," for entry in table()]
    for start in range(0, len(entries), 12):
        print("    " + " ".join(entries[start : start + 12]))


if __name__ == "__main__":
    main()
