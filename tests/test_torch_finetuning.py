"""Fine-tuning in PyTorch: evaluation computes the integers, training has their weights, and what is refused."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import oracle
import pytest
from conversions import to_oracle
from float_models import random_dense, random_gru, random_x
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import INPUTS, any_plans, int_models, random_inputs

import quantgru as qg
from quantgru.activations import CANDIDATES, GATES
from quantgru.errors import ConfigError
from quantgru.int_model import IntBidirectional, IntModel, Matrix
from quantgru.int_model.row_parameters import is_short
from quantgru.report.accuracy import sqnr_db
from quantgru.simulator import run

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install quantgru[torch]")

from torch import nn  # noqa: E402

from quantgru.torch.integers import run_integers  # noqa: E402
from quantgru.torch.rows import Operands, Rows  # noqa: E402
from quantgru.torch.steps import Steps  # noqa: E402

README = Path(__file__).resolve().parent.parent / "README.md"
X = random_x(40, 15, 3)
LENGTHS = np.random.default_rng(3).integers(1, 16, 40)
LENGTHS[0] = 15


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Many small products: threads would wait for each other longer than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def gru(n_inputs: int, units: int, reset: str = "after", name: str = "gru", **changed) -> qg.Gru:
    layer = random_gru(np.random.default_rng(7), n_inputs, units, reset, name)
    return replace(layer, recurrent_weights=layer.recurrent_weights / 2, **changed)  # relu stays within a few units


def dense(n_inputs: int, n_outputs: int, activation: str = "linear", name: str = "dense") -> qg.Dense:
    return random_dense(np.random.default_rng(8), n_inputs, n_outputs, activation, name)


def both(merge: str, final: bool = False) -> qg.Bidirectional:
    return qg.Bidirectional("both", gru(3, 4, name="f"), gru(3, 4, "before", "b"), merge, final)  # type: ignore[arg-type]


CELLS = {
    f"{reset}, {gate}, {candidate}": (
        gru(3, 5, reset, gate=gate, candidate=candidate, initial_state=np.linspace(-0.9, 1.7, 5)),
    )
    for reset in ("after", "before")
    for gate in GATES
    for candidate in CANDIDATES
}
CHAINS = {
    "stack": (gru(3, 5), gru(5, 4, "before", "gru2"), dense(4, 3, "relu"), dense(3, 2, "tanh", "out")),
    "dense before": (dense(3, 4, "sigmoid"), gru(4, 5), dense(5, 2, name="out")),
    "reversed": (qg.Reverse(), gru(3, 5), dense(5, 2)),
    "whole sequences": (gru(3, 5), qg.Reverse(), gru(5, 4, name="gru2")),
    **{merge: (both(merge), dense(8 if merge == "concat" else 4, 2)) for merge in ("concat", "sum", "mul", "ave")},
}
FINAL = {"final": (both("concat", final=True), dense(8, 2)), "last step": CHAINS["stack"]}


def assert_equal_in_evaluation(prepared: qg.torch.Prepared, x: np.ndarray, lengths: np.ndarray) -> IntModel:
    """Outputs and states of a batch with padding, against the simulator's run of the converted model."""
    int_model = qg.torch.convert(prepared)
    expected = run(int_model, [sequence[:length] for sequence, length in zip(x, lengths, strict=True)])
    found = prepared.eval().run(torch.tensor(x), torch.tensor(lengths))
    raw = found.outputs.numpy() * 2.0**int_model.output_fraction_bits
    assert np.array_equal(raw, expected.outputs_raw)
    for h, of_layer, layer in zip(found.states, expected.states_raw, int_model.grus, strict=True):
        assert np.array_equal(h.numpy() * 2.0**layer.state_fraction_bits, of_layer)
    return int_model


# ---- integers ------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(int_models(any_plans()), st.sampled_from(INPUTS), st.integers(0, 2**32))
def test_the_integers_are_those_of_the_contract(model: IntModel, kind: str, seed: int) -> None:
    raw = random_inputs(kind, 4, model.n_inputs, seed)
    expected = oracle.run_sequence(to_oracle(model), raw)
    outputs, states = run_integers(model, Steps(torch.tensor([raw]), torch.tensor([4])))
    assert outputs.reshape(len(expected.outputs), -1).tolist() == [list(y) for y in expected.outputs]
    backward = [layer.backward for layer in model.layers if isinstance(layer, IntBidirectional)]
    for h, gru, steps in zip(states, model.grus, expected.traces, strict=True):
        in_order = steps[::-1] if gru in backward else steps
        assert h[0].tolist() == [list(step.h) for step in in_order]


