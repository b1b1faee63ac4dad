"""The command line on wrong files: one line that says what, where, found, allowed, and nothing half-written."""

from __future__ import annotations

import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_line import assert_refused, contents, done, quantgru

import quantgru as qg

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "tests" / "models"


# ---- bad models ----------------------------------------------------------------------------------------------------

COMMANDS = {
    "inspect": ["inspect", "{model}"],
    "simulate": ["simulate", "{model}", "--input", "x.npz", "-o", "out"],
    "check": ["check", "m.qgru", "{model}", "--input", "x.npz"],
    "export": ["export", "{model}", "-o", "out"],
    "hil": ["hil", "{model}", "--input", "x.npz", "--board", "host"],
    "quantize": ["quantize", "{model}", "--calibration", "x.npz", "-o", "out"],
}


def write_bad_models() -> None:
    Path("truncated.qgru").write_bytes(Path("m.qgru").read_bytes()[:1000])
    Path("truncated.qgf").write_bytes(Path("m.qgf").read_bytes()[:1000])
    Path("truncated.keras").write_bytes((MODELS / "stack.keras").read_bytes()[:1000])
    for suffix in ("qgru", "qgf", "keras"):
        Path(f"empty.{suffix}").touch()
        Path(f"folder.{suffix}").mkdir()
        shutil.copy("x.npz", f"foreign.{suffix}")
    shutil.copy("m.qgf", "float.qgru")
    shutil.copy("m.qgru", "integer.qgf")


@pytest.mark.parametrize("command", ["inspect", "simulate", "check", "export", "hil"])
def test_a_file_that_is_no_integer_model(command: str, here: Path) -> None:
    write_bad_models()
    before = contents(here)
    for name, says in {
        "missing.qgru": "no such file",
        "truncated.qgru": "truncated",
        "empty.qgru": "truncated, or not a quantgru file",
        "foreign.qgru": "not a quantgru file",
        "folder.qgru": "folder.qgru",
        "float.qgru": "holds 'float model', expected an integer model (.qgru)",
        "": "no such file",
    }.items():
        assert_refused(quantgru(*(part.format(model=name) for part in COMMANDS[command])), name, says)
    assert contents(here) == before


def test_a_file_that_is_no_float_model(here: Path) -> None:
    write_bad_models()
    before = contents(here)
    for name, says in {
        "missing.qgf": "no such file",
        "missing.keras": "no such file",
        "truncated.qgf": "truncated",
        "truncated.keras": "save it again with model.save(path)",
        "empty.qgf": "truncated, or not a quantgru file",
        "empty.keras": "not a readable zip archive",
        "foreign.qgf": "not a quantgru file",
        "foreign.keras": "holds no metadata.json",
        "folder.qgf": "folder.qgf",
        "folder.keras": "a folder",
        "integer.qgf": "holds 'integer model', expected a float model",
        "m.qgru": "is already quantized",
        "x.npz": "of which convention are its arrays?",
        "gru.onnx": "model gru.onnx: ",
        "gru": "file type ''",
    }.items():
        assert_refused(quantgru(*(part.format(model=name) for part in COMMANDS["quantize"])), name, says)
    assert contents(here) == before


def test_softmax_is_refused_and_can_be_left_out(here: Path) -> None:
    with zipfile.ZipFile(MODELS / "reset_after.keras") as source, zipfile.ZipFile("softmax.keras", "w") as copy:
        for entry in source.infolist():
            content = source.read(entry)
            if entry.filename == "config.json":
                config = json.loads(content)
                config["config"]["layers"][-1]["config"]["activation"] = "softmax"
                content = json.dumps(config).encode()
            copy.writestr(entry, content)
    command = ["quantize", "softmax.keras", "--calibration", MODELS / "reset_after.npz", "-o", "out.qgru"]
    assert_refused(quantgru(*command), "softmax", "--softmax logits", "the largest output stays the largest")
    assert not Path("out.qgru").exists()
    done(quantgru(*command, "--softmax", "logits"))


@pytest.mark.parametrize(
    "notes",
    [
        {"inputs": 3, "calibration": []},
        {"inputs": [{}]},
        {"inputs": [{}], "calibration": {"sequences": "many"}},
        {"warnings": 7},
    ],
)
def test_notes_may_be_anything(notes: dict[str, object], here: Path) -> None:
    """No digest covers them: inspect still shows the numbers."""
    replace(qg.IntModel.load("m.qgru"), notes=notes).save("notes.qgru")
    assert "notes on the calibration are damaged" in done(quantgru("inspect", "notes.qgru"))


def test_names_are_no_markup(here: Path) -> None:
    model = qg.IntModel.load("m.qgru")
    name = "a[red] [/b] :warning:"
    replace(model, layers=(replace(model.layers[0], name=name), *model.layers[1:])).save("names.qgru")
    assert name in done(quantgru("inspect", "names.qgru"))


# ---- bad data ------------------------------------------------------------------------------------------------------

X = np.linspace(0, 1, 2 * 3 * 8).reshape(2, 3, 8)
NAN, INFINITE = X.copy(), X.copy()
NAN[1, 2, 3] = np.nan
INFINITE[0, 0, 7] = -np.inf

