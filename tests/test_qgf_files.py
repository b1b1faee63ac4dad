"""`.qgf` files: what comes back, that what is damaged is refused, and that a file is whole or absent."""

import errno
import json
import os

import numpy as np
import pytest
import safetensors.numpy
from test_float_model import dense, two_layer_model, zero_gru
from test_float_structure import every_kind

from quantgru import container
from quantgru.errors import ModelError
from quantgru.model import FloatModel
from quantgru.model.file import load


@pytest.mark.parametrize("last_step", [False, True])
def test_files_keep_everything(tmp_path, last_step):
    model, path = two_layer_model(last_step), tmp_path / "model.qgf"
    model.save(path)
    found = load(path)
    assert (found.name, found.last_step, found.notes) == ("stacked", last_step, ("a note", "another"))
    for mine, read in zip(model.layers, found.layers, strict=True):
        assert type(read) is type(mine)
        for field, value in vars(mine).items():
            np.testing.assert_array_equal(getattr(read, field), value, err_msg=f"{mine.name}.{field}")


def test_files_keep_every_kind_of_layer(tmp_path):
    model, path = every_kind(), tmp_path / "model.qgf"
    model.save(path)
    found = load(path)
    assert found.mask_value == -1.0
    assert [type(layer) for layer in found.layers] == [type(layer) for layer in model.layers]
    tokens = np.random.default_rng(0).integers(0, 5, size=(3, 6, 1))
    np.testing.assert_array_equal(found.run(tokens), model.run(tokens))
    for mine, read in zip(model.grus, found.grus, strict=True):
        for field, value in vars(mine).items():
            np.testing.assert_array_equal(getattr(read, field), value, err_msg=f"{mine.name}.{field}")
    last = found.layers[-2]
    assert (last.name, last.merge, last.final) == ("both", "mul", True)


def test_the_same_model_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        two_layer_model(last_step=True).save(tmp_path / name)
    load(tmp_path / "a").save(tmp_path / "c")
    assert len({(tmp_path / name).read_bytes() for name in "abc"}) == 1


def test_paths_may_be_text(tmp_path):
    two_layer_model(last_step=True).save(str(tmp_path / "model.qgf"))
    assert load(str(tmp_path / "model.qgf")).name == "stacked"


def test_files_of_format_1_are_read(tmp_path):
    """They had neither functions nor masks."""
    container.save(tmp_path / "model.qgf", HEADER, ARRAYS)
    model = load(tmp_path / "model.qgf")
    assert (model.grus[0].gate, model.grus[0].candidate, model.mask_value) == ("sigmoid", "tanh", None)


@pytest.fixture
def small_file(tmp_path):
    path = tmp_path / "model.qgf"
    FloatModel((zero_gru(), dense([[1, 2]], [3])), last_step=True).save(path)
    return path


def refusal(path):
    """The message with which the file is refused, which is one line and names the file; None if it is read."""
    try:
        load(path)
    except ModelError as error:
        message = str(error)
    else:
        return None
    where = f"float model {path}: "
    assert message.startswith(where)
    assert "\n" not in message
    return message.removeprefix(where)


def test_truncated_files(small_file):
    content = small_file.read_bytes()
    for length in range(len(content)):
        small_file.write_bytes(content[:length])
        assert refusal(small_file).startswith("truncated, or not a quantgru file ("), length


def test_files_with_a_flipped_bit_are_refused_or_read(small_file):
    """Whatever the bit: no other error, no traceback. (Weights have no check sum: some flips are simply read.)"""
    content = small_file.read_bytes()
    header = int.from_bytes(content[:8], "little") + 8
    refused = 0
    for i in range(header):
        for bit in (0, 2, 5, 7):
            flipped = bytearray(content)
            flipped[i] ^= 1 << bit
            small_file.write_bytes(flipped)
            refused += refusal(small_file) is not None
    assert refused > header


