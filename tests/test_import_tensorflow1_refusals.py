"""Frozen graphs of TensorFlow 1 that are refused: changed copies of TensorFlow's."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("google.protobuf", reason="protobuf is not installed: pip install quantgru[tensorflow1]")

from support_graphs import MODELS, attribute_of, changed, keep_up_to, node_of, refusal, set_attribute

from quantgru.importers import tensorflow1_run


def test_lstm():
    assert "neither a GRU cell nor a dense layer" in refusal(MODELS / "refused_lstm.pb")


def set_op(graph, name, op):
    node_of(graph, name).op = op


def append(graph, op, *inputs):
    graph.node.add(name="added", op=op, input=inputs)


def add_input(graph):
    """One number, as the rate of dropout."""
    set_attribute(graph.node.add(name="rate", op="Placeholder").attr.add(key="shape").value, ())
    append(graph, "Mul", "scores", "rate")


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
    "the largest output": (
        lambda g: append(g, "ArgMax", "scores", "rnn/Rank"),
        "leave it out: tf.graph_util.extract_sub_graph(graph, ['scores'])",
    ),
    "an operation of CUDA": (lambda g: append(g, "CudnnRNNV2", "scores"), "into a CudnnCompatibleGRUCell, and freeze"),
    "a mean": (lambda g: append(g, "Mean", "rnn/transpose_1", "rnn/time"), "'added' ('Mean'): this operation"),
    "the third step": (lambda g: change_step(g, 2), "the output is made at step 2 of 5"),
    "the fifth step": (lambda g: change_step(g, 4), "cannot be computed"),
    "a second input": (
        lambda g: set_op(g, "head/biases", "Placeholder"),
        "node 'head/biases' ('Placeholder'): declares no",
    ),
    "a single value": (
        lambda g: add_input(g),
        "put a constant in its place: tf.import_graph_def(graph, {'rate': constant}",
    ),
    "no input": (lambda g: set_op(g, "samples", "Const"), "no input"),
    "no number of features": (lambda g: set_shape(g, -1, -1, -1), "without the number of features"),
    "four axes": (lambda g: set_shape(g, -1, -1, 3, 1), "declares shape (-1, -1, 3, 1)"),
    "no sequences": (lambda g: set_shape(g, 0, -1, 3), "declares shape (0, -1, 3)"),
    "other features": (lambda g: set_shape(g, -1, -1, 5), "cannot be computed"),
    "one step": (lambda g: set_shape(g, -1, 1, 3), "single step"),
    "many sequences": (lambda g: set_shape(g, 2**40, -1, 3), "numbers, allowed are 4194304"),
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
    "another end": (lambda g: set_input(g, f"{LOOP}/Less/Enter", 0, "rnn/strided_slice/stack_1"), "constants alone"),
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


def test_a_step_of_its_own(tmp_path):
    """The second step of an unrolled cell gets another candidate bias; the last step, from which is read, does not."""

    def untie(graph):
        own = graph.node.add()
        own.CopyFrom(node_of(graph, "rnn/gru_cell/candidate/bias"))
        own.name = "own"
        change_kernel(graph, "own", 0, 0.125)
        set_input(graph, "rnn/gru_cell/BiasAdd_3", 1, "own")

    assert "not every step is computed as the last one is" in refusal(changed("static.pb", tmp_path, untie))
