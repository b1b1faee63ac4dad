"""Integer models and their files: whatever breaks an invariant is refused, in one line, by a ModelError."""

import json
import os
import random
import struct
from contextlib import contextmanager, suppress
from dataclasses import FrozenInstanceError, fields, is_dataclass, replace

import numpy as np
import oracle
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from strategies import Plan, from_oracle, int_models, load_model_vectors, oracle_models, random_model, to_oracle

from quantgru.errors import ModelError
from quantgru.int_model import IntDense, IntGru, IntModel, Matrix, SelfTest
from quantgru.int_model.proof import prove

EXAMPLES = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@contextmanager
def refused(pattern="."):
    """The block raises a ModelError of one line, in which `pattern` is found."""
    with pytest.raises(ModelError, match=pattern) as caught:
        yield
    assert len(str(caught.value).splitlines()) == 1


def small_model():
    """Two inputs, one layer of two units (reset after), one dense layer with one output."""
    return from_oracle(random_model(Plan(2, (2,), (oracle.RESET_AFTER,), ((1, oracle.LINEAR),)), seed=1))


def zero_matrix(rows, columns, **changes):
    codes, m, s = np.zeros((rows, columns), np.int8), np.full(rows, 2**14, np.uint16), np.ones(rows, np.uint8)
    return replace(Matrix(codes, m, s), **changes)


def zero_gru(reset="after", n_inputs=2, units=1, **changes):
    c = np.zeros(units if reset == "after" else 0, np.int32)
    w, u = zero_matrix(3 * units, n_inputs), zero_matrix(3 * units, units)
    return replace(IntGru("gru", reset, w, u, np.zeros(3 * units, np.int32), c), **changes)


def zero_dense(rows=1, columns=1, **changes):
    return replace(IntDense("dense", "linear", zero_matrix(rows, columns), np.zeros(rows, np.int32), 0), **changes)


def model_of(*layers, n_inputs=2):
    return IntModel(layers, np.zeros(n_inputs, np.int8), False, SelfTest(np.zeros((1, n_inputs), np.int16), 0))


def at(array, index, value):
    """A copy of an array with one element changed."""
    array = array.copy()
    array[index] = value
    return array


NO_INTEGERS = [0.5, 1.0, True, "1", None, [1], [], float("nan")]
NO_NAMES = [None, 5, ["x"], b"x"]


# ---- types --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("codes", np.zeros((3, 2), np.int16)),
        ("codes", np.zeros((3, 2), np.uint8)),
        ("codes", np.zeros((3, 2), ">i2").astype(">i2")),
        ("codes", np.zeros(6, np.int8)),
        ("codes", np.zeros((3, 2, 1), np.int8)),
        ("codes", np.zeros((0, 2), np.int8)),
        ("codes", np.zeros((3, 0), np.int8)),
        ("codes", np.zeros((1, 65536), np.int8)),
        ("codes", np.zeros((65536, 1), np.int8)),
        ("multiplier", np.full(2, 2**14, np.uint16)),
        ("multiplier", np.full((3, 1), 2**14, np.uint16)),
        ("multiplier", np.full(3, 2**14, np.int16)),
        ("multiplier", np.full(3, 2**14, np.int64)),
        ("multiplier", np.array([2**14, 2**14 - 1, 2**14], np.uint16)),
        ("multiplier", np.array([2**14, 2**14, 2**15], np.uint16)),
        ("shift", np.ones(2, np.uint8)),
        ("shift", np.ones(3, np.int8)),
        ("shift", np.array([1, 0, 1], np.uint8)),
        ("shift", np.array([1, 31, 1], np.uint8)),
        ("left_shift", -1),
        ("left_shift", 16),
        ("bits", 7),
        ("bits", 16),
        *[("left_shift", value) for value in NO_INTEGERS],
        *[("bits", value) for value in (8.0, "8", None, [8])],
    ],
)
def test_matrix_refuses(name, value):
    matrix = zero_matrix(3, 2)
    with refused("matrix"):
        replace(matrix, **{name: value})


