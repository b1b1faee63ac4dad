"""Enclosures through all layers of a model."""

from __future__ import annotations

from collections.abc import Sequence

from quantgru.error_bounds.enclosure import Enclosure
from quantgru.error_bounds.layers import DensePair, GruPair, Steps, merged
from quantgru.int_model import IntBidirectional, IntDense, IntEmbedding, IntGru, IntModel
from quantgru.model import Dense, Embedding, FloatModel, Reverse
from quantgru.quantizer.counterpart import counterparts


class Network:
    """All layers, each in float and in integers."""

    def __init__(self, int_model: IntModel, model: FloatModel) -> None:
        floats, meant = counterparts(model, int_model)
        self._layers = list(zip(floats.layers, meant.layers, int_model.layers, strict=True))
        self.grus = [GruPair(*layers) for layers in zip(floats.grus, meant.grus, int_model.grus, strict=True)]
        self.streaming = int_model.streaming

    def run(self, signal: Steps, starts: Sequence[Enclosure]) -> tuple[list[Steps], Steps]:
        """h of each GRU layer after each step, in the order in which it reads them; and the outputs of each step."""
        states: list[Steps] = []
        pairs = iter(zip(self.grus, starts, strict=True))

        def run_gru(inputs: Steps) -> Steps:
            pair, start = next(pairs)
            states.append(pair.run(inputs, start))
            return states[-1]

        for floats, meant, integers in self._layers:
            match integers:
                case IntGru():
                    signal = run_gru(signal)
                case IntBidirectional():
                    forward, backward = run_gru(signal), run_gru(signal[::-1])
                    if integers.final:
                        signal = [merged(integers, forward[-1], backward[-1])]
                    else:
                        pairwise = zip(forward, backward[::-1], strict=True)
                        signal = [merged(integers, f, b) for f, b in pairwise]
                case Reverse():
                    signal = signal[::-1]
                case IntDense():
                    assert isinstance(floats, Dense) and isinstance(meant, Dense)
                    pair = DensePair(floats, meant, integers)
                    signal = [pair.step(x) for x in signal]
                case IntEmbedding():
                    assert isinstance(floats, Embedding) and isinstance(meant, Embedding)
                    any_vector = Enclosure.of_constants(floats.vectors, meant.vectors).hull_of_parts()
                    signal = [any_vector] * len(signal)
        return states, signal
