"""Live PyTorch modules against their imports: expected values are PyTorch's own, in float64."""

from __future__ import annotations

import copy
import random
import re
import subprocess
import sys

import numpy as np
import pytest

import quantgru as qg

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install quantgru[torch]")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402
from torch.nn.utils import prune  # noqa: E402

TOLERANCE = 1e-6  # of the largest value; measured: 4e-15


class Net(nn.Module):
    """GRU, then an ending given as a function of (self, out, h_n), which may use `fc`."""

    def __init__(self, ending, n_layers=1, batch_first=True, bias=True, dropout=0.0):
        super().__init__()
        self.gru = nn.GRU(3, 5, n_layers, batch_first=batch_first, bias=bias, dropout=dropout)
        self.fc = nn.Linear(5, 4, bias=bias)
        self.out = nn.Linear(4, 2)
        self.drop = nn.Dropout(0.3)
        self.norm = nn.BatchNorm1d(5)
        self.ending = ending

    def forward(self, x):
        out, h_n = self.gru(x)
        return self.ending(self, out, h_n)


class Custom(Net):
    """Another forward(self, x) altogether."""

    def forward(self, x):
        return self.ending(self, x)


def seeded(module: nn.Module, scale: float = 0.8) -> nn.Module:
    """In float64 with normal weights, larger than those that training starts from."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return module.double().eval()


def assert_equal(module: nn.Module, model: qg.FloatModel, time_axis: int = 1, after=lambda y: y) -> None:
    """The module's output on random input [4, 11, inputs] is the import's. `time_axis` is that of the module."""
    x = np.random.default_rng(3).standard_normal((4, 11, model.n_inputs))
    with torch.no_grad():
        y = module(torch.from_numpy(x.swapaxes(1, time_axis).copy()))
    y = (y[0] if isinstance(y, tuple) else y).numpy()
    expected = y if model.last_step else y.swapaxes(1, time_axis)
    found = after(model.run(x))
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("n_layers", [1, 2, 3])
def test_bare_gru(n_layers, batch_first, bias):
    module = seeded(nn.GRU(3, 6, n_layers, batch_first=batch_first, bias=bias))
    model = qg.load(module)
    assert [layer.name for layer in model.layers] == (
        ["gru"] if n_layers == 1 else [f"gru.{k}" for k in range(n_layers)]
    )
    assert not model.last_step
    assert_equal(module, model, 1 if batch_first else 0)


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
    module = seeded(Net(LAST_STEP[ending], n_layers))
    model = qg.load(module)
    assert model.last_step
    assert_equal(module, model)


@pytest.mark.parametrize("ending", [lambda self, out, h: self.fc(h.squeeze(0)), lambda self, out, h: self.fc(h[0])])
def test_final_state_of_a_single_layer(ending):
    module = seeded(Net(ending))
    assert_equal(module, qg.load(module))


@pytest.mark.parametrize("ending", [lambda self, out, h: self.fc(out[-1]), lambda self, out, h: self.fc(out[-1, :, :])])
def test_last_step_of_steps_first(ending):
    module = seeded(Net(ending, batch_first=False))
    model = qg.load(module)
    assert model.last_step
    assert_equal(module, model, time_axis=0)


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
    module = seeded(Net(lambda self, out, h: HEADS[head](self, out[:, -1] if last else out), bias=bias))
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

    module = seeded(Classifier())
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

    def forward(self, x, hidden=None, scale=1):
        out, _ = self.a(x, hidden)
        out, _ = self.b(out.transpose(0, 1).contiguous())
        return self.fc(out.permute(1, 0, 2))


def test_stack_of_modules_with_exchanged_axes():
    module = seeded(Stack())
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
    module = seeded(Custom(lambda self, x: self.fc(self.gru(exchange(x))[0][-1]), batch_first=False))
    assert_equal(module, qg.load(module))


@pytest.mark.parametrize("place", range(12))
def test_each_gate_alone(place):
    """Only one block of one parameter is not zero, with a bias on n so that the state moves."""
    module = seeded(nn.GRU(3, 4, batch_first=True))
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
    module = seeded(Net(ending))
    with pytest.raises(qg.ModelError, match=r"softmax; .*load\(\.\.\., softmax='logits'\)"):
        qg.load(module)
    model = qg.load(module, softmax="logits")
    assert model.notes[-1] == f"{kind} at the end left out: outputs are logits"

    def after(y):
        shares = np.exp(y) / np.exp(y).sum(axis=-1, keepdims=True)
        return shares if kind == "softmax" else np.log(shares)

    assert_equal(module, model, after=after)


def test_weights_through_parametrizations():
    module = Net(lambda self, out, h: self.fc(out))
    nn.utils.parametrizations.weight_norm(module.gru, "weight_hh_l0")
    nn.utils.parametrizations.weight_norm(module.fc, "weight")
    module = seeded(module)
    assert_equal(module, qg.load(module))


def test_float32_module_and_the_remainder_by_hand():
    module = Net(lambda self, out, h: self.norm(out[:, -1])).eval()
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
    module = seeded(nn.GRU(20, 64, batch_first=True), scale=6.0).float()
    assert_equal(copy.deepcopy(module).double(), qg.load(module))


def refused(forward):
    return Custom(forward).eval()


class Loop(nn.Module):
    """The steps one by one."""

    def __init__(self):
        super().__init__()
        self.cell = nn.GRUCell(3, 5)

    def forward(self, x):
        h = x.new_zeros(x.size(0), 5)
        for t in range(x.size(1)):
            h = self.cell(x[:, t], h)
        return h


class Packed(nn.Module):
    """Sequences and their lengths."""

    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(3, 5)

    def forward(self, x, lengths):
        return self.gru(nn.utils.rnn.pack_padded_sequence(x, lengths))[0]


class Streaming(Packed):
    """The state goes in and out."""

    def forward(self, x, hidden):
        return self.gru(x, hidden)


class Keeping(Packed):
    """The state stays in the module."""

    def __init__(self):
        super().__init__()
        self.h = torch.zeros(1, 8, 5)

    def forward(self, x):
        out, self.h = self.gru(x, self.h)
        return out


class Translator(Packed):
    """The second GRU starts where the first one ends."""

    def __init__(self):
        super().__init__()
        self.decoder = nn.GRU(5, 5)

    def forward(self, x):
        out, h = self.gru(x)
        return self.decoder(out, h)[0]


class Wrong(nn.GRU):
    """A GRU by type that is another cell by its forward()."""

    def forward(self, x, hx=None):
        out, h = super().forward(x, hx)
        return 1.1 * out, h


def asserting(self, x):
    assert x.shape[2] == 3
    return self.gru(x)[0]


def in_place(self, x):
    x.clamp_(-1000, 1000)
    return self.gru(x)[0]


def with_module(module, ending=lambda self, out, h: out):
    net = Net(ending)
    net.gru = module
    return net


REFUSALS = {
    "lstm": (lambda: with_module(nn.LSTM(3, 5)), r"\(LSTM\): this module is not supported; .*an nn.GRU"),
    "simple rnn": (lambda: with_module(nn.RNN(3, 5)), r"\(RNN\): this module is not supported; .*train an nn.GRU"),
    "cell": (lambda: nn.Sequential(nn.GRUCell(3, 5)), r"\(GRUCell\): this module is not supported; .*use nn.GRU in"),
    "cell in a loop": (lambda: Loop(), r"cannot trace its forward\(\).*use nn.GRU in its place, .*weight_ih_l0"),
    "packed": (
        lambda: refused(lambda s, x: s.gru(nn.utils.rnn.pack_padded_sequence(x, [2] * 8))[0]),
        "cannot trace its forward.*leave pack_padded_sequence out.*unequal lengths as a list",
    ),
    "packed with lengths": (
        lambda: Packed(),
        "forward.. needs the inputs x, lengths; .*leave pack_padded_sequence out",
    ),
    "two states": (lambda: Streaming(), r"needs the inputs x, hidden; .*hidden=None: states are given to model.run"),
    "kept state": (lambda: Keeping(), "constant 'h': is kept from one call of forward.. to the next; .*leave it out"),
    "conv": (lambda: with_module(nn.Conv1d(3, 5, 1)), r"module 'gru' \(Conv1d\): this module is not supported"),
    "leaky relu": (
        lambda: Net(lambda s, out, h: functional.leaky_relu(s.fc(out))),
        r"function 'leaky_relu' after module 'fc'",
    ),
    "branch": (
        lambda: Net(lambda s, out, h: s.fc(out[:, -1]) + s.drop(out)[:, -1, :4]),
        r"index \[0\] after module 'gru' \(GRU\): its result is used 2 times, by index \[:, -1\] and module 'drop'",
    ),
    "residual": (lambda: refused(lambda s, x: s.gru(x)[0] + x), "input 'x': its result is used 2 times"),
    "mean over steps": (lambda: Net(lambda s, out, h: s.fc(out.mean(1))), "method 'mean'.*not supported"),
    "control flow": (
        lambda: refused(lambda s, x: s.gru(x)[0] if x.sum() > 0 else x),
        r"module Custom: torch.fx cannot trace its forward.. \(TraceError.*remove assert, if, len\(\).*use x.size\(0\)",
    ),
    "random state": (
        lambda: refused(lambda s, x: s.gru(x, torch.randn(1, x.size(0), 5))[0]),
        "function 'randn': is another one at each call; .*make it a constant",
    ),
    "state of one sequence": (
        lambda: refused(lambda s, x: s.gru(x, torch.zeros(1, 1, 5))[0]),
        r"an initial state \(1, 1, 5\) for a batch of 4, expected \(1, 4, 5\); .*as x.size\(0\)",
    ),
    "state for each step": (
        lambda: refused(lambda s, x: s.gru(x, torch.zeros(1, x.size(1), 5))[0]),
        r"an initial state \(1, 5, 5\) for a batch of 4, expected \(1, 4, 5\)",
    ),
    "state from the input": (lambda: Translator(), r"module 'decoder' .*an initial state that depends on the input"),
    "unequal states": (
        lambda: refused(lambda s, x: s.gru(x, x.new_ones(x.size(0)).cumsum(0).view(1, -1, 1).expand(1, -1, 5))[0]),
        "an initial state that is another one in each sequence; .*expand one over the batch",
    ),
    "dense of another width": (lambda: refused(lambda s, x: s.gru(s.fc(x))[0]), "layer 'gru': 3 inputs, .* gives 4"),
    "no gru": (lambda: refused(lambda s, x: x), "no GRU layer"),
    "constant": (lambda: refused(lambda s, x: s.fc.weight), "output of Custom: nothing that depends on the input"),
    "two outputs": (lambda: Net(lambda s, out, h: (s.fc(out), out)), "its result is used 2 times"),
    "two of one": (lambda: Net(lambda s, out, h: (out, out)), "output of Net: several tensors; .*return one tensor"),
    "final states": (
        lambda: Net(lambda s, out, h: s.fc(h), n_layers=2),
        r"gets the final states of all layers; .*h_n\[-1\]",
    ),
    "states out": (
        lambda: Net(lambda s, out, h: h, n_layers=2),
        r"output of Net: the final states of all layers; .*h_n\[-1\]",
    ),
    "pair in": (lambda: refused(lambda s, x: s.fc(s.gru(x))), r"gets the pair that nn.GRU returns; .*h_n\[-1\]"),
    "wrong layer": (
        lambda: Net(lambda s, out, h: h[0], n_layers=2),
        r"index \[0\] after module 'gru' \(GRU\): does not take the last step of the last layer",
    ),
    "first step": (lambda: Net(lambda s, out, h: out[:, 0]), r"index \[:, 0\] after .*: does not take the last step"),
    "batch for steps": (lambda: Net(lambda s, out, h: out[-1]), r"index \[-1\] after .*: does not take the last step"),
    "rest of the pair": (
        lambda: refused(lambda s, x: s.gru(x)[1:]),
        r"index \[1:\] after module 'gru' \(GRU\): does not take one tensor of several",
    ),
    "batch as steps": (
        lambda: refused(lambda s, x: s.gru(s.gru(x)[0].transpose(0, 1))[0]),
        "batch_first=True takes the batch for the steps.*transpose before it",
    ),
    "window": (lambda: Net(lambda s, out, h: out[:, -3:]), r"index \[:, -3:\] after .*: does not take the last step"),
    "gru after last": (lambda: Net(lambda s, out, h: s.gru(out[:, -1])[0]), "a GRU layer after the last step"),
    "gru twice": (lambda: refused(lambda s, x: s.gru(s.gru(x)[0])[0]), r"module 'gru' \(GRU\): called twice"),
    "softmax over steps": (lambda: Net(lambda s, out, h: torch.softmax(s.fc(out), 1)), "softmax over axis 1"),
    "active dropout": (
        lambda: Net(lambda s, out, h: functional.dropout(out)),
        "function 'dropout' .*drops outputs at each call; .*training=self.training",
    ),
    "assertion": (lambda: refused(asserting), "remove assert, if, .*torch.zeros"),
    "length": (lambda: refused(lambda s, x: s.gru(x, torch.zeros(1, len(x), 5))[0]), "remove assert.*use x.size.0."),
    "nan check": (lambda: refused(lambda s, x: x if torch.isnan(x).any() else s.gru(x)[0]), "remove assert, if"),
    "new": (
        lambda: refused(lambda s, x: s.gru(x, next(s.parameters()).data.new(1, x.size(0), 5).zero_())[0]),
        "torch.zeros for a state",
    ),
    "steps one by one": (
        lambda: refused(lambda s, x: [s.gru(x[:, t : t + 1]) for t in range(x.size(1))]),
        "loops that look at a tensor; .*nn.GRU once for all steps",
    ),
    "in place": (lambda: refused(in_place), "method 'clamp_'.*: changes a tensor in place; .*use its result"),
    "in place function": (
        lambda: Net(lambda s, out, h: (functional.relu(out, inplace=True), out)[1]),
        "function 'relu'.*: changes a tensor in place",
    ),
    "not run yet": (
        lambda: nn.Sequential(nn.GRU(3, 5, batch_first=True), nn.LazyLinear(2)),
        "parameter '1.weight' has no shape yet; run the module on data once",
    ),
    "two inputs": (lambda: nn.Bilinear(2, 2, 2), r"forward\(\) needs the inputs input1, input2"),
    "no forward": (lambda: nn.Module(), r"PyTorch module Module: forward\(\) needs"),
    "wrong meaning": (
        lambda: with_module(Wrong(3, 5)),
        r"module 'gru' \(Wrong\): a forward\(\) of its own; .*plain nn.GRU",
    ),
    "integer weights": (
        lambda: nn.ParameterList([nn.Parameter(torch.zeros(2, dtype=torch.int8), requires_grad=False)]),
        "parameter '0' is torch.int8",
    ),
    "no data": (lambda: nn.GRU(3, 4, device="meta"), "PyTorch module GRU: cannot be copied to the CPU"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals_say_what_where_and_what_is_supported(case):
    make, message = REFUSALS[case]
    with pytest.raises(qg.ModelError) as caught:
        qg.load(make())
    text = str(caught.value)
    assert re.search(message, text), text
    assert "\n" not in text
    assert len(text) < 600


class Clamping(nn.Linear):
    """As its type, for inputs of -6 ... 6."""

    def forward(self, x):
        return functional.linear(x.clamp(-6, 6), self.weight, self.bias)


class Window(nn.GRU):
    """As its type, for at most ten steps."""

    def forward(self, x, hx=None):
        return super().forward(x[:, -10:], hx)


class Plain(nn.GRU):
    """As its type, for all inputs."""

    def __init__(self, width):
        super().__init__(width, 5, batch_first=True)


def hooked(module, path, hook, before=False):
    part = module.get_submodule(path)
    part.register_forward_pre_hook(hook) if before else part.register_forward_hook(hook)
    return module


def with_own_forward(module, path, forward):
    module.get_submodule(path).forward = forward
    return module


def clamped(module, inputs):
    return (inputs[0].clamp(-5, 5),)


EVERY_STEP = {"ending": lambda self, out, h: self.fc(out)}
CHANGED = {
    "linear": (
        lambda: nn.Sequential(Clamping(4, 6), nn.GRU(6, 3)),
        r"module '0' \(Clamping\): a forward\(\) of its own",
    ),
    "gru": (lambda: nn.Sequential(Window(4, 6, batch_first=True)), r"module '0' \(Window\): a forward\(\) of its own"),
    "bare gru": (lambda: Window(4, 6, batch_first=True), r"module 'gru' \(Window\): a forward\(\) of its own"),
    "forward of an object": (
        lambda: with_own_forward(Net(**EVERY_STEP), "fc", lambda x: x.clamp(-6, 6)[..., :4]),
        r"module 'fc' \(Linear\): a forward\(\) of its own",
    ),
    "forward of the whole": (
        lambda: with_own_forward(net := Net(**EVERY_STEP), "", lambda x: Net.forward(net, x.clamp(-50, 50))),
        r"PyTorch module Net: its forward\(\) is not that of its class",
    ),
    "pre-hook of a gru": (
        lambda: hooked(Net(**EVERY_STEP), "gru", clamped, before=True),
        r"module 'gru' \(GRU\): a forward hook; .*handle.remove\(\)",
    ),
    "pre-hook of a bare gru": (lambda: hooked(nn.GRU(4, 6), "", clamped, before=True), "module 'gru' .*a forward hook"),
    "hook of a dense layer": (
        lambda: hooked(Net(**EVERY_STEP), "fc", lambda module, x, y: y.clamp(-50, 50)),
        r"module 'fc' \(Linear\): a forward hook",
    ),
    "hook of a dropout": (
        lambda: hooked(Net(lambda s, out, h: s.drop(out)), "drop", lambda module, x, y: y.clamp(-50, 50)),
        r"module 'drop' \(Dropout\): a forward hook",
    ),
    "hook of the whole": (
        lambda: hooked(Net(**EVERY_STEP), "", lambda module, x, y: y.clamp(-50, 50)),
        "PyTorch module Net: a forward hook",
    ),
    "hook of a part": (
        lambda: hooked(nn.Sequential(nn.Sequential(nn.Linear(3, 3)), nn.GRU(3, 5)), "0", clamped, before=True),
        "method 'clamp': this operation is not supported here",
    ),
}


@pytest.mark.parametrize("case", CHANGED)
def test_modules_that_differ_for_large_or_long_inputs_only(case):
    make, message = CHANGED[case]
    with pytest.raises(qg.ModelError, match=message):
        qg.load(make())


def test_a_subclass_that_keeps_forward_is_its_type():
    module = seeded(nn.Sequential(Plain(3)))
    assert_equal(module, qg.load(module))


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("change", ["weight_norm", "spectral_norm", "prune"])
def test_hooks_that_compute_weights(change):
    module = seeded(Net(**EVERY_STEP))
    if change == "prune":
        prune.l1_unstructured(module.fc, "weight", 0.5)
        prune.l1_unstructured(module.gru, "weight_hh_l0", 0.5)
    else:
        getattr(nn.utils, change)(module.fc)
    with torch.no_grad():
        module(torch.zeros(1, 2, 3).double())
    assert_equal(module, qg.load(module))


@pytest.mark.parametrize("layer", ["gru", "fc"])
def test_the_second_comparison_is_of_more_steps_and_larger_values(layer, monkeypatch):
    """What nothing else finds: an operation that is another one beyond the first comparison."""
    module = seeded(Net(**EVERY_STEP))
    part = {"gru": "torch._VF.gru", "fc": "torch.nn.functional.linear"}[layer]
    original = {"gru": torch._VF.gru, "fc": functional.linear}[layer]
    monkeypatch.setattr(part, lambda x, *rest: original(x.clamp(-7, 7), *rest))
    with pytest.raises(qg.ModelError, match=f"module '{layer}' .*differs by"):
        qg.load(module)


def test_the_second_comparison_is_of_the_whole_module_too():
    class Stepwise(Net):
        def forward(self, x):
            out, _ = self.gru(x)
            return out if isinstance(x, torch.fx.Proxy) or x.size(1) < 20 else 2 * out

    with pytest.raises(qg.ModelError, match=r"PyTorch module Stepwise: its import differs by 5\.0e-01"):
        qg.load(seeded(Stepwise(None)))


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_saturated_and_large_models_pass_the_second_comparison(scale):
    module = seeded(nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), Plain(8)), scale)
    assert_equal(module, qg.load(module))


def test_the_compiler_of_pytorch_is_not_imported():
    """It takes seconds."""
    code = (
        "import sys, torch, quantgru as qg\n"
        "qg.load(torch.nn.GRU(3, 4))\n"
        "assert not [name for name in sys.modules if name.startswith('torch._dynamo.eval_frame')]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


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
}


@pytest.mark.parametrize("form", OUTPUTS)
def test_one_output_of_several_values(form):
    module = seeded(Net(OUTPUTS[form]))
    model = qg.load(module)
    assert ("states that it returns" in " ".join(model.notes)) == ("state" in form or form == "pair")
    x = np.random.default_rng(3).standard_normal((4, 11, 3))
    with torch.no_grad():
        out, h = module.gru(torch.from_numpy(x))
        expected = OUTPUTS[form](module, out, h)
    values = expected.values() if isinstance(expected, dict) else expected
    (expected,) = [value for value in values if value is not None and value is not h and value.shape != (4, 5)]
    np.testing.assert_allclose(model.run(x), expected.numpy(), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "ending",
    [
        lambda self, out, h: {"a": self.fc(out), "b": self.fc(out)[..., :2]},
        lambda self, out, h: [h, h[-1]],
        lambda self, out, h: (self.second(out)[1], out),  # states that are not on the way to out
        lambda self, out, h: (out, self.second(out)[1][-1]),
        lambda self, out, h: (out, 1.5),
    ],
)
def test_several_outputs_are_refused(ending):
    module = Net(ending)
    module.second = nn.GRU(5, 5, batch_first=True)
    with pytest.raises(qg.ModelError, match=r"output of Net: several tensors|its result is used 2 times"):
        qg.load(module)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(value):
    module = Net(lambda self, out, h: self.fc(out))
    with torch.no_grad():
        module.gru.weight_hh_l0[2, 1] = value
    with pytest.raises(
        qg.ModelError, match=r"module 'gru' \(GRU\): parameter 'weight_hh_l0' holds (nan|inf) at \[2, 1\]"
    ):
        qg.load(module)


def test_hidden_in_place_change_is_found():
    def ending(self, out, h):
        result = self.fc(out)
        result.add_(1.0)
        return result

    with pytest.raises(qg.ModelError, match=r"method 'add_' .*: changes a tensor in place"):
        qg.load(Net(ending))


def test_anything_else_is_refused_by_its_type():
    with pytest.raises(qg.ModelError, match=r"model of type list: supported are files, live PyTorch modules"):
        qg.load([1, 2])
    with pytest.raises(qg.ModelError, match=r"model of type torch\.Tensor"):
        qg.load(torch.zeros(3))
    with pytest.raises(qg.ConfigError, match="softmax='drop', allowed are"):
        qg.load(nn.GRU(2, 2), softmax="drop")


class Noisy(Net):
    """Draws random numbers and counts its calls in forward()."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        torch.rand(3), np.random.rand(3), random.random()
        out, h_n = self.gru(x)
        return self.ending(self, out, h_n)


