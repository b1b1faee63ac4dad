"""The text `chain`, which says what is done with the weights of a file: every word by hand, and its errors."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
from state_dicts import arrays_of, close, sigmoid, states_of

import quantgru as qg
from quantgru.errors import QuantgruWarning
from quantgru.importers.options import ImportOptions
from quantgru.importers.weights_chain import Recurrent, chain_of_parts
from quantgru.model import Embedding, Gru


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


WORDS_BETWEEN = "words between them: last, final, reverse, relu, sigmoid, tanh, softmax, log_softmax"
ORDER = ("none", "unknown", "spelling", "empty")  # what does not show in the text alone
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
    held = "; it holds 'gru' (GRU 2 → 3), 'fc1' (dense 3 → 4), 'fc2' (matrix 5 x 4); say the order in which they run"
    assert text.endswith(f"{held}, for example chain='gru last fc1 fc2'; {WORDS_BETWEEN}") == (case in ORDER), text
    assert "\n" not in text
    assert len(text) <= 400


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


def test_a_chain_in_a_list():
    state = arrays_of(np.random.default_rng(2)) | {"fc.weight": np.ones((2, 3)), "fc.bias": np.ones(2)}
    expected = qg.load(state, chain="gru last fc relu")
    for chain in (["gru", "last", "fc", "relu"], ("gru last", "fc relu")):
        model = qg.load(state, chain=chain)
        assert [layer.name for layer in model.layers] == ["gru", "fc"]
        assert (model.last_step, model.layers[1].activation) == (True, expected.layers[1].activation)
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
    assert str(caught.value).endswith(f", for example chain={example!r}; {WORDS_BETWEEN}")


def test_a_file_of_many_modules_is_shown_in_part():
    names = [f"a_module_with_a_long_name.{i}" for i in range(300)]
    state = arrays_of(np.random.default_rng(2)) | {f"{name}.weight": np.ones((3, 3)) for name in names}
    with pytest.raises(
        qg.ModelError, match=r"it holds 'gru' .*'a_module_with_a_long_name.1' .* and \d+ more; say"
    ) as caught:
        qg.load(state)
    assert len(str(caught.value)) <= 500


def test_warnings_show_the_line_of_the_user():
    state = arrays_of(np.random.default_rng(2)) | {"fc.weight": np.ones((2, 3))}
    with pytest.warns(QuantgruWarning, match="left out: 'fc'") as caught:
        qg.load(state, chain="gru")
    assert caught[0].filename == __file__
    with pytest.warns(QuantgruWarning, match="several state dicts") as caught:
        qg.load({"net": arrays_of(np.random.default_rng(1)), "ema": arrays_of(np.random.default_rng(2))})
    assert caught[0].filename == __file__
