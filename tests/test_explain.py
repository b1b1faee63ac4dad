"""Derivations: each float against plain Python, each integer against the oracle, and the command."""

import json
import math

import numpy as np
import oracle
import pytest
from click.testing import CliRunner
from strategies import to_oracle
from test_float_structure import CANDIDATES, GATES, every_kind, gru_of, random_x, states_by_formula

import quantgru as qg
from quantgru import explanation
from quantgru.cli.main import cli
from quantgru.errors import ConfigError, DataError, ModelError
from quantgru.fixed import to_raw16
from quantgru.model import Bidirectional, FloatModel

ONE_UNIT = {
    "kernel": [[-0.90954137, 1.0425225, -0.04404902]],
    "recurrent_kernel": [[0.24168766, 0.8981342, 0.36734456]],
}
SEQUENCE = np.array([1.0, 2.0, 9.0, 8.0]).reshape(1, 4, 1)


def one_unit():
    return qg.from_arrays(convention="keras-reset-after", **ONE_UNIT)


def sigmoid(a):
    return 1 / (1 + math.exp(-a))


# ---- floats, by hand -----------------------------------------------------------------------------------------------


def test_the_floats_of_the_case_that_people_ask_about():
    """A Keras GRU of one unit on 1, 2, 9, 8: each line by the formula."""
    (wz, wr, wn), (uz, ur, un) = ONE_UNIT["kernel"][0], ONE_UNIT["recurrent_kernel"][0]
    h = 0.0
    for x, found in zip((1, 2, 9, 8), qg.explain(one_unit(), SEQUENCE), strict=True):
        a_z, a_r = wz * x + uz * h, wr * x + ur * h
        z, r = sigmoid(a_z), sigmoid(a_r)
        a_n = wn * x + r * (un * h)
        n = math.tanh(a_n)
        expected = {
            "W_z x[0]": wz * x, "W_z x": wz * x, "U_z h[0]": uz * h, "b_z": 0, "a_z": a_z, "z": z, "u": 1 - z,
            "a_r": a_r, "r": r, "U_n h": un * h, "c": 0, "r (U_n h + c)": r * un * h, "W_n x": wn * x, "b_n": 0,
            "a_n": a_n, "n": n, "h before": h, "h": z * h + (1 - z) * n,
        }  # fmt: skip
        for name, value in expected.items():
            assert found[name].value == pytest.approx(value, abs=1e-14), name
        h = expected["h"]
    assert h == pytest.approx(-0.4627954, abs=5e-8)  # what Keras gives, see docs/by-hand.md


@pytest.mark.parametrize("reset", ["after", "before"])
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("candidate", CANDIDATES)
def test_floats_of_every_function(reset, gate, candidate):
    gru = gru_of(1, reset=reset, gate=gate, candidate=candidate, initial_state=[0.2, -0.3, 0.1])
    x = random_x(3, 4, 2)
    states = states_by_formula(gru, x[2].tolist(), gru.initial_state)
    for found in qg.explain(FloatModel((gru,), last_step=False), x, sequence=2):
        assert found["h"].value == pytest.approx(states[found.step][found.unit], abs=1e-13)
        total = sum(line.value for line in found.lines if line.name.startswith("W_n x["))
        assert found["W_n x"].value == pytest.approx(total, abs=1e-14)


def test_given_states_are_those_before_the_first_step():
    gru, x, given = gru_of(1), random_x(2, 4, 2), [[0.1, 0.2, 0.3], [0.5, -0.25, 0.75]]
    states = states_by_formula(gru, x[1].tolist(), given[1])
    model = FloatModel((gru,), last_step=False)
    for found in qg.explain(model, x, sequence=1, initial_states=[given]):
        before = given[1] if found.step == 0 else states[found.step - 1]
        assert found["h before"].value == pytest.approx(before[found.unit], abs=1e-13)
        assert found["h"].value == pytest.approx(states[found.step][found.unit], abs=1e-13)
        if found.step == 0:
            assert found["h before"].raw == 2**15 * given[1][found.unit]  # exact in s16f15
    int_model = qg.quantize(model, x, initial_states=[given])
    expected = qg.simulate(int_model, x, initial_states=[given])[1]
    last = qg.explain(int_model, x, sequence=1, initial_states=[given], step=3)
    assert [found["h"].real for found in last] == expected[3].tolist()


# ---- integers, by the oracle ---------------------------------------------------------------------------------------


