"""Weights that PyTorch writes beside an ONNX file, `model.onnx.data`: read from the same folder, and from nowhere else.

A file may be made to harm: what it names must be a plain file next to it, no link and no path, and no more is read than
the file has and the limit allows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from quantgru.errors import ModelError
from quantgru.importers.chain import refuse

_JOIN: Final = "keep the .onnx file beside the .data file that was written with it, or export with external_data=False"


def read_external_data(model: Any, path: Path, limit: int) -> int:
    """Puts data that stand in files beside `path` into the initializers; returns how many bytes they were.

    Raises ModelError where a file is elsewhere, missing or too short, or all together are larger than `limit` bytes.
    """
    total = 0
    for tensor in model.graph.initializer:
        if not tensor.external_data:
            continue
        where = f"tensor {tensor.name[:60]!r}"
        said = {entry.key: entry.value for entry in tensor.external_data}
        beside = _beside(where, path, said.get("location", ""))
        offset, length = _place(where, said, beside)
        total += length
        if total > limit:
            raise ModelError(f"{where}: more than {limit} bytes in files beside it; the limit is {limit}")
        with open(beside, "rb") as file:
            file.seek(offset)
            tensor.raw_data = file.read(length)
        del tensor.external_data[:]
        tensor.ClearField("data_location")
    return total


def _beside(where: str, path: Path, location: str) -> Path:
    """The file of that name in the folder of `path`."""
    plain = location not in ("", ".", "..") and not any(c in location for c in "/\\:\0")
    if not plain:
        raise refuse(where, f"its data are in {location[:60]!r}, which is no file beside the model", _JOIN)
    beside = path.parent / location
    try:
        if beside.is_file() and not beside.is_symlink():
            return beside
    except OSError:  # a name that is too long
        pass
    raise refuse(where, f"its data are in {location[:60]!r}, and there is no such file beside the model", _JOIN)


def _place(where: str, said: dict[str, str], beside: Path) -> tuple[int, int]:
    """Offset and length of a tensor's data, within the file. Raises ModelError."""
    size = beside.stat().st_size
    texts = said.get("offset", "0"), said.get("length", "")
    if not all(len(text) < 20 and ((text.isascii() and text.isdecimal()) or not text) for text in texts):
        raise ModelError(f"{where}: offset {texts[0][:20]!r}, length {texts[1][:20]!r} of its data, expected numbers")
    offset = int(texts[0] or 0)
    length = int(texts[1]) if texts[1] else size - offset
    if length < 0 or offset + length > size:
        raise ModelError(
            f"{where}: bytes {offset} ... {offset + length} of {beside.name!r}, which has {size}; export it again"
        )
    return offset, length
