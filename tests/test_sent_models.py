"""Models that go over the line: one image of the test firmware for all, and what it refuses."""

import functools
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import oracle
import pytest
from hil_boards import PATIENCE, board_or_skip, running, work_directory
from hil_models import Case, make_case
from hil_requests import Requests
from strategies import DensePlan, EmbeddingPlan, GruPlan, Plan, from_oracle, random_inputs, random_model

import quantgru as qg
from quantgru.errors import ConfigError, DeviceError
from quantgru.exporter import blob_memory, to_blob
from quantgru.hil.boards import find_boards
from quantgru.hil.compare import compare
from quantgru.hil.images import Image, build_for_models
from quantgru.hil.messages import BoardDescription, Refusal, StackUse, TimerKind, unpack_load
from quantgru.hil.requests import Load, Type, Write, pack_request
from quantgru.hil.session import Session
from quantgru.hil.transport import SerialTransport
from quantgru.hil.upload import Upload
from quantgru.on_board import run_on_board

PLANS = {
    "one unit": Plan(1, (1,), (oracle.RESET_AFTER,)),
    "stack": Plan(3, (9, 5), (oracle.RESET_AFTER, oracle.RESET_BEFORE), ((4, oracle.RELU), (2, oracle.SIGMOID))),
    "hard": Plan(
        2,
        layers=(
            GruPlan(8, oracle.RESET_BEFORE, oracle.GATE_HARD_SIGMOID, oracle.CANDIDATE_SIGMOID, 15, True),
            GruPlan(3, oracle.RESET_AFTER, oracle.GATE_SIGMOID, oracle.CANDIDATE_HARD_TANH, 14),
        ),
    ),
    "embedding": Plan(1, layers=(EmbeddingPlan(11, 4), DensePlan(6, 1), GruPlan(9, oracle.RESET_AFTER), DensePlan(5))),
    "wide": Plan(10, (33,), (oracle.RESET_AFTER,), ((12, oracle.LINEAR),)),
    "codes of 16 bits": Plan(3, layers=(GruPlan(9), DensePlan(3)), weights="wide"),
}
LARGE = Plan(10, (154,), (oracle.RESET_AFTER,), ((12, oracle.LINEAR),))
BOARDS = [name for name, board in find_boards().items() if board.takes_models and name != "rp2040"]


@functools.cache
def image_of(board: str) -> Image:
    return build_for_models(board_or_skip(board), Path(tempfile.mkdtemp(dir=work_directory())))


def upload(model: qg.IntModel) -> Upload:
    return Upload(model, to_blob(model), blob_memory(model, 8))


@functools.cache
def case_of(name: str) -> Case:
    return make_case(PLANS[name], lengths=(20, 3), seed=5)


@pytest.mark.parametrize("board", BOARDS)
def test_one_image_runs_every_model_that_fits(board: str) -> None:
    with running(image_of(board), board) as line:
        for name in PLANS:
            case = case_of(name)
            session = Session(line, PATIENCE)
            session.open(case.model, upload(case.model))
            found = compare(session, case.model, case.inputs, case.expected)
            assert found.equal, f"{name}: {found.first_difference}"
            assert found.steps == 23


def test_a_model_that_does_not_fit_is_refused_before_it_is_sent() -> None:
    model = from_oracle(random_model(LARGE, seed=1))
    with (
        running(image_of("microbit"), "microbit") as line,
        pytest.raises(
            DeviceError, match=r"the model needs 84,880 bytes of RAM, and the board has room for 8,192; use a"
        ),
    ):
        Session(line, PATIENCE).open(model, upload(model))


def test_a_large_model() -> None:
    case = make_case(LARGE, lengths=(3,))
    with running(image_of("netduinoplus2"), "netduinoplus2") as line:
        session = Session(line, PATIENCE)
        session.open(case.model, upload(case.model))
        assert compare(session, case.model, case.inputs, case.expected).equal


def test_a_model_is_sent_once(line: SerialTransport) -> None:
    case = make_case(lengths=(4,))
    sent = upload(case.model)
    for _ in range(2):
        session = Session(line, PATIENCE)
        session.open(case.model, sent)
        assert compare(session, case.model, case.inputs, case.expected).equal
    # the second time, the board has it: HELLO, RESET and the steps, no WRITE
    with pytest.raises(DeviceError, match="another model is on the board"):
        Session(line, PATIENCE).open(make_case(seed=9).model)


def test_without_a_model(line: SerialTransport) -> None:
    with pytest.raises(DeviceError, match="there is no model on the board yet; send it: quantgru hil --send"):
        Session(line, PATIENCE).open(make_case().model)


@pytest.fixture
def line() -> Iterator[SerialTransport]:
    with running(image_of("host")) as transport:
        yield transport


