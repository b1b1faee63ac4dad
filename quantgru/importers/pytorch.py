"""Live PyTorch modules: copied, traced, converted, and compared with the import. The user's module is only read.

`pytorch_graph` reads the traced graph; this file has what surrounds it.
"""

from __future__ import annotations

import copy
import inspect
from typing import Any

import torch
from torch import fx, nn

from quantgru.errors import ModelError, QuantgruError
from quantgru.importers.chain import BY_HAND, SUPPORTED, Chain, identifier
from quantgru.importers.options import ImportOptions
from quantgru.importers.pytorch_graph import GraphReader
from quantgru.importers.pytorch_modules import Source, next_step, recurrent_layers
from quantgru.importers.pytorch_signals import FEATURES
from quantgru.importers.verify import LEFT_OUT, compare, first_line, probe, random_states_kept
from quantgru.model import Dense, Embedding, FloatModel
from quantgru.model.run import dense_output


def load_pytorch(module: nn.Module, options: ImportOptions) -> FloatModel:
    """The float model of an nn.GRU, or of a module that traces to GRU → last step or all steps → Linear/activations.

    Raises ModelError for everything else, and where module and import do not compute the same.
    """
    _refuse_wrappers(module)
    with random_states_kept(), torch.no_grad():
        copied = _float64_copy(module)
        if isinstance(copied, nn.GRU):
            return _bare_gru(copied, options)
        reader = GraphReader(copied, Chain(options.softmax))
        reader.read(_trace(copied))
        kind = type(module).__name__
        model = reader.chain.model(identifier(kind), f"PyTorch module {kind}")
        for source in reader.sources:
            _compare_layer(source)
        _compare_model(copied, reader, model)
        return model


def _refuse_wrappers(module: nn.Module) -> None:
    """Raises ModelError for what stands around a module, with the way to what is inside."""
    inside = {
        torch.jit.ScriptModule: "give the nn.Module that it was made from",
        nn.DataParallel: "give its .module",
        torch._dynamo.eval_frame.OptimizedModule: "give its ._orig_mod, the module before torch.compile",
    }
    for kind, next_step in inside.items():
        if isinstance(module, kind):
            raise ModelError(f"PyTorch module {type(module).__name__}: a wrapper around a module; {next_step}")


def _bare_gru(module: nn.GRU, options: ImportOptions) -> FloatModel:
    layers = gru_layers("gru", module)
    source = Source("gru", module, layers)
    chain = Chain(options.softmax)
    chain.add_recurrent(source.where, layers)
    _compare_layer(source)
    return chain.model("gru", "PyTorch module GRU")


def _float64_copy(module: nn.Module) -> nn.Module:
    """A copy to trace and to run: in float64, so that what differs is the meaning and not the rounding."""
    where = f"PyTorch module {type(module).__name__}"
    for name, parameter in module.named_parameters():
        if not parameter.is_floating_point():
            raise ModelError(f"{where}: parameter {name!r} is {parameter.dtype}; give the float module")
    try:
        return copy.deepcopy(module, _computed_tensors(module)).cpu().double().eval()
    except Exception as error:  # what is copied is the user's code, which may raise anything
        raise ModelError(
            f"{where}: cannot be copied to the CPU ({first_line(error)}); load its weights into a plain module"
        ) from None


def _computed_tensors(module: nn.Module) -> dict[int, Any]:
    """What deepcopy refuses to copy, already copied, by id: weights that weight_norm and the like have computed."""
    held = (value for part in module.modules() for value in vars(part).values())
    tensors = (tensor for value in held for tensor in (value if isinstance(value, list) else [value]))
    computed = (tensor for tensor in tensors if isinstance(tensor, torch.Tensor) and not tensor.is_leaf)
    return {id(tensor): tensor.detach().clone() for tensor in computed}


class _Tracer(fx.Tracer):  # type: ignore[misc]  # torch is not followed by the type checker
    """Keeps every GRU and Linear whole, subclasses and parametrized ones too; further arguments get their default."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, (nn.GRU, nn.Linear)) or bool(super().is_leaf_module(m, module_qualified_name))

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
        raise ModelError(f"{where}: forward() needs the inputs {', '.join(needed) or 'none'}; {SUPPORTED}; {BY_HAND}")
    try:
        return _Tracer().trace(module)
    except Exception as error:  # tracing runs the user's forward(), which may raise anything
        raise ModelError(
            f"{where}: torch.fx cannot trace its forward() ({first_line(error)}); {SUPPORTED}, "
            f"without control flow that depends on the input; {BY_HAND}"
        ) from None


def _compare_layer(source: Source) -> None:
    """A GRU is compared over all its layers at once, a Linear before its activation."""
    module, first = source.module, source.layers[0]
    assert isinstance(first, (Gru, Dense))
    x = probe(first.n_inputs)
    if isinstance(first, Dense):
        compare(source.where, _run(source.where, module, x).detach().numpy(), dense_output(first, x))
        return
    axis = 1 if module.batch_first else 0
    output = _run(source.where, module, x.swapaxes(1, axis))[0].detach().numpy()
    compare(source.where, output.swapaxes(1, axis), FloatModel(source.layers, last_step=False).run(x))


def _compare_model(module: nn.Module, reader: GraphReader, model: FloatModel) -> None:
    where = f"PyTorch module {type(module).__name__}"
    x = probe(model.n_inputs)
    output = _run(where, module, x.swapaxes(1, reader.input_time_axis)).detach().numpy()
    expected = output if model.last_step else output.swapaxes(1, reader.output_time_axis)
    compare(where, expected, LEFT_OUT[reader.chain.left_out](model.run(x)))


def _run(where: str, module: nn.Module, x: Any) -> Any:
    try:
        return module(torch.from_numpy(x.copy()))
    except QuantgruError:
        raise
    except Exception as error:  # runs the user's forward() and hooks, which may raise anything
        raise ModelError(f"{where}: fails on random input {x.shape} in float64 ({first_line(error)})") from None
