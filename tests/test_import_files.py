"""Model files by their names, and everything that can be wrong with a .keras archive."""

from __future__ import annotations

import io
import json
import os
import random
import re
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from keras_files import broken_configurations, h5py

import quantgru as qg

MODELS = Path(__file__).parent / "models"


@pytest.fixture
def members() -> dict[str, bytes]:
    """The members of stack.keras, to be changed and packed again."""
    with zipfile.ZipFile(MODELS / "stack.keras") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def refusal(path: Path | str, **options: str) -> str:
    with pytest.raises(qg.ModelError) as caught:
        qg.load(path, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 700
    return text


def test_names_and_paths():
    model = qg.load(str(MODELS / "stack.keras"))
    assert [layer.name for layer in model.layers] == ["first", "second", "each_step", "scores"]
    assert [layer.reset for layer in model.grus] == ["after", "before"]
    assert [layer.activation for layer in model.head] == ["tanh", "linear"]
    assert qg.load(MODELS / "stack.keras", name="kws").name == "kws"


def test_float_model_and_its_file(tmp_path):
    model = qg.load(MODELS / "stack.keras")
    assert qg.load(model) is model
    model.save(tmp_path / "stack.qgf")
    x = np.load(MODELS / "stack.npz")["x"]
    assert np.array_equal(qg.load(tmp_path / "stack.qgf").run(x), model.run(x))


def test_file_of_the_installed_keras_equals_the_live_model(tmp_path):
    os.environ.setdefault("KERAS_BACKEND", "torch")
    pytest.importorskip("torch", reason="PyTorch, the back end of this test, is not installed")
    keras = pytest.importorskip("keras", reason="Keras is not installed: pip install 'keras>=3.6'")
    layers = keras.layers
    source = keras.Sequential(
        [
            keras.Input((None, 3)),
            layers.GRU(4, return_sequences=True),
            layers.GRU(4, reset_after=False, return_sequences=True, use_bias=False),
            layers.GRU(5),
            layers.Dense(4),
            layers.Activation("tanh"),
            layers.Dropout(0.5),
            layers.Dense(3, activation="softmax"),
        ]
    )
    source.compile("adam", "categorical_crossentropy")
    source.save(tmp_path / "saved.keras")
    from_file, live = (qg.load(s, softmax="logits") for s in (tmp_path / "saved.keras", source))
    x = np.random.default_rng(0).standard_normal((2, 7, 3))
    assert np.array_equal(from_file.run(x), live.run(x))
    assert [layer.name for layer in from_file.layers] == [layer.name for layer in live.layers]
    assert "softmax" in refusal(tmp_path / "saved.keras")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.keras", "model .*: no such file; expected a file: Keras 3 model"),
        ("missing.qgf", "no such file"),
        (
            "model.qgru",
            r"is already quantized: use it with simulate, explain, export, .*qg\.IntModel\.load\(path\)",
        ),
        ("missing.h5", "no such file; expected a file: Keras 2 or Keras 3 model"),
        ("model.txt", r"file type '\.txt'; supported are \.keras, \.h5, .*`quantgru formats` says"),
        ("model", "file type ''; supported are"),
    ],
)
def test_other_files(tmp_path, name, message):
    with pytest.raises(qg.ModelError, match=message):
        qg.load(tmp_path / name)


def test_folder(tmp_path):
    (tmp_path / "model.keras").mkdir()
    assert "a folder" in refusal(tmp_path / "model.keras")


@pytest.mark.parametrize("name", ["stack.keras", "reset_before.keras"])
def test_truncated_at_any_length(tmp_path, name):
    content = (MODELS / name).read_bytes()
    path = tmp_path / "cut.keras"
    for length in [*range(0, len(content), 97), *range(len(content) - 30, len(content))]:
        path.write_bytes(content[:length])
        assert "damaged" in refusal(path)


