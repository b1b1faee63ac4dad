"""A model on a board, held against the simulator: the parts for it, which know nothing of each other, joined."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from quantgru.errors import ConfigError, ModelError
from quantgru.exporter import export
from quantgru.hil.boards import find_board
from quantgru.hil.compare import Comparison, Difference, Expected, StepTrace, compare
from quantgru.hil.images import Image, build, launch
from quantgru.hil.messages import ARRAY_NAMES
from quantgru.hil.session import Patience, Session
from quantgru.hil.timer import StepCost, Timer, board_timer, step_cost
from quantgru.hil.transport import SerialTransport
from quantgru.int_model import IntModel, require_int_model
from quantgru.sequences import Sequences, SequencesLike, as_sequences, with_token_axis, without_masked
from quantgru.signals import reverse_steps
from quantgru.simulator import Trace, check_values, run

_CHUNK = 64  # sequences that are traced at a time


@dataclass(frozen=True, eq=False)
class BoardResult:
    """How a run on a board ended.

    target            what the board calls itself
    steps             steps that were compared; the last one differs if `first_difference` is not None
    total_steps       steps that were asked for
    first_difference  the first number that differs: sequence, step, layer, gate, unit, both values, format
    step_cost         cycles, instructions or time of the recurrent part of a step; None for a board without a timer
    flash_bytes       of the whole test firmware, code and constants; None for a board that its user flashed
    ram_bytes         static RAM of the whole test firmware; None for a board that its user flashed
    """

    target: str
    steps: int
    total_steps: int
    first_difference: Difference | None
    step_cost: StepCost | None
    flash_bytes: int | None
    ram_bytes: int | None

    @property
    def equal(self) -> bool:
        """Whether all steps that were asked for were compared, at least one, and each was equal."""
        return self.first_difference is None and self.steps == self.total_steps > 0

    def to_json(self) -> dict[str, Any]:
        """The result as JSON values."""
        cost, difference = self.step_cost, self.first_difference
        return {
            "target": self.target,
            "equal": self.equal,
            "steps": self.steps,
            "total_steps": self.total_steps,
            "first_difference": None if difference is None else vars(difference),
            "step_cost": None if cost is None else vars(cost),
            "flash_bytes": self.flash_bytes,
            "ram_bytes": self.ram_bytes,
        }


def run_on_board(
    model: IntModel,
    x: SequencesLike | Sequences,
    *,
    board: str | None = None,
    port: str | os.PathLike[str] | None = None,
    timeout_s: float | None = None,
    progress: Callable[[int], None] = lambda steps: None,
) -> BoardResult:
    """Runs x [sequences, steps, inputs] on a board and compares every step with the simulator.

    board     a name from `quantgru boards`: the test firmware is built and started here
    port      anything that pyserial opens, with a board that runs the test firmware with this model
    timeout_s how long one answer may take; 4 s for the first and 7.5 s for the others if None, more for a slow board
    progress  called with the number of steps compared since its last call

    Every step's outputs are compared, and the CRC-32 of its whole state; where one differs, all gates of that step are
    read back. Raises DataError, ModelError for what is not an IntModel, ConfigError for an unknown board or a missing
    tool, DeviceError for a board that is silent, answers garbage, holds another model or dies.
    """
    _check_arguments(model, board, port)
    patience = _patience(timeout_s)
    given = x if model.embedding is None else with_token_axis(x)
    sequences = without_masked(as_sequences(given, n_features=model.n_inputs), mask_value=model.mask_value)
    place = _running(model, board) if board is not None else _connected(os.fspath(port or ""))
    with place as (url, image, timer), SerialTransport(url) as transport:
        session = Session(transport, patience)
        description = session.open(model)  # first: what is wrong with a board is said before the long simulation
        inputs, expected = _expectation(model, sequences)
        comparison = compare(session, model, inputs, expected, progress)
    return _result(description.target, comparison, sequences, image, timer or board_timer(description))


def _check_arguments(model: IntModel, board: object, port: object) -> None:
    require_int_model(model, "run on a board")
    if not model.streaming:
        raise ModelError(
            f"run on a board: model {model.name!r} has layers that need the whole sequence, and the test firmware runs "
            "step by step; quantgru simulate computes what NAME_run of the exported code gives"
        )
    if (board is None) == (port is None):
        raise ConfigError("run on a board: give either a board, by name, or a port")
    if port is not None and not isinstance(port, (str, os.PathLike)):
        raise ConfigError(f"run on a board: port {port!r}, expected a path or a URL, as pyserial opens it")


def _patience(timeout_s: float | None) -> Patience:
    if timeout_s is None:
        return Patience()
    if not 0 < timeout_s < float("inf"):
        raise ConfigError(f"run on a board: timeout of {timeout_s} s, expected a positive number of seconds")
    return Patience.of(timeout_s)


@contextmanager
def _running(model: IntModel, board: str) -> Iterator[tuple[str, Image | None, Timer | None]]:
    """Builds and starts a board: its port, its image, and what its ticks are worth."""
    description = find_board(board)
    description.require_tools()
    with tempfile.TemporaryDirectory(prefix="quantgru-") as folder:
        source = Path(folder) / "export"
        export(model, source, "model")
        image = build(description, source, Path(folder) / "build")
        with launch(description, image) as url:
            yield url, image, description.timer


@contextmanager
def _connected(port: str) -> Iterator[tuple[str, Image | None, Timer | None]]:
    yield port, None, None


def _expectation(model: IntModel, sequences: Sequences) -> tuple[list[Any], Expected]:
    """Raw inputs of each sequence, in the order in which the board gets them, and what the simulator computes."""
    inputs: list[Any] = []
    outputs: list[Any] = []
    checks: list[Any] = []
    for start in range(0, sequences.n_sequences, _CHUNK):
        chunk = slice(start, start + _CHUNK)
        part = Sequences(sequences.values[chunk], sequences.lengths[chunk])
        result = run(model, part, trace=True)
        assert result.trace is not None
        check = check_values(result.trace, part)
        raw = reverse_steps(result.inputs_raw, part.lengths) if model.reversed_input else result.inputs_raw
        for i, length in enumerate(part.lengths):
            inputs.append(raw[i, :length])
            outputs.append(result.trace.outputs[i, :length])
            checks.append(check[i, :length])

    def trace(sequence: int, step: int) -> StepTrace:
        steps = inputs[sequence][: step + 1]
        one = run(model, steps[None, :: -1 if model.reversed_input else 1], raw_input=True, trace=True).trace
        assert one is not None
        return _step_trace(one, step)

    return inputs, Expected(outputs, checks, trace)


def _step_trace(trace: Trace, step: int) -> StepTrace:
    def of_all_layers(name: str) -> Any:
        return np.concatenate([getattr(layer, name)[0, step] for layer in trace.layers])

    arrays = {name: of_all_layers(name) for name in ARRAY_NAMES}
    return StepTrace(**arrays, outputs=trace.outputs[0, step])


def _result(
    target: str, comparison: Comparison, sequences: Sequences, image: Image | None, timer: Timer | None
) -> BoardResult:
    return BoardResult(
        target,
        comparison.steps,
        sequences.n_steps,
        comparison.first_difference,
        None if timer is None else step_cost(comparison.ticks, timer),
        None if image is None else image.flash_bytes,
        None if image is None else image.ram_bytes,
    )
