"""The pages in docs/: every number is computed here again with plain `math`, and by Keras; every example is run."""

from __future__ import annotations

import doctest
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("KERAS_BACKEND", "torch")

import pytest

from quantgru.importers.conventions import CONVENTIONS, Convention

DOCS = Path(__file__).resolve().parent.parent / "docs"
BY_HAND = (DOCS / "by-hand.md").read_text(encoding="utf-8")
CONVENTIONS_PAGE = (DOCS / "conventions.md").read_text(encoding="utf-8")

SEQUENCE = (1, 2, 9, 8)
KERNEL = (-0.90954137, 1.0425225, -0.04404902)  # z, r, h~
RECURRENT_KERNEL = (0.24168766, 0.8981342, 0.36734456)


# ---- the cell with one unit ----------------------------------------------------------------------------------------


class Step(NamedTuple):
    x: float
    h: float
    sum_z: float
    z: float
    sum_r: float
    r: float
    sum_n: float
    n: float
    new_h: float


def sigma(a: float) -> float:
    return 1 / (1 + math.exp(-a))


def steps(*, keeps: bool = True, z_sign: int = 1, bias: float = 0.0, after: bool = True) -> list[Step]:
    """bias is inside the reset product if `after`, and beside it if not."""
    h, found = 0.0, []
    for x in SEQUENCE:
        sum_z = z_sign * (KERNEL[0] * x + RECURRENT_KERNEL[0] * h)
        sum_r = KERNEL[1] * x + RECURRENT_KERNEL[1] * h
        z, r = sigma(sum_z), sigma(sum_r)
        sum_n = KERNEL[2] * x + (
            r * (RECURRENT_KERNEL[2] * h + bias) if after else RECURRENT_KERNEL[2] * (r * h) + bias
        )
        n = math.tanh(sum_n)
        new_h = z * h + (1 - z) * n if keeps else (1 - z) * h + z * n
        found.append(Step(x, h, sum_z, z, sum_r, r, sum_n, n, new_h))
        h = new_h
    return found


KEPT = steps()
REPLACED = steps(keeps=False)
REPLACED_NEGATED = steps(keeps=False, z_sign=-1)


# ---- numbers of a page ---------------------------------------------------------------------------------------------

NUMBER = re.compile(r"(?<![\w.])-?\d+\.\d+(?:e[+-]\d+)?")


def tables(page: str) -> list[list[list[str]]]:
    """Tables, their rows, their cells; without the two header lines."""
    found = re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE)
    return [
        [[cell.strip() for cell in line.strip("|\n").split("|")] for line in table.splitlines()[2:]] for table in found
    ]


def without_tables(page: str) -> str:
    return re.sub(r"^\|.*\n", "", page, flags=re.MULTILINE)


def rounded(value: float, as_in: str) -> str:
    """The value with as many digits as the text has."""
    digits = len(as_in.split("e")[0].split(".")[1])
    return f"{value:.{digits}{'e' if 'e' in as_in else 'f'}}"


def assert_shown(shown: list[str], values: list[float]) -> None:
    """Each text is its value, rounded as the text is."""
    assert shown == [rounded(value, text) for value, text in zip(values, shown, strict=True)]


# ---- by-hand.md ----------------------------------------------------------------------------------------------------


def test_the_weights_of_the_page():
    kernel, recurrent, biases = tables(BY_HAND)[0]
    assert [tuple(map(float, row[1:])) for row in (kernel, recurrent, biases)] == [KERNEL, RECURRENT_KERNEL, (0, 0, 0)]


def test_the_four_steps():
    table = tables(BY_HAND)[1]
    assert [(int(row[0]), int(row[1])) for row in table] == list(enumerate(SEQUENCE))
    for row, step in zip(table, KEPT, strict=True):
        assert_shown(row[2:], list(step[1:]))


def test_the_two_polarities():
    table = tables(BY_HAND)[2]
    for t, row in enumerate(table):
        values = [KEPT[t].z, KEPT[t].new_h, REPLACED_NEGATED[t].z, REPLACED_NEGATED[t].new_h, REPLACED[t].new_h]
        assert int(row[0]) == t
        assert_shown(row[1:], values)
        assert abs(KEPT[t].new_h - REPLACED_NEGATED[t].new_h) < 1e-15
        assert abs(KEPT[t].z + REPLACED_NEGATED[t].z - 1) < 1e-15
    assert len(tables(BY_HAND)) == 3