def expected_integers(layer, x, h, r, unit):
    """Sums of one unit, as SPEC.md names them, from the oracle's rows."""
    units = layer.units
    sums = {}
    for number, gate in enumerate("zr"):
        i = number * units + unit
        sums |= {
            f"W_{gate} x": oracle.row(layer.w, i, x),
            f"U_{gate} h": oracle.row(layer.u, i, h),
            f"b_{gate}": layer.b[i],
        }
        sums[f"a_{gate}"] = oracle.gate_row(layer, i, x, h)
    i = 2 * units + unit
    sums |= {"W_n x": oracle.row(layer.w, i, x), "b_n": layer.b[i]}
    if layer.reset == oracle.RESET_AFTER:
        sums |= {"U_n h": oracle.row(layer.u, i, h), "c": layer.c[unit]}
        inner = oracle.reset_product(sums["U_n h"] + sums["c"], r[unit])
        sums |= {"r (U_n h + c)": inner, "a_n": sums["W_n x"] + sums["b_n"] + inner}
    else:
        products = [oracle.round_shift(h_j * r_j, 15) for h_j, r_j in zip(h, r, strict=True)]
        sums["U_n (r h)"] = oracle.row(layer.u, i, products)
        sums["a_n"] = sums["W_n x"] + sums["b_n"] + sums["U_n (r h)"]
    return sums


@pytest.mark.parametrize("reset", ["after", "before"])
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("candidate", CANDIDATES)
def test_integers_are_the_oracles(reset, gate, candidate):
    gru = gru_of(1, reset=reset, gate=gate, candidate=candidate, initial_state=[0.2, -3.0, 0.1])
    x = random_x(2, 5, 2)
    int_model = qg.quantize(FloatModel((gru,), last_step=False), x)
    raw = to_raw16(x[0], int_model.input_fraction_bits)[0].tolist()
    model = to_oracle(int_model)
    steps = oracle.run(model, raw)
    h, e = oracle.reset(model).h[0], (0, 0, 0)
    for t, step in enumerate(steps):
        for unit in range(3):
            (found,) = qg.explain(int_model, x, step=t, unit=unit)
            expected = expected_integers(model.grus[0], raw[t], h, step.r[0], unit)
            expected |= {"u": step.u[0][unit], "r": step.r[0][unit], "n": step.n[0][unit], "z": 2**15 - step.u[0][unit]}
            expected |= {
                "h before": h[unit],
                "e before": e[unit],
                "h": step.state.h[0][unit],
                "e": step.state.e[0][unit],
            }
            assert {name: found[name].raw for name in expected} == expected
        h, e = step.state.h[0], step.state.e[0]


def test_what_integers_mean_is_near_the_floats():
    """The float weights of an integer model are those that its integers mean: what is left is rounding."""
    for found in qg.explain(qg.quantize(one_unit(), SEQUENCE), SEQUENCE):
        for line in found.lines:
            if line.value is not None:
                assert line.real == pytest.approx(line.value, abs=3e-4), line.name


def test_each_direction_is_a_layer_and_reads_in_its_own_order():
    model = FloatModel((Bidirectional("both", gru_of(1), gru_of(2)),), last_step=False)
    x = random_x(1, 4, 2)
    backward = qg.explain(model, x, layer=1, unit=0)
    expected = states_by_formula(model.grus[1], x[0, ::-1].tolist())
    assert [found["h"].value for found in backward] == pytest.approx([h[0] for h in expected], abs=1e-13)


def test_every_kind_of_model():
    model, x = every_kind(), np.random.default_rng(0).integers(0, 5, size=(4, 6, 1))
    found = qg.explain(model, x, step=5)
    assert [derivation.unit for derivation in found] == [0, 1, 2, 3, 0, 1, 2, 0, 1, 2]


def test_derivations_are_made_when_they_are_asked_for(monkeypatch):
    asked = []
    monkeypatch.setattr(explanation, "unit_lines", lambda _, t, u: asked.append((t, u)) or ())
    model, x = every_kind(), np.random.default_rng(0).integers(0, 5, size=(1, 6, 1))
    found = qg.explain(model, x)
    assert (len(found), asked) == (6 * 10, [])
    places = [(t, u) for units in (4, 3, 3) for t in range(6) for u in range(units)]
    assert [(each.step, each.unit) for each in found] == places == asked
    last = found[-1]
    assert (last.step, last.unit) == (5, 2) and [each.step for each in found[:8:4]] == [0, 1]
    with pytest.raises(IndexError):
        found[60]


