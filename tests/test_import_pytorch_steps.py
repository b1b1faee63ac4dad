"""PyTorch modules that compute step by step: loops over nn.GRUCell, and forward() of one step with its states.

Expected values are PyTorch's own: of the loop, or of forward() called at every step with the states that it returned.
"""

from __future__ import annotations

import numpy as np
import pytest

import quantgru as qg

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install quantgru[torch]")

from pytorch_nets import TOLERANCE, UNITS, assert_equal, assert_refused, kinds, random_x, seed, steps_first  # noqa: E402
from torch import nn  # noqa: E402


class CellNet(nn.Module):
    """Two cells and what may lie around them; `steps(self, x, *states)` is forward()."""

    def __init__(self, steps):
        super().__init__()
        self.embedding = nn.Embedding(9, 4)
        self.before = nn.Linear(4, 4)
        self.cell = nn.GRUCell(4, UNITS)
        self.second = nn.GRUCell(UNITS, UNITS)
        self.gru = nn.GRU(4, UNITS, batch_first=True)
        self.fc = nn.Linear(UNITS, 3)
        self.drop = nn.Dropout(0.5)
        self.start = nn.Parameter(torch.zeros(1, UNITS))
        self.steps = steps
        seed(self)

    def forward(self, x):
        return self.steps(self, x)


def last_state(self, x):
    h = torch.zeros(x.size(0), UNITS)
    for t in range(x.size(1)):
        h = self.cell(x[:, t], h)
    return self.fc(h)


def every_state(self, x):
    h, states = x.new_zeros(x.shape[0], UNITS), []
    for t in range(x.shape[1]):
        h = self.cell(x[:, t, :], h)
        states.append(h)
    return self.fc(torch.stack(states, dim=1))


def unbound(self, x):
    h, outputs = None, []
    for step in list(x.unbind(dim=1)):
        h = self.cell(self.before(step).tanh(), h)
        outputs.append(self.fc(self.drop(h)).unsqueeze(1))
    return torch.cat(outputs, dim=1)


def two_cells(self, x):
    batch, steps, _ = x.size()
    states, outputs = [torch.zeros(batch, UNITS) for _ in range(2)], []
    for t in range(steps):
        value = x.select(1, t)
        for i, cell in enumerate((self.cell, self.second)):
            states[i] = cell(value, states[i])
            value = states[i].view(states[i].size(0), -1)
        outputs.append(value)
    return self.fc(torch.stack(outputs, 1)[:, -1])


def after_a_gru(self, x):
    out, _ = self.gru(x)
    h = None
    for t in range(out.size(1)):
        h = self.second(out[:, t], h)
    return h


def of_tokens(self, x):
    h = None
    for t in range(x.size(1)):
        h = self.cell(self.embedding(x[:, t]), h)
    return self.fc(h)


def of_embedded(self, x):
    embedded, h = self.drop(self.embedding(x.long())), None
    for t in range(embedded.size(1)):
        h = self.cell(embedded[:, t], h)
    return self.fc(h)


def learned_start(self, x):
    h = self.start.expand(x.size(0), -1)
    for t in range(x.size(1)):
        h = self.cell(x[:, t], h)
    return h


def last_by_number(self, x):
    h, states = None, []
    for t in range(x.size(1)):
        h = self.cell(x[:, t], h)
        states.append(h)
    return self.fc(states[x.size(1) - 1])


LOOPS = {
    "last state": (last_state, ["Gru", "Dense"]),
    "every state": (every_state, ["Gru", "Dense"]),
    "unbound": (unbound, ["Dense", "Gru", "Dense"]),
    "two cells": (two_cells, ["Gru", "Gru", "Dense"]),
    "after a gru": (after_a_gru, ["Gru", "Gru"]),
    "tokens": (of_tokens, ["Embedding", "Gru", "Dense"]),
    "embedded": (of_embedded, ["Embedding", "Gru", "Dense"]),
    "learned start": (learned_start, ["Gru"]),
    "backwards": (lambda self, x: last_state(self, x.flip(1)), ["Reverse", "Gru", "Dense"]),
    "last by its number": (last_by_number, ["Gru", "Dense"]),
}