def test_matrix_takes_the_ends_of_all_ranges():
    matrix = Matrix(
        np.array([[-128], [127]], np.int8),
        np.array([2**14, 2**15 - 1], np.uint16),
        np.array([1, 30], np.uint8),
        left_shift=15,
    )
    assert (matrix.n_rows, matrix.n_columns) == (2, 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"reset": "middle"},
        {"reset": 0},
        {"reset": None},
        {"reset": "before"},  # has a recurrent bias
        {"input": zero_matrix(2, 2)},
        {"recurrent": zero_matrix(3, 2)},
        {"recurrent": zero_matrix(4, 1)},
        {"recurrent": zero_matrix(6, 2)},
        {"bias": np.zeros(2, np.int32)},
        {"bias": np.zeros(3, np.int64)},
        {"bias": np.zeros(3, np.float32)},
        {"recurrent_bias": np.zeros(0, np.int32)},
        {"recurrent_bias": np.zeros(1, np.int16)},
        *[{"name": name} for name in NO_NAMES],
    ],
)
def test_gru_layer_refuses(changes):
    layer = zero_gru()
    with refused():
        replace(layer, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"activation": "softmax"},
        {"activation": 0},
        {"bias": np.zeros(2, np.int32)},
        {"bias": np.zeros(1, np.int16)},
        {"output_fraction_bits": 32},
        {"output_fraction_bits": -32},
        {"activation": "sigmoid", "output_fraction_bits": 14},
        {"activation": "tanh", "output_fraction_bits": 16},
        *[{"output_fraction_bits": value} for value in NO_INTEGERS],
        *[{"name": name} for name in NO_NAMES],
    ],
)
def test_dense_layer_refuses(changes):
    layer = zero_dense()
    with refused():
        replace(layer, **changes)


@pytest.mark.parametrize(
    "layers",
    [
        (),
        (zero_dense(1, 2),),
        (zero_dense(2, 2), zero_gru()),
        (zero_gru(), zero_dense(), zero_gru(n_inputs=1)),
        (zero_gru(), zero_gru()),
        (zero_gru(units=2), zero_dense()),
        (zero_gru(), zero_dense(2), zero_dense()),
        (zero_gru(n_inputs=2), *[zero_gru(n_inputs=1)] * 255),
        (zero_gru(), *[zero_dense()] * 255),
        (zero_gru(n_inputs=2), *[zero_gru(n_inputs=1)] * 127, *[zero_dense()] * 128),
    ],
)
def test_model_refuses_layers(layers):
    with refused():
        model_of(*layers)


def test_model_takes_as_many_layers_as_the_digest_can_count():
    model = model_of(zero_gru(), *[zero_dense()] * 254)
    assert model.digest.hex() == oracle.digest(to_oracle(model))


@pytest.mark.parametrize(
    "changes",
    [
        {"input_fraction_bits": np.zeros(1, np.int8)},
        {"input_fraction_bits": np.zeros(2, np.int16)},
        {"input_fraction_bits": np.array([0, 32], np.int8)},
        {"input_fraction_bits": np.array([-32, 0], np.int8)},
        {"selftest": SelfTest(np.zeros((1, 3), np.int16), 0)},
        {"selftest": SelfTest(np.zeros(2, np.int16), 0)},
        {"selftest": SelfTest(np.zeros((65536, 2), np.int16), 0)},
        *[{"last_step": value} for value in (0, 1, 2, 0.5, "yes", None, [])],
        *[{"name": name} for name in NO_NAMES],
        *[{"notes": notes} for notes in (None, "text", [], 5)],
    ],
)
def test_model_refuses(changes):
    model = model_of(zero_gru())
    with refused():
        replace(model, **changes)


@pytest.mark.parametrize("inputs", [np.zeros((1, 2), np.int32), np.zeros((1, 2))])
def test_selftest_refuses_inputs(inputs):
    with refused("self-test"):
        SelfTest(inputs, 0)


@pytest.mark.parametrize("check", [-1, 2**32, *NO_INTEGERS])
def test_selftest_refuses_check_values(check):
    with refused("self-test"):
        SelfTest(np.zeros((1, 2), np.int16), check)


# ---- the proof ----------------------------------------------------------------------------------------------------

FULL = np.array([[-128] * 511 + [127]] * 3, np.int8)  # 32768 * 65535: the largest row that P1 admits


def test_p1_admits_the_longest_rows_and_refuses_one_code_more():
    w = zero_matrix(3, 512, codes=FULL)
    model_of(zero_gru(n_inputs=512, input=w), n_inputs=512)
    for row in range(3):
        broken = replace(w, codes=at(FULL, (row, 511), -128))
        with refused(f"accumulator of W: row {row}"):
            model_of(zero_gru(n_inputs=512, input=broken), n_inputs=512)


def test_p1_counts_the_left_shift():
    codes = np.full((3, 2), 1, np.int8)  # 2 * 32768 * 2^14 = 2^30, with 2^15: 2^31
    model_of(zero_gru(input=zero_matrix(3, 2, codes=codes, left_shift=14)))
    with refused("accumulator of W"):
        model_of(zero_gru(input=zero_matrix(3, 2, codes=codes, left_shift=15)))


def test_p1_holds_for_recurrent_and_dense_matrices():
    u = zero_matrix(3, 1, codes=np.array([[0], [2], [0]], np.int8), left_shift=15)
    with refused("accumulator of U: row 1"):
        model_of(zero_gru(recurrent=u))
    with refused("'dense', accumulator"):
        model_of(zero_gru(), zero_dense(matrix=zero_matrix(1, 1, codes=np.array([[-2]], np.int8), left_shift=15)))


