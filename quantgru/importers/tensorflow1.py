"""Frozen graphs of TensorFlow 1 (`.pb`) with GRU cells, in dynamic_rnn or unrolled, read without TensorFlow.

The graph is run on ids instead of numbers, loops included: then it is plain of what the last step was made. From there
the layers are read. The proof comes after: the graph's own arithmetic, on random numbers, gives what the import gives.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from quantgru.errors import ModelError
from quantgru.importers.chain import Chain, identifier, refuse
from quantgru.importers.options import ImportOptions
from quantgru.importers.tensorflow1_file import Node, listed, read_nodes
from quantgru.importers.tensorflow1_input import InputLayout, find_layout, traced_sizes
from quantgru.importers.tensorflow1_layers import LayerReader
from quantgru.importers.tensorflow1_ops import Operations
from quantgru.importers.tensorflow1_run import Graph, Run
from quantgru.importers.tensorflow1_trace import Ids, Trace, Traced
from quantgru.importers.verify import LEFT_OUT, compare
from quantgru.model import Embedding, FloatModel, Reverse

Array = npt.NDArray[Any]

TOLERANCE: Final = 1e-6  # of the largest output
PROOF_SEQUENCES: Final = 5
PROOF_STEPS: Final = (3, 6)  # two, since a graph may pick a step by its number

NO_OUTPUTS: Final = ("Const", "Placeholder", "NoOp", "Assert")  # although no node reads them
MANY: Final = 16  # nodes that no node reads, of which it is asked whether they depend on the input


def load_graph_file(path: Path, options: ImportOptions) -> FloatModel:
    """The float model of a frozen graph. Raises ModelError, ConfigError where protobuf is not installed."""
    where = f"TensorFlow graph {path}"
    try:
        graph = Graph(read_nodes(path, where))
    except OSError as error:
        raise ModelError(f"{where}: cannot be read: {error.strerror}") from None
    output = _output(where, graph)
    source = _source(where, graph, output)
    chain = Chain(options.softmax)
    with np.errstate(all="ignore"):  # what is not finite is refused by layers, and by the comparison
        layout = _read(graph, source, output, chain)
        model = chain.model(identifier(path.name.partition(".")[0]), f"TensorFlow graph {path.name}")
        _Proof(graph, source, output, layout).compare(where, model, chain.left_out)
    return model


def _output(where: str, graph: Graph) -> Node:
    """The one node that no other reads."""
    read = {name for node in graph.nodes.values() for name, _ in node.inputs}
    ends = [node for name, node in graph.nodes.items() if name not in read and node.op not in NO_OUTPUTS]
    if 1 < len(ends) <= MANY:
        ends = [end for end in ends if any(node.op == "Placeholder" for node in graph.needed(end.name))]
    if len(ends) != 1:
        found = f"{len(ends)} outputs: {listed([end.name for end in ends])}" if ends else "no output"
        raise refuse(where, found, "keep one with tf.graph_util.extract_sub_graph(graph, [name])")
    return ends[0]


def _source(where: str, graph: Graph, output: Node) -> Node:
    """The one placeholder that the output needs."""
    found = [node for node in graph.needed(output.name) if node.op == "Placeholder"]
    if len(found) != 1:
        names = f"{len(found)} inputs: {listed([node.name for node in found])}" if found else "no input"
        raise refuse(where, names, "put constants in place of those that are no sequences, and freeze it again")
    return found[0]


def _read(graph: Graph, source: Node, output: Node, chain: Chain) -> InputLayout:
    """Fills the chain with what the last step is made of."""
    trace, sizes = Trace(), traced_sizes(source)
    given = {source.name: trace.input(sizes, source.name)}
    made = Run(graph, Operations(trace), given).value(output.name)
    if not isinstance(made, Traced):
        raise refuse(str(output), "does not depend on the input")
    if not made.ids.size:
        raise refuse(str(output), "gives nothing")
    last, n_rows = _last_row(trace, made.ids)
    reader = LayerReader(trace)
    input_ids = reader.read(last)
    if reader.earlier is None:
        raise refuse(str(output), "is made of the input without a GRU cell, or with a single step of one")
    for node in graph.needed(output.name):
        if node.op == "PlaceholderWithDefault":
            chain.notes.append(f"{node} has its default value")
    layout = find_layout(source, sizes, input_ids, LayerReader(trace).read(reader.earlier))
    if layout.backwards:
        chain.add_reverse(str(source))
    reader.add_to(chain)
    n_sequences, n_steps = layout.counts
    if n_rows == n_sequences:
        chain.take_last_step()
    elif n_rows != n_sequences * n_steps:
        found = f"{n_rows} rows of outputs for {n_sequences} sequences of {n_steps} steps"
        raise refuse(str(output), found, "give one output for each sequence, or one for each step")
    return layout


def _last_row(trace: Trace, ids: Ids) -> tuple[Ids, int]:
    """The outputs of the last step of the last sequence, and how many such rows there are."""
    flat = ids.reshape(-1)
    alone = ids.ndim < 2 or trace.owner(int(flat[-1])).width == 1  # one number a step, without an axis for it
    width = 1 if alone else ids.shape[-1]
    return flat[len(flat) - width :], len(flat) // width


@dataclass(frozen=True)
class _Proof:
    """A graph and how it takes its input, to be compared with its import."""

    graph: Graph
    source: Node
    output: Node
    layout: InputLayout

    def compare(self, where: str, model: FloatModel, left_out: str | None) -> None:
        """Raises ModelError where the graph gives something else than `model` for random input."""
        any_sequences, any_steps = self.layout.any_count
        n_sequences = PROOF_SEQUENCES if any_sequences else self.layout.counts[0]
        for n_steps in PROOF_STEPS if any_steps else (self.layout.counts[1],):
            x = _random_input(model, n_sequences, n_steps)
            found = LEFT_OUT[left_out](model.run(x))
            compare(where, self._outputs(x, found), found, TOLERANCE)

    def _outputs(self, x: Array, found: Array) -> Array:
        """What the graph gives for x, as [sequences, steps, outputs] if its own order of these is another."""
        given = {self.source.name: self.layout.arrange(x)}
        y = Run(self.graph, Operations(Trace()), given).value(self.output.name)
        if y.size != found.size:
            return np.asarray(y)
        as_here = y.reshape(found.shape)
        if found.ndim < 3:
            return np.asarray(as_here)
        time_first = y.reshape(found.shape[1], found.shape[0], -1).swapaxes(0, 1)
        return np.asarray(min(as_here, time_first, key=lambda outputs: np.abs(outputs - found).max()))


def _random_input(model: FloatModel, n_sequences: int, n_steps: int) -> Array:
    generator = np.random.default_rng(20190429)
    first = next(layer for layer in model.layers if not isinstance(layer, Reverse))
    if isinstance(first, Embedding):
        return generator.integers(0, first.n_tokens, (n_sequences, n_steps, 1))
    return generator.standard_normal((n_sequences, n_steps, model.n_inputs))
