"""Frozen graphs of TensorFlow 1 that are refused: what is not supported, what is damaged, and what is made to harm.

Graphs are changed copies of TensorFlow's; expected values of constants are by hand.
"""

from __future__ import annotations

import random
import re
import struct
import sys
import tracemalloc

import numpy as np
import pytest

pytest.importorskip("google.protobuf", reason="protobuf is not installed: pip install quantgru[tensorflow1]")

from import_fuzz import mutate
from support_graphs import MODELS, GraphMaker, attribute_of, changed, keep_up_to, node_of, set_attribute

import quantgru as qg
from quantgru.errors import ConfigError, DataError, ModelError
from quantgru.importers import tensorflow1_run
from quantgru.importers.tensorflow1_file import Node
from quantgru.importers.tensorflow1_messages import NESTED

INPUTS = 3

# ---- constants -----------------------------------------------------------------------------------------------------

CONSTANTS = {
    "content": (dict(dtype=1, tensor_content=struct.pack("<3f", 1, -2, 0.5)), (3,), [1, -2, 0.5]),
    "double content": (dict(dtype=2, tensor_content=struct.pack("<2d", 0.1, 3)), (2,), [0.1, 3]),
    "half content": (dict(dtype=19, tensor_content=bytes.fromhex("003c 00c0")), (2,), [1, -2]),
    "half": (dict(dtype=19, half_val=[0x3C00, 0xC000, 0x0001]), (3,), [1, -2, 2.0**-24]),
    "repeated": (dict(dtype=1, float_val=[1, 2.5]), (2, 2), [[1, 2.5], [2.5, 2.5]]),
    "double": (dict(dtype=2, double_val=[0.1]), (1, 2), [[0.1, 0.1]]),
    "none": (dict(dtype=1), (2, 1), [[0], [0]]),
    "number": (dict(dtype=3, int_val=[-7]), (), -7),
    "long": (dict(dtype=9, int64_val=[2**40]), (), 2**40),
    "bool": (dict(dtype=10, bool_val=[True, False]), (3,), [True, False, False]),
    "empty": (dict(dtype=3), (0,), []),
}


def constant_node(shape, **fields):
    tensor = NESTED["TensorProto"](**fields)
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    return Node("c", "Const", (), {"value": NESTED["AttrValue"](tensor=tensor).SerializeToString()})


@pytest.mark.parametrize("name", CONSTANTS)
def test_constants(name):
    fields, shape, expected = CONSTANTS[name]
    array = constant_node(shape, **fields).array()
    assert array.shape == shape
    assert array.dtype in (np.float64, np.int64, np.bool_)
    assert (array == np.array(expected)).all()


@pytest.mark.parametrize(
    ("fields", "shape", "message"),
    [
        (dict(dtype=1, tensor_content=bytes(11)), (3,), "11 bytes, shape (3,) takes 12"),
        (dict(dtype=1, tensor_content=bytes(8)), (2**40,), "allowed are 16777216 values"),
        (dict(dtype=1, float_val=[1]), (2**31, 2**31), "allowed are 16777216 values"),
        (dict(dtype=1), (2**40, 0), "allowed are 16777216 values"),
        (dict(dtype=1), (-1,), "shape (-1,)"),
        (dict(dtype=1), (1,) * 9, "9 axes"),
        (dict(dtype=1, float_val=[1, 2, 3]), (2,), "3 values, shape (2,) takes 2"),
        (dict(dtype=7), (), "type string"),
        (dict(dtype=14), (), "type bfloat16"),
        (dict(), (), "type number 0"),
    ],
)
def test_constants_that_are_refused(fields, shape, message):
    with pytest.raises(ModelError, match=re.escape(message)):
        constant_node(shape, **fields).array()


# ---- refusals ------------------------------------------------------------------------------------------------------


def refusal(path) -> str:
    with pytest.raises(ModelError) as caught:
        qg.load(path)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 900
    return text


def test_lstm():
    assert "neither a GRU cell nor a dense layer" in refusal(MODELS / "refused_lstm.pb")


