"""Forms of PyTorch modules: directions, final states, initial states, layers before and between, ways to say the same.

Expected values are PyTorch's own, in float64. Refusals and the plain GRU are in test_import_pytorch.py.
"""

from __future__ import annotations

import re

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import quantgru as qg
from quantgru.model import Bidirectional, Dense, Embedding, Gru, Reverse

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install quantgru[torch]")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

TOLERANCE = 1e-12  # of the largest value; measured: 1e-15
UNITS = 5


class Net(nn.Module):
    """The parts that modules of GRUs are made of; `steps(self, x)` is its forward()."""

    def __init__(self, steps, n_layers=1, bidirectional=False, batch_first=True, bias=True, n_inputs=3):
        super().__init__()
        directions = 1 + bidirectional
        self.gru = nn.GRU(n_inputs, UNITS, n_layers, bias, batch_first, 0.0, bidirectional)
        self.fc = nn.Linear(UNITS * directions, 4)
        self.small = nn.Linear(UNITS, 4)
        self.one = nn.Linear(UNITS * directions, 1)
        self.before = nn.Linear(n_inputs, n_inputs)
        self.embedding = nn.Embedding(9, n_inputs)
        self.norm = nn.BatchNorm1d(UNITS * directions)
        self.norm_before = nn.BatchNorm1d(n_inputs)
        self.drop = nn.Dropout(0.5)
        self.register_buffer("mean", torch.zeros(n_inputs))
        self.register_buffer("deviation", torch.zeros(n_inputs))
        self.start = nn.Parameter(torch.zeros(n_layers * directions, 1, UNITS))
        self.n_layers, self.units = n_layers, UNITS
        self.steps = steps
        seed(self)

    def forward(self, x):
        return self.steps(self, x)


def seed(module: nn.Module, number: int = 7) -> nn.Module:
    """In float64 and in evaluation, all parameters and buffers random, statistics and deviations positive."""
    generator = torch.Generator().manual_seed(number)
    with torch.no_grad():
        for name, values in [*module.named_parameters(), *module.named_buffers()]:
            if not values.is_floating_point():
                continue
            values.copy_(0.8 * torch.randn(values.shape, generator=generator))
            if "var" in name or "deviation" in name:
                values.abs_().add_(0.5)
    return module.double().eval()


def run(module: nn.Module, x: np.ndarray) -> np.ndarray:
    """The module's first output; torch.zeros() and the like give its type."""
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad():
            y = module(torch.from_numpy(x.copy()))
    finally:
        torch.set_default_dtype(torch.float32)
    return (y[0] if isinstance(y, tuple) else y).detach().numpy()


def assert_equal(net: nn.Module, model: qg.FloatModel, given_as=lambda x: x, arranged=lambda y: y) -> None:
    """On random input [4, 6, inputs]; `given_as` makes of it the module's input, `arranged` of its output ours."""
    random = np.random.default_rng(3)
    tokens = isinstance(model.layers[0], Embedding)
    x = random.integers(0, 9, (4, 6, 1)) if tokens else random.standard_normal((4, 6, model.n_inputs))
    expected, found = arranged(run(net, given_as(x[..., 0] if tokens else x))), model.run(x)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()


def kinds(model: qg.FloatModel) -> list[str]:
    return [type(layer).__name__ for layer in model.layers]


def final_states(self, x):
    _, h = self.gru(x)
    return self.fc(torch.cat((h[-2], h[-1]), dim=1))


def reshaped_states(self, x):
    _, h = self.gru(x)
    h = h.view(self.n_layers, 2, x.size(0), self.units)[-1]
    return self.fc(torch.cat((h[0], h[1]), 1))


def ends_of_both(self, x):
    out, _ = self.gru(x)
    return self.fc(torch.cat((out[:, -1, : self.units], out[:, 0, self.units :]), dim=-1))


