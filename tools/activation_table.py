"""Derives the table of t(x) = tanh(x / 2) that SPEC.md prints [R6], and measures what it costs.

Piecewise linear on x = 0 ... 12: spacing 1/32 up to 5, then 1/8. Between two nodes t is concave, so a chord through
the curve lies below it by up to h^2/8 |t''|. Lifting each node by half of that leaves an error of the same size on
both sides, which is the smallest that a chord can have (minimax).

    python tools/activation_table.py            the entries, as SPEC.md and the sources hold them
    python tools/activation_table.py --check    errors over every input, in LSB of 2^-15
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


def errors() -> dict[str, float]:
    """Largest |fixed - real| of sigmoid and tanh over all pre-activations (s32f14), in LSB of 2^-15."""
    from quantgru.activations import sigmoid_q15, tanh_q15

    a = np.arange(-13 * 2**14, 13 * 2**14 + 1)
    real = a / 2**14
    sigmoid, tanh = sigmoid_q15(a), tanh_q15(a)
    assert np.all(np.diff(sigmoid) >= 0) and np.all(np.diff(tanh) >= 0), "not monotone"
    assert np.array_equal(tanh, -tanh[::-1]), "tanh is not odd"
    assert np.array_equal(sigmoid + sigmoid[::-1], np.full(a.shape, 2**15)), "sigmoid is not symmetric"
    return {
        "sigmoid": float(np.abs(sigmoid - 2**15 / (1 + np.exp(-real))).max()),
        "tanh": float(np.abs(tanh - 2**15 * np.tanh(real)).max()),
        "bytes": 2.0 * len(table()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="print the errors over every input")
    if parser.parse_args().check:
        for name, value in errors().items():
            print(f"{name:8} {value:.3f}")
        return
    entries = [f"{entry}," for entry in table()]
    for start in range(0, len(entries), 12):
        print("    " + " ".join(entries[start : start + 12]))


if __name__ == "__main__":
    main()
