"""Integer models: whatever breaks an invariant is refused, in one line, by a ModelError."""

from dataclasses import FrozenInstanceError, fields, is_dataclass, replace

import numpy as np
import oracle
import pytest
from conversions import from_oracle, to_oracle
from hypothesis import HealthCheck, given, settings
from strategies import any_plans, int_models, oracle_models
from zero_models import (
    NO_INTEGERS,
    NO_NAMES,
    at,
    model_of,
    refused,
    small_model,
    zero_bidirectional,
    zero_dense,
    zero_embedding,
    zero_gru,
    zero_matrix,
)

from quantgru.int_model import IntModel, Reverse, SelfTest
from quantgru.int_model.proof import prove

EXAMPLES = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])


REVERSE = Reverse()
FINAL = zero_bidirectional(final=True)
SQUARE = zero_gru(n_inputs=258, units=258)  # 255 of them have 65,790 units
SQUARES = zero_bidirectional("sum", n_inputs=257, units=257)  # 128 of them have 65,792

# What makes them wrong, or leaves them right, is the order of kinds, or a width.


@pytest.mark.parametrize(
    ("layers", "pattern"),
    [
        ((), "no GRU layer"),
        ((zero_dense(1, 2),), "no GRU layer"),
        ((zero_embedding(), zero_dense(1, 2), REVERSE), "no GRU layer"),
        ((zero_gru(), zero_gru()), "'gru': 2 inputs, but the layer before it gives 1"),
        ((zero_dense(1, 2), zero_gru()), "'gru': 2 inputs, but the layer before it gives 1"),
        ((zero_gru(units=2), zero_dense()), "'dense': 1 inputs, but the layer before it gives 2"),
        ((zero_gru(), zero_dense(2), zero_dense()), "'dense': 1 inputs"),
        ((zero_gru(), REVERSE, zero_dense(1, 2)), "'dense': 2 inputs"),
        ((zero_bidirectional("concat"), zero_dense()), "'dense': 1 inputs, but the layer before it gives 2"),
        ((zero_bidirectional("sum"), zero_dense(1, 2)), "'dense': 2 inputs, but the layer before it gives 1"),
        ((zero_embedding(outputs=3), zero_gru()), "'gru': 2 inputs, but the layer before it gives 3"),
        ((zero_gru(n_inputs=2), *[zero_gru(n_inputs=1)] * 255), "256 layers"),
        ((zero_gru(), *[zero_dense()] * 255), "256 layers"),
        ((zero_gru(), *[REVERSE] * 255), "256 layers"),
        ((zero_gru(), zero_embedding()), "'embedding': after another layer"),
        ((REVERSE, zero_embedding(), zero_gru()), "'embedding': after another layer"),
        ((zero_embedding(outputs=1), zero_embedding(), zero_gru()), "'embedding': after another layer"),
        ((FINAL, REVERSE), "'both': gives its final states only"),
        ((FINAL, zero_gru()), "'both': gives its final states only"),
        ((FINAL, zero_dense(2, 2), FINAL), "'both': gives its final states only"),
        ((SQUARE,) * 255, "65790 units, allowed are 65535"),
        ((SQUARES,) * 128, "65792 units, allowed are 65535"),
    ],
)
def test_model_refuses_layers(layers, pattern):
    n_inputs = layers[0].n_inputs if layers and not isinstance(layers[0], Reverse) else 2
    with refused(pattern):
        model_of(*layers, n_inputs=n_inputs, last_step=True)


@pytest.mark.parametrize("last_step", [False, True])
@pytest.mark.parametrize(
    "layers",
    [
        (zero_dense(2, 2), zero_gru()),
        (REVERSE, zero_dense(2, 2), REVERSE, zero_gru(), zero_dense(), zero_gru(n_inputs=1), REVERSE, zero_dense()),
        (zero_bidirectional("concat"), zero_bidirectional("mul"), zero_dense()),
        (zero_embedding(), REVERSE, zero_gru()),
    ],
)
def test_model_takes_layers_in_any_order(layers, last_step):
    model = model_of(*layers, n_inputs=1 if layers[0].name == "embedding" else 2, last_step=last_step)
    assert oracle.proved(to_oracle(model))


def test_a_single_vector_has_no_every_step():
    model_of(FINAL, zero_dense(1, 2), last_step=True)
    with refused("'both': gives its final states only"):
        model_of(FINAL, zero_dense(1, 2), last_step=False)


def test_a_token_number_has_no_fraction():
    with refused("a token number has 0"):
        replace(model_of(zero_embedding(), zero_gru(), n_inputs=1), input_fraction_bits=np.ones(1, np.int8))


