"""Mutated model files for the importers: a model or one of our errors may come of them, in bounded time and memory.

A flipped byte seldom gets past the checksums of a container. So archives are opened, a member is changed, and they are
packed again; JSON and protocol buffers are changed by value as well as by byte.
"""

from __future__ import annotations

import io
import json
import random
import resource
import signal
import time
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from test_float_structure import every_kind

from quantgru.errors import ConfigError, DataError, ModelError, QuantgruWarning
from quantgru.importers import load

MODELS = Path(__file__).parent / "models"
SECONDS_A_FILE = 20  # beyond, a reader is said to hang

# Of files that hold weights only, by the start of their name: what the user would say.
CHAINS = {"every_step_head": "gru head", "bidirectional": "gru head", "stack": "gru last head"}
SOURCES = (".keras", ".h5", ".onnx", ".pt", ".safetensors", ".pb", ".npz", ".qgf")

NUMBERS = (0, 1, -1, 2, 255, 2**15, 2**31 - 1, 2**31, 2**40, 2**62, -(2**31), 0.5, 1e300)
TEXTS = ("", "x", "../../x", "/etc/passwd", "\x00", "a" * 5000, "GRU", "LSTM", "float32")
JSON_VALUES = (*NUMBERS, *TEXTS, None, True, False, [], {}, [[]], [None, None], {"class_name": "GRU"})


def seed_files(suffix: str, folder: Path) -> list[Path]:
    """Valid files of one type: those that frameworks wrote, or made here in `folder` where the type is ours."""
    if suffix == ".npz":
        rng = np.random.default_rng(0)
        shapes = {"weight_ih": (9, 2), "weight_hh": (9, 3), "bias_ih": (9,), "bias_hh": (9,)}
        arrays = {name: rng.normal(size=shape) for name, shape in shapes.items()}
        for packed, save in (("stored", np.savez), ("deflated", np.savez_compressed)):
            save(folder / f"{packed}.npz", convention="pytorch", **arrays)
    if suffix == ".qgf":
        every_kind().save(folder / "every_kind.qgf")
    if suffix in (".npz", ".qgf"):
        return sorted(folder.glob(f"*{suffix}"))
    return sorted(path for path in MODELS.rglob(f"*{suffix}") if path.stat().st_size < 100_000)


def options_of(path: Path) -> dict[str, str]:
    """What a user would say of a file."""
    if path.suffix in (".npz", ".qgf"):
        return {}
    chain = CHAINS.get(path.name.split(".")[0])
    weights_only = path.suffix in (".pt", ".safetensors") or path.name.endswith(".weights.h5")
    return {"softmax": "logits"} | ({"chain": chain} if weights_only and chain else {})


# ---- mutations -----------------------------------------------------------------------------------------------------


def mutate(content: bytes, suffix: str, rng: random.Random) -> bytes:
    """A changed copy of a file."""
    deep = {".keras": _archive, ".npz": _archive, ".pt": _archive, ".safetensors": _safetensors, ".qgf": _safetensors}
    deep |= {".onnx": _onnx, ".pb": _graph}
    if suffix in deep and rng.random() < 0.75:
        return deep[suffix](content, rng)
    return mutate_bytes(content, rng)


def mutate_bytes(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        if not changed:
            break
        at = rng.randrange(len(changed))
        size = min(rng.choice((1, 2, 4, 8, 64)), len(changed) - at)
        match rng.randrange(7):
            case 0:
                changed[at] ^= 1 << rng.randrange(8)
            case 1:
                changed[at : at + size] = rng.randbytes(size)
            case 2:
                changed[at : at + size] = rng.choice((b"\x00", b"\xff", b"\x7f", b"\x80")) * size
            case 3:
                del changed[at : at + size]
            case 4:
                changed[at:at] = changed[at : at + size] * rng.choice((1, 2, 9))
            case 5:
                del changed[at:]
            case _:
                other = rng.randrange(len(changed))
                changed[at : at + size] = changed[other : other + size]
    return bytes(changed)


def mutate_json(text: bytes, rng: random.Random) -> bytes:
    """JSON with some of its values changed, or its bytes, where it is none."""
    try:
        root = [json.loads(text)]
    except ValueError:
        return mutate_bytes(text, rng)
    for _ in range(rng.choice((1, 1, 2, 4))):
        places = list(_places(root))
        container, key = rng.choice(places)
        match rng.randrange(4):
            case 0 if isinstance(container, dict):
                del container[key]
            case 1:
                container[key] = rng.choice([other[name] for other, name in places])
            case _:
                container[key] = rng.choice(JSON_VALUES)
    try:
        return json.dumps(root[0]).encode()
    except (ValueError, RecursionError):  # a value was put inside itself
        return mutate_bytes(text, rng)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) inside a JSON value."""
    pending, seen = [value], set()  # a mutation may have put a value inside itself
    while pending:
        container = pending.pop()
        seen.add(id(container))
        for key in container if isinstance(container, dict) else range(len(container)):
            yield container, key
            if isinstance(container[key], (dict, list)) and id(container[key]) not in seen:
                pending.append(container[key])


def _archive(content: bytes, rng: random.Random) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    except zipfile.BadZipFile:
        return mutate_bytes(content, rng)
    at = rng.randrange(len(members))
    name, data = members[at]
    match rng.randrange(8):
        case 0:
            members[at] = (rng.choice((*TEXTS[1:4], f"{name}/x")), data)
        case 1:
            del members[at]
        case 2:
            members.append((rng.choice(members)[0], data))
        case _:
            members[at] = (name, mutate_json(data, rng) if name.endswith(".json") else mutate_bytes(data, rng))
    packed = io.BytesIO()
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(packed, "w") as archive:  # duplicate names
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name), data)
    return packed.getvalue()


def _safetensors(content: bytes, rng: random.Random) -> bytes:
    """The header is JSON behind its length; within quantgru's files, its metadata are JSON in a text."""
    length = int.from_bytes(content[:8], "little")
    header, data = content[8 : 8 + length], content[8 + length :]
    try:
        parsed = json.loads(header)
        inner = parsed["__metadata__"]["quantgru"]
    except (ValueError, KeyError):
        inner = None
    if inner is not None and rng.random() < 0.7:
        parsed["__metadata__"]["quantgru"] = mutate_json(inner.encode(), rng).decode(errors="replace")
        header = json.dumps(parsed).encode()
    elif rng.random() < 0.3:
        data = mutate_bytes(data, rng)
    else:
        header = mutate_json(header, rng)
    return len(header).to_bytes(8, "little") + header + data


