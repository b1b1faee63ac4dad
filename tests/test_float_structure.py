"""Structure and functions of the float model against plain Python: directions, masks, states, embeddings, functions."""

import math

import numpy as np
import pytest
from test_float_model import TOLERANCE, dot, random_gru, sigmoid

import quantgru as qg
from quantgru.errors import DataError, ModelError
from quantgru.model import Bidirectional, Dense, Embedding, FloatModel, Gru, Reverse
from quantgru.sequences import Sequences, as_sequences

Z, R, N = range(3)

GATES = {"sigmoid": sigmoid, "hard_sigmoid": lambda a: min(max(a + 0.5, 0.0), 1.0)}
CANDIDATES = {
    "tanh": math.tanh,
    "relu": lambda a: max(a, 0.0),
    "linear": lambda a: a,
    "sigmoid": sigmoid,
    "hard_tanh": lambda a: min(max(a, -1.0), 1.0),
}


def states_by_formula(gru, sequence, h=None):
    """h after each step of one sequence, from lists."""
    w, u, b, c = (array.tolist() for array in (gru.input_weights, gru.recurrent_weights, gru.bias, gru.recurrent_bias))
    g, f, units = GATES[gru.gate], CANDIDATES[gru.candidate], range(gru.n_units)
    h = [0.0] * gru.n_units if h is None else list(h)
    states = []
    for x in sequence:
        z = [g(dot(w[Z][i], x) + dot(u[Z][i], h) + b[Z][i]) for i in units]
        r = [g(dot(w[R][i], x) + dot(u[R][i], h) + b[R][i]) for i in units]
        if gru.reset == "after":
            inner = [r[i] * (dot(u[N][i], h) + c[i]) for i in units]
        else:
            inner = [dot(u[N][i], [r[j] * h[j] for j in units]) for i in units]
        n = [f(dot(w[N][i], x) + b[N][i] + inner[i]) for i in units]
        h = [z[i] * h[i] + (1 - z[i]) * n[i] for i in units]
        states.append(h)
    return states


def gru_of(seed, n_inputs=2, n_units=3, reset="after", scale=0.5, **functions):
    gru = random_gru(np.random.default_rng(seed), n_inputs, n_units, reset)
    arrays = ("input_weights", "recurrent_weights", "bias", "recurrent_bias")
    return Gru("gru", reset, *(scale * getattr(gru, name) for name in arrays), **functions)


def random_x(*shape, seed=9):
    return np.random.default_rng(seed).normal(size=shape)


def every_kind():
    """Every kind of layer, an initial state, a mask; five tokens."""
    rng = np.random.default_rng(5)
    both = [
        gru_of(seed, 4, 3, reset, gate="hard_sigmoid", candidate="relu")
        for seed, reset in ((1, "after"), (2, "before"))
    ]
    layers = (
        Embedding("words", rng.normal(size=(5, 2))),
        Reverse(),
        gru_of(3, 2, 4, initial_state=rng.normal(size=4)),
        Dense("between", rng.normal(size=(4, 4)), rng.normal(size=4), "tanh"),
        Bidirectional("both", *both, merge="mul", final=True),
        Dense("out", rng.normal(size=(2, 3)), rng.normal(size=2)),
    )
    return FloatModel(layers, last_step=True, name="every_kind", mask_value=-1.0)


def assert_close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


# ---- functions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reset", ["after", "before"])
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("candidate", CANDIDATES)
def test_functions(reset, gate, candidate):
    gru = gru_of(0, reset=reset, gate=gate, candidate=candidate)
    x = 2 * random_x(1, 8, 2)
    assert_close(FloatModel((gru,), last_step=False).run(x)[0], states_by_formula(gru, x[0].tolist()))


def test_a_candidate_without_limit_may_diverge_and_says_where():
    recurrent = [[[0.0]], [[0.0]], [[1e200]]]
    gru = Gru("gru", "before", np.ones((3, 1, 1)), recurrent, np.zeros((3, 1)), [0], candidate="linear")
    with pytest.raises(DataError, match="GRU layer 'gru': unit 0 diverges at sequence 1, step 2; its candidate is lin"):
        FloatModel((gru,), last_step=True).run(np.array([[[0.0]] * 9, [[1.0]] * 9]))


def test_padding_cannot_diverge():
    """Alone a sequence of zeros doubles the state at each step; as padding it does not run."""
    recurrent, bias = [[[0.0]], [[0.0]], [[2.0]]], [[-99.0], [99.0], [1.0]]
    gru = Gru("gru", "after", np.zeros((3, 1, 1)), recurrent, bias, [0], candidate="linear")
    model = FloatModel((gru,), last_step=True)
    with pytest.raises(DataError, match="diverges"):
        model.run(np.zeros((1, 2000, 1)))
    x = Sequences(np.zeros((1, 2000, 1)), np.array([3]))
    assert model.run(x).tolist() == [[pytest.approx(7.0)]]  # 1, then 2 h + 1


