"""What commands share: a console, a progress bar, a line on clipped inputs, and writing results."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from rich.console import Console

    from quantgru.array_types import IntArray
    from quantgru.model import FloatModel


_OUTPUTS: Final = ("output", "json_path", "junit_path", "plot_path")  # of all commands


def console() -> Console:
    """A console on stdout; 120 columns where stdout is no terminal, so that tables in logs stay whole."""
    from rich.console import Console

    on_terminal = sys.stdout is not None and sys.stdout.isatty()
    # Names come from files: [brackets] and :colons: in them mean nothing.
    return Console(highlight=False, markup=False, emoji=False, soft_wrap=False, width=None if on_terminal else 120)


@contextmanager
def progress(what: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr, shown on a terminal only; yields the function that advances it."""
    with progress_bars([what], total, unit) as advance:
        yield lambda n: advance(0, n)


@contextmanager
def refining(model: FloatModel, rounds: int) -> Iterator[Callable[[int], None] | None]:
    """The same for so many rounds of refinement of each GRU layer; yields None where there are none."""
    if rounds <= 0:
        yield None
        return
    with progress("refining", rounds * len(model.grus), "rounds") as advance:
        yield advance


@contextmanager
def progress_bars(whats: Sequence[str], total: int, unit: str) -> Iterator[Callable[[int, int], None]]:
    """One bar for each; yields the function that advances bar i by n."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
    )
    stderr = Console(stderr=True)
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as bar:
        tasks = [bar.add_task(what, total=total) for what in whats]
        yield lambda i, n: bar.advance(tasks[i], n)


def print_clipped(clipped: IntArray, n_steps: int) -> None:
    """How many input values were out of range, and of which inputs, of `clipped` [inputs]."""
    total, values = int(clipped.sum()), len(clipped) * n_steps
    if total == 0:
        click.echo(f"clipped inputs: 0 of {values:,}")
        return
    worst = ", ".join(
        f"input {i} {100 * clipped[i] / n_steps:.1f} %" for i in clipped.argsort()[::-1][:4] if clipped[i]
    )
    click.echo(f"clipped inputs: {total:,} of {values:,} ({worst}): calibrate on data that reaches as far")


def require_writable(path: str) -> None:
    """Raises ConfigError where a file cannot be written, or has another use in the command: before the work."""
    from quantgru.errors import ConfigError

    target = Path(path)
    if path == "-":
        problem = "this means stdout elsewhere, and no file"
    elif target.is_dir():
        problem = "is a folder"
    elif target.exists() and not target.is_file():
        problem = "is not a regular file"
    elif not target.parent.is_dir():
        problem = f"there is no folder {target.parent}"
    elif not os.access(target.parent, os.W_OK | os.X_OK):
        problem = f"folder {target.parent} is read-only"
    elif target.exists() and (others := _others_with(path)):
        problem = f"it is the file of {' and '.join(others)}, too"
    else:
        return
    raise ConfigError(f"output {path!r}: {problem}; choose another path")


def _others_with(path: str) -> list[str]:
    """Arguments and options of the command that name this file, but for outputs."""
    context = click.get_current_context()
    found = []
    for param in context.command.params:
        values = context.params.get(param.name or "")
        paths = [value for value in (values if isinstance(values, tuple) else (values,)) if isinstance(value, str)]
        if param.name not in _OUTPUTS and os.path.realpath(path) in map(os.path.realpath, paths):
            found.append(param.human_readable_name if isinstance(param, click.Argument) else param.opts[0])
    return found


def write_file(path: str, content: bytes) -> None:
    """Writes beside, then renames. Raises ConfigError."""
    from quantgru.container import write_atomically
    from quantgru.errors import ConfigError

    try:
        write_atomically(path, content)
    except OSError as error:  # its filename is that of the file beside
        raise ConfigError(f"output {path!r}: {error.strerror or error}; choose another path") from None


def write_json(path: str, content: object) -> None:
    """Writes JSON beside, then renames. Raises ConfigError."""
    import json

    write_file(path, (json.dumps(content, indent=2) + "\n").encode())
