"""What the loader of firmware/src/qg_load.c refuses, and why: each field, each length, each bound.

All blobs go through one program with sanitizers, which must end well whatever it is given.
"""

import itertools
import struct
from pathlib import Path

import oracle
import pytest
from blob_cases import (
    RICH,
    Case,
    answers,
    edited,
    loader_program,
    records,
    sealed,
    u32,
)
from blob_reader import RefusedError, read_blob
from c_library import NO_COMPILER
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import (
    REVERSE,
    GruPlan,
    Plan,
    any_plans,
    from_oracle,
    oracle_models,
    random_model,
)

from quantgru.exporter import blob_memory, to_blob

pytestmark = pytest.mark.skipif(NO_COMPILER is not None, reason=str(NO_COMPILER))

AFTER, BEFORE = oracle.RESET_AFTER, oracle.RESET_BEFORE

MISALIGNED, MAGIC, VERSION, LENGTH, CRC, RESERVED, LAYERS, SIZE, MEMORY = range(-16, -25, -1)
OFFSET, FUNCTION, FRACTION_BITS, SCALE, OVERFLOW = range(-25, -30, -1)


@pytest.fixture(scope="module")
def program() -> Path:
    return loader_program()


@pytest.fixture(scope="module")
def rich() -> bytes:
    return to_blob(from_oracle(random_model(RICH, seed=1)))


def codes(program: Path, blobs: list[bytes]) -> list[int]:
    return [answer.code for answer in answers(program, [Case(blob) for blob in blobs])]


def test_what_is_cut_off_is_refused(program: Path, rich: bytes) -> None:
    assert set(codes(program, [rich[:n] for n in range(len(rich))])) == {LENGTH}


def test_what_is_cut_off_and_sealed_again_is_refused(program: Path, rich: bytes) -> None:
    """The end is inside a record or an array then."""
    found = codes(program, [sealed(rich[:n]) for n in range(52, len(rich) - 4)])
    assert set(found) == {LENGTH, OFFSET}


def test_every_changed_bit_is_found(program: Path, rich: bytes) -> None:
    changed = [rich[:at] + bytes([rich[at] ^ 1 << bit]) + rich[at + 1 :] for at in range(len(rich)) for bit in range(8)]
    found = codes(program, changed)
    assert set(found[: 4 * 8]) == {MAGIC}
    assert set(found[4 * 8 : 6 * 8]) == {VERSION}
    assert set(found[6 * 8 : 7 * 8]) == {VERSION, CRC}  # a lower minor number is no reason
    assert set(found[7 * 8 : 8 * 8]) == {CRC}
    assert set(found[8 * 8 : 12 * 8]) == {LENGTH, CRC}
    assert set(found[12 * 8 :]) == {CRC}


def test_memory_must_be_enough_and_aligned(program: Path, rich: bytes) -> None:
    need = blob_memory(from_oracle(random_model(RICH, seed=1)), pointer_bytes=8)
    too_small = answers(program, [Case(rich, memory_bytes=n) for n in range(need)])
    assert {(answer.code, answer.memory_bytes) for answer in too_small} == {(MEMORY, need)}
    enough, *misaligned = answers(
        program,
        [
            Case(rich, memory_bytes=need),
            *(Case(rich, memory_bytes=need, memory_offset=offset) for offset in range(1, 8)),
            *(Case(rich, blob_offset=offset) for offset in (1, 2, 3)),
        ],
    )
    assert enough.code == 0
    assert {answer.code for answer in misaligned} == {MISALIGNED}


# Fields of the header and of the records: where, which bytes instead, and what the loader says then.
HEADER_FIELDS = [
    (4, b"\0", VERSION),
    (4, b"\2", VERSION),
    (5, b"\0", VERSION),
    (5, b"\2", VERSION),
    (6, b"\3", VERSION),
    (7, b"\2", RESERVED),
    (12, b"\0\0", SIZE),
    (12, b"\2\0", SIZE),  # an embedding reads one input
    (14, b"\0", LAYERS),
    (15, b"\1", RESERVED),
    (16, b"\0\0\0\0", OFFSET),
    (16, b"\x33\0\0\0", OFFSET),  # inside the header
    (16, b"\xff\xff\xff\xff", OFFSET),
    (52, b"\0", LAYERS),
    (52, b"\5", LAYERS),
    (52, b"\6", LAYERS),
    (53, b"\3", LAYERS),  # an embedding as the second layer
    (57, b"\4", LAYERS),  # a reversal after a GRU layer
]

EMBEDDING, DENSE, RELU_GRU, TANH_GRU, HEAD, SIGMOID_HEAD = 0, 2, 3, 4, 5, 6  # indexes of layers of RICH

