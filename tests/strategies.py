"""Integer models and inputs for tests: random ones up to the edges of the contract, and the committed vectors.

Models are made as the oracle's types and converted. Hypothesis chooses the shape and the kind of the numbers, and a
seed chooses the numbers themselves, so that an example is quick to make and shrinks to a small shape. Expected values
do not come from here.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import oracle
from hypothesis import strategies as st

from quantgru.int_model import IntDense, IntGru, IntModel, Matrix, SelfTest

VECTORS = Path(__file__).resolve().parent / "vectors"

RESETS = ("after", "before")
ACTIVATIONS = ("linear", "relu", "sigmoid", "tanh")
UNITS = (1, 3, 7, 8, 9, 17)  # around QG_BLOCK_ROWS = 8: only rest rows, only blocks, both
WEIGHTS = ("random", "small", "extreme")
SCALES = ("useful", "any")
BIASES = ("zero", "small", "limit", "slow")
INPUTS = ("random", "small", "lowest", "highest", "alternating")


@dataclass(frozen=True)
class Plan:
    """Which model to make: its shape, and the kind of its numbers (see WEIGHTS, SCALES, BIASES)."""

    n_inputs: int = 1
    units: tuple[int, ...] = (1,)
    resets: tuple[int, ...] = (oracle.RESET_AFTER,)
    head: tuple[tuple[int, int], ...] = ()  # (rows, activation) of each dense layer
    last_step: int = 0
    weights: str = "random"
    scales: str = "useful"
    biases: str = "small"


# ---- random models ------------------------------------------------------------------------------------------------


def random_model(plan: Plan, seed: int) -> oracle.Model:
    """Returns a model that SPEC.md admits."""
    rng = random.Random(seed)
    grus, columns = [], plan.n_inputs
    for units, reset in zip(plan.units, plan.resets, strict=True):
        grus.append(_gru(rng, plan, units, columns, reset))
        columns = units
    head = []
    for rows, activation in plan.head:
        head.append(_dense(rng, plan, rows, columns, activation))
        columns = rows
    fractions = tuple(rng.choice((-31, 0, 15, 31, rng.randint(-31, 31))) for _ in range(plan.n_inputs))
    model = oracle.Model(fractions, plan.last_step, tuple(grus), tuple(head))
    assert oracle.proved(model)
    return model


def _gru(rng: random.Random, plan: Plan, units: int, columns: int, reset: int) -> oracle.Gru:
    w, u = _matrix(rng, plan, 3 * units, columns), _matrix(rng, plan, 3 * units, units)
    layer = oracle.Gru(reset, w, u, (0,) * (3 * units), (0,) * (units if reset == oracle.RESET_AFTER else 0))
    b = [_bias(rng, plan, oracle.S32_MAX - oracle.gate_bound(layer, i)) for i in range(3 * units)]
    if plan.biases == "slow":  # update gates near 1: the state moves by less than one LSB a step
        b[:units] = [max(v, rng.randint(5 * 2**14, 10 * 2**14)) for v in b[:units]]
    layer = replace(layer, b=tuple(b))
    room = [oracle.S32_MAX - oracle.gate_bound(layer, 2 * units + i) for i in range(len(layer.c))]
    if plan.biases == "limit" and rng.random() < 0.5:  # all of the room to c, none to b
        room = [left + abs(v) for left, v in zip(room, b[2 * units :], strict=False)]
        layer = replace(layer, b=(*b[: 2 * units], *([0] * units)))
    return replace(layer, c=tuple(_bias(rng, plan, left) for left in room))


def _dense(rng: random.Random, plan: Plan, rows: int, columns: int, activation: int) -> oracle.Dense:
    f_out = 15 if activation in (oracle.SIGMOID, oracle.TANH) else rng.randint(-31, 31)
    layer = oracle.Dense(activation, f_out, _matrix(rng, plan, rows, columns), (0,) * rows)
    b = tuple(_bias(rng, plan, oracle.S32_MAX - oracle.dense_bound(layer, i)) for i in range(rows))
    return replace(layer, b=b)


def _bias(rng: random.Random, plan: Plan, limit: int) -> int:
    """A bias within ±limit."""
    if plan.biases == "zero":
        return 0
    if plan.biases == "limit":
        return rng.choice((limit, -limit, rng.randint(-limit, limit)))
    return rng.randint(-min(limit, 2**16), min(limit, 2**16))


def _matrix(rng: random.Random, plan: Plan, rows: int, columns: int) -> oracle.Matrix:
    codes = tuple(tuple(_codes(rng, plan.weights, columns)) for _ in range(rows))
    largest = max(oracle.accumulator_bound(row) for row in codes)
    k_max = min(15, (oracle.S32_MAX // largest).bit_length() - 1) if largest else 15
    k = rng.choice((0, k_max, rng.randint(0, k_max)))
    m = tuple(rng.choice((2**14, 2**15 - 1, rng.randint(2**14, 2**15 - 1))) for _ in range(rows))
    s = tuple(_shift(rng, plan.scales, oracle.accumulator_bound(row) << k) for row in codes)
    return oracle.Matrix(codes, m, s, k)


def _codes(rng: random.Random, kind: str, columns: int) -> list[int]:
    """One row of weights. Random rows keep within P1 at any length."""
    if kind == "extreme":
        a, b = rng.choice(((-128, -128), (127, 127), (0, 0), (-128, 127), (0, -128), (127, 0)))
        row = [a if c % 2 == 0 else b for c in range(columns)]
    else:
        largest = 3 if kind == "small" else 127
        row = [rng.randint(-largest - 1, largest) for _ in range(columns)]
    return row if oracle.accumulator_bound(row) <= oracle.S32_MAX else [w // 2 for w in row]


def _shift(rng: random.Random, kind: str, bound: int) -> int:
    """A shift: any, or one that spreads pre-activations over the table, which ends at 12 * 2^14."""
    if kind == "any":
        return rng.randint(1, 30)
    return min(max((bound >> 2).bit_length() - 17 + rng.randint(-2, 1), 1), 30)


def random_inputs(kind: str, n_steps: int, n_inputs: int, seed: int) -> list[list[int]]:
    """Returns raw inputs [steps][inputs]; `kind` is one of INPUTS."""
    rng = random.Random(seed)
    value = {
        "random": lambda t: rng.randint(-32768, 32767),
        "small": lambda t: rng.randint(-300, 300),
        "lowest": lambda t: -32768,
        "highest": lambda t: 32767,
        "alternating": lambda t: -32768 if t % 2 else 32767,
    }[kind]
    return [[value(t) for _ in range(n_inputs)] for t in range(n_steps)]


# ---- hypothesis ---------------------------------------------------------------------------------------------------


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Shapes and kinds of models, extremes included."""
    n_grus = draw(st.integers(1, 3))
    return Plan(
        n_inputs=draw(st.integers(1, 19)),
        units=tuple(draw(st.sampled_from(UNITS)) for _ in range(n_grus)),
        resets=tuple(draw(st.sampled_from((oracle.RESET_AFTER, oracle.RESET_BEFORE))) for _ in range(n_grus)),
        head=tuple(draw(st.lists(st.tuples(st.integers(1, 17), st.integers(0, 3)), max_size=3))),
        last_step=draw(st.integers(0, 1)),
        weights=draw(st.sampled_from(WEIGHTS)),
        scales=draw(st.sampled_from(SCALES)),
        biases=draw(st.sampled_from(BIASES)),
    )