# ---- initial states ------------------------------------------------------------------------------------------------


def test_initial_states_of_the_model_and_of_a_run():
    start = [0.3, -2.0, 0.7]
    gru, x = gru_of(1, initial_state=start), random_x(2, 5, 2)
    model = FloatModel((gru,), last_step=False)
    for found, sequence in zip(model.run(x), x.tolist(), strict=True):
        assert_close(found, states_by_formula(gru, sequence, start))
    given = random_x(2, 3, seed=2)
    for found, sequence, h in zip(model.run(x, initial_states=[given]), x.tolist(), given.tolist(), strict=True):
        assert_close(found, states_by_formula(gru, sequence, h))


@pytest.mark.parametrize("cut", [1, 4])
def test_a_run_goes_on_where_another_ended(cut):
    model = FloatModel((gru_of(1), gru_of(2, 3, 4, "before")), last_step=False)
    x = random_x(3, 9, 2)
    states = model.final_states(x[:, :cut])
    whole = model.run(x)
    np.testing.assert_array_equal(whole[:, cut:], model.run(x[:, cut:], initial_states=states))


@pytest.mark.parametrize(
    ("states", "message"),
    [
        ([], "0 of them, expected a list of 1"),
        ([np.zeros(3)] * 2, "2 of them, expected a list of 1"),
        (np.zeros((1, 3)), "a single ndarray, expected a list of 1: an array for each GRU layer"),
        ([np.zeros(2)], r"layer 0: shape \(2,\), expected finite numbers \(3,\) or \(2, 3\)"),
        ([np.zeros((3, 3))], r"layer 0: shape \(3, 3\), expected"),
        ([[np.nan, 0, 0]], "layer 0: a value that is not finite"),
        (["abc"], "layer 0: type <U3, expected real numbers"),
    ],
)
def test_initial_states_are_checked(states, message):
    with pytest.raises(DataError, match=f"^initial states.*{message}"):
        FloatModel((gru_of(1),), last_step=False).run(random_x(2, 3, 2), initial_states=states)


# ---- directions ----------------------------------------------------------------------------------------------------

MERGES = {
    "concat": lambda f, b: [*f, *b],
    "sum": lambda f, b: [p + q for p, q in zip(f, b, strict=True)],
    "mul": lambda f, b: [p * q for p, q in zip(f, b, strict=True)],
    "ave": lambda f, b: [(p + q) / 2 for p, q in zip(f, b, strict=True)],
}


def lengths_of(lengths):
    return [random_x(length, 2, seed=length) for length in lengths]


@pytest.mark.parametrize("merge", MERGES)
def test_bidirectional_layers(merge):
    forward, backward = gru_of(1), gru_of(2, reset="before")
    model = FloatModel((Bidirectional("both", forward, backward, merge),), last_step=False)
    x = lengths_of([4, 1, 7])
    for found, sequence in zip(model.run(x), x, strict=True):
        ahead = states_by_formula(forward, sequence.tolist())
        back = states_by_formula(backward, sequence.tolist()[::-1])[::-1]
        assert_close(found, [MERGES[merge](f, b) for f, b in zip(ahead, back, strict=True)])


@pytest.mark.parametrize("merge", MERGES)
def test_final_states_are_not_those_of_the_last_step(merge):
    forward, backward, x = gru_of(1), gru_of(2), lengths_of([4, 1, 7])
    final = FloatModel((Bidirectional("both", forward, backward, merge, final=True),), last_step=True).run(x)
    last = FloatModel((Bidirectional("both", forward, backward, merge),), last_step=True).run(x)
    for i, sequence in enumerate(x):
        ahead = states_by_formula(forward, sequence.tolist())[-1]
        whole = states_by_formula(backward, sequence.tolist()[::-1])[-1]
        one = states_by_formula(backward, sequence.tolist()[-1:])[-1]
        assert_close(final[i], MERGES[merge](ahead, whole))
        assert_close(last[i], MERGES[merge](ahead, one))


def test_reversed_sequences():
    gru, x = gru_of(1), lengths_of([4, 1, 7])
    for found, sequence in zip(FloatModel((Reverse(), gru), last_step=False).run(x), x, strict=True):
        assert_close(found, states_by_formula(gru, sequence.tolist()[::-1]))
    for found, sequence in zip(FloatModel((Reverse(), gru, Reverse()), last_step=False).run(x), x, strict=True):
        assert_close(found, states_by_formula(gru, sequence.tolist()[::-1])[::-1])
    found = FloatModel((Reverse(), gru, Reverse()), last_step=True).run(x)
    assert_close(found, [states_by_formula(gru, sequence.tolist()[-1:])[0] for sequence in x])


