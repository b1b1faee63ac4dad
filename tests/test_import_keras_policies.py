"""Keras models in half precision, with LoRA and with quantized weights: live, and as files."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from keras_models import difference, keras, layers, run, seeded, sequential, tokens

import quantgru as qg

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Keras, when it runs and saves
SUFFIXES = [".keras", ".h5"]
SOURCES = ["live", *SUFFIXES]


def given(model, source, tmp_path):
    """The model itself, or a file of it."""
    if source == "live":
        return model
    path = tmp_path / f"model{source}"
    with warnings.catch_warnings(action="ignore"):
        model.save(path)
    return path


def with_policy(policy):
    """Its last layer in full precision, as Keras advises."""
    parts = [
        layers.BatchNormalization(dtype=policy),
        layers.Bidirectional(layers.GRU(6, return_sequences=True, dtype=policy), dtype=policy),
        layers.TimeDistributed(layers.Dense(4, activation="relu", dtype=policy), dtype=policy),
        layers.GRU(5, reset_after=False, dtype=policy),
        layers.Dense(2, dtype="float32"),
    ]
    return sequential(*parts)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_mixed_precision_is_imported_in_full(tmp_path, precision, source):
    """The same as of a model with the same weights in float32; live ones are compared within what the rounding does."""
    mixed, full = with_policy(f"mixed_{precision}"), with_policy("float32")
    full.set_weights(mixed.get_weights())
    model = qg.load(given(mixed, source, tmp_path))
    assert any(f"Keras computes in {precision}, the import in full precision" in note for note in model.notes)
    assert any("compared with Keras: the same within" in note for note in model.notes) == (source == "live")
    x = np.random.default_rng(3).standard_normal((4, 9, 3))
    assert difference(run(full, x), model.run(x)) <= 1e-5


def test_half_precision_inside_a_layer_in_full():
    half = dict(dtype="mixed_float16")
    source = sequential(
        layers.Bidirectional(layers.GRU(4, return_sequences=True, **half), dtype="float32"),
        layers.TimeDistributed(layers.Dense(3, **half), dtype="float32"),
        layers.RNN(layers.GRUCell(3, **half), dtype="float32"),
    )
    x = np.random.default_rng(3).standard_normal((4, 9, 3))
    assert difference(run(source, x).astype(np.float64), qg.load(source).run(x)) <= 1e-2


def test_full_precision_has_no_note(tmp_path):
    for source in SOURCES:
        model = qg.load(given(with_policy("float32"), source, tmp_path))
        assert not any("precision" in note or "compared" in note for note in model.notes)


def test_masked_tokens_in_half_precision():
    policy = dict(dtype="mixed_float16")
    source = tokens(layers.Embedding(7, 3, mask_zero=True, **policy), layers.GRU(4, **policy))
    x = np.random.default_rng(5).integers(0, 7, (9, 8))
    found = qg.load(source).run(x[..., None])
    assert difference(run(source, x).astype(np.float64), found) <= 1e-2


def model_with_lora():
    parts = [layers.Embedding(7, 4, name="words"), layers.GRU(4), layers.Dense(3, name="fc")]
    model = keras.Sequential([keras.Input((None,), dtype="int32"), *parts])
    model.get_layer("words").enable_lora(2)
    model.get_layer("fc").enable_lora(2, **({"lora_alpha": 3} if takes_alpha() else {}))
    return seeded(model)


def takes_alpha():
    return "lora_alpha" in layers.Dense.enable_lora.__code__.co_varnames


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_files_with_merged_lora(tmp_path, suffix):
    """Keras adds the product of both LoRA weights to the kernel that it saves."""
    model = model_with_lora()
    path = tmp_path / f"model{suffix}"
    model.save(path) if suffix == ".keras" else model.save_weights(path)
    x = np.random.default_rng(5).integers(0, 7, (9, 8))
    chain = None if suffix == ".keras" else f"words {model.layers[1].name} last fc"
    found = qg.load(path, chain=chain)
    assert difference(run(model, x), found.run(x[..., None])) <= 1e-5


@pytest.mark.parametrize("source", ["live", ".h5"])
@pytest.mark.parametrize("name", ["words", "fc"])
def test_lora_beside_the_weights(tmp_path, name, source):
    model = tokens(layers.Embedding(7, 4, name="words"), layers.GRU(4), layers.Dense(3, name="fc"))
    model.get_layer(name).enable_lora(2)
    message = rf"layer '{name}' .*LoRA weights beside its own \(enable_lora\); .*save the model as \.keras"
    with pytest.raises(qg.ModelError, match=message):
        qg.load(given(model, source, tmp_path))


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("mode", ["int8", "float8"])
def test_quantized_weights(tmp_path, mode, source):
    model = sequential(layers.GRU(4), layers.Dense(3, name="fc"))
    with warnings.catch_warnings(action="ignore"):  # of the layers that Keras does not quantize
        model.quantize(mode)
    message = (
        rf"layer 'fc' \(Dense\): its weights were quantized by Keras \('{mode}'\); .*as it was before quantize\(\)"
    )
    with pytest.raises(qg.ModelError, match=message):
        qg.load(given(model, source, tmp_path))
