"""`.keras` files, read with zipfile, json and h5py: no Keras, no back end, no code of the file's, nothing unpacked.

A file may be damaged or made to harm: every size is compared with a limit before it is read.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from quantgru.errors import ConfigError, ModelError
from quantgru.importers.chain import Chain, identifier
from quantgru.importers.keras_config import Entry, chain_entries
from quantgru.importers.keras_layers import KerasReader
from quantgru.importers.options import ImportOptions
from quantgru.importers.verify import first_line
from quantgru.model import FloatModel

JSON_LIMIT: Final = 16 << 20
WEIGHTS_LIMIT: Final = 256 << 20  # bytes; a thousand times what a microcontroller holds

_DAMAGED: Final = "the file is damaged, or not one that Keras 3 saved; save it again with model.save(path)"


def load_keras_file(path: Path, options: ImportOptions) -> FloatModel:
    """The float model of a `.keras` file with a Sequential or Functional chain.

    Raises ModelError for everything else, ConfigError where h5py is not installed.
    """
    where = f"Keras file {path}"
    if not path.is_file():
        raise ModelError(
            f"{where}: {'a folder' if path.is_dir() else 'no such file'}; expected a file by model.save(path)"
        )
    config, weights = _members(path, where)
    try:
        return _convert(where, config, weights, options)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OSError, RuntimeError) as error:
        # fields of the configuration that are missing or of another type, groups and data sets likewise
        raise ModelError(f"{where}: {first_line(error)}; {_DAMAGED}") from None


def _convert(where: str, config: Mapping[str, Any], weights: bytes, options: ImportOptions) -> FloatModel:
    h5py = _h5py()
    entries = chain_entries(config["class_name"], config["config"])
    name = str(config["config"]["name"])
    with h5py.File(io.BytesIO(weights), "r") as file:
        reader = KerasReader(Chain(options.softmax), lambda entry: _data_sets(where, file, entry, len(weights)))
        reader.read(entries)
    return reader.chain.model(identifier(name), f"Keras file of model {name}")


def _h5py() -> Any:
    try:
        import h5py
    except ImportError:
        raise ConfigError(
            "reading .keras files needs h5py, which is not installed: pip install quantgru[keras]"
        ) from None
    return h5py


def _members(path: Path, where: str) -> tuple[Mapping[str, Any], bytes]:
    """The configuration and the weights file, checked for size and checksum."""
    try:
        with zipfile.ZipFile(path) as archive:
            metadata = _json(archive, "metadata.json", where)
            version = str(metadata.get("keras_version"))
            if not version.startswith("3."):
                raise ModelError(
                    f"{where}: saved by Keras {version}, supported is Keras 3; load it there and save it again"
                )
            return _json(archive, "config.json", where), _read(archive, "model.weights.h5", WEIGHTS_LIMIT, where)
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
        raise ModelError(f"{where}: not a readable zip archive ({first_line(error)}); {_DAMAGED}") from None


def _read(archive: zipfile.ZipFile, member: str, limit: int, where: str) -> bytes:
    try:
        entry = archive.getinfo(member)
    except KeyError:
        raise ModelError(f"{where}: holds no {member}; {_DAMAGED}") from None
    if entry.file_size > limit:
        raise ModelError(f"{where}: {member} has {entry.file_size} bytes, allowed are {limit}; {_DAMAGED}")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # the others unpack without a bound
        raise ModelError(f"{where}: {member} is packed by method {entry.compress_type}, Keras stores; {_DAMAGED}")
    with archive.open(entry) as file:  # without a size, it would unpack more than the directory declares
        return file.read(entry.file_size)


def _json(archive: zipfile.ZipFile, member: str, where: str) -> Mapping[str, Any]:
    try:
        content = json.loads(_read(archive, member, JSON_LIMIT, where))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{where}: {member} is not JSON ({first_line(error)}); {_DAMAGED}") from None
    if not isinstance(content, dict):
        raise ModelError(f"{where}: {member} is not a JSON object; {_DAMAGED}")
    return content


def _data_sets(where: str, file: Any, entry: Entry, size: int) -> Sequence[Any]:
    """The weights of a layer, not read yet. Keras never declares more than `size`, that of the whole weights file."""
    inner = {"GRU": "cell/vars", "TimeDistributed": "layer/vars"}.get(entry.kind, "vars")
    path = f"layers/{entry.group}/{inner}"
    group = _item(where, file, path)
    saved_name = _item(where, file, f"layers/{entry.group}/vars").attrs.get("name", entry.name)
    if saved_name != entry.name:
        raise ModelError(
            f"{where}: group layers/{entry.group} is of layer {saved_name!r}, not {entry.name!r}; {_DAMAGED}"
        )
    data_sets = [_item(where, file, f"{path}/{i}") for i in range(len(group))]
    for data_set in data_sets:
        if data_set.external or data_set.is_virtual or data_set.nbytes > size:
            raise ModelError(
                f"{where}: weights {data_set.name} {data_set.shape} are not in the file that declares them; {_DAMAGED}"
            )
        if data_set.chunks:  # a chunk is unpacked whole, however large
            raise ModelError(
                f"{where}: weights {data_set.name} are compressed in chunks, Keras writes them whole; {_DAMAGED}"
            )
    return data_sets


def _item(where: str, file: Any, path: str) -> Any:
    """A group or data set that is in this very file: links that lead out of it are not followed."""
    item = file
    for part in path.split("/"):
        link = item.get(part, getlink=True) if hasattr(item, "keys") else None
        if type(link).__name__ != "HardLink":
            raise ModelError(f"{where}: weights {path!r} are missing; {_DAMAGED}")
        item = item[part]
    return item
