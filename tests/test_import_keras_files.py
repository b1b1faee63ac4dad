"""Files of Keras 2 and Keras 3 against the outputs that Keras computed, and all that can be wrong with an .h5."""

from __future__ import annotations

import copy
import io
import json
import random
import re
import subprocess
import sys
import textwrap
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest

import quantgru as qg
from quantgru.errors import QuantgruWarning

h5py = pytest.importorskip("h5py", reason="h5py is not installed: pip install h5py")

MODELS = Path(__file__).parent / "models"
FOLDERS = (MODELS, MODELS / "keras2", MODELS / "keras3")
FILES = sorted(path for folder in FOLDERS for path in folder.iterdir() if path.suffix in (".keras", ".h5"))
TOLERANCE = 1e-6  # measured: 1.2e-7, where Keras multiplied in float32
REFUSED = {
    "returned_state": "2 outputs; .*make a model of the one that you need",
    "masking_go_backwards": "go_backwards with return_sequences=True on masked steps",
}
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
    assert len(text) < 900
    return text


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


def cudnn_kernel(kernel):
    """As Keras 2 turns a kernel of GRU into one of CuDNNGRU: of each gate the transpose, in the shape it had before."""
    return np.hstack([block.T.reshape(block.shape) for block in np.hsplit(kernel, 3)])


def test_cudnn_gru(tmp_path):
    """The conversion is that of tf_keras, saving/legacy/hdf5_format.py, _convert_rnn_weights."""

    def change(file):
        config = json.loads(file.attrs["model_config"])
        (gru,) = [layer for layer in config["config"]["layers"] if layer["class_name"] == "GRU"]
        gru["class_name"] = "CuDNNGRU"
        for key in ("activation", "recurrent_activation", "use_bias", "reset_after", "unroll", "implementation"):
            del gru["config"][key]
        file.attrs["model_config"] = json.dumps(config)
        group = file["model_weights/gru/gru/gru_cell"]
        group["kernel:0"][...] = cudnn_kernel(group["kernel:0"][...])
        recurrent = group["recurrent_kernel:0"][...]
        group["recurrent_kernel:0"][...] = np.hstack([block.T for block in np.hsplit(recurrent, 3)])
        bias = group["bias:0"][...].reshape(-1)
        del group["bias:0"]
        group["bias:0"] = bias

    arrays = record(MODELS / "keras2" / "reset_after.h5")
    model = qg.load(changed(tmp_path, "reset_after", change))
    assert np.abs(model.run(arrays["x"]) - arrays["y"]).max() <= TOLERANCE
    model = qg.load(weights_of(changed(tmp_path, "reset_after", change)), chain="gru last dense")
    assert np.abs(model.run(arrays["x"]) - arrays["y"]).max() <= TOLERANCE


def weights_of(path: Path) -> Path:
    """What save_weights of Keras 2 writes: the group of weights as the whole file."""
    target = path.with_name("only_weights.h5")
    with h5py.File(path) as source, h5py.File(target, "w") as file:
        for name in source["model_weights"]:
            source.copy(f"model_weights/{name}", file)
        for name, value in source["model_weights"].attrs.items():
            file.attrs[name] = value
    return target


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


def test_a_layer_without_bias_does_not_say_where_its_reset_gate_acts(tmp_path):
    path = parts_file(tmp_path, layers__gru__cell=[(3, 12), (4, 12)])
    assert "write gru(after) or gru(before)" in refusal(path)
    assert qg.load(path, chain="gru(before)").grus[0].reset == "before"


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


KERNEL = "model_weights/gru/gru/gru_cell/kernel:0"


def replace_kernel(file, **options):
    del file[KERNEL]
    file.create_dataset(KERNEL, **options)


def link(target):
    def change(file):
        del file[KERNEL]
        file[KERNEL] = target

    return change


def set_nan(file):
    file[KERNEL][1, 2] = np.nan


