"""Files that are no graphs of TensorFlow 1, damaged ones, and files made to harm. Constants, by hand."""

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
from support_graphs import MODELS, GraphMaker, refusal

import quantgru as qg
from quantgru.errors import ConfigError, DataError, ModelError
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


# ---- files that are none, and files made to harm -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b'node {\n  name: "x"\n  op: "Placeholder"\n}\n', "a graph as text"),
        (b"# a graph\nversions {\n}\n", "a graph as text; write it in binary: tf.io.write_graph"),
        (b"\x08\x01\x12\x00", "a SavedModel, whose variables are in other files; of TensorFlow 1: freeze_graph"),
        (b"\x08\x08\x12\x07pytorch", "an ONNX model by its first bytes; give it the suffix .onnx"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file; give it the suffix .h5"),
        (b"PK\x03\x04", "a zip archive; give it the suffix that it was saved with: .keras, .pt or .npz"),
        (b"\x1c\0\0\0TFL3", "a TensorFlow Lite model"),
        (b"\x00\x01", "does not begin with a node"),
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


def unwritten(graph, x):
    """Each of 2^20 elements is as large as the one that was written."""
    handle = graph.node("TensorArrayV3", graph.constant(2**20))
    large = graph.node("Fill", graph.constant([2**10, 2**10]), graph.constant(1.0))
    flow = graph.node("TensorArrayWriteV3", handle, graph.constant(0), large, f"{handle}:1")
    indices = graph.node("Range", graph.constant(0), graph.constant(2**20), graph.constant(1))
    graph.join(x, graph.node("TensorArrayGatherV3", handle, indices, flow))


HARMFUL = {
    "joins": growing,
    "products": growing_by_broadcast,
    "sums": summing,
    "a chain": long_chain,
    "layers": deep,
    "a wide gate": wide,
    "many steps": lambda graph, x: graph.node("Fill", graph.constant([2**31 - 1, 2**20]), x),
    "tiles": lambda graph, x: graph.node("Tile", x, graph.constant([2**30, 2**30])),
    "random numbers": lambda graph, x: graph.join(x, graph.node("RandomUniform", graph.constant([2**30, 2**30]))),
    "lengths": lambda graph, x: graph.join(x, graph.placeholder(2**40, dtype="int32", name="lengths")),
    "initial states": lambda graph, x: graph.join(x, graph.placeholder(2**20, 2**20, name="h0")),
    "choices": lambda graph, x: graph.node(
        "SelectV2", graph.constant(np.ones((2**10, 1, 1), bool)), graph.node("Fill", graph.constant([2**15, 1]), x), x
    ),
    "unwritten elements": unwritten,
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
