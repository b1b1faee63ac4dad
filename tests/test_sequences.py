"""Input sequences: every form that is accepted, and one line for every other."""

import io
import pickle
import re
import zipfile

import numpy as np
import pytest

from quantgru.errors import DataError
from quantgru.sequences import Sequences, as_sequences, check_labels, load_npz, load_vectors

X = np.arange(24, dtype=float).reshape(2, 4, 3)


class ArrayLike:
    """What other libraries' tensors look like to numpy."""

    def __init__(self, values, failure=None):
        self.values, self.failure = np.asarray(values), failure

    def __array__(self, dtype=None, copy=None):
        if self.failure is not None:
            raise self.failure
        return self.values if dtype is None else self.values.astype(dtype)

    def __len__(self):
        return len(self.values)


# ---- what is accepted ----------------------------------------------------------------------------------------------

NESTED = X.tolist()
FULL_LENGTH = {
    "array": X,
    "float32": X.astype(np.float32),
    "integers": X.astype(np.int16),
    "not contiguous": np.asfortranarray(X),
    "tensor": ArrayLike(X),
    "nested lists": NESTED,
    "list of arrays": list(X),
    "tuple of arrays": tuple(X),
    "tuple of lists": tuple(NESTED),
    "list of tensors": [ArrayLike(x) for x in X],
    "list of lists of arrays": [list(x) for x in X],
}


@pytest.mark.parametrize("x", FULL_LENGTH.values(), ids=FULL_LENGTH)
def test_forms_of_the_same_batch(x):
    sequences = as_sequences(x)
    np.testing.assert_array_equal(sequences.values, X)
    assert sequences.values.dtype == np.float64
    assert sequences.lengths.tolist() == [4, 4]
    assert (sequences.n_sequences, sequences.n_steps, sequences.values.shape[2]) == (2, 8, 3)
    assert sequences.ragged == isinstance(x, (list, tuple))


@pytest.mark.parametrize("x", [[X[0], X[1, :2]], [X[0].tolist(), X[1, :2].tolist()], (X[0], X[1, :2].tolist())])
def test_lists_of_unequal_lengths(x):
    sequences = as_sequences(x)
    assert sequences.lengths.tolist() == [4, 2]
    np.testing.assert_array_equal(sequences.values[1], [*X[1, :2], [0, 0, 0], [0, 0, 0]])
    assert sequences.valid.tolist() == [[True] * 4, [True, True, False, False]]
    np.testing.assert_array_equal(sequences.vectors(), [*X[0], *X[1, :2]])
    assert sequences.n_steps == 6


def test_results_come_back_as_the_input_was():
    y = np.arange(8).reshape(2, 4, 1)
    assert as_sequences(X).arrange(y) is y
    assert [part.tolist() for part in as_sequences([X[0], X[1, :2]]).arrange(y)] == [[[0], [1], [2], [3]], [[4], [5]]]
    assert [part.shape for part in as_sequences(NESTED).arrange(y)] == [(4, 1), (4, 1)]


def test_one_step_and_one_feature():
    assert as_sequences([[[7]]]).values.tolist() == [[[7.0]]]


def test_sequences_pass_through():
    sequences = as_sequences([X[0], X[1, :2]])
    assert as_sequences(sequences, n_features=3) is sequences
    with pytest.raises(
        DataError,
        match=r"^input: 3 features, the model has 4 inputs; shape .* expected .*, 4\]$",
    ):
        as_sequences(sequences, n_features=4)


# ---- what is refused -----------------------------------------------------------------------------------------------

