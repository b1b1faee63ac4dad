"""What a traced forward() returns, for `pytorch_graph`: the one output, beside None and the states on its way."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import fx, nn
from torch.nn import functional

from quantgru.importers.pytorch_modules import IDENTITIES

# Methods and functions that leave a state what it is; in evaluation a dropout does.
STATE_KEEPING: Final = ("squeeze", "unsqueeze", "detach", "contiguous", "clone", functional.dropout, torch.dropout)
JOINING: Final = (torch.stack, torch.cat)


@dataclass(frozen=True)
class Output:
    """node    the output node of the graph, with the one tensor as its argument, if there is one
    place   where the tensor is in what forward() returns
    states  where states are in it, in order, which may be this place, too
    """

    node: fx.Node
    place: Any
    states: tuple[Any, ...]


def find_output(graph: fx.Graph, root: nn.Module) -> Output:
    """The output of a graph, whose node is changed to have one tensor, if it is only one beside None and states."""
    output = next(node for node in graph.nodes if node.op == "output")
    returned: Any = output.args[0]
    if isinstance(returned, fx.Node) and hasattr(returned.target, "_fields"):  # a named tuple
        returned = returned.args
    if _is_module(returned, root, nn.GRU):
        with graph.inserting_before(output):
            returned = [graph.call_function(operator.getitem, (returned, i)) for i in range(2)]
    places: Any = returned.items() if isinstance(returned, dict) else enumerate(returned) if _several(returned) else ()
    given = {place: value for place, value in places if value is not None} or {0: returned}
    states = {place: found for place, value in given.items() if (found := _states(value, root))}
    first = next((place for place in given if place not in states), next(iter(given)))  # of states alone, the first
    others = states.keys() - {first}
    calls = {call for place in others for call in states[place]}
    if len(given) > 1 + len(others) or not calls <= with_all_before(given[first]):
        return Output(output, 0, ())
    output.args = (given[first],)
    return Output(output, first, tuple(place for place in states if place in others or len(given) == 1))


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
    """The calls whose states a value is: an nn.GRU's second result or a part of it, an nn.GRUCell's result.

    In which order, and whether they are changed, the comparison with the import finds.
    """
    if _several(node):
        found = [_states(part, root) for part in node]
        joined = tuple(call for calls in found for call in calls)
        different = len({call.target for call in joined}) == len(joined)  # not the steps of one
        return joined if all(found) and different else ()
    if not isinstance(node, fx.Node):
        return ()
    if _is_module(node, root, nn.GRUCell):
        return (node,)
    if node.target in JOINING and _several(node.args[0]):
        return _states(node.args[0], root)
    if _keeps_state(node, root):
        return _states(node.args[0], root)
    while node.target is operator.getitem:
        before: Any = node.args[0]
        if _is_module(before, root, nn.GRU):
            return (before,) if node.args[1] == 1 else ()
        node = before
        while _keeps_state(node, root):
            node = node.args[0]
    return ()


def _keeps_state(node: fx.Node, root: nn.Module) -> bool:
    return node.target in STATE_KEEPING or _is_module(node, root, IDENTITIES)


def _several(value: Any) -> bool:
    return isinstance(value, (tuple, list))


def _is_module(node: Any, root: nn.Module, kind: type[nn.Module] | tuple[type[nn.Module], ...]) -> bool:
    if not isinstance(node, fx.Node) or node.op != "call_module":
        return False
    return isinstance(root.get_submodule(str(node.target)), kind)
