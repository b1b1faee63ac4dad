"""`.qgf` files: what an importer made before."""

from __future__ import annotations

from pathlib import Path

from quantgru.importers.options import ImportOptions
from quantgru.model import FloatModel
from quantgru.model.file import load


def load_qgf_file(path: Path, options: ImportOptions) -> FloatModel:
    """The float model that `FloatModel.save` wrote. Raises ModelError."""
    return load(path)