FINAL = {
    "h[-2], h[-1]": final_states,
    "view": reshaped_states,
    "ends of both": ends_of_both,
    "h[-2:] flattened": lambda self, x: self.fc(self.gru(x)[1][-2:].transpose(0, 1).flatten(1)),
    "keyword": lambda self, x: self.fc(torch.cat([(h := self.gru(x)[1])[-2, :, :], h[-1, :, :]], axis=1)),
}


@pytest.mark.parametrize("n_layers", [1, 2])
@pytest.mark.parametrize("form", FINAL)
def test_final_states_of_both_directions(form, n_layers):
    net = Net(FINAL[form], n_layers, bidirectional=True)
    model = qg.load(net)
    assert kinds(model) == ["Bidirectional"] * n_layers + ["Dense"]
    assert [layer.final for layer in model.layers[:-1]] == [False] * (n_layers - 1) + [True]
    assert model.last_step
    assert_equal(net, model)


@pytest.mark.parametrize(
    "steps",
    [
        lambda self, x: self.fc(torch.cat([(h := self.gru(x)[1])[0], h[1]], dim=-1)),
        lambda self, x: self.fc(self.gru(x)[1].permute(1, 0, 2).reshape(x.shape[0], -1)),
        lambda self, x: self.fc(self.gru(x)[1].transpose(0, 1).contiguous().view(-1, 2 * self.units)),
    ],
)
def test_final_states_of_a_single_layer(steps):
    net = Net(steps, bidirectional=True)
    model = qg.load(net)
    assert kinds(model) == ["Bidirectional", "Dense"]
    assert_equal(net, model)


def test_the_last_step_of_both_directions_is_one_step_of_the_backward_one():
    net = Net(lambda self, x: self.fc(self.gru(x)[0][:, -1]), 2, bidirectional=True)
    model = qg.load(net)
    assert not model.layers[1].final
    assert "the backward direction has read one step only" in model.notes[-1]
    assert_equal(net, model)


@pytest.mark.parametrize(
    "steps",
    [
        lambda self, x: self.fc(torch.cat(((h := self.gru(x)[1])[-1], h[-2]), dim=1)),
        lambda self, x: self.small(self.gru(x)[1][-1]),
        lambda self, x: self.small(self.gru(x)[1][-2]),
        lambda self, x: self.small(self.gru(x)[0][:, -1, : self.units]),
        lambda self, x: self.small(self.gru(x)[0][..., 2:7]),
        lambda self, x: self.small(0.3 * self.gru(x)[0][..., 2:7] - 1),
    ],
    ids=["exchanged", "backward", "forward", "forward steps", "some features", "scaled"],
)
def test_chosen_features_cost_nothing(steps):
    net = Net(steps, bidirectional=True)
    model = qg.load(net)
    assert kinds(model) == ["Bidirectional", "Dense"]
    assert_equal(net, model)


def halves(self, x):
    forward, backward = self.gru(x)[0].chunk(2, dim=-1)
    return forward, backward


MERGES = {
    "sum": (lambda self, x: (out := self.gru(x)[0])[..., :UNITS] + out[:, :, UNITS:], "sum", False),
    "ave": (lambda self, x: ((out := self.gru(x)[0])[..., :UNITS] + out[:, :, UNITS:]) / 2, "ave", False),
    "chunks": (lambda self, x: torch.add(*halves(self, x)) * 0.5, "ave", False),
    "mul": (lambda self, x: (out := self.gru(x)[0])[..., :UNITS] * out[:, :, UNITS:], "mul", False),
    "mul the other way": (lambda self, x: (out := self.gru(x)[0])[..., UNITS:] * out[..., :UNITS], "mul", False),
    "states": (lambda self, x: (h := self.gru(x)[1])[-2] + h[-1], "sum", True),
    "half states": (lambda self, x: 0.5 * (h := self.gru(x)[1])[-2] + 0.5 * h[-1], "ave", True),
    "states mul": (lambda self, x: torch.mul((h := self.gru(x)[1])[-2], h[-1]), "mul", True),
}