def test_dense_layers_anywhere():
    rng = np.random.default_rng(1)
    first = Dense("first", rng.normal(size=(4, 2)), rng.normal(size=4), "relu")
    between = Dense("between", rng.normal(size=(2, 3)), rng.normal(size=2))
    grus = gru_of(1, 4), gru_of(2)
    x = random_x(1, 5, 2)
    rows = [[max(dot(w, v) + b, 0) for w, b in zip(first.weights, first.bias, strict=True)] for v in x[0]]
    states = states_by_formula(grus[0], rows)
    rows = [[dot(w, v) + b for w, b in zip(between.weights, between.bias, strict=True)] for v in states]
    model = FloatModel((first, grus[0], between, grus[1]), last_step=False)
    assert_close(model.run(x)[0], states_by_formula(grus[1], rows))


# ---- embeddings ----------------------------------------------------------------------------------------------------


def test_an_embedding_reads_tokens():
    vectors, gru = random_x(6, 2), gru_of(1)
    model = FloatModel((Embedding("words", vectors), gru), last_step=False)
    tokens = [3, 0, 5, 5]
    found = model.run(np.array(tokens)[None, :, None])
    assert_close(found[0], states_by_formula(gru, [vectors[token].tolist() for token in tokens]))


@pytest.mark.parametrize("token", [-1, 6, 0.5])
def test_tokens_are_checked(token):
    model = FloatModel((Embedding("words", random_x(6, 2)), gru_of(1)), last_step=False)
    with pytest.raises(DataError, match=r"at sequence 0, step 1, embedding 'words' takes integers of 0 ... 5$"):
        model.run([[[0], [token]]])


# ---- masks ---------------------------------------------------------------------------------------------------------


def test_masked_steps_are_none():
    gru, x = gru_of(1), random_x(2, 5, 2)
    mask = np.array([[False, True, False, True, True], [True, True, False, False, False]])
    found = FloatModel((gru,), last_step=False).run(x, mask=mask)
    first = states_by_formula(gru, x[0][mask[0]].tolist())
    second = states_by_formula(gru, x[1][mask[1]].tolist())
    assert_close(found[0], [[0, 0, 0], first[0], first[0], first[1], first[2]])
    assert_close(found[1], [second[0], second[1], second[1], second[1], second[1]])
    assert_close(FloatModel((gru,), last_step=True).run(x, mask=mask), [first[2], second[1]])


def test_masks_of_lists():
    gru, x = gru_of(1), lengths_of([4, 2])
    found = FloatModel((gru,), last_step=False).run(x, mask=[[True, False, True, True], [False, True]])
    first = states_by_formula(gru, x[0][[0, 2, 3]].tolist())
    assert_close(found[0], [first[0], first[0], first[1], first[2]])
    assert_close(found[1], [[0, 0, 0], states_by_formula(gru, x[1][1:].tolist())[0]])


def test_a_mask_value_masks_steps_whose_inputs_all_have_it():
    gru, x = gru_of(1), random_x(1, 4, 2)
    x[0, 1], x[0, 2, 0] = 7.0, 7.0
    found = FloatModel((gru,), last_step=False, mask_value=7.0).run(x)
    expected = states_by_formula(gru, x[0][[0, 2, 3]].tolist())
    assert_close(found[0], [expected[0], expected[0], expected[1], expected[2]])


def test_a_mask_of_the_caller_and_one_by_value_are_one_mask():
    gru, x = gru_of(1), random_x(2, 5, 2)
    x[0, 1], x[1, 3] = 7.0, 7.0
    mask = np.array([[True, True, False, True, True], [False, True, True, True, True]])
    model = FloatModel((gru,), last_step=False, mask_value=7.0)
    both = mask & np.array([[True, False, True, True, True], [True, True, True, False, True]])
    expected = FloatModel((gru,), last_step=False).run(x, mask=both)
    assert_close(model.run(x, mask=mask), expected)
    before = as_sequences(x).keeping(mask)
    assert_close(model.run(before), expected)


def test_masks_in_both_directions():
    """The backward layer, too, sees the real steps only."""
    forward, backward, x = gru_of(1), gru_of(2), random_x(1, 4, 2)
    model = FloatModel((Bidirectional("both", forward, backward, final=True),), last_step=True)
    found = model.run(x, mask=np.array([[True, False, True, False]]))
    steps = x[0][[0, 2]].tolist()
    assert_close(found[0], states_by_formula(forward, steps)[-1] + states_by_formula(backward, steps[::-1])[-1])


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.ones((2, 4)), r"a mask of 2 rows, float64 \(4,\), expected a bool for each step of 2 sequences"),
        (np.ones((2, 3), bool), r"a mask of 2 rows, bool \(3,\)"),
        (np.ones((1, 4), bool), "a mask of 1 rows"),
        (np.array([[True] * 4, [False] * 4]), "sequence 1: every step is masked; leave it out"),
    ],
)
def test_masks_are_checked(mask, message):
    with pytest.raises(DataError, match=f"^input[:,] {message}"):
        FloatModel((gru_of(1),), last_step=True).run(random_x(2, 4, 2), mask=mask)


