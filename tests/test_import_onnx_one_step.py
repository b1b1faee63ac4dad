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


def cell(g: GraphBuilder, x: str, h: str) -> str:
    from_x, from_h = (
        g.add("Split", g.add("MatMul", v, g.weights(n, 3 * UNITS)), n_outputs=3, axis=-1, num_outputs=3)
        for v, n in ((x, INPUTS), (h, UNITS))
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