def oracle_models() -> st.SearchStrategy[oracle.Model]:
    """Models of the oracle's types."""
    return st.builds(random_model, plans(), st.integers(0, 2**32))


def int_models() -> st.SearchStrategy[IntModel]:
    """Valid integer models."""
    return oracle_models().map(from_oracle)


@st.composite
def int_models_with_inputs(draw: st.DrawFn, max_steps: int = 6) -> tuple[IntModel, list[list[int]]]:
    """A valid integer model and raw inputs [steps][inputs] for it."""
    model = draw(int_models())
    kind, seed = draw(st.sampled_from(INPUTS)), draw(st.integers(0, 2**32))
    return model, random_inputs(kind, draw(st.integers(1, max_steps)), model.n_inputs, seed)


# ---- conversion ---------------------------------------------------------------------------------------------------


def to_oracle(model: IntModel) -> oracle.Model:
    """The same numbers in the oracle's types."""
    grus = tuple(
        oracle.Gru(
            RESETS.index(gru.reset),
            _matrix_to_oracle(gru.input),
            _matrix_to_oracle(gru.recurrent),
            tuple(gru.bias.tolist()),
            tuple(gru.recurrent_bias.tolist()),
        )
        for gru in model.grus
    )
    head = tuple(
        oracle.Dense(
            ACTIVATIONS.index(dense.activation),
            dense.output_fraction_bits,
            _matrix_to_oracle(dense.matrix),
            tuple(dense.bias.tolist()),
        )
        for dense in model.head
    )
    return oracle.Model(tuple(model.input_fraction_bits.tolist()), int(model.last_step), grus, head)


