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
WITHOUT_NODES: Final = (  # ONNX without GRU nodes; not in the tables
    "onnx/keras_torch_reset_*.onnx",
    "onnx/keras_tensorflow_[!m]*.onnx",
    "onnx/tensorflow1_dynamic.onnx",
)
FOLDED: Final[dict[str, str]] = {  # into weights
    "keras2_around.h5": "normalisation",
    "keras2_masked_normalization.h5": "normalisation",
    "static_normalisation.pb": "normalisation",
}
GIVEN: Final[dict[str, str]] = {  # what a record has beside x and y
    "h0": "given initial state",
    "y_next": "streaming",
    "lengths": "lengths as an input",
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
        x, y = self.record["x"], self.record["y"]
        x = x[..., None] if x.ndim == 2 else x
        if "y_next" in self.record:  # called again with the same sequences
            x, y = np.concatenate((x, x), axis=1), np.concatenate((y, self.record["y_next"]), axis=1)
        if "lengths" in self.record:
            x, y = self._cut(x), self._cut(y) if y.ndim == 3 else y
        h0 = self.record.get("h0")  # [sequences, units], or with an axis of layers first
        states = {} if h0 is None else {"initial_states": [h0] if h0.ndim == 2 else list(h0)}
        return Made((self.path,), x, y, run_options=states, goes_on="y_next" in self.record)

    def _cut(self, rows: np.ndarray) -> list[np.ndarray]:
        """The steps that a sequence has."""
        return [steps[:length] for steps, length in zip(rows, self.record["lengths"], strict=True)]


def fixtures(patterns: Sequence[str]) -> list[Fixture]:
    paths = [path for pattern in patterns for path in sorted(MODELS.glob(pattern))]
    with_record = [(path, path.parent / f"{path.name.split('.')[0]}.npz") for path in paths]
    return [Fixture(path, dict(np.load(record))) for path, record in with_record]


def functions_of(gru: Gru) -> Functions:
    """What an imported layer computes. Two biases show with reset "after" alone, where they are not added up."""
    biased = gru.bias.any() or gru.recurrent_bias.any()
    bias = {"after": "two", "before": "one"}[gru.reset] if biased else "no"
    return Functions(gru.gate, gru.candidate, gru.reset, bias)


def prefixes(made: Made) -> Made:
    """The same sequences, cut to unequal lengths: a layer without a look at later steps gives the same until there."""
    lengths = [max(1, len(rows) - i) for i, rows in enumerate(made.x)]
    x = [rows[:length] for rows, length in zip(made.x, lengths, strict=True)]
    y: Any = [rows[:length] for rows, length in zip(made.expected, lengths, strict=True)]
    return Made(made.forms, x, y)
