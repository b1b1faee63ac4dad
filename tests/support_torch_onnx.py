"""The modules of `support_pytorch`, exported to ONNX by both exporters of PyTorch."""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import numpy as np
import torch
from support_cases import INPUTS, LENGTHS, SEQUENCES, UNITS, Functions, Made
from support_pytorch import module_of, run
from torch.onnx._internal.exporter._registration import ONNXRegistry

# Inputs beside x, and outputs beside y.
MORE: Final = {"given initial state": ("h", ()), "streaming": ("h", ("h_n",)), "lengths as an input": ("lengths", ())}


# The exporter reads its table of operators anew for each module, which takes half of its time.
_operators: Final = staticmethod(cache(ONNXRegistry.from_torchlib))


def torchscript(structure: str, functions: Functions, folder: Path) -> Made:
    """With free counts of sequences and steps, or those of the example."""
    axes = {} if functions.choose(True, False) else {"dynamic_axes": {"x": {0: "sequences", 1: "steps"}}}
    return _exported(structure, functions, folder / "model.onnx", dynamo=False, **axes)


def dynamo(structure: str, functions: Functions, folder: Path) -> Made:
    return _exported(structure, functions, folder / "model.onnx", dynamo=True, external_data=False)


def _exported(structure: str, functions: Functions, path: Path, **options: Any) -> Made:
    module = module_of(structure, functions)
    made = run(structure, functions, module)
    inputs, names = _example(structure, made)
    more = MORE.get(structure, ("", ()))[1]
    with warnings.catch_warnings(action="ignore"), patch.object(ONNXRegistry, "from_torchlib", _operators):
        torch.onnx.export(
            copy.deepcopy(module).float(),
            tuple(map(torch.from_numpy, inputs)),
            path,
            input_names=names,
            output_names=["y", *more],
            verbose=False,
            **options,
        )
    return replace(made, forms=(path,))


def _example(structure: str, made: Made) -> tuple[list[np.ndarray], list[str]]:
    """Inputs to trace the module with, and their names."""
    name = MORE.get(structure, ("", ()))[0]
    if isinstance(made.x, list):
        x = np.ones((len(LENGTHS), max(LENGTHS), INPUTS), np.float32)
    else:
        x = made.x[..., 0] if structure == "embedding" else made.x.astype(np.float32)
    more = {"h": np.zeros((1, SEQUENCES, UNITS), np.float32), "lengths": np.array(LENGTHS)}
    return ([x, more[name]], ["x", name]) if name else ([x], ["x"])