def test_missing_and_foreign_files(tmp_path):
    path = tmp_path / "model.qgf"
    assert refusal(path) == "no such file"
    assert refusal(tmp_path) == "no such file"
    np.savez(path, x=np.zeros(3))
    path.with_suffix(".qgf.npz").rename(path)
    assert refusal(path).startswith("truncated, or not a quantgru file (")
    safetensors.numpy.save_file({"weights": np.zeros(3)}, path)
    assert refusal(path).startswith("a safetensors file that quantgru did not write")


def test_an_integer_model_is_no_float_model(tmp_path):
    container.save(tmp_path / "model.qgru", {"kind": "integer model"}, {})
    assert refusal(tmp_path / "model.qgru") == "holds 'integer model', expected a float model"


GRU_ENTRY = {"kind": "gru", "name": "gru", "reset": "after"}
HEADER = {"kind": "float model", "format": 1, "name": "m", "last_step": True, "notes": [], "layers": [GRU_ENTRY]}
ARRAYS = {
    "layers.0.input_weights": np.zeros((3, 2, 1)),
    "layers.0.recurrent_weights": np.zeros((3, 2, 2)),
    "layers.0.bias": np.zeros((3, 2)),
    "layers.0.recurrent_bias": np.zeros(2),
}


def changed_entry(**fields):
    return {"layers": [GRU_ENTRY | fields]}


BOTH = {"kind": "bidirectional", "name": "b", "merge": "sum", "final": False, "backward": GRU_ENTRY}


def nested(depth):
    entry = GRU_ENTRY
    for _ in range(depth):
        entry = BOTH | {"forward": entry}
    return entry


DAMAGES = {
    "newer format": ({"format": 3}, {}, "format 3, this version reads 2; update quantgru"),
    "layer kind": (
        changed_entry(kind="lstm"),
        {},
        "layer layers.0: kind 'lstm', this version reads gru, dense, embedding, reverse, bidirectional; update",
    ),
    "reset": (changed_entry(reset="never"), {}, "GRU layer 'gru': reset 'never', supported are after, before"),
    "reset's type": (changed_entry(reset=[]), {}, "a field has the wrong type (reset is []); the file is damaged"),
    "last_step's type": (
        {"last_step": "false"},
        {},
        "a field has the wrong type (last_step is 'false'); the file is damaged",
    ),
    "name's type": ({"name": 3}, {}, "a field has the wrong type (name is 3); the file is damaged"),
    "notes' type": ({"notes": None}, {}, "a field has the wrong type ("),
    "layers' type": ({"layers": 3}, {}, "a field has the wrong type ("),
    "entries' type": ({"layers": [3]}, {}, "a field has the wrong type ("),
    "no layers": ({"layers": []}, {}, "model 'm': no GRU layer"),
    "shape": ({}, {"layers.0.bias": np.zeros((3, 3))}, "GRU layer 'gru': bias (3, 3), expected (3, 2)"),
    "mask value's type": (
        {"mask_value": "0"},
        {},
        "a field has the wrong type (mask_value is '0'); the file is damaged",
    ),
    "directions": (
        {"layers": [BOTH | {"forward": {"kind": "reverse", "name": "r"}}]},
        {},
        "layer layers.0.forward: kind 'reverse', expected 'gru'; the file is damaged",
    ),
    "directions within directions": (
        {"layers": [nested(400)]},
        {},
        "layer layers.0.forward: kind 'bidirectional', expected 'gru'; the file is damaged",
    ),
    "field of the header": ({"dropout": 0.1}, {}, "header: unknown field 'dropout'; update quantgru"),
    "field of a layer": (changed_entry(clip=1.0), {}, "layers.0: unknown field 'clip'; update quantgru"),
    "array": ({}, {"layers.0.peephole": np.zeros(2)}, "unknown array 'layers.0.peephole', one of 1; update quantgru"),
    "format's type": ({"format": True}, {}, "format True, this version reads 2; update quantgru"),
    "NaN": ({}, {"layers.0.bias": np.full((3, 2), np.nan)}, "GRU layer 'gru': bias holds nan at [0, 0]"),
}


