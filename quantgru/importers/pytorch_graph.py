"""A traced PyTorch graph, read node by node into a `Chain`. What is not understood is refused by name."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from torch import fx, nn

from quantgru.importers.chain import Chain, refuse
from quantgru.importers.pytorch_call import FUNCTIONS, Call
from quantgru.importers.pytorch_chain import SignalChain, want_features
from quantgru.importers.pytorch_constants import SIZES, attribute, evaluate
from quantgru.importers.pytorch_modules import (
    ACTIVATIONS,
    IDENTITIES,
    SOFTMAXES,
    Source,
    dense_layer,
    embedding_layer,
    initial_states,
    next_step,
    normalisation,
    recurrent_layers,
    starting_at,
    want_stock,
)
from quantgru.importers.pytorch_names import describe, describe_alone
from quantgru.importers.pytorch_operations import OPERATIONS, QUERIES
from quantgru.importers.pytorch_signals import DIRECTIONS, LAYERS, Axis, CannotSayError, Signal
from quantgru.model import Bidirectional, Gru, Layer


class GraphReader:
    """Follows the one chain from input to output.

    After `read`: `chain`, with what is known of the input; `sources`, the modules with weights; the output's axes, and
    its place if forward() returns several values.
    """

    def __init__(self, root: nn.Module, chain: Chain) -> None:
        self.root = root
        self.chain = SignalChain(chain)
        self.sources: list[Source] = []
        self.output_axes: tuple[Axis, ...] = ()
        self.output_place: Any = 0
        self._values: dict[fx.Node, Any] = {}
        self._needed: set[fx.Node] = set()

    def read(self, graph: fx.Graph) -> None:
        """Raises ModelError at the first node that no canonical layer can say."""
        self._needed = _with_all_before(self._with_one_output(graph))
        for node in graph.nodes:
            if node.op == "placeholder" and not self._values:
                self._values[node] = self.chain.input()
            elif node in self._needed:
                self._values[node] = self._value(node)
            elif self._changes_in_place(node):
                raise refuse(
                    describe(node, self.root), "changes a tensor in place", "use its result: x = x.clamp(-1, 1)"
                )

    def _changes_in_place(self, node: fx.Node) -> bool:
        """Whether a node has an effect even if nothing reads it."""
        match node.op:
            case "call_method":
                return str(node.target).endswith("_") and node.target != "requires_grad_"
            case "call_module":
                module = self.root.get_submodule(str(node.target))
                return not isinstance(module, IDENTITIES) and bool(getattr(module, "inplace", False))
        return bool(node.kwargs.get("inplace"))

    def _with_one_output(self, graph: fx.Graph) -> fx.Node:
        """The output node; of a tuple, list or dict it has the one tensor beside None and the states on its way."""
        output = next(node for node in graph.nodes if node.op == "output")
        returned: Any = output.args[0]
        if self._is_gru(returned):
            with graph.inserting_before(output):
                returned = [graph.call_function(operator.getitem, (returned, i)) for i in range(2)]
        if isinstance(returned, (tuple, list, dict)):
            places = returned.items() if isinstance(returned, dict) else enumerate(returned)
            given = {place: value for place, value in places if value is not None}
            states = {place: gru for place, value in given.items() if (gru := self._gru_of_states(value))}
            others = {place: value for place, value in given.items() if place not in states}
            if len(others) == 1 < len(given) and set(states.values()) <= _with_all_before(*others.values()):
                self.chain.chain.notes.append("the states that it returns are those of FloatModel.final_states")
                given = others
            if len(given) == 1:
                self.output_place, value = next(iter(given.items()))
                output.args = (value,)
        return output

    def _gru_of_states(self, node: Any) -> fx.Node | None:
        """The nn.GRU, if a node is the second value that it returns, or a part of it."""
        while isinstance(node, fx.Node) and node.target in (operator.getitem, "squeeze"):
            before: Any = node.args[0]
            if self._is_gru(before):
                return before if node.args[1] == 1 else None
            node = before
        return None

    def _is_gru(self, node: Any) -> bool:
        if not isinstance(node, fx.Node) or node.op != "call_module":
            return False
        return isinstance(self.root.get_submodule(str(node.target)), nn.GRU)

    def _value(self, node: fx.Node) -> Any:
        where = describe(node, self.root)
        args, kwargs = fx.node.map_arg((node.args, dict(node.kwargs)), self._values.__getitem__)
        name = str(node.target) if node.op == "call_method" else FUNCTIONS.get(node.target, "")
        try:
            return self._computed(node, Call(self.chain, where, name, node.name, args, kwargs))
        except CannotSayError as error:
            raise refuse(where, error.found, *error.next_step) from None

    def _computed(self, node: fx.Node, call: Call) -> Any:
        if node.op == "get_attr":
            return attribute(self.root, str(node.target))
        signals = list(_signals((call.args, call.kwargs)))
        if node.target is operator.getitem and isinstance(call.args[0], (tuple, list)):
            self._refuse_branch(node, signals)
            return _entry(call)
        if node.op == "output":
            self._refuse_branch(node, signals)
            return self._finish(call.args[0])
        if not signals:
            return evaluate(node, self.root, call.args, call.kwargs)
        if call.name in QUERIES:
            return OPERATIONS[call.name](call)
        self._refuse_branch(node, signals)
        if node.op == "call_module":
            return self._module(call, str(node.target), self.root.get_submodule(str(node.target)))
        if call.name not in OPERATIONS:
            raise CannotSayError("this operation is not supported here")
        return OPERATIONS[call.name](call)

    def _refuse_branch(self, node: fx.Node, signals: list[Signal]) -> None:
        """Raises ModelError where a tensor is read that a layer has read before."""
        if all(signal.position == self.chain.position for signal in signals):
            return
        at = next(value for value in node.all_input_nodes if self._is_stale(value))
        while len(self._readers(at)) < 2 and (before := [n for n in at.all_input_nodes if self._carries(n)]):
            at = before[0]
        readers = self._readers(at)
        found = " and ".join(describe_alone(reader, self.root) for reader in readers)
        raise refuse(describe(at, self.root), f"its result is used {len(readers)} times, by {found}")

    def _is_stale(self, node: fx.Node) -> bool:
        return any(signal.position != self.chain.position for signal in _signals(self._values[node]))

    def _carries(self, node: fx.Node) -> bool:
        """Whether a node gives signals, or was not reached yet."""
        return node not in self._values or any(True for _ in _signals(self._values[node]))

    def _readers(self, node: fx.Node) -> list[fx.Node]:
        return [user for user in node.users if user in self._needed and self._carries(user)]

    def _finish(self, value: Any) -> None:
        where = f"output of {type(self.root).__name__}"
        if isinstance(value, (tuple, list, dict)):
            raise refuse(where, "several tensors", "return one tensor: that of all steps or of the last step")
        if not isinstance(value, Signal):
            raise refuse(where, "nothing that depends on the input")
        if {LAYERS, DIRECTIONS} & {label for axis in value.axes for label in axis}:
            raise refuse(where, "the final states of all layers", "return h_n[-1]")
        if self.chain.time_axis < 0:
            raise refuse(where, "no GRU layer on the way from the input")
        self.output_axes = self.chain.settled(where, value).axes

    def _module(self, call: Call, path: str, module: nn.Module) -> Any:
        signal = call.signal()
        want_stock(call.where, module)
        match module:
            case nn.GRU():
                return self._gru(call, path, module, signal)
            case nn.Embedding():
                embedding = embedding_layer(path, module)
                self._add_source(path, module, (embedding,))
                return self.chain.embedding(call.where, signal, embedding)
            case nn.Linear():
                dense = dense_layer(path, module)
                self._add_source(path, module, (dense,))
                return self.chain.dense(call.where, signal, dense)
            case nn.BatchNorm1d():
                want_features(signal, 1, "normalises axis 1, which are not the features")
                return signal.scaled(*normalisation(path, module))
            case nn.Flatten():
                return OPERATIONS["flatten"](replace(call, args=(signal, module.start_dim, module.end_dim)))
        if isinstance(module, IDENTITIES):
            return signal
        if type(module) in ACTIVATIONS:
            return self.chain.activation(call.where, signal, ACTIVATIONS[type(module)])
        if type(module) in SOFTMAXES:
            return self.chain.softmax(call.where, signal, SOFTMAXES[type(module)], module.dim)
        raise refuse(call.where, "this module is not supported", next_step(module))

    def _gru(self, call: Call, path: str, module: nn.GRU, signal: Signal) -> tuple[Signal, Signal]:
        """The pair that nn.GRU returns."""
        self.chain.want_steps(call.where, signal, module.batch_first)
        layers = recurrent_layers(path, module)
        self._add_source(path, module, layers)
        return self.chain.recurrent(call.where, signal, self._with_initial_states(call, module, layers))

    def _with_initial_states(
        self, call: Call, module: nn.GRU, layers: tuple[Gru | Bidirectional, ...]
    ) -> tuple[Gru | Bidirectional, ...]:
        hx = call.argument(1, "hx")
        if hx is None:
            return layers
        if any(True for _ in _signals(hx)):
            raise refuse(call.where, "an initial state that depends on the input", "start at zero, or at a constant")
        n_states = module.num_layers * (1 + module.bidirectional)
        n_sequences = SIZES[1 - self.chain.time_axis]
        return starting_at(layers, initial_states(call.where, hx, (n_states, n_sequences, module.hidden_size)))

    def _add_source(self, path: str, module: nn.Module, layers: tuple[Layer, ...]) -> None:
        source = Source(path, module, layers)
        if any(other.module is module for other in self.sources):
            raise refuse(source.where, "called twice", "give each call a module of its own")
        self.sources.append(source)


def _entry(call: Call) -> Any:
    """One of several values."""
    values, index = call.args[0], call.argument(1, "")
    if type(index) is int and -len(values) <= index < len(values):
        return values[index]
    raise CannotSayError("does not take one tensor of several", "take out or h_n")


def _signals(values: Any) -> Iterator[Signal]:
    """All signals in a value."""
    if isinstance(values, Signal):
        yield values
    elif isinstance(values, (tuple, list)):
        for value in values:
            yield from _signals(value)
    elif isinstance(values, dict):
        yield from _signals(list(values.values()))


def _with_all_before(*nodes: fx.Node) -> set[fx.Node]:
    """These nodes and all that they depend on."""
    pending = list(nodes)
    found = set(nodes)
    while pending:
        before = [node for node in pending.pop().all_input_nodes if node not in found]
        found.update(before)
        pending += before
    return found
