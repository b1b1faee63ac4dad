"""Plain arrays as arguments and in .npz files: what may be given, and what is refused."""

from __future__ import annotations

import io
import pickle
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from convention_formulas import REFERENCES, all_arrays, random_arrays

import quantgru as qg


def random_x(inputs=3):
    return np.random.default_rng(2).normal(size=(2, 7, inputs))


# ---- how arrays may be given ---------------------------------------------------------------------------------------


def test_a_model_is_put_around_it():
    arrays = all_arrays("pytorch", 3, 4)
    gru = qg.from_arrays(convention="pytorch", name="KeyWord", **arrays)
    head = qg.Dense("fc", np.ones((1, 4)), np.zeros(1))
    model = qg.FloatModel((*gru.layers, head), last_step=True)
    assert np.allclose(model.run(random_x())[:, 0], gru.run(random_x())[:, -1].sum(axis=1))
    assert gru.layers[0].name == "KeyWord" and gru.name == "key_word"
    assert gru.notes == ("imported from arrays, convention pytorch",)


def test_a_note_says_that_there_are_no_biases():
    required, _ = random_arrays("pytorch", 3, 4)
    assert qg.from_arrays("pytorch", **required).notes == ("imported from arrays, convention pytorch, all biases zero",)


def test_names_may_have_underscores_for_slashes():
    for name in ("tensorflow1", "flax"):
        (arrays,) = random_arrays(name, 3, 4)
        identifiers = {key.replace("/", "_"): values for key, values in arrays.items()}
        expected = qg.from_arrays(name, **arrays).run(random_x())
        assert np.array_equal(qg.from_arrays(name, **identifiers).run(random_x()), expected)


def test_leading_axes_of_length_1():
    """Biases of d2l.ai are rows [1, H] in its text, the arrays of ONNX have an axis of directions."""
    (arrays,) = random_arrays("d2l", 3, 4)
    rows = {key: values[None] if values.ndim == 1 else values for key, values in arrays.items()}
    expected = qg.from_arrays("d2l", **arrays).run(random_x())
    assert np.array_equal(qg.from_arrays("d2l", **rows).run(random_x()), expected)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int8])
def test_other_numbers(dtype):
    arrays = {key: (4 * values).astype(dtype) for key, values in random_arrays("wikipedia", 3, 4)[0].items()}
    expected = qg.from_arrays("wikipedia", **{key: values.astype(float) for key, values in arrays.items()})
    assert np.array_equal(qg.from_arrays("wikipedia", **arrays).run(random_x()), expected.run(random_x()))


def pytorch_arrays(**changes):
    arrays = all_arrays("pytorch", 3, 4)
    return {key: values for key, values in (arrays | changes).items() if values is not None}


