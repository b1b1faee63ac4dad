"""HDF5 files of h5py, read without it: h5py itself says what is in them, and damage never gets beyond an error."""

from __future__ import annotations

import io
import random
import re
import struct
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantgru.errors import ModelError
from quantgru.importers.hdf5 import DataSet, Group, Hdf5File, Link
from quantgru.importers.keras_hdf5 import open_weights

h5py = pytest.importorskip("h5py", reason="h5py is not installed: pip install h5py")

MODELS = Path(__file__).parent / "models"
FILES = sorted([*MODELS.rglob("*.h5")])


def texts(value):
    """An attribute of h5py as a list of str."""
    values = np.ravel(value).tolist() if isinstance(value, np.ndarray) else [value]
    return [item.decode() if isinstance(item, bytes) else item for item in values]


def assert_same(expected, found, file: Hdf5File) -> int:
    """Everything below a group is the same; returns how many things were compared."""
    n = 1
    for name, value in expected.attrs.items():
        is_list = isinstance(value, np.ndarray)
        if texts(value) and not isinstance(texts(value)[0], str):
            continue
        assert (found.texts(name) if is_list else [found.text(name)]) == texts(value), name
    if not isinstance(expected, h5py.Group):
        assert isinstance(found, DataSet)
        assert (found.shape, found.nbytes) == (expected.shape, expected.nbytes)
        assert found.dtype == expected.dtype
        assert np.array_equal(found[()], expected[()])
        return n
    assert isinstance(found, Group)
    assert set(found.members) == set(expected)
    for name in expected:
        n += assert_same(expected[name], file.object_at(found.members[name]), file)
    return n


def written(fill, **options) -> bytes:
    stream = io.BytesIO()
    with h5py.File(stream, "w", **options) as file:
        fill(file)
    return stream.getvalue()


def check(content: bytes) -> int:
    file = Hdf5File(content)
    with h5py.File(io.BytesIO(content), "r") as expected:
        return assert_same(expected, file.root, file)


@pytest.mark.parametrize("path", FILES, ids=[path.name for path in FILES])
def test_files_of_keras(path):
    assert check(path.read_bytes()) > 5


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f2", ">f4", ">f8", "i1", "u1", "i4", ">i8", "u8"])
@pytest.mark.parametrize("shape", [(), (1,), (3, 4), (2, 0), (2, 1, 3)])
def test_numbers(dtype, shape):
    values = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    assert check(written(lambda file: file.create_dataset("group/values", data=values))) == 3


def test_groups_of_many_members_and_objects_of_many_attributes():
    def fill(file):
        for i in range(700):  # more than two levels of a tree hold
            file.create_group(f"layers/layer_{i}").attrs["name"] = f"name {i}"
        for i in range(60):  # more than one block of an object header holds
            file.attrs[f"attribute {i}"] = "x" * 50 * i
        file["layers/layer_3"].attrs.create("names", ["a", "bc", ""], dtype="S7")
        file["layers/layer_3"].attrs["more names"] = [f"weight {i}" for i in range(3000)]
        file["layers/layer_3"].attrs["long"] = "ä" * 200_000

    assert check(written(fill)) == 702


names = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="/."), min_size=1, max_size=9)
words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=9)
values = st.one_of(words, st.lists(words, min_size=1, max_size=5))
trees = st.recursive(
    st.tuples(st.sampled_from(["f4", "f8", "i4"]), st.lists(st.integers(0, 4), max_size=3)),
    lambda inner: st.tuples(st.dictionaries(names, inner, max_size=12), st.dictionaries(names, values, max_size=4)),
    max_leaves=20,
)


@settings(max_examples=40)
@given(st.dictionaries(names, trees, max_size=12))
def test_trees(tree):
    def fill(group, members):
        for name, member in members.items():
            if isinstance(member[0], str):
                group.create_dataset(
                    name, data=np.arange(np.prod(member[1], dtype=int)).reshape(member[1]).astype(member[0])
                )
            else:
                inner = group.create_group(name)
                for key, value in member[1].items():
                    inner.attrs[key] = value
                fill(inner, member[0])

    assert check(written(lambda file: fill(file, tree))) >= 1 + len(tree)


def refusal(content: bytes, path: str = "values") -> str:
    with pytest.raises(ModelError) as caught, open_weights("File x", content) as file:
        file.data_set(path)
    text = str(caught.value)
    assert "\n" not in text
    assert "damaged" in text
    return text


def test_links_are_seen_and_not_followed():
    def fill(file):
        file["here"] = h5py.SoftLink("/values")
        file["values"] = np.zeros(3)
        file["again"] = file["values"]

    members = Hdf5File(written(fill)).root.members
    assert isinstance(members["here"], Link)
    assert members["again"] == members["values"]
    assert "are missing" in refusal(written(fill), "here")
    outside = written(lambda file: file.__setitem__("values", h5py.ExternalLink("other.h5", "/secret")))
    assert "a group in the newer form" in refusal(outside)


