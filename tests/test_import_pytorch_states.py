"""Initial states of PyTorch's GRUs: zeros, constants, and those that forward() is given; runs that go on."""

from __future__ import annotations

import numpy as np
import pytest

import quantgru as qg

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install quantgru[torch]")

from pytorch_nets import TOLERANCE, UNITS, Net, assert_equal, assert_refused, random_x, run, seed  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402


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


class Given(Net):
    """Two GRUs of one layer; `steps(self, x, h)` is forward()."""

    def __init__(self, steps):
        super().__init__(None)
        self.second = nn.GRU(UNITS, UNITS, batch_first=True)
        self.steps = steps
        seed(self)

    def forward(self, x, h):
        return self.steps(self, x, h)


class GivenToCell(Given):
    def __init__(self, steps):
        super().__init__(steps)
        self.cell = nn.GRUCell(3, UNITS)
        seed(self)


def of_both(self, x, first, second):
    out, first = self.gru(x, first)
    out, second = self.second(out, second)
    return self.fc(out), first, second


def pair(result):
    """Two states in one tuple."""
    return result[0], result[1:]


SEQUENCES = {
    "unsqueeze": (lambda s, x, h: s.gru(x, h.unsqueeze(0))[0], (4, UNITS)),
    "unsqueeze by name": (lambda s, x, h: s.gru(x, torch.unsqueeze(h, dim=0))[0], (4, UNITS)),
    "None": (lambda s, x, h: s.gru(x, h[None])[0], (4, UNITS)),
    "state of the first layer": (lambda s, x, h: s.gru(x, h[:1])[0], (1, 4, UNITS)),
    "one for each": (lambda s, x, h: pair(of_both(s, x, h[0:1], h[1:2])), (2, 4, UNITS)),
    "unsqueezed for each": (lambda s, x, h: pair(of_both(s, x, h[0].unsqueeze(0), h[1][None])), (2, 4, UNITS)),
    "pairs": (lambda s, x, h: pair(of_both(s, x, h[0], h[1])), [(1, 4, UNITS)] * 2),
}


@pytest.mark.parametrize("form", SEQUENCES)
def test_a_state_that_is_given_in_another_form(form):
    steps, shape = SEQUENCES[form]
    net = Given(steps)
    model = qg.load(net)
    x, random = random_x(model), np.random.default_rng(1)
    shapes = shape if isinstance(shape, list) else [shape]
    given = [torch.from_numpy(random.uniform(-1, 1, shape)) for shape in shapes]
    with torch.no_grad():
        y = net(torch.from_numpy(x), tuple(given) if isinstance(shape, list) else given[0])
    states = torch.cat([state.reshape(-1, 4, UNITS) for state in given]).numpy()
    expected = (y[0] if isinstance(y, tuple) else y).numpy()
    np.testing.assert_allclose(model.run(x, initial_states=list(states)), expected, rtol=0, atol=TOLERANCE)


STEPS = {
    "dropout": lambda s, x, h: (s.small(h := s.drop(s.cell(x, h))), h),
    "function": lambda s, x, h: (s.small(h := functional.dropout(s.cell(x, h), 0.5, s.training)), h),
    "gru": lambda s, x, h: (s.small((r := s.gru(x[:, None], h[None]))[0][:, 0]), s.drop(r[1]).squeeze(0)),
}


@pytest.mark.parametrize("form", STEPS)
def test_a_state_of_one_step(form):
    net = GivenToCell(STEPS[form])
    model = qg.load(net)
    x = random_x(model)
    h, found = torch.zeros(4, UNITS).double(), []
    for step in torch.from_numpy(x).unbind(1):
        with torch.no_grad():
            y, h = net(step, h)
        found.append(y.numpy())
    np.testing.assert_allclose(model.run(x), np.stack(found, axis=1), rtol=0, atol=TOLERANCE)
    assert "argument 'h' is initial_states of FloatModel.run" in model.notes


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (lambda s, x, h: (functional.dropout(s.cell(x, h)), h), "drops outputs at each call"),
        (lambda s, x, h: (g := s.cell(x, h), functional.dropout(g)), "does not return every state"),
        (lambda s, x, h: (g := s.cell(x, h.unsqueeze(0)), g), "starts at a state of three axes; .*as nn.GRUCell"),
        (
            lambda s, x, h: ((o := s.second((g := s.cell(x, h[0]))[:, None], h[1]))[0][:, 0], g, o[1]),
            "argument 'h': states of different sizes in it; give each an argument of its own",
        ),
    ],
)
def test_other_given_states_are_refused(steps, message):
    assert_refused(GivenToCell(steps), message)


def test_a_state_for_two_modules_is_refused():
    net = Given(lambda s, x, h: of_both(s, x, h, h.unsqueeze(0)))
    assert_refused(net, "module 'second' .*starts at 'h', as another layer does; .*give each a state")


def test_a_state_for_one_of_two_layers_is_refused():
    net = Given(lambda s, x, h: s.gru(x, h.unsqueeze(0)))
    net.gru = nn.GRU(3, UNITS, 2, batch_first=True)
    assert_refused(net, "starts at a part of a state, but has 2 states; .*give it the whole argument")
