"""Live PyTorch modules: copied, traced, converted, and compared with the import. The user's module is only read.

`pytorch_trace` makes a graph of forward(), `pytorch_graph` reads it, `pytorch_verify` compares, and `pytorch_ways` does
so for every way to call the module; here is what surrounds them. Weights without a module are read by `state_dict`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import fx, nn

from quantgru.errors import ModelError
from quantgru.importers.chain import Chain, identifier, refuse
from quantgru.importers.options import ImportOptions
from quantgru.importers.pytorch_modules import (
    OTHER_CELLS,
    Source,
    next_step,
    recurrent_layers,
    want_no_hooks,
    want_stock,
    with_current_weights,
)
from quantgru.importers.pytorch_states import ONE_STEP
from quantgru.importers.pytorch_verify import compare_layer
from quantgru.importers.pytorch_ways import proved, read_module
from quantgru.importers.verify import first_line, random_states_kept
from quantgru.model import FloatModel

# What stands around a module and computes the same, and where the module is. By name: to import some takes seconds.
WRAPPERS: Final = {
    "AveragedModel": "module",
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "OptimizedModule": "_orig_mod",  # of torch.compile
}
HALVES: Final = {torch.float16: "float16", torch.bfloat16: "bfloat16"}


def load_pytorch(module: nn.Module, options: ImportOptions) -> FloatModel:
    """The float model of an nn.GRU, or of a module whose forward() is one chain of layers, GRU layers among them.

    Raises ModelError for everything else, and where module and import do not compute the same.
    """
    module = _without_wrappers(module)
    _want_no_other_cell(module)
    halves = sorted({HALVES[p.dtype] for p in module.parameters() if p.dtype in HALVES})
    with random_states_kept(), torch.no_grad(), _float64_by_default(), _one_thread():
        copied = _float64_copy(module)
        if isinstance(copied, (nn.GRU, nn.GRUCell)):
            chain = _bare_gru(copied, Chain(options.softmax))
            _note_precision(chain, " and ".join(halves))
            return chain.model("gru", f"PyTorch module {'GRU' if isinstance(copied, nn.GRU) else 'GRUCell'}")
        _want_own_call(copied)
        reader = read_module(copied, options)
        chain = reader.chain.chain
        _note_precision(chain, " and ".join(halves) or "autocast" * reader.trace.autocast)
        kind = type(module).__name__
        model = chain.model(identifier(kind), f"PyTorch module {kind}")
        for source in reader.sources:
            compare_layer(source)
        return proved(copied, reader, model, options)


def _without_wrappers(module: nn.Module) -> nn.Module:
    """The module inside DataParallel, torch.compile and the like. Raises ModelError for what has no such module."""
    where = f"PyTorch module {type(module).__name__}"
    weights = "or its weights: qg.load(module.state_dict(), chain=...)"
    if isinstance(module, torch.jit.ScriptModule):
        raise ModelError(f"{where}: TorchScript; give the nn.Module that it was made from, {weights}")
    if isinstance(module, fx.GraphModule) and any(
        isinstance(node.target, torch._ops.OpOverload) for node in module.graph.nodes
    ):
        raise ModelError(f"{where}: made by torch.export; give the nn.Module that was exported, {weights}")
    name = type(module).__name__
    if name not in WRAPPERS or not type(module).__module__.startswith("torch."):
        return module
    want_no_hooks(where, module)
    return _without_wrappers(getattr(module, WRAPPERS[name]))


def _want_no_other_cell(module: nn.Module) -> None:
    for kind in OTHER_CELLS:
        if isinstance(module, kind):
            raise refuse(f"PyTorch module {type(module).__name__}", f"an nn.{kind.__name__}", next_step(module))


def _want_own_call(module: nn.Module) -> None:
    """Raises ModelError where a call does more than the forward() of the class, which is what is traced."""
    where = f"PyTorch module {type(module).__name__}"
    want_no_hooks(where, module)
    if "forward" in vars(module):
        raise ModelError(f"{where}: its forward() is not that of its class; write a class with this forward()")


def _bare_gru(module: nn.GRU | nn.GRUCell, chain: Chain) -> Chain:
    layers = recurrent_layers("gru", module)
    source = Source("gru", module, layers)
    want_stock(source.where, module)
    chain.add_recurrent(source.where, layers)
    if isinstance(module, nn.GRUCell):
        chain.notes.append(ONE_STEP)
    compare_layer(source)
    return chain


def _note_precision(chain: Chain, precision: str) -> None:
    if precision:
        chain.notes.append(f"PyTorch computes in {precision}, the import in full precision: outputs differ by that")


def _float64_copy(module: nn.Module) -> nn.Module:
    """A copy to trace and to run: in float64, so that what differs is the meaning and not the rounding."""
    where = f"PyTorch module {type(module).__name__}"
    for name, parameter in module.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise ModelError(f"{where}: parameter {name!r} has no shape yet; run the module on data once, then load it")
        if parameter.is_meta:
            raise ModelError(f"{where}: parameter {name!r} has no values (device='meta'); load weights into it first")
        if not parameter.is_floating_point():
            raise ModelError(f"{where}: parameter {name!r} is {parameter.dtype}; give the float module")
    try:
        return with_current_weights(copy.deepcopy(module, _computed_tensors(module)).cpu().double().eval())
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


@contextmanager
def _one_thread() -> Iterator[None]:
    """The comparisons are many small products: threads wait for each other longer than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _computed_tensors(module: nn.Module) -> dict[int, Any]:
    """What deepcopy refuses to copy, already copied, by id: weights that weight_norm and the like have computed."""
    held = (value for part in module.modules() for value in vars(part).values())
    tensors = (tensor for value in held for tensor in (value if isinstance(value, list) else [value]))
    computed = (tensor for tensor in tensors if isinstance(tensor, torch.Tensor) and not tensor.is_leaf)
    return {id(tensor): tensor.detach().clone() for tensor in computed}
