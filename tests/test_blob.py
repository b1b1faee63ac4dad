"""Blobs as they are written: the bytes of firmware/BLOB.md, and the command. What a device makes of them is tested in
test_blob_loader.py and test_blob_refused.py."""

import re
from pathlib import Path

import oracle
import pytest
from blob_example import MODEL
from blob_reader import read_blob
from command_line import assert_refused, done, quantgru
from conversions import from_oracle
from hypothesis import given
from strategies import REVERSE, GruPlan, Plan, any_plans, oracle_models, random_model

import quantgru as qg
from quantgru.exporter import blob_memory
from quantgru.firmware_files import firmware_directory

PAGE = (firmware_directory() / "BLOB.md").read_text(encoding="utf-8")


def test_the_example_of_the_page() -> None:
    (dump,) = re.findall(r"^```\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    lines = re.findall(r"^ *(\d+)  ((?:[0-9a-f]{2} )*[0-9a-f]{2})", dump, re.MULTILINE)
    shown = b""
    for offset, text in lines:
        assert int(offset) == len(shown)
        shown += bytes.fromhex(text)
    assert qg.to_blob(from_oracle(MODEL)) == shown


@given(oracle_models(any_plans(streaming=True)))
def test_a_blob_holds_the_model(model: oracle.Model) -> None:
    assert read_blob(qg.to_blob(from_oracle(model))) == model


def test_the_same_model_gives_the_same_bytes() -> None:
    model = random_model(Plan(3, (9, 5), (0, 1), ((4, 1),)), seed=1)
    assert qg.to_blob(from_oracle(model)) == qg.to_blob(from_oracle(model))


def test_a_model_that_needs_whole_sequences_is_refused() -> None:
    model = from_oracle(random_model(Plan(2, layers=(GruPlan(2), REVERSE)), seed=1))
    for function in (qg.to_blob, blob_memory):
        with pytest.raises(qg.ModelError, match=r"^model '\w+': needs whole sequences, .*; export it as C files$"):
            function(model)


def test_what_is_no_integer_model_is_refused() -> None:
    with pytest.raises(qg.ModelError, match=r"^blob: a model of type str, expected an IntModel"):
        qg.to_blob("gesture.qgru")  # type: ignore[arg-type]


def test_the_command(here: Path) -> None:
    said = done(quantgru("blob", "m.qgru", "-o", "m.qgb"))
    model = qg.IntModel.load("m.qgru")
    blob = (here / "m.qgb").read_bytes()
    assert blob == qg.to_blob(model)
    assert said == f"wrote m.qgb: {len(blob)} bytes; besides it, a device needs {blob_memory(model)} bytes of RAM\n"


@pytest.mark.parametrize("arguments", [("m.qgru", "-o", "no/m.qgb"), ("x.npz", "-o", "m.qgb"), ("m.qgru", "-o", ".")])
def test_wrong_arguments_write_nothing(arguments: tuple[str, ...], here: Path) -> None:
    before = sorted(here.rglob("*"))
    assert_refused(quantgru("blob", *arguments))
    assert sorted(here.rglob("*")) == before
