"""Bidirectional GRUs of PyTorch: final states of both directions, merges, chosen features."""

from __future__ import annotations

import pytest

import quantgru as qg

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install quantgru[torch]")

from pytorch_nets import UNITS, Net, assert_equal, kinds, seed  # noqa: E402
from torch import nn  # noqa: E402


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


def unbound(self, x):
    forward, backward = self.gru(x)[1][-2:].unbind(0)
    return self.fc(torch.cat((forward, backward), dim=1))


FINAL = {
    "h[-2], h[-1]": final_states,
    "view": reshaped_states,
    "ends of both": ends_of_both,
    "h[-2:] flattened": lambda self, x: self.fc(self.gru(x)[1][-2:].transpose(0, 1).flatten(1)),
    "hstack": lambda self, x: self.fc(torch.hstack(((h := self.gru(x)[1])[-2], h[-1]))),
    "column_stack": lambda self, x: self.fc(torch.column_stack([(h := self.gru(x)[1])[-2], h[-1]])),
    "unbind": unbound,
    "iterated": lambda self, x: self.fc(torch.cat([*self.gru(x)[1]][-2:], dim=1)),
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
        lambda self, x: self.small(self.gru(x)[0][..., [9, 0, 3, 3, 5]]),
        lambda self, x: self.small(self.gru(x)[0].index_select(-1, torch.tensor([9, 0, 3, 3, 5]))),
        lambda self, x: self.small(self.gru(x)[0].narrow(2, 3, 5)),
        lambda self, x: self.small(torch.split(self.gru(x)[0], UNITS, dim=-1)[1]),
        lambda self, x: self.small(self.gru(x)[0].split([2, 5, 3], dim=2)[1]),
    ],
    ids=[
        *("exchanged", "backward", "forward", "forward steps", "some features", "scaled"),
        *("listed", "index_select", "narrow", "split", "split in sizes"),
    ],
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
    "sum of states": (lambda self, x: self.gru(x)[1][-2:].sum(0), "sum", True),
    "mean of states": (lambda self, x: torch.mean(self.gru(x)[1][-2:], dim=0), "ave", True),
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


def test_bare_bidirectional_gru():
    net = seed(nn.GRU(3, 4, 2, batch_first=True, bidirectional=True))
    model = qg.load(net)
    assert [layer.name for layer in model.layers] == ["gru.0", "gru.1"]
    assert model.grus[3].name == "gru.1.backward"
    assert_equal(net, model)
