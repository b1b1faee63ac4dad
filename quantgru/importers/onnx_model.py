"""The ModelProto of an ONNX file: recognised, of a bounded size, with its own functions written out.

What it says is checked in `onnx_graph`. A file may be damaged or made to harm: nothing is done in proportion to a
number that the file only claims.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from quantgru.errors import ConfigError, ModelError
from quantgru.importers.onnx_external import read_external_data
from quantgru.importers.verify import first_line

FILE_LIMIT: Final = 256 << 20  # bytes; a thousand times what a microcontroller holds
NODE_LIMIT: Final = 100_000
OLDEST_OPSET: Final = 7  # before, GRU has other attributes

DAMAGED: Final = "the file is damaged, or was never checked; export it again, and try onnx.checker.check_model"
_OTHERS: Final = {  # by their first bytes
    b"PK\x03\x04": "a zip archive, as .keras, .pt and .npz are; give it the suffix that it had",
    b"\x89HDF": "an HDF5 file; give it the suffix .h5",
    b"\x80": "a pickle, which can run code; save a state dict, as .pt or .safetensors",
    b"version https://git-lfs": "a pointer of Git LFS to one; fetch the file itself: git lfs pull",
}


def onnx_package() -> Any:
    """The package. Raises ConfigError where it is not installed."""
    try:
        import onnx
        import onnx.inliner
    except ImportError:
        raise ConfigError(
            "reading .onnx files needs onnx, which is not installed: pip install quantgru[onnx]"
        ) from None
    return onnx


def read_model(path: Path, onnx: Any) -> tuple[Any, int, int]:
    """The ModelProto of a file, the opset of its operators, and how many bytes it and the files beside it are.

    Raises ModelError where the file is none, or is too large.
    """
    size = path.stat().st_size
    if size > FILE_LIMIT:
        raise ModelError(f"{size} bytes, allowed are {FILE_LIMIT}")
    with open(path, "rb") as file:
        content = file.read(size)  # and no more, should it grow
    model = _model(content, onnx)
    n_external_bytes = read_external_data(model, path, FILE_LIMIT)
    opset = _opset(model, onnx.defs.onnx_opset_version())
    if model.functions:
        model = _inlined(model, onnx)
    n_nodes = sum(1 for _ in every_node(model.graph.node))
    if n_nodes > NODE_LIMIT:
        raise ModelError(f"{n_nodes} nodes, allowed are {NODE_LIMIT}")
    return model, opset, len(content) + n_external_bytes


def _model(content: bytes, onnx: Any) -> Any:
    """The ModelProto. Raises ModelError where the content is none."""
    if not content:
        raise ModelError("an empty file; export the model again")
    for first_bytes, found in _OTHERS.items():
        if content.startswith(first_bytes):
            raise ModelError(f"not an ONNX model, but {found}")
    try:
        model = onnx.ModelProto.FromString(content)
    except Exception:  # google.protobuf.message.DecodeError, which may be in another place in another version
        model = None
    if model is None or not (model.graph.node or model.opset_import):
        raise ModelError("not an ONNX model; it is damaged, or another file with the suffix .onnx; export it again")
    return model


def _opset(model: Any, newest: int) -> int:
    versions = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
    version = versions.get("ai.onnx", 0)
    if not OLDEST_OPSET <= version <= newest:
        found = f"opset {version}" if version else "no version of ONNX's operators"
        update = f", or update onnx, whose newest is {newest}" if version > newest else ""
        raise ModelError(
            f"{found}, supported are opsets {OLDEST_OPSET} ... {newest}; export it with such an opset_version{update}"
        )
    return int(version)


def _inlined(model: Any, onnx: Any) -> Any:
    """The model with the bodies of its own functions in place of their calls."""
    n_nodes = _expanded_count(model)
    if n_nodes > NODE_LIMIT:
        raise ModelError(f"{n_nodes} nodes with its functions written out, allowed are {NODE_LIMIT}")
    try:
        return onnx.inliner.inline_local_functions(model)
    except Exception as error:  # of the library, about what the file says
        raise ModelError(f"its functions cannot be written out ({first_line(error)}); {DAMAGED}") from None


def _expanded_count(model: Any) -> int:
    """Nodes after inlining, counted without doing it. Raises ModelError where a function calls itself."""
    functions = {(function.domain, function.name): function for function in model.functions}
    kinds = {key: _kinds(function.node) for key, function in functions.items()}
    counts: dict[tuple[str, str], int] = {}

    def count(kinds: Mapping[tuple[str, str], int]) -> int:
        return sum(counts.get(kind, 1) * times for kind, times in kinds.items())

    for _ in functions:  # each round settles those that call only settled ones; a chain of calls needs one round each
        for key, own in kinds.items():
            if key not in counts and own.keys() & functions.keys() <= counts.keys():
                counts[key] = count(own)
        if len(counts) == len(functions):
            return count(_kinds(model.graph.node))
    raise ModelError(f"functions that call themselves, or two of the same name; {DAMAGED}")


def _kinds(nodes: Iterable[Any]) -> Mapping[tuple[str, str], int]:
    """How often each operator or function occurs."""
    return Counter((node.domain, node.op_type) for node in every_node(nodes))


def every_node(nodes: Iterable[Any]) -> Iterator[Any]:
    """Of a file, with those of the graphs inside of nodes."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from every_node(graph.node)
