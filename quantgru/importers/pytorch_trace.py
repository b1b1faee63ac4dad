"""From a module's forward() to a graph of its operations, by torch.fx; and what to change where this is impossible.

`pytorch_graph` reads the graph. Loops over the steps of the input are unrolled here, for as many steps as SIZES says;
`pytorch_steps` puts them together again.

While a module is traced, torch.zeros, torch.ones and torch.autocast.__enter__ are replaced in the whole process, and
put back afterwards. For other threads they do the same, but an autocast entered there is noted as the module's.
"""

from __future__ import annotations

import inspect
import math
import operator
import traceback
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import fx, nn

from quantgru.errors import ModelError
from quantgru.importers.pytorch_constants import SIZES
from quantgru.importers.pytorch_modules import n_states_of
from quantgru.importers.verify import first_line

# Modules that become layers.
LAYERS: Final = (nn.GRU, nn.GRUCell, nn.Linear, nn.Embedding, nn.BatchNorm1d)
PACKED: Final = (
    "leave it out, and take the padded sequences as the one input: the import takes unequal lengths as a list"
)
LOOPS: Final = (
    "loop over the input alone: `for t in range(x.size(1)): h = cell(x[:, t], h)`; or use nn.GRU for all steps"
)
# What to do about errors of torch.fx that have these words.
NEXT_STEPS: Final = {
    "iterated": LOOPS,
    "control flow": "remove control flow that depends on the input, as if and assert",
    "'len'": "use x.size(0) in place of len(x), and `out, h_n = gru(x)` in place of *gru(x)",
    "as an integer": LOOPS,
    "item assignment": "collect the steps in a list, and join them with torch.stack",
    "tensortype": "use .float() or .to(torch.float32) in place of .type(...)",
    "Variable data": "leave Variable(...) out: tensors need none",
    "dynamo": "use the module as it was before torch.compile",
    "Proxy": "use torch.zeros(...) for a state, and tensor operations for everything else",
}
# Methods and functions whose result has the axes of their input.
AXES_KEEPING: Final = ("float", "double", "long", "to", "contiguous", "clone", "detach", "flip", torch.flip)
ONE_INPUT: Final = "take the data as the first argument, then states, and give a default to everything else"


@dataclass(frozen=True)
class Trace:
    """graph     of a module's forward()
    given     the arguments that it is given beside the input
    autocast  whether torch.autocast is used in it
    unrolled  whether Python saw a size of the input as a number, as in a loop over the steps
    kept      an attribute in which forward() leaves what it computed, maybe for its next call to read; empty if none
    """

    graph: fx.Graph
    given: tuple[str, ...]
    autocast: bool
    unrolled: bool
    kept: str


def state_arguments(module: nn.Module) -> tuple[list[str], list[str]]:
    """The arguments of forward() after the first that may be states: those without a default, and those that are None.

    Raises ModelError where forward() has no first argument to be the input.
    """
    parameters = _parameters(module)
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [p for p in parameters if p.default is p.empty]
    if not parameters or any(p.kind not in positional for p in (parameters[0], *needed)):
        inputs = ", ".join(map(str, needed)) or "none"
        where = f"PyTorch module {type(module).__name__}"
        raise ModelError(f"{where}: forward() needs the inputs {inputs}; {ONE_INPUT}")
    return [p.name for p in needed if p is not parameters[0]], [p.name for p in parameters[1:] if p.default is None]