BAD_DATA = {
    "nan": (dict(x=NAN), "nan at sequence 1, step 2, feature 3"),
    "infinite": (dict(x=INFINITE), "-inf at sequence 0, step 0, feature 7"),
    "no sequence": (dict(x=X[:0]), "holds no steps"),
    "no step": (dict(x=X[:, :0]), "holds no steps"),
    "features": (dict(x=X[:, :, :7]), "7 features, the model has 8 inputs"),
    "no x": (dict(y=X), "no array 'x', found ['y']"),
    "dimensions": (dict(x=X[0]), "shape (3, 8), expected [sequences, steps, features]"),
    "text": (dict(x=np.full((2, 3, 8), "a")), "expected real numbers"),
    "complex": (dict(x=X + 0j), "expected real numbers"),
    "objects": (dict(x=np.full((2, 3, 8), None)), "pickled objects, which are never read"),
    "long": (dict(x=X, lengths=[3, 4]), "'lengths': 3 ... 4, allowed 1 ... 3"),
    "none": (dict(x=X, lengths=[0, 3]), "'lengths': 0 ... 3, allowed 1 ... 3"),
    "lengths": (dict(x=X, lengths=[1, 2, 3]), "'lengths': int64 (3,), expected integers (2,)"),
    "real lengths": (dict(x=X, lengths=[1.0, 2.0]), "'lengths': float64 (2,), expected integers (2,)"),
    "labels": (dict(x=X, labels=[1]), "'labels': int64 (1,), expected integers (2,)"),
}


@pytest.mark.parametrize(("arrays", "says"), BAD_DATA.values(), ids=BAD_DATA)
def test_bad_sequences(arrays: dict[str, object], says: str, here: Path) -> None:
    np.savez("bad.npz", **arrays)  # type: ignore[arg-type]
    before = contents(here)
    assert_refused(quantgru("quantize", "m.qgf", "--calibration", "bad.npz", "-o", "out.qgru"), says, "calibration")
    assert_refused(quantgru("simulate", "m.qgru", "--input", "bad.npz", "-o", "out.npz"), says)
    assert_refused(quantgru("hil", "m.qgru", "--input", "bad.npz", "--board", "host"), says)
    assert contents(here) == before


def test_a_file_that_holds_no_sequences(here: Path) -> None:
    np.save("array.npy", X)
    Path("text.npz").write_text("x = 1")
    Path("truncated.npz").write_bytes(Path("x.npz").read_bytes()[:500])
    Path("folder.npz").mkdir()
    before = contents(here)
    for name in ("missing.npz", "array.npy", "text.npz", "truncated.npz", "folder.npz", "m.qgru"):
        assert_refused(quantgru("quantize", "m.qgf", "--calibration", name, "-o", "out.qgru"), name)
        result = quantgru("simulate", "m.qgru", "--input", name, "-o", "out.npz")
        assert_refused(result, name)
        assert "pickled" not in result.err
    assert contents(here) == before


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        (dict(mean=np.zeros(8)), "no array 'scale', found ['mean']"),
        (dict(mean=np.zeros(8), scale=np.zeros(8)), "scale: 0 at feature 0"),
        (dict(mean=np.zeros(7), scale=np.ones(8)), "mean: shape (7,), expected (8,)"),
        (dict(mean=np.full(8, np.nan), scale=np.ones(8)), "mean: nan"),
    ],
)
def test_bad_standardisation(arrays: dict[str, np.ndarray], says: str, here: Path) -> None:
    np.savez("s.npz", **arrays)
    command = ["quantize", "m.qgf", "--calibration", "x.npz", "-o", "out.qgru", "--standardisation", "s.npz"]
    assert_refused(quantgru(*command), says)


def test_raw_inputs_must_be_raw(here: Path) -> None:
    result = quantgru("simulate", "m.qgru", "--raw", "x.npz", "-o", "out.npz")
    assert_refused(result, "array 'x'", "expected integers of -32768 ... 32767")


# ---- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("gesture.qgru", "gesture"),
        ("2fast-model.qgru", "model_2fast_model"),
        ("modèle n° 1.qgru", "modele_n_1"),
        ("int.qgru", "model_int"),
        ("quantgru.qgru", "model_quantgru"),
        ("手.qgru", "model"),
        ("a" * 50 + ".qgru", "a" * 31),
    ],
)
def test_the_name_of_the_file_becomes_a_name_for_c(file: str, name: str, here: Path) -> None:
    done(quantgru("quantize", "m.qgf", "--calibration", "x.npz", "-o", file))
    assert qg.IntModel.load(file).name == name
    assert f"{name}.c" in done(quantgru("export", file, "-o", "out dir/é"))


@pytest.mark.parametrize("name", ["", "2fast", "a b", "int", "x" * 32, "*/"])
def test_a_name_that_is_none_for_c(name: str, here: Path) -> None:
    before = contents(here)
    says = f"model name {name!r}: cannot be used in C", "--name"
    quantize = ["quantize", "m.qgf", "--calibration", "x.npz", "-o", "out.qgru"]
    assert_refused(quantgru(*quantize, "--name", name), *says)
    assert_refused(quantgru("export", "m.qgru", "-o", "out", "--name", name), *says)
    assert contents(here) == before
