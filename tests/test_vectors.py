"""The committed vectors: still what the oracle computes, and what the C library computes."""

import subprocess
import sys
from fractions import Fraction

import c_library
import oracle
import pytest
from c_library import CModel, CSequenceModel, load_library
from committed_vectors import VECTORS, load_function_vectors, load_model_vectors

from quantgru.fixed import to_raw16

FUNCTIONS = load_function_vectors()
MODELS = load_model_vectors()

needs_compiler = pytest.mark.skipif(c_library.NO_COMPILER is not None, reason=str(c_library.NO_COMPILER))

C_FUNCTIONS = {
    "round_shift": "shim_round_shift",
    "saturate16": "shim_saturate16",
    "mul_shift16": "shim_mul_shift16",
    "requantize": "shim_requantize",
    "reset_product": "shim_reset_product",
    "sigmoid": "qg_sigmoid",
    "tanh": "qg_tanh",
    "hard_sigmoid": "qg_hard_sigmoid",
}
C_CANDIDATES = ("qg_tanh", "qg_relu", "qg_linear", "qg_signed_sigmoid", "qg_linear")  # as R17 numbers them, f_h = 15
C_MERGES = (None, "qg_merge_mean", "qg_merge_product", "qg_merge_mean")
C_ACTIVATIONS = ("qg_linear", "qg_relu", "qg_signed_sigmoid", "qg_tanh")  # as R17 numbers them


def vectors_of(function):
    """The [arguments, result] pairs of one function."""
    return next(entry["cases"] for entry in FUNCTIONS if entry["function"] == function)


def test_files_are_what_the_tool_writes():
    command = [sys.executable, str(c_library.ROOT / "tools" / "make_vectors.py"), "--check"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "no changes\n"), result.stderr


def test_files_are_small():
    assert sum(path.stat().st_size for path in VECTORS.iterdir()) < 200_000


def test_vectors_cover_the_shapes_that_matter():
    grus = [gru for vector in MODELS for gru in vector.model.grus]
    assert {1, 3, 7, 8, 9, 17} <= {gru.units for gru in grus}
    assert {len(vector.model.grus) for vector in MODELS} == {1, 2, 3}
    assert {gru.reset for gru in grus} == {oracle.RESET_AFTER, oracle.RESET_BEFORE}
    assert {gru.gate for gru in grus} == {oracle.GATE_SIGMOID, oracle.GATE_HARD_SIGMOID}
    assert {gru.candidate for gru in grus} == {0, 1, 2, 3, 4}
    assert any(any(gru.h0) for gru in grus) and any(gru.f_h < 0 for gru in grus) and any(gru.f_h > 15 for gru in grus)
    layers = [layer for vector in MODELS for layer in vector.model.layers]
    assert {layer.merge for layer in layers if isinstance(layer, oracle.Bidirectional)} == {0, 1, 2, 3}
    assert {layer.final for layer in layers if isinstance(layer, oracle.Bidirectional)} == {0, 1}
    assert {oracle.Embedding, oracle.Reverse} <= {type(layer) for layer in layers}
    assert {oracle.streaming(vector.model) for vector in MODELS} == {True, False}
    assert {dense.activation for vector in MODELS for dense in vector.model.head} == {0, 1, 2, 3}
    assert any(gru.w.k > 0 for gru in grus)


@pytest.mark.parametrize("entry", FUNCTIONS, ids=lambda entry: f"{entry['rule']}-{entry['function']}")
def test_functions_equal_the_oracle(entry):
    rule = getattr(oracle, entry["function"])
    for arguments, result in entry["cases"]:
        value = rule(*arguments)
        assert (list(value) if isinstance(value, tuple) else value) == result, arguments


@pytest.mark.parametrize("vector", MODELS, ids=lambda vector: vector.name)
def test_models_equal_the_oracle(vector):
    if vector.run is None:
        assert oracle.run(vector.model, vector.inputs) == vector.steps
    else:
        assert oracle.run_sequence(vector.model, vector.inputs) == vector.run
    assert oracle.digest(vector.model) == vector.digest


@pytest.mark.parametrize("vector", MODELS, ids=lambda vector: vector.name)
def test_digests_of_integer_models(vector):
    assert vector.int_model.digest.hex() == vector.digest


def test_inputs_in_python():
    for (x, f), result in vectors_of("convert_input"):
        raw, clipped = to_raw16(x, f)
        unlimited = oracle.round_half_up(Fraction(x) * Fraction(2) ** f)
        assert (int(raw), bool(clipped)) == (result, unlimited != result), (x, f)


@needs_compiler
@pytest.mark.parametrize("function", C_FUNCTIONS)
def test_functions_in_c(function):
    c_function = getattr(load_library("plain"), C_FUNCTIONS[function])
    for arguments, result in vectors_of(function):
        assert c_function(*arguments) == result, arguments


@needs_compiler
def test_activations_in_c():
    library = load_library("plain")
    for (activation, a), result in vectors_of("activate"):
        assert getattr(library, C_ACTIVATIONS[activation])(a) == result, (activation, a)


@needs_compiler
def test_candidates_in_c():
    """Before the shift to the format of a state, which models have."""
    library = load_library("plain")
    cases = [(kind, a, result) for (kind, a, f_h), result in vectors_of("candidate") if f_h == 15 or kind in (1, 2)]
    assert {kind for kind, _, _ in cases} == {0, 1, 2, 3, 4}
    for kind, a, result in cases:
        assert getattr(library, C_CANDIDATES[kind])(a) == result, (kind, a)


@needs_compiler
def test_merges_in_c():
    library = load_library("plain")
    for (kind, forward, backward), result in vectors_of("merge"):
        assert getattr(library, C_MERGES[kind])(forward, backward) == result, (kind, forward, backward)


@needs_compiler
def test_inputs_from_counts_in_c():
    library = load_library("plain")
    counts = [case for case in vectors_of("convert_input") if type(case[0][0]) is int]
    assert len(counts) > 100
    for arguments, result in counts:
        assert library.qg_input_from_counts(*arguments) == result, arguments


@needs_compiler
@pytest.mark.parametrize("vector", MODELS, ids=lambda vector: vector.name)
def test_models_in_c(vector):
    library = load_library("plain")
    if vector.run is None:
        assert CModel(library, vector.int_model).run(vector.inputs) == vector.steps
    else:
        model = CSequenceModel(library, vector.int_model, most_steps=len(vector.inputs))
        assert model.run(vector.inputs) == (0, vector.run.outputs)
