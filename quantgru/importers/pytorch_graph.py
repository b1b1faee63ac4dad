"""A traced PyTorch graph, read node by node into a `Chain`. What is not understood is refused by name."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import fx, nn
from torch.nn import functional

from quantgru.importers.chain import Chain, refuse
from quantgru.importers.gates import PYTORCH_ORDER, finite, stacked_gru
from quantgru.model import Dense, Gru, Layer

FULL: Final = slice(None)

# The names under which `GraphReader` knows functions and methods: those of the tensor methods.
FUNCTIONS: Final[dict[Any, str]] = {
    operator.getitem: "getitem",
    torch.relu: "relu",
    functional.relu: "relu",
    torch.sigmoid: "sigmoid",
    functional.sigmoid: "sigmoid",
    torch.tanh: "tanh",
    functional.tanh: "tanh",
    torch.softmax: "softmax",
    functional.softmax: "softmax",
    torch.log_softmax: "log_softmax",
    functional.log_softmax: "log_softmax",
    torch.select: "select",
    torch.squeeze: "squeeze",
    torch.transpose: "transpose",
    torch.swapaxes: "transpose",
    torch.permute: "permute",
    functional.dropout: "dropout",
}
ACTIVATIONS: Final[dict[type[nn.Module], str]] = {nn.ReLU: "relu", nn.Sigmoid: "sigmoid", nn.Tanh: "tanh"}
SOFTMAXES: Final[dict[type[nn.Module], str]] = {nn.Softmax: "softmax", nn.LogSoftmax: "log_softmax"}
IDENTITIES: Final = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout, nn.FeatureAlphaDropout)


@dataclass(frozen=True)
class Steps:
    """A tensor of all steps; `flipped` says whether steps and batch have changed places since the input."""

    flipped: bool = False


@dataclass(frozen=True)
class GruResult:
    """The pair that nn.GRU returns."""

    steps: Steps
    n_layers: int


@dataclass(frozen=True)
class FinalStates:
    """h_n [layers, batch, units]."""

    n_layers: int


@dataclass(frozen=True)
class LastStep:
    """[batch, features]"""


Value = Steps | GruResult | FinalStates | LastStep


@dataclass(frozen=True)
class Source:
    """A module of the user's and the layers made of it, to be compared one with the other."""

    path: str
    module: nn.Module
    layers: tuple[Layer, ...]

    @property
    def where(self) -> str:
        return f"module {self.path!r} ({type(self.module).__name__})"


def gru_layers(path: str, module: nn.GRU) -> tuple[Gru, ...]:
    """One canonical layer for each layer of an nn.GRU; rows are stacked r, z, n, reset after the product."""
    where = f"module {path!r} ({type(module).__name__})"
    if module.bidirectional:
        raise refuse(where, "bidirectional=True", "train it with bidirectional=False: a device sees no future steps")
    layers = []
    for k in range(module.num_layers):
        weights = [_parameter(where, module, f"{kind}_l{k}") for kind in ("weight_ih", "weight_hh")]
        biases = [np.zeros(3 * module.hidden_size)] * 2
        if module.bias:
            biases = [_parameter(where, module, f"{kind}_l{k}") for kind in ("bias_ih", "bias_hh")]
        name = path if module.num_layers == 1 else f"{path}.{k}"
        layers.append(stacked_gru(name, "after", PYTORCH_ORDER, (weights[0], weights[1]), (biases[0], biases[1])))
    return tuple(layers)


def dense_layer(path: str, module: nn.Linear) -> Dense:
    where = f"module {path!r} ({type(module).__name__})"
    weights = _parameter(where, module, "weight")
    bias = np.zeros(len(weights)) if module.bias is None else _parameter(where, module, "bias")
    return Dense(path, weights, bias)


def _parameter(where: str, module: nn.Module, name: str) -> Any:
    return finite(where, name, getattr(module, name).detach().numpy())


