"""Writes tests/models/pytorch (checkpoints) and, of the same modules, tests/models/onnx/NAME.torchscript.onnx
and NAME.dynamo.onnx (the two exporters of PyTorch).

    pip install torch==2.13.0 safetensors onnx==1.23.2 onnxruntime onnxscript==0.7.2
    python tools/import_test_models/pytorch.py

The dynamo exporter takes its translation from onnxscript, which up to 0.7.0 wrote linear_before_reset=0 for the GRU of
PyTorch, which resets after the product (github.com/pytorch/pytorch/issues/189225): no error, other numbers. The files
fault_NAME.onnx are such exports, written in another environment:

    pip install torch==2.13.0 safetensors onnx==1.23.2 onnxruntime onnxscript==0.6.2
    python tools/import_test_models/pytorch.py --fault
"""

from __future__ import annotations

import argparse
import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from common import MODELS, generator_of, random_sequences, random_weights, record, report
from safetensors.torch import save_file
from torch import nn

Arrays = dict[str, np.ndarray]

PYTORCH = MODELS / "pytorch"
ONNX = MODELS / "onnx"
LEGACY = ("gru", "stack", "half")


class Net(nn.Module):
    """Layers of the names that people give, and a forward pass over them."""

    def __init__(self, forward: Callable[..., torch.Tensor], **parts: nn.Module | nn.Parameter):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.forward_pass = forward

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.forward_pass(self, *inputs)


def every_step(net: Net, x: torch.Tensor) -> torch.Tensor:
    return net.gru(x)[0]


def every_step_head(net: Net, x: torch.Tensor) -> torch.Tensor:
    return net.head(net.gru(x)[0])


def last_step(net: Net, x: torch.Tensor) -> torch.Tensor:
    return net.head(net.gru(x)[0][:, -1])


def final_state(net: Net, x: torch.Tensor) -> torch.Tensor:
    return net.head(net.gru(x)[1][-1])


def both_final_states(net: Net, x: torch.Tensor) -> torch.Tensor:
    states = net.gru(x)[1]
    return net.head(torch.cat((states[-2], states[-1]), dim=1))


def dense_around(net: Net, x: torch.Tensor) -> torch.Tensor:
    between = torch.relu(net.between(net.first(torch.tanh(net.before(x)))[0]))
    return torch.sigmoid(net.head(net.second(between)[0][:, -1, :]))


def tokens(net: Net, x: torch.Tensor) -> torch.Tensor:
    return net.head(net.gru(net.embedding(x))[0])


def given_state(net: Net, x: torch.Tensor, h0: torch.Tensor) -> torch.Tensor:
    return net.gru(x, h0)[0]