@pytest.mark.parametrize("form", LOOPS)
def test_a_loop_over_the_steps(form):
    steps, layers = LOOPS[form]
    net = CellNet(steps)
    model = qg.load(net)
    assert kinds(model) == layers
    assert model.last_step == (form not in ("every state", "unbound"))
    assert_equal(net, model)


def steps_of_first_axis(self, x):
    h, states = None, []
    for t in range(x.size(0)):
        h = self.cell(x[t], h)
        states.append(self.fc(h))
    return torch.stack(states)


def iterated(self, x):
    h, states = None, []
    for step in x:
        h = self.cell(step, h)
        states.append(h)
    return self.fc(torch.stack(states))


@pytest.mark.parametrize("steps", [steps_of_first_axis, iterated])
def test_a_loop_over_the_first_axis(steps):
    net = CellNet(steps)
    assert_equal(net, qg.load(net), steps_first, steps_first)


def test_a_loop_over_exchanged_axes():
    net = CellNet(lambda self, x: iterated(self, x.transpose(0, 1)).permute(1, 0, 2))
    assert_equal(net, qg.load(net))


def loop_with(read, then=lambda self, h: h, numbers=lambda x: range(x.size(1)), out=lambda states: states[-1]):
    """A loop in which a cell reads `read(x, t)`, and `then` is done to its state."""

    def steps(self, x):
        h, states = None, []
        for t in numbers(x):
            h = then(self, self.cell(read(x, t), h))
            states.append(h)
        return out(states)

    return steps


def assigned(self, x):
    states = torch.zeros(x.size(0), x.size(1), UNITS)
    for t in range(x.size(1)):
        states[:, t] = self.cell(x[:, t], None)
    return states


def at(x, t):
    return x[:, t]


