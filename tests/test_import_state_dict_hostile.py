"""Files of weights that are damaged or made to harm: quantgru's errors, bounded time and memory, no code run."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import struct
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

import quantgru as qg
from quantgru.errors import QuantgruError

FOLDER = Path(__file__).resolve().parent / "models" / "pytorch"
MEMORY = 100 << 20  # bytes; measured: 75 MB at most
SECONDS = 20  # measured: 3 s at most


def load(tmp_path, content: bytes, suffix=".pt", chain=None):
    path = tmp_path / f"file{suffix}"
    path.write_bytes(content)
    return qg.load(path, chain=chain)


def bounded(tmp_path, content: bytes, suffix=".pt"):
    """The message of the error, which must come soon and without much memory."""
    start = time.perf_counter()
    tracemalloc.start()
    try:
        with pytest.raises(QuantgruError) as caught:
            load(tmp_path, content, suffix)
        assert tracemalloc.get_traced_memory()[1] < MEMORY + 3 * len(content)
    finally:
        tracemalloc.stop()
    assert time.perf_counter() - start < SECONDS
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 1200
    return text


def archive(pickled: bytes, entries=(), root="archive", compression=zipfile.ZIP_STORED) -> bytes:
    """A zip file as torch.save writes it, with a pickle of choice."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as file:
        file.writestr(f"{root}/data.pkl", pickled)
        for name, data in entries:
            file.writestr(name, data)
    return content.getvalue()


def tensor(count=4, size=(2, 2), stride=(2, 1), offset=0, key="0", kind="FloatStorage") -> bytes:
    """The opcodes of one tensor."""
    axes = b"".join(b"(" + b"".join(b"\x8a" + long(n) for n in axis) + b"t" for axis in (size, stride))
    opcodes = b"ctorch._utils\n_rebuild_tensor_v2\n("
    opcodes += (
        b"(" + word("storage") + f"ctorch\n{kind}\n".encode() + word(key) + word("cpu") + b"\x8a" + long(count) + b"tQ"
    )
    return opcodes + b"\x8a" + long(offset) + axes + b"\x89}tR"


def word(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text.encode())) + text.encode()


def long(number: int) -> bytes:
    """The argument of LONG1."""
    data = number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)
    return bytes([len(data)]) + data


def state(**tensors: bytes) -> bytes:
    """A pickle of a dict."""
    items = b"".join(word(name) + opcodes for name, opcodes in tensors.items())
    return b"\x80\x02}(" + items + b"u."


def test_the_parts_of_these_files_are_those_of_real_ones(tmp_path):
    """A GRU made of the same bytes is read: what is refused below is refused for its harm."""
    weights = np.arange(12, dtype=np.float32) / 10
    pickled = state(weight_ih_l0=tensor(12, (6, 1), (1, 1), 0), weight_hh_l0=tensor(12, (6, 2), (2, 1), 0))
    model = load(tmp_path, archive(pickled, [("archive/data/0", weights.tobytes())]))
    assert model.layers[0].input_weights.ravel().tolist() == [*weights[[2, 3, 0, 1, 4, 5]]]


