"""`.keras` archives made to harm: refused with what was found, in little time and memory."""

from __future__ import annotations

import json
import os
import re
import stat
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import quantgru as qg

SOURCE = Path(__file__).parent / "models" / "stack.keras"
with zipfile.ZipFile(SOURCE) as _archive:
    MEMBERS = {name: _archive.read(name) for name in _archive.namelist()}

SECONDS, MEMORY = 5.0, 200 << 20


def refusal(path: Path) -> str:
    """What is said, within the limits."""
    tracemalloc.start()
    start = time.perf_counter()
    with pytest.raises(qg.ModelError) as caught:
        qg.load(path)
    assert time.perf_counter() - start < SECONDS
    assert tracemalloc.get_traced_memory()[1] < MEMORY
    tracemalloc.stop()
    text = str(caught.value).replace(str(path), "")
    assert "\n" not in text
    assert len(text) <= 400
    return text


def write(path: Path, members: list[tuple[str, bytes]], **options: int) -> None:
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in members:
            archive.writestr(name, content)


def renamed(path: Path, prefix: str) -> None:
    write(path, [(prefix + name, content) for name, content in MEMBERS.items()])


def with_more(path: Path, *names: str) -> None:
    write(path, [*MEMBERS.items(), *((name, b"") for name in names)])


def with_configuration(path: Path, config: bytes) -> None:
    write(path, [*(MEMBERS | {"config.json": config}).items()])


def with_link(path: Path) -> None:
    link = zipfile.ZipInfo("model.weights.h5")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    write(path, [(name, MEMBERS[name]) for name in ("metadata.json", "config.json")])
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc/hostname")


def with_twice(path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        with_more(path, "config.json")


def with_zeros(path: Path, member: str, size: int) -> None:
    """Zeros that are packed into a thousandth of their size."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in MEMBERS.items():
            with archive.open(name, "w") as file:
                for _ in range(size >> 20 if name == member else 0):
                    file.write(bytes(1 << 20))
                file.write(content)


def with_hole(path: Path) -> None:
    """8 GiB, of which the disk holds only the archive at the end."""
    with open(path, "wb") as file:
        file.seek(8 << 30)
        file.write(SOURCE.read_bytes())


def sequential(layers: list[object]) -> bytes:
    return json.dumps({"class_name": "Sequential", "config": {"name": "m", "layers": layers}}).encode()


def models_in_models(depth: int) -> bytes:
    text = b'{"class_name": "Sequential", "config": {"name": "m", "layers": ['
    return text * depth + b"]}}" * depth


def merges_of_merges(count: int) -> bytes:
    """Each Add merges the one before with itself: followed without thought, these are 2 ** count layers."""
    first = {"class_name": "InputLayer", "config": {"name": "a0", "batch_shape": [None, None, 3]}}
    layers = [first] + [
        {"class_name": "Add", "config": {"name": f"a{i}"}, "inbound_nodes": [[[f"a{i - 1}", 0, 0]] * 2]}
        for i in range(1, count)
    ]
    ends = {"input_layers": [["a0", 0, 0]], "output_layers": [[f"a{count - 1}", 0, 0]]}
    return json.dumps({"class_name": "Functional", "config": {"name": "m", "layers": layers, **ends}}).encode()


DROPOUT = {"class_name": "Dropout", "config": {"name": "d"}}

HOSTILE: dict[str, tuple[Callable[[Path], None], str]] = {
    "absolute": (lambda path: renamed(path, "/"), "member '/metadata.json' leads out of the archive"),
    "parent": (lambda path: renamed(path, "../"), "member '../metadata.json' leads out of the archive"),
    "parent of another": (lambda path: with_more(path, "assets/../../x"), "'assets/../../x' leads out of"),
    "parent, of Windows": (lambda path: with_more(path, r"..\x"), "leads out of the archive"),
    "folder": (lambda path: renamed(path, "model/"), "holds no metadata.json"),
    "link": (with_link, "member 'model.weights.h5' is a link"),
    "twice": (with_twice, "member 'config.json' is there 2 times"),
    "name of two lines": (lambda path: with_more(path, "/a\nb"), r"member '/a\\nb' leads out of"),
    "many members": (
        lambda path: with_more(path, *(f"{i}" for i in range(30_000))),
        "its directory has 1519068 bytes, allowed are 1048576",
    ),
    "long names": (lambda path: with_more(path, *(f"{i}" * 9999 for i in range(200))), "its directory has"),
    "bomb in the configuration": (
        lambda path: with_zeros(path, "config.json", 1 << 28),
        "config.json has 26844.* bytes, allowed are 16777216",
    ),
    "bomb in the weights": (
        lambda path: with_zeros(path, "model.weights.h5", 250 << 20),
        "model.weights.h5 has 2621.* bytes, allowed are 2",
    ),
    "hole": (with_hole, "8589[0-9]* bytes, allowed are 301989888"),
    "many layers": (lambda path: with_configuration(path, sequential([DROPOUT] * 99_999)), "99999 layers, allowed"),
    "deep lists": (lambda path: with_configuration(path, b"[" * 10**6), "RecursionError|not JSON"),
    "deep models": (lambda path: with_configuration(path, models_in_models(500)), "RecursionError"),
    "models without layers": (lambda path: with_configuration(path, models_in_models(100)), "no GRU layer"),
    "merges of merges": (lambda path: with_configuration(path, merges_of_merges(200)), r"merges what layer 'a198'"),
    "long number": (lambda path: with_configuration(path, b"9" * 10**6), "4300 digits"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives(tmp_path, name):
    make, message = HOSTILE[name]
    make(tmp_path / "model.keras")
    text = refusal(tmp_path / "model.keras")
    assert re.search(message, text), text


def test_what_is_no_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.keras")
    os.symlink("/dev/zero", tmp_path / "zeros.keras")
    assert "no such file" in refusal(tmp_path / "pipe.keras")
    assert "no such file" in refusal(tmp_path / "zeros.keras")


def test_an_archive_that_was_packed_again_is_read(tmp_path):
    write(tmp_path / "model.keras", list(MEMBERS.items()), compression=zipfile.ZIP_DEFLATED)
    assert len(qg.load(tmp_path / "model.keras").layers) == len(qg.load(SOURCE).layers)
