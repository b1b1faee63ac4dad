"""What `quantgru hil` reports: the shape of its JSON, what a run takes to be repeated, and inputs out of range."""

from __future__ import annotations

import itertools
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from command_line import done, finish, quantgru, start
from conftest import N_SEQUENCES
from hil_boards import board_or_skip, build_edited, build_model, wrong_at_step_6

import quantgru as qg
from quantgru.hil.images import Image, launch
from quantgru.hil.transport import SerialTransport

STEP_MACS = 3 * 32 * (8 + 32)  # of the demo's GRU layer 8 → 32


@pytest.fixture(scope="module")
def images(digits_qgru: Path) -> dict[str, Image]:
    """Of the right firmware, and of one whose step 6 since a reset is wrong."""
    model = qg.IntModel.load(digits_qgru)
    return {"right": build_model(model), "wrong": build_edited(model, wrong_at_step_6)}


@pytest.fixture
def port(here: Path, images: dict[str, Image]) -> Iterator[str]:
    with launch(board_or_skip("host"), images["right"]) as port:
        yield port


@pytest.fixture
def wrong_port(here: Path, images: dict[str, Image]) -> Iterator[str]:
    with launch(board_or_skip("host"), images["wrong"]) as port:
        yield port


def report(*options: str, code: int) -> Any:
    result = quantgru("hil", "m.qgru", *options, "--json", "r.json", "--junit", "r.xml")
    assert result.code == code, result
    return json.loads(Path("r.json").read_text())


def properties() -> dict[str, str]:
    found = ElementTree.parse("r.xml").getroot().iter("property")
    return {each.attrib["name"]: each.attrib["value"] for each in found}


# ---- shape ---------------------------------------------------------------------------------------------------------


def test_the_json_has_the_same_names_however_a_run_ends(port: str, wrong_port: str) -> None:
    right, wrong, unknown = ["--port", port], ["--port", wrong_port], ["--board", "esp99"]
    reports = [
        report("--input", "x.npz", *right, code=0),
        report("--input", "x.npz", *wrong, code=1),
        report("--input", "x.npz", *unknown, code=2),
        report("--input", "x.npz", *unknown, *wrong, *right, code=1),
        report("--input", "none.npz", *right, code=2),
    ]
    assert {tuple(found) for found in reports} == {("format", "equal", "error", "run", "boards")}
    assert {found["format"] for found in reports} == {1}
    assert [found["equal"] for found in reports] == [True, False, False, False, False]
    assert [found["error"] is None for found in reports] == [True, True, False, False, False]
    assert [len(found["boards"]) for found in reports] == [1, 1, 1, 3, 0]
    boards = [board for found in reports for board in found["boards"]]
    assert len({tuple(sorted(board)) for board in boards}) == 1
    assert {(board["board"], board["port"]) for board in boards} == {("esp99", None), (None, port), (None, wrong_port)}
    assert all((board["error"] is None) == (board["target"] == "host") for board in boards)


# ---- what was run --------------------------------------------------------------------------------------------------


def test_what_was_compared_and_what_it_cost(here: Path) -> None:
    board = board_or_skip("host")
    found = report("--input", "x.npz", "--by", "states", "--board", board.name, code=0)
    digest = qg.IntModel.load("m.qgru").digest.hex()
    assert found["run"] == {
        "model_file": "m.qgru",
        "input_file": "x.npz",
        "model": "digits",
        "digest": digest,
        "step_macs": STEP_MACS,
        "by": "states",
        "steps": None,
        "seed": None,
        "send": False,
    }
    (of_board,) = found["boards"]
    assert of_board["cost_per_mac"] == of_board["step_cost"]["median"] / STEP_MACS
    said = properties()
    assert (said["digest"], said["by"], said["input_file"]) == (digest, "states", "x.npz")
    assert "seed" not in said


def test_a_seeded_run_is_repeated_from_its_report(wrong_port: str) -> None:
    first = report("--steps", "2500", "--seed", "77", "--port", wrong_port, code=1)
    run = first["run"]
    assert (run["by"], run["steps"], run["seed"], run["input_file"]) == ("digests", 2500, 77, None)
    assert {"steps": "2500", "seed": "77"}.items() <= properties().items()
    again = report("--steps", str(run["steps"]), "--seed", str(run["seed"]), "--port", wrong_port, code=1)
    assert again["run"] == run
    assert again["boards"][0]["first_difference"] == first["boards"][0]["first_difference"]
    assert first["boards"][0]["clipped_inputs"] is None


