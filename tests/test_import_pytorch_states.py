"""Initial states of PyTorch's GRUs: zeros, constants, and those that forward() is given; runs that go on."""

from __future__ import annotations

import numpy as np
import pytest

import quantgru as qg

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install quantgru[torch]")

from pytorch_nets import TOLERANCE, UNITS, Net, assert_equal, random_x, run, seed  # noqa: E402
from torch import nn  # noqa: E402


def zeros_of(shape):
    """The tutorials' way to say that the state starts at zero, which nn.GRU does anyway."""

    def steps(self, x):
        h0 = shape(self, x)
        out, _ = self.gru(x, h0)
        return self.fc(out[:, -1, :])

    return steps


ZEROS = {
    "torch.zeros": lambda self, x: torch.zeros(self.n_layers, x.size(0), self.units),
    "to": lambda self, x: torch.zeros(self.n_layers, x.size(0), self.units).to(x.device),
    "device": lambda self, x: torch.zeros(self.n_layers, x.shape[0], self.units, device=x.device, dtype=x.dtype),
    "requires_grad_": lambda self, x: torch.zeros(self.n_layers, x.size(0), self.units).requires_grad_().detach(),
    "tuple": lambda self, x: torch.zeros((self.n_layers, x.size(0), self.units)),
    "new_zeros": lambda self, x: x.new_zeros(self.n_layers, x.size(0), self.units),
    "type_as": lambda self, x: torch.zeros(self.n_layers, x.size(0), self.units).type_as(x),
    "unpacked": lambda self, x: (lambda b, t, f: torch.zeros(self.n_layers, b, self.units))(
        *[x.size(i) for i in range(3)]
    ),
    "None": lambda self, x: None,
}


@pytest.mark.parametrize("form", ZEROS)
def test_zeros_as_the_initial_state(form):
    net = Net(zeros_of(ZEROS[form]), n_layers=2)
    model = qg.load(net)
    assert [gru.initial_state for gru in model.grus] == [None, None]
    assert_equal(net, model)


STARTS = {
    "expand": lambda self, x: self.start.expand(-1, x.size(0), -1).contiguous(),
    "repeat": lambda self, x: self.start.repeat(1, x.size(0), 1),
    "computed": lambda self, x: torch.tanh(2 * self.start).expand(self.start.size(0), x.size(0), self.units),
    "full": lambda self, x: x.new_full((self.start.size(0), x.size(0), self.units), 0.25),
    "sum": lambda self, x: torch.zeros(1, x.size(0), 1) + self.start,
}


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("form", STARTS)
def test_a_constant_initial_state(form, bidirectional):
    net = Net(lambda self, x: self.fc(self.gru(x, hx=STARTS[form](self, x))[0]), 2, bidirectional)
    before = net.start.clone()
    model = qg.load(net)
    expected = run(Net(lambda self, x: STARTS[form](self, x), 2, bidirectional), np.zeros((1, 2, 3)))[:, 0]
    assert np.array_equal([gru.initial_state for gru in model.grus], expected)
    assert torch.equal(net.start, before)
    assert_equal(net, model)


def test_initial_state_of_time_first():
    net = Net(lambda self, x: self.fc(self.gru(x, self.start.repeat(1, x.size(1), 1))[0]), batch_first=False)
    assert_equal(net, qg.load(net), lambda x: x.swapaxes(0, 1), lambda y: y.swapaxes(0, 1))


def test_a_default_that_is_none():
    class Tutorial(Net):
        def forward(self, x, hidden=None):
            if hidden is None:
                hidden = torch.zeros(1, x.size(0), self.units)
            out, hidden = self.gru(x, hidden)
            return self.fc(out), hidden

    net = Tutorial(None)
    model = qg.load(net)
    assert "FloatModel.final_states" in model.notes[-1]
    assert_equal(net, model)


def test_states_of_an_import_go_on():
    """Two halves of a sequence, the second from the states of the first."""
    net = seed(nn.GRU(3, 4, 2, batch_first=True))
    model = qg.load(net)
    x = np.random.default_rng(0).standard_normal((2, 6, 3))
    first, second = x[:, :4], x[:, 4:]
    found = model.run(second, initial_states=model.final_states(first))
    np.testing.assert_allclose(found, run(net, x)[:, 4:], rtol=0, atol=TOLERANCE)


class Tutorial(nn.Module):
    """As many tutorials have it: the state is made outside, of the type of the weights."""

    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(4, UNITS, 2, batch_first=True, dropout=0.2)
        self.fc = nn.Linear(UNITS, 3)

    def forward(self, x, h):
        out, h = self.gru(x, h.detach())
        return self.fc(out[:, -1]), h

    def init_hidden(self, batch_size):
        weight = next(self.parameters()).data
        return weight.new(2, batch_size, UNITS).zero_()


class TutorialInside(Tutorial):
    def forward(self, x):
        return super().forward(x, self.init_hidden(x.size(0)))


def test_a_state_that_is_given():
    net = seed(Tutorial())
    model = qg.load(net)
    assert "argument 'h' is initial_states of FloatModel.run" in model.notes
    x = random_x(model)
    states = np.random.default_rng(1).uniform(-1, 1, (2, 4, UNITS))
    with torch.no_grad():
        y, h = net(torch.from_numpy(x), torch.from_numpy(states))
    np.testing.assert_allclose(model.run(x, initial_states=list(states)), y.numpy(), rtol=0, atol=TOLERANCE)
    ends = model.final_states(x, initial_states=list(states))
    np.testing.assert_allclose(ends, h.numpy(), rtol=0, atol=TOLERANCE)


def test_a_state_that_forward_makes_of_its_weights():
    net = seed(TutorialInside())
    model = qg.load(net)
    assert [gru.initial_state for gru in model.grus] == [None, None]
    assert np.abs(model.run(x := random_x(model)) - run(net, x)).max() <= TOLERANCE
