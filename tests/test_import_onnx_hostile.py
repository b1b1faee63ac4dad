"""ONNX files that are damaged or made to harm: refused in bounded time and memory."""

from __future__ import annotations

import itertools

import pytest
from onnx_graphs import (
    MODELS,
    UNITS,
    GraphBuilder,
    TensorProto,
    bounded_memory,
    forward,
    helper,
    onnx,
    refusal,
    written,
)

import quantgru as qg
from quantgru.importers import onnx_model


def changed(change) -> onnx.ModelProto:
    """A recorded model with a change."""
    model = onnx.load(MODELS / "last_step.torchscript.onnx")
    change(model)
    return model


def first_weights(model) -> onnx.TensorProto:
    return next(entry for entry in model.graph.initializer if len(entry.dims) == 3)


def set_dims(*dims):
    def change(model):
        first_weights(model).dims[:] = dims

    return change


def outside(location):
    def change(model):
        tensor = first_weights(model)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.append(onnx.StringStringEntryProto(key="location", value=location))

    return change


def set_opset(version):
    def change(model):
        model.opset_import[0].version = version

    return change


def sparse(model):
    tensor = first_weights(model)
    entry = onnx.SparseTensorProto(values=tensor, dims=tensor.dims)
    model.graph.sparse_initializer.append(entry)
    model.graph.initializer.remove(tensor)


def string_weights(model):
    first_weights(model).data_type = TensorProto.STRING


def doubled_name(model):
    model.graph.initializer.append(first_weights(model))


def missing_weights(model):
    model.graph.initializer.remove(first_weights(model))


def shuffled(model):
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(nodes[::-1])


def other_domain(model):
    model.graph.node[-1].domain = "com.microsoft"


def no_operator(model):
    model.graph.node[-1].op_type = "GEMM"


def names_of_several_lines(model):
    model.graph.node[-1].op_type = "Ge\nmm"
    model.graph.node[-1].name = "\n" * 5000


def too_many_inputs(model):
    model.graph.node[-1].input.extend(["x", "x", "x"])


def condition(model):
    node = model.graph.node[-1]
    branch = helper.make_graph([], "branch", [], [])
    model.graph.initializer.append(helper.make_tensor("yes", TensorProto.BOOL, [], [True]))
    node.CopyFrom(helper.make_node("If", ["yes"], list(node.output), then_branch=branch, else_branch=branch))


def string_input(model):
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING


def sequence_input(model):
    model.graph.input[0].type.Clear()
    model.graph.input[0].type.sequence_type.elem_type.tensor_type.elem_type = TensorProto.FLOAT


def shapeless_input(model):
    model.graph.input[0].type.tensor_type.ClearField("shape")


def absurd_input(model):
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 1 << 40


def empty_input(model):
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 0


def no_outputs(model):
    del model.graph.output[:]


def output_from_nowhere(model):
    model.graph.output[0].name = "nothing"


def reference_attribute(model):
    model.graph.node[-1].attribute[0].ref_attr_name = "alpha"


CHANGES = [
    (set_dims(1, 15, 4), "shape [1, 15, 4] with 180 bytes"),
    (set_dims(1 << 40, 1 << 40, 3), "with 180 bytes"),
    (set_dims(-1, -15, 3), "shape [-1, -15, 3]"),
    (outside("../../../etc/passwd"), "in '../../../etc/passwd', which is no file beside the model"),
    (outside("/dev/zero"), "in '/dev/zero', which is no file beside the model"),
    (outside(".."), "in '..', which is no file beside the model"),
    (outside("weights.data"), "and there is no such file beside the model"),
    (outside("w" * 5000), "and there is no such file beside the model"),
    (set_opset(6), "opset 6, supported are opsets 7 ..."),
    (set_opset(1 << 40), "opset 1099511627776, supported"),
    (set_opset(0), "no version of ONNX's operators"),
    (sparse, "sparse; "),
    (string_weights, "elements of type 8"),
    (doubled_name, "two tensors of the name"),
    (missing_weights, "is computed nowhere before it"),
    (shuffled, "is computed nowhere before it"),
    (other_domain, "an operator of domain 'com.microsoft'"),
    (no_operator, "(GEMM): no operator of opset 20"),
    (names_of_several_lines, "('Ge\\nmm'): no operator of opset 20"),
    (too_many_inputs, "6 inputs and 1 outputs"),
    (condition, "(If): its graphs have not 1 outputs, or have inputs"),
    (string_input, "of type 8"),
    (sequence_input, "of type other than a tensor"),
    (shapeless_input, "no shape"),
    (absurd_input, "far more than a file of"),
    (empty_input, "shape [None, 0, 3]"),
    (no_outputs, "a graph without outputs"),
    (output_from_nowhere, "output 'nothing': nothing computes it"),
    (reference_attribute, "is none of opset 20"),
]


@pytest.mark.parametrize(("change", "message"), CHANGES, ids=[change.__name__ for change, _ in CHANGES])
def test_changed_file(change, message, tmp_path):
    path = written(tmp_path, changed(change))
    with bounded_memory():
        assert message in refusal(path)


