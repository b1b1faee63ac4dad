"""Live exports by both of PyTorch's exporters and by Keras on PyTorch, against the modules themselves."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import quantgru as qg
from quantgru.errors import QuantgruWarning

os.environ.setdefault("KERAS_BACKEND", "torch")
onnx = pytest.importorskip("onnx", reason="ONNX is not installed: pip install quantgru[onnx]")
torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")
pytest.importorskip("onnxscript", reason="onnxscript is not installed: pip install onnxscript")

from torch import nn  # noqa: E402

TOLERANCE = 1e-6
SEQUENCES, STEPS, INPUTS = 3, 5, 3


class Net(nn.Module):
    """Parts by name, and a function of them and the inputs."""

    def __init__(self, call: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.call = call

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.call(self, *inputs)


def gru(**options: Any) -> nn.GRU:
    return nn.GRU(INPUTS, 4, **{"batch_first": True, **options})


def batch_norm_between(net: Net, x: torch.Tensor) -> torch.Tensor:
    turned = net.norm(net.first(x)[0].transpose(1, 2)).transpose(1, 2)
    return net.second(turned)[0][:, -1]


def both_final_states(net: Net, x: torch.Tensor) -> torch.Tensor:
    states = net.gru(x)[1]
    return net.head(torch.cat((states[-2], states[-1]), dim=1))


def summed_directions(net: Net, x: torch.Tensor) -> torch.Tensor:
    y = net.gru(x)[0]
    return torch.tanh(net.head(y[..., :4] + y[..., 4:]))


def normalised(net: Net, x: torch.Tensor) -> torch.Tensor:
    return net.gru((x - net.mean) / net.scale)[0]


def states_by_layer(net: Net, x: torch.Tensor) -> torch.Tensor:
    states = net.gru(x)[1].view(2, 2, x.size(0), 4)[-1]
    return net.head(torch.cat((states[0], states[1]), dim=1))


def states_by_sequence(net: Net, x: torch.Tensor) -> torch.Tensor:
    return net.head(net.gru(x)[1].permute(1, 0, 2).flatten(1))


def ends_of_directions(net: Net, x: torch.Tensor) -> torch.Tensor:
    """Both final states, from the ends of the sequence."""
    forward, backward = net.gru(x)[0].chunk(2, dim=-1)
    return torch.clamp(net.head(forward[:, -1] + backward[:, 0]), min=0)


def steps_and_batch_as_one(net: Net, x: torch.Tensor) -> torch.Tensor:
    h0 = torch.zeros(2, x.size(0), 4).to(x)
    return net.head(net.gru(x, h0)[0].reshape(-1, 4)).view(x.size(0), x.size(1), -1)


def learned_start(net: Net, x: torch.Tensor) -> torch.Tensor:
    return net.gru(torch.flip(x, [1]), net.start.expand(1, x.size(0), 4).contiguous())[0]


def log_softmax_head(net: Net, x: torch.Tensor) -> torch.Tensor:
    return torch.log_softmax(net.head(net.gru(x)[0][:, -1]), dim=-1)


def cells(net: Net, x: torch.Tensor) -> torch.Tensor:
    """A loop of the user's own, which an exporter writes out."""
    h = x.new_zeros(x.shape[0], 4)
    states = []
    for t in range(STEPS):
        h = net.cell(x[:, t], h)
        states.append(h)
    return net.head(torch.stack(states, dim=1))


