"""Writes tests/models/onnx/keras_*: what Keras itself exports, with its PyTorch and with its TensorFlow back end.

    pip install torch==2.13.0 keras==3.15.1 onnx==1.23.2 onnxruntime onnxscript==0.7.2
    KERAS_BACKEND=torch python tools/import_test_models/keras_onnx.py

    pip install tensorflow-cpu==2.21.0 keras==3.15.1 tf2onnx==1.17.0 onnx==1.23.2 onnxruntime
    PYTHONHASHSEED=0 KERAS_BACKEND=tensorflow python tools/import_test_models/keras_onnx.py

Neither holds a GRU node. The PyTorch back end unrolls the steps; where their number is left open it exports those of
the sample that Keras makes up, which is one step, without a word: keras_torch_open_steps records both outputs. The
TensorFlow back end exports a Loop over the operations of the cell.
"""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import onnxruntime
from common import MODELS, generator_of, random_sequences, random_weights, record, report
from keras import layers

ONNX = MODELS / "onnx"
BACKEND = keras.backend.backend()
STEPS = 2  # an unrolled step takes 5 KB


def build(name: str, steps: int | None, dtype: str) -> keras.Model:
    keras.backend.clear_session()
    keras.config.set_dtype_policy(dtype)
    cells = {
        "reset_after": [layers.GRU(4)],
        "open_steps": [layers.GRU(4)],
        "reset_before": [layers.GRU(4, reset_after=False)],
        "every_step": [layers.GRU(4, return_sequences=True)],
    }[name]
    return keras.Sequential([keras.Input((steps, 3)), *cells, layers.Dense(2)])


def write(name: str) -> None:
    steps = None if BACKEND == "tensorflow" or name == "open_steps" else STEPS
    path = ONNX / f"keras_{BACKEND}_{name}.onnx"
    generator = generator_of(path.stem)
    model = build(name, steps, "float32")
    model.set_weights([random_weights(generator, weights.shape) for weights in model.get_weights()])
    x = random_sequences(generator, (3, STEPS, 3))
    model(x)  # export refuses a model that was never called
    model.export(path, format="onnx", verbose=False)
    precise = build(name, steps, "float64")
    precise.set_weights(model.get_weights())
    y = keras.ops.convert_to_numpy(precise(x.astype(np.float64)))
    check(path, x, y)
    report(path)


def check(path: Path, x: np.ndarray, y: np.ndarray) -> None:
    session = onnxruntime.InferenceSession(path)
    as_written = session.run(None, {session.get_inputs()[0].name: x})[0]
    if "open_steps" in path.name:
        assert np.abs(as_written - y).max() > 0.01, path
        record(path, x=x, y=as_written, y_keras=y)
    else:
        assert np.abs(as_written - y).max() < 1e-6, path
        record(path, x=x, y=y)


def main() -> None:
    ONNX.mkdir(parents=True, exist_ok=True)
    names = ["reset_after", "reset_before", "every_step"]
    for name in [*names, "open_steps"] if BACKEND == "torch" else names:
        write(name)


if __name__ == "__main__":
    main()