@pytest.mark.parametrize("n_layers", [1, 2])
@pytest.mark.parametrize("form", MERGES)
def test_merges(form, n_layers):
    steps, merge, final = MERGES[form]
    net = Net(lambda self, x: self.small(torch.relu(steps(self, x))), n_layers, bidirectional=True)
    model = qg.load(net)
    assert kinds(model) == ["Bidirectional"] * n_layers + ["Dense", "Dense"]  # relu has a dense layer of its own
    assert (model.layers[n_layers - 1].merge, model.layers[n_layers - 1].final) == (merge, final)
    assert_equal(net, model)


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


BEFORE = {
    "normalised": (lambda self, x: (x - self.mean) / self.deviation, []),
    "functions": (lambda self, x: torch.div(torch.sub(x, self.mean), self.deviation), []),
    "methods": (lambda self, x: x.sub(self.mean).div(self.deviation), []),
    "numbers": (lambda self, x: 2 * (1 - x) + 0.5, []),
    "negative": (lambda self, x: -x * self.mean, []),
    "batch normalisation": (lambda self, x: self.norm_before(x.permute(0, 2, 1)).permute(0, 2, 1), []),
    "dense": (lambda self, x: self.before(x), ["Dense"]),
    "dense tanh": (lambda self, x: torch.tanh(self.before((x - self.mean) / self.deviation)), ["Dense"]),
    "matmul": (lambda self, x: x @ self.before.weight.T + self.before.bias, ["Dense"]),
    "normalised after": (
        lambda self, x: torch.relu(self.norm_before(self.before(x).transpose(1, 2))).transpose(2, 1),
        ["Dense"],
    ),
    "reversed": (lambda self, x: torch.flip(x, [1]), ["Reverse"]),
    "reversed method": (lambda self, x: x.flip(-2), ["Reverse"]),
    "reversed twice": (lambda self, x: x.flip(1).flip(dims=(1,)), []),
    "embedding": (lambda self, x: self.drop(self.embedding(x)), ["Embedding"]),
    "embedding of long": (lambda self, x: self.embedding(x.long()), ["Embedding"]),
    "scaled embedding": (lambda self, x: 3 * self.embedding(x.to(torch.long)) - self.mean, ["Embedding"]),
    "reversed tokens": (lambda self, x: self.embedding(torch.flip(x, dims=[1])), ["Embedding", "Reverse"]),
    "reversed embedding": (lambda self, x: self.embedding(x).flip(1), ["Embedding", "Reverse"]),
}


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("form", BEFORE)
def test_before_the_gru(form, bidirectional):
    before, layers = BEFORE[form]
    net = Net(lambda self, x: self.fc(self.gru(before(self, x))[0]), bidirectional=bidirectional)
    model = qg.load(net)
    assert kinds(model) == [*layers, "Bidirectional" if bidirectional else "Gru", "Dense"]
    assert_equal(net, model)


AFTER = {
    "relu": lambda self, y: self.fc(torch.relu(y)),
    "sigmoid twice": lambda self, y: torch.sigmoid(torch.sigmoid(self.fc(y))),
    "affine": lambda self, y: 1 - 2 * self.fc(3 * y),
    "functional": lambda self, y: functional.linear(y, self.fc.weight, self.fc.bias).tanh(),
    "functional without bias": lambda self, y: functional.linear(y, self.fc.weight),
    "matmul": lambda self, y: torch.matmul(y, self.fc.weight.t()),
    "two products": lambda self, y: y @ self.fc.weight.t() @ self.fc.weight,
    "twice itself": lambda self, y: self.fc(y + y) - self.fc.bias,
    "parts": lambda self, y: self.fc(y)[..., 1:3],
    "parts joined": lambda self, y: torch.cat(((z := self.fc(y))[..., 2:], z[..., :1]), dim=-1),
}


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("form", AFTER)
def test_after_the_gru(form, last):
    net = Net(lambda self, x: AFTER[form](self, self.gru(x)[0][:, -1] if last else self.gru(x)[0]))
    model = qg.load(net)
    assert model.last_step == last
    assert_equal(net, model)


