"""Live PyTorch modules run beside their imports, on the same random input."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from quantgru.errors import ModelError, QuantgruError
from quantgru.importers.pytorch_graph import GraphReader
from quantgru.importers.pytorch_modules import Source
from quantgru.importers.pytorch_signals import FEATURES, Axis
from quantgru.importers.verify import LEFT_OUT, compare, first_line, probe, probe_tokens
from quantgru.model import Dense, Embedding, FloatModel, Reverse
from quantgru.model.run import dense_output

Array = npt.NDArray[Any]

LONG_SEQUENCES: Final = 2
LONG_STEPS: Final = 20
LONG_SCALE: Final = 30.0  # large inputs decide more than the state does: so rounding grows little from step to step


def compare_layer(source: Source) -> None:
    """A GRU is compared over all its layers at once, a Linear before its activation. Raises ModelError."""
    module, first = source.module, source.layers[0]
    if isinstance(first, Embedding):
        tokens = probe_tokens(first.n_tokens)
        compare(source.where, _run(source.where, module, tokens), first.vectors[tokens])
        return
    assert not isinstance(first, Reverse)
    for x in (probe(first.n_inputs), _long_probe(first.n_inputs)):
        if isinstance(first, Dense):
            compare(source.where, _run(source.where, module, x), dense_output(first, x))
            continue
        axis = 1 if module.batch_first else 0
        output = _run(source.where, module, x.swapaxes(1, axis))
        compare(source.where, output.swapaxes(1, axis), FloatModel(source.layers, last_step=False).run(x))


def compare_model(module: nn.Module, reader: GraphReader, model: FloatModel) -> None:
    """Raises ModelError where the module's output is not that of the whole import."""
    n_tokens = reader.chain.n_tokens
    if n_tokens is not None:
        _compare_on(probe_tokens(n_tokens)[..., None], module, reader, model)
        return
    _compare_on(probe(model.n_inputs), module, reader, model)
    if all(parameter.dtype == torch.float64 for parameter in module.parameters()):
        _compare_on(_long_probe(model.n_inputs), module, reader, model)


def _long_probe(n_features: int) -> Array:
    """More steps and larger values, where a clamp or a window shows. In float64 rounding is small even then."""
    generator = np.random.default_rng(20190430)
    return LONG_SCALE * generator.standard_normal((LONG_SEQUENCES, LONG_STEPS, n_features))


def _compare_on(x: Array, module: nn.Module, reader: GraphReader, model: FloatModel) -> None:
    where = f"PyTorch module {type(module).__name__}"
    chain = reader.chain
    given = x[..., 0] if chain.input_rank == 2 else x
    output = _run_whole(where, module, given.swapaxes(1, chain.time_axis), reader.output_place)
    sizes = {1 - chain.time_axis: len(x), chain.time_axis: x.shape[1], FEATURES: model.n_outputs}
    order = (1 - chain.time_axis, chain.time_axis, FEATURES)
    found = LEFT_OUT[chain.chain.left_out](model.run(x))
    compare(where, _arranged(output, reader.output_axes, order, sizes), found)


def _arranged(output: Array, axes: tuple[Axis, ...], order: tuple[int, ...], sizes: dict[int, int]) -> Array:
    """The module's output as [sequences, steps, features] or [sequences, features], as far as it has such axes."""
    labels = [label for axis in axes for label in axis]
    shape = [sizes[label] for label in labels]
    if output.shape != tuple(math.prod(sizes[label] for label in axis) for axis in axes):
        return output
    arranged = output.reshape(shape).transpose([labels.index(label) for label in order if label in labels])
    return arranged if FEATURES in labels else arranged[..., None]


def _run_whole(where: str, module: nn.Module, x: Array, place: Any) -> Array:
    """In float64; in float32, if this is what forward() makes of its input."""
    try:
        return _run(where, module, x, place)
    except ModelError:
        if x.dtype != np.float64:
            raise
    return _run(where, module.float(), x.astype(np.float32), place)


def _run(where: str, module: nn.Module, x: Array, place: Any = 0) -> Array:
    """The output of a module, the one at `place` if it gives several."""
    try:
        output: Any = module(torch.from_numpy(x.copy()))
        output = output[place] if isinstance(output, (tuple, list, dict)) else output
        return np.asarray(output.detach().numpy())
    except QuantgruError:
        raise
    except Exception as error:  # runs the user's forward() and hooks, which may raise anything
        raise ModelError(f"{where}: fails on random input {x.shape} in {x.dtype} ({first_line(error)})") from None