def two_outputs(net: Net, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return net.gru(x)


def streaming(net: Net, x: torch.Tensor, h0: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    y, hn = net.gru(x, h0)
    return net.head(y), hn


def learned_state(net: Net, x: torch.Tensor) -> torch.Tensor:
    return net.gru(x, net.start.expand(-1, x.shape[0], -1).contiguous())[0]


def given_lengths(net: Net, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=True)
    return nn.utils.rnn.pad_packed_sequence(net.gru(packed)[0], batch_first=True)[0]


def modules() -> dict[str, Net]:
    """The modules by name. All take [sequences, steps, inputs] except `time_first`."""
    bidirectional = dict(gru=nn.GRU(3, 4, bidirectional=True, batch_first=True), head=nn.Linear(8, 2))
    return {
        "every_step": Net(every_step, gru=nn.GRU(3, 5, batch_first=True)),
        "time_first": Net(every_step, gru=nn.GRU(2, 3)),
        "no_bias": Net(every_step, gru=nn.GRU(3, 4, bias=False, batch_first=True)),
        "every_step_head": Net(every_step_head, gru=nn.GRU(3, 5, batch_first=True), head=nn.Linear(5, 2)),
        "last_step": Net(last_step, gru=nn.GRU(3, 5, batch_first=True), head=nn.Linear(5, 2)),
        "final_state": Net(final_state, gru=nn.GRU(4, 3, batch_first=True), head=nn.Linear(3, 2)),
        "stack": Net(last_step, gru=nn.GRU(3, 5, num_layers=2, batch_first=True), head=nn.Linear(5, 2)),
        "stack_final_state": Net(final_state, gru=nn.GRU(3, 4, num_layers=2, batch_first=True), head=nn.Linear(4, 1)),
        "bidirectional": Net(every_step_head, **bidirectional),
        "bidirectional_final": Net(both_final_states, **copy.deepcopy(bidirectional)),
        "bidirectional_stack": Net(every_step, gru=nn.GRU(2, 3, 2, bidirectional=True, batch_first=True)),
        "dense_around": Net(
            dense_around,
            before=nn.Linear(3, 4),
            first=nn.GRU(4, 5, batch_first=True),
            between=nn.Linear(5, 4),
            second=nn.GRU(4, 4, batch_first=True),
            head=nn.Linear(4, 2),
        ),
        "tokens": Net(tokens, embedding=nn.Embedding(7, 3), gru=nn.GRU(3, 4, batch_first=True), head=nn.Linear(4, 2)),
        "two_outputs": Net(two_outputs, gru=nn.GRU(3, 4, batch_first=True)),
        "given_state": Net(given_state, gru=nn.GRU(3, 4, batch_first=True)),
        "streaming": Net(streaming, gru=nn.GRU(3, 4, batch_first=True), head=nn.Linear(4, 2)),
        "learned_state": Net(
            learned_state, gru=nn.GRU(3, 4, batch_first=True), start=nn.Parameter(torch.zeros(1, 1, 4))
        ),
        "given_lengths": Net(given_lengths, gru=nn.GRU(3, 4, batch_first=True)),
    }


def random_net(name: str) -> tuple[Net, Arrays]:
    """The module with random weights, and its inputs: three sequences of seven steps."""
    net, generator = modules()[name].eval(), generator_of(name)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.from_numpy(random_weights(generator, tuple(parameter.shape))))
    n_inputs = {"time_first": 2, "final_state": 4, "bidirectional_stack": 2}.get(name, 3)
    inputs = {"x": random_sequences(generator, (3, 7, n_inputs))}
    if name == "tokens":
        inputs["x"] = generator.integers(0, 7, (3, 7))
    if name in ("given_state", "streaming"):
        inputs["h0"] = random_weights(generator, (1, 3, 4))
    if name == "given_lengths":
        inputs["lengths"] = np.array([7, 4, 1])
    return net, inputs


def as_called(name: str, inputs: Arrays) -> Arrays:
    """`time_first` takes [steps, sequences, inputs]; records are [sequences, steps, inputs]."""
    return {key: array.swapaxes(0, 1).copy() for key, array in inputs.items()} if name == "time_first" else inputs


def outputs_in_float64(name: str, net: Net, inputs: Arrays) -> Arrays:
    tensors = [torch.from_numpy(array) for array in as_called(name, inputs).values()]
    with torch.no_grad():
        outputs = copy.deepcopy(net).double()(*(t.double() if t.is_floating_point() else t for t in tensors))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    return as_called(name, dict(zip(("y", "hn"), (output.numpy() for output in outputs), strict=False)))


def variants(name: str) -> dict[str, dict[str, Any]]:
    """By label, the options of torch.onnx.export. The TorchScript exporter is mostly called with free sizes."""
    axes = {0: "steps", 1: "sequences"} if name == "time_first" else {0: "sequences", 1: "steps"}
    torchscript = {"dynamo": False, "dynamic_axes": {"x": axes}}
    dynamo = {"dynamo": True, "external_data": False}
    if name == "given_lengths":  # torch.export refuses packed sequences
        return {"torchscript": torchscript}
    if name != "last_step":
        return {"torchscript": torchscript, "dynamo": dynamo}
    free = tuple(torch.export.Dim.AUTO if axis < 2 else torch.export.Dim.STATIC for axis in range(3))
    return {
        "torchscript": torchscript,
        "torchscript_fixed": {"dynamo": False},
        "torchscript_opset11": torchscript | {"opset_version": 11},
        "torchscript_unfolded": torchscript | {"do_constant_folding": False},
        "dynamo": dynamo,
        "dynamo_free": dynamo | {"dynamic_shapes": ((free,),)},
    }


def export(net: Net, inputs: Arrays, outputs: Arrays, path: Path, options: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net,
            tuple(torch.from_numpy(array) for array in inputs.values()),
            path,
            verbose=False,
            input_names=[*inputs],
            output_names=[*outputs],
            **options,
        )
    if options["dynamo"]:
        without_traces(path)
    report(path)


def without_traces(path: Path) -> None:
    """The dynamo exporter notes for each node where it is in the sources, with paths of the machine."""
    model = onnx.load(path)
    graph = model.graph
    for part in (graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
    onnx.save(model, path)


def run(path: Path, inputs: Arrays) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(path)
    return session.run(None, {entry.name: inputs[entry.name] for entry in session.get_inputs()})


def write_exports() -> None:
    for name in modules():
        net, inputs = random_net(name)
        outputs = outputs_in_float64(name, net, inputs)
        record(ONNX / name, **inputs, **outputs)
        for label, options in variants(name).items():
            path = ONNX / f"{name}.{label}.onnx"
            export(net, as_called(name, inputs), outputs, path, options)
            for found, expected in zip(
                run(path, as_called(name, inputs)), as_called(name, outputs).values(), strict=True
            ):
                assert np.abs(found - expected).max() < 1e-6, path


def write_faults() -> None:
    """Exports that mean something else than their modules: both outputs are recorded."""
    for name in ("every_step", "last_step", "bidirectional", "no_bias"):
        net, inputs = random_net(name)
        path = ONNX / f"fault_{name}.onnx"
        export(net, inputs, {"y": inputs["x"]}, path, variants(name)["dynamo"])
        as_written, meant = run(path, inputs)[0], outputs_in_float64(name, net, inputs)["y"]
        assert np.abs(as_written - meant).max() > 0.01, path
        record(path, **inputs, y=as_written, y_pytorch=meant)


def write_checkpoints() -> None:
    """State dicts as .pt in both formats and as .safetensors, and the pickled module, which holds code to run."""
    for name in (
        "every_step_head",
        "no_bias",
        "stack",
        "bidirectional",
        "bidirectional_stack",
        "dense_around",
        "tokens",
    ):
        net, inputs = random_net(name)
        record(PYTORCH / name, **inputs, **outputs_in_float64(name, net, inputs))
        write_state(net.state_dict(), name)
    net, inputs = random_net("every_step")
    record(PYTORCH / "gru", **inputs, **outputs_in_float64("every_step", net, inputs))
    write_state(net.gru.state_dict(), "gru")
    write(net.gru, "gru.module.pt")
    net, _ = random_net("every_step_head")
    write(net, "every_step_head.module.pt")
    write_unusual(net)


def write_state(state: dict[str, torch.Tensor], name: str) -> None:
    write(state, f"{name}.pt")
    legacy = PYTORCH / f"{name}.legacy.pt"  # names storages by address: written anew only if it holds something else
    if name in LEGACY and not (legacy.exists() and same(torch.load(legacy, weights_only=True), state)):
        write(state, legacy.name, _use_new_zipfile_serialization=False)
    save_file(state, PYTORCH / f"{name}.safetensors")
    report(PYTORCH / f"{name}.safetensors")


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return [*found] == [*expected] and all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def write(content: Any, name: str, **options: bool) -> None:
    torch.save(content, PYTORCH / name, **options)
    report(PYTORCH / name)


def write_unusual(net: Net) -> None:
    """Of every_step_head: a training checkpoint of a parallel module, and views into one storage."""
    state = net.state_dict()
    optimizer = torch.optim.Adam(net.parameters(), lr=0)  # has a state of its own, and leaves the weights
    net(torch.ones(1, 2, 3)).sum().backward()
    optimizer.step()
    checkpoint = {
        "epoch": 3,
        "loss": 0.25,
        "model_state_dict": {f"module.{name}": tensor for name, tensor in state.items()},
        "optimizer_state_dict": optimizer.state_dict(),
    }
    write(checkpoint, "every_step_head.checkpoint.pt")
    storage = torch.cat([tensor.t().reshape(-1) for tensor in state.values()])
    parts = storage.split([tensor.numel() for tensor in state.values()])
    views = {name: part.view(state[name].t().shape).t() for name, part in zip(state, parts, strict=True)}
    write(views, "every_step_head.views.pt")


def write_rounded() -> None:
    """State dicts of 16-bit types; the outputs are of the rounded weights."""
    for name, kind in (("half", torch.float16), ("bfloat16", torch.bfloat16)):
        net, inputs = random_net("every_step_head")
        net = net.to(kind)
        record(PYTORCH / name, **inputs, **outputs_in_float64("every_step_head", net, inputs))
        write_state(net.state_dict(), name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fault", action="store_true", help="write only tests/models/onnx/fault_*")
    for folder in (PYTORCH, ONNX):
        folder.mkdir(parents=True, exist_ok=True)
    if parser.parse_args().fault:
        write_faults()
    else:
        write_checkpoints()
        write_rounded()
        write_exports()


if __name__ == "__main__":
    main()
