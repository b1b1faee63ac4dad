"""Writes tests/models/onnx/keras_*: what Keras itself exports, with its PyTorch and with its TensorFlow back end.

    pip install torch==2.13.0 keras==3.15.1 onnx==1.23.2 onnxruntime onnxscript==0.7.2
    KERAS_BACKEND=torch python tools/import_test_models/keras_onnx.py

    pip install tensorflow-cpu==2.21.0 keras==3.15.1 tf2onnx==1.17.0 onnx==1.23.2 onnxruntime
    KERAS_BACKEND=tensorflow python tools/import_test_models/keras_onnx.py

Neither holds a GRU node. The PyTorch back end unrolls the steps; where their number is left open it exports those of
the sample that Keras makes up, which is one step, without a word: keras_torch_open_steps records both outputs. The
TensorFlow back end exports a Loop over the operations of the cell.
"""

from __future__ import annotations

import keras
import numpy as np
import onnxruntime
from common import MODELS, generator_of, random_sequences, random_weights, record, report
from keras import layers

ONNX = MODELS / "onnx"
BACKEND = keras.backend.backend()
STEPS = 2  # an unrolled step takes 5 KB


def build(name: str) -> keras.Model:
    keras.backend.clear_session()
    gru = {
        "reset_after": layers.GRU(4),
        "open_steps": layers.GRU(4),
        "reset_before": layers.GRU(4, reset_after=False),
        "every_step": layers.GRU(4, return_sequences=True),
    }[name]
    steps = None if BACKEND == "tensorflow" or name == "open_steps" else STEPS
    return keras.Sequential([keras.Input((steps, 3)), gru, layers.Dense(2)])


def write(name: str) -> None:
    path = ONNX / f"keras_{BACKEND}_{name}.onnx"
    generator = generator_of(path.stem)
    model = build(name)
    model.set_weights([random_weights(generator, weights.shape) for weights in model.get_weights()])
    x = random_sequences(generator, (3, STEPS, 3))
    y = keras.ops.convert_to_numpy(model(x))  # also: export refuses a model that was never called
    model.export(path, format="onnx", verbose=False)
    report(path)
    session = onnxruntime.InferenceSession(path)
    as_written = session.run(None, {session.get_inputs()[0].name: x})[0]
    difference = np.abs(as_written - y).max()
    if name == "open_steps":
        assert difference > 0.01, path
        record(path, x=x, y=as_written, y_keras=y)
    else:
        assert difference < 1e-6, path
        record(path, x=x, y=y)


def main() -> None:
    ONNX.mkdir(parents=True, exist_ok=True)
    for name in ("reset_after", "reset_before", "open_steps" if BACKEND == "torch" else "every_step"):
        write(name)


if __name__ == "__main__":
    main()
