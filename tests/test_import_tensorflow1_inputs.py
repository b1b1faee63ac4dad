"""The inputs of graphs of TensorFlow 1: sequences in any arrangement, initial states, lengths."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("google.protobuf", reason="protobuf is not installed: pip install quantgru[tensorflow1]")

from support_graphs import MODELS, GraphMaker, attribute_of, changed
from support_gru_graphs import (
    INPUTS,
    STEPS,
    UNITS,
    assert_close,
    gru_states,
    model_of,
    sequence,
    steps_of,
    unrolled,
    weights,
)

import quantgru as qg
from quantgru.errors import ModelError


def started(graph, h):
    """A layer that begins with h."""
    return unrolled(graph, steps_of(graph, graph.placeholder(1, STEPS, INPUTS)), weights(), h)


# ---- sequences -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, STEPS * INPUTS), (1, STEPS, INPUTS), (STEPS, 1, INPUTS), (STEPS, INPUTS)])
def test_arrangements_of_the_input(tmp_path, shape):
    graph, parts, x = GraphMaker(), weights(), sequence()
    samples = graph.node("Reshape", graph.placeholder(*shape), graph.constant([1, STEPS, INPUTS]))
    unrolled(graph, steps_of(graph, samples), parts)
    assert_close(model_of(graph, tmp_path).run(x), gru_states(x, parts)[:, -1])


def test_a_second_input_of_sequences(tmp_path):
    """What is added to the inputs is no initial state."""
    graph = GraphMaker()
    samples = graph.placeholder(1, STEPS, INPUTS), graph.placeholder(1, STEPS, INPUTS, name="others")
    unrolled(graph, steps_of(graph, graph.node("Add", *samples)), weights())
    with pytest.raises(ModelError, match="neither a GRU cell nor"):
        model_of(graph, tmp_path)


# ---- initial states ------------------------------------------------------------------------------------------------


def test_constant_initial_state(tmp_path):
    graph, x = GraphMaker(), sequence()
    start = np.array([0.5, -1.5, 0.25, 1])
    started(graph, graph.node("Tile", graph.constant(start[None]), graph.constant([1, 1])))
    model = model_of(graph, tmp_path)
    assert (model.grus[0].initial_state == start).all()
    assert_close(model.run(x), gru_states(x, weights(), h=start)[:, -1])


GIVEN = "initial states, run(x, initial_states=[...]), are inputs of the file: "


@pytest.mark.parametrize(
    ("shape", "where"), [((1, UNITS), "'h0'"), ((3, 1, UNITS), "'h0'[1]"), ((1, UNITS + 2), "'h0'[:, 2:6]")]
)
def test_given_initial_state(tmp_path, shape, where):
    """Alone, as the second of three, or between others as columns."""
    graph, x = GraphMaker(), sequence()
    given = graph.placeholder(*shape, name="h0")
    if shape[-1] > UNITS:
        given = graph.node("Slice", given, graph.constant([0, 2]), graph.constant([1, UNITS]))
    elif len(shape) == 3:
        given = graph.node("Unpack", given, axis=0, num=3) + ":1"
    started(graph, given)
    model = model_of(graph, tmp_path)
    h0 = np.random.default_rng(3).normal(size=(1, UNITS))
    assert model.notes[1:] == (f"{GIVEN}[0] {where}",)
    assert_close(model.run(x, initial_states=[h0]), gru_states(x, weights(), h=h0)[:, -1])


def test_given_state_of_one_layer_of_two(tmp_path):
    """The other one begins with a constant: both are in the order of the layers."""
    graph, x, upper = GraphMaker(), sequence(), weights(1, UNITS)
    start = np.array([[0.5, -1.5, 0.25, 1]])
    states = started(graph, graph.constant(start))
    unrolled(graph, states, upper, graph.placeholder(1, UNITS, name="h0"))
    model = model_of(graph, tmp_path)
    h0 = np.random.default_rng(3).normal(size=(1, UNITS))
    expected = gru_states(gru_states(x, weights(), h=start), upper, h=h0)
    assert model.notes[1:] == (f"{GIVEN}[0] model.grus[0].initial_state or zeros, [1] 'h0'",)
    assert_close(model.run(x, initial_states=[start, h0]), expected[:, -1])


@pytest.mark.parametrize("is_swapped", [False, True])
def test_given_states_of_both_directions(tmp_path, is_swapped):
    """The note says which of them is initial_states[0]."""
    graph, x = GraphMaker(), sequence()
    steps = steps_of(graph, graph.placeholder(1, STEPS, INPUTS))
    starts = graph.placeholder(1, UNITS, name="fw"), graph.placeholder(1, UNITS, name="bw")
    forward = unrolled(graph, steps, weights(), starts[0])
    backward = unrolled(graph, steps[::-1], weights(1), starts[1])
    graph.node("Add", *(forward[-1], backward[-1]) if is_swapped else (backward[-1], forward[-1]))
    model = model_of(graph, tmp_path)
    h0 = np.random.default_rng(3).normal(size=(2, 1, UNITS))
    expected = gru_states(x, weights(), h=h0[0])[:, -1] + gru_states(x[:, ::-1], weights(1), h=h0[1])[:, -1]
    given = {f"{GIVEN}[0] 'fw', [1] 'bw'": h0, f"{GIVEN}[0] 'bw', [1] 'fw'": h0[::-1]}[model.notes[1]]
    assert_close(model.run(x, initial_states=list(given)), expected)


def test_given_state_in_another_order(tmp_path):
    graph = GraphMaker()
    given = graph.node("Reshape", graph.placeholder(UNITS, 1, name="h0"), graph.constant([1, UNITS]))
    started(graph, given)
    with pytest.raises(ModelError, match=r"node 'h0' .*initial states of shape \(4, 1\), in another order"):
        model_of(graph, tmp_path)


@pytest.mark.parametrize("op", ["ReverseV2", "GatherV2"])
def test_given_state_with_its_units_in_another_order(tmp_path, op):
    graph = GraphMaker()
    axis = graph.constant(1)
    places = [graph.constant([1, 0, 2, 3]), axis] if op == "GatherV2" else [graph.constant([1])]
    started(graph, graph.node(op, graph.placeholder(1, UNITS, name="h0"), *places))
    with pytest.raises(ModelError, match=r"node 'h0' .*initial states of shape \(1, 4\), in another order"):
        model_of(graph, tmp_path)


def test_sequences_that_are_also_the_initial_state(tmp_path):
    graph = GraphMaker()
    steps = steps_of(graph, graph.placeholder(1, STEPS, UNITS))
    unrolled(graph, steps, weights(inputs=UNITS), steps[-1])
    with pytest.raises(ModelError, match="sequences that are also initial states; give these an input of their own"):
        model_of(graph, tmp_path)


def test_an_initial_state_that_is_computed(tmp_path):
    """What an encoder gives to a decoder, for instance."""
    graph = GraphMaker()
    context = graph.placeholder(1, 2, name="context")
    started(graph, graph.node("Tanh", graph.dense(context, np.ones((2, UNITS)), np.ones(UNITS))))
    with pytest.raises(ModelError, match=r"'context' .*: an input beside 'samples', and no initial state; put a const"):
        model_of(graph, tmp_path)


# ---- lengths -------------------------------------------------------------------------------------------------------

LENGTHS = "form_dynamic_lengths_every_step"


def record_of_lengths():
    record = np.load(MODELS / f"{LENGTHS}.npz")
    return [rows[:length] for rows, length in zip(record["x"], record["lengths"], strict=True)], record


def with_lengths(folder, add):
    """The graph of every step, and more nodes."""

    def change(graph):
        maker = GraphMaker()
        maker.graph = graph
        add(maker)

    return changed(f"{LENGTHS}.pb", folder, change)


def test_steps_picked_by_the_lengths(tmp_path):
    """gather_nd(outputs, stack([range(n), lengths - 1], 1)), as it is often written."""

    def pick(graph):
        lengths = graph.node("Sub", "lengths", graph.constant(1))
        rows = graph.node("Range", graph.constant(0), graph.node("Size", "lengths"), graph.constant(1))
        graph.node("GatherNd", "scores", graph.node("Pack", rows, lengths, axis=1))

    x, record = record_of_lengths()
    ends = np.arange(len(x)), record["lengths"] - 1
    assert_close(qg.load(with_lengths(tmp_path, pick)).run(x), record["y"][ends])


def test_steps_picked_by_the_lengths_in_a_gather(tmp_path):
    def pick(graph):
        lengths = graph.node("Sub", "lengths", graph.constant(1))
        graph.node("GatherV2", "scores", lengths, graph.constant(1), batch_dims=1)

    x, record = record_of_lengths()
    ends = np.arange(len(x)), record["lengths"] - 1
    assert_close(qg.load(with_lengths(tmp_path, pick)).run(x), record["y"][ends])


def test_outputs_masked_by_the_lengths(tmp_path):
    """What is multiplied by 0 comes after the end of a sequence."""

    def mask(graph):
        steps = graph.node("Range", graph.constant(0), graph.constant(7), graph.constant(1))
        lengths = graph.node("ExpandDims", "lengths", graph.constant(1))
        inside = graph.node("Cast", graph.node("Less", steps, lengths), DstT="float32")
        graph.node("Mul", "scores", graph.node("ExpandDims", inside, graph.constant(2)))
        attribute_of(graph.graph, "samples", "shape").shape.dim[1].size = 7

    x, record = record_of_lengths()
    expected = [rows[:length] for rows, length in zip(record["y"], record["lengths"], strict=True)]
    model = qg.load(with_lengths(tmp_path, mask))
    assert [type(layer) for layer in model.layers] == [qg.Gru]
    assert_close(np.concatenate(model.run(x)), np.concatenate(expected))


def test_last_step_with_padding(tmp_path):
    """Of sequences that are shorter than the longest, the last step is padding."""

    def take_last(graph):
        begin, end, strides = (graph.constant(values) for values in ([0, -1], [0, 0], [1, 1]))
        graph.node("StridedSlice", "scores", begin, end, strides, begin_mask=1, end_mask=1, shrink_axis_mask=2)

    with pytest.raises(
        ModelError, match="for unequal lengths: it uses padding; take the states that dynamic_rnn returns"
    ):
        qg.load(with_lengths(tmp_path, take_last))


def test_two_inputs_of_lengths(tmp_path):
    def another(graph):
        other = graph.placeholder(-1, dtype="int32", name="others")
        graph.node("GatherV2", "scores", graph.node("Sub", other, "lengths"), graph.constant(1), batch_dims=1)

    with pytest.raises(ModelError, match="a second input of lengths"):
        qg.load(with_lengths(tmp_path, another))