# ---- refusals ------------------------------------------------------------------------------------------------------


def test_directions_must_fit():
    with pytest.raises(ModelError, match=r"inputs and units \(2, 3\) forward, \(2, 4\) backward, expected the same"):
        Bidirectional("both", gru_of(1), gru_of(1, 2, 4))
    with pytest.raises(ModelError, match="merge 'max', supported are concat, sum, mul, ave"):
        Bidirectional("both", gru_of(1), gru_of(1), "max")
    with pytest.raises(ModelError, match="but outputs at every step after it needs every step"):
        FloatModel((Bidirectional("both", gru_of(1), gru_of(1), final=True),), last_step=False)


@pytest.mark.parametrize(
    ("vectors", "message"), [(np.zeros(3), r"\(3,\), expected"), ([[0, np.inf]], r"holds inf at \[0, 1\]")]
)
def test_embeddings_are_checked(vectors, message):
    with pytest.raises(ModelError, match=f"embedding 'words': vectors {message}"):
        Embedding("words", vectors)


def test_a_mask_value_is_a_number():
    with pytest.raises(ModelError, match="mask value nan, expected a finite number"):
        FloatModel((gru_of(1),), last_step=True, mask_value=math.nan)


def test_a_mask_value_that_float32_rounds():
    """Frameworks compare in float32: there, 0.1 is 0.100000001."""
    model, x = FloatModel((gru_of(1),), last_step=True, mask_value=0.1), random_x(1, 4, 2)
    for value in (0.1, float(np.float32(0.1))):
        x[0, 1] = value
        np.testing.assert_array_equal(model.run(x), model.run(np.delete(x, 1, axis=1)))


def test_masks_of_reversed_outputs():
    """The outputs begin with that of the last step, and so do the steps that are none."""
    gru, x = gru_of(1), random_x(1, 4, 2)
    found = FloatModel((Reverse(), gru), last_step=False).run(x, mask=np.array([[True, True, False, True]]))
    states = states_by_formula(gru, x[0][[3, 1, 0]].tolist())
    assert_close(found[0], [states[0], states[0], states[1], states[2]])


@pytest.mark.parametrize("of", [np.array, list, lambda rows: [np.array(row) for row in rows]])
def test_tokens_as_frameworks_take_them(of):
    """[sequences, steps], without an axis of features."""
    model = FloatModel((Embedding("words", random_x(6, 2)), gru_of(1)), last_step=True)
    tokens = [[3, 0, 5, 5], [1, 1, 2, 4]]
    expected = model.run(np.array(tokens)[..., None])
    np.testing.assert_array_equal(model.run(of(tokens)), expected)
    int_model = qg.quantize(model, of(tokens))
    np.testing.assert_array_equal(
        qg.simulate(int_model, of(tokens)), qg.simulate(int_model, np.array(tokens)[..., None])
    )
    unequal = [[3, 0, 5], [1, 4]]
    expected = model.run([np.array(row)[:, None] for row in unequal])
    np.testing.assert_array_equal(model.run(unequal), expected)


def test_parameters_of_a_framework_are_taken_as_they_are():
    """What a refusal says to do by hand: qg.Dense('fc', module.weight, module.bias)."""
    torch = pytest.importorskip("torch")
    fc = torch.nn.Linear(3, 2)
    dense = Dense("fc", fc.weight, fc.bias)
    np.testing.assert_array_equal(dense.weights, fc.weight.detach().numpy())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: FloatModel((gru_of(1),), last_step=1), "last_step is 1, expected True or False"),
        (lambda: FloatModel((gru_of(1),), last_step=True, mask_value="a"), "mask value 'a', expected a finite number"),
        (lambda: Bidirectional("both", gru_of(1), gru_of(2), final="no"), "final is 'no', expected True or False"),
    ],
)
def test_values_of_another_type_are_refused_where_they_come_in(wrong, message):
    with pytest.raises(ModelError, match=message):
        wrong()


def test_a_mask_that_is_none_for_steps_is_refused():
    with pytest.raises(DataError, match=r"input: mask True, expected a bool for each step, \[sequences, steps\]"):
        FloatModel((gru_of(1),), last_step=True).run(random_x(2, 3, 2), mask=True)