SHAPE = "expected [sequences, steps, features]"
STEPS = "expected [steps, features] with at least one step"
REFUSALS = {
    "one sequence": (X[0], f"shape (4, 3), {SHAPE}; one sequence x is given as [x]"),
    "one nested sequence": (NESTED[0], f"shape (4, 3), {SHAPE}; one sequence x is given as [x]"),
    "one row": (X[0, 0], f"shape (3,), {SHAPE}"),
    "four axes": (X[None], f"shape (1, 2, 4, 3), {SHAPE}"),
    "a number": (3.0, f"shape (), {SHAPE}"),
    "no sequence": ([], f"shape (0,), {SHAPE}"),
    "no sequence in an array": (X[:0], "shape (0, 4, 3) holds no steps; give at least one sequence of one step"),
    "no steps": (X[:, :0], "shape (2, 0, 3) holds no steps; give at least one sequence of one step"),
    "no features": (X[:, :, :0], "shape (2, 4, 0) holds no steps"),
    "an empty sequence": ([X[0], X[1, :0]], f"sequence 1: shape (0, 3), {STEPS}"),
    "a flat sequence": ([X[0], X[1, 0]], f"sequence 1: shape (3,), {STEPS}"),
    "a number in a list": ([X[0], 3], f"sequence 1: shape (), {STEPS}"),
    "different features": ([X[0], X[1, :, :2]], "sequence 1: 2 features, sequence 0 has 3"),
    "unequal rows": ([[[1, 2], [3]]], "rows of unequal lengths; give a list of arrays [steps, features]"),
    "unequal rows of one": ([X[0], [[1, 2], [3]]], "sequence 1: rows of unequal lengths; give a list of arrays"),
    "text": ("x.npz", "type <U5, expected real numbers"),
    "text in an array": (X.astype(str), "type <U32, expected real numbers"),
    "objects": (X.astype(object), "type object, expected real numbers"),
    "complex numbers": (X.astype(complex), "type complex128, expected real numbers"),
    "dates": (X.astype("datetime64[s]"), "type datetime64[s], expected real numbers"),
    "None": (None, "type object, expected real numbers"),
    "a generator": ((x for x in X), "type object, expected real numbers"),
    "a tensor that is elsewhere": (
        ArrayLike(X, TypeError("can't convert cuda:0 device type tensor to numpy")),
        "cannot be read as an array (can't convert cuda:0 device type tensor to numpy)",
    ),
    "a tensor that records gradients": (
        [ArrayLike(X[0], RuntimeError("Can't call numpy() on Tensor that requires grad."))],
        "sequence 0: cannot be read as an array (Can't call numpy() on Tensor that requires grad.)",
    ),
}


@pytest.mark.parametrize(("x", "message"), REFUSALS.values(), ids=REFUSALS)
def test_refusals(x, message):
    with pytest.raises(DataError) as caught:
        as_sequences(x, "calibration data")
    assert str(caught.value).removeprefix("calibration data").lstrip(":, ").startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_first_value_that_is_not_finite_is_named(value):
    x = X.copy()
    x[1, 2, 0] = x[1, 3, 2] = value
    expected = f"input: {value} at sequence 1, step 2, feature 0 (2 such values); all values must be finite"
    for form in (x, list(x), x.tolist()):
        with pytest.raises(DataError) as caught:
            as_sequences(form)
        assert str(caught.value) == expected


# ---- .npz files ----------------------------------------------------------------------------------------------------


@pytest.fixture
def npz(tmp_path):
    """A function that writes arrays and returns the path."""

    def write(**arrays):
        path = tmp_path / "x.npz"
        np.savez(path, **arrays)
        return path

    return write


def test_npz_with_x_alone(npz):
    sequences, labels = load_npz(npz(x=X))
    np.testing.assert_array_equal(sequences.values, X)
    assert (sequences.lengths.tolist(), sequences.ragged, labels) == ([4, 4], False, None)


def test_npz_with_lengths_and_labels(npz):
    path = npz(x=X.astype(np.float32), lengths=np.array([1, 4], np.uint8), labels=np.array([7, -1], np.int16))
    sequences, labels = load_npz(str(path))
    assert sequences.lengths.tolist() == [1, 4]
    assert sequences.vectors().tolist() == [X[0, 0].tolist(), *X[1].tolist()]
    assert (labels.tolist(), labels.dtype) == ([7, -1], np.int64)


