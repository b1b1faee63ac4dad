"""State dicts: as mappings, `.pt` and `.safetensors`. Expected values are PyTorch's own; files are read without it.

What files may be that are damaged or made to harm is in test_import_state_dict_hostile.py.
"""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import quantgru as qg
from quantgru.errors import QuantgruWarning
from quantgru.importers.options import ImportOptions
from quantgru.importers.weights_chain import Recurrent, chain_of_parts
from quantgru.model import Bidirectional, Embedding, Gru

FOLDER = Path(__file__).resolve().parent / "models" / "pytorch"
TOLERANCE = 1e-12  # of the largest value; measured: 3e-15

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


def close(found, expected):
    return found.shape == expected.shape and np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()


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


def arrays_of(rng, n_inputs=2, units=3, bias=True, prefix="gru.", suffix="_l0"):
    """A state dict of one GRU layer in numpy."""
    shapes = {"weight_ih": (3 * units, n_inputs), "weight_hh": (3 * units, units)}
    if bias:
        shapes |= {"bias_ih": (3 * units,), "bias_hh": (3 * units,)}
    return {f"{prefix}{name}{suffix}": rng.normal(size=shape) for name, shape in shapes.items()}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def states_of(state, x, prefix="gru.", gate=sigmoid, candidate=np.tanh):
    """Rows r, z, n, as in the documentation of nn.GRU, one sequence at a time."""
    weights, recurrent, bias, recurrent_bias = (
        np.split(state[f"{prefix}{name}_l0"], 3) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    h, states = np.zeros(recurrent[0].shape[1]), []
    for step in x:
        from_x = [w @ step + b for w, b in zip(weights, bias, strict=True)]
        from_h = [u @ h + b for u, b in zip(recurrent, recurrent_bias, strict=True)]
        r, z = gate(from_x[0] + from_h[0]), gate(from_x[1] + from_h[1])
        n = candidate(from_x[2] + r * from_h[2])
        h = (1 - z) * n + z * h
        states.append(h)
    return np.array(states)


@pytest.mark.parametrize(
    ("functions", "gate", "candidate"),
    [
        ("", sigmoid, np.tanh),
        ("(sigmoid,tanh)", sigmoid, np.tanh),
        ("(hard_sigmoid, relu)", lambda a: np.clip(a / 6 + 0.5, 0, 1), lambda a: np.maximum(a, 0)),
        ("(hard_sigmoid,hard_tanh)", lambda a: np.clip(a / 6 + 0.5, 0, 1), lambda a: np.clip(a, -1, 1)),
        ("(sigmoid,linear)", sigmoid, lambda a: a),
        ("( sigmoid , sigmoid )", sigmoid, sigmoid),
    ],
)
def test_functions_in_brackets(functions, gate, candidate):
    rng = np.random.default_rng(1)
    state, x = arrays_of(rng), rng.normal(size=(2, 5, 2))
    model = qg.load(state, chain=f"gru{functions}")
    expected = np.array([states_of(state, sequence, gate=gate, candidate=candidate) for sequence in x])
    assert close(model.run(x), expected)


def test_words_of_the_chain():
    """Every word, by hand."""
    rng = np.random.default_rng(2)
    fc, out = rng.normal(size=(4, 3)), rng.normal(size=(2, 4))
    bias = rng.normal(size=4)
    state = arrays_of(rng) | {"fc.weight": fc, "fc.bias": bias, "out.weight": out}
    x = rng.normal(size=(1, 6, 2))
    h, reversed_h = states_of(state, x[0]), states_of(state, x[0, ::-1])
    expected = {
        "gru": h,
        "gru last": h[-1],
        "gru final": h[-1],
        "reverse gru": reversed_h,
        "reverse gru reverse": reversed_h[::-1],
        "gru fc": h @ fc.T + bias,
        "gru fc relu out": np.maximum(h @ fc.T + bias, 0) @ out.T,
        "gru last fc sigmoid out tanh": np.tanh(sigmoid(h[-1] @ fc.T + bias) @ out.T),
        "gru last fc tanh out(dense)": np.tanh(h[-1] @ fc.T + bias) @ out.T,
        "gru tanh fc": np.tanh(h) @ fc.T + bias,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", QuantgruWarning)
        for chain, values in expected.items():
            assert close(qg.load(state, chain=chain).run(x)[0], values), chain
        with pytest.raises(qg.ModelError, match="softmax"):
            qg.load(state, chain="gru fc softmax")
        model = qg.load(state, chain="gru fc softmax", softmax="logits")
    assert close(model.run(x)[0], expected["gru fc"])
    assert "softmax at the end left out: outputs are logits" in model.notes


def test_modules_that_are_not_in_the_chain_are_named():
    rng = np.random.default_rng(2)
    state = arrays_of(rng) | {"fc.weight": np.ones((2, 3)), "conv.weight": np.ones((2, 2, 2)), "scale": np.ones(())}
    with pytest.warns(QuantgruWarning, match="state dict: not in the chain, and left out: 'fc', 'conv', 'scale'$"):
        model = qg.load(state, chain="gru")
    assert model.notes[-1] == "not in the chain, and left out: 'fc', 'conv', 'scale'"


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


def test_normalisation_and_its_epsilon():
    rng = np.random.default_rng(3)
    state = arrays_of(rng, prefix="") | {
        "norm.running_mean": rng.normal(size=2),
        "norm.running_var": rng.uniform(0.1, 2, size=2),
        "norm.num_batches_tracked": np.array(7),
    }
    x = rng.normal(size=(1, 5, 2))
    mean, variance = state["norm.running_mean"], state["norm.running_var"]
    model = qg.load(state, chain="norm gru")
    assert "epsilon is not in the file: 1e-05 is taken" in model.notes[-1]
    assert close(model.run(x)[0], states_of(state, (x[0] - mean) / np.sqrt(variance + 1e-5), ""))
    model = qg.load(state, chain="norm(0.25) gru")
    assert close(model.run(x)[0], states_of(state, (x[0] - mean) / np.sqrt(variance + 0.25), ""))
    state |= {"norm.weight": np.array([2.0, -1.0]), "norm.bias": np.array([0.5, 3.0])}
    normalised = (x[0] - mean) / np.sqrt(variance) * state["norm.weight"] + state["norm.bias"]
    assert close(qg.load(state, chain="norm(0) gru").run(x)[0], states_of(state, normalised, ""))
    for wrong in ("norm(x) gru", "norm(2) gru", "norm(-1) gru", "norm(nan) gru", "norm(0,0) gru", "norm() gru"):
        with pytest.raises(qg.ModelError, match=r"module 'norm' with \(.*\): expected its epsilon, 0 ... 1"):
            qg.load(state, chain=wrong)
    state["norm.running_var"] = np.array([1.0, -1.0])
    with pytest.raises(qg.ModelError, match="module 'norm': a variance of -1"):
        qg.load(state, chain="norm gru")


def test_embedding_and_dense_layers_without_bias_look_alike():
    rng = np.random.default_rng(4)
    state = {"words.weight": rng.normal(size=(7, 2))} | arrays_of(rng) | {"out.weight": rng.normal(size=(4, 3))}
    message = r"module 'words', a lone matrix 7 x 2: write words\(embedding\) for .* 7 tokens, or words\(dense\)"
    with pytest.raises(qg.ModelError, match=message):
        qg.load(state, chain="words gru out")
    model = qg.load(state, chain="words(embedding) gru out")
    assert isinstance(model.layers[0], Embedding)
    tokens = np.array([3, 0, 6, 6])
    expected = states_of(state, state["words.weight"][tokens]) @ state["out.weight"].T
    assert close(model.run(tokens[None, :, None])[0], expected)
    with pytest.raises(qg.ModelError, match="an embedding after another layer"):
        qg.load(state, chain="gru out(embedding) words")
    with pytest.raises(qg.ModelError, match="layer 'gru': 2 inputs, but the layer before it gives 7"):
        qg.load(state, chain="words(dense) gru out")


def test_merges_in_brackets():
    rng = np.random.default_rng(5)
    state = arrays_of(rng) | arrays_of(rng, suffix="_l0_reverse")
    x = rng.normal(size=(2, 5, 2))
    both = qg.load(state).run(x)
    forward, backward = both[..., :3], both[..., 3:]
    assert close(qg.load(state, chain="gru(sum)").run(x), forward + backward)
    assert close(qg.load(state, chain="gru(ave)").run(x), (forward + backward) / 2)
    assert close(qg.load(state, chain="gru(mul)").run(x), forward * backward)
    assert close(qg.load(state, chain="gru(concat) final").run(x), np.hstack((forward[:, -1], backward[:, 0])))
    assert close(qg.load(state, chain="gru(sigmoid, tanh, sum) last").run(x), (forward + backward)[:, -1])


NOT_IN_FILE = "the order in which they run is not in the file"
WRONG_CHAINS = {
    "none": (None, "weights of several modules, without their order"),
    "unknown": ("gru last fc3", "the chain names 'fc3', which is neither a module of it nor a word"),
    "spelling": ("gru Relu fc1", "the chain names 'Relu', which is neither"),
    "twice": ("gru gru", "the chain names module 'gru' twice"),
    "brackets": ("gru fc1(", "the chain cannot be read from 'fc1\\(' on"),
    "brackets alone": ("gru (sum)", "the chain cannot be read from '\\(sum\\)' on"),
    "brackets in brackets": ("gru((sum))", "the chain cannot be read from"),
    "empty": ("  ", "the chain is empty"),
    "one function": ("gru(relu)", "module 'gru' with \\(relu\\): in brackets may be two functions"),
    "order of functions": ("gru(tanh, sigmoid)", "of the gates \\(sigmoid, hard_sigmoid\\) and of the candidate"),
    "three functions": ("gru(sigmoid, tanh, relu)", "in brackets may be two functions"),
    "two merges": ("gru(sum, mul)", "in brackets may be two functions.* a merge \\(concat, sum, mul, ave\\)"),
    "empty argument": ("gru()", "module 'gru' with \\(\\)"),
    "merge of one": ("gru(sum)", "module 'gru' has one direction, so nothing for 'sum' to merge"),
    "reset that is known": ("gru(before)", "the file says where its reset gate acts; leave 'before' out"),
    "brackets after a word": ("gru last(2) fc1", "'last' of the chain takes nothing in brackets, found \\(2\\)"),
    "brackets after dense": ("gru fc1(relu)", "'fc1' of the chain takes nothing in brackets, found \\(relu\\)"),
}


@pytest.mark.parametrize("case", WRONG_CHAINS)
def test_wrong_chains_name_the_modules_and_an_example(case):
    chain, message = WRONG_CHAINS[case]
    rng = np.random.default_rng(6)
    state = arrays_of(rng) | {
        "fc1.weight": rng.normal(size=(4, 3)),
        "fc1.bias": rng.normal(size=4),
        "fc2.weight": rng.normal(size=(5, 4)),
    }
    with pytest.raises(qg.ModelError) as caught:
        qg.load(state, chain=chain)
    text = str(caught.value)
    assert re.match(f"state dict: .*{message}", text), text
    assert "it holds 'gru' (GRU 2 → 3), 'fc1' (dense 3 → 4), 'fc2' (matrix 5 x 4); say with chain" in text
    assert f"; for example chain='gru last fc1 fc2', to be adapted: {NOT_IN_FILE}" in text
    assert "\n" not in text


@pytest.mark.filterwarnings("ignore::quantgru.errors.QuantgruWarning")
@pytest.mark.parametrize(
    ("chain", "message"),
    [
        ("last gru", "a GRU layer after the last step was taken"),
        ("gru last reverse", "the order of steps after the last step was taken"),
        ("gru fc final", "takes the final states of something else than the layer before it"),
        ("fc", "no GRU layer"),
        ("gru softmax", "softmax without a dense layer before it"),
        ("relu gru", "relu on the inputs of the model"),
    ],
)
def test_chains_that_no_model_is(chain, message):
    state = arrays_of(np.random.default_rng(7)) | {"fc.weight": np.ones((2, 3)), "fc.bias": np.ones(2)}
    with pytest.raises(qg.ModelError, match=message):
        qg.load(state, chain=chain)


@pytest.mark.parametrize("reset", ["after", "before"])
def test_a_reset_that_the_file_does_not_say(reset):
    """As Keras leaves it open where there is no bias."""
    rng = np.random.default_rng(0)
    gru = Gru("gru", "after", rng.normal(size=(3, 2, 1)), rng.normal(size=(3, 2, 2)), np.zeros((3, 2)), np.zeros(2))
    parts = {"gru": Recurrent((gru,), says_reset=False)}
    for chain in (None, "gru", "gru(sigmoid, tanh)"):
        with pytest.raises(qg.ModelError, match=r"module 'gru' has no bias, .*: write gru\(after\) or gru\(before\)"):
            chain_of_parts("file", parts, ImportOptions(chain=chain))
    (layer,) = chain_of_parts("file", parts, ImportOptions(chain=f"gru({reset}, hard_sigmoid, relu)"), 0.2).layers
    assert (layer.reset, layer.gate, layer.candidate) == (reset, "hard_sigmoid", "relu")
    np.testing.assert_allclose(layer.input_weights[:2], 0.2 * gru.input_weights[:2])


def test_the_name_of_a_module_wins_over_a_word():
    rng = np.random.default_rng(8)
    state = arrays_of(rng) | {"last.weight": rng.normal(size=(2, 3)), "last.bias": rng.normal(size=2)}
    x = rng.normal(size=(1, 4, 2))
    model = qg.load(state, chain="gru last")
    assert close(model.run(x)[0], states_of(state, x[0]) @ state["last.weight"].T + state["last.bias"])


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
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


def test_a_chain_in_a_list():
    state = arrays_of(np.random.default_rng(2)) | {"fc.weight": np.ones((2, 3)), "fc.bias": np.ones(2)}
    expected = qg.load(state, chain="gru last fc relu")
    for chain in (["gru", "last", "fc", "relu"], ("gru last", "fc relu")):
        model = qg.load(state, chain=chain)
        assert [layer.name for layer in model.layers] == ["gru", "fc"]
        assert (model.last_step, model.layers[1].activation) == (True, expected.layers[1].activation)
    assert ImportOptions(chain=["gru", "last"]) == ImportOptions(chain="gru last")
    for wrong in (3, ["gru", 3], {"gru": 1}, b"gru", True):
        with pytest.raises(qg.ConfigError, match=r"load: chain=.*, expected one text of words, or a list of them"):
            qg.load(state, chain=wrong)
    with pytest.raises(qg.ModelError, match="the chain is empty"):
        qg.load(state, chain=[])
    with pytest.raises(qg.ConfigError, match="option chain='gru last' has no meaning here"):
        qg.load(expected, chain=["gru", "last"])


@pytest.mark.parametrize(
    ("shapes", "example"),
    [
        ({"words.weight": (7, 2), "gru": 2, "out.weight": (4, 3)}, "words(embedding) gru last out"),
        ({"before.weight": (2, 5), "gru": 2}, "before(dense) gru"),
        ({"in.weight": (2, 5), "in.bias": (2,), "gru": 2, "fc.weight": (4, 3)}, "in gru last fc"),
        ({"fc.weight": (4, 3), "fc.bias": (4,), "gru": 2}, "gru last fc"),  # as safetensors sorts them
        ({"a": 2, "conv.weight": (2, 2, 2), "b": 3, "fc.weight": (4, 3), "fc.bias": (4,)}, "a b last fc"),
    ],
)
def test_examples_are_in_the_order_of_the_file(shapes, example):
    state = {}
    for name, shape in shapes.items():
        if isinstance(shape, int):
            state |= arrays_of(np.random.default_rng(2), shape, prefix=f"{name}.")
        else:
            state[name] = np.ones(shape)
    with pytest.raises(qg.ModelError) as caught:
        qg.load(state)
    assert str(caught.value).endswith(f"; for example chain={example!r}, to be adapted: {NOT_IN_FILE}")


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
        r"no GRU layer in it; it holds 'lstm' \(an LSTM",
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


torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install quantgru[torch]")

from torch import nn  # noqa: E402
from torch.nn.utils import prune  # noqa: E402


class Net(nn.Module):
    """Random, in float64."""

    def __init__(self, n_layers, bidirectional, bias, seed):
        super().__init__()
        self.encoder = nn.ModuleDict({"gru": nn.GRU(3, 4, n_layers, bias, True, 0.0, bidirectional)})
        self.fc = nn.Linear(4 * (1 + bidirectional), 2, bias=bias)
        generator = torch.Generator().manual_seed(seed)
        for parameter in self.double().parameters():
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator))

    def forward(self, x, final):
        out, h = self.encoder["gru"](x)
        if not final:
            return torch.tanh(self.fc(out))
        return self.fc(torch.cat((h[-2], h[-1]), dim=1) if self.encoder["gru"].bidirectional else h[-1])


