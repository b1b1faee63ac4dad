"""Live PyTorch modules: copied, traced, converted, and compared with the import. The user's module is only read.

`pytorch_graph` reads the traced graph, `pytorch_verify` compares; this file has what surrounds them.
"""

from __future__ import annotations

import copy
import inspect
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import fx, nn

from quantgru.errors import ModelError
from quantgru.importers.chain import BY_HAND, SUPPORTED, Chain, identifier
from quantgru.importers.options import ImportOptions
from quantgru.importers.pytorch_graph import GraphReader
from quantgru.importers.pytorch_modules import CELL, Source, recurrent_layers, want_no_hooks, want_stock
from quantgru.importers.pytorch_verify import compare_layer, compare_model
from quantgru.importers.verify import first_line, random_states_kept
from quantgru.model import FloatModel

LAYERS: Final = (nn.GRU, nn.Linear, nn.Embedding, nn.BatchNorm1d)
INPUTS: Final = "take the data as the one input, others with a default, as hidden=None: states are given to model.run"
PACKED: Final = (
    "leave pack_padded_sequence out, and take the padded sequences as the one input: the import is given sequences of "
    "unequal lengths as a list"
)
CONTROL: Final = (
    "remove assert, if, len() and loops that look at a tensor; use x.size(0) for its sizes, torch.zeros for a state, "
    "and nn.GRU once for all steps"
)


def load_pytorch(module: nn.Module, options: ImportOptions) -> FloatModel:
    """The float model of an nn.GRU, or of a module whose forward() is one chain of layers, GRU layers among them.

    Raises ModelError for everything else, and where module and import do not compute the same.
    """
    _refuse_wrappers(module)
    with random_states_kept(), torch.no_grad(), _float64_by_default():
        copied = _float64_copy(module)
        if isinstance(copied, nn.GRU):
            return _bare_gru(copied, options)
        _want_own_call(copied)
        reader = GraphReader(copied, Chain(options.softmax))
        reader.read(_trace(copied))
        kind = type(module).__name__
        model = reader.chain.chain.model(identifier(kind), f"PyTorch module {kind}")
        for source in reader.sources:
            compare_layer(source)
        compare_model(copied, reader, model)
        return model


def _refuse_wrappers(module: nn.Module) -> None:
    """Raises ModelError for what stands around a module, with the way to what is inside."""
    compiling = sys.modules.get("torch._dynamo.eval_frame")  # takes seconds to import: not needed if nobody has
    inside = {
        torch.jit.ScriptModule: "give the nn.Module that it was made from",
        nn.DataParallel: "give its .module",
        getattr(compiling, "OptimizedModule", ()): "give its ._orig_mod, the module before torch.compile",
    }
    for kind, next_step in inside.items():
        if isinstance(module, kind):
            raise ModelError(f"PyTorch module {type(module).__name__}: a wrapper around a module; {next_step}")


def _want_own_call(module: nn.Module) -> None:
    """Raises ModelError where a call does more than the forward() of the class, which is what is traced."""
    where = f"PyTorch module {type(module).__name__}"
    want_no_hooks(where, module)
    if "forward" in vars(module):
        raise ModelError(f"{where}: its forward() is not that of its class; write a class with this forward()")


def _bare_gru(module: nn.GRU, options: ImportOptions) -> FloatModel:
    layers = recurrent_layers("gru", module)
    source = Source("gru", module, layers)
    want_stock(source.where, module)
    chain = Chain(options.softmax)
    chain.add_recurrent(source.where, layers)
    compare_layer(source)
    return chain.model("gru", "PyTorch module GRU")


def _float64_copy(module: nn.Module) -> nn.Module:
    """A copy to trace and to run: in float64, so that what differs is the meaning and not the rounding."""
    where = f"PyTorch module {type(module).__name__}"
    for name, parameter in module.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise ModelError(f"{where}: parameter {name!r} has no shape yet; run the module on data once, then load it")
        if not parameter.is_floating_point():
            raise ModelError(f"{where}: parameter {name!r} is {parameter.dtype}; give the float module")
    try:
        return copy.deepcopy(module, _computed_tensors(module)).cpu().double().eval()
    except Exception as error:  # what is copied is the user's code, which may raise anything
        raise ModelError(
            f"{where}: cannot be copied to the CPU ({first_line(error)}); load its weights into a plain module"
        ) from None


@contextmanager
def _float64_by_default() -> Iterator[None]:
    """torch.zeros() and the like, which forward() may call, are of the type of the copied module."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _computed_tensors(module: nn.Module) -> dict[int, Any]:
    """What deepcopy refuses to copy, already copied, by id: weights that weight_norm and the like have computed."""
    held = (value for part in module.modules() for value in vars(part).values())
    tensors = (tensor for value in held for tensor in (value if isinstance(value, list) else [value]))
    computed = (tensor for tensor in tensors if isinstance(tensor, torch.Tensor) and not tensor.is_leaf)
    return {id(tensor): tensor.detach().clone() for tensor in computed}


class _Tracer(fx.Tracer):  # type: ignore[misc]  # torch is not followed by the type checker
    """Keeps modules that become layers whole, subclasses and parametrized ones too. Further arguments get defaults."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, LAYERS) or bool(super().is_leaf_module(m, module_qualified_name))

    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> tuple[Any, list[Any]]:
        function, arguments = super().create_args_for_root(root_fn, is_module, concrete_args)
        defaults = [parameter.default for parameter in inspect.signature(root_fn).parameters.values()]
        return function, [*arguments[:2], *defaults[2:]]


def _trace(module: nn.Module) -> fx.Graph:
    where = f"PyTorch module {type(module).__name__}"
    parameters = list(inspect.signature(type(module).forward).parameters.values())[1:]
    needed = [p.name for p in parameters if p.default is p.empty or p.kind is p.KEYWORD_ONLY]
    if len(needed) != 1 or parameters[0].kind not in (
        parameters[0].POSITIONAL_ONLY,
        parameters[0].POSITIONAL_OR_KEYWORD,
    ):
        inputs = ", ".join(needed) or "none"
        raise ModelError(f"{where}: forward() needs the inputs {inputs}; {SUPPORTED}; {_next_step(module, INPUTS)}")
    try:
        return _Tracer().trace(module)
    except Exception as error:  # tracing runs the user's forward(), which may raise anything
        raise ModelError(
            f"{where}: torch.fx cannot trace its forward() ({first_line(error)}); supported is one chain of layers, "
            f"without control flow that depends on the input; {_next_step(module, BY_HAND, error)}"
        ) from None


def _next_step(module: nn.Module, otherwise: str, error: Exception | None = None) -> str:
    """What to do instead of what tracing never gets through."""
    codes = [getattr(type(part).forward, "__code__", None) for part in module.modules()]
    called = [name for code in codes if code for name in code.co_names]
    in_error = [frame.name for frame in traceback.extract_tb(error.__traceback__)] if error else []
    if "pack_padded_sequence" in called + in_error:
        return PACKED
    if any(isinstance(part, nn.GRUCell) for part in module.modules()):
        return CELL
    if isinstance(error, fx.proxy.TraceError) or any(word in str(error) for word in ("Proxy", "symbolic tracing")):
        return CONTROL
    return otherwise
