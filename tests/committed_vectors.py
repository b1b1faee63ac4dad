"""The vectors in tests/vectors: how they are written, and how they are read back. See tools/make_vectors.py."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import oracle
from conversions import ACTIVATIONS, CANDIDATES, GATES, MERGES, RESETS, from_oracle

from quantgru.int_model import IntModel

VECTORS = Path(__file__).resolve().parent / "vectors"


@dataclass(frozen=True)
class ModelVector:
    """One committed model with inputs and all that it must compute.

    inputs    raw, [steps][inputs]; of a streaming model in the order in which it is fed
    steps     of a streaming model: of each step the state (h, e) and u, r, n, indexed [layer][unit]; outputs; the
              running check value. Of any other model: empty
    run       of a model that needs the whole sequence: the outputs, the traces and the check value. Else None
    digest    hexadecimal
    """

    name: str
    model: oracle.Model
    int_model: IntModel
    inputs: list[list[int]]
    steps: list[oracle.Step]
    run: oracle.Run | None
    digest: str


def load_function_vectors() -> list[dict]:
    """Returns, for each function of the contract: rule, function, names of arguments, and [arguments, result] pairs."""
    return json.loads((VECTORS / "functions.json").read_text(encoding="utf-8"))


def load_model_vectors() -> list[ModelVector]:
    """Returns the committed models with their inputs and expected values."""
    return [_read_model_vector(path) for path in sorted(VECTORS.glob("model_*.json"))]


# ---- writing ------------------------------------------------------------------------------------------------------


def model_vector(name: str, model: oracle.Model, inputs: Sequence[Sequence[int]]) -> dict[str, Any]:
    """One model, and what the oracle computes for these inputs."""
    vector = {
        "name": name,
        "digest": oracle.digest(model),
        "model": {
            "input_fractions": model.input_fractions,
            "last_step": model.last_step,
            "layers": [_write_layer(layer) for layer in model.layers],
        },
    }
    if oracle.streaming(model):
        steps = zip(inputs, oracle.run(model, inputs), strict=True)
        return vector | {"steps": [_write_step(x, step) for x, step in steps]}
    run = oracle.run_sequence(model, inputs)
    traces = [[step._asdict() for step in trace] for trace in run.traces]
    return vector | {"x": inputs, "outputs": run.outputs, "check": run.check, "gru": traces}


def _write_step(x: Sequence[int], step: oracle.Step) -> dict[str, Any]:
    gates = {"u": step.u, "r": step.r, "n": step.n}
    return {"x": x, **vars(step.state), **gates, "outputs": step.outputs, "check": step.check}


def _write_layer(layer: oracle.Layer) -> dict[str, Any]:
    if isinstance(layer, oracle.Gru):
        return {"kind": "gru", **_write_gru(layer)}
    if isinstance(layer, oracle.Bidirectional):
        parts = {"forward": _write_gru(layer.forward), "backward": _write_gru(layer.backward)}
        return {"kind": "bidirectional", "merge": MERGES[layer.merge], "final": layer.final, **parts}
    if isinstance(layer, oracle.Reverse):
        return {"kind": "reverse"}
    if isinstance(layer, oracle.Embedding):
        return {"kind": "embedding", "codes": layer.codes}
    numbers = {"f_out": layer.f_out, "matrix": vars(layer.matrix), "b": layer.b}
    return {"kind": "dense", "activation": ACTIVATIONS[layer.activation], **numbers}


def _write_gru(layer: oracle.Gru) -> dict[str, Any]:
    return {
        "reset": RESETS[layer.reset],
        "gate": GATES[layer.gate],
        "candidate": CANDIDATES[layer.candidate],
        "f_h": layer.f_h,
        "W": vars(layer.w),
        "U": vars(layer.u),
        "b": layer.b,
        "c": layer.c,
        "h0": layer.h0,
    }


# ---- reading ------------------------------------------------------------------------------------------------------


def _read_model_vector(path: Path) -> ModelVector:
    content = json.loads(path.read_text(encoding="utf-8"))
    layers = tuple(_read_layer(layer) for layer in content["model"]["layers"])
    model = oracle.Model(tuple(content["model"]["input_fractions"]), content["model"]["last_step"], layers)
    steps, run = content.get("steps", []), None
    if not steps:
        traces = tuple(tuple(_read_gru_step(step) for step in trace) for trace in content["gru"])
        ends = _ends(model, traces)
        final = oracle.State(tuple(end.h for end in ends), tuple(end.e for end in ends))
        run = oracle.Run(_tuples(content["outputs"]), content["check"], final, traces)
    return ModelVector(
        content["name"],
        model,
        from_oracle(model, content["name"]),
        [step["x"] for step in steps] or content["x"],
        [_read_step(step) for step in steps],
        run,
        content["digest"],
    )


def _ends(model: oracle.Model, traces: Sequence[Sequence[oracle.GruStep]]) -> list[oracle.GruStep]:
    """What each GRU layer computed last: of a backward layer, that is x_0."""
    backward = [
        i > 0 and isinstance(layer, oracle.Bidirectional)
        for layer in model.layers
        for i in range(len(oracle.grus_of(layer)))
    ]
    return [trace[0 if is_backward else -1] for trace, is_backward in zip(traces, backward, strict=True)]


def _read_step(step: dict) -> oracle.Step:
    state = oracle.State(_tuples(step["h"]), _tuples(step["e"]))
    u, r, n = _tuples(step["u"]), _tuples(step["r"]), _tuples(step["n"])
    return oracle.Step(state, u, r, n, tuple(step["outputs"]), step["check"])


def _read_gru_step(step: dict) -> oracle.GruStep:
    return oracle.GruStep(*(tuple(step[name]) for name in oracle.GruStep._fields))


def _read_layer(content: dict) -> oracle.Layer:
    match content["kind"]:
        case "gru":
            return _read_gru(content)
        case "bidirectional":
            merge, final = MERGES.index(content["merge"]), content["final"]
            return oracle.Bidirectional(_read_gru(content["forward"]), _read_gru(content["backward"]), merge, final)
        case "reverse":
            return oracle.Reverse()
        case "embedding":
            return oracle.Embedding(_tuples(content["codes"]))
    activation = ACTIVATIONS.index(content["activation"])
    return oracle.Dense(activation, content["f_out"], _read_matrix(content["matrix"]), tuple(content["b"]))


def _read_gru(content: dict) -> oracle.Gru:
    return oracle.Gru(
        RESETS.index(content["reset"]),
        _read_matrix(content["W"]),
        _read_matrix(content["U"]),
        tuple(content["b"]),
        tuple(content["c"]),
        GATES.index(content["gate"]),
        CANDIDATES.index(content["candidate"]),
        content["f_h"],
        tuple(content["h0"]),
    )


def _read_matrix(content: dict) -> oracle.Matrix:
    return oracle.Matrix(_tuples(content["codes"]), tuple(content["m"]), tuple(content["s"]), content["k"])


def _tuples(rows: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(row) for row in rows)