def numbers_of_the_text() -> Iterator[float]:
    """What by-hand.md shows outside of its tables and Python examples, in its order."""
    (k_z, k_r, k_n), (u_z, u_r, u_n) = KERNEL, RECURRENT_KERNEL
    yield from (k_z, u_z, k_r, u_r, k_n, u_n)  # the formula
    one = KEPT[1]
    yield from (k_z, u_z, one.h, k_z * 2, u_z * one.h, one.sum_z)
    yield from (k_r, u_r, one.h, k_r * 2, u_r * one.h, one.sum_r)
    yield from (k_n, one.r, u_n, one.h, k_n * 2, one.r * u_n * one.h, one.sum_n)
    yield from (one.z, one.h, -one.z, one.n, one.z * one.h, (1 - one.z) * one.n, one.new_h)
    yield KEPT[-1].new_h  # the result
    total = sum(SEQUENCE)
    z, n = sigma(k_z * total), math.tanh(k_n * total)
    yield from (k_z, k_z * total, z, k_r, k_r * total, sigma(k_r * total), k_n, k_n * total, n)
    yield from (z * n, (1 - z) * n)
    yield REPLACED[-1].new_h
    yield from (u_n, steps(after=False)[-1].new_h, 0.5)
    yield from (steps(bias=0.5)[-1].new_h, steps(bias=0.5, after=False)[-1].new_h)
    yield 0.9680257  # as printed in the question
    yield from (-k_z, -u_z, k_z, u_z)


def test_every_number_of_the_text():
    text = re.sub(r"^```.*?^```", "", without_tables(BY_HAND), flags=re.MULTILINE | re.DOTALL)
    shown = NUMBER.findall(re.sub(r" - (?=\d+\.)", " -", text))  # "a - b" shows -b
    assert_shown(shown, list(numbers_of_the_text()))


def test_no_state_of_these_weights_is_positive():
    """What the page says about the prediction 0.9680257."""
    assert all(step.n < 0 and step.new_h < 0 for step in KEPT)


def keras_result(reset_after: bool, bias: float) -> float:
    keras = pytest.importorskip("keras", reason="Keras is not installed: pip install 'keras>=3.6'")
    import numpy as np

    layer = keras.layers.GRU(1, reset_after=reset_after, dtype="float64")
    layer.build((None, 4, 1))
    biases = np.array([[0, 0, 0], [0, 0, bias]]) if reset_after else np.array([0, 0, bias])
    layer.set_weights([np.array([KERNEL]), np.array([RECURRENT_KERNEL]), biases])
    return float(keras.ops.convert_to_numpy(layer(np.reshape(SEQUENCE, (1, 4, 1))))[0, 0])


@pytest.mark.parametrize("bias", [0.0, 0.5])
@pytest.mark.parametrize("reset_after", [True, False])
def test_keras_computes_the_same(reset_after, bias):
    pytest.importorskip("torch", reason="PyTorch, the back end, is not installed: pip install quantgru[torch]")
    assert abs(keras_result(reset_after, bias) - steps(bias=bias, after=reset_after)[-1].new_h) < 1e-6


def test_the_keras_example_runs():
    pytest.importorskip("torch", reason="PyTorch, the back end, is not installed: pip install quantgru[torch]")
    pytest.importorskip("keras", reason="Keras is not installed: pip install 'keras>=3.6'")
    (example,) = (block for block in re.findall(r"```python\n(.*?)```", BY_HAND, re.DOTALL) if "import keras" in block)
    names: dict[str, object] = {}
    exec(compile(example, "by-hand.md", "exec"), names)
    assert abs(float(names["result"][0, 0]) - KEPT[-1].new_h) < 1e-6  # type: ignore[index]


def test_the_explain_command_is_as_the_page_says():
    from quantgru.cli.explain import explain

    (line,) = re.findall(r"`quantgru explain ([^`]*)`", BY_HAND)
    known = {option for parameter in explain.params for option in parameter.opts}
    assert {word for word in line.split() if word.startswith("--")} == {"--input", "--step", "--unit"} <= known


# ---- conventions.md ------------------------------------------------------------------------------------------------


def table_row(convention: Convention) -> str:
    optional = {array.name for group in convention.optional for array in group}
    arrays = [f"`{array.name} {array.shape_text} = {convention.blocks_of(array)}`" for array in convention.all_arrays]
    marked = [
        f"({text})" if array.name in optional else text
        for array, text in zip(convention.all_arrays, arrays, strict=True)
    ]
    formula = "<br>".join(f"`{line}`" for line in convention.formula)
    return (
        f"| **{convention.name}** | {convention.source} | {formula} | {convention.reset} the product | "
        f"z {convention.update} | {'<br>'.join(marked)} |"
    )


def test_the_table_is_that_of_the_code():
    """If it fails, the text that it expects is the table for the page."""
    header = "| convention | source | formula | reset acts | update | its arrays, in blocks of the canonical cell |\n"
    rows = "\n".join(table_row(convention) for convention in CONVENTIONS.values())
    expected = f"{header}|---|---|---|---|---|---|\n{rows}\n"
    (found,) = re.findall(r"<!-- table.*?-->\n(.*?)<!-- end of table -->", CONVENTIONS_PAGE, re.DOTALL)
    assert found == expected


# ---- both ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(DOCS.glob("*.md")), ids=lambda path: path.name)
def test_examples_of_a_page(path):
    result = doctest.testfile(str(path), module_relative=False, encoding="utf-8")
    assert result.failed == 0
    assert result.attempted or ">>>" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted(DOCS.glob("*.md")), ids=lambda path: path.name)
def test_links_of_a_page_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (path.parent / target).is_file(), target
