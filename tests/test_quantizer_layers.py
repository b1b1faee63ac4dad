"""Formats of states, embeddings and merges, and the accuracy of every kind of layer, function and format."""

from dataclasses import replace

import numpy as np
import pytest
from test_float_structure import CANDIDATES, GATES, MERGES, every_kind, gru_of, random_x

import quantgru as qg
from quantgru.errors import DataError, ModelError
from quantgru.fixed import to_real
from quantgru.model import Bidirectional, Dense, Embedding, FloatModel, Gru, Reverse
from quantgru.quantizer import dequantize
from quantgru.report.accuracy import sqnr_db
from quantgru.simulator import run


def constant_gru(n, candidate="linear", **arrays):
    """One unit whose candidate is `n` at every step, whatever comes in, and whose gates are 1/2."""
    bias = np.array([[0.0], [0.0], [n]])
    return Gru("gru", "after", np.zeros((3, 1, 1)), np.zeros((3, 1, 1)), bias, [0.0], candidate=candidate, **arrays)


def state_bits(*layers, x=None):
    model = FloatModel(layers, last_step=False)
    return [gru.state_fraction_bits for gru in qg.quantize(model, np.ones((1, 30, 1)) if x is None else x).grus]


# ---- formats, by hand ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "expected"),
    # Twice the peak fits: 2 * 0.4 < 1, 2 * 0.6 < 2, 2 * 1.9 < 4, 2 * 100 < 256, 2 * 3000 < 8192.
    [(0.4, 15), (0.6, 14), (-0.6, 14), (1.9, 13), (100.0, 7), (3000.0, 2), (1e6, -6)],
)
def test_a_state_without_limit_has_room_for_twice_its_peak(n, expected):
    assert state_bits(constant_gru(n)) == [expected]


def test_the_candidate_counts_not_the_state_alone():
    """z is nearly 1 and h stays small, but n saturates in the state's format: that must hold n."""
    gru = constant_gru(40.0)
    slow = replace(gru, bias=np.array([[9.0], [0.0], [40.0]]))
    assert np.abs(FloatModel((slow,), last_step=False).run(np.ones((1, 30, 1)))).max() < 0.2
    assert state_bits(slow) == [8]  # 2 * 40 < 128


@pytest.mark.parametrize("candidate", ["tanh", "sigmoid", "hard_tanh"])
@pytest.mark.parametrize(("start", "expected"), [(0.0, 15), (-1.0, 15), (1.1, 14), (-1.9, 14), (-2.0, 13), (900.0, 5)])
def test_a_bounded_state_has_15_bits_unless_it_starts_beyond_1(candidate, start, expected):
    """No room beyond the initial state: nothing is larger. s16f14 ends just below 2."""
    assert state_bits(constant_gru(0.5, candidate, initial_state=[start])) == [expected]


def test_initial_states_of_a_run_count_when_they_are_given():
    model, x = FloatModel((constant_gru(0.5, "tanh"),), last_step=False), np.ones((2, 9, 1))
    int_model = qg.quantize(model, x, initial_states=[[[0.5], [-3.0]]])
    assert int_model.grus[0].state_fraction_bits == 13
    assert int_model.grus[0].initial_state is None
    found = qg.simulate(int_model, x, initial_states=[[[0.5], [-3.0]]])
    np.testing.assert_allclose(found, model.run(x, initial_states=[[[0.5], [-3.0]]]), atol=2 * 2.0**-13)


def test_an_initial_state_is_rounded_to_the_states_format():
    model = FloatModel((gru_of(1, initial_state=[0.5, -3.0, 1e-5]),), last_step=True)
    int_model = qg.quantize(model, random_x(1, 5, 2))
    assert int_model.grus[0].state_fraction_bits == 13
    assert int_model.grus[0].h0.tolist() == [4096, -24576, 0]


