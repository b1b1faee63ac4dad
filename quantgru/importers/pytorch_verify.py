"""The proof of `pytorch`: a live module and its import on the same random input; `verify` has what frameworks share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import fx, nn

from quantgru.errors import ModelError, QuantgruError
from quantgru.importers.pytorch_chain import SignalChain
from quantgru.importers.pytorch_constants import KEPT
from quantgru.importers.pytorch_graph import GraphReader
from quantgru.importers.pytorch_modules import Source
from quantgru.importers.pytorch_signals import FEATURES, Axis
from quantgru.importers.verify import LEFT_OUT, TOLERANCE, compare, first_line, probe, probe_tokens
from quantgru.model import Dense, Embedding, FloatModel, Reverse
from quantgru.model.run import dense_output, run_body

Array = npt.NDArray[Any]

LONG_SEQUENCES: Final = 2
LONG_STEPS: Final = 130
LONG_TOLERANCE: Final = 0.1  # in single precision, in which rounding grows from step to step
LONG_SCALE: Final = 30.0  # large inputs decide more than the state does: so rounding grows little from step to step


def compare_layer(source: Source) -> None:
    """A GRU is compared over all its layers at once, a Linear before its activation. Raises ModelError."""
    module, first = source.module, source.layers[0]
    if isinstance(first, Embedding):
        tokens = probe_tokens(first.n_tokens)
        compare(source.where, _run(source.where, module, [tokens]), first.vectors[tokens])
        return
    assert not isinstance(first, Reverse)
    for x in (probe(first.n_inputs), _long_probe(first.n_inputs)):
        if isinstance(first, Dense):
            compare(source.where, _run(source.where, module, [x]), dense_output(first, x))
            continue
        compare(source.where, _run_recurrent(source.where, module, x), FloatModel(source.layers, False).run(x))


def _run_recurrent(where: str, module: nn.Module, x: Array) -> Array:
    """The outputs of an nn.GRU, or of an nn.GRUCell step after step."""
    if isinstance(module, nn.GRUCell):
        states = [np.zeros((len(x), module.hidden_size))]
        for step in x.swapaxes(0, 1):
            states.append(_run(where, module, [step, states[-1]]))
        return np.stack(states[1:], axis=1)
    axis = 1 if module.batch_first else 0
    return _run(where, module, [x.swapaxes(1, axis)]).swapaxes(1, axis)


def compare_model(module: nn.Module, reader: GraphReader, model: FloatModel) -> None:
    """Raises ModelError where the module's output is not that of the whole import."""
    n_tokens = reader.chain.n_tokens
    if n_tokens is not None:
        probes: list[Array] = [probe_tokens(n_tokens)[..., None], _long_probe_tokens(n_tokens)[..., None]]
    else:
        probes = [probe(model.n_inputs), _long_probe(model.n_inputs)]
    _compare_on(probes[0], module, reader, model, TOLERANCE)
    double = all(parameter.dtype == torch.float64 for parameter in module.parameters())
    _compare_on(probes[1], module, reader, model, TOLERANCE if double else LONG_TOLERANCE)


def _long_probe(n_features: int) -> Array:
    """More steps and larger values, where a clamp or a window shows. In float64 rounding is small even then."""
    generator = np.random.default_rng(20190430)
    return LONG_SCALE * generator.standard_normal((LONG_SEQUENCES, LONG_STEPS, n_features))


def _long_probe_tokens(n_tokens: int) -> Array:
    return np.random.default_rng(20190430).integers(0, n_tokens, (LONG_SEQUENCES, LONG_STEPS))


def _compare_on(x: Array, module: nn.Module, reader: GraphReader, model: FloatModel, tolerance: float) -> None:
    where = f"PyTorch module {type(module).__name__}"
    chain = reader.chain
    starts = _initial_states(len(x), chain, model)
    given = x if chain.input_rank == (2 if chain.one_step else 3) else x[..., 0]
    if chain.one_step:
        axes = (*reader.output_axes, (chain.time_axis,))
        output = _run_step_by_step(where, module, given, reader, _before_each_step(model, x, starts))
    else:
        axes = reader.output_axes
        states = _given_states(chain, starts)
        output = _run_whole(where, module, given.swapaxes(1, chain.time_axis), states, reader.output_place)
    sizes = {1 - chain.time_axis: len(x), chain.time_axis: x.shape[1], FEATURES: model.n_outputs}
    order = (1 - chain.time_axis, chain.time_axis, FEATURES)
    found = LEFT_OUT[chain.chain.left_out](model.run(x, initial_states=starts))
    compare(where, _arranged(output, axes, order, sizes), found, tolerance)