def test_what_the_line_damaged_and_what_was_asked_again(port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    number = itertools.count()

    class NoisyLine(SerialTransport):
        def read(self, timeout_s: float) -> bytes:
            data = super().read(timeout_s)
            if not data or next(number) != 3:
                return data
            return bytes([data[0] ^ 0x10]) + data[1:]

    options = ("--input", "x.npz", "--by", "states", "--port", port)
    assert report(*options, code=0)["boards"][0]["damaged_frames"] == 0
    monkeypatch.setattr("quantgru.on_board.SerialTransport", NoisyLine)
    (of_board,) = report(*options, code=0)["boards"]
    assert of_board["damaged_frames"] > 0 and of_board["repeats"] > 0


# ---- inputs out of range -------------------------------------------------------------------------------------------

N_STEPS = 8 * N_SEQUENCES
WARNING = "warning: run on a board: {} % of the input values are clipped, and what is compared is of little use; "


def test_a_few_clipped_inputs_are_counted(port: str) -> None:
    x = np.load("x.npz")["x"]
    x[0, 2:5, 3] = 1e6
    x[1, 7, 0] = -1e6
    np.savez("wide.npz", x=x)
    out = done(quantgru("hil", "m.qgru", "--input", "wide.npz", "--port", port, "--json", "r.json"))
    assert f"clipped inputs: 4 of {x.size} (input 3 6.2 %, input 0 2.1 %): calibrate" in out
    (of_board,) = json.loads(Path("r.json").read_text())["boards"]
    assert of_board["clipped_inputs"] == [1, 0, 0, 3, 0, 0, 0, 0]
    assert of_board["clipped_share"] == 4 / (8 * N_STEPS)
    assert "clipped inputs: 0 of 384\n" in done(quantgru("hil", "m.qgru", "--input", "x.npz", "--port", port))


@pytest.mark.parametrize("n_boards", [1, 2])
def test_many_clipped_inputs_bring_one_warning(n_boards: int, port: str) -> None:
    np.savez("wide.npz", x=np.full((2, 8, 8), 1e6))
    boards = [["--port", port], ["--board", "host"]][:n_boards]
    result = finish(start("hil", "m.qgru", "--input", "wide.npz", *itertools.chain(*boards)))
    assert result.code == 0
    assert "clipped inputs: 128 of 128 (input 7 100.0 %" in result.out
    assert result.err.startswith(WARNING.format("100.0")) and result.err.count("\n") == 1


def test_python_is_warned_above_a_tenth(port: str) -> None:
    model, x = qg.IntModel.load("m.qgru"), np.zeros((1, 10, 8))
    x[0, :8, 1] = 1e6  # of 80 values
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert qg.run_on_board(model, x, port=port).clipped_share == 0.1
    x[0, 0, 0] = 1e6
    with pytest.warns(qg.QuantgruWarning, match=r"11\.2 % of the input values are clipped") as caught:
        assert qg.run_on_board(model, x, port=port).equal
    assert caught[0].filename == __file__


def test_whole_sequences_and_padding(here: Path) -> None:
    """Clipped are 3 of the 5 steps that there are."""
    board_or_skip("host")
    rng = np.random.default_rng(0)
    gru = [rng.normal(size=(3, 2, n)) for n in (1, 2)]
    layers = [qg.Gru(name, "after", *gru, np.zeros((3, 2)), np.zeros(2)) for name in ("forward", "backward")]
    float_model = qg.FloatModel((qg.Bidirectional("both", *layers),), False)
    model = qg.quantize(float_model, calibration=rng.normal(size=(4, 6, 1)))
    x = [np.array([[1e6], [-1e6]]), np.array([[0.0], [0.1], [1e6]])]
    with pytest.warns(qg.QuantgruWarning, match=r"60\.0 %"):
        result = qg.run_on_board(model, x, board="host")
    assert result.equal and result.clipped_inputs is not None and result.clipped_inputs.tolist() == [3]
