"""From a trained model, a live object or a file, to the canonical `FloatModel`.

No framework is imported here: each importer is loaded when something of its kind is given.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, get_args

from quantgru.errors import ConfigError, ModelError
from quantgru.importers.chain import Softmax
from quantgru.model import FloatModel

__all__ = ["Softmax", "load"]

_SUPPORTED: Final = "supported are .keras and .qgf files, live PyTorch modules and live Keras 3 models"

_OTHER_FILES: Final = {
    ".qgru": "is already quantized: use it with simulate, export and hil, or read it with qg.IntModel.load(path)",
    ".pt": "a PyTorch checkpoint; load it with torch, then give the module: qg.load(module)",
    ".pth": "a PyTorch checkpoint; load it with torch, then give the module: qg.load(module)",
    ".h5": "an HDF5 file; load it with Keras 3, then save it as .keras",
    ".hdf5": "an HDF5 file; load it with Keras 3, then save it as .keras",
    ".onnx": "an ONNX file; give the PyTorch or Keras model that it was made from",
}


def load(source: Any, *, softmax: Softmax = "refuse", name: str | None = None) -> FloatModel:
    """Returns the float model of a path, a live PyTorch module or a live Keras 3 model.

    softmax  "logits" leaves a softmax at the very end out (the largest output stays the largest); "refuse" is an error
    name     the model's name, which names exported code; otherwise it is made from the source's name

    A FloatModel is returned as it is. A live object is compared with its import on random input, and never changed.
    Raises ModelError for what cannot be read or cannot be done exactly, ConfigError for a missing package.
    """
    if softmax not in get_args(Softmax):
        raise ConfigError(f"load: softmax={softmax!r}, allowed are 'refuse' and 'logits'")
    if isinstance(source, (str, os.PathLike)):
        model = _load_path(Path(source), softmax)
    elif isinstance(source, FloatModel):
        model = source
    else:
        model = _load_live(source, softmax)
    return model if name is None else replace(model, name=name)


def _load_path(path: Path, softmax: Softmax) -> FloatModel:
    suffix = path.suffix.lower()
    if suffix == ".qgf":
        from quantgru.model.file import load as load_file

        return load_file(path)
    if suffix == ".keras":
        from quantgru.importers.keras_file import load_keras_file

        return load_keras_file(path, softmax)
    raise ModelError(f"model {path}: {_OTHER_FILES.get(suffix, f'file type {suffix!r}')}; {_SUPPORTED}")


def _load_live(source: Any, softmax: Softmax) -> FloatModel:
    """Looks at class names, not at frameworks: whoever gives a live object has imported its framework already."""
    kinds = {(cls.__module__.partition(".")[0], cls.__name__) for cls in type(source).__mro__}
    if ("keras", "Layer") in kinds:  # first: on the torch back end, a Keras model is a PyTorch module, too
        from quantgru.importers.keras import load_keras

        return load_keras(source, softmax)
    if ("torch", "Module") in kinds:
        from quantgru.importers.pytorch import load_pytorch

        return load_pytorch(source, softmax)
    if ("tf_keras", "Layer") in kinds:
        raise ModelError(f"model of type {_type_name(source)}: Keras 2; save it as .keras from Keras 3; {_SUPPORTED}")
    raise ModelError(f"model of type {_type_name(source)}: {_SUPPORTED}")


def _type_name(source: Any) -> str:
    cls = type(source)
    return cls.__name__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__name__}"
