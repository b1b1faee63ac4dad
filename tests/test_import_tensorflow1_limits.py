"""Graphs of TensorFlow 1 that treat some numbers of sequences, steps or lengths otherwise: TensorFlow's, changed."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("google.protobuf", reason="protobuf is not installed: pip install quantgru[tensorflow1]")

from support_graphs import MODELS, GraphMaker, attribute_of, changed, keep_up_to, node_of, refusal, set_attribute
from support_gru_graphs import INPUTS, UNITS, assert_close, cell, steps_of, unrolled, weights

import quantgru as qg

N_SEQUENCES, N_STEPS = "rnn/strided_slice", "rnn/strided_slice_1"  # nodes of dynamic.pb
STEP, STEP_COUNT = "rnn/while/Identity_1", "rnn/while/Less_1/Enter"
BACKWARD = "bidirectional_rnn/bw/bw"  # of form_dynamic_lengths_both.pb
X, X_STEP = ("rnn/transpose", 0), ("rnn/while/gru_cell/concat", 0)  # who reads the sequences, and a step of them
HEAD = ("xw_plus_b/MatMul", 0)


def with_nodes(folder, reader, make, name="dynamic.pb"):
    """dynamic.pb with more nodes before an input of one of its nodes: make(graph, what that read)."""

    def change(graph):
        maker, (node, i) = GraphMaker(), reader
        maker.graph = graph
        node_of(graph, node).input[i] = make(maker, node_of(graph, node).input[i])
        keep_up_to(graph, "scores")

    return changed(name, folder, change)


def sliced(graph, x, first, last, axis):
    """x[first:last] along an axis, where None is as in Python."""
    begin, end = np.zeros(axis + 1, int), np.zeros(axis + 1, int)
    begin[axis], end[axis] = first or 0, last or 0
    masks = {
        "begin_mask": (1 << axis + 1) - 1 - ((first is not None) << axis),
        "end_mask": (1 << axis + 1) - 1 - ((last is not None) << axis),
    }
    return graph.node("StridedSlice", x, *map(graph.constant, (begin, end, np.ones(axis + 1, int))), **masks)


def sliced_from(graph, x, first):
    """x[:, first:]"""
    begin = graph.node("Pack", graph.constant(0), first, axis=0)
    return graph.node("StridedSlice", x, begin, *map(graph.constant, ([0, 0], [1, 1])), begin_mask=1, end_mask=3)


def times(graph, x, number):
    return graph.node("Mul", x, graph.node("Cast", number, DstT="float32"))


def least(graph, *numbers):
    return graph.node("Min", graph.node("Pack", *numbers, axis=0), graph.constant(0))


def by_table(graph, x):
    """Steps times a constant of their own, which is 1 for the first hundred."""
    table = graph.constant(np.repeat([1.0, 0.5], 100))
    return graph.node("Mul", x, graph.node("GatherV2", table, STEP, graph.constant(0)))


def computed(graph, op, a, b):
    return graph.node(op, a, graph.constant(b))


def n_steps_of(graph, x):
    """tf.shape(x)[1]"""
    places = map(graph.constant, ([1], [2], [1]))
    return graph.node("StridedSlice", graph.node("Shape", x), *places, shrink_axis_mask=1)


def without_the_first(graph, x):
    """x[:, max(steps - 200, 0):], the last 200"""
    return sliced_from(graph, x, computed(graph, "Maximum", computed(graph, "Sub", n_steps_of(graph, x), 200), 0))


def rounded(graph, x):
    """x[:, int(steps * 0.005):]"""
    part = computed(graph, "Mul", graph.node("Cast", n_steps_of(graph, x), DstT="float32"), 0.005)
    return sliced_from(graph, x, graph.node("Cast", part, DstT="int32"))


def summed(graph, x):
    """x[:, int(tf.reduce_sum(tf.fill([steps], 0.005))):]"""
    parts = graph.node("Fill", graph.node("Pack", n_steps_of(graph, x), axis=0), graph.constant(0.005))
    whole = graph.node("Sum", parts, graph.constant([0]))
    return sliced_from(graph, x, graph.node("Cast", whole, DstT="int32"))


# Where, what instead of that, and what the refusal says. With a few steps and sequences they are as without it.
WITH = "compares a size or step number with"
COMPUTED = "compares what is computed of sizes or step numbers"
LIMITS = {
    "the first 200 steps": (X, lambda g, x: sliced(g, x, None, 200, 1), "a slice begins or ends at 200 of any number"),
    "the last 200 steps": (X, lambda g, x: sliced(g, x, -200, None, 1), "a slice begins or ends at -200"),
    "the first 8 sequences": (X, lambda g, x: sliced(g, x, None, 8, 0), "a slice begins or ends at 8"),
    "the last 200, computed": (X, without_the_first, COMPUTED),
    "without a share": (X, rounded, COMPUTED),
    "without a sum": (X, summed, COMPUTED),
    "from the tenth step": (X, lambda g, x: sliced(g, x, 10, None, 1), "nothing is left of the input"),
    "steps below 150": ((STEP_COUNT, 0), lambda g, n: computed(g, "Minimum", n, 150), f"{WITH} 150"),
    "the least of two": ((STEP_COUNT, 0), lambda g, n: least(g, n, g.constant(150)), COMPUTED),
    "a mask by steps": (X_STEP, lambda g, x: times(g, x, computed(g, "Less", STEP, 200)), f"{WITH} 200"),
    "all but one step": (
        ("rnn/while/NextIteration_3", 0),
        lambda g, h: g.node("SelectV2", computed(g, "Equal", STEP, 77), "rnn/while/Identity_3", h),
        f"{WITH} 77",
    ),
    "a mask by truth": (
        X_STEP,
        lambda g, x: times(g, x, g.node("Cast", computed(g, "Sub", STEP, 200), DstT="bool")),
        COMPUTED,
    ),
    "again every 100": (
        ("rnn/while/TensorArrayReadV3", 1),
        lambda g, t: computed(g, "FloorMod", t, 100),
        "'FloorMod'): computes with sizes or step numbers",
    ),
    "a table": (X_STEP, by_table, "reads a table by a size or step number"),
    "a factor": (
        HEAD,
        lambda g, h: times(g, h, computed(g, "FloorDiv", computed(g, "Add", N_STEPS, 1000), 1000)),
        "computes with sizes",
    ),
    "one sequence": (
        HEAD,
        lambda g, h: g.node("SelectV2", computed(g, "Equal", N_SEQUENCES, 1), g.node("Neg", h), h),
        "not every step is computed",
    ),
    "one step": (
        HEAD,
        lambda g, h: g.node("SelectV2", computed(g, "Equal", N_STEPS, 1), g.node("Neg", h), h),
        "not every step is computed",
    ),
}


@pytest.mark.parametrize("name", LIMITS)
def test_limits_that_are_refused(tmp_path, name):
    reader, make, message = LIMITS[name]
    assert message in refusal(with_nodes(tmp_path, reader, make))


def test_a_counter_that_begins_elsewhere(tmp_path):
    def begin(graph):
        attribute_of(graph, "rnn/while/iteration_counter", "value").tensor.int_val[0] = -200

    assert COMPUTED in refusal(changed("dynamic.pb", tmp_path, begin))


def test_a_step_that_is_too_long_to_be_made_twice(tmp_path):
    """The loop of the backward direction, of which the last output is used: it reads one step, of 150 at most."""

    def change(graph):
        attribute_of(graph, f"{BACKWARD}/while/add_1/y", "value").tensor.int_val[0] = 150

    assert "a loop of one step, of any number" in refusal(changed("form_dynamic_lengths_both.pb", tmp_path, change))


def last_of_rows(graph, _):
    """tf.gather(tf.reshape(states, [-1, units]), tf.range(sequences) * steps + steps - 1)"""
    rows = graph.node("Reshape", "rnn/transpose_1", graph.constant([-1, 4]))
    firsts = graph.node("Mul", graph.node("Range", graph.constant(0), N_SEQUENCES, graph.constant(1)), N_STEPS)
    lasts = graph.node("Add", firsts, computed(graph, "Sub", N_STEPS, 1))
    return graph.node("GatherV2", rows, lasts, graph.constant(0))


NO_LIMITS = {
    "sizes with one another": ((STEP_COUNT, 0), lambda g, n: g.node("Minimum", n, N_STEPS)),
    "at least 1": ((STEP_COUNT, 0), lambda g, n: computed(g, "Maximum", n, 1)),
    "from the first step": (X, lambda g, x: sliced(g, x, 0, None, 1)),
    "the first features": (X, lambda g, x: sliced(g, x, None, 3, 2)),
    "a mask": (X_STEP, lambda g, x: times(g, x, g.node("Less", STEP, STEP_COUNT))),
    "the last of all rows": (HEAD, last_of_rows),
    "no factor": (HEAD, lambda g, h: times(g, h, computed(g, "Minimum", N_STEPS, 1))),
}


@pytest.mark.parametrize("name", NO_LIMITS)
def test_sizes_that_limit_nothing(tmp_path, name):
    reader, make = NO_LIMITS[name]
    record = np.load(MODELS / "dynamic.npz")
    assert_close(qg.load(with_nodes(tmp_path, reader, make)).run(record["x"]), record["y"])


def test_a_limit_beyond_a_fixed_number_of_steps(tmp_path):
    record = np.load(MODELS / "dynamic.npz")

    def limited(graph, x):
        set_attribute(attribute_of(graph.graph, "samples", "shape"), (-1, *record["x"].shape[1:]))
        return sliced(graph, x, None, 200, 1)

    assert_close(qg.load(with_nodes(tmp_path, X, limited)).run(record["x"]), record["y"])


@pytest.mark.parametrize("n_sequences", [-1, 1])
def test_all_lengths_of_a_fixed_number_of_steps_are_compared(tmp_path, n_sequences):
    """Those of 5 steps alone are taken for shorter ones."""

    def change(graph):
        maker = GraphMaker()
        maker.graph = graph
        shorter = maker.node("SelectV2", computed(maker, "Equal", "lengths", 5), maker.constant(4), "lengths")
        node_of(graph, "rnn/sequence_length").input[0] = shorter
        set_attribute(attribute_of(graph, "samples", "shape"), (n_sequences, 12, 3))
        set_attribute(attribute_of(graph, "lengths", "shape"), (n_sequences,))

    assert "for unequal lengths" in refusal(changed("form_dynamic_lengths_every_step.pb", tmp_path, change))


@pytest.mark.parametrize("op", ["ZerosLike", "OnesLike"])
def test_a_constant_in_the_shape_of_what_depends_on_the_input(tmp_path, op):
    """h + 0 - 0, or h + 1 - 1."""
    record = np.load(MODELS / "dynamic.npz")

    def changed_by_nothing(graph, h):
        number = graph.node(op, h)
        return graph.node("Sub", graph.node("Add", h, number), graph.constant(float(op == "OnesLike")))

    assert_close(qg.load(with_nodes(tmp_path, HEAD, changed_by_nothing)).run(record["x"]), record["y"])


def test_a_state_of_zeros_in_the_shape_of_what_depends_on_the_input(tmp_path):
    """tf.zeros_like(tf.matmul(x[:, 0], weights))"""
    record = np.load(MODELS / "dynamic.npz")

    def zeros(graph, _):
        places = map(graph.constant, ([0, 0], [0, 1], [1, 1]))
        first = graph.node("StridedSlice", "samples", *places, begin_mask=1, end_mask=1, shrink_axis_mask=2)
        weights = graph.constant(np.ones((record["x"].shape[2], 4), np.float32))
        return graph.node("ZerosLike", graph.node("MatMul", first, weights))

    model = qg.load(with_nodes(tmp_path, ("rnn/while/Enter_3", 0), zeros))
    assert_close(model.run(record["x"]), record["y"])


def test_first_steps_that_are_left_out_of_a_fixed_number(tmp_path):
    """Of random inputs, a GRU has forgotten them after 200 more; of others it may not have."""

    def limited(graph, x):
        set_attribute(attribute_of(graph.graph, "samples", "shape"), (-1, 250, 3))
        return sliced(graph, x, 50, None, 1)

    assert "the first 50 of 250 steps are left out" in refusal(with_nodes(tmp_path, X, limited))


def test_steps_that_an_upper_layer_leaves_out(tmp_path):
    """The same for an unrolled stack, whose upper layer reads the last 100 of 120 steps."""
    graph, n_steps = GraphMaker(), 120
    lower = weights()
    steps = steps_of(graph, graph.placeholder(1, n_steps, INPUTS), n_steps)
    state, states = graph.constant(np.zeros((1, UNITS))), []
    for step in steps:
        state = cell(graph, step, state, lower)
        states.append(state)
    unrolled(graph, states[20:], weights(1, UNITS))
    found = refusal(graph.save(tmp_path / "made.pb"))
    assert "its GRU layers read between 100 and 120 steps; " in found
    assert "start at a constant or at an input" in found


def test_a_state_that_the_input_gives_to_many_steps(tmp_path):
    graph, n_steps = GraphMaker(), 120
    steps = steps_of(graph, graph.placeholder(1, n_steps, INPUTS), n_steps)
    start = graph.node("Tanh", graph.dense(steps[0], np.ones((INPUTS, UNITS)), np.ones(UNITS)))
    unrolled(graph, steps, weights(), start)
    assert "starts at a computed state; let the state be a constant" in refusal(graph.save(tmp_path / "made.pb"))


def test_a_first_step_of_another_input(tmp_path):
    """Of one that is the initial state, too."""
    graph, n_steps = GraphMaker(), 5
    steps = steps_of(graph, graph.placeholder(1, n_steps, INPUTS), n_steps)
    both = graph.placeholder(1, UNITS + INPUTS, name="both")
    state = cell(graph, sliced(graph, both, UNITS, None, 1), sliced(graph, both, None, UNITS, 1), weights())
    unrolled(graph, steps, weights(), state)
    assert "'both' ('Placeholder'): is read at the first step alone" in refusal(graph.save(tmp_path / "made.pb"))