class Harm:
    """Unpickled, it runs a shell."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def harmful(marker, legacy):
    """A checkpoint that runs code, among tensors."""
    pickled = pickle.dumps({"state_dict": {}, "extra": [Harm(marker)]}, protocol=2)
    if not legacy:
        return archive(pickled)
    head = [pickle.dumps(value, protocol=2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    return b"".join([*head, pickled, pickle.dumps([], protocol=2)])


@pytest.mark.parametrize("kind", ["zip", "legacy", "plain"])
def test_code_in_a_pickle_is_not_run(kind, tmp_path):
    marker = tmp_path / "marker"
    content = pickle.dumps(Harm(marker)) if kind == "plain" else harmful(marker, kind == "legacy")
    message = bounded(tmp_path, content)
    assert "system'" in message or "a pickle that torch.save did not write" in message
    assert "nothing of it was executed" in message
    assert not marker.exists()
    pickle.loads(pickle.dumps(Harm(marker)))  # what would have happened
    assert marker.exists()


@pytest.mark.parametrize(
    "name", ["builtins eval", "torch.serialization load", "torch._utils _rebuild_wrapper_subclass", "numpy ndarray"]
)
def test_no_other_function_is_known(name, tmp_path):
    module, function = name.split()
    pickled = f"\x80\x02c{module}\n{function}\n(Vx\ntR.".encode("latin1")
    message = bounded(tmp_path, archive(pickled))
    assert f"the Python object '{module}.{function}', which no state dict has" in message


SIZES = {
    "more than the storage": dict(size=(3, 2)),
    "huge": dict(size=(10**9, 10**9), stride=(10**9, 1)),
    "beyond 64 bits": dict(size=(2**100, 2**100), stride=(2**100, 1)),
    "expanded": dict(size=(10**6, 10**6), stride=(0, 0)),
    "strides too wide": dict(stride=(4, 1)),
    "huge strides": dict(stride=(2**62, 2**62)),
    "offset": dict(offset=1),
    "huge offset": dict(offset=2**70),
    "negative offset": dict(offset=-1),
    "negative stride": dict(stride=(2, -1)),
    "negative size": dict(size=(-2, -2)),
    "axes": dict(size=(2, 2, 1), stride=(2, 1)),
    "many axes": dict(size=(1,) * 70, stride=(1,) * 70),
    "count too large": dict(count=2**40),
    "count too small": dict(count=3),
    "negative count": dict(count=-4),
    "other storage": dict(key="1"),
    "path": dict(key="../../../etc/passwd"),
    "unknown type": dict(kind="QUInt8Storage"),
    "code": dict(kind="Storage.__init__"),
}


@pytest.mark.parametrize("case", SIZES)
def test_declared_sizes_are_compared_before_anything_is_made(case, tmp_path):
    data = ("archive/data/0", bytes(16))
    assert load_error(tmp_path, archive(state(a=tensor()), [data])).startswith("PyTorch file")  # the same without harm
    message = bounded(tmp_path, archive(state(a=tensor(**SIZES[case])), [data]))
    assert "it holds 'a'" not in message


def load_error(tmp_path, content):
    """A single matrix is no GRU, but it is read."""
    with pytest.raises(qg.ModelError, match=r"it holds 'a' \(an array 2 x 2\)") as caught:
        load(tmp_path, content)
    return str(caught.value)


def nested(depth):
    return b"\x80\x02" + b")" + b"\x85" * depth + b"."


PICKLES = {
    "nothing": b"",
    "no end": b"\x80\x02}",
    "empty stack": b"\x80\x02.",
    "no mark": b"\x80\x02}u.",
    "missing memo": b"\x80\x02h\x07.",
    "list of itself": b"\x80\x02]q\x00h\x00a.",
    "dict of itself": b"\x80\x02}q\x00" + word("state_dict") + b"h\x00s.",
    "deep": nested(300_000),
    "deep key": b"\x80\x02}" + nested(300_000)[2:-1] + b"Ns.",
    "deep global": b"\x80\x04" + nested(100_000)[2:-1] + b"\x8c\x01x\x93.",
    "many dicts": b"\x80\x02" + b"}" * 1_000_000 + b".",
    "many marks": b"\x80\x02" + b"(" * 1_000_000 + b".",
    "much text": b"\x80\x02" + b"X" + struct.pack("<I", 2**31 - 1) + b"x.",
    "much more text": b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"x.",
    "byte array": b"\x80\x05\x96" + struct.pack("<Q", 2**62) + b"x.",
    "frame": b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"N.",
    "extension": b"\x80\x02\x82\x01.",
    "instance": b"\x80\x02(c__main__\nX\no.",
    "old instance": b"\x80\x02(i__main__\nX\n.",
    "persistent text": b"\x80\x02P../../x\n.",
    "reduce of a number": b"\x80\x02K\x01)R.",
    "build of a list": b"\x80\x02]}b.",
    "too large": b"\x80\x02" + b"N0" * (1 << 20) + b".",
    "a number": b"\x80\x02K\x01.",
    "a list": b"\x80\x02].",
    "number as a key": b"\x80\x02}K\x01Ns.",
    "list as a key": b"\x80\x02}]Ns.",
    "tensor alone": b"\x80\x02" + tensor() + b".",
    "tensor in a tensor": state(a=tensor().replace(b"ctorch\nFloatStorage\n", b"]")),
}


@pytest.mark.parametrize("case", PICKLES)
def test_pickles_that_no_state_dict_is(case, tmp_path):
    bounded(tmp_path, archive(PICKLES[case], [("archive/data/0", bytes(16))]))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/etc/passwd", "an entry named '/etc/passwd'"),
        ("archive/../../x", "an entry named"),
        ("..\\x", "an entry named"),
        ("C:\\x", "an entry named"),
        ("other/data.pkl", "a zip archive that torch.save did not write"),
        ("archive/code/__torch__.py", "a TorchScript archive, which is code with weights; .*state_dict"),
        ("archive/constants.pkl", "a TorchScript archive"),
    ],
)
def test_entries_of_other_archives(name, message, tmp_path):
    content = archive(state(a=tensor()), [("archive/data/0", bytes(16)), (name, b"x")])
    with pytest.raises(qg.ModelError, match=message):
        load(tmp_path, content)


def test_archives_that_unpack_to_more(tmp_path):
    packed = archive(
        state(a=tensor(2**26, (2, 2))), [("archive/data/0", bytes(2**28))], compression=zipfile.ZIP_DEFLATED
    )
    assert len(packed) < 2**20
    assert "is packed" in bounded(tmp_path, packed)
    content = archive(state(a=tensor()), [(f"archive/{i}", b"") for i in range(20_001)])
    assert "more than 20000 entries" in bounded(tmp_path, content)


def test_a_lying_directory(tmp_path):
    content = bytearray(archive(state(a=tensor()), [("archive/data/0", bytes(16))]))
    at = content.rindex(b"PK\x01\x02")
    content[at + 20 : at + 28] = struct.pack("<II", 2**31, 2**31)
    bounded(tmp_path, bytes(content))


def test_other_files(tmp_path, monkeypatch):
    for content in (b"", b"x", b"PK", b"\x80", b"PK\x03\x04", b"\x80\x02}.", b"not a model\n" * 1000):
        bounded(tmp_path, content)
        bounded(tmp_path, content, ".safetensors")
    monkeypatch.setattr("quantgru.importers.pytorch_file.FILE_LIMIT", 1000)
    for name in ("gru.pt", "gru.legacy.pt", "half.safetensors"):
        content = (FOLDER / name).read_bytes() + bytes(1000)
        assert "bytes, allowed are 1000" in bounded(tmp_path, content, Path(name).suffix)


def test_a_torchscript_file(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install quantgru[torch]")
    traced = torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2))
    traced.save(str(tmp_path / "traced.pt"))
    with pytest.raises(qg.ModelError, match="a TorchScript archive, which is code with weights"):
        qg.load(tmp_path / "traced.pt")


def safetensors_file(header, data=b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(shape, offsets, kind="F32"):
    return {"a": {"dtype": kind, "shape": shape, "data_offsets": offsets}}


SAFETENSORS = {
    "empty header": safetensors_file(b""),
    "no JSON": safetensors_file(b"{"),
    "deep": safetensors_file(b"[" * 100_000),
    "huge header": struct.pack("<Q", 2**63) + b"{}",
    "header of megabytes": safetensors_file(b"{" + b" " * (3 << 20) + b"}"),
    "no tensors": safetensors_file({}),
    "huge shape": safetensors_file(entry([2**40, 2**40], [0, 4]), bytes(4)),
    "beyond 64 bits": safetensors_file(entry([2**63, 2], [0, 4]), bytes(4)),
    "huge offsets": safetensors_file(entry([2**40], [0, 2**42]), bytes(4)),
    "negative": safetensors_file(entry([-1], [0, 4]), bytes(4)),
    "backwards": safetensors_file(entry([1], [4, 0]), bytes(4)),
    "gap": safetensors_file(entry([1], [4, 8]), bytes(8)),
    "too short": safetensors_file(entry([2], [0, 8]), bytes(4)),
    "too long": safetensors_file(entry([1], [0, 4]), bytes(5)),
    "unknown type": safetensors_file(entry([1], [0, 4], "F99"), bytes(4)),
    "type without numbers": safetensors_file(entry([4], [0, 4], "F8_E4M3"), bytes(4)),
    "many tensors": safetensors_file(
        {f"{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(30_000)}
    ),
}


@pytest.mark.parametrize("case", SAFETENSORS)
def test_safetensors_headers(case, tmp_path):
    bounded(tmp_path, SAFETENSORS[case], ".safetensors")


def mutations(content: bytes, count: int, number: int):
    """Copies of a file with bits flipped, bytes replaced or removed, and its end cut off."""
    rng = random.Random(number)
    for _ in range(count):
        changed = bytearray(content)
        at = rng.randrange(len(changed))
        match rng.randrange(5):
            case 0:
                del changed[at:]
            case 1:
                changed[at : at + rng.randrange(1, 9)] = b""
            case 2:
                changed[at : at + 8] = rng.choice([b"\xff" * 8, bytes(8), b"\xff\xff\xff\x7f"])
            case _:
                for _ in range(rng.choice([1, 1, 1, 3])):
                    changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        yield bytes(changed)


@pytest.mark.filterwarnings("ignore::quantgru.errors.QuantgruWarning")
@pytest.mark.parametrize(
    "name",
    [
        "gru.pt",
        "gru.legacy.pt",
        "gru.safetensors",
        "every_step_head.checkpoint.pt",
        "every_step_head.views.pt",
        "half.legacy.pt",
        "gru.module.pt",
    ],
)
def test_mutated_files(name, tmp_path):
    path = FOLDER / name
    refused = 0
    for content in mutations(path.read_bytes(), 300, 1):
        try:
            load(tmp_path, content, path.suffix, None if name.startswith("gru") else "gru head")
        except (qg.ModelError, qg.DataError, qg.ConfigError):
            refused += 1
    assert refused > 50


@pytest.mark.filterwarnings("ignore::quantgru.errors.QuantgruWarning")
def test_mutated_pickles_in_whole_archives(tmp_path):
    """A zip archive has checksums, which stop nobody who writes one."""
    with zipfile.ZipFile(FOLDER / "bidirectional_stack.pt") as file:
        entries = {name: file.read(name) for name in file.namelist()}
    root = "bidirectional_stack"
    pickled = entries.pop(f"{root}/data.pkl")
    refused = 0
    for content in mutations(pickled, 600, 2):
        try:
            load(tmp_path, archive(content, entries.items(), root))
        except (qg.ModelError, qg.DataError, qg.ConfigError):
            refused += 1
    assert refused > 300


def test_arrays_that_are_none(tmp_path):
    gru = {"weight_ih_l0": np.ones((3, 1)), "weight_hh_l0": np.ones((3, 1))}
    huge = np.broadcast_to(np.float32(1), (10**6, 10**6))
    tracemalloc.start()
    with pytest.raises(qg.ModelError, match="state dict: 1000000000006 elements, allowed are 33554432"):
        qg.load(gru | {"fc.weight": huge})
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    for wrong in (
        {1: np.ones(3)},
        gru | {"weight_hh_l0": "text"},
        gru | {"weight_hh_l0": [[1], [2, 3]]},
        {"a": object()},
    ):
        with pytest.raises(qg.ModelError):
            qg.load(wrong)
