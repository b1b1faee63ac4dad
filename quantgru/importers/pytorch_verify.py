"""The proof of `pytorch`: a live module and its import on the same random input; `verify` has what frameworks share."""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from quantgru.errors import ModelError, QuantgruError
from quantgru.importers.pytorch_constants import KEPT
from quantgru.importers.pytorch_graph import GraphReader
from quantgru.importers.pytorch_modules import Source
from quantgru.importers.pytorch_signals import FEATURES, Axis
from quantgru.importers.pytorch_states import NOT_RETURNED, as_arguments, given_states, matches, order_of, rows
from quantgru.importers.verify import (
    LEFT_OUT,
    N_SEQUENCES,
    N_STEPS,
    TOLERANCE,
    compare,
    first_line,
    probe,
    probe_tokens,
)
from quantgru.model import Dense, Embedding, FloatModel, Reverse
from quantgru.model.run import dense_output, outputs, run_body

Array = npt.NDArray[Any]

# Sequences and steps of the comparisons of whole modules. Where there is only one, its axis may be lost.
SHAPES: Final = ((N_SEQUENCES, N_STEPS), (3, 1), (1, 1), (3, 2), (1, 3), (2, 20))
LONG_SHAPE: Final = (2, 130)
LONG_TOLERANCE: Final = 0.1  # in single precision, in which rounding grows from step to step
LONG_SCALE: Final = 30.0  # large inputs decide more than the state does: so rounding grows little from step to step
ONE_SIZE: Final = (
    "drops the axis of sequences or steps where there is only one, and so gives something else; leave it out, or name "
    "the axis that is to go, as in squeeze(-1)"
)


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
    return np.asarray(_run(where, module, [x.swapaxes(1, axis)])[0].swapaxes(1, axis))


def compare_model(
    module: nn.Module, reader: GraphReader, model: FloatModel, left_out: Collection[str] = ()
) -> list[int] | None:
    """Which of its final states the module returns, in order; None if it returns others, or none.

    It is given those that the reader knows, but for those left out. A module of one step is run as its user does: the
    states that it returns are given to its next call. Raises ModelError where the outputs are not those of the import.
    """
    comparison = _Comparison(module, reader, model, left_out)
    return order_of([comparison.on(x) for x in _probes(reader, model)], len(model.grus))


def _probes(reader: GraphReader, model: FloatModel) -> Iterator[Array]:
    """Inputs of many sizes [sequences, steps, inputs]. In float64 rounding is small even for the last one."""
    n_tokens = reader.chain.n_tokens
    generator = np.random.default_rng(20190429)
    for shape in (*SHAPES, LONG_SHAPE):
        if n_tokens is not None:
            yield generator.integers(0, n_tokens, (*shape, 1))
        elif shape == LONG_SHAPE:
            yield _long_probe(model.n_inputs)
        else:
            yield generator.standard_normal((*shape, model.n_inputs))


def _long_probe(n_features: int) -> Array:
    """More steps and larger values, where a clamp or a window shows."""
    return LONG_SCALE * np.random.default_rng(20190430).standard_normal((*LONG_SHAPE, n_features))


class CannotRunError(ModelError):
    """The module itself fails."""