@pytest.mark.parametrize(
    ("steps", "layers"),
    [
        (lambda self, x: self.fc(self.norm(self.gru(x)[0][:, -1])), ["Gru", "Dense"]),
        (lambda self, x: self.fc(self.norm(self.gru(x)[0].transpose(1, 2)).transpose(1, 2)), ["Gru", "Dense"]),
        (lambda self, x: self.fc(functional.relu(self.norm(self.gru(x)[0][:, -1]))), ["Gru", "Dense", "Dense"]),
        (lambda self, x: self.norm(self.gru(x)[1][-1]), ["Gru", "Dense"]),
    ],
)
def test_batch_normalisation_of_states(steps, layers):
    net = Net(steps)
    model = qg.load(net)
    assert kinds(model) == layers
    assert_equal(net, model)


def divided(self, x):
    """Steps and sequences in one axis, as in older tutorials."""
    batch, steps, _ = x.size()
    y = self.fc(self.gru(x)[0].contiguous().view(-1, self.units))
    return y.view(batch, steps, -1)


SHAPES = {
    "last kept": (lambda self, x: self.fc(self.gru(x)[0][:, -1:]).squeeze(1), lambda y: y),
    "last kept as a step": (lambda self, x: self.fc(self.gru(x)[0][:, -1:, :]), lambda y: y[:, 0]),
    "state with its layer": (lambda self, x: self.fc(self.gru(x)[1]), lambda y: y[0]),
    "state without": (lambda self, x: self.fc(self.gru(x)[1].squeeze()), lambda y: y),
    "state reshaped": (lambda self, x: self.fc(self.gru(x)[1].view(-1, self.units)), lambda y: y),
    "state flattened": (lambda self, x: self.fc(torch.flatten(self.gru(x)[1].transpose(0, 1), 1)), lambda y: y),
    "one output": (lambda self, x: self.one(self.gru(x)[0][:, -1]).squeeze(-1), lambda y: y[:, None]),
    "one output flat": (lambda self, x: self.one(self.gru(x)[1][-1]).view(-1), lambda y: y[:, None]),
    "one output chosen": (lambda self, x: self.one(self.gru(x)[0][:, -1])[:, 0], lambda y: y[:, None]),
    "one output at every step": (lambda self, x: self.one(self.gru(x)[0]).squeeze(), lambda y: y[..., None]),
    "steps flattened": (
        lambda self, x: nn.functional.relu(self.one(self.gru(x)[0])).flatten(1),
        lambda y: y[..., None],
    ),
    "unsqueezed": (lambda self, x: self.fc(self.gru(x)[0][:, -1]).unsqueeze(1), lambda y: y[:, 0]),
    "features in the middle": (lambda self, x: self.fc(self.gru(x)[0]).transpose(1, 2), lambda y: y.swapaxes(1, 2)),
    "one axis for steps": (divided, lambda y: y),
    "product of sizes": (
        lambda self, x: self.fc(self.gru(x)[0].reshape(x.size(0) * x.size(1), 5)).view(x.size(0), -1, 4),
        lambda y: y,
    ),
    "left in one axis": (lambda self, x: self.fc(self.gru(x)[0].reshape(-1, 5)), lambda y: y.reshape(4, 6, 4)),
    "nothing done": (lambda self, x: self.fc(self.gru(x.view(x.size(0), -1, 3).clone())[0])[:, :], lambda y: y),
}


@pytest.mark.parametrize("form", SHAPES)
def test_shapes(form):
    steps, arranged = SHAPES[form]
    net = Net(steps)
    assert_equal(net, qg.load(net), arranged=arranged)


