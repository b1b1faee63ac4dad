"""Where a board went wrong: sequence, step, layer, gate and unit of the first number that differs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from quantgru.errors import DeviceError
from quantgru.fixed import GATE, RESIDUAL, Format
from quantgru.hil.messages import Int16Array, Steps, Summary
from quantgru.hil.requests import ARRAY_NAMES, Reset, Step, Stepping
from quantgru.hil.session import Session
from quantgru.hil.ways import ByOutputs, Difference, Expected, Part, Way
from quantgru.int_model import IntGru, IntLayer, IntModel
from quantgru.structure import Reverse

_BY_OUTPUTS: Final = ByOutputs()


def parts_of(session: Session, way: Way, whole: Part) -> Iterator[Part]:
    """Cuts steps into as many as a request may ask for at that moment."""
    start, end = whole.start, whole.start + whole.n_steps
    while start < end:
        n_steps = min(session.most_steps(way.kind), end - start)
        yield Part(whole.sequence, start, n_steps)
        start += n_steps


def find_difference(
    session: Session, model: IntModel, way: Way, inputs: Int16Array, expected: Expected, found: tuple[Part, Difference]
) -> Difference:
    """Runs a sequence again, in which a part was found to be wrong, to the first wrong number of its first wrong step.

    If all is right now, what was found remains: the board does not compute the same each time. So it does, with the
    reason, if the board fails meanwhile.
    """
    part, difference = found
    try:
        if way.kind is not Step:
            _replay(session, way, inputs, part)
            for small, answer in _run(session, _BY_OUTPUTS, inputs, part):
                if difference.gate == "digest":  # no wrong step yet
                    difference = _BY_OUTPUTS.difference(answer, expected, small) or difference
        if difference.gate == "digest":
            return difference
        _replay(session, way, inputs, part)
        up_to = Part(part.sequence, part.start, difference.step - part.start + 1)
        *_, (_, last) = _run(session, _BY_OUTPUTS, inputs, up_to)
        assert isinstance(last, Steps)
        step = Part(part.sequence, difference.step, 1)
        return compare_step(session, model, last.outputs[-1], expected, step) or difference
    except DeviceError as error:
        return replace(difference, not_narrowed=str(error))


def _replay(session: Session, way: Way, inputs: Int16Array, part: Part) -> None:
    """From reset to the beginning of a part."""
    session.reset()
    for _ in _run(session, way, inputs, Part(part.sequence, 0, part.start)):
        pass


def _run(session: Session, way: Way, inputs: Int16Array, part: Part) -> Iterator[tuple[Part, Steps | Summary]]:
    sent: list[Part] = []

    def requests() -> Iterator[Stepping | Reset]:
        for small in parts_of(session, way, part):
            sent.append(small)
            yield way.request(inputs, small)

    for n, (_, answer) in enumerate(session.run(way.kind, requests())):
        yield sent[n], answer


def compare_step(
    session: Session, model: IntModel, outputs: Int16Array, expected: Expected, part: Part
) -> Difference | None:
    """The first number that differs of the step that the board has just run, in the order in which it computes them."""
    arrays, trace = session.read(), expected.trace(part.sequence, part.start)
    start = 0
    for layer in model.grus:
        units = slice(start, start + layer.n_units)
        for name in ARRAY_NAMES:
            found = first_wrong(arrays[name][units], getattr(trace, name)[units])
            if found is not None:
                format_ = str(_format(name, layer))
                before = _unread_before(model, layer) if name in "urn" else ()
                return Difference(part.sequence, part.start, layer.name, name, *found, format_, or_layers=before)
        start += layer.n_units
    found = first_wrong(outputs, trace.outputs)
    if found is None:
        return None
    output = Format(16, model.output_fraction_bits)
    last = model.layers[-1]
    before = _unread_before(model, last)
    return Difference(part.sequence, part.start, last.name, "output", *found, str(output), or_layers=before)


def _unread_before(model: IntModel, layer: IntLayer) -> tuple[str, ...]:
    """Layers between the last GRU layer before this one and it, whose numbers no board tells."""
    names: list[str] = []
    for before in model.layers[: model.layers.index(layer)]:
        if isinstance(before, IntGru):
            names.clear()
        elif not isinstance(before, Reverse):
            names.append(before.name)
    return tuple(names)


def _format(name: str, layer: IntGru) -> Format:
    """Of an array of a GRU layer, by its name on the wire."""
    state = layer.state_fraction_bits
    formats = {"u": GATE, "r": GATE, "n": Format(16, state), "h": Format(16, state)}
    # The residual goes on where h ends: R12 shifts by 15.
    return formats.get(name, Format(RESIDUAL.bits, state + 15, signed=False))


def first_wrong(board: npt.NDArray[np.integer], simulator: npt.NDArray[np.integer]) -> tuple[int, int, int] | None:
    """Unit, the board's value, the simulator's; None if all are equal."""
    differs = board.astype(np.int64) != simulator.astype(np.int64)
    if not differs.any():
        return None
    unit = int(differs.argmax())
    return unit, int(board[unit]), int(simulator[unit])