class _Comparison:
    """A module and its import, run on the same input."""

    def __init__(self, module: nn.Module, reader: GraphReader, model: FloatModel, left_out: Collection[str]) -> None:
        self.name = f"PyTorch module {type(module).__name__}"
        self.module, self.reader, self.model = module, reader, model
        starts = reader.chain.starts
        self.starts = [None if start is None or start.name in left_out else start for start in starts]
        self.states = given_states(starts, reader.trace.given)
        self.places = [starts.index(state) for state in self.states]  # of these among those of all GRU layers
        self.single = False  # precision

    def on(self, x: Array) -> list[set[int]]:
        """Of each state that the module returns, the final states of the import that it equals."""
        where, one_step = _where(self.name, *x.shape[:2]), self.reader.chain.one_step
        initial_states = self._initial_states(len(x))
        body = run_body(self.model, sequences := self.model.sequences(x), initial_states)
        found = LEFT_OUT[self.reader.chain.chain.left_out](outputs(self.model, sequences, body.output))
        final_states = [states[:, -1] for states in body.states]
        try:
            output, returned = (self._run_steps if one_step else self._run_whole)(where, x, initial_states)
            tolerance = LONG_TOLERANCE if self.single and x.shape[1] > N_STEPS else TOLERANCE
            found_states = matches(returned, final_states, tolerance)
            if one_step and any(place not in equal for place, equal in zip(self.places, found_states, strict=True)):
                raise ModelError(NOT_RETURNED.format(type(self.module).__name__))
            compare(where, self._arranged(output, x), found, tolerance)
        except ModelError as error:
            if kept := self.reader.trace.kept:
                raise ModelError(
                    f"{self.name}: {kept!r} is kept from one call of forward() to the next; {KEPT}"
                ) from None
            squeezed = self.reader.chain.squeezed
            if 1 in x.shape[:2] and squeezed:
                raise ModelError(f"{where}: {squeezed[0]} {ONE_SIZE}") from None
            raise error
        return found_states

    def _run_whole(self, where: str, x: Array, initial_states: Sequence[Array]) -> tuple[Array, list[Array]]:
        """The module's output, and the states that it returns."""
        chain = self.reader.chain
        given = x if chain.input_rank == 3 else x[..., 0]
        return self._parts(self._call(where, given.swapaxes(1, chain.time_axis), self._arguments(initial_states)))

    def _run_steps(self, where: str, x: Array, initial_states: Sequence[Array]) -> tuple[Array, list[Array]]:
        """The outputs of a module that computes one step, on the last axis, and the states that its last call returns.

        As its user runs it: each call is given the states that the one before it has returned.
        """
        arguments, found = self._arguments(initial_states), []
        shapes = [(len(x), self.model.grus[place].n_units) for place in self.places]
        for step in (x if self.reader.chain.input_rank == 2 else x[..., 0]).swapaxes(0, 1):
            output, returned = self._parts(self._call(where, step, arguments))
            if [state.shape for state in returned] != shapes:
                raise ModelError(NOT_RETURNED.format(type(self.module).__name__))
            arguments = as_arguments(self.states, returned)
            found.append(output)
        return np.stack(found, axis=-1), returned

    def _parts(self, result: Any) -> tuple[Array, list[Array]]:
        """The output and the states in what forward() returns."""
        parts = result if isinstance(result, (list, dict)) else {0: result}
        return parts[self.reader.output.place], rows([parts[place] for place in self.reader.output.states])

    def _initial_states(self, n_sequences: int) -> list[Array]:
        """Of each GRU layer [sequences, units]: random where the state is given, otherwise its own."""
        generator = np.random.default_rng(20190501)
        states = []
        for layer, start in zip(self.model.grus, self.starts, strict=True):
            own = np.zeros(layer.n_units) if layer.initial_state is None else layer.initial_state
            shape = (n_sequences, layer.n_units)
            states.append(np.broadcast_to(own, shape) if start is None else generator.uniform(-1, 1, shape))
        return states

    def _arguments(self, initial_states: Sequence[Array]) -> dict[str, Array]:
        """The arguments of forward() beside the data."""
        given = [(s, initial_states[i]) for s, i in zip(self.states, self.places, strict=True) if s in self.starts]
        return as_arguments([state for state, _ in given], [values for _, values in given])

    def _arranged(self, output: Array, x: Array) -> Array:
        """The module's output as [sequences, steps, features] or [sequences, features], as far as it has such axes."""
        batch, time = 1 - self.reader.chain.time_axis, self.reader.chain.time_axis
        sizes = {batch: len(x), time: x.shape[1], FEATURES: self.model.n_outputs}
        axes: list[Axis] = [*self.reader.output_axes, *[(time,)] * self.reader.chain.one_step]
        labels = [label for axis in axes for label in axis]
        shape = [math.prod(sizes[label] for label in axis) for axis in axes]
        if [size for size in output.shape if size != 1] != [size for size in shape if size != 1]:
            return output
        arranged = output.reshape([sizes[label] for label in labels])  # axes of size 1 may have gone
        order = [labels.index(label) for label in (batch, time, FEATURES) if label in labels]
        return arranged.transpose(order) if FEATURES in labels else arranged.transpose(order)[..., None]

    def _call(self, where: str, x: Array, states: Mapping[str, Array]) -> Any:
        """In float64; in float32, if this is what forward() makes of its input."""
        if self.single:
            return _run(where, self.module, [_single(x)], {name: _single(state) for name, state in states.items()})
        try:
            return _run(where, self.module, [x], states)
        except ModelError as error:
            try:
                single = copy.deepcopy(self.module).float()
            except Exception:  # as it was copied, it may hold what forward() has computed since
                raise error from None
        result = _run(where, single, [_single(x)], {name: _single(state) for name, state in states.items()})
        self.module, self.single = single, True
        return result


def _where(name: str, n_sequences: int, n_steps: int) -> str:
    if 1 not in (n_sequences, n_steps):
        return name
    return f"{name} on {n_sequences} sequence{'s' * (n_sequences > 1)} of {n_steps} step{'s' * (n_steps > 1)}"


def _single(values: Array) -> Array:
    return values.astype(np.float32) if values.dtype == np.float64 else values


def _run(where: str, module: nn.Module, inputs: Sequence[Array], options: Mapping[str, Array] | None = None) -> Any:
    """What a module returns, with arrays for tensors and lists for tuples."""
    try:
        named = {name: torch.from_numpy(value.copy()) for name, value in (options or {}).items()}
        return _arrays(module(*(torch.from_numpy(x.copy()) for x in inputs), **named))
    except QuantgruError:
        raise
    except Exception as error:  # runs the user's forward() and hooks, which may raise anything
        raise CannotRunError(f"{where}: fails on random input {inputs[0].shape} ({first_line(error)})") from None


def _arrays(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return np.array(value.detach().numpy())  # a copy: forward() may change it
    if isinstance(value, (tuple, list)):
        return [_arrays(part) for part in value]
    return {name: _arrays(part) for name, part in value.items()} if isinstance(value, dict) else value