@pytest.mark.parametrize(
    "steps",
    [
        lambda self, x: self.fc(self.gru(x.unsqueeze(-1))[0]),
        lambda self, x: self.fc(self.gru(x[..., None])[0]),
        lambda self, x: self.fc(self.gru(((x - 2) / 3).unsqueeze(2))[0]),
        lambda self, x: self.fc(self.gru(x[:, :, None])[0]),
    ],
)
def test_input_of_one_feature_without_an_axis(steps):
    net = Net(steps, n_inputs=1)
    assert_equal(net, qg.load(net), given_as=lambda x: x[..., 0])


def test_type_of_single_precision_in_forward():
    """float() makes a double module fail: it is compared in single precision."""
    net = Net(lambda self, x: self.fc(self.gru(x.float(), torch.zeros(1, x.size(0), 5, dtype=torch.float32))[0]))
    assert_equal(Net(lambda self, x: self.fc(self.gru(x)[0])), qg.load(net.float()))


def test_bare_bidirectional_gru():
    net = seed(nn.GRU(3, 4, 2, batch_first=True, bidirectional=True))
    model = qg.load(net)
    assert [layer.name for layer in model.layers] == ["gru.0", "gru.1"]
    assert model.grus[3].name == "gru.1.backward"
    assert_equal(net, model)


def test_states_of_an_import_go_on():
    """Two halves of a sequence, the second from the states of the first."""
    net = seed(nn.GRU(3, 4, 2, batch_first=True))
    model = qg.load(net)
    x = np.random.default_rng(0).standard_normal((2, 6, 3))
    first, second = x[:, :4], x[:, 4:]
    found = model.run(second, initial_states=model.final_states(first))
    np.testing.assert_allclose(found, run(net, x)[:, 4:], rtol=0, atol=TOLERANCE)