def _run_step_by_step(
    where: str, module: nn.Module, x: Array, reader: GraphReader, states: Sequence[Sequence[Array]]
) -> Array:
    """The outputs of a module that computes one step, with the states before each; steps on the last axis."""
    steps = zip(x.swapaxes(0, 1), states, strict=True)
    place, chain = reader.output_place, reader.chain
    return np.stack([_run_whole(where, module, x, _given_states(chain, before), place) for x, before in steps], -1)


def _before_each_step(model: FloatModel, x: Array, starts: Sequence[Array]) -> list[list[Array]]:
    """For each step, the states of all GRU layers before it."""
    states = run_body(model, model.sequences(x), starts).states
    return [list(starts), *([h[:, t] for h in states] for t in range(x.shape[1] - 1))]


def _initial_states(n_sequences: int, chain: SignalChain, model: FloatModel) -> list[Array]:
    """Of each GRU layer [sequences, units]: random where the state is given, otherwise its own."""
    generator = np.random.default_rng(20190501)
    states = []
    for layer, start in zip(model.grus, chain.starts, strict=True):
        own = np.zeros(layer.n_units) if layer.initial_state is None else layer.initial_state
        shape = (n_sequences, layer.n_units)
        states.append(np.broadcast_to(own, shape) if start is None else generator.uniform(-1, 1, shape))
    return states


def _given_states(chain: SignalChain, states: Sequence[Array]) -> dict[str, Array]:
    """The arguments of forward() beside the data: of all layers [layers, sequences, units], or of the one layer."""
    whole = {start.name: state for start, state in zip(chain.starts, states, strict=True) if start is not None}
    rows: dict[str, dict[int, Array]] = {name: {} for name in whole}
    for start, state in zip(chain.starts, states, strict=True):
        if start is not None and start.index is not None:
            rows[start.name][start.index] = state
    return whole | {name: np.stack([by[i] for i in sorted(by)]) for name, by in rows.items() if by}


def _arranged(output: Array, axes: tuple[Axis, ...], order: tuple[int, ...], sizes: dict[int, int]) -> Array:
    """The module's output as [sequences, steps, features] or [sequences, features], as far as it has such axes."""
    labels = [label for axis in axes for label in axis]
    shape = [sizes[label] for label in labels]
    if output.shape != tuple(math.prod(sizes[label] for label in axis) for axis in axes):
        return output
    arranged = output.reshape(shape).transpose([labels.index(label) for label in order if label in labels])
    return arranged if FEATURES in labels else arranged[..., None]


def _run_whole(where: str, module: nn.Module, x: Array, states: Mapping[str, Array], place: Any) -> Array:
    """In float64; in float32, if this is what forward() makes of its input."""
    try:
        return _run(where, module, [x], states, place)
    except ModelError:
        if all(parameter.dtype == torch.float32 for parameter in module.parameters()):
            raise
    if x.dtype == np.float64:
        x = x.astype(np.float32)
    single = {name: state.astype(np.float32) for name, state in states.items()}
    return _run(where, module.float(), [x], single, place)


def _run(
    where: str, module: nn.Module, inputs: Sequence[Array], options: Mapping[str, Array] | None = None, place: Any = 0
) -> Array:
    """The output of a module, the one at `place` if it gives several."""
    try:
        named = {name: torch.from_numpy(value.copy()) for name, value in (options or {}).items()}
        output: Any = module(*(torch.from_numpy(x.copy()) for x in inputs), **named)
        output = output[place] if isinstance(output, (tuple, list, dict)) else output
        return np.asarray(output.detach().numpy())
    except QuantgruError:
        raise
    except Exception as error:  # runs the user's forward() and hooks, which may raise anything
        if kept := _kept(module):
            raise ModelError(f"{where}: {kept!r} is kept from one call of forward() to the next; {KEPT}") from None
        raise ModelError(f"{where}: fails on random input {inputs[0].shape} ({first_line(error)})") from None


def _kept(module: nn.Module) -> str:
    """An attribute in which tracing has left what forward() computed, for its next call to read; empty if none."""
    held = (entry for part in module.modules() for entry in vars(part).items())
    return next((name for name, value in held if isinstance(value, fx.Proxy)), "")
