"""How the errors of this importer are worded: names out of a file cut to one line, and one next step that can help."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from quantgru.errors import ModelError
from quantgru.importers.chain import SUPPORTED

SMALLER: Final = "let it take any number of sequences (None) or 1, and any number of steps"
NOTHING_LEFT: Final = (
    "nothing is left of the input: a slice may leave out all steps, of which some graphs have few",
    "leave the slice out, and slice the outputs of the import",
)
WITHOUT_IT: Final = "build the graph for inference without it, restore the checkpoint into that, and freeze it"


def refused(where: object, found: str, next_step: str = SUPPORTED) -> ModelError:
    """The error for what cannot be imported: where it is, what was found, and what is supported or helps."""
    return ModelError(f"{where}: {found}; {next_step}")


def short(text: str) -> str:
    """A name out of a file, fit for a message of one line."""
    return repr(text if len(text) <= 60 else f"{text[:30]}...{text[-27:]}")


def listed(names: Iterable[str], at_most: int = 4) -> str:
    names = list(names)
    more = f" and {len(names) - at_most} more" if len(names) > at_most else ""
    return ", ".join(map(short, names[:at_most])) + more
