"""A whole model, over a step and over a sequence."""

from collections.abc import Sequence

from oracle.gru import gru_step, reset
from oracle.layers import dense, embed, merge_all, streaming
from oracle.models import Bidirectional, Dense, Gru, GruStep, Model, Reverse, Run, State, Step
from oracle.values import check_value, crc


def step(model: Model, state: State, x: Sequence[int], check: int = 0) -> Step:
    """One step of a streaming model, each layer reading what the layer before it puts out."""
    assert streaming(model)
    states, found = zip(state.h, state.e, strict=True), []
    for layer in model.layers:
        if isinstance(layer, Gru):
            found.append(gru_step(layer, x, *next(states)))
            x = found[-1].h
        elif not isinstance(layer, Reverse):
            x = dense(layer, x) if isinstance(layer, Dense) else embed(layer, x)
    h, e, u, r, n = (tuple(values) for values in zip(*found, strict=True))
    new = State(h, e)
    return Step(new, u, r, n, tuple(x), check_value(new, x, check))


def run(model: Model, sequence: Sequence[Sequence[int]], start: State | None = None) -> list[Step]:
    """All steps of a streaming model in the order in which it is fed, from the reset or from a state."""
    state, check, steps = start or reset(model), 0, []
    for x in sequence:
        steps.append(step(model, state, x, check))
        state, check = steps[-1].state, steps[-1].check
    return steps


def run_sequence(model: Model, sequence: Sequence[Sequence[int]], start: State | None = None) -> Run:
    """R24: layer by layer over the whole sequence x_0 … x_(T-1), from the reset or from a state."""
    assert sequence
    state = start or reset(model)
    states, traces = zip(state.h, state.e, strict=True), []
    values = [tuple(x) for x in sequence]
    ends = []
    for layer in model.layers:
        if isinstance(layer, Gru):
            traces.append(gru_sequence(layer, values, *next(states)))
            ends.append(traces[-1][-1])
            values = [made.h for made in traces[-1]]
        elif isinstance(layer, Bidirectional):
            forward = gru_sequence(layer.forward, values, *next(states))
            backward = gru_sequence(layer.backward, values[::-1], *next(states))[::-1]
            traces += [forward, backward]
            ends += [forward[-1], backward[0]]
            values = merge_sequences(layer, forward, backward)
        elif isinstance(layer, Reverse):
            values = values[::-1]
        else:
            values = [dense(layer, x) if isinstance(layer, Dense) else embed(layer, x) for x in values]
    outputs = tuple(values[-1:] if model.last_step else values)
    final = State(tuple(end.h for end in ends), tuple(end.e for end in ends))
    return Run(outputs, crc([v for y in outputs for v in y]), final, tuple(map(tuple, traces)))


def gru_sequence(layer: Gru, sequence: Sequence[Sequence[int]], h: Sequence[int], e: Sequence[int]) -> list[GruStep]:
    """One GRU layer over a sequence, in the order in which it is given."""
    steps = []
    for x in sequence:
        steps.append(gru_step(layer, x, h, e))
        h, e = steps[-1].h, steps[-1].e
    return steps


def merge_sequences(
    layer: Bidirectional, forward: Sequence[GruStep], backward: Sequence[GruStep]
) -> list[tuple[int, ...]]:
    """R23: the outputs of a bidirectional layer; forward[t] and backward[t] have read x_t last."""
    if layer.final:
        return [merge_all(layer.merge, forward[-1].h, backward[0].h)]
    return [merge_all(layer.merge, f.h, b.h) for f, b in zip(forward, backward, strict=True)]