REFUSED = {
    "changed state": (loop_with(at, lambda self, h: 0.5 * h), "reads another state than it gave at the step before"),
    "second cell on it": (
        loop_with(at, lambda self, h: self.second(h, h)),
        "module 'second' .*starts at a state that depends on the input",
    ),
    "without the first": (loop_with(at, numbers=lambda x: range(1, x.size(1))), "does not read the first step first"),
    "backwards": (
        loop_with(at, numbers=lambda x: reversed(range(x.size(1)))),
        r"does not read the first step first; .*after x = x.flip\(1\)",
    ),
    "backwards by numbers": (
        loop_with(at, numbers=lambda x: range(x.size(1) - 1, -1, -1)),
        r"does not read the first step first; .*after x = x.flip\(1\)",
    ),
    "all but the last": (
        loop_with(at, numbers=lambda x: range(x.size(1) - 1)),
        "does not take the last step",
    ),
    "every other": (loop_with(at, numbers=lambda x: range(0, x.size(1), 2)), "reads another state than it gave"),
    "a fixed number": (loop_with(at, numbers=lambda x: range(9)), "takes a step that not every input has"),
    "as many as in the trace": (loop_with(at, numbers=lambda x: range(5)), "PyTorch module CellNet: fails on random"),
    "a smaller number": (loop_with(at, numbers=lambda x: range(3)), "output of CellNet: does not take the last step"),
    "the first state": (loop_with(at, out=lambda states: states[0]), "does not take the last step"),
    "two steps": (
        loop_with(at, out=lambda states: states[0] + states[1]),
        "takes different steps together; .*for t in range",
    ),
    "some states": (
        loop_with(at, out=lambda states: torch.stack(states[1:], 1)),
        "joins others than all steps, from the first to the last",
    ),
    "joined otherwise": (
        loop_with(at, out=lambda states: torch.cat(states, 1)),
        "joins steps along another axis than one of size 1; .*torch.stack",
    ),
    "one of them": (
        loop_with(lambda x, t: 2 * x[:, t] if t == 1 else x[:, t]),
        "is done to one step of a loop, not to the first one|reads the first step first",
    ),
    "sequences": (
        loop_with(lambda x, t: x[t], numbers=lambda x: range(x.size(1))),
        "step that not every input has|fails",
    ),
    "assigned": (assigned, "cannot trace its forward.*collect the steps in a list, and join them with torch.stack"),
    "the whole input": (lambda self, x: self.cell(x, None), "a cell reads one step, of a loop or of forward"),
    "a step alone": (lambda self, x: self.cell(x[:, -1]), "a cell that does not read the first step first|last step"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_loops_are_refused(case):
    steps, message = REFUSED[case]
    assert_refused(CellNet(steps), message)


def until_step_ten(self, x, embed):
    h = None
    for t in range(x.size(1)):
        if t < 10:
            h = self.cell(embed(x[:, t]), h)
    return self.fc(h)


@pytest.mark.parametrize(
    "steps",
    [
        lambda self, x: until_step_ten(self, x, lambda step: step),
        lambda self, x: until_step_ten(self, x, self.embedding),
        lambda self, x: until_step_ten(self, x.float(), lambda step: step),
    ],
    ids=["features", "tokens", "single precision"],
)
def test_loops_that_end_early_are_found(steps):
    """The steps that are traced are fewer."""
    with pytest.raises(qg.ModelError, match=r"is done to one step of a loop, not to the first one"):
        qg.load(CellNet(steps))


def last_hundred(self, x):
    h, states = None, []
    for t in range(x.size(1)):
        h = self.cell(x[:, t], h)
        states.append(h)
    return self.fc(torch.stack(states[-100:], 1))


def test_a_window_of_steps_is_found():
    with pytest.raises(qg.ModelError, match=r"joins others than all steps, from the first to the last"):
        qg.load(CellNet(last_hundred))


def test_a_cell_of_linear_layers_is_refused():
    class OwnCell(nn.Module):
        def __init__(self):
            super().__init__()
            self.gates, self.candidate = nn.Linear(8, 8), nn.Linear(8, 4)

        def forward(self, x):
            h = torch.zeros(x.size(0), 4)
            for t in range(x.size(1)):
                z, r = self.gates(torch.cat((x[:, t], h), 1)).sigmoid().chunk(2, 1)
                h = z * h + (1 - z) * self.candidate(torch.cat((x[:, t], r * h), 1)).tanh()
            return h

    with pytest.raises(
        qg.ModelError, match=r"index \[:, 0\]: takes steps of the input one by one; .*nn.GRUCell in a loop"
    ):
        qg.load(OwnCell())


# ---- one step a call -----------------------------------------------------------------------------------------------


class StepNet(CellNet):
    def forward(self, x, h):
        return self.steps(self, x, h)


class StepNetWithDefault(CellNet):
    def forward(self, x, h=None):
        return self.steps(self, x, h)


class TwoStates(CellNet):
    def forward(self, x, first, second):
        first = self.cell(x, first)
        second = self.second(first, second)
        return self.fc(second), first, second


class Generator(nn.Module):
    """Of the next token, as in tutorials about text."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Embedding(9, UNITS)
        self.gru = nn.GRU(UNITS, UNITS, 2)
        self.decoder = nn.Linear(UNITS, 9)

    def forward(self, input, hidden):  # noqa: A002  # a name that torch.fx changes
        batch = input.size(0)
        output, hidden = self.gru(self.encoder(input).view(1, batch, -1), hidden)
        return self.decoder(output.view(batch, -1)), hidden


def cell_step(self, x, h):
    h = self.cell(self.before(x), h)
    return self.fc(h), h


def guarded_step(self, x, h):
    if h is None:
        h = torch.zeros(x.size(0), UNITS)
    return cell_step(self, x, h)


def stacked_step(self, x, h):
    first = self.cell(x, h[0])
    second = self.second(first, h[1])
    return {"y": self.fc(second), "h": torch.stack((first, second))}


def gru_step(self, x, h):
    out, h = self.gru(x.unsqueeze(1), h)
    return self.fc(out.squeeze(1)), h


def gru_step_by_state(self, x, h):
    _, h = self.gru(x[:, None], h)
    return self.fc(h[-1]), h


STEPS = {
    "cell": (lambda: StepNet(cell_step), (4, UNITS)),
    "cell with a default": (lambda: StepNetWithDefault(guarded_step), (4, UNITS)),
    "only a state": (lambda: StepNet(lambda self, x, h: self.cell(x, h)), (4, UNITS)),
    "two cells": (lambda: StepNet(stacked_step), (2, 4, UNITS)),
    "gru": (lambda: StepNet(gru_step), (1, 4, UNITS)),
    "state of a gru": (lambda: StepNet(gru_step_by_state), (1, 4, UNITS)),
    "tokens": (lambda: seed(Generator()), (2, 4, UNITS)),
    "bare cell": (lambda: seed(nn.GRUCell(4, UNITS)), (4, UNITS)),
}


@pytest.mark.parametrize("form", STEPS)
def test_one_step_a_call(form):
    make, shape = STEPS[form]
    net = make()
    model = qg.load(net)
    assert not model.last_step
    assert "forward() is one step: the import runs it at every step of a sequence" in model.notes
    x = random_x(model)
    h, outputs = torch.zeros(shape).double(), []
    for step in torch.from_numpy(x[..., 0] if form == "tokens" else x).unbind(1):
        with torch.no_grad():
            found = net(step, h)
        y, h = (
            (found, found) if isinstance(found, torch.Tensor) else found.values() if isinstance(found, dict) else found
        )
        outputs.append(y.numpy())
    np.testing.assert_allclose(model.run(x), np.stack(outputs, axis=1), rtol=0, atol=TOLERANCE)


def test_one_step_with_two_states():
    net = TwoStates(None)
    model = qg.load(net)
    x = random_x(model)
    states, outputs = [torch.zeros(4, UNITS).double()] * 2, []
    for step in torch.from_numpy(x).unbind(1):
        with torch.no_grad():
            y, *states = net(step, *states)
        outputs.append(y.numpy())
    np.testing.assert_allclose(model.run(x), np.stack(outputs, axis=1), rtol=0, atol=TOLERANCE)
    assert [note for note in model.notes if "argument" in note] == [
        "argument 'first' is initial_states[0] of FloatModel.run",
        "argument 'second' is initial_states[1] of FloatModel.run",
    ]


@pytest.mark.parametrize(
    "steps",
    [
        lambda self, x, h: self.fc(self.cell(x, h)),
        lambda self, x, h: (self.fc(g := self.cell(x, h)), 0.5 * g),
        lambda self, x, h: (self.fc(b := self.second(a := self.cell(x, h[0]), h[1])), torch.stack((b, a))),
    ],
    ids=["not returned", "changed", "exchanged"],
)
def test_one_step_must_return_its_states(steps):
    with pytest.raises(qg.ModelError, match=r"does not return every state|its result is used 2 times"):
        qg.load(StepNet(steps))


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (
            lambda self, x, h: self.gru(x, 2 * h),
            "uses argument 'h' as something else than a state; .*the first argument",
        ),
        (
            lambda self, x, h: self.gru(x, h[:2]),
            r"index \[:2\]: changes the axes of the state 'h'; .*as nn.GRU takes it",
        ),
        (
            lambda self, x, h: self.gru(x, h.transpose(0, 1).contiguous()),
            r"method 'transpose': changes the axes of the state 'h'; .*give 'h' as nn.GRU .*\[layers, batch, units\]$",
        ),
        (lambda self, x, h: self.gru(x), "argument 'h' of StepNet: is no initial state"),
    ],
)
def test_arguments_that_are_no_states(steps, message):
    net = StepNet(steps)
    del net.cell, net.second
    with pytest.raises(qg.ModelError, match=message):
        qg.load(net)
