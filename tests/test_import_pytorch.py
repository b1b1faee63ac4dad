"""Live PyTorch modules against their imports: a GRU, its last step, the layers around it, what forward() returns.

Expected values are PyTorch's own, in float64. The directions, states, steps and other forms of modules have files of
their own, test_import_pytorch_*.py.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest

import quantgru as qg
from quantgru.model import Dense

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install quantgru[torch]")

from pytorch_nets import TOLERANCE, EndingNet, Last, Net, assert_equal, kinds, random_x, run, seed, steps_first  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("n_layers", [1, 2, 3])
def test_bare_gru(n_layers, batch_first, bias):
    module = seed(nn.GRU(3, 6, n_layers, batch_first=batch_first, bias=bias))
    model = qg.load(module)
    assert [layer.name for layer in model.layers] == (
        ["gru"] if n_layers == 1 else [f"gru.{k}" for k in range(n_layers)]
    )
    assert not model.last_step
    order = (lambda x: x) if batch_first else steps_first
    assert_equal(module, model, order, order)


LAST_STEP = {
    "out[:, -1]": lambda self, out, h: self.fc(out[:, -1]),
    "out[:, -1, :]": lambda self, out, h: self.fc(out[:, -1, :]),
    "out[..., -1, :]": lambda self, out, h: self.fc(out[..., -1, :]),
    "out.select": lambda self, out, h: self.fc(out.select(1, -1)),
    "torch.select": lambda self, out, h: self.fc(torch.select(out, dim=1, index=-1)),
    "h_n[-1]": lambda self, out, h: self.fc(h[-1]),
    "h_n[-1, :, :]": lambda self, out, h: self.fc(h[-1, :, :]),
    "after fc": lambda self, out, h: self.fc(out)[:, -1],
}


@pytest.mark.parametrize("n_layers", [1, 2])
@pytest.mark.parametrize("ending", LAST_STEP)
def test_last_step(ending, n_layers):
    module = seed(EndingNet(LAST_STEP[ending], n_layers))
    model = qg.load(module)
    assert model.last_step
    assert_equal(module, model)


@pytest.mark.parametrize("ending", [lambda self, out, h: self.fc(h.squeeze(0)), lambda self, out, h: self.fc(h[0])])
def test_final_state_of_a_single_layer(ending):
    module = seed(EndingNet(ending))
    assert_equal(module, qg.load(module))


@pytest.mark.parametrize("ending", [lambda self, out, h: self.fc(out[-1]), lambda self, out, h: self.fc(out[-1, :, :])])
def test_last_step_of_steps_first(ending):
    module = seed(EndingNet(ending, batch_first=False))
    model = qg.load(module)
    assert model.last_step
    assert_equal(module, model, steps_first)


HEADS = {
    "none": lambda self, y: y,
    "linear": lambda self, y: self.fc(y),
    "relu module": lambda self, y: (
        nn.ReLU()(self.fc(y)) if not isinstance(y, torch.fx.Proxy) else torch.relu(self.fc(y))
    ),
    "functional.relu": lambda self, y: self.out(functional.relu(self.fc(y))),
    "torch.tanh": lambda self, y: self.out(torch.tanh(self.fc(y))),
    "method sigmoid": lambda self, y: self.fc(y).sigmoid(),
    "dropout": lambda self, y: self.out(self.drop(self.fc(self.drop(y)).relu())),
    "functional.dropout": lambda self, y: self.fc(functional.dropout(y, 0.5, training=self.training)),
    "three": lambda self, y: torch.sigmoid(self.out(torch.tanh(self.fc(y)))),
}


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("head", HEADS)
def test_head(head, bias, last):
    module = seed(EndingNet(lambda self, out, h: HEADS[head](self, out[:, -1] if last else out), bias=bias))
    model = qg.load(module)
    assert model.last_step == last
    assert_equal(module, model)


def test_sequential_with_activation_modules_keeps_paths_as_names():
    class Last(nn.Module):
        def forward(self, result):
            return result[0][:, -1]

    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Sequential(nn.Identity(), nn.GRU(3, 6, 2, batch_first=True, dropout=0.5), Last())
            self.head = nn.Sequential(
                nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1), nn.Sigmoid()
            )

        def forward(self, x):
            return self.head(self.encoder(x))

    module = seed(Classifier())
    model = qg.load(module)
    assert [layer.name for layer in model.layers] == ["encoder.1.0", "encoder.1.1", "head.0", "head.2", "head.4"]
    assert [layer.activation for layer in model.head] == ["relu", "tanh", "sigmoid"]
    assert model.name == "classifier"
    assert qg.load(module, name="kws").name == "kws"
    assert_equal(module, model)


class Stack(nn.Module):
    """Several nn.GRU, steps and batch exchanged on the way."""

    def __init__(self):
        super().__init__()
        self.a = nn.GRU(3, 5, batch_first=True)
        self.b = nn.GRU(5, 4, 2)
        self.fc = nn.Linear(4, 2)

    def forward(self, x, hidden=None, scale=torch.ones(2)):  # noqa: B008
        out, _ = self.a(x, hidden)
        out, _ = self.b(out.transpose(0, 1).contiguous())
        return self.fc(out.permute(1, 0, 2))


def test_stack_of_modules_with_exchanged_axes():
    module = seed(Stack())
    model = qg.load(module)
    assert [layer.name for layer in model.layers] == ["a", "b.0", "b.1", "fc"]
    assert_equal(module, model)


@pytest.mark.parametrize(
    "exchange",
    [
        lambda x: x.transpose(0, 1),
        lambda x: x.transpose(dim0=-2, dim1=0),
        lambda x: torch.transpose(x, 1, 0),
        lambda x: x.swapaxes(0, 1),
        lambda x: x.permute((1, 0, 2)),
        lambda x: torch.permute(x, dims=(1, 0, -1)),
    ],
)
def test_exchange_of_steps_and_batch(exchange):
    module = seed(Net(lambda self, x: self.fc(self.gru(exchange(x))[0][-1]), batch_first=False))
    assert_equal(module, qg.load(module))


@pytest.mark.parametrize("place", range(12))
def test_each_gate_alone(place):
    """Only one block of one parameter is not zero, with a bias on n so that the state moves."""
    module = seed(nn.GRU(3, 4, batch_first=True))
    parameter, block = divmod(place, 3)
    with torch.no_grad():
        kept = list(module.parameters())[parameter][4 * block : 4 * block + 4].clone()
        for values in module.parameters():
            values.zero_()
        module.bias_ih_l0[8:] = 0.7
        module.weight_ih_l0[8:] = 0.3
        list(module.parameters())[parameter][4 * block : 4 * block + 4] = kept
    assert_equal(module, qg.load(module))


@pytest.mark.parametrize(
    ("ending", "kind"),
    [
        (lambda self, out, h: torch.softmax(self.fc(h[-1]), dim=-1), "softmax"),
        (lambda self, out, h: functional.log_softmax(self.fc(h[-1]), dim=1), "log_softmax"),
        (lambda self, out, h: self.fc(out).softmax(-1)[:, -1], "softmax"),
    ],
)
def test_softmax_is_refused_or_left_out(ending, kind):
    module = seed(EndingNet(ending))
    with pytest.raises(qg.ModelError, match=r"softmax; .*load\(\.\.\., softmax='logits'\)"):
        qg.load(module)
    model = qg.load(module, softmax="logits")
    assert model.notes[-1] == f"{kind} at the end left out: outputs are logits"

    x = random_x(model)
    powers = np.exp(model.run(x))
    shares = powers / powers.sum(axis=-1, keepdims=True)
    found = shares if kind == "softmax" else np.log(shares)
    np.testing.assert_allclose(found, run(module, x), rtol=0, atol=TOLERANCE)


def test_float32_module_and_the_remainder_by_hand():
    module = EndingNet(lambda self, out, h: self.norm(out[:, -1])).float()
    module.norm.track_running_stats, module.norm.running_mean = False, None
    with pytest.raises(qg.ModelError, match=r"module 'norm' \(BatchNorm1d\): track_running_stats=False"):
        qg.load(module)
    head = qg.Dense("fc", module.fc.weight.detach().numpy(), module.fc.bias.detach().numpy())
    model = qg.FloatModel((*qg.load(module.gru).layers, head), last_step=True)
    x = np.random.default_rng(0).standard_normal((2, 6, 3))
    with torch.no_grad():
        expected = module.fc(module.gru(torch.from_numpy(x).float())[1][-1]).numpy()
    np.testing.assert_allclose(model.run(x), expected, atol=1e-6)


def test_large_weights_in_float32_are_not_refused_for_their_rounding():
    module = seed(nn.GRU(20, 64, batch_first=True), scale=6.0).float()
    assert_equal(copy.deepcopy(module).double(), qg.load(module))


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


def test_names_of_layers_that_have_no_module():
    net = Net(lambda self, x: torch.relu(functional.linear(self.gru(x)[0], self.fc.weight)) @ self.fc.weight)
    model = qg.load(net)
    assert [layer.name for layer in model.layers] == ["gru", "linear", "linear_2"]
    assert isinstance(model.layers[2], Dense)


OUTPUTS = {
    "tuple of one": lambda self, out, h: (self.fc(out),),
    "list of one": lambda self, out, h: [self.fc(out)],
    "with None": lambda self, out, h: (self.fc(out), None),
    "after None": lambda self, out, h: [None, self.fc(out)],
    "dict": lambda self, out, h: {"logits": self.fc(out)},
    "dict with None": lambda self, out, h: {"loss": None, "logits": self.fc(out)},
    "dict with states": lambda self, out, h: {"hidden": h, "logits": self.fc(h[-1])},
    "state": lambda self, out, h: (out, h[-1]),
    "squeezed state": lambda self, out, h: (self.fc(out), h.squeeze(0)),
    "states first": lambda self, out, h: (h, out),
    "pair": lambda self, out, h: [out, h],
    "nested states": lambda self, out, h: (out, [h]),
}


@pytest.mark.parametrize("form", OUTPUTS)
def test_one_output_of_several_values(form):
    module = seed(EndingNet(OUTPUTS[form]))
    model = qg.load(module)
    assert ("states that it returns" in " ".join(model.notes)) == ("state" in form or form == "pair")
    x = np.random.default_rng(3).standard_normal((4, 11, 3))
    with torch.no_grad():
        out, h = module.gru(torch.from_numpy(x))
        expected = OUTPUTS[form](module, out, h)
    values = expected.values() if isinstance(expected, dict) else expected
    tensors = [value for value in values if isinstance(value, torch.Tensor) and value is not h]
    (expected,) = [value for value in tensors if value.shape != (4, 5)]
    np.testing.assert_allclose(model.run(x), expected.numpy(), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "ending",
    [
        lambda self, out, h: {"a": self.fc(out), "b": self.fc(out)[..., :2]},
        lambda self, out, h: (self.second(out)[1], out),  # states that are not on the way to out
        lambda self, out, h: (out, self.second(out)[1][-1]),
        lambda self, out, h: (out, 1.5),
    ],
)
def test_several_outputs_are_refused(ending):
    module = EndingNet(ending)
    module.second = nn.GRU(5, 5, batch_first=True)
    with pytest.raises(qg.ModelError, match=r"output of EndingNet: several tensors|its result is used 2 times"):
        qg.load(module)
