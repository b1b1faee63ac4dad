"""Files of logged inputs: text, .npz and damaged records; and what the replay of them says."""

from __future__ import annotations

import contextlib
import re
import struct
import zlib
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from command_line import assert_refused, done, quantgru
from support_export import load

import quantgru as qg

MODEL = load("gesture")  # 3 inputs
ROWS = [[1, -2, 3], [32767, -32768, 0], [40, 5, -600]]


@pytest.fixture(scope="module")
def valve() -> qg.IntModel:
    return load("valve")


def record(model: qg.IntModel = MODEL, **changes: object) -> bytes:
    """As quantgru_log.h describes it: of ROWS, from zeros, with the state check of the simulator's own run."""
    run = qg.run(model, [ROWS], raw_input=True, trace=True)
    end = b"".join(state.h.tobytes() for state in run.final_states)
    end += b"".join(state.residual.tobytes() for state in run.final_states)
    values: dict[str, object] = {"magic": b"qglog\x01", "digest": model.digest, "check": zlib.crc32(end)} | changes
    head = struct.pack("<6s3H2I32s", values["magic"], 3, model.n_units, len(ROWS), 1003, 7, values["digest"])
    body = bytes(4 * model.n_units) + np.array(ROWS, "<i2").tobytes() + struct.pack("<I", values["check"])
    return head + body + struct.pack("<I", zlib.crc32(head + body))


RECORD = record()


def read(path: Path, content: bytes | str) -> list[qg.InputLog]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return qg.read_logs(path)


@pytest.mark.parametrize(
    "text",
    [
        "1,-2,3\n32767,-32768,0\n40,5,-600\n",
        "1 -2 +3\r\n\r\n32767\t-32768 0\r\n 40 5 -600",
        "\ufeff1,-2,3\n32767,-32768,0\n40,5,-600\n",
        "# x, y, z\n1; -2; 3;\n32767; -32768; 0;  # a knock\n40; 5; -600;",
        "10:12:01.003 -> 1, -2, 3\n10:12:01.013 -> 32767, -32768, 0\n10:12:01.023 -> 40, 5, -600\n",
    ],
    ids=["comma", "space", "byte-order mark", "comments", "times"],
)
def test_text_of_a_serial_monitor(text: str, tmp_path: Path) -> None:
    (log,) = read(tmp_path / "log.txt", text)
    assert log.inputs.dtype == np.int16 and log.inputs.tolist() == ROWS
    replay = qg.replay(MODEL, [log])
    assert replay.equal == (None,)
    assert np.array_equal(replay.result.outputs_raw, qg.run(MODEL, [ROWS], raw_input=True).outputs_raw)
    assert replay.result.clipped_inputs.tolist() == [1, 1, 0]


@pytest.mark.parametrize("write", [bytes, bytes.hex, lambda content: re.sub("(.{32})", r"\1\n", content.hex().upper())])
def test_records_in_binary_and_in_hexadecimal_digits(write: object, tmp_path: Path) -> None:
    """Two of them, one after the other."""
    logs = read(tmp_path / "log", write(record() + record()))  # type: ignore[operator]
    assert [log.first_step for log in logs] == [1000, 1000]
    assert [log.clipped for log in logs] == [7, 7]
    assert logs[1].source.endswith("log, record 1")
    assert qg.replay(MODEL, logs).equal == (True, True)


def test_a_state_that_is_another_is_told(tmp_path: Path) -> None:
    (tmp_path / "log.bin").write_bytes(record() + record(check=1))
    MODEL.save(tmp_path / "m.qgru")
    result = quantgru("simulate", tmp_path / "m.qgru", "--raw", tmp_path / "log.bin", "-o", tmp_path / "y.npz")
    assert (result.code, result.err) == (1, "")
    assert "log.bin: 3 steps from step 1,000 on" in result.out
    assert "record 1: 3 steps from step 1,000 on, beginning with the logged state; the state after them DIFFERENT" in (
        result.out
    )


def test_npz_with_the_state_of_another_run(valve: qg.IntModel, tmp_path: Path) -> None:
    """Two sequences of unequal lengths, cut in two: the second part goes on where the first ended. A device takes the
    steps of this model from the last to the first."""
    assert valve.reversed_input
    rng = np.random.default_rng(0)
    x = rng.integers(-32768, 32768, (2, 9, valve.n_inputs)).astype(np.int16)
    first = qg.run(valve, x[:, 3::-1], raw_input=True)
    np.savez(
        tmp_path / "log.npz",
        x=x[:, 4:],
        lengths=[5, 3],
        h=np.concatenate([state.h for state in first.final_states], axis=1),
        residual=np.concatenate([state.residual for state in first.final_states], axis=1),
    )
    replay = qg.replay(valve, qg.read_logs(tmp_path / "log.npz"))
    whole = qg.run(valve, x[:, ::-1], raw_input=True)
    assert replay.equal == (None, None)
    for i, length in enumerate((5, 3)):
        assert np.array_equal(replay.result.outputs_raw[i, :length], whole.outputs_raw[i, 4 : 4 + length])