RECORD_FIELDS = [
    (EMBEDDING, 0, b"\0\0", SIZE),
    (EMBEDDING, 0, b"\1\x80", SIZE),
    (EMBEDDING, 0, b"\0\x80", OFFSET),  # 32768 tokens are allowed, but not there
    (EMBEDDING, 2, b"\0\0", SIZE),
    (EMBEDDING, 4, b"\0\0\0\0", OFFSET),
    (DENSE, 0, b"\0\0", SIZE),
    (DENSE, 2, b"\4", FUNCTION),
    (DENSE, 3, b"\x20", FRACTION_BITS),
    (DENSE, 3, b"\xe0", FRACTION_BITS),
    (DENSE, 16, b"\x10", SCALE),
    (DENSE, 17, b"\2", RESERVED),
    (DENSE, 18, b"\1", RESERVED),
    (DENSE, 19, b"\1", RESERVED),
    (HEAD, 0, b"\0\0", SIZE),
    (SIGMOID_HEAD, 3, b"\x0e", FRACTION_BITS),
    (RELU_GRU, 0, b"\0\0", SIZE),
    (RELU_GRU, 0, b"\x56\x55", SIZE),  # 21846 units
    (RELU_GRU, 0, b"\x55\x55", MEMORY),  # 21845 are allowed
    (RELU_GRU, 2, b"\2", FUNCTION),
    (RELU_GRU, 3, b"\5", FUNCTION),
    (RELU_GRU, 4, b"\x20", FRACTION_BITS),
    (RELU_GRU, 4, b"\xe0", FRACTION_BITS),
    (RELU_GRU, 5, b"\1", RESERVED),
    (RELU_GRU, 6, b"\1", RESERVED),
    (RELU_GRU, 7, b"\1", RESERVED),
    (RELU_GRU, 20, b"\x10", SCALE),
    (RELU_GRU, 36, b"\xff", SCALE),
    (RELU_GRU, 21, b"\2", RESERVED),
    (RELU_GRU, 39, b"\1", RESERVED),
    (TANH_GRU, 4, b"\x10", FRACTION_BITS),
    (TANH_GRU, 4, b"\xf0", FRACTION_BITS),
]

# Offsets of arrays, and the size of their elements.
OFFSET_FIELDS = [
    *(
        (RELU_GRU, at, size)
        for at, size in zip((8, 12, 16, 24, 28, 32, 40, 44, 48), (1, 2, 1, 1, 2, 1, 4, 4, 2), strict=True)
    ),
    *((HEAD, at, size) for at, size in zip((4, 8, 12, 20), (1, 2, 1, 4), strict=True)),
]


@pytest.mark.parametrize(("at", "value", "code"), HEADER_FIELDS)
def test_a_wrong_field_of_the_header(at: int, value: bytes, code: int, program: Path, rich: bytes) -> None:
    assert codes(program, [edited(rich, at, value)]) == [code]


def test_wrong_fields_of_the_layers(program: Path, rich: bytes) -> None:
    places = records(rich)
    blobs = [edited(rich, places[layer] + at, value) for layer, at, value, _ in RECORD_FIELDS]
    found = codes(program, blobs)
    wrong = [(field, code) for field, code in zip(RECORD_FIELDS, found, strict=True) if field[-1] != code]
    assert not wrong


def test_wrong_offsets(program: Path, rich: bytes) -> None:
    """Inside the header, misaligned, behind the end, and so large that a sum would wrap around."""
    places = records(rich)
    blobs = []
    for layer, at, size in OFFSET_FIELDS:
        array = u32(rich, places[layer] + at)
        wrong = [48, len(rich) - 4, len(rich), 2**32 - 4, 2**31, *(array + i for i in range(1, size))]
        blobs += [edited(rich, places[layer] + at, struct.pack("<I", offset)) for offset in wrong]
    assert set(codes(program, blobs)) == {OFFSET}


def test_scales_out_of_range(program: Path, rich: bytes) -> None:
    place = records(rich)[RELU_GRU]
    multipliers, shifts = u32(rich, place + 12), u32(rich, place + 16)
    blobs = [edited(rich, multipliers + 2 * 26, struct.pack("<H", m)) for m in (0, 2**14 - 1, 2**15, 2**16 - 1)]
    blobs += [edited(rich, shifts + 26, bytes([s])) for s in (0, 31, 255)]
    assert set(codes(program, blobs)) == {SCALE}


def test_layers_whose_units_are_too_many_together(program: Path) -> None:
    """Four GRU layers of 16384 units; that their arrays are missing would be found later."""
    model = from_oracle(random_model(Plan(1, (1, 1, 1, 1), (AFTER,) * 4), seed=1))
    blob = to_blob(model)
    for place in records(blob):
        blob = edited(blob, place, struct.pack("<H", 16384))
    assert codes(program, [blob]) == [SIZE]