class GraphReader:
    """Follows the one chain from input to output.

    After `read`: `chain`; `sources`, the modules with weights; the axis of the steps in the module's input and output.
    """

    def __init__(self, root: nn.Module, chain: Chain) -> None:
        self.root = root
        self.chain = chain
        self.sources: list[Source] = []
        self.input_time_axis = -1  # unknown until the first GRU says it
        self.output_time_axis = -1
        self._values: dict[fx.Node, Value] = {}

    def read(self, graph: fx.Graph) -> None:
        """Raises ModelError at the first node that no canonical layer can say."""
        needed = _needed(graph)
        for node in graph.nodes:
            if node.op == "placeholder" and not self._values:
                self._values[node] = Steps()
            elif node in needed and not _asks_shape(node) and any(n in self._values for n in node.all_input_nodes):
                self._refuse_branch(node, needed)
                self._follow(node)

    def _follow(self, node: fx.Node) -> None:
        value = self._values.get(node.args[0]) if node.args else None
        where = _describe(node, self.root)
        if node.op == "output":
            self._finish(node, value)
        elif value is None:
            raise refuse(where, "this operation is not supported here")
        elif node.op == "call_module":
            module = self.root.get_submodule(str(node.target))
            self._values[node] = self._module(where, node, module, value)
        else:
            name = str(node.target) if node.op == "call_method" else FUNCTIONS.get(node.target, "")
            self._values[node] = self._operation(where, name, node, value)

    def _refuse_branch(self, node: fx.Node, needed: set[fx.Node]) -> None:
        for before in node.all_input_nodes:
            users = [user for user in before.users if user in needed and not _asks_shape(user)]
            if before in self._values and len(users) > 1:
                found = " and ".join(_describe_alone(user, self.root) for user in users)
                raise refuse(_describe(before, self.root), f"its result is used {len(users)} times, by {found}")

    def _finish(self, node: fx.Node, value: Value | None) -> None:
        where = f"output of {type(self.root).__name__}"
        if value is None or isinstance(value, GruResult):
            raise refuse(where, "several tensors", "return one tensor: that of all steps or of the last step")
        if isinstance(value, FinalStates):
            raise refuse(where, "the final states of all layers", "return h_n[-1]")
        if self.input_time_axis < 0:
            raise refuse(where, "no GRU layer on the way from the input")
        if isinstance(value, Steps):
            self.output_time_axis = self._time_axis(value)

    def _module(self, where: str, node: fx.Node, module: nn.Module, value: Value) -> Value:
        if isinstance(module, IDENTITIES):
            return value
        if isinstance(module, nn.GRU):
            return self._gru(where, node, module, value)
        _want_features(where, value)
        if isinstance(module, nn.Linear):
            dense = dense_layer(str(node.target), module)
            self._add_source(node, module, (dense,))
            self.chain.add_dense(where, dense)
        elif type(module) in ACTIVATIONS:
            self.chain.add_activation(where, ACTIVATIONS[type(module)])
        elif type(module) in SOFTMAXES:
            self._softmax(where, SOFTMAXES[type(module)], module.dim, value)
        else:
            raise refuse(where, "this module is not supported")
        return value

    def _gru(self, where: str, node: fx.Node, module: nn.GRU, value: Value) -> Value:
        if _argument(node, 1, "hx") is not None:
            raise refuse(where, "an initial state", "call it with the input alone: the state starts at zero")
        if isinstance(value, LastStep):
            raise refuse(where, "a GRU layer after the last step was taken")
        if not isinstance(value, Steps):
            raise refuse(
                where, "a GRU layer on h_n or on a pair", "give it the first value that the GRU before it returns"
            )
        axis = 1 if module.batch_first else 0
        if self.input_time_axis < 0:
            self.input_time_axis = axis ^ value.flipped
        if self._time_axis(value) != axis:
            raise refuse(
                where, f"batch_first={module.batch_first} takes the batch for the steps", "transpose before it"
            )
        layers = gru_layers(str(node.target), module)
        self._add_source(node, module, layers)
        self.chain.add_recurrent(where, layers)
        return GruResult(value, module.num_layers)

    def _add_source(self, node: fx.Node, module: nn.Module, layers: tuple[Layer, ...]) -> None:
        source = Source(str(node.target), module, layers)
        if any(other.module is module for other in self.sources):
            raise refuse(source.where, "called twice", "give each call a module of its own")
        self.sources.append(source)

    def _operation(self, where: str, name: str, node: fx.Node, value: Value) -> Value:
        match name:
            case "relu" | "sigmoid" | "tanh":
                _want_features(where, value)
                self.chain.add_activation(where, name)
                return value
            case "softmax" | "log_softmax":
                _want_features(where, value)
                self._softmax(where, name, _argument(node, 1, "dim"), value)
                return value
            case "contiguous" | "detach":
                return value
            case "dropout" if node.kwargs.get("training") is False:
                return value
            case "getitem":
                return self._index(where, node.args[1], value)
            case "select":
                return self._index(where, _at_axis(_argument(node, 1, "dim"), _argument(node, 2, "index")), value)
            case "squeeze" if isinstance(value, FinalStates) and _argument(node, 1, "dim") == 0 and value.n_layers == 1:
                return self._last()
            case "transpose" | "swapaxes" | "permute" if isinstance(value, Steps):
                return self._flip(where, name, node, value)
        raise refuse(where, "this operation is not supported here")

    def _index(self, where: str, index: Any, value: Value) -> Value:
        if isinstance(value, GruResult) and index in (0, -2):
            return value.steps
        if isinstance(value, GruResult) and index in (1, -1):
            return FinalStates(value.n_layers)
        rank = 2 if isinstance(value, LastStep) else 3
        full_index = _expand(index, rank)
        if full_index == (FULL,) * rank:
            return value
        if isinstance(value, FinalStates) and full_index in [(i, FULL, FULL) for i in (-1, value.n_layers - 1)]:
            return self._last()
        if isinstance(value, Steps) and self.input_time_axis >= 0:
            expected: list[Any] = [FULL] * 3
            expected[self._time_axis(value)] = -1
            if full_index == tuple(expected):
                return self._last()
        raise refuse(
            where,
            "does not take the last step",
            "take it with out[:, -1] (batch_first=True), out[-1] (batch_first=False) or h_n[-1]",
        )

    def _last(self) -> Value:
        self.chain.take_last_step()
        return LastStep()

    def _flip(self, where: str, name: str, node: fx.Node, value: Steps) -> Value:
        if name == "permute":
            axes = _argument(node, 1, "dims")
            order = tuple(map(_positive, node.args[1:] if isinstance(axes, int) else axes))
        else:
            pair = {_positive(_argument(node, 1, "dim0")), _positive(_argument(node, 2, "dim1"))}
            order = (1, 0, 2) if pair == {0, 1} else ()
        if order not in ((0, 1, 2), (1, 0, 2)):
            raise refuse(where, "moves the features", "exchange only steps and batch: transpose(0, 1)")
        return Steps(value.flipped ^ (order == (1, 0, 2)))

    def _softmax(self, where: str, kind: str, dim: Any, value: Value) -> None:
        last = 1 if isinstance(value, LastStep) else 2
        self.chain.add_softmax(where, kind, None if dim in (-1, last) else str(dim))

    def _time_axis(self, value: Steps) -> int:
        return self.input_time_axis ^ value.flipped


