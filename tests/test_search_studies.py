"""Studies of a search for widths: gone on with, shared, interrupted, failing in the middle, or not ours."""

from __future__ import annotations

import resource
import signal
import sqlite3
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from command_line import assert_refused, done, finish, start
from float_models import scaled
from search_files import (
    ALL_UNIFORM,
    CALIBRATION,
    COMMAND,
    SECTIONS,
    X,
    command,
    labels_of,
    optuna,
    small_model,
    study_of,
    write_files,
)

import quantgru as qg
from quantgru.width_search import mixes, storage
from quantgru.width_search.storage import open_storage
from quantgru.width_search.study import Study, Worth


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


# ---- again, further, together --------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_result(model: qg.FloatModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixes, "N_MIXES", 8)
    one, same, other = (qg.search(model, CALIBRATION, X, trials=40, seed=seed) for seed in (1, 1, 2))
    assert one.tried == same.tried
    assert one.model.digest == same.model.digest
    assert [candidate.uniform_bits for candidate in one.tried[:ALL_UNIFORM]] == [8, 7, 6, 5, 4, 3, 2]
    assert one.tried[: ALL_UNIFORM + 8] == other.tried[: ALL_UNIFORM + 8]
    assert one.tried[ALL_UNIFORM + 8 :] != other.tried[ALL_UNIFORM + 8 :]


@pytest.mark.parametrize("storage", ["journal", "sqlite:///study.db"])
def test_it_goes_on_where_it_ended(model: qg.FloatModel, files: Path, storage: str) -> None:
    first = qg.search(model, CALIBRATION, X, trials=2, study=storage)
    assert [candidate.uniform_bits for candidate in first.tried] == [8, 7]
    second = qg.search(model, CALIBRATION, X, trials=6, study=storage)
    assert second.tried[:2] == first.tried
    assert [candidate.uniform_bits for candidate in second.tried] == [8, 7, 6, 5, 4, 3, 2, None]
    other_name = qg.search(model, CALIBRATION, X, trials=1, study=storage, study_name="other")
    assert len(other_name.tried) == 1


def test_several_workers_find_what_one_finds(model: qg.FloatModel) -> None:
    finished: list[int] = []
    several = qg.search(model, CALIBRATION, X, trials=ALL_UNIFORM, workers=2, progress=finished.append)
    assert sum(finished) == ALL_UNIFORM
    assert several.front == qg.search(model, CALIBRATION, X, trials=ALL_UNIFORM).front


def test_two_processes_share_a_study(files: Path) -> None:
    options = ("--trials", "8", "--study", "shared.journal")
    both = [start(*COMMAND[:-1], f"{seed}.qgru", *options, "--seed", str(seed)) for seed in (1, 2)]
    for process in both:
        done(finish(process))
    trials = study_of("shared.journal").trials
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 16
    assert len({tuple(trial.params.items()) for trial in trials}) >= 15  # one may look away at the wrong moment


MIXES = [{"a": 8, "b": 2}, {"a": 2, "b": 8}, {"a": 8, "b": 4}]


def opened(storage: str) -> Study:
    return Study(storage, "search", {"model": "this"}, 0, ["a", "b"], [2, 4, 8])


@pytest.mark.parametrize("storage", ["s.journal", "sqlite:///s.db"])
def test_each_start_is_tried_once(files: Path, storage: str) -> None:
    """By one of two processes, the second of which opens the study while the first one has a trial under way; and where
    another one has a trial of which it knows no widths yet."""
    one = opened(storage)
    asked = [one.ask().params]
    other = opened(storage)
    for study in (one, other):
        study.begin_mixes(lambda: MIXES)
    asked += [study.ask().params for study in (other, one, other)]
    optuna.load_study(study_name="search", storage=open_storage(storage)).ask()
    asked.append(other.ask().params)
    assert asked == [{"a": 8, "b": 8}, {"a": 4, "b": 4}, {"a": 2, "b": 2}, {"a": 8, "b": 2}, {"a": 8, "b": 4}]
    assert one.ask().params == {"a": 2, "b": 8}
    assert (one.n_starts_left(), other.n_starts_left()) == (0, 0)


def test_mixes_are_those_that_the_study_has(files: Path) -> None:
    """Another machine may find others, by other last digits."""

    def find_later() -> list[dict[str, int]]:
        opened("s.journal").begin_mixes(lambda: MIXES)
        return MIXES[1:]

    found = [opened("s.journal") for _ in range(2)]
    found[0].begin_mixes(find_later)
    found[1].begin_mixes(lambda: MIXES[2:])
    assert [study.n_starts_left() for study in found] == [6, 6]