def test_input_formats_out_of_range(program: Path) -> None:
    blob = to_blob(from_oracle(random_model(Plan(3, (2,), (AFTER,)), seed=1)))
    array = u32(blob, 16)
    blobs = [
        edited(blob, array + i, struct.pack("<b", bits)) for i, bits in itertools.product(range(3), (32, -32, 127))
    ]
    assert set(codes(program, blobs)) == {FRACTION_BITS}
    assert codes(program, [edited(blob, array, struct.pack("<b", bits)) for bits in (31, -31)]) == [0, 0]


def test_an_embedding_reads_a_number_without_fraction_bits(program: Path, rich: bytes) -> None:
    assert codes(program, [edited(rich, u32(rich, 16), b"\1")]) == [FRACTION_BITS]


def test_a_reversal_after_a_gru_layer(program: Path) -> None:
    blob = to_blob(from_oracle(random_model(Plan(1, layers=(REVERSE, GruPlan(1))), seed=1)))
    assert codes(program, [edited(blob, 52, b"\1\4")]) == [LAYERS]
    assert codes(program, [edited(blob, 52, b"\4\4")]) == [LAYERS]  # no GRU layer


# ---- the proof ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reset", [AFTER, BEFORE])
@pytest.mark.parametrize("seed", range(4))
def test_a_bias_at_its_bound_is_accepted_and_beyond_it_refused(reset: int, seed: int, program: Path) -> None:
    """Random models whose biases use all the room that SPEC.md leaves them, one of them one too far."""
    plan = Plan(3, (9,), (reset,), ((9, oracle.LINEAR),), 0, "random", "useful", "limit")
    model = random_model(plan, seed)
    blob = to_blob(from_oracle(model))
    gru, dense = records(blob)
    arrays = [(u32(blob, gru + 40), 27), (u32(blob, dense + 20), 9)]
    arrays += [(u32(blob, gru + 44), 9)] if reset == AFTER else []
    cases, expected = [blob], [0]
    for array, n in arrays:
        for at in range(array, array + 4 * n, 4):
            (bias,) = struct.unpack_from("<i", blob, at)
            for other in (bias - 1, bias + 1, -(2**31)):
                changed = edited(blob, at, struct.pack("<i", max(min(other, 2**31 - 1), -(2**31))))
                cases.append(changed)
                expected.append(0 if oracle.proved(read_blob(changed)) else OVERFLOW)
    assert codes(program, cases) == expected
    assert {0, OVERFLOW} == set(expected)


@pytest.mark.parametrize(("columns", "k", "code"), [(511, 0, 0), (512, 0, OVERFLOW), (256, 1, OVERFLOW), (255, 1, 0)])
def test_accumulators_at_their_bound(columns: int, k: int, code: int, program: Path) -> None:
    """SPEC.md, chapter 7: 512 codes of -128 in a row are one too many without a shift, and half as many with k = 1."""
    model = random_model(Plan(columns, (1,), (BEFORE,), biases="zero", weights="small"), seed=1)
    blob = to_blob(from_oracle(model))
    (gru,) = records(blob)
    blob = edited(blob, u32(blob, gru + 8), b"\x80" * 3 * columns)
    assert codes(program, [edited(blob, gru + 20, bytes([k]))]) == [code]


# ---- anything -------------------------------------------------------------------------------------------------------


def test_any_byte_of_header_and_records_can_have_any_value(program: Path, rich: bytes) -> None:
    """Sanitizers watch what is accepted while it runs, too."""
    end = records(rich)[-1] + 24
    cases = [
        Case(edited(rich, at, bytes([value])), inputs=[[-1], [10]])
        for at in range(7, end)
        for value in (0, 1, 2, 3, 4, 5, 0x7F, 0x80, 0xFF)
        if at not in range(8, 12)
    ]
    found = {answer.code for answer in answers(program, cases)}
    assert found >= {0, RESERVED, LAYERS, SIZE, MEMORY, OFFSET, FUNCTION, FRACTION_BITS, SCALE}


@given(model=oracle_models(any_plans(streaming=True)), data=st.data())
@settings(max_examples=100)
def test_what_is_accepted_is_what_the_contract_admits(model: oracle.Model, data: st.DataObject, program: Path) -> None:
    """Blobs of random models with a few random bytes, read a second time by tests/blob_reader.py."""
    blob = to_blob(from_oracle(model))
    blobs = [blob]
    for _ in range(20):
        at = data.draw(st.integers(12, len(blob) - 5))
        value = data.draw(
            st.sampled_from((b"\0", b"\1", b"\x7f", b"\x80", b"\xff")) | st.binary(min_size=1, max_size=4)
        )
        blobs.append(edited(data.draw(st.sampled_from(blobs)), at, value[: len(blob) - 4 - at]))
    found = answers(program, [Case(blob, memory_bytes=40000, inputs=[[-32768], [32767]]) for blob in blobs])
    assert [answer.code == 0 for answer in found] == list(map(is_admitted, blobs))


def is_admitted(blob: bytes) -> bool:
    try:
        return oracle.proved(read_blob(blob))
    except RefusedError:
        return False
