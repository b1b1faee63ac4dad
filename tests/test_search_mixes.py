"""Where a search starts: mixes of widths, forecast from what each gate and dense layer alone does to the outputs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from float_models import random_dense, random_gru, random_x

import quantgru as qg
from quantgru.int_model.cost import flash_bytes
from quantgru.quantizer.model import CalibratedModel, calibrate_model
from quantgru.width_search import mixes
from quantgru.width_search.judge import Judge, judge_of
from quantgru.width_search.mixes import Expected, Forecast, likely_mixes

pytest.importorskip("optuna", reason="Optuna is not installed; install with: pip install quantgru[search]")

CALIBRATION = random_x(40, 30, 3)
X = random_x(60, 30, 3, seed=2)


def stack(n_units: int) -> qg.FloatModel:
    """13 sections: three gates of each of four matrices, and a dense layer."""
    rng = np.random.default_rng(7)
    first, second = random_gru(rng, 3, 20, "after", "first"), random_gru(rng, 20, n_units, "before", "second")
    return qg.FloatModel((first, second, random_dense(rng, n_units, 4)), last_step=True)


def calibrated(model: qg.FloatModel) -> CalibratedModel:
    return calibrate_model(model, CALIBRATION, row_parameters="short")


def judge(model: qg.FloatModel) -> Judge:
    return judge_of(model, X, None, "agreement")


@pytest.fixture(scope="module")
def small() -> tuple[CalibratedModel, Forecast]:
    model = stack(16)
    return calibrated(model), Forecast.of(calibrated(model), judge(model))


def random_mixes(n: int) -> list[tuple[int, ...]]:
    rng = np.random.default_rng(1)
    return [tuple(int(bits) for bits in rng.integers(2, 9, 13)) for _ in range(n)]


# ---- the forecast --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_units", [16, 40])  # blocks of rows that are full, and that are not; in bytes, and packed
def test_sizes_are_those_of_the_models(n_units: int) -> None:
    models = calibrated(stack(n_units))
    forecast = Forecast.of(models, judge(stack(n_units)))
    uniform = [(bits,) * 13 for bits in range(2, 9)]
    sizes = {mix: forecast.flash_bytes(mix) for mix in [*uniform, *random_mixes(6)]}
    assert len(set(sizes.values())) >= 6
    for mix, size in sizes.items():
        assert size == flash_bytes(models.quantize(dict(zip(forecast.names, mix, strict=True))))


def test_errors_add_up(small: tuple[CalibratedModel, Forecast]) -> None:
    """Within 2 dB in the median, 6 dB for all: rounding is one draw of noise, and U makes up for errors of W, the more
    the wider it is. From one mix to the next errors differ by up to 45 dB."""
    models, forecast = small
    differences = []
    for mix in [(bits,) * 13 for bits in range(2, 9)] + random_mixes(6):
        model = models.quantize(dict(zip(forecast.names, mix, strict=True)))
        error = ((judge(stack(16)).outputs(model) - judge(stack(16)).exact) ** 2).sum()
        differences.append(10 * np.log10(forecast.error(mix) / error))
    assert np.abs(differences).max() < 6
    assert np.median(np.abs(differences)) < 2


def test_what_reaches_no_output_needs_no_bits() -> None:
    model = stack(16)
    dense = model.dense[0]
    deaf = replace(model, layers=(*model.layers[:2], replace(dense, weights=0 * dense.weights)))
    nothing = Forecast.of(calibrated(deaf), judge(deaf))
    assert list(nothing.errors) == [0] * 13
    assert qg.search(deaf, CALIBRATION, X, trials=9, objective="agreement").chosen.uniform_bits == 2


def test_inputs_that_saturate_hide_no_gate() -> None:
    """What they do to the outputs is far more than 4 bits of a gate do, and may make up for these."""
    model, calm = stack(16), Forecast.of(calibrated(stack(16)), judge(stack(16)))
    saturating = X.copy()
    saturating[:3] *= 4
    found = Forecast.of(calibrated(model), judge_of(model, saturating, None, "sqnr"))
    assert min(found.errors) > 0
    assert np.corrcoef(np.log(found.errors), np.log(calm.errors))[0, 1] > 0.9


def test_a_dense_layer_with_the_name_of_a_gru_layer() -> None:
    """A key names all of a layer, or one gate: what the dense layer does is not what both do."""
    model = stack(16)
    namesake = replace(model, layers=(*model.layers[:2], replace(model.dense[0], name="second")))
    forecasts = [Forecast.of(calibrated(one), judge(one)) for one in (model, namesake)]
    assert forecasts[0].errors == forecasts[1].errors


# ---- the mixes -----------------------------------------------------------------------------------------------------


def test_none_is_smaller_and_better_than_earlier_ones(small: tuple[CalibratedModel, Forecast]) -> None:
    models, forecast = small
    mixes = [tuple(mix.values()) for mix in likely_mixes(models, judge(stack(16)), range(2, 9))]
    assert len(set(mixes)) == len(mixes) == 256
    assert all(len(set(mix)) > 1 for mix in mixes)
    sizes, errors = (np.array([of(mix) for mix in mixes]) for of in (forecast.flash_bytes, forecast.error))
    beats = (sizes[:, None] <= sizes) & (errors[:, None] < errors)  # [who, whom]
    assert not np.tril(beats).any()
    assert np.triu(beats).any()
    by_size = np.argsort(sizes[:32])
    assert (np.diff(sizes[:32][by_size]) > 0).all() and (np.diff(errors[:32][by_size]) < 0).all()


def test_the_first_are_as_far_apart_as_all(
    small: tuple[CalibratedModel, Forecast], monkeypatch: pytest.MonkeyPatch
) -> None:
    models, forecast = small
    monkeypatch.setattr(mixes, "_AT_ONCE", 16)
    first = [tuple(mix.values()) for mix in likely_mixes(models, judge(stack(16)), range(2, 9))[:16]]
    by_size = sorted(first, key=forecast.flash_bytes)
    assert [by_size.index(mix) for mix in first] == [8, 4, 12, 2, 6, 10, 14, 1, 3, 5, 7, 9, 11, 13, 15, 0]


def test_a_mix_has_no_other_widths(small: tuple[CalibratedModel, Forecast]) -> None:
    models, _ = small
    mixes = likely_mixes(models, judge(stack(16)), (2, 4, 8))
    assert {bits for mix in mixes for bits in mix.values()} == {2, 4, 8}
    assert likely_mixes(models, judge(stack(16)), (4,)) == []


def test_no_neighbour_of_a_mix_is_smaller_and_better() -> None:
    """On an AVR, which has one kernel for all widths, each gate of another width than the others of its matrix makes
    three sections of one: that saves nothing before the second gate has it, too."""
    rng = np.random.default_rng(3)
    model = qg.FloatModel((random_gru(rng, 3, 16), random_dense(rng, 16, 4)), last_step=True)
    models, of = calibrated(model), judge(model)
    forecast = Forecast.of(models, of, "avr")
    likely = [tuple(mix.values()) for mix in likely_mixes(models, of, range(2, 9), "avr")]
    found = forecast.expected([*likely, *((bits,) * 7 for bits in range(2, 9))])
    best = [one for one in found if not any(beats(other, one) for other in found)]
    assert len(best) > 16
    for one in best:
        assert not any(beats(other, one) for other in forecast.expected(forecast.neighbours(one.mix, range(2, 9))))


def beats(one: Expected, other: Expected) -> bool:
    return one.flash_bytes <= other.flash_bytes and one.error < other.error


def test_a_search_of_two_layers_finds_mixes() -> None:
    """Each further width costs a kernel, and 13 sections are not put right by chance: without these starts 50 trials
    find uniform widths alone, of which those of at most 2,900 bytes have 16 and 23 dB."""
    result = qg.search(stack(16), CALIBRATION, X, trials=40, flash=2900)
    uniform = max(one.quality for one in result.tried if one.uniform_bits and one.flash_bytes <= 2900)
    assert result.chosen.quality > uniform + 9
    assert sum(one.uniform_bits is None for one in result.front) > 10


def test_a_short_search_begins_with_them() -> None:
    result = qg.search(stack(16), CALIBRATION, X, trials=4, widths=(3, 6))
    assert [one.uniform_bits for one in result.tried] == [6, 3, None, None]
    mixes = likely_mixes(calibrated(stack(16)), judge(stack(16)), (3, 6))
    assert [dict(one.weight_bits) for one in result.tried[2:]] == mixes[:2]


def test_several_short_searches_try_what_a_long_one_tries(tmp_path: Path) -> None:
    study = str(tmp_path / "study.journal")
    for _ in range(4):
        several = qg.search(stack(16), CALIBRATION, X, trials=5, widths=(2, 4, 8), study=study)
    assert several.tried == qg.search(stack(16), CALIBRATION, X, trials=20, widths=(2, 4, 8)).tried
