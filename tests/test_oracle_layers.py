"""The layers of SPEC.md 1.1 in the oracle: what their formats mean in real numbers, in which orders they may stand."""

import random
from dataclasses import replace
from fractions import Fraction
from itertools import product

import numpy as np
import oracle
import pytest
from strategies import random_inputs

# ---- what formats and orders mean -----------------------------------------------------------------------------------

INPUT_BITS = 12
GATE_BITS = {oracle.GATE_SIGMOID: 14, oracle.GATE_HARD_SIGMOID: 15}
N_BITS = {oracle.CANDIDATE_TANH: 14, oracle.CANDIDATE_SIGMOID: 14, oracle.CANDIDATE_HARD_TANH: 15}


def real_sigmoid(a: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-a))


REAL_GATES = {
    oracle.GATE_SIGMOID: real_sigmoid,
    oracle.GATE_HARD_SIGMOID: lambda a: np.clip(a + 0.5, 0, 1),
}
REAL_CANDIDATES = {
    oracle.CANDIDATE_TANH: np.tanh,
    oracle.CANDIDATE_RELU: lambda a: np.maximum(a, 0),
    oracle.CANDIDATE_LINEAR: lambda a: a,
    oracle.CANDIDATE_SIGMOID: real_sigmoid,
    oracle.CANDIDATE_HARD_TANH: lambda a: np.clip(a, -1, 1),
}


def real_rows(rng: random.Random, columns: int, fractions: list[int], read: int) -> oracle.Matrix:
    """Rows with the real weights code * m * 2^-21; operands have `read` fraction bits, results `fractions`."""
    codes = tuple(tuple(rng.randint(-128, 127) for _ in range(columns)) for _ in fractions)
    m = tuple(rng.randint(2**14, 2**15 - 1) for _ in fractions)
    shifts = [5 + read - fraction for fraction in fractions]  # code m 2^(-21 + fraction - read) = code m 2^(k - 16 - s)
    k = max(0, 1 - min(shifts))
    return oracle.Matrix(codes, m, tuple(shift + k for shift in shifts), k)


def real_layer(rng: random.Random, reset: int, gate: int, candidate: int, f_h: int) -> oracle.Gru:
    """Three units on two inputs."""
    gate_bits, n_bits = GATE_BITS[gate], N_BITS.get(candidate, f_h)
    fractions = [gate_bits] * 6 + [n_bits] * 3
    b = tuple(rng.randint(-(2**bits), 2**bits) for bits in fractions)
    c = tuple(rng.randint(-(2**n_bits), 2**n_bits) for _ in range(3 if reset == oracle.RESET_AFTER else 0))
    w, u = real_rows(rng, 2, fractions, INPUT_BITS), real_rows(rng, 3, fractions, f_h)
    return oracle.Gru(reset, w, u, b, c, gate, candidate, f_h)


