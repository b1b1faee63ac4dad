"""Files of frameworks that do not run beside the tests, with the outputs recorded when they were written.

What a file shows is read off its import, whose outputs are compared with the record: its structures and functions. What
an import no longer shows is said here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from support_cases import Functions, Made

from quantgru.model import Gru

MODELS: Final = Path(__file__).resolve().parent / "models"

FILES: Final[dict[str, tuple[str, ...]]] = {
    "Keras 2": ("keras2/*.h5", "structures/keras2_*.h5"),
    ".pb": ("tensorflow1/[!r]*.pb", "structures/[!r]*.pb"),
}
KERAS_TO_ONNX: Final = ("onnx/keras_torch_reset_*.onnx",)  # without GRU nodes; not in the tables
FOLDED: Final[dict[str, str]] = {  # into weights
    "keras2_around.h5": "normalisation",
    "static_normalisation.pb": "normalisation",
}
GIVEN: Final[dict[str, str]] = {"h0": "given initial state", "y_next": "streaming"}  # what a record has beside x and y

# What such files must not be loaded with, by source and structure: a file, and what the error names.
REFUSED: Final[dict[tuple[str, str], tuple[str, str]]] = {
    ("Keras 2", "constant initial state"): ("structures/refused_constant_state.h5", "initial_state"),
    (".pb", "bidirectional, sum"): ("structures/static_sum.pb", "node 'add"),
    (".pb", "bidirectional, mul"): ("structures/static_mul.pb", "node 'mul"),
    (".pb", "bidirectional, ave"): ("structures/static_ave.pb", "node 'truediv"),
    (".pb", "given initial state"): ("structures/refused_static_given_state.pb", "2 inputs: 'samples', 'state'"),
    (".pb", "lengths as an input"): ("structures/refused_dynamic_lengths.pb", "2 inputs: 'samples', 'lengths'"),
}


@dataclass(frozen=True)
class Fixture:
    path: Path
    record: Mapping[str, np.ndarray]

    @property
    def structures(self) -> Iterator[str]:
        """Those that only the record, or this module, knows of."""
        if self.path.name in FOLDED:
            yield FOLDED[self.path.name]
        for name, structure in GIVEN.items():
            if name in self.record:
                yield structure

    def made(self) -> Made:
        x = self.record["x"]
        states = {"initial_states": [self.record["h0"]]} if "h0" in self.record else {}
        x, y = x[..., None] if x.ndim == 2 else x, self.record["y"]
        if "y_next" in self.record:  # called again with the same sequences
            x, y = np.concatenate((x, x), axis=1), np.concatenate((y, self.record["y_next"]), axis=1)
        return Made((self.path,), x, y, run_options=states, goes_on="y_next" in self.record)


def fixtures(patterns: Sequence[str]) -> list[Fixture]:
    paths = [path for pattern in patterns for path in sorted(MODELS.glob(pattern))]
    with_record = [(path, path.parent / f"{path.name.split('.')[0]}.npz") for path in paths]
    return [Fixture(path, dict(np.load(record))) for path, record in with_record if path not in _refused()]


def _refused() -> set[Path]:
    return {MODELS / name for name, _ in REFUSED.values()}


def functions_of(gru: Gru) -> Functions:
    """What an imported layer computes. Two biases show with reset "after" alone, where they are not added up."""
    biased = gru.bias.any() or gru.recurrent_bias.any()
    bias = {"after": "two", "before": "one"}[gru.reset] if biased else "no"
    return Functions(gru.gate, gru.candidate, gru.reset, bias)


def prefixes(made: Made) -> Made:
    """The same sequences, cut to unequal lengths: a layer without a look at later steps gives the same until there."""
    lengths = [len(rows) - i for i, rows in enumerate(made.x)]
    x = [rows[:length] for rows, length in zip(made.x, lengths, strict=True)]
    y: Any = [rows[:length] for rows, length in zip(made.expected, lengths, strict=True)]
    return Made(made.forms, x, y)