def test_what_was_under_way_when_a_process_was_killed(files: Path) -> None:
    """As long as others may still be at it, it is left to them."""
    killed, study = (Study("s.journal", "search", {}, 0, "abcd", range(2, 9)) for _ in range(2))
    killed.ask()
    study.begin_mixes(lambda: [dict(zip("abcd", (3, *mix), strict=True)) for mix in product(range(4, 8), repeat=3)])
    asked = []
    for _ in range(65):
        trial = study.ask()
        asked.append(trial.params)
        study.tell(trial, Worth(100, 9.5, 9.5))
    assert asked[0] == dict.fromkeys("abcd", 7)
    assert asked.index(dict.fromkeys("abcd", 8)) == 64


def test_processes_that_make_the_same_database(files: Path) -> None:
    """Each finds tables missing that another one is making."""
    options = ("--trials", "1", "--study", "sqlite:///new.db")
    several = [start(*COMMAND[:-1], f"{seed}.qgru", *options, "--seed", str(seed)) for seed in range(4)]
    for process in several:
        done(finish(process))
    assert len(optuna.load_study(study_name="search", storage="sqlite:///new.db").trials) >= 4


def test_an_interrupt_loses_no_trial(files: Path) -> None:
    process = start(*COMMAND, "--trials", "1000", "--study", "s.journal")
    while not (Path("s.journal").exists() and Path("s.journal").read_text().count('"values":[') >= 10):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    result = finish(process)
    kept = "finished trials are kept in s.journal: the same command goes on with them"
    assert (result.code, result.err.split("\n"), result.out) == (130, [kept, "", "quantgru: interrupted", ""], "")
    assert {trial.state.name for trial in study_of("s.journal").trials} == {"COMPLETE"}
    assert not Path("m.qgru").exists()


# ---- what is refused


def test_a_journal_in_another_folder(model: qg.FloatModel, files: Path) -> None:
    Path("studies").mkdir()
    qg.search(model, CALIBRATION, X, trials=1, study="studies/s.journal")
    assert sorted(path.name for path in Path("studies").iterdir()) == ["s.journal"]
    assert [trial.state.name for trial in study_of("studies/s.journal").trials].count("COMPLETE") == 1


def test_a_study_of_something_else(model: qg.FloatModel, labels: np.ndarray, files: Path) -> None:
    qg.search(model, CALIBRATION, X, trials=1, study="s.journal")
    for arguments, options, others in (
        ((scaled(model, bias=0.5), CALIBRATION, X), {}, "model"),
        ((model, CALIBRATION[1:], X), {}, "calibration data"),
        ((model, CALIBRATION, X), {"initial_states": [np.zeros((20, 20))]}, "calibration data"),
        ((model, CALIBRATION, X[:-1]), {}, "input data"),
        ((model, CALIBRATION, X), {"objective": "agreement"}, "objective"),
        ((model, CALIBRATION, X, labels), {"objective": "accuracy"}, "objective"),
        ((model, CALIBRATION, X), {"widths": [4, 8], "core": "avr"}, "widths, core"),
        ((model, CALIBRATION, X), {"row_parameters": "exact"}, "row parameters"),
        ((model, CALIBRATION, X), {"mean": [0.1, 0, 0]}, "standardisation"),
    ):
        says = (
            f"^study 'search' in s.journal: begun by a search that differs in {others}; choose another name or storage$"
        )
        with pytest.raises(qg.ConfigError, match=says):
            qg.search(*arguments, trials=1, study="s.journal", **options)
    renamed = replace(model, name="another name")
    assert len(qg.search(renamed, CALIBRATION, X, trials=1, study="s.journal", widths=range(8, 1, -1)).tried) == 2


def test_a_study_that_lost_a_part(model: qg.FloatModel, files: Path) -> None:
    """A width of one trial, size and SQNR of others: they are as trials that failed. Widths that are lost are tried."""
    first = qg.search(model, CALIBRATION, X, trials=5, study="sqlite:///s.db")
    with sqlite3.connect("s.db") as database:
        database.execute("DELETE FROM trial_params WHERE trial_id = 2 AND param_name = 'gru.W.r'")
        database.execute("DELETE FROM trial_values WHERE trial_id = 3")
        database.execute("DELETE FROM trial_user_attributes WHERE trial_id = 4")
    again = qg.search(model, CALIBRATION, X, trials=2, study="sqlite:///s.db")
    assert again.n_failed == 3
    assert {one.uniform_bits for one in again.tried} == {8, 4, 7, 3}
    assert again.front[-1] == first.front[-1]


def test_a_path_of_a_study(model: qg.FloatModel, files: Path) -> None:
    for study in (Path("s.journal"), "s.journal"):
        found = qg.search(model, CALIBRATION, X, trials=1, study=study)
    assert [one.uniform_bits for one in found.tried] == [8, 7]


def test_a_study_that_is_not_ours(model: qg.FloatModel, files: Path) -> None:
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend("s.journal"))
    optuna.create_study(storage=storage, study_name="search").optimize(lambda trial: 0.0, n_trials=1)
    assert_refused(command("--study", "s.journal", "--trials", "1"), "study 'search' in s.journal: not begun by this")