def test_p1_holds_for_the_largest_numbers_that_a_matrix_can_hold():
    w = zero_matrix(3, 65535, codes=np.full((3, 65535), -128, np.int8), left_shift=15)
    with refused("accumulator of W"):
        model_of(zero_gru(n_inputs=65535, input=w), n_inputs=65535)


LIMIT = 2**31 - 1


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("row", [0, 1, 2])
@pytest.mark.parametrize("reset", ["after", "before"])
def test_p2_limits_each_bias(reset, row, sign):
    """Empty matrices: Q = 1 for each of the two."""
    bias = np.zeros(3, np.int32)
    model_of(zero_gru(reset, bias=at(bias, row, sign * (LIMIT - 2))))
    with refused(f"pre-activation: row {row}"):
        model_of(zero_gru(reset, bias=at(bias, row, sign * (LIMIT - 1))))


def test_p2_adds_the_recurrent_bias_of_the_candidate_only():
    c = np.array([-5], np.int32)
    for row, room in ((0, 2), (1, 2), (2, 7)):
        model_of(zero_gru(bias=at(np.zeros(3, np.int32), row, LIMIT - room), recurrent_bias=c))
    with refused("pre-activation: row 2"):
        model_of(zero_gru(bias=np.array([0, 0, LIMIT - 6], np.int32), recurrent_bias=c))


def test_p2_holds_for_the_smallest_s32():
    with refused("pre-activation"):
        model_of(zero_gru(bias=np.array([-(2**31), 0, 0], np.int32)))
    with refused("pre-activation"):
        model_of(zero_gru(recurrent_bias=np.array([-(2**31)], np.int32)))


def test_p2_limits_the_bias_of_a_dense_layer():
    model_of(zero_gru(), zero_dense(bias=np.array([LIMIT - 1], np.int32)))
    with refused("'dense', pre-activation"):
        model_of(zero_gru(), zero_dense(bias=np.array([-LIMIT], np.int32)))


@EXAMPLES
@given(model=oracle_models())
def test_bounds_are_those_of_the_oracle(model):
    int_model = from_oracle(model)
    for gru, layer in zip(model.grus, int_model.grus, strict=True):
        bounds = prove(layer)
        assert bounds.accumulators == (largest_accumulator(gru.w), largest_accumulator(gru.u))
        assert bounds.pre_activation == max(oracle.gate_bound(gru, i) for i in range(3 * gru.units))
    for dense, layer in zip(model.head, int_model.head, strict=True):
        bounds = prove(layer)
        assert bounds.accumulators == (largest_accumulator(dense.matrix),)
        assert bounds.pre_activation == max(oracle.dense_bound(dense, i) for i in range(len(dense.b)))


def largest_accumulator(matrix):
    return max(oracle.accumulator_bound(codes) * 2**matrix.k for codes in matrix.codes)


# ---- immutable, with a digest -------------------------------------------------------------------------------------


def arrays_of(value):
    """All arrays in a model, wherever they are."""
    if isinstance(value, np.ndarray):
        return [value]
    if isinstance(value, tuple):
        return [array for item in value for array in arrays_of(item)]
    if is_dataclass(value):
        return [array for field in fields(value) for array in arrays_of(getattr(value, field.name))]
    return []


def test_arrays_are_read_only(tmp_path):
    model = small_model()
    model.save(tmp_path / "m.qgru")
    for each in (model, IntModel.load(tmp_path / "m.qgru")):
        arrays = arrays_of(each)
        assert len(arrays) == 2 + 3 * 3 + 3  # inputs and self-test, three matrices, three biases
        for array in arrays:
            with pytest.raises(ValueError, match="read-only"):
                array[...] = 0


def test_arrays_are_not_shared_with_the_caller():
    bias = np.zeros(3, np.int32)
    model = model_of(zero_gru(bias=bias))
    digest = model.digest
    bias[0] = 1
    assert model.grus[0].bias[0] == 0
    assert replace(model).digest == digest


def test_fields_are_frozen():
    model = small_model()
    for owner, name in ((model, "name"), (model.grus[0], "bias"), (model.grus[0].input, "left_shift")):
        with pytest.raises(FrozenInstanceError):
            setattr(owner, name, None)
    with pytest.raises(TypeError):
        model.notes["more"] = 1


@EXAMPLES
@given(model=int_models())
def test_digest_is_r17(model):
    assert model.digest.hex() == oracle.digest(to_oracle(model))


def test_digest_does_not_depend_on_names_notes_and_selftest():
    model = small_model()
    layers = tuple(replace(layer, name=f"other {layer.name}") for layer in model.layers)
    other = replace(
        model, layers=layers, name="other", notes={"why": [1]}, selftest=SelfTest(np.ones((3, 2), np.int16), 7)
    )
    assert other.digest == model.digest


