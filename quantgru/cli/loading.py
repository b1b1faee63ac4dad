"""Options that commands share: of those that read a float model, and of those that export."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from quantgru.model import FloatModel

_OPTIONS = (
    click.option(
        "--softmax",
        type=click.Choice(["refuse", "logits"]),
        default="refuse",
        show_default=True,
        help="What to do with a softmax at the end: 'logits' leaves it out, the largest entry stays the same.",
    ),
    click.option(
        "--reset",
        type=click.Choice(["after", "before"]),
        help="Where the reset gate acts, whatever an ONNX file says: after or before the product.",
    ),
    click.option(
        "--chain",
        metavar="TEXT",
        help="The modules of a file that holds weights only, as they run: 'gru last fc1 relu fc2'.",
    ),
    click.option("--convention", metavar="NAME", help="What arrays of an .npz mean; `quantgru formats` lists them."),
)


def loading_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that `load_model` takes."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


LOADING_NAMES: Final = [str(option.name) for option in click.command()(loading_options(lambda **_: None)).params]

standardisation_option = click.option(
    "--standardisation",
    metavar="S.npz",
    help="Arrays mean and scale [features]: the model was trained on (x - mean) / scale.",
)

packing_option = click.option(
    "--packing",
    type=click.Choice(["auto", "never", "always"]),
    default="auto",
    show_default=True,
    help="Codes of weights: 'never' gives each a byte, or two above 8 bits, for speed; 'always' as few bits as it has, "
    "for size; 'auto' packs where that saves flash on every target.",
)


core_option = click.option(
    "--core",
    type=click.Choice("any avr cortex-m0 cortex-m3 cortex-m4 cortex-m7 cortex-m33 cortex-m55 rv32imc rv32ec".split()),
    default="any",
    show_default=True,
    help="Sizes on this core; 'any' is the most on any of them.",
)


def load_standardisation(path: str | None) -> dict[str, Any]:
    """The arguments mean and scale of a file; none without one."""
    from quantgru.sequences import load_vectors

    names = ["mean", "scale"]
    return {} if path is None else dict(zip(names, load_vectors(path, names, "standardisation"), strict=True))


def load_model(path: str, options: dict[str, Any]) -> FloatModel:
    """The float model of a file; options as `loading_options` gives them."""
    from quantgru.importers import load

    return load(path, **options)