def test_changed_bytes_are_refused_or_without_effect(tmp_path):
    """Archives have checksums: a change is refused, or is in a field that does not matter."""
    content = (MODELS / "reset_after.keras").read_bytes()
    expected = qg.load(MODELS / "reset_after.keras")
    x = np.load(MODELS / "reset_after.npz")["x"]
    generator = random.Random(1)
    path = tmp_path / "changed.keras"
    n_refused = 0
    for _ in range(150):
        changed = bytearray(content)
        changed[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
        path.write_bytes(changed)
        try:
            assert np.array_equal(qg.load(path).run(x), expected.run(x))
        except qg.ModelError as error:
            n_refused += 1
            assert "\n" not in str(error)  # noqa: PT017
    assert n_refused > 100


@pytest.mark.parametrize(
    "content", [b"", b"\x89HDF\r\n\x1a\n" + bytes(100), b"PK\x03\x04" + bytes(500), b"text\n" * 99]
)
def test_foreign_content(tmp_path, content):
    path = tmp_path / "foreign.keras"
    path.write_bytes(content)
    assert "not a readable zip archive" in refusal(path)


@pytest.mark.parametrize("missing", ["metadata.json", "config.json", "model.weights.h5"])
def test_archive_without_a_member(tmp_path, members, missing):
    del members[missing]
    assert f"holds no {missing}" in refusal(packed(tmp_path / "part.keras", members))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "config.json is not JSON"),
        (b'{"class_name": "Seq', "config.json is not JSON"),
        (b"\xff\xfe\x00", "config.json is not JSON"),
        (b"[" * 100_000, "config.json is not JSON"),
        (b"[1, 2]", "config.json is not a JSON object"),
        (b"{}", "KeyError: 'class_name'"),
        (b'{"class_name": "Sequential", "config": 3}', "AttributeError"),
        (b'{"class_name": "Sequential", "config": {"name": "x", "layers": []}}', "no GRU layer"),
        (b'{"class_name": "Net", "config": {"name": "x"}}', "Keras model 'x': of class Net, whose call"),
        (
            b'{"class_name": "Sequential", "config": {"name": "x", "layers": [{"class_name": "GRU"}]}}',
            "KeyError: 'config'",
        ),
    ],
)
def test_broken_configuration(tmp_path, members, content, message):
    members["config.json"] = content
    assert message in refusal(packed(tmp_path / "broken.keras", members))


def test_every_missing_or_mistyped_field_of_the_configuration(tmp_path, members):
    """An import as before, or one line."""
    altered_ones = list(broken_configurations(json.loads(members["config.json"])))
    assert len(altered_ones) > 100
    for altered in altered_ones:
        members["config.json"] = json.dumps(altered).encode()
        try:
            qg.load(packed(tmp_path / "field.keras", members))
        except qg.ModelError as error:
            assert "\n" not in str(error)  # noqa: PT017


def test_other_versions_of_keras(tmp_path, members):
    members["metadata.json"] = b'{"keras_version": "4.0.0"}'
    text = refusal(packed(tmp_path / "new.keras", members))
    assert "saved by Keras 4.0.0, supported are 2 and 3; save it again there" in text


def test_keras_2_has_another_hard_sigmoid(tmp_path, members):
    """The same archive, once from tf_keras: slopes 0.2 and 1/6 of the gates, folded into their weights."""
    members["config.json"] = members["config.json"].replace(
        b'"recurrent_activation": "sigmoid"', b'"recurrent_activation": "hard_sigmoid"'
    )
    new = qg.load(packed(tmp_path / "new.keras", members)).grus[0].input_weights
    members["metadata.json"] = b'{"keras_version": "2.15.0"}'
    old = qg.load(packed(tmp_path / "old.keras", members)).grus[0].input_weights
    assert np.allclose(old[:2], 1.2 * new[:2], rtol=1e-12)
    assert np.array_equal(old[2], new[2])


def changed_weights(members: dict[str, bytes], change) -> dict[str, bytes]:
    stream = io.BytesIO(members["model.weights.h5"])
    with h5py.File(stream, "r+") as file:
        change(file)
    return members | {"model.weights.h5": stream.getvalue()}


KERNEL = "layers/gru/cell/vars/0"


def replace_kernel(file, **options):
    del file[KERNEL]
    file.create_dataset(KERNEL, **options)


def set_nan(file):
    file[KERNEL][1, 2] = np.nan


def link_outside(file):
    del file[KERNEL]
    file[KERNEL] = h5py.ExternalLink("other.h5", "/secret")


def link_soft(file):
    del file[KERNEL]
    file[KERNEL] = h5py.SoftLink("/layers/gru_1/cell/vars/0")


def store_outside(file):
    replace_kernel(file, shape=(3, 12), dtype="f4", external=[("/etc/hostname", 0, 144)])