class Tower(nn.Module):
    """Everything in one row, from tokens to classes."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(9, 4)
        self.first = nn.GRU(4, 3, 2, batch_first=True, bidirectional=True)
        self.between = nn.Linear(6, 5)
        self.second = nn.GRU(5, 4, bidirectional=True)
        self.norm = nn.BatchNorm1d(8)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(8, 3), nn.Tanh(), nn.Linear(3, 2), nn.Sigmoid())

    def forward(self, tokens):
        out, _ = self.first(self.embedding(tokens))
        out = torch.relu(self.between(out))
        _, states = self.second(out.transpose(0, 1))
        return self.head(self.norm(torch.cat((states[-2], states[-1]), dim=1)))


def test_everything_together():
    net = seed(Tower())
    model = qg.load(net)
    names = ["embedding", "first.0", "first.1", "between", "second", "head.1", "head.3"]
    assert [layer.name for layer in model.layers] == names
    assert_equal(net, model)


class Last(nn.Module):
    """Of the pair that an nn.GRU returns."""

    def forward(self, result):
        return result[0][:, -1, :]


def test_sequential_with_a_module_that_chooses():
    net = seed(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.GRU(4, 5, batch_first=True), Last(), nn.Linear(5, 2)))
    assert_equal(net, qg.load(net))


def test_sequential_that_ends_with_a_gru():
    net = seed(nn.Sequential(nn.Linear(3, 4), nn.GRU(4, 5, batch_first=True)))
    assert_equal(net, qg.load(net))


def test_two_stacks_with_dense_between():
    first, second = nn.GRU(3, 4, batch_first=True), nn.GRU(2, 3, batch_first=True)

    class Between(nn.Module):
        def forward(self, pair):
            return pair[0]

    net = seed(nn.Sequential(first, Between(), nn.Linear(4, 2), nn.Sigmoid(), second, Last()))
    model = qg.load(net)
    assert kinds(model) == ["Gru", "Dense", "Gru"]
    assert_equal(net, model)


REFUSED = {
    "normalised steps": (
        lambda self, x: self.norm(self.gru(x)[0]),
        r"module 'norm' \(BatchNorm1d\): normalises axis 1, which are not the features; .*transpose before it",
    ),
    "reversed sequences": (lambda self, x: self.gru(x.flip(0))[0], "method 'flip': reverses the sequences of a batch"),
    "reversed features": (lambda self, x: self.gru(x.flip(2))[0], "reverses something else than the steps"),
    "reversed last step": (lambda self, x: self.gru(x)[0][:, -1].flip(0), "reverses something else than the steps"),
    "residual": (lambda self, x: self.gru(self.before(x))[0][..., :3] + x, "input 'x': its result is used 2 times"),
    "some inputs": (lambda self, x: self.gru(x[..., :3])[0], r"index \[..., :3\]: takes a part of the inputs"),
    "mixed sizes": (
        lambda self, x: self.gru(x)[0].reshape(x.size(0), 30),
        "a shape with 30, which is no size of its input",
    ),
    "steps as features": (
        lambda self, x: self.fc(self.gru(x)[0].flatten(1)),
        "joins features with steps, sequences or layers; .*h_n",
    ),
    "different steps": (
        lambda self, x: (out := self.gru(x)[0])[:, -1] + out[:, 0],
        r"index \[:, 0\] after module 'gru' \(GRU\): does not take the last step",
    ),
    "quotient": (lambda self, x: 1 / self.gru(x)[0], "divides by what depends on the input"),
    "square": (lambda self, x: (out := self.gru(x)[0]) * out, "multiplies two tensors that depend on the input"),
    "by zero": (lambda self, x: self.gru(x)[0] / 0.0, "divides by zero"),
    "by step": (
        lambda self, x: self.gru(x)[0] * torch.arange(3.0).view(1, 3, 1),
        r"a constant \(1, 3, 1\) along other axes than the features",
    ),
    "wrong width": (lambda self, x: self.gru(x)[0] * self.mean, "a constant of 3 numbers on 5 features"),
    "with alpha": (lambda self, x: torch.add(self.gru(x)[0], 1, alpha=2), "function 'add' .*with alpha"),
    "not finite": (lambda self, x: self.gru(x)[0] + float("nan"), "parameter 'constant' holds nan"),
    "joined steps": (
        lambda self, x: torch.cat(((out := self.gru(x)[0]), out), dim=1),
        "function 'cat' .*joins another axis than the features",
    ),
    "joined with constants": (
        lambda self, x: torch.cat((self.gru(x)[1][-1], self.start[0]), dim=0),
        "joins constants to what depends on the input",
    ),
    "divided steps": (lambda self, x: self.gru(x)[0].chunk(2, 1)[0], "method 'chunk' .*divides another axis"),
    "embedding later": (lambda self, x: self.embedding(self.gru(x)[0]), "an embedding after another layer"),
    "rounded": (lambda self, x: self.gru(x)[0].long(), "method 'long' .*rounds"),
    "half": (lambda self, x: self.gru(x)[0].to(torch.float16), "method 'to' .*changes the type"),
    "features without an axis": (
        lambda self, x: self.before(self.one(self.gru(x)[0]).squeeze(-1)),
        "module 'before' .*reads the last axis, which are not the features",
    ),
    "maximum": (lambda self, x: self.gru(x)[0].max(dim=1)[0], "method 'max' .*this operation is not supported here"),
    "attention": (
        lambda self, x: torch.bmm(torch.softmax(self.fc(out := self.gru(x)[0]), 1).transpose(1, 2), out),
        "softmax over axis 1|its result is used 2 times",
    ),
    "custom directions": (
        lambda self, x: torch.cat((self.gru(x)[0], self.before(x)), dim=-1),
        "input 'x': its result is used 2 times, by module 'gru' .GRU. and module 'before'",
    ),
    "layer of states": (lambda self, x: self.gru(x)[1].sum(0), "method 'sum' after module 'gru'"),
    "size of the data": (lambda self, x: self.gru(x, self.start + x.size(2))[0], "needs the number of inputs"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case):
    steps, message = REFUSED[case]
    with pytest.raises(qg.ModelError) as caught:
        qg.load(Net(steps))
    text = str(caught.value)
    assert re.search(message, text), text
    assert "\n" not in text


def test_other_statistics_and_norms_are_refused():
    net = Net(lambda self, x: self.fc(self.norm(self.gru(x)[1][-1])))
    net.norm.running_var[2] = -3.0
    with pytest.raises(qg.ModelError, match=r"module 'norm' .*a variance of -3"):
        qg.load(net)
    net.norm = nn.BatchNorm1d(UNITS, track_running_stats=False).double()
    with pytest.raises(qg.ModelError, match=r"module 'norm' .*track_running_stats=False"):
        qg.load(net)
    net.norm = nn.LayerNorm(UNITS).double()
    with pytest.raises(qg.ModelError, match=r"module 'norm' \(LayerNorm\): this module is not supported"):
        qg.load(net)
    net = Net(lambda self, x: self.gru(self.embedding(x))[0])
    net.embedding.max_norm = 1.0
    with pytest.raises(
        qg.ModelError, match=r"module 'embedding' \(Embedding\): max_norm; .*normalise its weights once"
    ):
        qg.load(net)


PARTS_BEFORE = {
    "nothing": lambda self, x: x,
    "affine": lambda self, x: (x - self.mean) / self.deviation,
    "dense": lambda self, x: torch.tanh(self.before(x)),
    "tokens": lambda self, x: self.embedding(x),
}
PARTS_AFTER = {
    "every step": lambda self, out, h: out,
    "head": lambda self, out, h: torch.sigmoid(self.fc(functional.relu(out))),
    "last": lambda self, out, h: self.fc(out.select(1 if self.gru.batch_first else 0, -1)),
    "states": lambda self, out, h: self.fc(torch.cat((h[-2], h[-1]), 1) if self.gru.bidirectional else h[-1]),
    "normalised": lambda self, out, h: self.norm(out.select(1 if self.gru.batch_first else 0, -1)),
    "reversed": lambda self, out, h: self.fc(out.flip(1 if self.gru.batch_first else 0)),
}


@settings(max_examples=150)
@given(
    st.sampled_from(sorted(PARTS_BEFORE)),
    st.sampled_from(sorted(PARTS_AFTER)),
    st.sampled_from(["no state", "zeros", "learned"]),
    st.integers(1, 3),
    st.tuples(st.booleans(), st.booleans(), st.booleans()),
    st.integers(0, 1000),
)
def test_the_cross_product(before, after, state, n_layers, flags, number):
    bidirectional, batch_first, bias = flags

    def steps(self, x):
        batch = x.size(0 if batch_first else 1)
        states = {
            "no state": lambda: None,
            "zeros": lambda: torch.zeros(n_layers * (1 + bidirectional), batch, UNITS),
            "learned": lambda: self.start.expand(-1, batch, -1).contiguous(),
        }
        out, h = self.gru(PARTS_BEFORE[before](self, x), states[state]())
        return PARTS_AFTER[after](self, out, h)

    net = seed(Net(steps, n_layers, bidirectional, batch_first, bias), number)
    model = qg.load(net)
    count = (Bidirectional if bidirectional else Gru, n_layers)
    assert sum(isinstance(layer, count[0]) for layer in model.layers) == count[1]
    assert any(isinstance(layer, Reverse) for layer in model.layers) == (after == "reversed")
    assert all((gru.initial_state is not None) == (state == "learned") for gru in model.grus)

    def swapped(values):
        return values if batch_first else values.swapaxes(0, 1)

    assert_equal(net, model, swapped, lambda y: y if model.last_step else swapped(y))


def test_names_of_layers_that_have_no_module():
    net = Net(lambda self, x: torch.relu(functional.linear(self.gru(x)[0], self.fc.weight)) @ self.fc.weight)
    model = qg.load(net)
    assert [layer.name for layer in model.layers] == ["gru", "linear", "linear_2"]
    assert isinstance(model.layers[2], Dense)
