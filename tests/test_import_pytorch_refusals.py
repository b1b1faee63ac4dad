"""PyTorch modules that no canonical layers say: the errors say what, where, what is supported, and what would help."""

from __future__ import annotations

import pytest

import quantgru as qg

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install quantgru[torch]")

from pytorch_nets import UNITS, EndingNet, Net, Packed, assert_refused  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402


class Keeping(Packed):
    """The state stays in the module."""

    def __init__(self):
        super().__init__()
        self.h = torch.zeros(1, 8, 5)

    def forward(self, x):
        out, self.h = self.gru(x, self.h)
        return out


class KeepingNone(Keeping):
    """At first there is no state."""

    def __init__(self):
        super().__init__()
        self.h = None


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


class Ignoring(Packed):
    """Lengths that nothing is done with."""

    def forward(self, x, lengths):
        return self.gru(x)[0]


class Unpacking(Packed):
    """Data and state as one argument."""

    def forward(self, both):
        x, h = both
        return self.gru(x, h)


class InPlace(Packed):
    """A module changes what it is given."""

    def __init__(self):
        super().__init__()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        out, _ = self.gru(x)
        self.relu(out)
        return out


class Named(Packed):
    """The data has no place among the arguments."""

    def forward(self, *, x):
        return self.gru(x)[0]


def asserting(self, x):
    assert x.shape[2] == 3
    return self.gru(x)[0]


def in_place(self, x):
    x.clamp_(-1000, 1000)
    return self.gru(x)[0]


def with_module(module, ending=lambda self, out, h: out):
    net = EndingNet(ending)
    net.gru = module
    return net


