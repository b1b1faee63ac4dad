"""Widths of weights: which codes a model has, by layer, matrix and gate."""

import numpy as np
import pytest
from float_models import random_dense, random_gru, random_x

import quantgru as qg
from quantgru.errors import ModelError
from quantgru.int_model import IntModel
from quantgru.model import FloatModel
from quantgru.quantizer.widths import parse_weight_bits, weight_bits_text
from quantgru.simulator import run

X = random_x(20, 30, 3)


@pytest.fixture(scope="module")
def model() -> FloatModel:
    rng = np.random.default_rng(5)
    layers = (random_gru(rng, 3, 6, "after", "low"), random_gru(rng, 6, 5, "before", "high"))
    return FloatModel((*layers, random_dense(rng, 5, 2, "linear", "out")), last_step=False)


def ranges(model: IntModel) -> dict[str, tuple[int, int]]:
    """Lowest and highest code of each gate and dense layer."""
    found = {}
    for gru in model.grus:
        for name, matrix in (("W", gru.input), ("U", gru.recurrent)):
            for gate, rows in zip("zrn", np.split(matrix.codes, 3), strict=True):
                found[f"{gru.name}.{name}.{gate}"] = (int(rows.min()), int(rows.max()))
    for dense in model.dense:
        found[dense.name] = (int(dense.matrix.codes.min()), int(dense.matrix.codes.max()))
    return found


@pytest.mark.parametrize("rounding", ["compensated", "nearest"])
@pytest.mark.parametrize("bits", range(2, 13))
def test_codes_stay_in_their_range(model: FloatModel, rounding, bits: int) -> None:
    for low, high in ranges(qg.quantize(model, X, rounding=rounding, weight_bits=bits)).values():
        assert -(2 ** (bits - 1)) <= low and high <= 2 ** (bits - 1) - 1
        if rounding == "nearest":  # the other one may choose a larger scale
            assert low == -(2 ** (bits - 1)) or high == 2 ** (bits - 1) - 1


@pytest.mark.parametrize("rounding", ["compensated", "nearest"])
def test_more_bits_than_an_accumulator_has_room_for(model: FloatModel, rounding) -> None:
    """Each row has codes of 16 bits, or none that are larger would be proved: sums of 65,535 are [P1]."""
    int_model = qg.quantize(model, X, rounding=rounding, weight_bits=16)
    matrices = [matrix for gru in int_model.grus for matrix in (gru.input, gru.recurrent)]
    for matrix in [*matrices, *(dense.matrix for dense in int_model.dense)]:
        codes = np.abs(matrix.codes.astype(np.int64))
        assert matrix.left_shift == 0
        assert (codes.sum(axis=1) <= 65535).all()
        assert ((codes.max(axis=1) > 0.9 * 2**15) | (codes.sum(axis=1) > 0.998 * 65535)).all()


def test_more_bits_are_nearer_to_the_float_model(digits) -> None:
    """By 9 dB from 8 to 10 bits, of which each is worth 6; the arithmetic takes the rest."""
    exact = digits.model.run(digits.x)
    decibels = []
    for bits in (8, 10, 16):
        outputs = run(qg.quantize(digits.model, digits.calibration, weight_bits=bits), digits.x).outputs
        decibels.append(10 * np.log10((exact**2).sum() / ((outputs - exact) ** 2).sum()))
    assert decibels[1] > decibels[0] + 9
    assert decibels[2] > decibels[1] + 3


def test_the_longest_name_counts(model: FloatModel) -> None:
    found = ranges(qg.quantize(model, X, weight_bits={"": 3, "low": 6, "low.U": 5, "low.U.n": 2, "out": 8}))
    widths = {name: max(-low, high + 1).bit_length() for name, (low, high) in found.items()}
    expected = {f"low.W.{gate}": 6 for gate in "zrn"} | {"low.U.z": 5, "low.U.r": 5, "low.U.n": 2, "out": 8}
    expected |= {f"high.{matrix}.{gate}": 3 for matrix in "WU" for gate in "zrn"}
    assert widths == expected


def test_what_no_name_stands_for_has_8_bits(model: FloatModel) -> None:
    plain, one = ranges(qg.quantize(model, X)), ranges(qg.quantize(model, X, weight_bits={"high.W.z": 4}))
    assert one.pop("high.W.z") != plain.pop("high.W.z")
    for of_all in (one, plain):  # U makes up for errors of W
        of_all.pop("high.U.z")
    assert one == plain


