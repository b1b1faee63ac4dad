"""Modules of PyTorch for the tests of its importer, with random weights, and their comparison with imports."""

from __future__ import annotations

import re

import numpy as np
import pytest

import quantgru as qg
from quantgru.model import Embedding

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install quantgru[torch]")

from torch import nn  # noqa: E402

TOLERANCE = 1e-12  # of the largest value; measured: 4e-15
UNITS = 5


class Net(nn.Module):
    """The parts that modules of GRUs are made of; `steps(self, x)` is its forward()."""

    def __init__(self, steps, n_layers=1, bidirectional=False, batch_first=True, bias=True, n_inputs=3, dropout=0.0):
        super().__init__()
        directions = 1 + bidirectional
        self.gru = nn.GRU(n_inputs, UNITS, n_layers, bias, batch_first, dropout, bidirectional)
        self.fc = nn.Linear(UNITS * directions, 4, bias=bias)
        self.out = nn.Linear(4, 2)
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


class EndingNet(Net):
    """A GRU, then `steps(self, out, h_n)`."""

    def forward(self, x):
        out, h_n = self.gru(x)
        return self.steps(self, out, h_n)


class Last(nn.Module):
    """Of the pair that an nn.GRU returns."""

    def forward(self, result):
        return result[0][:, -1, :]


class Plain(nn.GRU):
    """As its type, for all inputs."""

    def __init__(self, width):
        super().__init__(width, 5, batch_first=True)


class Packed(nn.Module):
    """Sequences and their lengths."""

    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(3, 5)

    def forward(self, x, lengths):
        return self.gru(nn.utils.rnn.pack_padded_sequence(x, lengths))[0]


def seed(module: nn.Module, scale: float = 0.8, number: int = 7) -> nn.Module:
    """In float64 and in evaluation, all parameters and buffers random, statistics and deviations positive."""
    generator = torch.Generator().manual_seed(number)
    with torch.no_grad():
        for name, values in [*module.named_parameters(), *module.named_buffers()]:
            if not values.is_floating_point():
                continue
            values.copy_(scale * torch.randn(values.shape, generator=generator))
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


def random_x(model: qg.FloatModel) -> np.ndarray:
    """[4, 6, inputs], or tokens [4, 6, 1]."""
    random, first = np.random.default_rng(3), model.layers[0]
    if isinstance(first, Embedding):
        return random.integers(0, first.n_tokens, (4, 6, 1))
    return random.standard_normal((4, 6, model.n_inputs))


def steps_first(values: np.ndarray) -> np.ndarray:
    """[sequences, steps, ...] from or to [steps, sequences, ...]."""
    return values.swapaxes(0, 1)


def assert_equal(net: nn.Module, model: qg.FloatModel, given_as=lambda x: x, arranged=lambda y: y) -> None:
    """On random input; `given_as` makes of it the module's input, `arranged` of the module's output the model's."""
    x = random_x(model)
    tokens = isinstance(model.layers[0], Embedding)
    expected, found = arranged(run(net, given_as(x[..., 0] if tokens else x))), model.run(x)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()


def assert_refused(net: nn.Module, message: str) -> None:
    """In one line that is soon read."""
    with pytest.raises(qg.ModelError) as caught:
        qg.load(net)
    text = str(caught.value)
    assert re.search(message, text), text
    assert "\n" not in text
    assert len(text) <= 400


def kinds(model: qg.FloatModel) -> list[str]:
    return [type(layer).__name__ for layer in model.layers]
