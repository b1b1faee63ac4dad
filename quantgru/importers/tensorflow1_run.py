"""Runs a frozen graph: the nodes that an output needs, and the while loops of dynamic_rnn. Operations are elsewhere.

A loop of TensorFlow 1 is a ring of nodes for each of its variables:

    Enter -> Merge -> Switch -> (condition true)  ... body ... -> NextIteration -> Merge
                             -> (condition false) Exit

Time and memory are bounded by a budget, whatever the graph says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np

from quantgru.errors import ModelError
from quantgru.importers.chain import refuse
from quantgru.importers.tensorflow1_file import Node, short
from quantgru.importers.tensorflow1_ops import Operations
from quantgru.importers.verify import first_line

BUDGET: Final = 1 << 27  # numbers made in one run, 1 GB if all were kept in float64
NODE_COST: Final = 256  # numbers that could be made in the time that a node takes by itself

UNFROZEN: Final = ("Variable", "VariableV2", "VarHandleOp", "ReadVariableOp", "ResourceGather", "HashTableV2")
CONTROL_FLOW: Final = ("Enter", "Exit", "Merge", "Switch", "NextIteration", "LoopCond", "RefSwitch", "RefMerge")
FUNCTIONS: Final = ("While", "StatelessWhile", "If", "StatelessIf", "PartitionedCall", "StatefulPartitionedCall")

_Known = dict[str, tuple[Any, ...]]


@dataclass(frozen=True)
class Loop:
    """A while loop.

    condition  the node that LoopCond reads
    merges     of each variable, its Merge node: the nodes that the Enter and the NextIteration behind it read
    enters     every Enter node of the frame, those of constants too, and the (node, output) that it reads
    exits      every Exit node and its Merge node
    """

    condition: str
    merges: Mapping[str, tuple[str, tuple[str, int]]]
    enters: Mapping[str, tuple[str, int]]
    exits: Mapping[str, str]


class Graph:
    """Nodes, and what they are to each other."""

    def __init__(self, nodes: Mapping[str, Node]) -> None:
        self.nodes = nodes
        self._arrays: dict[str, Any] = {}
        self._loops: dict[str, Loop] = {}

    def array(self, node: Node) -> Any:
        """The value of a constant: always the same object."""
        if node.name not in self._arrays:
            self._arrays[node.name] = node.array()
        return self._arrays[node.name]

    def loop(self, leave: Node) -> Loop:
        """The loop that an Exit node leaves. Raises ModelError where the ring is not closed."""
        switch = self._want(leave, 0, "Switch")
        condition = self._want(switch, 1, "LoopCond")
        if condition.name not in self._loops:
            self._loops[condition.name] = self._find_loop(condition)
        loop = self._loops[condition.name]
        if leave.name not in loop.exits:
            raise refuse(str(leave), "leaves no loop")
        return loop

    def needed(self, target: str) -> list[Node]:
        """`target` and all nodes that it needs."""
        found, pending = {target}, [target]
        while pending:
            before = {name for name, _ in self.nodes[pending.pop()].inputs} - found
            found |= before
            pending += before
        return [node for name, node in self.nodes.items() if name in found]

    @cached_property
    def _of_kind(self) -> dict[str, list[Node]]:
        found: dict[str, list[Node]] = {}
        for node in self.nodes.values():
            found.setdefault(node.op, []).append(node)
        return found

    def _find_loop(self, condition: Node) -> Loop:
        reads_condition = (condition.name, 0)
        switches = [node for node in self._of_kind["Switch"] if node.inputs[1:2] == (reads_condition,)]
        merge_of = {switch.name: self._want(switch, 0, "Merge") for switch in switches}
        merges, frames = {}, set()
        for merge in merge_of.values():
            enter, back = self._want(merge, 0, "Enter"), self._want(merge, 1, "NextIteration")
            merges[merge.name] = enter.name, self._input(back, 0)
            frames.add(enter.attribute("frame_name", "s", b""))
        if len(frames) != 1:
            raise refuse(str(condition), f"decides for {len(frames)} loops at once")
        enters = {
            node.name: self._input(node, 0)
            for node in self._of_kind["Enter"]
            if node.attribute("frame_name", "s", b"") in frames
        }
        exits = {
            node.name: merge_of[switch].name
            for node in self._of_kind["Exit"]
            for switch, output in node.inputs[:1]
            if switch in merge_of and output == 0
        }
        return Loop(self._input(condition, 0)[0], merges, enters, exits)

    def _input(self, node: Node, i: int) -> tuple[str, int]:
        if i >= len(node.inputs):
            raise refuse(str(node), f"has {len(node.inputs)} inputs")
        return node.inputs[i]

    def _want(self, node: Node, i: int, op: str) -> Node:
        found = self.nodes[self._input(node, i)[0]]
        if found.op != op:
            raise refuse(str(node), f"reads {found}, expected {op}: a branch, or a loop that dynamic_rnn does not write")
        return found


class Run:
    """One run of a graph for given values of its placeholders."""

    def __init__(self, graph: Graph, operations: Operations, placeholders: Mapping[str, Any]) -> None:
        self._graph = graph
        self._operations = operations
        self._placeholders = placeholders
        self._left = BUDGET

    def value(self, target: str) -> Any:
        """The first output of a node. Raises ModelError."""
        known: _Known = {}
        with np.errstate(all="ignore"):  # what is not finite is found where values are compared
            self._compute([target], known)
        return known[target][0]

    def _compute(self, targets: Iterable[str], known: _Known) -> None:
        """Adds the outputs of `targets` to `known`, and of all that they need. Depth first, without recursion."""
        pending, opened = list(targets), set()
        while pending:
            name = pending[-1]
            if name in known:
                pending.pop()
                continue
            node = self._graph.nodes[name]
            missing = [other for other in self._needs(node) if other not in known]
            if not missing:
                self._spend(node, NODE_COST)
                known.update(self._outputs(node, known))
                continue
            if name in opened or any(other in opened for other in missing):
                raise refuse(str(node), "reads its own result outside of a loop")
            opened.add(name)
            pending += missing

    def _needs(self, node: Node) -> list[str]:
        if node.op == "Exit":
            return [name for name, _ in self._graph.loop(node).enters.values()]
        return [name for name, _ in node.inputs]

    def _outputs(self, node: Node, known: _Known) -> _Known:
        """Its own; of an Exit node, those of all Exit nodes of the loop."""
        if node.op == "Const":
            array = self._graph.array(node)
            self._spend(node, array.size)
            return {node.name: (array,)}
        if node.name in self._placeholders:
            return {node.name: (self._placeholders[node.name],)}
        if node.op == "Exit":
            return self._run_loop(node, known)
        if node.op == "Switch" and self._graph.nodes[node.inputs[-1][0]].op == "LoopCond":
            value = self._values(node, known)[0]
            return {node.name: (value, value)}  # read in the body of the loop, where the condition was true
        if node.op == "LoopCond":
            return {node.name: tuple(self._values(node, known))}
        _refuse_kind(node)
        return {node.name: self._apply(node, self._values(node, known))}

    def _values(self, node: Node, known: _Known) -> list[Any]:
        values = []
        for name, output in node.inputs:
            outputs = known[name]
            if output >= len(outputs):
                raise refuse(str(node), f"reads output {output} of node {short(name)}, which has {len(outputs)}")
            values.append(outputs[output])
        return values

    def _apply(self, node: Node, values: list[Any]) -> tuple[Any, ...]:
        try:
            self._spend(node, self._operations.cost(node, values))
            return self._operations.apply(node, values)
        except (ValueError, TypeError, IndexError, KeyError, AttributeError, ArithmeticError, MemoryError) as error:
            # shapes that do not fit, attributes and inputs that are missing or of another type
            raise refuse(str(node), f"cannot be computed: {first_line(error)}") from None

    def _spend(self, node: Node, cost: int) -> None:
        self._left -= cost
        if self._left < 0:
            raise ModelError(f"{node}: the graph makes more than {BUDGET} numbers in {node}; too large, or damaged")

    def _run_loop(self, leave: Node, known: _Known) -> _Known:
        loop = self._graph.loop(leave)
        outer: _Known = {
            enter: tuple(self._values(self._graph.nodes[enter], known)[:1]) for enter in loop.enters
        }
        state = {merge: outer[enter] for merge, (enter, _) in loop.merges.items()}
        while True:
            inner = {**outer, **state}
            self._compute([loop.condition], inner)
            goes_on = inner[loop.condition][0]
            if not isinstance(goes_on, np.ndarray) or goes_on.size != 1:
                raise refuse(str(leave), "how often the loop runs depends on the values of the input")
            if not goes_on.item():
                return {name: state[merge] for name, merge in loop.exits.items()}
            self._compute([name for _, (name, _) in loop.merges.values()], inner)
            state = {merge: (inner[name][output],) for merge, (_, (name, output)) in loop.merges.items()}


def _refuse_kind(node: Node) -> None:
    """Raises ModelError for kinds of nodes that are no operations."""
    if node.op in UNFROZEN:
        found = "a variable: the graph is not frozen"
        raise refuse(str(node), found, "freeze it with tf.graph_util.convert_variables_to_constants")
    if node.op in FUNCTIONS:
        raise refuse(str(node), "calls a function", "write the graph with the control flow of TensorFlow 1")
    if node.op in CONTROL_FLOW:
        raise refuse(str(node), "a branch, or a loop that dynamic_rnn does not write", "freeze the graph for inference")
    if node.op == "Placeholder":
        raise refuse(str(node), "a second input", "put a constant in its place, or cut the graph there")


