"""What rounding errors of a GRU layer's weights do to its states over whole sequences, row by row."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from quantgru.array_types import BoolArray, FloatArray, IntArray
from quantgru.model import FloatModel, Gate, Gru
from quantgru.model.run import BodyRun, Cell, FloatSignal, gates
from quantgru.quantizer.calibrate import Calibration, GruStatistics, Moments
from quantgru.quantizer.compensation import GruCompensation, of_means
from quantgru.quantizer.gradients import Steps, over_steps, pre_activation_gradients
from quantgru.quantizer.rounding import RoundingName, least_steps, rows_of_groups

_LONGEST_PIECE: Final = 256  # of a sequence, in steps: what a weight does later than that is left out
_PIECES_PER_COLUMN: Final = 8  # to go by, of all columns of a row
_LEAST_PIECES: Final = 256  # few columns cost little
_STEPS: Final = 2**18  # in all of them
_VALUES: Final = 2**23  # in memory at the same time
_CURVATURE_VALUES: Final = 2**25  # beyond, neighbouring units share theirs
_DAMPING: Final = 1e-2  # of the mean curvature, where weights of U take over
_BIAS_DAMPING: Final = 1e-9
_LEAST_DEVIATION: Final = 1e-100  # of what changes: squares of smaller ones are none


def compensations(
    model: FloatModel, body: BodyRun, seen: Calibration, rounding: RoundingName
) -> tuple[GruCompensation, ...]:
    """Of each of `FloatModel.grus`, by what was seen of `body`; to nearest if so asked, or with too little data."""
    found = []
    for layer, x, states, start, of_layer in zip(
        model.grus, body.gru_inputs, body.states, body.starts, seen.grus, strict=True
    ):
        if rounding == "nearest" or seen.n_steps < least_steps(layer.n_inputs + layer.n_units):
            found.append(of_means(layer, of_layer))
        else:
            found.append(_over_sequences(layer, x, states, start, of_layer))
    return tuple(found)


def _over_sequences(
    layer: Gru, x: FloatSignal, states: FloatArray, start: FloatArray, seen: GruStatistics
) -> GruCompensation:
    """By Gauss-Newton around the float run: the squares of the states' error, as they depend on each row by itself.

    For a vector s of random signs, one for each state of each step, the gradient g of s . states has, on average, the
    states' Jacobian J in its products: the mean of g g^T is J^T J.
    """
    rng = np.random.default_rng(0)
    pieces = Pieces.of(x.lengths)
    longest = int(pieces.n_steps.max())
    n_wanted = max(_LEAST_PIECES, _PIECES_PER_COLUMN * (layer.n_inputs + layer.n_units))
    n = min(n_wanted, -(-_STEPS // longest))
    at_once = max(1, _VALUES // (3 * layer.n_units * max(longest, layer.n_inputs + layer.n_units)))
    chosen = np.resize(rng.permutation(len(pieces.n_steps)), n)
    sums = _Sums(layer, seen)
    for few in np.array_split(chosen, -(-n // at_once)):
        part, steps = pieces.cut(few, layer, x, states, start)
        signs = rng.integers(0, 2, steps.h.shape, np.int8) * 2.0 - 1
        with np.errstate(over="ignore", invalid="ignore"):  # chaotic states: such rows are left out
            sums.add(part, steps, signs)
    return sums.compensation()


class Pieces(NamedTuple):
    """Of sequences, all [pieces]: the number of the sequence, the first step, and how many there are."""

    sequence: IntArray
    first: IntArray
    n_steps: IntArray

    @classmethod
    def of(cls, lengths: IntArray) -> Pieces:
        n_pieces = -(-lengths // _LONGEST_PIECE)
        sequence = np.repeat(np.arange(len(lengths)), n_pieces)
        first = np.concatenate([np.arange(n) * _LONGEST_PIECE for n in n_pieces])
        return cls(sequence, first, np.minimum(lengths[sequence] - first, _LONGEST_PIECE))

    def cut(
        self, chosen: IntArray, layer: Gru, x: FloatSignal, states: FloatArray, start: FloatArray
    ) -> tuple[FloatArray, Steps]:
        """x [steps, pieces, inputs] of these pieces, and what the layer computes there: its states are known.

        start  h before the sequences [sequences, units]
        """
        sequence, first, n_steps = (of_pieces[chosen] for of_pieces in self)
        t = np.arange(n_steps.max())[:, None]
        at = np.minimum(first + t, x.values.shape[1] - 1)
        h = np.where((at > 0)[..., None], states[sequence, np.maximum(at - 1, 0)], start[sequence])
        read = x.values[sequence, at]
        return read, Steps((t < n_steps)[..., None], h, *gates(layer, read, h, Cell.of(layer)))


class _Operands(NamedTuple):
    """Sums are made of standardised operands.

    changing         which ones ever do [columns]
    mean, deviation  [columns]; the deviation is 1 where there is none
    correlation      [columns, columns], 0 where there is none
    """

    changing: BoolArray
    mean: FloatArray
    deviation: FloatArray
    correlation: FloatArray

    @classmethod
    def of(cls, moments: Moments) -> _Operands:
        deviation = np.sqrt(np.diag(moments.covariance))
        changing = deviation > _LEAST_DEVIATION
        deviation = np.where(changing, deviation, 1.0)
        correlation = np.where(np.outer(changing, changing), moments.covariance, 0.0) / np.outer(deviation, deviation)
        return cls(changing, moments.mean, deviation, correlation)

    def standardised(self, values: FloatArray) -> FloatArray:
        return (values - self.mean) / self.deviation


class _Sums:
    """Σ g g^T of gradients g of a row's weights of W and of U on standardised operands, then of its biases.

    squares  Σ |g|^2 and Σ |g|^4 [groups] of each gate, which tell how many gradients count
    """

    def __init__(self, layer: Gru, seen: GruStatistics) -> None:
        self._layer = layer
        self._inputs, self._states = _Operands.of(seen.inputs), _Operands.of(seen.states)
        self._candidate_states = _Operands.of(seen.candidate_states)
        self._n_steps = seen.inputs.n
        n = layer.n_inputs + layer.n_units
        n_groups = min(layer.n_units, max(1, _CURVATURE_VALUES // (3 * n**2)))
        self._units = rows_of_groups(layer.n_units, n_groups)
        n_biases = (1, 1, 2 if layer.reset == "after" else 1)
        self._products = [np.zeros((n_groups, n + biases, n + biases)) for biases in n_biases]
        self._squares = np.zeros((3, 2, n_groups))

    def add(self, x: FloatArray, steps: Steps, signs: FloatArray) -> None:
        """x [steps, pieces, inputs]; signs [steps, pieces, units]"""
        layer, units = self._layer, self._layer.n_units
        of_sums = pre_activation_gradients(layer, steps, np.where(steps.running, signs, 0.0))
        standard_x = self._inputs.standardised(x)
        one = np.ones((*of_sums.shape[:2], 1))
        with_h = np.concatenate((standard_x, self._states.standardised(steps.h), one), axis=2)
        self._add(Gate.Z, over_steps(of_sums[..., :units], with_h))
        self._add(Gate.R, over_steps(of_sums[..., units : 2 * units], with_h))
        of_n = of_sums[..., 2 * units :]
        if layer.reset == "after":
            with_x = np.concatenate((standard_x, one), axis=2)
            from_x, from_h = over_steps(of_n, with_x), over_steps(of_n * steps.r, with_h[..., layer.n_inputs :])
            weights = from_x[..., :-1], from_h[..., :-1]
            self._add(Gate.N, np.concatenate((*weights, from_x[..., -1:], from_h[..., -1:]), axis=2))
        else:
            reset_h = self._candidate_states.standardised(steps.r * steps.h)
            self._add(Gate.N, over_steps(of_n, np.concatenate((standard_x, reset_h, one), axis=2)))

    def _add(self, gate: Gate, gradients: FloatArray) -> None:
        """gradients [sequences, units, parameters of a row]"""
        squares = np.einsum("sup,sup->su", gradients, gradients)
        for group, units in enumerate(self._units):
            of_group = gradients[:, units].reshape(-1, gradients.shape[2])
            self._products[gate][group] += of_group.T @ of_group
            self._squares[gate, :, group] += squares[:, units].sum(), (squares[:, units] ** 2).sum()

    def compensation(self) -> GruCompensation:
        z, r, n = (self._best(gate) for gate in Gate)
        bias = np.stack([of_gate.biases[:, :1] for of_gate in (z, r, n)])
        recurrent_bias = np.zeros((1, *bias.shape[1:]))
        if self._layer.reset == "after":
            recurrent_bias[0] = n.biases[:, 1:]
        return GruCompensation(
            (z.input, r.input, n.input),
            (z.recurrent, r.recurrent, n.recurrent),
            np.stack([z.taken_over, r.taken_over, n.taken_over]),
            bias,
            recurrent_bias,
        )

    def _best(self, gate: Gate) -> _Best:
        """Least squares of g . errors, where biases change as they please, then weights of U for errors of W."""
        states = self._candidate_states if gate == Gate.N else self._states
        n_inputs, n = len(self._inputs.mean), len(self._inputs.mean) + len(states.mean)
        curvature = self._shrunk(gate, states)
        biases = _biases(curvature[:, n:, n:], curvature[:, n:, :n])
        curvature = curvature[:, :n, :n] - np.swapaxes(curvature[:, n:, :n], 1, 2) @ biases
        taken_over = _taken_over(curvature, n_inputs, states)
        of_both = curvature[:, n_inputs:, :n_inputs]
        of_w = curvature[:, :n_inputs, :n_inputs] - np.swapaxes(of_both, 1, 2) @ taken_over
        of_u = curvature[:, n_inputs:, n_inputs:]

        # From standardised operands to real ones.
        w, u = self._inputs.deviation, states.deviation
        means = np.zeros((biases.shape[1], n))
        means[0, :n_inputs], means[-1, n_inputs:] = self._inputs.mean, states.mean
        return _Best(
            of_w * np.outer(w, w),
            of_u * np.outer(u, u),
            taken_over * w / u[:, None],
            biases * np.concatenate((w, u)) + means,
        )

    def _shrunk(self, gate: Gate, states: _Operands) -> FloatArray:
        """Curvature [groups, parameters, parameters] of weights and biases.

        What few gradients say of a group is blended with the mean of all groups, brought to that group's size; and that
        with the correlation of the operands, which is what it would be if all steps counted alike.
        """
        products, (squares, fourth_powers) = self._products[gate], self._squares[gate]
        usable = np.isfinite(fourth_powers) & (fourth_powers > 0)
        n_counting = np.zeros(len(squares))
        n_counting[usable] = np.minimum(squares[usable] ** 2 / fourth_powers[usable], self._n_steps)
        products[~usable] = 0.0
        n_inputs, n = len(self._inputs.mean), len(self._inputs.mean) + len(states.mean)
        plain = np.eye(products.shape[1])
        sizes = np.einsum("gpp->gp", products).copy()
        for part, operands in ((slice(n_inputs), self._inputs), (slice(n_inputs, n), states)):
            plain[part, part] = operands.correlation
            sizes[:, part] = sizes[:, part].mean(axis=1, keepdims=True)
        sizes = np.sqrt(np.where(sizes > 0, sizes, 1.0))
        products /= sizes[:, :, None] * sizes[:, None]
        of_all = products.sum(axis=0) / max(1, usable.sum())
        of_all = _blend(of_all, n_counting.sum(), plain)
        found = _blend(products, n_counting[:, None, None], of_all)
        return np.asarray(found * (sizes[:, :, None] * sizes[:, None]))


def _biases(of_biases: FloatArray, coupling: FloatArray) -> FloatArray:
    """Their changes [groups, biases, weights] for errors of weights; curvatures of biases, and of these and weights.

    The recurrent bias is inside the reset product, where r that is shut leaves it next to no effect: damped by what the
    other one has, it does not grow without limit.
    """
    noise = _BIAS_DAMPING * np.einsum("gbb->g", of_biases)[:, None, None] * np.eye(of_biases.shape[1])
    noise[:, 1:, 1:] += _DAMPING * of_biases[:, :1, :1]
    return np.asarray(np.linalg.solve(of_biases + noise, coupling))


def _taken_over(curvature: FloatArray, n_inputs: int, states: _Operands) -> FloatArray:
    """Changes of U's weights for errors of W [groups, units, inputs], on standardised operands.

    Noise is the same on all states, as they are: weights on a state that hardly moves would have to grow by as much as
    it is small. And it is no less than curvatures of W make it: where r is shut, U has next to no effect on n
    """
    of_w, of_u = (np.einsum("gcc->gc", curvature)[:, part] for part in (slice(n_inputs), slice(n_inputs, None)))
    variance = states.deviation**2
    of_states = np.maximum(of_u, of_w.mean(axis=1, keepdims=True)) * np.where(states.changing, variance, 0.0)
    size = of_states.sum(axis=1) / max(1, states.changing.sum())
    noise = np.where(size > 0, _DAMPING * size, 1.0)[:, None] / variance
    damped = curvature[:, n_inputs:, n_inputs:] + noise[..., None] * np.eye(len(variance))
    return np.asarray(np.linalg.solve(damped, curvature[:, n_inputs:, :n_inputs]))


def _blend(found: FloatArray, n: FloatArray | np.float64, prior: FloatArray) -> FloatArray:
    """Of what n gradients give, and of what stands for as many as there are parameters."""
    share = len(prior) / (len(prior) + n)
    return np.asarray((1 - share) * found + share * prior)


class _Best(NamedTuple):
    """Of one gate, as `GruCompensation` has them; biases [groups, biases, columns]."""

    input: FloatArray
    recurrent: FloatArray
    taken_over: FloatArray
    biases: FloatArray
