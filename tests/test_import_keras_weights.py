"""Files of Keras with weights only, which a chain puts in order."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from keras_files import MODELS, TOLERANCE, changed, h5py, record, refusal, weights_of

import quantgru as qg

GRU = [(3, 12), (4, 12)]  # shapes of one without bias


@pytest.mark.parametrize(
    ("name", "chain"),
    [
        ("reset_after", "gru last dense"),
        ("stack", "first second(after) last scores sigmoid"),
        ("embedding", "embedding bidirectional(sum) time_distributed"),
        ("precise", "net(hard_sigmoid, linear) last dense sigmoid"),
        ("old_precise", "net(hard_sigmoid, linear) last score sigmoid"),
        ("old_functional", "both(hard_sigmoid, tanh) final scores"),
    ],
)
def test_weights_of_keras_2(tmp_path, name, chain):
    arrays = record(MODELS / "keras2" / f"{name}.h5")
    path = weights_of(changed(tmp_path, name, lambda file: None))
    if name == "stack":  # reset before the product, and no bias that would tell it
        chain = chain.replace("after", "before")
    found = qg.load(path, chain=chain).run(arrays["x"])
    assert found.shape == arrays["y"].shape
    assert np.abs(found - arrays["y"]).max() <= TOLERANCE


def weights_in(path: Path, target: Path) -> Path:
    """The weights of a .keras file, which are as save_weights of Keras 3 writes them."""
    import zipfile

    with zipfile.ZipFile(path) as archive:
        target.write_bytes(archive.read("model.weights.h5"))
    return target


@pytest.mark.parametrize(
    ("name", "chain"),
    [
        ("functional", "first second last scores"),
        ("bidirectional_mul", "bidirectional(mul)"),
        ("bidirectional_sum", "bidirectional(sum) final dense"),
        ("bidirectional_stack", "bidirectional gru_1 bidirectional_1(sum)"),
        ("go_backwards_last", "reverse gru last dense"),
        ("go_backwards_stack", "gru reverse gru_1"),
        ("cell", "rnn last dense"),
        ("cells", "rnn"),
        ("embedding", "embedding gru"),
        ("batch_normalization", "batch_normalization gru batch_normalization_1 gru_1 last"),
        ("normalization", "normalization gru last dense"),
        ("dense_between", "dense tanh gru time_distributed relu gru_1 last dense_2 sigmoid dense_3"),
        ("relu", "gru(sigmoid, relu)"),
        ("hard_sigmoid", "gru(hard_sigmoid, tanh) last dense"),
    ],
)
def test_weights_of_keras_3(tmp_path, name, chain):
    path = MODELS / "keras3" / f"{name}.keras"
    arrays = record(path)
    found = qg.load(weights_in(path, tmp_path / "x.weights.h5"), chain=chain).run(arrays["x"])
    assert found.shape == arrays["y"].shape
    assert np.abs(found - arrays["y"]).max() <= TOLERANCE


def test_weights_without_a_chain(tmp_path):
    text = refusal(MODELS / "keras3" / "functional.weights.h5")
    assert "'first' (GRU 3 → 5), 'second' (GRU 5 → 4)" in text
    assert "for example chain='first second last scores'" in text
    arrays = record(MODELS / "keras3" / "linear.keras")
    alone = weights_in(MODELS / "keras3" / "relu.keras", tmp_path / "my_gru.weights.h5")
    assert qg.load(alone).name == "my_gru"
    assert qg.load(alone).run(arrays["x"]).shape == arrays["y"].shape


def test_a_chain_for_a_whole_model():
    with pytest.raises(qg.ConfigError, match="the file says how its layers run; leave it out"):
        qg.load(MODELS / "keras3" / "whole.h5", chain="gru")


def parts_file(tmp_path: Path, **arrays: list[tuple[int, ...]]) -> Path:
    """Weights of layers by group, of given shapes."""
    path = tmp_path / "parts.weights.h5"
    with h5py.File(path, "w") as file:
        file.create_group("vars")
        for name, shapes in arrays.items():
            for i, shape in enumerate(shapes):
                file[f"{name.replace('__', '/')}/vars/{i}"] = np.ones(shape, "f4")
    return path


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (dict(layers__lstm__cell=[(3, 16), (4, 16), (16,)]), "'lstm' (an LSTM layer)"),
        (dict(layers__simple_rnn__cell=[(3, 4), (4, 4), (4,)]), "'simple_rnn' (a SimpleRNN layer)"),
        (dict(layers__gru__cell=[(3, 12), (4, 12), (24,)]), "'gru' (GRU 3 → 4)"),  # of CuDNNGRU
        (dict(layers__gru__cell=[(3, 12), (4, 12), (11,)]), "'gru' (a layer (rnn) with arrays 3x12, 4x12, 11)"),
        (dict(layers__gru__cell=[(3, 12)]), "'gru' (a layer (rnn) with arrays 3x12)"),
        (dict(layers__gru__cell=[(0, 12), (4, 12)]), "'gru' (a layer (rnn) with arrays 0x12, 4x12)"),
        (dict(layers__conv1d=[(3, 2, 4), (4,)]), "'conv1d' (a layer (conv1d) with arrays 3x2x4, 4)"),
        (dict(layers__layer_normalization=[(4,), (4,)]), "(a layer (layer_normalization) with arrays 4, 4)"),
        (dict(layers__batch_normalization=[(4,)] * 3), "(a layer (batch_normalization) with arrays 4, 4, 4)"),
        (dict(encoder__cell=[(3, 12), (4, 12)], fc=[(4, 2), (2,)]), "'encoder' (GRU 3 → 4), 'fc' (dense 4 → 2)"),
        (dict(attention__key=[(4, 2), (2,)], attention__value=[(4, 2), (2,)]), "'attention' (a layer (attention) with"),
        (dict(a__layers__gru__cell=[(3, 12), (4, 12)], layers__gru__cell=[(4, 12), (4, 12)]), "'gru' (GRU 4 → 4)"),
    ],
)
def test_what_the_parts_of_a_weights_file_are(tmp_path, arrays, message):
    assert message in refusal(parts_file(tmp_path, **arrays), chain="nothing").replace("; it holds ", "")


@pytest.mark.parametrize(
    "arrays",
    [
        dict(layers__mine__first__cell=GRU, layers__mine__second__cell=GRU),
        dict(layers__mine__dense=[(3, 4), (4,)], layers__mine__gru__cell=GRU),
        dict(layers__mine__dense=[(3, 4), (4,)], layers__mine__cell=GRU),
        dict(layers__mine=[(4,)], layers__mine__cell=GRU),
        dict(layers__mine__blocks__gru__cell=GRU),
    ],
)
def test_layers_of_the_users_are_named(tmp_path, arrays):
    """They hold more than one layer of Keras, and nothing says what they do with it."""
    path = parts_file(tmp_path, layers__gru__cell=GRU, **arrays)
    assert re.search(r"several modules, .*'mine' \(a layer \((mine|other)\) with arrays", refusal(path))


@pytest.mark.parametrize(
    ("name", "group"), [("vars", ""), ("inner/vars", "inner/"), ("layers/inner/vars", "layers/inner/")]
)
def test_weights_of_a_model_itself_are_named(tmp_path, name, group):
    """As add_weight makes them, a learned initial state perhaps."""
    path = parts_file(tmp_path, **{f"{group}layers/gru/cell": GRU})
    with h5py.File(path, "a") as file:
        file[f"{group}vars/0"] = np.ones((1, 4), "f4")
    assert f"several modules, without their order; it holds '{name}' (a layer (model) with arrays 1x4)" in refusal(path)
    with pytest.warns(qg.QuantgruWarning, match=f"left out: '{name}'"):
        qg.load(path, chain="gru(after)")


def test_a_model_inside_a_model_of_keras_2(tmp_path):
    """Its GRU layers are none of one RNN layer: anything may be between them."""
    path = tmp_path / "weights.h5"
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = "2.15.0"
        file.attrs["layer_names"] = ["sequential"]
        names = [f"{gru}/gru_cell/{array}:0" for gru in ("gru", "gru_1") for array in ("kernel", "recurrent_kernel")]
        file.create_group("sequential").attrs["weight_names"] = names
        for name, shape in zip(names, [(3, 12), (4, 12), (4, 12), (4, 12)], strict=True):
            file[f"sequential/{name}"] = np.ones(shape, "f4")
    assert "'sequential' (a layer (other) with arrays 3x12, 4x12, 4x12, 4x12)" in refusal(path)


def test_a_layer_without_bias_does_not_say_where_its_reset_gate_acts(tmp_path):
    path = parts_file(tmp_path, layers__gru__cell=[(3, 12), (4, 12)])
    assert "write gru(after) or gru(before)" in refusal(path)
    assert qg.load(path, chain="gru(before)").grus[0].reset == "before"


def test_weights_of_cudnn_gru(tmp_path):
    """Their kernels are packed in another way, which the shape of the bias says. Nothing else is in the file."""
    path = changed(tmp_path, "keras2_cudnn", lambda file: None)
    arrays = record(MODELS / "structures" / "keras2_cudnn.h5")
    for model in (qg.load(path), qg.load(weights_of(path), chain="outer gru last")):
        assert np.abs(model.run(arrays["x"]) - arrays["y"]).max() <= TOLERANCE


def test_weights_that_do_not_say_of_which_keras_they_are(tmp_path):
    """Late versions of Keras 2 write the layout of Keras 3, whose hard_sigmoid has another slope."""
    path = MODELS / "structures" / "keras2_masked_rescaling.keras"
    weights, arrays = weights_in(path, tmp_path / "x.weights.h5"), record(path)
    text = refusal(weights, chain="gru(hard_sigmoid, tanh) last")
    assert "write hard_sigmoid(0.2) in the brackets if it was Keras 2, hard_sigmoid(1/6) if it was Keras 3" in text
    model = qg.load(weights, chain="gru(hard_sigmoid(0.2), tanh) last")
    assert np.abs(model.run(arrays["x"] * 2 + 1) - arrays["y"]).max() <= TOLERANCE
    assert model.notes == ("imported from weights of Keras 2 or 3 in x.weights.h5",)
    with_names = weights_in(MODELS / "keras3" / "hard_sigmoid.keras", tmp_path / "y.weights.h5")
    runs = [
        qg.load(with_names, chain=f"gru({gates}, tanh) last dense").run(arrays["x"])
        for gates in ("hard_sigmoid", "hard_sigmoid(1/6)")
    ]
    assert np.array_equal(*runs)
    assert "in brackets may be two functions" in refusal(with_names, chain="gru(hard_sigmoid(0.3), tanh)")
