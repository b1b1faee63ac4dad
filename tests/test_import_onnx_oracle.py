"""ONNX graphs with random weights against onnxruntime: the operator GRU in every form, and what stands around it."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_graphs import GraphBuilder, TensorProto, computed, samples, written

import quantgru as qg

TOLERANCE = 1e-6  # of the largest value, or of 1: onnxruntime computes in float32
SEQUENCES, STEPS, INPUTS = 3, 5, 3

# Gate, candidate, and the lists of parameters that they need.
FUNCTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "sigmoid tanh": dict(activations=["Sigmoid", "Tanh"]),
    "sigmoid relu": dict(activations=["Sigmoid", "Relu"]),
    "sigmoid sigmoid": dict(activations=["Sigmoid", "Sigmoid"]),
    "sigmoid affine": dict(activations=["Sigmoid", "Affine"], activation_alpha=[0.6], activation_beta=[0.2]),
    "hard tanh": dict(activations=["HardSigmoid", "Tanh"]),
    "hard tanh scaled": dict(activations=["HardSigmoid", "Tanh"], activation_alpha=[0.3], activation_beta=[0.4]),
    "hard affine": dict(
        activations=["HardSigmoid", "Affine"], activation_alpha=[0.25, 0.5], activation_beta=[0.45, -0.1]
    ),
}


@dataclass(frozen=True)
class Case:
    """One graph: the attributes of its GRU node, where lengths and initial state come from, and what follows."""

    direction: str
    layout: int
    after: int
    functions: str
    bias: bool
    start: str
    lengths: str
    head: str
    fixed: bool
    opset: int
    seed: int
    units: int = 4

    @property
    def directions(self) -> int:
        return 2 if self.direction == "bidirectional" else 1

    @property
    def attributes(self) -> dict[str, Any]:
        lists = {key: values * self.directions for key, values in FUNCTIONS[self.functions].items()}
        return dict(direction=self.direction, linear_before_reset=self.after, **lists)


CASES = st.builds(
    Case,
    direction=st.sampled_from(["forward", "reverse", "bidirectional"]),
    layout=st.sampled_from([0, 1]),
    after=st.sampled_from([0, 1]),
    functions=st.sampled_from(list(FUNCTIONS)),
    bias=st.booleans(),
    start=st.sampled_from(["none", "zeros", "constant", "input", "spread"]),
    lengths=st.sampled_from(["none", "none", "whole", "input"]),
    head=st.sampled_from(["every step", "every step head", "final", "final head", "last step head"]),
    fixed=st.booleans(),
    opset=st.sampled_from([14, 20, 22]),
    seed=st.integers(0, 2**31),
    units=st.integers(1, 5),
)


def build(case: Case, layout: int) -> Any:
    """The graph of a case. With layout 0 instead of 1, transpositions stand around the node: onnxruntime has only 0."""
    g = GraphBuilder(case.seed)
    free = [SEQUENCES, STEPS] if case.fixed else ["batch", "steps"]
    by_batch = case.layout == 1
    shape = [*free, INPUTS] if by_batch else [*free[::-1], INPUTS]
    x = g.input("x", shape)
    turned = by_batch and layout == 0
    lengths, start = lengths_of(g, case, x, by_batch), start_of(g, case, x, by_batch)
    if turned:
        x = g.add("Transpose", x, perm=[1, 0, 2])
        start = g.add("Transpose", start, perm=[1, 0, 2]) if start else ""
    layouts = {} if layout == 0 else dict(layout=1)
    y, y_h = g.gru(x, INPUTS, case.units, bias=case.bias, lengths=lengths, start=start, **case.attributes, **layouts)
    if turned:
        y, y_h = g.add("Transpose", y, perm=[2, 0, 1, 3]), g.add("Transpose", y_h, perm=[1, 0, 2])
    return g.model(add_head(g, case, y, y_h, by_batch), opset=case.opset)


def lengths_of(g: GraphBuilder, case: Case, x: str, by_batch: bool) -> str:
    if case.lengths == "input":
        return g.input("lengths", [SEQUENCES if case.fixed else "batch"], TensorProto.INT32)
    if case.lengths == "none":
        return ""
    if case.fixed:
        return g.constant(np.full(SEQUENCES, STEPS), np.int32)
    sizes = g.add("Shape", x)
    steps, batch = (g.add("Slice", sizes, *(g.constant([i + n]) for n in (0, 1))) for i in (by_batch, not by_batch))
    return g.add("Expand", g.add("Cast", steps, to=TensorProto.INT32), batch)


def start_of(g: GraphBuilder, case: Case, x: str, by_batch: bool) -> str:
    n, units = case.directions, case.units
    if case.start == "none":
        return ""
    if case.start == "input":
        batch = SEQUENCES if case.fixed else "batch"
        return g.input("h0", [batch, n, units] if by_batch else [n, batch, units])
    if case.start == "constant":  # the same for every sequence
        rows = np.repeat(g.random.normal(0, 1, (n, 1, units)), SEQUENCES, axis=1)
        return g.constant(rows.swapaxes(0, 1) if by_batch else rows)
    sizes = g.add("Shape", x)
    batch = g.add("Gather", sizes, g.constant([0 if by_batch else 1]))
    ends = g.constant([n]), g.constant([units])
    order = (batch, *ends) if by_batch else (ends[0], batch, ends[1])
    shape = g.add("Concat", *order, axis=0)
    if case.start == "zeros":
        return g.add("ConstantOfShape", shape)
    rows = g.random.normal(0, 1, (n, 1, units))
    return g.add("Expand", g.constant(rows.swapaxes(0, 1) if by_batch else rows), shape)


def add_head(g: GraphBuilder, case: Case, y: str, y_h: str, by_batch: bool) -> str:
    width = case.directions * case.units
    if case.head == "every step":
        return y
    if case.head == "final":
        return y_h
    if case.head == "final head":
        rows = y_h if by_batch else g.add("Transpose", y_h, perm=[1, 0, 2])
        return g.add("Gemm", g.add("Flatten", rows), g.weights(2, width), g.weights(2), transB=1)
    rows = y if by_batch else g.add("Transpose", y, perm=[2, 0, 1, 3])
    rows = g.add("Reshape", rows, g.constant([0, 0, -1]))
    if case.head == "last step head":
        rows = g.add("Gather", rows, g.constant(-1), axis=1)
    return g.add("Relu", g.add("Add", g.weights(2), g.add("MatMul", rows, g.weights(width, 2))))


def as_ours(case: Case, y: np.ndarray) -> np.ndarray:
    """[sequences, steps, directions * units] or [sequences, directions * units]."""
    if case.layout == 0 and case.head == "every step":
        y = y.transpose(2, 0, 1, 3)
    if case.layout == 0 and case.head == "final":
        y = y.transpose(1, 0, 2)
    return y.reshape(*y.shape[:-2], -1) if case.head in ("every step", "final") else y


@given(CASES)
@settings(max_examples=400)
def test_one_layer(case):
    x = samples(case.seed, SEQUENCES, STEPS, INPUTS)
    lengths = np.array([STEPS, 2, 1], np.int32) if case.lengths == "input" else None
    h0 = samples(case.seed + 1, case.directions, SEQUENCES, case.units)
    with tempfile.TemporaryDirectory() as folder:
        path = written(Path(folder), build(case, case.layout))
        if case.lengths == "input" and case.head == "last step head":
            with pytest.raises(qg.ModelError, match="padding included"):
                qg.load(path)
            return
        model = qg.load(path)
    by_batch = case.layout == 1
    feed = {"x": x if by_batch else x.swapaxes(0, 1)}
    if lengths is not None:
        feed["lengths"] = lengths
    if case.start == "input":
        feed["h0"] = h0.swapaxes(0, 1) if by_batch else h0
    expected = as_ours(case, computed(build(case, layout=0), **feed)[0])
    sequences = x if lengths is None else [row[:n] for row, n in zip(x, lengths, strict=True)]
    found = model.run(sequences, initial_states=list(h0) if case.start == "input" else None)
    if lengths is not None and isinstance(found, list):
        expected = np.concatenate([row[:n] for row, n in zip(expected, lengths, strict=True)])
        found = np.concatenate(found)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= TOLERANCE * max(1, np.abs(expected).max())


@given(
    seed=st.integers(0, 2**31),
    kinds=st.lists(st.sampled_from(["forward", "reverse", "bidirectional"]), min_size=1, max_size=3),
    merge=st.sampled_from(["concat", "sum", "mean", "mul"]),
    before=st.sampled_from(["none", "dense", "affine", "batch normalization"]),
    flat=st.booleans(),
    reset=st.sampled_from([0, 1]),
)
@settings(max_examples=150)
def test_stacks_merges_and_dense_layers(seed, kinds, merge, before, flat, reset):
    g = GraphBuilder(seed)
    x = g.input("x", ["batch", "steps", INPUTS])
    rows, width = add_before(g, x, before)
    for kind in kinds:
        rows, width = add_layer(g, rows, width, kind, merge, reset)
        if flat:  # a dense layer on all steps of all sequences at once, as Keras writes them
            back = g.add("Concat", g.add("Shape", rows, end=2), g.constant([2]), axis=0)
            rows = g.add("Reshape", rows, g.constant([-1, width]))
            rows = g.add("Tanh", g.add("Gemm", rows, g.weights(width, 2), g.weights(2)))
            rows, width = g.add("Reshape", rows, back), 2
    model = g.model(rows)
    with tempfile.TemporaryDirectory() as folder:
        loaded = qg.load(written(Path(folder), model))
    data = samples(seed, SEQUENCES, STEPS, INPUTS)
    (expected,) = computed(model, x=data)
    assert np.abs(loaded.run(data) - expected).max() <= 2 * TOLERANCE


def add_before(g: GraphBuilder, x: str, before: str) -> tuple[str, int]:
    if before == "dense":
        return g.add("Sigmoid", g.add("Add", g.add("MatMul", x, g.weights(INPUTS, 4)), g.weights(4))), 4
    if before == "affine":
        return g.add("Div", g.add("Sub", x, g.weights(1, 1, INPUTS)), g.constant([0.5, 2.0, -1.5])), INPUTS
    if before == "batch normalization":
        turned = g.add("Transpose", x, perm=[0, 2, 1])
        variance = g.constant(np.array([0.5, 1.0, 2.0]))
        parts = g.weights(INPUTS), g.weights(INPUTS), g.weights(INPUTS), variance
        return g.add("Transpose", g.add("BatchNormalization", turned, *parts), perm=[0, 2, 1]), INPUTS
    return x, INPUTS


def add_layer(g: GraphBuilder, rows: str, width: int, kind: str, merge: str, reset: int) -> tuple[str, int]:
    turned = g.add("Transpose", rows, perm=[1, 0, 2])
    y, _ = g.gru(turned, width, 3, direction=kind, linear_before_reset=reset)
    y = g.add("Transpose", y, perm=[2, 0, 1, 3])  # batch, steps, directions, units
    if kind != "bidirectional":
        return g.add("Squeeze", y, g.constant([2])), 3
    if merge == "concat":
        return g.add("Reshape", y, g.constant([0, 0, 6])), 6
    parts = [g.add("Squeeze", part, g.constant([2])) for part in g.add("Split", y, n_outputs=2, axis=2, num_outputs=2)]
    if merge == "mul":
        return g.add("Mul", *parts), 3
    total = g.add("Add", *parts)
    return (g.add("Mul", total, g.constant(0.5)) if merge == "mean" else total), 3