@pytest.mark.parametrize("layers", [*CELLS.values(), *CHAINS.values()], ids=[*CELLS, *CHAINS])
def test_evaluation_is_the_converted_model(layers: tuple[qg.Gru, ...]) -> None:
    model = qg.FloatModel(layers, last_step=False)
    prepared = qg.torch.prepare(model, X, weight_bits=4)
    int_model = assert_equal_in_evaluation(prepared, X, LENGTHS)
    assert int_model.digest == qg.quantize(model, X, weight_bits=4).digest


def test_short_row_parameters_stay_short() -> None:
    layer = gru(3, 8)
    large = replace(layer, bias=10 * layer.bias)  # so that exact ones have more than 16 bits
    model = qg.FloatModel((large, dense(8, 1)), last_step=False)
    prepared = qg.torch.prepare(model, X, row_parameters="short")
    assert qg.torch.convert(prepared).digest == qg.quantize(model, X, row_parameters="short").digest
    train(prepared, torch.tensor(X), n_batches=3)
    assert is_short(assert_equal_in_evaluation(prepared, X, LENGTHS))


def test_it_begins_as_the_refined_integers() -> None:
    model = qg.FloatModel((gru(3, 5), dense(5, 2)), last_step=False)
    prepared = qg.torch.prepare(model, X, weight_bits=4, refine=2)
    int_model = assert_equal_in_evaluation(prepared, X, LENGTHS)
    assert int_model.digest == qg.quantize(model, X, weight_bits=4, refine=2).digest
    assert int_model.digest != qg.quantize(model, X, weight_bits=4).digest


@pytest.mark.parametrize("layers", FINAL.values(), ids=FINAL)
def test_a_single_vector(layers: tuple[qg.Gru, ...]) -> None:
    prepared = qg.torch.prepare(qg.FloatModel(layers, last_step=True), X)
    assert_equal_in_evaluation(prepared, X, LENGTHS)
    assert prepared(torch.tensor(X)).shape == (40, 2)


def test_token_numbers() -> None:
    rng = np.random.default_rng(1)
    layers = (qg.Embedding("embedding", rng.normal(size=(9, 3))), gru(3, 5), dense(5, 2))
    tokens = rng.integers(0, 9, (40, 15))
    prepared = qg.torch.prepare(qg.FloatModel(layers, last_step=False), tokens, weight_bits=4)
    train(prepared, torch.tensor(tokens), n_batches=3)
    assert_equal_in_evaluation(prepared, tokens[..., None], LENGTHS)
    assert torch.equal(prepared(torch.tensor(tokens)), prepared(torch.tensor(tokens[..., None])))
    with pytest.raises(qg.DataError, match=r"embedding 'embedding' takes integers of 0 \.\.\. 8"):
        prepared(torch.tensor([[9]]))


def test_standardised_inputs_are_folded_in() -> None:
    model = qg.FloatModel((gru(3, 5), dense(5, 2)), last_step=False)
    mean, scale = np.array([290.0, -3.0, 0.0]), np.array([5.0, 0.1, 2.0])
    sensor = X * scale + mean
    prepared = qg.torch.prepare(model, sensor, mean=mean, scale=scale)
    x = torch.tensor(sensor)
    assert sqnr_db(model.run(X).ravel(), prepared(x).detach().numpy().ravel()) > 30  # 8 bits
    assert qg.torch.convert(prepared).digest == qg.quantize(model, sensor, mean=mean, scale=scale).digest
    train(prepared, x, n_batches=3)
    assert_equal_in_evaluation(prepared, sensor, LENGTHS)


# ---- training ------------------------------------------------------------------------------------------------------


def train(prepared: qg.torch.Prepared, x: torch.Tensor, n_batches: int) -> list[float]:
    """The loss of each batch: outputs are to be those of a wave."""
    prepared.train()
    wave = torch.sin(torch.arange(x.shape[1]) / 3)[:, None]
    optimizer = torch.optim.AdamW(prepared.parameters(), 1e-2)
    losses = []
    for _ in range(n_batches):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(prepared(x), wave.expand(len(x), -1, prepared.start.n_outputs))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("layers", [*CELLS.values(), *CHAINS.values()], ids=[*CELLS, *CHAINS])
