"""Frozen graphs written by TensorFlow: outputs are those that it recorded beside them."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("google.protobuf", reason="protobuf is not installed: pip install quantgru[tensorflow1]")

from support_fixtures import fixtures
from support_graphs import MODELS, attribute_of, changed, keep_up_to
from support_gru_graphs import assert_close

import quantgru as qg
from quantgru.errors import ModelError
from quantgru.importers.tensorflow1_messages import GraphDef

FILES = {
    "dynamic.pb": "3 → 4 → 2",
    "dynamic.folded.pb": "3 → 4 → 2",
    "dynamic_every_step.pb": "3 → 4 → 2",
    "dynamic_stack.pb": "3 → 4 → 3 → 2",
    "dynamic_state.pb": "3 → 4 → 2",
    "static.pb": "3 → 4 → 2",
    "static.before_1_15.pb": "3 → 4 → 2",
    "static_relu.pb": "3 → 4 → 2",
}


# GRUs in other forms than GRUCell: gate, candidate, and where the reset gate acts.
FORMS = {
    "form_dynamic_block.pb": ("3 → 4", "sigmoid tanh before"),
    "form_dynamic_cudnn_compatible.pb": ("3 → 4 → 2", "sigmoid tanh after"),
    "form_dynamic_keras.pb": ("3 → 4", "hard_sigmoid tanh after"),
    "form_dynamic_lengths_both.pb": ("3 → 4", "sigmoid tanh before"),
    "form_dynamic_lengths_every_step.pb": ("3 → 4", "sigmoid tanh before"),
    "form_dynamic_scan.pb": ("3 → 4", "sigmoid tanh after"),
    "form_static_batch_normalisation.pb": ("3 → 4 → 4", "sigmoid tanh before"),
    "form_static_dropout_off.pb": ("3 → 4 → 2", "sigmoid tanh before"),
    "form_static_flat.pb": ("3 → 2 → 4 → 2", "sigmoid tanh before"),
    "form_static_half.pb": ("3 → 4", "sigmoid tanh before"),
    "form_static_hard_tanh.pb": ("3 → 4", "sigmoid hard_tanh before"),
    "form_static_keras.pb": ("3 → 4", "hard_sigmoid tanh before"),
    "form_static_two_states.pb": ("3 → 4 → 4", "sigmoid tanh before"),
}


@pytest.mark.parametrize("name", FILES)
def test_file_of_tensorflow(name):
    record = np.load(MODELS / f"{name.split('.')[0]}.npz")
    model = qg.load(MODELS / name)
    assert repr(model).split(": ")[1] == FILES[name] + ">"
    assert model.last_step == ("every_step" not in name)
    assert {gru.reset for gru in model.grus} == {"before"}
    assert {gru.candidate for gru in model.grus} == {"relu" if "relu" in name or "state" in name else "tanh"}
    assert_close(model.run(record["x"]), record["y"])


@pytest.mark.parametrize("fixture", fixtures(["tensorflow1/form_*.pb"]), ids=lambda fixture: fixture.path.stem)
def test_form_of_tensorflow(fixture):
    model, made = qg.load(fixture.path), fixture.made()
    shape, functions = FORMS[fixture.path.name]
    assert repr(model).split(": ")[1] == shape + ">"
    assert {f"{gru.gate} {gru.candidate} {gru.reset}" for gru in model.grus} == {functions}
    found, expected = model.run(made.x, **made.run_options), made.expected
    if isinstance(expected, list):
        found, expected = np.concatenate(found), np.concatenate(expected)
    assert_close(found, expected)


def test_all_files_are_in_the_tables():
    assert {path.name for path in MODELS.glob("*.pb")} == FILES.keys() | FORMS.keys() | {"refused_lstm.pb"}


def test_names_and_notes():
    model = qg.load(MODELS / "dynamic_stack.pb")
    assert model.name == "dynamic_stack"
    assert [layer.name for layer in model.layers] == [
        "rnn/rnn/multi_rnn_cell/cell_0/gru_cell",
        "rnn/rnn/multi_rnn_cell/cell_1/gru_cell",
        "xw_plus_b",
    ]
    assert model.notes == ("imported from TensorFlow graph dynamic_stack.pb",)


def test_kernels_are_where_the_convention_says():
    """The same as the constants by their names, by the importer of plain arrays."""
    graph = GraphDef.FromString((MODELS / "dynamic.pb").read_bytes())
    arrays = {}
    for part in ("gates/kernel", "gates/bias", "candidate/kernel", "candidate/bias"):
        tensor = attribute_of(graph, f"rnn/gru_cell/{part}", "value").tensor
        shape = [dim.size for dim in tensor.tensor_shape.dim]
        arrays[part] = np.frombuffer(tensor.tensor_content, "<f4").reshape(shape)
    (expected,) = qg.from_arrays("tensorflow1", **arrays).grus
    found = qg.load(MODELS / "dynamic.pb").grus[0]
    for field in ("input_weights", "recurrent_weights", "bias", "recurrent_bias"):
        assert (getattr(found, field) == getattr(expected, field)).all()


@pytest.mark.parametrize("name", ["rnn/transpose_1", "rnn/TensorArrayStack/TensorArrayGatherV3"])
def test_states_of_every_step_in_either_order(tmp_path, name):
    """Cut behind the loop, the states are the output, [sequences, steps, units] or [steps, sequences, units]."""
    record, (head,) = np.load(MODELS / "dynamic.npz"), qg.load(MODELS / "dynamic.pb").head
    model = qg.load(changed("dynamic.pb", tmp_path, lambda graph: keep_up_to(graph, name)))
    assert not model.last_step
    assert_close(model.run(record["x"])[:, -1] @ head.weights.T + head.bias, record["y"])


NOTES = {
    "form_static_dropout_off.pb": "node 'keep' ('PlaceholderWithDefault') has its default value",
    "form_static_half.pb": "TensorFlow computes in float16, the import in full precision: outputs differ by that",
    "form_static_two_states.pb": (
        "initial states, run(x, initial_states=[...]), are inputs of the file: [0] 'h0'[0], [1] 'h0'[1]"
    ),
    "form_dynamic_lengths_both.pb": "input 'lengths' of the file is the lengths of sequences, which the data have here",
}


@pytest.mark.parametrize("name", NOTES)
def test_notes(name):
    assert NOTES[name] in qg.load(MODELS / name).notes


def test_dropout_that_is_on(tmp_path):
    def half(graph):
        attribute_of(graph, "Const", "value").tensor.float_val[0] = 0.5

    with pytest.raises(ModelError, match="random numbers change the output, as of dropout that is on; build the graph"):
        qg.load(changed("form_static_dropout_off.pb", tmp_path, half))