MODULES: dict[str, Callable[[], nn.Module]] = {
    "every_step": lambda: Net(lambda net, x: net.gru(x)[0], gru=gru()),
    "stack": lambda: Net(
        lambda net, x: net.head(net.gru(x)[0])[:, -1], gru=gru(num_layers=3, dropout=0.5), head=nn.Linear(4, 2)
    ),
    "bidirectional_stack_final": lambda: Net(
        both_final_states, gru=gru(num_layers=2, bidirectional=True), head=nn.Linear(8, 2)
    ),
    "summed_directions": lambda: Net(summed_directions, gru=gru(bidirectional=True), head=nn.Linear(4, 2)),
    "batch_norm_between": lambda: Net(
        batch_norm_between, first=gru(), norm=nn.BatchNorm1d(4), second=nn.GRU(4, 4, batch_first=True)
    ),
    "normalised": lambda: Net(
        normalised,
        gru=gru(bias=False),
        mean=nn.Parameter(torch.tensor([0.5, -1.0, 2.0])),
        scale=nn.Parameter(torch.tensor([2.0, 0.5, -1.5])),
    ),
    "states_by_layer": lambda: Net(states_by_layer, gru=gru(num_layers=2, bidirectional=True), head=nn.Linear(8, 2)),
    "states_by_sequence": lambda: Net(states_by_sequence, gru=gru(bidirectional=True), head=nn.Linear(8, 2)),
    "ends_of_directions": lambda: Net(ends_of_directions, gru=gru(bidirectional=True), head=nn.Linear(4, 2)),
    "steps_and_batch_as_one": lambda: Net(steps_and_batch_as_one, gru=gru(num_layers=2), head=nn.Linear(4, 2)),
    "learned_start": lambda: Net(learned_start, gru=gru(), start=nn.Parameter(torch.zeros(1, 1, 4))),
    "sequential_head": lambda: Net(
        lambda net, x: net.head(net.gru(x)[0][:, -1]),
        gru=gru(),
        head=nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2), nn.Sigmoid()),
    ),
}