def test_training_computes_nearly_the_integers(layers: tuple[qg.Gru, ...]) -> None:
    """What training leaves out is the rounding to 16 bits, which costs less than codes of 8 bits: these have 50 dB."""
    prepared = qg.torch.prepare(qg.FloatModel(layers, last_step=False), X, weight_bits=3)
    x, lengths = torch.tensor(X), torch.tensor(LENGTHS)
    training, evaluation = prepared(x, lengths).detach(), prepared.eval()(x, lengths)
    assert sqnr_db(evaluation.double().numpy().ravel(), training.double().numpy().ravel()) > 60
    assert not training[1, LENGTHS[1] :].any()


@pytest.mark.parametrize("layers", [*CELLS.values(), *CHAINS.values()], ids=[*CELLS, *CHAINS])
def test_gradients_reach_all_parameters(layers: tuple[qg.Gru, ...]) -> None:
    prepared = qg.torch.prepare(qg.FloatModel(layers, last_step=False), X, weight_bits=3)
    prepared(torch.tensor(X)).square().sum().backward()
    without = [name for name, p in prepared.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without
    assert all(p.grad.isfinite().all() for p in prepared.parameters())


def test_the_gradients_of_rounded_weights() -> None:
    """By hand: codes of 2 bits, of which each stands for 2^14 * 2^-17 * 2^3 = 1."""
    start = Matrix(np.array([[0, 1, -2]], np.int8), np.array([2**14], np.uint16), np.array([1], np.uint8))
    rows = Rows(np.array([[0.25, 5.0, -1.75]]), start, np.array([-3]), [2], Operands(np.ones(3), np.zeros(3)), "W")
    with torch.no_grad():
        rows.weights[0, 1] = 5.0
    weights = rows()
    assert weights.tolist() == [[0.0, 1.0, -2.0]]
    (weights * torch.tensor([10.0, 20.0, 30.0])).sum().backward()
    assert rows.weights.grad.tolist() == [[10.0, 20.0, 30.0]]


def test_rows_whose_accumulator_could_overflow_have_the_scale_of_the_integers() -> None:
    """600 codes of 127 need 1.16 times what R4 has [P1]: 2^31 / 2^15 codes in all, on a scale as much larger."""
    start = Matrix(np.ones((1, 600), np.int8), np.array([2**14], np.uint16), np.array([1], np.uint8))
    rows = Rows(np.ones((1, 600)), start, np.array([-3]), [8], Operands(np.ones(600), np.zeros(600)), "W")
    with torch.no_grad():
        rows.weights.fill_(127.0)
    (codes,) = rows.integers()[0].codes
    assert set(codes) == {109}  # 109 * 600 < 65536 < 110 * 600
    scale = 127 * 600 / 65535
    assert rows().detach().numpy() == pytest.approx(109 * scale * 1.001, rel=2**-14)  # of a multiplier
    rows().sum().backward()
    assert rows.weights.grad.tolist() == [[1.0] * 600]
    with torch.no_grad():
        rows.weights.fill_(1e6)
    with pytest.raises(qg.ModelError, match=r"^W, row 0: .* holds up to 4\.29497e\+09; lower the weights"):
        rows()


@pytest.mark.parametrize("bits", [2, 8, 16])
def test_a_training_lowers_the_loss_of_the_integers(bits: int) -> None:
    model = qg.FloatModel((gru(3, 6), dense(6, 1)), last_step=False)
    prepared = qg.torch.prepare(model, X, weight_bits=bits)
    before = qg.torch.convert(prepared)
    losses = train(prepared, torch.tensor(X), n_batches=60)
    after = assert_equal_in_evaluation(prepared, X, LENGTHS)
    assert losses[-1] < losses[0] / 2
    wave = np.sin(np.arange(15) / 3)[:, None]
    errors = [np.mean((qg.simulate(m, X) - wave) ** 2) for m in (before, after)]
    assert errors[1] < errors[0] / 2
    codes = after.grus[0].recurrent.codes
    assert -(2 ** (bits - 1)) <= codes.min() and codes.max() < 2 ** (bits - 1)
    assert after.selftest.check != before.selftest.check
    assert np.array_equal(after.selftest.inputs, before.selftest.inputs)


@pytest.mark.parametrize(
    "layers", [CELLS["after, sigmoid, tanh"], CELLS["before, hard_sigmoid, relu"], CHAINS["concat"]]
)
def test_autocast_multiplies_in_16_bits(layers: tuple[qg.Gru, ...]) -> None:
    """Products have the 8 significant bits of bfloat16; states, and all of the evaluation, keep theirs."""
    prepared = qg.torch.prepare(qg.FloatModel(layers, last_step=False), X, weight_bits=3)
    x, lengths = torch.tensor(X), torch.tensor(LENGTHS)
    exact = prepared(x, lengths).detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = prepared.run(x, lengths)
        found.outputs.float().square().sum().backward()
        assert_equal_in_evaluation(prepared, X, LENGTHS)
    assert {h.dtype for h in found.states} == {torch.float32}
    assert 40 < sqnr_db(exact.double().numpy().ravel(), found.outputs.detach().double().numpy().ravel()) < 70
    assert all(p.grad.isfinite().all() and p.grad.any() for p in prepared.parameters())


def test_a_live_module_is_left_alone_and_goes_on_as_one() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.GRU(3, 6, num_layers=2, batch_first=True)
            self.fc = nn.Linear(6, 4)

        def forward(self, x):
            return self.fc(self.gru(x)[0][:, -1])

    module = Net()
    before = copy.deepcopy(module.state_dict())
    prepared = qg.torch.prepare(module, X, weight_bits={"": 4, "gru.0.U.n": 8}, name="net")
    prepared(torch.tensor(X)).sum().backward()
    assert all(torch.equal(module.state_dict()[name], values) for name, values in before.items())
    int_model = assert_equal_in_evaluation(prepared, X, LENGTHS)
    assert int_model.name == "net"
    again = qg.torch.prepare(module, X, weight_bits={"": 4, "gru.0.U.n": 8})
    train(prepared, torch.tensor(X)[:, :, None][:, :, 0], n_batches=0)
    again.load_state_dict(prepared.state_dict())
    assert qg.torch.convert(again).digest == qg.torch.convert(copy.deepcopy(prepared)).digest == int_model.digest


def test_the_examples_of_the_readme_run() -> None:
    """Word for word: the module that it shows, tuned as it says, is nearer to it on sequences that neither has seen."""
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, object] = {"np": np, "torch": torch, "qg": qg, "__name__": "readme"}
    exec(next(block for block in blocks if "class Gesture" in block), names)
    x, unseen = np.split(random_x(1100, 9, 6), [1000])
    names |= {"module": names["Gesture"](), "x": x}  # type: ignore[operator]
    exec(next(block for block in blocks if "qg.torch.prepare" in block), names)
    model, tuned = qg.load(names["module"]), names["int_model"]
    before = qg.quantize(model, x, weight_bits=2)
    errors = [np.mean((qg.simulate(found, unseen) - model.run(unseen)) ** 2) for found in (before, tuned)]
    assert errors[1] < 0.7 * errors[0]
    assert set(np.unique(tuned.dense[0].matrix.codes)) <= {-2, -1, 0, 1}  # type: ignore[attr-defined]