PYTORCH = "weight_ih [3H, I], weight_hh [3H, H]; optional bias_ih [3H], bias_hh [3H] (all or none)"
SIZES = "for H = 4 units and I = 3 inputs; it has " + PYTORCH
REFUSALS = {
    "unknown array": (pytorch_arrays(weight=np.ones(3)), f"no array 'weight' in it; it has {PYTORCH}"),
    "missing array": (pytorch_arrays(weight_hh=None), f"array 'weight_hh' is missing; it has {PYTORCH}"),
    "half of a group": (pytorch_arrays(bias_hh=None), f"array 'bias_hh' is missing; it has {PYTORCH}"),
    "none": ({}, f"array 'weight_ih' is missing; it has {PYTORCH}"),
    "transposed": (
        pytorch_arrays(weight_ih=np.ones((3, 12))),
        "weight_ih (3, 12), expected [3H, I], that is (12, 12) for H = 4 units and I = 12 inputs",
    ),
    "not a multiple of 3": (
        pytorch_arrays(weight_hh=np.ones((13, 4))),
        f"weight_hh (13, 4), expected [3H, H], that is (12, 4) {SIZES}",
    ),
    "short bias": (pytorch_arrays(bias_ih=np.ones(4)), f"bias_ih (4,), expected [3H], that is (12,) {SIZES}"),
    "axes": (pytorch_arrays(weight_ih=np.ones(12)), "weight_ih (12,), expected [3H, I]"),
    "two directions": (pytorch_arrays(weight_ih=np.ones((2, 12, 3))), "weight_ih (2, 12, 3), expected [3H, I]"),
    "no units": (
        {"weight_ih": np.ones((0, 3)), "weight_hh": np.ones((0, 0))},
        "weight_ih (0, 3), expected [3H, I], that is (3, 3) for H = 1 units and I = 3 inputs",
    ),
    "no inputs": (pytorch_arrays(weight_ih=np.ones((12, 0))), "weight_ih (12, 0), expected [3H, I], that is (12, 1)"),
    "not finite": (pytorch_arrays(bias_ih=np.full(12, np.nan)), "parameter 'bias_ih' holds nan at [0]"),
    "complex": (pytorch_arrays(bias_ih=np.ones(12) * 1j), "bias_ih is of type complex128, expected real numbers [3H]"),
    "text": (pytorch_arrays(bias_ih=["1"] * 12), "bias_ih is of type <U1, expected real numbers [3H]"),
    "objects": (pytorch_arrays(bias_ih=[None] * 12), "bias_ih is of type object, expected real numbers [3H]"),
    "unequal rows": (pytorch_arrays(bias_ih=[[1], [1, 2]]), "bias_ih cannot be read as an array ("),
    "state of other size": (pytorch_arrays(initial_state=np.ones(3)), "initial_state (3,), expected (4,)"),
    "state of two axes": (pytorch_arrays(initial_state=np.ones((2, 4))), "initial_state (2, 4), expected [H]"),
    "gate": (pytorch_arrays(gate="softmax"), "gate 'softmax', supported are sigmoid, hard_sigmoid"),
    "candidate": (pytorch_arrays(candidate="elu"), "candidate 'elu', supported are tanh, relu, linear"),
}