def write(requests: Requests, blob: bytes) -> None:
    for offset in range(0, len(blob), 2000):
        assert requests.ask(*pack_request(Write(offset, blob[offset : offset + 2000]))).type == 0x88


def test_what_write_and_load_refuse(line: SerialTransport) -> None:
    requests = Requests(line)
    room = 2**20
    for payload, code, expected in [
        (b"\0\0\0\0", Refusal.LENGTH, 5),
        (b"", Refusal.LENGTH, 5),
        ((room - 1).to_bytes(4, "little") + b"ab", Refusal.ARGUMENT, room - 2),
        (b"\xff\xff\xff\xffa", Refusal.ARGUMENT, room - 1),
    ]:
        assert requests.refusal(Type.WRITE, payload) == (code, expected)
    assert requests.refusal(Type.LOAD, b"\0\0\0") == (Refusal.LENGTH, 4)
    assert requests.refusal(Type.LOAD, (room + 1).to_bytes(4, "little")) == (Refusal.ARGUMENT, room)
    for type_ in (Type.STEP, Type.RESET, Type.READ, Type.DIGEST, Type.SEED, Type.TIME):
        assert requests.refusal(type_, b"") == (Refusal.NO_MODEL, 0)
    assert requests.refusal(10, b"") == (Refusal.TYPE, Type.TIME)
    assert requests.ask(Type.STACK, b"").type == 0x87


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda blob: blob[:-1] + bytes([blob[-1] ^ 1]), 20),  # QG_LOAD_CRC
        (lambda blob: b"x" + blob[1:], 17),  # QG_LOAD_MAGIC
        (lambda blob: blob[:-4], 19),  # QG_LOAD_LENGTH
        (lambda blob: b"", 19),
    ],
    ids=["CRC", "magic", "short", "empty"],
)
def test_a_blob_that_is_refused_leaves_no_model(line: SerialTransport, change, cause) -> None:
    blob = to_blob(make_case().model)
    requests = Requests(line)
    write(requests, blob)
    assert unpack_load(requests.ask(*pack_request(Load(len(blob)))).payload)[0] == 0
    wrong = change(blob)
    write(requests, wrong)
    refused, board = unpack_load(requests.ask(*pack_request(Load(len(wrong)))).payload)
    assert (refused, board.has_model) == (cause, False)
    assert requests.refusal(Type.RESET, b"") == (Refusal.NO_MODEL, 0)


def test_another_digest_than_the_blob_names(line: SerialTransport) -> None:
    """Right in all else, the CRC included."""
    blob = bytearray(to_blob(make_case().model))
    digest = make_case().model.digest
    at = blob.index(digest)
    blob[at : at + 32] = bytes(32)
    blob[-4:] = zlib.crc32(bytes(blob[:-4])).to_bytes(4, "little")
    requests = Requests(line)
    write(requests, bytes(blob))
    refused, board = unpack_load(requests.ask(*pack_request(Load(len(blob)))).payload)
    assert (refused, board.has_model) == (1, False)


def test_a_step_that_does_not_fit_a_frame_is_refused_before_it_is_sent(line: SerialTransport) -> None:
    model = from_oracle(random_model(Plan(1100, (3,), (oracle.RESET_AFTER,)), seed=1))
    with pytest.raises(DeviceError, match="a step of 1,100 values does not fit the board's frames, which hold 1,011"):
        Session(line, PATIENCE).open(model, upload(model))


def test_a_board_of_an_older_contract_is_sent_no_codes_of_16_bits() -> None:
    no_timer, no_stack = TimerKind.NONE, StackUse(0, 0)
    board = BoardDescription(1, 1, 1, no_timer, 0, 2048, 2048, 0, 0, 0, 0, bytes(32), "old", 10**6, no_stack, 0)
    says = "the model needs numeric contract 1.2, and the board computes 1.1"
    assert upload(case_of("codes of 16 bits").model).refusal(board) == says
    assert upload(case_of("one unit").model).refusal(board) is None


@pytest.mark.parametrize("board", ["host", "mps2-an386"])
def test_as_a_user_calls_it(board: str) -> None:
    board_or_skip(board)
    plan = Plan(3, (16,), (oracle.RESET_AFTER,), ((6, oracle.LINEAR),))
    model = from_oracle(random_model(plan, seed=1))
    x = np.array(random_inputs("random", 50, 3, seed=2)) * 2.0**-model.input_fraction_bits
    result = run_on_board(model, x[None], board=board, send=True)
    assert result.equal
    assert result.steps == 50


def test_a_board_that_reads_flash_takes_no_model() -> None:
    board_or_skip("atmega328p")
    model = make_case().model
    with pytest.raises(ConfigError, match="board atmega328p: takes no model over its line"):
        run_on_board(model, np.zeros((1, 2, 3)), board="atmega328p", send=True)
