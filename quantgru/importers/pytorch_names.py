"""What the nodes of a traced graph are called in the messages of `pytorch_graph`: as the user wrote them."""

from __future__ import annotations

import operator
from typing import Any

from torch import fx, nn


def describe(node: fx.Node, root: nn.Module) -> str:
    """What the user wrote, and after which module, since functions have no names of their own."""
    description, before = describe_alone(node, root), node
    while before.op in ("call_function", "call_method") and before.all_input_nodes:
        before = before.all_input_nodes[0]
        if before.op == "call_module":
            return f"{description} after {describe_alone(before, root)}"
    return description


def describe_alone(node: fx.Node, root: nn.Module) -> str:
    match node.op:
        case "call_module":
            return f"module {str(node.target)!r} ({type(root.get_submodule(str(node.target))).__name__})"
        case "placeholder":
            return f"input {node.name!r}"
        case "get_attr":
            return f"constant {str(node.target)!r}"
        case "output":
            return f"output of {type(root).__name__}"
        case "call_method":
            return f"method {str(node.target)!r}"
    if node.target is operator.getitem:
        return f"index {_show(node.args[1])}"
    return f"function {getattr(node.target, '__name__', str(node.target))!r}"


def _show(index: Any) -> str:
    def show(entry: Any) -> str:
        if not isinstance(entry, slice):
            return "..." if entry is Ellipsis else str(entry)
        parts = (entry.start, entry.stop) if entry.step is None else (entry.start, entry.stop, entry.step)
        return ":".join("" if part is None else str(part) for part in parts)

    return f"[{', '.join(map(show, index if isinstance(index, tuple) else (index,)))}]"
