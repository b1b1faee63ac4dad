"""A frozen graph: its nodes, what each needs, and where its while loops are. Nothing is computed here.

A loop of TensorFlow 1 is a ring of nodes for each of its variables:

    Enter -> Merge -> Switch -> (condition true)  ... body ... -> NextIteration -> Merge
                             -> (condition false) Exit
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from quantgru.errors import ModelError
from quantgru.importers.tensorflow1_errors import WITHOUT_IT, refused
from quantgru.importers.tensorflow1_file import Node

CONSTANTS_LIMIT: Final = 1 << 25  # values of all constants, 256 MB in float64

OTHER_FLOW: Final = "a branch, or a loop that dynamic_rnn does not write"


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
                raise ModelError(f"{node}: with it, constants have more than the allowed {CONSTANTS_LIMIT} values")
        return self._arrays[node.name]

    def loop(self, leave: Node) -> Loop:
        """The loop that an Exit node leaves. Raises ModelError where the ring is not closed."""
        condition = self._read(self._read(leave, "Switch"), "LoopCond", 1)
        if condition.name not in self._loops:
            self._loops[condition.name] = self._find_loop(condition)
        return self._loops[condition.name]

    def is_of_loop(self, switch: Node) -> bool:
        """Whether a Switch node decides whether a loop goes on, rather than between two branches."""
        return self.nodes[input_of(switch, 1)[0]].op == "LoopCond"

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
        backs = {name: input_of(self._read(self.nodes[name], "NextIteration", 1)) for name in enter_of}
        frames = {_frame(enter) for enter in enter_of.values()}
        if len(frames) != 1 or frames & self._frames:
            raise refused(condition, "is the condition of several loops")
        self._frames |= frames
        enters = {enter.name: input_of(enter) for enter in self._enters[frames.pop()]}
        exits = {
            node.name: merge.name
            for switch, merge in merge_of.items()
            for node in self._readers.get(("Exit", switch), ())
            if node.inputs[0] == (switch, 0)
        }
        merges = {name: (enter.name, backs[name]) for name, enter in enter_of.items()}
        return Loop(input_of(condition), merges, enters, exits)

    @cached_property
    def read_by(self) -> dict[str, list[str]]:
        """Of each node, those that read it."""
        found: dict[str, list[str]] = {}
        for node in self.nodes.values():
            for name, _ in node.inputs:
                found.setdefault(name, []).append(node.name)
        return found

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
        found = self.nodes[input_of(node, i)[0]]
        if found.op != op:
            raise refused(node, f"reads {found}, expected {op}: {OTHER_FLOW}", WITHOUT_IT)
        return found


def input_of(node: Node, i: int = 0) -> tuple[str, int]:
    if i >= len(node.inputs):
        raise ModelError(f"{node}: {len(node.inputs)} inputs, expected {i + 1}; the file is damaged")
    return node.inputs[i]


def _frame(enter: Node) -> bytes:
    name: bytes = enter.attribute("frame_name", "s", b"")
    return name
