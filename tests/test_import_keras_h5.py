"""All that can be wrong with an `.h5` file of Keras: one line each, in little time and memory."""

from __future__ import annotations

import io
import json
import random
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from keras_files import CHAINS, FILES, MODELS, attribute, broken_configurations, changed, h5py, refusal

import quantgru as qg

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
        (attribute("model_config", '{"class_name": "A\\nB", "config": {}}'), r"of class 'A\\nB', whose call"),
        (attribute("model_config", '{"class_name": "%s", "config": {}}' % ("A" * 9999)), r"of class 'A{47}\.\.\."),
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


@pytest.mark.parametrize(
    "name",
    ["embedding", "stack", "old_functional", "old_precise", "whole", "keras2_operations", "keras2_constant_state"],
)
def test_every_missing_or_mistyped_field_of_the_configuration(tmp_path, name):
    """Each field in turn deleted, or replaced by something of another type: an import as before, or one line."""
    (source,) = [path for path in FILES if path.name == f"{name}.h5"]
    with h5py.File(source) as file:
        config = json.loads(file.attrs["model_config"])
    content, altered_ones = source.read_bytes(), list(broken_configurations(config))
    assert len(altered_ones) > 50
    for altered in altered_ones:
        stream = io.BytesIO(content)
        with h5py.File(stream, "r+") as file:
            file.attrs["model_config"] = json.dumps(altered)
        (tmp_path / "field.h5").write_bytes(stream.getvalue())
        try:
            qg.load(tmp_path / "field.h5")
        except qg.ModelError as error:
            assert "\n" not in str(error)  # noqa: PT017