def test_a_study_of_something_else_is_left_as_it_is(model: qg.FloatModel, files: Path) -> None:
    qg.search(model, CALIBRATION, X, trials=1, study="s.journal")
    before = Path("s.journal").read_bytes()
    with pytest.raises(qg.ConfigError, match="differs in input data"):
        qg.search(model, CALIBRATION, X[1:], trials=1, study="s.journal")
    assert Path("s.journal").read_bytes() == before


@pytest.mark.parametrize("text", ["notes", "notes\n", "{}\n", '{"op_code":0}\nnotes\n'])
@pytest.mark.parametrize("study", ["notes.txt", "sqlite:///notes.txt"])
def test_a_file_of_something_else(files: Path, study: str, text: str) -> None:
    Path("notes.txt").write_text(text)
    assert_refused(command("--study", study, "--trials", "1"), f"study {study}: cannot be used (")
    assert Path("notes.txt").read_text() == text
    assert not list(files.glob("notes.txt*"))[1:]


def test_passwords_are_not_shown(files: Path) -> None:
    study = "mysql+nodriver://me:open@sesame@host/db?password=hush"
    result = command("--study", study, "--trials", "1")
    assert_refused(result, "study mysql+nodriver://me:***@host/db?password=***: cannot be used (")
    assert not any(secret in result.err for secret in ("open", "sesame", "hush"))


# ---- storages that fail ---------------------------------------------------------------------------------------------

KEPT = 3  # trials, when it happens


def at(n: int, happens: Callable[[], object]) -> Callable[[int], None]:
    """The progress of a search to which something happens after n trials."""
    finished: list[int] = []

    def progress(more: int) -> None:
        finished.append(more)
        if sum(finished) == n:
            happens()

    return progress


def assert_fails(model: qg.FloatModel, study: str, happens: Callable[[], object], reason: str) -> None:
    says = rf"^study {study}: has failed after {KEPT} trials \({reason}\); repair or restore it, and"
    with pytest.raises(qg.ConfigError, match=says):
        qg.search(model, CALIBRATION, X, trials=ALL_UNIFORM, study=study, progress=at(KEPT, happens))


def assert_goes_on(model: qg.FloatModel, study: str) -> None:
    tried = qg.search(model, CALIBRATION, X, trials=ALL_UNIFORM - KEPT, study=study).tried
    assert [candidate.uniform_bits for candidate in tried] == [8, 7, 6, 5, 4, 3, 2]


def test_a_journal_that_is_removed(model: qg.FloatModel, files: Path) -> None:
    journal = Path("s.journal")
    assert_fails(model, "s.journal", lambda: journal.rename("elsewhere"), "No such file or directory")
    assert not journal.exists()
    Path("elsewhere").rename(journal)
    assert_goes_on(model, "s.journal")


def test_a_full_disk_in_the_middle_of_a_record(model: qg.FloatModel, files: Path) -> None:
    journal = Path("s.journal")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (journal.stat().st_size + 20, limits[1]))

    try:
        assert_fails(model, "s.journal", fill, "File too large")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not journal.read_bytes().endswith(b"\n")
    assert_goes_on(model, "s.journal")


def test_a_database_that_stays_locked(model: qg.FloatModel, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_LOCK_TIMEOUT_S", 0.1)
    other = sqlite3.connect("s.db", isolation_level=None, check_same_thread=False)
    assert_fails(model, "sqlite:///s.db", lambda: other.execute("BEGIN EXCLUSIVE"), "database is locked")
    other.close()
    assert_goes_on(model, "sqlite:///s.db")


def test_a_database_that_is_removed(files: Path, model: qg.FloatModel) -> None:
    assert_fails(model, "sqlite:///s.db", Path("s.db").unlink, "attempt to write a readonly database|no such table.*")


@pytest.mark.parametrize("end", ["", '{"op_code":4,"worker'])
def test_a_journal_that_was_begun_only(model: qg.FloatModel, files: Path, end: str) -> None:
    Path("s.journal").write_text(end)
    assert len(qg.search(model, CALIBRATION, X, trials=1, study="s.journal").tried) == 1


def test_parameters_in_another_order(model: qg.FloatModel, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database gives them in any."""
    first = qg.search(model, CALIBRATION, X, trials=9, study="s.journal")
    params = optuna.trial.FrozenTrial.params

    def reversed_params(self: optuna.trial.FrozenTrial) -> dict[str, object]:
        return dict(reversed(params.fget(self).items()))

    monkeypatch.setattr(optuna.trial.FrozenTrial, "params", property(reversed_params, params.fset))
    again = qg.search(model, CALIBRATION, X, trials=1, study="s.journal")
    assert again.tried[:9] == first.tried
    assert list(again.chosen.weight_bits) == SECTIONS
