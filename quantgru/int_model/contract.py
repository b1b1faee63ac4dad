"""The version of the numeric contract, and the numbers that it gives to functions."""

from __future__ import annotations

from typing import Final

from quantgru.activations import Candidate, DenseActivation, GateFunction, Merge, Reset

SPEC_MAJOR: Final = 1
SPEC_MINOR: Final = 2

# Enumerators [R17].
RESET_NUMBERS: Final[dict[Reset, int]] = {"after": 0, "before": 1}
GATE_NUMBERS: Final[dict[GateFunction, int]] = {"sigmoid": 0, "hard_sigmoid": 1}
CANDIDATE_NUMBERS: Final[dict[Candidate, int]] = {"tanh": 0, "relu": 1, "linear": 2, "sigmoid": 3, "hard_tanh": 4}
ACTIVATION_NUMBERS: Final[dict[DenseActivation, int]] = {"linear": 0, "relu": 1, "sigmoid": 2, "tanh": 3}
MERGE_NUMBERS: Final[dict[Merge, int]] = {"concat": 0, "sum": 1, "mul": 2, "ave": 3}

MAX_LEFT_SHIFT: Final = 15
MAX_TOKENS: Final = 2**15