REFUSALS = {
    "lstm": (lambda: with_module(nn.LSTM(3, 5)), r"\(LSTM\): this module is not supported; .*an nn.GRU"),
    "simple rnn": (lambda: with_module(nn.RNN(3, 5)), r"\(RNN\): this module is not supported; .*train an nn.GRU"),
    "lstm alone": (lambda: nn.LSTM(3, 5), "^PyTorch module LSTM: an nn.LSTM; .*train an nn.GRU in its place$"),
    "simple rnn alone": (lambda: nn.RNN(3, 5), "^PyTorch module RNN: an nn.RNN; .*train an nn.GRU in its place$"),
    "cell": (lambda: nn.Sequential(nn.GRUCell(3, 5)), r"\(GRUCell\): a cell reads one step, of a loop .*; use nn.GRU"),
    "packed": (
        lambda: Net(lambda s, x: s.gru(nn.utils.rnn.pack_padded_sequence(x, [2] * 8))[0]),
        "forward.. uses pack_padded_sequence; leave it out.*unequal lengths as a list",
    ),
    "packed with lengths": (lambda: Packed(), "forward.. uses pack_padded_sequence; leave it out"),
    "lengths without use": (lambda: Ignoring(), "argument 'lengths' of Ignoring: is no initial state; .*a default"),
    "a tuple": (lambda: Unpacking(), "input 'both': a tuple of 2; .*take its parts as arguments"),
    "only by name": (lambda: Named(), r"forward\(\) needs the inputs x; take the data as the first argument"),
    "kept state, none at first": (
        lambda: KeepingNone(),
        "^PyTorch module KeepingNone: 'h' is kept from one call of forward.. to the next; leave it out",
    ),
    "kept state": (lambda: Keeping(), "constant 'h': is kept from one call of forward.. to the next; .*leave it out"),
    "conv": (lambda: with_module(nn.Conv1d(3, 5, 1)), r"module 'gru' \(Conv1d\): this module is not supported"),
    "leaky relu": (
        lambda: EndingNet(lambda s, out, h: functional.leaky_relu(s.fc(out))),
        r"function 'leaky_relu' after module 'fc'",
    ),
    "branch": (
        lambda: EndingNet(lambda s, out, h: s.fc(out[:, -1]) + s.drop(out)[:, -1, :4]),
        r"index \[0\] after module 'gru' \(GRU\): its result is used 2 times, by index \[:, -1\] and module 'drop'",
    ),
    "residual": (lambda: Net(lambda s, x: s.gru(x)[0] + x), "input 'x': its result is used 2 times"),
    "mean over steps": (
        lambda: EndingNet(lambda s, out, h: s.fc(out.mean(1))),
        "method 'mean' .*the mean of steps.*h_n",
    ),
    "control flow": (
        lambda: Net(lambda s, x: s.gru(x)[0] if x.sum() > 0 else x),
        r"module Net: torch.fx cannot trace its forward.. \(TraceError.*; remove control flow that depends on",
    ),
    "random state": (
        lambda: Net(lambda s, x: s.gru(x, torch.randn(1, x.size(0), 5))[0]),
        "function 'randn': is another one at each call; .*make it a constant",
    ),
    "state of one sequence": (
        lambda: Net(lambda s, x: s.gru(x, torch.zeros(1, 1, 5))[0]),
        r"an initial state \(1, 1, 5\) that does not fit every batch, expected \(1, batch, 5\); .*as x.size\(0\)",
    ),
    "state for each step": (
        lambda: Net(lambda s, x: s.gru(x, torch.zeros(1, x.size(1), 5))[0]),
        r"an initial state \(1, 5, 5\) that does not fit every batch, expected \(1, batch, 5\)",
    ),
    "state of at most 64": (
        lambda: Net(lambda s, x: s.gru(x, torch.zeros(1, 64, 5)[:, : x.size(0)])[0]),
        r"an initial state \(1, 64, 5\) that does not fit every batch, expected \(1, batch, 5\); .*as x.size\(0\)",
    ),
    "state from the input": (lambda: Translator(), r"module 'decoder' .*an initial state that depends on the input"),
    "unequal states": (
        lambda: Net(lambda s, x: s.gru(x, x.new_ones(x.size(0)).cumsum(0).view(1, -1, 1).expand(1, -1, 5))[0]),
        "an initial state that is another one in each sequence; .*expand one over the batch",
    ),
    "dense of another width": (lambda: Net(lambda s, x: s.gru(s.fc(x))[0]), "layer 'gru': 3 inputs, .* gives 4"),
    "no gru": (lambda: Net(lambda s, x: x), "no GRU layer"),
    "constant": (lambda: Net(lambda s, x: s.fc.weight), "output of Net: nothing that depends on the input"),
    "two outputs": (lambda: EndingNet(lambda s, out, h: (s.fc(out), out)), "its result is used 2 times"),
    "two of one": (
        lambda: EndingNet(lambda s, out, h: (out, out)),
        "output of EndingNet: several tensors; .*return one tensor",
    ),
    "final states": (
        lambda: EndingNet(lambda s, out, h: s.fc(h), n_layers=2),
        r"gets the final states of all layers; .*h_n\[-1\]",
    ),
    "states out": (
        lambda: EndingNet(lambda s, out, h: h, n_layers=2),
        r"output of EndingNet: the final states of all layers; .*h_n\[-1\]",
    ),
    "pair in": (lambda: Net(lambda s, x: s.fc(s.gru(x))), r"gets the pair that nn.GRU returns; .*h_n\[-1\]"),
    "wrong layer": (
        lambda: EndingNet(lambda s, out, h: h[0], n_layers=2),
        r"index \[0\] after module 'gru' \(GRU\): does not take the last step of the last layer",
    ),
    "first step": (
        lambda: EndingNet(lambda s, out, h: out[:, 0]),
        r"index \[:, 0\] after .*: does not take the last step",
    ),
    "batch for steps": (
        lambda: EndingNet(lambda s, out, h: out[-1]),
        r"index \[-1\] after .*: does not take the last step",
    ),
    "rest of the pair": (
        lambda: Net(lambda s, x: s.gru(x)[1:]),
        r"index \[1:\] after module 'gru' \(GRU\): does not take one tensor of several",
    ),
    "batch as steps": (
        lambda: Net(lambda s, x: s.gru(s.gru(x)[0].transpose(0, 1))[0]),
        "batch_first=True takes the batch for the steps.*transpose before it",
    ),
    "window": (
        lambda: EndingNet(lambda s, out, h: out[:, -3:]),
        r"index \[:, -3:\] after .*: does not take the last step",
    ),
    "gru after last": (lambda: EndingNet(lambda s, out, h: s.gru(out[:, -1])[0]), "a GRU layer after the last step"),
    "gru twice": (lambda: Net(lambda s, x: s.gru(s.gru(x)[0])[0]), r"module 'gru' \(GRU\): called twice"),
    "softmax over steps": (lambda: EndingNet(lambda s, out, h: torch.softmax(s.fc(out), 1)), "softmax over axis 1"),
    "active dropout": (
        lambda: EndingNet(lambda s, out, h: functional.dropout(out)),
        "function 'dropout' .*drops outputs at each call; .*training=self.training",
    ),
    "assertion": (lambda: Net(asserting), "remove control flow that depends on the input, as if and assert"),
    "length": (lambda: Net(lambda s, x: s.gru(x, torch.zeros(1, len(x), 5))[0]), "use x.size.0. in place of len"),
    "states one by one": (
        lambda: Net(lambda s, x: sum(h for h in torch.relu(s.gru(x)[0]))),
        "cannot trace its forward.*; loop over the input alone",
    ),
    "nan check": (
        lambda: Net(lambda s, x: x if torch.isnan(x).any() else s.gru(x)[0]),
        "remove control flow that depends on the input",
    ),
    "not initialised": (
        lambda: Net(lambda s, x: s.gru(x, next(s.parameters()).data.new(1, x.size(0), 5))[0]),
        "an initial state that is not initialised.*; use torch.zeros",
    ),
    "steps one by one": (
        lambda: Net(lambda s, x: [s.gru(x[:, t : t + 1]) for t in range(x.size(1))]),
        r"index \[:, 0:1\]: takes steps of the input one by one; .*nn.GRUCell in a loop",
    ),
    "in place": (lambda: Net(in_place), r"method 'clamp_'.*in place; .*use its result: x = x.clamp\(...\)"),
    "in place product": (
        lambda: Net(lambda s, x: (x.mul_(2), s.gru(x)[0])[1]),
        r"method 'mul_': changes a tensor in place; .*use its result: x = x.mul\(...\)$",
    ),
    "in place module": (
        lambda: InPlace(),
        "module 'relu' .*in place; .*leave inplace=True out",
    ),
    "in place zeros": (lambda: Net(lambda s, x: (x.zero_(), s.gru(x)[0])[1]), "in place; .*make a new tensor$"),
    "in place function": (
        lambda: EndingNet(lambda s, out, h: (functional.relu(out, inplace=True), out)[1]),
        r"function 'relu'.*: changes a tensor in place; .*use its result: x = relu\(x, ...\)$",
    ),
    "not run yet": (
        lambda: nn.Sequential(nn.GRU(3, 5, batch_first=True), nn.LazyLinear(2)),
        "parameter '1.weight' has no shape yet; run the module on data once",
    ),
    "two inputs": (
        lambda: nn.Bilinear(2, 2, 2),
        "function 'bilinear': uses argument 'input2' as something else than a state",
    ),
    "no forward": (lambda: nn.Module(), r"PyTorch module Module: forward\(\) needs"),
    "wrong meaning": (
        lambda: with_module(Wrong(3, 5)),
        r"module 'gru' \(Wrong\): a forward\(\) of its own; .*plain nn.GRU",
    ),
    "integer weights": (
        lambda: nn.ParameterList([nn.Parameter(torch.zeros(2, dtype=torch.int8), requires_grad=False)]),
        "parameter '0' is torch.int8",
    ),
    "no data": (lambda: nn.GRU(3, 4, device="meta"), "PyTorch module GRU: parameter 'weight_ih_l0' has no values"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals_say_what_where_and_what_is_supported(case):
    make, message = REFUSALS[case]
    assert_refused(make(), message)


REFUSED = {
    "normalised steps": (
        lambda self, x: self.norm(self.gru(x)[0]),
        r"module 'norm' \(BatchNorm1d\): normalises axis 1, which are not the features; .*transpose before it",
    ),
    "reversed sequences": (lambda self, x: self.gru(x.flip(0))[0], "method 'flip': reverses the sequences of a batch"),
    "reversed features": (lambda self, x: self.gru(x.flip(2))[0], "reverses something else than the steps"),
    "reversed last step": (lambda self, x: self.gru(x)[0][:, -1].flip(0), "reverses something else than the steps"),
    "residual": (lambda self, x: self.gru(self.before(x))[0][..., :3] + x, "input 'x': its result is used 2 times"),
    "some inputs": (lambda self, x: self.gru(x[..., 3:])[0], r"index \[..., 3:\]: takes inputs whose number"),
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
    "last hundred": (
        lambda self, x: self.gru(x[:, -100:])[0],
        r"index \[:, -100:\]: takes some of the steps; .*give the model all steps",
    ),
    "without the last step": (
        lambda self, x: self.gru(x[:, : x.size(1) - 1])[0],
        "takes some of the steps; .*give the model all steps",
    ),
    "one before the last": (lambda self, x: self.gru(x)[0][:, x.size(1) - 2], "does not take the last step"),
    "number of the last sequence": (
        lambda self, x: self.gru(x)[0][:, x.size(0) - 1],
        "does not take the last step",
    ),
    "from the last step": (
        lambda self, x: self.gru(x)[0][:, x.size(1) - 1 :],
        r"takes some of the steps; .*out\[:, -1\]",
    ),
    "by a size": (lambda self, x: self.gru(x)[0] / (x.size(1) - 1), "with a size of the input, expected a number or a"),
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
    "maximum": (lambda self, x: self.gru(x)[0].max(dim=1)[0], "method 'max' .*the max of steps"),
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
    assert_refused(Net(steps), message)


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


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(value):
    module = EndingNet(lambda self, out, h: self.fc(out))
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
        qg.load(EndingNet(ending))


def test_anything_else_is_refused_by_its_type():
    with pytest.raises(qg.ModelError, match=r"model of type list: supported are files, live PyTorch modules"):
        qg.load([1, 2])
    with pytest.raises(qg.ModelError, match=r"model of type torch\.Tensor"):
        qg.load(torch.zeros(3))
    with pytest.raises(qg.ConfigError, match="softmax='drop', allowed are"):
        qg.load(nn.GRU(2, 2), softmax="drop")
