"""Entry point: the commands, and how errors leave the program."""

from __future__ import annotations

import sys

import click

from quantgru import __version__
from quantgru.cli.boards import boards
from quantgru.cli.demo import demo
from quantgru.cli.export import export
from quantgru.cli.hil import hil
from quantgru.cli.inspect import inspect
from quantgru.cli.quantize import quantize
from quantgru.cli.simulate import simulate
from quantgru.errors import QuantgruError

WRONG_INPUT = 2


class _Commands(click.Group):
    """Lists commands in the order of work, not of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="quantgru")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Gated recurrent networks in fixed point on microcontrollers.

    \b
    From a trained model to a board:
      quantgru quantize gesture.keras --calibration train.npz -o gesture.qgru
      quantgru simulate gesture.qgru --input test.npz -o outputs.npz
      quantgru export gesture.qgru -o firmware/gesture
      quantgru hil gesture.qgru --input test.npz --port /dev/ttyACM0

    Input files are .npz with an array x [sequences, steps, features], and optional arrays lengths and labels.
    """


for command in (demo, quantize, inspect, simulate, export, hil, boards):
    cli.add_command(command)


def main() -> None:
    """Runs the command line. Wrong input ends with one line on stderr and exit code 2."""
    debug = "--debug" in sys.argv[1:]
    try:
        cli(standalone_mode=True)
    except QuantgruError as error:
        if debug:
            raise
        _fail(" ".join(str(error).split()))
    except OSError as error:
        if debug:
            raise
        _fail(f"{error.filename or 'file system'}: {error.strerror or error}")


def _fail(message: str) -> None:
    click.echo(f"quantgru: {message}", err=True)
    sys.exit(WRONG_INPUT)


if __name__ == "__main__":
    main()