@settings(max_examples=60)
@given(
    st.integers(1, 3),
    st.tuples(st.booleans(), st.booleans(), st.booleans()),
    st.sampled_from(["mapping", "zip", "legacy", "protocol 4", "safetensors", "checkpoint"]),
    st.integers(0, 1000),
)
def test_the_cross_product(tmp_path_factory, n_layers, flags, kind, seed):
    bidirectional, bias, final = flags
    net = Net(n_layers, bidirectional, bias, seed)
    x = np.random.default_rng(seed).normal(size=(3, 5, 3))
    with torch.no_grad():
        expected = net(torch.from_numpy(x), final).numpy()
    source = saved(net.state_dict(), kind, tmp_path_factory.mktemp("files"))
    model = qg.load(source, chain="encoder.gru final fc" if final else "encoder.gru fc tanh")
    assert close(model.run(x), expected)
    recurrent = [layer for layer in model.layers if isinstance(layer, (Gru, Bidirectional))]
    assert len(recurrent) == n_layers
    assert model.layers[0].name == ("encoder.gru" if n_layers == 1 else "encoder.gru.0")


def saved(state, kind, folder):
    if kind == "mapping":
        return state
    if kind == "safetensors":
        from safetensors.torch import save_file

        save_file(state, folder / "net.safetensors")
        return folder / "net.safetensors"
    options = {"legacy": {"_use_new_zipfile_serialization": False}, "protocol 4": {"pickle_protocol": 4}}
    content = {"state_dict": state, "args": [1, 2.5, None, True, "text"]} if kind == "checkpoint" else state
    torch.save(content, folder / "net.pth", **options.get(kind, {}))
    return folder / "net.pth"


