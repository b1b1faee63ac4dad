"""The C library against the oracle, with `==`: primitives and functions, also with UBSan. Models: test_c_models.py."""

import ctypes
import re
import zlib

import c_descriptors
import c_library
import numpy as np
import oracle
import pytest
from c_library import load_library
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from quantgru.int_model import IntEmbedding

if c_library.NO_COMPILER:
    pytest.skip(c_library.NO_COMPILER, allow_module_level=True)

EXAMPLES = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])

S32 = st.integers(-(2**31), 2**31 - 1) | st.integers(-(2**18), 2**18)
S16 = st.integers(-32768, 32767)
M = st.integers(2**14, 2**15 - 1)
SHIFT = st.integers(1, 30)


@pytest.fixture(params=["plain", "undefined"], scope="module")
def library(request):
    return load_library(request.param)


@pytest.fixture(autouse=True)
def no_undefined_behaviour(capfd):
    """Fails a test in which UBSan found something: it reports on stderr, and goes on."""
    yield
    assert "runtime error" not in capfd.readouterr().err


# ---- primitives ---------------------------------------------------------------------------------------------------


@EXAMPLES
@given(v=S32, s=SHIFT)
@example(v=-(2**31), s=30)
def test_round_shift_is_r1(library, v, s):
    v = min(v, 2**31 - 1 - 2 ** (s - 1))
    assert library.shim_round_shift(v, s) == oracle.round_shift(v, s)


@EXAMPLES
@given(v=S32)
@example(v=2**31 - 1)
@example(v=-(2**31))
def test_saturate16_is_r2(library, v):
    assert library.shim_saturate16(v) == oracle.saturate16(v)


@EXAMPLES
@given(a=S32, m=st.integers(0, 2**15 - 1))
@example(a=-(2**31), m=2**15 - 1)
@example(a=2**31 - 1, m=2**15 - 1)
@example(a=-1, m=2**15 - 1)
def test_mul_shift16_is_r3(library, a, m):
    assert library.shim_mul_shift16(a, m) == oracle.mul_shift16(a, m)


@EXAMPLES
@given(shifted=S32, k=st.integers(0, 15), m=M, s=SHIFT)
@example(shifted=-(2**31), k=15, m=2**15 - 1, s=1)
@example(shifted=2**31 - 1, k=0, m=2**15 - 1, s=30)
def test_requantize_is_r4(library, shifted, k, m, s):
    acc = shifted >> k
    assert library.shim_requantize(acc, k, m, s) == oracle.requantize(acc, k, m, s)


@EXAMPLES
@given(b=S32, r=st.integers(0, 2**15))
@example(b=-(2**31), r=2**15)
@example(b=2**31 - 1, r=2**15)
def test_reset_product_is_r5(library, b, r):
    assert library.shim_reset_product(b, r) == oracle.reset_product(b, r)


# ---- functions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sigmoid", "tanh"])
def test_sigmoid_and_tanh_are_r7_and_r8_for_every_input(library, name):
    first, n = -oracle.LIMIT - 5, 2 * oracle.LIMIT + 11
    values = ((ctypes.c_uint16 if name == "sigmoid" else ctypes.c_int16) * n)()
    getattr(library, f"shim_{name}s")(first, n, values)
    rule = getattr(oracle, name)
    assert list(values) == [rule(a) for a in range(first, first + n)]


def test_signed_sigmoid_where_it_saturates(library):
    for a in range(8 * 2**14, oracle.LIMIT + 5):
        assert library.qg_signed_sigmoid(a) == oracle.activate(oracle.SIGMOID, a), a


@EXAMPLES
@given(a=S32)
@example(a=-(2**31))
@example(a=2**31 - 1)
@example(a=2**30)
@example(a=-(2**30) - 1)
def test_functions_of_a_pre_activation(library, a):
    assert library.qg_sigmoid(a) == oracle.sigmoid(a)
    assert library.qg_tanh(a) == oracle.tanh(a)
    assert library.qg_linear(a) == oracle.activate(oracle.LINEAR, a)
    assert library.qg_relu(a) == oracle.activate(oracle.RELU, a)
    assert library.qg_signed_sigmoid(a) == oracle.activate(oracle.SIGMOID, a)


