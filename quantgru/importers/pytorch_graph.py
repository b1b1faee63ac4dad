"""A traced graph of `pytorch_trace`, read node by node into a `SignalChain`. What is not understood is refused by name.

Modules become layers here; functions are looked up in `pytorch_operations`, and what is done to single steps goes
through `pytorch_steps`.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import fx, nn

from quantgru.importers.chain import Chain, refuse
from quantgru.importers.pytorch_call import Call, operation
from quantgru.importers.pytorch_chain import SignalChain, want_features
from quantgru.importers.pytorch_constants import KEPT, SIZES, attribute, evaluate
from quantgru.importers.pytorch_modules import (
    ACTIVATIONS,
    IDENTITIES,
    SOFTMAXES,
    Source,
    dense_layer,
    embedding_layer,
    initial_states,
    n_states_of,
    next_step,
    normalisation,
    recurrent_layers,
    starting_at,
    starts_of,
    want_stock,
)
from quantgru.importers.pytorch_names import describe, describe_alone
from quantgru.importers.pytorch_operations import OPERATIONS, QUERIES, STATES, of_state
from quantgru.importers.pytorch_outputs import Output, find_output, with_all_before
from quantgru.importers.pytorch_signals import DIRECTIONS, LAYERS, Axis, CannotSayError, Signal, State, axis_number
from quantgru.importers.pytorch_steps import Step, Steps, is_part_of_step, of_step, steps_in, together, with_signals
from quantgru.importers.pytorch_trace import Trace
from quantgru.model import Bidirectional, Gru, Layer


class GraphReader:
    """Follows the one chain from input to output.

    After `read`: `chain`, with what is known of the input; `sources`, the modules with weights; the `output` and its
    axes; the `trace` that was read.
    """

    def __init__(self, root: nn.Module, chain: Chain, *, one_step: bool) -> None:
        self.root = root
        self.chain = SignalChain(chain, one_step)
        self.sources: list[Source] = []
        self.output: Output
        self.output_axes: tuple[Axis, ...] = ()
        self.trace: Trace
        self._steps = Steps()
        self._values: dict[fx.Node, Any] = {}
        self._needed: set[fx.Node] = set()

    def read(self, trace: Trace) -> None:
        """Raises ModelError at the first node that no canonical layer can say, and for arguments that are no states."""
        self.trace = trace
        self._refuse_tuple(trace.graph)
        self.output = find_output(trace.graph, self.root)
        self._needed = with_all_before(self.output.node)
        for node in trace.graph.nodes:
            if node.op == "placeholder":
                self._values[node] = State(str(node.target)) if self._values else self.chain.input()
            elif node in self._needed:
                self._values[node] = self._value(node)
            elif self._changes_in_place(node):
                raise refuse(describe(node, self.root), "changes a tensor in place", _in_place_next_step(node))
        used = {start.name for start in self.chain.starts if start is not None}
        if unused := set(trace.given) - used:
            raise refuse(f"argument {min(unused)!r} of {type(self.root).__name__}", "is no initial state", STATES)

    def _refuse_tuple(self, graph: fx.Graph) -> None:
        """Raises ModelError where forward() unpacks its one argument."""
        node = next(node for node in graph.nodes if node.op == "placeholder")
        places = [user.args[1] if user.target is operator.getitem else None for user in node.users]
        if 1 < len(places) < min(SIZES.values()) and sorted(places, key=str) == list(range(len(places))):
            found = f"a tuple of {len(places)}"
            raise refuse(describe(node, self.root), found, "take its parts as arguments: forward(self, x, h)")

    def _changes_in_place(self, node: fx.Node) -> bool:
        """Whether a node has an effect even if nothing reads it."""
        match node.op:
            case "call_method":
                return str(node.target).endswith("_") and node.target != "requires_grad_"
            case "call_module":
                module = self.root.get_submodule(str(node.target))
                return not isinstance(module, IDENTITIES) and bool(getattr(module, "inplace", False))
            case "call_function":
                changes = str(getattr(node.target, "__name__", "")).endswith("_")  # torch.clamp_; out= of torch.clamp
                return changes or bool(node.kwargs.get("inplace")) or node.kwargs.get("out") is not None
        return False

    def _value(self, node: fx.Node) -> Any:
        where = describe(node, self.root)
        if any(before not in self._values for before in node.all_input_nodes):  # of another trace
            raise refuse(where, "gets what an earlier call of forward() has left", KEPT)
        args, kwargs = fx.node.map_arg((node.args, dict(node.kwargs)), self._values.__getitem__)
        try:
            return self._computed(node, Call(self.chain, where, operation(node), node.name, args, kwargs))
        except CannotSayError as error:
            raise refuse(where, error.found, *error.next_step) from None

    def _computed(self, node: fx.Node, call: Call) -> Any:
        arguments = (call.args, call.kwargs)
        if node.op == "get_attr":
            if str(node.target).rpartition(".")[2] == self.trace.kept:
                raise CannotSayError("is kept from one call of forward() to the next", KEPT)
            return attribute(self.root, str(node.target))
        if node.op == "output":
            value = of_step(call.args[0])
            self._refuse_branch(node, list(_signals(value)))
            return self._finish(value)
        if node.target is operator.getitem and isinstance(call.args[0], (tuple, list)):
            if not any(True for _ in steps_in(call.args[0])):
                self._refuse_branch(node, list(_signals(call.args[0])))
            return _entry(call)
        if any(True for _ in steps_in(arguments)):
            return self._of_steps(node, call)
        if states := [value for value in (*call.args, *call.kwargs.values()) if isinstance(value, State)]:
            return self._operation(node, call) if node.op == "call_module" else of_state(call, states[0])
        if not any(True for _ in _signals(arguments)):
            return evaluate(node, self.root, call.args, call.kwargs)
        return self._operation(node, call)

    def _of_steps(self, node: fx.Node, call: Call) -> Any:
        """An operation on single steps of a loop."""
        steps = call.argument(0, "tensors")
        if call.name in QUERIES:
            return OPERATIONS[call.name](with_signals(call))
        if call.name == "stack":
            return together(steps, call.argument(1, "dim", 0), adds_axis=True)
        if call.name == "cat" and len({step.number for step in steps_in(steps)}) > 1:
            return together(steps, call.argument(1, "dim", 0), adds_axis=False)
        if self._is_cell(node):
            self.chain.want_time_axis(call.where, steps.axis)
            return self._steps.cell(node, call, self._values, lambda call: self._operation(node, call))
        return self._steps.value(node, call, self._values, lambda call: self._operation(node, call))

    def _is_cell(self, node: fx.Node) -> bool:
        return node.op == "call_module" and isinstance(self.root.get_submodule(str(node.target)), nn.GRUCell)

    def _taken_steps(self, call: Call) -> Any:
        """Steps for a loop over the steps of the input; None where this is none."""
        signal = call.argument(0, "input")
        if self.chain.one_step or not isinstance(signal, Signal):
            return None
        if not any(isinstance(part, nn.GRUCell) for part in self.root.modules()):
            return None
        dim = call.argument(1, "dim", 0)
        match call.name:
            case "getitem":
                if self.chain.time_axis < 0 and is_part_of_step(call.args[1]):
                    raise CannotSayError(
                        "takes a step and a part of it at once", "write x[:, t][:, :n] for x[:, t, :n]"
                    )
                return self._steps.take(signal, call.args[1])
            case "select":
                return self._steps.take_number(signal, axis_number(dim, len(signal.axes)), call.argument(2, "index"))
            case "unbind":
                return self._steps.take_all(signal, axis_number(dim, len(signal.axes)))
        return None

    def _operation(self, node: fx.Node, call: Call) -> Any:
        if (steps := self._taken_steps(call)) is not None:
            return steps
        if call.name in QUERIES:
            return OPERATIONS[call.name](call)
        self._refuse_branch(node, list(_signals((call.args, call.kwargs))))
        if node.op == "call_module":
            return self._module(node, call, self.root.get_submodule(str(node.target)))
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
            one = (
                "the output and then the states" if self.chain.one_step else "one tensor: of all steps or the last one"
            )
            raise refuse(where, "several tensors", f"return {one}")
        if not isinstance(value, Signal):
            raise refuse(where, "nothing that depends on the input")
        if {LAYERS, DIRECTIONS} & {label for axis in value.axes for label in axis}:
            raise refuse(where, "the final states of all layers", "return h_n[-1]")
        if self.chain.time_axis < 0:
            raise refuse(where, "no GRU layer on the way from the input")
        self.output_axes = self.chain.settled(where, value).axes

    def _module(self, node: fx.Node, call: Call, module: nn.Module) -> Any:
        signal, path = call.signal(), str(node.target)
        want_stock(call.where, module)
        match module:
            case nn.GRU() | nn.GRUCell():
                return self._recurrent(node, call, module, signal)
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

    def _recurrent(self, node: fx.Node, call: Call, module: nn.GRU | nn.GRUCell, signal: Signal) -> Any:
        """The pair that nn.GRU returns, or the state that nn.GRUCell returns."""
        if isinstance(module, nn.GRU):
            self.chain.want_steps(call.where, signal, module.batch_first)
        else:
            self.chain.want_one_step(signal)
        layers = recurrent_layers(str(node.target), module)
        self._add_source(str(node.target), module, layers)
        outputs, states = self.chain.recurrent(call.where, signal, self._starting(call, module, layers))
        return (outputs, states) if isinstance(module, nn.GRU) else outputs

    def _starting(
        self, call: Call, module: nn.GRU | nn.GRUCell, layers: tuple[Gru | Bidirectional, ...]
    ) -> tuple[Gru | Bidirectional, ...]:
        """`layers` with the initial state of the call, if it is a constant; given ones are written down."""
        hx = call.argument(1, "hx")
        n_states = n_states_of(module)
        if isinstance(hx, State):
            starts = starts_of(hx, module)
            if any(other is not None and _share(start, other) for start in starts for other in self.chain.starts):
                raise refuse(call.where, f"starts at {hx.name!r}, as another layer does", "give each a state")
            self.chain.starts += starts
            return layers
        self.chain.starts += [None] * n_states
        if hx is None:
            return layers
        if any(True for _ in _signals(hx)):
            raise refuse(call.where, "an initial state that depends on the input", "start at zero, or at a constant")
        n_sequences = SIZES[1 - self.chain.time_axis]
        return starting_at(layers, initial_states(call.where, hx, module, n_sequences))

    def _add_source(self, path: str, module: nn.Module, layers: tuple[Layer, ...]) -> None:
        source = Source(path, module, layers)
        if any(other.module is module for other in self.sources):
            raise refuse(source.where, "called twice", "give each call a module of its own")
        self.sources.append(source)


def _share(first: State, second: State) -> bool:
    """Whether two states are the same, or one is a part of the other."""
    return first.name == second.name and (first.index == second.index or None in (first.index, second.index))


def _in_place_next_step(node: fx.Node) -> str:
    """How to compute the same without a change."""
    if node.op == "call_module":
        return "leave inplace=True out, and use its result"
    name = getattr(node.target, "__name__", str(node.target)).removesuffix("_")
    if node.op == "call_method" and hasattr(torch.Tensor, name):
        return f"use its result: x = x.{name}(...)"
    return f"use its result: x = {name}(x, ...)" if node.op == "call_function" else "make a new tensor"


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
    elif isinstance(values, Step):
        yield values.signal
    elif isinstance(values, (tuple, list)):
        for value in values:
            yield from _signals(value)
    elif isinstance(values, dict):
        yield from _signals(list(values.values()))
