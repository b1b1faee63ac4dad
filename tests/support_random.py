"""Random float models of every kind of layer with inputs for them, and the same models evaluated in plain Python.

Hypothesis chooses kinds, sizes and functions; a seed chooses the numbers, so that an example shrinks to a small model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from hypothesis import strategies as st
from test_float_model import ACTIVATIONS, dot
from test_float_structure import CANDIDATES, GATES, MERGES, states_by_formula

from quantgru.model import Bidirectional, Dense, Embedding, FloatModel, Gru, Layer, Reverse

RMS: Final = 0.5
TOKENS: Final = 6
MASK_VALUE: Final = 9.0

Rows = list[list[float]]


@dataclass(frozen=True)
class Case:
    """x is a list of [steps, inputs]; mask and states as `FloatModel.run` takes them."""

    model: FloatModel
    x: list[np.ndarray]
    mask: list[np.ndarray] | None
    initial_states: list[np.ndarray] | None

    @property
    def run_options(self) -> dict[str, Any]:
        return {"mask": self.mask, "initial_states": self.initial_states}

    def __repr__(self) -> str:
        layers = ", ".join(map(_describe, self.model.layers))
        more = f"last_step={self.model.last_step}, mask_value={self.model.mask_value}"
        return f"<{layers}; {more}; mask {self.mask}, states {self.initial_states}, steps {list(map(len, self.x))}>"


def _describe(layer: Layer) -> str:
    match layer:
        case Gru():
            return f"Gru({layer.n_inputs}, {layer.n_units}, {layer.gate}, {layer.candidate}, {layer.reset})"
        case Bidirectional():
            both = f"{_describe(layer.forward)}, {_describe(layer.backward)}"
            return f"Bidirectional({layer.merge}, final={layer.final}, {both})"
        case Dense():
            return f"Dense({layer.n_inputs}, {layer.n_outputs}, {layer.activation})"
    return type(layer).__name__


# ---- models --------------------------------------------------------------------------------------------------------


@dataclass
class _Maker:
    """Draws kinds and sizes from hypothesis, numbers from a generator; `width` is that of the last layer."""

    draw: st.DrawFn
    generator: np.random.Generator
    width: int

    def numbers(self, *shape: int) -> np.ndarray:
        return self.generator.normal(0, RMS, shape)

    def gru(self, units: int) -> Gru:
        gate, candidate = self.draw(st.sampled_from(list(GATES))), self.draw(st.sampled_from(list(CANDIDATES)))
        reset = self.draw(st.sampled_from(("after", "before")))
        return Gru(
            "gru",
            reset,
            self.numbers(3, units, self.width),
            self.numbers(3, units, units),
            self.numbers(3, units),
            self.numbers(units) if reset == "after" else np.zeros(units),
            gate,
            candidate,
            2 * self.numbers(units) if self.draw(st.booleans()) else None,
        )

    def layer(self, kind: str, final: bool = False) -> Layer:
        """One more layer on what the last one gives."""
        units = self.draw(st.sampled_from((1, 2, 3, 9)))  # 9: a block of rows in C, and one more
        match kind:
            case "reverse":
                return Reverse()
            case "dense":
                activation = self.draw(st.sampled_from(list(ACTIVATIONS)))
                layer: Any = Dense("dense", self.numbers(units, self.width), self.numbers(units), activation)
            case "gru":
                layer = self.gru(units)
            case _:
                merge = self.draw(st.sampled_from(list(MERGES)))
                layer = Bidirectional("both", self.gru(units), self.gru(units), merge, final)
        self.width = layer.n_outputs
        return layer


@st.composite
def cases(draw: st.DrawFn) -> Case:
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    maker = _Maker(draw, generator, draw(st.integers(1, 3)))
    layers: list[Layer] = []
    if draw(st.integers(0, 3)) == 0:
        layers.append(Embedding("embedding", maker.numbers(TOKENS, maker.width)))
    kinds = draw(st.lists(st.sampled_from(("gru", "bidirectional", "dense", "reverse")), max_size=3))
    layers += [maker.layer(kind) for kind in kinds]
    final = draw(st.integers(0, 3)) == 0
    layers.append(maker.layer("bidirectional" if final else draw(st.sampled_from(("gru", "bidirectional"))), final))
    layers += [maker.layer("dense") for _ in range(draw(st.integers(0, 2)))]
    last_step = final or draw(st.booleans())
    mask_value = MASK_VALUE if not isinstance(layers[0], Embedding) and draw(st.integers(0, 3)) == 0 else None
    return _case(draw, generator, FloatModel(tuple(layers), last_step, "random", (), mask_value))


def _case(draw: st.DrawFn, generator: np.random.Generator, model: FloatModel) -> Case:
    """Sequences of unequal lengths; the last step of each is never masked."""
    lengths = draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    if isinstance(model.layers[0], Embedding):
        x = [generator.integers(0, TOKENS, (length, 1)).astype(float) for length in lengths]
    else:
        scale = draw(st.sampled_from((0.01, 1.0, 3.0)))
        x = [generator.normal(0, scale, (length, model.n_inputs)) for length in lengths]
    if model.mask_value is not None:
        for rows in x:
            rows[:-1][generator.random(len(rows) - 1) < 0.3] = model.mask_value
    mask = None
    if draw(st.integers(0, 3)) == 0:
        mask = [np.append(generator.random(length - 1) < 0.7, True) for length in lengths]
    states = None
    if draw(st.integers(0, 3)) == 0:
        states = [generator.normal(size=(len(lengths), gru.n_units)) for gru in model.grus]
    return Case(model, x, mask, states)


# ---- evaluation in plain Python ------------------------------------------------------------------------------------


def outputs_by_formula(case: Case) -> list[Rows]:
    """What each sequence gives: one row, or one for every step, masked ones as `FloatModel.run` says."""
    found = []
    for i, rows in enumerate(case.x):
        keep = [not _masked(case, i, t) for t in range(len(rows))]
        steps = [x for x, kept in zip(rows.tolist(), keep, strict=True) if kept]
        outputs = _evaluate(case.model, steps, _states(case, i))
        if sum(isinstance(layer, Reverse) for layer in case.model.layers) % 2:  # outputs begin with the last step
            keep = keep[::-1]
        found.append(outputs[-1:] if case.model.last_step else _held(outputs, keep))
    return found


def _masked(case: Case, sequence: int, step: int) -> bool:
    by_value = case.model.mask_value is not None and (case.x[sequence][step] == case.model.mask_value).all()
    return by_value or (case.mask is not None and not case.mask[sequence][step])


def _held(outputs: Rows, keep: Sequence[bool]) -> Rows:
    """A masked step repeats the one before it, 0 before the first."""
    held, last, given = [], [0.0] * len(outputs[0]), iter(outputs)
    for kept in keep:
        last = next(given) if kept else last
        held.append(last)
    return held


def _states(case: Case, sequence: int) -> list[Any]:
    if case.initial_states is not None:
        return [h[sequence].tolist() for h in case.initial_states]
    return [gru.initial_state for gru in case.model.grus]


def _evaluate(model: FloatModel, rows: Rows, starts: list[Any]) -> Rows:
    """The outputs of every step."""
    given = iter(starts)
    for layer in model.layers:
        match layer:
            case Embedding():
                rows = [layer.vectors[int(token)].tolist() for (token,) in rows]
            case Reverse():
                rows = rows[::-1]
            case Gru():
                rows = states_by_formula(layer, rows, next(given))
            case Bidirectional():
                ahead = states_by_formula(layer.forward, rows, next(given))
                back = states_by_formula(layer.backward, rows[::-1], next(given))
                pairs = [(ahead[-1], back[-1])] if layer.final else zip(ahead, back[::-1], strict=True)
                rows = [list(MERGES[layer.merge](f, b)) for f, b in pairs]
            case Dense():
                weights = list(zip(layer.weights.tolist(), layer.bias.tolist(), strict=True))
                rows = [[ACTIVATIONS[layer.activation](dot(w, x) + b) for w, b in weights] for x in rows]
    return rows