@EXAMPLES
@given(a=S32 | st.integers(-16390, 16390))
@example(a=-(2**31))
@example(a=2**31 - 1)
@example(a=16385)
@example(a=-16385)
def test_hard_sigmoid_is_r18(library, a):
    assert library.qg_hard_sigmoid(a) == oracle.hard_sigmoid(a)


@EXAMPLES
@given(forward=S16, backward=S16)
@example(forward=-32768, backward=-32768)
@example(forward=32767, backward=32767)
@example(forward=-1, backward=16384)
def test_merges_are_r23(library, forward, backward):
    assert library.qg_merge_mean(forward, backward) == oracle.merge(oracle.MERGE_SUM, forward, backward)
    assert library.qg_merge_mean(forward, backward) == oracle.merge(oracle.MERGE_AVE, forward, backward)
    assert library.qg_merge_product(forward, backward) == oracle.merge(oracle.MERGE_MUL, forward, backward)


@EXAMPLES
@given(x=S16 | st.integers(-2, 6), tokens=st.integers(1, 5), dim=st.integers(1, 9), first=st.integers(-128, 127))
@example(x=32767, tokens=32768, dim=1, first=0)
@example(x=-32768, tokens=32768, dim=1, first=0)
@example(x=0, tokens=1, dim=1, first=-128)
def test_look_up_is_r21(library, x, tokens, dim, first):
    codes = (np.arange(first, first + tokens * dim) % 256 - 128).astype(np.int8).reshape(tokens, dim)
    out = (ctypes.c_int16 * dim)()
    library.qg_look_up(c_descriptors.embedding_descriptor(IntEmbedding("tokens", codes)), (ctypes.c_int16 * 1)(x), out)
    assert tuple(out) == oracle.embed(oracle.Embedding(tuple(map(tuple, codes.tolist()))), (x,))


@EXAMPLES
@given(counts=S32, f=st.integers(-31, 31))
@example(counts=2**30, f=-31)
@example(counts=2**30 - 1, f=-31)
@example(counts=-(2**31), f=-31)
@example(counts=2**31 - 1, f=-1)
@example(counts=-(2**31), f=31)
@example(counts=1, f=15)
@example(counts=-1, f=16)
def test_input_from_counts_is_r15(library, counts, f):
    assert library.qg_input_from_counts(counts, f) == oracle.convert_input(counts, f)


@given(data=st.binary(max_size=40), more=st.binary(max_size=40))
def test_crc32_is_that_of_ieee_802_3(library, data, more):
    crc = library.qg_crc32(0, _bytes(data), len(data))
    assert crc == zlib.crc32(data)
    assert library.qg_crc32(crc, _bytes(more), len(more)) == zlib.crc32(data + more)


def _bytes(data):
    return (ctypes.c_uint8 * len(data))(*data)


def test_the_sanitizer_build_reports_undefined_behaviour(capfd):
    load_library("undefined").shim_overflow(2**31 - 1)
    assert "runtime error: signed integer overflow" in capfd.readouterr().err


# ---- layout -------------------------------------------------------------------------------------------------------


def test_layout_of_a_section():
    rows = np.arange(20).reshape(10, 2).tolist()
    assert c_descriptors.section_codes(rows) == [*range(0, 16, 2), *range(1, 16, 2), 16, 17, 18, 19]


def test_the_kinds_in_the_header_have_the_numbers_of_the_digest():
    _, _, digest = (c_library.FIRMWARE / "SPEC.md").read_text().partition("**R17 Digest")
    pattern = r"QG_(?:GATE|CANDIDATE|ACTIVATION|MERGE)_(\w+) = (\d)"
    kinds = re.findall(pattern, (c_library.FIRMWARE / "include" / "quantgru.h").read_text())
    assert len(kinds) == 2 + 5 + 4 + 4
    assert [name for name, number in kinds if f" {number} {name.lower()}" not in digest] == []
