"""From a trained model, a live object or a file, to the canonical `FloatModel`.

No framework is imported here: each importer is loaded when something of its kind is given.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from quantgru.activations import Reset
from quantgru.c_names import c_name
from quantgru.errors import ModelError
from quantgru.importers.arrays import from_arrays
from quantgru.importers.options import ImportOptions, Softmax, chain_text
from quantgru.importers.sources import FILES, KERAS_OBJECT, OTHER_FILES, PYTORCH_OBJECT, STATE_DICT, Source
from quantgru.model import FloatModel

__all__ = ["ImportOptions", "Softmax", "from_arrays", "load"]


def load(
    source: Any,
    *,
    softmax: Softmax = "refuse",
    reset: Reset | None = None,
    chain: str | Sequence[str] | None = None,
    convention: str | None = None,
    name: str | None = None,
) -> FloatModel:
    """Returns the float model of a file, a live PyTorch module or Keras 3 model, or a state dict.

    softmax     "logits" leaves a softmax at the very end out (the largest output stays the largest); "refuse" is an
                error
    reset       overrides what an ONNX file says about the reset gate: "after" or "before" the product
    chain       for files that hold weights only, their modules as they run: "gru last fc1 relu fc2", or
                a list of these words
    convention  for plain arrays (.npz), what they mean: see `quantgru formats`
    name        the model's name, which names exported code; otherwise it is made from the source's name

    A FloatModel is returned as it is. A live object is compared with its import on random input, and never changed.
    Raises ModelError for what cannot be read or cannot be done exactly, ConfigError for a missing package or an option
    that the source does not take.
    """
    options = ImportOptions(softmax, reset, chain_text(chain), convention)
    if isinstance(source, FloatModel):
        options.require_only("load: a FloatModel", ())
        model = source
    elif isinstance(source, (str, os.PathLike)):
        path = Path(source)
        model = _read(_source_of_file(path), f"model {path}", path, options)
    else:
        model = _read(_source_of_object(source), f"model of type {_type_name(source)}", source, options)
    return model if name is None else replace(model, name=c_name(name))


def _read(source: Source, where: str, given: Any, options: ImportOptions) -> FloatModel:
    options.require_only(where, source.options)
    module, function = source.reader
    read = getattr(import_module(f"quantgru.importers.{module}"), function)
    model: FloatModel = read(given, options)
    return model


def _source_of_file(path: Path) -> Source:
    suffix = path.suffix.lower()
    for source in FILES:
        if suffix in source.suffixes:
            if not os.path.isfile(path):  # unlike Path.is_file, it also takes names that are too long
                found = "a folder" if os.path.isdir(path) else "no such file"
                raise ModelError(f"model {path}: {found}; expected a file: {source.what}")
            return source
    if suffix in OTHER_FILES:
        raise ModelError(f"model {path}: {OTHER_FILES[suffix]}")
    known = ", ".join(suffix for source in FILES for suffix in source.suffixes)
    raise ModelError(
        f"model {path}: file type {suffix!r}; supported are {known}; `quantgru formats` says what each may hold"
    )


def _source_of_object(source: Any) -> Source:
    """Looks at class names, not at frameworks: whoever gives a live object has imported its framework already."""
    kinds = {(cls.__module__.partition(".")[0], cls.__name__) for cls in type(source).__mro__}
    if ("keras", "Layer") in kinds:  # first: on the torch back end, a Keras model is a PyTorch module, too
        return KERAS_OBJECT
    if ("torch", "Module") in kinds:
        return PYTORCH_OBJECT
    if isinstance(source, Mapping):
        return STATE_DICT
    if ("torch", "ExportedProgram") in kinds:
        raise ModelError(
            f"model of type {_type_name(source)}: made by torch.export; give the nn.Module that was exported, or its "
            "weights: qg.load(program.state_dict, chain=...)"
        )
    supported = "supported are files, live PyTorch modules, live Keras 3 models and state dicts"
    if ("tf_keras", "Layer") in kinds:
        raise ModelError(f"model of type {_type_name(source)}: Keras 2; save it as .h5, and give the file; {supported}")
    raise ModelError(f"model of type {_type_name(source)}: {supported}")


def _type_name(source: Any) -> str:
    cls = type(source)
    return cls.__name__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__name__}"