@pytest.mark.parametrize(
    ("bits", "says"),
    [
        (1, r"^weight bits: 1, allowed are 2 \.\.\. 16$"),
        (17, "^weight bits: 17, allowed"),
        (True, "^weight bits: True, allowed"),
        (None, "^weight bits: None, allowed"),
        ("four", "^weight bits 'four': 'four' is no width"),
        ({"low": 4.0}, r"^weight bits of 'low': 4\.0, allowed"),
        ({"low.V": 4}, r"^weight bits of 'low\.V': the model has nothing of this name; there are low, low\.W, .* out$"),
        ({"out.W": 4}, r"^weight bits of 'out\.W': the model has nothing"),
    ],
)
def test_widths_that_make_no_sense(model: FloatModel, bits, says: str) -> None:
    """Said before anything else: of the calibration data, too."""
    with pytest.raises(ModelError, match=says):
        qg.quantize(model, np.zeros((1, 0, 3)), weight_bits=bits)


def test_names_may_hold_what_separates_them() -> None:
    """In quotes, as in a line of CSV; the text of any widths means these."""
    rng = np.random.default_rng(3)
    model = FloatModel((random_gru(rng, 3, 4, name='a, "b"=c'),), last_step=False)
    found = ranges(qg.quantize(model, X, weight_bits='4,"a, ""b""=c.U.n=2"'))
    assert max(-found['a, "b"=c.U.n'][0], found['a, "b"=c.U.n'][1] + 1) == 2
    assert weight_bits_text({"": 4, "gru.U.n": 8}) == "4,gru.U.n=8"
    widths = {"": 4, 'a, "b"=c.U.n': 2, "plain": 16}
    assert parse_weight_bits(weight_bits_text(widths)) == widths


@pytest.mark.parametrize("bits", ["4", np.int64(4), np.uint8(4), {"": np.int32(4)}])
def test_other_ways_to_say_four(model: FloatModel, bits) -> None:
    assert qg.quantize(model, X, weight_bits=bits).digest == qg.quantize(model, X, weight_bits=4).digest


def test_a_rounding_that_is_unknown(model: FloatModel) -> None:
    with pytest.raises(ModelError, match=r"^quantize: rounding 'up', allowed are compensated and nearest$"):
        qg.quantize(model, X, rounding="up")  # type: ignore[arg-type]


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_compensated_is_nearer_to_the_float_model(digits, bits: int) -> None:
    """By 3 dB and more on the digits, whatever the width: what it is for."""
    exact = digits.model.run(digits.x)
    decibels = []
    for rounding in ("nearest", "compensated"):
        model = qg.quantize(digits.model, digits.calibration, rounding=rounding, weight_bits=bits)
        outputs = run(model, digits.x).outputs
        decibels.append(10 * np.log10((exact**2).sum() / ((outputs - exact) ** 2).sum()))
    assert decibels[1] > decibels[0] + 3


def test_widths_in_a_text() -> None:
    assert parse_weight_bits("4") == {"": 4}
    assert parse_weight_bits(" 4, gru.U.n=8,dense = 6") == {"": 4, "gru.U.n": 8, "dense": 6}
    assert parse_weight_bits("a=b=3") == {"a=b": 3}


NO_WIDTHS = ["", "x", "4,", "4.5", "-4", "gru=", "gru=x", "²", "4,gru=8,5", "4,=8", "a=2,a=2", "123456789"]


@pytest.mark.parametrize("text", NO_WIDTHS)
def test_what_is_no_text_of_widths(text: str) -> None:
    wrong = "no width|given twice|a second number for all others"
    with pytest.raises(ModelError, match=rf"^weight bits '.*': '.*' is ({wrong}); write a number"):
        parse_weight_bits(text)


@pytest.mark.parametrize("text", ["4\n5", '4,"gru=8'])
def test_what_is_no_line_of_csv(text: str) -> None:
    with pytest.raises(
        ModelError, match=r"^weight bits '.*': .*; write a number for all, 2 \.\.\. 16, and name=number"
    ):
        parse_weight_bits(text)
