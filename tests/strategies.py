"""Integer models and inputs for tests: random ones up to the edges of the contract.

Models are made as the oracle's types and converted. Hypothesis chooses the shape and the kind of the numbers, and a
seed chooses the numbers themselves, so that an example is quick to make and shrinks to a small shape. Expected values
do not come from here.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import oracle
from conversions import from_oracle as from_oracle
from conversions import self_test as self_test
from conversions import to_oracle as to_oracle
from hypothesis import strategies as st

from quantgru.int_model import IntModel

UNITS = (1, 3, 7, 8, 9, 17)  # around QG_BLOCK_ROWS = 8: only rest rows, only blocks, both
WEIGHTS = ("random", "small", "extreme", "packed", "wide")  # see _matrix_codes
SCALES = ("useful", "any")
BIASES = ("zero", "small", "limit", "slow")
INPUTS = ("random", "small", "lowest", "highest", "alternating", "tokens")


@dataclass(frozen=True)
class GruPlan:
    """A GRU layer; `starts` says whether it has an initial state other than zeros."""

    units: int = 1
    reset: int = oracle.RESET_AFTER
    gate: int = oracle.GATE_SIGMOID
    candidate: int = oracle.CANDIDATE_TANH
    f_h: int = 15
    starts: bool = False


@dataclass(frozen=True)
class BidirectionalPlan:
    """Two GRU layers of equal units and f_h."""

    forward: GruPlan
    backward: GruPlan
    merge: int = oracle.MERGE_CONCAT
    final: int = 0


@dataclass(frozen=True)
class DensePlan:
    rows: int
    activation: int = oracle.LINEAR


@dataclass(frozen=True)
class EmbeddingPlan:
    tokens: int
    dim: int


REVERSE = oracle.Reverse()
LayerPlan = GruPlan | BidirectionalPlan | DensePlan | EmbeddingPlan | oracle.Reverse


@dataclass(frozen=True)
class Plan:
    """Which model to make: its shape, and the kind of its numbers (see WEIGHTS, SCALES, BIASES).

    layers  of any kind; if there are none, plain GRU layers of `units` and `resets` with dense layers `head` are meant
    """

    n_inputs: int = 1
    units: tuple[int, ...] = (1,)
    resets: tuple[int, ...] = (oracle.RESET_AFTER,)
    head: tuple[tuple[int, int], ...] = ()  # (rows, activation) of each dense layer
    last_step: int = 0
    weights: str = "random"
    scales: str = "useful"
    biases: str = "small"
    layers: tuple[LayerPlan, ...] = ()

    def __post_init__(self) -> None:
        if not self.layers:
            grus = (GruPlan(units, reset) for units, reset in zip(self.units, self.resets, strict=True))
            object.__setattr__(self, "layers", (*grus, *(DensePlan(*dense) for dense in self.head)))


# ---- random models ------------------------------------------------------------------------------------------------


def random_model(plan: Plan, seed: int) -> oracle.Model:
    """Returns a model that SPEC.md admits."""
    rng = random.Random(seed)
    layers, columns = [], plan.n_inputs
    for layer in plan.layers:
        layers.append(_layer(rng, plan, layer, columns))
        columns = oracle.width(layers[-1], columns)
    fractions = tuple(rng.choice((-31, 0, 15, 31, rng.randint(-31, 31))) for _ in range(plan.n_inputs))
    if isinstance(layers[0], oracle.Embedding):
        fractions = (0,)
    model = oracle.Model(fractions, plan.last_step, tuple(layers))
    assert oracle.proved(model)
    return model


def _layer(rng: random.Random, plan: Plan, layer: LayerPlan, columns: int) -> oracle.Layer:
    match layer:
        case GruPlan():
            return _gru(rng, plan, layer, columns)
        case BidirectionalPlan():
            forward, backward = (_gru(rng, plan, part, columns) for part in (layer.forward, layer.backward))
            return oracle.Bidirectional(forward, backward, layer.merge, layer.final)
        case DensePlan():
            return _dense(rng, plan, layer, columns)
        case EmbeddingPlan():
            codes = tuple(tuple(_codes(rng, plan.weights, layer.dim, 127)) for _ in range(layer.tokens))
            return oracle.Embedding(codes)
    return layer


def _gru(rng: random.Random, plan: Plan, layer_plan: GruPlan, columns: int) -> oracle.Gru:
    units, reset, candidate = layer_plan.units, layer_plan.reset, layer_plan.candidate
    narrow = [layer_plan.gate == oracle.GATE_HARD_SIGMOID] * 2 * units + [candidate in NARROW] * units
    w, u = _matrix(rng, plan, columns, narrow), _matrix(rng, plan, units, narrow)
    c = (0,) * (units if reset == oracle.RESET_AFTER else 0)
    layer = oracle.Gru(reset, w, u, (0,) * (3 * units), c, layer_plan.gate, candidate, layer_plan.f_h)
    b = [_bias(rng, plan, oracle.S32_MAX - oracle.gate_bound(layer, i)) for i in range(3 * units)]
    if plan.biases == "slow":  # update gates near 1: the state moves by less than one LSB a step
        b[:units] = [max(v, rng.randint(5 * 2**14, 10 * 2**14)) for v in b[:units]]
    layer = replace(layer, b=tuple(b))
    room = [oracle.S32_MAX - oracle.gate_bound(layer, 2 * units + i) for i in range(len(layer.c))]
    if plan.biases == "limit" and rng.random() < 0.5:  # all of the room to c, none to b
        room = [left + abs(v) for left, v in zip(room, b[2 * units :], strict=False)]
        layer = replace(layer, b=(*b[: 2 * units], *([0] * units)))
    layer = replace(layer, c=tuple(_bias(rng, plan, left) for left in room))
    if layer_plan.starts:
        layer = replace(layer, h0=tuple(rng.choice((-32768, 32767, rng.randint(-32768, 32767))) for _ in range(units)))
    return layer


# Candidates of which 16 bits of the pre-activation are all; the tables read 18.
NARROW = (oracle.CANDIDATE_RELU, oracle.CANDIDATE_LINEAR, oracle.CANDIDATE_HARD_TANH)


def _dense(rng: random.Random, plan: Plan, layer_plan: DensePlan, columns: int) -> oracle.Dense:
    rows, activation = layer_plan.rows, layer_plan.activation
    f_out = 15 if activation in (oracle.SIGMOID, oracle.TANH) else rng.randint(-31, 31)
    layer = oracle.Dense(activation, f_out, _matrix(rng, plan, columns, [False] * rows), (0,) * rows)
    b = tuple(_bias(rng, plan, oracle.S32_MAX - oracle.dense_bound(layer, i)) for i in range(rows))
    return replace(layer, b=b)


def _bias(rng: random.Random, plan: Plan, limit: int) -> int:
    """A bias within ±limit."""
    if plan.biases == "zero":
        return 0
    if plan.biases == "limit":
        return rng.choice((limit, -limit, rng.randint(-limit, limit)))
    return rng.randint(-min(limit, 2**16), min(limit, 2**16))


def _matrix(rng: random.Random, plan: Plan, columns: int, narrow: Sequence[bool]) -> oracle.Matrix:
    """A row for each of `narrow`, which says whether its pre-activations are to be small."""
    rows = len(narrow)
    codes = _matrix_codes(rng, plan.weights, rows, columns)
    largest = max(oracle.accumulator_bound(row) for row in codes)
    k_max = min(15, (oracle.S32_MAX // largest).bit_length() - 1) if largest else 15
    k = rng.choice((0, k_max, rng.randint(0, k_max)))
    m = tuple(rng.choice((2**14, 2**15 - 1, rng.randint(2**14, 2**15 - 1))) for _ in range(rows))
    s = tuple(
        _shift(rng, plan.scales, oracle.accumulator_bound(row) << k, small)
        for row, small in zip(codes, narrow, strict=True)
    )
    return oracle.Matrix(codes, m, s, k)


def _matrix_codes(rng: random.Random, kind: str, rows: int, columns: int) -> tuple[tuple[int, ...], ...]:
    """Small codes have 3 bits; of packed ones, each matrix has a width; wide ones have 16, and each third of the rows,
    which is a gate, may have 8 or 4 instead."""
    if kind == "wide":
        gates = 3 if rows % 3 == 0 else 1
        most = [rng.choice((32767, 32767, 127, 7)) for _ in range(gates)]
        return tuple(tuple(_wide_codes(rng, columns, most[row * gates // rows])) for row in range(rows))
    most = 3 if kind == "small" else 127
    if kind == "packed":
        most = 2 ** rng.randint(1, 6) - 1
    return tuple(tuple(_codes(rng, kind, columns, most)) for _ in range(rows))


def _wide_codes(rng: random.Random, columns: int, most: int) -> list[int]:
    """One row of weights up to `most`, often at its ends, up to the last one that P1 admits with k = 0."""
    row, room = [], oracle.S32_MAX // 32768
    for _ in range(columns):
        code = rng.choice((-most - 1, most, 0, rng.randint(-most - 1, most)))
        row.append(max(-room, min(code, room)))
        room -= abs(row[-1])
    rng.shuffle(row)
    return row


def _codes(rng: random.Random, kind: str, columns: int, most: int) -> list[int]:
    """One row of weights up to `most`. Random rows keep within P1 at any length."""
    if kind == "extreme":
        a, b = rng.choice(((-128, -128), (127, 127), (0, 0), (-128, 127), (0, -128), (127, 0)))
        row = [a if c % 2 == 0 else b for c in range(columns)]
    else:
        row = [rng.randint(-most - 1, most) for _ in range(columns)]
    return row if oracle.accumulator_bound(row) <= oracle.S32_MAX else [w // 2 for w in row]


def _shift(rng: random.Random, kind: str, bound: int, narrow: bool) -> int:
    """A shift: any, or one that spreads pre-activations over the table, which ends at 12 * 2^14, or over 2^15."""
    if kind == "any":
        return rng.randint(1, 30)
    return min(max((bound >> 2).bit_length() - 17 + 3 * narrow + rng.randint(-2, 1), 1), 30)


def random_inputs(kind: str, n_steps: int, n_inputs: int, seed: int) -> list[list[int]]:
    """Returns raw inputs [steps][inputs]; `kind` is one of INPUTS."""
    rng = random.Random(seed)
    value = {
        "random": lambda t: rng.randint(-32768, 32767),
        "small": lambda t: rng.randint(-300, 300),
        "lowest": lambda t: -32768,
        "highest": lambda t: 32767,
        "alternating": lambda t: -32768 if t % 2 else 32767,
        "tokens": lambda t: rng.randint(-1, 9),
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


GATE_KINDS = (oracle.GATE_SIGMOID, oracle.GATE_HARD_SIGMOID)
CANDIDATE_KINDS = (*oracle.BOUNDED, oracle.CANDIDATE_RELU, oracle.CANDIDATE_LINEAR)
MERGE_KINDS = (oracle.MERGE_CONCAT, oracle.MERGE_SUM, oracle.MERGE_MUL, oracle.MERGE_AVE)
FRACTIONS = (15, 12, 0, -8, -15, 23, 31, -31)


@st.composite
def gru_plans(draw: st.DrawFn) -> GruPlan:
    """Every function, format and start of a GRU layer."""
    candidate = draw(st.sampled_from(CANDIDATE_KINDS))
    f_max = 15 if candidate in oracle.BOUNDED else 31
    return GruPlan(
        draw(st.sampled_from(UNITS)),
        draw(st.sampled_from((oracle.RESET_AFTER, oracle.RESET_BEFORE))),
        draw(st.sampled_from(GATE_KINDS)),
        candidate,
        draw(st.sampled_from([f for f in FRACTIONS if abs(f) <= f_max]) | st.integers(-f_max, f_max)),
        draw(st.booleans()),
    )


@st.composite
def bidirectional_plans(draw: st.DrawFn, final: int = 0) -> BidirectionalPlan:
    """Two GRU layers of any kinds, with formats that can be merged."""
    forward, backward = draw(gru_plans()), draw(gru_plans())
    merge = draw(st.sampled_from(MERGE_KINDS))
    low, high = {oracle.MERGE_SUM: (-30, 31), oracle.MERGE_MUL: (-8, 23)}.get(merge, (-31, 31))
    f_h = min(max(min(forward.f_h, backward.f_h), low), high)
    f_h = max(f_h, -15) if {forward.candidate, backward.candidate} & set(oracle.BOUNDED) else f_h
    forward, backward = (replace(part, f_h=f_h, units=forward.units) for part in (forward, backward))
    return BidirectionalPlan(forward, backward, merge, final)


dense_plans = st.builds(DensePlan, st.integers(1, 17), st.integers(0, 3))


@st.composite
def any_plans(draw: st.DrawFn, streaming: bool | None = None) -> Plan:
    """Every kind of layer in every order; if said, only models that run step by step, or only others."""
    starts_with_tokens = draw(st.booleans())
    layers: list[LayerPlan] = []
    if starts_with_tokens:
        layers.append(draw(st.builds(EmbeddingPlan, st.integers(1, 9), st.integers(1, 17))))
    before = st.just(REVERSE) | dense_plans
    anything = before | gru_plans() | bidirectional_plans()
    layers += draw(st.lists(before, max_size=2))
    if streaming:
        layers.append(draw(gru_plans()))
        layers += draw(st.lists(dense_plans | gru_plans(), max_size=3))
    else:
        layers += draw(st.lists(anything, max_size=2))
        whole = [bidirectional_plans(), bidirectional_plans(final=1), gru_plans().map(lambda gru: (gru, REVERSE))]
        last = draw(st.one_of(*whole, *([] if streaming is False else [gru_plans()])))
        layers += last if isinstance(last, tuple) else [last]
    is_final = isinstance(layers[-1], BidirectionalPlan) and layers[-1].final
    return Plan(
        n_inputs=1 if starts_with_tokens else draw(st.integers(1, 19)),
        last_step=1 if is_final else draw(st.integers(0, 1)),
        weights=draw(st.sampled_from(WEIGHTS)),
        scales=draw(st.sampled_from(SCALES)),
        biases=draw(st.sampled_from(BIASES)),
        layers=(*layers, *draw(st.lists(dense_plans, max_size=2))),
    )


def oracle_models(kinds: st.SearchStrategy[Plan] | None = None) -> st.SearchStrategy[oracle.Model]:
    """Models of the oracle's types; of plain GRU layers with a head, unless other kinds are asked for."""
    return st.builds(random_model, plans() if kinds is None else kinds, st.integers(0, 2**32))


def int_models(kinds: st.SearchStrategy[Plan] | None = None) -> st.SearchStrategy[IntModel]:
    """Valid integer models."""
    return oracle_models(kinds).map(from_oracle)


@st.composite
def int_models_with_inputs(
    draw: st.DrawFn, max_steps: int = 6, kinds: st.SearchStrategy[Plan] | None = None
) -> tuple[IntModel, list[list[int]]]:
    """A valid integer model and raw inputs [steps][inputs] for it."""
    model = draw(int_models(kinds))
    kind, seed = draw(st.sampled_from(INPUTS)), draw(st.integers(0, 2**32))
    return model, random_inputs(kind, draw(st.integers(1, max_steps)), model.n_inputs, seed)