# ---- what is refused -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small() -> qg.torch.Prepared:
    return qg.torch.prepare(qg.FloatModel((gru(3, 4), dense(4, 2)), last_step=False), X)


@pytest.mark.parametrize(
    ("x", "lengths", "says"),
    [
        (torch.zeros(2, 5), None, r"^input: shape \(2, 5\), expected \[sequences, steps, features\]"),
        (torch.zeros(2, 5, 4), None, "^input: 4 features, the model has 3 inputs"),
        (torch.zeros(0, 5, 3), None, "^input: .* holds no steps"),
        (torch.full((1, 2, 3), torch.nan), None, "^input: nan at sequence 0, step 0"),
        (torch.zeros(2, 5, 3), torch.tensor([1, 6]), r"^input: lengths \[1, 6\], expected 2 of 1 \.\.\. 5$"),
        (torch.zeros(2, 5, 3), torch.tensor([0, 5]), r"^input: lengths \[0, 5\]"),
        (torch.zeros(2, 5, 3), torch.tensor([5]), r"^input: lengths \[5\]"),
        (torch.zeros(2, 5, 3), torch.tensor([1.0, 2.0]), r"^input: lengths of type float32, expected integers"),
        (nn.utils.rnn.pack_sequence([torch.zeros(5, 3)]), None, "^input: a PackedSequence, expected what pad_packed"),
    ],
)
def test_a_batch_that_does_not_fit(small, x, lengths, says: str) -> None:
    for prepared in (small.train(), small.eval()):
        with pytest.raises(qg.DataError, match=says):
            prepared(x, lengths)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_training_that_diverged(small, bad: float) -> None:
    prepared = copy.deepcopy(small)
    with torch.no_grad():
        prepared.layers[0].bias[2] = bad
    says = r"^convert: layers\.0\.bias holds values that are not finite: training diverged; lower the learning rate"
    with pytest.raises(qg.ModelError, match=says):
        qg.torch.convert(prepared)
    with pytest.raises(qg.ModelError, match=says):
        prepared.eval()(torch.tensor(X))


