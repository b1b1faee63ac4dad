"""Modules of PyTorch, one for each structure of docs/sources.md: live, as state dicts, and exported to ONNX.

An nn.GRU has sigmoid and tanh. State dicts may come of layers with other functions, which the chain then says: their
outputs are those of `FunctionGru`, the same layer written out with functions of torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors.torch import save_file
from support_cases import (
    INPUTS,
    SEQUENCES,
    TOKENS,
    UNITS,
    Functions,
    Made,
    generator_of,
    ragged_x,
    random_tokens,
    random_weights,
    random_x,
)
from torch import nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence, pad_packed_sequence

Tensor = torch.Tensor

GATES: Final = {"sigmoid": torch.sigmoid, "hard_sigmoid": functional.hardsigmoid}
CANDIDATES: Final = {
    "tanh": torch.tanh,
    "relu": functional.relu,
    "linear": lambda a: a,
    "sigmoid": torch.sigmoid,
    "hard_tanh": functional.hardtanh,
}
ACTIVATIONS: Final = {"linear": lambda a: a, "relu": torch.relu, "sigmoid": torch.sigmoid, "tanh": torch.tanh}


class FunctionGru(nn.GRU):
    """nn.GRU with batch_first=True and functions of its own, one step after the other."""

    functions: Functions

    def forward(self, x: Any, hx: Tensor | None = None) -> Any:
        if isinstance(x, nn.utils.rnn.PackedSequence):
            return self._packed(x)
        finals: list[Tensor] = []
        for layer in range(self.num_layers):
            outputs = []
            for suffix in ("", "_reverse")[: 1 + self.bidirectional]:
                h = x.new_zeros(len(x), self.hidden_size) if hx is None else hx[len(finals)]
                states = self._states(x.flip(1) if suffix else x, h, f"_l{layer}{suffix}")
                finals.append(states[:, -1])
                outputs.append(states.flip(1) if suffix else states)
            x = torch.cat(outputs, dim=2)
        return x, torch.stack(finals)

    def _states(self, x: Tensor, h: Tensor, name: str) -> Tensor:
        gate, candidate = GATES[self.functions.gate], CANDIDATES[self.functions.candidate]
        states = []
        for step in x.unbind(1):
            from_x = functional.linear(step, getattr(self, f"weight_ih{name}"), getattr(self, f"bias_ih{name}", None))
            from_h = functional.linear(h, getattr(self, f"weight_hh{name}"), getattr(self, f"bias_hh{name}", None))
            (r_x, z_x, n_x), (r_h, z_h, n_h) = from_x.chunk(3, 1), from_h.chunk(3, 1)
            r, z = gate(r_x + r_h), gate(z_x + z_h)
            h = (1 - z) * candidate(n_x + r * n_h) + z * h
            states.append(h)
        return torch.stack(states, dim=1)

    def _packed(self, x: Any) -> Any:
        padded, lengths = pad_packed_sequence(x, batch_first=True)
        rows = [self(padded[i : i + 1, :length])[0][0] for i, length in enumerate(lengths)]
        return pack_sequence(rows, enforce_sorted=True), None


def gru(functions: Functions, inputs: int = INPUTS, units: int = UNITS, **options: Any) -> nn.GRU:
    options = dict(bias=functions.bias != "no", batch_first=True) | options
    if functions[:2] == ("sigmoid", "tanh"):
        return nn.GRU(inputs, units, **options)
    layer = FunctionGru(inputs, units, **options)
    layer.functions = functions
    return layer


class Net(nn.Module):
    """Parts of the names that people give, and a forward pass over them."""

    def __init__(self, forward: Callable[..., Any], activation: str, **parts: Any):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.forward_pass = forward
        self.activate = ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Any:
        return self.forward_pass(self, x)


class NetWithState(Net):
    def forward(self, x: Tensor, hidden: Tensor | None = None) -> Any:
        return self.forward_pass(self, x, hidden)


class NetWithLengths(Net):
    def forward(self, x: Tensor, lengths: Tensor) -> Any:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=True)
        return pad_packed_sequence(self.gru(packed)[0], batch_first=True)[0]


# ---- structures ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Structure:
    """make   the module
    chain  what a file of its weights does not say; {f} stands for the functions in brackets, {a} for the activation
    """

    make: Callable[[Functions], nn.Module]
    chain: str = "gru{f}"


def _only_gru(forward: Callable[..., Any], kind: type[Net] = Net, **options: Any) -> Callable[[Functions], nn.Module]:
    return lambda functions: kind(forward, "linear", gru=gru(functions, **options))


def _every_step(functions: Functions) -> nn.Module:
    return functions.choose(gru(functions), _only_gru(lambda net, x: net.gru(x)[0])(functions))


def _last_step(functions: Functions) -> nn.Module:
    forward = functions.choose(
        lambda net, x: net.gru(x)[0][:, -1], lambda net, x: net.gru(x)[1][-1], lambda net, x: net.gru(x)[0][..., -1, :]
    )
    return _only_gru(forward)(functions)


def _stack(functions: Functions) -> nn.Module:
    first, second = gru(functions, units=2), gru(functions, 2)
    return Net(lambda net, x: net.second(net.first(x)[0])[0], "linear", first=first, second=second)


def _merged(merge: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Functions], nn.Module]:
    def forward(net: Net, x: Tensor) -> Tensor:
        y = net.gru(x)[0]
        return merge(y[..., :UNITS], y[..., UNITS:])

    return _only_gru(forward, bidirectional=True)


def _both_final(net: Net, x: Tensor) -> Tensor:
    states = net.gru(x)[1]
    return torch.cat((states[-2], states[-1]), dim=1)


def _normalised(functions: Functions) -> nn.Module:
    norm = nn.BatchNorm1d(INPUTS)
    forward = lambda net, x: net.gru(net.norm(x.transpose(1, 2)).transpose(1, 2))[0]  # noqa: E731
    return Net(forward, "linear", norm=norm, gru=gru(functions))


def _dense_before(functions: Functions) -> nn.Module:
    parts = dict(before=nn.Linear(INPUTS, 3), gru=gru(functions, 3))
    return Net(lambda net, x: net.gru(net.activate(net.before(x)))[0], functions.dense_activation, **parts)


def _dense_between(functions: Functions) -> nn.Module:
    def forward(net: Net, x: Tensor) -> Tensor:
        return net.second(net.activate(net.between(net.first(x)[0])))[0]

    parts = dict(first=gru(functions), between=nn.Linear(UNITS, 2), second=gru(functions, 2))
    return Net(forward, functions.dense_activation, **parts)


def _dense_after(functions: Functions) -> nn.Module:
    parts = dict(gru=gru(functions), head=nn.Linear(UNITS, 2))
    return Net(lambda net, x: net.activate(net.head(net.gru(x)[0])), functions.dense_activation, **parts)


def _embedded(functions: Functions) -> nn.Module:
    parts = dict(embedding=nn.Embedding(TOKENS, INPUTS), gru=gru(functions))
    return Net(lambda net, x: net.gru(net.embedding(x))[0], "linear", **parts)


def _starting(functions: Functions) -> nn.Module:
    def forward(net: Net, x: Tensor) -> Tensor:
        return net.gru(x, net.start.expand(-1, x.shape[0], -1).contiguous())[0]

    return Net(forward, "linear", gru=gru(functions), start=nn.Parameter(torch.zeros(1, 1, UNITS)))


STRUCTURES: Final[dict[str, Structure]] = {
    "every step": Structure(_every_step),
    "last step": Structure(_last_step, "gru{f} last"),
    "stack": Structure(_stack, "first{f} second{f}"),
    "bidirectional, concat": Structure(_only_gru(lambda net, x: net.gru(x)[0], bidirectional=True)),
    "bidirectional, sum": Structure(_merged(lambda f, b: f + b), "gru{sum}"),
    "bidirectional, mul": Structure(_merged(lambda f, b: f * b), "gru{mul}"),
    "bidirectional, ave": Structure(_merged(lambda f, b: (f + b) / 2), "gru{ave}"),
    "final states of both directions": Structure(_only_gru(_both_final, bidirectional=True), "gru{f} final"),
    "backwards": Structure(_only_gru(lambda net, x: net.gru(x.flip(1))[0]), "reverse gru{f}"),
    "dense before": Structure(_dense_before, "before{a} gru{f}"),
    "dense between": Structure(_dense_between, "first{f} between{a} second{f}"),
    "dense after": Structure(_dense_after, "gru{f} head{a}"),
    "embedding": Structure(_embedded, "embedding(embedding) gru{f}"),
    "normalisation": Structure(_normalised, "norm gru{f}"),
    "constant initial state": Structure(_starting),
    "given initial state": Structure(_only_gru(lambda net, x, h: net.gru(x, h)[0], NetWithState)),
    "streaming": Structure(_only_gru(lambda net, x, h: net.gru(x, h), NetWithState)),
    "unequal lengths": Structure(_only_gru(lambda net, x: net.gru(x)[0])),
    "lengths as an input": Structure(_only_gru(lambda net, x: None, NetWithLengths)),
}


def module_of(structure: str, functions: Functions) -> nn.Module:
    """With random weights, in float64."""
    module = STRUCTURES[structure].make(functions)
    generator = generator_of(structure, functions)
    with torch.no_grad():
        for values in (*module.parameters(), *module.buffers()):
            if values.is_floating_point():
                values.copy_(torch.from_numpy(random_weights(generator, tuple(values.shape))))
        for name, values in module.named_buffers():
            if name.endswith("running_var"):
                values.copy_(values.abs() + 0.25)
    return module.double().eval()


# ---- what comes out ------------------------------------------------------------------------------------------------


def run(structure: str, functions: Functions, module: nn.Module) -> Made:
    """What a module is given and what it gives, still without forms."""
    generator = generator_of(f"x {structure}", functions)
    x = random_x(generator)
    match structure:
        case "embedding":
            tokens = random_tokens(generator)
            return Made((), tokens[..., None], _call(module, tokens)[0])
        case "given initial state":
            h = random_weights(generator, (SEQUENCES, UNITS))
            return Made((), x, _call(module, x, h[None])[0], run_options={"initial_states": [h]})
        case "streaming":
            first, h = _call(module, x[:, :2])
            second, _ = _call(module, x[:, 2:], h)
            return Made((), x, np.concatenate((first, second), axis=1), goes_on=True)
        case "unequal lengths" | "lengths as an input":
            return _run_packed(module, ragged_x(generator))
    return Made((), x, _call(module, x)[0])


def _call(module: nn.Module, *inputs: np.ndarray) -> list[np.ndarray]:
    with torch.no_grad():
        outputs = module(*map(torch.from_numpy, inputs))
    return [output.numpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,))]


def _run_packed(module: nn.Module, x: list[np.ndarray]) -> Made:
    packed = pack_sequence([torch.from_numpy(rows) for rows in x], enforce_sorted=True)
    with torch.no_grad():
        padded = pad_packed_sequence(module.gru(packed)[0], batch_first=True)[0].numpy()
    return Made((), x, [rows[: len(given)] for rows, given in zip(padded, x, strict=True)])


# ---- sources -------------------------------------------------------------------------------------------------------


def live(structure: str, functions: Functions, folder: Path) -> Made:
    module = module_of(structure, functions)
    return replace(run(structure, functions, module), forms=(module,))


def state_dict(structure: str, functions: Functions, folder: Path) -> Made:
    """As .pt, as .safetensors, and as a mapping."""
    module = module_of(structure, functions)
    state = module.state_dict()
    torch.save(state, folder / "model.pt")
    save_file(state, folder / "model.safetensors")
    forms = (folder / "model.pt", folder / "model.safetensors", state)
    options = {"chain": chain_of(structure, functions)}
    return replace(run(structure, functions, module), forms=forms, options=options)


def chain_of(structure: str, functions: Functions) -> str:
    """The default functions are said, or not."""
    said = f"{functions.gate}, {functions.candidate}"
    default = functions[:2] == ("sigmoid", "tanh") and functions.choose(True, False)
    text = STRUCTURES[structure].chain
    text = text.replace("{f}", "" if default else f"({said})")
    for merge in ("sum", "mul", "ave"):
        text = text.replace(f"{{{merge}}}", f"({merge})" if default else f"({said}, {merge})")
    activation = functions.dense_activation
    return text.replace("{a}", "" if activation == "linear" else f" {activation}")