@EXAMPLES
@given(model=oracle_models(any_plans()))
def test_shapes_and_formats_are_the_oracles(model):
    int_model = from_oracle(model)
    columns, bits = len(model.input_fractions), None
    for layer in model.layers:
        columns = oracle.width(layer, columns)
        if isinstance(layer, oracle.Gru):
            bits = layer.f_h
        elif isinstance(layer, oracle.Bidirectional):
            bits = oracle.merged_fraction(layer.merge, layer.forward.f_h)
        elif isinstance(layer, oracle.Dense):
            bits = layer.f_out
    assert (int_model.n_inputs, int_model.n_outputs) == (len(model.input_fractions), columns)
    assert int_model.output_fraction_bits == bits
    assert int_model.streaming == oracle.streaming(model)
    assert int_model.n_units == sum(gru.units for gru in model.grus)
    assert (*int_model.body, *int_model.head) == int_model.layers
    n_reverse = sum(isinstance(layer, oracle.Reverse) for layer in model.layers)
    assert int_model.reversed_input == (int_model.streaming and n_reverse % 2 == 1)


def test_model_takes_as_many_layers_as_the_digest_can_count():
    model = model_of(zero_gru(), *[zero_dense()] * 254)
    assert model.digest.hex() == oracle.digest(to_oracle(model))


@pytest.mark.parametrize(
    "changes",
    [
        {"input_fraction_bits": np.zeros(1, np.int8)},
        {"input_fraction_bits": np.zeros(2, np.int16)},
        {"input_fraction_bits": np.array([0, 32], np.int8)},
        {"input_fraction_bits": np.array([-32, 0], np.int8)},
        {"selftest": SelfTest(np.zeros((1, 3), np.int16), 0)},
        {"selftest": SelfTest(np.zeros(2, np.int16), 0)},
        {"selftest": SelfTest(np.zeros((65536, 2), np.int16), 0)},
        *[{"last_step": value} for value in (0, 1, 2, 0.5, "yes", None, [])],
        *[{"name": name} for name in NO_NAMES],
        *[{"notes": notes} for notes in (None, "text", [], 5)],
        *[{"mask_value": value} for value in (float("nan"), float("inf"), -float("inf"))],
    ],
)
def test_model_refuses(changes):
    model = model_of(zero_gru())
    with refused():
        replace(model, **changes)


def test_model_refuses_a_selftest_without_a_step():
    with refused("self-test: inputs .*, expected"):
        replace(model_of(zero_gru()), selftest=SelfTest(np.zeros((0, 2), np.int16), 0))


@pytest.mark.parametrize("inputs", [np.zeros((1, 2), np.int32), np.zeros((1, 2))])
def test_selftest_refuses_inputs(inputs):
    with refused("self-test"):
        SelfTest(inputs, 0)


@pytest.mark.parametrize("check", [-1, 2**32, *NO_INTEGERS])
def test_selftest_refuses_check_values(check):
    with refused("self-test"):
        SelfTest(np.zeros((1, 2), np.int16), check)


@pytest.mark.parametrize("units", [("g",), ("g", 1), "gg", None, (["g"], "g")])
def test_units_are_texts_one_for_each(units):
    with refused("input_units .*, expected 2 texts, or none"):
        replace(small_model(), input_units=units)


# ---- the proof ----------------------------------------------------------------------------------------------------

FULL = np.array([[-128] * 511 + [127]] * 3, np.int8)  # 32768 * 65535: the largest row that P1 admits


def test_p1_admits_the_longest_rows_and_refuses_one_code_more():
    w = zero_matrix(3, 512, codes=FULL)
    model_of(zero_gru(n_inputs=512, input=w), n_inputs=512)
    for row in range(3):
        broken = replace(w, codes=at(FULL, (row, 511), -128))
        with refused(f"accumulator of W: row {row}"):
            model_of(zero_gru(n_inputs=512, input=broken), n_inputs=512)


def test_p1_counts_the_left_shift():
    codes = np.full((3, 2), 1, np.int8)  # 2 * 32768 * 2^14 = 2^30, with 2^15: 2^31
    model_of(zero_gru(input=zero_matrix(3, 2, codes=codes, left_shift=14)))
    with refused("accumulator of W"):
        model_of(zero_gru(input=zero_matrix(3, 2, codes=codes, left_shift=15)))


def test_p1_holds_for_recurrent_and_dense_matrices():
    u = zero_matrix(3, 1, codes=np.array([[0], [2], [0]], np.int8), left_shift=15)
    with refused("accumulator of U: row 1"):
        model_of(zero_gru(recurrent=u))
    with refused("'dense', accumulator"):
        model_of(zero_gru(), zero_dense(matrix=zero_matrix(1, 1, codes=np.array([[-2]], np.int8), left_shift=15)))


def test_p1_holds_for_the_largest_numbers_that_a_matrix_can_hold():
    w = zero_matrix(3, 65535, codes=np.full((3, 65535), -128, np.int8), left_shift=15)
    with refused("accumulator of W"):
        model_of(zero_gru(n_inputs=65535, input=w), n_inputs=65535)