def real_step(layer: oracle.Gru, x: np.ndarray, h: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(u, r, n) of the cell in floating point, as papers and frameworks write it."""

    def weights(matrix: oracle.Matrix) -> np.ndarray:
        return np.array(matrix.codes) * np.array(matrix.m)[:, None] / 2**21

    gate_bits, n_bits = GATE_BITS[layer.gate], N_BITS.get(layer.candidate, layer.f_h)
    w, u, b = weights(layer.w).reshape(3, 3, 2), weights(layer.u).reshape(3, 3, 3), np.array(layer.b).reshape(3, 3)
    b_z, b_r, b_n = b[0] / 2**gate_bits, b[1] / 2**gate_bits, b[2] / 2.0**n_bits

    gate, candidate = REAL_GATES[layer.gate], REAL_CANDIDATES[layer.candidate]
    z, r = gate(w[0] @ x + u[0] @ h + b_z), gate(w[1] @ x + u[1] @ h + b_r)
    if layer.reset == oracle.RESET_AFTER:
        return 1 - z, r, candidate(w[2] @ x + b_n + r * (u[2] @ h + np.array(layer.c) / 2.0**n_bits))
    return 1 - z, r, candidate(w[2] @ x + b_n + u[2] @ (r * h))


@pytest.mark.parametrize(("reset", "gate", "candidate"), [*product(range(2), range(2), range(5))])
def test_formats_mean_what_the_page_says(reset, gate, candidate):
    """One step against floating point. A format that is wrong by one bit is wrong by half of the value."""
    for f_h, seed in product((9, 12, 15), range(5)):
        rng = random.Random(seed)
        layer = real_layer(rng, reset, gate, candidate, f_h)
        assert oracle.proved(oracle.Model((INPUT_BITS,) * 2, 0, (layer,)))
        x = [rng.randint(-(2**INPUT_BITS), 2**INPUT_BITS) for _ in range(2)]
        h = [rng.randint(-(2**f_h) + 1, 2**f_h - 1) for _ in range(3)]
        step = oracle.gru_step(layer, x, h, (0,) * 3)
        u, r, n = real_step(layer, np.array(x) / 2**INPUT_BITS, np.array(h) / 2**f_h)
        np.testing.assert_allclose(np.array(step.u) / 2**15, u, rtol=0, atol=2e-4)
        np.testing.assert_allclose(np.array(step.r) / 2**15, r, rtol=0, atol=2e-4)
        n = np.clip(n, -(2.0 ** (15 - f_h)), 2.0 ** (15 - f_h))
        np.testing.assert_allclose(np.array(step.n) / 2**f_h, n, rtol=0, atol=2e-4 + 3 * 2.0**-f_h)


@pytest.mark.parametrize("kind", [oracle.MERGE_SUM, oracle.MERGE_MUL, oracle.MERGE_AVE])
@pytest.mark.parametrize("f_h", [-8, 0, 12, 15, 23])
def test_merges_are_the_nearest_that_their_format_has(kind, f_h):
    rng = random.Random(f_h)
    fraction = oracle.merged_fraction(kind, f_h)
    for _ in range(200):
        pair = [rng.randint(-32768, 32767) for _ in range(2)]
        forward, backward = (Fraction(v) / Fraction(2) ** f_h for v in pair)
        real = {
            oracle.MERGE_SUM: forward + backward,
            oracle.MERGE_MUL: forward * backward,
            oracle.MERGE_AVE: (forward + backward) / 2,
        }[kind]
        error = oracle.merge(kind, *pair) / Fraction(2) ** fraction - real
        assert abs(error) <= Fraction(1, 2) / Fraction(2) ** fraction


def test_the_two_directions_are_a_layer_and_a_reversed_layer():
    """y_t of concat is h of [GRU] beside h of [Reverse, GRU, Reverse]; final takes the last that each computed."""
    rng = random.Random(1)
    layers = [replace(real_layer(rng, reset, 0, 0, 15), h0=(1, -2, 3)) for reset in range(2)]
    inputs = random_inputs("random", 5, 2, seed=3)
    fractions = (INPUT_BITS,) * 2
    forward, backward = (oracle.Model(fractions, 0, (layer,)) for layer in layers)
    hf = [step.outputs for step in oracle.run(forward, inputs)]
    hb = [step.outputs for step in oracle.run(backward, inputs[::-1])][::-1]
    both = oracle.Bidirectional(*layers, oracle.MERGE_CONCAT)
    run = oracle.run_sequence(oracle.Model(fractions, 0, (both,)), inputs)
    assert run.outputs == tuple(f + b for f, b in zip(hf, hb, strict=True))
    assert run.state.h == (hf[-1], hb[0])
    ends = oracle.run_sequence(oracle.Model(fractions, 1, (replace(both, final=1),)), inputs)
    assert ends.outputs == (hf[-1] + hb[0],)
    reversed_twice = oracle.Model(fractions, 0, (oracle.Reverse(), layers[1], oracle.Reverse()))
    assert oracle.run_sequence(reversed_twice, inputs).outputs == tuple(hb)


@pytest.mark.parametrize("last_step", [0, 1])
def test_a_streaming_model_gives_step_by_step_what_a_run_gives(last_step):
    rng = random.Random(2)
    dense = oracle.Dense(oracle.TANH, 15, real_rows(rng, 2, [14, 14], INPUT_BITS), (100, -100))
    between = oracle.Dense(oracle.RELU, INPUT_BITS, real_rows(rng, 3, [INPUT_BITS] * 2, 15), (100, -100))
    first = real_layer(rng, 0, 0, 0, 15)
    layers = (dense, oracle.Reverse(), first, between, replace(real_layer(rng, 1, 1, 1, 12), h0=(9, 0, 7)))
    model = oracle.Model((INPUT_BITS,) * 2, last_step, layers)
    assert oracle.proved(model)
    assert oracle.streaming(model)
    assert model.grus == (layers[2], layers[4])
    inputs = random_inputs("random", 6, 2, seed=4)
    run, steps = oracle.run_sequence(model, inputs), oracle.run(model, inputs[::-1])
    outputs = tuple(step.outputs for step in steps)
    assert run.outputs == (outputs[-1:] if last_step else outputs)
    assert run.state == steps[-1].state
    assert [trace[-1].n for trace in run.traces] == list(steps[-1].n)


def test_a_sequence_can_start_from_any_state():
    rng = random.Random(3)
    model = oracle.Model((INPUT_BITS,) * 2, 0, (real_layer(rng, 0, 0, 0, 15),))
    h0 = (100, -200, 300)
    written = oracle.State((h0,), ((0, 0, 0),))
    constant = replace(model, layers=(replace(model.layers[0], h0=h0),))
    inputs = random_inputs("random", 4, 2, seed=5)
    assert oracle.reset(constant) == written
    assert oracle.run(model, inputs, written) == oracle.run(constant, inputs) != oracle.run(model, inputs)
    assert oracle.run_sequence(model, inputs, written) == oracle.run_sequence(constant, inputs)
    steps = oracle.run(model, inputs)
    goes_on = oracle.run(model, inputs[2:], steps[1].state)
    assert [step.state for step in goes_on] == [step.state for step in steps[2:]]


# ---- the bounds of a model ------------------------------------------------------------------------------------------


def layers_to_bound() -> tuple[oracle.Gru, oracle.Dense, oracle.Embedding]:
    """Layers that fit each other in any order: one unit, one row, one token of one code."""
    w = oracle.Matrix(((1,),) * 3, (2**14,) * 3, (1,) * 3, 0)
    dense = oracle.Dense(oracle.TANH, 15, oracle.Matrix(((1,),), (2**14,), (1,), 0), (0,))
    return oracle.Gru(oracle.RESET_AFTER, w, w, (0,) * 3, (0,)), dense, oracle.Embedding(((1,),))


def both_ways(gru: oracle.Gru, merge: int, final: int = 0) -> oracle.Bidirectional:
    """The same layer in both directions."""
    return oracle.Bidirectional(gru, gru, merge, final)


def admitted_layers() -> list[tuple[int, tuple]]:
    gru, dense, embedding = layers_to_bound()
    ends = both_ways(gru, oracle.MERGE_SUM, final=1)
    linear = replace(gru, candidate=oracle.CANDIDATE_LINEAR)
    return [
        (0, (dense, gru, dense, gru)),
        (0, (oracle.Reverse(), gru, oracle.Reverse(), dense)),
        (0, (embedding, oracle.Reverse(), dense, replace(ends, final=0), oracle.Reverse(), gru)),
        (1, (gru, ends, dense, dense)),
        (0, (gru,) * 255),
        (0, (both_ways(replace(linear, f_h=-30), oracle.MERGE_SUM),)),
        (0, (both_ways(replace(linear, f_h=23), oracle.MERGE_MUL),)),
        (0, (both_ways(replace(linear, f_h=-8), oracle.MERGE_MUL),)),
        (0, (oracle.Embedding(((1,),) * 32768), gru)),
        (0, (replace(gru, h0=(-32768,)),)),
    ]


def refused_layers() -> list[tuple[int, tuple]]:
    gru, dense, embedding = layers_to_bound()
    ends = both_ways(gru, oracle.MERGE_SUM, final=1)
    linear = replace(gru, candidate=oracle.CANDIDATE_LINEAR)
    wide = oracle.Matrix(((1, 1),) * 3, (2**14,) * 3, (1,) * 3, 0)
    return [
        (0, (dense,)),
        (0, (embedding,)),
        (0, (dense, embedding, gru)),
        (0, (ends,)),
        (1, (ends, gru)),
        (1, (ends, oracle.Reverse())),
        (0, (gru,) * 256),
        (0, (both_ways(replace(linear, f_h=-31), oracle.MERGE_SUM),)),
        (0, (both_ways(replace(linear, f_h=24), oracle.MERGE_MUL),)),
        (0, (both_ways(replace(linear, f_h=-9), oracle.MERGE_MUL),)),
        (0, (oracle.Bidirectional(gru, replace(gru, f_h=14), oracle.MERGE_SUM),)),
        (0, (oracle.Bidirectional(gru, replace(gru, w=wide), oracle.MERGE_SUM),)),
        (0, (both_ways(gru, oracle.MERGE_CONCAT), gru)),
        (0, (both_ways(gru, 4),)),
        (0, (replace(gru, gate=2),)),
        (0, (replace(gru, candidate=5),)),
        (0, (replace(gru, h0=(32768,)),)),
        (0, (replace(gru, h0=(1, 1)),)),
        (0, (oracle.Embedding(((1,),) * 32769), gru)),
        (0, (oracle.Embedding(((128,),)), gru)),
        (0, (oracle.Embedding(((1, 1),)), gru)),
    ]


def test_layers_stand_in_the_orders_of_the_page():
    for last_step, layers in admitted_layers():
        assert oracle.proved(oracle.Model((0,), last_step, layers)), layers
    for last_step, layers in refused_layers():
        assert not oracle.proved(oracle.Model((0,), last_step, layers)), layers
    gru, _, embedding = layers_to_bound()
    assert oracle.proved(oracle.Model((1,), 0, (gru,)))
    assert not oracle.proved(oracle.Model((1,), 0, (embedding, gru)))


def test_only_a_leading_reverse_streams():
    gru, dense, _ = layers_to_bound()

    def streams(*layers: oracle.Layer) -> bool:
        return oracle.streaming(oracle.Model((0,), 0, layers))

    assert streams(gru)
    assert streams(oracle.Reverse(), gru)
    assert streams(dense, oracle.Reverse(), gru, dense, gru)
    assert not streams(gru, oracle.Reverse())
    assert not streams(oracle.Reverse(), gru, oracle.Reverse())
    assert not streams(both_ways(gru, oracle.MERGE_AVE))
    with pytest.raises(AssertionError):
        oracle.run(oracle.Model((0,), 0, (gru, oracle.Reverse())), [(1,)])
