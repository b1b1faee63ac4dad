"""State dicts: as mappings, `.pt` and `.safetensors`, read without PyTorch. Expected values were recorded by it.

The text `chain` is in test_import_state_dict_chain.py, modules of a PyTorch that is there in
test_import_state_dict_pytorch.py, damaged files in test_import_state_dict_hostile.py.
"""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from state_dicts import FOLDER, arrays_of, close

import quantgru as qg
from quantgru.errors import QuantgruWarning

# The chains of the recorded files, by the part of their names before the first dot.
CHAINS = {
    "bfloat16": "gru head",
    "bidirectional": "gru head",
    "bidirectional_stack": None,
    "dense_around": "before tanh first between relu second last head sigmoid",
    "every_step_head": "gru head",
    "gru": None,
    "half": "gru head",
    "no_bias": None,
    "stack": "gru last head",
    "tokens": "embedding(embedding) gru head",
}


FILES = sorted(
    path for path in FOLDER.iterdir() if path.suffix in (".pt", ".safetensors") and not path.name.endswith(".module.pt")
)


@pytest.mark.parametrize("path", FILES, ids=[path.name for path in FILES])
def test_recorded_files(path):
    name = path.name.split(".")[0]
    record = np.load(FOLDER / f"{name}.npz")
    x = record["x"] if record["x"].ndim == 3 else record["x"][..., None]
    assert close(qg.load(path, chain=CHAINS[name]).run(x), record["y"])


def test_every_recorded_kind_is_there():
    assert {path.name.split(".")[0] for path in FILES} == CHAINS.keys()
    assert {"".join(path.suffixes) for path in FILES} == {
        ".pt",
        ".legacy.pt",
        ".safetensors",
        ".checkpoint.pt",
        ".views.pt",
    }


@pytest.mark.parametrize("name", ["gru.module.pt", "every_step_head.module.pt"])
def test_recorded_modules_are_refused(name):
    with pytest.raises(qg.ModelError, match=r"holds the Python object .*nothing of it was executed; .*state_dict\(\)"):
        qg.load(FOLDER / name)


def test_no_framework_is_needed():
    """Neither for files nor for arrays: PyTorch is not imported, even if it is there."""
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import quantgru as qg\n"
        f"for suffix in ('pt', 'legacy.pt', 'safetensors'): qg.load({str(FOLDER / 'gru')!r} + '.' + suffix)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_notes_have_no_path():
    """They go into files and exported code."""
    with pytest.warns(QuantgruWarning, match="every_step_head.pt: not in the chain, and left out: 'head'"):
        model = qg.load(FOLDER / "every_step_head.pt", chain="gru")
    assert model.notes == (
        "imported from PyTorch file every_step_head.pt",
        "not in the chain, and left out: 'head'",
    )
    assert model.name == "every_step_head"
    assert qg.load(FOLDER / "gru.safetensors").notes == ("imported from safetensors file gru.safetensors",)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_prefixes_of_wrappers(prefix):
    rng = np.random.default_rng(9)
    state = arrays_of(rng) | {"fc.weight": rng.normal(size=(4, 3)), "fc.bias": rng.normal(size=4)}
    wrapped = {prefix + name: array for name, array in state.items()}
    x = rng.normal(size=(2, 4, 2))
    assert np.array_equal(qg.load(wrapped, chain="gru fc").run(x), qg.load(state, chain="gru fc").run(x))


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_checkpoints(key):
    state = arrays_of(np.random.default_rng(10))
    checkpoint = {"epoch": 3, key: state, "optimizer_state_dict": {"state": {}, "param_groups": [{"lr": 0.1}]}}
    assert qg.load(checkpoint).layers[0].name == "gru"


def test_other_names_of_checkpoints():
    state = arrays_of(np.random.default_rng(10))
    assert np.array_equal(
        qg.load({"epoch": 3, "net": state}).layers[0].input_weights, qg.load(state).layers[0].input_weights
    )
    with pytest.raises(qg.ModelError, match="'optimizer' is a mapping, not a tensor; state dicts may be under"):
        qg.load({"epoch": 3, "optimizer": {"state": {}}})
    with pytest.raises(qg.ModelError, match="'net' is a mapping, not a tensor"):
        qg.load({"net": {}})
    for name in (3, "x" * 201, "a\nb", "\ud800"):
        with pytest.raises(qg.ModelError, match="holds keys that are no names, expected a state dict"):
            qg.load(state | {name: np.ones(3)})


@pytest.mark.parametrize(
    ("keys", "taken", "others"),
    [
        (("ema", "model"), "model", "'ema'"),
        (("net", "net_ema"), "net", "'net_ema'"),
        (("model_state_dict", "state_dict", "a"), "state_dict", "'model_state_dict', 'a'"),
    ],
)
def test_several_state_dicts(keys, taken, others):
    states = {key: arrays_of(np.random.default_rng(i)) for i, key in enumerate(keys)}
    message = f"several state dicts: that under '{taken}' is taken, not {others}"
    with pytest.warns(QuantgruWarning, match=f"^state dict: {message}; give one alone for another$"):
        model = qg.load({"epoch": 3, **states, "optimizer": {"state": {}}})
    assert model.notes[-1] == message
    expected = qg.load(states[taken])
    assert np.array_equal(model.layers[0].input_weights, expected.layers[0].input_weights)