def set_op(graph, name, op):
    node_of(graph, name).op = op


def append(graph, op, *inputs):
    graph.node.add(name="added", op=op, input=inputs)


def set_input(graph, name, i, value):
    node_of(graph, name).input[i] = value


def set_shape(graph, *shape):
    set_attribute(attribute_of(graph, "samples", "shape"), shape)


def change_kernel(graph, name, i, value):
    tensor = attribute_of(graph, name, "value").tensor
    values = np.frombuffer(tensor.tensor_content, "<f4").copy()
    values[i] = value
    tensor.tensor_content = values.tobytes()


def change_step(graph, step):
    for name, value in (("strided_slice/stack", step), ("strided_slice/stack_1", step + 1)):
        attribute_of(graph, name, "value").tensor.tensor_content = np.array([0, value], "<i4").tobytes()


def change_one(graph):
    attribute_of(graph, "rnn/while/gru_cell/sub/x", "value").tensor.float_val[0] = 2


CELL, LOOP = "rnn/while/gru_cell", "rnn/while"

# In dynamic.pb, of which only the nodes that the output needs are kept.
CHANGES = {
    "a variable": (lambda g: set_op(g, "head/weights", "VariableV2"), "not frozen"),
    "a resource": (lambda g: set_op(g, "head/weights", "VarHandleOp"), "not frozen"),
    "another function": (lambda g: set_op(g, f"{CELL}/Tanh", "Erf"), "this operation is not supported"),
    "another gate": (lambda g: set_op(g, f"{CELL}/Sigmoid", "Tanh"), "neither a GRU cell"),
    "u for 1 - u": (lambda g: set_input(g, f"{CELL}/sub", 0, f"{CELL}/split:1"), "neither a GRU cell"),
    "2 - u for 1 - u": (change_one, "neither a GRU cell"),
    "no reset gate": (lambda g: set_input(g, f"{CELL}/concat_1", 1, f"{LOOP}/Identity_3"), "neither a GRU cell"),
    "no recurrence": (lambda g: set_input(g, f"{LOOP}/NextIteration_3", 0, f"{LOOP}/Identity_3"), "single step"),
    "a branch": (lambda g: append(g, "Merge", "xw_plus_b", "scores"), "a branch"),
    "a function": (lambda g: append(g, "PartitionedCall", "scores"), "calls a function"),
    "a loop of TensorFlow 2": (lambda g: append(g, "While", "scores"), "calls a function"),
    "the largest output": (lambda g: append(g, "ArgMax", "scores", "rnn/Rank"), "'added' ('ArgMax'): this operation"),
    "a mean": (lambda g: append(g, "Mean", "rnn/transpose_1", "rnn/time"), "'added' ('Mean'): this operation"),
    "the third step": (lambda g: change_step(g, 2), "the output is made at step 2 of 4"),
    "the fourth step": (lambda g: change_step(g, 3), "cannot be computed"),
    "a second input": (lambda g: set_op(g, "head/biases", "Placeholder"), "2 inputs: 'samples', 'head/biases'"),
    "no input": (lambda g: set_op(g, "samples", "Const"), "no input"),
    "no number of features": (lambda g: set_shape(g, -1, -1, -1), "without the number of features"),
    "four axes": (lambda g: set_shape(g, -1, -1, 3, 1), "declares shape (-1, -1, 3, 1)"),
    "no sequences": (lambda g: set_shape(g, 0, -1, 3), "declares shape (0, -1, 3)"),
    "other features": (lambda g: set_shape(g, -1, -1, 5), "cannot be computed"),
    "one step": (lambda g: set_shape(g, -1, 1, 3), "single step"),
    "many sequences": (lambda g: set_shape(g, 2**40, -1, 3), "allowed are 4194304 numbers"),
    "large sizes": (lambda g: set_shape(g, 2**19, 2, 3), "let it take any number of sequences"),
    "not a number": (lambda g: change_kernel(g, "rnn/gru_cell/gates/kernel", 3, np.nan), "nan"),
    "a missing input": (lambda g: set_input(g, "scores", 0, "nobody"), "reads node 'nobody', which is not there"),
    "a missing output": (lambda g: set_input(g, "scores", 0, "xw_plus_b:7"), "output 7 of node 'xw_plus_b'"),
    "two of a name": (lambda g: g.node.add(name="scores", op="Identity"), "two nodes 'scores'"),
    "a circle": (lambda g: set_input(g, "rnn/strided_slice", 0, "rnn/GRUCellZeroState/zeros"), "reads its own result"),
    "an end that reads itself": (
        lambda g: set_input(g, f"{LOOP}/LogicalAnd", 0, f"{LOOP}/LogicalAnd"),
        "its own result",
    ),
    "another end": (lambda g: set_input(g, f"{LOOP}/Less/Enter", 0, "rnn/strided_slice/stack_1"), "not written"),
    "an end by values": (lambda g: set_input(g, f"{LOOP}/LoopCond", 0, f"{LOOP}/Merge_3"), "how often the loop runs"),
    "an open ring": (lambda g: set_input(g, f"{LOOP}/Merge", 1, f"{LOOP}/add"), "expected NextIteration"),
    "the body as output": (lambda g: set_input(g, "rnn/while/Exit_2", 0, f"{LOOP}/Switch_2:1"), "condition is true"),
}


