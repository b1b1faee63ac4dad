"""What a traced forward() returns, for `pytorch_graph`: the one output, beside None and the states on its way."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import fx, nn

KEEPING: Final = ("squeeze", "unsqueeze", "detach", "contiguous", "clone")  # methods that leave a state what it is
JOINING: Final = (torch.stack, torch.cat)


@dataclass(frozen=True)
class Output:
    """node    the output node of the graph, with the one tensor as its argument, if there is one
    place   where the tensor is in what forward() returns
    states  calls of nn.GRU and nn.GRUCell whose states are returned, in order
    dropped whether there were such beside the tensor
    """

    node: fx.Node
    place: Any
    states: tuple[fx.Node, ...]
    dropped: bool


def find_output(graph: fx.Graph, root: nn.Module) -> Output:
    """The output of a graph, whose node is changed to have one tensor, if it is only one beside None and states."""
    output = next(node for node in graph.nodes if node.op == "output")
    returned: Any = output.args[0]
    if _is_module(returned, root, nn.GRU):
        with graph.inserting_before(output):
            returned = [graph.call_function(operator.getitem, (returned, i)) for i in range(2)]
    if not isinstance(returned, (tuple, list, dict)):
        return Output(output, 0, _states(returned, root), dropped=False)
    places = returned.items() if isinstance(returned, dict) else enumerate(returned)
    given = {place: value for place, value in places if value is not None}
    states = {place: found for place, value in given.items() if (found := _states(value, root))}
    others = {place: value for place, value in given.items() if place not in states}
    found = tuple(node for nodes in states.values() for node in nodes)
    dropped = len(others) == 1 < len(given) and set(found) <= with_all_before(*others.values())
    given = others if dropped else given
    place: Any = 0
    if len(given) == 1:
        place, value = next(iter(given.items()))
        output.args = (value,)
    return Output(output, place, found, dropped)


def with_all_before(*nodes: fx.Node) -> set[fx.Node]:
    """These nodes and all that they depend on."""
    pending = [node for node in nodes if isinstance(node, fx.Node)]
    found = set(pending)
    while pending:
        before = [node for node in pending.pop().all_input_nodes if node not in found]
        found.update(before)
        pending += before
    return found


def _states(node: Any, root: nn.Module) -> tuple[fx.Node, ...]:
    """The calls whose states a value is: an nn.GRU's second result or a part of it, an nn.GRUCell's result."""
    if not isinstance(node, fx.Node):
        return ()
    if _is_module(node, root, nn.GRUCell):
        return (node,)
    if node.target in JOINING and isinstance(node.args[0], (tuple, list)):
        found = [_states(part, root) for part in node.args[0]]
        joined = tuple(call for calls in found for call in calls)
        different = len({call.target for call in joined}) == len(joined)  # not the steps of one
        return joined if all(found) and different else ()
    if node.target in KEEPING:
        return _states(node.args[0], root)
    while node.target is operator.getitem:
        before: Any = node.args[0]
        if _is_module(before, root, nn.GRU):
            return (before,) if node.args[1] == 1 else ()
        node = before
        while node.target in KEEPING:
            node = node.args[0]
    return ()


def _is_module(node: Any, root: nn.Module, kind: type[nn.Module]) -> bool:
    if not isinstance(node, fx.Node) or node.op != "call_module":
        return False
    return isinstance(root.get_submodule(str(node.target)), kind)