@pytest.mark.parametrize("prefix", ["gru.", ""])
@pytest.mark.parametrize("key", ["ema", "exp_avg", "model"])
def test_a_state_dict_inside_of_another(key, prefix):
    """Which of them is meant, nobody can know."""
    state = arrays_of(np.random.default_rng(1), prefix=prefix)
    with pytest.raises(qg.ModelError, match=f"'{prefix}weight_ih_l0' beside another state dict, '{key}'"):
        qg.load(state | {key: arrays_of(np.random.default_rng(2), prefix=prefix)})


def test_settings_beside_a_state_dict():
    state = arrays_of(np.random.default_rng(1))
    found = qg.load({"model": {"hidden": 3, "cell": "gru"}, "weights": state, "rng_state": np.zeros(9, np.uint8)})
    assert np.array_equal(found.layers[0].input_weights, qg.load(state).layers[0].input_weights)


def test_quantized_weights_are_refused():
    """Their scale may be anywhere."""
    state = {name: np.round(array * 50).astype(np.int8) for name, array in arrays_of(np.random.default_rng(1)).items()}
    with pytest.raises(qg.ModelError, match=r"'gru' \(weight_ih_l0 of type int8\)"):
        qg.load(state)
    state = arrays_of(np.random.default_rng(1)) | {"fc.weight": np.ones((2, 3), np.int8), "fc.bias": np.ones(2)}
    with pytest.raises(qg.ModelError, match=r"module 'fc': bias \(2,\), weight \(2, 3\)"):
        qg.load(state, chain="gru fc")


def test_names_without_a_module():
    state = arrays_of(np.random.default_rng(11), prefix="")
    assert qg.load(state).layers[0].name == "gru"
    cell = {name.removesuffix("_l0"): array for name, array in state.items()}  # an nn.GRUCell
    x = np.random.default_rng(0).normal(size=(1, 4, 2))
    assert np.array_equal(qg.load(cell).run(x), qg.load(state).run(x))
    with pytest.raises(qg.ModelError, match="two modules named 'gru'; rename one"):
        qg.load(state | arrays_of(np.random.default_rng(11)))


REFUSED = {
    "lstm": (
        {"lstm.weight_ih_l0": (12, 2), "lstm.weight_hh_l0": (12, 3)},
        r"no GRU layer in it; it holds 'lstm' \(an LSTM layer\); train a GRU in its place$",
    ),
    "lstm alone": (
        {"weight_ih_l0": (12, 2), "weight_hh_l0": (12, 3)},
        r"it holds 'recurrent' \(an LSTM layer\); train a GRU in its place$",
    ),
    "simple rnn": ({"rnn.weight_ih_l0": (3, 2), "rnn.weight_hh_l0": (3, 3)}, r"'rnn' \(a simple RNN layer\)"),
    "projection": (
        {"lstm.weight_ih_l0": (12, 2), "lstm.weight_hh_l0": (12, 2), "lstm.weight_hr_l0": (2, 3)},
        "'lstm' .an LSTM layer with a projection",
    ),
    "five blocks": (
        {"a.weight_ih_l0": (15, 2), "a.weight_hh_l0": (15, 3)},
        r"weight_hh_l0 \(15, 3\), expected \(9, 3\)",
    ),
    "other inputs": ({"a.weight_ih_l0": (8, 2), "a.weight_hh_l0": (9, 3)}, r"weight_ih_l0 \(8, 2\), expected \(9, 2\)"),
    "three axes": (
        {"a.weight_ih_l0": (9, 2, 1), "a.weight_hh_l0": (9, 3)},
        r"weight_ih_l0 \(9, 2, 1\), expected \(9, 0\)",
    ),
    "no rows": ({"a.weight_ih_l0": (0, 2), "a.weight_hh_l0": (0, 0)}, r"expected \(0, 0\) in a GRU"),
    "a missing array": ({"a.weight_ih_l0": (9, 2)}, "'a' .a recurrent layer without weight_hh_l0"),
    "a missing bias": (
        {"a.weight_ih_l0": (9, 2), "a.weight_hh_l0": (9, 3), "a.bias_ih_l0": (9,)},
        "a recurrent layer without bias_hh_l0",
    ),
    "a missing layer": (
        {"a.weight_ih_l4": (9, 2), "a.weight_hh_l4": (9, 3)},
        "a recurrent layer 4 without those before it",
    ),
    "a cell, too": (
        {"weight_ih_l0": (9, 2), "weight_hh_l0": (9, 3), "weight_ih": (9, 2), "weight_hh": (9, 3)},
        "a recurrent layer with weight_hh, too",
    ),
    "nothing": ({}, "no GRU layer in it; it holds no module"),
    "layer norm": ({"ln.weight": (6,), "ln.bias": (6,)}, "'ln' .a LayerNorm or the like of 6 features"),
    "convolution": ({"conv.weight": (3, 2, 5), "conv.bias": (3,)}, r"'conv' \(bias \(3,\), weight \(3, 2, 5\)\)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_modules_are_named(case):
    shapes, message = REFUSED[case]
    with pytest.raises(qg.ModelError, match=message):
        qg.load({name: np.ones(shape) for name, shape in shapes.items()})


def test_a_module_that_is_no_gru_cannot_be_in_a_chain():
    state = arrays_of(np.random.default_rng(0)) | {
        "lstm.weight_ih_l0": np.ones((12, 3)),
        "lstm.weight_hh_l0": np.ones((12, 3)),
    }
    with pytest.raises(qg.ModelError, match="module 'lstm': an LSTM layer; supported is one chain of GRU layers"):
        qg.load(state, chain="gru lstm")
