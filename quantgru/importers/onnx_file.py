"""`.onnx` files: one chain of GRU and dense layers, however an exporter writes it. Only onnx is needed to read them.

onnx_model       the file as onnx reads it, of a bounded size; onnx_external: weights beside it
onnx_graph       the same as plain data, checked
onnx_reader      follows the graph: operators are in onnx_constants, _shapes, _entries, _arithmetic, _gru and _loops
onnx_tensors     which axis is what; onnx_sizes: how long it is
onnx_atoms       what each feature is: sums of matrices times atoms; onnx_algebra: operations on them
onnx_finder      which layer such a sum is; onnx_cells: GRU layers that are computed cell by cell
onnx_layers      from the output back to the input
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from quantgru.errors import ConfigError, ModelError, QuantgruError, warn
from quantgru.importers import onnx_arithmetic, onnx_entries, onnx_gru, onnx_loops, onnx_shapes
from quantgru.importers.chain import Chain, identifier, refuse
from quantgru.importers.onnx_graph import Graph, read_graph
from quantgru.importers.onnx_layers import add_layers
from quantgru.importers.onnx_reader import Reader
from quantgru.importers.onnx_sizes import Symbol
from quantgru.importers.onnx_tensors import FeaturesNeeded
from quantgru.importers.options import ImportOptions
from quantgru.importers.verify import first_line
from quantgru.model import FloatModel

OPERATORS: Final = {
    **onnx_shapes.OPERATORS,
    **onnx_entries.OPERATORS,
    **onnx_arithmetic.OPERATORS,
    **onnx_gru.OPERATORS,
    **onnx_loops.OPERATORS,
}


def load_onnx_file(path: Path, options: ImportOptions) -> FloatModel:
    """The float model of a file. Warns of what is known to be wrong, and of another order of axes.

    Raises ModelError, ConfigError where onnx is not installed or the option `reset` has nothing to act on.
    """
    where = f"ONNX file {path}"
    try:
        with np.errstate(all="ignore"):  # what is not finite is refused where it would become a weight
            return _load(where, path, options)
    except QuantgruError as error:
        raise type(error)(f"{where}: {error}") from None
    except (ArithmeticError, IndexError, KeyError, MemoryError, RecursionError, TypeError, ValueError) as error:
        # shapes that do not fit, attributes of another type, axes that are not there
        raise ModelError(f"{where}: {first_line(error)}; the file is damaged: try onnx.checker.check_model") from None


def _load(where: str, path: Path, options: ImportOptions) -> FloatModel:
    graph, chain = read_graph(path), Chain(options.softmax)
    reader = _read(graph, options, chain)
    if options.reset is not None and not reader.has_nodes:
        raise ConfigError(f"option reset={options.reset!r}, but no node GRU, to which it would apply")
    for warning in reader.warnings:
        warn(f"{where}: {warning}")
        chain.notes.append(warning)
    return chain.model(identifier(path.stem), f"ONNX file {path.name}")


def _read(graph: Graph, options: ImportOptions, chain: Chain) -> Reader:
    """Reads with the features of an input on its last axis, then as the graph turns out to use it."""
    features: dict[str, Symbol | None] = {}
    for entry in graph.inputs:
        last = len(entry.dims) - 1
        if last >= 2 and entry.dims[last] is not None:
            features[entry.name] = Symbol(entry.name, last, entry.dims[last])
    tried: set[Symbol] = set()
    while True:
        reader = Reader(graph, options, features)
        try:
            add_layers(reader, reader.read(OPERATORS), chain)
            return reader
        except FeaturesNeeded as needed:
            symbol = replace(needed.symbol, size=needed.symbol.size or needed.width)
            if symbol in tried:
                found = "one node takes it as features, another as steps or batch"
                free = "export it with a free size of this axis (dynamic_axes or dynamic_shapes)"
                raise refuse(str(symbol), found, free if symbol.size else "") from None
            tried.add(symbol)
            features[symbol.input] = symbol
