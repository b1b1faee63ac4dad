"""What makes up for rounding errors of a GRU layer's weights: biases, and weights of U for those of W."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from quantgru.array_types import FloatArray
from quantgru.model import Gate, Gru
from quantgru.quantizer.calibrate import GruStatistics
from quantgru.quantizer.rounding import rows_of_groups


@dataclass(frozen=True, eq=False)
class GruCompensation:
    """Of one layer. An error is a weight less what it becomes. Units that follow each other form groups, maybe of one.

    input           curvatures of what errors of W cost the states, U and biases being at their best: of each gate
                    [groups, inputs, inputs]; None where weights are rounded to nearest
    recurrent       the same of U [groups, units, units], biases being at their best
    taken_over      change of the weights of U for errors of W [gates, groups, units, inputs]
    bias            change of the bias for errors of W and U [gates, groups, 1, inputs + units]
    recurrent_bias  the same [1, groups, 1, inputs + units]; zeros for reset "before"
    """

    input: tuple[FloatArray, FloatArray, FloatArray] | None
    recurrent: tuple[FloatArray, FloatArray, FloatArray] | None
    taken_over: FloatArray
    bias: FloatArray
    recurrent_bias: FloatArray

    def recurrent_change(self, lost_input: FloatArray) -> FloatArray:
        """What weights of U take over [gates, units, units] of errors of W [gates, units, inputs]."""
        return _by_group(self.taken_over, lost_input)

    def bias_change(self, lost: FloatArray) -> FloatArray:
        """[gates, units], for errors of W and U side by side [gates, units, inputs + units]."""
        return _by_group(self.bias, lost)[..., 0]

    def recurrent_bias_change(self, lost: FloatArray) -> FloatArray:
        """[units], for the same errors."""
        return _by_group(self.recurrent_bias, lost[Gate.N :])[0, :, 0]


def _by_group(maps: FloatArray, lost: FloatArray) -> FloatArray:
    """Each row's product with the matrix of its group: [gates, units, results], of [gates, groups, results, columns]
    and [gates, units, columns]."""
    groups = enumerate(rows_of_groups(lost.shape[1], maps.shape[1]))
    return np.concatenate([lost[:, units] @ np.swapaxes(maps[:, group], 1, 2) for group, units in groups], axis=1)


def of_means(layer: Gru, seen: GruStatistics) -> GruCompensation:
    """Biases give back what errors take from the means of sums, and that is all."""
    of_states = [seen.states.mean, seen.states.mean, seen.candidate_states.mean]
    bias = np.stack([np.concatenate((seen.inputs.mean, of_gate)) for of_gate in of_states])[:, None, None]
    recurrent_bias = np.zeros((1, *bias.shape[1:]))
    if layer.reset == "after":  # what U_n loses is inside the reset product, like its bias
        recurrent_bias[..., layer.n_inputs :] = bias[Gate.N :, ..., layer.n_inputs :]
        bias[Gate.N, ..., layer.n_inputs :] = 0.0
    taken_over = np.zeros((3, 1, layer.n_units, layer.n_inputs))
    return GruCompensation(None, None, taken_over, bias, recurrent_bias)