@pytest.mark.parametrize(
    "ending", [lambda s, out, h: s.fc(out), lambda s, out, h: s.fc(out).mean(1)], ids=["good", "refused"]
)
@pytest.mark.parametrize("training", [True, False])
def test_module_and_random_states_are_unchanged(ending, training):
    module = Noisy(ending).train(training)
    module.gru.weight_ih_l0.requires_grad_(False)
    module.fc.train(not training)
    before = {name: values.clone() for name, values in module.state_dict().items()}
    modes = [part.training for part in module.modules()]
    gradients = [(p.requires_grad, p.device, p.dtype, p.data_ptr()) for p in module.parameters()]
    torch_state, numpy_state, python_state = torch.get_rng_state(), np.random.get_state(), random.getstate()
    grad_mode, default_type = torch.is_grad_enabled(), torch.get_default_dtype()
    try:
        qg.load(module)
    except qg.ModelError as error:
        assert "method 'mean'" in str(error)  # noqa: PT017
    assert all(torch.equal(values, before[name]) for name, values in module.state_dict().items())
    assert [part.training for part in module.modules()] == modes
    assert [(p.requires_grad, p.device, p.dtype, p.data_ptr()) for p in module.parameters()] == gradients
    assert module.calls == 0
    assert torch.is_grad_enabled() == grad_mode
    assert torch.get_default_dtype() == default_type
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state[1])
    assert np.random.get_state()[2:] == numpy_state[2:]
    assert random.getstate() == python_state


def test_import_owns_its_arrays():
    module = nn.GRU(3, 4)
    model = qg.load(module)
    before = model.layers[0].input_weights.copy()
    with torch.no_grad():
        module.weight_ih_l0.zero_()
    assert np.array_equal(model.layers[0].input_weights, before)
    assert not model.layers[0].input_weights.flags.writeable


@pytest.mark.parametrize(
    ("wrap", "next_step"),
    [
        (torch.jit.script, "give the nn.Module that it was made from"),
        (lambda module: torch.nn.DataParallel(module), "give its .module"),
        (torch.compile, "give its ._orig_mod"),
    ],
    ids=["script", "data parallel", "compile"],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_wrappers_are_refused_with_the_way_inside(wrap, next_step):
    with pytest.raises(qg.ModelError, match=re.escape(next_step)):
        qg.load(wrap(torch.nn.Sequential(torch.nn.Linear(3, 3))))