def _needed(graph: fx.Graph) -> set[fx.Node]:
    """The nodes that the output depends on, the output included."""
    pending = [node for node in graph.nodes if node.op == "output"]
    needed = set(pending)
    while pending:
        before = [node for node in pending.pop().all_input_nodes if node not in needed]
        needed.update(before)
        pending += before
    return needed


def _asks_shape(node: fx.Node) -> bool:
    """Whether a node asks for sizes, device or type. What is then made of them is refused where it enters the chain."""
    return (node.op == "call_method" and node.target in ("size", "dim")) or node.target is getattr


def _describe(node: fx.Node, root: nn.Module) -> str:
    """What the user wrote, and after which module, since functions have no names of their own."""
    description, before = _describe_alone(node, root), node
    while before.op in ("call_function", "call_method") and before.all_input_nodes:
        before = before.all_input_nodes[0]
        if before.op == "call_module":
            return f"{description} after {_describe_alone(before, root)}"
    return description


def _describe_alone(node: fx.Node, root: nn.Module) -> str:
    match node.op:
        case "call_module":
            return f"module {str(node.target)!r} ({type(root.get_submodule(str(node.target))).__name__})"
        case "placeholder":
            return f"input {node.name!r}"
        case "output":
            return f"output of {type(root).__name__}"
        case "call_method":
            return f"method {str(node.target)!r}"
    if node.target is operator.getitem:
        return f"index {_show(node.args[1])}"
    return f"function {getattr(node.target, '__name__', str(node.target))!r}"


def _want_features(where: str, value: Value) -> None:
    if isinstance(value, FinalStates):
        raise refuse(where, "gets the final states of all layers", "give it h_n[-1]")
    if isinstance(value, GruResult):
        raise refuse(where, "gets the pair that nn.GRU returns", "give it out or h_n[-1]")


def _argument(node: fx.Node, position: int, name: str) -> Any:
    return node.args[position] if len(node.args) > position else node.kwargs.get(name)


def _positive(axis: Any) -> Any:
    return axis + 3 if isinstance(axis, int) and axis < 0 else axis


def _at_axis(axis: Any, index: Any) -> tuple[Any, ...]:
    """The index that select(axis, index) takes of a tensor of rank 3."""
    full_index: list[Any] = [FULL] * 3
    if _positive(axis) in (0, 1, 2):
        full_index[_positive(axis)] = index
    return tuple(full_index)


def _expand(index: Any, rank: int) -> tuple[Any, ...]:
    """An index as a tuple of `rank` entries, without an ellipsis."""
    entries = index if isinstance(index, tuple) else (index,)
    missing = rank - len(entries)
    if any(entry is Ellipsis for entry in entries):
        at = next(i for i, entry in enumerate(entries) if entry is Ellipsis)
        return (*entries[:at], *[FULL] * (missing + 1), *entries[at + 1 :])
    return (*entries, *[FULL] * missing)


def _show(index: Any) -> str:
    def show(entry: Any) -> str:
        if not isinstance(entry, slice):
            return "..." if entry is Ellipsis else str(entry)
        return ":".join("" if part is None else str(part) for part in (entry.start, entry.stop))

    return f"[{', '.join(map(show, index if isinstance(index, tuple) else (index,)))}]"
