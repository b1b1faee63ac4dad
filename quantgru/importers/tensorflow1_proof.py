"""The proof of an import: the graph's own arithmetic, on random numbers, gives what the float model gives.

The layers are read off the last step alone. That all the others do the same, and each sequence for itself, shows here.
That it is so for other numbers of sequences and steps, too, is the matter of tensorflow1_limits.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from quantgru.errors import ModelError
from quantgru.importers.tensorflow1_errors import SMALLER, WITHOUT_IT, refused
from quantgru.importers.tensorflow1_graph import Graph
from quantgru.importers.tensorflow1_inputs import Placeholders, SequencesInput, StateInput
from quantgru.importers.tensorflow1_limits import Limits
from quantgru.importers.tensorflow1_ops import LARGEST_RANDOM, Operations
from quantgru.importers.tensorflow1_run import BUDGET, Run, See, see_nothing
from quantgru.importers.tensorflow1_trace import Trace
from quantgru.importers.verify import LEFT_OUT, difference
from quantgru.model import Embedding, FloatModel, Reverse

Array = npt.NDArray[Any]

TOLERANCE: Final = 1e-6  # of the largest output
SIZES: Final = ((1, 1), (2, 2), (5, 3), (1, 6), (3, 20))  # (sequences, steps), where both may be any
N_SEQUENCES: Final = (1, 2, 5)  # where the number of steps is fixed
PROOF_BUDGET: Final = 32 * BUDGET  # numbers made in all runs
N_LENGTHS: Final = 64  # that are compared in one run, where the number of steps is fixed

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


@dataclass(eq=False)
class Proof:
    """A graph, and how it takes sequences, initial states of GRU layers, and lengths.

    limits  which the trace has told what depends on the input
    """

    graph: Graph
    output: str
    placeholders: Placeholders
    sequences: SequencesInput
    states: tuple[StateInput | None, ...]
    limits: Limits
    _left: int = PROOF_BUDGET

    def check(self, where: str, model: FloatModel, left_out: str | None) -> None:
        """Raises ModelError where the graph gives something else than `model`, with what the model left out."""
        for case in self._cases(model):
            found = LEFT_OUT[left_out](self._of_model(model, case))
            expected = self._of_graph(model, case, found)
            if expected.shape != found.shape:
                self.limits.check()  # says why
                raise refused(where, f"gives shape {expected.shape}, its import gives {found.shape}", BY_ARRAYS)
            error = difference(expected, found)
            if not error <= TOLERANCE:  # also true for NaN
                self.limits.check()
                raise self._differs(where, case, error)
        self.limits.check()
        self.limits.check_loops()

    def _cases(self, model: FloatModel) -> Iterator[Case]:
        generator = np.random.default_rng(20190429)
        for n_sequences, n_steps, lengths in self._sizes():
            x = _random_input(generator, model, n_sequences, n_steps)
            states = {
                state.name: generator.standard_normal(self._state_shape(state.name, n_sequences))
                for state in self.states
                if state is not None
            }
            yield Case(x, lengths, states)

    def _sizes(self) -> Iterator[tuple[int, int, Array]]:
        """Counts of sequences and steps, and lengths; those of a fixed number of steps are all compared."""
        any_sequences, any_steps = self.sequences.any_count
        n_sequences, n_steps = self.sequences.counts
        sizes = SIZES if any_steps else tuple((n, n_steps) for n in N_SEQUENCES)
        for n, steps in sizes if any_sequences else dict.fromkeys((n_sequences, steps) for _, steps in sizes):
            yield n, steps, np.full(n, steps)
            if self.placeholders.lengths and any_steps and steps > 1:
                yield n, steps, steps - (1 + np.arange(n)) % steps
        if self.placeholders.lengths and not any_steps:
            n = min(N_LENGTHS, n_steps) if any_sequences else n_sequences
            for first in range(1, n_steps, n):
                yield n, n_steps, np.minimum(np.arange(first, first + n), n_steps)

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
        run = Run(self.graph, Operations(Trace(), random), given, self._see(case))
        y = np.asarray(run.value(self.output))
        self._left -= run.spent
        if self._left < 0:
            found = f"to compare all lengths makes more than {PROOF_BUDGET} numbers"
            raise refused(self.graph.nodes[self.output], found, SMALLER)
        return y

    def _see(self, case: Case) -> See:
        """Lengths that a fixed number of steps allows are all compared: no numbers that could be larger."""
        any_step = self.sequences.any_count[1]
        is_fixed = not any_step and (case.lengths < case.x.shape[1]).any()
        return see_nothing if is_fixed else self.limits.watch(any_step=any_step)

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
