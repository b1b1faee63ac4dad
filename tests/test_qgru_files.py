"""`.qgru` files: what comes back, and that whatever is damaged, unknown or foreign is refused in one line."""

import json
import os
import random
import struct
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from committed_vectors import load_model_vectors
from conversions import from_oracle, to_oracle
from hypothesis import given
from packed_models import wide_model
from qgru_content import File, every_kind_of_layer, header_places, parent_of, saved
from strategies import any_plans, int_models
from test_int_model import EXAMPLES
from zero_models import refused, small_model

from quantgru.errors import ModelError
from quantgru.int_model import IntModel


@EXAMPLES
@given(model=int_models() | int_models(any_plans()))
def test_saved_models_come_back(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    model.save(folder / "a.qgru")
    loaded = IntModel.load(folder / "a.qgru")
    loaded.save(folder / "b.qgru")
    assert (folder / "a.qgru").read_bytes() == (folder / "b.qgru").read_bytes()
    assert to_oracle(loaded) == to_oracle(model)
    assert loaded.digest == model.digest
    assert (loaded.name, loaded.notes, loaded.selftest.check) == (model.name, model.notes, model.selftest.check)
    assert np.array_equal(loaded.selftest.inputs, model.selftest.inputs)
    assert [layer.name for layer in loaded.layers] == [layer.name for layer in model.layers]


def test_units_come_back(tmp_path):
    replace(small_model(), input_units=["g", "°C"], output_units=("m",)).save(tmp_path / "m.qgru")
    model = IntModel.load(tmp_path / "m.qgru")
    assert (model.input_units, model.output_units) == (("g", "°C"), ("m",))


def test_notes_come_back(tmp_path):
    model = replace(small_model(), notes={"warnings": ["unit 3: slow"], "ranges": [[0.5, 1.0]], "größe": None})
    model.save(tmp_path / "m.qgru")
    assert IntModel.load(tmp_path / "m.qgru").notes == model.notes


@pytest.mark.parametrize("vector", load_model_vectors(), ids=lambda vector: vector.name)
def test_same_model_gives_the_same_bytes(vector, tmp_path):
    vector.int_model.save(tmp_path / "a.qgru")
    from_oracle(vector.model, vector.name).save(tmp_path / "b.qgru")
    assert (tmp_path / "a.qgru").read_bytes() == (tmp_path / "b.qgru").read_bytes()


def test_mask_values_come_back(tmp_path):
    for mask_value in (None, 0.0, -1.5):
        replace(small_model(), mask_value=mask_value).save(tmp_path / "m.qgru")
        assert IntModel.load(tmp_path / "m.qgru").mask_value == mask_value


GOLDEN = Path(__file__).resolve().parent / "golden" / "gesture.qgru"
DIGEST_OF_GESTURE = "a2ac069ce3377ad99672196cc3c0fba02807c41ac82624753fa46105edbb19e8"  # when the file was written


def test_a_file_of_the_first_format_has_the_same_digest():
    model = IntModel.load(GOLDEN)
    assert File(GOLDEN).header["format"] == 1 and File(GOLDEN).header["spec"] == [1, 0]
    assert model.digest.hex() == DIGEST_OF_GESTURE
    assert model.mask_value is None and all(gru.initial_state is None for gru in model.grus)


@pytest.fixture
def file(tmp_path):
    return saved(small_model(), tmp_path)


@pytest.fixture(params=[small_model, every_kind_of_layer], ids=["small", "every kind"])
def any_file(request, tmp_path):
    return saved(request.param(), tmp_path)


def test_an_unchanged_file_loads(file):
    assert file.load().digest == small_model().digest


WRONG = (None, True, False, 0.5, float("nan"), float("inf"), -1, 10**30, "", "x", "two\nlines", [], [1], {}, {"a": 1})


def wrong_values(place, present):
    """Values that may not stand at this place in the header: of another type, or out of range."""
    for wrong in (*WRONG, *([float(present)] if type(present) is int else [])):
        is_free_text = place[-1] == "name" and type(wrong) is str
        is_note = place == ("notes",) and type(wrong) is dict
        is_mask_value = place == ("mask_value",) and (wrong is None or (type(wrong) in (int, float) and abs(wrong) < 9))
        if not (is_free_text or is_note or is_mask_value or (type(wrong) is type(present) and wrong == present)):
            yield wrong


def outcome(file):
    """What loading a file that must be refused comes to, or None if it is refused as it should be."""
    try:
        file.load()
    except ModelError as error:
        return None if len(str(error).splitlines()) == 1 else f"refused in several lines: {error!r}"
    except Exception as error:
        return repr(error)
    return "accepted"


def test_every_header_field_of_a_wrong_type_is_refused(any_file):
    file = any_file
    text, failures = json.dumps(file.header), []
    for place in header_places(json.loads(text)):
        for wrong in wrong_values(place, parent_of(json.loads(text), place)[place[-1]]):
            file.header = json.loads(text)
            parent_of(file.header, place)[place[-1]] = wrong
            if failure := outcome(file):
                failures.append(f"{'.'.join(map(str, place))} = {wrong!r}: {failure}")
    assert failures == []


def test_missing_header_fields_are_refused(any_file):
    file = any_file
    text = json.dumps(file.header)
    for place in header_places(json.loads(text)):
        if type(place[-1]) is str:
            file.header = json.loads(text)
            del parent_of(file.header, place)[place[-1]]
            with refused():
                file.load()


@pytest.mark.parametrize(
    "place",
    [(), ("layers", 0), ("layers", 1), ("layers", 0, "input"), ("layers", 1, "matrix"), ("layers", 0, "bounds")],
)
def test_unknown_header_fields_are_refused(file, place):
    parent_of(file.header, (*place, "extra"))["extra"] = 0
    with refused("extra"):
        file.load()


@pytest.mark.parametrize(
    ("place", "value", "pattern"),
    [
        (("format",), 3, "format 3"),
        (("format",), 0, "format 0"),
        (("spec",), [2, 0], "2.0"),
        (("spec",), [1, 3], "1.3"),
        (("spec",), [0, 9], "0.9"),
        (("spec",), [1], "spec"),
        (("spec",), [1, 0, 0], "spec"),
        (("spec",), "1.0", "spec"),
        (("kind",), "float model", "float model"),
        (("layers", 0, "kind"), "lstm", "lstm"),
        (("layers", 0, "kind"), "dense", "unknown field"),
        (("layers", 0, "gate"), "hard_sigmoid", "digest"),
        (("layers", 0, "candidate"), "relu", "digest"),
        (("layers", 0, "state"), "s16f14", "digest"),
        (("layers", 0, "state"), "s16f16", "state_fraction_bits 16"),
        (("layers", 0, "reset"), "before", "recurrent_bias"),
        (("layers", 0, "input", "bits"), 4, "4 bits"),
        (("layers", 0, "input", "rows"), 5, "header says"),
        (("layers", 0, "input", "columns"), 1, "header says"),
        (("layers", 1, "activation"), "softmax", "softmax"),
        (("layers", 1, "activation"), "relu", "digest"),
        (("layers",), [], "layers"),
        (("last_step",), True, "digest"),
    ],
)
def test_changed_header_fields_are_refused(file, place, value, pattern):
    parent_of(file.header, place)[place[-1]] = value
    with refused(pattern):
        file.load()


def test_codes_of_16_bits_need_version_1_2(tmp_path):
    file = saved(wide_model(), tmp_path)
    assert (file.header["spec"], file.header["layers"][0]["input"]["bits"]) == ([1, 2], 16)
    assert saved(small_model(), tmp_path).header["spec"] == [1, 1]  # what older readers read
    file.header["spec"] = [1, 1]
    with refused("made for numeric contract 1.1, which does not have all that it uses"):
        file.load()


@pytest.mark.parametrize(
    ("make", "codes", "bits"),
    [
        (wide_model, "int16", 8),
        (wide_model, "int16", 12),
        (wide_model, "int16", 16.0),
        (wide_model, "int8", 16),
        (small_model, "int8", 16),
        (small_model, "int16", 8),
        (small_model, "int16", 16),  # there is one way to say it
    ],
)
def test_codes_of_other_widths_than_they_need_are_refused(make, codes, bits, tmp_path):
    file = saved(make(), tmp_path)
    file.arrays["layers.0.input.codes"] = file.arrays["layers.0.input.codes"].astype(codes)
    file.header["layers"][0]["input"]["bits"] = bits
    with refused(r"layers\.0\.input: int(8|16) codes of .* bits in the file, its codes need (8|16) bits"):
        file.load()


def test_a_changed_digest_is_refused(file):
    digest = file.header["digest"]
    for other in (digest[::-1], digest.upper(), digest[:-1], digest + "0", ""):
        file.header["digest"] = other
        with refused("digest"):
            file.load()


@pytest.mark.parametrize("place", [("accumulators", 0), ("accumulators", 1), ("pre_activation",)])
def test_changed_bounds_are_refused(file, place):
    parent_of(file.header["layers"][0]["bounds"], place)[place[-1]] += 1
    with refused("bounds"):
        file.load()


def test_a_file_that_breaks_the_proof_is_refused(file):
    file.arrays["layers.0.bias"] = np.array([2**31 - 1] * 6, np.int32)
    with refused("pre-activation"):
        file.load()


def test_missing_and_unknown_arrays_are_refused(any_file):
    file, arrays = any_file, dict(any_file.arrays)
    for name in arrays:
        file.arrays = {other: array for other, array in arrays.items() if other != name}
        with refused("digest" if name.endswith("initial_state") else "missing"):
            file.load()
    file.arrays = arrays | {"layers.0.more": np.zeros(1, np.int8)}
    with refused("unknown array"):
        file.load()


def test_arrays_of_another_type_or_shape_are_refused(any_file):
    file, arrays = any_file, dict(any_file.arrays)
    for name, array in arrays.items():
        longer = np.append(array.ravel(), array.dtype.type(1))
        for other in (array.astype(np.int64), array.astype(np.float32), array[..., None], longer):
            file.arrays = arrays | {name: other}
            with refused():
                file.load()


def test_arrays_of_types_that_numpy_lacks_are_refused(file):
    length = struct.unpack("<Q", file.data[:8])[0]
    header = json.loads(file.data[8 : 8 + length])
    for dtype in ("BF16", "F8_E4M3", "F8_E5M2", "F16", "BOOL", "C64", "nonsense"):
        header["selftest"]["dtype"] = dtype
        text = json.dumps(header).encode()
        with refused():
            file.load_bytes(struct.pack("<Q", len(text)) + text + file.data[8 + length :])


def test_truncated_and_extended_files_are_refused(file):
    for length in range(len(file.data)):
        with refused():
            file.load_bytes(file.data[:length])
    with refused():
        file.load_bytes(file.data + b"\0")


def test_damaged_bytes_are_refused_or_change_no_number(file):
    """Names, notes and the self-test are outside of the digest; all else must be noticed."""
    rng, expected, n_loaded = random.Random(1), small_model(), 0
    for position in range(len(file.data)):
        for flip in (1 << rng.randrange(8), 0xFF):
            data = bytearray(file.data)
            data[position] ^= flip
            with suppress(ModelError):
                model = file.load_bytes(bytes(data))
                n_loaded += 1
                assert model.digest == expected.digest
                assert to_oracle(model) == to_oracle(expected)
    assert n_loaded < 120


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        '"integer model"',
        "{",
        "[" * 100_000,
        '{"kind": "integer model", "format": 1, "spec": [1, 0], "name": ' + "[" * 5000 + "]" * 5000 + "}",
        "1" * 5000,
    ],
    ids=lambda text: text[:20],
)
def test_headers_that_are_no_header_are_refused(file, text):
    with refused():
        file.load(metadata={"quantgru": text})


