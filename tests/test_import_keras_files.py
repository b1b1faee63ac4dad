"""Files of Keras 2 and Keras 3 against the outputs that Keras computed, and against live models."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
import textwrap
import warnings

import numpy as np
import pytest
from keras_files import CHAINS, FILES, MODELS, TOLERANCE, all_data_sets, changed, record, refusal

import quantgru as qg
from quantgru.errors import QuantgruWarning

REFUSED = {
    "returned_state": "2 outputs; .*make a model of the one that you need",
    "masking_go_backwards": "go_backwards with return_sequences=True on masked steps",
}


def test_there_are_files():
    names = {path.name for path in FILES}
    assert len(FILES) >= 45
    assert {"old_precise.h5", "whole.h5", "functional.weights.h5", "bidirectional_ave.keras"} <= names


@pytest.mark.parametrize("path", FILES, ids=[f"{path.parent.name}/{path.name}" for path in FILES])
def test_recorded_outputs(path):
    arrays, name = record(path), path.name.split(".")[0]
    if name in REFUSED:
        assert re.search(REFUSED[name], refusal(path))
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = qg.load(path, chain=CHAINS.get(path.name))
    x, expected = arrays["x"], arrays["y"]
    found = model.run(x, initial_states=[arrays["h0"]] if "h0" in arrays else None)
    assert found.shape == expected.shape
    if name == "masking_bidirectional":  # Keras gives 0 at masked steps, which a warning tells
        assert [warning.category for warning in caught] == [QuantgruWarning]
        keep = (x != -1.5).any(axis=-1)
        assert keep.sum() == 17
        found, expected = found[keep], expected[keep]
    else:
        assert not caught
    assert np.abs(found - expected).max() <= TOLERANCE


def test_a_stateful_model_goes_on():
    arrays = record(MODELS / "keras3" / "stateful.npz")
    model = qg.load(MODELS / "keras3" / "stateful.keras")
    found = model.run(arrays["x"], initial_states=model.final_states(arrays["x"]))
    assert np.abs(found - arrays["y_next"]).max() <= TOLERANCE


def test_neither_a_framework_nor_h5py_is_imported():
    code = f"""
    import sys, warnings
    import quantgru as qg
    for path in {[str(MODELS / "keras3" / name) for name in ("whole.h5", "whole.keras", "embedding.keras")]}:
        qg.load(path)
    found = {{"keras", "torch", "tensorflow", "jax", "h5py"}} & set(sys.modules)
    assert not found, found
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=60)


@pytest.mark.parametrize(("version", "slope"), [("2.3.1", 0.2), ("2.21.0", 0.2), ("3.0.0", 1 / 6)])
def test_hard_sigmoid_is_that_of_the_version_in_the_file(tmp_path, version, slope):
    """Gates of hard_sigmoid(1) are 1/2 + slope; with z = r = g, a GRU of zero weights gives (1 - g) tanh(1)."""

    def change(file):
        file.attrs["keras_version"] = version
        for name, weights in [(name, item) for name, item in all_data_sets(file) if "net" in name]:
            weights[...] = 1.0 if "bias" in name else 0.0

    model = qg.load(changed(tmp_path, "precise", change))
    assert model.grus[0].candidate == "linear"
    body = qg.FloatModel(model.grus, last_step=True)
    assert np.allclose(body.run(np.zeros((1, 1, 3))), 0.5 - slope, atol=1e-12)


def with_gru_before_identity(file, config):
    """The GRU layer twice, in between Identity, where the mask ends in Keras 2."""
    gru = config["config"]["layers"].pop()
    first = copy.deepcopy(gru)
    first["config"] |= {"name": "first", "return_sequences": True}
    config["config"]["layers"][-1:] = [first, config["config"]["layers"][-1], gru]
    file.copy(f"model_weights/{gru['config']['name']}", "model_weights/first")


def with_another_value(file, config):
    (masking,) = [layer for layer in config["config"]["layers"] if layer["class_name"] == "Masking"]
    masking["config"]["mask_value"] = 1.5


@pytest.mark.parametrize("change", [with_gru_before_identity, with_another_value])
def test_a_mask_that_ends_where_only_keras_2_ends_it(tmp_path, change):
    """If a layer before used it, or if it changed the inputs."""

    def changed_for(version):
        def apply(file):
            config = json.loads(file.attrs["model_config"])
            change(file, config)
            file.attrs["model_config"] = json.dumps(config)
            file.attrs["keras_version"] = version

        return changed(tmp_path, "keras2_masked_identity", apply)

    text = refusal(changed_for("2.21.0"))
    assert re.search(r"\(GRU\): gets no mask, since layer '[a-z_0-9]+' \(Identity\) does not hand it on", text)
    assert qg.load(changed_for("3.0.0")).mask_value is not None
    assert qg.load(MODELS / "structures" / "keras2_masked_identity.h5").mask_value is None


def live_models():
    """Models of the installed Keras whose files are compared with themselves."""
    from keras_models import functional, keras, layers, sequential, tokens

    inner = keras.Sequential(
        [keras.Input((None, 3)), layers.BatchNormalization(), layers.GRU(3, return_sequences=True, name="gru")],
        name="inner",
    )
    deepest = keras.Sequential([keras.Input((None, 3)), inner, layers.Dense(2, name="gru")], name="outer")
    first = layers.Dense(3, activation="tanh", name="first")
    yield "nested", functional(lambda x: layers.GRU(2)(deepest(first(x))))
    yield (
        "chain",
        sequential(
            layers.Rescaling([0.5, 2, 1], offset=1),
            layers.TimeDistributed(layers.Dense(4, activation="relu")),
            layers.Bidirectional(layers.RNN(layers.GRUCell(3, activation="relu"), return_sequences=True)),
            layers.BatchNormalization(scale=False),
            layers.RNN([layers.GRUCell(3), layers.GRUCell(2)], go_backwards=True),
            layers.Dense(2, activation="sigmoid"),
        ),
    )
    yield "masked", functional(lambda x: layers.Bidirectional(layers.GRU(3))(layers.Masking(0.5)(x)))
    yield "index", functional(lambda x: layers.GRU(3, return_sequences=True, dropout=0.1)(x)[:, -1])
    yield "tokens", tokens(layers.Embedding(5, 3, mask_zero=True), layers.GRU(3, reset_after=False))


@pytest.mark.filterwarnings("ignore")  # of Keras: .h5 is its legacy format
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_files_of_the_installed_keras_equal_the_live_models(tmp_path, suffix):
    for name, source in live_models():
        source.save(tmp_path / f"{name}{suffix}")
        live, loaded = qg.load(source), qg.load(tmp_path / f"{name}{suffix}")
        x = np.random.default_rng(0).integers(1, 5, (3, 6, live.n_inputs)).astype(float)
        assert np.abs(loaded.run(x) - live.run(x)).max() <= 1e-12
        assert [layer.name for layer in loaded.layers] == [layer.name for layer in live.layers]
        assert loaded.mask_value == live.mask_value
