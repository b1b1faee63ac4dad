"""What `quantgru hil` says about its boards: on the terminal, as JSON and as JUnit XML."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from quantgru.errors import ConfigError

if TYPE_CHECKING:
    from quantgru.hil.timer import StepCost
    from quantgru.int_model import IntModel
    from quantgru.on_board import BoardResult
    from quantgru.on_boards import Outcome

_JSON_FORMAT: Final = 1  # of `quantgru hil --json`; docs/hil.md has its fields


def print_outcome(outcome: Outcome) -> None:
    """One board, in words."""
    result = outcome.result
    assert result is not None
    click.echo(f"{result.target}: {result.steps:,} of {result.total_steps:,} steps compared")
    if (cost := result.step_cost) is not None:
        middle = f"{'mean' if cost.median is None else 'median'} {_digits(cost, _middle(cost))}"
        a_step = "a step, of whole sequences" if cost.of_runs else "a step"
        outputs = "" if cost.outputs is None else f"; its outputs {_digits(cost, cost.outputs)} besides"
        range_ = f"{_digits(cost, cost.minimum)} ... {_digits(cost, cost.maximum)}"
        click.echo(f"{cost.unit} {a_step}: {range_}, {middle}{outputs}")
    if result.flash_bytes is not None:
        click.echo(f"test firmware: {result.flash_bytes:,} bytes of flash, {result.ram_bytes:,} of RAM")
    if result.stack_bytes is not None:
        click.echo(f"deepest stack: {result.stack_bytes:,} bytes")
    _print_clipped(result)
    if result.equal:
        click.echo(f"{result.steps:,} of {result.total_steps:,} steps equal")
    else:
        click.echo(f"DIFFERENT: {_difference(result)}")


def print_table(model: IntModel, outcomes: Sequence[Outcome]) -> None:
    """Several boards side by side, then what was wrong with any."""
    from rich.table import Table

    from quantgru.cli.console import console
    from quantgru.int_model.cost import cost as cost_of

    macs = cost_of(model).step_macs
    table = Table("board", "steps", "equal", "a step", "a MAC", "outputs", "flash", "RAM", "stack", "seconds")
    for column in table.columns[1:]:
        column.justify = "right"
    for outcome in outcomes:
        table.add_row(outcome.target.name, *_cells(outcome, macs), f"{outcome.seconds:.1f}")
    console().print(table)
    if results := [outcome.result for outcome in outcomes if outcome.result is not None]:
        _print_clipped(results[0])  # the inputs are the same for all
    for outcome in outcomes:
        if outcome.error is not None:
            click.echo(f"{outcome.target.name}: {outcome.error}")
        elif outcome.result is not None and not outcome.equal:
            click.echo(f"{outcome.target.name}: DIFFERENT: {_difference(outcome.result)}")
    equal = sum(outcome.equal for outcome in outcomes)
    click.echo(
        f"{equal} of {len(outcomes)} boards equal; a step: its median, or mean; a MAC: one multiply-accumulate of it; "
        "outputs: what those of a step take besides"
    )


def _print_clipped(result: BoardResult) -> None:
    from quantgru.cli.console import print_clipped

    if result.clipped_inputs is not None:
        print_clipped(result.clipped_inputs, result.total_steps)


def _difference(result: BoardResult) -> str:
    equal = f"{result.steps - 1:,} of {result.total_steps:,} steps had been equal"
    return f"{result.first_difference}; {equal}"


def _cells(outcome: Outcome, macs: int) -> list[str]:
    result = outcome.result
    if result is None:
        return ["", "failed", "", "", "", "", "", ""]
    step = per_mac = outputs = ""
    if (cost := result.step_cost) is not None:
        step = f"{_digits(cost, _middle(cost))} {cost.unit}"
        per_mac = f"{_middle(cost) / macs:.2f}" if cost.unit != "us" else ""
        outputs = "" if cost.outputs is None else _digits(cost, cost.outputs)
    sizes = (result.flash_bytes, result.ram_bytes, result.stack_bytes)
    numbers = ["" if size is None else f"{size:,}" for size in sizes]
    return [f"{result.steps:,}", "yes" if result.equal else "NO", step, per_mac, outputs, *numbers]


def _middle(cost: StepCost) -> float:
    return cost.mean if cost.median is None else cost.median


def _digits(cost: StepCost, value: float) -> str:
    return f"{value:,.2f}" if cost.unit == "us" else f"{value:,.0f}"


# ---- files -------------------------------------------------------------------------------------------------------


def require_reports(json_path: str | None, junit_path: str | None) -> None:
    """Raises ConfigError where a report cannot be written. However the run ends, an earlier verdict must not stay."""
    from quantgru.cli.console import require_writable

    for path in (json_path, junit_path):
        if path is not None:
            require_writable(path)
    if json_path is not None and junit_path is not None and os.path.realpath(json_path) == os.path.realpath(junit_path):
        error = f"--json and --junit: both write {json_path}; give each a file of its own"
        write_failure(json_path, None, error)
        raise ConfigError(error)
    write_failure(json_path, junit_path, "the run did not finish")


def write_failure(json_path: str | None, junit_path: str | None, error: str) -> None:
    """Of a run without a board."""
    from quantgru.cli.console import write_json

    if json_path is not None:
        write_json(json_path, {"format": _JSON_FORMAT, "equal": False, "error": error, "run": None, "boards": []})
    if junit_path is not None:
        _write_junit(junit_path, "quantgru hil", {}, [("hil", error, "error", 0.0)])


def write_reports(
    json_path: str | None, junit_path: str | None, run: dict[str, Any], outcomes: Sequence[Outcome]
) -> None:
    """`run` says what was run: all that a run like it takes, but the boards."""
    from quantgru.cli.console import write_json

    if json_path is not None:
        write_json(json_path, _to_json(run, outcomes))
    if junit_path is not None:
        _write_junit(junit_path, run["model_file"], run, [_junit_case(outcome) for outcome in outcomes])


def _to_json(run: dict[str, Any], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    return {
        "format": _JSON_FORMAT,
        "equal": bool(outcomes) and all(outcome.equal for outcome in outcomes),
        "error": next((outcome.error for outcome in outcomes if outcome.error is not None), None),
        "run": run,
        "boards": [outcome.to_json() | {"cost_per_mac": _per_mac(outcome, run["step_macs"])} for outcome in outcomes],
    }


def _per_mac(outcome: Outcome, macs: int) -> float | None:
    if outcome.result is None or outcome.result.step_cost is None:
        return None
    return _middle(outcome.result.step_cost) / macs


def _junit_case(outcome: Outcome) -> tuple[str, str, str, float]:
    """Name, message, what the message is, and seconds."""
    name, seconds = outcome.target.name, outcome.seconds
    if outcome.result is None:
        return name, outcome.error or "", "error", seconds
    if not outcome.equal:
        return name, _difference(outcome.result), "failure", seconds
    return name, "", "", seconds


def _write_junit(
    path: str, suite_name: str, properties: dict[str, Any], cases: Sequence[tuple[str, str, str, float]]
) -> None:
    from io import BytesIO

    from junitparser import Error, Failure, JUnitXml, TestCase, TestSuite

    from quantgru.cli.console import write_file

    kinds: dict[str, Any] = {"error": Error, "failure": Failure}
    suite = TestSuite(suite_name)
    for name, value in properties.items():
        if value is not None:
            suite.add_property(name, str(value))
    for name, message, kind, seconds in cases:
        case = TestCase(name, classname="quantgru.hil", time=round(seconds, 3))
        case.result = [kinds[kind](message)] if kind else []
        suite.add_testcase(case)
    report = JUnitXml()
    report.add_testsuite(suite)
    content = BytesIO()
    report.write(content)
    write_file(path, content.getvalue())
