"""What the tests of live Keras models share: layers in float64, random weights, and the comparison with the import."""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np
import pytest

import quantgru as qg

torch = pytest.importorskip(
    "torch", reason="PyTorch, the back end of these tests, is not installed: pip install quantgru[torch]"
)
keras = pytest.importorskip("keras", reason="Keras is not installed: pip install 'keras>=3.6'")

from keras import layers  # noqa: E402

# Of the largest value. Measured: 1e-12; with normalisations, of which Keras keeps constants in float32, 2e-7.
TOLERANCE = 1e-6
CANDIDATES = ["tanh", "relu", "linear", "sigmoid"]
if hasattr(keras.activations, "hard_tanh"):  # since Keras 3.7
    CANDIDATES.append("hard_tanh")
MERGES = ["concat", "sum", "mul", "ave"]


@pytest.fixture(autouse=True)
def float64_layers(monkeypatch):
    """Keras multiplies float64 matrices in float32, so that its back end does this in its place."""
    monkeypatch.setattr(keras.src.backend.numpy, "matmul", torch.matmul)
    before = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx(before[0])
    keras.config.set_dtype_policy(before[1])


def seeded(model, scale: float = 0.8, seed: int = 7):
    """With normal weights, biases too; variances are positive."""
    generator = np.random.default_rng(seed)
    for variable in model.weights:
        if "seed" not in variable.path and "count" not in variable.path:
            values = generator.normal(0, scale, variable.shape)
            variable.assign(values**2 + 0.3 if "variance" in variable.path else values)
    if hasattr(model, "layers"):
        for layer in model.layers:
            if isinstance(layer, layers.Normalization):
                layer.finalize_state()
    return model


def sequential(*parts, steps=None, features=3, seed=7):
    return seeded(keras.Sequential([keras.Input((steps, features)), *parts]), seed=seed)


def functional(call, features=3):
    x = keras.Input((None, features))
    return seeded(keras.Model(x, call(x)))


def tokens(*parts):
    return seeded(keras.Sequential([keras.Input((None,), dtype="int32"), *parts]))


def run(model, x, **arguments):
    return keras.ops.convert_to_numpy(model(x, training=False, **arguments))


def masked(x, keep, value):
    """x with masked steps, those where `keep` is false."""
    return np.where(keep[..., None], x, value)


def difference(expected, found) -> float:
    """The largest one, of the largest expected value."""
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-30))


def assert_equal(source, model: qg.FloatModel, steps: int = 11, after=lambda y: y) -> None:
    """The outputs for random input [4, steps, inputs] are equal."""
    x = np.random.default_rng(3).standard_normal((4, steps, model.n_inputs))
    assert difference(run(source, x), after(model.run(x))) <= TOLERANCE


def constant(**arguments):
    """A GRU layer with the weights of Keras's own tests."""
    values = {"kernel": 0.01, "recurrent": 0.02, "bias": 0.03}
    fixed = {f"{name}_initializer": keras.initializers.Constant(value) for name, value in values.items()}
    return layers.GRU(**fixed, **arguments)


def assert_refused(make, message: str) -> None:
    """What `make` makes is refused in one line that a reader grasps."""
    with pytest.raises(qg.ModelError, match=message) as caught:
        qg.load(make())
    assert len(str(caught.value)) <= 400
    assert "\n" not in str(caught.value)
