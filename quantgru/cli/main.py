"""Entry point: the commands, and how errors leave the program."""

from __future__ import annotations

import io
import os
import signal
import sys
import traceback
import warnings
from typing import Any

import click

from quantgru import __version__
from quantgru.cli.blob import blob
from quantgru.cli.boards import boards
from quantgru.cli.check import check
from quantgru.cli.demo import demo
from quantgru.cli.explain import explain
from quantgru.cli.export import export
from quantgru.cli.formats import formats
from quantgru.cli.hil import hil
from quantgru.cli.inspect import inspect
from quantgru.cli.quantize import quantize
from quantgru.cli.search import search
from quantgru.cli.sensitivity import sensitivity
from quantgru.cli.simulate import simulate
from quantgru.errors import QuantgruError, QuantgruWarning

WRONG_INPUT = 2  # and whatever else went wrong: 1 says that a step differed
INTERRUPTED = 130  # as the shell says it: 128 + SIGINT
ENDED = 143  # 128 + SIGTERM
NO_READER = 141  # 128 + SIGPIPE


class _Commands(click.Group):
    """Lists commands in the order of work, not of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # `| head` has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still in the buffer
            ctx.exit(NO_READER)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="quantgru")
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")  # read by main()
def cli() -> None:
    """Gated recurrent networks in fixed point on microcontrollers.

    \b
    From a trained model to a board:
      quantgru quantize gesture.keras --calibration train.npz -o gesture.qgru
      quantgru simulate gesture.qgru --input test.npz -o outputs.npz
      quantgru export gesture.qgru -o firmware/gesture
      quantgru hil gesture.qgru --input test.npz --port /dev/ttyACM0

    Input files are .npz with an array x [sequences, steps, features]. Optional are lengths and labels [sequences], mask
    [sequences, steps] (false where a step is none), and initial_state0, initial_state1, ... [sequences, units], one for
    each GRU layer. `quantgru formats` says what models can be.
    """


for command in (
    demo,
    formats,
    quantize,
    search,
    sensitivity,
    inspect,
    explain,
    simulate,
    check,
    export,
    blob,
    hil,
    boards,
):
    cli.add_command(command)


def main() -> None:
    """Runs the command line. Wrong input ends with one line on stderr and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # the name of a file may be in no code page
            stream.reconfigure(errors="backslashreplace")
    warnings.showwarning = _show_warning
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(ENDED)
    )  # through the `with` blocks: emulators end, folders vanish
    try:
        sys.exit(cli(standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        _fail("interrupted", INTERRUPTED)
    except SystemExit:
        raise
    except BaseException as error:  # an extension's panic is no Exception, and 1 would mean that a step differed
        if "--debug" in sys.argv[1:] or not isinstance(error, (QuantgruError, OSError, MemoryError)):
            traceback.print_exc()
            sys.exit(WRONG_INPUT)
        _fail(_one_line(error))


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    """Our own warnings in one line; those of libraries are for developers."""
    if issubclass(category, QuantgruWarning):
        click.echo(f"warning: {' '.join(str(message).split())}", err=True)


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError):
        return f"{error.filename or 'file system'}: {error.strerror or error}"
    if isinstance(error, MemoryError):
        return f"out of memory ({error}); give fewer sequences at a time"
    return " ".join(str(error).split())


def _fail(message: str, exit_code: int = WRONG_INPUT) -> None:
    click.echo(f"quantgru: {message}", err=True)
    sys.exit(exit_code)


if __name__ == "__main__":
    main()
