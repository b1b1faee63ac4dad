"""ONNX loops: a GRU layer as a Loop or a Scan over its cell, as TensorFlow writes it; and loops that are none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from onnx_graphs import MODELS, TOLERANCE, UNITS, GraphBuilder, computed, helper, onnx, refusal, samples, written

import quantgru as qg

BATCH, STEPS = 2, 5


@dataclass
class Loop:
    """A loop over x [batch, steps, 3] and what may be changed of it; functions add nodes to the graph of the loop."""

    g: GraphBuilder
    steps: int | str = "steps"
    reset_after: bool = True
    start: str = ""  # h0 [batch, units] of the graph
    count: Callable[[GraphBuilder, str], str] = lambda g, steps: steps
    number: Callable[[GraphBuilder, str, str], str] = lambda b, number, steps: number  # of the step that is read
    grow: Callable[[GraphBuilder, str, str], str] = lambda b, number, one: b.add("Add", number, one)
    goes_on: Callable[[GraphBuilder, str, str], str] = lambda b, number, steps: b.add("Less", number, steps)
    carry: Callable[[GraphBuilder, str, str], str] = lambda b, h, before: b.add("Identity", h)
    give: Callable[[GraphBuilder, str, str], str] = lambda b, h, before: b.add("Identity", h)
    x: str = field(init=False)

    def outputs(self) -> list[str]:
        """What is carried after the last step, [batch, units], and what is given at each, [steps, batch, units]."""
        g = self.g
        self.x = g.add("Transpose", g.input("x", ["batch", self.steps, 3]), perm=[1, 0, 2])
        sizes = g.add("Shape", self.x)
        steps, batch = (g.add("Gather", sizes, g.constant(i)) for i in (0, 1))
        start = self.start or g.add(
            "Expand",
            g.constant(0.0),
            g.add("Concat", g.add("Unsqueeze", batch, g.constant([0])), g.constant([UNITS]), axis=0),
        )
        body = self._body(steps)
        goes_on = g.constant(True, np.bool_)
        _, h, y = g.add("Loop", self.count(g, steps), goes_on, g.constant(0), start, n_outputs=3, body=body)
        return [h, y]

    def _body(self, steps: str) -> onnx.GraphProto:
        b, one = Body(self.g), self.g.constant(1)
        x = b.add("Gather", self.x, self.number(b, "number", steps), axis=0)
        h = cell(b, x, "before", self.reset_after)
        number = self.grow(b, "number", one)
        outputs = [self.goes_on(b, number, steps), number, self.carry(b, h, "before"), self.give(b, h, "before")]
        return b.graph([("i", 7, []), ("on", 9, []), ("number", 7, []), ("before", 1, [None, UNITS])], outputs)


class Body(GraphBuilder):
    """The graph of a loop; names and constants are those of the graph around it."""

    def __init__(self, around: GraphBuilder) -> None:
        super().__init__()
        self.random, self.constants = around.random, around.constants
        self.name = lambda kind: around.name(f"in_{kind}")  # type: ignore[method-assign]

    def graph(self, inputs: list[tuple[str, int, list[Any]]], outputs: list[str]) -> onnx.GraphProto:
        given = [helper.make_tensor_value_info(*each) for each in inputs]
        return helper.make_graph(self.nodes, "body", given, [onnx.ValueInfoProto(name=name) for name in outputs])


def cell(b: GraphBuilder, x: str, h: str, reset_after: bool, n_inputs: int = 3) -> str:
    """z h + (1 - z) n, as Keras writes it."""
    from_x = b.add("Add", b.add("MatMul", x, b.weights(n_inputs, 3 * UNITS)), b.weights(3 * UNITS))
    xs = b.add("Split", from_x, n_outputs=3, axis=-1, num_outputs=3)
    if reset_after:
        from_h = b.add("Add", b.add("MatMul", h, b.weights(UNITS, 3 * UNITS)), b.weights(3 * UNITS))
        hs = b.add("Split", from_h, n_outputs=3, axis=-1, num_outputs=3)
    else:
        hs = [b.add("MatMul", h, b.weights(UNITS, UNITS)) for _ in range(2)]
    z, r = (b.add("Sigmoid", b.add("Add", xs[i], hs[i])) for i in (0, 1))
    product = b.add("Mul", r, hs[2]) if reset_after else b.add("MatMul", b.add("Mul", r, h), b.weights(UNITS, UNITS))
    n = b.add("Tanh", b.add("Add", xs[2], product))
    return b.add("Add", b.add("Mul", z, h), b.add("Mul", b.add("Sub", b.constant(1.0), z), n))


def less(n: int) -> Callable[[GraphBuilder, str, str], str]:
    return lambda b, number, steps: b.add("Less", number, b.add("Sub", steps, b.constant(n)))


def from_the_end(b: GraphBuilder, number: str, steps: str) -> str:
    return b.add("Sub", b.add("Sub", steps, number), b.constant(1))


def scaled(b: GraphBuilder, h: str, before: str) -> str:
    return b.add("Mul", h, b.constant(0.5))


def head(b: GraphBuilder, h: str, before: str) -> str:
    return b.add("Tanh", b.add("Add", b.add("MatMul", h, b.weights(UNITS, 2)), b.weights(2)))


def second_layer(b: GraphBuilder, h: str, before: str) -> str:
    return cell(b, h, before, reset_after=True, n_inputs=UNITS)


def always(b: GraphBuilder, number: str, steps: str) -> str:
    return b.add("Identity", "on")


def first(b: GraphBuilder, number: str, steps: str) -> str:
    return b.constant(0)


def half(b: GraphBuilder, number: str, steps: str) -> str:
    return b.add("Div", number, b.constant(2))


def by_two(b: GraphBuilder, number: str, one: str) -> str:
    return b.add("Add", number, b.constant(2))


LOADED: dict[str, dict[str, Any]] = {
    "reset after": {},
    "reset before": dict(reset_after=False),
    "fixed steps": dict(steps=STEPS),
    "from the end": dict(number=from_the_end),
    "from the end, fixed steps": dict(number=from_the_end, steps=STEPS),
    "a head in the loop": dict(give=head),
    "a scaled output": dict(give=scaled),
    "no condition of its own": dict(goes_on=always),
}

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "one step less": (dict(count=lambda g, steps: g.add("Sub", steps, g.constant(1))), r"takes entry|in a loop of"),
    "three steps": (dict(count=lambda g, steps: g.constant(3)), "a loop that may end before the last step"),
    "ends early": (dict(goes_on=less(1)), "a loop that may end before the last step"),
    "ends early, fixed steps": (dict(goes_on=less(1), steps=STEPS), "a loop that may end before the last step"),
    "ends after one": (
        dict(goes_on=lambda b, number, steps: b.add("Not", b.add("Identity", "on"))),
        "a loop that may end before the last step",
    ),
    "ends by data": (
        dict(goes_on=lambda b, number, steps: b.add("Less", b.add("ReduceMax", "before"), b.constant(0.9))),
        "ReduceMax",
    ),
    "the first step every time": (dict(number=first), "no GRU layer|at once"),
    "the next step": (
        dict(number=lambda b, number, steps: b.add("Sub", number, b.constant(1))),
        "takes entry",
    ),
    "counts by two": (dict(grow=by_two), "a loop that may end before the last step"),
    "counts by two, without a condition": (
        dict(grow=by_two, goes_on=always, number=half),
        "is not a whole number for every size",
    ),
    "counts never": (
        dict(grow=lambda b, number, one: b.add("Mul", number, one), goes_on=always, number=first),
        "a number that does not count the steps|no GRU",
    ),
    "carries a scaled state": (dict(carry=scaled), "something else than the state|no GRU layer"),
    "carries the state before": (dict(carry=lambda b, h, before: b.add("Identity", before)), "a loop|computed by"),
    "gives the state before": (
        dict(give=lambda b, h, before: b.add("Identity", before)),
        "something else than the steps",
    ),
    "adds the state before": (dict(give=lambda b, h, before: b.add("Add", h, before)), "something else than the steps"),
    "a state for two layers": (dict(give=second_layer), "something else than the steps|no GRU layer"),
    "carries the second of two": (dict(carry=second_layer), "a loop that carries something else|no GRU layer"),
}


@pytest.mark.parametrize("output", [0, 1], ids=["final state", "every step"])
@pytest.mark.parametrize("name", LOADED)
def test_loop(name, output, tmp_path):
    g = GraphBuilder(1)
    model = g.model(Loop(g, **LOADED[name]).outputs()[output])
    x = samples(2, BATCH, STEPS, 3)
    (expected,) = computed(model, x=x)
    found = qg.load(written(tmp_path, model)).run(x)
    assert np.abs(found - (expected.swapaxes(0, 1) if output else expected)).max() <= TOLERANCE


@pytest.mark.parametrize("name", REFUSED)
def test_loop_that_is_no_layer(name, tmp_path):
    """Each runs in onnxruntime, with other numbers than those of a layer."""
    changes, message = REFUSED[name]
    g = GraphBuilder(1)
    model = g.model(Loop(g, **changes).outputs()[1])
    assert len(computed(model, x=samples(2, BATCH, STEPS, 3))) == 1
    text = refusal(written(tmp_path, model))
    assert any(part in text for part in message.split("|")), text


# ---- recorded loops with a change -----------------------------------------------------------------------------------


def loop_of(model: onnx.ModelProto) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.op_type in ("Loop", "Scan"))


def body_of(model: onnx.ModelProto) -> onnx.GraphProto:
    return next(attribute.g for attribute in loop_of(model).attribute if attribute.name == "body")


def backwards(model: onnx.ModelProto) -> None:
    loop_of(model).attribute.append(helper.make_attribute("scan_input_directions", [1]))


def no_body(model: onnx.ModelProto) -> None:
    del loop_of(model).attribute[:]
    loop_of(model).attribute.append(helper.make_attribute("num_scan_inputs", 1))


def fewer_inputs(model: onnx.ModelProto) -> None:
    del body_of(model).input[-1]


def fewer_outputs(model: onnx.ModelProto) -> None:
    del body_of(model).output[-1]


def no_scan_inputs(model: onnx.ModelProto) -> None:
    next(attribute for attribute in loop_of(model).attribute if attribute.name == "num_scan_inputs").i = 0


def a_loop_in_the_loop(model: onnx.ModelProto) -> None:
    inner = onnx.NodeProto.FromString(loop_of(model).SerializeToString())
    inner.output[:] = [body_of(model).output[-1].name]
    del body_of(model).node[-1]
    body_of(model).node.append(inner)


def a_name_of_the_graph_around(model: onnx.ModelProto) -> None:
    body_of(model).node[0].output[0] = model.graph.initializer[0].name
    body_of(model).node[1].input[0] = model.graph.initializer[0].name


def an_input_from_nowhere(model: onnx.ModelProto) -> None:
    body_of(model).node[-1].input[0] = "nowhere"


def calls_that_explode(model: onnx.ModelProto) -> None:
    """Functions that call each other twice, called in the graph of the loop."""
    opsets = [helper.make_opsetid("", 15), helper.make_opsetid("local", 1)]
    model.opset_import.append(opsets[1])
    for i in range(60):
        call = f"F{i + 1}" if i < 59 else "Tanh"
        calls = [
            helper.make_node(call, [a], [b], domain="local" if i < 59 else "") for a, b in (("x", "y"), ("y", "z"))
        ]
        model.functions.append(helper.make_function("local", f"F{i}", ["x"], ["z"], calls, opsets))
    body_of(model).node.append(helper.make_node("F0", ["x"], ["y"], domain="local"))


CHANGES = [
    (backwards, "goes along other axes than the first, or backwards"),
    (no_body, "its graph has not 4 inputs and 4 outputs"),
    (fewer_inputs, "its graph has not 4 inputs and 4 outputs"),
    (fewer_outputs, "its graph has not 4 inputs and 4 outputs"),
    (no_scan_inputs, "no sequence to go through"),
    (a_loop_in_the_loop, "a loop or condition inside of another"),
    (a_name_of_the_graph_around, "two tensors of the name"),
    (an_input_from_nowhere, "is computed nowhere before it"),
    (calls_that_explode, "allowed are 100000"),
]


@pytest.mark.parametrize(("change", "message"), CHANGES, ids=[change.__name__ for change, _ in CHANGES])
def test_changed_scan(change, message, tmp_path):
    model = onnx.load(MODELS / "tensorflow1_dynamic.onnx")
    change(model)
    assert message in refusal(written(tmp_path, model))


def test_a_circle_of_identities_has_an_end(tmp_path):
    g = GraphBuilder(1)
    model = g.model(Loop(g).outputs()[0])
    carried = next(node for node in body_of(model).node if node.op_type == "Identity")
    carried.input[0] = carried.output[0]
    assert "is computed nowhere before it" in refusal(written(tmp_path, model))