LIMIT = 2**31 - 1


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("row", [0, 1, 2])
@pytest.mark.parametrize("reset", ["after", "before"])
def test_p2_limits_each_bias(reset, row, sign):
    """Empty matrices: Q = 1 for each of the two."""
    bias = np.zeros(3, np.int32)
    model_of(zero_gru(reset, bias=at(bias, row, sign * (LIMIT - 2))))
    with refused(f"pre-activation: row {row}"):
        model_of(zero_gru(reset, bias=at(bias, row, sign * (LIMIT - 1))))


def test_p2_adds_the_recurrent_bias_of_the_candidate_only():
    c = np.array([-5], np.int32)
    for row, room in ((0, 2), (1, 2), (2, 7)):
        model_of(zero_gru(bias=at(np.zeros(3, np.int32), row, LIMIT - room), recurrent_bias=c))
    with refused("pre-activation: row 2"):
        model_of(zero_gru(bias=np.array([0, 0, LIMIT - 6], np.int32), recurrent_bias=c))


def test_p2_holds_for_the_smallest_s32():
    with refused("pre-activation"):
        model_of(zero_gru(bias=np.array([-(2**31), 0, 0], np.int32)))
    with refused("pre-activation"):
        model_of(zero_gru(recurrent_bias=np.array([-(2**31)], np.int32)))


def test_p2_limits_the_bias_of_a_dense_layer():
    model_of(zero_gru(), zero_dense(bias=np.array([LIMIT - 1], np.int32)))
    with refused("'dense', pre-activation"):
        model_of(zero_gru(), zero_dense(bias=np.array([-LIMIT], np.int32)))


@EXAMPLES
@given(model=oracle_models(any_plans()))
def test_bounds_are_those_of_the_oracle(model):
    int_model = from_oracle(model)
    for gru, layer in zip(model.grus, int_model.grus, strict=True):
        bounds = prove(layer)
        assert bounds.accumulators == (largest_accumulator(gru.w), largest_accumulator(gru.u))
        assert bounds.pre_activation == max(oracle.gate_bound(gru, i) for i in range(3 * gru.units))
    for dense, layer in zip(oracle.dense_layers(model), int_model.dense, strict=True):
        bounds = prove(layer)
        assert bounds.accumulators == (largest_accumulator(dense.matrix),)
        assert bounds.pre_activation == max(oracle.dense_bound(dense, i) for i in range(len(dense.b)))


def largest_accumulator(matrix):
    return max(oracle.accumulator_bound(codes) * 2**matrix.k for codes in matrix.codes)


# ---- immutable, with a digest -------------------------------------------------------------------------------------


def arrays_of(value):
    """All arrays in a model, wherever they are."""
    if isinstance(value, np.ndarray):
        return [value]
    if isinstance(value, tuple):
        return [array for item in value for array in arrays_of(item)]
    if is_dataclass(value):
        return [array for field in fields(value) for array in arrays_of(getattr(value, field.name))]
    return []


def test_arrays_are_read_only(tmp_path):
    model = small_model()
    started = replace(model.grus[0], initial_state=np.ones(2, np.int16))
    model = replace(model, layers=(started, *model.layers[1:]))
    model.save(tmp_path / "m.qgru")
    for each in (model, IntModel.load(tmp_path / "m.qgru")):
        arrays = arrays_of(each)
        assert len(arrays) == 2 + 3 * 3 + 3 + 1  # inputs and self-test, matrices, biases, an initial state
        for array in arrays:
            with pytest.raises(ValueError, match="read-only"):
                array[...] = 0


def test_arrays_are_not_shared_with_the_caller():
    bias = np.zeros(3, np.int32)
    model = model_of(zero_gru(bias=bias))
    digest = model.digest
    bias[0] = 1
    assert model.grus[0].bias[0] == 0
    assert replace(model).digest == digest


def test_fields_are_frozen():
    model = small_model()
    for owner, name in ((model, "name"), (model.grus[0], "bias"), (model.grus[0].input, "left_shift")):
        with pytest.raises(FrozenInstanceError):
            setattr(owner, name, None)
    with pytest.raises(TypeError):
        model.notes["more"] = 1


@EXAMPLES
@given(model=int_models() | int_models(any_plans()))
def test_digest_is_r17(model):
    assert model.digest.hex() == oracle.digest(to_oracle(model))


def test_units_and_masks_are_no_part_of_the_digest():
    model = small_model()
    assert replace(model, input_units=["g", "°C"], output_units=("m",)).digest == model.digest
    assert replace(model, mask_value=0.0).digest == model.digest


@pytest.mark.parametrize("value", [np.nan, -np.inf, np.ones(2), {1}, b"x"])
def test_notes_are_what_a_file_can_hold(value):
    with refused("notes that JSON does not have"):
        replace(small_model(), notes={"why": [value]})


def test_digest_does_not_depend_on_names_notes_and_selftest():
    model = small_model()
    layers = tuple(replace(layer, name=f"other {layer.name}") for layer in model.layers)
    other = replace(
        model, layers=layers, name="other", notes={"why": [1]}, selftest=SelfTest(np.ones((3, 2), np.int16), 7)
    )
    assert other.digest == model.digest
