"""A board that is wrong, and then fails while the difference is narrowed down: what is known by then is the verdict."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from command_line import assert_refused, hil, quantgru
from conftest import N_SEQUENCES
from hil_boards import board_or_skip, build_edited, replace_in, running
from test_board_runs import LENGTHS, LONGEST, WAYS, compared, make_case

import quantgru as qg
from quantgru.hil.compare import Comparison
from quantgru.hil.images import Image, launch
from quantgru.hil.timer import Ticks

N_STEPS = 8 * N_SEQUENCES


def mortal(firmware: Path, exported: Path) -> None:
    """An edit: firmware whose unit 4 is wrong after step 6 of each sequence, unless RIGHT is in its environment. It
    ends when it is asked for gates and has done LAST_READ steps of a sequence, or for outputs if STEPS_END is there."""
    code, harness = exported / "model.c", firmware / "harness" / "steps.c"
    replace_in(code, '#include "model.h"\n', '#include "model.h"\n#include <stdlib.h>\nunsigned steps_done;\n')
    replace_in(code, "    qg_reset(", "    steps_done = 0;\n    qg_reset(")
    step = "inputs, state->h, state->residual, &arrays);\n"
    wrong = '    if (++steps_done == 7 && getenv("RIGHT") == NULL) {\n        state->h[4] ^= 1;\n    }\n'
    replace_in(code, step, step + wrong)
    ends = {
        "read_execute": 'getenv("LAST_READ") != NULL && steps_done == (unsigned)atoi(getenv("LAST_READ"))',
        "steps_execute": 'getenv("STEPS_END") != NULL',
    }
    for function, end in ends.items():
        head = f"static uint16_t {function}(harness *self, const request *asked, uint8_t *payload)\n{{\n"
        replace_in(harness, head, f"{head}    if ({end}) {{\n        exit(3);\n    }}\n")
    replace_in(harness, '#include "work.h"\n', '#include "work.h"\n#include <stdlib.h>\nextern unsigned steps_done;\n')


@pytest.fixture(scope="module")
def image(digits_qgru: Path) -> Image:
    return build_edited(qg.IntModel.load(digits_qgru), mortal)


GATES, STEPS = {"LAST_READ": "7"}, {"STEPS_END": "1"}


WRONG_STEP = "sequence 0, step 6: check value 0x"
WRONG_STEPS = r"sequence 0, step(s \d ... \d)?( \d)?: digest 0x"


@pytest.mark.parametrize(
    ("options", "end", "known"),
    [
        (["--input", "x.npz"], GATES, WRONG_STEP),
        (["--input", "x.npz", "--by", "states"], GATES, WRONG_STEP),
        (["--input", "x.npz", "--by", "digests"], GATES, WRONG_STEP),
        (["--input", "x.npz", "--by", "digests"], STEPS, WRONG_STEPS),
        (["--steps", "100"], GATES, WRONG_STEP),
        (["--steps", "100"], STEPS, WRONG_STEPS),
    ],
)
def test_a_difference_is_reported_although_the_board_then_dies(
    options: list[str], end: dict[str, str], known: str, image: Image, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in end.items():
        monkeypatch.setenv(name, value)
    with launch(board_or_skip("host"), image) as port:
        result = quantgru("hil", "m.qgru", *options, "--port", port, "--json", "r.json", "--junit", "r.xml")
    assert (result.code, result.err) == (1, "")
    says = known + r"\w{8}, simulator 0x\w{8}; not narrowed down: port \S+: connection lost .*; check cable and power"
    assert re.search(f"^DIFFERENT: {says}", result.out, re.MULTILINE)
    (found,) = json.loads(Path("r.json").read_text())["boards"]
    difference = found["first_difference"]
    assert found["equal"] is False and found["stack_bytes"] is None
    assert difference["step"] <= 6 < difference["step"] + difference["n_steps"]
    assert found["steps"] == difference["step"] + 1
    assert "connection lost" in difference["not_narrowed"]
    (failure,) = ElementTree.parse("r.xml").getroot().iter("failure")
    assert re.match(says, failure.attrib["message"])


def test_an_error_before_any_difference_says_how_many_steps_had_been_equal(
    image: Image, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RIGHT", "1")
    monkeypatch.setenv("LAST_READ", "3")
    with launch(board_or_skip("host"), image) as port:
        result = hil("--port", port, "--by", "states")
    assert_refused(result, "connection lost", f"; 2 of {N_STEPS} steps had been equal")


def test_a_wrong_run_is_reported_although_the_board_dies_before_its_outputs_are_read() -> None:
    def edit(firmware: Path, exported: Path) -> None:
        runs = firmware / "harness" / "runs.c"
        replace_in(runs, "    return check;", "    return check ^ 1;")
        replace_in(runs, "    const int16_t *const first =", "    exit(3);\n    const int16_t *const first =")
        replace_in(runs, '#include "work.h"\n', '#include "work.h"\n#include <stdlib.h>\n')

    case = make_case()
    image = build_edited(case.model, edit, max_steps=LONGEST)
    says = f"sequence 0, steps 0 ... {LENGTHS[0] - 1}: check value of the run .*; not narrowed down: .*connection lost"
    for way in WAYS:
        with running(image) as line:
            found = compared(case, line, way)[1]
        assert not found.equal and found.steps == 1
        assert re.match(says, str(found.first_difference))


def test_fewer_steps_than_asked_are_never_equal() -> None:
    assert Comparison(3, 3, None, Ticks()).equal
    assert not Comparison(3, 4, None, Ticks()).equal
    assert not Comparison(0, 0, None, Ticks()).equal