@pytest.mark.parametrize("content", [np.nan, np.inf, 1e300])
def test_padding_may_hold_anything(npz, content):
    x = X.copy()
    x[1, 2:] = content
    sequences, _ = load_npz(npz(x=x, lengths=[4, 2]))
    np.testing.assert_array_equal(sequences.values, as_sequences([X[0], X[1, :2]]).values)


def test_a_value_before_the_padding_must_be_finite(npz):
    x = X.copy()
    x[1, 1, 2] = np.nan
    with pytest.raises(DataError, match=r"nan at sequence 1, step 1, feature 2 \(1 such values\)"):
        load_npz(npz(x=x, lengths=[4, 2]))


NPZ_REFUSALS = {
    "no x": ({"y": X, "z": X}, ": no array 'x', found ['y', 'z']; save it with np.savez("),
    "no array": ({}, ": no array 'x', found []"),
    "one sequence": ({"x": X[0]}, f", array 'x': shape (4, 3), {SHAPE}"),
    "empty": ({"x": X[:0]}, ": shape (0, 4, 3) holds no steps"),
    "text": ({"x": X.astype(str)}, ", array 'x': type <U32, expected real numbers"),
    "too few lengths": ({"x": X, "lengths": [4]}, ", array 'lengths': int64 (1,), expected integers (2,)"),
    "lengths of two axes": ({"x": X, "lengths": [[4], [4]]}, ", array 'lengths': int64 (2, 1), expected integers (2,)"),
    "fractions": ({"x": X, "lengths": [4.0, 2.5]}, ", array 'lengths': float64 (2,), expected integers (2,)"),
    "length 0": ({"x": X, "lengths": [4, 0]}, ", array 'lengths': 0 ... 4, allowed 1 ... 4"),
    "length 5": ({"x": X, "lengths": [5, 1]}, ", array 'lengths': 1 ... 5, allowed 1 ... 4"),
    "labels of steps": (
        {"x": X, "labels": np.zeros((2, 4), int)},
        ", array 'labels': int64 (2, 4), expected integers (2,)",
    ),
    "text labels": ({"x": X, "labels": ["a", "b"]}, ", array 'labels': <U1 (2,), expected integers (2,)"),
}


@pytest.mark.parametrize(("arrays", "message"), NPZ_REFUSALS.values(), ids=NPZ_REFUSALS)
def test_npz_refusals(npz, arrays, message):
    path = npz(**arrays)
    with pytest.raises(DataError) as caught:
        load_npz(path, "calibration data")
    assert str(caught.value).startswith(f"calibration data {path}{message}")


class Opened:
    """A pickle of this would run code."""

    def __reduce__(self):
        return exec, ("raise SystemExit('code of a data file was run')",)


def test_a_length_that_begins_like_a_pickle_is_none(tmp_path):
    """Of a header, as .qgru and safetensors files begin with: 0x580 in eight bytes, 0x80 and 0x05 the first of them."""
    path = tmp_path / "model.qgru"
    path.write_bytes((0x580).to_bytes(8, "little") + b"{}")
    with pytest.raises(DataError, match="it is no zip archive"):
        load_npz(path)


def test_pickled_objects_are_refused_unread(npz, tmp_path):
    in_npz = npz(x=np.array([Opened()], dtype=object))
    pickled = tmp_path / "pickled.npz"
    pickled.write_bytes(pickle.dumps(Opened()))
    for path in (in_npz, pickled):
        with pytest.raises(DataError, match=r": not a readable \.npz file \(it holds pickled objects, which are never"):
            load_npz(path)


