"""Writes tests/models/onnx/hand_*: single GRU nodes with what exporters rarely write, built with onnx.helper.

    pip install onnx==1.23.2 onnxruntime==1.31.1
    python tools/import_test_models/onnx_by_hand.py

Outputs are those of ONNX Runtime (float32), or of onnx.reference where ONNX Runtime has no kernel: layout 1, double.
onnx.reference ignores activations, clip and sequence_lens, so both are also compared with the formula of the ONNX
specification, written out below in float64. The graph is the node alone, its output Y [steps, directions, sequences,
units] or Y_h; records are [sequences, steps, directions * units] or [sequences, directions * units].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime
from common import MODELS, generator_of, random_sequences, random_weights, record, report
from onnx import helper
from onnx.reference import ReferenceEvaluator

ONNX = MODELS / "onnx"
UNITS, INPUTS, SEQUENCES, STEPS = 4, 3, 3, 7
LENGTHS = np.array([7, 4, 1], np.int32)

Arrays = dict[str, np.ndarray]


@dataclass
class Case:
    attributes: dict[str, Any] = field(default_factory=dict)
    output: str = "Y"
    inputs: tuple[str, ...] = ("X", "W", "R", "B")
    kind: type = np.float32
    opset: int = 22
    raw: bool = True  # how the bytes of an array are stored: in raw_data, or as numbers in float_data

    @property
    def directions(self) -> int:
        return 1 + (self.attributes.get("direction") == "bidirectional")


AFTER = dict(linear_before_reset=1)
STATE = ("X", "W", "R", "B", "", "H0")
SCALED = dict(activations=["HardSigmoid", "Tanh"], activation_alpha=[0.3], activation_beta=[0.4])
BOTH = dict(
    direction="bidirectional",
    activations=["Sigmoid", "Relu", "HardSigmoid", "Affine"],
    activation_alpha=[0.25, 0.7],
    activation_beta=[0.45, 0.1],
)

CASES = {
    "reset_before": Case(),
    "reset_after": Case(AFTER),
    "final_state": Case(AFTER, output="Y_h"),
    "no_bias": Case(AFTER, inputs=("X", "W", "R")),
    "reverse": Case(dict(direction="reverse")),
    "reverse_final_state": Case(AFTER | dict(direction="reverse"), output="Y_h"),
    "bidirectional": Case(dict(direction="bidirectional")),
    "bidirectional_final_state": Case(AFTER | dict(direction="bidirectional"), output="Y_h"),
    "layout_1": Case(AFTER | dict(layout=1)),
    "layout_1_final_state": Case(dict(layout=1), output="Y_h"),
    "layout_1_bidirectional": Case(dict(layout=1, direction="bidirectional")),
    "lengths": Case(AFTER, inputs=("X", "W", "R", "B", "L")),
    "lengths_final_state": Case(inputs=("X", "W", "R", "B", "L"), output="Y_h"),
    "lengths_bidirectional": Case(dict(direction="bidirectional"), inputs=("X", "W", "R", "B", "L")),
    "initial_state": Case(AFTER, inputs=STATE),
    "initial_state_bidirectional": Case(dict(direction="bidirectional"), inputs=STATE),
    "hard_sigmoid": Case(AFTER | dict(activations=["HardSigmoid", "Tanh"])),
    "hard_sigmoid_scaled": Case(SCALED),
    "relu": Case(dict(activations=["Sigmoid", "Relu"])),
    "sigmoid": Case(AFTER | dict(activations=["Sigmoid", "Sigmoid"])),
    "linear": Case(dict(activations=["Sigmoid", "Affine"], activation_alpha=[1.0], activation_beta=[0.0])),
    "affine": Case(AFTER | dict(activations=["Sigmoid", "Affine"], activation_alpha=[0.7], activation_beta=[0.1])),
    "bidirectional_activations": Case(BOTH),
    "opset_7": Case(AFTER, opset=7),
    "typed_data": Case(AFTER, raw=False),
    "double": Case(AFTER, kind=np.float64),
    "refused_clip": Case(dict(clip=0.5)),
    "refused_softsign": Case(dict(activations=["Sigmoid", "Softsign"])),
}


def arrays_of(case: Case, generator: np.random.Generator) -> Arrays:
    """Of the initial state, every sequence has the same."""
    n = case.directions
    shapes = {"W": (n, 3 * UNITS, INPUTS), "R": (n, 3 * UNITS, UNITS), "B": (n, 6 * UNITS), "H0": (n, 1, UNITS)}
    arrays = {name: random_weights(generator, shape).astype(case.kind) for name, shape in shapes.items()}
    arrays["H0"] = arrays["H0"].repeat(SEQUENCES, axis=1)
    arrays["L"] = LENGTHS
    return {name: arrays[name] for name in case.inputs if name in arrays}


def model_of(case: Case, name: str, arrays: Arrays) -> onnx.ModelProto:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(case.kind))
    outputs = ["", "Y_h"] if case.output == "Y_h" else ["Y"]
    rank = 4 if case.output == "Y" else 3
    initializers = [
        onnx.numpy_helper.from_array(array, key)
        if case.raw
        else helper.make_tensor(key, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape, array.ravel())
        for key, array in arrays.items()
    ]
    graph = helper.make_graph(
        [helper.make_node("GRU", list(case.inputs), outputs, hidden_size=UNITS, **case.attributes)],
        name,
        [helper.make_tensor_value_info("X", kind, [None, None, INPUTS])],
        [helper.make_tensor_value_info(case.output, kind, [None] * rank)],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", case.opset)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def functions(case: Case) -> list[Callable[[np.ndarray], np.ndarray]]:
    """Two per direction. Those that have parameters take them from the lists, in order."""
    parameters = iter(zip(*(case.attributes.get(f"activation_{key}", []) for key in ("alpha", "beta")), strict=True))
    known: dict[str, Callable[..., np.ndarray]] = {
        "Sigmoid": lambda a: 1 / (1 + np.exp(-a)),
        "Tanh": np.tanh,
        "Relu": lambda a: np.maximum(a, 0),
        "Softsign": lambda a: a / (1 + abs(a)),
        "HardSigmoid": lambda a, slope, offset: np.clip(slope * a + offset, 0, 1),
        "Affine": lambda a, slope, offset: slope * a + offset,
    }
    names = case.attributes.get("activations", ["Sigmoid", "Tanh"] * 2)
    pairs = [next(parameters, (0.2, 0.5)) if name in ("HardSigmoid", "Affine") else () for name in names]
    return [lambda a, f=known[name], pair=pair: f(a, *pair) for name, pair in zip(names, pairs, strict=True)]


def run_direction(case: Case, direction: int, arrays: Arrays, x: np.ndarray) -> np.ndarray:
    """[steps, units] of one sequence in one direction; x is already in the order of processing."""
    W, R = (np.split(arrays[name][direction].astype(np.float64), 3) for name in "WR")
    B = arrays["B"][direction].astype(np.float64) if "B" in arrays else np.zeros(6 * UNITS)
    Wb, Rb = (np.split(half, 3) for half in np.split(B, 2))
    gate, candidate = functions(case)[2 * direction : 2 * direction + 2]
    limit = case.attributes.get("clip", np.inf)
    h = arrays["H0"][direction, 0].astype(np.float64) if "H0" in arrays else np.zeros(UNITS)
    outputs = []
    for step in x.astype(np.float64):
        z, r = (gate(np.clip(W[i] @ step + R[i] @ h + Wb[i] + Rb[i], -limit, limit)) for i in (0, 1))
        inner = r * (R[2] @ h + Rb[2]) if case.attributes.get("linear_before_reset") else R[2] @ (r * h) + Rb[2]
        h = (1 - z) * candidate(np.clip(W[2] @ step + inner + Wb[2], -limit, limit)) + z * h
        outputs.append(h)
    return np.array(outputs)


def by_formula(case: Case, arrays: Arrays, x: np.ndarray) -> np.ndarray:
    """Of each sequence [sequences, steps, inputs], zeros after its length."""
    directions = [case.attributes.get("direction") == "reverse"] if case.directions == 1 else [False, True]
    every_step = np.zeros((len(x), STEPS, case.directions * UNITS))
    final = np.zeros((len(x), case.directions * UNITS))
    for i, sequence in enumerate(x):
        length = arrays["L"][i] if "L" in arrays else STEPS
        for direction, backwards in enumerate(directions):
            columns = slice(direction * UNITS, (direction + 1) * UNITS)
            order = slice(None, None, -1 if backwards else 1)
            h = run_direction(case, direction, arrays, sequence[:length][order])
            final[i, columns] = h[-1]
            every_step[i, :length, columns] = h[order]
    return every_step if case.output == "Y" else final


def run(case: Case, model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    by_batch = case.attributes.get("layout") == 1
    feed = {"X": (x if by_batch else x.swapaxes(0, 1)).astype(case.kind)}
    if by_batch or case.kind is np.float64:
        (y,) = ReferenceEvaluator(model).run(None, feed)
    else:
        (y,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feed)
    if not by_batch:
        y = y.transpose(2, 0, 1, 3) if case.output == "Y" else y.swapaxes(0, 1)
    return y.reshape(*y.shape[:-2], -1)


def main() -> None:
    ONNX.mkdir(parents=True, exist_ok=True)
    for name, case in CASES.items():
        path = ONNX / f"hand_{name}.onnx"
        generator = generator_of(path.stem)
        arrays = arrays_of(case, generator)
        x = random_sequences(generator, (SEQUENCES, STEPS, INPUTS))
        model = model_of(case, name, arrays)
        y = run(case, model, x)
        assert np.abs(y - by_formula(case, arrays, x)).max() < 1e-6, path
        path.write_bytes(model.SerializeToString())
        report(path)
        record(path, x=x, y=y, **({"lengths": LENGTHS} if "L" in arrays else {}))


if __name__ == "__main__":
    main()
