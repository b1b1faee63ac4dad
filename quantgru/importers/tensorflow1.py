"""Frozen graphs of TensorFlow 1 (`.pb`) with GRU cells, in dynamic_rnn or unrolled, read without TensorFlow.

    tensorflow1_file.py    bytes -> nodes        (with tensorflow1_messages.py, the messages of such files)
    tensorflow1_graph.py   nodes -> graph        what needs what, and the loops
    tensorflow1_run.py     graph -> values       with tensorflow1_ops.py: operations, on arrays (tensorflow1_arrays.py)
                                                 or on ids (tensorflow1_trace.py)
    tensorflow1_layers.py  ids -> layers         with tensorflow1_cells.py, the arithmetic of a GRU cell, which is made
                                                 of sums and products (tensorflow1_sums.py)
    tensorflow1_inputs.py  ids -> inputs         how sequences, initial states and lengths are given
    tensorflow1_steps.py   ids -> whether every step is made as the last one is
    tensorflow1_proof.py   the graph and the model give the same, for any number of sequences and steps, too
                           (tensorflow1_limits.py)

The graph is run on ids instead of numbers, loops included: then it is plain of what the last step was made. From there
the layers are read. The proof comes after: the graph's own arithmetic, on random numbers, gives what the import gives.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np

from quantgru.errors import ModelError
from quantgru.importers.chain import Chain, identifier
from quantgru.importers.options import ImportOptions
from quantgru.importers.tensorflow1_errors import NOTHING_LEFT, listed, refused, short
from quantgru.importers.tensorflow1_file import HALF, Node, read_nodes
from quantgru.importers.tensorflow1_graph import Graph
from quantgru.importers.tensorflow1_inputs import (
    Placeholders,
    StateInput,
    find_placeholders,
    find_sequences,
    find_states,
    want_all_steps,
)
from quantgru.importers.tensorflow1_layers import LayerReader
from quantgru.importers.tensorflow1_limits import Limits
from quantgru.importers.tensorflow1_ops import LARGEST_RANDOM, Operations
from quantgru.importers.tensorflow1_proof import Proof
from quantgru.importers.tensorflow1_run import Run
from quantgru.importers.tensorflow1_steps import Steps
from quantgru.importers.tensorflow1_trace import Ids, Trace, Traced
from quantgru.model import FloatModel

NO_OUTPUTS: Final = ("Const", "Placeholder", "NoOp", "Assert")  # although no node reads them
TYPES: Final = {"MatMul": "T", "GRUBlockCell": "T", "Cast": "DstT"}  # attributes that say in which type they compute
MANY: Final = 16  # nodes that no node reads, of which it is asked whether they depend on the input


def load_graph_file(path: Path, options: ImportOptions) -> FloatModel:
    """The float model of a frozen graph. Raises ModelError, ConfigError where protobuf is not installed."""
    where = f"TensorFlow graph {path}"
    try:
        graph = Graph(read_nodes(path, where))
    except OSError as error:
        raise ModelError(f"{where}: cannot be read: {error.strerror}") from None
    output = _output(where, graph)
    chain = Chain(options.softmax)
    with np.errstate(all="ignore"):  # what is not finite is refused by layers, and by the proof
        proof = _read(where, graph, output, chain)
        model = chain.model(identifier(path.name.partition(".")[0]), f"TensorFlow graph {path.name}")
        proof.check(where, model, chain.left_out)
    return model


def _output(where: str, graph: Graph) -> Node:
    """The one node that no other reads."""
    read = {name for node in graph.nodes.values() for name, _ in node.inputs}
    ends = [node for name, node in graph.nodes.items() if name not in read and node.op not in NO_OUTPUTS]
    if 1 < len(ends) <= MANY:
        ends = [end for end in ends if any(node.op == "Placeholder" for node in graph.needed(end.name))]
    if len(ends) != 1:
        found = f"{len(ends)} outputs: {listed([end.name for end in ends])}" if ends else "no output"
        raise refused(where, found, "keep one with tf.graph_util.extract_sub_graph(graph, [name])")
    return ends[0]


def _read(where: str, graph: Graph, output: Node, chain: Chain) -> Proof:
    """Fills the chain with what the last step is made of."""
    needed = graph.needed(output.name)
    placeholders = find_placeholders(needed, where)
    limits = Limits(graph)
    trace, rows = _traced(graph, output, placeholders, limits)
    reader, n_rows = LayerReader(trace), len(rows)
    read = reader.read(rows[-1])
    if reader.earlier is None or reader.first is None:
        found = "is made of the input without a GRU cell, or with a single step of one"
        raise refused(output, found, "let tf.nn.dynamic_rnn run the cell over all steps, and freeze that graph")
    earlier = LayerReader(trace).read(reader.earlier)
    sequences = find_sequences(placeholders, read, earlier)
    states = find_states(placeholders, sequences, reader.states)
    if len(reader.counts) > 1:
        found = f"its GRU layers read between {min(reader.counts)} and {max(reader.counts)} steps"
        raise refused(output, found, "let each read every step, and start at a constant or at an input")
    first, is_second = reader.first
    want_all_steps(placeholders, sequences, LayerReader(trace).read(first), n_before=int(is_second))
    stride = int(read.places[0] - earlier.places[0])
    Steps(trace, {sequences.name: stride}, reader.starts).want_same(reader.pairs)
    n_sequences, n_steps = sequences.counts
    if n_rows == n_sequences and not sequences.any_count[0]:  # otherwise outputs of all steps are compared
        strides = {name: sizes[-1] for name, sizes in placeholders.sizes.items()}
        strides[sequences.name] = len(read.places) * (n_steps if sequences.steps == 1 else 1)
        Steps(trace, strides, what="sequence").want_same(pairwise(rows[::-1]))
    _note(chain, needed, placeholders, states)
    if sequences.backwards:
        chain.add_reverse(str(placeholders.nodes[sequences.name]))
    reader.add_to(chain)
    if n_rows == n_sequences:
        chain.take_last_step()
    elif n_rows != n_sequences * n_steps:
        found = f"{n_rows} rows of outputs for {n_sequences} sequences of {n_steps} steps"
        raise refused(output, found, "give one output for each sequence, or one for each step")
    return Proof(graph, output.name, placeholders, sequences, states, limits)


def _traced(graph: Graph, output: Node, placeholders: Placeholders, limits: Limits) -> tuple[Trace, Ids]:
    """A trace, and the rows of ids of the outputs; the last one is the last step of the last sequence."""
    trace = Trace()
    given: dict[str, object] = {name: trace.input(sizes, name) for name, sizes in placeholders.sizes.items()}
    if placeholders.lengths:
        given[placeholders.lengths.name] = placeholders.traced_lengths()
    made = Run(graph, Operations(trace, random=LARGEST_RANDOM), given, limits.trace).value(output.name)
    if not isinstance(made, Traced):
        raise refused(output, "does not depend on the input")
    if not made.ids.size:
        raise refused(output, *NOTHING_LEFT)
    flat = made.ids.reshape(-1)
    alone = made.ids.ndim < 2 or trace.owner(int(flat[-1])).width == 1  # one number a step, without an axis for it
    return trace, flat.reshape(-1, 1 if alone else made.ids.shape[-1])


def _note(chain: Chain, needed: list[Node], placeholders: Placeholders, states: tuple[StateInput | None, ...]) -> None:
    """What the user should know: of inputs that are no sequences, and of precision."""
    defaults = [node for node in needed if node.op == "PlaceholderWithDefault"]
    chain.notes += [f"{node} has its default value" for node in defaults]
    if any(node.attribute(key, "type", 0) == HALF for node in needed if (key := TYPES.get(node.op))):
        chain.notes.append("TensorFlow computes in float16, the import in full precision: outputs differ by that")
    if placeholders.lengths:
        name = short(placeholders.lengths.name)
        chain.notes.append(f"input {name} of the file is the lengths of sequences, which the data have here")
    if any(states):
        given = [f"[{i}] {state or f'model.grus[{i}].initial_state or zeros'}" for i, state in enumerate(states)]
        chain.notes.append(f"initial states, run(x, initial_states=[...]), are inputs of the file: {', '.join(given)}")