def virtual(file):
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "values", (4,))
    file.create_virtual_dataset("values", layout)


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (
            lambda file: file.create_dataset("values", shape=(4,), dtype="f4", chunks=(2,)),
            "data are in chunks or virtual",
        ),
        (lambda file: file.create_dataset("values", data=np.zeros(9), compression="gzip"), "in chunks or virtual"),
        (
            lambda file: file.create_dataset("values", shape=(4,), dtype="f8", external=[("/etc/hostname", 0, 32)]),
            "another file",
        ),
        (virtual, "damaged"),  # written in version 4 of the layout, or as a new group
        (lambda file: file.create_dataset("values", shape=(4,), dtype="f4"), "18446744073709551615"),  # never written
        (lambda file: file.create_dataset("values", shape=(10**9, 10**9), dtype="f8"), "more than the"),
        (lambda file: file.create_group("values"), "'values' are a group, expected numbers"),
        (
            lambda file: file.create_group("values", track_order=True),
            "object header of version 79, h5py writes version 1",
        ),
        (lambda file: file.create_group("größe"), "for names that are not plain ASCII"),
        (lambda file: file.__setitem__("values", np.dtype("f4")), "neither a group nor a data set"),
    ],
)
def test_what_keras_does_not_write(fill, message):
    assert message in refusal(written(fill))


def test_newer_formats():
    text = refusal(written(lambda file: file.create_group("values"), libver="latest"))
    assert "HDF5 superblock of version 3, h5py writes version 0" in text


@pytest.mark.parametrize("content", [b"", b"\x89HDF", b"PK\x03\x04" + bytes(99), b"\x89HDF\r\n\x1a\n" + bytes(88)])
def test_foreign_content(content):
    assert "File x: " in refusal(content)


def explore(content: bytes) -> None:
    """Reads everything."""
    with open_weights("File x", content) as file:

        def walk(path: str, depth: int) -> None:
            for name in file.keys(path)[:20]:
                try:
                    file.data_set(f"{path}/{name}".lstrip("/"))[()]
                except ModelError:
                    if depth < 4 and "a group" in str(file._item(f"{path}/{name}".lstrip("/"))):
                        walk(f"{path}/{name}".lstrip("/"), depth + 1)

        walk("", 0)


@pytest.mark.parametrize("path", FILES[:3], ids=[path.name for path in FILES[:3]])
def test_damaged_files(path):
    """Bytes that are changed, cut off or taken from elsewhere in the file."""
    content, generator = path.read_bytes(), random.Random(path.name)
    for _ in range(600):
        changed = bytearray(content)
        for _ in range(generator.choice((1, 1, 3))):
            at = generator.randrange(generator.choice((len(changed), 3000)))
            size = generator.choice((1, 2, 4, 8, 40))
            start = generator.randrange(len(changed))
            filler = [b"\xff" * size, bytes(size), generator.randbytes(size), bytes(changed[start : start + size])]
            changed[at : at + size] = generator.choice(filler)
        if generator.random() < 0.1:
            del changed[generator.randrange(len(changed)) :]
        try:
            explore(bytes(changed))
        except ModelError as error:
            assert "\n" not in str(error)  # noqa: PT017


def tree_that_leads_to_itself() -> bytes:
    """The tree of the outermost group has 65,535 children, each of which is the tree."""
    content = written(lambda file: file.create_group("a"))
    tree, here = content.index(b"TREE"), len(content)
    content = content.replace(struct.pack("<Q", tree), struct.pack("<Q", here))
    return content + content[tree : tree + 6] + struct.pack(f"<H16x{2 * 65535}Q", 65535, *([0, here] * 65535))


def texts_that_are_one() -> bytes:
    """A list of 300 texts, each of which is the same one of 1 MB."""
    content = written(lambda file: file.attrs.create("names", ["x" * (1 << 20)] + [f"y{i}" for i in range(299)]))
    collections = [struct.pack("<IQ", 1 << 20, match.start()) for match in re.finditer(b"GCOL", content)]
    at = next(content.index(reference) for reference in collections if reference in content)
    return content[:at] + content[at : at + 16] * 300 + content[at + 4800 :]


def headers_that_continue_in_one_another() -> bytes:
    """65,535 messages of 64 kB, all in the same bytes."""
    content = bytearray(written(lambda file: file.create_group("a")))
    more = struct.pack("<HHxxxxQQ", 16, 16, len(content), 15 * 65536 + 24)
    struct.pack_into("<HIIxxxx24s", content, 96 + 2, 65535, 1, 24, more)
    return bytes(content) + (struct.pack("<HHxxxx", 99, 65528) + bytes(65528)) * 15 + more


def read_everything(content: bytes) -> None:
    with open_weights("File x", content) as file:
        file.texts("", "names")
        file.keys("")


@pytest.mark.parametrize("make", [tree_that_leads_to_itself, texts_that_are_one, headers_that_continue_in_one_another])
def test_time_and_memory_have_bounds(make):
    content = make()
    start = time.perf_counter()
    with pytest.raises(ModelError, match="or they lead in a circle"):
        read_everything(content)
    assert time.perf_counter() - start < 10
    tracemalloc.start()
    with pytest.raises(ModelError):
        read_everything(content)
    assert tracemalloc.get_traced_memory()[1] < 256 << 20
    tracemalloc.stop()
