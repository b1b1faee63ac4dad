"""The public names, as a user's script has them: what they take, what they give, and what they refuse."""

from __future__ import annotations

import os
import pickle
import re
import shutil
import subprocess
import sys
from copy import deepcopy
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from conftest import Digits
from hil_boards import board_or_skip, build_model

import quantgru as qg
from quantgru.hil.images import launch

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "tests" / "models"
GOLDEN = ROOT / "tests" / "golden" / "gesture.qgru"


@pytest.fixture(scope="module")
def int_model(digits: Digits) -> qg.IntModel:
    """Digits: 8 steps of 8 inputs, 10 outputs after the last step."""
    return qg.quantize(digits.model, calibration=digits.calibration, input_units=["brightness"] * 8)


@pytest.fixture(scope="module")
def stack() -> tuple[qg.FloatModel, qg.IntModel, np.ndarray]:
    """A model of two GRU layers with 3 inputs and 2 outputs in every step, and its data [3, 9, 3]."""
    x = np.load(MODELS / "stack.npz")["x"]
    model = qg.load(MODELS / "stack.keras")
    return model, qg.quantize(model, calibration=x), x


# ---- names ---------------------------------------------------------------------------------------------------------


def test_the_names() -> None:
    assert dir(qg) == sorted(qg.__all__)
    for name in qg.__all__:
        assert getattr(qg, name).__name__ == name
    assert {"load", "quantize", "simulate", "export", "run_on_board", "IntModel", "FloatModel"} <= set(dir(qg))
    assert re.fullmatch(r"\d+\.\d+\.\d+", qg.__version__)


def test_a_name_that_does_not_exist() -> None:
    with pytest.raises(AttributeError, match="module 'quantgru' has no attribute 'quantise'"):
        qg.quantise  # noqa: B018


def test_all_errors_are_one_family() -> None:
    for error in (qg.ModelError, qg.DataError, qg.ConfigError, qg.DeviceError):
        assert issubclass(error, qg.QuantgruError)
    assert not issubclass(qg.QuantgruError, (OSError, ValueError))