def random_weights(module: nn.Module, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if tensor.is_floating_point() and name not in ("mean", "scale"):
                tensor.copy_(torch.empty(tensor.shape).normal_(0, 0.4, generator=generator))
            if name.endswith("running_var"):
                tensor.abs_().add_(0.5)
    return module.eval()


def inputs() -> torch.Tensor:
    return torch.randn(SEQUENCES, STEPS, INPUTS, generator=torch.Generator().manual_seed(1))


def export(module: nn.Module, path: Path, dynamo: bool, fixed: bool, **options: Any) -> None:
    sizes: dict[str, Any] = {}
    if dynamo:
        options = {"external_data": False, **options}
    if not fixed and dynamo:
        free = torch.export.Dim.AUTO
        sizes = {"dynamic_shapes": (({0: free, 1: free},),)}
    elif not fixed:
        sizes = {"dynamic_axes": {"x": {0: "batch", 1: "steps"}}}
    with warnings.catch_warnings(action="ignore"):
        torch.onnx.export(
            module, (inputs(),), path, dynamo=dynamo, verbose=False, input_names=["x"], **sizes, **options
        )


def in_float64(module: nn.Module) -> np.ndarray:
    with torch.no_grad():
        return copy.deepcopy(module).double()(inputs().double()).numpy()


def node_resets(path: Path) -> set[int]:
    nodes = [node for node in onnx.load(path).graph.node if node.op_type == "GRU"]
    return {next((a.i for a in node.attribute if a.name == "linear_before_reset"), 0) for node in nodes}


def load(path: Path, **options: Any) -> qg.FloatModel:
    """The model as it was meant. Whether it must be said depends on the versions that are installed."""
    if node_resets(path) != {0}:
        with warnings.catch_warnings(action="error"):
            return qg.load(path, **options)
    with pytest.warns(QuantgruWarning, match="linear_before_reset=0, but PyTorch"):
        qg.load(path, **options)
    return qg.load(path, reset="after", **options)


@pytest.mark.parametrize("exporter", ["torchscript", "torchscript_fixed", "dynamo", "dynamo_fixed"])
@pytest.mark.parametrize("name", MODULES)
def test_pytorch(name, exporter, tmp_path):
    module = random_weights(MODULES[name]())
    path = tmp_path / f"{name}.onnx"
    export(module, path, exporter.startswith("dynamo"), exporter.endswith("fixed"))
    found = load(path).run(inputs().numpy())
    expected = in_float64(module)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= TOLERANCE


@pytest.mark.parametrize("opset", [9, 11, 13, 15, 18])
def test_older_opsets(opset, tmp_path):
    module = random_weights(MODULES["bidirectional_stack_final"]())
    export(module, tmp_path / "old.onnx", dynamo=False, fixed=False, opset_version=opset)
    assert np.abs(load(tmp_path / "old.onnx").run(inputs().numpy()) - in_float64(module)).max() <= TOLERANCE


def test_softmax_head(tmp_path):
    module = random_weights(Net(log_softmax_head, gru=gru(), head=nn.Linear(4, 5)))
    export(module, tmp_path / "classes.onnx", dynamo=True, fixed=True)
    found = load(tmp_path / "classes.onnx", softmax="logits").run(inputs().numpy())
    found = found - np.log(np.exp(found).sum(axis=1, keepdims=True))
    assert np.abs(found - in_float64(module)).max() <= TOLERANCE


@pytest.mark.parametrize("bias", [True, False])
def test_a_loop_over_gru_cells(bias, tmp_path):
    """PyTorch writes its cell as n + z (h - n), the user's loop as one copy of it for each step."""
    module = random_weights(Net(cells, cell=nn.GRUCell(INPUTS, 4, bias=bias), head=nn.Linear(4, 2)))
    export(module, tmp_path / "cells.onnx", dynamo=True, fixed=True)
    model = qg.load(tmp_path / "cells.onnx")
    assert [type(layer).__name__ for layer in model.layers] == ["Gru", "Dense"]
    assert np.abs(model.run(inputs().numpy()) - in_float64(module)).max() <= TOLERANCE


def test_weights_beside_the_file(tmp_path):
    """The default of the newer exporter, for all but small tensors."""
    module = random_weights(nn.GRU(INPUTS, 32, batch_first=True))
    path = tmp_path / "apart.onnx"
    export(module, path, dynamo=True, fixed=True, external_data=True)
    expected = module.double()(inputs().double())[0].detach().numpy()
    assert np.abs(qg.load(path).run(inputs().numpy()) - expected).max() <= TOLERANCE
    data = tmp_path / "apart.onnx.data"
    content = data.read_bytes()
    for wrong, message in (
        (content[:-1], r"bytes \d+ \.\.\. \d+ of 'apart.onnx.data', which has \d+"),
        (b"", r"bytes 0 \.\.\. \d+ of 'apart.onnx.data', which has 0"),
    ):
        data.write_bytes(wrong)
        with pytest.raises(qg.ModelError, match=message):
            qg.load(path)
    (tmp_path / "elsewhere").write_bytes(content)
    data.unlink()
    data.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(qg.ModelError, match=r"there is no such file beside the model; .*external_data=False"):
        qg.load(path)


@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.parametrize("outputs", ["head and steps", "steps and head", "two heads", "scaled states", "another layer"])
def test_several_results_are_refused(outputs, dynamo, tmp_path):
    """Only final states as they are, of layers on the way, may stand beside the result."""
    results = {
        "head and steps": lambda net, y, h: (net.head(h[-1]), y),
        "steps and head": lambda net, y, h: (y, net.head(h[-1])),
        "two heads": lambda net, y, h: (net.head(y), net.head(h[-1])),
        "scaled states": lambda net, y, h: (net.head(y[:, -1]), 2 * h),
        "another layer": lambda net, y, h: (net.head(y), net.second(y)[1]),
    }

    class Several(nn.Module):
        def __init__(self):
            super().__init__()
            self.gru = nn.GRU(INPUTS, 4, batch_first=True)
            self.second = nn.GRU(4, 4, batch_first=True)
            self.head = nn.Linear(4, 2)

        def forward(self, x):
            return results[outputs](self, *self.gru(x))

    path = tmp_path / "several.onnx"
    export(random_weights(Several()), path, dynamo=dynamo, fixed=True)
    with pytest.raises(qg.ModelError, match=r"several results; .*export the model with one of them"):
        qg.load(path)


# ---- Keras ----------------------------------------------------------------------------------------------------------


def keras_models() -> dict[str, Callable[[Any], list[Any]]]:
    return {
        "every_step": lambda k: [k.GRU(4, return_sequences=True), k.Dense(2)],
        "last_step": lambda k: [k.GRU(4), k.Dense(3, activation="relu"), k.Dense(2, activation="sigmoid")],
        "reset_before": lambda k: [k.GRU(4, reset_after=False, return_sequences=True), k.Dense(2)],
        "reset_before_last": lambda k: [k.GRU(4, reset_after=False), k.Dense(2)],
        "no_bias": lambda k: [k.GRU(4, use_bias=False)],
        "stack": lambda k: [k.GRU(4, return_sequences=True), k.Dropout(0.5), k.GRU(3, reset_after=False)],
        "bidirectional": lambda k: [k.Bidirectional(k.GRU(4, return_sequences=True)), k.Dense(2)],
        "bidirectional_final": lambda k: [k.Bidirectional(k.GRU(4)), k.Dense(2)],
        "bidirectional_sum": lambda k: [k.Bidirectional(k.GRU(4, return_sequences=True), merge_mode="sum")],
        "bidirectional_ave": lambda k: [k.Bidirectional(k.GRU(4), merge_mode="ave")],
        "bidirectional_mul": lambda k: [k.Bidirectional(k.GRU(4, return_sequences=True), merge_mode="mul")],
        "go_backwards": lambda k: [k.GRU(4, go_backwards=True, return_sequences=True), k.GRU(3)],
        "hard_sigmoid": lambda k: [k.GRU(4, recurrent_activation="hard_sigmoid", return_sequences=True)],
        "relu": lambda k: [k.GRU(4, activation="relu")],
        "linear": lambda k: [k.GRU(4, activation="linear", recurrent_activation="hard_sigmoid", reset_after=False)],
        "normalised": lambda k: [k.Rescaling(0.5, 0.1), k.BatchNormalization(), k.GRU(4), k.Dense(2)],
        "dense_before": lambda k: [k.Dense(4, activation="tanh"), k.GRU(4), k.Dense(2)],
        "two_cells": lambda k: [k.RNN([k.GRUCell(4), k.GRUCell(3, reset_after=False)], return_sequences=True)],
        "stack_dense": lambda k: [k.GRU(4, return_sequences=True), k.GRU(3, return_sequences=True), k.Dense(2)],
        "time_distributed": lambda k: [k.GRU(4, return_sequences=True), k.TimeDistributed(k.Dense(2, "relu"))],
        "bidirectional_reset_before": lambda k: [k.Bidirectional(k.GRU(4, reset_after=False)), k.Dense(2)],
        "bidirectional_stack": lambda k: [
            k.Bidirectional(k.GRU(4, return_sequences=True)),
            k.Bidirectional(k.GRU(3, return_sequences=True, reset_after=False)),
            k.Dense(2),
        ],
        "linear_dense_before": lambda k: [k.Dense(4), k.Bidirectional(k.GRU(4)), k.Dense(2)],
    }


@pytest.fixture(scope="module")
def keras() -> Any:
    return pytest.importorskip("keras", reason="Keras is not installed: pip install 'keras>=3.6'")


def exported(keras: Any, layers: list[Any], path: Path, x: np.ndarray, steps: int | None = STEPS) -> np.ndarray:
    """Writes the file; returns what Keras computes."""
    shape = (steps, *x.shape[2:])
    model = keras.Sequential([keras.Input(shape, dtype=str(x.dtype)), *layers])
    generator = np.random.default_rng(0)
    for variable in model.weights:
        values = generator.normal(0, 0.4, variable.shape)
        variable.assign(np.abs(values) + 0.5 if "variance" in variable.name else values)
    y = np.asarray(model(x).detach(), dtype=np.float64)
    with warnings.catch_warnings(action="ignore"):
        model.export(path, format="onnx", verbose=False)
    return y


@pytest.mark.parametrize("name", keras_models())
def test_keras_on_pytorch(name, keras, tmp_path):
    """It has no GRU node: every step is written out."""
    x = inputs().numpy()
    expected = exported(keras, keras_models()[name](keras.layers), tmp_path / "keras.onnx", x)
    model = qg.load(tmp_path / "keras.onnx")
    assert node_resets(tmp_path / "keras.onnx") == set()
    found = model.run(x)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= TOLERANCE
    n_layers = len(keras_models()[name](keras.layers)) + (name == "two_cells")
    assert len([layer for layer in model.layers if type(layer).__name__ != "Reverse"]) <= n_layers


def test_keras_tokens(keras, tmp_path):
    tokens = np.random.default_rng(0).integers(0, 7, (SEQUENCES, STEPS)).astype(np.int32)
    layers = [keras.layers.Embedding(7, 3), keras.layers.GRU(4), keras.layers.Dense(2)]
    expected = exported(keras, layers, tmp_path / "keras.onnx", tokens)
    found = qg.load(tmp_path / "keras.onnx").run(tokens[..., None])
    assert np.abs(found - expected).max() <= TOLERANCE


@pytest.mark.parametrize("reset_after", [True, False])
def test_keras_with_a_free_number_of_steps_is_refused(reset_after, keras, tmp_path):
    """Its exporter then writes out as many steps as it tried the model with: one. No error, other numbers."""
    layers = [keras.layers.GRU(4, reset_after=reset_after, return_sequences=True)]
    exported(keras, layers, tmp_path / "keras.onnx", inputs().numpy(), steps=None)
    with pytest.raises(qg.ModelError, match=r"which is free|the number of steps is free"):
        qg.load(tmp_path / "keras.onnx")
