"""The search for widths: it finds what quantizing gives, and says what is wrong."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from command_line import assert_refused, done, quantgru
from float_models import random_dense, random_gru, scaled
from search_files import CALIBRATION, SECTIONS, X, command, labels_of, small_model, write_files

import quantgru as qg
from quantgru.int_model.cores import Core
from quantgru.int_model.cost import cost, flash_bytes, kernel_bytes
from quantgru.int_model.packing import layout, packing_bytes, packing_for
from quantgru.quantizer.model import calibrate_model
from quantgru.report.pareto import Candidate
from quantgru.report.pareto_plot import pareto_plot
from quantgru.width_search.choice import best_within, expected_qualities, smallest_within
from quantgru.width_search.judge import Labels


@pytest.fixture(scope="module")
def model() -> qg.FloatModel:
    return small_model()


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def labels(model: qg.FloatModel) -> np.ndarray:
    return labels_of(model)


# ---- what it finds -------------------------------------------------------------------------------------------------


def test_the_command_writes_what_it_says(files: Path, model: qg.FloatModel, labels: np.ndarray) -> None:
    options = (
        "--objective",
        "flash,accuracy",
        "--within",
        "9",
        "--trials",
        "12",
        "--plot",
        "p.png",
        "--json",
        "r.json",
    )
    out = done(command(*options))
    result = json.loads((files / "r.json").read_text())
    chosen = result["chosen"]
    assert list(chosen["weight_bits"]) == SECTIONS
    written = qg.IntModel.load("m.qgru")
    assert written.name == "m"
    assert written.digest.hex() == result["digest"]
    assert (
        written.digest
        == qg.quantize(model, CALIBRATION, row_parameters="short", weight_bits=chosen["weight_bits"]).digest
    )
    assert chosen["flash_bytes"] == cost(written).constant_bytes + kernel_bytes(written)
    assert chosen["quality"] == 100 * np.mean(qg.simulate(written, X).argmax(axis=1) == labels)
    assert result["float"] == 100 * np.mean(model.run(X).argmax(axis=1) == labels) == 90
    assert chosen in result["front"]
    assert (len(result["tried"]), result["failed"]) == (12, 0)
    assert chosen in result["tried"]
    assert result["tried"][0]["weight_bits"] == dict.fromkeys(SECTIONS, 8)
    code = f"{kernel_bytes(written):,} of them code for packed weights and short scales"
    assert f"chosen: {chosen['flash_bytes']:,} bytes ({code}), " in out and "points of the float model's 90.00 %" in out
    changed = int((qg.simulate(written, X).argmax(axis=1) != model.run(X).argmax(axis=1)).sum())
    assert result["labels"] == {"changed": changed, "n": 60}
    assert f"{changed} of 60 labels are not the float model's; " in out
    (again,) = re.findall(r"wrote m.qgru, as does: quantgru (.*)", out)
    Path("m.qgru").unlink()
    done(quantgru(*shlex.split(again)))
    assert qg.IntModel.load("m.qgru").digest == written.digest
    assert (files / "p.png").read_bytes().startswith(b"\x89PNG")


def test_quantize_makes_the_same_with_the_options_of_the_search(files: Path) -> None:
    np.savez("mean scale.npz", mean=[0.1, 0, 0], scale=[1.0, 2, 3])
    out = done(command("--trials", "8", "--standardisation", "mean scale.npz", "--softmax", "refuse"))
    written = qg.IntModel.load("m.qgru").digest
    (again,) = re.findall(r"wrote m.qgru, as does: quantgru (.*)", out)
    Path("m.qgru").unlink()
    done(quantgru(*shlex.split(again)))
    assert qg.IntModel.load("m.qgru").digest == written
    assert "--softmax refuse" in again and "--reset" not in again


@pytest.mark.parametrize(("name", "begins"), [("p.PDF", b"%PDF"), ("p.svg", b"<?xml")])
def test_a_plot_is_what_its_name_says(files: Path, name: str, begins: bytes) -> None:
    done(command("--trials", "1", "--plot", name))
    assert (files / name).read_bytes().startswith(begins)


@pytest.mark.parametrize("file_format", ["png", "svg", "pdf"])
def test_a_plot_is_the_same_again(file_format: str) -> None:
    plots = {pareto_plot(FRONT, FRONT, FRONT[1], "accuracy", "%", file_format) for _ in range(2)}
    assert len(plots) == 1


@pytest.mark.parametrize("core", [core for core in get_args(Core) if core != "any"])
def test_a_size_is_that_on_a_core(files: Path, core: Core) -> None:
    """On most, codes of 4 bits take less than those of 8 here; where "any" would not pack them, the user must."""
    out = done(command("--trials", "2", "--widths", "4,8", "--within", "60", "--core", core, "--json", "r.json"))
    result, written = json.loads((files / "r.json").read_text()), qg.IntModel.load("m.qgru")
    assert result["core"] == core
    assert set(result["chosen"]["weight_bits"].values()) == {4}
    assert f"chosen: {flash_bytes(written, core):,} bytes on {core}" in out
    assert result["chosen"]["flash_bytes"] == flash_bytes(written, core) <= flash_bytes(written)
    packed = cost(written, "always").constant_bytes + packing_bytes(layout(written, 2), core) + 48
    assert result["chosen"]["flash_bytes"] == packed
    assert result["packing"] == ("auto" if packing_for(written) == "always" else "always")
    assert ("export it with --packing always" in out) == (result["packing"] == "always")


def test_the_command_knows_all_cores() -> None:
    (choices,) = re.findall(r"--core \[([^]]*)\]", " ".join(done(quantgru("search", "--help")).split()))
    assert tuple(choices.replace(" ", "").split("|")) == get_args(Core)


def test_a_core_without_need_to_pack(files: Path) -> None:
    out = done(command("--trials", "1", "--core", "cortex-m4"))
    assert " bytes on cortex-m4 (48 of them code for packed weights and short scales), 100.0 % of 8 bits" in out
    assert "--packing" not in out


@pytest.mark.parametrize(("changed", "n", "points"), [(7, 100, 8.0), (1, 200, 2.0), (0, 100, 2 * 2**0.5)])
def test_points_lost_are_as_uncertain_as_labels_changed(changed: int, n: int, points: float) -> None:
    """Each is worth 100 / n points, one way or the other: a random walk, here and on others, with one more."""
    assert Labels(changed, n).uncertainty == pytest.approx(points)


def test_no_uniform_width_is_both_smaller_and_better(model: qg.FloatModel) -> None:
    result = qg.search(model, CALIBRATION, X, trials=30)
    exact = model.run(X)
    for bits in range(2, 9):
        uniform = qg.quantize(model, CALIBRATION, row_parameters="short", weight_bits=bits)
        sqnr = 10 * np.log10((exact**2).sum() / ((qg.simulate(uniform, X) - exact) ** 2).sum())
        assert any(
            candidate.flash_bytes <= flash_bytes(uniform) and candidate.quality >= sqnr - 1e-9
            for candidate in result.front
        )
    for smaller, larger in itertools.pairwise(result.front):
        assert smaller.flash_bytes < larger.flash_bytes and smaller.quality < larger.quality
    assert result.front[-1].quality - 6 <= result.chosen.quality


def test_a_mixture_is_smaller_than_uniform_widths_of_its_quality() -> None:
    """Where there are so many weights that it also pays for the code of more than one width."""
    rng = np.random.default_rng(3)
    model = qg.FloatModel((random_gru(rng, 3, 64), random_dense(rng, 64, 4)), last_step=True)
    result = qg.search(model, CALIBRATION, X, objective="agreement", trials=20, widths=(2, 8))
    uniform = [one for one in result.tried if one.uniform_bits and one.quality >= result.chosen.quality]
    assert result.chosen.uniform_bits is None
    assert all(result.chosen.flash_bytes < one.flash_bytes for one in uniform)


def test_models_of_one_calibration_are_those_of_quantize(model: qg.FloatModel) -> None:
    """Also of widths that change how much room others have: 2 bits beside 8 need a larger left shift."""
    stack = replace(model, layers=(random_gru(np.random.default_rng(4), 3, 3, "before", "first"), *model.layers))
    rng = np.random.default_rng(5)
    names = [f"first.{matrix}.{gate}" for matrix in "WU" for gate in "zrn"] + SECTIONS
    for rounding in ("compensated", "nearest"):
        calibrated = calibrate_model(stack, CALIBRATION, rounding=rounding)
        for _ in range(4):
            widths = {name: int(rng.choice([2, 3, 8])) for name in names}
            once = qg.quantize(stack, CALIBRATION, rounding=rounding, weight_bits=widths)
            again = calibrated.quantize(widths)
            assert (again.digest, again.selftest.check, again.notes) == (once.digest, once.selftest.check, once.notes)


def test_outputs_of_every_step_count_without_padding(model: qg.FloatModel) -> None:
    every_step = replace(model, last_step=False)
    ragged = [X[0], X[1][:5], X[2][:7]]
    result = qg.search(every_step, CALIBRATION, ragged, objective="agreement", trials=1)
    with pytest.raises(qg.DataError, match=r"8 labels to judge by, each worth 12\.5 points; expected 20"):
        qg.search(every_step, CALIBRATION, [X[0][:3], X[1][:5]], objective="agreement", trials=1)
    outputs = zip(every_step.run(ragged), qg.simulate(result.model, ragged), strict=True)
    agree = np.concatenate([exact.argmax(axis=1) == found.argmax(axis=1) for exact, found in outputs])
    assert result.chosen.quality == pytest.approx(100 * agree.sum() / 24)


def test_standardised_inputs(model: qg.FloatModel) -> None:
    mean, scale = [5.0, 0.0, -1.0], [10.0, 1.0, 0.5]
    in_units = [np.asarray(x) * scale + mean for x in (CALIBRATION, X)]
    result = qg.search(model, *in_units, trials=1, mean=mean, scale=scale, name="units")
    exact, found = model.run(X), qg.simulate(result.model, in_units[1])
    sqnr = 10 * np.log10((exact**2).sum() / ((found - exact) ** 2).sum())
    assert result.model.name == "units"
    assert result.chosen.quality == pytest.approx(sqnr, abs=1e-6)


FRONT = [Candidate({"gru.W.z": i}, 1000 * i, quality, quality) for i, quality in enumerate((80, 97.8, 98.2, 98.4), 1)]


AS_OTHERS = "as models of its SQNR in the mean"


@pytest.mark.parametrize(
    ("within", "reference", "unit", "flash_bytes", "because"),
    [
        (0.3, 98.5, "%", 3000, f"the smallest that is, {AS_OTHERS}, within 0.3 points of the float model's 98.50 %"),
        (0.05, 98.5, "%", 4000, f"the best; none is, {AS_OTHERS}, within 0.05 points of the float model's 98.50 %"),
        (50, 98.5, "%", 1000, f"the smallest that is, {AS_OTHERS}, within 50 points of the float model's 98.50 %"),
        (0.6, np.inf, "dB", 2000, "the smallest within 0.6 dB of the best one's 98.4 dB"),
        (0, np.inf, "dB", 4000, "the smallest within 0 dB of the best one's 98.4 dB"),
    ],
)
def test_the_smallest_that_is_near_enough(within, reference, unit, flash_bytes: int, because: str) -> None:
    chosen, why = smallest_within(FRONT, FRONT, within, reference, unit)
    assert (chosen.flash_bytes, why) == (flash_bytes, because)


def test_the_best_that_is_small_enough() -> None:
    assert best_within(FRONT, FRONT, 3999, 0) == (FRONT[2], "the best of at most 3,999 bytes")
    with pytest.raises(qg.ConfigError, match="no model of at most 999 bytes was found, the smallest one has 1,000"):
        best_within(FRONT, FRONT, 999, 0)


def of_bits(w: int, u: int, flash_bytes: int, quality: float, output_db: float | None = None) -> Candidate:
    """The better, the higher its SQNR, unless that is said otherwise."""
    return Candidate({"gru.W.z": w, "gru.U.z": u}, flash_bytes, quality, quality if output_db is None else output_db)


SMALL = of_bits(2, 2, 900, 97.9)  # packed
LUCKY, GOOD, WIDEST, POOR = (
    of_bits(w, u, 1000, quality) for w, u, quality in ((6, 3, 98.6), (6, 7, 98.4), (8, 8, 98.2), (8, 8, 97.0))
)
LARGE = of_bits(8, 9, 2000, 98.5)
MORE_BITS = "; of its size, that with the most bits"


@pytest.mark.parametrize(
    ("tried", "within", "reference", "chosen"),
    [
        ([SMALL, LUCKY, GOOD, WIDEST, LARGE], 0.3, 98.5, WIDEST),
        ([SMALL, LUCKY, GOOD, POOR, LARGE], 0.3, 98.5, GOOD),  # what it lacks is more than luck
        ([SMALL, LUCKY, GOOD, WIDEST, LARGE], 0.15, 98.5, GOOD),
        ([SMALL, LUCKY, GOOD, WIDEST], 0.3, 99.9, GOOD),  # none is near: as near to the best
        ([SMALL, LUCKY, GOOD, WIDEST], 0.6, 98.5, SMALL),  # of another size
        ([SMALL, LUCKY, of_bits(6, 3, 1000, 98.5)], 0.3, 98.5, LUCKY),
    ],
)
def test_of_equal_sizes_the_one_with_the_most_bits(tried, within: float, reference: float, chosen: Candidate) -> None:
    found, why = smallest_within([SMALL, LUCKY], tried, within, reference, "%")
    assert found == chosen and why.startswith((f"the smallest that is, {AS_OTHERS}", f"the best; none is, {AS_OTHERS}"))


def test_what_is_good_by_luck_is_not_chosen() -> None:
    """Of three models of 20 dB the second is near the float model; the next one of its kind need not be."""
    tried = [of_bits(2, i, 900 + i, quality, 20 + i / 100) for i, quality in enumerate((97.0, 98.6, 97.2))]
    better = of_bits(4, 4, 2000, 98.3, 30)
    found = smallest_within([tried[0], tried[1]], [*tried, better], 0.3, 98.5, "%")
    assert found == (better, f"the smallest that is, {AS_OTHERS}, within 0.3 points of the float model's 98.50 %")
    assert expected_qualities([better, *tried]) == pytest.approx([98.3, 97.0, 97.9, 97.9])


def test_the_best_of_equal_sizes_where_no_labels_decide() -> None:
    tried = [SMALL, LUCKY, GOOD, WIDEST]
    assert smallest_within([SMALL, LUCKY], tried, 0.5, np.inf, "dB")[0] == LUCKY
    assert best_within([SMALL, LUCKY], tried, 1000, 0)[0] == LUCKY
    assert best_within([SMALL, LUCKY], [*tried, of_bits(8, 8, 1000, 98.6)], 1000, 0)[0] == of_bits(8, 8, 1000, 98.6)


def test_the_best_that_is_small_enough_has_the_most_bits_of_its_size() -> None:
    tried = [SMALL, LUCKY, GOOD, WIDEST, LARGE]
    assert best_within([SMALL, LUCKY], tried, 1500, 0.3) == (GOOD, f"the best of at most 1,500 bytes{MORE_BITS}")
    better = of_bits(2, 2, 900, 98.5)  # than GOOD, and smaller
    assert best_within([better, LUCKY], [better, *tried], 1500, 0.3) == (LUCKY, "the best of at most 1,500 bytes")


def test_models_that_are_not_packed_have_all_their_bits(model: qg.FloatModel, labels: np.ndarray) -> None:
    """What code for packed weights takes is more than this model has: all widths give the same bytes."""
    result = qg.search(model, CALIBRATION, X, labels, objective="accuracy", trials=20, widths=(7, 8), within=5)
    same = [one for one in result.tried if one.flash_bytes == result.chosen.flash_bytes and one.quality >= 85]
    assert len(same) > 2 and result.chosen.uniform_bits == 8
    assert [one for one in result.front if one.flash_bytes == result.chosen.flash_bytes] == [result.chosen]


def test_exact_row_parameters(files: Path, model: qg.FloatModel) -> None:
    """They are a study of their own."""
    out = done(command("--trials", "1", "--study", "s.journal", "--row-parameters", "exact", "--json", "r.json"))
    written = qg.IntModel.load("m.qgru")
    assert written.digest == qg.quantize(model, CALIBRATION, weight_bits=8).digest
    assert "quantgru quantize --calibration c.npz --row-parameters exact --weight-bits 8 -o m.qgru m.qgf" in out
    assert json.loads((files / "r.json").read_text())["row_parameters"] == "exact"
    assert_refused(
        command("--trials", "1", "--study", "s.journal"), "study 'search' in s.journal: begun by a search that"
    )
    result = command("--row-parameters", "some")
    assert result.code == 2 and "'some' is not one of 'exact', 'short'" in result.err
    with pytest.raises(qg.ModelError, match="row parameters 'some', allowed are exact and short"):
        qg.search(model, CALIBRATION, X, row_parameters="some")  # type: ignore[arg-type]


# ---- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (("-o", "m.qgf"), "MODEL"),
        (("--json", "./c.npz"), "--calibration"),
        (("--study", "y.npz", "--plot", "y.npz"), "--input and --study"),
    ],
)
def test_no_output_is_an_input(files: Path, options: tuple[str, ...], names: str) -> None:
    before = {path.name: path.read_bytes() for path in files.iterdir()}
    assert_refused(command(*options), f"output {options[-1]!r}: it is the file of {names}, too; choose another path")
    assert {path.name: path.read_bytes() for path in files.iterdir()} == before


def test_no_file_is_called_as_stdout(files: Path) -> None:
    assert_refused(command("--trials", "1", "--json", "-"), "output '-': this means stdout elsewhere, and no file")
    assert sorted(path.name for path in files.iterdir()) == ["c.npz", "m.qgf", "y.npz"]


def test_one_path_for_two_outputs(files: Path) -> None:
    result = command("--json", "./m.qgru", "--trials", "1", "-o", "m.qgru")
    assert result.code == 2 and "-o, --plot and --json: m.qgru, ./m.qgru, expected a file for each" in result.err


def test_all_trials_fail(model: qg.FloatModel, files: Path) -> None:
    scaled(model, recurrent_weights=1e5).save("m.qgf")
    result = command("--trials", "3")
    assert_refused(result, "search: all 3 trials failed, 3 of them for this reason: GRU layer 'gru', U, row ")
    assert "a 32-bit accumulator holds up to" in result.err
    assert not Path("m.qgru").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--trials", "0"], "search: trials 0, expected a whole number, 1 or more"),
        (["--workers", "0"], "search: workers 0, expected a whole number, 1 or more"),
        (["--seed", "-1"], "search: seed -1, expected a whole number, 0 or more"),
        (["--widths", "1,4"], "search: widths [1, 4], expected some of 2 ... 8 bits"),
        (["--widths", "4,9"], "search: widths [4, 9], expected some of 2 ... 8 bits"),
        (["--widths", "4-8"], "widths '4-8', expected numbers of bits set apart by commas: 2,4,8"),
        (["--within", "-1"], "search: within -1.0, expected points or dB, 0 or more"),
        (["--within", "nan"], "search: within nan, expected points or dB, 0 or more"),
        (["--within", "1", "--flash", "9000"], "within and flash"),
        (["-o", "none/m.qgru"], "output 'none/m.qgru': there is no folder none; choose another path"),
        (["--plot", "p.jpg"], "plot p.jpg: expected a name that ends with .png, .svg, .pdf"),
        (["--plot", "none/p.png"], "output 'none/p.png': there is no folder none"),
        (["--json", "none/p.json"], "output 'none/p.json': there is no folder none"),
        (["--study", "none/s.journal"], "study none/s.journal: cannot be used ("),
        (["--study", "m.qgf"], "study m.qgf: cannot be used ("),
        (["--study", "sqlite:///none/s.db"], "study sqlite:///none/s.db: cannot be used ("),
        (["--study", "sqlite:///m.qgf"], "study sqlite:///m.qgf: cannot be used ("),
        (["--study", "nonsense://x"], "study nonsense://x: cannot be used ("),
        (["--input", "plain.npz", "--objective", "flash,accuracy"], "the objective accuracy, and no labels"),
        (["--input", "few.npz", "--objective", "flash,agreement"], "6 labels to judge by, each worth 16.7 points"),
        (["--input", "states.npz"], "input states.npz: has initial states"),
    ],
)
def test_wrong_input_in_one_line(files: Path, options: list[str], says: str) -> None:
    np.savez("plain.npz", x=X)
    np.savez("few.npz", x=X[:6])
    np.savez("states.npz", x=X, initial_state0=np.zeros(20))
    before = {path.name for path in files.iterdir()}
    assert_refused(command(*options), says)
    assert {path.name for path in files.iterdir()} == before


def test_a_flash_that_no_model_fits(model: qg.FloatModel, files: Path) -> None:
    smallest = flash_bytes(qg.quantize(model, CALIBRATION, row_parameters="short", weight_bits=3))
    options = ("--widths", "3,8", "--study", "s.journal", "--trials", "9", "--flash")
    says = f"search: flash {smallest - 1:,} bytes, and the smallest model, 3 bits for all, has {smallest:,}; allow as"
    assert_refused(command(*options, str(smallest - 1)), says)
    assert not Path("s.journal").exists()
    assert f"chosen: {smallest:,} bytes (" in done(command(*options, str(smallest)))


@pytest.mark.parametrize("flash", [0, -1, 9000.5, float("nan"), True])
def test_a_flash_that_is_no_number_of_bytes(model: qg.FloatModel, flash: float) -> None:
    with pytest.raises(qg.ConfigError, match="expected a whole number of bytes"):
        qg.search(model, CALIBRATION, X, trials=1, flash=flash)  # type: ignore[arg-type]


def test_objectives_that_an_output_has_not(model: qg.FloatModel, labels: np.ndarray) -> None:
    single = replace(model, layers=(model.layers[0], random_dense(np.random.default_rng(1), 20, 1)))
    with pytest.raises(qg.ConfigError, match=r"^search: the objective agreement, but a single output has no largest"):
        qg.search(single, CALIBRATION, X, objective="agreement")
    with pytest.raises(qg.DataError, match="gives no label to a sequence, which takes outputs of the last step"):
        qg.search(replace(model, last_step=False), CALIBRATION, X, labels, objective="accuracy")
    with pytest.raises(qg.ConfigError, match=r"^core 'z80', allowed are any, avr, cortex-m0, "):
        qg.search(single, CALIBRATION, X, core="z80")  # type: ignore[arg-type]
    with pytest.raises(qg.ConfigError, match=r"^search: objective 'speed', allowed are accuracy, sqnr, agreement$"):
        qg.search(model, CALIBRATION, X, objective="speed")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("missing", "says"),
    [
        ("optuna", "search needs optuna, which is not installed: pip install quantgru[search]"),
        ("scipy", "search needs scipy, which is not installed: pip install quantgru[search]"),
        ("matplotlib", "plots need matplotlib, which is not installed: pip install quantgru[report]"),
    ],
)
def test_a_package_that_is_missing(files: Path, monkeypatch: pytest.MonkeyPatch, missing: str, says: str) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    assert_refused(command("--plot", "p.png"), says)
