"""quantgru hil"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from quantgru.cli.loading import packing_option
from quantgru.errors import ConfigError, DataError, QuantgruError

if TYPE_CHECKING:
    from quantgru.int_model.packing import Packing
    from quantgru.on_board import Target
    from quantgru.on_boards import Outcome, Work
    from quantgru.sequences import Sequences

DIFFERENT = 1
FAILED = 2


@click.command(
    epilog="Example: quantgru hil gesture.qgru --input test.npz --board host; or several: "
    "quantgru hil gesture.qgru --steps 1000000 --port /dev/ttyACM0 --board mps2-an386"
)
@click.argument("model", metavar="M.qgru")
@click.option("--input", "input_path", metavar="X.npz", help="Input sequences.")
@click.option("--steps", type=int, metavar="N", help="Instead: N steps on inputs that the board generates itself.")
@click.option("--seed", type=int, metavar="N", help="What --steps begins with.  [default: 1]")
@click.option("--board", "boards", multiple=True, metavar="NAME", help="Build and start this board here, or 'all'.")
@click.option(
    "--port", "ports", multiple=True, metavar="URL", help="One with the test firmware: /dev/ttyACM0, COM5 ..."
)
@click.option("--baud", type=int, metavar="N", help="Baud rate of --port, 9600 ... 12000000.  [default: 115200]")
@click.option(
    "--by",
    type=click.Choice(["outputs", "states", "digests"]),
    help="What comes back: outputs of every step (the default), all numbers of its states and gates, or digests of "
    "many steps, as with --steps.",
)
@click.option("--send", is_flag=True, help="Send the model over the line, to firmware that is built without one.")
@packing_option
@click.option("--timeout", type=float, metavar="SECONDS", help="How long one answer may take, for slow boards.")
@click.option(
    "--deadline",
    type=float,
    metavar="SECONDS",
    help="How long everything may take once the line is open, simulation included, building not.  [default: 24 hours]",
)
@click.option("--json", "json_path", metavar="FILE", help="Also write the result, or what went wrong, as JSON.")
@click.option("--junit", "junit_path", metavar="FILE", help="Also write it as JUnit XML, as CI services read it.")
def hil(
    model: str,
    input_path: str | None,
    steps: int | None,
    seed: int | None,
    boards: tuple[str, ...],
    ports: tuple[str, ...],
    baud: int | None,
    by: str | None,
    send: bool,
    packing: Packing,
    timeout: float | None,
    deadline: float | None,
    json_path: str | None,
    junit_path: str | None,
) -> None:
    """Run sequences on boards (hardware in the loop) and compare every step with the simulator.

    --board and --port may be repeated: several run at once. Exit code 0 if every step was equal on every board, 1 if
    any board differed, else 2 if any comparison could not be made.
    """
    from quantgru.cli.board_reports import print_outcome, print_table, require_reports, write_failure, write_reports
    from quantgru.int_model import IntModel
    from quantgru.on_boards import Work

    require_reports(json_path, junit_path)
    try:
        _check_together(boards, ports, baud, input_path, steps, seed, by)
        if packing != "auto" and (send or not boards):
            raise click.UsageError("--packing goes with --board, and not with --send")
        targets = _targets(boards, ports, baud, packing)
        int_model = IntModel.load(model)
        sequences = None if input_path is None else _load(input_path)
        work = Work(
            int_model,
            sequences,
            steps or 0,
            1 if seed is None else seed,
            by or "outputs",  # type: ignore[arg-type]
            send,
            timeout,
            deadline,
        )
        outcomes = _run(work, targets)
    except (QuantgruError, click.UsageError) as error:
        write_failure(json_path, junit_path, str(error))
        raise
    files = {"model_file": model, "input_file": input_path}
    write_reports(json_path, junit_path, files | work.to_json(), outcomes)
    if len(outcomes) == 1:
        if outcomes[0].error is not None:
            raise QuantgruError(outcomes[0].error)
        print_outcome(outcomes[0])
    else:
        print_table(int_model, outcomes)
    sys.exit(_exit_code(outcomes))


def _check_together(
    boards: tuple[str, ...],
    ports: tuple[str, ...],
    baud: int | None,
    input_path: str | None,
    steps: int | None,
    seed: int | None,
    by: str | None,
) -> None:
    """Raises UsageError for options that do not go with each other."""
    if not boards and not ports:
        raise click.UsageError("give --board NAME or --port URL")
    if (input_path is None) == (steps is None):
        raise click.UsageError("give either --input X.npz or --steps N")
    if steps is not None and by is not None:
        raise click.UsageError("--by goes with --input; --steps compares digests")
    if baud is not None and not ports:
        raise click.UsageError("--baud goes with --port")
    if steps is None and seed is not None:
        raise click.UsageError("--seed goes with --steps")


def _targets(boards: tuple[str, ...], ports: tuple[str, ...], baud: int | None, packing: Packing) -> list[Target]:
    from quantgru.hil.boards import find_boards
    from quantgru.on_board import Target

    names = list(boards)
    if "all" in names:
        at = names.index("all")
        runnable = [name for name, board in find_boards().items() if not board.missing()]
        if not runnable:
            raise ConfigError("--board all: no board can be built and run here; `quantgru boards` says what is missing")
        names[at : at + 1] = runnable
    targets = [Target("board", name, packing=packing) for name in dict.fromkeys(names)]
    by_file = {os.path.realpath(name) if os.path.exists(name) else name: name for name in ports}
    return targets + [Target("port", name, baud) for name in by_file.values()]


def _load(input_path: str) -> Sequences:
    from quantgru.sequences import load_initial_states, load_npz

    sequences, _ = load_npz(input_path)
    if load_initial_states(input_path) is not None:
        raise DataError(
            f"input {input_path}: has initial states, and a board starts from those of the model; leave them out, "
            "or quantize a model that has them"
        )
    return sequences


def _run(work: Work, targets: list[Target]) -> list[Outcome]:
    from quantgru.cli.console import progress_bars
    from quantgru.on_boards import run_on_boards, run_target

    bars = [f"comparing on {target.name}" for target in targets]
    with progress_bars(bars, work.n_steps, "steps") as advance:
        if len(targets) == 1:
            return [run_target(work, targets[0], lambda steps: advance(0, steps))]
        return run_on_boards(work, targets, advance)


def _exit_code(outcomes: list[Outcome]) -> int:
    if any(outcome.result is not None and not outcome.equal for outcome in outcomes):
        return DIFFERENT
    return 0 if outcomes and all(outcome.equal for outcome in outcomes) else FAILED
