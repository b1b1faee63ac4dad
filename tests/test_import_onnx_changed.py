"""Recorded ONNX files with a change that leaves a valid graph: the same numbers as onnxruntime, or a refusal."""

from __future__ import annotations

import itertools
import random
import warnings

import numpy as np
import pytest
from onnx_graphs import MODELS, TensorProto, computed, numpy_helper, onnx, samples, written

import quantgru as qg
from quantgru.errors import QuantgruWarning


def mutate(model: onnx.ModelProto, rng: random.Random) -> None:
    """Another attribute, whole number, connection or operator, in the graph or in that of a loop."""
    loops = [a.g for node in model.graph.node for a in node.attribute if a.name == "body"]
    graph = rng.choice([model.graph, *loops, *loops])
    node = rng.choice(graph.node)
    match rng.randrange(5):
        case 0 | 1:
            attributes = [a for a in node.attribute if a.type in (2, 7)]
            if attributes and (attribute := rng.choice(attributes)).type == 2:
                attribute.i = rng.choice((0, 1, 2, -1, attribute.i + 1))
            elif attributes:
                attribute.ints[:] = rng.sample(list(attribute.ints), len(attribute.ints))
        case 2 | 3:
            tensors = [a.t for n in graph.node for a in n.attribute if a.type == 4] + list(graph.initializer)
            tensor = rng.choice([t for t in tensors if t.data_type in (6, 7)] or list(model.graph.initializer))
            array = numpy_helper.to_array(tensor).copy()
            if array.dtype.kind == "i" and array.size:
                array.reshape(-1)[rng.randrange(array.size)] = rng.choice((0, 1, 2, 3, -1, -2, 7))
                tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
        case _ if rng.random() < 0.5 and node.input:
            names = [x.name for x in graph.initializer] + [o for n in graph.node for o in n.output]
            node.input[rng.randrange(len(node.input))] = rng.choice(names)
        case _:
            node.op_type = rng.choice(("Add", "Sub", "Mul", "Relu", "Tanh", "Transpose", "Identity", "Concat", "Neg"))
    del graph.value_info[:]
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")


def any_order_agrees(found: np.ndarray, outputs: list[np.ndarray]) -> bool:
    """Whether an output of the file is this one, with its axes in any order."""
    for y in outputs:
        for order in itertools.permutations(range(y.ndim)):
            turned = y.transpose(order)
            if turned.size == found.size and np.allclose(turned.reshape(-1), found.reshape(-1), rtol=1e-5, atol=1e-5):
                return True
    return False


EXPORTS = [
    "bidirectional.dynamo",
    "bidirectional_final.dynamo",
    "keras_torch_reset_after",
    "last_step.torchscript",
    "stack.dynamo",
    "tokens.dynamo",
]
LOOPS = [
    "keras_tensorflow_backwards",
    "keras_tensorflow_hard_sigmoid",
    "keras_tensorflow_reset_after",
    "keras_tensorflow_reset_before",
    "tensorflow1_dynamic",
]


@pytest.mark.parametrize("names", [EXPORTS, LOOPS], ids=["exports", "loops"])
def test_changed_graphs_give_the_same_numbers_or_are_refused(names, tmp_path):
    rng = random.Random(0)
    contents = [(MODELS / f"{name}.onnx").read_bytes() for name in names]
    n_loaded = n_compared = 0
    for i in range(500):
        model = onnx.ModelProto.FromString(rng.choice(contents))
        mutate(model, rng)
        try:
            with warnings.catch_warnings(action="ignore", category=QuantgruWarning):
                loaded = qg.load(written(tmp_path, model), softmax="logits")
        except qg.ModelError:
            continue
        n_loaded += 1
        entry = model.graph.input[0]
        shape = [dim.dim_value or 4 for dim in entry.type.tensor_type.shape.dim]
        tokens = entry.type.tensor_type.elem_type == TensorProto.INT64
        x = np.random.default_rng(i).integers(0, 7, shape) if tokens else samples(i, *shape)
        try:
            outputs = computed(model, **{entry.name: x})
        except Exception:  # a graph that onnxruntime cannot run, in one of many ways
            continue
        n_compared += 1
        turns = list(itertools.permutations(range(x.ndim)))
        ours = [x.transpose(turn) if x.ndim == 3 else x.transpose(turn)[..., None] for turn in turns]
        ours = [ways for ways in ours if ways.shape[2] == loaded.n_inputs]
        assert any(any_order_agrees(loaded.run(ways), outputs) for ways in ours), written(tmp_path, model, f"wrong_{i}")
    assert n_compared > 50 and n_loaded < 400