def test_a_state_that_is_always_0_gets_a_format_all_the_same():
    """relu of something negative: nothing to go by."""
    gru = gru_of(1, candidate="relu")
    dead = replace(gru, bias=np.array([[0.0] * 3, [0.0] * 3, [-50.0] * 3]), recurrent_bias=np.zeros(3))
    int_model = qg.quantize(FloatModel((dead,), last_step=True), random_x(4, 9, 2))
    (warning,) = int_model.notes["warnings"]
    assert warning == "GRU layer 'gru': its state is always 0 on the calibration data; its format is a guess"
    assert qg.simulate(int_model, random_x(2, 5, 2)).tolist() == [[0.0] * 3] * 2


@pytest.mark.parametrize("merge", MERGES)
def test_both_directions_have_the_coarser_format(merge):
    both = Bidirectional("both", constant_gru(0.3), constant_gru(100.0), merge)
    assert state_bits(both) == [7, 7]


def test_an_embedding_has_a_scale_for_each_column():
    vectors = np.array([[0.5, -80.0, 0.0], [-0.25, 127.0, 0.0], [0.1, 3.3, 0.0]])
    gru = gru_of(1, 3, scale=0.01)
    int_model = qg.quantize(FloatModel((Embedding("words", vectors), gru), last_step=False), [[[0], [1], [2]]])
    assert int_model.layers[0].codes.tolist() == [[127, -80, 0], [-63, 127, 0], [25, 3, 0]]  # -63.5 goes up
    assert int_model.input_fraction_bits.tolist() == [0]


@pytest.mark.parametrize("layers", [(), (Reverse(),)])
def test_the_scales_of_an_embedding_reach_the_next_weights(layers):
    """Also through a reversal, which has no weights."""
    vectors = random_x(7, 2) * [0.01, 30.0]
    model = FloatModel((Embedding("words", vectors), *layers, gru_of(2)), last_step=False)
    x = np.random.default_rng(0).integers(0, 7, size=(20, 12, 1))
    assert sqnr_db(model.run(x), qg.simulate(qg.quantize(model, x), x)) > 40


# ---- accuracy ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reset", ["after", "before"])
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("candidate", CANDIDATES)
def test_functions_are_as_accurate_as_tanh_and_sigmoid(reset, gate, candidate):
    """8-bit weights alone allow some 45 dB, the worst of these has 44.6."""
    model, x = (
        FloatModel((gru_of(1, reset=reset, gate=gate, candidate=candidate),), last_step=False),
        random_x(20, 30, 2),
    )
    result = run(qg.quantize(model, x), x)
    assert sqnr_db(model.run(x), result.outputs) > 42
    assert result.saturated_states == (0,)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("candidate", CANDIDATES)
def test_the_arithmetic_alone_is_far_more_accurate(gate, candidate):
    """Against the float run of the very weights that the integers mean."""
    model, x = FloatModel((gru_of(1, gate=gate, candidate=candidate),), last_step=False), random_x(20, 30, 2)
    int_model = qg.quantize(model, x)
    assert sqnr_db(dequantize(int_model).run(x), qg.simulate(int_model, x)) > 70


@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("final", [False, True])
def test_bidirectional_layers(merge, final):
    both = Bidirectional("both", gru_of(1), gru_of(2, candidate="relu"), merge, final)
    model, x = FloatModel((both,), last_step=final), random_x(20, 30, 2)
    assert sqnr_db(model.run(x), qg.simulate(qg.quantize(model, x), x)) > 42


def test_every_kind_of_layer_at_once():
    model, x = every_kind(), np.random.default_rng(1).integers(0, 5, size=(30, 20, 1))
    int_model = qg.quantize(model, x)
    assert sqnr_db(model.run(x), qg.simulate(int_model, x)) > 45
    assert sqnr_db(dequantize(int_model).run(x), qg.simulate(int_model, x)) > 65


def test_a_candidate_beyond_its_range_saturates_and_is_counted():
    """n = 4 x - 1.5, which was within 0.3 in the calibration data: the format ends at 1."""
    weights, bias = np.array([[[0.0]], [[0.0]], [[4.0]]]), np.array([[0.0], [0.0], [-1.5]])
    gru = replace(constant_gru(0.0, "linear"), input_weights=weights, bias=bias)
    int_model = qg.quantize(FloatModel((gru,), last_step=False), np.array([[[0.4]] * 20, [[0.3]] * 20]))
    assert int_model.grus[0].state_fraction_bits == 15
    result = run(int_model, np.array([[[0.4], [-0.4], [0.4]]]))
    assert result.saturated_states == (1,)
    assert result.clipped_inputs.tolist() == [0]


