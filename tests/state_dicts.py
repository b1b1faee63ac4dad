"""State dicts of one GRU layer in numpy, and what it computes: the formulas of nn.GRU's documentation."""

from __future__ import annotations

from pathlib import Path

import numpy as np

FOLDER = Path(__file__).resolve().parent / "models" / "pytorch"  # recorded files
TOLERANCE = 1e-12  # of the largest value; measured: 3e-15


def close(found, expected):
    return found.shape == expected.shape and np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()


def arrays_of(rng, n_inputs=2, units=3, bias=True, prefix="gru.", suffix="_l0"):
    """A state dict of one GRU layer in numpy."""
    shapes = {"weight_ih": (3 * units, n_inputs), "weight_hh": (3 * units, units)}
    if bias:
        shapes |= {"bias_ih": (3 * units,), "bias_hh": (3 * units,)}
    return {f"{prefix}{name}{suffix}": rng.normal(size=shape) for name, shape in shapes.items()}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def states_of(state, x, prefix="gru.", gate=sigmoid, candidate=np.tanh):
    """Rows r, z, n, as in the documentation of nn.GRU, one sequence at a time."""
    weights, recurrent, bias, recurrent_bias = (
        np.split(state[f"{prefix}{name}_l0"], 3) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    h, states = np.zeros(recurrent[0].shape[1]), []
    for step in x:
        from_x = [w @ step + b for w, b in zip(weights, bias, strict=True)]
        from_h = [u @ h + b for u, b in zip(recurrent, recurrent_bias, strict=True)]
        r, z = gate(from_x[0] + from_h[0]), gate(from_x[1] + from_h[1])
        n = candidate(from_x[2] + r * from_h[2])
        h = (1 - z) * n + z * h
        states.append(h)
    return np.array(states)