def rename(file):
    file["layers/gru/vars"].attrs["name"] = "another"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.__delitem__("layers/gru"), "weights 'layers/gru/vars' are missing"),
        (lambda file: file.__delitem__(KERNEL), "weights 'layers/gru/cell/vars/0' are missing; the file is damaged"),
        (lambda file: file.__delitem__("layers/gru/cell/vars/2"), "2 arrays of weights, expected 3: kernel"),
        (
            lambda file: replace_kernel(file, data=np.zeros((3, 9))),
            r"kernel \(3, 9\), its configuration says \(any, 12\)",
        ),
        (lambda file: replace_kernel(file, data=np.zeros(12)), r"kernel \(12,\), its configuration says"),
        (lambda file: replace_kernel(file, data=np.zeros((3, 12), "i1")), "kernel of type int8"),
        (lambda file: replace_kernel(file, data=np.zeros((0, 12), "f4")), r"kernel \(0, 12\), its configuration says"),
        (  # a chunk of zeros, far larger than the data set, would be unpacked whole
            lambda file: replace_kernel(
                file, shape=(3, 12), maxshape=(None, None), chunks=(4000, 4000), compression="gzip", dtype="f4"
            ),
            "its data are in chunks or virtual, Keras writes them whole",
        ),
        (lambda file: replace_kernel(file, data=np.zeros((3, 12), "S3")), r"kernel of type \|S3"),
        (
            lambda file: replace_kernel(file, shape=(10**12, 12), chunks=(1, 12), dtype="f4"),
            "more than the [0-9]+ bytes of the file",
        ),
        (set_nan, r"layer 'first' \(GRU\): parameter 'kernel' holds nan at \[1, 2\]"),
        (link_outside, "a group in the newer form, which h5py writes .* for links"),
        (link_soft, "weights 'layers/gru/cell/vars/0' are missing"),
        (store_outside, "its data are in another file"),
        (rename, "layers/gru is of layer 'another', not 'first'"),
    ],
)
def test_weights_that_do_not_fit(tmp_path, members, change, message):
    text = refusal(packed(tmp_path / "weights.keras", changed_weights(members, change)))
    assert re.search(message, text), text


def test_units_that_are_absurd(tmp_path, members):
    members["config.json"] = members["config.json"].replace(b'"units": 4', b'"units": 40000000000')
    assert "its configuration says (any, 120000000000)" in refusal(packed(tmp_path / "huge.keras", members))


@pytest.mark.parametrize("length", [0, 7, 600, 2048, 4000, 9000])
def test_broken_weights_file(tmp_path, members, length):
    members["model.weights.h5"] = members["model.weights.h5"][:length]
    assert "damaged" in refusal(packed(tmp_path / "h5.keras", members))


def test_sizes_are_checked_before_reading(tmp_path, members):
    """A bomb: 300 MB of zeros for the weights, and a configuration that claims to be 4 GB."""
    path = tmp_path / "bomb.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in members.items():
            if name.endswith(".json"):
                archive.writestr(name, content)
        with archive.open("model.weights.h5", "w") as member:
            for _ in range(300):
                member.write(bytes(1 << 20))
    assert "model.weights.h5 has 314572800 bytes, allowed are" in refusal(path)

    path = packed(tmp_path / "claim.keras", members)
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\x01\x02", content.index(b"PK\x01\x02") + 4)  # the directory entry of the second member
    struct.pack_into("<I", content, entry + 24, 0xFFFFFFF0)
    path.write_bytes(content)
    assert "has 4294967280 bytes, allowed are" in refusal(path)


@pytest.mark.parametrize(
    ("method", "says"), [(zipfile.ZIP_DEFLATED, "weights"), (zipfile.ZIP_BZIP2, "method 12"), (zipfile.ZIP_LZMA, "14")]
)
def test_archives_that_lie_about_their_sizes(tmp_path, members, method, says):
    """The directory says 1,000 bytes, and 64 MB would come out."""
    path = tmp_path / "lie.keras"
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, bytes(1 << 26) if name == "model.weights.h5" else content)
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"PK\x01\x02", 0, content.rindex(b"model.weights.h5"))
    struct.pack_into("<I", content, entry + 24, 1000)
    path.write_bytes(content)
    tracemalloc.start()
    assert says in refusal(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 24
    tracemalloc.stop()


def test_encrypted_archive(tmp_path, members):
    path = packed(tmp_path / "locked.keras", members)
    content = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + flags] |= 1
    path.write_bytes(content)
    assert "not a readable zip archive (RuntimeError" in refusal(path)
