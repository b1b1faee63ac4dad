"""The ways to call a PyTorch module: on whole sequences or step by step, with states that may be left out or without.

The import is made of one of them, and compared in all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import is_dataclass, replace
from typing import Any

import numpy as np
from torch import nn

from quantgru.errors import ModelError
from quantgru.importers.chain import Chain
from quantgru.importers.options import ImportOptions
from quantgru.importers.pytorch_constants import more_steps
from quantgru.importers.pytorch_graph import GraphReader
from quantgru.importers.pytorch_states import NOT_RETURNED, ONE_STEP, default_note, end_note, start_notes
from quantgru.importers.pytorch_trace import state_arguments, trace
from quantgru.importers.pytorch_verify import CannotRunError, compare_model
from quantgru.model import FloatModel, Gru


def read_module(module: nn.Module, options: ImportOptions) -> GraphReader:
    """forward() read as that of whole sequences, or of one step with its states. Raises ModelError."""
    needed, optional = state_arguments(module)
    ways = [(False, needed), *[(True, names) for names in _choices(needed, optional)]]
    if any(isinstance(part, nn.GRUCell) for part in module.modules()) and not _loops(module, needed):
        ways.append(ways.pop(0))  # whose error is raised last
    errors: list[ModelError] = []
    for one_step, given in ways:
        try:
            reader = _read(module, options, given, one_step=one_step)
            if one_step and (None in reader.chain.starts or not reader.output.states):
                raise ModelError(NOT_RETURNED.format(type(module).__name__))
            break
        except ModelError as error:
            errors.append(error)
    else:
        raise errors[0]
    return _checked(module, reader, options)


def proved(module: nn.Module, reader: GraphReader, model: FloatModel, options: ImportOptions) -> FloatModel:
    """`model`, which `reader` has made of the module, with notes on its states. Raises ModelError where they differ."""
    _, optional = state_arguments(module)
    left_out = sorted(set(optional) & set(reader.trace.given))  # in a call of one step
    if left_out:
        model = _with_default_starts(module, model, options)
    order = compare_model(module, reader, model)
    given = reader
    if left_out:
        _compare_without_states(module, reader, model, left_out)
    if not reader.chain.one_step:
        given, order = _with_optional_states(module, reader, model, options, order)
    notes = [*model.notes, *[ONE_STEP] * reader.chain.one_step, *default_note(set(optional) - set(given.trace.given))]
    if given.trace.given:
        notes += start_notes(given.chain.starts, given.trace.given)
    if set(reader.output.states) - {reader.output.place}:
        notes.append(end_note(order, len(model.grus)))
    return replace(model, notes=tuple(notes))


def _loops(module: nn.Module, needed: Sequence[str]) -> bool:
    """Whether forward() loops over the sizes of its input."""
    try:
        return trace(module, needed).unrolled
    except ModelError:
        return False


def _choices(needed: Sequence[str], optional: Sequence[str]) -> list[list[str]]:
    """Arguments that may be states: all, without the optional ones, and with one of them."""
    choices = [[*needed, *optional], [*needed], *([*needed, name] for name in optional)]
    return [names for i, names in enumerate(choices) if names and names not in choices[:i]]


def _read(module: nn.Module, options: ImportOptions, given: Sequence[str], *, one_step: bool) -> GraphReader:
    reader = GraphReader(module, Chain(options.softmax), one_step=one_step)
    reader.read(trace(module, given))
    return reader


def _checked(module: nn.Module, reader: GraphReader, options: ImportOptions) -> GraphReader:
    """`reader`, where a loop in Python does the same for many more steps. Raises ModelError."""
    if reader.trace.unrolled:
        with more_steps(reader.chain.time_axis):
            again = _read(module, options, reader.trace.given, one_step=reader.chain.one_step)
        if not _is_equal(_found(reader), _found(again)):
            where = f"PyTorch module {type(module).__name__}"
            raise ModelError(f"{where}: computes something else where sequences or steps are many; leave this out")
    return reader


def _found(reader: GraphReader) -> tuple[Any, ...]:
    """What must not depend on the sizes with which forward() was traced."""
    chain = reader.chain.chain
    return tuple(chain.layers), chain.last_step, reader.chain.starts, reader.output.place, reader.output_axes


def _is_equal(first: Any, second: Any) -> bool:
    """Layers by their numbers."""
    if is_dataclass(first):
        first, second = ((type(value), *vars(value).values()) for value in (first, second))
    if isinstance(first, (tuple, list)):
        return len(first) == len(second) and all(map(_is_equal, first, second))
    return np.array_equal(first, second)


def _with_default_starts(module: nn.Module, model: FloatModel, options: ImportOptions) -> FloatModel:
    """`model` starting where a module of one step starts that is called without a state."""
    needed, _ = state_arguments(module)
    try:
        found = _read(module, options, needed, one_step=True).chain.chain.model(model.name, "")
    except ModelError:  # it cannot do without, or not so that it could be read: then the comparison decides
        return model
    if len(found.grus) != len(model.grus):
        return model
    starts = iter(gru.initial_state for gru in found.grus)
    layers = [replace(layer, initial_state=next(starts)) if isinstance(layer, Gru) else layer for layer in model.layers]
    return replace(model, layers=tuple(layers))


def _compare_without_states(module: nn.Module, reader: GraphReader, model: FloatModel, left_out: Sequence[str]) -> None:
    """Raises ModelError where a module of one step that is called without a state starts at another than the import."""
    try:
        compare_model(module, reader, model, left_out)
    except CannotRunError:  # the defaults are none
        return
    except ModelError:
        names = ", ".join(left_out)
        raise ModelError(
            f"PyTorch module {type(module).__name__}: called without {names}, it starts at other states than zero or "
            f"a constant, or does something else; take the default away: forward(self, x, {names})"
        ) from None


def _with_optional_states(
    module: nn.Module, reader: GraphReader, model: FloatModel, options: ImportOptions, order: Any
) -> tuple[GraphReader, Any]:
    """The reading with as many optional arguments as are initial states, and the order of the returned ones."""
    needed, optional = state_arguments(module)
    for names in _choices(needed, optional):
        try:
            given = _checked(module, _read(module, options, names, one_step=False), options)
            if len(given.chain.starts) == len(model.grus) and set(names) > set(needed):
                with_states = compare_model(module, given, model)
                return given, order if with_states == order else None
        except ModelError:
            continue
    return reader, order
