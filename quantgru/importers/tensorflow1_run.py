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
from quantgru.importers.tensorflow1_trace import SMALLER
from quantgru.importers.verify import first_line

CONSTANTS_LIMIT: Final = 1 << 25  # values of all constants, 256 MB in float64
BUDGET: Final = 1 << 26  # numbers made in one run, 512 MB if all were kept in float64
NODE_COST: Final = 512  # numbers that could be made in the time that a node takes by itself

UNFROZEN: Final = ("Variable", "VariableV2", "VarHandleOp", "ReadVariableOp", "ResourceGather", "HashTableV2")
CONTROL_FLOW: Final = ("Enter", "Exit", "Merge", "Switch", "NextIteration", "LoopCond", "RefSwitch", "RefMerge")
FUNCTION_CALLS: Final = ("While", "StatelessWhile", "If", "StatelessIf", "PartitionedCall", "StatefulPartitionedCall")

_Known = dict[str, tuple[Any, ...]]


@dataclass(frozen=True)
class Loop:
    """A while loop.

    condition  the (node, output) that LoopCond reads
    merges     of each variable, its Merge node: its Enter node, and the (node, output) that goes round
    enters     every Enter node of the frame, those of constants too, and the (node, output) that it reads
    exits      every Exit node and its Merge node
    """

    condition: tuple[str, int]
    merges: Mapping[str, tuple[str, tuple[str, int]]]
    enters: Mapping[str, tuple[str, int]]
    exits: Mapping[str, str]


class Graph:
    """Nodes, and what they are to each other."""

    def __init__(self, nodes: Mapping[str, Node]) -> None:
        self.nodes = nodes
        self._arrays: dict[str, Any] = {}
        self._n_values = 0
        self._loops: dict[str, Loop] = {}
        self._frames: set[bytes] = set()

    def array(self, node: Node) -> Any:
        """The value of a constant: always the same object. Raises ModelError."""
        if node.name not in self._arrays:
            self._arrays[node.name] = node.array()
            self._n_values += self._arrays[node.name].size
            if self._n_values > CONSTANTS_LIMIT:
                raise ModelError(f"{node}: with it, constants have more than {CONSTANTS_LIMIT} values; damaged")
        return self._arrays[node.name]

    def loop(self, leave: Node) -> Loop:
        """The loop that an Exit node leaves. Raises ModelError where the ring is not closed."""
        condition = self._read(self._read(leave, "Switch"), "LoopCond", 1)
        if condition.name not in self._loops:
            self._loops[condition.name] = self._find_loop(condition)
        return self._loops[condition.name]

    def needed(self, target: str) -> list[Node]:
        """`target` and all nodes that it needs."""
        found, pending = {target}, [target]
        while pending:
            before = {name for name, _ in self.nodes[pending.pop()].inputs} - found
            found |= before
            pending += before
        return [node for name, node in self.nodes.items() if name in found]

    def _find_loop(self, condition: Node) -> Loop:
        switches = self._readers.get(("Switch", condition.name), [])
        merge_of = {switch.name: self._read(switch, "Merge") for switch in switches}
        enter_of = {merge.name: self._read(merge, "Enter") for merge in merge_of.values()}
        backs = {name: _input(self._read(self.nodes[name], "NextIteration", 1)) for name in enter_of}
        frames = {_frame(enter) for enter in enter_of.values()}
        if len(frames) != 1 or frames & self._frames:
            raise refuse(str(condition), "is the condition of several loops")
        self._frames |= frames
        enters = {enter.name: _input(enter) for enter in self._enters[frames.pop()]}
        exits = {
            node.name: merge.name
            for switch, merge in merge_of.items()
            for node in self._readers.get(("Exit", switch), ())
            if node.inputs[0] == (switch, 0)
        }
        merges = {name: (enter.name, backs[name]) for name, enter in enter_of.items()}
        return Loop(_input(condition), merges, enters, exits)

    @cached_property
    def _readers(self) -> dict[tuple[str, str], list[Node]]:
        """Switch nodes by the node that decides for them, Exit nodes by the node that they read."""
        found: dict[tuple[str, str], list[Node]] = {}
        for node in self.nodes.values():
            if node.op in ("Switch", "Exit") and node.inputs:
                found.setdefault((node.op, node.inputs[-1][0]), []).append(node)
        return found

    @cached_property
    def _enters(self) -> dict[bytes, list[Node]]:
        """Enter nodes by their frame."""
        found: dict[bytes, list[Node]] = {}
        for node in self.nodes.values():
            if node.op == "Enter":
                found.setdefault(_frame(node), []).append(node)
        return found

    def _read(self, node: Node, op: str, i: int = 0) -> Node:
        """The node that input i of `node` reads, which must be of this kind."""
        found = self.nodes[_input(node, i)[0]]
        if found.op != op:
            raise refuse(
                str(node), f"reads {found}, expected {op}: a branch, or a loop that dynamic_rnn does not write"
            )
        return found


