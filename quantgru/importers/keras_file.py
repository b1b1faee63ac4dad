"""`.keras` files, read with zipfile and json: no Keras, no back end, no code of the file's, nothing unpacked.

A file may be damaged or made to harm: every size is compared with a limit before it is read.
"""

from __future__ import annotations

import io
import json
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final

from quantgru.errors import ModelError
from quantgru.importers.chain import Chain, identifier
from quantgru.importers.keras_arguments import plain, shown
from quantgru.importers.keras_config import read_config
from quantgru.importers.keras_entries import Entry, group_names
from quantgru.importers.keras_hdf5 import (
    DAMAGED,
    WEIGHTS_LIMIT,
    WeightsFile,
    keras_version,
    open_weights,
)
from quantgru.importers.keras_layers import KerasReader
from quantgru.importers.options import ImportOptions
from quantgru.importers.verify import first_line
from quantgru.model import FloatModel

JSON_LIMIT: Final = 16 << 20
FILE_LIMIT: Final = WEIGHTS_LIMIT + 2 * JSON_LIMIT
DIRECTORY_LIMIT: Final = 1 << 20  # bytes; Keras writes three members, and one for each file of its assets
RATIO_LIMIT: Final = 100  # of what is larger than JSON_LIMIT; Keras does not pack at all


def load_keras_file(path: Path, options: ImportOptions) -> FloatModel:
    """The float model of a `.keras` file with a Sequential or Functional chain. Raises ModelError for all else."""
    where = f"Keras file {path}"
    size = path.stat().st_size
    if size > FILE_LIMIT:
        raise ModelError(f"{where}: {size} bytes, allowed are {FILE_LIMIT}; give the live model to qg.load")
    version, content, weights = _members(path, where)
    with open_weights(where, weights) as file:
        config = read_config(content["class_name"], content["config"])
        reader = KerasReader(Chain(options.softmax), lambda entry: _data_sets(file, entry), version)
        reader.read(config.entries)
        return reader.chain.model(identifier(config.name), f"Keras file of model {plain(config.name)}")


def _data_sets(file: WeightsFile, entry: Entry) -> list[Any]:
    """The weights of a layer, not read yet."""
    owner = f"{entry.group}/vars"
    if file.has(owner, "name") and file.text(owner, "name") != entry.name:  # some versions of Keras wrote none
        found = shown(file.text(owner, "name"))
        raise ModelError(f"{file.where}: {entry.group} is of layer {found}, not {shown(entry.name)}; {DAMAGED}")
    paths = [f"{entry.group}/{part}vars" for part in _parts(entry.kind, entry.config, entry.inner)]
    return [file.data_set(f"{path}/{i}") for path in paths for i in range(len(file.keys(path)))]


def _parts(kind: str, config: Mapping[str, Any], inner: str) -> list[str]:
    """Where in its group the weights of a layer are, in the order in which the layer itself gives them."""
    match kind:
        case "GRU":
            return ["cell/"]
        case "RNN":
            cell = config["cell"]
            if cell["class_name"] != "StackedRNNCells":
                return ["cell/"]
            kinds = [inner_cell["class_name"] for inner_cell in cell["config"]["cells"]]
            return [f"cell/cells/{name}/" for name in group_names(kinds)]
        case "Bidirectional":
            inside = _parts(config["layer"]["class_name"], config["layer"]["config"], "")
            return [f"{direction}_layer/{part}" for direction in ("forward", "backward") for part in inside]
    return [inner]


def _members(path: Path, where: str) -> tuple[int, Mapping[str, Any], bytes]:
    """Keras 2 or 3, the configuration and the weights file, checked for size and checksum."""
    try:
        with _Archive(path) as file, zipfile.ZipFile(file) as archive:
            file.opened = True
            _refuse_strange_members(archive, where)
            version = keras_version(where, str(_json(archive, "metadata.json", where).get("keras_version")))
            config = _json(archive, "config.json", where)
            return version, config, _read(archive, "model.weights.h5", WEIGHTS_LIMIT, where)
    except ModelError:
        raise
    except (
        OSError,
        EOFError,
        ValueError,
        RuntimeError,
        NotImplementedError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:  # RuntimeError: encrypted; NotImplementedError: packed in a way that Keras does not use
        raise ModelError(f"{where}: not a readable zip archive ({first_line(error)}); {DAMAGED}") from None


class _Archive(io.FileIO):
    """A file whose directory of members is not read if it is too large: zipfile keeps all of it in memory."""

    opened = False

    def read(self, size: int | None = -1) -> bytes:
        if not self.opened and size is not None and size > DIRECTORY_LIMIT:
            raise zipfile.BadZipFile(f"its directory has {size} bytes, allowed are {DIRECTORY_LIMIT}")
        return super().read(-1 if size is None else size)


def _refuse_strange_members(archive: zipfile.ZipFile, where: str) -> None:
    """Raises ModelError for members that another program might unpack to another place than here, or not at all."""
    counts = Counter(archive.namelist())
    for entry in archive.infolist():
        path, found = PurePosixPath(entry.filename.replace("\\", "/")), ""
        if path.is_absolute() or ".." in path.parts:
            found = "leads out of the archive"
        elif stat.S_ISLNK(entry.external_attr >> 16):
            found = "is a link"
        elif counts[entry.filename] > 1:
            found = f"is there {counts[entry.filename]} times"
        if found:
            raise ModelError(f"{where}: member {shown(entry.filename)} {found}; {DAMAGED}")


def _read(archive: zipfile.ZipFile, member: str, limit: int, where: str) -> bytes:
    try:
        entry = archive.getinfo(member)
    except KeyError:
        raise ModelError(f"{where}: holds no {member}; {DAMAGED}") from None
    limit = min(limit, max(JSON_LIMIT, RATIO_LIMIT * entry.compress_size))
    if entry.file_size > limit:
        raise ModelError(f"{where}: {member} has {entry.file_size} bytes, allowed are {limit}; {DAMAGED}")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # the others unpack without a bound
        raise ModelError(f"{where}: {member} is packed by method {entry.compress_type}, Keras stores; {DAMAGED}")
    with archive.open(entry) as file:  # without a size, it would unpack more than the directory declares
        return file.read(entry.file_size)


def _json(archive: zipfile.ZipFile, member: str, where: str) -> Mapping[str, Any]:
    try:
        content = json.loads(_read(archive, member, JSON_LIMIT, where))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{where}: {member} is not JSON ({first_line(error)}); {DAMAGED}") from None
    if not isinstance(content, dict):
        raise ModelError(f"{where}: {member} is not a JSON object; {DAMAGED}")
    return content
