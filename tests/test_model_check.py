"""A new model held against an old one: figures against ones computed here, gates at their limits, what is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_line import Result, assert_refused, done, quantgru
from support_export import load

import quantgru as qg


@pytest.fixture(scope="module")
def pair(digits) -> tuple[qg.IntModel, qg.IntModel]:
    """The same weights with formats from other data; the second clips many of the first's inputs."""
    return tuple(qg.quantize(digits.model, calibration=digits.calibration * scale) for scale in (1.0, 0.1))  # type: ignore


def random_model(seed: int, units: int = 6, outputs: int = 2, last_step: bool = False) -> qg.IntModel:
    rng = np.random.default_rng(seed)
    weights = [rng.normal(size=(3, units, n)) / 2 for n in (3, units)]
    gru = qg.Gru("gru", "after", *weights, rng.normal(size=(3, units)), rng.normal(size=units))
    dense = qg.Dense("dense", rng.normal(size=(outputs, units)), np.zeros(outputs), "linear")
    return qg.quantize(qg.FloatModel((gru, dense), last_step), calibration=rng.normal(size=(4, 20, 3)))


def gate(result: qg.CheckResult, name: str) -> float:
    (found,) = [gate for gate in result.gates if gate.name == name]
    return found.value


def test_figures_are_those_of_the_outputs(digits, pair: tuple[qg.IntModel, qg.IntModel]) -> None:
    old, new = pair
    result = qg.check(old, new, digits.x, digits.labels, min_db=-math.inf, min_agreement=0, max_accuracy_loss=1)
    before, after = (qg.simulate(model, digits.x) for model in pair)
    error = ((before - after) ** 2).sum()
    right = [int((y.argmax(axis=1) == digits.labels).sum()) for y in (before, after)]
    assert gate(result, "output SQNR") == pytest.approx(10 * math.log10((before**2).sum() / error), abs=1e-9)
    assert gate(result, "labels as the old model's") == (before.argmax(axis=1) == after.argmax(axis=1)).mean()
    assert gate(result, "accuracy loss") == (right[0] - right[1]) / 400
    assert [result.old.accuracy, result.new.accuracy] == [hits / 400 for hits in right]
    assert right[0] - right[1] > 40 and result.new.clipped > 1000 > result.old.clipped
    assert result.passed and result.old.digest == old.digest.hex()


def test_padding_counts_for_nothing() -> None:
    """Outputs of every step, of sequences of unequal lengths."""
    old, new = random_model(0), random_model(1)
    rng = np.random.default_rng(2)
    x = [rng.normal(size=(n, 3)) for n in (1, 30, 7)]
    result = qg.check(old, new, x)
    before, after = (np.concatenate(qg.simulate(model, x)) for model in (old, new))
    assert len(before) == 38
    assert gate(result, "labels as the old model's") == (before.argmax(axis=1) == after.argmax(axis=1)).mean()
    assert not result.passed


def test_a_model_equals_itself() -> None:
    model = random_model(0)
    result = qg.check(model, model, np.ones((2, 5, 3)))
    assert result.passed and gate(result, "output SQNR") == math.inf
    (sqnr, *_) = json.loads(json.dumps(result.to_json(), allow_nan=False))["gates"]
    assert sqnr == {"name": "output SQNR", "unit": "dB", "kind": "min", "value": None, "limit": 30.0, "holds": True}


def test_sizes() -> None:
    """A unit more of 3 inputs and 2 outputs: by hand."""
    result = qg.check(random_model(0, 6), random_model(0, 7), np.ones((1, 5, 3)), min_db=-math.inf, min_agreement=0)
    weights = 3 * (3 + 7) + 3 * 6 + 2  # its own rows; a column of U in the others; a column of the dense layer
    scales_and_biases = 3 * 2 * (2 + 1) + 3 * 4 + 4
    assert gate(result, "flash growth") == weights + scales_and_biases
    assert gate(result, "RAM growth") == 4 + 6
    assert not result.passed
    grown = {"max_flash_growth": weights + scales_and_biases, "max_ram_growth": 10}
    models = random_model(0, 6), random_model(0, 7)
    assert qg.check(*models, np.ones((1, 5, 3)), min_db=-math.inf, min_agreement=0, **grown).passed  # type: ignore
    smaller = qg.check(*models[::-1], np.ones((1, 5, 3)), min_db=-math.inf, min_agreement=0)
    assert smaller.passed and gate(smaller, "RAM growth") == -10


def test_a_single_output_has_no_label() -> None:
    model = random_model(0, outputs=1)
    assert [gate.name for gate in qg.check(model, model, np.ones((1, 5, 3))).gates] == [
        "output SQNR", "flash growth", "RAM growth",
    ]  # fmt: skip
    with pytest.raises(qg.ConfigError, match="a single output has no largest entry"):
        qg.check(model, model, np.ones((1, 5, 3)), min_agreement=0.5)