def test_several_files_and_a_trace(tmp_path: Path) -> None:
    """Those that follow a reset beside one that does not."""
    model, outputs = tmp_path / "m.qgru", tmp_path / "y.npz"
    MODEL.save(model)
    (tmp_path / "a.txt").write_text("5,6,7\n")
    units = MODEL.n_units
    np.savez(tmp_path / "b.npz", x=[ROWS], h=np.full((1, units), 99), residual=np.full((1, units), 32767))
    said = done(
        quantgru("simulate", model, "--raw", tmp_path / "a.txt", "--raw", tmp_path / "b.npz", "-o", outputs, "--trace")
    )
    assert "a.txt: 1 steps from step 0 on, beginning with a reset; the state after them is not in the log" in said
    with np.load(outputs) as found:
        assert found["lengths"].tolist() == [1, 3]
        assert found["y"].dtype == np.int16 and found["y"].shape == (2, MODEL.n_outputs)
        fresh = qg.run(MODEL, [[[5, 6, 7]]], raw_input=True, trace=True).trace
        assert fresh is not None
        assert np.array_equal(found["layer0.h"][0, :1], fresh.layers[0].h[0])
        changed = qg.run(MODEL, [ROWS], raw_input=True, trace=True).trace
        assert changed is not None
        assert not np.array_equal(found["layer0.h"][1], changed.layers[0].h[0])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("1,2,3\n4,5\n", "line 2: 2 values, the lines before have 3"),
        ("1,2,x\n", "line 1: '1,2,x', expected the raw integers of one step"),
        ("1,2,0.5\n", "line 1: '1,2,0.5'"),
        ("1,2,32768\n", "1 ... 32768, expected integers of -32768 ... 32767"),
        ("# nothing\n", "inputs int16 (0, 0), expected int16 (steps, 3)"),
        ("1,2\n", "inputs int16 (1, 2), expected int16 (steps, 3)"),
        (b"\xff\x00", "neither a record, nor text, nor an .npz file"),
        (record()[:-1], "cut off, "),
        (record()[:30], "cut off, 30 of 60 bytes"),
        (record()[:80] + b"\x01" + record()[81:], "its CRC-32 is wrong"),
        (record() + b"more", "record 1: b'more', expected the 'qglog' of another record"),
        (record(magic=b"qglog\x02"), "format 2, this version reads 1; update quantgru"),
        (record(digest=bytes(32)), f"of another model, digest {bytes(32).hex()}"),
        (record().hex()[:-1], "in hexadecimal digits, damaged"),
    ],
)
def test_what_is_no_log_is_refused(content: bytes | str, says: str, tmp_path: Path) -> None:
    MODEL.save(tmp_path / "m.qgru")
    (tmp_path / "log").write_bytes(content.encode() if isinstance(content, str) else content)
    result = quantgru("simulate", tmp_path / "m.qgru", "--raw", tmp_path / "log", "-o", tmp_path / "y.npz")
    assert_refused(result, f"log {tmp_path / 'log'}", says)
    assert not (tmp_path / "y.npz").exists()


@hypothesis.given(st.data())
@hypothesis.settings(max_examples=200, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
def test_damaged_records_are_refused_or_read(tmp_path: Path, data: st.DataObject) -> None:
    """Whatever stands behind "qglog": nothing but DataError, and no number of steps that was not sent."""
    content = bytearray(2 * RECORD)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(5, len(content) - 1))] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(5, len(content))) :]
    given = bytes(content).hex() if data.draw(st.booleans()) else bytes(content)
    with contextlib.suppress(qg.DataError):
        assert sum(len(log.inputs) for log in read(tmp_path / "log", given)) in (0, len(ROWS), 2 * len(ROWS))


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"h": np.zeros((1, 2))}, "no array 'residual'"),
        ({"h": np.zeros((1, 2)), "residual": np.zeros((1, 3))}, "h (1, 2) and residual (1, 3), expected [1, units]"),
        ({"h": np.zeros((1, 2)), "residual": np.zeros((1, 2))}, "h (2,) and residual (2,), the model has"),
        ({"h": np.zeros((1, 2)), "residual": np.full((1, 2), 2**15)}, "expected integers of 0 ... 32767"),
        ({"h": np.full((1, 2), 0.5), "residual": np.zeros((1, 2))}, "array 'h': 0.5 ... 0.5, expected integers"),
        ({"initial_state0": np.zeros((1, 2))}, "has real initial states; give raw ones"),
    ],
)
def test_npz_with_wrong_states(arrays: dict[str, np.ndarray], says: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "log.npz", x=[ROWS], **arrays)  # type: ignore[arg-type]
    with pytest.raises(qg.DataError, match=re.escape(says)):
        qg.replay(MODEL, qg.read_logs(tmp_path / "log.npz"))


def test_logs_that_cannot_be_replayed(tmp_path: Path) -> None:
    with pytest.raises(qg.DataError, match="no logs, expected at least one"):
        qg.replay(MODEL, [])
    inputs = np.array(ROWS, np.int16)
    with pytest.raises(qg.DataError, match="h without residual"):
        qg.replay(MODEL, [qg.InputLog("mine", inputs, h=np.zeros(MODEL.n_units, np.int16))])
    phrase = load("phrase")
    state = {"h": np.zeros(phrase.n_units, np.int16), "residual": np.zeros(phrase.n_units, np.uint16)}
    with pytest.raises(qg.DataError, match="begins with a state, but model 'phrase' runs whole sequences"):
        qg.replay(phrase, [qg.InputLog("mine", np.array([[1]], np.int16), **state)])
    with pytest.raises(qg.DataError, match="cannot be read"):
        qg.read_logs(tmp_path / "none.bin")


def test_input_and_raw_are_two_sources(here: Path) -> None:
    for options in ([], ["--input", "x.npz", "--raw", "x.npz"]):
        result = quantgru("simulate", "m.qgru", *options, "-o", "y.npz")
        assert result.code == 2 and "give either --input X.npz or --raw LOG" in result.err