def test_files_that_are_no_npz(tmp_path):
    path = tmp_path / "x.npz"
    with pytest.raises(DataError, match=r"^input .*x\.npz: no such file$"):
        load_npz(path)
    with pytest.raises(DataError, match=r"not a readable \.npz file \(.*Is a directory"):
        load_npz(tmp_path)
    for content in (b"", b"x", b"PK\x03\x04", b"1.0, 2.0\n"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"not a readable \.npz file \("):
            load_npz(path)
    np.save(tmp_path / "x.npy", X)
    with pytest.raises(DataError, match=r"x\.npy: a single array, expected an \.npz file; save it with np\.savez"):
        load_npz(tmp_path / "x.npy")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_truncated_npz(tmp_path, save):
    buffer = io.BytesIO()
    save(buffer, x=X)
    path = tmp_path / "x.npz"
    for length in range(len(buffer.getvalue())):
        path.write_bytes(buffer.getvalue()[:length])
        with pytest.raises(DataError, match=r"^input .*x\.npz: not a readable \.npz file \("):
            load_npz(path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damaged_npz(tmp_path, save):
    """Whatever bit is flipped: the same sequences (a date, a comment), or one line."""
    buffer = io.BytesIO()
    save(buffer, x=X[:, :2, :1])
    path = tmp_path / "x.npz"
    refused = 0
    for i in range(len(buffer.getvalue())):
        for bit in (0, 3):
            content = bytearray(buffer.getvalue())
            content[i] ^= 1 << bit
            path.write_bytes(content)
            try:
                values = load_npz(path)[0].values
            except DataError:
                refused += 1
            else:
                np.testing.assert_array_equal(values, X[:, :2, :1])
    assert refused > len(buffer.getvalue())


def test_an_npz_with_an_array_that_cannot_be(tmp_path):
    """A header that promises 2^60 values and brings none."""
    path = tmp_path / "x.npz"
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1152921504606846976,), }".ljust(117) + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(DataError, match=r"not a readable \.npz file \("):
        load_npz(path)


def test_vectors(npz):
    path = npz(mean=[1, 2, 3], scale=np.float32([1, 1, 2]), other=[0])
    mean, scale = load_vectors(path, ["mean", "scale"], "standardisation")
    assert (mean.tolist(), scale.tolist(), scale.dtype) == ([1, 2, 3], [1, 1, 2], np.float64)
    with pytest.raises(DataError) as caught:
        load_vectors(path, ["mean", "std"], "standardisation")
    expected = f"standardisation {path}: no array 'std', found ['mean', 'other', 'scale'], expected ['mean', 'std']"
    assert str(caught.value) == expected
    with pytest.raises(DataError, match=r"array 'mean': type <U1, expected real numbers"):
        load_vectors(npz(mean=["a"]), ["mean"], "standardisation")


@pytest.mark.parametrize("lengths", [[1], [0, 2], [1, 3], [[1, 2]]])
def test_lengths_given_by_hand_are_checked(lengths):
    with pytest.raises(DataError, match=r"lengths .*, expected 2 of 1 \.\.\. 2"):
        as_sequences(Sequences(np.zeros((2, 2, 3)), np.array(lengths)))


@pytest.mark.parametrize(("labels", "n_outputs", "allowed"), [([1, 5], 5, "0 ... 4"), ([-1, 0], 2, "0 ... 1")])
def test_labels_are_numbers_of_outputs(labels, n_outputs, allowed):
    assert check_labels(np.array([0, n_outputs - 1]), n_outputs).tolist() == [0, n_outputs - 1]
    with pytest.raises(DataError, match=re.escape(f"{min(labels)} ... {max(labels)}, ") + ".*" + re.escape(allowed)):
        check_labels(np.array(labels), n_outputs)


def test_arrays_that_nobody_asks_for_do_not_matter(tmp_path):
    np.savez(tmp_path / "x.npz", x=X, names=np.array(["a", None], dtype=object))
    assert np.array_equal(load_npz(tmp_path / "x.npz")[0].values, X)


def test_archives_that_numpy_would_not_write_are_refused(tmp_path):
    """bzip2 and lzma unpack without a bound, whatever size the directory declares."""
    buffer = io.BytesIO()
    np.save(buffer, X)
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("x.npy", buffer.getvalue())
    with pytest.raises(DataError, match="packed in a way that numpy does not use"):
        load_npz(tmp_path / "x.npz")