def test_the_ram_of_a_whole_sequence_counts_its_rows() -> None:
    model = load("phrase")
    short, long = (qg.check(model, model, np.ones((1, n, 1))).old.ram_bytes for n in (3, 13))
    shortest = qg.check(model, model, np.ones((1, 1, 1))).old.ram_bytes
    assert long - short == 5 * (short - shortest) > 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"min_db": math.nan}, "min_db is not a number"),
        ({"min_agreement": 99}, "min_agreement 99, expected a share, 0 ... 1"),
        ({"max_accuracy_loss": -0.1}, "max_accuracy_loss -0.1"),
        ({"max_accuracy_loss": 0.1}, "a gate on accuracy, and no labels"),
        ({"max_flash_growth": 1.5}, "a growth of 1.5, expected a whole number of bytes"),
        ({"labels": [0, 1]}, "gives no label to a sequence"),
    ],
)
def test_limits_that_are_none(options: dict, says: str) -> None:
    model = random_model(0)
    with pytest.raises(qg.QuantgruError, match=says):
        qg.check(model, model, np.ones((2, 5, 3)), **options)


@pytest.mark.parametrize("labels", [[0], [0.0, 1.0], [0, 2]])
def test_labels_that_do_not_fit(labels: list) -> None:
    model = random_model(0, last_step=True)
    with pytest.raises(qg.DataError, match="labels: "):
        qg.check(model, model, np.ones((2, 5, 3)), labels)


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (
            lambda: load("valve"),
            "n_inputs is 3 of the old model '.*', 2 of the new 'valve'; .*the new one is to replace$",
        ),
        (lambda: random_model(0, outputs=3), "n_outputs is 2 .* 3"),
        (lambda: random_model(0, last_step=True), "last_step is False .* True"),
        (lambda: 5, "check"),
    ],
)
def test_models_that_cannot_take_each_others_place(other: Callable[[], qg.IntModel], says: str) -> None:
    with pytest.raises(qg.ModelError, match=says):
        qg.check(random_model(0), other(), np.ones((1, 2, 3)))


# ---- the command ---------------------------------------------------------------------------------------------------


def check(*options: str) -> Result:
    """Where an earlier run has left its verdict: that must not stay behind."""
    Path("r.json").write_text('{"passed": true}')
    return quantgru("check", "m.qgru", "n.qgru", "--input", "x.npz", "--json", "r.json", *options)


@pytest.fixture
def two(here: Path, pair: tuple[qg.IntModel, qg.IntModel]) -> Path:
    pair[1].save(here / "n.qgru")
    return here


def test_gates_that_fail_end_with_1(two: Path) -> None:
    result = check()
    assert (result.code, result.err) == (1, "")
    assert result.out.splitlines()[-1].startswith("FAILED: output SQNR, labels as the old model's, accuracy loss")
    assert json.loads(Path("r.json").read_text())["passed"] is False


def test_gates_at_their_limits_hold(two: Path, digits) -> None:
    """Limits as they are read from the first run, in percent; of 200 sequences those are exact."""
    np.savez("x.npz", x=digits.x[:200], labels=digits.labels[:200])
    check()
    found = {gate["name"]: gate["value"] for gate in json.loads(Path("r.json").read_text())["gates"]}
    limits = ["--min-db", repr(found["output SQNR"])]
    for option, name in (("--min-agreement", "labels as the old model's"), ("--max-accuracy-loss", "accuracy loss")):
        limits += [option, f"{100 * found[name]:.1f}"]
    assert done(check(*limits)).splitlines()[-1] == "all 5 gates hold"
    assert json.loads(Path("r.json").read_text())["passed"] is True
    assert check(*limits[:-1], "0").code == 1


def test_what_cannot_be_compared_ends_with_2(two: Path) -> None:
    load("gesture").save("n.qgru")
    assert_refused(check(), "n_inputs is 8 of the old model")
    verdict = json.loads(Path("r.json").read_text())
    assert verdict["passed"] is False and "n_inputs is 8" in verdict["error"]
    Path("n.qgru").unlink()
    assert_refused(check(), "n.qgru", "no such file")
    assert quantgru("check", "m.qgru", "m.qgru").code == 2


def test_an_input_with_initial_states_is_refused(two: Path) -> None:
    np.savez("x.npz", x=np.zeros((1, 2, 8)), initial_state0=np.zeros((1, 32)))
    assert_refused(check(), "has initial states", "leave them out")


def test_labels_that_say_nothing_of_every_step_are_left_out(here: Path) -> None:
    model = random_model(0)
    for name in ("m.qgru", "n.qgru"):
        replace(model, name=name).save(name)
    np.savez("x.npz", x=np.ones((2, 4, 3)), labels=[7, 7])
    assert "accuracy" not in done(check())