def _onnx(content: bytes, rng: random.Random) -> bytes:
    import onnx

    return _message(onnx.ModelProto.FromString(content), content, rng)


def _graph(content: bytes, rng: random.Random) -> bytes:
    from quantgru.importers.tensorflow1_messages import GraphDef

    return _message(GraphDef.FromString(content), content, rng)


def _message(message: Any, content: bytes, rng: random.Random) -> bytes:
    """A protocol buffer with some of its values changed."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        places = list(_fields(message))
        if not places:
            break
        owner, descriptor = rng.choice(places)
        try:
            _change(owner, descriptor, rng)
        except (TypeError, ValueError):  # a value of another type, or out of the field's range
            return mutate_bytes(content, rng)
    return bytes(message.SerializeToString())


def _fields(message: Any) -> Iterator[tuple[Any, Any]]:
    pending = [message]
    while pending:
        owner = pending.pop()
        for descriptor, value in owner.ListFields():
            yield owner, descriptor
            if descriptor.type == descriptor.TYPE_MESSAGE and not _is_map(descriptor):
                pending += value if _repeated(descriptor) else [value]
            elif _is_map(descriptor):
                pending += [entry for entry in value.values() if hasattr(entry, "ListFields")]


def _is_map(descriptor: Any) -> bool:
    return descriptor.message_type is not None and descriptor.message_type.GetOptions().map_entry


def _repeated(descriptor: Any) -> bool:
    return bool(
        getattr(descriptor, "is_repeated", None) if hasattr(descriptor, "is_repeated") else descriptor.label == 3
    )


def _change(owner: Any, descriptor: Any, rng: random.Random) -> None:
    value = getattr(owner, descriptor.name)
    if _is_map(descriptor):
        value.pop(rng.choice(list(value)))
    elif _repeated(descriptor):
        at = rng.randrange(len(value))
        if descriptor.type == descriptor.TYPE_MESSAGE:
            value.append(value[at]) if rng.random() < 0.5 else value.__delitem__(at)
        else:
            value[at] = _other(value[at], rng)
    elif descriptor.type == descriptor.TYPE_MESSAGE or rng.random() < 0.2:
        owner.ClearField(descriptor.name)
    else:
        setattr(owner, descriptor.name, _other(value, rng))


def _other(value: Any, rng: random.Random) -> Any:
    if isinstance(value, bytes):
        return mutate_bytes(value, rng) if value and len(value) < 10_000 else rng.randbytes(rng.choice((0, 1, 4, 400)))
    if isinstance(value, str):
        return rng.choice(TEXTS)
    return rng.choice(NUMBERS)


# ---- a run ---------------------------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """Of all mutated files of one type."""

    n: int = 0
    loaded: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    grown_mib: float = 0.0


def fuzz(suffix: str, n: int, folder: Path, seed: int = 0, progress: Callable[[], None] = lambda: None) -> Outcome:
    """Loads `n` mutated files of one type, written to `folder`; those that break the rules stay there."""
    rng, outcome = random.Random(f"{seed}{suffix}"), Outcome()
    seeds = [(path, path.read_bytes()) for path in seed_files(suffix, folder)]
    valid = Outcome()
    for path, _ in seeds:  # also so that what the libraries themselves take is not counted
        _load(path, path, valid)
    assert valid.loaded > valid.n / 2, f"{suffix}: {valid}"  # some are there to be refused
    before = _peak_mib()
    for i in range(n):
        original, content = rng.choice(seeds)
        path = folder / f"{i}_{original.name}"
        path.write_bytes(mutate(content, suffix, rng))
        _load(path, original, outcome)
        if not outcome.failures or outcome.failures[-1].split(":")[0] != path.name:
            path.unlink()
        progress()
    outcome.grown_mib = _peak_mib() - before
    return outcome


def _load(path: Path, original: Path, outcome: Outcome) -> None:
    start = time.monotonic()
    outcome.n += 1
    try:
        with _deadline(), warnings.catch_warnings():
            warnings.simplefilter("ignore", QuantgruWarning)
            load(path, **options_of(original))
        outcome.loaded += 1
    except (ModelError, DataError, ConfigError) as error:
        outcome.refused[type(error).__name__] += 1
        if "\n" in str(error):
            outcome.failures.append(f"{path.name}: an error of several lines: {error}")
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        outcome.failures.append(f"{path.name}: {''.join(traceback.format_exception(error)[-4:])}")
    outcome.slowest_s = max(outcome.slowest_s, time.monotonic() - start)


@contextmanager
def _deadline() -> Iterator[None]:
    def expired(*_: object) -> None:
        raise TimeoutError(f"not read within {SECONDS_A_FILE} s")

    previous = signal.signal(signal.SIGALRM, expired)
    signal.alarm(SECONDS_A_FILE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
