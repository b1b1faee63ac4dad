"""Makes tests/models/*.keras and, beside each, input and output as Keras computed them (.npz).

    KERAS_BACKEND=torch python tools/make_import_test_models.py

Weights are random but always the same, and archives get a fixed date: the same Keras gives the same bytes.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np

FOLDER = Path(__file__).parents[1] / "tests" / "models"


def models() -> dict[str, Any]:
    layers = keras.layers
    stack_input = keras.Input((None, 3))
    stack = layers.GRU(4, return_sequences=True, name="first")(stack_input)
    stack = layers.Dropout(0.2)(stack)
    stack = layers.GRU(3, reset_after=False, return_sequences=True, name="second")(stack)
    stack = layers.TimeDistributed(layers.Dense(4, activation="tanh"), name="each_step")(stack)
    return {
        "reset_after": keras.Sequential([keras.Input((None, 3)), layers.GRU(4), layers.Dense(2)], name="reset_after"),
        "reset_before": keras.Sequential(
            [keras.Input((None, 3)), layers.GRU(4, reset_after=False), layers.Dense(2, activation="sigmoid")],
            name="reset_before",
        ),
        "no_bias": keras.Sequential(
            [keras.Input((None, 3)), layers.GRU(4, use_bias=False, return_sequences=True)], name="no_bias"
        ),
        "stack": keras.Model(stack_input, layers.Dense(2, use_bias=False, name="scores")(stack), name="stack"),
    }


def without_ids(config: Any) -> Any:
    """The configuration without `shared_object_id`, which are addresses in memory."""
    if isinstance(config, dict):
        return {key: without_ids(value) for key, value in config.items() if key != "shared_object_id"}
    return [without_ids(value) for value in config] if isinstance(config, list) else config


def save(model: Any, path: Path) -> None:
    """Saves without times and addresses, and packed."""
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model.keras")
        with zipfile.ZipFile(Path(folder) / "model.keras") as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
    metadata = json.loads(members["metadata.json"])
    members["config.json"] = json.dumps(without_ids(json.loads(members["config.json"]))).encode()
    members["metadata.json"] = json.dumps(metadata | {"date_saved": "2000-01-01@00:00:00"}).encode()
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    path.write_bytes(content.getvalue())


def main() -> None:
    generator = np.random.default_rng(1)
    FOLDER.mkdir(exist_ok=True)
    for name, model in models().items():
        for variable in model.weights:
            if "seed" not in variable.path:
                variable.assign(generator.normal(0, 0.7, variable.shape))
        save(model, FOLDER / f"{name}.keras")
        x = generator.standard_normal((3, 9, 3))
        np.savez(FOLDER / f"{name}.npz", x=x, y=keras.ops.convert_to_numpy(model(x, training=False)))
        print(f"{name}.keras  {(FOLDER / f'{name}.keras').stat().st_size} bytes, output {tuple(model(x).shape)}")


if __name__ == "__main__":
    main()
