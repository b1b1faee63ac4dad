"""What a user can say about a source that the source does not say itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal, get_args

from quantgru.activations import Reset
from quantgru.errors import ConfigError

Softmax = Literal["refuse", "logits"]


@dataclass(frozen=True)
class ImportOptions:
    """softmax     "logits" leaves a softmax at the very end out (the largest output stays the largest)
    reset       where the reset gate acts, if the source is known to say it wrongly
    chain       the modules of a file that holds weights only, in the order in which they run: "gru last fc1 relu fc2"
    convention  the meaning of plain arrays: a name of `conventions.CONVENTIONS`
    """

    softmax: Softmax = "refuse"
    reset: Reset | None = None
    chain: str | None = None
    convention: str | None = None

    def __post_init__(self) -> None:
        if self.softmax not in get_args(Softmax):
            raise ConfigError(f"load: softmax={self.softmax!r}, allowed are 'refuse' and 'logits'")
        if self.reset not in (None, *get_args(Reset)):
            raise ConfigError(f"load: reset={self.reset!r}, allowed are 'after' and 'before'")

    def require_only(self, where: str, allowed: tuple[str, ...]) -> None:
        """Raises ConfigError where an option is given that a source of this kind does not have."""
        for option in fields(self):
            value = getattr(self, option.name)
            if value != option.default and option.name not in allowed:
                takes = ", ".join(allowed) or "none"
                raise ConfigError(
                    f"{where}: option {option.name}={value!r} has no meaning here; this source takes: {takes}"
                )


def chain_text(chain: str | Sequence[str] | None) -> str | None:
    """One text of words, of which a list or tuple is taken, too. Raises ConfigError."""
    if chain is None or isinstance(chain, str):
        return chain
    if not isinstance(chain, (list, tuple)) or not all(isinstance(word, str) for word in chain):
        raise ConfigError(f"load: chain={chain!r}, expected one text of words, or a list of them")
    return " ".join(chain)