def trace(module: nn.Module, given: Collection[str]) -> Trace:
    """What forward() does where it is given these arguments; the others get their defaults.

    Raises ModelError where forward() cannot be traced.
    """
    where = f"PyTorch module {type(module).__name__}"
    tracer = _Tracer(given)
    try:
        with _attributes_put_back(module) as kept, _old_states_traced(module), _autocasts() as used:
            graph = tracer.trace(module)
        names = tuple(p.name for p in _parameters(module) if p.name in given)
        return Trace(graph, names, bool(used), tracer.unrolled, "".join(kept[:1]))
    except Exception as error:  # tracing runs the user's forward(), which may raise anything
        if _is_packed(module, error):
            raise ModelError(f"{where}: forward() uses pack_padded_sequence; {PACKED}") from None
        next_steps = [step for words, step in NEXT_STEPS.items() if words in str(error)][:1]
        found = f"{where}: torch.fx cannot trace its forward() ({first_line(error)[:80]})"
        raise ModelError("; ".join((found, *next_steps))) from None


def _parameters(module: nn.Module) -> list[inspect.Parameter]:
    return list(inspect.signature(type(module).forward).parameters.values())[1:]


class _Proxy(fx.Proxy):  # type: ignore[misc]  # torch is not followed by the type checker
    """A value while tracing. Sizes of the input are numbers where Python insists on one, as range() does."""

    def __index__(self) -> int:
        node, less = self.node, 0
        if node.target is operator.sub and isinstance(node.args[0], fx.Node) and type(node.args[1]) is int:
            node, less = node.args  # x.size(1) - 1
        if not (size := _size(_axis_of_size(node))):
            raise TypeError("'Proxy' object cannot be interpreted as an integer")
        self.tracer.unrolled = True
        return size - less

    def __len__(self) -> int:
        return self.tracer.n_parts(self.node) or super().__len__()  # type: ignore[no-any-return]  # raises


class _Tracer(fx.Tracer):  # type: ignore[misc]
    """Keeps modules that become layers whole, subclasses too. Arguments other than `given` get their defaults."""

    def __init__(self, given: Collection[str]) -> None:
        super().__init__()
        self.given = given
        self.unrolled = False

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, LAYERS) or bool(super().is_leaf_module(m, module_qualified_name))

    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> tuple[Any, list[Any]]:
        function, arguments = super().create_args_for_root(root_fn, is_module, concrete_args)
        parameters = inspect.signature(root_fn).parameters.values()
        for i, parameter in enumerate(parameters):
            if i > 1 and parameter.default is not parameter.empty and parameter.name not in self.given:  # 1: the input
                arguments[i] = parameter.default
        return function, arguments

    def iter(self, obj: fx.Proxy) -> Iterator[fx.Proxy]:
        """What `for step in x` takes of the input, too."""
        size = self.n_parts(obj.node) or _size(_leading_axis(obj.node, 0))
        if not size:
            return super().iter(obj)  # type: ignore[no-any-return]  # raises
        self.unrolled = True
        return (obj[i] for i in range(size))

    def n_parts(self, node: fx.Node) -> int:
        """The number of steps that unbind gives, or of the states of h_n; 0 for another node."""
        if node.target in ("unbind", torch.unbind):
            self.unrolled = True
            return _size(_leading_axis(node.args[0], node.kwargs.get("dim", (*node.args, 0)[1])))
        if node.target is operator.getitem and node.args[1] == 1 and node.args[0].op == "call_module":
            module = self.root.get_submodule(node.args[0].target)
            return n_states_of(module) if isinstance(module, nn.GRU) else 0
        return 0


def _size(axis: int | None) -> int:
    """Of an axis of the input while tracing; 0 if there is none."""
    return SIZES.get(axis, 0) if axis is not None else 0


def _axis_of_size(node: fx.Node) -> int | None:
    """The axis of the input whose size a node is: x.size(1), x.shape[1], or the second of x.size()."""
    if node.target == "size" and len(node.args) == 2:
        source, axis = node.args
    elif node.target is operator.getitem and _is_shape(node.args[0]):
        source, axis = node.args[0].args[0], node.args[1]
    else:
        return None
    return _leading_axis(source, axis)


def _is_shape(node: Any) -> bool:
    return node.target == "size" or (node.target is getattr and node.args[1] == "shape")


