"""ONNX files: recorded exports, the node tests of ONNX's own suite, options and packages."""

from __future__ import annotations

import builtins
import re
import subprocess
import sys
import textwrap
import warnings

import numpy as np
import pytest
from onnx_graphs import MODELS, TOLERANCE, GraphBuilder, computed, numpy_helper, onnx, refusal, samples, written

import quantgru as qg
from quantgru.errors import QuantgruWarning

# Recorded files that cannot be had, and what the refusal says.
REFUSED = {
    "hand_lengths": "sequence_lens .* the lengths of one batch",
    "hand_lengths_bidirectional": "sequence_lens",
    "hand_lengths_final_state": "sequence_lens",
    "hand_refused_clip": r"clip=0\.5; .*without clipping",
    "hand_refused_softsign": "activations 'sigmoid' and 'softsign'",
    "keras_tensorflow_masked": r"a comparison of data; .*without masks and conditions",
    "keras_torch_open_steps": "a GRU written out for 1 steps, though the number of steps is free",
}
FAULTS = [path.name for path in sorted(MODELS.glob("fault_*.onnx"))]
RECORDED = [path.name for path in sorted(MODELS.glob("*.onnx")) if path.name.split(".")[0] not in REFUSED]


def record_of(name: str) -> dict[str, np.ndarray]:
    return dict(np.load(MODELS / f"{name.split('.')[0]}.npz"))


def run(model: qg.FloatModel, record: dict[str, np.ndarray]) -> np.ndarray:
    """The model on a record, lengths and initial states as the record has them."""
    x = record["x"] if record["x"].ndim == 3 else record["x"][..., None]
    states = list(record["h0"]) if "h0" in record else None
    if "lengths" not in record:
        return model.run(x, initial_states=states)
    found = model.run([row[:n] for row, n in zip(x, record["lengths"], strict=True)], initial_states=states)
    return np.stack([np.pad(row, ((0, x.shape[1] - len(row)), (0, 0))) for row in found])


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_outputs(name):
    record = record_of(name)
    with warnings.catch_warnings():
        if name in FAULTS:
            warnings.simplefilter("ignore", QuantgruWarning)
        model = qg.load(MODELS / name)
    found = run(model, record)
    assert found.shape == record["y"].shape
    assert np.abs(found - record["y"]).max() <= TOLERANCE
    if "hn" in record:
        (state,) = model.final_states(record["x"], initial_states=list(record["h0"]) if "h0" in record else None)
        assert np.abs(state - record["hn"][0]).max() <= TOLERANCE
        assert "output 'hn' of the file is what model.final_states(x) gives" in model.notes


@pytest.mark.parametrize("name", REFUSED)
def test_recorded_files_that_are_refused(name):
    assert re.search(REFUSED[name], refusal(MODELS / f"{name}.onnx"))


# ---- PyTorch's exports with the reset before the product ------------------------------------------------------------


@pytest.mark.parametrize("name", FAULTS)
def test_the_known_fault_is_said_in_one_sentence_and_can_be_overridden(name):
    """linear_before_reset=0 by PyTorch, which resets after the product. Both outputs were recorded."""
    record = record_of(name)
    with pytest.warns(QuantgruWarning) as caught:
        as_written = qg.load(MODELS / name)
    (warning,) = caught
    assert warning.filename == __file__
    text = str(warning.message)
    assert "linear_before_reset=0, but PyTorch" in text and "reset='after'" in text and "--reset after" in text
    assert "\n" not in text and text.removeprefix(f"ONNX file {MODELS / name}: ") in as_written.notes
    with warnings.catch_warnings(action="error"):
        meant = qg.load(MODELS / name, reset="after")
        said = qg.load(MODELS / name, reset="before")
    assert np.abs(as_written.run(record["x"]) - record["y"]).max() <= TOLERANCE
    assert np.abs(said.run(record["x"]) - record["y"]).max() <= TOLERANCE
    assert np.abs(meant.run(record["x"]) - record["y_pytorch"]).max() <= TOLERANCE
    assert np.abs(record["y"] - record["y_pytorch"]).max() > 0.01


def test_only_pytorch_is_warned_of(tmp_path):
    g = GraphBuilder()
    y, _ = g.gru(g.input("x", ["steps", "batch", 3]), 3, 4)
    with warnings.catch_warnings(action="error"):
        assert qg.load(written(tmp_path, g.model(y, producer="tf2onnx"))).grus[0].reset == "before"
    with pytest.warns(QuantgruWarning, match="linear_before_reset=0"):
        qg.load(written(tmp_path, g.model(y, producer="pytorch")))


