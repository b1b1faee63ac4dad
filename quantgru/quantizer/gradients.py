"""How a weighted sum of the states of a GRU layer depends on its pre-activations: gradients through all steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from quantgru.activations import SLOPES
from quantgru.array_types import BoolArray, FloatArray
from quantgru.model import Gate, Gru


@dataclass(frozen=True, eq=False)
class Steps:
    """What a layer computed for some sequences, in real numbers [steps, sequences, ...].

    running  [steps, sequences, 1]: false in padding
    h        before the step [..., units]
    """

    running: BoolArray
    h: FloatArray
    z: FloatArray
    r: FloatArray
    n: FloatArray


def pre_activation_gradients(layer: Gru, steps: Steps, of_states: FloatArray) -> FloatArray:
    """Gradients of Σ of_states * h for what z, r and n are functions of [steps, sequences, 3 * units].

    of_states  [steps, sequences, units], of h after each step; zero in padding
    """
    found = np.empty((*of_states.shape[:2], 3 * layer.n_units))
    for t, of_step in _back(layer, steps, of_states):
        found[t] = of_step
    return found


def over_steps(of_rows: FloatArray, operands: FloatArray) -> FloatArray:
    """Σ of products over the steps [sequences, rows, columns], of [steps, sequences, rows] and [..., columns]."""
    return np.asarray(np.moveaxis(of_rows, 0, 2) @ np.moveaxis(operands, 0, 1))


def _back(layer: Gru, steps: Steps, of_states: FloatArray) -> Iterator[tuple[int, FloatArray]]:
    """From the last step to the first: its number, and gradients [sequences, 3 * units]."""
    h, z, r, n = steps.h, steps.z, steps.r, steps.n
    gates_u, candidate_u = np.concatenate(layer.recurrent_weights[: Gate.N]), layer.recurrent_weights[Gate.N]
    gate, candidate = SLOPES[layer.gate], SLOPES[layer.candidate]
    z_slope, r_slope, n_slope = gate(z) * (h - n), gate(r), candidate(n) * (1 - z)
    inside = h @ candidate_u.T + layer.recurrent_bias if layer.reset == "after" else h  # what r multiplies
    of_h = np.zeros(of_states.shape[1:])
    for t in reversed(range(len(of_states))):
        of_h = of_h + of_states[t]
        live = np.where(steps.running[t], of_h, 0.0)  # a step of padding leaves h as it is
        a_z, a_n = live * z_slope[t], live * n_slope[t]
        if layer.reset == "after":
            a_r = a_n * inside[t] * r_slope[t]
            through = a_n * r[t] @ candidate_u
        else:
            of_reset_h = a_n @ candidate_u
            a_r = of_reset_h * inside[t] * r_slope[t]
            through = of_reset_h * r[t]
        through += live * z[t] + np.concatenate((a_z, a_r), axis=-1) @ gates_u
        of_h = np.where(steps.running[t], through, of_h)
        yield t, np.concatenate((a_z, a_r, a_n), axis=-1)