def needed(graph):
    names = [node.name for node in graph.node]
    keep_up_to(graph, "added" if "added" in names else "scores")


@pytest.mark.parametrize("name", CHANGES)
def test_graphs_that_are_refused(tmp_path, name):
    change, message = CHANGES[name]
    path = changed("dynamic.pb", tmp_path, lambda graph: (change(graph), needed(graph)))
    assert message in refusal(path)


def test_a_loop_without_end(tmp_path, monkeypatch):
    def count_nothing(graph):
        for name in (f"{LOOP}/add/y", f"{LOOP}/add_1/y"):
            attribute_of(graph, name, "value").tensor.int_val[0] = 0

    monkeypatch.setattr(tensorflow1_run, "BUDGET", 1 << 22)  # a few seconds less than with the real one
    assert "more than 4194304 numbers" in refusal(changed("dynamic.pb", tmp_path, count_nothing))


def test_two_outputs(tmp_path):
    path = changed("dynamic.pb", tmp_path, lambda graph: append(graph, "Tanh", "xw_plus_b"))
    assert "2 outputs: 'scores', 'added'" in refusal(path)


def test_a_step_of_its_own_is_found_by_the_comparison(tmp_path):
    """The second step of an unrolled cell gets another candidate bias; the last step, from which is read, does not."""

    def untie(graph):
        own = graph.node.add()
        own.CopyFrom(node_of(graph, "rnn/gru_cell/candidate/bias"))
        own.name = "own"
        change_kernel(graph, "own", 0, 0.125)
        set_input(graph, "rnn/gru_cell/BiasAdd_3", 1, "own")

    assert "its import differs by" in refusal(changed("static.pb", tmp_path, untie))


# ---- files that are none, and files made to harm -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b'node {\n  name: "x"\n  op: "Placeholder"\n}\n', "a graph as text"),
        (b"\x08\x01\x12\x00", "a SavedModel"),
        (b"PK\x03\x04", "does not begin with a node"),
        (b"\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "no GraphDef"),
        (b"\n\x04\n\x02\xff\xfe", "no NodeDef"),  # a name that is no text
        (b"\n\x00", "'' is no name"),
        (b"\n\x08\n\x03*/\n\x12\x01X", "'*/\\n' is no name"),
        (b"\n\x00" * 50_001, "50001 nodes, allowed are 1 ... 50000"),
    ],
)
def test_files_that_are_no_graphs(tmp_path, content, message):
    path = tmp_path / "x.pb"
    path.write_bytes(content)
    assert message in refusal(path)


def test_folder_of_a_saved_model(tmp_path):
    (tmp_path / "model.pb").mkdir()
    assert "a folder" in refusal(tmp_path / "model.pb")


