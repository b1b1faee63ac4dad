"""ONNX files that compute one step, (x [batch, inputs], state) -> (y, state), as firmware calls them."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from onnx_graphs import TOLERANCE, UNITS, GraphBuilder, computed, onnxruntime, refusal, samples, written

import quantgru as qg

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")
pytest.importorskip("onnxscript", reason="onnxscript is not installed: pip install onnxscript")

from torch import nn  # noqa: E402

BATCH, STEPS, INPUTS = 2, 5, 3


class OneCell(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(INPUTS, 4), nn.Linear(4, 2)

    def forward(self, x, h):
        state = self.cell(x, h[0])
        return self.head(state), state[None]


class StateAlone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(INPUTS, 4, bias=False)

    def forward(self, x, h):
        state = self.cell(x, h[0])
        return state, state[None]


class TwoCells(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before, self.head = nn.Linear(INPUTS, 5), nn.Linear(4, 2)
        self.first, self.second = nn.GRUCell(5, 4), nn.GRUCell(4, 4)

    def forward(self, x, h):
        first = self.first(torch.relu(self.before(x)), h[0])
        second = self.second(first, h[1])
        return torch.sigmoid(self.head(second)), torch.stack((first, second))


class OneStepOfLayers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru, self.head = nn.GRU(INPUTS, 4, num_layers=2, batch_first=True), nn.Linear(4, 2)

    def forward(self, x, h):
        y, state = self.gru(x[:, None], h)
        return self.head(y[:, 0]), state


MODULES = {OneCell: 1, StateAlone: 1, TwoCells: 2, OneStepOfLayers: 2}


@pytest.mark.parametrize("dynamo", [False, True], ids=["torchscript", "dynamo"])
@pytest.mark.parametrize("cls", MODULES, ids=lambda cls: cls.__name__)
def test_a_module_that_computes_one_step(cls, dynamo, tmp_path):
    """Called once for each step, with the state that it gave before, it gives what the model gives of the sequence."""
    torch.manual_seed(0)
    path, n_layers = tmp_path / "step.onnx", MODULES[cls]
    sizes = {} if dynamo else {"dynamic_axes": {"x": {0: "batch"}, "h": {1: "batch"}}}
    with warnings.catch_warnings(action="ignore"):
        example = torch.zeros(BATCH, INPUTS), torch.zeros(n_layers, BATCH, 4)
        names = dict(input_names=["x", "h"], output_names=["y", "next"])
        torch.onnx.export(cls().eval(), example, path, dynamo=dynamo, verbose=False, **names, **sizes)
    x, state = samples(1, BATCH, STEPS, INPUTS), samples(2, n_layers, BATCH, 4)
    model = qg.load(path)
    found, after = model.run(x, initial_states=list(state)), model.final_states(x, initial_states=list(state))
    assert found.shape[:2] == (BATCH, STEPS)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for step in range(STEPS):
        feed = {"x": x[:, step].astype(np.float32), "h": state.astype(np.float32)}
        y, state = session.run(None, feed)
        assert np.abs(found[:, step] - y).max() <= TOLERANCE
    assert np.abs(np.stack(after) - state).max() <= TOLERANCE
    assert "the file computes one step, from states to states; run(x) does so for every step of x" in model.notes


def cell(g: GraphBuilder, x: str, h: str, n_inputs: int = INPUTS) -> str:
    from_x, from_h = (
        g.add("Split", g.add("MatMul", v, g.weights(n, 3 * UNITS)), n_outputs=3, axis=-1, num_outputs=3)
        for v, n in ((x, n_inputs), (h, UNITS))
    )
    r, z = (g.add("Sigmoid", g.add("Add", from_x[i], from_h[i])) for i in (0, 1))
    n = g.add("Tanh", g.add("Add", from_x[2], g.add("Mul", r, from_h[2])))
    return g.add("Add", g.add("Mul", g.add("Sub", h, n), z), n)


def test_steps_that_do_not_follow_each_other(tmp_path):
    """The same arithmetic on all steps at once, each from the same state, is no layer."""
    g = GraphBuilder()
    y = cell(g, g.input("x", ["batch", "steps", INPUTS]), g.input("h", [1, 1, UNITS]))
    model = g.model(y)
    assert computed(model, x=samples(0, 2, 4, INPUTS), h=samples(1, 1, 1, UNITS))
    assert "more free axes than steps and batch" in refusal(written(tmp_path, model))


def test_one_step_upon_a_sequence(tmp_path):
    g = GraphBuilder()
    y, _ = g.gru(g.input("x", ["steps", "batch", INPUTS]), INPUTS, INPUTS)
    y = cell(g, g.add("Squeeze", y, g.constant([1])), g.input("h", [1, 1, UNITS]))
    refusal(written(tmp_path, g.model(y)))


def test_one_step_from_no_state(tmp_path):
    """It gives the first step of each sequence only, whatever came before."""
    g = GraphBuilder()
    x = g.add("Unsqueeze", g.input("x", ["batch", INPUTS]), g.constant([0]))
    _, y_h = g.gru(x, INPUTS, UNITS)
    text = refusal(written(tmp_path, g.model(y_h)))
    assert "a single step that starts from no state" in text and "with its state as an input and an output" in text


def two_cells(g: GraphBuilder, before: tuple[str, str]) -> list[str]:
    """The states after one step of two layers."""
    first = cell(g, g.input("x", ["batch", INPUTS]), before[0])
    return [first, cell(g, first, before[1], UNITS)]


def entries(g: GraphBuilder, axis: int = 0) -> tuple[str, str]:
    """Both states of input h, along this axis."""
    h = g.input("h", [2, "batch", UNITS] if axis == 0 else ["batch", 2, UNITS])
    return g.add("Gather", h, g.constant(0), axis=axis), g.add("Gather", h, g.constant(1), axis=axis)


def stacked(g: GraphBuilder, *states: str, axis: int = 0) -> str:
    return g.add("Concat", *(g.add("Unsqueeze", state, g.constant([axis])) for state in states), axis=axis)


def head(g: GraphBuilder, state: str) -> str:
    return g.add("MatMul", state, g.weights(UNITS, 2))


NO_CIRCLE = {  # which of the two entries of h each layer starts from, which states come back, and what is said
    "exchanged where they come in": ((1, 0), (0, 1), "gives the states h[1], h[0] in this order"),
    "exchanged where they come out": ((0, 1), (1, 0), "gives the states h[1], h[0] in this order"),
    "one for both layers": ((1, 1), (0, 1), "a state of its own for each GRU layer"),
    "one of them twice": ((0, 1), (1, 1), "a state of its own for each GRU layer"),
}


@pytest.mark.parametrize("name", NO_CIRCLE)
def test_states_that_do_not_come_back_where_they_came_from(name, tmp_path):
    """From its second step on, such a file gives other numbers than layers do."""
    taken, given, message = NO_CIRCLE[name]
    g = GraphBuilder()
    h = entries(g)
    states = two_cells(g, (h[taken[0]], h[taken[1]]))
    model = g.model(head(g, states[1]), stacked(g, *(states[i] for i in given)))
    assert computed(model, x=samples(0, 4, INPUTS), h=samples(1, 2, 4, UNITS))
    assert message in refusal(written(tmp_path, model))


def scaled(g: GraphBuilder, state: str) -> str:
    return g.add("Mul", state, g.constant(2.0))


def exchanged(g: GraphBuilder, state: str) -> str:
    return g.add("Gather", state, g.constant([2, 0, 1]), axis=-1)


@pytest.mark.parametrize("change", [head, scaled, exchanged])
def test_one_step_that_does_not_give_its_state(change, tmp_path):
    g = GraphBuilder()
    state = cell(g, g.input("x", ["batch", INPUTS]), g.input("h", ["batch", UNITS]))
    text = refusal(written(tmp_path, g.model(change(g, state))))
    assert "a state of its own for each GRU layer" in text and "as an input and, unchanged, as an output" in text


def test_a_state_of_one_of_two_layers(tmp_path):
    g = GraphBuilder()
    states = two_cells(g, (g.input("h", ["batch", UNITS]), g.input("k", ["batch", UNITS])))
    text = refusal(written(tmp_path, g.model(head(g, states[1]), states[0])))
    assert "a state of its own for each GRU layer" in text


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["in order", "the second layer first"])
def test_states_in_inputs_and_outputs_of_their_own(order, tmp_path):
    """Notes say which output is which state, and which input."""
    g = GraphBuilder()
    names = g.input("h", ["batch", UNITS]), g.input("k", ["batch", UNITS])
    states = two_cells(g, (names[order[0]], names[order[1]]))
    y, outputs = head(g, states[1]), [states[i] for i in order]
    model = g.model(y, *outputs)
    loaded = qg.load(written(tmp_path, model))
    x, given = samples(0, 4, STEPS, INPUTS), dict(zip(names, samples(1, 2, 4, UNITS), strict=True))
    starts = [given[names[i]] for i in order]
    found, after = loaded.run(x, initial_states=starts), loaded.final_states(x, initial_states=starts)
    for step in range(STEPS):
        expected, *next_states = computed(model, x=x[:, step], **given)
        given = dict(zip(names, next_states, strict=True))
        assert np.abs(found[:, step] - expected).max() <= TOLERANCE
    assert np.abs(np.stack([after[i] for i in order]) - next_states).max() <= TOLERANCE
    assert f"inputs of the file: {names[order[0]]}, {names[order[1]]}" in loaded.notes[-1]
    for name, i in zip(outputs, order, strict=True):
        assert f"output {name!r} of the file is entry {i} of what model.final_states(x) gives" in loaded.notes


def test_states_along_another_axis(tmp_path):
    g = GraphBuilder()
    states = two_cells(g, entries(g, axis=1))
    loaded = qg.load(written(tmp_path, g.model(states[1], stacked(g, *states, axis=1))))
    assert any(note.endswith("are inputs of the file: h[:, 0], h[:, 1]") for note in loaded.notes)
