"""A float model all the way to integers: quantized, then simulator == oracle == C library, with `==`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import oracle
from c_library import CModel, CSequenceModel, load_library
from conversions import to_oracle

from quantgru.int_model import IntModel
from quantgru.simulator import SimulationResult, run, run_check

# Digest, inputs and states of what was equal: the same integers need no second comparison.
_equal: set[tuple[bytes, ...]] = set()


def assert_integers_equal(model: IntModel, x: Any, **options: Any) -> None:
    """Each sequence of x: outputs, all gates and states of all steps, and check values; options are those of `run`."""
    result = run(model, x, trace=True, threads=1, **options)
    states = [np.asarray(state).tobytes() for state in options.get("initial_states") or ()]
    case = (model.digest, result.inputs_raw.tobytes(), result.sequences.lengths.tobytes(), *states)
    if case not in _equal:
        _assert_equal(model, result, options.get("initial_states"))
    _equal.add(case)


def _assert_equal(model: IntModel, result: SimulationResult, states: Sequence[np.ndarray] | None) -> None:
    spec, library = to_oracle(model), load_library("undefined")
    assert oracle.proved(spec), "the model proves P1 ... P3"
    c_model = CModel(library, model) if model.streaming else CSequenceModel(library, model, result.inputs_raw.shape[1])
    for i, length in enumerate(result.sequences.lengths.tolist()):
        inputs = result.inputs_raw[i, :length].tolist()
        start = _start(model, spec, states, i)
        expected = oracle.run_sequence(spec, inputs, start)
        _assert_simulated(result, i, _in_reading_order(spec, expected))
        if isinstance(c_model, CSequenceModel):
            given = None if states is None else start.h
            assert c_model.run(inputs, given) == (0, expected.outputs), "C, a whole run"
        else:
            _assert_stepped(c_model, spec, inputs[::-1] if model.reversed_input else inputs, start, expected)
    inputs, check = model.selftest.inputs.tolist(), model.selftest.check
    if isinstance(c_model, CSequenceModel):
        assert c_model.selftest(inputs, check) == 0, "C, self-test"
    else:
        assert c_model.run(inputs)[-1].check == check, "C, check value of the self-test"
    assert model.digest.hex() == oracle.digest(spec), "digest"


def _start(model: IntModel, spec: oracle.Model, given: Sequence[np.ndarray] | None, sequence: int) -> oracle.State:
    """The state before the first step, as the oracle rounds it."""
    start = oracle.reset(spec)
    if given is None:
        return start
    rows = [h[sequence] if np.ndim(h) == 2 else h for h in given]
    bits = [gru.state_fraction_bits for gru in model.grus]
    h = tuple(tuple(oracle.convert_input(v, f) for v in row.tolist()) for row, f in zip(rows, bits, strict=True))
    return oracle.State(h, start.e)


def _in_reading_order(spec: oracle.Model, run: oracle.Run) -> oracle.Run:
    """With the steps of backward layers as the simulator has them: the last step of the sequence first."""
    backward: list[bool] = []
    for layer in spec.layers:
        backward += [False, True] if isinstance(layer, oracle.Bidirectional) else [False] * len(oracle.grus_of(layer))
    traces = [steps[::-1] if turned else steps for steps, turned in zip(run.traces, backward, strict=True)]
    return replace(run, traces=tuple(traces))


def _assert_simulated(result: SimulationResult, i: int, expected: oracle.Run) -> None:
    length = int(result.sequences.lengths[i])
    outputs = result.outputs_raw[i][None] if result.model.last_step else result.outputs_raw[i, :length]
    assert _tuples(outputs) == expected.outputs, "simulator, outputs"
    assert run_check(result, i) == expected.check, "simulator, check value"
    for name, states in (("h", expected.state.h), ("residual", expected.state.e)):
        found = tuple(tuple(getattr(state, name)[i].tolist()) for state in result.final_states)
        assert found == states, f"simulator, final {name}"
    assert result.trace is not None
    for layer, steps in zip(result.trace.layers, expected.traces, strict=True):
        for name in ("h", "residual", "u", "r", "n"):
            expected_rows = tuple(getattr(step, "e" if name == "residual" else name) for step in steps)
            assert _tuples(getattr(layer, name)[i, :length]) == expected_rows, f"simulator, {name}"


def _assert_stepped(
    c_model: CModel, spec: oracle.Model, inputs: list[list[int]], start: oracle.State, expected: oracle.Run
) -> None:
    """Step by step, which must be the same as layer by layer."""
    steps = oracle.run(spec, inputs, start)
    outputs = tuple(step.outputs for step in steps)
    assert (outputs[-1:] if spec.last_step else outputs) == expected.outputs, "oracle, step by step"
    c_model.reset()
    c_model.h[:] = [v for layer in start.h for v in layer]
    check = 0
    for t, (x, step) in enumerate(zip(inputs, steps, strict=True)):
        assert c_model.step(x, check) == step, f"C, step {t}"
        check = step.check


def _tuples(rows: np.ndarray) -> tuple[tuple[int, ...], ...]:
    return tuple(map(tuple, rows.tolist()))
