"""What the tests of files of Keras share: the committed files with their records, and changes to them."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest

import quantgru as qg

h5py = pytest.importorskip("h5py", reason="h5py is not installed: pip install h5py")

MODELS = Path(__file__).parent / "models"
FOLDERS = (MODELS, MODELS / "keras2", MODELS / "keras3", MODELS / "structures")
FILES = sorted(path for folder in FOLDERS for path in folder.iterdir() if path.suffix in (".keras", ".h5"))
TOLERANCE = 1e-6  # measured: 1.2e-7, where Keras multiplied in float32
CHAINS = {"functional.weights.h5": "first second last scores"}


def record(path: Path) -> dict[str, np.ndarray]:
    arrays = dict(np.load(path.with_name(path.name.split(".")[0] + ".npz")))
    if arrays["x"].ndim == 2:  # tokens
        arrays["x"] = arrays["x"][..., None]
    return arrays


def refusal(path: Path, **options: str) -> str:
    with pytest.raises(qg.ModelError) as caught:
        qg.load(path, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text.replace(str(path), "")) <= 400
    return text


def weights_of(path: Path) -> Path:
    """What save_weights of Keras 2 writes: the group of weights as the whole file."""
    target = path.with_name("only_weights.h5")
    with h5py.File(path) as source, h5py.File(target, "w") as file:
        for name in source["model_weights"]:
            source.copy(f"model_weights/{name}", file)
        for name, value in source["model_weights"].attrs.items():
            file.attrs[name] = value
    return target


def changed(tmp_path: Path, name: str, change) -> Path:
    """A file of tests/models/keras2 or keras3, changed."""
    (source,) = [path for path in FILES if path.name == f"{name}.h5"]
    path = tmp_path / f"{name}.h5"
    path.write_bytes(source.read_bytes())
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def all_data_sets(file):
    found = []
    file.visititems(lambda name, item: found.append((name, item)) if isinstance(item, h5py.Dataset) else None)
    return found


def attribute(name, value, group="/"):
    def change(file):
        del file[group].attrs[name]
        file[group].attrs[name] = value

    return change


WRONG = (7, {"x": "y"}, "other", None, -1, [], [[1, 2]], True, 1e400)


def broken_configurations(config):
    """Each field in turn deleted, or replaced by something of another type."""
    for i, path in enumerate(_field_paths(config)):
        altered = copy.deepcopy(config)
        parent = altered
        for key in path[:-1]:
            parent = parent[key]
        if i % 2:
            parent[path[-1]] = WRONG[i % len(WRONG)]
        else:
            del parent[path[-1]]
        yield altered


def _field_paths(value, path=()):
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in entries:
        yield (*path, key)
        yield from _field_paths(inner, (*path, key))