def _leading_axis(node: Any, axis: Any) -> int | None:
    """Which axis of the input an axis of a node is, as far as what lies between keeps or exchanges the leading axes.

    Where a module does not keep them, the unrolled loop is another one than that of the comparison, and refused.
    """
    if not isinstance(axis, int) or not isinstance(node, fx.Node):
        return None
    if node.op == "placeholder":
        return axis if node is next(iter(node.graph.nodes)) else None
    first_result = node.target is operator.getitem and node.args[1] == 0 and node.args[0].op == "call_module"
    if node.op == "call_module" or first_result or node.target in AXES_KEEPING:
        return _leading_axis(node.args[0], axis)
    exchanged = node.target in ("transpose", torch.transpose) and set(node.args[1:]) == {0, 1}
    if not exchanged and not (node.target in ("permute", torch.permute) and _axes(node) == (1, 0, 2)):
        return None
    return _leading_axis(node.args[0], {0: 1, 1: 0}.get(axis, axis))


def _axes(node: fx.Node) -> tuple[Any, ...]:
    given = node.args[1:]
    return tuple(given[0]) if len(given) == 1 and isinstance(given[0], (tuple, list)) else given


class _Weight(torch.Tensor):  # type: ignore[misc]
    """A parameter as forward() gets it of parameters(), with a method `new` that can be traced."""

    def new(self, *sizes: Any) -> torch.Tensor:
        return torch.full(sizes, math.nan)  # not initialised: zero_() or the like follows, or `finite` refuses it


@contextmanager
def _attributes_put_back(module: nn.Module) -> Iterator[list[str]]:
    """The names of those in which tracing has left something, afterwards."""
    before = [(part, dict(vars(part))) for part in module.modules()]
    kept: list[str] = []
    try:
        yield kept
    finally:
        for part, attributes in before:
            left = [name for name, value in vars(part).items() if isinstance(value, fx.Proxy)]
            vars(part).update({name: attributes.get(name) for name in left})
            kept += left


@contextmanager
def _old_states_traced(module: nn.Module) -> Iterator[None]:
    """Traces two usual ways to a state: `torch.zeros(x.size(0), ...)` and `next(self.parameters()).new(...)`.

    For torch.fx a size must not be the first of several, nor an argument of `new`.
    """

    def parameters_of(part: nn.Module) -> Callable[[], Iterator[torch.Tensor]]:
        original = part.parameters
        return lambda *args, **kwargs: (p.detach().as_subclass(_Weight) for p in original(*args, **kwargs))

    def with_tuple(function: Any) -> Any:
        def traced(*size: Any, **options: Any) -> Any:
            by_size = size and isinstance(size[0], fx.Proxy)
            return function(size, **options) if by_size else function(*size, **options)

        return traced

    originals = {name: getattr(torch, name) for name in ("zeros", "ones")}
    for part in module.modules():
        part.parameters = parameters_of(part)
    for name, function in originals.items():
        setattr(torch, name, with_tuple(function))
    try:
        yield
    finally:
        for name, function in originals.items():
            setattr(torch, name, function)
        for part in module.modules():
            del part.parameters


@contextmanager
def _autocasts() -> Iterator[list[str]]:
    """The devices for which torch.autocast is entered meanwhile. Without a GPU it is off there, but meant."""
    original = torch.autocast.__enter__
    devices: list[str] = []

    def enter(self: Any) -> Any:
        if self._enabled or self.device != "cpu":
            devices.append(self.device)
        return original(self)

    torch.autocast.__enter__ = enter
    try:
        yield devices
    finally:
        torch.autocast.__enter__ = original


def _is_packed(module: nn.Module, error: Exception) -> bool:
    """Whether forward() packs its sequences, as far as can be seen without running it."""
    codes = [getattr(type(part).forward, "__code__", None) for part in module.modules()]
    called = [name for code in codes if code for name in code.co_names]
    called += [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    return "pack_padded_sequence" in called