def _matrix_to_oracle(matrix: Matrix) -> oracle.Matrix:
    codes = tuple(tuple(row) for row in matrix.codes.tolist())
    return oracle.Matrix(codes, tuple(matrix.multiplier.tolist()), tuple(matrix.shift.tolist()), matrix.left_shift)


def from_oracle(model: oracle.Model, name: str = "model") -> IntModel:
    """The same numbers as an integer model, with a self-test of two steps."""
    grus = tuple(
        IntGru(
            f"gru_{i}",
            RESETS[gru.reset],
            _matrix_from_oracle(gru.w),
            _matrix_from_oracle(gru.u),
            np.array(gru.b, np.int32),
            np.array(gru.c, np.int32),
        )
        for i, gru in enumerate(model.grus)
    )
    head = tuple(
        IntDense(
            f"dense_{i}",
            ACTIVATIONS[dense.activation],
            _matrix_from_oracle(dense.matrix),
            np.array(dense.b, np.int32),
            dense.f_out,
        )
        for i, dense in enumerate(model.head)
    )
    return IntModel(
        (*grus, *head),
        np.array(model.input_fractions, np.int8),
        bool(model.last_step),
        self_test(model, random_inputs("random", 2, len(model.input_fractions), seed=1)),
        name,
    )


def _matrix_from_oracle(matrix: oracle.Matrix) -> Matrix:
    return Matrix(
        np.array(matrix.codes, np.int8), np.array(matrix.m, np.uint16), np.array(matrix.s, np.uint8), matrix.k
    )


def self_test(model: oracle.Model, inputs: Sequence[Sequence[int]]) -> SelfTest:
    """Inputs and the check value that the oracle gives them."""
    return SelfTest(np.array(inputs, np.int16), oracle.run(model, inputs)[-1].check)


# ---- committed vectors --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ModelVector:
    """One committed model with inputs and all that it must compute.

    inputs    raw, [steps][inputs]
    steps     of each step the state (h, e) and u, r, n, indexed [layer][unit]; outputs; the running check value
    digest    hexadecimal
    """

    name: str
    model: oracle.Model
    int_model: IntModel
    inputs: list[list[int]]
    steps: list[oracle.Step]
    digest: str


def load_function_vectors() -> list[dict]:
    """Returns, for each function of the contract: rule, function, names of arguments, and [arguments, result] pairs."""
    return json.loads((VECTORS / "functions.json").read_text(encoding="utf-8"))


def load_model_vectors() -> list[ModelVector]:
    """Returns the committed models with their inputs and expected values."""
    return [_read_model_vector(path) for path in sorted(VECTORS.glob("model_*.json"))]


def _read_model_vector(path: Path) -> ModelVector:
    content = json.loads(path.read_text(encoding="utf-8"))
    model = _read_model(content["model"])
    steps = [
        oracle.Step(
            oracle.State(_tuples(step["h"]), _tuples(step["e"])),
            _tuples(step["u"]),
            _tuples(step["r"]),
            _tuples(step["n"]),
            tuple(step["outputs"]),
            step["check"],
        )
        for step in content["steps"]
    ]
    return ModelVector(
        content["name"],
        model,
        from_oracle(model, content["name"]),
        [step["x"] for step in content["steps"]],
        steps,
        content["digest"],
    )


def _read_model(content: dict) -> oracle.Model:
    grus = tuple(
        oracle.Gru(
            RESETS.index(gru["reset"]),
            _read_matrix(gru["W"]),
            _read_matrix(gru["U"]),
            tuple(gru["b"]),
            tuple(gru["c"]),
        )
        for gru in content["gru"]
    )
    head = tuple(
        oracle.Dense(
            ACTIVATIONS.index(dense["activation"]), dense["f_out"], _read_matrix(dense["matrix"]), tuple(dense["b"])
        )
        for dense in content["dense"]
    )
    return oracle.Model(tuple(content["input_fractions"]), content["last_step"], grus, head)


def _read_matrix(content: dict) -> oracle.Matrix:
    return oracle.Matrix(_tuples(content["codes"]), tuple(content["m"]), tuple(content["s"]), content["k"])


def _tuples(rows: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(row) for row in rows)