@pytest.mark.parametrize("kind", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("wrap", ["mapping", "zip", "legacy", "safetensors"])
def test_types(kind, wrap, tmp_path):
    gru = nn.GRU(3, 4).to(kind)
    model = qg.load(saved(gru.state_dict(), wrap, tmp_path))
    expected = gru.double()
    x = np.random.default_rng(0).normal(size=(2, 5, 3))
    with torch.no_grad():
        y = expected(torch.from_numpy(x.swapaxes(0, 1).copy()))[0].numpy().swapaxes(0, 1)
    assert close(model.run(x), y)


@pytest.mark.parametrize("legacy", [False, True])
def test_tensors_of_any_kind_of_view(legacy, tmp_path):
    """What torch.load gives, and what the reader gives."""
    from quantgru.importers.pytorch_file import read_pt

    base = torch.arange(120.0, dtype=torch.float64)
    tensors = {
        "whole": base,
        "matrix": base.view(10, 12),
        "transposed": base.view(10, 12).t(),
        "part": base.view(10, 12)[2:7:2, 1:9:3],
        "three": base.view(2, 3, 20).permute(2, 0, 1)[5:],
        "number": base[17],
        "empty": base[:0],
        "empty matrix": torch.empty(3, 0),
        "one row": base.view(10, 12)[3:4].t(),
        "int64": torch.arange(5),
        "int32": torch.arange(5, dtype=torch.int32)[1::2],
        "int16": torch.arange(-5, 5, dtype=torch.int16),
        "int8": torch.arange(-5, 5, dtype=torch.int8),
        "uint8": torch.arange(5, dtype=torch.uint8),
        "bool": torch.tensor([True, False, True]),
        "float16": torch.tensor([1.5, -3e-5]).half(),
        "bfloat16": torch.tensor([1.5, -3e-5, 3e38]).bfloat16(),
        "parameter": nn.Parameter(base[3:9]),
    }
    path = tmp_path / "tensors.pt"
    torch.save(tensors, path, _use_new_zipfile_serialization=not legacy)
    file = read_pt("file", path)
    found = file.arrays(file.value)
    assert found.keys() == tensors.keys()
    for name, tensor in torch.load(path, weights_only=True).items():
        expected = tensor.detach()
        expected = (expected.float() if expected.dtype == torch.bfloat16 else expected).numpy()
        assert found[name].dtype == expected.dtype, name
        assert np.array_equal(found[name], expected), name


def test_tensors_on_no_device_and_other_objects():
    state = nn.GRU(2, 3).state_dict()
    with pytest.raises(qg.ModelError, match=r"'weight_ih_l0' is no array .*give tensors or arrays"):
        qg.load(state | {"weight_ih_l0": torch.empty(9, 2, device="meta")})
    with pytest.raises(qg.ModelError, match=r"parameter 'bias_hh_l0' holds nan at \[1\]"):
        qg.load(state | {"bias_hh_l0": torch.tensor([0.0, float("nan")] + [0.0] * 7)})
    with pytest.raises(qg.ModelError, match="weight_ih_l0 of type object"):
        qg.load(state | {"weight_ih_l0": np.array([["a", None]] * 9, dtype=object)})


REPARAMETRISED = {
    "parametrized": (
        lambda net: nn.utils.parametrizations.weight_norm(net["gru"], "weight_hh_l0"),
        r"'gru' \(weight_hh_l0 is parametrized; save it after .*remove_parametrizations\(module, 'weight_hh_l0'",
    ),
    "parametrized dense": (
        lambda net: nn.utils.parametrizations.spectral_norm(net["fc"]),
        r"'fc' \(weight is parametrized; save it after parametrize.remove_parametrizations\(module, 'weight'\)",
    ),
    "weight_norm": (
        lambda net: nn.utils.weight_norm(net["gru"], "weight_ih_l0"),
        r"'gru' \(weight_ih_l0 is stored as weight_ih_l0_g and weight_ih_l0_v by weight_norm; .*remove_weight_norm",
    ),
    "weight_norm of a dense layer": (
        lambda net: nn.utils.weight_norm(net["fc"]),
        r"'fc' \(weight is stored as weight_g and weight_v by weight_norm; save it after remove_weight_norm",
    ),
    "spectral_norm": (
        lambda net: nn.utils.spectral_norm(net["fc"]),
        r"'fc' \(weight is stored as weight_orig and weight_u by spectral_norm; save it after remove_spectral_norm",
    ),
    "pruned": (
        lambda net: prune.l1_unstructured(net["gru"], "weight_hh_l0", 0.5),
        r"'gru' \(weight_hh_l0 is stored as weight_hh_l0_orig and weight_hh_l0_mask by pruning; .*prune.remove",
    ),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("case", REPARAMETRISED)
def test_weights_that_are_computed_are_named(case):
    change, message = REPARAMETRISED[case]
    net = nn.ModuleDict({"gru": nn.GRU(2, 3), "fc": nn.Linear(3, 2)})
    change(net)
    with pytest.raises(qg.ModelError, match=message):
        qg.load(net.state_dict())
    with pytest.raises(qg.ModelError, match=r"module '(gru|fc)': weight.*; save it after"):
        qg.load(net.state_dict(), chain="gru fc")


def test_parametrized_weights_of_a_gru_alone():
    gru = nn.utils.parametrizations.weight_norm(nn.GRU(2, 3), "weight_hh_l0")
    with pytest.raises(qg.ModelError, match=r"'gru' \(weight_hh_l0 is parametrized"):
        qg.load(gru.state_dict())


def test_a_layer_norm_in_a_chain():
    net = nn.ModuleDict({"gru": nn.GRU(2, 3), "norm": nn.LayerNorm(3)})
    with pytest.raises(qg.ModelError, match="module 'norm': a LayerNorm or the like of 3 features; supported is"):
        qg.load(net.state_dict(), chain="gru norm")


@pytest.mark.parametrize("name", ["net.ckpt", "pytorch_model.bin", "net.pth.tar", "net.PTH"])
def test_other_names_of_files(name, tmp_path):
    """What a file holds decides, not its name."""
    gru = nn.GRU(2, 3)
    checkpoint = {"epoch": 2, "net": gru.state_dict(), "optimizer": torch.optim.Adam(gru.parameters()).state_dict()}
    torch.save(checkpoint, tmp_path / name)
    model = qg.load(tmp_path / name)
    assert model.name == name.partition(".")[0]
    assert np.array_equal(model.layers[0].input_weights, qg.load(gru).layers[0].input_weights)
    torch.save({"net": gru.state_dict(), "ema": nn.GRU(2, 3).state_dict()}, tmp_path / name)
    with pytest.warns(QuantgruWarning, match="several state dicts: that under 'net' is taken, not 'ema'"):
        model = qg.load(tmp_path / name)
    assert np.array_equal(model.layers[0].input_weights, qg.load(gru).layers[0].input_weights)
    (tmp_path / name).write_bytes(b"something else")
    with pytest.raises(qg.ModelError, match=f"PyTorch file .*{name}: "):
        qg.load(tmp_path / name)


def test_the_state_dict_of_a_module_is_the_module():
    net = nn.GRU(3, 4, 2, bidirectional=True)
    x = np.random.default_rng(0).normal(size=(2, 5, 3))
    assert close(qg.load(net.state_dict()).run(x), qg.load(net).run(x))
