"""Runs a graph: the nodes that an output needs, and the while loops of dynamic_rnn. Operations are elsewhere.

Time and memory are bounded by a budget, whatever the graph says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from quantgru.errors import ModelError
from quantgru.importers.tensorflow1_errors import SMALLER, WITHOUT_IT, refused, short
from quantgru.importers.tensorflow1_file import Node
from quantgru.importers.tensorflow1_graph import OTHER_FLOW, Graph, Loop
from quantgru.importers.tensorflow1_ops import Operations
from quantgru.importers.verify import first_line

BUDGET: Final = 1 << 26  # numbers made in one run, 512 MB if all were kept in float64
NODE_COST: Final = 512  # numbers that could be made in the time that a node takes by itself

UNFROZEN: Final = ("Variable", "VariableV2", "VarHandleOp", "ReadVariableOp", "ResourceGather", "HashTableV2")
CONTROL_FLOW: Final = ("Enter", "Exit", "Merge", "Switch", "NextIteration", "LoopCond", "RefSwitch", "RefMerge")
FUNCTION_CALLS: Final = ("While", "StatelessWhile", "If", "StatelessIf", "PartitionedCall", "StatefulPartitionedCall")

See = Callable[[Node, Sequence[Any]], None]
_Known = dict[str, tuple[Any, ...]]


def see_nothing(node: Node, values: Sequence[Any]) -> None:
    """Nobody watches."""


class Run:
    """One run of a graph for given values of its placeholders; `see` is shown every operation with its operands."""

    def __init__(
        self,
        graph: Graph,
        operations: Operations,
        placeholders: Mapping[str, Any],
        see: See = see_nothing,
    ) -> None:
        self._graph = graph
        self._operations = operations
        self._placeholders = placeholders
        self._see = see
        self._left = BUDGET
        self._in_loop = False

    @property
    def spent(self) -> int:
        return BUDGET - self._left

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
                raise ModelError(f"{node}: reads its own result outside of a loop; the file is damaged")
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
        if node.op == "Switch" and self._graph.is_of_loop(node):
            return {node.name: (values[0], values[0])}  # read in the body of the loop, where the condition is true
        _refuse_kind(node)
        return {node.name: self._apply(node, values)}

    def _apply(self, node: Node, values: list[Any]) -> tuple[Any, ...]:
        try:
            self._spend(node, self._operations.cost(node, values))
            self._see(node, values)
            return self._operations.apply(node, values)
        except (ValueError, TypeError, IndexError, KeyError, AttributeError, ArithmeticError, MemoryError) as error:
            # shapes that do not fit, attributes and inputs that are missing or of another type
            raise ModelError(f"{node}: cannot be computed: {first_line(error)}") from None

    def _spend(self, node: Node, cost: int) -> None:
        self._left -= cost
        if self._left < 0:
            raise ModelError(f"{node}: with it, a run of the graph makes more than {BUDGET} numbers; {SMALLER}")

    def _run_loop(self, leave: Node, known: _Known) -> _Known:
        if self._in_loop:
            raise refused(leave, "a loop in a loop")
        self._in_loop = True
        loop = self._graph.loop(leave)
        if leave.name not in loop.exits:
            raise ModelError(f"{leave}: leaves a loop in which the condition is true; the file is damaged")
        enters = dict(zip(loop.enters, _values(leave, loop.enters.values(), known), strict=True))
        state = {merge: self._operations.first_state(enters[enter]) for merge, (enter, _) in loop.merges.items()}
        while True:
            for merge, value in state.items():
                self._see(self._graph.nodes[merge], [value])
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
            raise refused(leave, "how often the loop runs depends on the values of the input")
        return bool(answer.item())


def _values(node: Node, inputs: Iterable[tuple[str, int]], known: _Known) -> list[Any]:
    values = []
    for name, output in inputs:
        outputs = known[name]
        if output >= len(outputs):
            found = f"reads output {output} of node {short(name)}, which has {len(outputs)}"
            raise ModelError(f"{node}: {found}; the file is damaged")
        values.append(outputs[output])
    return values


def _refuse_kind(node: Node) -> None:
    """Raises ModelError for kinds of nodes that are no operations."""
    if node.op in UNFROZEN:
        found = "a variable: the graph is not frozen"
        raise refused(node, found, "freeze it with tf.graph_util.convert_variables_to_constants")
    if node.op in FUNCTION_CALLS:
        raise refused(node, "calls a function", "write the graph with the control flow of TensorFlow 1")
    if node.op in CONTROL_FLOW:
        raise refused(node, OTHER_FLOW, WITHOUT_IT)
