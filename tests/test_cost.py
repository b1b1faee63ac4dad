"""What a model costs: by hand, and as the linker sees the exported files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import oracle
import pytest
from conversions import from_oracle
from strategies import REVERSE, BidirectionalPlan, DensePlan, EmbeddingPlan, GruPlan, Plan, random_model
from support_export import CORTEX_M4, NAMES, FindTool, includes, load, run_command

from quantgru.exporter import export
from quantgru.int_model.cost import WorkShape, cost, work_shape

EIGHT = GruPlan(8)
BOTH = BidirectionalPlan(GruPlan(4), GruPlan(4, oracle.RESET_BEFORE))


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ((EIGHT,), WorkShape(8, 0, 0, 0)),
        ((EIGHT, GruPlan(5, oracle.RESET_BEFORE), DensePlan(2)), WorkShape(13, 5, 0, 0)),
        ((EIGHT, DensePlan(9), DensePlan(2)), WorkShape(8, 0, 1, 9)),
        ((EIGHT, DensePlan(9), DensePlan(7), DensePlan(6), DensePlan(20)), WorkShape(8, 0, 2, 9)),
        ((DensePlan(9), EIGHT, DensePlan(7), EIGHT, DensePlan(20)), WorkShape(16, 0, 1, 9)),
        ((EmbeddingPlan(3, 6), REVERSE, DensePlan(4), REVERSE, EIGHT), WorkShape(8, 0, 2, 6)),
        # Whole sequences. Both directions of the first layer read the inputs: a row holds what they put out.
        ((BOTH,), WorkShape(4, 4, 0, 0, state_units=4, row_values=8)),
        ((replace(BOTH, merge=oracle.MERGE_SUM),), WorkShape(4, 4, 0, 0, state_units=4, row_values=4)),
        ((EmbeddingPlan(3, 30), BOTH), WorkShape(4, 4, 1, 30, state_units=4, row_values=8)),
        ((EmbeddingPlan(3, 30), DensePlan(5), BOTH), WorkShape(4, 4, 2, 30, state_units=4, row_values=9)),
        ((EIGHT, DensePlan(5), REVERSE, EIGHT), WorkShape(8, 0, 1, 5, state_units=8, row_values=8)),
        # The second reads rows of 8, and keeps them beside the 4 of its first direction.
        ((BOTH, BOTH), WorkShape(4, 4, 0, 0, state_units=4, row_values=12)),
        ((BOTH, replace(BOTH, final=1)), WorkShape(4, 4, 0, 0, state_units=8, row_values=8)),
        ((replace(BOTH, final=1), DensePlan(3), DensePlan(2)), WorkShape(4, 4, 1, 3, state_units=8, row_values=0)),
    ],
)
def test_work_space(layers: tuple[object, ...], expected: WorkShape) -> None:
    n_inputs = 1 if isinstance(layers[0], EmbeddingPlan) else 3
    model = from_oracle(random_model(Plan(n_inputs, layers=layers, last_step=1), seed=1))
    assert work_shape(model) == expected


def test_costs_by_hand() -> None:
    """valve: 2 → 5 → 3 → 9 → 4 → 3 → 2 → 4 → 3 → 1."""
    known = cost(load("valve"))
    grus = 3 * 9 * (3 + 9) + 3 * 3 * (4 + 3) + 3 * 2 * (3 + 2)
    assert (known.step_macs, known.head_macs) == (2 * 5 + 5 * 3 + 9 * 4 + grus, 2 * 4 + 4 * 3 + 3)
    assert (known.state_bytes, known.scratch_bytes, known.row_bytes) == (4 * 14, 6 * 14 + 2 * 3 + 2 * 2 * 5, 0)
    known = cost(load("phrase"))
    assert (known.state_bytes, known.scratch_bytes, known.row_bytes) == (0, 10 * 9 + 2 * 9 + 2 * 9 + 2 * 6 + 2, 2 * 8)


@pytest.mark.parametrize("name", NAMES)
def test_cost_is_what_the_linker_sees(name: str, find_tool: FindTool, tmp_path: Path) -> None:
    export(load(name), tmp_path)
    compiler, search = find_tool("arm-none-eabi-gcc"), includes(tmp_path)
    run_command(compiler, *CORTEX_M4, "-O2", *search, "-c", tmp_path / f"{name}.c", "-o", tmp_path / "o")
    descriptors = ("in_bytes", "kinds", "grus", "dense", "embedding", "bidirectionals", f"{name}_descriptor")
    symbols = {}
    for line in run_command(find_tool("arm-none-eabi-nm"), "-S", tmp_path / "o").splitlines():
        fields = line.split()
        if len(fields) == 4 and fields[2] in "rR" and fields[3] not in descriptors:
            symbols[fields[3]] = int(fields[1], 16)
    expected = cost(load(name))
    assert sum(symbols.values()) == expected.constant_bytes
    rows = f"{name.upper()}_STEPS * {expected.row_bytes}"
    sizes = {
        "state": str(expected.state_bytes),
        "scratch": str(expected.scratch_bytes),
        "work": f"{expected.scratch_bytes} + {rows}",
    }
    parts = ("state", "scratch") if load(name).streaming else ("work",)
    checks = [f"typedef char {part}_is_as_told[sizeof({name}_{part}) == {sizes[part]} ? 1 : -1];" for part in parts]
    (tmp_path / "sizes.c").write_text("\n".join([f'#include "{name}.h"', *checks, ""]))
    run_command(compiler, *CORTEX_M4, *search, "-c", tmp_path / "sizes.c", "-o", tmp_path / "o")