def test_reset_overrides_in_both_directions(tmp_path):
    """With reset "before", the recurrent bias of the candidate stands outside of the product."""
    g = GraphBuilder()
    y, _ = g.gru(g.input("x", ["steps", "batch", 3]), 3, 4, linear_before_reset=1)
    path = written(tmp_path, g.model(y))
    after, before = qg.load(path).grus[0], qg.load(path, reset="before").grus[0]
    assert after.recurrent_bias.any() and not before.recurrent_bias.any()
    assert np.allclose(before.bias[2], after.bias[2] + after.recurrent_bias, rtol=0, atol=1e-15)
    other = GraphBuilder()
    y, _ = other.gru(other.input("x", ["steps", "batch", 3]), 3, 4, linear_before_reset=0)
    model, x = other.model(y), samples(0, 2, 5, 3)
    (expected,) = computed(model, x=x.swapaxes(0, 1))
    assert np.abs(qg.load(path, reset="before").run(x) - expected[:, 0].swapaxes(0, 1)).max() <= TOLERANCE


def test_reset_without_a_node_to_act_on():
    with pytest.raises(qg.ConfigError, match="option reset='after', but no node GRU"):
        qg.load(MODELS / "keras_torch_reset_before.onnx", reset="after")


# ---- ONNX's back-end node tests -------------------------------------------------------------------------------------


def node_cases():
    """Those of GRU alone: some of the others warn when they are imported."""
    from onnx.backend.test.case import node
    from onnx.backend.test.case.node import gru  # registers its cases

    assert gru.GRU
    return [case for case in node._NodeTestCases if case.model.graph.node[0].op_type == "GRU"]


NODE_CASES = node_cases()


def test_every_case_of_the_suite_is_here():
    """By name, so that a newer onnx package with more of them is noticed."""
    assert {case.name for case in NODE_CASES} >= {
        "test_gru_defaults",
        "test_gru_with_initial_bias",
        "test_gru_seq_length",
        "test_gru_batchwise",
        "test_gru_reverse",
        "test_gru_bidirectional",
    }


@pytest.mark.parametrize("case", NODE_CASES, ids=lambda case: case.name)
def test_node_case(case, tmp_path):
    """The suite gives weights as inputs of the graph; in a file they are initializers."""
    ((inputs, outputs),) = case.data_sets
    model = onnx.ModelProto.FromString(case.model.SerializeToString())
    names = [entry.name for entry in model.graph.input]
    model.graph.initializer.extend(
        numpy_helper.from_array(array, name) for array, name in zip(inputs[1:], names[1:], strict=True)
    )
    del model.graph.input[1:]
    loaded = qg.load(written(tmp_path, model))
    by_batch = any(entry.name == "layout" and entry.i == 1 for entry in model.graph.node[0].attribute)
    x = inputs[0] if by_batch else inputs[0].swapaxes(0, 1)
    expected = dict(zip([entry.name for entry in model.graph.output], outputs, strict=True))
    if "Y" in expected:
        y = expected["Y"] if by_batch else expected["Y"].transpose(2, 0, 1, 3)
        assert np.abs(loaded.run(x) - y.reshape(*y.shape[:2], -1)).max() <= TOLERANCE
        states = np.stack(loaded.final_states(x), axis=1 if by_batch else 0)
    else:
        states = loaded.run(x)[:, None] if by_batch else loaded.run(x)[None]
    assert np.abs(states - expected["Y_h"]).max() <= TOLERANCE


# ---- names, options, packages ---------------------------------------------------------------------------------------


def test_names_and_notes():
    model = qg.load(MODELS / "dense_around.torchscript.onnx")
    assert model.name == "dense_around_torchscript"
    assert model.notes[0] == "imported from ONNX file dense_around.torchscript.onnx"
    assert qg.load(MODELS / "stack.dynamo.onnx", name="kws").name == "kws"
    with pytest.raises(qg.ConfigError, match=r"option chain='gru' has no meaning here; .* takes: softmax, reset"):
        qg.load(MODELS / "stack.dynamo.onnx", chain="gru")


def test_no_framework_is_imported():
    code = f"""
    import sys
    import quantgru as qg
    qg.load({str(MODELS / "stack.dynamo.onnx")!r})
    found = {{"keras", "torch", "tensorflow", "onnxruntime", "onnxscript"}} & set(sys.modules)
    assert not found, found
    """
    subprocess.run([sys.executable, "-W", "error", "-c", textwrap.dedent(code)], check=True, timeout=60)


def test_missing_onnx(monkeypatch):
    original = builtins.__import__

    def without_onnx(name, *arguments, **options):
        if name.split(".")[0] == "onnx":
            raise ImportError(name)
        return original(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without_onnx)
    with pytest.raises(qg.ConfigError, match=r"needs onnx, which is not installed: pip install quantgru\[onnx\]"):
        qg.load(MODELS / "stack.dynamo.onnx")
