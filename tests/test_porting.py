"""docs/porting.md, followed step by step: its files, and the commands that build them, for a board of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from hil_boards import board_or_skip
from support_export import ROOT, load

import quantgru as qg
from quantgru.hil.images import Image, launch

PAGE = (ROOT / "docs" / "porting.md").read_text(encoding="utf-8")
BOARD = "netduinoplus2"
FOLDER = ROOT / "firmware" / "ports" / BOARD


def block(language: str, beginning: str = "") -> str:
    """The block of code in this language that begins so."""
    (found,) = (
        text
        for name, text in re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
        if name == language and text.startswith(beginning)
    )
    return str(found)


def test_the_files_of_the_page_are_those_of_the_board() -> None:
    shown = {
        "port_config.h": block("c", "#define"),
        "port.c": block("c", "/* USART"),
        "memory.ld": block("text"),
        "port.toml": block("toml"),
    }
    assert shown == {path.name: path.read_text(encoding="utf-8") for path in FOLDER.iterdir()}


def test_the_commands_of_the_page_build_a_board_that_is_equal(tmp_path: Path) -> None:
    """As somebody types them: by the shell, beside a folder firmware/."""
    board = board_or_skip(BOARD)
    (tmp_path / "firmware").symlink_to(ROOT / "firmware")
    model = load("gesture")
    model.save(tmp_path / "gesture.qgru")
    commands = re.sub(r"^quantgru ", f"'{sys.executable}' -m quantgru ", block("sh"), flags=re.MULTILINE)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(["sh", "-ec", commands], cwd=tmp_path, env=environment, check=True, capture_output=True)
    raw = np.random.default_rng(4).integers(-(2**15), 2**15, (2, 50, model.n_inputs))
    with launch(board, Image(tmp_path / "test.elf", 0, 0)) as url:
        result = qg.run_on_board(model, raw * 2.0**-model.input_fraction_bits, port=url)
    assert result.equal, str(result.first_difference)
    assert result.steps == 100


def test_the_macros_of_the_page_are_those_of_the_board() -> None:
    table = PAGE.split("## 2.")[0]
    named = re.findall(r"^\| `(PORT_\w+)` \|", table, re.MULTILINE)
    defined = re.findall(r"^#define (\w+)", (FOLDER / "port_config.h").read_text(), re.MULTILINE)
    assert sorted(named) == sorted(defined)


def test_both_cortex_m4_count_the_same_instructions() -> None:
    """Their timers differ, 168 and 25 MHz; what a tick is worth is in each port.toml."""
    model = load("gesture")
    x = np.random.default_rng(5).normal(size=(1, 30, model.n_inputs))
    names = [board_or_skip(name).name for name in (BOARD, "mps2-an386")]
    ours, other = (qg.run_on_board(model, x, board=name).step_cost for name in names)
    assert ours is not None and other is not None
    assert ours.unit == other.unit == "instructions"
    assert abs(ours.median - other.median) <= 1  # a tick of the slower timer is 0.6 instructions