@pytest.mark.parametrize(("header", "arrays", "message"), DAMAGES.values(), ids=DAMAGES)
def test_damaged_files(tmp_path, header, arrays, message):
    path = tmp_path / "model.qgf"
    container.save(path, HEADER | header, ARRAYS | arrays)
    assert refusal(path).startswith(message)


def test_the_undamaged_file_is_read(tmp_path):
    container.save(tmp_path / "model.qgf", HEADER, ARRAYS)
    assert refusal(tmp_path / "model.qgf") is None


@pytest.mark.parametrize("field", ["name", "last_step", "notes", "layers"])
def test_missing_fields(tmp_path, field):
    path = tmp_path / "model.qgf"
    container.save(path, {name: value for name, value in HEADER.items() if name != field}, ARRAYS)
    assert refusal(path) == f"field or array '{field}' is missing; the file is damaged"


@pytest.mark.parametrize("name", ARRAYS)
def test_missing_arrays(tmp_path, name):
    path = tmp_path / "model.qgf"
    container.save(path, HEADER, {other: array for other, array in ARRAYS.items() if other != name})
    assert refusal(path) == f"field or array '{name}' is missing; the file is damaged"


@pytest.mark.parametrize("text", ["{", "[]", "3", "[" * 100_000])
def test_headers_that_are_no_json_object(tmp_path, text):
    path = tmp_path / "model.qgf"
    safetensors.numpy.save_file({"a": np.zeros(1)}, path, metadata={"quantgru": text})
    assert refusal(path) == "the header is not a JSON object; the file is damaged"


def test_the_header_is_json(small_file):
    with safetensors.safe_open(small_file, framework="numpy") as file:
        header = json.loads(file.metadata()["quantgru"])
    assert header["kind"] == "float model"
    assert [layer["kind"] for layer in header["layers"]] == ["gru", "dense"]


# ---- files are whole or absent -------------------------------------------------------------------------------------


class HalfWritten:
    """A file that fails in the middle of a write."""

    def __init__(self, handle, failure):
        self.file, self.failure = os.fdopen(handle, "wb"), failure

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def write(self, content):
        self.file.write(content[: len(content) // 2])
        raise self.failure


class FailingOs:
    """The module os, with a write that fails."""

    def __init__(self, failure):
        self.failure = failure

    def __getattr__(self, name):
        return getattr(os, name)

    def fdopen(self, handle, _mode):
        return HalfWritten(handle, self.failure)


FAILURES = {
    "disk full": (OSError(errno.ENOSPC, "No space left on device"), ModelError),
    "without a reason": (OSError("broken"), ModelError),
    "interrupted": (KeyboardInterrupt(), KeyboardInterrupt),
}


@pytest.mark.parametrize("before", [None, b"the older file"])
@pytest.mark.parametrize(("failure", "error"), FAILURES.values(), ids=FAILURES)
def test_a_failing_write_changes_nothing(tmp_path, monkeypatch, before, failure, error):
    path = tmp_path / "model.qgf"
    if before is not None:
        path.write_bytes(before)
    monkeypatch.setattr(container, "os", FailingOs(failure))
    with pytest.raises(error) as caught:
        two_layer_model(last_step=True).save(path)
    if error is ModelError:
        reason = failure.strerror or str(failure)
        assert str(caught.value) == f"{path}: cannot be written ({reason}); choose another path"
    left = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert left == ({} if before is None else {"model.qgf": before})


def test_paths_that_cannot_be_written(tmp_path):
    for path, reason in ((tmp_path / "absent" / "m.qgf", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(ModelError, match=rf"cannot be written \({reason}\); choose another path$"):
            two_layer_model(last_step=True).save(path)
    assert list(tmp_path.iterdir()) == []
    assert [file.name for file in tmp_path.parent.iterdir() if file.name.startswith(f".{tmp_path.name}.")] == []