def test_names_that_are_no_text(tmp_path):
    """Such a name comes as bytes."""
    content = (MODELS / "every_step.torchscript.onnx").read_bytes()
    path = tmp_path / "model.onnx"
    for name in (b"/gru/GRU\x1a", b"Transpose", b"sequences", b"/gru/Squeeze_output_0", b"pytorch", b"direction"):
        if name in content:
            path.write_bytes(content.replace(name, name[:-1] + b"\xff"))
            try:
                qg.load(path)
            except qg.ModelError as error:
                assert "\n" not in str(error)  # noqa: PT017
    path.write_bytes(content.replace(b"Transpose", b"Transpos\xff"))
    assert "a name that is no text" in refusal(path)


@pytest.mark.parametrize("content", [b"", b"text\n" * 99, bytes(500), b"PK\x03\x04" + bytes(500), b"\x80\x05."])
def test_foreign_content(content, tmp_path):
    path = tmp_path / "foreign.onnx"
    path.write_bytes(content)
    refusal(path)


def test_truncated_at_any_length(tmp_path):
    content = (MODELS / "every_step.torchscript.onnx").read_bytes()
    path = tmp_path / "cut.onnx"
    for length in range(0, len(content), 23):
        path.write_bytes(content[:length])
        refusal(path)


def test_limits_of_size(tmp_path, monkeypatch):
    path = written(tmp_path, changed(lambda model: None))
    monkeypatch.setattr(onnx_model, "NODE_LIMIT", 5)
    assert "17 nodes, allowed are 5" in refusal(path)
    monkeypatch.setattr(onnx_model, "FILE_LIMIT", 1000)
    assert f"{path.stat().st_size} bytes, allowed are 1000" in refusal(path)


def function_model(*functions: tuple[str, list[str]]) -> onnx.ModelProto:
    """The first function is called; each one calls others, one after the other."""
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("local", 1)]
    g = GraphBuilder()
    y, _ = forward(g)
    model = g.model(g.add(functions[0][0], y, domain="local"))
    model.opset_import.append(opsets[1])
    for name, calls in functions:
        names = ["x", *(f"value_{i}" for i in range(len(calls)))]
        body = [
            helper.make_node(call, [names[i]], [names[i + 1]], domain="" if call == "Tanh" else "local")
            for i, call in enumerate(calls)
        ]
        model.functions.append(helper.make_function("local", name, ["x"], [names[-1]], body, opsets))
    return model


def test_functions_that_call_themselves(tmp_path):
    assert "call themselves" in refusal(written(tmp_path, function_model(("F", ["F"]))))
    assert "call themselves" in refusal(written(tmp_path, function_model(("F", ["G"]), ("G", ["F"]))))


def test_functions_that_double_many_times(tmp_path):
    """Sixty functions, each of which calls the next one twice."""
    names = [f"F{i}" for i in range(60)]
    functions = [(a, [b, b]) for a, b in itertools.pairwise(names)]
    assert "allowed are 100000" in refusal(written(tmp_path, function_model(*functions, (names[-1], ["Tanh"]))))


def many(kind, count, g, y):
    for _ in range(count):
        y = g.add(kind, y, y)
    return y


@pytest.mark.parametrize("kind", ["Mul", "Add"])
def test_sums_and_products_that_explode(kind, tmp_path):
    g = GraphBuilder()
    y, _ = forward(g)
    other = g.add("Add", y, g.add("Tanh", g.add("MatMul", y, g.weights(UNITS, UNITS))))
    refusal(written(tmp_path, g.model(many(kind, 400, g, other))))


def test_sizes_that_explode(tmp_path):
    g = GraphBuilder()
    y, _ = forward(g)
    size = many("Mul", 300, g, g.add("Add", g.add("Shape", y), g.constant(1)))
    assert "no exporter writes" in refusal(written(tmp_path, g.model(g.add("Reshape", y, size))))


@pytest.mark.parametrize(
    "shape", [[1 << 40, 3], [1 << 20, 1 << 20, 3], [1 << 62, 1 << 62], [-5, 3], [0, 3]], ids=lambda shape: str(shape)
)
def test_constants_of_absurd_sizes(shape, tmp_path):
    """No array is made before its size is known to be small; -1 and the like are no sizes."""
    g = GraphBuilder()
    y, _ = forward(g)
    zeros = g.add("ConstantOfShape", g.constant(shape))
    path = written(tmp_path, g.model(g.add("Add", y, g.add("Sqrt", zeros))))
    with bounded_memory():
        refusal(path)


@pytest.mark.parametrize("kind", ["Slice", "Split", "Gather"])
def test_steps_of_an_absurd_number(kind, tmp_path):
    """An axis of 2**40 steps: what is cut from it is known without a list of them."""
    g = GraphBuilder()
    y, _ = forward(g, ("batch", 1 << 40, 3))
    if kind == "Slice":
        y = g.add("Slice", y, *(g.constant([i]) for i in (1, 1 << 39, 1)))
    elif kind == "Split":
        y = g.add("Split", y, g.constant([1 << 39, 1 << 39]), n_outputs=2, axis=1)[0]
    else:
        y = g.add("Gather", y, g.constant([0, 1, 2]), axis=1)
    path = written(tmp_path, g.model(y))
    with bounded_memory():
        refusal(path)


def test_deeply_nested_functions_of_functions(tmp_path):
    """Deeper than Python recurses: read, or refused."""
    g = GraphBuilder()
    y, _ = forward(g)
    for _ in range(3000):
        y = g.add("Tanh", y)
    y = g.add("Slice", y, *(g.constant([i]) for i in (-1, -(2**31), 1, -1)))
    refusal(written(tmp_path, g.model(y)))