def test_what_a_standardised_model_reads():
    """Folded into the weights: x is in its own units, and what W x and the bias come to is the same."""
    mean, scale = [20.0], [4.0]
    expected = qg.explain(one_unit(), (SEQUENCE - mean) / scale)
    for found, of_standardised in zip(qg.explain(one_unit(), SEQUENCE, mean=mean, scale=scale), expected, strict=True):
        assert found["h"].value == pytest.approx(of_standardised["h"].value, abs=1e-13)
        assert found["W_z x[0]"].value != of_standardised["W_z x[0]"].value


# ---- what may be asked ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "error", "message"),
    [
        ({"step": 4}, ConfigError, r"explain: step 4, there are 0 \.\.\. 3"),
        ({"step": -1}, ConfigError, r"explain: step -1, there are 0 \.\.\. 3"),
        ({"unit": 1}, ConfigError, r"explain: unit 1, there are 0 \.\.\. 0"),
        ({"unit": "a"}, ConfigError, r"explain: unit 'a', there are 0 \.\.\. 0"),
        ({"step": 1.5}, ConfigError, r"explain: step 1\.5, there are 0 \.\.\. 3"),
        ({"step": True}, ConfigError, r"explain: step True, there are 0 \.\.\. 3"),
        ({"initial_states": [[0.5, 0.5]]}, DataError, r"initial states, layer 0: shape \(2,\)"),
        ({"sequence": 1}, DataError, r"explain: sequence 1, the input has 0 \.\.\. 0"),
        ({"layer": 1}, ConfigError, "explain: GRU layer 1, there are: 0 gru"),
        ({"layer": "lstm"}, ConfigError, "explain: GRU layer 'lstm', there are: 0 gru"),
    ],
)
def test_what_there_is_not(question, error, message):
    with pytest.raises(error, match=f"^{message}"):
        qg.explain(one_unit(), SEQUENCE, **question)


def test_other_models():
    with pytest.raises(ModelError, match=r"^explain: a model of type str, expected a FloatModel or an IntModel$"):
        qg.explain("gesture.keras", SEQUENCE)


# ---- the command ---------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path):
    one_unit().save(tmp_path / "one.qgf")
    qg.quantize(one_unit(), SEQUENCE).save(tmp_path / "one.qgru")
    np.savez(tmp_path / "x.npz", x=SEQUENCE)
    return tmp_path


def command(files, model, *options):
    return CliRunner().invoke(cli, ["explain", str(files / model), "--input", str(files / "x.npz"), *options])


@pytest.mark.parametrize("model", ["one.qgf", "one.qgru"])
def test_the_command_prints_what_the_function_gives(files, model):
    text = command(files, model, "--step", "3", "--unit", "0").output
    assert text.startswith("layer gru, sequence 0, step 3, unit 0")
    last = next(line for line in text.splitlines() if line.startswith("h  "))
    assert "z * h + (1 - z) * n" in last and "h + (u * (n - h) + e >> 15)" in last and "s16f15" in last
    found = qg.explain(one_unit(), SEQUENCE, step=3, unit=0)[0]
    assert str(found["h"].raw) in last.split()


def test_the_command_prints_json(files):
    answer = json.loads(command(files, "one.qgf", "--json").output)
    assert [entry["step"] for entry in answer] == [0, 1, 2, 3]
    assert answer[3]["lines"][-2]["name"] == "h"
    assert answer[3]["lines"][-2]["value"] == pytest.approx(-0.4627954, abs=5e-8)


def test_the_command_calibrates_on_other_data(files):
    np.savez(files / "wide.npz", x=100 * SEQUENCE)
    narrow, wide = (
        json.loads(command(files, "one.qgf", "--json", *options).output)[0]["lines"][0]["raw"]
        for options in ((), ("--calibration", str(files / "wide.npz")))
    )
    assert abs(wide) < abs(narrow)


def test_the_command_reads_a_standardisation(files):
    np.savez(files / "s.npz", mean=[20.0], scale=[4.0])
    options = ("--standardisation", str(files / "s.npz"))
    expected = qg.explain(one_unit(), SEQUENCE, mean=[20.0], scale=[4.0])
    as_json = json.dumps([derivation.to_json() for derivation in expected], indent=2)
    assert command(files, "one.qgf", "--json", *options).output == f"{as_json}\n"
    refused = command(files, "one.qgru", *options)
    assert "mean and scale are in the weights of an integer model already" in str(refused.exception)


def test_the_command_reads_the_initial_states_of_its_input(files):
    np.savez(files / "x.npz", x=SEQUENCE, initial_state0=[0.5])
    for model in ("one.qgf", "one.qgru"):
        answer = json.loads(command(files, model, "--json", "--step", "0").output)
        (before,) = (line for line in answer[0]["lines"] if line["name"] == "h before")
        assert (before["value"], before["raw"]) == (0.5, 2**14)