def test_import_loads_nothing_heavy() -> None:
    program = (
        "import sys, quantgru; dir(quantgru)\n"
        "heavy = {'numpy', 'numba', 'jinja2', 'rich', 'click', 'serial', 'torch', 'keras', 'h5py'}\n"
        "print('loaded:', *(heavy & sys.modules.keys()))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "loaded:\n"


# ---- shapes and types ----------------------------------------------------------------------------------------------


def test_outputs_of_every_step(stack: tuple[qg.FloatModel, qg.IntModel, np.ndarray]) -> None:
    model, int_model, x = stack
    exact, device = model.run(x), qg.simulate(int_model, x)
    assert exact.shape == device.shape == (3, 7, 2)
    assert exact.dtype == device.dtype == np.float64
    step = 2.0**-int_model.output_fraction_bits
    assert np.array_equal(device / step, np.round(device / step))
    assert 0 < np.abs(exact - device).max() < 0.05  # int8 weights


def test_outputs_of_the_last_step(digits: Digits, int_model: qg.IntModel) -> None:
    exact, device = digits.model.run(digits.x), qg.simulate(int_model, digits.x)
    assert exact.shape == device.shape == (400, 10)
    assert exact.dtype == device.dtype == np.float64
    assert np.mean(exact.argmax(axis=1) == device.argmax(axis=1)) >= 0.995


def test_a_list_of_unequal_lengths_is_a_batch(stack: tuple[qg.FloatModel, qg.IntModel, np.ndarray]) -> None:
    model, _, x = stack
    batch = [x[0], x[1][:1], x[2][:5]]
    int_model = qg.quantize(model, calibration=batch)
    for run, of in ((qg.FloatModel.run, model), (qg.simulate, int_model)):
        outputs = run(of, batch)  # type: ignore[operator]
        assert isinstance(outputs, list)
        assert [y.shape for y in outputs] == [(7, 2), (1, 2), (5, 2)]
        for y, sequence in zip(outputs, batch, strict=True):
            assert np.allclose(y, run(of, sequence[None])[0], rtol=0, atol=1e-12)  # type: ignore[operator]


def test_a_list_of_unequal_lengths_has_one_last_step_each(digits: Digits, int_model: qg.IntModel) -> None:
    batch = [digits.x[0], digits.x[1][:3], digits.x[2][:1]]
    outputs = qg.simulate(int_model, batch)
    assert outputs.shape == digits.model.run(batch).shape == (3, 10)
    for y, sequence in zip(outputs, batch, strict=True):
        assert np.array_equal(y, qg.simulate(int_model, [sequence])[0])


@pytest.mark.parametrize("kind", [np.float16, np.float32, ">f4", np.uint8, np.int64, bool, list])
def test_numbers_of_every_kind(kind: type, int_model: qg.IntModel) -> None:
    x = np.ones((2, 3, 8))
    given = x.tolist() if kind is list else x.astype(kind)
    assert np.array_equal(qg.simulate(int_model, given), qg.simulate(int_model, x))


def test_inputs_are_left_alone(digits: Digits) -> None:
    x = np.asfortranarray(digits.calibration[:20])
    before = x.copy()
    x.flags.writeable = False
    qg.simulate(qg.quantize(digits.model, calibration=x, mean=0.5, scale=2.0), x)
    assert np.array_equal(x, before)


def test_mean_and_scale_are_folded_in(digits: Digits) -> None:
    mean, scale = np.linspace(-3, 3, 8), np.linspace(0.1, 40, 8)
    sensor = digits.calibration * scale + mean
    folded = qg.quantize(digits.model, calibration=sensor, mean=mean, scale=scale)
    exact = digits.model.run(digits.calibration)
    assert np.mean(qg.simulate(folded, sensor).argmax(axis=1) == exact.argmax(axis=1)) >= 0.99


# ---- files ---------------------------------------------------------------------------------------------------------


def test_save_and_load_give_the_same_model(int_model: qg.IntModel, digits: Digits, tmp_path: Path) -> None:
    for path in (tmp_path / "m.qgru", str(tmp_path / "mödel 2.qgru")):
        int_model.save(path)
        loaded = qg.IntModel.load(path)
        assert loaded.digest == int_model.digest
        assert loaded.name == int_model.name == "digits"
        assert dict(loaded.notes) == dict(int_model.notes)
        assert np.array_equal(qg.simulate(loaded, digits.x[:9]), qg.simulate(int_model, digits.x[:9]))
    assert (tmp_path / "m.qgru").read_bytes() == (tmp_path / "mödel 2.qgru").read_bytes()


def test_a_float_model_is_a_file_too(digits: Digits, tmp_path: Path) -> None:
    digits.model.save(tmp_path / "m.qgf")
    assert np.array_equal(qg.load(tmp_path / "m.qgf").run(digits.x), digits.model.run(digits.x))
    assert qg.load(digits.model) is digits.model


def test_saving_where_it_cannot_be(int_model: qg.IntModel, digits: Digits, tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere" / "m", tmp_path):
        for model in (int_model, digits.model):
            with pytest.raises(qg.ModelError, match="cannot be written"):
                model.save(path)
    assert not list(tmp_path.iterdir())


def test_a_pipe_is_not_replaced_by_a_file_and_a_link_stays(int_model: qg.IntModel, tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    with pytest.raises(qg.ModelError, match="not a regular file"):
        int_model.save(pipe)
    assert pipe.is_fifo()
    link.symlink_to(tmp_path / "m.qgru")
    int_model.save(link)
    assert link.is_symlink() and qg.IntModel.load(tmp_path / "m.qgru").digest == int_model.digest
    assert {path.name for path in tmp_path.iterdir()} == {"pipe", "link", "m.qgru"}


def test_copies_for_other_processes(int_model: qg.IntModel, digits: Digits) -> None:
    for copy in (pickle.loads(pickle.dumps(int_model)), deepcopy(int_model)):
        assert copy.digest == int_model.digest and dict(copy.notes) == dict(int_model.notes)
        for field in fields(qg.IntModel):
            if field.name not in ("layers", "input_fraction_bits", "selftest", "notes"):  # in the digest, or above
                assert getattr(copy, field.name) == getattr(int_model, field.name)
        assert copy.selftest.check == int_model.selftest.check
        assert np.array_equal(qg.simulate(copy, digits.x[:2]), qg.simulate(int_model, digits.x[:2]))


@pytest.mark.parametrize("units", ["abcdefgh", None, ["px"], [1] * 8])
def test_units_that_are_none(digits: Digits, units: object) -> None:
    with pytest.raises(qg.ModelError, match=r"input_units .*, expected 8 texts, or none"):
        qg.quantize(digits.model, calibration=digits.calibration, input_units=units)  # type: ignore[arg-type]


def test_a_stream_runs_integer_models_only(digits: Digits, int_model: qg.IntModel) -> None:
    with pytest.raises(qg.ModelError, match="stream: a model of type FloatModel, expected an IntModel"):
        qg.Stream(digits.model)  # type: ignore[arg-type]
    with pytest.raises(qg.DataError, match=r"expected int16 \(8,\)"):
        qg.Stream(int_model).step_raw([0] * 8)  # type: ignore[arg-type]


def test_a_stream_takes_one_step_of_the_right_size(int_model: qg.IntModel) -> None:
    stream = qg.Stream(int_model)
    assert stream.step([0.5] * 8).shape == (10,)
    for x in ([0.5], [[0.5] * 8], "a", [np.nan] * 8, None, 0.5):
        with pytest.raises(qg.DataError, match="step"):
            stream.step(x)  # type: ignore[arg-type]


def test_export_gives_the_paths_and_takes_a_name(int_model: qg.IntModel, tmp_path: Path) -> None:
    paths = qg.export(int_model, tmp_path / "out", name="kws")
    assert set(paths) == {path for path in (tmp_path / "out").rglob("*") if path.is_file()}
    header = (tmp_path / "out" / "kws.h").read_text()
    for name in ("kws_reset", "kws_step", "kws_output", "kws_selftest", "KWS_INPUTS", "KWS_OUTPUTS"):
        assert name in header
    assert (tmp_path / "out" / "digits.h") not in qg.export(int_model, str(tmp_path / "out"), name="kws")
    assert tmp_path / "own" / "digits.h" in qg.export(int_model, tmp_path / "own")


# ---- boards --------------------------------------------------------------------------------------------------------


def test_a_board_by_name(digits: Digits, int_model: qg.IntModel) -> None:
    board_or_skip("host")
    told: list[int] = []
    result = qg.run_on_board(int_model, digits.x[:5], board="host", progress=told.append)
    assert result.equal is True
    assert (result.steps, result.total_steps, result.first_difference) == (40, 40, None)
    assert isinstance(result, qg.BoardResult) and type(result.steps) is int
    assert told


def test_a_board_behind_a_port(stack: tuple[qg.FloatModel, qg.IntModel, np.ndarray]) -> None:
    _, int_model, x = stack
    with launch(board_or_skip("host"), build_model(int_model)) as port:
        for given in (port, Path(port)):
            result = qg.run_on_board(int_model, [x[0], x[1][:1], x[2][:5]], port=given)
            assert result.equal and result.steps == 13


def test_where_to_run_must_be_said_once(int_model: qg.IntModel, digits: Digits) -> None:
    for where in ({}, {"board": "host", "port": "/dev/ttyACM0"}):
        with pytest.raises(qg.ConfigError, match="give either a board, by name, or a port"):
            qg.run_on_board(int_model, digits.x[:1], **where)  # type: ignore[arg-type]
    with pytest.raises(qg.ConfigError, match="port 3, expected a path or a URL"):
        qg.run_on_board(int_model, digits.x[:1], port=3)  # type: ignore[arg-type]
    with pytest.raises(qg.ConfigError, match="board 'esp99': unknown, there are host"):
        qg.run_on_board(int_model, digits.x[:1], board="esp99")
    with pytest.raises(qg.DeviceError, match="port /dev/ttyNONE: not there, and did not appear within 5 s"):
        qg.run_on_board(int_model, digits.x[:1], port="/dev/ttyNONE")


@pytest.mark.parametrize(
    "x", [[], np.zeros((0, 8, 8)), np.zeros((1, 0, 8)), np.zeros((8, 8)), np.zeros((1, 2, 7)), None]
)
def test_nothing_to_run_is_never_equal(x: object, int_model: qg.IntModel) -> None:
    with pytest.raises(qg.DataError):
        qg.run_on_board(int_model, x, board="host")  # type: ignore[arg-type]


def test_a_float_model_is_no_int_model(digits: Digits, tmp_path: Path) -> None:
    for wrong in (digits.model, "digits.qgru"):
        with pytest.raises(qg.ModelError, match=r"expected an IntModel; qg\.quantize or qg\.IntModel\.load gives one"):
            qg.export(wrong, tmp_path / "out")  # type: ignore[arg-type]
        with pytest.raises(qg.ModelError, match=r"expected an IntModel; qg\.quantize or qg\.IntModel\.load gives one"):
            qg.run_on_board(wrong, digits.x, board="host")  # type: ignore[arg-type]
        with pytest.raises(qg.ModelError, match=r"expected an IntModel; qg\.quantize or qg\.IntModel\.load gives one"):
            qg.simulate(wrong, digits.x)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


# ---- odd models ----------------------------------------------------------------------------------------------------


def random_gru(rng: np.random.Generator, n_inputs: int, n_units: int, reset: str) -> qg.Gru:
    return qg.Gru(
        f"{reset} of {n_units}",
        reset,  # type: ignore[arg-type]
        rng.normal(size=(3, n_units, n_inputs)) / np.sqrt(n_inputs),
        rng.normal(size=(3, n_units, n_units)) / np.sqrt(n_units),
        rng.normal(size=(3, n_units)) / 10,
        rng.normal(size=n_units) / 10 if reset == "after" else np.zeros(n_units),
    )


def random_head(rng: np.random.Generator, widths: list[int]) -> list[qg.Dense]:
    activations = ["relu", "tanh", "sigmoid"]
    return [
        qg.Dense(activation, rng.normal(size=(n, m)) / np.sqrt(m), np.zeros(n), activation)  # type: ignore[arg-type]
        for m, n, activation in zip(widths[:-1], widths[1:], activations, strict=False)
    ]


ODD = {
    "one of each": ([1, 1], [], (1, 1, 1)),
    "three layers and a head": ([3, 7, 9, 4], [4, 3, 2, 1], (2, 5, 3)),
    "300 units": ([40, 300], [300, 12], (2, 3, 40)),
    "many inputs": ([700, 5], [], (1, 2, 700)),
}


@pytest.mark.parametrize("last_step", [False, True])
@pytest.mark.parametrize(("units", "head", "shape"), ODD.values(), ids=ODD)
def test_odd_models_on_a_board(units: list[int], head: list[int], shape: tuple[int, ...], last_step: bool) -> None:
    board_or_skip("host")
    rng = np.random.default_rng(0)
    resets = ["after", "before", "after"]
    grus = [random_gru(rng, *size, reset) for *size, reset in zip(units[:-1], units[1:], resets, strict=False)]
    model = qg.FloatModel((*grus, *random_head(rng, head)), last_step)
    x = rng.normal(size=shape)
    int_model = qg.quantize(model, calibration=x)
    assert qg.simulate(int_model, x).shape == model.run(x).shape
    result = qg.run_on_board(int_model, x, board="host")
    assert result.equal, result.first_difference


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize("offset", [0.0, -1.0])
def test_inputs_of_every_size(scale: float, offset: float) -> None:
    """Quantization follows the data: the same relative accuracy whatever the unit of the inputs."""
    rng = np.random.default_rng(1)
    gru = random_gru(rng, 2, 6, "after")
    x = rng.uniform(-1, 1, size=(4, 20, 2)) + offset
    scaled = qg.Gru("gru", "after", gru.input_weights / scale, gru.recurrent_weights, gru.bias, gru.recurrent_bias)
    model = qg.FloatModel((scaled,), False)
    outputs = qg.simulate(qg.quantize(model, calibration=x * scale), x * scale)
    assert np.abs(outputs - model.run(x * scale)).max() < 0.03


# ---- the example ---------------------------------------------------------------------------------------------------


def readme_examples() -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def test_the_module_of_the_readme_can_be_loaded() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install quantgru[torch]")
    _, example, *_ = readme_examples()
    names: dict[str, object] = {"torch": torch, "__name__": "readme"}
    exec(compile(example, "README.md", "exec"), names)
    module = names["Gesture"]()  # type: ignore[operator]
    x = np.random.default_rng(0).normal(size=(3, 7, 6))
    expected = module.double()(torch.from_numpy(x)).detach().numpy()
    assert np.abs(qg.load(module).run(x) - expected).max() < 1e-12


def test_the_example_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Word for word, but for the board, which is here and not behind /dev/ttyACM0."""
    board_or_skip("host")
    example, *_ = readme_examples()
    assert len(example.splitlines()) <= 11
    on_host = example.replace('port="/dev/ttyACM0"', 'board="host"')
    assert on_host != example
    monkeypatch.chdir(tmp_path)
    shutil.copy(MODELS / "reset_after.keras", "gesture.keras")
    steps = np.linspace(0, 4 * np.pi, 30)
    phases = np.random.default_rng(0).uniform(0, 6, (120, 1, 3))
    np.savez("train.npz", x=np.sin(steps[:, None] * [1, 2, 0.5] + phases).astype(np.float32))
    names: dict[str, object] = {}
    exec(compile(on_host, "README.md", "exec"), names)
    result = names["result"]
    assert isinstance(result, qg.BoardResult)
    assert result.steps == 100 * 30
    assert Path("gesture.qgru").is_file() and Path("firmware/gesture/gesture.h").is_file()


@pytest.mark.parametrize("timeout_s", [0, -1.0, float("nan"), float("inf"), 86401, 1e300])
def test_a_timeout_that_is_none(int_model: qg.IntModel, timeout_s: float) -> None:
    with pytest.raises(qg.ConfigError, match="expected more than 0 and at most 86,400 s"):
        qg.run_on_board(int_model, np.zeros((1, 1, 8)), board="host", timeout_s=timeout_s)


def test_a_timeout_is_how_long_one_answer_may_take(int_model: qg.IntModel) -> None:
    board_or_skip("host")
    assert qg.run_on_board(int_model, np.zeros((1, 2, 8)), board="host", timeout_s=3.0).equal
    host, port = os.openpty()
    try:
        with pytest.raises(qg.DeviceError, match=r"the board is silent \(0\.\d s\)"):
            qg.run_on_board(int_model, np.zeros((1, 2, 8)), port=os.ttyname(port), timeout_s=0.3)
    finally:
        os.close(host)
        os.close(port)