@pytest.mark.parametrize(("arguments", "message"), REFUSALS.values(), ids=REFUSALS)
def test_refusals(arguments, message):
    with pytest.raises(qg.ModelError) as caught:
        qg.from_arrays("pytorch", **arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_array_by_two_names():
    (arrays,) = random_arrays("tensorflow1", 3, 4)
    with pytest.raises(qg.ModelError, match=r"two arrays for one, of .*'gates/bias', 'gates/kernel', 'gates_bias'"):
        qg.from_arrays("tensorflow1", gates_bias=arrays["gates/bias"], **arrays)


CONFIG_REFUSALS = {
    "unknown": ("theano", {}, "convention 'theano' is unknown; known are cho2014, chung2014,"),
    "close": ("keras", {}, "convention 'keras' is unknown; did you mean 'keras-reset-after' or 'keras-reset-before'?"),
    "a number": (1, {}, "convention 1 is unknown"),
    "slope is missing": ("pytorch", {"gate": "hard_sigmoid"}, "gate 'hard_sigmoid' with slope=None: .*0.2 in Keras 2"),
    "slope of 0": ("pytorch", {"gate": "hard_sigmoid", "slope": 0.0}, "with slope=0.0: .* positive slope"),
    "slope of text": ("pytorch", {"gate": "hard_sigmoid", "slope": "1/6"}, "with slope='1/6': .* positive slope"),
    "slope of sigmoid": ("pytorch", {"slope": 0.2}, "slope=0.2 with gate 'sigmoid': only gate 'hard_sigmoid' has"),
}


@pytest.mark.parametrize(("name", "options", "message"), CONFIG_REFUSALS.values(), ids=CONFIG_REFUSALS)
def test_refused_options(name, options, message):
    with pytest.raises(qg.ConfigError, match=f"^.*{message}") as caught:
        qg.from_arrays(name, **options, **pytorch_arrays())
    assert "\n" not in str(caught.value)


def test_an_unknown_convention_is_answered_with_all():
    with pytest.raises(qg.ConfigError) as caught:
        qg.from_arrays("mine")
    assert all(name in str(caught.value) for name in REFERENCES)


# ---- .npz files ----------------------------------------------------------------------------------------------------


@pytest.fixture
def npz(tmp_path):
    """Writes arrays and returns the path."""

    def write(**arrays):
        np.savez(tmp_path / "My-GRU.npz", **arrays)
        return tmp_path / "My-GRU.npz"

    return write


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("name", REFERENCES)
def test_npz_of_each_convention(name, save, tmp_path):
    arrays = all_arrays(name, 3, 4)
    expected = qg.from_arrays(name, **arrays).run(random_x())
    path = tmp_path / "gru.npz"
    save(path, **arrays)
    assert np.array_equal(qg.load(path, convention=name).run(random_x()), expected)
    save(path, convention=name, **arrays)
    assert np.array_equal(qg.load(path).run(random_x()), expected)
    assert np.array_equal(qg.load(path, convention=name).run(random_x()), expected)


def test_npz_says_everything_that_arguments_say(npz):
    arrays = all_arrays("pytorch", 3, 4)
    said = {"gate": "hard_sigmoid", "slope": 0.2, "candidate": "relu", "initial_state": np.array([0.5, -1, 0, 2])}
    model = qg.load(npz(**arrays, **said), convention="pytorch")
    assert np.array_equal(model.run(random_x()), qg.from_arrays("pytorch", **arrays, **said).run(random_x()))
    assert (model.name, model.last_step) == ("my_gru", False)
    assert model.notes == ("imported from My-GRU.npz, convention pytorch",)


def test_npz_of_several_layers(npz):
    first, second = all_arrays("keras-reset-after", 3, 4), all_arrays("keras-reset-after", 4, 2)
    start = np.array([0.25, -0.5])
    path = npz(
        **{f"0.{key}": values for key, values in first.items()},
        **{f"1.{key}": values for key, values in second.items()},
        **{"1.initial_state": start},
    )
    stack = qg.load(path, convention="keras-reset-after")
    middle = qg.from_arrays("keras-reset-after", **first).run(random_x())
    expected = qg.from_arrays("keras-reset-after", initial_state=start, **second).run(middle)
    assert np.array_equal(stack.run(random_x()), expected)
    assert [layer.name for layer in stack.layers] == ["gru_0", "gru_1"]


def test_npz_in_the_order_of_fortran(npz):
    arrays = {key: np.asfortranarray(values) for key, values in all_arrays("pytorch", 3, 4).items()}
    expected = qg.from_arrays("pytorch", **arrays).run(random_x())
    assert np.array_equal(qg.load(npz(**arrays), convention="pytorch").run(random_x()), expected)


def layers_of(*numbers, **more):
    return {
        f"{number}.{key}": values for number in numbers for key, values in all_arrays("pytorch", 3, 3).items()
    } | more


NPZ_REFUSALS = {
    "object array": (
        pytorch_arrays(bias_ih=np.array([None] * 12)),
        "not a readable .npz file (it holds pickled objects",
    ),
    "any object array": (pytorch_arrays(more=np.array([None])), "not a readable .npz file (it holds pickled objects"),
    "unknown array": (pytorch_arrays(x=np.ones(3)), "convention 'pytorch': no array 'x' in it; it has weight_ih"),
    "path": (pytorch_arrays(**{"../weight_ih": np.ones(3)}), "no array '../weight_ih' in it"),
    "missing array": (pytorch_arrays(weight_hh=None), "convention 'pytorch': array 'weight_hh' is missing"),
    "empty": ({}, "convention 'pytorch': array 'weight_ih' is missing"),
    "text": (pytorch_arrays(bias_ih=np.array(["1"] * 12)), "bias_ih is of type <U1, expected real numbers"),
    "records": (pytorch_arrays(bias_ih=np.zeros(12, "f4,f4")), "bias_ih is of type [('f0', '<f4'), ('f1', '<f4')]"),
    "shape": (pytorch_arrays(bias_ih=np.ones(4)), "bias_ih (4,), expected [3H], that is (12,)"),
    "infinite": (pytorch_arrays(bias_ih=np.full(12, np.inf)), "parameter 'bias_ih' holds inf"),
    "convention as numbers": (pytorch_arrays(convention=[1]), "'convention' is int64 (1,), expected a single text"),
    "convention as a list": (
        pytorch_arrays(convention=["pytorch"]),
        "'convention' is <U7 (1,), expected a single text",
    ),
    "slope as text": (pytorch_arrays(slope="0.2"), "'slope' is <U3 (), expected a single number"),
    "gate": (pytorch_arrays(gate="step"), "gate 'step', supported are sigmoid, hard_sigmoid"),
    "state": (pytorch_arrays(initial_state=np.ones(3)), "initial_state (3,), expected (4,)"),
    "not all numbered": (layers_of(0, bias_ih=np.ones(9)), "array 'bias_ih' has no layer number, others have"),
    "a layer is missing": (layers_of(0, 2), "layers [0, 2], expected 0, 1, 2 and so on"),
    "no layer 0": (layers_of(1), "layers [1], expected 0, 1, 2 and so on"),
    "layer 00": (layers_of("00"), "no array '00.weight_ih' in it"),
    "array of a layer": (layers_of(0, 1) | {"1.bias_hh": np.ones(4)}, "layer 1: bias_hh (4,), expected [3H]"),
    "widths": (
        {**layers_of(0), **{f"1.{key}": values for key, values in all_arrays("pytorch", 2, 2).items()}},
        "layer 'gru_1': 2 inputs, but the layer before it gives 3 values",
    ),
}


@pytest.mark.parametrize(("arrays", "message"), NPZ_REFUSALS.values(), ids=NPZ_REFUSALS)
def test_npz_refusals(npz, arrays, message):
    with pytest.raises(qg.ModelError) as caught:
        qg.load(npz(**arrays), convention="pytorch")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


CONVENTION_REFUSALS = {
    "none": ({}, None, "of which convention are its arrays? Say it with load(..., convention=...)"),
    "unknown": ({}, "mine", "convention 'mine' is unknown; known are cho2014"),
    "unknown in the file": ({"convention": "mine"}, None, "convention 'mine' is unknown; known are cho2014"),
    "two": ({"convention": "flax"}, "pytorch", "convention 'pytorch', but the file itself says 'flax'; leave one out"),
    "slope is missing": ({"gate": "hard_sigmoid"}, "pytorch", "gate 'hard_sigmoid' with slope=None"),
    "slope is no number": ({"gate": "hard_sigmoid", "slope": np.nan}, "pytorch", "gate 'hard_sigmoid' with slope=nan"),
}


@pytest.mark.parametrize(("said", "option", "message"), CONVENTION_REFUSALS.values(), ids=CONVENTION_REFUSALS)
def test_npz_with_an_unclear_convention(npz, said, option, message):
    with pytest.raises(qg.ConfigError) as caught:
        qg.load(npz(**pytorch_arrays(**said)), convention=option)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


class Opened:
    """A pickle of this would run code."""

    def __reduce__(self):
        return exec, ("raise SystemExit('code of a model file was run')",)


def test_pickles_are_refused_unread(tmp_path):
    (tmp_path / "pickle.npz").write_bytes(pickle.dumps(Opened()))
    np.savez(tmp_path / "objects.npz", **pytorch_arrays(weight_ih=np.array([Opened()], dtype=object)))
    for name in ("pickle.npz", "objects.npz"):
        with pytest.raises(qg.ModelError, match="it holds pickled objects, which are never read"):
            qg.load(tmp_path / name, convention="pytorch")


def npy_bytes(shape, values=b"", descr="<f8"):
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + values


def with_declared_size(content, size):
    """The archive with another unpacked size in the directory entry of its only member."""
    position = content.index(b"PK\x01\x02")
    return content[: position + 24] + struct.pack("<I", size) + content[position + 28 :]


def zipped(name, content, method=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


SIZES_THAT_LIE = {
    "shape beyond the file": (zipped("kernel.npy", npy_bytes((2**30, 2**10))), "declares float64 (1073741824, 1024)"),
    "shape below the file": (zipped("kernel.npy", npy_bytes((1, 3), bytes(32))), "and has 32 bytes"),
    "negative axes": (zipped("kernel.npy", npy_bytes((-1, -3), bytes(24))), "declares float64 (-1, -3)"),
    "long text": (zipped("convention.npy", npy_bytes((), b"", "<U100000000")), "declares <U100000000 ()"),
    "member beyond the file": (
        with_declared_size(zipped("kernel.npy", npy_bytes((1, 3), bytes(24)), zipfile.ZIP_DEFLATED), 2**30),
        "'kernel.npy' declares 1073741824 bytes, more than it can hold",
    ),
    "shape beyond the member": (
        with_declared_size(zipped("kernel.npy", npy_bytes((2**22, 3), bytes(24)), zipfile.ZIP_DEFLATED), 2**14),
        "array 'kernel' declares float64 (4194304, 3)",
    ),
    "version 3": (zipped("kernel.npy", b"\x93NUMPY\x03\x00" + bytes(10)), "is in npy format 3.0"),
}


@pytest.mark.parametrize(("content", "message"), SIZES_THAT_LIE.values(), ids=SIZES_THAT_LIE)
def test_nothing_is_allocated_for_sizes_that_lie(content, message, tmp_path):
    (tmp_path / "gru.npz").write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(qg.ModelError) as caught:
            qg.load(tmp_path / "gru.npz", convention="keras-reset-after")
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    assert message in str(caught.value)


def test_two_members_of_one_name(tmp_path):
    path = tmp_path / "gru.npz"
    np.savez(path, **pytorch_arrays(), bias_xx=np.ones(12))
    path.write_bytes(path.read_bytes().replace(b"bias_xx", b"bias_hh"))
    with pytest.raises(qg.ModelError, match="it holds two arrays of the same name"):
        qg.load(path, convention="pytorch")


def test_arrays_that_a_damaged_directory_hides_are_missed(tmp_path):
    """The comment of weight_hh, made long enough to hold the entries of both biases: zipfile sees no biases."""
    path = tmp_path / "gru.npz"
    np.savez(path, **pytorch_arrays())
    content = bytearray(path.read_bytes())
    start = content.rindex(b"weight_hh.npy") - 46
    content[start + 32 : start + 34] = struct.pack("<H", 2 * 46 + len("bias_ih.npy") + len("bias_hh.npy"))
    path.write_bytes(content)
    assert zipfile.ZipFile(path).namelist() == ["weight_ih.npy", "weight_hh.npy"]
    with pytest.raises(qg.ModelError, match="its directory shows 2 of 4 arrays"):
        qg.load(path, convention="pytorch")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damaged_npz(tmp_path, save):
    """Whatever is changed, cut or put in: the same model (a date, a comment), or one line."""
    buffer = io.BytesIO()
    save(buffer, convention="pytorch", **all_arrays("pytorch", 1, 1))
    content, path = buffer.getvalue(), tmp_path / "gru.npz"
    path.write_bytes(content)
    expected = qg.load(path).run(random_x(1))
    generator = np.random.default_rng(0)
    refused = 0  # lines
    for _ in range(600):
        damaged = bytearray(content)
        at = int(generator.integers(len(content)))
        match generator.integers(4):
            case 0:
                damaged[at] ^= 1 << int(generator.integers(8))
            case 1:
                damaged[at : at + 4] = generator.bytes(4)
            case 2:
                del damaged[at : at + int(generator.integers(1, 60))]
            case 3:
                damaged[at:at] = generator.bytes(3)
        path.write_bytes(damaged)
        try:
            found = qg.load(path).run(random_x(1))
        except (qg.ModelError, qg.ConfigError) as error:
            refused += len(str(error).splitlines())
        else:
            assert np.array_equal(found, expected)
    assert 300 < refused <= 600


def test_text_of_characters_that_there_are_not(tmp_path):
    """numpy keeps characters as 32-bit numbers, and Python cannot make a text of all of them."""
    path = tmp_path / "gru.npz"
    np.savez(
        path, convention=np.array([0x7FFFFFFF, 97], np.uint32).view("<U2")[0:1].reshape(()), weight_ih=np.zeros((3, 1))
    )
    with pytest.raises(qg.ModelError, match="array 'convention' holds characters that there are not"):
        qg.load(path)