def test_a_bias_that_no_format_holds(small) -> None:
    prepared = copy.deepcopy(small)
    with torch.no_grad():
        prepared.layers[0].bias[2] = 1e6
    with pytest.raises(qg.ModelError, match=r"^GRU layer 'gru', bias 2: 1e\+06 does not fit s32f14"):
        qg.torch.convert(prepared)


@pytest.mark.parametrize("change", [torch.nn.Module.half, torch.nn.Module.bfloat16])
def test_types_that_do_not_hold_scales_are_refused(small, change) -> None:
    before = qg.torch.convert(small).digest
    with pytest.raises(
        ConfigError, match=r"^prepared module: torch\.b?float16 does not hold .* float32 and float64; for"
    ):
        change(torch.nn.Sequential(small))
    assert qg.torch.convert(small.double()).digest == before
    small.float()


def test_gradients_that_would_be_lost_are_refused(small) -> None:
    x = torch.zeros(2, 3, small.start.n_inputs, requires_grad=True)
    with pytest.raises(ConfigError, match=r"^prepared module: x requires gradients, and none pass through quantized"):
        small.train()(x)
    small.eval()(x)


@pytest.mark.parametrize(("calibration", "bits"), [(8 * X, 4), (X, 5), (X, {"": 4, "gru.U.n": 5})])
def test_a_state_dict_of_other_formats_is_refused(calibration: np.ndarray, bits: object) -> None:
    model = qg.FloatModel((gru(3, 4), dense(4, 2)), last_step=False, name="slow")
    prepared = qg.torch.prepare(model, X, weight_bits=4)
    train(prepared, torch.tensor(X), n_batches=3)
    before = copy.deepcopy(prepared.state_dict())
    other = qg.torch.prepare(model, calibration, weight_bits=bits)
    with pytest.raises(qg.ModelError, match=r"^prepared module: .* formats or weight bits than those of 'slow'; "):
        nn.Sequential(prepared).load_state_dict(nn.Sequential(other).state_dict())
    assert all(torch.equal(prepared.state_dict()[name], values) for name, values in before.items())


def test_what_is_not_prepared() -> None:
    for wrong in (nn.GRU(3, 4), qg.FloatModel((gru(3, 4),), last_step=False), None):
        with pytest.raises(qg.ModelError, match=r"^convert: .*, expected the module that qg\.torch\.prepare gives$"):
            qg.torch.convert(wrong)


@pytest.mark.parametrize(
    ("model", "options", "says"),
    [
        (nn.GRU(3, 4, batch_first=True), {"weight_bits": 1}, r"^weight bits: 1, allowed are 2 \.\.\. 16$"),
        (nn.GRU(3, 4, batch_first=True), {"weight_bits": {"lstm": 4}}, "^weight bits of 'lstm': the model has nothing"),
        (nn.LSTM(3, 4), {}, r"nn\.LSTM"),
        (
            qg.FloatModel((gru(3, 4),), last_step=False, name="masked", mask_value=-1.0),
            {},
            "^prepare: model 'masked' leaves out steps whose inputs are all -1",
        ),
    ],
)
def test_what_cannot_be_prepared(model, options, says: str) -> None:
    with pytest.raises(qg.ModelError, match=says):
        qg.torch.prepare(model, X, **options)


def test_what_is_prepared_already(small) -> None:
    with pytest.raises(qg.ModelError, match=r"^prepare: a module that is prepared already; give the model that it was"):
        qg.torch.prepare(small, X)


def test_without_pytorch() -> None:
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "import quantgru as qg\n"
        "try: qg.torch.prepare\n"
        "except qg.ConfigError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "fine-tuning needs PyTorch, which is not installed: pip install quantgru[torch]\n"