def test_large_file_is_not_read(tmp_path):
    path = tmp_path / "x.pb"
    with path.open("wb") as file:
        file.truncate((64 << 20) + 1)
    assert "67108865 bytes, allowed are 67108864" in refusal(path)


def test_truncated_files(tmp_path):
    content = (MODELS / "static.pb").read_bytes()
    path = tmp_path / "x.pb"
    for size in range(1, len(content), 97):
        path.write_bytes(content[:size])
        refusal(path)


def growing(graph, x):
    for _ in range(60):
        x = graph.join(x, x)


def growing_by_broadcast(graph, x):
    column = graph.node("Reshape", x, graph.constant([-1, 1]))
    for _ in range(9):
        column = graph.node("Mul", column, graph.node("Reshape", column, graph.constant([1, -1])))
        column = graph.node("Reshape", column, graph.constant([-1, 1]))


def summing(graph, x):
    for _ in range(60):
        x = graph.node("Add", x, x)


def long_chain(graph, x):
    for _ in range(5000):
        x = graph.node("Identity", x)


def deep(graph, x):
    for _ in range(3000):
        x = graph.node("Tanh", x)


def wide(graph, x):
    """A cell of 2^14 units that all are the same one has 3 x 2^28 weights."""
    units = 2**14
    kernel, bias, h = np.ones((INPUTS + units, 1)), np.zeros(1), graph.constant(np.zeros((1, units)))

    def spread(function, state):
        value = graph.node(function, graph.dense(graph.join(x, state), kernel, bias))
        return graph.node("BroadcastTo", value, graph.constant([1, units]))

    for _ in range(2):
        u = spread("Sigmoid", h)
        h = graph.mixture(u, h, spread("Tanh", graph.node("Mul", u, h)))


HARMFUL = {
    "joins": growing,
    "products": growing_by_broadcast,
    "sums": summing,
    "a chain": long_chain,
    "layers": deep,
    "a wide gate": wide,
    "many steps": lambda graph, x: graph.node("Fill", graph.constant([2**31 - 1, 2**20]), x),
    "tiles": lambda graph, x: graph.node("Tile", x, graph.constant([2**30, 2**30])),
    "a range": lambda graph, x: graph.join(x, graph.node("Range", *map(graph.constant, (0, 2**31 - 1, 1)))),
    "an array": lambda graph, x: graph.join(x, graph.node("TensorArrayV3", graph.constant(2**31 - 1))),
    "parts": lambda graph, x: graph.join(x, graph.node("Split", graph.constant(0), x, num_split=2**40)),
    "rows of nothing": lambda graph, x: graph.node(
        "Unpack",
        graph.node("Reshape", graph.node("Slice", x, *[graph.constant([0, 0])] * 2), graph.constant([2**31 - 1, 0])),
    ),
}


@pytest.mark.parametrize("name", HARMFUL)
def test_files_made_to_harm(tmp_path, name):
    graph = GraphMaker()
    HARMFUL[name](graph, graph.placeholder(1, INPUTS))
    tracemalloc.start()
    try:
        refusal(graph.save(tmp_path / "x.pb"))
        assert tracemalloc.get_traced_memory()[1] < 400 << 20
    finally:
        tracemalloc.stop()


def test_mutated_values_of_fields(tmp_path):
    """Only our errors. The long run over every importer is in test_import_fuzz.py."""
    seen = set()
    for seed in range(150):
        path = tmp_path / "x.pb"
        path.write_bytes(mutate((MODELS / "dynamic.pb").read_bytes(), ".pb", random.Random(seed)))
        try:
            seen.add(type(qg.load(path)))
        except (ModelError, DataError) as error:
            seen.add(type(error))
    assert seen >= {qg.FloatModel, ModelError}


def test_protobuf_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "quantgru.importers.tensorflow1_messages", None)
    with pytest.raises(ConfigError, match=re.escape("pip install quantgru[tensorflow1]")):
        qg.load(MODELS / "dynamic.pb")