# ---- standardisation and refusals ----------------------------------------------------------------------------------

MEAN, SCALE = np.array([5.0, -300.0]), np.array([0.1, 20.0])


@pytest.mark.parametrize(
    "layers",
    [
        (Dense("first", random_x(3, 2), random_x(3), "tanh"), gru_of(1, 3)),
        (Bidirectional("both", gru_of(1), gru_of(2)),),
        (Reverse(), gru_of(1)),
    ],
    ids=["dense", "bidirectional", "reverse"],
)
def test_standardisation_is_folded_into_the_first_weights(layers):
    model, x = FloatModel(layers, last_step=False), random_x(20, 30, 2) * SCALE + MEAN
    int_model = qg.quantize(model, x, mean=MEAN, scale=SCALE)
    assert sqnr_db(model.run((x - MEAN) / SCALE), qg.simulate(int_model, x)) > 40


def test_standardisation_of_what_is_no_measurement():
    model = FloatModel((Embedding("words", random_x(5, 2)), gru_of(1)), last_step=True)
    with pytest.raises(DataError, match="mean and scale: the model reads token numbers, of layer 'words'"):
        qg.quantize(model, np.zeros((1, 3, 1)), mean=1.0)
    model = FloatModel((gru_of(1),), last_step=True, mask_value=0.0)
    with pytest.raises(DataError, match="mean and scale: the model masks steps by their standardised value"):
        qg.quantize(model, random_x(1, 3, 2), mean=1.0)


def test_tokens_of_calibration_data_are_checked():
    model = FloatModel((Embedding("words", random_x(5, 2)), gru_of(1)), last_step=True)
    with pytest.raises(DataError, match=r"0\.5 at sequence 0, step 0, embedding 'words' takes integers of 0 \.\.\. 4"):
        qg.quantize(model, [[[0.5]]])


def test_states_that_no_16_bits_hold():
    with pytest.raises(ModelError, match=r"^GRU layer 'gru', whose candidate linear has no limit: values up to 1e"):
        qg.quantize(FloatModel((constant_gru(1e15),), last_step=True), np.ones((1, 30, 1)))


def test_masked_steps_do_not_calibrate():
    model, x = FloatModel((gru_of(1),), last_step=True, mask_value=1000.0), random_x(4, 9, 2)
    x[:, 3:5] = 1000.0
    int_model = qg.quantize(model, x)
    assert int_model.mask_value == 1000.0
    assert int_model.notes["calibration"] == {"sequences": 4, "steps": 28, "longest": 7}
    assert int_model.notes["inputs"][0]["max"] < 4
    np.testing.assert_array_equal(qg.simulate(int_model, x), qg.simulate(int_model, np.delete(x, [3, 4], axis=1)))


def test_notes_name_every_dense_layer_and_state():
    model = every_kind()
    notes = qg.quantize(model, np.random.default_rng(1).integers(0, 5, size=(30, 20, 1))).notes
    assert [entry["layer"] for entry in notes["outputs"]] == ["between", "out"]
    assert len(notes["states"]) == 3


def test_real_states_come_back_in_their_format():
    model, x = FloatModel((gru_of(1, candidate="relu"),), last_step=False), random_x(3, 9, 2)
    int_model = qg.quantize(model, x)
    result = run(int_model, x)
    np.testing.assert_array_equal(result.outputs, to_real(result.states_raw[0], int_model.grus[0].state_fraction_bits))


def test_more_tokens_than_an_input_tells_apart():
    model = FloatModel((Embedding("words", np.zeros((2**15 + 1, 2)) + 0.1), gru_of(1)), last_step=True)
    with pytest.raises(ModelError, match=r"^embedding 'words': 32769 tokens, a 16-bit input tells 32768 apart"):
        qg.quantize(model, np.ones((1, 3, 1)))
