"""Ways to hold steps against the simulator: by every output, by every state, or by digests of many steps.

A way knows which requests run a part of a sequence, and whether their answer is right.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import numpy as np
import numpy.typing as npt

from quantgru.hil.generator import Generator
from quantgru.hil.messages import Int16Array, Steps, Summary, Uint32Array
from quantgru.hil.requests import Digest, Seed, Step, Stepping


@dataclass(frozen=True, eq=False)
class StepTrace:
    """All that one step computes: u, r, n, h and residual of all layers one after the other, and the outputs."""

    u: npt.NDArray[np.uint16]
    r: npt.NDArray[np.uint16]
    n: Int16Array
    h: Int16Array
    residual: npt.NDArray[np.uint16]
    outputs: Int16Array


@dataclass(frozen=True, eq=False)
class Expected:
    """What the simulator computes: of each sequence outputs int16 [steps, outputs] and check values uint32 [steps], not
    running on but each of its step alone [R16]; and all of one step, on request. `first` is the number of the first of
    these sequences among all that are compared."""

    outputs: Sequence[Int16Array]
    checks: Sequence[Uint32Array]
    trace: Callable[[int, int], StepTrace]  # (sequence, step)
    first: int = 0

    def outputs_of(self, part: Part) -> Int16Array:
        """int16 [steps, outputs]"""
        return self.outputs[part.sequence - self.first][part.steps]

    def checks_of(self, part: Part) -> Uint32Array:
        """uint32 [steps]"""
        return self.checks[part.sequence - self.first][part.steps]


@dataclass(frozen=True)
class Part:
    """Steps start ... start + n_steps - 1 of a sequence."""

    sequence: int
    start: int
    n_steps: int

    @property
    def steps(self) -> slice:
        return slice(self.start, self.start + self.n_steps)


Gate = Literal["u", "r", "n", "h", "residual", "output", "check value", "digest", "run"]


@dataclass(frozen=True)
class Difference:
    """The first number that differs. Without a layer it is not known more exactly: the board failed while the steps
    were run again, which `not_narrowed` tells, or they were right then. A digest is that of n_steps, from `step` on,
    and so is the check value of a whole run, gate "run". A board tells what GRU layers and outputs are, and nothing of
    layers without a state in front of them: those of `or_layers` may be what is wrong."""

    sequence: int
    step: int
    layer: str
    gate: Gate
    unit: int
    board: int
    simulator: int
    format: str  # of the values, e.g. "u16f15"
    n_steps: int = 1
    not_narrowed: str | None = None
    or_layers: tuple[str, ...] = ()

    def __str__(self) -> str:
        steps = f"step {self.step}" if self.n_steps == 1 else f"steps {self.step} ... {self.step + self.n_steps - 1}"
        where = f"sequence {self.sequence}, {steps}"
        values = f"board {self.board}, simulator {self.simulator}"
        if self.layer:
            before = "".join(f" or {name}" for name in self.or_layers)
            layer = f"layer {self.layer}" + (f" (wrong itself, or reads what is:{before[3:]})" if before else "")
            return f"{where}, {layer}, {self.gate} of unit {self.unit}: {values} ({self.format})"
        if self.gate == "output":
            return f"{where}: output of unit {self.unit}: {values}; {self._why_no_more()}"
        what = "check value of the run" if self.gate == "run" else self.gate
        return f"{where}: {what} {self.board:#010x}, simulator {self.simulator:#010x}; {self._why_no_more()}"

    def _why_no_more(self) -> str:
        if self.not_narrowed is not None:
            return f"not narrowed down: {self.not_narrowed}"
        right = "its outputs are right" if self.gate == "run" else "run again, all was right"
        return f"{right}: the board does not compute the same each time"


class Way(Protocol):
    """How parts of sequences are run and judged."""

    @property
    def kind(self) -> type[Stepping]: ...

    def request(self, inputs: Int16Array, part: Part) -> Stepping:
        """Runs a part of a sequence whose raw inputs are [steps, inputs]."""

    def difference(self, answer: Steps | Summary, expected: Expected, part: Part) -> Difference | None:
        """Where the answer is wrong, as far as it tells: its first wrong step, or the first step of the part."""


class ByOutputs:
    """Every step's outputs come back, with the check value of its state."""

    kind: ClassVar[type[Step]] = Step

    def request(self, inputs: Int16Array, part: Part) -> Step:
        return Step(inputs[part.steps])

    def difference(self, answer: Steps | Summary, expected: Expected, part: Part) -> Difference | None:
        assert isinstance(answer, Steps)
        checks, outputs = expected.checks_of(part), expected.outputs_of(part)
        wrong_check, wrong_outputs = answer.checks != checks, answer.outputs != outputs
        wrong = wrong_check | wrong_outputs.any(axis=1)
        if not wrong.any():
            return None
        step = int(wrong.argmax())
        at = part.start + step
        if wrong_check[step]:
            values = int(answer.checks[step]), int(checks[step])
            return Difference(part.sequence, at, "", "check value", 0, *values, "u32")
        unit = int(wrong_outputs[step].argmax())
        values = int(answer.outputs[step, unit]), int(outputs[step, unit])
        return Difference(part.sequence, at, "", "output", unit, *values, "s16")


class ByDigests:
    """One number comes back for each request: a long run costs only the way of its inputs to the board."""

    kind: ClassVar[type[Digest]] = Digest

    def request(self, inputs: Int16Array, part: Part) -> Digest:
        return Digest(inputs[part.steps])

    def difference(self, answer: Steps | Summary, expected: Expected, part: Part) -> Difference | None:
        return _digest_difference(answer, expected, part)


@dataclass(frozen=True)
class BySeeds:
    """As ByDigests, on inputs that the board generates, too: one generator for each sequence."""

    generators: Sequence[Generator]
    kind: ClassVar[type[Seed]] = Seed

    def request(self, inputs: Int16Array, part: Part) -> Seed:
        return Seed(part.n_steps, self.generators[part.sequence], part.start * inputs.shape[1])

    def difference(self, answer: Steps | Summary, expected: Expected, part: Part) -> Difference | None:
        return _digest_difference(answer, expected, part)


def _digest_difference(answer: Steps | Summary, expected: Expected, part: Part) -> Difference | None:
    assert isinstance(answer, Summary)
    digest = zlib.crc32(expected.checks_of(part).astype("<u4").tobytes())
    if answer.digest == digest:
        return None
    return Difference(part.sequence, part.start, "", "digest", 0, answer.digest, digest, "u32", part.n_steps)
