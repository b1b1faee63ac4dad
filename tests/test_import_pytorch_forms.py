"""Forms of PyTorch modules: layers before and after the GRU, shapes of inputs and outputs, and everything together."""

from __future__ import annotations

from typing import NamedTuple

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

import quantgru as qg
from quantgru.model import Bidirectional, Gru, Reverse

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install quantgru[torch]")

from pytorch_nets import UNITS, Net, assert_equal, kinds, seed  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

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
    "one-hot": (lambda self, x: functional.one_hot(x, 3).double(), ["Embedding"]),
    "one-hot and dense": (
        lambda self, x: self.before(functional.one_hot(x.long(), num_classes=3).to(torch.float64)),
        ["Embedding", "Dense"],
    ),
    "exchanged inputs": (lambda self, x: x[:, :, [2, 0, 1]], []),
    "chosen inputs": (lambda self, x: x[..., 1:4], []),
    "joined inputs": (lambda self, x: torch.cat((x[..., 4:5], x[..., :2]), dim=-1), []),
    "scaled choice": (lambda self, x: 2 * x.index_select(2, torch.tensor([4, 0, 1])) + self.mean, []),
    "no choice": (lambda self, x: x[:, :][..., :][:], []),
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


class Result(NamedTuple):
    output: torch.Tensor
    states: torch.Tensor


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
    "last by its number": (lambda self, x: self.fc(self.gru(x)[0][:, x.size(1) - 1]), lambda y: y),
    "last by the number of steps": (lambda self, x: self.fc((o := self.gru(x)[0])[:, o.shape[1] - 1, :]), lambda y: y),
    "last selected": (lambda self, x: self.fc(self.gru(x)[0].select(1, x.size(1) - 1)), lambda y: y),
    "named": (lambda self, x: Result((r := self.gru(x))[0], states=r[1]), lambda y: y),
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

    net = seed(Net(steps, n_layers, bidirectional, batch_first, bias), number=number)
    model = qg.load(net)
    count = (Bidirectional if bidirectional else Gru, n_layers)
    assert sum(isinstance(layer, count[0]) for layer in model.layers) == count[1]
    assert any(isinstance(layer, Reverse) for layer in model.layers) == (after == "reversed")
    assert all((gru.initial_state is not None) == (state == "learned") for gru in model.grus)

    def swapped(values):
        return values if batch_first else values.swapaxes(0, 1)

    assert_equal(net, model, swapped, lambda y: y if model.last_step else swapped(y))


def test_a_choice_of_inputs_costs_nothing_and_is_said():
    net = Net(lambda self, x: self.gru(x[..., [4, 0, 1]])[0])
    model = qg.load(net)
    assert model.n_inputs == 5
    assert model.notes[-1] == "index [..., [4, 0, 1]]: the model has no inputs beyond the last that is taken"
    assert not model.layers[0].input_weights[..., 2:4].any()


def test_one_hot_tokens_of_an_unknown_number():
    with pytest.raises(qg.ModelError, match=r"function 'one_hot': of -1 classes; .*write num_classes="):
        qg.load(Net(lambda self, x: self.gru(functional.one_hot(x).double())[0]))
    with pytest.raises(qg.ModelError, match="of 100000 classes"):
        qg.load(Net(lambda self, x: self.gru(functional.one_hot(x, 100_000).double())[0]))
    with pytest.raises(qg.ModelError, match=r"method 'long' .*rounds"):
        qg.load(Net(lambda self, x: functional.one_hot(self.gru(x)[0].long(), 5)))
