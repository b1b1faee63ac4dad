"""The proof of an import: the graph's own arithmetic, on random numbers, gives what the float model gives.

The layers are read off the last step alone. That all the others do the same, and each sequence for itself, shows here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from quantgru.errors import ModelError
from quantgru.importers.tensorflow1_errors import WITHOUT_IT, refused
from quantgru.importers.tensorflow1_graph import Graph
from quantgru.importers.tensorflow1_inputs import Placeholders, SequencesInput, StateInput
from quantgru.importers.tensorflow1_ops import LARGEST_RANDOM, Operations
from quantgru.importers.tensorflow1_run import Run
from quantgru.importers.tensorflow1_trace import Trace
from quantgru.importers.verify import LEFT_OUT, difference
from quantgru.model import Embedding, FloatModel, Reverse

Array = npt.NDArray[Any]

TOLERANCE: Final = 1e-6  # of the largest output
N_SEQUENCES: Final = 5
N_STEPS: Final = (3, 6, 130)  # a graph may pick a step by its number, or see no more than the last hundred

BY_ARRAYS: Final = "qg.from_arrays('tensorflow1', ...) takes the weights of a single cell"


@dataclass(frozen=True)
class Case:
    """x         [sequences, steps, features]
    lengths  of the sequences
    states   what the placeholders of initial states hold, by name
    """

    x: Array
    lengths: Array
    states: Mapping[str, Array]


@dataclass(frozen=True)
class Proof:
    """A graph, and how it takes sequences, initial states of GRU layers, and lengths."""

    graph: Graph
    output: str
    placeholders: Placeholders
    sequences: SequencesInput
    states: tuple[StateInput | None, ...]

    def check(self, where: str, model: FloatModel, left_out: str | None) -> None:
        """Raises ModelError where the graph gives something else than `model`, with what the model left out."""
        for case in self._cases(model):
            found = LEFT_OUT[left_out](self._of_model(model, case))
            expected = self._of_graph(model, case, found)
            if expected.shape != found.shape:
                raise refused(where, f"gives shape {expected.shape}, its import gives {found.shape}", BY_ARRAYS)
            error = difference(expected, found)
            if not error <= TOLERANCE:  # also true for NaN
                raise self._differs(where, case, error)

    def _cases(self, model: FloatModel) -> Iterator[Case]:
        any_sequences, any_steps = self.sequences.any_count
        n_sequences = N_SEQUENCES if any_sequences else self.sequences.counts[0]
        generator = np.random.default_rng(20190429)
        for n_steps in N_STEPS if any_steps else (self.sequences.counts[1],):
            x = _random_input(generator, model, n_sequences, n_steps)
            states = {
                state.name: generator.standard_normal(self._state_shape(state.name, n_sequences))
                for state in self.states
                if state is not None
            }
            yield Case(x, np.full(n_sequences, n_steps), states)
            if self.placeholders.lengths:
                yield Case(x, n_steps - (1 + np.arange(n_sequences)) % n_steps, states)

    def _state_shape(self, name: str, n_sequences: int) -> tuple[int, ...]:
        *layers, _, units = self.placeholders.sizes[name]
        return *layers, n_sequences, units

    def _of_model(self, model: FloatModel, case: Case) -> Array:
        """[sequences, outputs] of a last step; otherwise one row for each step of each sequence."""
        x = [rows[:length] for rows, length in zip(case.x, case.lengths, strict=True)]
        outputs = model.run(x, initial_states=self._initial_states(model, case) if case.states else None)
        return np.asarray(outputs if model.last_step else np.concatenate(outputs))

    def _initial_states(self, model: FloatModel, case: Case) -> list[Array]:
        """Of each GRU layer, as an input gives it, or its own."""
        own = [np.zeros(gru.n_units) if gru.initial_state is None else gru.initial_state for gru in model.grus]
        return [h if state is None else state.of(case.states) for h, state in zip(own, self.states, strict=True)]

    def _of_graph(self, model: FloatModel, case: Case, found: Array) -> Array:
        """What the graph gives, in the rows of `found` if it has as many numbers."""
        y = self._run(case, random=0.0)
        n_sequences, n_steps = case.x.shape[:2]
        if model.last_step:
            return y.reshape(found.shape) if y.size == found.size else y
        if y.size != n_sequences * n_steps * found.shape[1]:
            return y
        is_step = np.arange(n_steps) < case.lengths[:, None]
        orders = (
            y.reshape(n_sequences, n_steps, -1)[is_step],
            y.reshape(n_steps, n_sequences, -1).swapaxes(0, 1)[is_step],
        )
        return min(orders, key=lambda rows: difference(rows, found))

    def _run(self, case: Case, random: float) -> Array:
        given = {self.sequences.name: self.sequences.arrange(case.x), **case.states}
        if self.placeholders.lengths:
            given[self.placeholders.lengths.name] = case.lengths
        return np.asarray(Run(self.graph, Operations(Trace(), random), given).value(self.output))

    def _differs(self, where: str, case: Case, error: float) -> ModelError:
        """With the reason, where it is known."""
        random = [node for node in self.graph.needed(self.output) if node.op == "RandomUniform"]
        if random and (self._run(case, 0.0) != self._run(case, LARGEST_RANDOM)).any():
            return refused(random[0], "random numbers change the output, as of dropout that is on", WITHOUT_IT)
        found = f"its import differs by {error:.1e} of the largest output"
        if (case.lengths < case.x.shape[1]).any():
            found += " for unequal lengths: it uses padding"
            return refused(where, found, "take the states that dynamic_rnn returns, and turn with tf.reverse_sequence")
        return refused(where, f"{found}: not every step is computed as the last one is", BY_ARRAYS)


def _random_input(generator: np.random.Generator, model: FloatModel, n_sequences: int, n_steps: int) -> Array:
    first = next(layer for layer in model.layers if not isinstance(layer, Reverse))
    if isinstance(first, Embedding):
        return generator.integers(0, first.n_tokens, (n_sequences, n_steps, 1))
    return generator.standard_normal((n_sequences, n_steps, model.n_inputs))