class Run:
    """One run of a graph for given values of its placeholders."""

    def __init__(self, graph: Graph, operations: Operations, placeholders: Mapping[str, Any]) -> None:
        self._graph = graph
        self._operations = operations
        self._placeholders = placeholders
        self._left = BUDGET
        self._in_loop = False

    def value(self, target: str) -> Any:
        """The first output of a node. Raises ModelError."""
        known: _Known = {}
        self._compute([target], known)
        return _values(self._graph.nodes[target], [(target, 0)], known)[0]

    def _compute(self, targets: Iterable[str], known: _Known) -> None:
        """Adds the outputs of `targets` to `known`, and of all that they need: depth first, without recursion."""
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
            return {node.name: (self._graph.array(node),)}
        if node.name in self._placeholders:
            return {node.name: (self._placeholders[node.name],)}
        if node.op == "Exit":
            return self._run_loop(node, known)
        values = _values(node, node.inputs, known)
        if node.op == "LoopCond":
            return {node.name: tuple(values)}
        if node.op == "Switch" and self._graph.nodes[_input(node, 1)[0]].op == "LoopCond":
            return {node.name: (values[0], values[0])}  # read in the body of the loop, where the condition is true
        _refuse_kind(node)
        return {node.name: self._apply(node, values)}

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
            raise ModelError(f"{node}: with it, a run of the graph makes more than {BUDGET} numbers; {SMALLER}")

    def _run_loop(self, leave: Node, known: _Known) -> _Known:
        if self._in_loop:
            raise refuse(str(leave), "a loop in a loop")
        self._in_loop = True
        loop = self._graph.loop(leave)
        if leave.name not in loop.exits:
            raise refuse(str(leave), "leaves a loop in which the condition is true")
        enters = dict(zip(loop.enters, _values(leave, loop.enters.values(), known), strict=True))
        state = {merge: self._operations.first_state(enters[enter]) for merge, (enter, _) in loop.merges.items()}
        while True:
            inner = {name: (value,) for name, value in (*enters.items(), *state.items())}
            self._spend(leave, len(inner) * NODE_COST // 16 + NODE_COST)
            if not self._goes_on(leave, loop, inner):
                self._in_loop = False
                return {name: (state[merge],) for name, merge in loop.exits.items()}
            ends = [end for _, end in loop.merges.values()]
            self._compute([name for name, _ in ends], inner)
            state = dict(zip(loop.merges, _values(leave, ends, inner), strict=True))

    def _goes_on(self, leave: Node, loop: Loop, inner: _Known) -> bool:
        self._compute([loop.condition[0]], inner)
        (answer,) = _values(leave, [loop.condition], inner)
        if not isinstance(answer, np.ndarray) or answer.size != 1:
            raise refuse(str(leave), "how often the loop runs depends on the values of the input")
        return bool(answer.item())


def _values(node: Node, inputs: Iterable[tuple[str, int]], known: _Known) -> list[Any]:
    values = []
    for name, output in inputs:
        outputs = known[name]
        if output >= len(outputs):
            raise refuse(str(node), f"reads output {output} of node {short(name)}, which has {len(outputs)}")
        values.append(outputs[output])
    return values


def _input(node: Node, i: int = 0) -> tuple[str, int]:
    if i >= len(node.inputs):
        raise refuse(str(node), f"has {len(node.inputs)} inputs")
    return node.inputs[i]


def _frame(enter: Node) -> bytes:
    name: bytes = enter.attribute("frame_name", "s", b"")
    return name


def _refuse_kind(node: Node) -> None:
    """Raises ModelError for kinds of nodes that are no operations."""
    if node.op in UNFROZEN:
        found = "a variable: the graph is not frozen"
        raise refuse(str(node), found, "freeze it with tf.graph_util.convert_variables_to_constants")
    if node.op in FUNCTION_CALLS:
        raise refuse(str(node), "calls a function", "write the graph with the control flow of TensorFlow 1")
    if node.op in CONTROL_FLOW:
        raise refuse(str(node), "a branch, or a loop that dynamic_rnn does not write", "freeze the graph for inference")