def test_foreign_safetensors_files_are_refused(file):
    with refused("did not write"):
        file.load(metadata={"format": "pt"})
    file.path.write_bytes(safetensors.numpy.save({"weight": np.zeros(3)}))
    with refused("did not write"):
        IntModel.load(file.path)


@pytest.mark.parametrize("data", [b"", b"{}", b"PK\x03\x04" + bytes(100), b"\x89HDF\r\n\x1a\n", b"#include <x>\n" * 99])
def test_foreign_files_are_refused(file, data):
    with refused("not a quantgru file"):
        file.load_bytes(data)


def test_a_file_larger_than_any_model_is_not_read(tmp_path):
    with open(tmp_path / "m.qgru", "wb") as sparse:
        sparse.truncate(2**40)
    with refused("1099511627776 bytes, allowed are 268435456"):
        IntModel.load(tmp_path / "m.qgru")


def test_what_is_no_file_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "missing.qgru", ""):
        with refused("no such file"):
            IntModel.load(path)


def test_what_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "missing" / "m.qgru", tmp_path / "folder", tmp_path / ("x" * 300)):
        with refused("cannot be written"):
            small_model().save(path)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "m.qgru"
    path.write_bytes(b"old")

    def no_space(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", no_space)
    with refused("No space left on device"):
        small_model().save(path)
    assert path.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["m.qgru"]
