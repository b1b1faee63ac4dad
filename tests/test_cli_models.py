"""Commands on the many kinds of models: what can be loaded, options of sources, masks and initial states."""

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import assert_refused, done, quantgru

import quantgru as qg


def test_formats_lists_sources_and_conventions(here: Path) -> None:
    out = done(quantgru("formats"))
    for part in (
        ".keras",
        ".h5",
        ".onnx",
        ".pt",
        ".safetensors",
        ".pb",
        ".npz",
        ".qgf",
        "--chain",
        "wikipedia-minimal",
    ):
        assert part in out, part
    facts = json.loads(done(quantgru("formats", "--json")))
    onnx = next(source for source in facts["sources"] if source["files"] == [".onnx"])
    assert onnx["options"] == ["softmax", "reset"]
    assert "flax" in [convention["name"] for convention in facts["conventions"]]


def test_options_that_a_source_does_not_take(here: Path) -> None:
    command = ["quantize", "m.qgf", "--calibration", "x.npz", "-o", "out.qgru"]
    says = "option reset='after' has no meaning here; this source takes: none"
    assert_refused(quantgru(*command, "--reset", "after"), says)


def test_plain_arrays_from_the_command_line(here: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez("arrays.npz", W=rng.normal(size=(1, 9, 8)), R=rng.normal(size=(1, 9, 3)))
    command = ["quantize", "arrays.npz", "--calibration", "x.npz", "-o", "out.qgru"]
    done(quantgru(*command, "--convention", "onnx-linear-before-reset-1"))
    assert qg.IntModel.load("out.qgru").grus[0].reset == "after"
    assert_refused(quantgru(*command, "--convention", "onix"), "onnx-linear-before-reset-1")


def test_masks_and_initial_states_of_an_input_file(here: Path) -> None:
    x, model = np.load("x.npz")["x"][:3], qg.IntModel.load("m.qgru")
    mask = np.ones(x.shape[:2], dtype=bool)
    mask[:, 2] = False
    states = np.random.default_rng(0).uniform(-1, 1, size=(3, 32))
    np.savez("more.npz", x=x, mask=mask, initial_state0=states)
    done(quantgru("simulate", "m.qgru", "--input", "more.npz", "-o", "y.npz"))
    expected = qg.simulate(model, np.delete(x, 2, axis=1), initial_states=[states])
    np.testing.assert_array_equal(np.load("y.npz")["y"], expected)
    done(quantgru("simulate", "m.qgru", "--input", "more.npz", "-o", "trace.npz", "--trace"))
    traced = np.load("trace.npz")
    assert traced["kept"].tolist() == mask.tolist()
    assert traced["layer0.h"].shape[:2] == (3, mask[0].sum())
    assert_refused(quantgru("hil", "m.qgru", "--input", "more.npz", "--board", "host"), "has initial states")
    np.savez("wrong.npz", x=x, initial_state0=states[:, :3])
    says = "initial states, layer 0: shape (3, 3)"
    assert_refused(quantgru("simulate", "m.qgru", "--input", "wrong.npz", "-o", "z.npz"), says)


def test_a_model_that_needs_whole_sequences(here: Path) -> None:
    """It is quantized, simulated, inspected and run on a board, where it has outputs alone."""
    gru = qg.load("m.qgf").grus[0]
    both = qg.FloatModel((qg.Bidirectional("both", gru, gru),), last_step=False)
    both.save("both.qgf")
    done(quantgru("quantize", "both.qgf", "--calibration", "x.npz", "-o", "both.qgru"))
    inspected = done(quantgru("inspect", "both.qgru"))
    assert "over a whole sequence" in inspected
    # Two directions of 32 units: rows of 64 states, 2 bytes each; the inputs, 8, fit beside one direction.
    assert "bytes of scratch that models can share, and 128 for each step of the longest sequence" in inspected
    done(quantgru("simulate", "both.qgru", "--input", "x.npz", "-o", "y.npz"))
    assert np.load("y.npz")["y"].shape[2] == 64
    compared = done(quantgru("hil", "both.qgru", "--input", "x.npz", "--board", "host"))
    assert "us a step, of whole sequences: " in compared
    assert compared.splitlines()[-1].endswith(" steps equal")
    on_host = ("--board", "host")
    assert_refused(quantgru("hil", "both.qgru", "--input", "x.npz", "--by", "states", *on_host), "keeps no states")
    assert_refused(quantgru("hil", "both.qgru", "--steps", "9", *on_host), "boards generate single steps")
    with pytest.raises(qg.ModelError, match="both"):
        qg.Stream(qg.IntModel.load("both.qgru"))


def test_a_model_of_tokens(here: Path) -> None:
    """Token numbers are integers [sequences, steps]; what a table of real inputs says has no meaning for them."""
    rng = np.random.default_rng(0)
    weights = {"weight_ih": rng.normal(size=(9, 2)), "weight_hh": rng.normal(size=(9, 3))}
    gru = qg.from_arrays("pytorch", **weights).layers[0]
    model = qg.FloatModel((qg.Embedding("words", rng.normal(size=(12, 2))), gru), last_step=True)
    model.save("words.qgf")
    np.savez("tokens.npz", x=rng.integers(1, 9, (20, 7)))
    done(quantgru("quantize", "words.qgf", "--calibration", "tokens.npz", "-o", "words.qgru"))
    inspected = done(quantgru("inspect", "words.qgru"))
    assert "Tokens 0 ... 11, seen 1 ... 8; calibrated on 20 sequences of 140 steps together" in inspected
    assert "clips" not in inspected
    np.savez("floats.npz", x=rng.normal(size=(20, 7)))
    says = "shape (20, 7), expected [sequences, steps, features]; token numbers are integers"
    assert_refused(quantgru("simulate", "words.qgru", "--input", "floats.npz", "-o", "y.npz"), says)
