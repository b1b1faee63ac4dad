"""Writes tests/models/onnx/keras_*: what Keras itself exports, with its PyTorch and with its TensorFlow back end.

    pip install torch==2.13.0 keras==3.15.1 onnx==1.23.2 onnxruntime onnxscript==0.7.2
    KERAS_BACKEND=torch python tools/import_test_models/keras_onnx.py

    pip install tensorflow-cpu==2.21.0 keras==3.15.1 tf2onnx==1.17.0 onnx==1.23.2 onnxruntime
    KERAS_BACKEND=tensorflow python tools/import_test_models/keras_onnx.py

Names after the script are those of single models. Neither back end writes a GRU node. PyTorch's unrolls the steps;
where their number is left open it exports those of the sample that Keras makes up, which is one step, without a word:
keras_torch_open_steps records both outputs. TensorFlow's exports a Loop over the operations of the cell.
"""

from __future__ import annotations

import sys

import keras
import numpy as np
import onnxruntime
from common import MODELS, generator_of, random_sequences, random_weights, record, report
from keras import layers

ONNX = MODELS / "onnx"
BACKEND = keras.backend.backend()
STEPS = 2  # an unrolled step takes 5 KB
STEPS_OF_LOOP = 5
NAMES = {
    "torch": ("reset_after", "reset_before", "open_steps"),
    "tensorflow": ("reset_after", "reset_before", "every_step", "bidirectional", "backwards", "hard_sigmoid", "masked"),
}


def layers_of(name: str) -> list[keras.Layer]:
    match name:
        case "reset_before":
            return [layers.GRU(4, reset_after=False), layers.Dense(2)]
        case "every_step":
            return [layers.GRU(4, return_sequences=True), layers.Dense(2)]
        case "bidirectional":
            first = layers.Bidirectional(layers.GRU(3, return_sequences=True))
            return [first, layers.Bidirectional(layers.GRU(2, reset_after=False)), layers.Dense(2)]
        case "backwards":
            return [layers.GRU(4, go_backwards=True, return_sequences=True), layers.GRU(3), layers.Dense(2)]
        case "hard_sigmoid":
            return [layers.GRU(4, "relu", "hard_sigmoid", return_sequences=True), layers.Dense(2)]
        case "masked":
            return [layers.Masking(), layers.GRU(4), layers.Dense(2)]
    return [layers.GRU(4), layers.Dense(2)]


def build(name: str) -> keras.Model:
    keras.backend.clear_session()
    fixed = {"hard_sigmoid": STEPS_OF_LOOP, "open_steps": None}.get(name, STEPS if BACKEND == "torch" else None)
    return keras.Sequential([keras.Input((fixed, 3)), *layers_of(name)])


def write(name: str) -> None:
    path = ONNX / f"keras_{BACKEND}_{name}.onnx"
    generator = generator_of(path.stem)
    model = build(name)
    model.set_weights([random_weights(generator, weights.shape) for weights in model.get_weights()])
    old = name.startswith("reset") or name in ("every_step", "open_steps")
    x = random_sequences(generator, (3, STEPS if old else STEPS_OF_LOOP, 3))
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
    for name in sys.argv[1:] or NAMES[BACKEND]:
        write(name)


if __name__ == "__main__":
    main()
