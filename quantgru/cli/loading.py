"""Options of the commands that read a float model."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

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


standardisation_option = click.option(
    "--standardisation",
    metavar="S.npz",
    help="Arrays mean and scale [features]: the model was trained on (x - mean) / scale.",
)

rounding_option = click.option(
    "--rounding",
    type=click.Choice(["compensated", "nearest"]),
    default="compensated",
    show_default=True,
    help="How weights become integers: so that errors make up for one another on X.npz, or each by itself.",
)

weight_bits_option = click.option(
    "--weight-bits",
    default="8",
    show_default=True,
    metavar="BITS",
    help="Bits of the weights' codes, 2 ... 16; others for layers, matrices, gates: 4,gru.U.n=8,dense=6",
)

refine_option = click.option(
    "--refine",
    type=int,
    default=0,
    show_default=True,
    metavar="ROUNDS",
    help="Then change codes, scales and biases so that errors over whole sequences make up for one another. 8 rounds "
    "often win 2 dB and more, in seconds to minutes.",
)

row_parameters_option = click.option(
    "--row-parameters",
    type=click.Choice(["exact", "short"]),
    default="exact",
    show_default=True,
    help="Scales and biases of rows: with 'short' the device keeps them in one byte and two, not three and four.",
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