def attribute(name, value, group="/"):
    def change(file):
        del file[group].attrs[name]
        file[group].attrs[name] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.__delitem__("model_weights/gru"), r"weights 'model_weights/gru' are missing; the file is"),
        (lambda file: file.__delitem__(KERNEL), r"weights 'model_weights/gru/gru/gru_cell/kernel:0' are missing"),
        (lambda file: file.__delitem__("model_weights"), "weights 'model_weights/gru' are missing"),
        (attribute("weight_names", ["gru/gru_cell/kernel:0"], "model_weights/gru"), "1 arrays of weights, expected 3"),
        (attribute("weight_names", np.zeros((2, 2), "S5"), "model_weights/gru"), "has shape .2, 2., expected a list"),
        (attribute("weight_names", np.zeros(3), "model_weights/gru"), "is of type number, expected text"),
        (attribute("weight_names", ["../dense/kernel:0"] * 3, "model_weights/gru"), "weights .*are missing"),
        (
            lambda file: replace_kernel(file, data=np.zeros((3, 9))),
            r"kernel \(3, 9\), its configuration says \(any, 12",
        ),
        (lambda file: replace_kernel(file, data=np.zeros((3, 12), "i1")), "kernel of type int8"),
        (lambda file: replace_kernel(file, data=np.zeros((3, 12), "S3")), r"kernel of type \|S3"),
        (lambda file: replace_kernel(file, data=np.zeros((0, 12), "f4")), r"kernel \(0, 12\), its configuration says"),
        (lambda file: replace_kernel(file, shape=(10**12, 12), dtype="f4"), "more than the [0-9]+ bytes of the file"),
        (
            lambda file: replace_kernel(file, shape=(3, 12), chunks=(4, 12), maxshape=(None, 12), dtype="f4"),
            "its data are in chunks or virtual, Keras writes them whole",
        ),
        (
            lambda file: replace_kernel(file, shape=(3, 12), dtype="f4", external=[("/etc/hostname", 0, 144)]),
            "its data are in another file",
        ),
        (link(h5py.SoftLink("/model_weights/dense/dense/kernel:0")), "weights .*/kernel:0' are missing"),
        (link(h5py.ExternalLink("other.h5", "/secret")), "a group in the newer form"),
        (set_nan, r"layer 'gru' \(GRU\): parameter 'kernel' holds nan at \[1, 2\]"),
        (attribute("keras_version", "1.2.2"), "saved by Keras 1.2.2, supported are 2 and 3; save it again there"),
        (attribute("keras_version", "4.0.0"), "saved by Keras 4.0.0, supported are 2 and 3"),
        (attribute("keras_version", np.float64(2.0)), "is of type number, expected text"),
        (lambda file: file.attrs.__delitem__("keras_version"), "saved by Keras 1, supported are 2 and 3"),
        (lambda file: file.attrs.__delitem__("model_config"), "neither a model nor weights of Keras|layer 'model_weig"),
        (attribute("model_config", "{"), "JSONDecodeError"),
        (attribute("model_config", "[" * 100_000), "RecursionError|JSONDecodeError"),
        (attribute("model_config", "[1, 2]"), "TypeError"),
        (attribute("model_config", '{"class_name": "Net", "config": {}}'), "Keras model 'Net': of class Net"),
        (attribute("model_config", '{"class_name": "A\\nB", "config": {}}'), r"of class 'A\\nB'; "),
        (attribute("model_config", '{"class_name": "%s", "config": {}}' % ("A" * 9999)), r"of class 'A{79}\.\.\."),
        (attribute("keras_version", "1\n2"), r"saved by Keras '1\\n2', supported"),
        (attribute("model_config", np.zeros(4)), r"has shape \(4,\), expected one text"),
        (attribute("model_config", b"\xff\xfe"), "UnicodeDecodeError"),
    ],
)
def test_h5_files_that_do_not_fit(tmp_path, change, message):
    text = refusal(changed(tmp_path, "reset_after", change))
    assert re.search(message, text), text


def test_weights_that_many_layers_share_do_not_add_up(tmp_path):
    """A file of 2 MB with 240 layers, each of which has the same weights of 1.5 MB."""
    size = 512
    gru = {
        **dict(units=size, use_bias=False, reset_after=True, return_sequences=True),
        **dict(activation="tanh", recurrent_activation="sigmoid"),
    }
    layers = [{"class_name": "GRU", "config": {"name": f"gru_{i}", **gru}} for i in range(240)]
    path = tmp_path / "shared.h5"
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = "3.0.0"
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": {"name": "x", "layers": layers}})
        file["kernel"] = np.ones((size, 3 * size), "f2")
        for i in range(240):
            group = file.create_group(f"model_weights/gru_{i}")
            group.attrs["weight_names"] = ["a", "b"]
            group["a"] = group["b"] = file["kernel"]
    tracemalloc.start()
    assert "with the weights before it more than the" in refusal(path)
    assert tracemalloc.get_traced_memory()[1] < 200 << 20
    tracemalloc.stop()