# ---- files --------------------------------------------------------------------------------------------------------


@EXAMPLES
@given(model=int_models())
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


def test_notes_come_back(tmp_path):
    model = replace(small_model(), notes={"warnings": ["unit 3: slow"], "ranges": [[0.5, 1.0]], "größe": None})
    model.save(tmp_path / "m.qgru")
    assert IntModel.load(tmp_path / "m.qgru").notes == model.notes


@pytest.mark.parametrize("vector", load_model_vectors(), ids=lambda vector: vector.name)
def test_same_model_gives_the_same_bytes(vector, tmp_path):
    vector.int_model.save(tmp_path / "a.qgru")
    from_oracle(vector.model, vector.name).save(tmp_path / "b.qgru")
    assert (tmp_path / "a.qgru").read_bytes() == (tmp_path / "b.qgru").read_bytes()


class File:
    """The content of a saved small model, for a test to change and write again."""

    def __init__(self, folder):
        self.path = folder / "m.qgru"
        small_model().save(self.path)
        self.data = self.path.read_bytes()
        length = struct.unpack("<Q", self.data[:8])[0]
        self.header = json.loads(json.loads(self.data[8 : 8 + length])["__metadata__"]["quantgru"])
        self.arrays = safetensors.numpy.load(self.data)

    def load(self, text=None, metadata=None):
        """Writes header (or this text for it) and arrays, and loads them."""
        metadata = metadata or {"quantgru": text or json.dumps(self.header)}
        self.path.write_bytes(safetensors.numpy.save(self.arrays, metadata=metadata))
        return IntModel.load(self.path)

    def load_bytes(self, data):
        self.path.write_bytes(data)
        return IntModel.load(self.path)


@pytest.fixture
def file(tmp_path):
    return File(tmp_path)


def test_an_unchanged_file_loads(file):
    assert file.load().digest == small_model().digest


def header_places(value, place=()):
    """Every place in the header: (key, key, index, …)."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield (*place, key)
        yield from header_places(inner, (*place, key))


def parent_of(header, place):
    for key in place[:-1]:
        header = header[key]
    return header


WRONG = (None, True, False, 0.5, float("nan"), float("inf"), -1, 10**30, "", "x", "two\nlines", [], [1], {}, {"a": 1})


def wrong_values(place, present):
    """Values that may not stand at this place in the header: of another type, or out of range."""
    for wrong in (*WRONG, *([float(present)] if type(present) is int else [])):
        is_free_text = place[-1] == "name" and type(wrong) is str
        is_note = place == ("notes",) and type(wrong) is dict
        if not (is_free_text or is_note or (type(wrong) is type(present) and wrong == present)):
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


def test_every_header_field_of_a_wrong_type_is_refused(file):
    text, failures = json.dumps(file.header), []
    for place in header_places(json.loads(text)):
        for wrong in wrong_values(place, parent_of(json.loads(text), place)[place[-1]]):
            file.header = json.loads(text)
            parent_of(file.header, place)[place[-1]] = wrong
            if failure := outcome(file):
                failures.append(f"{'.'.join(map(str, place))} = {wrong!r}: {failure}")
    assert failures == []


def test_missing_header_fields_are_refused(file):
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
    with refused():
        file.load()


@pytest.mark.parametrize(
    ("place", "value", "pattern"),
    [
        (("format",), 2, "format 2"),
        (("spec",), [2, 0], "2.0"),
        (("spec",), [1, 1], "1.1"),
        (("spec",), [0, 9], "0.9"),
        (("spec",), [1], "spec"),
        (("spec",), [1, 0, 0], "spec"),
        (("spec",), "1.0", "spec"),
        (("kind",), "float model", "float model"),
        (("layers", 0, "kind"), "lstm", "lstm"),
        (("layers", 0, "kind"), "dense", "unknown field"),
        (("layers", 0, "gate"), "hard_sigmoid", "hard_sigmoid"),
        (("layers", 0, "candidate"), "relu", "relu"),
        (("layers", 0, "state"), "s16f14", "s16f14"),
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


def test_missing_and_unknown_arrays_are_refused(file):
    arrays = dict(file.arrays)
    for name in arrays:
        file.arrays = {other: array for other, array in arrays.items() if other != name}
        with refused("missing"):
            file.load()
    file.arrays = arrays | {"layers.0.more": np.zeros(1, np.int8)}
    with refused("unknown arrays"):
        file.load()


def test_arrays_of_another_type_or_shape_are_refused(file):
    arrays = dict(file.arrays)
    for name, array in arrays.items():
        for other in (array.astype(np.int64), array.astype(np.float32), array[..., None], array.ravel()[:-1]):
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