ACTIVATION = {"class_name": "Activation", "config": {"name": "a", "activation": "tanh"}}


def test_too_many_layers(tmp_path):
    config = {"class_name": "Sequential", "config": [ACTIVATION] * 251}
    path = changed(tmp_path, "reset_after", attribute("model_config", json.dumps(config)))
    assert "251 layers, allowed are 250" in refusal(path)


def test_activations_that_would_each_need_a_large_layer(tmp_path):
    size = 2000
    functions = dict(activation="tanh", recurrent_activation="sigmoid")
    gru = {"name": "gru", "units": size, "use_bias": False, "return_sequences": True, **functions}
    layers = [{"class_name": "GRU", "config": gru}, *[ACTIVATION] * 200]
    path = tmp_path / "wide.h5"
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = "3.0.0"
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": {"name": "x", "layers": layers}})
        group = file.create_group("model_weights/gru")
        group.attrs["weight_names"] = ["kernel", "recurrent"]
        group["kernel"], group["recurrent"] = np.ones((1, 3 * size), "f2"), np.ones((size, 3 * size), "f2")
    assert "tanh on 2000 features without a dense layer before it, too large" in refusal(path)


def test_a_file_that_is_too_large(tmp_path):
    path = tmp_path / "large.h5"
    with open(path, "wb") as file:
        file.truncate((256 << 20) + 1)
    assert "268435457 bytes, allowed are 268435456; save it without what the optimizer holds" in refusal(path)


@pytest.mark.parametrize("content", [b"", b"text\n" * 99, b"PK\x03\x04" + bytes(500)])
def test_foreign_content(tmp_path, content):
    (tmp_path / "foreign.h5").write_bytes(content)
    assert "damaged" in refusal(tmp_path / "foreign.h5")


@pytest.mark.parametrize("name", ["keras2/stack.h5", "keras3/whole.h5", "keras3/functional.weights.h5"])
def test_truncated_at_any_length(tmp_path, name):
    content = (MODELS / name).read_bytes()
    path = tmp_path / Path(name).name
    for length in range(0, len(content) - 1, 311):
        path.write_bytes(content[:length])
        assert "damaged" in refusal(path, chain=None)


@pytest.mark.parametrize("name", ["keras2/embedding.h5", "keras3/whole.h5", "keras3/functional.weights.h5"])
def test_changed_bytes(tmp_path, name):
    """HDF5 has no checksums: a changed file is another model, or refused."""
    content, generator = (MODELS / name).read_bytes(), random.Random(name)
    path = tmp_path / Path(name).name
    n_refused = 0
    for _ in range(300):
        changed_content = bytearray(content)
        for _ in range(generator.choice((1, 1, 4))):
            at = generator.randrange(generator.choice((len(content), 4000)))
            changed_content[at] = generator.choice((0, 255, changed_content[at] ^ 1 << generator.randrange(8)))
        path.write_bytes(changed_content)
        try:
            qg.load(path, chain=CHAINS.get(path.name))
        except (qg.ModelError, qg.DataError) as error:
            n_refused += 1
            assert "\n" not in str(error)  # noqa: PT017
    assert n_refused > 20


@pytest.mark.parametrize("name", ["embedding", "stack", "old_functional", "old_precise", "whole"])
def test_every_missing_or_mistyped_field_of_the_configuration(tmp_path, name):
    """Each field in turn deleted, or replaced by something of another type: an import as before, or one line."""
    (source,) = [path for path in FILES if path.name == f"{name}.h5"]
    with h5py.File(source) as file:
        config = json.loads(file.attrs["model_config"])
    content = source.read_bytes()
    paths = list(field_paths(config))
    assert len(paths) > 50
    for i, path in enumerate(paths):
        altered = copy.deepcopy(config)
        parent = altered
        for key in path[:-1]:
            parent = parent[key]
        if i % 2:
            parent[path[-1]] = [7, {"x": "y"}, "other", None, -1, [], [[1, 2]], True, 1e400][i % 9]
        else:
            del parent[path[-1]]
        stream = io.BytesIO(content)
        with h5py.File(stream, "r+") as file:
            file.attrs["model_config"] = json.dumps(altered)
        (tmp_path / "field.h5").write_bytes(stream.getvalue())
        try:
            qg.load(tmp_path / "field.h5")
        except qg.ModelError as error:
            assert "\n" not in str(error)  # noqa: PT017


def field_paths(value, path=()):
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in entries:
        yield (*path, key)
        yield from field_paths(inner, (*path, key))


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
